/* kern/avx512bf16/gemm_wide_avx512bf16.c */
#include <immintrin.h>
#include "kern/gemm_wide.h"

#define WIDE_ISA avx512bf16
#define WIDE_TILE gemm_tile_bf16_avx512bf16
#define WIDE_BF16 1

/* The conversion puts one behind the other. */
INLINE void wide_pair(char *out, lanes even, lanes odd)
{
    const __m512i zip = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    __m512bh both = _mm512_cvtne2ps_pbh((__m512)odd, (__m512)even);
    _mm512_storeu_si512(out, _mm512_permutexvar_epi16(zip, (__m512i)both));
}

#include "kern/gemm_wide_body.inc"
