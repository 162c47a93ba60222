/* States, order of eviction and reference counts; then random use against a plain model. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>
#include "base/mem.h"
#include "base/rng.h"
#include "kv/pool.h"

static struct kv_pool *open_pool(int32_t n)
{
    struct kv_pool *p;
    struct err e;
    assert_true(kv_pool_open(&p, &(struct kv_pool_opts){.n_blocks = n}, &e));
    return p;
}

static void check(const struct kv_pool *p, int32_t n_free, int32_t n_idle, int32_t n_held)
{
    struct err e = {0};
    if (!kv_pool_check(p, &e))
        fail_msg("%s", e.msg);
    struct kv_pool_stats st = kv_pool_stats(p);
    assert_int_equal(st.n_free, n_free);
    assert_int_equal(st.n_idle, n_idle);
    assert_int_equal(st.n_held, n_held);
    assert_int_equal(kv_pool_available(p), n_free + n_idle);
}

static void opening(void **state)
{
    (void)state;
    struct kv_pool *p;
    struct err e;
    assert_false(kv_pool_open(&p, &(struct kv_pool_opts){.n_blocks = 1}, &e));
    assert_int_equal(e.code, ERR_INVALID);
    assert_null(p);
    for (long n = 1;; n++) {
        mem_fault_after(n);
        bool ok = kv_pool_open(&p, &(struct kv_pool_opts){.n_blocks = 9}, &e);
        bool fired = mem_fault_fired();
        mem_fault_after(0);
        assert_int_equal(ok, !fired);
        if (ok)
            break;
        assert_null(p);
        assert_int_equal(e.code, ERR_NOMEM);
    }
    check(p, 8, 0, 0);
    kv_pool_close(&p);
    assert_null(p);
    kv_pool_close(&p);
}

static void take_all_or_nothing(void **state)
{
    (void)state;
    struct kv_pool *p = open_pool(5);
    kv_block ids[5] = {-7, -7, -7, -7, -7};
    assert_false(kv_pool_take(p, 5, ids));
    assert_int_equal(ids[0], -7);
    check(p, 4, 0, 0);
    assert_true(kv_pool_take(p, 4, ids));
    for (int i = 0; i < 4; i++) {
        assert_in_range(ids[i], 1, 4);
        for (int j = 0; j < i; j++)
            assert_int_not_equal(ids[i], ids[j]);
    }
    assert_true(kv_pool_take(p, 0, ids));
    assert_false(kv_pool_take(p, 1, ids));
    kv_pool_ref(p, ids[2]);
    assert_int_equal(kv_pool_refs(p, ids[2]), 2);
    kv_pool_drop(p, ids, 4);
    check(p, 3, 0, 1);
    kv_pool_drop(p, ids + 2, 1);
    check(p, 4, 0, 0);
    kv_pool_close(&p);
}

static kv_block evicted[16];
static int n_evicted;

static void note_evict(void *ctx, kv_block id)
{
    assert_ptr_equal(ctx, evicted);
    evicted[n_evicted++] = id;
}

static void eviction_order(void **state)
{
    (void)state;
    struct kv_pool *p = open_pool(7);
    n_evicted = 0;
    kv_pool_on_evict(p, note_evict, evicted);
    kv_block a[3], b[3], got[6];
    assert_true(kv_pool_take(p, 3, a));
    assert_true(kv_pool_take(p, 3, b));
    for (int i = 0; i < 3; i++) {
        kv_pool_publish(p, a[i]);
        kv_pool_publish(p, b[i]);
    }
    kv_block with_gap[4] = {KV_BLOCK_NULL, a[0], a[1], a[2]};
    kv_pool_drop(p, with_gap, 4);
    kv_pool_drop(p, b, 3);
    check(p, 0, 6, 0);
    /* Touching a[1] makes it the most recent. */
    kv_pool_ref(p, a[1]);
    check(p, 0, 5, 1);
    kv_pool_drop(p, a + 1, 1);
    assert_true(kv_pool_take(p, 6, got));
    kv_block want[6] = {a[2], a[0], b[2], b[1], b[0], a[1]};
    assert_memory_equal(got, want, sizeof want);
    assert_int_equal(n_evicted, 6);
    assert_memory_equal(evicted, want, sizeof want);
    assert_int_equal(kv_pool_stats(p).n_evictions, 6);
    check(p, 0, 0, 6);
    kv_pool_drop(p, got, 6);
    check(p, 6, 0, 0);
    kv_pool_close(&p);
}

static void free_before_idle(void **state)
{
    (void)state;
    struct kv_pool *p = open_pool(4);
    kv_block ids[3], more[3];
    assert_true(kv_pool_take(p, 3, ids));
    kv_pool_publish(p, ids[0]);
    kv_pool_drop(p, ids, 3);
    check(p, 2, 1, 0);
    assert_true(kv_pool_take(p, 2, more));
    assert_true(kv_pool_is_published(p, ids[0]));
    check(p, 0, 1, 2);
    kv_pool_unpublish(p, ids[0]);
    check(p, 1, 0, 2);
    kv_pool_publish(p, more[0]);
    kv_pool_unpublish(p, more[0]);
    kv_pool_publish(p, more[1]);
    kv_pool_drop(p, more, 2);
    check(p, 2, 1, 0);
    kv_pool_forget_idle(p);
    check(p, 3, 0, 0);
    kv_pool_close(&p);
}

/* The model: reference counts, published flags, and the idle pages in order of their last drop. */
static void random_use(void **state)
{
    (void)state;
    enum { N = 24, STEPS = 200000 };
    struct kv_pool *p = open_pool(N);
    struct rng r = {7};
    int32_t refs[N] = {0};
    bool published[N] = {0};
    kv_block idle[N];
    int n_idle = 0;
    for (int step = 0; step < STEPS; step++) {
        kv_block id = 1 + (kv_block)rng_next_below(&r, N - 1), got;
        switch (rng_next_below(&r, 5)) {
        case 0:
            if (!kv_pool_take(p, 1, &got)) {
                for (int i = 1; i < N; i++)
                    assert_true(refs[i] > 0);
                break;
            }
            assert_int_equal(refs[got], 0);
            if (published[got]) {
                for (int i = 1; i < N; i++)     /* evicts only when nothing is free, and the oldest */
                    assert_true(refs[i] > 0 || published[i]);
                assert_int_equal(got, idle[0]);
                memmove(idle, idle + 1, (size_t)--n_idle * sizeof *idle);
            }
            published[got] = false;
            refs[got] = 1;
            break;
        case 1:
            if (refs[id] == 0 && !published[id])
                break;
            kv_pool_ref(p, id);
            for (int i = 0; refs[id] == 0 && i < n_idle; i++)
                if (idle[i] == id) {
                    memmove(idle + i, idle + i + 1, (size_t)(--n_idle - i) * sizeof *idle);
                    break;
                }
            refs[id]++;
            break;
        case 2:
            if (refs[id] > 0) {
                kv_pool_publish(p, id);
                published[id] = true;
            }
            break;
        default:
            if (refs[id] == 0)
                break;
            kv_pool_drop(p, &id, 1);
            if (--refs[id] == 0 && published[id])
                idle[n_idle++] = id;
        }
        if (step % 64 == 0) {
            int held = 0;
            for (int i = 1; i < N; i++)
                held += refs[i] > 0;
            check(p, N - 1 - held - n_idle, n_idle, held);
        }
    }
    kv_pool_close(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(opening),          cmocka_unit_test(take_all_or_nothing), cmocka_unit_test(eviction_order),
        cmocka_unit_test(free_before_idle), cmocka_unit_test(random_use),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
