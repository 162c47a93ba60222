/* kern/avx512vnni/gemm_dot.h - the inner product of integer tiles, for files built with AVX-512 VNNI. */
#ifndef QUIRE_KERN_AVX512VNNI_GEMM_DOT_H
#define QUIRE_KERN_AVX512VNNI_GEMM_DOT_H

#include <immintrin.h>
#include "kern/gemm.h"

#define INLINE static inline __attribute__((always_inline))

/* One unit: acc[r] += its two vectors of columns times each row's four activations. */
INLINE void dot(const int rows, __m512i acc[][2], const int32_t *a, __m512i b0, __m512i b1)
{
#pragma GCC unroll 14
    for (int r = 0; r < rows; r++) {
        __m512i x = _mm512_set1_epi32(a[r]);
        acc[r][0] = _mm512_dpbusd_epi32(acc[r][0], b0, x);
        acc[r][1] = _mm512_dpbusd_epi32(acc[r][1], b1, x);
    }
}

/* The memory that four units' time is to bring in. */
INLINE void ask(const struct gemm_tile *t, const char **pf)
{
    for (int i = 0; i < t->prefetch_lines; i++, *pf += 64)
        _mm_prefetch(*pf, _MM_HINT_T0);
}

#endif
