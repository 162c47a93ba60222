/* kern/avx2/gemm_wide_avx2.c */
#define WIDE_ISA avx2
#define WIDE_TILE gemm_tile_f32_avx2
#define WIDE_BF16 0

#include "kern/gemm_wide_body.inc"
