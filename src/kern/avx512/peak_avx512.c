/* Ceilings of AVX-512. */
#include <immintrin.h>
#include "kern/peak.h"

enum { CHAINS = 16 };

uint64_t kern_peak_read_avx512(const void *p, size_t bytes)
{
    const char *x = p;
    __m512i sum[8];
    for (int i = 0; i < 8; i++)
        sum[i] = _mm512_setzero_si512();
    for (size_t at = 0; at < bytes; at += 512) {
#pragma GCC unroll 8
        for (int i = 0; i < 8; i++) {
            _mm_prefetch(x + at + 64 * i + 2048, _MM_HINT_T0);
            sum[i] = _mm512_add_epi64(sum[i], _mm512_load_si512(x + at + 64 * i));
        }
    }
    for (int i = 1; i < 8; i++)
        sum[0] = _mm512_add_epi64(sum[0], sum[i]);
    uint64_t lanes[8], all = 0;
    _mm512_storeu_si512(lanes, sum[0]);
    for (int i = 0; i < 8; i++)
        all += lanes[i];
    return all;
}

float kern_peak_f32_avx512(int64_t rounds)
{
    __m512 acc[CHAINS], x = _mm512_set1_ps(1e-9f);
    for (int i = 0; i < CHAINS; i++)
        acc[i] = _mm512_set1_ps((float)i * 1e-3f);
    for (int64_t r = 0; r < rounds; r++) {
#pragma GCC unroll 16
        for (int i = 0; i < CHAINS; i++)
            acc[i] = _mm512_fmadd_ps(x, x, acc[i]);
    }
    for (int i = 1; i < CHAINS; i++)
        acc[0] = _mm512_add_ps(acc[0], acc[i]);
    return _mm512_reduce_add_ps(acc[0]);
}
