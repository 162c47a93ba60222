/* The watermark: who is green, what the sampler does, what the detector says. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>
#include "base/rng.h"
#include "dev/dev.h"
#include "sample/sample.h"
#include "sample/watermark.h"

enum { VOCAB = 501, N = 300 };

static void shares_and_borders(void **state)
{
    struct sample_watermark w;
    (void)state;
    sample_watermark_default(&w);
    for (int g = 1; g <= 3; g++) {
        w.gamma = 0.25f * (float)g;
        int64_t n = 0, both = 0;
        for (int32_t prev = 0; prev < 200; prev++)
            for (int32_t id = 0; id < VOCAB; id++) {
                bool green = sample_watermark_green(&w, prev, id);
                n += green;
                both += green && sample_watermark_green(&w, prev + 1000, id);
            }
        double total = 200.0 * VOCAB, share = (double)n / total, gamma = (double)w.gamma;
        assert_true(fabs(share - gamma) < 0.01);
        assert_true(fabs((double)both / total - gamma * gamma) < 0.01);   /* another previous token divides independently */
    }
}

static void add_is_the_definition(void **state)
{
    struct sample_watermark w;
    float x[VOCAB];
    (void)state;
    sample_watermark_default(&w);
    for (int32_t i = 0; i < VOCAB; i++)
        x[i] = (float)i;
    sample_watermark_add(&w, 77, x, VOCAB);
    for (int32_t i = 0; i < VOCAB; i++)
        assert_true(x[i] == (float)i + (sample_watermark_green(&w, 77, i) ? w.delta : 0));
}

/* What the mark is must never change: texts outlive versions. */
static void frozen(void **state)
{
    struct sample_watermark w;
    uint64_t bits = 0;
    (void)state;
    sample_watermark_default(&w);
    for (int32_t i = 0; i < 64; i++)
        bits |= (uint64_t)sample_watermark_green(&w, 12345, 1000 + i) << i;
    assert_true(bits == 0xdcc9979392a09cf1u);
    assert_true(sample_watermark_key("secret\n", 7) == 0x56fddd86c4bdc4d6u);
    assert_true(sample_watermark_key("secret", 6) == sample_watermark_key("secret \r\n", 9));
    assert_true(sample_watermark_key("secret", 6) != sample_watermark_key("secre", 5));
}

/* Tokens drawn from a flat row by the sampler itself. */
static void draw(bool marked, float temperature, const struct sample_watermark *w, int32_t *ids)
{
    struct dev *d;
    struct sampler *s;
    struct err e;
    struct sample_seq *q;
    struct sample_params p;
    float row[VOCAB];
    struct rng r = {5};
    const int32_t prompt[] = {3, 4};
    assert_true(dev_open(&d, &(struct dev_opts){.name = "cpu", .n_threads = 1}, &e));
    assert_true(sampler_open(&s, d, &(struct sample_env){.vocab_size = VOCAB}, &e));
    sample_params_default(&p);
    p.temperature = temperature;
    p.watermarked = marked;
    p.watermark = *w;
    p.has_seed = true;
    p.seed = 9;
    assert_true(sample_params_check(&p, &(struct sample_limits){.max_logprobs = 20, .vocab_size = VOCAB}, &e));
    assert_true(sample_seq_open(&q, s, &p, 0, 0, prompt, 2, &e));
    ids[0] = 4;
    for (int32_t i = 1; i < N; i++) {
        for (int32_t k = 0; k < VOCAB; k++)
            row[k] = (float)rng_next_normal(&r) * 0.5f;
        struct sample_row one = {.logits = row, .seq = q, .position = i, .n_generated = i - 1};
        sample_rows(s, &one, 1);
        ids[i] = one.out.token;
        assert_true(sample_seq_push(q, ids[i]));
    }
    sample_seq_close(&q);
    sampler_close(&s);
    dev_close(&d);
}

static void detector(void **state)
{
    struct sample_watermark w, other;
    struct sample_watermark_score s;
    int32_t ids[N];
    (void)state;
    sample_watermark_default(&w);
    other = w;
    other.key++;
    draw(true, 1, &w, ids);
    assert_true(sample_watermark_detect(&w, ids, N, &s) && s.z > 8 && s.p < 1e-12);
    /* delta 2 of a flat row: e^2 / (e^2 + 1) of the tokens are green */
    assert_true(fabs((double)s.n_green / (double)s.n_scored - 0.88) < 0.06);
    assert_true(sample_watermark_detect(&other, ids, N, &s) && fabs(s.z) < 4);
    draw(true, 0, &w, ids);
    assert_true(sample_watermark_detect(&w, ids, N, &s) && s.z > 8);
    draw(false, 1, &w, ids);
    assert_true(sample_watermark_detect(&w, ids, N, &s) && fabs(s.z) < 4);
}

static void repetition_is_no_evidence(void **state)
{
    struct sample_watermark w;
    struct sample_watermark_score s;
    int32_t ids[N];
    (void)state;
    sample_watermark_default(&w);
    int32_t a = 0;
    while (!sample_watermark_green(&w, a, a))
        a++;
    for (int i = 0; i < N; i++)
        ids[i] = a;
    assert_true(sample_watermark_detect(&w, ids, N, &s));
    assert_int_equal(s.n_scored, 1);
    assert_int_equal(s.n_green, 1);
    assert_true(fabs(s.z - 1) < 1e-6 && fabs(s.p - 0.158655) < 1e-5);
    assert_true(sample_watermark_detect(&w, ids, 1, &s) && s.n_scored == 0 && s.p == 1);
    assert_true(sample_watermark_detect(&w, NULL, 0, &s) && s.n_scored == 0);
}

static void ranges(void **state)
{
    struct err e;
    (void)state;
    const struct sample_watermark bad[] = {{0, 2, 1}, {1, 2, 1}, {NAN, 2, 1}, {0.5f, 0, 1}, {0.5f, NAN, 1}, {0.5f, 101, 1}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_false(sample_watermark_check(&bad[i], &e));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shares_and_borders), cmocka_unit_test(add_is_the_definition), cmocka_unit_test(frozen), cmocka_unit_test(detector),
        cmocka_unit_test(repetition_is_no_evidence), cmocka_unit_test(ranges),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
