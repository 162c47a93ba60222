#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>
#include "base/arena.h"
#include "base/mem.h"
#include "base/rng.h"

static void aligned_zeroed_disjoint(void **state)
{
    (void)state;
    enum { N = 3000 };
    static unsigned char *p[N];
    static size_t len[N];
    struct rng r = {5};
    struct arena *a = arena_open(0);
    for (int round = 0; round < 3; round++) {
        size_t sum = 0;
        for (int i = 0; i < N; i++) {
            len[i] = rng_next_below(&r, rng_next_below(&r, 50) == 0 ? 400000 : 300);
            p[i] = arena_try_alloc(a, len[i], 1);
            assert_non_null(p[i]);
            assert_int_equal((uintptr_t)p[i] % 16, 0);
            for (size_t k = 0; k < len[i]; k++)
                if (p[i][k])
                    fail_msg("not zeroed");
            memset(p[i], i & 0xff, len[i]);
            sum += len[i];
            assert_true(arena_used(a) >= sum && arena_used(a) <= sum + 16 * (size_t)(i + 1));
        }
        for (int i = 0; i < N; i++)
            for (size_t k = 0; k < len[i]; k++)
                if (p[i][k] != (i & 0xff))
                    fail_msg("piece %d was overwritten", i);
        arena_reset(a);
        assert_int_equal(arena_used(a), 0);
    }
    arena_close(&a);
    assert_null(a);
    arena_close(&a);
}

static void limit(void **state)
{
    (void)state;
    struct arena *a = arena_open(1000);
    assert_non_null(arena_try_alloc(a, 60, 16));
    assert_null(arena_try_alloc(a, 100, 1));
    assert_non_null(arena_try_alloc(a, 32, 1));
    assert_null(arena_try_alloc(a, 0, 1)); /* even nothing takes a place */
    assert_int_equal(arena_used(a), 992);
    arena_reset(a);
    assert_non_null(arena_try_alloc(a, 62, 16));
    assert_null(arena_try_alloc(a, 1, 16));
    arena_close(&a);
}

/* What one huge request took is given back; the ordinary chunk stays and is used again. */
static void reset_keeps_little(void **state)
{
    (void)state;
    struct arena *a = arena_open(0);
    assert_non_null(arena_try_alloc(a, 100, 1));
    assert_non_null(arena_try_alloc(a, (size_t)10 << 20, 1));
    arena_reset(a);
    mem_fault_after(1);
    assert_non_null(arena_try_alloc(a, 100, 1));
    assert_null(arena_try_alloc(a, (size_t)1 << 20, 1));
    assert_true(mem_fault_fired());
    arena_close(&a);
}

static void overflow(void **state)
{
    (void)state;
    struct arena *a = arena_open(0);
    assert_null(arena_try_alloc(a, SIZE_MAX / 2, 3));
    assert_null(arena_try_alloc(a, SIZE_MAX, 1));
    assert_null(arena_try_alloc(a, SIZE_MAX - 20, 1));
    assert_null(arena_try_strndup(a, "", SIZE_MAX));
    assert_int_equal(arena_used(a), 0);
    assert_string_equal(arena_try_strndup(a, "hello there", 5), "hello");
    assert_string_equal(arena_try_strndup(a, NULL, 0), "");
    arena_close(&a);
}

static void out_of_memory(void **state)
{
    (void)state;
    long n = 1;
    for (bool fired = true; fired; n++) {
        mem_fault_after(n);
        struct arena *a = arena_open(0);
        bool ok = a != NULL;
        for (int i = 0; a && i < 100; i++) {
            size_t used = arena_used(a);
            bool got = arena_try_alloc(a, i % 10 == 0 ? 100000 : 1000, 1) != NULL;
            assert_int_equal(arena_used(a) > used, got);
            ok = ok && got;
        }
        fired = mem_fault_fired();
        mem_fault_after(0);
        assert_int_equal(ok, !fired);
        if (a)
            assert_non_null(arena_try_alloc(a, 8, 1)); /* still usable */
        arena_close(&a);
    }
    assert_true(n > 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(aligned_zeroed_disjoint), cmocka_unit_test(limit),
                                       cmocka_unit_test(reset_keeps_little), cmocka_unit_test(overflow), cmocka_unit_test(out_of_memory)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
