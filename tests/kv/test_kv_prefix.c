/* Hits are decided by content: every test runs with XXH3, with a hash of 2 bits and with none at all. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>
#include "base/mem.h"
#include "base/rng.h"
#include "kv/prefix.h"

enum { BT = 4 };

static uint64_t weak_hash(const int32_t *tokens, int32_t n, uint64_t seed)
{
    (void)n;
    (void)seed;
    return (uint64_t)tokens[0] & 3;
}

static uint64_t no_hash(const int32_t *tokens, int32_t n, uint64_t seed)
{
    (void)tokens;
    (void)n;
    (void)seed;
    return 42;
}

typedef uint64_t hash_fn(const int32_t *tokens, int32_t n, uint64_t seed);
static hash_fn *const hashes[] = {NULL, weak_hash, no_hash};
enum { N_HASHES = 3 };

struct cache {
    struct kv_pool *pool;
    struct kv_prefix *x;
};

static struct cache open_cache(int32_t n, hash_fn *hash)
{
    struct cache c;
    struct err e;
    assert_true(kv_pool_open(&c.pool, &(struct kv_pool_opts){.n_blocks = n}, &e));
    assert_true(kv_prefix_open(&c.x, c.pool, &(struct kv_prefix_opts){.block_tokens = BT, .hash = hash}, &e));
    return c;
}

static void check(const struct cache *c)
{
    struct err e = {0};
    if (!kv_pool_check(c->pool, &e) || !kv_prefix_check(c->x, &e))
        fail_msg("%s", e.msg);
}

static void close_cache(struct cache *c)
{
    check(c);
    kv_prefix_close(&c->x);
    kv_pool_close(&c->pool);
}

/* Takes n pages and publishes them as tokens[0 .. n * BT). */
static struct kv_chain fill(struct cache *c, uint64_t salt, const int32_t *tokens, int32_t n, kv_block *ids)
{
    struct kv_chain chain = kv_chain_root(salt);
    assert_true(kv_pool_take(c->pool, n, ids));
    for (int32_t i = 0; i < n; i++)
        assert_true(kv_prefix_publish(c->x, &chain, ids[i], tokens + i * BT));
    check(c);
    return chain;
}

static int32_t look(struct cache *c, uint64_t salt, const int32_t *tokens, int32_t n, kv_block *ids)
{
    struct kv_chain chain = kv_chain_root(salt);
    int32_t found = kv_prefix_match(c->x, &chain, tokens, n, ids);
    assert_int_equal(chain.depth, found);
    check(c);
    return found;
}

static void opening(void **state)
{
    (void)state;
    struct kv_pool *pool;
    struct kv_prefix *x;
    struct err e;
    assert_true(kv_pool_open(&pool, &(struct kv_pool_opts){.n_blocks = 8}, &e));
    assert_false(kv_prefix_open(&x, pool, &(struct kv_prefix_opts){.block_tokens = 0}, &e));
    assert_int_equal(e.code, ERR_INVALID);
    for (long n = 1;; n++) {
        mem_fault_after(n);
        bool ok = kv_prefix_open(&x, pool, &(struct kv_prefix_opts){.block_tokens = BT}, &e);
        bool fired = mem_fault_fired();
        mem_fault_after(0);
        assert_int_equal(ok, !fired);
        if (ok)
            break;
        assert_null(x);
        assert_int_equal(e.code, ERR_NOMEM);
    }
    kv_prefix_close(&x);
    kv_prefix_close(&x);
    kv_pool_close(&pool);
}

static void finds_longest(void **state)
{
    (void)state;
    for (int h = 0; h < N_HASHES; h++) {
        struct cache c = open_cache(16, hashes[h]);
        int32_t t[16] = {1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 9, 9, 9, 9};
        kv_block ids[4], got[4];
        fill(&c, 0, t, 4, ids);
        assert_int_equal(look(&c, 0, t, 4, got), 4);
        assert_memory_equal(got, ids, sizeof ids);
        assert_int_equal(kv_pool_refs(c.pool, ids[3]), 2);
        kv_pool_drop(c.pool, got, 4);
        assert_int_equal(look(&c, 0, t, 2, got), 2);
        kv_pool_drop(c.pool, got, 2);
        /* The same four tokens elsewhere in the sequence are another page. */
        assert_int_equal(look(&c, 0, t + 8, 2, got), 1);
        assert_int_equal(got[0], ids[0]);
        kv_pool_drop(c.pool, got, 1);
        t[7] = 0;
        assert_int_equal(look(&c, 0, t, 4, got), 1);
        kv_pool_drop(c.pool, got, 1);
        kv_pool_drop(c.pool, ids, 4);
        assert_int_equal(kv_pool_stats(c.pool).n_idle, 4);
        close_cache(&c);
    }
}

static void salts_part(void **state)
{
    (void)state;
    for (int h = 0; h < N_HASHES; h++) {
        struct cache c = open_cache(16, hashes[h]);
        int32_t t[8] = {1, 2, 3, 4, 5, 6, 7, 8};
        kv_block a[2], b[2], got[2];
        struct kv_chain end = fill(&c, 11, t, 2, a);
        assert_int_equal(look(&c, 12, t, 2, got), 0);
        /* A salt that equals a serial does not enter the forest in the middle. */
        assert_int_equal(look(&c, end.parent, t + 4, 1, got), 0);
        assert_int_equal(look(&c, end.parent - 1, t + 4, 1, got), 0);
        fill(&c, 12, t, 2, b);
        assert_int_equal(look(&c, 12, t, 2, got), 2);
        assert_memory_equal(got, b, sizeof b);
        kv_pool_drop(c.pool, got, 2);
        kv_pool_drop(c.pool, a, 2);
        kv_pool_drop(c.pool, b, 2);
        close_cache(&c);
    }
}

/* The child of an evicted page must not be found below what now fills that page. */
static void recycled_parent(void **state)
{
    (void)state;
    for (int h = 0; h < N_HASHES; h++) {
        struct cache c = open_cache(3, hashes[h]);
        int32_t old[8] = {1, 1, 1, 1, 7, 7, 7, 7}, new[8] = {2, 2, 2, 2, 7, 7, 7, 7};
        kv_block ids[2], again, got[2];
        fill(&c, 0, old, 2, ids);
        kv_pool_drop(c.pool, ids, 1);               /* the parent is idle, the child held */
        assert_true(kv_pool_take(c.pool, 1, &again));
        assert_int_equal(again, ids[0]);
        struct kv_chain chain = kv_chain_root(0);
        assert_true(kv_prefix_publish(c.x, &chain, again, new));
        assert_int_equal(look(&c, 0, new, 2, got), 1);
        kv_pool_drop(c.pool, got, 1);
        assert_int_equal(look(&c, 0, old, 2, got), 0);
        kv_pool_drop(c.pool, &again, 1);
        kv_pool_drop(c.pool, ids + 1, 1);
        close_cache(&c);
    }
}

static void duplicates(void **state)
{
    (void)state;
    for (int h = 0; h < N_HASHES; h++) {
        struct cache c = open_cache(16, hashes[h]);
        int32_t t[12] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 9};
        kv_block a[2], b[3], got[3];
        fill(&c, 0, t, 2, a);
        struct kv_chain chain = fill(&c, 0, t, 2, b);       /* known and held: b stays unpublished */
        assert_false(kv_pool_is_published(c.pool, b[0]));
        assert_true(kv_pool_take(c.pool, 1, b + 2));
        assert_true(kv_prefix_publish(c.x, &chain, b[2], t + 8));
        assert_int_equal(look(&c, 0, t, 3, got), 3);
        assert_true(got[0] == a[0] && got[1] == a[1] && got[2] == b[2]);
        kv_pool_drop(c.pool, got, 3);
        /* Once nobody holds a, a new copy takes its place and the child stays reachable. */
        kv_pool_drop(c.pool, a, 2);
        assert_int_equal(kv_pool_stats(c.pool).n_idle, 2);
        kv_block d[2];
        fill(&c, 0, t, 2, d);
        assert_int_equal(kv_pool_stats(c.pool).n_idle, 0);
        assert_int_equal(look(&c, 0, t, 3, got), 3);
        assert_true(got[0] == d[0] && got[1] == d[1] && got[2] == b[2]);
        kv_pool_drop(c.pool, got, 3);
        /* Publishing the same page again changes nothing. */
        chain = kv_chain_root(0);
        assert_true(kv_prefix_publish(c.x, &chain, d[0], t));
        assert_true(kv_prefix_publish(c.x, &chain, d[1], t + 4));
        kv_pool_drop(c.pool, d, 2);
        kv_pool_drop(c.pool, b, 3);
        assert_int_equal(kv_pool_stats(c.pool).n_idle, 3);
        close_cache(&c);
    }
}

/* A chain through a copy that was evicted refuses; publishing from the root repairs it. */
static void lost_parent(void **state)
{
    (void)state;
    for (int h = 0; h < N_HASHES; h++) {
        struct cache c = open_cache(5, hashes[h]);
        int32_t t[12] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 9}, other[4] = {3, 3, 3, 3};
        kv_block a[1], b[3], o, got[3];
        fill(&c, 0, t, 1, a);
        struct kv_chain chain = fill(&c, 0, t, 2, b);       /* b[0] is a copy of a[0], b[1] published below a[0] */
        assert_true(kv_pool_is_published(c.pool, b[1]));
        kv_pool_drop(c.pool, a, 1);
        assert_true(kv_pool_take(c.pool, 1, b + 2));
        assert_true(kv_pool_take(c.pool, 1, &o));           /* evicts a[0] */
        assert_int_equal(o, a[0]);
        struct kv_chain o_chain = kv_chain_root(0), below_a = {.parent = 1, .depth = 1, .page = a[0]};
        assert_true(kv_prefix_publish(c.x, &o_chain, o, other));
        assert_false(kv_prefix_publish(c.x, &below_a, b[1], t + 4));
        assert_true(kv_prefix_publish(c.x, &chain, b[2], t + 8));   /* b[1] itself is still there */
        assert_int_equal(look(&c, 0, t, 3, got), 0);
        chain = kv_chain_root(0);
        for (int i = 0; i < 3; i++) {
            assert_true(kv_prefix_publish(c.x, &chain, b[i], t + i * BT));
            check(&c);
        }
        assert_int_equal(look(&c, 0, t, 3, got), 3);
        assert_memory_equal(got, b, sizeof b);
        kv_pool_drop(c.pool, got, 3);
        kv_pool_drop(c.pool, b, 3);
        kv_pool_drop(c.pool, &o, 1);
        close_cache(&c);
    }
}

/* Random chains over a tiny alphabet, so that prefixes are shared all the time; what is handed out
 * must be what was stored, which the test notes for each page and depth. */
static void random_use(void **state)
{
    (void)state;
    enum { N = 40, DEPTH = 5, STEPS = 30000 };
    for (int h = 0; h < N_HASHES; h++) {
        struct cache c = open_cache(N, hashes[h]);
        struct rng r = {99};
        int32_t stored[N][1 + DEPTH * BT];              /* salt, then all tokens up to the page's end */
        int32_t stored_len[N] = {0};
        int64_t hits = 0;
        for (int step = 0; step < STEPS; step++) {
            int32_t t[1 + DEPTH * BT];
            t[0] = (int32_t)rng_next_below(&r, 2);
            for (int i = 1; i <= DEPTH * BT; i++)
                t[i] = (i - 1) % BT == 0 ? (int32_t)rng_next_below(&r, 3) : 0;
            kv_block ids[DEPTH];
            struct kv_chain chain = kv_chain_root((uint64_t)t[0]);
            int32_t n = kv_prefix_match(c.x, &chain, t + 1, DEPTH, ids);
            hits += n;
            for (int32_t i = 0; i < n; i++) {
                assert_int_equal(stored_len[ids[i]], 1 + (i + 1) * BT);
                assert_memory_equal(stored[ids[i]], t, (size_t)(1 + (i + 1) * BT) * sizeof *t);
            }
            assert_true(kv_pool_take(c.pool, DEPTH - n, ids + n));
            for (int32_t i = n; i < DEPTH; i++) {
                stored_len[ids[i]] = 1 + (i + 1) * BT;
                memcpy(stored[ids[i]], t, (size_t)stored_len[ids[i]] * sizeof *t);
                assert_true(kv_prefix_publish(c.x, &chain, ids[i], t + 1 + i * BT));
            }
            kv_pool_drop(c.pool, ids, DEPTH);
            if (step % 100 == 0)
                check(&c);
        }
        assert_true(hits > STEPS / 4);
        assert_true(kv_pool_stats(c.pool).n_evictions > 1000);
        close_cache(&c);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(opening),    cmocka_unit_test(finds_longest), cmocka_unit_test(salts_part), cmocka_unit_test(recycled_parent),
        cmocka_unit_test(duplicates), cmocka_unit_test(lost_parent),   cmocka_unit_test(random_use),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
