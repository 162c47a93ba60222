/* kern/ref/gemm_wide_ref.c */
#define WIDE_ISA ref
#define WIDE_TILE gemm_tile_f32_ref
#define WIDE_BF16 0

#include "kern/gemm_wide_body.inc"
