#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "base/mem.h"
#include "base/vec.h"

static void grows(void **state)
{
    (void)state;
    struct { int *items; size_t n, cap; } v = {0};
    size_t n_growths = 0, last = 0;
    for (int i = 0; i < 100000; i++) {
        assert_true(vec_reserve((void **)&v.items, &v.cap, v.n + 1, sizeof *v.items));
        n_growths += v.cap != last;
        last = v.cap;
        v.items[v.n++] = i;
    }
    for (int i = 0; i < 100000; i++)
        assert_int_equal(v.items[i], i);
    assert_true(n_growths < 40);
    int *same = v.items;
    assert_true(vec_reserve((void **)&v.items, &v.cap, 5, sizeof *v.items));
    assert_true(v.items == same && v.cap == last);
    mem_free(v.items);
}

static void failure_changes_nothing(void **state)
{
    (void)state;
    struct { long *items; size_t cap; } v = {0};
    assert_false(vec_reserve((void **)&v.items, &v.cap, SIZE_MAX, sizeof *v.items));
    assert_true(!v.items && v.cap == 0);
    assert_true(vec_reserve((void **)&v.items, &v.cap, 10, sizeof *v.items));
    long *items = v.items;
    size_t cap = v.cap;
    items[9] = 77;
    mem_fault_after(1);
    assert_false(vec_reserve((void **)&v.items, &v.cap, cap + 1, sizeof *v.items));
    assert_true(mem_fault_fired());
    assert_false(vec_reserve((void **)&v.items, &v.cap, SIZE_MAX / sizeof(long) + 1, sizeof *v.items));
    assert_true(v.items == items && v.cap == cap && items[9] == 77);
    mem_free(v.items);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(grows), cmocka_unit_test(failure_changes_nothing)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
