/* kern/avx2/vmath.h - exp, tanh and the activations on 8 floats, for files built with AVX2 and FMA.
 * The methods and error bounds are those of kern/avx512/vmath.h. */
#ifndef QUIRE_KERN_AVX2_VMATH_H
#define QUIRE_KERN_AVX2_VMATH_H

#include <immintrin.h>

#define VMATH_INLINE static inline __attribute__((always_inline))

VMATH_INLINE __m256 vm256_abs(__m256 x)
{
    return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x);
}

/* Sum over i >= 1 of r^i / i! for |r| <= 0.35: e^r - 1. */
VMATH_INLINE __m256 vm256_expm1_small(__m256 r)
{
    __m256 p = _mm256_set1_ps(1.0f / 5040);
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 720));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 120));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 24));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 6));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0.5f));
    return _mm256_fmadd_ps(_mm256_mul_ps(p, r), r, r);
}

/* 2^n for whole n in [-126, 127]. */
VMATH_INLINE __m256 vm256_pow2(__m256i n)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(n, _mm256_set1_epi32(127)), 23));
}

/* e^(hi + lo): lo is a small correction that hi + lo would lose. */
VMATH_INLINE __m256 vm256_exp2parts(__m256 hi, __m256 lo)
{
    /* 2^n goes in two factors of about half the exponent, each a normal number. NaN passes. */
    hi = _mm256_min_ps(_mm256_set1_ps(150), _mm256_max_ps(_mm256_set1_ps(-150), hi));
    __m256 n = _mm256_round_ps(_mm256_mul_ps(_mm256_add_ps(hi, lo), _mm256_set1_ps(0x1.715476p+0f)),
                               _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m256 r = _mm256_fmadd_ps(n, _mm256_set1_ps(-0x1.62e4p-1f), hi);
    r = _mm256_add_ps(r, _mm256_fmadd_ps(n, _mm256_set1_ps(-0x1.7f7d1cp-20f), lo));
    __m256i whole = _mm256_cvtps_epi32(n), half = _mm256_srai_epi32(whole, 1);
    __m256 y = _mm256_add_ps(_mm256_set1_ps(1), vm256_expm1_small(r));
    return _mm256_mul_ps(_mm256_mul_ps(y, vm256_pow2(half)), vm256_pow2(_mm256_sub_epi32(whole, half)));
}

VMATH_INLINE __m256 vm256_exp(__m256 x)
{
    return vm256_exp2parts(x, _mm256_setzero_ps());
}

VMATH_INLINE __m256 vm256_silu(__m256 x)
{
    __m256 e = vm256_exp(_mm256_sub_ps(_mm256_setzero_ps(), x));
    return _mm256_div_ps(x, _mm256_add_ps(_mm256_set1_ps(1), e));
}

VMATH_INLINE __m256 vm256_gelu_tanh(__m256 x)
{
    __m256 x2 = _mm256_mul_ps(x, x);
    __m256 u = _mm256_mul_ps(x, _mm256_fmadd_ps(x2, _mm256_set1_ps(0.044715f), _mm256_set1_ps(1)));
    __m256 e = vm256_exp(_mm256_mul_ps(u, _mm256_set1_ps(-1.5957691216057308f)));
    return _mm256_div_ps(x, _mm256_add_ps(_mm256_set1_ps(1), e));
}

VMATH_INLINE __m256 vm256_gelu_erf(__m256 x)
{
    __m256 z = _mm256_min_ps(_mm256_mul_ps(vm256_abs(x), _mm256_set1_ps(0.70710678f)), _mm256_set1_ps(10));
    __m256 t = _mm256_div_ps(_mm256_set1_ps(1), _mm256_fmadd_ps(z, _mm256_set1_ps(0.5f), _mm256_set1_ps(1)));
    __m256 s = _mm256_sub_ps(t, _mm256_set1_ps(0.5f));
    __m256 p = _mm256_set1_ps(0.1442404622f);
    p = _mm256_fmadd_ps(p, s, _mm256_set1_ps(-0.02776851691f));
    p = _mm256_fmadd_ps(p, s, _mm256_set1_ps(-0.2624844591f));
    p = _mm256_fmadd_ps(p, s, _mm256_set1_ps(0.1082298249f));
    p = _mm256_fmadd_ps(p, s, _mm256_set1_ps(0.2794010457f));
    p = _mm256_fmadd_ps(p, s, _mm256_set1_ps(-0.1576286172f));
    p = _mm256_fmadd_ps(p, s, _mm256_set1_ps(-0.3750662112f));
    p = _mm256_fmadd_ps(p, s, _mm256_set1_ps(0.1893658571f));
    p = _mm256_fmadd_ps(p, s, _mm256_set1_ps(1.345285491f));
    p = _mm256_fmadd_ps(p, s, _mm256_set1_ps(-0.6717940611f));
    __m256 x2 = _mm256_mul_ps(x, x), hi = _mm256_mul_ps(x2, _mm256_set1_ps(-0.5f));
    __m256 lo = _mm256_mul_ps(_mm256_fmsub_ps(x, x, x2), _mm256_set1_ps(-0.5f));
    __m256 c = _mm256_mul_ps(t, vm256_exp2parts(hi, _mm256_add_ps(lo, p)));
    c = _mm256_blendv_ps(c, _mm256_setzero_ps(), _mm256_cmp_ps(z, _mm256_set1_ps(9.59f), _CMP_GT_OQ));
    __m256 pos = _mm256_cmp_ps(x, _mm256_setzero_ps(), _CMP_GT_OQ);
    c = _mm256_blendv_ps(c, _mm256_sub_ps(_mm256_set1_ps(2), c), pos);
    return _mm256_mul_ps(_mm256_mul_ps(x, _mm256_set1_ps(0.5f)), c);
}

VMATH_INLINE __m256 vm256_tanh(__m256 x)
{
    __m256 y = _mm256_min_ps(_mm256_set1_ps(20), _mm256_mul_ps(vm256_abs(x), _mm256_set1_ps(2)));
    __m256 n = _mm256_round_ps(_mm256_mul_ps(y, _mm256_set1_ps(0x1.715476p+0f)),
                               _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m256 r = _mm256_fmadd_ps(n, _mm256_set1_ps(-0x1.62e4p-1f), y);
    r = _mm256_fmadd_ps(n, _mm256_set1_ps(-0x1.7f7d1cp-20f), r);
    __m256 two_n = vm256_pow2(_mm256_cvtps_epi32(n));
    __m256 e = _mm256_fmadd_ps(two_n, vm256_expm1_small(r), _mm256_sub_ps(two_n, _mm256_set1_ps(1)));
    __m256 t = _mm256_div_ps(e, _mm256_add_ps(e, _mm256_set1_ps(2)));
    const __m256 sign = _mm256_set1_ps(-0.0f);
    t = _mm256_blendv_ps(t, x, _mm256_cmp_ps(x, x, _CMP_UNORD_Q));
    return _mm256_or_ps(_mm256_andnot_ps(sign, t), _mm256_and_ps(sign, x));
}

#undef VMATH_INLINE
#endif
