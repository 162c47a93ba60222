/* kern/avx512bf16/gemm_f8_groups_avx512bf16.c */
#include "kern/gemm_int.h"

#include "kern/gemm_f8_groups_body.inc"

void gemm_tile_f8_g128_avx512bf16(const struct gemm_tile *t)
{
    f8_groups(t, gemm_tile_f8_avx512bf16, 4);
}
