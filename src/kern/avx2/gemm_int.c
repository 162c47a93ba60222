/* kern/avx2/gemm_int.c - unsigned 8- and 4-bit weights times signed activations as 16-bit pairs: vpmaddwd is exact where
 * vpmaddubsw would saturate. */
#include <immintrin.h>
#include "kern/gemm_int.h"

enum { OPERAND_DWORDS = 2 };

/* K 0 and 2 of each column in the even vectors, 1 and 3 in the odd ones. */
struct weights { __m256i even[2], odd[2]; };

static inline __attribute__((always_inline)) struct weights widen(__m256i b0, __m256i b1)
{
    const __m256i low = _mm256_set1_epi16(0xff);
    return (struct weights){{_mm256_and_si256(b0, low), _mm256_and_si256(b1, low)},
                            {_mm256_srli_epi16(b0, 8), _mm256_srli_epi16(b1, 8)}};
}

static inline __attribute__((always_inline)) __m256i dot_one(__m256i acc, const struct weights *w, const int v, const int32_t *a, const int step)
{
    __m256i even = _mm256_madd_epi16(w->even[v], _mm256_set1_epi32(a[0]));
    __m256i odd = _mm256_madd_epi16(w->odd[v], _mm256_set1_epi32(a[step]));
    return _mm256_add_epi32(acc, _mm256_add_epi32(even, odd));
}

#include "kern/gemm_int256_body.inc"

void gemm_tile_i8_avx2(const struct gemm_tile *t)
{
    i8_any(t);
}

void gemm_tile_i8_g16_avx2(const struct gemm_tile *t)
{
    group_any(false, false, 4, t);
}

void gemm_tile_i8_g32_avx2(const struct gemm_tile *t)
{
    group_any(false, false, 8, t);
}

void gemm_tile_u8_g16_avx2(const struct gemm_tile *t)
{
    group_any(false, true, 4, t);
}

void gemm_tile_u8_g32_avx2(const struct gemm_tile *t)
{
    group_any(false, true, 8, t);
}

void gemm_tile_i4_avx2(const struct gemm_tile *t)
{
    i4_any(t);
}

void gemm_tile_u4_g32_avx2(const struct gemm_tile *t)
{
    group_any(true, true, 8, t);
}

void gemm_tile_u4_g64_avx2(const struct gemm_tile *t)
{
    group_any(true, true, 16, t);
}

void gemm_tile_u4_g128_avx2(const struct gemm_tile *t)
{
    group_any(true, true, 32, t);
}
