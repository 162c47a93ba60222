/* Matrices that are quantized already reach the device as they are: the values of packed columns are those of the codes and scales, bit for
 * bit, and products are those of the integers. */
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

enum { MAX_K = 520, MAX_ROWS = 200 };

/* A matrix of random codes.  Scales are small multiples of powers of two, so that sums of products are exact in f32. */
struct matrix {
    struct tensor_quant quant;
    int64_t rows, k, groups;
    uint8_t codes[MAX_ROWS * MAX_K];
    float scales[MAX_ROWS * MAX_K], zeros[MAX_ROWS * MAX_K], minima[MAX_ROWS * MAX_K];
    int32_t column_groups[MAX_K];
};

static void matrix_codes(const struct tensor_rows *r, int64_t row0, int64_t n, uint8_t *codes, float *scales, float *zeros, float *minima)
{
    const struct matrix *m = r->ctx;
    row0 += r->ctx_offset;
    memcpy(codes, m->codes + row0 * m->k, (size_t)(n * m->k));
    memcpy(scales, m->scales + row0 * m->groups, (size_t)(n * m->groups) * 4);
    memcpy(zeros, m->zeros + row0 * m->groups, (size_t)(n * m->groups) * 4);
    memcpy(minima, m->minima + row0 * m->groups, (size_t)(n * m->groups) * 4);
}

static void matrix_values(const struct tensor_rows *r, int64_t row0, int64_t n, float *out)
{
    (void)r;
    (void)row0;
    (void)n;
    (void)out;
    fail_msg("%s", "values were read, though codes can be carried");
}

static float matrix_at(const struct matrix *m, int64_t row, int64_t c)
{
    int64_t g = row * m->groups + (m->quant.column_groups ? m->column_groups[c] : c / m->quant.group);
    float v;
    if (m->quant.e4m3) {
        tensor_to_f32(DT_F8_E4M3, &m->codes[row * m->k + c], 1, &v);
        return m->scales[g] * v;
    }
    return m->scales[g] * ((float)m->codes[row * m->k + c] - m->zeros[g]) + m->minima[g];
}

static struct matrix *matrix_open(const struct tensor_quant *q, int64_t rows, int64_t k, bool ordered, uint64_t seed)
{
    struct matrix *m = calloc(1, sizeof *m);
    struct rng r = { seed };
    *m = (struct matrix){ .quant = *q, .rows = rows, .k = k, .groups = tensor_quant_groups(q, k) };
    m->quant.read = matrix_codes;
    for (int64_t i = 0; i < rows * k; i++) {
        m->codes[i] = (uint8_t)rng_next_below(&r, 1u << q->bits);
        /* Floats of at most 15.5, and no NaN. */
        if (q->e4m3)
            m->codes[i] = (uint8_t)((m->codes[i] & 0x80) | m->codes[i] % 0x50);
    }
    int half = 1 << (q->bits - 1);
    for (int64_t i = 0; i < rows * m->groups; i++) {
        m->scales[i] = (float)(1 + rng_next_below(&r, 7)) / 64;
        m->zeros[i] = q->fixed_zero ? (float)(q->has_minimum ? 0 : half) : (float)rng_next_below(&r, 1u << q->bits);
        m->minima[i] = q->has_minimum ? (float)rng_next_below(&r, 64) / 16 - 2 : -0.0f;
    }
    for (int64_t c = 0; c < k; c++)
        m->column_groups[c] = (int32_t)(c / q->group);
    for (int64_t c = k - 1; ordered && c > 0; c--) {
        int64_t j = (int64_t)rng_next_below(&r, (uint64_t)c + 1);
        int32_t t = m->column_groups[c];
        m->column_groups[c] = m->column_groups[j];
        m->column_groups[j] = t;
    }
    m->quant.column_groups = ordered ? m->column_groups : NULL;
    return m;
}

static struct tensor_rows part_of(const struct matrix *m, int64_t row0, int64_t n)
{
    return (struct tensor_rows){ .n_rows = n, .n_cols = m->k, .dtype = DT_F32, .read = matrix_values, .ctx = m, .ctx_offset = row0, .quant = &m->quant };
}

/* Inputs that are integers once they are scaled by 1: in each group of columns that can be a group of activations one is 127. */
static void fill_inputs(const struct matrix *m, float *x, int64_t n, struct rng *r)
{
    for (int64_t i = 0; i < n; i++) {
        int64_t in_group[MAX_K] = { 0 };
        for (int64_t c = 0; c < m->k; c++) {
            int64_t g = m->quant.column_groups ? m->column_groups[c] : c / m->quant.group;
            /* Every 16th column of a group, as they will lie, begins a group of activations of any format. */
            bool first = in_group[g]++ % 16 == 0;
            x[i * m->k + c] = first ? (c % 2 ? -127.0f : 127.0f) : (float)rng_next_below(r, 7) - 3;
        }
    }
}

static void check_embed(struct dev *d, const struct dev_weight *w, const struct matrix *m)
{
    int32_t *ids = calloc((size_t)m->rows, sizeof *ids);
    float *out = calloc((size_t)(m->rows * m->k), sizeof *out);
    struct err e;
    for (int32_t i = 0; i < m->rows; i++)
        ids[i] = i;
    struct dev_batch b = { .n_tokens = (int32_t)m->rows, .token_ids = ids };
    dev_step_begin(d, &b);
    dev_embed(d, out, w, 1.0f);
    assert_true(dev_step_end(d, &e));
    for (int64_t i = 0; i < m->rows; i++)
        for (int64_t c = 0; c < m->k; c++)
            if (out[i * m->k + c] != matrix_at(m, i, c))
                fail_msg("row %d column %d is %g, expected %g", (int)i, (int)c, out[i * m->k + c], matrix_at(m, i, c));
    free(ids);
    free(out);
}

static void check_product(struct dev *d, const struct dev_weight *w, const struct matrix *m, int n, struct rng *r)
{
    float *x = calloc((size_t)(n * m->k), sizeof *x), *out = calloc((size_t)(n * m->rows), sizeof *out);
    struct dev_linear p = { .epi = DEV_EPI_STORE, .scale = 1.0f };
    struct dev_batch b = { 0 };
    struct err e;
    fill_inputs(m, x, n, r);
    dev_step_begin(d, &b);
    dev_linear(d, &p, w, x, m->k, out, m->rows, n);
    assert_true(dev_step_end(d, &e));
    for (int64_t i = 0; i < n; i++) {
        for (int64_t j = 0; j < m->rows; j++) {
            double sum = 0;
            for (int64_t c = 0; c < m->k; c++)
                sum += (double)x[i * m->k + c] * matrix_at(m, j, c);
            if (out[i * m->rows + j] != (float)sum)
                fail_msg("%s, %d rows: output %d of row %d is %.9g, expected %.9g", dev_caps(d)->isa, n, (int)j, (int)i, out[i * m->rows + j], sum);
        }
    }
    free(x);
    free(out);
}

/* The image is all there is of a weight. */
static void check_image(struct dev *d, const struct dev_weight *w, const struct matrix *m, enum dev_format f, struct rng *r)
{
    struct dev_weight_shape shape = { .format = f, .n_out = m->rows, .k = m->k, .ordered = m->quant.column_groups != NULL };
    struct dev_weight *again;
    struct err e;
    size_t bytes;
    const void *image = dev_weight_image(w, &bytes);
    assert_int_equal(bytes, dev_weight_shape_bytes(&shape));
    void *copy = aligned_alloc(64, (bytes + 63) & ~(size_t)63);
    memcpy(copy, image, bytes);
    assert_true(dev_weight_from_image(d, &again, &shape, copy, bytes, &e));
    check_product(d, again, m, 3, r);
    dev_weight_free(d, &again);
    free(copy);
}

static const struct { struct tensor_quant q; enum dev_format format; int64_t k; bool ordered; } KINDS[] = {
    { { .bits = 4, .group = 32, .fixed_zero = true }, DEV_FMT_U4_G32, 320, false },
    { { .bits = 4, .group = 32, .has_minimum = true, .fixed_zero = true }, DEV_FMT_U4_G32, 300, false },
    { { .bits = 4, .group = 64 }, DEV_FMT_U4_G64, 448, false },
    { { .bits = 4, .group = 128 }, DEV_FMT_U4_G128, 500, false },
    { { .bits = 4, .group = 256 }, DEV_FMT_U4_G128, 512, false },
    { { .bits = 4, .group = 96 }, DEV_FMT_U4_G32, 480, false },
    { { .bits = 4, .group = 520 }, DEV_FMT_U4_G32, 520, false },
    { { .bits = 4, .group = 1 << 20 }, DEV_FMT_U4_G64, 192, false },
    { { .bits = 4, .group = 64 }, DEV_FMT_U4_G64, 320, true },
    { { .bits = 2, .group = 128 }, DEV_FMT_U4_G128, 384, true },
    { { .bits = 3, .group = 32 }, DEV_FMT_U4_G32, 384, false },
    { { .bits = 3, .group = 16, .fixed_zero = true }, DEV_FMT_I8_G16, 256, false },
    { { .bits = 5, .group = 32, .fixed_zero = true }, DEV_FMT_I8_G32, 320, false },
    { { .bits = 6, .group = 16, .fixed_zero = true }, DEV_FMT_I8_G16, 256, false },
    { { .bits = 8, .group = 32, .fixed_zero = true }, DEV_FMT_I8_G32, 200, false },
    { { .bits = 8, .group = 128, .fixed_zero = true }, DEV_FMT_I8_G32, 384, true },
    { { .bits = 8, .group = 300, .fixed_zero = true }, DEV_FMT_I8_G32, 300, false },
    { { .bits = 8, .group = 300, .fixed_zero = true, .int8_inputs = true }, DEV_FMT_I8, 300, false },
    { { .bits = 8, .group = 300, .e4m3 = true }, DEV_FMT_F8, 300, false },
    { { .bits = 8, .group = 128, .e4m3 = true }, DEV_FMT_F8_G128, 300, false },
    { { .bits = 8, .group = 256, .e4m3 = true }, DEV_FMT_F8_G128, 511, false },
    { { .bits = 5, .group = 32, .has_minimum = true, .fixed_zero = true }, DEV_FMT_U8_G32, 300, false },
    { { .bits = 2, .group = 16, .has_minimum = true, .fixed_zero = true }, DEV_FMT_U8_G16, 256, false },
    { { .bits = 8, .group = 64 }, DEV_FMT_U8_G32, 200, true },
    { { .bits = 4, .group = 16 }, DEV_FMT_U8_G16, 208, false },
};

static void test_kinds(void **state)
{
    (void)state;
    for (enum kern_isa isa = KERN_ISA_SCALAR; isa <= kern_isa_best(); isa++) {
        struct dev *d;
        struct err e;
        struct dev_opts o = { .n_threads = 2, .isa = kern_isa_name(isa) };
        assert_true(dev_open(&d, &o, &e));
        for (size_t i = 0; i < sizeof KINDS / sizeof *KINDS; i++) {
            struct rng r = { i + 1 };
            struct matrix *m = matrix_open(&KINDS[i].q, 70 + (int64_t)i, KINDS[i].k, KINDS[i].ordered, i);
            enum dev_format f;
            assert_true(dev_format_of_codes(&m->quant, m->k, &f));
            if (f != KINDS[i].format)
                fail_msg("kind %d is carried as %s", (int)i, dev_format_name(f));
            struct tensor_rows parts[3] = { part_of(m, 0, 41), part_of(m, 41, 1), part_of(m, 42, m->rows - 42) };
            struct dev_weight_spec spec = { .format = f, .codes = true, .parts = parts, .n_parts = 3 };
            struct dev_weight *w;
            if (!dev_weight_pack(d, &w, &spec, "w", &e))
                fail_msg("%s", e.msg);
            if (!KINDS[i].ordered)
                check_embed(d, w, m);
            check_product(d, w, m, 1, &r);
            check_product(d, w, m, 19, &r);
            check_product(d, w, m, 70, &r);
            check_image(d, w, m, f, &r);
            dev_weight_free(d, &w);
            free(m);
        }
        dev_close(&d);
    }
}

/* Both halves of a gated pair. */
static void test_gated(void **state)
{
    (void)state;
    struct dev *d;
    struct err e;
    struct dev_opts o = { .n_threads = 2 };
    assert_true(dev_open(&d, &o, &e));
    for (int ordered = 0; ordered < 2; ordered++) {
        struct matrix *m = matrix_open(&(struct tensor_quant){ .bits = 4, .group = 64 }, 2 * 45, 192, ordered, 9);
        struct tensor_rows parts[2] = { part_of(m, 0, 45), part_of(m, 45, 45) };
        struct dev_weight_spec spec = { .format = DEV_FMT_U4_G64, .codes = true, .parts = parts, .n_parts = 2, .gated = true };
        struct dev_weight *w;
        struct dev_batch b = { 0 };
        struct dev_linear p = { .epi = DEV_EPI_GLU, .act = DEV_ACT_RELU, .scale = 1.0f };
        struct rng r = { 3 };
        float x[4 * 192], out[4 * 45];
        assert_true(dev_weight_pack(d, &w, &spec, "w", &e));
        fill_inputs(m, x, 4, &r);
        dev_step_begin(d, &b);
        dev_linear(d, &p, w, x, 192, out, 45, 4);
        assert_true(dev_step_end(d, &e));
        for (int i = 0; i < 4 * 45; i++) {
            double gate = 0, up = 0;
            for (int64_t c = 0; c < 192; c++) {
                gate += (double)x[i / 45 * 192 + c] * matrix_at(m, i % 45, c);
                up += (double)x[i / 45 * 192 + c] * matrix_at(m, 45 + i % 45, c);
            }
            assert_true(out[i] == (gate > 0 ? (float)gate : 0.0f) * (float)up);
        }
        dev_weight_free(d, &w);
        free(m);
    }
    dev_close(&d);
}

static void test_refused(void **state)
{
    (void)state;
    static const struct { struct tensor_quant q; int64_t k; } none[] = {
        { { .bits = 4, .group = 24 }, 240 },                          /* no format has such groups */
        { { .bits = 8, .group = 8, .fixed_zero = true }, 240 },
        { { .bits = 0, .group = 32 }, 64 },                           /* not integers */
    };
    enum dev_format f;
    for (size_t i = 0; i < sizeof none / sizeof *none; i++)
        assert_false(dev_format_of_codes(&none[i].q, none[i].k, &f));
}

/* Scales that F16 cannot hold, NaN among floats, and groups that are not what was said. */
static void test_bad(void **state)
{
    (void)state;
    struct dev *d;
    struct err e;
    struct dev_opts o = { .n_threads = 2 };
    assert_true(dev_open(&d, &o, &e));
    struct dev_weight *w;
    for (int i = 0; i < 3; i++) {
        struct matrix *m = matrix_open(&(struct tensor_quant){ .bits = i == 2 ? 8 : 4, .group = 64, .fixed_zero = i == 2 }, 40, 192, i == 1, 4);
        if (i == 1)
            m->column_groups[0] ^= 1;
        else
            m->scales[17] = 1e6f;
        struct tensor_rows part = part_of(m, 0, 40);
        struct dev_weight_spec spec = { .format = i == 2 ? DEV_FMT_I8_G32 : DEV_FMT_U4_G64, .codes = true, .parts = &part, .n_parts = 1 };
        assert_false(dev_weight_pack(d, &w, &spec, "w", &e));
        assert_null(w);
        assert_non_null(strstr(e.msg, i == 1 ? "groups" : "--quantization none"));
        free(m);
    }
    struct matrix *m = matrix_open(&(struct tensor_quant){ .bits = 8, .group = 64, .e4m3 = true }, 4, 64, false, 4);
    float x[64] = { 1 }, out[4];
    m->codes[2 * 64 + 5] = 0xff;
    struct tensor_rows part = part_of(m, 0, 4);
    struct dev_weight_spec spec = { .format = DEV_FMT_F8, .codes = true, .parts = &part, .n_parts = 1 };
    assert_true(dev_weight_pack(d, &w, &spec, "w", &e));
    struct dev_linear p = { .epi = DEV_EPI_STORE, .scale = 1.0f };
    struct dev_batch b = { 0 };
    dev_step_begin(d, &b);
    dev_linear(d, &p, w, x, 64, out, 4, 1);
    assert_true(dev_step_end(d, &e));
    assert_true(isnan(out[2]) && !isnan(out[0]) && !isnan(out[1]) && !isnan(out[3]));
    dev_weight_free(d, &w);
    free(m);
    dev_close(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kinds), cmocka_unit_test(test_gated), cmocka_unit_test(test_refused), cmocka_unit_test(test_bad),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
