/* Rope frequencies against values worked out by hand, and rows that do not depend on the step they come in. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>
#include "fwd/rope.h"

static struct arch_rope plain(int32_t dim)
{
    return (struct arch_rope){ .theta = 10000.0, .dim = dim, .factor = 1.0, .original_len = 64, .attn_factor = 1.0 };
}

static void near_rel(float got, double want)
{
    if (!(fabs(got - want) <= 3e-7 * fabs(want)))
        fail_msg("got %.9g, expected %.9g", got, want);
}

static void test_frequencies(void **state)
{
    (void)state;
    float inv[8];
    struct arch_rope r = plain(8);
    rope_frequencies(&r, 10, inv);
    near_rel(inv[0], 1.0);
    near_rel(inv[1], 0.1);
    near_rel(inv[3], 0.001);
    r.scaling = ARCH_ROPE_LINEAR;
    r.factor = 4.0;
    rope_frequencies(&r, 10, inv);
    near_rel(inv[1], 0.025);
    r.scaling = ARCH_ROPE_DYNAMIC;
    rope_frequencies(&r, 64, inv);
    near_rel(inv[1], 0.1);
    assert_int_equal(rope_key(&r, 64), 0);
    rope_frequencies(&r, 128, inv);
    near_rel(inv[1], pow(10000.0 * pow(4.0 * 2 - 3, 8.0 / 6), -0.25));
    assert_true(rope_key(&r, 128) != rope_key(&r, 129) && rope_key(&r, 10) == rope_key(&r, 20));
}

static void test_llama3(void **state)
{
    (void)state;
    float inv[4];
    struct arch_rope r = plain(8);
    r.scaling = ARCH_ROPE_LLAMA3;
    r.factor = 8.0;
    r.low_freq_factor = 1.0;
    r.high_freq_factor = 4.0;
    r.original_len = 128;
    /* Wavelengths 6.28, 62.8, 628, 6283 against 32 and 128: kept, mixed, stretched, stretched. */
    rope_frequencies(&r, 10, inv);
    double smooth = (128 / 62.83185307179586 - 1.0) / 3.0;
    near_rel(inv[0], 1.0);
    near_rel(inv[1], (1 - smooth) * 0.1 / 8 + smooth * 0.1);
    near_rel(inv[2], 0.01 / 8);
    near_rel(inv[3], 0.001 / 8);
}

static void test_yarn(void **state)
{
    (void)state;
    float inv[16];
    struct arch_rope r = plain(32);
    r.scaling = ARCH_ROPE_YARN;
    r.factor = 4.0;
    r.original_len = 2048;
    r.beta_fast = 32;
    r.beta_slow = 1;
    r.yarn_truncate = true;
    rope_frequencies(&r, 10, inv);
    /* dim(32) = 32 ln(2048/(64 pi)) / (2 ln 10^4) = 4.03, dim(1) = 10.05: the ramp is from 4 to 11. */
    near_rel(inv[4], pow(10000.0, -4 / 16.0));
    near_rel(inv[11], pow(10000.0, -11 / 16.0) / 4);
    double ramp = (7 - 4) / 7.0, base = pow(10000.0, -7 / 16.0);
    near_rel(inv[7], base / 4 * ramp + base * (1 - ramp));
}

static void test_longrope(void **state)
{
    (void)state;
    float inv[2];
    struct arch_rope r = plain(4);
    r.scaling = ARCH_ROPE_LONGROPE;
    r.short_factor[1] = r.short_factor[0] = 1.5f;
    r.long_factor[1] = r.long_factor[0] = 6.0f;
    rope_frequencies(&r, 64, inv);
    near_rel(inv[1], 0.01 / 1.5);
    rope_frequencies(&r, 65, inv);
    near_rel(inv[1], 0.01 / 6);
    assert_true(rope_key(&r, 64) != rope_key(&r, 65) && rope_key(&r, 65) == rope_key(&r, 1000));
}

enum { N_SEQS = 24, LEN = 40, DIM = 64, TOTAL = N_SEQS * LEN };

/* Every row must be what its position and its sequence's length alone make of it: with more lengths in a step than there
 * are slots, with rows from the table and fresh ones, in small steps and large. */
static void check_rows(struct arch_rope *r, struct dev *d)
{
    struct err e;
    struct rope *rope;
    static int32_t positions[TOTAL];
    int32_t start[N_SEQS + 1], lens[N_SEQS];
    if (!rope_open(&rope, d, r, TOTAL, 4096, &e))
        fail_msg("%s", e.msg);
    for (int round = 0; round < 3; round++) {
        for (int s = 0; s < N_SEQS; s++) {
            start[s] = s * LEN;
            lens[s] = 50 + (s * 5 + round) % 100;
            for (int t = 0; t < LEN; t++)
                positions[s * LEN + t] = round * LEN + t + s % 3;
        }
        start[N_SEQS] = TOTAL;
        int n_seqs = round == 1 ? 2 : N_SEQS;
        struct dev_batch b = { .n_tokens = start[n_seqs], .n_seqs = n_seqs, .positions = positions, .seq_start = start };
        const float *c, *s;
        rope_fill(rope, &b, lens, &c, &s);
        for (int i = 0; i < b.n_tokens; i++) {
            float inv[ARCH_MAX_ROPE_DIM / 2];
            rope_frequencies(r, lens[i / LEN], inv);
            for (int k = 0; k < r->dim / 2; k++) {
                double angle = (float)positions[i] * inv[k];
                float want_c = (float)cos(angle) * (float)r->attn_factor, want_s = (float)sin(angle) * (float)r->attn_factor;
                if (c[i * (r->dim / 2) + k] != want_c || s[i * (r->dim / 2) + k] != want_s)
                    fail_msg("scaling %d round %d row %d dim %d", (int)r->scaling, round, i, k);
            }
        }
    }
    rope_close(&rope);
}

static void test_rows(void **state)
{
    (void)state;
    struct dev *d;
    struct err e;
    struct dev_opts o = { .n_threads = 3 };
    if (!dev_open(&d, &o, &e))
        fail_msg("%s", e.msg);
    struct arch_rope r = plain(DIM);
    check_rows(&r, d);
    r.scaling = ARCH_ROPE_DYNAMIC;
    r.factor = 2.0;
    check_rows(&r, d);
    r.scaling = ARCH_ROPE_LONGROPE;
    r.attn_factor = 1.19;
    for (int i = 0; i < DIM / 2; i++) {
        r.short_factor[i] = 1.0f + 0.01f * (float)i;
        r.long_factor[i] = 2.0f + 0.3f * (float)i;
    }
    check_rows(&r, d);
    dev_close(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_frequencies),
        cmocka_unit_test(test_llama3),
        cmocka_unit_test(test_yarn),
        cmocka_unit_test(test_longrope),
        cmocka_unit_test(test_rows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
