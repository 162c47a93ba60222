#include <immintrin.h>
#include <math.h>
#include <string.h>
#include "kern/gemm_int.h"

#define QUANT_CLAMP(v) _mm512_min_ps(_mm512_max_ps(v, _mm512_setzero_ps()), _mm512_set1_ps(15))

#include "kern/gemm_quant_body.inc"

void gemm_quant_u4_avx512(const float *x, const float *weight, int n, uint8_t *q, uint16_t *scale, uint16_t *minimum)
{
    quant_u4(x, weight, n, q, scale, minimum);
}

void gemm_quant_i4_avx512(const float *x, const float *weight, int n, float d, const float near[2], uint8_t *q, uint8_t *scale, int8_t *offset)
{
    quant_i4(x, weight, n, d, near, q, scale, offset);
}
