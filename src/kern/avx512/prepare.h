/* kern/avx512/prepare.h - 16 x 16 transpose of 4-byte units, for files built with AVX-512. */
#ifndef QUIRE_KERN_AVX512_PREPARE_H
#define QUIRE_KERN_AVX512_PREPARE_H

#include <immintrin.h>

/* v[i] lane j becomes v[j] lane i: interleave by 4, 8, 16 and 32 bytes. */
static inline __attribute__((always_inline)) void prepare_transpose(__m512i v[16])
{
    __m512i t[16];
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        t[2 * i] = _mm512_unpacklo_epi32(v[2 * i], v[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_epi32(v[2 * i], v[2 * i + 1]);
    }
    /* Each 128-bit lane l now holds column 4l + {0,1} (lo) or {2,3} (hi) of a row pair. */
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        v[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
        v[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
        v[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
        v[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
    }
    /* v[4i + c] lane l: rows 4i..4i+3 of column 4l + c. */
#pragma GCC unroll 4
    for (int c = 0; c < 4; c++) {
        __m512i p = _mm512_shuffle_i32x4(v[c], v[4 + c], 0x88), q = _mm512_shuffle_i32x4(v[c], v[4 + c], 0xdd);
        __m512i r = _mm512_shuffle_i32x4(v[8 + c], v[12 + c], 0x88), s = _mm512_shuffle_i32x4(v[8 + c], v[12 + c], 0xdd);
        t[c] = _mm512_shuffle_i32x4(p, r, 0x88);
        t[8 + c] = _mm512_shuffle_i32x4(p, r, 0xdd);
        t[4 + c] = _mm512_shuffle_i32x4(q, s, 0x88);
        t[12 + c] = _mm512_shuffle_i32x4(q, s, 0xdd);
    }
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++)
        v[i] = t[i];
}

#endif
