/* kern/avx512/gemm_epilogue.c - what happens to a panel's sums on their way to memory. */
#include <immintrin.h>
#include "kern/avx512/vmath.h"
#include "kern/gemm_int.h"

static inline __m512 activate(enum gemm_act act, __m512 y)
{
    switch (act) {
    case GEMM_ACT_SILU: return vm512_silu(y);
    case GEMM_ACT_GELU_ERF: return vm512_gelu_erf(y);
    case GEMM_ACT_GELU_TANH: return vm512_gelu_tanh(y);
    /* The second operand wins when one is NaN. */
    case GEMM_ACT_RELU: return _mm512_max_ps(_mm512_setzero_ps(), y);
    case GEMM_ACT_RELU2: y = _mm512_max_ps(_mm512_setzero_ps(), y); return _mm512_mul_ps(y, y);
    default: return y;
    }
}

static inline __m512 finish(const struct gemm_epilogue *p, __m512 y, const float *bias)
{
    if (bias)
        y = _mm512_add_ps(y, _mm512_loadu_ps(bias));
    if (p->scale != 1)
        y = _mm512_mul_ps(y, _mm512_set1_ps(p->scale));
    if (p->softcap > 0) {
        __m512 cap = _mm512_set1_ps(p->softcap);
        y = _mm512_mul_ps(vm512_tanh(_mm512_div_ps(y, cap)), cap);
    }
    return y;
}

void gemm_epilogue_avx512(const struct gemm_epilogue *p, const float *c, int rows, const float *bias, float *out, int64_t ldo, int n)
{
    __mmask16 m0 = n >= 16 ? 0xffff : (__mmask16)((1u << n) - 1);
    __mmask16 m1 = n >= 32 ? 0xffff : n <= 16 ? 0 : (__mmask16)((1u << (n - 16)) - 1);
    for (int r = 0; r < rows; r++, c += GEMM_COLS, out += ldo) {
        __m512 y0 = finish(p, _mm512_load_ps(c), bias);
        __m512 y1 = finish(p, _mm512_load_ps(c + 16), bias ? bias + 16 : NULL);
        y0 = activate(p->act, y0);
        if (p->store == GEMM_GLU) {
            _mm512_mask_storeu_ps(out, m0, _mm512_mul_ps(y0, y1));
            continue;
        }
        y1 = activate(p->act, y1);
        if (p->store == GEMM_ADD) {
            y0 = _mm512_add_ps(y0, _mm512_maskz_loadu_ps(m0, out));
            y1 = _mm512_add_ps(y1, _mm512_maskz_loadu_ps(m1, out + 16));
        }
        _mm512_mask_storeu_ps(out, m0, y0);
        _mm512_mask_storeu_ps(out + 16, m1, y1);
    }
}
