/* Ceilings of AVX2 and FMA. */
#include <immintrin.h>
#include "kern/peak.h"

enum { CHAINS = 12 };

uint64_t kern_peak_read_avx2(const void *p, size_t bytes)
{
    const char *x = p;
    __m256i sum[16];
    uint64_t lanes[4];
    for (int i = 0; i < 16; i++)
        sum[i] = _mm256_setzero_si256();
    for (size_t at = 0; at < bytes; at += 512) {
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) {
            if (i % 2 == 0)
                _mm_prefetch(x + at + 32 * i + 2048, _MM_HINT_T0);
            sum[i] = _mm256_add_epi64(sum[i], _mm256_load_si256((const __m256i *)(const void *)(x + at + 32 * i)));
        }
    }
    for (int i = 1; i < 16; i++)
        sum[0] = _mm256_add_epi64(sum[0], sum[i]);
    _mm256_storeu_si256((__m256i *)(void *)lanes, sum[0]);
    return lanes[0] + lanes[1] + lanes[2] + lanes[3];
}

float kern_peak_f32_avx2(int64_t rounds)
{
    __m256 acc[CHAINS], x = _mm256_set1_ps(1e-9f);
    float lanes[8];
    for (int i = 0; i < CHAINS; i++)
        acc[i] = _mm256_set1_ps((float)i * 1e-3f);
    for (int64_t r = 0; r < rounds; r++) {
#pragma GCC unroll 12
        for (int i = 0; i < CHAINS; i++)
            acc[i] = _mm256_fmadd_ps(x, x, acc[i]);
    }
    for (int i = 1; i < CHAINS; i++)
        acc[0] = _mm256_add_ps(acc[0], acc[i]);
    _mm256_storeu_ps(lanes, acc[0]);
    return lanes[0] + lanes[7];
}

/* As the kernels without VNNI: 16-bit pairs multiplied and added, then added to the sum. */
float kern_peak_int8_avx2(int64_t rounds)
{
    __m256i acc[CHAINS], x = _mm256_set1_epi16(1);
    int32_t lanes[8];
    for (int i = 0; i < CHAINS; i++)
        acc[i] = _mm256_set1_epi32(i);
    for (int64_t r = 0; r < rounds; r++) {
#pragma GCC unroll 12
        for (int i = 0; i < CHAINS; i++) {
            __asm__("" : "+x"(x));   /* or the product would be taken out of the loop */
            acc[i] = _mm256_add_epi32(acc[i], _mm256_madd_epi16(x, x));
        }
    }
    for (int i = 1; i < CHAINS; i++)
        acc[0] = _mm256_add_epi32(acc[0], acc[i]);
    _mm256_storeu_si256((__m256i *)(void *)lanes, acc[0]);
    return (float)lanes[0] + (float)lanes[7];
}
