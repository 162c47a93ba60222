#include <float.h>
#include <math.h>
#include <string.h>
#include "kern/gemm_int.h"

#include "kern/gemm_prepare_body.inc"

void gemm_prepare_int_avx2(const struct gemm_kern *kern, const float *x, int64_t ldx, int rows, int64_t k, void *a)
{
    prepare_int(kern, x, ldx, rows, k, a);
}
