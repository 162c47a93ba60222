#include <math.h>
#include <string.h>
#include "kern/gemm_int.h"

#include "kern/gemm_quant_body.inc"

void gemm_quant_u4_ref(const float *x, const float *weight, int n, uint8_t *q, uint16_t *scale, uint16_t *minimum)
{
    quant_u4(x, weight, n, q, scale, minimum);
}

void gemm_quant_i4_ref(const float *x, const float *weight, int n, float d, const float near[2], uint8_t *q, uint8_t *scale, int8_t *offset)
{
    quant_i4(x, weight, n, d, near, q, scale, offset);
}
