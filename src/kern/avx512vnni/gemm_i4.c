/* kern/avx512vnni/gemm_i4.c - 4-bit weights with 8-bit scales times signed 8-bit activations: integers throughout a block of 128 K.
 *
 * The sum of a group's 32 products (q - 8) * a fits 16 bits, so that vpdpwssd multiplies it with its scale (a 32-bit lane whose
 * upper half is zero) and adds: one instruction a group, where a float scale would take three. */
#include "kern/avx512vnni/gemm_dot.h"
#include "kern/gemm_int.h"

enum { ROWS = 8, GROUP = 8 };

/* One group's 8 units. */
INLINE void group_dot(const struct gemm_tile *t, const int rows, __m512i acc[][2], const int32_t *a, const char *b, const char **pf)
{
    const __m512i low = _mm512_set1_epi8(15);
#pragma GCC unroll 8
    for (int i = 0; i < GROUP; i++) {
        if (i % 4 == 0)
            ask(t, pf);
        __m512i v = _mm512_load_si512(b + i * 64);
        dot(rows, acc, a + i * rows, _mm512_and_si512(v, low), _mm512_and_si512(_mm512_srli_epi16(v, 4), low));
    }
}

/* Two groups: block[r] += their scales times their sums, and their offsets times the sums of the activations. */
INLINE void pair(const struct gemm_tile *t, const int rows, const bool first, __m512i block[][2], const int32_t *a, const int32_t *starts,
                 const int32_t *sums, const char *b, const char *scales, const char *offsets, const char **pf)
{
    const __m512i zero = _mm512_setzero_si512();
#pragma GCC unroll 2
    for (int g = 0; g < 2; g++) {
        __m512i acc[ROWS][2];
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++)
            acc[r][0] = acc[r][1] = _mm512_set1_epi32(starts[g * rows + r]);
        group_dot(t, rows, acc, a + g * GROUP * rows, b + g * GROUP * 64, pf);
        const __m128i *at = (const __m128i *)(scales + g * GEMM_COLS);
        __m512i s0 = _mm512_cvtepu8_epi32(_mm_load_si128(at)), s1 = _mm512_cvtepu8_epi32(_mm_load_si128(at + 1));
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) {
            block[r][0] = _mm512_dpwssd_epi32(first && g == 0 ? zero : block[r][0], acc[r][0], s0);
            block[r][1] = _mm512_dpwssd_epi32(first && g == 0 ? zero : block[r][1], acc[r][1], s1);
        }
    }
    __m512i o0 = _mm512_cvtepi8_epi16(_mm256_load_si256((const __m256i *)offsets));
    __m512i o1 = _mm512_cvtepi8_epi16(_mm256_load_si256((const __m256i *)offsets + 1));
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++) {
        __m512i x = _mm512_set1_epi32(sums[r]);
        block[r][0] = _mm512_dpwssd_epi32(block[r][0], o0, x);
        block[r][1] = _mm512_dpwssd_epi32(block[r][1], o1, x);
    }
}

INLINE void i4_tile(const struct gemm_tile *t, const int rows)
{
    int64_t g = t->u0 / GEMM_I4_UNITS, end = t->u1 / GEMM_I4_UNITS;
    const int32_t *a = (const int32_t *)t->a + t->u0 * rows, *aux = (const int32_t *)t->a + (t->units + GEMM_I4_AUX * g) * rows;
    const char *b = (const char *)t->b + g * GEMM_I4_BYTES, *pf = t->prefetch;
    if (t->first) {
        for (int i = 0; i < rows * GEMM_COLS; i += 16)
            _mm512_store_ps(t->c + i, _mm512_setzero_ps());
    }
    for (; g < end; g++, a += GEMM_I4_UNITS * rows, b += GEMM_I4_BYTES, aux += GEMM_I4_AUX * rows) {
        __m512i block[ROWS][2];
        const char *codes = b + GEMM_I4_HEAD;
        pair(t, rows, true, block, a, aux + rows, aux + 5 * rows, codes, b, b + GEMM_I4_OFFSETS, &pf);
        pair(t, rows, false, block, a + 2 * GROUP * rows, aux + 3 * rows, aux + 6 * rows, codes + 2 * GROUP * 64,
             b + 2 * GEMM_COLS, b + GEMM_I4_OFFSETS + 2 * GEMM_COLS, &pf);
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) {
            __m512 scale = _mm512_set1_ps(((const float *)aux)[r]);
            float *c = t->c + r * GEMM_COLS;
            _mm512_store_ps(c, _mm512_fmadd_ps(_mm512_cvtepi32_ps(block[r][0]), scale, _mm512_load_ps(c)));
            _mm512_store_ps(c + 16, _mm512_fmadd_ps(_mm512_cvtepi32_ps(block[r][1]), scale, _mm512_load_ps(c + 16)));
        }
    }
    if (t->u1 < t->units)
        return;
    __m512 d0 = _mm512_load_ps(b), d1 = _mm512_load_ps(b + 64);
    for (int r = 0; r < rows; r++) {
        float *c = t->c + r * GEMM_COLS;
        _mm512_store_ps(c, _mm512_mul_ps(_mm512_load_ps(c), d0));
        _mm512_store_ps(c + 16, _mm512_mul_ps(_mm512_load_ps(c + 16), d1));
    }
}

void gemm_tile_i4_avx512vnni(const struct gemm_tile *t)
{
    switch (t->rows) {
    case 1: i4_tile(t, 1); break;
    case 2: i4_tile(t, 2); break;
    case 3: i4_tile(t, 3); break;
    case 4: i4_tile(t, 4); break;
    case 5: i4_tile(t, 5); break;
    case 6: i4_tile(t, 6); break;
    case 7: i4_tile(t, 7); break;
    default: i4_tile(t, 8); break;
    }
}
