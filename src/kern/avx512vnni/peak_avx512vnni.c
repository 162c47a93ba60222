/* Ceiling of AVX-512 VNNI's byte dot products. */
#include <immintrin.h>
#include "kern/peak.h"

enum { CHAINS = 16 };

float kern_peak_int8_avx512vnni(int64_t rounds)
{
    __m512i acc[CHAINS], x = _mm512_set1_epi8(1);
    for (int i = 0; i < CHAINS; i++)
        acc[i] = _mm512_set1_epi32(i);
    for (int64_t r = 0; r < rounds; r++) {
#pragma GCC unroll 16
        for (int i = 0; i < CHAINS; i++)
            acc[i] = _mm512_dpbusd_epi32(acc[i], x, x);
    }
    for (int i = 1; i < CHAINS; i++)
        acc[0] = _mm512_add_epi32(acc[0], acc[i]);
    return (float)_mm_cvtsi128_si32(_mm512_castsi512_si128(acc[0]));   /* all lanes are alike */
}
