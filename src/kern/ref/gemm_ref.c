/* kern/ref/gemm_ref.c - the scalar kernels: what every other variant is tested against. */
#include <math.h>
#include <string.h>
#include "kern/gemm_int.h"

/* Columns of one unit's k-th row of weights, as f32. */
static void weights(enum gemm_format f, const char *b, int i, float *w)
{
    if (f == GEMM_F32) {
        memcpy(w, b, GEMM_COLS * sizeof *w);
        return;
    }
    uint16_t h[2 * GEMM_COLS];
    memcpy(h, b, f == GEMM_F16 ? 64 : 128);
    for (int j = 0; j < GEMM_COLS; j++)
        w[j] = f == GEMM_F16 ? tensor_f16_to_f32(h[j]) : tensor_bf16_to_f32(h[2 * j + i]);
}

static void tile(enum gemm_format f, const struct gemm_tile *t)
{
    int group = f == GEMM_BF16 ? 2 : 1;
    size_t unit = f == GEMM_F16 ? 64 : 128;
    if (t->first)
        memset(t->c, 0, (size_t)t->rows * GEMM_COLS * sizeof *t->c);
    for (int64_t u = t->u0; u < t->u1; u++) {
        for (int i = 0; i < group; i++) {
            float w[GEMM_COLS];
            weights(f, (const char *)t->b + (size_t)u * unit, i, w);
            const float *a = (const float *)t->a + (u * group + i) * t->rows;
            for (int r = 0; r < t->rows; r++) {
                float *c = t->c + r * GEMM_COLS;
                for (int j = 0; j < GEMM_COLS; j++)
                    c[j] += a[r] * w[j];
            }
        }
    }
}

void gemm_tile_f32_ref(const struct gemm_tile *t)
{
    tile(GEMM_F32, t);
}

void gemm_tile_f16_ref(const struct gemm_tile *t)
{
    tile(GEMM_F16, t);
}

void gemm_tile_bf16_ref(const struct gemm_tile *t)
{
    tile(GEMM_BF16, t);
}

void gemm_prepare_f32_ref(const struct gemm_kern *kern, const float *x, int64_t ldx, int rows, int64_t k, void *a)
{
    (void)kern;
    float *out = a;
    for (int r = 0; r < rows; r++) {
        for (int64_t u = 0; u < k; u++)
            out[u * rows + r] = x[r * ldx + u];
        if (k % 2)
            out[k * rows + r] = 0;
    }
}

static float activate(enum gemm_act act, float y)
{
    double d = y;
    switch (act) {
    case GEMM_ACT_SILU: return (float)(d / (1 + exp(-d)));
    case GEMM_ACT_GELU_ERF: return (float)(0.5 * d * erfc(-d * 0.70710678118654752440));
    case GEMM_ACT_GELU_TANH: return (float)(d / (1 + exp(-2 * 0.79788456080286535588 * (d + 0.044715 * d * d * d))));
    case GEMM_ACT_RELU: return y < 0 ? 0 : y;
    case GEMM_ACT_RELU2: return y < 0 ? 0 : y * y;
    default: return y;
    }
}

static float finish(const struct gemm_epilogue *p, float y, float bias)
{
    y = (y + bias) * p->scale;
    return p->softcap > 0 ? (float)(p->softcap * tanh((double)y / p->softcap)) : y;
}

void gemm_epilogue_ref(const struct gemm_epilogue *p, const float *c, int rows, const float *bias, float *out, int64_t ldo, int n)
{
    for (int r = 0; r < rows; r++, c += GEMM_COLS, out += ldo) {
        for (int j = 0; j < n; j++) {
            float y = activate(p->act, finish(p, c[j], bias ? bias[j] : 0));
            if (p->store == GEMM_GLU)
                out[j] = y * finish(p, c[16 + j], bias ? bias[16 + j] : 0);
            else
                out[j] = p->store == GEMM_ADD ? out[j] + y : y;
        }
    }
}
