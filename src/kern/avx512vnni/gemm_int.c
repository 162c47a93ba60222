/* kern/avx512vnni/gemm_int.c - unsigned 8- and 4-bit weights times signed 8-bit activations with vpdpbusd. */
#include "kern/avx512vnni/gemm_dot.h"
#include "kern/gemm_int.h"

enum { ROWS = 14, GROUP_ROWS = 8, HELD_ROWS = 6 };

/* ---- a scale for each column ---- */

INLINE void i8_tile(const struct gemm_tile *t, const int rows)
{
    const int32_t *a = (const int32_t *)t->a + t->u0 * rows;
    const int32_t *tail = (const int32_t *)t->a + t->units * rows;
    const char *b = (const char *)t->b + t->u0 * 128, *pf = t->prefetch;
    __m512i acc[ROWS][2];
#pragma GCC unroll 14
    for (int r = 0; r < rows; r++) {
        acc[r][0] = t->first ? _mm512_set1_epi32(tail[rows + r]) : _mm512_load_si512(t->c + r * GEMM_COLS);
        acc[r][1] = t->first ? acc[r][0] : _mm512_load_si512(t->c + r * GEMM_COLS + 16);
    }
    int64_t u = t->u0;
    for (; u + 4 <= t->u1; u += 4, a += 4 * rows, b += 512) {
        ask(t, &pf);
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++)
            dot(rows, acc, a + i * rows, _mm512_load_si512(b + i * 128), _mm512_load_si512(b + i * 128 + 64));
    }
    for (; u < t->u1; u++, a += rows, b += 128)
        dot(rows, acc, a, _mm512_load_si512(b), _mm512_load_si512(b + 64));
    if (t->u1 < t->units) {
#pragma GCC unroll 14
        for (int r = 0; r < rows; r++) {
            _mm512_store_si512(t->c + r * GEMM_COLS, acc[r][0]);
            _mm512_store_si512(t->c + r * GEMM_COLS + 16, acc[r][1]);
        }
        return;
    }
    __m512 s0 = _mm512_load_ps(b), s1 = _mm512_load_ps(b + 64);
#pragma GCC unroll 14
    for (int r = 0; r < rows; r++) {
        __m512 sa = _mm512_set1_ps(((const float *)tail)[r]);
        _mm512_store_ps(t->c + r * GEMM_COLS, _mm512_mul_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(acc[r][0]), sa), s0));
        _mm512_store_ps(t->c + r * GEMM_COLS + 16, _mm512_mul_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(acc[r][1]), sa), s1));
    }
}

void gemm_tile_i8_avx512vnni(const struct gemm_tile *t)
{
    switch (t->rows) {
    case 1: i8_tile(t, 1); break;
    case 2: i8_tile(t, 2); break;
    case 3: i8_tile(t, 3); break;
    case 4: i8_tile(t, 4); break;
    case 5: i8_tile(t, 5); break;
    case 6: i8_tile(t, 6); break;
    case 7: i8_tile(t, 7); break;
    case 8: i8_tile(t, 8); break;
    case 9: i8_tile(t, 9); break;
    case 10: i8_tile(t, 10); break;
    case 11: i8_tile(t, 11); break;
    case 12: i8_tile(t, 12); break;
    case 13: i8_tile(t, 13); break;
    default: i8_tile(t, 14); break;
    }
}

/* ---- scales for each column and group ---- */

/* The integers of one group: acc starts as what makes up for the offset of 8-bit weights.  Upper nibbles stay where they are: their
 * sums are 16 times too large, exactly. */
INLINE void group_dot(const bool four, const int units, const struct gemm_tile *t, const int rows, __m512i acc[][2],
                      const int32_t *a, const char *b, const char **pf)
{
    const __m512i low = _mm512_set1_epi8(15), high = _mm512_set1_epi8((char)0xf0);
#pragma GCC unroll 32
    for (int i = 0; i < units; i++) {
        if (i % 4 == 0)
            ask(t, pf);
        if (four) {
            __m512i v = _mm512_load_si512(b + i * 64);
            dot(rows, acc, a + i * rows, _mm512_and_si512(v, low), _mm512_and_si512(v, high));
        } else {
            dot(rows, acc, a + i * rows, _mm512_load_si512(b + i * 128), _mm512_load_si512(b + i * 128 + 64));
        }
    }
}

/* Scales and minima of a group; the upper nibbles' scales take the 16 back. */
INLINE void group_head(const bool four, const bool minima, const char *b, __m512 s[2], __m512 m[2])
{
    s[0] = _mm512_cvtph_ps(_mm256_load_si256((const __m256i *)b));
    s[1] = _mm512_cvtph_ps(_mm256_load_si256((const __m256i *)(b + 32)));
    if (four)
        s[1] = _mm512_mul_ps(s[1], _mm512_set1_ps(1.0f / 16));
    m[0] = minima ? _mm512_cvtph_ps(_mm256_load_si256((const __m256i *)(b + 64))) : s[0];
    m[1] = minima ? _mm512_cvtph_ps(_mm256_load_si256((const __m256i *)(b + 96))) : s[1];
}

/* sums of one row += (acc * s) * a.x, and + minima * a.y */
INLINE void group_scale(const bool minima, const int rows, const float *aux, const __m512i acc[2], const __m512 s[2], const __m512 m[2], __m512 sum[2])
{
    __m512 sa = _mm512_set1_ps(aux[0]);
    sum[0] = _mm512_fmadd_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(acc[0]), s[0]), sa, sum[0]);
    sum[1] = _mm512_fmadd_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(acc[1]), s[1]), sa, sum[1]);
    if (!minima)
        return;
    __m512 as = _mm512_set1_ps(aux[rows]);
    sum[0] = _mm512_fmadd_ps(m[0], as, sum[0]);
    sum[1] = _mm512_fmadd_ps(m[1], as, sum[1]);
}

INLINE void group_tile(const bool four, const bool minima, const int units, const struct gemm_tile *t, const int rows)
{
    const int head = minima ? 128 : 64, bytes = head + units * (four ? 64 : 128);
    /* Registers hold the sums of few rows; those of many stay in the first cache. */
    const bool held = rows <= HELD_ROWS;
    int64_t g = t->u0 / units, end = t->u1 / units;
    const int32_t *a = (const int32_t *)t->a + t->u0 * rows;
    const float *aux = (const float *)t->a + (t->units + 2 * g) * rows;
    const char *b = (const char *)t->b + g * bytes, *pf = t->prefetch;
    __m512 sums[HELD_ROWS][2];
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++) {
        if (held) {
            sums[r][0] = t->first ? _mm512_setzero_ps() : _mm512_load_ps(t->c + r * GEMM_COLS);
            sums[r][1] = t->first ? _mm512_setzero_ps() : _mm512_load_ps(t->c + r * GEMM_COLS + 16);
        } else if (t->first) {
            _mm512_store_ps(t->c + r * GEMM_COLS, _mm512_setzero_ps());
            _mm512_store_ps(t->c + r * GEMM_COLS + 16, _mm512_setzero_ps());
        }
    }
    for (; g < end; g++, a += units * rows, b += bytes, aux += 2 * rows) {
        __m512i acc[GROUP_ROWS][2];
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++)
            acc[r][0] = acc[r][1] = minima ? _mm512_setzero_si512() : _mm512_set1_epi32(((const int32_t *)aux)[rows + r]);
        group_dot(four, units, t, rows, acc, a, b + head, &pf);
        __m512 s[2], m[2];
        group_head(four, minima, b, s, m);
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) {
            if (held) {
                group_scale(minima, rows, aux + r, acc[r], s, m, sums[r]);
                continue;
            }
            float *c = t->c + r * GEMM_COLS;
            __m512 sum[2] = {_mm512_load_ps(c), _mm512_load_ps(c + 16)};
            group_scale(minima, rows, aux + r, acc[r], s, m, sum);
            _mm512_store_ps(c, sum[0]);
            _mm512_store_ps(c + 16, sum[1]);
        }
    }
#pragma GCC unroll 8
    for (int r = 0; held && r < rows; r++) {
        _mm512_store_ps(t->c + r * GEMM_COLS, sums[r][0]);
        _mm512_store_ps(t->c + r * GEMM_COLS + 16, sums[r][1]);
    }
}

INLINE void group_any(const bool four, const bool minima, const int units, const struct gemm_tile *t)
{
    switch (t->rows) {
    case 1: group_tile(four, minima, units, t, 1); break;
    case 2: group_tile(four, minima, units, t, 2); break;
    case 3: group_tile(four, minima, units, t, 3); break;
    case 4: group_tile(four, minima, units, t, 4); break;
    case 5: group_tile(four, minima, units, t, 5); break;
    case 6: group_tile(four, minima, units, t, 6); break;
    case 7: group_tile(four, minima, units, t, 7); break;
    default: group_tile(four, minima, units, t, 8); break;
    }
}

void gemm_tile_i8_g16_avx512vnni(const struct gemm_tile *t)
{
    group_any(false, false, 4, t);
}

void gemm_tile_i8_g32_avx512vnni(const struct gemm_tile *t)
{
    group_any(false, false, 8, t);
}

void gemm_tile_u8_g16_avx512vnni(const struct gemm_tile *t)
{
    group_any(false, true, 4, t);
}

void gemm_tile_u8_g32_avx512vnni(const struct gemm_tile *t)
{
    group_any(false, true, 8, t);
}

void gemm_tile_u4_g32_avx512vnni(const struct gemm_tile *t)
{
    group_any(true, true, 8, t);
}

void gemm_tile_u4_g64_avx512vnni(const struct gemm_tile *t)
{
    group_any(true, true, 16, t);
}

void gemm_tile_u4_g128_avx512vnni(const struct gemm_tile *t)
{
    group_any(true, true, 32, t);
}
