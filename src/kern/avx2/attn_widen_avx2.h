/* kern/avx2/attn_widen_avx2.h - eight 8-bit KV elements to bf16, by way of f32, exactly. */
#ifndef QUIRE_KERN_ATTN_WIDEN_AVX2_H
#define QUIRE_KERN_ATTN_WIDEN_AVX2_H

#include <immintrin.h>

/* The upper halves of |f| with the signs of the bytes x, to out. */
static inline void widen8_store(unsigned char *out, __m256 f, __m128i x)
{
    __m256i u = _mm256_srli_epi32(_mm256_castps_si256(f), 16);
    __m128i h = _mm_packus_epi32(_mm256_castsi256_si128(u), _mm256_extracti128_si256(u, 1));
    __m128i sign = _mm_slli_epi16(_mm_srli_epi16(_mm_cvtepu8_epi16(x), 7), 15);
    _mm_storeu_si128((__m128i *)(void *)out, _mm_or_si128(h, sign));
}

static inline void widen8_i8(const unsigned char *in, unsigned char *out)
{
    __m128i x = _mm_loadl_epi64((const __m128i *)(const void *)in);
    __m128i magnitude = _mm_and_si128(x, _mm_set1_epi8(0x7f));
    widen8_store(out, _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(magnitude)), x);
}

/* E4M3's bits moved up by 7 are the f16 of 1/256 of it, subnormal ones too. */
static inline void widen8_f8(const unsigned char *in, unsigned char *out)
{
    __m128i x = _mm_loadl_epi64((const __m128i *)(const void *)in);
    __m128i magnitude = _mm_cvtepu8_epi16(_mm_and_si128(x, _mm_set1_epi8(0x7f)));
    __m256 f = _mm256_mul_ps(_mm256_cvtph_ps(_mm_slli_epi16(magnitude, 7)), _mm256_set1_ps(256.0f));
    __m256i nan = _mm256_cmpeq_epi32(_mm256_cvtepu16_epi32(magnitude), _mm256_set1_epi32(0x7f));
    widen8_store(out, _mm256_blendv_ps(f, _mm256_castsi256_ps(_mm256_set1_epi32(0x7fc00000)), _mm256_castsi256_ps(nan)), x);
}

#endif
