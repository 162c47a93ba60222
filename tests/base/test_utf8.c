#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include "base/rng.h"
#include "base/utf8.h"

static bool scalar(uint32_t cp)
{
    return cp <= 0x10ffff && !(cp >= 0xd800 && cp <= 0xdfff);
}

/* Every code point goes out and back; the shorter prefixes are cut off. */
static void all_code_points(void **state)
{
    (void)state;
    for (uint32_t cp = 0; cp <= 0x10ffff; cp++) {
        char s[4];
        uint32_t back = 0;
        int n = utf8_encode(cp, s);
        int got = utf8_decode(s, (size_t)n, &back);
        if (!scalar(cp)) {
            assert_int_equal(got, 0);
            continue;
        }
        if (got != n || back != cp || !utf8_valid(s, (size_t)n) || utf8_length(s, (size_t)n) != 1)
            fail_msg("U+%04X", cp);
        for (int k = 1; k < n; k++) {
            if (utf8_decode(s, (size_t)k, &back) != 0 || utf8_valid(s, (size_t)k))
                fail_msg("U+%04X cut at %d is taken", cp, k);
            if (utf8_complete_prefix(s, (size_t)k) != 0)
                fail_msg("U+%04X cut at %d counts as complete", cp, k);
        }
        if (utf8_complete_prefix(s, (size_t)n) != (size_t)n)
            fail_msg("U+%04X is not complete", cp);
    }
}

/* The definition, spelled out: decode by arithmetic, then judge the value. */
static int decode_plain(const unsigned char *s, size_t n)
{
    int len = s[0] < 0x80 ? 1 : s[0] >= 0xc0 && s[0] < 0xe0 ? 2 : s[0] >= 0xe0 && s[0] < 0xf0 ? 3 : s[0] >= 0xf0 && s[0] < 0xf8 ? 4 : 0;
    if (!len || (size_t)len > n)
        return 0;
    uint32_t cp = len == 1 ? s[0] : s[0] & (0xffu >> (len + 1));
    for (int i = 1; i < len; i++) {
        if ((s[i] & 0xc0) != 0x80)
            return 0;
        cp = cp << 6 | (s[i] & 0x3f);
    }
    const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    return cp >= least[len] && scalar(cp) ? len : 0;
}

/* All sequences of up to three interesting bytes, and four-byte ones. */
static void every_short_sequence(void **state)
{
    (void)state;
    const unsigned char mid[] = {0x00, 0x41, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xc2, 0xe0, 0xed, 0xf0, 0xf4, 0xff};
    enum { M = sizeof mid };
    for (int a = 0; a < 256; a++)
        for (int b = 0; b < M; b++)
            for (int c = 0; c < M; c++)
                for (int d = 0; d < M; d++) {
                    unsigned char s[4] = {(unsigned char)a, mid[b], mid[c], mid[d]};
                    for (size_t n = 1; n <= 4; n++) {
                        uint32_t cp;
                        int want = decode_plain(s, n);
                        if (utf8_decode((char *)s, n, &cp) != want)
                            fail_msg("%02x %02x %02x %02x of %zu", s[0], s[1], s[2], s[3], n);
                    }
                }
}

/* A suffix is incomplete exactly when some continuation makes one valid character of it. */
static bool completable(const unsigned char *s, size_t n)
{
    unsigned char t[4];
    memcpy(t, s, n);
    for (size_t total = n + 1; total <= 4; total++)
        for (int x = 0x80; x < 0xc0; x++) {
            memset(t + n, 0x80, 4 - n);
            t[n] = (unsigned char)x;
            if (decode_plain(t, total) == (int)total)
                return true;
        }
    return false;
}

static void prefixes(void **state)
{
    (void)state;
    const unsigned char some[] = {0x41, 0x80, 0x90, 0xa0, 0xbf, 0xc1, 0xc3, 0xe0, 0xe2, 0xed, 0xf0, 0xf1, 0xf4, 0xf5, 0xff};
    enum { M = sizeof some };
    struct rng r = {3};
    for (int i = 0; i < 200000; i++) {
        unsigned char s[6];
        size_t n = rng_next_below(&r, 6) + 1, want = n;
        for (size_t k = 0; k < n; k++)
            s[k] = some[rng_next_below(&r, M)];
        for (size_t back = 1; back <= 3 && back <= n; back++)
            if (completable(s + n - back, back))
                want = n - back;
        if (utf8_complete_prefix((char *)s, n) != want)
            fail_msg("%02x %02x %02x %02x %02x %02x (%zu)", s[0], s[1], s[2], s[3], s[4], s[5], n);
    }
    assert_int_equal(utf8_complete_prefix("", 0), 0);
}

static void lossy_known(void **state)
{
    (void)state;
    /* From the Unicode standard, tables 3-8 to 3-11, with R for U+FFFD. */
    const struct { const char *in, *out; } cases[] = {
        {"\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41", "RRRRRRRRA"},
        {"\xED\xA0\x80\xED\xBF\xBF\xED\xAF\x41", "RRRRRRRRA"},
        {"\xF4\x91\x92\x93\xFF\x41\x80\xBF\x42", "RRRRRARRB"},
        {"\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41", "RRRRA"},
        {"Hello \xF0\x90\x80World", "Hello RWorld"},
        {"ab\xe2\x82", "abR"},
        {"\xe2\x82\xac", "\xe2\x82\xac"},
        {"", ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char out[100], want[100];
        size_t n = utf8_lossy(cases[i].in, strlen(cases[i].in), out), w = 0;
        for (const char *c = cases[i].out; *c; c++) {
            bool r = *c == 'R';
            memcpy(want + w, r ? "\xef\xbf\xbd" : c, r ? 3 : 1);
            w += r ? 3 : 1;
        }
        assert_int_equal(n, w);
        assert_memory_equal(out, want, w);
    }
}

static void lossy_random(void **state)
{
    (void)state;
    struct rng r = {9};
    for (int i = 0; i < 50000; i++) {
        char s[40], out[120];
        size_t n = rng_next_below(&r, sizeof s);
        for (size_t k = 0; k < n; k++)
            s[k] = (char)(rng_next_below(&r, 3) ? 'a' : rng_next_below(&r, 256));
        size_t m = utf8_lossy(s, n, out);
        assert_true(m <= 3 * n && utf8_valid(out, m));
        if (utf8_valid(s, n)) {
            assert_int_equal(m, n);
            assert_memory_equal(s, out, n);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_code_points), cmocka_unit_test(every_short_sequence), cmocka_unit_test(prefixes),
        cmocka_unit_test(lossy_known),     cmocka_unit_test(lossy_random),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
