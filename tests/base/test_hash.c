#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/hash.h"
#include "base/mem.h"
#include "base/rng.h"

static void xxh3_known(void **state)
{
    (void)state;
    assert_true(hash_bytes("", 0, 0) == 0x2d06800538d394c2u); /* XXH3 of nothing, from its specification */
    assert_true(hash_bytes(NULL, 0, 0) == hash_bytes("", 0, 0));
    assert_true(hash_bytes("abc", 3, 0) != hash_bytes("abc", 3, 1));
    assert_true(hash_bytes("abc", 3, 0) != hash_bytes("abd", 3, 0));
}

static void mix_spreads(void **state)
{
    (void)state;
    assert_true(hash_mix(1, 2) != hash_mix(2, 1));
    /* One flipped bit changes about half of the result. */
    struct rng r = {4};
    double flips = 0;
    for (int i = 0; i < 2000; i++) {
        uint64_t a = rng_next(&r), b = rng_next(&r), bit = 1ull << rng_next_below(&r, 64);
        flips += __builtin_popcountll(hash_mix(a, b) ^ hash_mix(a ^ bit, b));
        flips += __builtin_popcountll(hash_mix(a, b) ^ hash_mix(a, b ^ bit));
    }
    assert_true(flips / 4000 > 28 && flips / 4000 < 36);
}

enum { KEYS = 500 };

static size_t key_text(int k, char out[32])
{
    /* Length 0 (k == 0), embedded zeros, and one key being the start of another. */
    if (k == 0)
        return 0;
    memset(out, 0, 32);
    snprintf(out, 32, "k%d", k);
    return strlen(out) + (size_t)(k % 3);
}

static void check_map(const struct hash_map *m, const int64_t *want, const bool *has)
{
    size_t n = 0, it = 0, len, seen = 0;
    const char *key;
    int64_t v;
    char text[32];
    for (int k = 0; k < KEYS; k++) {
        size_t tl = key_text(k, text);
        assert_int_equal(hash_map_get(m, text, tl, &v), has[k]);
        if (has[k])
            assert_true(v == want[k]);
        n += has[k];
    }
    assert_int_equal(hash_map_count(m), n);
    bool visited[KEYS] = {0};
    while (hash_map_next(m, &it, &key, &len, &v)) {
        int k = len ? atoi(key + 1) : 0;
        assert_true(k >= 0 && k < KEYS && has[k] && !visited[k] && v == want[k]);
        assert_int_equal(len, key_text(k, text));
        assert_memory_equal(key, text, len);
        visited[k] = true;
        seen++;
    }
    assert_int_equal(seen, n);
}

static void map_against_model(void **state)
{
    (void)state;
    struct rng r = {6};
    static int64_t want[KEYS];
    static bool has[KEYS];
    memset(has, 0, sizeof has);
    struct hash_map *m = hash_map_open(0, HASH_MAP_COPY_KEYS);
    for (int i = 0; i < 40000; i++) {
        char text[32];
        int k = (int)rng_next_below(&r, KEYS);
        size_t n = key_text(k, text);
        if (rng_next_below(&r, i / 10000 % 2 ? 3 : 2)) { /* puts outnumber deletions in turns */
            want[k] = (int64_t)rng_next(&r);
            assert_true(hash_map_put(m, text, n, want[k]));
            has[k] = true;
        } else {
            assert_int_equal(hash_map_del(m, text, n), has[k]);
            has[k] = false;
        }
        memset(text, 'z', sizeof text); /* keys were copied */
        if (i % 500 == 0)
            check_map(m, want, has);
    }
    check_map(m, want, has);
    hash_map_close(&m);
    assert_null(m);
    hash_map_close(&m);
}

static void map_borrows(void **state)
{
    (void)state;
    static char keys[1000][16];
    struct hash_map *m = hash_map_open(10, HASH_MAP_BORROW_KEYS);
    for (int i = 0; i < 1000; i++) {
        snprintf(keys[i], sizeof keys[i], "%d", i);
        assert_true(hash_map_put(m, keys[i], strlen(keys[i]), i));
    }
    size_t it = 0;
    const char *key;
    int64_t v;
    while (hash_map_next(m, &it, &key, NULL, &v))
        assert_ptr_equal(key, keys[v]);
    assert_true(hash_map_get(m, "500", 3, NULL));
    assert_false(hash_map_get(m, "1000", 4, NULL));
    hash_map_close(&m);
}

static void map_out_of_memory(void **state)
{
    (void)state;
    long n = 1;
    for (bool fired = true; fired; n++) {
        mem_fault_after(n);
        struct hash_map *m = hash_map_open(0, HASH_MAP_COPY_KEYS);
        bool has[60] = {0}, ok = m != NULL;
        for (int i = 0; m && i < 60; i++) {
            char text[16];
            snprintf(text, sizeof text, "%d", i);
            has[i] = hash_map_put(m, text, strlen(text), i);
            ok = ok && has[i];
        }
        fired = mem_fault_fired();
        mem_fault_after(0);
        assert_int_equal(ok, !fired);
        for (int i = 0; m && i < 60; i++) {
            char text[16];
            int64_t v = -1;
            snprintf(text, sizeof text, "%d", i);
            assert_int_equal(hash_map_get(m, text, strlen(text), &v), has[i]);
            assert_true(!has[i] || v == i);
        }
        hash_map_close(&m);
    }
    assert_true(n > 60);
    assert_null(hash_map_open(SIZE_MAX, 0));
    assert_null(hash_u64_open(SIZE_MAX / 2));
}

static void u64_against_model(void **state)
{
    (void)state;
    struct rng r = {8};
    static int64_t want[KEYS];
    static bool has[KEYS];
    memset(has, 0, sizeof has);
    struct hash_u64 *m = hash_u64_open(0);
    for (int i = 0; i < 60000; i++) {
        uint64_t k = rng_next_below(&r, KEYS), key = k * 0x100000000u; /* equal low bits; 0 too */
        if (rng_next_below(&r, i / 10000 % 2 ? 3 : 2)) {
            want[k] = (int64_t)rng_next(&r);
            assert_true(hash_u64_put(m, key, want[k]));
            has[k] = true;
        } else {
            assert_int_equal(hash_u64_del(m, key), has[k]);
            has[k] = false;
        }
        if (i % 500)
            continue;
        size_t n = 0;
        for (size_t q = 0; q < KEYS; q++) {
            int64_t v;
            assert_int_equal(hash_u64_get(m, q * 0x100000000u, &v), has[q]);
            assert_true(!has[q] || v == want[q]);
            n += has[q];
        }
        assert_int_equal(hash_u64_count(m), n);
    }
    hash_u64_close(&m);
    assert_null(m);
    hash_u64_close(&m);
}

static void u64_out_of_memory(void **state)
{
    (void)state;
    long n = 1;
    for (bool fired = true; fired; n++) {
        mem_fault_after(n);
        struct hash_u64 *m = hash_u64_open(0);
        bool ok = m != NULL;
        uint64_t held = 0;
        for (uint64_t i = 0; m && i < 60; i++) {
            bool put = hash_u64_put(m, i, (int64_t)i);
            ok = ok && put;
            held += put;
        }
        fired = mem_fault_fired();
        mem_fault_after(0);
        assert_int_equal(ok, !fired);
        if (m)
            assert_int_equal(hash_u64_count(m), held);
        hash_u64_close(&m);
    }
    assert_true(n > 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(xxh3_known),        cmocka_unit_test(mix_spreads),       cmocka_unit_test(map_against_model),
        cmocka_unit_test(map_borrows),       cmocka_unit_test(map_out_of_memory), cmocka_unit_test(u64_against_model),
        cmocka_unit_test(u64_out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
