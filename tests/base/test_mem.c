#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "base/mem.h"

static void products_and_sums(void **state)
{
    (void)state;
    size_t v;
    assert_true(mem_mul(3, 5, &v) && v == 15);
    assert_true(mem_mul(0, SIZE_MAX, &v) && v == 0);
    assert_true(mem_mul(SIZE_MAX, 1, &v) && v == SIZE_MAX);
    assert_false(mem_mul(SIZE_MAX / 2 + 1, 2, &v));
    assert_true(mem_add(SIZE_MAX - 1, 1, &v) && v == SIZE_MAX);
    assert_false(mem_add(SIZE_MAX, 1, &v));
}

static void refuses_impossible_sizes(void **state)
{
    (void)state;
    assert_null(mem_try_alloc(SIZE_MAX / 4 + 1, 8));
    assert_null(mem_try_alloc(SIZE_MAX, 1));
    assert_null(mem_try_zalloc((size_t)PTRDIFF_MAX + 1, 1));
    assert_null(mem_try_aligned(SIZE_MAX));
    assert_null(mem_try_aligned(SIZE_MAX - 62));
    assert_null(mem_try_map(SIZE_MAX));
    assert_null(mem_try_map(PTRDIFF_MAX));
    assert_null(mem_try_strndup("", SIZE_MAX));
    char *p = mem_try_strdup("kept");
    assert_null(mem_try_realloc(p, SIZE_MAX, 2));
    assert_string_equal(p, "kept");
    mem_free(p);
}

static void zero_size_is_a_pointer(void **state)
{
    (void)state;
    void *a = mem_try_alloc(0, 8), *b = mem_try_zalloc(8, 0), *c = mem_try_realloc(NULL, 0, 1);
    void *d = mem_try_aligned(0), *f = mem_must_zalloc(0, 0);
    assert_true(a && b && c && d && f);
    c = mem_try_realloc(c, 0, 0);
    assert_non_null(c);
    mem_free(a);
    mem_free(b);
    mem_free(c);
    mem_free(d);
    mem_free(f);
    mem_free(NULL);
}

static void zeroed_and_aligned(void **state)
{
    (void)state;
    for (size_t n = 1; n < 300; n += 37) {
        unsigned char *p = mem_try_aligned(n), *q = mem_try_zalloc(n, 3);
        assert_int_equal((uintptr_t)p % 64, 0);
        for (size_t i = 0; i < n; i++)
            assert_int_equal(p[i] | q[i] | q[3 * i], 0);
        memset(p, 0xff, n);
        mem_free(p);
        mem_free(q);
    }
}

static void strings(void **state)
{
    (void)state;
    char *a = mem_try_strndup("ab\0cd", 5), *b = mem_try_strndup(NULL, 0);
    assert_memory_equal(a, "ab\0cd", 6);
    assert_string_equal(b, "");
    mem_free(a);
    mem_free(b);
}

static void mappings(void **state)
{
    (void)state;
    const size_t sizes[] = {0, 1, 4096, 4097, (size_t)2 << 20, ((size_t)2 << 20) + 1, (size_t)9 << 20};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        unsigned char *p = mem_try_map(sizes[i]);
        assert_non_null(p);
        assert_int_equal((uintptr_t)p % ((size_t)2 << 20), 0);
        if (sizes[i]) {
            assert_int_equal(p[0] | p[sizes[i] - 1], 0);
            p[0] = p[sizes[i] - 1] = 1;
        }
        /* mincore fails with ENOMEM on pages that are not mapped: all of it must be gone. */
        size_t page = (size_t)sysconf(_SC_PAGESIZE);
        unsigned char in_core;
        assert_int_equal(mincore(p, page, &in_core), 0);
        mem_unmap(p, sizes[i]);
        assert_int_equal(mincore(p, page, &in_core), -1);
        if (sizes[i] > page)
            assert_int_equal(mincore(p + (sizes[i] - 1) / page * page, page, &in_core), -1);
    }
    mem_unmap(NULL, 5);
}

static size_t address_space(void)
{
    unsigned long pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    assert_int_equal(fscanf(f, "%lu", &pages), 1);
    fclose(f);
    return (size_t)pages * (size_t)sysconf(_SC_PAGESIZE);
}

/* What the alignment cuts off is given back, and so is the mapping. */
static void mappings_leave_nothing(void **state)
{
    (void)state;
    size_t before = address_space();
    for (int i = 0; i < 300; i++) {
        void *p = mem_try_map(4096 * (size_t)(1 + i % 3));
        assert_non_null(p);
        mem_unmap(p, 4096 * (size_t)(1 + i % 3));
    }
    assert_true(address_space() < before + ((size_t)64 << 20));
}

static void *other_thread(void *arg)
{
    void *p = mem_try_alloc(1, 1);
    *(bool *)arg = p != NULL && !mem_fault_fired();
    mem_free(p);
    return NULL;
}

static void faults(void **state)
{
    (void)state;
    void *p[3];
    mem_fault_after(2);
    assert_false(mem_fault_fired());
    p[0] = mem_try_alloc(1, 1);
    assert_non_null(p[0]);
    pthread_t t;
    bool unharmed = false;
    pthread_create(&t, NULL, other_thread, &unharmed); /* another thread does not count */
    pthread_join(t, NULL);
    assert_true(unharmed);
    assert_null(mem_try_zalloc(1, 1));
    assert_true(mem_fault_fired());
    p[1] = mem_try_alloc(1, 1); /* once only */
    assert_non_null(p[1]);
    mem_fault_after(1);
    assert_null(mem_try_realloc(p[1], 2, 1));
    mem_fault_after(1);
    assert_null(mem_try_strdup("x"));
    mem_fault_after(1);
    assert_null(mem_try_aligned(1));
    mem_fault_after(1);
    assert_null(mem_try_map(1));
    mem_fault_after(1);
    p[2] = mem_must_zalloc(1, 1); /* must is not injected */
    assert_false(mem_fault_fired());
    mem_fault_after(0);
    void *q = mem_try_alloc(1, 1);
    assert_non_null(q);
    mem_free(q);
    for (int i = 0; i < 3; i++)
        mem_free(p[i]);
}

static void resident_memory(void **state)
{
    (void)state;
    size_t bytes = (size_t)64 << 20, before = mem_rss_bytes();
    assert_true(before > 0 && mem_peak_rss_bytes() >= before);
    char *p = mem_try_map(bytes);
    assert_non_null(p);
    memset(p, 1, bytes);
    size_t during = mem_rss_bytes();
    assert_true(during > before + bytes / 2);
    mem_unmap(p, bytes);
    assert_true(mem_rss_bytes() < during - bytes / 2);
    assert_true(mem_peak_rss_bytes() > before + bytes / 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_and_sums),      cmocka_unit_test(refuses_impossible_sizes),
        cmocka_unit_test(zero_size_is_a_pointer), cmocka_unit_test(zeroed_and_aligned),
        cmocka_unit_test(strings),                cmocka_unit_test(mappings),
        cmocka_unit_test(faults),  cmocka_unit_test(mappings_leave_nothing),
                       cmocka_unit_test(resident_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
