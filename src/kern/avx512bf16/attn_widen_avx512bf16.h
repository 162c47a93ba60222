/* kern/avx512bf16/attn_widen_avx512bf16.h - 8-bit KV elements to bf16: two look-ups of 128 entries give the low and
 * the high byte of the magnitude, the sign is the same bit in both. */
#ifndef QUIRE_KERN_ATTN_WIDEN_AVX512BF16_H
#define QUIRE_KERN_ATTN_WIDEN_AVX512BF16_H

#include <immintrin.h>
#include <stdint.h>
#include "kern/avx512bf16/attn_ops_avx512bf16.h"

struct widener { __m512i low[2], high[2]; };

static inline struct widener widener_of(const uint16_t *table)
{
    struct widener w;
    for (int i = 0; i < 2; i++) {
        __m512i a = _mm512_loadu_si512(table + i * 64), b = _mm512_loadu_si512(table + i * 64 + 32);
        w.low[i] = _mm512_inserti64x4(_mm512_castsi256_si512(_mm512_cvtepi16_epi8(a)), _mm512_cvtepi16_epi8(b), 1);
        a = _mm512_srli_epi16(a, 8);
        b = _mm512_srli_epi16(b, 8);
        w.high[i] = _mm512_inserti64x4(_mm512_castsi256_si512(_mm512_cvtepi16_epi8(a)), _mm512_cvtepi16_epi8(b), 1);
    }
    return w;
}

/* 64 bytes to two vectors of 16 pairs. */
static inline __attribute__((always_inline)) void widen_ops(const struct widener *w, const unsigned char *in, struct kv_op out[2])
{
    __m512i x = _mm512_loadu_si512(in);
    __m512i low = _mm512_permutex2var_epi8(w->low[0], x, w->low[1]);
    __m512i high = _mm512_permutex2var_epi8(w->high[0], x, w->high[1]);
    high = _mm512_ternarylogic_epi32(high, x, _mm512_set1_epi8((char)0x80), 0xf8);   /* high | (x & 0x80) */
    out[0].v = (__m512bh)_mm512_unpacklo_epi8(low, high);
    out[1].v = (__m512bh)_mm512_unpackhi_epi8(low, high);
}

/* 64 bytes to two rows of 16 pairs in memory. */
static inline void widen(const struct widener *w, const unsigned char *in, unsigned char *a, unsigned char *b)
{
    struct kv_op out[2];
    widen_ops(w, in, out);
    _mm512_storeu_si512(a, (__m512i)out[0].v);
    _mm512_storeu_si512(b, (__m512i)out[1].v);
}

#endif
