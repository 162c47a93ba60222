/* kern/avx512/gemm_wide_avx512.c */
#define WIDE_ISA avx512
#define WIDE_TILE gemm_tile_f32_avx512
#define WIDE_BF16 0

#include "kern/gemm_wide_body.inc"
