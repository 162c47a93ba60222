#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include "base/rng.h"

static void philox_known_answers(void **state)
{
    (void)state;
    /* philox4x32-10 of the authors' kat_vectors. */
    const struct { uint64_t key, hi, lo; uint32_t v[4]; } cases[] = {
        {0, 0, 0, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {UINT64_MAX, UINT64_MAX, UINT64_MAX, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {0x299f31d0a4093822, 0x0370734413198a2e, 0x85a308d3243f6a88, {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (int i = 0; i < 3; i++) {
        struct rng_block b = rng_philox(cases[i].key, cases[i].hi, cases[i].lo);
        for (int k = 0; k < 4; k++)
            assert_int_equal(b.v[k], cases[i].v[k]);
    }
}

static void unit_is_open(void **state)
{
    (void)state;
    const uint32_t b32[] = {0, 1, 255, 0x7fffffff, 0x80000000, 0xffffff00, 0xffffff7f, 0xffffff80, 0xffffffff};
    for (size_t i = 0; i < sizeof b32 / sizeof *b32; i++) {
        float u = rng_unit_f32(b32[i]);
        assert_true(u > 0.0f && u < 1.0f);
        assert_true(i == 0 || u >= rng_unit_f32(b32[i - 1]));
    }
    const uint64_t b64[] = {0, 1, 2047, 2048, UINT64_MAX >> 1, UINT64_MAX - 2048, UINT64_MAX};
    for (size_t i = 0; i < sizeof b64 / sizeof *b64; i++) {
        double u = rng_unit_f64(b64[i]);
        assert_true(u > 0.0 && u < 1.0);
        assert_true(i == 0 || u >= rng_unit_f64(b64[i - 1]));
    }
    assert_true(fabs(rng_unit_f32(0x80000000u) - 0.5f) < 1e-6);
    assert_true(fabs(rng_unit_f64(1ull << 62) - 0.25) < 1e-12);
}

static void splitmix_known(void **state)
{
    (void)state;
    /* First outputs of SplitMix64 with seed 1234567 (as published with the algorithm's tests). */
    const uint64_t want[] = {6457827717110365317u, 3203168211198807973u, 9817491932198370423u, 4593380528125082431u};
    struct rng r = {1234567};
    for (int i = 0; i < 4; i++)
        assert_true(rng_next(&r) == want[i]);
}

static void below_is_uniform(void **state)
{
    (void)state;
    struct rng r = {1};
    int seen[7] = {0};
    for (int i = 0; i < 70000; i++) {
        uint64_t v = rng_next_below(&r, 7);
        assert_true(v < 7);
        seen[v]++;
    }
    for (int i = 0; i < 7; i++)
        assert_true(seen[i] > 9500 && seen[i] < 10500);
    for (int i = 0; i < 100; i++) {
        assert_true(rng_next_below(&r, 1) == 0);
        assert_true(rng_next_below(&r, (1ull << 63) + 1) <= 1ull << 63);
    }
}

static void normal_moments(void **state)
{
    (void)state;
    enum { N = 200000 };
    struct rng r = {2};
    double s1 = 0, s2 = 0, s4 = 0;
    for (int i = 0; i < N; i++) {
        double x = rng_next_normal(&r);
        assert_true(isfinite(x));
        s1 += x;
        s2 += x * x;
        s4 += x * x * x * x;
    }
    assert_true(fabs(s1 / N) < 0.01);
    assert_true(fabs(s2 / N - 1) < 0.02);
    assert_true(fabs(s4 / N - 3) < 0.15);
}

static void philox_mean(void **state)
{
    (void)state;
    double sum = 0;
    for (uint64_t c = 0; c < 50000; c++) {
        struct rng_block b = rng_philox(42, 7, c);
        for (int k = 0; k < 4; k++)
            sum += rng_unit_f32(b.v[k]);
    }
    assert_true(fabs(sum / 200000 - 0.5) < 0.003);
}

static void entropy_differs(void **state)
{
    (void)state;
    assert_true(rng_entropy() != rng_entropy());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(philox_known_answers), cmocka_unit_test(unit_is_open),   cmocka_unit_test(splitmix_known),
        cmocka_unit_test(below_is_uniform),     cmocka_unit_test(normal_moments), cmocka_unit_test(philox_mean),
        cmocka_unit_test(entropy_differs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
