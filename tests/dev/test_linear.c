/* The device's products and embedding: packing from every kind of source, many steps, thread counts, errors. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "base/mem.h"
#include "base/rng.h"
#include "dev/dev.h"
#include "kern/cpu.h"

static struct dev *open_dev(int threads, enum kern_isa isa)
{
    struct dev *d;
    struct err e;
    struct dev_opts o = {.n_threads = threads, .isa = kern_isa_name(isa)};
    if (!dev_open(&d, &o, &e))
        fail_msg("%s", e.msg);
    return d;
}

/* A matrix of seeded values that every 16-bit type holds exactly: small integers over 64. */
static float value(int64_t row, int64_t col)
{
    uint64_t h = (uint64_t)(row * 8191 + col) * 0x9e3779b97f4a7c15u;
    return (float)((int)(h >> 58) - 32) / 64;
}

static void read_values(const struct tensor_rows *r, int64_t row0, int64_t n, float *out)
{
    for (int64_t i = 0; i < n; i++) {
        for (int64_t c = 0; c < r->n_cols; c++)
            out[i * r->n_cols + c] = value(r->ctx_offset + row0 + i, c);
    }
}

/* Three parts: one read through the callback, two raw ones (bf16 and f32). */
struct source { struct tensor_rows parts[3]; uint16_t *bf; float *f; int n_out, k; };

static void source_open(struct source *s, int a, int b, int c, int k)
{
    *s = (struct source){.n_out = a + b + c, .k = k};
    s->bf = malloc((size_t)(b * k) * 2);
    s->f = malloc((size_t)(c * k) * 4);
    for (int i = 0; i < b * k; i++)
        s->bf[i] = tensor_f32_to_bf16(value(a + i / k, i % k));
    for (int i = 0; i < c * k; i++)
        s->f[i] = value(a + b + i / k, i % k);
    struct tensor_rows base = {.n_cols = k, .dtype = DT_F32, .read = read_values};
    s->parts[0] = s->parts[1] = s->parts[2] = base;
    s->parts[0].n_rows = a;
    s->parts[1].n_rows = b;
    s->parts[1].ctx_offset = a;
    s->parts[1].dtype = DT_BF16;
    s->parts[1].raw = s->bf;
    s->parts[1].raw_stride_bytes = (size_t)k * 2;
    s->parts[2].n_rows = c;
    s->parts[2].ctx_offset = a + b;
    s->parts[2].raw = s->f;
    s->parts[2].raw_stride_bytes = (size_t)k * 4;
}

static void source_close(struct source *s)
{
    free(s->bf);
    free(s->f);
}

static struct dev_weight *pack(struct dev *d, const struct source *s, enum dev_format f, const float *bias)
{
    struct dev_weight_spec spec = {.format = f, .parts = s->parts, .n_parts = 3, .bias = bias};
    struct dev_weight *w;
    struct err e;
    if (!dev_weight_pack(d, &w, &spec, "w", &e))
        fail_msg("%s", e.msg);
    return w;
}

static void run(struct dev *d, const struct dev_linear *p, const struct dev_weight *w, const float *x, int64_t ldx, float *out, int64_t ldo, int n)
{
    struct dev_batch b = {0};
    struct err e;
    dev_step_begin(d, &b);
    dev_linear(d, p, w, x, ldx, out, ldo, n);
    if (!dev_step_end(d, &e))
        fail_msg("%s", e.msg);
}

/* Inputs that bf16 holds exactly: with these values and weights every sum is exact in f32. */
static void fill_x(float *x, int n)
{
    for (int i = 0; i < n; i++)
        x[i] = (float)((i * 37) % 17 - 8) / 4;
}

static void linear_exact(void **state)
{
    (void)state;
    static const int sizes[][4] = {{40, 7, 70, 129}, {1, 1, 1, 1}, {64, 32, 32, 2500}, {3, 50, 9, 33}};
    for (enum kern_isa isa = KERN_ISA_SCALAR; isa <= kern_isa_best(); isa++) {
        for (int threads = 1; threads <= 3; threads++) {
            struct dev *d = open_dev(threads, isa);
            for (int t = 0; t < 4 * (DEV_FMT_BF16 + 1); t++) {
                struct source s;
                source_open(&s, sizes[t % 4][0], sizes[t % 4][1], sizes[t % 4][2], sizes[t % 4][3]);
                float bias[256];
                for (int i = 0; i < s.n_out; i++)
                    bias[i] = (float)i / 8;
                struct dev_weight *w = pack(d, &s, (enum dev_format)(t / 4), bias);
                assert_int_equal(dev_weight_rows(w), s.n_out);
                assert_int_equal(dev_weight_cols(w), s.k);
                int m = t % 3 == 0 ? 1 : t % 3 == 1 ? 9 : 300, ldx = s.k + 5, ldo = s.n_out + 3;
                float *x = malloc((size_t)(m * ldx) * 4), *out = malloc((size_t)(m * ldo) * 4);
                fill_x(x, m * ldx);
                for (int i = 0; i < m * ldo; i++)
                    out[i] = -1;
                struct dev_linear p = {.epi = t % 2 ? DEV_EPI_ADD : DEV_EPI_STORE, .scale = 0.5f};
                run(d, &p, w, x, ldx, out, ldo, m);
                for (int i = 0; i < m; i += m > 20 ? 29 : 1) {
                    for (int j = 0; j < s.n_out; j++) {
                        double sum = bias[j];
                        for (int k = 0; k < s.k; k++)
                            sum += (double)x[i * ldx + k] * value(j, k);
                        assert_true(out[i * ldo + j] == (float)(sum * 0.5 - (t % 2 ? 1 : 0)));
                    }
                    assert_true(out[i * ldo + s.n_out] == -1);
                }
                free(x);
                free(out);
                dev_weight_free(d, &w);
                assert_null(w);
                source_close(&s);
            }
            dev_close(&d);
        }
    }
}

/* So many panels that items of all sizes are handed out, the last ones short: each column is computed, and once. */
static void linear_of_many_items(void **state)
{
    (void)state;
    enum { K = 1024, N_OUT = 4001 };
    struct source s;
    source_open(&s, 3000, 1000, 1, K);
    double *want = malloc(N_OUT * sizeof *want);
    float *x = malloc((size_t)(9 * K) * 4), *out = malloc((size_t)(9 * N_OUT) * 4);
    fill_x(x, K);
    for (int i = 1; i < 9; i++)
        memcpy(x + i * K, x, K * sizeof *x);
    for (int j = 0; j < N_OUT; j++) {
        want[j] = 0;
        for (int k = 0; k < K; k++)
            want[j] += (double)x[k] * value(j, k);
    }
    for (int threads = 1; threads <= 5; threads += 2) {
        struct dev *d = open_dev(threads, kern_isa_best());
        struct dev_weight *w = pack(d, &s, DEV_FMT_BF16, NULL);
        for (int m = 1; m <= 9; m += 8) {
            for (int i = 0; i < m * N_OUT; i++)
                out[i] = 0.5f;
            run(d, &(struct dev_linear){.epi = DEV_EPI_ADD, .scale = 1}, w, x, K, out, N_OUT, m);
            for (int i = 0; i < m * N_OUT; i++)
                assert_true(out[i] == (float)(want[i % N_OUT] + 0.5));
        }
        dev_weight_free(d, &w);
        dev_close(&d);
    }
    source_close(&s);
    free(want);
    free(x);
    free(out);
}

static void gated(void **state)
{
    (void)state;
    for (enum kern_isa isa = KERN_ISA_SCALAR; isa <= kern_isa_best(); isa++) {
        struct dev *d = open_dev(2, isa);
        enum { H = 75, K = 41, M = 19 };
        struct source s;
        source_open(&s, H, H, 1, K);
        float bias[2 * H], x[M * K], out[M * H];
        for (int i = 0; i < 2 * H; i++)
            bias[i] = (float)(i % 9) / 8;
        fill_x(x, M * K);
        struct dev_weight_spec spec = {.format = DEV_FMT_BF16, .parts = s.parts, .n_parts = 2, .bias = bias, .gated = true};
        struct dev_weight *w;
        struct err e;
        assert_true(dev_weight_pack(d, &w, &spec, "gate_up", &e));
        assert_int_equal(dev_weight_rows(w), 2 * H);
        struct dev_linear p = {.epi = DEV_EPI_GLU, .act = DEV_ACT_SILU, .scale = 1};
        run(d, &p, w, x, K, out, H, M);
        for (int i = 0; i < M; i++) {
            for (int j = 0; j < H; j++) {
                double g = bias[j], u = bias[H + j];
                for (int k = 0; k < K; k++) {
                    g += (double)x[i * K + k] * value(j, k);
                    u += (double)x[i * K + k] * value(H + j, k);
                }
                double want = g / (1 + exp(-g)) * u;
                assert_true(fabs(out[i * H + j] - want) <= 2e-6 * fabs(want) + 1e-30);
            }
        }
        dev_weight_free(d, &w);
        /* Unequal halves are refused. */
        spec.n_parts = 3;
        assert_false(dev_weight_pack(d, &w, &spec, "gate_up", &e));
        assert_null(w);
        source_close(&s);
        dev_close(&d);
    }
}

/* Same bits for one and three threads, and for a row alone or among others. */
static void thread_invariance(void **state)
{
    (void)state;
    enum { K = 1000, M = 40 };
    struct source s;
    source_open(&s, 200, 100, 33, K);
    float *x = malloc(M * K * 4), *one = malloc((size_t)(M * s.n_out) * 4), *out = malloc((size_t)(M * s.n_out) * 4);
    struct rng r = {4};
    for (int i = 0; i < M * K; i++)
        x[i] = (float)rng_next_normal(&r);
    struct dev_linear p = {.epi = DEV_EPI_STORE, .act = DEV_ACT_GELU_TANH, .scale = 1};
    for (int f = 0; f < DEV_FMT_COUNT; f++) {
        for (int threads = 1; threads <= 3; threads++) {
            struct dev *d = open_dev(threads, kern_isa_best());
            struct dev_weight *w = pack(d, &s, (enum dev_format)f, NULL);
            run(d, &p, w, x, K, out, s.n_out, M);
            if (threads == 1)
                memcpy(one, out, (size_t)(M * s.n_out) * 4);
            assert_memory_equal(one, out, (size_t)(M * s.n_out) * 4);
            for (int i = 0; i < M; i += 7) {
                run(d, &p, w, x + i * K, K, out, s.n_out, 1);
                assert_memory_equal(one + i * s.n_out, out, (size_t)s.n_out * 4);
            }
            dev_weight_free(d, &w);
            dev_close(&d);
        }
    }
    free(x);
    free(one);
    free(out);
    source_close(&s);
}

/* Quantized products against the full ones: the relative error of all outputs. */
static void quantized(void **state)
{
    (void)state;
    enum { K = 777, M = 5 };
    static const float bound[DEV_FMT_COUNT] = {
        [DEV_FMT_I8] = 0.015f, [DEV_FMT_I8_G16] = 0.011f, [DEV_FMT_I8_G32] = 0.012f, [DEV_FMT_I4] = 0.08f, [DEV_FMT_U4_G32] = 0.08f,
        [DEV_FMT_U4_G64] = 0.09f, [DEV_FMT_U4_G128] = 0.1f, [DEV_FMT_F8] = 0.04f,
        [DEV_FMT_U8_G16] = 0.011f, [DEV_FMT_U8_G32] = 0.012f, [DEV_FMT_F8_G128] = 0.04f,
    };
    struct source s;
    source_open(&s, 100, 50, 33, K);
    float *x = malloc(M * K * 4), *want = malloc((size_t)(M * s.n_out) * 4), *out = malloc((size_t)(M * s.n_out) * 4);
    struct rng r = {8};
    for (int i = 0; i < M * K; i++)
        x[i] = (float)rng_next_normal(&r);
    struct dev_linear p = {.epi = DEV_EPI_STORE, .scale = 1};
    for (enum kern_isa isa = KERN_ISA_SCALAR; isa <= kern_isa_best(); isa++) {
        struct dev *d = open_dev(2, isa);
        for (int f = 0; f < DEV_FMT_COUNT; f++) {
            enum dev_format back;
            assert_true(dev_format_parse(dev_format_name((enum dev_format)f), &back) && (int)back == f);
            if (f == DEV_FMT_F16 || f == DEV_FMT_BF16)
                continue;
            struct dev_weight *w = pack(d, &s, (enum dev_format)f, NULL);
            run(d, &p, w, x, K, f == DEV_FMT_F32 ? want : out, s.n_out, M);
            double err = 0, size = 0;
            for (int i = 0; i < M * s.n_out; i++) {
                err += (double)(out[i] - want[i]) * (out[i] - want[i]);
                size += (double)want[i] * want[i];
            }
            if (f != DEV_FMT_F32 && !(sqrt(err / size) < bound[f]))
                fail_msg("%s %s: relative error %g", kern_isa_name(isa), dev_format_name((enum dev_format)f), sqrt(err / size));
            dev_weight_free(d, &w);
        }
        dev_close(&d);
    }
    free(x);
    free(want);
    free(out);
    source_close(&s);
}

static void embed(void **state)
{
    (void)state;
    struct source s;
    source_open(&s, 31, 10, 60, 77);
    struct dev *d = open_dev(2, kern_isa_best());
    for (int f = 0; f <= DEV_FMT_BF16; f++) {
        struct dev_weight *w = pack(d, &s, (enum dev_format)f, NULL);
        const int32_t ids[] = {0, 100, 31, 32, 40, 41, 0};
        const int32_t positions[7] = {0, 1, 2, 3, 4, 5, 6}, starts[] = {0, 7};
        float out[7 * 77];
        struct dev_batch b = {.n_tokens = 7, .n_seqs = 1, .token_ids = ids, .positions = positions, .seq_start = starts};
        struct err e;
        dev_step_begin(d, &b);
        dev_embed(d, out, w, 2);
        assert_true(dev_step_end(d, &e));
        for (int i = 0; i < 7; i++) {
            for (int c = 0; c < 77; c++)
                assert_true(out[i * 77 + c] == 2 * value(ids[i], c));
        }
        dev_weight_free(d, &w);
    }
    /* A quantized table gives values near. */
    for (int f = DEV_FMT_I8; f < DEV_FMT_COUNT; f++) {
        struct dev_weight *w = pack(d, &s, (enum dev_format)f, NULL);
        const int32_t id = 70, position = 0, starts[] = {0, 1};
        float out[77];
        struct dev_batch b = {.n_tokens = 1, .n_seqs = 1, .token_ids = &id, .positions = &position, .seq_start = starts};
        struct err e;
        dev_step_begin(d, &b);
        dev_embed(d, out, w, 1);
        assert_true(dev_step_end(d, &e));
        for (int c = 0; c < 77; c++)
            assert_true(fabsf(out[c] - value(70, c)) < (f >= DEV_FMT_I4 && f <= DEV_FMT_U4_G128 ? 0.15f : 0.03f));
        dev_weight_free(d, &w);
    }
    source_close(&s);
    dev_close(&d);
}

static void bytes_and_errors(void **state)
{
    (void)state;
    assert_int_equal(dev_weight_bytes(DEV_FMT_F32, 33, 10, false), 2 * 32 * 10 * 4);
    assert_int_equal(dev_weight_bytes(DEV_FMT_BF16, 32, 11, true), 32 * 12 * 2 + 32 * 4);
    assert_int_equal(dev_weight_bytes(DEV_FMT_F16, 1, 3, false), 32 * 3 * 2);
    assert_int_equal(dev_weight_bytes(DEV_FMT_F32, INT64_MAX / 2, INT32_MAX, true), 0);
    assert_string_equal(dev_format_name(DEV_FMT_BF16), "bf16");

    struct dev *d = open_dev(1, KERN_ISA_SCALAR);
    struct source s;
    source_open(&s, 5, 6, 7, 8);
    struct dev_weight_spec spec = {.format = DEV_FMT_F32, .parts = s.parts, .n_parts = 3};
    struct dev_weight *w;
    struct err e;
    for (int n = 1;; n++) {
        mem_fault_after(n);
        bool ok = dev_weight_pack(d, &w, &spec, "w", &e);
        mem_fault_after(0);
        if (ok)
            break;
        assert_null(w);
        assert_int_equal(e.code, ERR_NOMEM);
        assert_true(n < 10);
    }
    dev_weight_free(d, &w);
    s.parts[1].n_cols = 9;
    assert_false(dev_weight_pack(d, &w, &spec, "w", &e));
    assert_int_equal(e.code, ERR_INVALID);
    source_close(&s);
    dev_close(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(linear_exact), cmocka_unit_test(linear_of_many_items), cmocka_unit_test(gated),            cmocka_unit_test(thread_invariance), cmocka_unit_test(quantized),
        cmocka_unit_test(embed),        cmocka_unit_test(bytes_and_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
