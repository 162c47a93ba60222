/* kern/avx512/gemm_prepare.c - activations to signed 8-bit units; the same integers and scales as gemm_prepare_body.inc. */
#include <immintrin.h>
#include <math.h>
#include <string.h>
#include "kern/avx512/prepare.h"
#include "kern/gemm_int.h"

#define INLINE static inline __attribute__((always_inline))

enum { CHUNK = 64 };   /* K that make 16 units */

/* What one row needs between chunks. */
struct row { float inverse, scale; uint32_t sum; int32_t part[GEMM_I4_GROUPS]; /* of 32 K each, for I4 */ };

INLINE __m512 load(const float *x, int64_t n)
{
    return _mm512_maskz_loadu_ps(n >= 16 ? 0xffff : n <= 0 ? 0 : (__mmask16)((1u << n) - 1), x);
}

/* Bits of the magnitude: they order as the values do, with infinity and NaN on top. */
INLINE __m512i bits(__m512 x)
{
    return _mm512_and_si512((__m512i)x, _mm512_set1_epi32(0x7fffffff));
}

INLINE void begin_group(struct row *w, uint32_t magnitude)
{
    float m;
    memcpy(&m, &magnitude, 4);
    if (magnitude >= 0x7f800000u)
        m = NAN;
    w->inverse = m > GEMM_TINY ? 127 / m : 0;
    w->scale = m <= GEMM_TINY ? 0 : m / 127;
    w->sum = 0;
}

INLINE void end_group(const struct row *w, const bool minima, int rows, int32_t *aux)
{
    float scaled = w->scale * (float)(int32_t)w->sum;
    uint32_t offset = 0u - 128u * w->sum;
    memcpy(aux, &w->scale, 4);
    memcpy(aux + rows, minima ? (void *)&scaled : (void *)&offset, 4);
}

/* What follows a block of I4 (gemm_int.h). */
static void end_block(const struct row *w, int rows, int32_t *aux)
{
    memcpy(aux, &w->scale, 4);
    for (int g = 0; g < GEMM_I4_GROUPS; g++)
        aux[(1 + g) * rows] = (int32_t)(0u - 8u * (uint32_t)w->part[g]);   /* a row that is not finite: anything, its scale is NaN */
    for (int p = 0; p < GEMM_I4_GROUPS / 2; p++)
        aux[(5 + p) * rows] = (int32_t)(8u * (uint32_t)w->part[2 * p + 1] << 16 | (uint16_t)(8u * (uint32_t)w->part[2 * p]));
}

static uint32_t magnitude(const float *x, int64_t n)
{
    __m512i m = _mm512_setzero_si512();
    for (int64_t i = 0; i < n; i += 16)
        m = _mm512_max_epu32(m, bits(load(x + i, n - i)));
    return _mm512_reduce_max_epu32(m);
}

INLINE __m512i quantize(const struct row *w, __m512 x)
{
    return _mm512_cvtps_epi32(_mm512_mul_ps(x, _mm512_set1_ps(w->inverse)));
}

/* One row's next 64 values (n of them exist) to 16 units; groups of 16 or 32 begin and end in here. */
INLINE __m512i small_groups(const int vecs, const bool minima, const float *x, int64_t n, int rows, int32_t *aux)
{
    __m512i v = _mm512_setzero_si512();
    for (int i = 0; i < 4; i += vecs) {
        struct row w;
        __m512 x0 = load(x + 16 * i, n - 16 * i), x1 = vecs == 2 ? load(x + 16 * i + 16, n - 16 * i - 16) : x0;
        if (n <= 16 * i)
            break;
        begin_group(&w, _mm512_reduce_max_epu32(_mm512_max_epu32(bits(x0), bits(x1))));
        __m512i q0 = quantize(&w, x0), q1 = vecs == 2 ? quantize(&w, x1) : _mm512_setzero_si512();
        w.sum = (uint32_t)_mm512_reduce_add_epi32(_mm512_add_epi32(q0, q1));
        end_group(&w, minima, rows, aux + 2 * rows * (i / vecs));
        __m512i b0 = _mm512_broadcast_i32x4(_mm512_cvtepi32_epi8(q0)), b1 = _mm512_broadcast_i32x4(_mm512_cvtepi32_epi8(q1));
        v = _mm512_mask_mov_epi32(v, (__mmask16)(0xf << (4 * i)), b0);
        if (vecs == 2)
            v = _mm512_mask_mov_epi32(v, (__mmask16)(0xf << (4 * i + 4)), b1);
    }
    return v;
}

/* The same inside a group that is larger; part: where sums of 32 go, or NULL. */
INLINE __m512i large_group(struct row *w, const float *x, int64_t n, int32_t *part)
{
    __m512i q0 = quantize(w, load(x, n)), q1 = quantize(w, load(x + 16, n - 16));
    __m512i q2 = quantize(w, load(x + 32, n - 32)), q3 = quantize(w, load(x + 48, n - 48));
    __m512i low = _mm512_add_epi32(q0, q1), high = _mm512_add_epi32(q2, q3);
    if (part) {
        part[0] = _mm512_reduce_add_epi32(low);
        part[1] = _mm512_reduce_add_epi32(high);
    } else {
        w->sum += (uint32_t)_mm512_reduce_add_epi32(_mm512_add_epi32(low, high));
    }
    __m512i v = _mm512_castsi128_si512(_mm512_cvtepi32_epi8(q0));
    v = _mm512_inserti32x4(v, _mm512_cvtepi32_epi8(q1), 1);
    v = _mm512_inserti32x4(v, _mm512_cvtepi32_epi8(q2), 2);
    return _mm512_inserti32x4(v, _mm512_cvtepi32_epi8(q3), 3);
}

void gemm_prepare_s8_avx512(const struct gemm_kern *kern, const float *x, int64_t ldx, int rows, int64_t k, void *a)
{
    const struct gemm_layout *lay = gemm_layout_of(kern->format);
    bool minima = gemm_has_minima(kern->format), blocks = kern->format == GEMM_I4;
    int64_t units = gemm_units(kern->format, k), group = lay->group_units ? lay->group_units * 4 : units * 4;
    int32_t *out = a, *tail = out + units * rows;
    __mmask16 row_mask = (__mmask16)((1u << rows) - 1);
    struct row state[16];
    for (int64_t k0 = 0; k0 < units * 4; k0 += CHUNK) {
        __m512i v[16];
        int64_t n = k - k0, g = k0 / group;
        int n_units = units - k0 / 4 < 16 ? (int)(units - k0 / 4) : 16;
        for (int r = 0; r < rows; r++) {
            const float *row = x + r * ldx + k0;
            if (lay->group_units == 4 || lay->group_units == 8) {
                int32_t *aux = tail + 2 * g * rows + r;
                v[r] = lay->group_units == 4 ? small_groups(1, minima, row, n, rows, aux) : small_groups(2, minima, row, n, rows, aux);
                continue;
            }
            if (k0 % group == 0)
                begin_group(&state[r], magnitude(row, n < group ? n : group));
            v[r] = large_group(&state[r], row, n, blocks ? state[r].part + k0 % group / 32 : NULL);
            if (k0 + CHUNK >= (g + 1) * group && blocks)
                end_block(&state[r], rows, tail + GEMM_I4_AUX * g * rows + r);
            else if (k0 + CHUNK >= (g + 1) * group)
                end_group(&state[r], minima, rows, tail + 2 * g * rows + r);
        }
        if (rows == 1) {
            _mm512_mask_storeu_epi32(out + k0 / 4, (__mmask16)((1u << n_units) - 1), v[0]);
            continue;
        }
        for (int r = rows; r < 16; r++)
            v[r] = _mm512_setzero_si512();
        prepare_transpose(v);
        for (int i = 0; i < n_units; i++)
            _mm512_mask_storeu_epi32(out + (k0 / 4 + i) * rows, row_mask, v[i]);
    }
}

void gemm_join_avx512(const void *const *rows, int n, size_t words, void *out)
{
    int32_t *dst = out;
    __mmask16 row_mask = (__mmask16)((1u << n) - 1);
    for (size_t w = 0; w < words; w += 16, dst += 16 * n) {
        size_t left = words - w < 16 ? words - w : 16;
        __mmask16 mask = (__mmask16)((1u << left) - 1);
        __m512i v[16];
#pragma GCC unroll 16
        for (int r = 0; r < 16; r++)
            v[r] = r < n ? _mm512_maskz_loadu_epi32(mask, (const int32_t *)rows[r] + w) : _mm512_setzero_si512();
        prepare_transpose(v);
        for (size_t i = 0; i < left; i++)
            _mm512_mask_storeu_epi32(dst + i * (size_t)n, row_mask, v[i]);
    }
}
