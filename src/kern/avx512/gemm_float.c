/* kern/avx512/gemm_float.c - f32, f16, bf16 and 8-bit float weights times f32 activations with FMA. */
#include <immintrin.h>
#include "kern/gemm_int.h"
#include "kern/avx512/prepare.h"

#define INLINE static inline __attribute__((always_inline))

/* E4M3 in byte `shift / 8` of each 4-byte lane to f32: as the top bits of an f32 the value is 2^-120 of itself. */
INLINE __m512 f8_to_f32(__m512i v, const int shift)
{
    v = _mm512_slli_epi32(v, 24 - shift);
    __m512i magnitude = _mm512_srli_epi32(_mm512_and_si512(v, _mm512_set1_epi32(0x7f000000)), 4);
    __m512i sign = _mm512_and_si512(v, _mm512_set1_epi32((int)0x80000000u));
    return _mm512_mul_ps((__m512)_mm512_or_si512(magnitude, sign), _mm512_set1_ps(0x1p120f));
}

INLINE void fma_row(const int rows, __m512 acc[][2], const float *a, const int step, __m512 b0, __m512 b1)
{
#pragma GCC unroll 14
    for (int r = 0; r < rows; r++) {
        __m512 x = _mm512_set1_ps(a[r * step]);
        acc[r][0] = _mm512_fmadd_ps(x, b0, acc[r][0]);
        acc[r][1] = _mm512_fmadd_ps(x, b1, acc[r][1]);
    }
}

INLINE void unit(const enum gemm_format f, const int rows, __m512 acc[][2], const float *a, const char *b)
{
    if (f == GEMM_F32) {
        fma_row(rows, acc, a, 1, _mm512_load_ps(b), _mm512_load_ps(b + 64));
    } else if (f == GEMM_F16) {
        fma_row(rows, acc, a, 1, _mm512_cvtph_ps(_mm256_load_si256((const __m256i *)b)),
                _mm512_cvtph_ps(_mm256_load_si256((const __m256i *)(b + 32))));
    } else if (f == GEMM_F8) {
        const __m512i zero = _mm512_setzero_si512();
        __m512i v = _mm512_load_si512(b), v0 = _mm512_unpacklo_epi16(v, zero), v1 = _mm512_unpackhi_epi16(v, zero);
        fma_row(rows, acc, a, 1, f8_to_f32(v0, 0), f8_to_f32(v1, 0));
        fma_row(rows, acc, a + rows, 1, f8_to_f32(v0, 8), f8_to_f32(v1, 8));
    } else {
        /* Two K in a unit: the lower halves, then the upper ones.  a holds both of a row as [rows][2]. */
        const __m512i upper = _mm512_set1_epi32((int)0xffff0000u);
        __m512i v0 = _mm512_load_si512(b), v1 = _mm512_load_si512(b + 64);
        fma_row(rows, acc, a, 1, (__m512)_mm512_slli_epi32(v0, 16), (__m512)_mm512_slli_epi32(v1, 16));
        fma_row(rows, acc, a + rows, 1, (__m512)_mm512_and_si512(v0, upper), (__m512)_mm512_and_si512(v1, upper));
    }
}

INLINE void tile(const enum gemm_format f, const struct gemm_tile *t, const int rows)
{
    const int a_step = f == GEMM_BF16 || f == GEMM_F8 ? 2 * rows : rows;
    const int b_step = f == GEMM_F16 || f == GEMM_F8 ? 64 : 128;
    __m512 acc[GEMM_ROWS_MAX][2];
#pragma GCC unroll 14
    for (int r = 0; r < rows; r++) {
        acc[r][0] = t->first ? _mm512_setzero_ps() : _mm512_load_ps(t->c + r * GEMM_COLS);
        acc[r][1] = t->first ? _mm512_setzero_ps() : _mm512_load_ps(t->c + r * GEMM_COLS + 16);
    }
    const float *a = (const float *)t->a + t->u0 * a_step;
    const char *b = (const char *)t->b + t->u0 * b_step, *pf = t->prefetch;
    int64_t u = t->u0;
    for (; u + 4 <= t->u1; u += 4) {
        for (int i = 0; i < t->prefetch_lines; i++, pf += 64)
            _mm_prefetch(pf, _MM_HINT_T0);
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++)
            unit(f, rows, acc, a + i * a_step, b + i * b_step);
        a += 4 * a_step;
        b += 4 * b_step;
    }
    for (; u < t->u1; u++, a += a_step, b += b_step)
        unit(f, rows, acc, a, b);
    if (f == GEMM_F8 && t->u1 == t->units) {
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

INLINE void tile_any(const enum gemm_format f, const struct gemm_tile *t)
{
    switch (t->rows) {
    case 1: tile(f, t, 1); break;
    case 2: tile(f, t, 2); break;
    case 3: tile(f, t, 3); break;
    case 4: tile(f, t, 4); break;
    case 5: tile(f, t, 5); break;
    case 6: tile(f, t, 6); break;
    case 7: tile(f, t, 7); break;
    case 8: tile(f, t, 8); break;
    case 9: tile(f, t, 9); break;
    case 10: tile(f, t, 10); break;
    case 11: tile(f, t, 11); break;
    case 12: tile(f, t, 12); break;
    case 13: tile(f, t, 13); break;
    default: tile(f, t, 14); break;
    }
}

void gemm_tile_f32_avx512(const struct gemm_tile *t)
{
    tile_any(GEMM_F32, t);
}

void gemm_tile_f16_avx512(const struct gemm_tile *t)
{
    tile_any(GEMM_F16, t);
}

void gemm_tile_bf16_avx512(const struct gemm_tile *t)
{
    tile_any(GEMM_BF16, t);
}

void gemm_tile_f8_avx512(const struct gemm_tile *t)
{
    tile_any(GEMM_F8, t);
}

void gemm_prepare_f32_avx512(const struct gemm_kern *kern, const float *x, int64_t ldx, int rows, int64_t k, void *a)
{
    (void)kern;
    float *out = a;
    __mmask16 row_mask = (__mmask16)((1u << rows) - 1);
    for (int64_t u = 0; u < k; u += 16) {
        int n = k - u < 16 ? (int)(k - u) : 16;
        __mmask16 m = (__mmask16)((1u << n) - 1);
        __m512i v[16];
#pragma GCC unroll 16
        for (int r = 0; r < 16; r++)
            v[r] = r < rows ? _mm512_maskz_loadu_epi32(m, x + r * ldx + u) : _mm512_setzero_si512();
        if (rows == 1) {
            _mm512_mask_storeu_epi32(out + u, m, v[0]);
            continue;
        }
        prepare_transpose(v);
        for (int i = 0; i < n; i++)
            _mm512_mask_storeu_epi32(out + (u + i) * rows, row_mask, v[i]);
    }
    /* Odd K in a two-wide unit: the partner is a zero. */
    if (k % 2)
        _mm512_mask_storeu_epi32(out + k * rows, row_mask, _mm512_setzero_si512());
}
