/* kern/avx2/gemm_float.c - f32, f16 and bf16 weights times f32 activations with FMA.
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

/* One unit of vecs * 8 columns. */
INLINE void unit(const enum gemm_format f, const int rows, const int vecs, __m256 acc[][4], const float *a, const char *b)
{
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
    const int a_step = f == GEMM_BF16 ? 2 * rows : rows, b_step = f == GEMM_F16 ? 64 : 128;
    float *c = t->c + 16 * half;
    __m256 acc[ROWS][4];
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++) {
#pragma GCC unroll 4
        for (int v = 0; v < vecs; v++)
            acc[r][v] = t->first ? _mm256_setzero_ps() : _mm256_load_ps(c + r * GEMM_COLS + 8 * v);
    }
    const float *a = (const float *)t->a + t->u0 * a_step;
    const char *b = (const char *)t->b + t->u0 * b_step + half * (b_step / 2), *pf = t->prefetch;
    int64_t u = t->u0;
    for (; u + 4 <= t->u1; u += 4) {
        for (int i = 0; half == 0 && i < t->prefetch_lines; i++, pf += 64)
            _mm_prefetch(pf, _MM_HINT_T0);
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++)
            unit(f, rows, vecs, acc, a + i * a_step, b + i * b_step);
        a += 4 * a_step;
        b += 4 * b_step;
    }
    for (; u < t->u1; u++, a += a_step, b += b_step)
        unit(f, rows, vecs, acc, a, b);
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
