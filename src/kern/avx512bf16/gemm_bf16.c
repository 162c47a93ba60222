/* kern/avx512bf16/gemm_bf16.c - bf16 and 8-bit float weights times bf16 activations with vdpbf16ps. */
#include <immintrin.h>
#include "kern/gemm_int.h"
#include "kern/avx512/prepare.h"

#define INLINE static inline __attribute__((always_inline))

/* The lower and upper byte of the bf16 that each E4M3 magnitude is; subnormals become normal numbers. */
static const uint8_t f8_low[128] = {
    0x00, 0x00, 0x80, 0xc0, 0x00, 0x20, 0x40, 0x60, 0x80, 0x90, 0xa0, 0xb0, 0xc0, 0xd0, 0xe0, 0xf0,
    0x00, 0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70, 0x80, 0x90, 0xa0, 0xb0, 0xc0, 0xd0, 0xe0, 0xf0,
    0x00, 0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70, 0x80, 0x90, 0xa0, 0xb0, 0xc0, 0xd0, 0xe0, 0xf0,
    0x00, 0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70, 0x80, 0x90, 0xa0, 0xb0, 0xc0, 0xd0, 0xe0, 0xf0,
    0x00, 0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70, 0x80, 0x90, 0xa0, 0xb0, 0xc0, 0xd0, 0xe0, 0xf0,
    0x00, 0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70, 0x80, 0x90, 0xa0, 0xb0, 0xc0, 0xd0, 0xe0, 0xf0,
    0x00, 0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70, 0x80, 0x90, 0xa0, 0xb0, 0xc0, 0xd0, 0xe0, 0xf0,
    0x00, 0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70, 0x80, 0x90, 0xa0, 0xb0, 0xc0, 0xd0, 0xe0, 0xc0,
};
static const uint8_t f8_high[128] = {
    0x00, 0x3b, 0x3b, 0x3b, 0x3c, 0x3c, 0x3c, 0x3c, 0x3c, 0x3c, 0x3c, 0x3c, 0x3c, 0x3c, 0x3c, 0x3c,
    0x3d, 0x3d, 0x3d, 0x3d, 0x3d, 0x3d, 0x3d, 0x3d, 0x3d, 0x3d, 0x3d, 0x3d, 0x3d, 0x3d, 0x3d, 0x3d,
    0x3e, 0x3e, 0x3e, 0x3e, 0x3e, 0x3e, 0x3e, 0x3e, 0x3e, 0x3e, 0x3e, 0x3e, 0x3e, 0x3e, 0x3e, 0x3e,
    0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f,
    0x40, 0x40, 0x40, 0x40, 0x40, 0x40, 0x40, 0x40, 0x40, 0x40, 0x40, 0x40, 0x40, 0x40, 0x40, 0x40,
    0x41, 0x41, 0x41, 0x41, 0x41, 0x41, 0x41, 0x41, 0x41, 0x41, 0x41, 0x41, 0x41, 0x41, 0x41, 0x41,
    0x42, 0x42, 0x42, 0x42, 0x42, 0x42, 0x42, 0x42, 0x42, 0x42, 0x42, 0x42, 0x42, 0x42, 0x42, 0x42,
    0x43, 0x43, 0x43, 0x43, 0x43, 0x43, 0x43, 0x43, 0x43, 0x43, 0x43, 0x43, 0x43, 0x43, 0x43, 0x7f,
};

struct f8_table { __m512i low[2], high[2]; };

INLINE struct f8_table f8_load_table(void)
{
    return (struct f8_table){{_mm512_loadu_si512(f8_low), _mm512_loadu_si512(f8_low + 64)},
                             {_mm512_loadu_si512(f8_high), _mm512_loadu_si512(f8_high + 64)}};
}

/* One unit (two K): 32 columns are two vectors, a row's pair is broadcast.  vdpbf16ps takes an f32 accumulator. */
INLINE void unit(const int rows, __m512 acc[][2], const float *a, const char *b, const struct f8_table *f8)
{
    __m512i b0, b1;
    if (f8) {
        __m512i v = _mm512_load_si512(b);
        __m512i low = _mm512_permutex2var_epi8(f8->low[0], v, f8->low[1]);
        __m512i high = _mm512_permutex2var_epi8(f8->high[0], v, f8->high[1]);
        high = _mm512_ternarylogic_epi32(high, v, _mm512_set1_epi8((char)0x80), 0xf8);   /* high | (v & sign) */
        b0 = _mm512_unpacklo_epi8(low, high);
        b1 = _mm512_unpackhi_epi8(low, high);
    } else {
        b0 = _mm512_load_si512(b);
        b1 = _mm512_load_si512(b + 64);
    }
#pragma GCC unroll 14
    for (int r = 0; r < rows; r++) {
        __m512bh x = (__m512bh)_mm512_set1_ps(a[r]);
        acc[r][0] = _mm512_dpbf16_ps(acc[r][0], x, (__m512bh)b0);
        acc[r][1] = _mm512_dpbf16_ps(acc[r][1], x, (__m512bh)b1);
    }
}

INLINE void tile(const struct gemm_tile *t, const int rows, const struct f8_table *f8)
{
    const int bytes = f8 ? 64 : 128;
    __m512 acc[GEMM_ROWS_MAX][2];
#pragma GCC unroll 14
    for (int r = 0; r < rows; r++) {
        acc[r][0] = t->first ? _mm512_setzero_ps() : _mm512_load_ps(t->c + r * GEMM_COLS);
        acc[r][1] = t->first ? _mm512_setzero_ps() : _mm512_load_ps(t->c + r * GEMM_COLS + 16);
    }
    const float *a = (const float *)t->a + t->u0 * rows;
    const char *b = (const char *)t->b + t->u0 * bytes, *pf = t->prefetch;
    int64_t u = t->u0;
    for (; u + 4 <= t->u1; u += 4) {
        for (int i = 0; i < t->prefetch_lines; i++, pf += 64)
            _mm_prefetch(pf, _MM_HINT_T0);
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++)
            unit(rows, acc, a + i * rows, b + i * bytes, f8);
        a += 4 * rows;
        b += 4 * bytes;
    }
    for (; u < t->u1; u++, a += rows, b += bytes)
        unit(rows, acc, a, b, f8);
    if (f8 && t->u1 == t->units) {
#pragma GCC unroll 14
        for (int r = 0; r < rows; r++) {
            acc[r][0] = _mm512_mul_ps(acc[r][0], _mm512_load_ps(b));
            acc[r][1] = _mm512_mul_ps(acc[r][1], _mm512_load_ps(b + 64));
        }
    }
#pragma GCC unroll 14
    for (int r = 0; r < rows; r++) {
        _mm512_store_ps(t->c + r * GEMM_COLS, acc[r][0]);
        _mm512_store_ps(t->c + r * GEMM_COLS + 16, acc[r][1]);
    }
}

void gemm_tile_bf16_avx512bf16(const struct gemm_tile *t)
{
    switch (t->rows) {
    case 1: tile(t, 1, NULL); break;
    case 2: tile(t, 2, NULL); break;
    case 3: tile(t, 3, NULL); break;
    case 4: tile(t, 4, NULL); break;
    case 5: tile(t, 5, NULL); break;
    case 6: tile(t, 6, NULL); break;
    case 7: tile(t, 7, NULL); break;
    case 8: tile(t, 8, NULL); break;
    case 9: tile(t, 9, NULL); break;
    case 10: tile(t, 10, NULL); break;
    case 11: tile(t, 11, NULL); break;
    case 12: tile(t, 12, NULL); break;
    case 13: tile(t, 13, NULL); break;
    default: tile(t, 14, NULL); break;
    }
}

void gemm_tile_f8_avx512bf16(const struct gemm_tile *t)
{
    const struct f8_table f8 = f8_load_table();
    switch (t->rows) {
    case 1: tile(t, 1, &f8); break;
    case 2: tile(t, 2, &f8); break;
    case 3: tile(t, 3, &f8); break;
    case 4: tile(t, 4, &f8); break;
    case 5: tile(t, 5, &f8); break;
    case 6: tile(t, 6, &f8); break;
    case 7: tile(t, 7, &f8); break;
    case 8: tile(t, 8, &f8); break;
    case 9: tile(t, 9, &f8); break;
    case 10: tile(t, 10, &f8); break;
    default: tile(t, 11, &f8); break;
    }
}

/* 32 values (missing ones read as zero) to 16 pairs. */
INLINE __m512i pairs(const float *x, int64_t n)
{
    __mmask16 m0 = n >= 16 ? 0xffff : (__mmask16)((1u << n) - 1);
    __mmask16 m1 = n >= 32 ? 0xffff : n <= 16 ? 0 : (__mmask16)((1u << (n - 16)) - 1);
    return (__m512i)_mm512_cvtne2ps_pbh(_mm512_maskz_loadu_ps(m1, x + 16), _mm512_maskz_loadu_ps(m0, x));
}

void gemm_prepare_bf16_avx512bf16(const struct gemm_kern *kern, const float *x, int64_t ldx, int rows, int64_t k, void *a)
{
    (void)kern;
    int32_t *out = a;
    int64_t units = (k + 1) / 2;
    __mmask16 row_mask = (__mmask16)((1u << rows) - 1);
    for (int64_t u = 0; u < units; u += 16) {
        int n = units - u < 16 ? (int)(units - u) : 16;
        __m512i v[16];
#pragma GCC unroll 16
        for (int r = 0; r < 16; r++)
            v[r] = r < rows ? pairs(x + r * ldx + 2 * u, k - 2 * u) : _mm512_setzero_si512();
        if (rows == 1) {
            _mm512_mask_storeu_epi32(out + u, (__mmask16)((1u << n) - 1), v[0]);
            continue;
        }
        prepare_transpose(v);
        for (int i = 0; i < n; i++)
            _mm512_mask_storeu_epi32(out + (u + i) * rows, row_mask, v[i]);
    }
}
