/* Ceiling of AVX-VNNI's byte dot products. */
#include <immintrin.h>
#include "kern/peak.h"

enum { CHAINS = 12 };

float kern_peak_int8_avxvnni(int64_t rounds)
{
    __m256i acc[CHAINS], x = _mm256_set1_epi8(1);
    int32_t lanes[8];
    for (int i = 0; i < CHAINS; i++)
        acc[i] = _mm256_setzero_si256();
    for (int64_t r = 0; r < rounds; r++) {
#pragma GCC unroll 12
        for (int i = 0; i < CHAINS; i++)
            acc[i] = _mm256_dpbusd_avx_epi32(acc[i], x, x);
    }
    for (int i = 1; i < CHAINS; i++)
        acc[0] = _mm256_add_epi32(acc[0], acc[i]);
    _mm256_storeu_si256((__m256i *)(void *)lanes, acc[0]);
    return (float)lanes[0] + (float)lanes[7];
}
