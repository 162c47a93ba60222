/* Stop strings against a plain search. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "base/rng.h"
#include "base/utf8.h"
#include "tok/stop.h"

/* Earliest end, then earliest start; the index of the string or -1, its place in the text. */
static int plain_search(const char *text, size_t len, const char *const *strings, const size_t *lens, size_t n, size_t *start, size_t *end)
{
    for (*end = 1; *end <= len; (*end)++) {
        int best = -1;
        for (size_t i = 0; i < n; i++)
            if (lens[i] <= *end && memcmp(text + *end - lens[i], strings[i], lens[i]) == 0 && (best < 0 || lens[i] > lens[best]))
                best = (int)i;
        if (best >= 0) {
            *start = *end - lens[best];
            return best;
        }
    }
    return -1;
}

/* How much of the end of text could begin a stop string. */
static size_t plain_held(const char *text, size_t len, const char *const *strings, const size_t *lens, size_t n)
{
    size_t held = 0;
    for (size_t i = 0; i < n; i++)
        for (size_t k = 1; k < lens[i] && k <= len; k++)
            if (memcmp(text + len - k, strings[i], k) == 0 && k > held)
                held = k;
    return held;
}

static void random_against_plain(void **state)
{
    (void)state;
    struct rng r = {17};
    for (int round = 0; round < 20000; round++) {
        char store[5][8], text[64];
        const char *strings[5];
        size_t lens[5], n = rng_next_below(&r, 6), len = rng_next_below(&r, 64), start, end;
        for (size_t i = 0; i < n; i++) {
            lens[i] = 1 + rng_next_below(&r, 6);
            for (size_t k = 0; k < lens[i]; k++)
                store[i][k] = (char)('a' + rng_next_below(&r, 2));
            strings[i] = store[i];
        }
        for (size_t i = 0; i < len; i++)
            text[i] = (char)('a' + rng_next_below(&r, round % 2 ? 2 : 3));
        bool include = round & 4;
        int want = plain_search(text, len, strings, lens, n, &start, &end), got = -1;
        struct stop *s;
        struct buf out = {0};
        assert_true(stop_open(&s, strings, lens, n, NULL));
        size_t at = 0;
        while (at < len && got < 0) {
            size_t piece = 1 + rng_next_below(&r, 5);
            piece = piece > len - at ? len - at : piece;
            got = stop_feed(s, text + at, piece, include, &out);
            at += piece;
            if (got < 0) {
                assert_int_equal(stop_held(s), plain_held(text, at, strings, lens, n));
                assert_int_equal(out.len + stop_held(s), at);
            }
        }
        assert_int_equal(got, want);
        if (got >= 0) {
            assert_int_equal(out.len, include ? end : start);
            assert_int_equal(stop_feed(s, "aaaa", 4, include, &out), got);
            assert_int_equal(out.len, include ? end : start);
        } else {
            stop_finish(s, &out);
            assert_int_equal(out.len, len);
        }
        assert_true(out.len == 0 || memcmp(out.data, text, out.len) == 0);
        stop_close(&s);
        buf_free(&out);
    }
}

static void whole_characters_only(void **state)
{
    (void)state;
    /* The stop string begins with the last byte of no character, yet a byte of one can look like its start. */
    const char *strings[] = {"\xa9" "z"};
    size_t lens[] = {2};
    struct stop *s;
    struct buf out = {0};
    assert_true(stop_open(&s, strings, lens, 1, NULL));
    assert_int_equal(stop_feed(s, "a\xc3\xa9", 3, false, &out), -1);
    assert_int_equal(out.len, 1);
    assert_true(utf8_valid(out.data, out.len));
    assert_int_equal(stop_feed(s, "b", 1, false, &out), -1);
    assert_string_equal(out.data, "a\xc3\xa9" "b");
    stop_close(&s);
    buf_free(&out);
}

static void bad_strings(void **state)
{
    (void)state;
    const char *strings[] = {"ok", ""};
    size_t lens[] = {2, 0};
    struct stop *s;
    struct err e = {0};
    assert_false(stop_open(&s, strings, lens, 2, &e));
    assert_int_equal(e.code, ERR_INVALID);
    assert_non_null(strstr(e.msg, "stop[1]"));
    assert_true(stop_open(&s, NULL, NULL, 0, &e));
    struct buf out = {0};
    assert_int_equal(stop_feed(s, "text", 4, false, &out), -1);
    assert_int_equal(out.len, 4);
    assert_int_equal(stop_held(s), 0);
    stop_close(&s);
    buf_free(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(random_against_plain), cmocka_unit_test(whole_characters_only), cmocka_unit_test(bad_strings)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
