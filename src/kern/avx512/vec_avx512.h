/* kern/avx512/vec_avx512.h - the vector of row_body.inc and attn_body.inc: 16 floats in a zmm register.
 * vec_avx2.h has the same names for 8.  Nothing here fuses a multiplication with an addition unless it says so. */
#ifndef QUIRE_KERN_VEC_AVX512_H
#define QUIRE_KERN_VEC_AVX512_H

#include <immintrin.h>
#include <stdint.h>

typedef __m512 vec;
enum { VEC_N = 16 };

static inline __mmask16 vec_mask(int n) { return n >= 16 ? (__mmask16)0xffff : (__mmask16)((1u << n) - 1); }

static inline vec vec_set1(float x) { return _mm512_set1_ps(x); }
static inline vec vec_load(const float *p) { return _mm512_loadu_ps(p); }
/* The first n >= 0 elements, zeros after. */
static inline vec vec_load_n(const float *p, int n) { return _mm512_maskz_loadu_ps(vec_mask(n), p); }
static inline void vec_store(float *p, vec a) { _mm512_storeu_ps(p, a); }
static inline void vec_store_n(float *p, vec a, int n) { _mm512_mask_storeu_ps(p, vec_mask(n), a); }
/* a with zeros from element n on. */
static inline vec vec_keep_n(vec a, int n) { return _mm512_maskz_mov_ps(vec_mask(n), a); }
static inline vec vec_add(vec a, vec b) { return _mm512_add_ps(a, b); }
static inline vec vec_sub(vec a, vec b) { return _mm512_sub_ps(a, b); }
static inline vec vec_mul(vec a, vec b) { return _mm512_mul_ps(a, b); }
static inline vec vec_div(vec a, vec b) { return _mm512_div_ps(a, b); }
static inline vec vec_fma(vec a, vec b, vec c) { return _mm512_fmadd_ps(a, b, c); }
/* Of a NaN and a number: b. */
static inline vec vec_max(vec a, vec b) { return _mm512_max_ps(a, b); }
static inline vec vec_min(vec a, vec b) { return _mm512_min_ps(a, b); }
/* Bit i set where a[i] >= b[i]. */
static inline uint32_t vec_ge_bits(vec a, vec b) { return _mm512_cmp_ps_mask(a, b, _CMP_GE_OQ); }
static inline uint32_t vec_gt_bits(vec a, vec b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ); }
static inline uint32_t vec_lt_bits(vec a, vec b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
static inline uint32_t vec_eq_bits(vec a, vec b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }
/* a[i] where bit i is set, else b[i]; higher bits are ignored. */
static inline vec vec_choose_bits(uint32_t bits, vec a, vec b) { return _mm512_mask_mov_ps(b, (__mmask16)bits, a); }
static inline vec vec_abs(vec a) { return _mm512_abs_ps(a); }
/* a, which is not negative, with the sign of b. */
static inline vec vec_sign_of(vec a, vec b) { return _mm512_or_ps(a, _mm512_and_ps(b, vec_set1(-0.0f))); }
/* a * 2^k with k in the low bits of shifted = k + 1.5 * 2^23, where the result is a normal number. */
static inline vec vec_shift_exponent_by(vec a, vec shifted)
{
    __m512i s = _mm512_slli_epi32(_mm512_castps_si512(shifted), 23);
    return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(a), s));
}
/* The indices first + bit of the bits set, at idx, where there is room for VEC_N. */
static inline void vec_put_bits(uint32_t bits, int32_t first, int32_t *idx)
{
    const __m512i each = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    __m512i at = _mm512_add_epi32(each, _mm512_set1_epi32(first));
    _mm512_storeu_si512(idx, _mm512_maskz_compress_epi32((__mmask16)bits, at));
}

/* The elements whose bits are set, side by side, at p, where there is room for VEC_N; what follows them there is undefined. */
static inline void vec_pack_bits(float *p, vec a, uint32_t bits)
{
    _mm512_storeu_ps(p, _mm512_maskz_compress_ps((__mmask16)bits, a));
}

/* Element i += element i + 8, 4, 2, 1. */
static inline float vec_sum(vec a)
{
    __m256 h = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    __m128 q = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    q = _mm_add_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_add_ss(q, _mm_movehdup_ps(q)));
}
/* Element i becomes max(i, i + 8), ... */
static inline float vec_hmax(vec a)
{
    __m256 h = _mm256_max_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    __m128 q = _mm_max_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    q = _mm_max_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_max_ss(q, _mm_movehdup_ps(q)));
}

/* p[0] p[0] p[1] p[1] ... from VEC_N / 2 floats. */
static inline vec vec_load_twice(const float *p)
{
    const __m512i idx = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
    return _mm512_permutexvar_ps(idx, _mm512_castps256_ps512(_mm256_loadu_ps(p)));
}
static inline vec vec_swap_pairs(vec a) { return _mm512_permute_ps(a, 0xb1); }
/* Even elements a - b, odd ones a + b. */
static inline vec vec_sub_add(vec a, vec b) { return _mm512_mask_sub_ps(_mm512_add_ps(a, b), 0x5555, a, b); }

/* Sixteen sums in double; each vector adds its elements to lanes 0 .. 15. */
struct vec_sum16 { __m512d lo, hi; };
static inline struct vec_sum16 vec_sum16_zero(void)
{
    return (struct vec_sum16){_mm512_setzero_pd(), _mm512_setzero_pd()};
}
/* first: the lane of element 0, 0 here (a narrower vector also uses 8). */
static inline void vec_sum16_add(struct vec_sum16 *s, vec a, int first)
{
    (void)first;
    s->lo = _mm512_add_pd(s->lo, _mm512_cvtps_pd(_mm512_castps512_ps256(a)));
    s->hi = _mm512_add_pd(s->hi, _mm512_cvtps_pd(_mm512_extractf32x8_ps(a, 1)));
}
static inline double vec_sum16_total(const struct vec_sum16 *s)
{
    __m512d a = _mm512_add_pd(s->lo, s->hi);
    __m256d h = _mm256_add_pd(_mm512_castpd512_pd256(a), _mm512_extractf64x4_pd(a, 1));
    __m128d q = _mm_add_pd(_mm256_castpd256_pd128(h), _mm256_extractf128_pd(h, 1));
    return _mm_cvtsd_f64(_mm_add_sd(q, _mm_unpackhi_pd(q, q)));
}

/* 2^x for x <= 0, exactly 0 below -127.  x = n + f with |f| <= 1/2; the polynomial of f, then n is added to its exponent:
 * at -127 that leaves all bits zero.  No vreduceps and vscalefps, because additions have their own units. */
static inline __m512i vec_exp2_split(vec x, vec *f)
{
    const vec magic = vec_set1(12582912.0f);
    x = _mm512_max_ps(vec_set1(-127.0f), x);
    vec t = _mm512_add_ps(x, magic);
    *f = _mm512_sub_ps(x, _mm512_sub_ps(t, magic));
    return _mm512_slli_epi32(_mm512_castps_si512(t), 23);
}
/* Relative error below 1.8e-7, roundings included. */
static inline vec vec_exp2(vec x)
{
    vec f, p = vec_set1(0.00132647413f);
    __m512i n = vec_exp2_split(x, &f);
    p = _mm512_fmadd_ps(p, f, vec_set1(0.00967151206f));
    p = _mm512_fmadd_ps(p, f, vec_set1(0.0555073358f));
    p = _mm512_fmadd_ps(p, f, vec_set1(0.240222424f));
    p = _mm512_fmadd_ps(p, f, vec_set1(0.693147004f));
    p = _mm512_fmadd_ps(p, f, vec_set1(1.0f));
    return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(p), n));
}
/* Relative error below 1.02e-4, a small part of bf16's rounding. */
static inline vec vec_exp2_short(vec x)
{
    vec f, p = vec_set1(0.0550089329f);
    __m512i n = vec_exp2_split(x, &f);
    p = _mm512_fmadd_ps(p, f, vec_set1(0.242210954f));
    p = _mm512_fmadd_ps(p, f, vec_set1(0.693282902f));
    p = _mm512_fmadd_ps(p, f, vec_set1(1.0f));
    return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(p), n));
}

#endif
