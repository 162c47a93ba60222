/* kern/avx2/gemm_float.c - f32, f16, bf16 and 8-bit float weights times f32 activations with FMA.
 *
 * 16 registers: up to 3 rows run over all 32 columns (12 sums), more rows over half a panel at a time (6 x 2). */
#include <immintrin.h>
#include "kern/gemm_int.h"

#define INLINE static inline __attribute__((always_inline))

enum { ROWS = 6, WIDE_ROWS = 3 };

INLINE void fma_rows(const int rows, const int vecs, __m256 acc[][4], const float *a, const __m256 *b)
{
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++) {
        __m256 x = _mm256_broadcast_ss(a + r);
#pragma GCC unroll 4
        for (int v = 0; v < vecs; v++)
            acc[r][v] = _mm256_fmadd_ps(x, b[v], acc[r][v]);
    }
}

/* E4M3 in byte `shift / 8` of each 4-byte lane to f32: as the top bits of an f32 the value is 2^-120 of itself. */
INLINE __m256 f8_to_f32(__m256i v, const int shift)
{
    v = _mm256_slli_epi32(v, 24 - shift);
    __m256i magnitude = _mm256_srli_epi32(_mm256_and_si256(v, _mm256_set1_epi32(0x7f000000)), 4);
    __m256i sign = _mm256_and_si256(v, _mm256_set1_epi32((int)0x80000000u));
    return _mm256_mul_ps(_mm256_castsi256_ps(_mm256_or_si256(magnitude, sign)), _mm256_set1_ps(0x1p120f));
}

/* A unit's 64 bytes: of each 16, 8 belong to the first half of the panel and 8 to the second. */
INLINE void f8_unit(const int rows, const int vecs, const int half, __m256 acc[][4], const float *a, const char *b)
{
    const __m256i zero = _mm256_setzero_si256();
    __m256i pairs[4];
    __m256 w[4];
#pragma GCC unroll 4
    for (int v = 0; v < vecs; v++) {
        __m256i bytes = _mm256_load_si256((const __m256i *)b + v % 2);
        pairs[v] = half == 1 || v >= 2 ? _mm256_unpackhi_epi16(bytes, zero) : _mm256_unpacklo_epi16(bytes, zero);
    }
#pragma GCC unroll 4
    for (int v = 0; v < vecs; v++)
        w[v] = f8_to_f32(pairs[v], 0);
    fma_rows(rows, vecs, acc, a, w);
#pragma GCC unroll 4
    for (int v = 0; v < vecs; v++)
        w[v] = f8_to_f32(pairs[v], 8);
    fma_rows(rows, vecs, acc, a + rows, w);
}

/* One unit of vecs * 8 columns. */
INLINE void unit(const enum gemm_format f, const int rows, const int vecs, const int half, __m256 acc[][4], const float *a, const char *b)
{
    if (f == GEMM_F8) {
        f8_unit(rows, vecs, half, acc, a, b);
        return;
    }
    __m256 w[4];
    if (f != GEMM_BF16) {
#pragma GCC unroll 4
        for (int v = 0; v < vecs; v++)
            w[v] = f == GEMM_F32 ? _mm256_load_ps((const float *)b + 8 * v)
                                 : _mm256_cvtph_ps(_mm_load_si128((const __m128i *)b + v));
        fma_rows(rows, vecs, acc, a, w);
        return;
    }
    /* Two K in a unit: the lower halves, then the upper ones; a holds [2][rows]. */
#pragma GCC unroll 4
    for (int v = 0; v < vecs; v++)
        w[v] = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_load_si256((const __m256i *)b + v), 16));
    fma_rows(rows, vecs, acc, a, w);
#pragma GCC unroll 4
    for (int v = 0; v < vecs; v++)
        w[v] = _mm256_and_ps(_mm256_load_ps((const float *)b + 8 * v),
                             _mm256_castsi256_ps(_mm256_set1_epi32((int)0xffff0000u)));
    fma_rows(rows, vecs, acc, a + rows, w);
}

INLINE void block(const enum gemm_format f, const struct gemm_tile *t, const int rows, const int vecs, const int half)
{
    const int a_step = f == GEMM_BF16 || f == GEMM_F8 ? 2 * rows : rows, b_step = f == GEMM_F16 || f == GEMM_F8 ? 64 : 128;
    float *c = t->c + 16 * half;
    __m256 acc[ROWS][4];
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++) {
#pragma GCC unroll 4
        for (int v = 0; v < vecs; v++)
            acc[r][v] = t->first ? _mm256_setzero_ps() : _mm256_load_ps(c + r * GEMM_COLS + 8 * v);
    }
    const float *a = (const float *)t->a + t->u0 * a_step;
    const char *b = (const char *)t->b + t->u0 * b_step + (f == GEMM_F8 ? 0 : half * (b_step / 2)), *pf = t->prefetch;
    int64_t u = t->u0;
    for (; u + 4 <= t->u1; u += 4) {
        for (int i = 0; half == 0 && i < t->prefetch_lines; i++, pf += 64)
            _mm_prefetch(pf, _MM_HINT_T0);
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++)
            unit(f, rows, vecs, half, acc, a + i * a_step, b + i * b_step);
        a += 4 * a_step;
        b += 4 * b_step;
    }
    for (; u < t->u1; u++, a += a_step, b += b_step)
        unit(f, rows, vecs, half, acc, a, b);
    if (f == GEMM_F8 && t->u1 == t->units) {
        const float *scale = (const float *)b + 16 * half;
#pragma GCC unroll 6
        for (int r = 0; r < rows; r++) {
#pragma GCC unroll 4
            for (int v = 0; v < vecs; v++)
                acc[r][v] = _mm256_mul_ps(acc[r][v], _mm256_load_ps(scale + 8 * v));
        }
    }
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++) {
#pragma GCC unroll 4
        for (int v = 0; v < vecs; v++)
            _mm256_store_ps(c + r * GEMM_COLS + 8 * v, acc[r][v]);
    }
}

INLINE void tile(const enum gemm_format f, const struct gemm_tile *t, const int rows)
{
    if (rows <= WIDE_ROWS) {
        block(f, t, rows, 4, 0);
    } else {
        block(f, t, rows, 2, 0);
        block(f, t, rows, 2, 1);
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
    default: tile(f, t, 6); break;
    }
}

void gemm_tile_f32_avx2(const struct gemm_tile *t)
{
    tile_any(GEMM_F32, t);
}

void gemm_tile_f16_avx2(const struct gemm_tile *t)
{
    tile_any(GEMM_F16, t);
}

void gemm_tile_bf16_avx2(const struct gemm_tile *t)
{
    tile_any(GEMM_BF16, t);
}

void gemm_tile_f8_avx2(const struct gemm_tile *t)
{
    tile_any(GEMM_F8, t);
}
