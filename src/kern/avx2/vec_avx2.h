/* kern/avx2/vec_avx2.h - the vector of row_body.inc and attn_body.inc: 8 floats in a ymm register.
 * See vec_avx512.h, which has the same names for 16. */
#ifndef QUIRE_KERN_VEC_AVX2_H
#define QUIRE_KERN_VEC_AVX2_H

#include <immintrin.h>
#include <stdint.h>

typedef __m256 vec;
enum { VEC_N = 8 };

static inline __m256i vec_mask(int n)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

static inline vec vec_set1(float x) { return _mm256_set1_ps(x); }
static inline vec vec_load(const float *p) { return _mm256_loadu_ps(p); }
/* The first n >= 0 elements, zeros after. */
static inline vec vec_load_n(const float *p, int n) { return _mm256_maskload_ps(p, vec_mask(n)); }
static inline void vec_store(float *p, vec a) { _mm256_storeu_ps(p, a); }
static inline void vec_store_n(float *p, vec a, int n) { _mm256_maskstore_ps(p, vec_mask(n), a); }
/* a with zeros from element n on. */
static inline vec vec_keep_n(vec a, int n) { return _mm256_and_ps(a, _mm256_castsi256_ps(vec_mask(n))); }
static inline vec vec_add(vec a, vec b) { return _mm256_add_ps(a, b); }
static inline vec vec_sub(vec a, vec b) { return _mm256_sub_ps(a, b); }
static inline vec vec_mul(vec a, vec b) { return _mm256_mul_ps(a, b); }
static inline vec vec_div(vec a, vec b) { return _mm256_div_ps(a, b); }
static inline vec vec_fma(vec a, vec b, vec c) { return _mm256_fmadd_ps(a, b, c); }
/* Of a NaN and a number: b. */
static inline vec vec_max(vec a, vec b) { return _mm256_max_ps(a, b); }
static inline vec vec_min(vec a, vec b) { return _mm256_min_ps(a, b); }
/* Bit i set where a[i] >= b[i]. */
static inline uint32_t vec_ge_bits(vec a, vec b) { return (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_GE_OQ)); }
static inline uint32_t vec_gt_bits(vec a, vec b) { return (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_GT_OQ)); }
static inline uint32_t vec_lt_bits(vec a, vec b) { return (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_LT_OQ)); }
static inline uint32_t vec_eq_bits(vec a, vec b) { return (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_EQ_OQ)); }
/* a[i] where bit i is set, else b[i]; higher bits are ignored. */
static inline vec vec_choose_bits(uint32_t bits, vec a, vec b)
{
    const __m256i each = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    __m256i set = _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32((int)bits), each), each);
    return _mm256_blendv_ps(b, a, _mm256_castsi256_ps(set));
}
static inline vec vec_abs(vec a) { return _mm256_andnot_ps(vec_set1(-0.0f), a); }
/* a, which is not negative, with the sign of b. */
static inline vec vec_sign_of(vec a, vec b) { return _mm256_or_ps(a, _mm256_and_ps(b, vec_set1(-0.0f))); }
/* a * 2^k for whole k, where the result is a normal number. */
static inline vec vec_shift_exponent(vec a, vec k)
{
    __m256i s = _mm256_slli_epi32(_mm256_cvtps_epi32(k), 23);
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(a), s));
}

/* The same with k in the low bits of shifted = k + 1.5 * 2^23. */
static inline vec vec_shift_exponent_by(vec a, vec shifted)
{
    __m256i s = _mm256_slli_epi32(_mm256_castps_si256(shifted), 23);
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(a), s));
}
/* The indices first + bit of the bits set, at idx, where there is room for VEC_N. */
static inline void vec_put_bits(uint32_t bits, int32_t first, int32_t *idx)
{
    for (; bits; bits &= bits - 1)
        *idx++ = first + __builtin_ctz(bits);
}

/* The elements whose bits are set, side by side, at p, where there is room for VEC_N; what follows them there is undefined. */
static inline void vec_pack_bits(float *p, vec a, uint32_t bits)
{
    float all[VEC_N];
    if (!bits)
        return;
    vec_store(all, a);
    for (; bits; bits &= bits - 1)
        *p++ = all[__builtin_ctz(bits)];
}

/* Element i += element i + 4, 2, 1. */
static inline float vec_sum(vec a)
{
    __m128 q = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    q = _mm_add_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_add_ss(q, _mm_movehdup_ps(q)));
}
/* Element i becomes max(i, i + 4), ... */
static inline float vec_hmax(vec a)
{
    __m128 q = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    q = _mm_max_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_max_ss(q, _mm_movehdup_ps(q)));
}

/* p[0] p[0] p[1] p[1] ... from VEC_N / 2 floats. */
static inline vec vec_load_twice(const float *p)
{
    const __m256i idx = _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3);
    return _mm256_permutevar8x32_ps(_mm256_castps128_ps256(_mm_loadu_ps(p)), idx);
}
static inline vec vec_swap_pairs(vec a) { return _mm256_permute_ps(a, 0xb1); }
/* Even elements a - b, odd ones a + b. */
static inline vec vec_sub_add(vec a, vec b) { return _mm256_addsub_ps(a, b); }

/* Sixteen sums in double; each vector adds its elements to lanes first .. first + 7. */
struct vec_sum16 { __m256d lane[4]; };
static inline struct vec_sum16 vec_sum16_zero(void)
{
    __m256d z = _mm256_setzero_pd();
    return (struct vec_sum16){{z, z, z, z}};
}
static inline void vec_sum16_add(struct vec_sum16 *s, vec a, int first)
{
    __m256d *l = &s->lane[first / 4];
    l[0] = _mm256_add_pd(l[0], _mm256_cvtps_pd(_mm256_castps256_ps128(a)));
    l[1] = _mm256_add_pd(l[1], _mm256_cvtps_pd(_mm256_extractf128_ps(a, 1)));
}
static inline double vec_sum16_total(const struct vec_sum16 *s)
{
    __m256d h = _mm256_add_pd(_mm256_add_pd(s->lane[0], s->lane[2]), _mm256_add_pd(s->lane[1], s->lane[3]));
    __m128d q = _mm_add_pd(_mm256_castpd256_pd128(h), _mm256_extractf128_pd(h, 1));
    return _mm_cvtsd_f64(_mm_add_sd(q, _mm_unpackhi_pd(q, q)));
}

/* 2^x for x <= 0; 0 below -126; relative error below 1.8e-7, roundings included (degree 5, fused). */
static inline vec vec_exp2(vec x)
{
    vec low = _mm256_cmp_ps(x, vec_set1(-126.0f), _CMP_LT_OQ);
    vec y = _mm256_blendv_ps(x, vec_set1(-126.0f), low);
    vec k = _mm256_floor_ps(y), f = _mm256_sub_ps(y, k);
    vec p = vec_set1(0.00186713017f);
    p = _mm256_fmadd_ps(p, f, vec_set1(0.00901702978f));
    p = _mm256_fmadd_ps(p, f, vec_set1(0.0557999127f));
    p = _mm256_fmadd_ps(p, f, vec_set1(0.240164444f));
    p = _mm256_fmadd_ps(p, f, vec_set1(0.693151295f));
    p = _mm256_fmadd_ps(p, f, vec_set1(1.0f));
    return _mm256_andnot_ps(low, vec_shift_exponent(p, k));
}

#endif
