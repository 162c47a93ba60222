/* kern/avx2/gemm_epilogue.c - what happens to a panel's sums on their way to memory. */
#include <immintrin.h>
#include <string.h>
#include "kern/avx2/vmath.h"
#include "kern/gemm_int.h"

static inline __m256 activate(enum gemm_act act, __m256 y)
{
    switch (act) {
    case GEMM_ACT_SILU: return vm256_silu(y);
    case GEMM_ACT_GELU_ERF: return vm256_gelu_erf(y);
    case GEMM_ACT_GELU_TANH: return vm256_gelu_tanh(y);
    /* The second operand wins when one is NaN. */
    case GEMM_ACT_RELU: return _mm256_max_ps(_mm256_setzero_ps(), y);
    case GEMM_ACT_RELU2: y = _mm256_max_ps(_mm256_setzero_ps(), y); return _mm256_mul_ps(y, y);
    default: return y;
    }
}

static inline __m256 finish(const struct gemm_epilogue *p, __m256 y, const float *bias)
{
    if (bias)
        y = _mm256_add_ps(y, _mm256_loadu_ps(bias));
    if (p->scale != 1)
        y = _mm256_mul_ps(y, _mm256_set1_ps(p->scale));
    if (p->softcap > 0) {
        __m256 cap = _mm256_set1_ps(p->softcap);
        y = _mm256_mul_ps(vm256_tanh(_mm256_div_ps(y, cap)), cap);
    }
    return y;
}

/* One full row: c, bias and out hold GEMM_COLS values (out 16 for GLU). */
static void row(const struct gemm_epilogue *p, const float *c, const float *bias, float *out)
{
    if (p->store == GEMM_GLU) {
        for (int j = 0; j < 16; j += 8) {
            __m256 gate = finish(p, _mm256_load_ps(c + j), bias ? bias + j : NULL);
            __m256 up = finish(p, _mm256_load_ps(c + 16 + j), bias ? bias + 16 + j : NULL);
            _mm256_storeu_ps(out + j, _mm256_mul_ps(activate(p->act, gate), up));
        }
        return;
    }
    for (int j = 0; j < GEMM_COLS; j += 8) {
        __m256 y = activate(p->act, finish(p, _mm256_load_ps(c + j), bias ? bias + j : NULL));
        if (p->store == GEMM_ADD)
            y = _mm256_add_ps(y, _mm256_loadu_ps(out + j));
        _mm256_storeu_ps(out + j, y);
    }
}

void gemm_epilogue_avx2(const struct gemm_epilogue *p, const float *c, int rows, const float *bias, float *out, int64_t ldo, int n)
{
    bool full = n == (p->store == GEMM_GLU ? 16 : GEMM_COLS);
    for (int r = 0; r < rows; r++, c += GEMM_COLS, out += ldo) {
        if (full) {
            row(p, c, bias, out);
            continue;
        }
        float line[GEMM_COLS] = {0};
        memcpy(line, out, (size_t)n * sizeof *out);
        row(p, c, bias, line);
        memcpy(out, line, (size_t)n * sizeof *out);
    }
}
