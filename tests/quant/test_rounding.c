/* The mathematics of rounding against plain computations of the same definitions. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "base/rng.h"
#include "dev/dev.h"
#include "quant/quant.h"
#include "tensor/tensor.h"

static struct rng rng = {.state = 20};
static struct dev *device;

static void run_team(void *ctx, int64_t n, void (*fn)(void *arg, int64_t i, int member), void *arg) { dev_for(ctx, n, fn, arg); }

static struct quant_team team_of(int n_threads, const char *isa)
{
    struct err e;
    struct quant_team t = {.run = run_team};
    if (device)
        dev_close(&device);
    if (!dev_open(&device, &(struct dev_opts){.name = "cpu", .n_threads = n_threads, .isa = isa}, &e))
        fail_msg("%s", e.msg);
    t.ctx = device;
    t.n_members = dev_caps(device)->n_threads;
    assert_true(kern_isa_parse(dev_caps(device)->isa, &t.isa));
    return t;
}

static float normal(void)
{
    float sum = 0;
    for (int i = 0; i < 12; i++)
        sum += (float)rng_next_unit(&rng);
    return sum - 6.0f;
}

static float *random_matrix(int64_t rows, int64_t cols, float scale)
{
    float *x = malloc((size_t)(rows * cols) * sizeof *x);
    for (int64_t i = 0; i < rows * cols; i++)
        x[i] = scale * normal();
    return x;
}

static float *copy_of(const float *x, int64_t n)
{
    float *y = malloc((size_t)n * sizeof *y);
    memcpy(y, x, (size_t)n * sizeof *y);
    return y;
}

/* Inputs with outliers and correlations, as activations have them. */
static float *random_inputs(int64_t rows, int64_t n)
{
    float *x = random_matrix(rows, n, 1);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 1; c < n; c++)
            x[r * n + c] = (0.6f * x[r * n + c - 1] + x[r * n + c]) * (c % 13 == 5 ? 8.0f : 1.0f);
    return x;
}

static double *moments(const float *x, int64_t rows, int64_t n)
{
    double *h = calloc((size_t)(n * n), sizeof *h);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < n; i++)
            for (int64_t j = 0; j < n; j++)
                h[i * n + j] += (double)x[r * n + i] * x[r * n + j];
    return h;
}

/* Squared error of the outputs of w become v. */
static double output_error(const float *w, const float *v, const double *h, int64_t rows, int64_t n)
{
    double sum = 0;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < n; i++)
            for (int64_t j = 0; j < n; j++)
                sum += ((double)w[r * n + i] - v[r * n + i]) * h[i * n + j] * ((double)w[r * n + j] - v[r * n + j]);
    return sum;
}

/* ---- pieces ---- */

/* E4M3 as its table has it: no infinities, one NaN. */
static float f8_value(uint8_t code)
{
    int e = code >> 3 & 15, m = code & 7;
    float v = e ? ldexpf(1.0f + (float)m / 8.0f, e - 7) : ldexpf((float)m / 8.0f, -6);
    return code & 0x80 ? -v : v;
}

static void test_f8(void **state)
{
    (void)state;
    /* All codes come back, and between neighbours the nearer one is chosen, ties to the even code. */
    for (int i = 0; i < 0x7e; i++) {
        float a = f8_value((uint8_t)i), b = f8_value((uint8_t)(i + 1)), mid = a + (b - a) / 2;
        assert_int_equal(quant_f8_encode(a), i);
        assert_int_equal(quant_f8_encode(-b), (i + 1) | 0x80);
        assert_int_equal(quant_f8_encode(mid), i % 2 ? i + 1 : i);
        assert_int_equal(quant_f8_encode(nextafterf(mid, 0)), i);
        assert_int_equal(quant_f8_encode(nextafterf(mid, 1e9f)), i + 1);
    }
    assert_int_equal(quant_f8_encode(448), 0x7e);
    assert_int_equal(quant_f8_encode(1e30f), 0x7e);
    assert_int_equal(quant_f8_encode(-INFINITY), 0xfe);
    assert_int_equal(quant_f8_encode(NAN), 0x7f);
}

static void test_algebra(void **state)
{
    (void)state;
    for (int k = 0; k < 12; k++) {
        int64_t n = 1 + (int64_t)rng_next_below(&rng, k < 6 ? 40 : 300), rows = n + 5;
        struct quant_team t = team_of(1 + k % 3, k % 2 ? "scalar" : NULL);
        struct err e;
        float *x = random_inputs(rows, n), *h = calloc((size_t)(n * n), sizeof *h), *inverse = malloc((size_t)(n * n) * sizeof *inverse);
        double *want = moments(x, rows, n);
        int64_t first = rows / 3;
        assert_true(quant_hessian_add(&t, h, x, n, first, n, &e) && quant_hessian_add(&t, h, x + first * n, n, rows - first, n, &e));
        quant_hessian_mirror(h, n);
        double largest = 0;
        for (int64_t i = 0; i < n; i++)
            largest = want[i * n + i] > largest ? want[i * n + i] : largest;
        for (int64_t i = 0; i < n * n; i++)
            assert_true(fabs(h[i] - want[i]) < 1e-5 * largest);
        float *w = random_matrix(3, n, 1), *v = random_matrix(3, n, 1), *d = malloc((size_t)(3 * n) * sizeof *d);
        double got, exact = output_error(w, v, want, 3, n);
        for (int64_t i = 0; i < 3 * n; i++)
            d[i] = v[i] - w[i];
        assert_true(quant_error(&t, d, h, 3, n, &got, &e));
        assert_true(fabs(got - exact) < 1e-3 * exact);
        for (int64_t i = 0; i < n; i++)
            h[i * n + i] += (float)(0.05 * largest);
        /* L^-T L^-1 H = 1 */
        float *l = copy_of(h, n * n);
        assert_true(quant_cholesky(&t, l, n, &e));
        for (int64_t i = 0; i < n; i++)
            for (int64_t j = i + 1; j < n; j++)
                l[i * n + j] = 0;
        assert_true(quant_invert_lower(&t, l, inverse, n, &e));
        for (int64_t i = 0; i < n; i += 1 + n / 9)
            for (int64_t j = 0; j < n; j++) {
                double sum = 0;
                for (int64_t a = 0; a < n; a++)
                    for (int64_t b = 0; b < n && n < 60; b++)
                        sum += (double)inverse[i * n + a] * inverse[b * n + a] * h[b * n + j];
                assert_true(n >= 60 || fabs(sum - (i == j)) < 2e-3);
            }
        free(x), free(h), free(inverse), free(want), free(w), free(v), free(d), free(l);
    }
    struct quant_team t = team_of(1, NULL);
    struct err e;
    float bad[4] = {1, 2, 2, 1};
    assert_false(quant_cholesky(&t, bad, 2, &e));
    assert_int_equal(e.code, ERR_INVALID);
}

static struct quant_grid random_grid(void)
{
    struct quant_grid g = {.bits = 2 + (int)rng_next_below(&rng, 7), .symmetric = rng_next_below(&rng, 2), .search = rng_next_below(&rng, 2),
                           .scale_type = (enum quant_scale_type)rng_next_below(&rng, 3)};
    static const int64_t groups[] = {0, 8, 16, 32, 24};
    g.group = groups[rng_next_below(&rng, 5)];
    g.fp8 = rng_next_below(&rng, 6) == 0;
    if (g.fp8)
        g.group = 0;
    return g;
}

/* Every weight has the code nearest to it, and the value is what the code says. */
static void test_rtn(void **state)
{
    (void)state;
    struct quant_team t = team_of(2, NULL);
    for (int k = 0; k < 200; k++) {
        struct quant_grid g = random_grid();
        int64_t rows = 1 + (int64_t)rng_next_below(&rng, 9), n = 1 + (int64_t)rng_next_below(&rng, 70);
        float *w = random_matrix(rows, n, k % 7 == 0 ? 1e-3f : 1), *v = copy_of(w, rows * n);
        struct quant_codes q;
        struct err e;
        if (k % 11 == 0)
            memset(w, 0, (size_t)n * sizeof *w), memset(v, 0, (size_t)n * sizeof *v);
        assert_true(quant_codes_open(&q, &g, rows, n, &e));
        quant_rtn(&t, &g, v, NULL, &q);
        assert_int_equal(q.n_groups, g.group ? (n + g.group - 1) / g.group : 1);
        int lo = -(1 << (g.bits - 1)) + (g.bits == 8 && g.symmetric), hi = (1 << (g.bits - 1)) - 1;
        for (int64_t r = 0; r < rows; r++)
            for (int64_t c = 0; c < n; c++) {
                int64_t at = r * q.n_groups + (g.group ? c / g.group : 0);
                float s = q.scales[at];
                int zero = q.zeros ? q.zeros[at] : 0, code = q.codes[r * n + c];
                assert_true(s > 0 && isfinite(s));
                assert_true(g.scale_type != QUANT_SCALE_F16 || g.fp8 || s == tensor_f16_to_f32(tensor_f32_to_f16(s)));
                float got = g.fp8 ? s * f8_value((uint8_t)code) : s * (float)(code - zero);
                assert_true(got == v[r * n + c]);
                double best = INFINITY;
                for (int i = g.fp8 ? 0 : lo; i <= (g.fp8 ? 0xfe : hi); i++) {
                    if (g.fp8 && (i & 0x7f) == 0x7f)
                        continue;
                    double x = g.fp8 ? (double)s * f8_value((uint8_t)i) : (double)s * (i - zero);
                    best = fabs(x - w[r * n + c]) < best ? fabs(x - w[r * n + c]) : best;
                }
                if (!(fabs((double)got - w[r * n + c]) <= best * (1 + 1e-4) + 2e-7 * fabs(w[r * n + c])))
                    fail_msg("k %d: fp8 %d, %d bits, symmetric %d, search %d, scale type %d, group %d: %g became %g with scale %g, zero %d: %g is nearer", k, g.fp8, g.bits, g.symmetric, g.search, g.scale_type, (int)g.group, w[r * n + c], got, s, zero, best);
            }
        quant_codes_close(&q);
        free(w), free(v);
    }
}

/* A searched scale loses no more than any share of the range from the whole to its half does, by a sum over all codes. */
static void test_search(void **state)
{
    (void)state;
    int better = 0;
    for (int k = 0; k < 300; k++) {
        struct quant_grid g = {.bits = k % 2 ? 4 : 3 + k % 6, .symmetric = k % 3 != 0, .search = true};
        int64_t n = 1 + (int64_t)rng_next_below(&rng, 70);
        float *w = random_matrix(1, n, 1), *importance = random_matrix(1, n, 1), scale[2];
        int8_t zero[2];
        double of[2];
        for (int64_t i = 0; i < n; i++)
            importance[i] = importance[i] * importance[i];
        for (int how = 0; how < 2; how++) {
            g.search = how == 0;
            quant_grid_fit(&g, w, k % 5 ? importance : NULL, n, &scale[how], &zero[how]);
        }
        int lo = -(1 << (g.bits - 1)) + (g.bits == 8 && g.symmetric), hi = (1 << (g.bits - 1)) - 1;
        float widest = scale[1];
        for (int step = 0; step <= 40; step++) {
            float s[2] = {scale[0], widest * (1 - (float)step / 80)};
            for (int how = 0; how < 2; how++) {
                of[how] = 0;
                for (int64_t i = 0; i < n; i++) {
                    double best = INFINITY;
                    for (int c = lo; c <= hi; c++) {
                        double d = (double)w[i] - (double)(s[how] * (float)(c - zero[how]));
                        best = d * d < best ? d * d : best;
                    }
                    of[how] += best * (k % 5 ? (double)importance[i] : 1);
                }
            }
            assert_true(of[0] <= of[1] * (1 + 1e-3) + 1e-12 || !g.symmetric);   /* zeros move with the range */
            if (step == 0)
                assert_true(of[0] <= of[1] * (1 + 1e-3) + 1e-12);
            better += step == 0 && of[0] < of[1] * 0.999;
        }
        free(w), free(importance);
    }
    assert_true(better > 150);
}

/* ---- GPTQ ---- */

/* The method as its paper has it, in double, one column after the other with the whole inverse: a group's scale is that of
 * its columns when its first comes up. */
static void plain_gptq(const struct quant_grid *g, double damp, float *w, const float *h, int64_t rows, int64_t n)
{
    double *a = malloc((size_t)(2 * n * n) * sizeof *a), mean = 0;
    for (int64_t i = 0; i < n; i++)
        mean += h[i * n + i] / (double)n;
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < 2 * n; j++)
            a[i * 2 * n + j] = j < n ? h[i * n + j] + (i == j) * damp * mean : (j - n == i);
    for (int64_t i = 0; i < n; i++) {                     /* Gauss-Jordan: a = [1 | H^-1] */
        double p = a[i * 2 * n + i];
        for (int64_t j = 0; j < 2 * n; j++)
            a[i * 2 * n + j] /= p;
        for (int64_t r = 0; r < n; r++) {
            double f = a[r * 2 * n + i];
            for (int64_t j = 0; r != i && f != 0 && j < 2 * n; j++)
                a[r * 2 * n + j] -= f * a[i * 2 * n + j];
        }
    }
    double *inv = malloc((size_t)(n * n) * sizeof *inv);
    for (int64_t i = 0; i < n * n; i++)
        inv[i] = a[i / n * 2 * n + n + i % n];
    float *importance = malloc((size_t)n * sizeof *importance), *row = malloc((size_t)n * sizeof *row);
    for (int64_t i = 0; i < n; i++)
        importance[i] = h[i * n + i];
    double *live = malloc((size_t)(rows * n) * sizeof *live);
    float *scale = calloc((size_t)rows, sizeof *scale);
    int8_t *zero = calloc((size_t)rows, 1);
    for (int64_t i = 0; i < rows * n; i++)
        live[i] = w[i];
    int64_t size = g->group ? g->group : n;
    for (int64_t q = 0; q < n; q++) {
        for (int64_t r = 0; r < rows; r++) {
            if (q % size == 0) {
                int64_t len = n - q < size ? n - q : size;
                for (int64_t i = 0; i < len; i++)
                    row[i] = (float)live[r * n + q + i];
                quant_grid_fit(g, row, importance + q, len, &scale[r], &zero[r]);
            }
            float v = quant_grid_value(g, quant_grid_code(g, (float)live[r * n + q], scale[r], zero[r]), scale[r], zero[r]);
            double err = (live[r * n + q] - v) / inv[q * n + q];
            w[r * n + q] = v;
            for (int64_t j = q + 1; j < n; j++)
                live[r * n + j] -= err * inv[q * n + j];
        }
        for (int64_t i = q + 1; i < n; i++)              /* column q leaves the inverse */
            for (int64_t j = q + 1; j < n; j++)
                inv[i * n + j] -= inv[i * n + q] * inv[q * n + j] / inv[q * n + q];
    }
    free(a), free(inv), free(importance), free(row), free(live), free(scale), free(zero);
}

static void test_gptq(void **state)
{
    (void)state;
    for (int k = 0; k < 24; k++) {
        struct quant_grid g = random_grid();
        int64_t rows = 1 + (int64_t)rng_next_below(&rng, 12), n = 8 + (int64_t)rng_next_below(&rng, 100), tokens = 3 * n;
        struct quant_team t = team_of(1 + k % 3, k % 2 ? "scalar" : NULL);
        struct err e;
        struct quant_codes q;
        if (g.group && g.group < 16 && n > 128)
            g.group = 16;
        float *x = random_inputs(tokens, n), *w = random_matrix(rows, n, 1), *h = calloc((size_t)(n * n), sizeof *h);
        double *moment = moments(x, tokens, n);
        for (int64_t i = 0; i < n * n; i++)
            h[i] = (float)moment[i];
        float *plain = copy_of(w, rows * n), *fast = copy_of(w, rows * n), *near = copy_of(w, rows * n), *used = copy_of(h, n * n);
        plain_gptq(&g, 0.01, plain, h, rows, n);
        assert_true(quant_codes_open(&q, &g, rows, n, &e));
        assert_true(quant_gptq(&t, &g, &(struct quant_gptq){.damp = 0.01}, fast, used, &q, &e));
        /* A weight midway between two codes may go either way with the last digit, and takes what follows along: errors, not codes. */
        double a = output_error(w, fast, moment, rows, n), b = output_error(w, plain, moment, rows, n);
        assert_true(fabs(a - b) <= 0.1 * b + 1e-9);
        quant_rtn(&t, &g, near, NULL, &q);
        double c = output_error(w, near, moment, rows, n);
        if (g.bits < 8 && !g.fp8 && rows > 3)
            assert_true(a < c);
        quant_codes_close(&q);
        free(x), free(w), free(h), free(moment), free(plain), free(fast), free(near), free(used);
    }
}

/* Wider than a block, in the order of the inputs; the same bits for any team. */
static void test_gptq_wide(void **state)
{
    (void)state;
    enum { ROWS = 24, N = 300, TOKENS = 400 };
    float *x = random_inputs(TOKENS, N), *w = random_matrix(ROWS, N, 1), *h = calloc(N * N, sizeof *h);
    double *moment = moments(x, TOKENS, N);
    double rtn = 0;
    for (int order = 0; order < 2; order++) {
        for (int group = 0; group < 2; group++) {
            float *first = NULL;
            for (int k = 0; k < 3; k++) {
                struct quant_team t = team_of(1 + k, NULL);
                struct quant_grid g = {.bits = 4, .symmetric = true, .group = group ? 64 : 0};
                struct quant_codes q;
                struct err e;
                float *v = copy_of(w, ROWS * N);
                for (int i = 0; i < N * N; i++)
                    h[i] = (float)moment[i];
                h[7 * N + 7] = 0;                        /* an input that never comes */
                assert_true(quant_codes_open(&q, &g, ROWS, N, &e));
                quant_rtn(&t, &g, v, NULL, &q);
                rtn = output_error(w, v, moment, ROWS, N);
                memcpy(v, w, ROWS * N * sizeof *v);
                assert_true(quant_gptq(&t, &g, &(struct quant_gptq){.damp = 0.01, .act_order = order}, v, h, &q, &e));
                if (!first)
                    first = copy_of(v, ROWS * N);
                assert_memory_equal(first, v, ROWS * N * sizeof *v);
                double a = output_error(w, v, moment, ROWS, N);
                assert_true(a < 0.6 * rtn);
                quant_codes_close(&q);
                free(v);
            }
            free(first);
        }
    }
    free(x), free(w), free(h), free(moment);
}

/* Second moments without full rank and without any input at all. */
static void test_gptq_poor(void **state)
{
    (void)state;
    struct quant_team t = team_of(2, NULL);
    struct quant_grid g = {.bits = 4, .symmetric = true, .group = 16};
    for (int tokens = 0; tokens < 4; tokens++) {
        struct quant_codes q;
        struct err e;
        float *x = random_inputs(4, 48), *w = random_matrix(5, 48, 1), *h = calloc(48 * 48, sizeof *h);
        double *moment = moments(x, tokens, 48);
        for (int i = 0; i < 48 * 48; i++)
            h[i] = (float)moment[i];
        assert_true(quant_codes_open(&q, &g, 5, 48, &e));
        if (!quant_gptq(&t, &g, &(struct quant_gptq){.damp = 0}, w, h, &q, &e))
            assert_int_equal(e.code, ERR_INVALID);
        for (int i = 0; i < 5 * 48; i++)
            assert_true(isfinite(w[i]));
        quant_codes_close(&q);
        free(x), free(w), free(h), free(moment);
    }
}

/* ---- scales ---- */

static void test_awq(void **state)
{
    (void)state;
    enum { ROWS = 32, N = 64, TOKENS = 200 };
    struct quant_team t = team_of(2, NULL);
    struct quant_grid g = {.bits = 3, .symmetric = true, .group = 32};
    struct err e;
    float *x = random_inputs(TOKENS, N), *w = random_matrix(ROWS, N, 1), *h = malloc(N * N * sizeof *h), s[N];
    double *moment = moments(x, TOKENS, N), gain;
    for (int i = 0; i < N * N; i++)
        h[i] = (float)moment[i];
    struct quant_reader r = {.w = w, .rows = ROWS, .grid = &g};
    assert_true(quant_awq_scales(&t, &r, 1, h, N, (struct quant_tie){1, 1}, 20, s, &gain, &e));
    /* The gain is what a computation from the definition finds: round w s, divide by s. */
    double errors[2];
    for (int k = 0; k < 2; k++) {
        float *v = copy_of(w, ROWS * N), importance[N];
        struct quant_codes q;
        for (int i = 0; i < ROWS * N; i++)
            v[i] *= k ? s[i % N] : 1;
        for (int i = 0; i < N; i++)
            importance[i] = h[i * N + i] / (k ? s[i] * s[i] : 1);
        assert_true(quant_codes_open(&q, &g, ROWS, N, &e));
        quant_rtn(&t, &g, v, importance, &q);
        for (int i = 0; i < ROWS * N; i++)
            v[i] /= k ? s[i % N] : 1;
        errors[k] = output_error(w, v, moment, ROWS, N);
        quant_codes_close(&q);
        free(v);
    }
    assert_true(gain < 0.8);
    assert_true(fabs(errors[1] / errors[0] - gain) < 0.02);
    /* Tied inputs share. */
    assert_true(quant_awq_scales(&t, &r, 1, h, N, (struct quant_tie){2, 8}, 20, s, &gain, &e));
    for (int i = 0; i < N; i++)
        assert_true(s[i] == s[i / 16 * 16 + i % 8]);
    float most[N];
    for (int i = 0; i < N; i++) {
        most[i] = 0;
        for (int k = 0; k < TOKENS; k++)
            most[i] = fabsf(x[k * N + i]) > most[i] ? fabsf(x[k * N + i]) : most[i];
    }
    quant_smooth_scales(&r, 1, most, N, 0.5, s);
    for (int i = 0; i < N; i++) {
        double column = 0;
        for (int k = 0; k < ROWS; k++)
            column = fabs(w[k * N + i]) > column ? fabs(w[k * N + i]) : column;
        assert_true(fabs(s[i] - sqrt(most[i] / column)) < 1e-4 * s[i]);
    }
    free(x), free(w), free(h), free(moment);
}

static int close_device(void **state)
{
    (void)state;
    if (device)
        dev_close(&device);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_f8), cmocka_unit_test(test_algebra), cmocka_unit_test(test_rtn), cmocka_unit_test(test_search),
        cmocka_unit_test(test_gptq),
        cmocka_unit_test(test_gptq_wide), cmocka_unit_test(test_gptq_poor), cmocka_unit_test(test_awq),
    };
    return cmocka_run_group_tests(tests, NULL, close_device);
}
