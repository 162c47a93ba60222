/* Each ISA's product against the scalar one and double sums: random shapes with tails, guard pages, poison,
 * NaN and infinity, and promise 1 by memcmp. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "base/mem.h"
#include "kcheck.h"
#include "kern/gemm.h"
#include "kern/gemm_int.h"

/* One product in guarded memory. */
struct product {
    enum gemm_format format;
    int m, n, k;
    int64_t ldx, ldo;
    struct guarded x, w, panels, out, a, scratch, bias;
    float *rows;          /* [n][k]; once packed the values the panels hold exactly */
    double *seen;         /* [m][k], activations as a kernel sees them */
};

static void *xmalloc(size_t n)
{
    void *p = malloc(n ? n : 1);
    assert_non_null(p);
    return p;
}

static float representable(enum gemm_format f, float v)
{
    if (f == GEMM_F16)
        return tensor_f16_to_f32(tensor_f32_to_f16(v));
    return f == GEMM_BF16 ? tensor_bf16_to_f32(tensor_f32_to_bf16(v)) : v;
}

static void product_open(struct product *p, struct rng *r, enum gemm_format f, int m, int n, int k, bool glu)
{
    int n_panels = (n + 31) / 32;
    *p = (struct product){.format = f, .m = m, .n = n, .k = k, .ldx = k + random_between(r, 0, 3), .ldo = n + random_between(r, 0, 3)};
    p->x = guard_alloc(((size_t)(m - 1) * (size_t)p->ldx + (size_t)k) * 4, 4);
    p->out = guard_alloc(((size_t)(m - 1) * (size_t)p->ldo + (size_t)(glu ? n / 2 : n)) * 4, 4);
    p->panels = guard_alloc((size_t)n_panels * gemm_panel_bytes(f, k), 64);
    size_t act = 0;
    for (int i = 0; gemm_kern_at(i); i++) {
        size_t need = gemm_kern_at(i)->format == f ? gemm_act_bytes(gemm_kern_at(i), k) : 0;
        act = need > act ? need : act;
    }
    p->a = guard_alloc((size_t)m * act, 4);
    p->seen = xmalloc((size_t)m * (size_t)k * sizeof *p->seen);
    p->scratch = guard_alloc(gemm_scratch_bytes(), 64);
    p->bias = guard_alloc((size_t)n_panels * 32 * 4, 64);
    p->rows = xmalloc((size_t)n * (size_t)k * 4);
    memset(p->panels.p, 0, p->panels.bytes);
    for (size_t i = 0; i < p->x.bytes / 4; i++)
        ((float *)p->x.p)[i] = random_float(r);
    for (int i = 0; i < n * k; i++)
        p->rows[i] = representable(f, random_float(r));
    for (int i = 0; i < n_panels * 32; i++)
        ((float *)p->bias.p)[i] = random_float(r);
}

/* Columns of panel q: plain 32 rows; gated 16 of each half. */
static void product_pack(struct product *p, bool glu)
{
    int width = glu ? 16 : 32, half = glu ? p->n / 2 : p->n;
    for (int q = 0; q * width < half; q++) {
        int cnt = half - q * width < width ? half - q * width : width;
        char *panel = (char *)p->panels.p + (size_t)q * gemm_panel_bytes(p->format, p->k);
        for (int h = 0; h < (glu ? 2 : 1); h++)
        {
            float *rows = p->rows + (size_t)(h * half + q * width) * (size_t)p->k;
            gemm_pack(p->format, panel, h * 16, cnt, p->k, rows, p->k, NULL);
            for (int j = 0; j < cnt; j++)
                gemm_unpack(p->format, panel, h * 16 + j, p->k, rows + (size_t)j * (size_t)p->k);
        }
    }
}

/* K of a group of integer activations; 0: the whole row. */
static int act_group(enum gemm_format f)
{
    switch (f) {
    case GEMM_U8_G16:
    case GEMM_I8_G16: return 16;
    case GEMM_U8_G32:
    case GEMM_I8_G32:
    case GEMM_U4_G32: return 32;
    case GEMM_U4_G64: return 64;
    case GEMM_I4:
    case GEMM_U4_G128: return 128;
    default: return 0;
    }
}

/* Activations as the kernel multiplies them. */
static void product_see(struct product *p, const struct gemm_kern *kern)
{
    int group = act_group(p->format) ? act_group(p->format) : p->k;
    for (int i = 0; i < p->m; i++) {
        const float *x = (const float *)p->x.p + i * p->ldx;
        double *out = p->seen + (size_t)i * (size_t)p->k;
        for (int k0 = 0; k0 < p->k; k0 += group) {
            float most = 0;
            for (int u = k0; u < k0 + group && u < p->k; u++)
                most = fabsf(x[u]) > most ? fabsf(x[u]) : most;
            for (int u = k0; u < k0 + group && u < p->k; u++) {
                if (kern->operand == GEMM_OPERAND_F32)
                    out[u] = x[u];
                else if (kern->operand == GEMM_OPERAND_BF16)
                    out[u] = tensor_bf16_to_f32(tensor_f32_to_bf16(x[u]));
                else
                    out[u] = most > 0 ? (double)rintf(x[u] * (127 / most)) * (double)(most / 127) : 0;
            }
        }
    }
}

static void product_close(struct product *p)
{
    guard_free(&p->x);
    guard_free(&p->out);
    guard_free(&p->panels);
    guard_free(&p->a);
    guard_free(&p->scratch);
    guard_free(&p->bias);
    free(p->rows);
    free(p->seen);
}

/* Rows prepared one by one and joined are the tile that is prepared at once. */
static void check_join(const struct gemm_kern *kern, const float *x, int64_t ldx, int rows, int64_t k, const void *tile)
{
    size_t act = gemm_act_bytes(kern, k), step = (act + 63) & ~(size_t)63;
    char *alone = mem_try_aligned(step * (size_t)rows), *joined = mem_try_aligned(act * (size_t)rows);
    const void *at[GEMM_ROWS_MAX];
    memset(alone, 0xff, step * (size_t)rows);
    memset(joined, 0xee, act * (size_t)rows);
    for (int r = 0; r < rows; r++) {
        at[r] = alone + (size_t)r * step;
        gemm_prepare(kern, x + r * ldx, ldx, 1, k, alone + (size_t)r * step);
    }
    gemm_prepare_join(kern, at, rows, k, joined);
    assert_memory_equal(joined, tile, act * (size_t)rows);
    mem_free(alone);
    mem_free(joined);
}

/* Rows [row0, row0 + m) of x through the kernels, cut at random into pieces. */
static void product_run(struct product *p, struct rng *r, const struct gemm_kern *kern, struct gemm_epilogue epi, bool bias, int row0, int m, float *out)
{
    bool glu = epi.store == GEMM_GLU;
    struct gemm_job j = {
        .kern = kern, .epilogue = gemm_epilogue_get(kern->isa), .epi = epi, .panels = p->panels.p,
        .bias = bias ? (float *)p->bias.p : NULL, .k = p->k, .n_panels = (p->n + 31) / 32, .n_out = glu ? p->n / 2 : p->n,
        .a = p->a.p, .rows = gemm_rows_of(kern, m), .out = out, .ldo = p->ldo,
    };
    size_t act = gemm_act_bytes(kern, p->k);
    memset(p->a.p, 0xff, p->a.bytes);
    for (int t = 0; t < j.rows.n_tiles; t++) {
        int64_t first = gemm_rows_first(&j.rows, t), end = gemm_rows_first(&j.rows, t + 1);
        assert_true(end > first && end - first <= kern->rows_max);
        const float *x = (float *)p->x.p + (row0 + first) * p->ldx;
        char *tile = (char *)p->a.p + (size_t)first * act;
        gemm_prepare(kern, x, p->ldx, (int)(end - first), p->k, tile);
        check_join(kern, x, p->ldx, (int)(end - first), p->k, tile);
    }
    memset(p->scratch.p, 0xff, p->scratch.bytes);
    for (int64_t q = 0; q < j.n_panels;) {
        int64_t q1 = q + random_between(r, 1, 7);
        q1 = q1 < j.n_panels ? q1 : j.n_panels;
        int cut = random_between(r, 0, j.rows.n_tiles);
        const void *next = q1 < j.n_panels ? (const char *)j.panels + (size_t)q1 * gemm_panel_bytes(p->format, p->k) : NULL;
        if (cut > 0)
            gemm_run(&j, q, q1, 0, cut, NULL, p->scratch.p);
        if (cut < j.rows.n_tiles)
            gemm_run(&j, q, q1, cut, j.rows.n_tiles, next, p->scratch.p);
        q = q1;
    }
}

static double act_exact(enum gemm_act act, double y)
{
    switch (act) {
    case GEMM_ACT_SILU: return y / (1 + exp(-y));
    case GEMM_ACT_GELU_ERF: return 0.5 * y * erfc(-y / sqrt(2.0));
    case GEMM_ACT_GELU_TANH: return 0.5 * y * (1 + tanh(sqrt(2 / acos(-1)) * (y + 0.044715 * y * y * y)));
    case GEMM_ACT_RELU: return y > 0 ? y : 0;
    case GEMM_ACT_RELU2: return y > 0 ? y * y : 0;
    default: return y;
    }
}

/* The n-th kernel of a format, or NULL. */
static const struct gemm_kern *kernel(enum gemm_format f, int n)
{
    for (int i = 0; gemm_kern_at(i); i++) {
        if (gemm_kern_at(i)->format == f && n-- == 0)
            return gemm_kern_at(i);
    }
    return NULL;
}

/* Element (i, j) in double, from the values the kernel multiplies; the sum of magnitudes in *size. */
static double sum_exact(const struct product *p, int i, int j, double *size)
{
    const float *w = p->rows + (size_t)j * (size_t)p->k;
    const double *x = p->seen + (size_t)i * (size_t)p->k;
    double s = 0, mag = 0;
    for (int u = 0; u < p->k; u++) {
        double v = x[u] * w[u];
        s += v;
        mag += fabs(v);
    }
    *size = mag;
    return s;
}

static void random_shapes(void **state)
{
    (void)state;
    struct rng r = {12345};
    for (int round = 0; round < 480; round++) {
        enum gemm_format f = (enum gemm_format)(round / 8 % GEMM_FORMAT_COUNT);
        bool big = round % 8 == 7;
        int m = random_between(&r, 1, round % 3 ? 30 : 70), k = random_between(&r, 1, big ? f >= GEMM_I8 ? 2600 : 1300 : 90), n = random_between(&r, 1, 150);
        if (big && round % 16 == 15)
            m = random_between(&r, 225, 300);
        struct gemm_epilogue epi = {(enum gemm_store)random_between(&r, 0, 2), GEMM_ACT_NONE, 1, 0};
        bool glu = epi.store == GEMM_GLU, bias = random_between(&r, 0, 1);
        n = glu ? n + n % 2 : n;
        epi.scale = random_between(&r, 0, 1) ? 0.5f : 1;
        struct product p;
        product_open(&p, &r, f, m, n, k, glu);
        product_pack(&p, glu);
        const struct gemm_kern *kern;
        for (int v = 0; (kern = kernel(f, v)); v++) {
            product_see(&p, kern);
            float *out = (float *)p.out.p;
            for (size_t i = 0; i < p.out.bytes / 4; i++)
                out[i] = epi.store == GEMM_ADD ? 0.25f : NAN;
            product_run(&p, &r, kern, epi, bias, 0, m, out);
            int n_out = glu ? n / 2 : n;
            for (int i = 0; i < m; i++) {
                for (int j = 0; j < n_out; j++) {
                    double size, up_size = 0, b = bias ? ((float *)p.bias.p)[glu ? j / 16 * 32 + j % 16 : j] : 0;
                    double want = epi.scale * (sum_exact(&p, i, j, &size) + b), tol = 1e-6 * (size + 1) * (1 + k / 200.0);
                    /* Integer weights that become bf16 are rounded once more. */
                    double rough = kern->operand == GEMM_OPERAND_BF16 && f >= GEMM_I8 && f <= GEMM_U8_G32 ? 1 / 256.0 : 0;
                    tol += rough * epi.scale * size;
                    if (glu) {
                        double bu = bias ? ((float *)p.bias.p)[j / 16 * 32 + 16 + j % 16] : 0;
                        double up = epi.scale * (sum_exact(&p, i, n / 2 + j, &up_size) + bu);
                        tol *= 1 + up_size + rough * 256 * fabs(up);
                        tol += rough * epi.scale * up_size * (fabs(want) + size);
                        want *= up;
                    }
                    want += epi.store == GEMM_ADD ? 0.25 : 0;
                    if (!(fabs(out[i * p.ldo + j] - want) <= tol))
                        fail_msg("%s m %d n %d k %d at %d,%d: %g, expected %g", kern->name, m, n, k, i, j,
                                 (double)out[i * p.ldo + j], want);
                }
                /* Between the rows nothing was written. */
                for (int64_t j = n_out; i + 1 < m && j < p.ldo; j++)
                    assert_true(epi.store == GEMM_ADD ? out[i * p.ldo + j] == 0.25f : isnan(out[i * p.ldo + j]));
            }
        }
        product_close(&p);
    }
}

/* Promise 1: every row alone, in any company and cut gives the same bits. */
static void batch_invariance(void **state)
{
    (void)state;
    struct rng r = {99};
    for (int round = 0; round < 40; round++) {
        enum gemm_format f = (enum gemm_format)(round % GEMM_FORMAT_COUNT);
        int m = round % 4 == 3 ? 250 : random_between(&r, 15, 64), n = random_between(&r, 33, 100), k = random_between(&r, 40, 1200);
        struct gemm_epilogue epi = {GEMM_STORE, GEMM_ACT_SILU, 1, 0};
        struct product p;
        product_open(&p, &r, f, m, n, k, false);
        product_pack(&p, false);
        float *alone = xmalloc((size_t)p.ldo * 4), *out = (float *)p.out.p;
        const struct gemm_kern *kern;
        for (int v = 0; (kern = kernel(f, v)); v++) {
            product_run(&p, &r, kern, epi, true, 0, m, out);
            for (int probe = 0; probe < 12; probe++) {
                int row = random_between(&r, 0, m - 1), with = random_between(&r, 1, m - row < 20 ? m - row : 20);
                float *some = xmalloc((size_t)p.ldo * (size_t)with * 4);
                product_run(&p, &r, kern, epi, true, row, 1, alone);
                product_run(&p, &r, kern, epi, true, row, with, some);
                assert_memory_equal(alone, out + row * p.ldo, (size_t)n * 4);
                assert_memory_equal(some, out + row * p.ldo, (size_t)n * 4);
                free(some);
            }
        }
        free(alone);
        product_close(&p);
    }
}

/* A row with NaN or infinity spoils itself only. */
static void not_finite(void **state)
{
    (void)state;
    struct rng r = {7};
    for (int f = 0; f < GEMM_FORMAT_COUNT; f++) {
        const struct gemm_kern *kern;
        for (int v = 0; (kern = kernel((enum gemm_format)f, v)); v++) {
            struct product p;
            struct gemm_epilogue epi = {GEMM_STORE, GEMM_ACT_NONE, 1, 0};
            product_open(&p, &r, (enum gemm_format)f, 17, 40, 67, false);
            product_pack(&p, false);
            float *x = (float *)p.x.p, *out = (float *)p.out.p, clean[17 * 43];
            product_run(&p, &r, kern, epi, false, 0, 17, out);
            for (int i = 0; i < 17; i++)
                memcpy(clean + i * 40, out + i * p.ldo, 40 * 4);
            x[3 * p.ldx + 66] = NAN;
            x[9 * p.ldx] = INFINITY;
            product_run(&p, &r, kern, epi, false, 0, 17, out);
            for (int i = 0; i < 17; i++) {
                for (int j = 0; j < 40; j++) {
                    float got = out[i * p.ldo + j];
                    if (i == 3)
                        assert_true(isnan(got));
                    else if (i == 9)
                        assert_false(isfinite(got));
                    else
                        assert_memory_equal(&got, &clean[i * 40 + j], 4);
                }
            }
            product_close(&p);
        }
    }
}

/* Activations and the soft cap against double arithmetic; the bounds stated in gemm.h. */
static void epilogues(void **state)
{
    (void)state;
    struct guarded cg = guard_alloc(GEMM_COLS * 4, 64);
    float *c = (float *)cg.p, out[GEMM_COLS];
    for (enum kern_isa isa = KERN_ISA_SCALAR; isa <= kern_isa_best(); isa++) {
        for (int act = GEMM_ACT_NONE; act <= GEMM_ACT_RELU2; act++) {
            double worst = 0, at = 0;
            for (int step = 0; step < 4000; step++) {
                for (int j = 0; j < GEMM_COLS; j++) {
                    int i = step * GEMM_COLS + j;
                    c[j] = i < 64000 ? (float)(i - 32000) * 1e-3f : (float)(i - 96000) * 1e-7f;
                }
                struct gemm_epilogue epi = {GEMM_STORE, (enum gemm_act)act, 1, 0};
                gemm_epilogue_get(isa)(&epi, c, 1, NULL, out, GEMM_COLS, GEMM_COLS);
                for (int j = 0; j < GEMM_COLS; j++) {
                    double want = act_exact((enum gemm_act)act, c[j]);
                    double err = fabs(want) > 1e-30 ? fabs(out[j] - want) / fabs(want) : fabs(out[j] - want) * 1e30;
                    if (fabs(want) < 1e-6 && act == GEMM_ACT_GELU_TANH)
                        err = fabs(out[j] - want) * 1e6;   /* 1 + tanh itself cancels in double there */
                    if (err > worst) {
                        worst = err;
                        at = c[j];
                    }
                }
            }
            if (worst > (act == GEMM_ACT_SILU ? 1e-6 : act == GEMM_ACT_GELU_TANH ? 4e-6 : 2e-6))
                fail_msg("%s activation %d: relative error %g at %g", kern_isa_name(isa), act, worst, at);
        }
        for (int i = -40000; i < 40000; i += GEMM_COLS) {
            struct gemm_epilogue epi = {GEMM_STORE, GEMM_ACT_NONE, 1, 30};
            for (int j = 0; j < GEMM_COLS; j++)
                c[j] = (float)(i + j) * (i % 64 ? 1e-2f : 1e-6f);
            gemm_epilogue_get(isa)(&epi, c, 1, NULL, out, GEMM_COLS, GEMM_COLS);
            for (int j = 0; j < GEMM_COLS; j++)
                assert_true(fabs(out[j] - 30 * tanh(c[j] / 30.0)) <= 1e-6 * fabs(out[j]));
        }
        const float odd[] = {NAN, INFINITY, -INFINITY, 1e30f, -1e30f, 200, -200, 0, -0.0f};
        for (int act = GEMM_ACT_NONE; act <= GEMM_ACT_RELU2; act++) {
            for (int j = 0; j < GEMM_COLS; j++)
                c[j] = odd[j % 9];
            struct gemm_epilogue epi = {GEMM_STORE, (enum gemm_act)act, 1, 0};
            gemm_epilogue_get(isa)(&epi, c, 1, NULL, out, GEMM_COLS, GEMM_COLS);
            assert_true(isnan(out[0]) && out[1] == INFINITY && out[7] == 0 && out[5] == (act == GEMM_ACT_RELU2 ? 40000 : 200));
            if (act != GEMM_ACT_NONE)
                assert_true(out[4] == 0 && fabs(out[6]) < 1e-30);
        }
    }
    guard_free(&cg);
}

/* The widest step between neighbouring values when weights lie in [-1, 1]. */
static float quant_step(enum gemm_format f)
{
    switch (f) {
    case GEMM_I8:
    case GEMM_I8_G16:
    case GEMM_I8_G32: return 1 / 126.0f;
    case GEMM_I4:
    case GEMM_U4_G32:
    case GEMM_U4_G64:
    case GEMM_U4_G128: return 2 / 4.0f;   /* clipped ends may be off by an eighth of the range */
    case GEMM_U8_G16:
    case GEMM_U8_G32: return 1 / 120.0f;
    case GEMM_F8_G128:
    case GEMM_F8: return 1 / 14.0f;
    default: return 0;
    }
}

static void layouts(void **state)
{
    (void)state;
    struct rng r = {5};
    for (int f = 0; f < GEMM_FORMAT_COUNT; f++) {
        for (int k = 1; k < 300; k += k < 10 ? 1 : 61) {
            size_t bytes = gemm_panel_bytes((enum gemm_format)f, k), elem = f == GEMM_F32 ? 4 : 2;
            assert_int_equal(bytes % GEMM_ALIGN, 0);
            struct guarded a = guard_alloc(bytes, 64), b = guard_alloc(bytes, 64), raw = guard_alloc((size_t)k * 5 * elem, 1);
            float *rows = xmalloc((size_t)k * 5 * 4), *back = xmalloc((size_t)k * 4);
            memset(a.p, 0, bytes);
            memset(b.p, 0, bytes);
            for (int i = 0; i < k * 5; i++) {
                rows[i] = representable((enum gemm_format)f, random_float(&r));
                uint16_t h = f == GEMM_F16 ? tensor_f32_to_f16(rows[i]) : tensor_f32_to_bf16(rows[i]);
                memcpy(raw.p + (size_t)i * elem, f == GEMM_F32 ? (void *)&rows[i] : (void *)&h, elem);
            }
            gemm_pack((enum gemm_format)f, a.p, 27, 5, k, rows, k, NULL);
            if (f <= GEMM_BF16) {
                gemm_pack_raw((enum gemm_format)f, b.p, 27, 5, k, raw.p, (size_t)k * elem);
                assert_memory_equal(a.p, b.p, bytes);
            }
            for (int j = 0; j < 5; j++) {
                gemm_unpack((enum gemm_format)f, a.p, 27 + j, k, back);
                if (f <= GEMM_BF16)
                    assert_memory_equal(back, rows + j * k, (size_t)k * 4);
                for (int u = 0; u < k; u++)
                    assert_true(fabsf(back[u] - rows[j * k + u]) <= quant_step((enum gemm_format)f) * 0.55f + 1e-6f);
            }
            free(rows);
            free(back);
            guard_free(&a);
            guard_free(&b);
            guard_free(&raw);
        }
    }
}

static void rows_split(void **state)
{
    (void)state;
    for (int max = 1; max <= 16; max++) {
        for (int m = 0; m < 600; m++) {
            struct gemm_rows s = gemm_rows_split(m, max);
            int64_t at = 0;
            for (int t = 0; t < s.n_tiles; t++) {
                assert_int_equal(gemm_rows_first(&s, t), at);
                int64_t h = gemm_rows_first(&s, t + 1) - at;
                assert_true(h >= 1 && h <= max);
                at += h;
            }
            assert_int_equal(at, m);
        }
    }
}

/* 4-bit groups that lie on a grid of f16 steps come back exactly; others no worse than plain rounding. */
static void quant_u4(void **state)
{
    (void)state;
    struct rng r = {31};
    double plain = 0, ours = 0;
    for (int round = 0; round < 300; round++) {
        float x[128], back[128], s = tensor_f16_to_f32(tensor_f32_to_f16(0.001f + (float)rng_next_unit(&r)));
        int lowest = random_between(&r, 0, 7), highest = lowest + 8;
        unsigned char panel[8192];
        memset(panel, 0, sizeof panel);
        for (int i = 0; i < 128; i++)
            x[i] = s * (float)(random_between(&r, lowest, highest) - 8);
        for (int g = 0; g < 4; g++) {
            x[32 * g] = s * (float)(lowest - 8);
            x[32 * g + 1] = s * (float)(highest - 8);
        }
        gemm_pack(GEMM_U4_G32, panel, 17, 1, 128, x, 128, NULL);
        gemm_unpack(GEMM_U4_G32, panel, 17, 128, back);
        for (int i = 0; i < 128; i++)
            assert_true(fabsf(back[i] - x[i]) <= 8 * s / 2048);
        for (int i = 0; i < 128; i++)
            x[i] = (float)rng_next_normal(&r);
        gemm_pack(GEMM_U4_G32, panel, 17, 1, 128, x, 128, NULL);
        gemm_unpack(GEMM_U4_G32, panel, 17, 128, back);
        for (int g = 0; g < 128; g += 32) {
            float lo = x[g], hi = x[g];
            for (int i = g; i < g + 32; i++) {
                lo = x[i] < lo ? x[i] : lo;
                hi = x[i] > hi ? x[i] : hi;
            }
            for (int i = g; i < g + 32; i++) {
                double d = x[i] - (lo + (hi - lo) / 15 * rintf((x[i] - lo) * 15 / (hi - lo)));
                plain += d * d;
                ours += (back[i] - x[i]) * (back[i] - x[i]);
            }
        }
    }
    if (!(ours < 0.82 * plain))
        fail_msg("squared error %g against %g of plain rounding", ours, plain);
}

/* A packed file is the same whichever variant made it. */
static void quant_u4_variants(void **state)
{
    (void)state;
    struct rng r = {3};
    for (int round = 0; round < 400; round++) {
        float x[128], weight[128];
        uint8_t q[3][128] = {{0}};
        uint16_t h[3][2] = {{0}};
        int n = 32 << round % 3;
        float size = powf(10, (float)random_between(&r, -7, 3));
        for (int i = 0; i < n; i++) {
            x[i] = round % 50 == 0 ? 0.25f : (float)rng_next_normal(&r) * size;
            weight[i] = (float)rng_next_unit(&r);
        }
        gemm_quant_u4_ref(x, weight, n, q[0], &h[0][0], &h[0][1]);
        if (kern_isa_best() >= KERN_ISA_AVX2) {
            gemm_quant_u4_avx2(x, weight, n, q[1], &h[1][0], &h[1][1]);
            assert_memory_equal(q[0], q[1], sizeof q[0]);
            assert_memory_equal(h[0], h[1], sizeof h[0]);
        }
        if (kern_isa_best() >= KERN_ISA_AVX512) {
            gemm_quant_u4_avx512(x, weight, n, q[2], &h[2][0], &h[2][1]);
            assert_memory_equal(q[0], q[2], sizeof q[0]);
            assert_memory_equal(h[0], h[2], sizeof h[0]);
        }
        /* Scales are f16: sizes below its range lose what they must. */
        for (int i = 0; i < n && size >= 1e-3f; i++)
            assert_true(fabsf(tensor_f16_to_f32(h[0][0]) * (float)q[0][i] + tensor_f16_to_f32(h[0][1]) - x[i]) <= 1.3f * size + 1e-6f);
    }
}

/* 8-bit scales and offsets cost next to nothing beside f16 ones, also where groups differ in size and lie off zero; and a column is the
 * same whichever variant made it. */
static void quant_i4(void **state)
{
    (void)state;
    enum { K = 1000 };
    struct rng r = {41};
    double i4 = 0, u4 = 0;
    for (int round = 0; round < 100; round++) {
        static unsigned char panel[2][65536];
        float x[K], back[2][K], size = powf(10, (float)random_between(&r, -3, 3));
        const enum gemm_format formats[2] = {GEMM_I4, GEMM_U4_G32};
        int col = random_between(&r, 0, GEMM_COLS - 1);
        for (int g = 0; g < K; g += 32) {
            float group = size * (0.25f + (float)rng_next_unit(&r)), middle = round % 4 == 0 ? 2 * group : 0;
            for (int i = g; i < g + 32 && i < K; i++)
                x[i] = middle + group * (float)rng_next_normal(&r);
        }
        for (int f = 0; f < 2; f++) {
            assert_true(gemm_panel_bytes(formats[f], K) <= sizeof panel[f]);
            memset(panel[f], 0, sizeof panel[f]);
            gemm_pack(formats[f], panel[f], col, 1, K, x, K, NULL);
            gemm_unpack(formats[f], panel[f], col, K, back[f]);
        }
        for (int i = 0; i < K; i++) {
            i4 += (back[0][i] - x[i]) * (back[0][i] - x[i]) / size / size;
            u4 += (back[1][i] - x[i]) * (back[1][i] - x[i]) / size / size;
        }
    }
    if (!(i4 < 1.02 * u4))
        fail_msg("squared error %g against %g with f16 scales", i4, u4);
    for (int round = 0; round < 400; round++) {
        float x[32], weight[32], near[2] = {(float)rng_next_unit(&r) * 255, ((float)rng_next_unit(&r) - 0.5f) * 250};
        uint8_t q[3][32], scale[3];
        int8_t offset[3];
        for (int i = 0; i < 32; i++) {
            x[i] = near[1] * 8 + near[0] * 4 * (float)rng_next_normal(&r);
            weight[i] = (float)rng_next_unit(&r);
        }
        int n = kern_isa_best() >= KERN_ISA_AVX512 ? 3 : kern_isa_best() >= KERN_ISA_AVX2 ? 2 : 1;
        gemm_quant_i4_fn *const variants[3] = {gemm_quant_i4_ref, gemm_quant_i4_avx2, gemm_quant_i4_avx512};
        for (int v = 0; v < n; v++) {
            variants[v](x, weight, 32, 1, near, q[v], &scale[v], &offset[v]);
            assert_memory_equal(q[0], q[v], sizeof q[0]);
            assert_true(scale[0] == scale[v] && offset[0] == offset[v]);
        }
    }
}

/* An error at an input that weighs more costs more: there it becomes smaller. */
static void quant_u4_importance(void **state)
{
    (void)state;
    struct rng r = {77};
    double with = 0, without = 0;
    for (int round = 0; round < 200; round++) {
        float x[70], weight[70], back[2][70];
        unsigned char panel[8192];
        for (int i = 0; i < 70; i++) {
            x[i] = (float)rng_next_normal(&r);
            weight[i] = i % 5 == 0 ? 25 : 1;
        }
        for (int v = 0; v < 2; v++) {
            memset(panel, 0, sizeof panel);
            gemm_pack(GEMM_U4_G32, panel, 3, 1, 70, x, 70, v ? weight : NULL);
            gemm_unpack(GEMM_U4_G32, panel, 3, 70, back[v]);
        }
        for (int i = 0; i < 70; i++) {
            without += weight[i] * (back[0][i] - x[i]) * (back[0][i] - x[i]);
            with += weight[i] * (back[1][i] - x[i]) * (back[1][i] - x[i]);
        }
    }
    assert_true(with < 0.8 * without);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_split), cmocka_unit_test(layouts),          cmocka_unit_test(epilogues),
        cmocka_unit_test(quant_u4), cmocka_unit_test(quant_u4_importance), cmocka_unit_test(quant_u4_variants), cmocka_unit_test(quant_i4), cmocka_unit_test(not_finite), cmocka_unit_test(batch_invariance), cmocka_unit_test(random_shapes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
