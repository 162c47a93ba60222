/* kern/avxvnni/gemm_int.c - unsigned 8- and 4-bit weights times signed 8-bit activations with 256-bit vpdpbusd. */
#include <immintrin.h>
#include "kern/gemm_int.h"

enum { OPERAND_DWORDS = 1 };

struct weights { __m256i v[2]; };

static inline __attribute__((always_inline)) struct weights widen(__m256i b0, __m256i b1)
{
    return (struct weights){{b0, b1}};
}

static inline __attribute__((always_inline)) __m256i dot_one(__m256i acc, const struct weights *w, const int v, const int32_t *a, const int step)
{
    (void)step;
    return _mm256_dpbusd_avx_epi32(acc, w->v[v], _mm256_set1_epi32(a[0]));
}

#include "kern/gemm_int256_body.inc"

void gemm_tile_i8_avxvnni(const struct gemm_tile *t)
{
    i8_any(t);
}

void gemm_tile_i8_g16_avxvnni(const struct gemm_tile *t)
{
    group_any(false, false, 4, t);
}

void gemm_tile_i8_g32_avxvnni(const struct gemm_tile *t)
{
    group_any(false, false, 8, t);
}

void gemm_tile_u8_g16_avxvnni(const struct gemm_tile *t)
{
    group_any(false, true, 4, t);
}

void gemm_tile_u8_g32_avxvnni(const struct gemm_tile *t)
{
    group_any(false, true, 8, t);
}

void gemm_tile_i4_avxvnni(const struct gemm_tile *t)
{
    i4_any(t);
}

void gemm_tile_u4_g32_avxvnni(const struct gemm_tile *t)
{
    group_any(true, true, 8, t);
}

void gemm_tile_u4_g64_avxvnni(const struct gemm_tile *t)
{
    group_any(true, true, 16, t);
}

void gemm_tile_u4_g128_avxvnni(const struct gemm_tile *t)
{
    group_any(true, true, 32, t);
}
