/* kern/avx512/vmath.h - exp, tanh and the activations on 16 floats, for files built with AVX-512.
 *
 * exp: n = round(x / ln 2), r = x - n ln 2 in two parts, Taylor to r^7 (remainder below 5e-9), scaled by 2^n;
 * relative error below 1.5e-7 over all finite results.  The others say theirs. */
#ifndef QUIRE_KERN_AVX512_VMATH_H
#define QUIRE_KERN_AVX512_VMATH_H

#include <immintrin.h>

#define VMATH_INLINE static inline __attribute__((always_inline))

/* Sum over i >= 1 of r^i / i! for |r| <= 0.35: e^r - 1. */
VMATH_INLINE __m512 vm512_expm1_small(__m512 r)
{
    __m512 p = _mm512_set1_ps(1.0f / 5040);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 720));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 120));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 24));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 6));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.5f));
    return _mm512_fmadd_ps(_mm512_mul_ps(p, r), r, r);
}

/* e^(hi + lo): lo is a small correction that hi + lo would lose. */
VMATH_INLINE __m512 vm512_exp2parts(__m512 hi, __m512 lo)
{
    /* Beyond this everything is 0 or infinity; also keeps n finite. NaN passes (the second operand wins). */
    hi = _mm512_min_ps(_mm512_set1_ps(200), _mm512_max_ps(_mm512_set1_ps(-200), hi));
    __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(_mm512_add_ps(hi, lo), _mm512_set1_ps(0x1.715476p+0f)),
                                    _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512 r = _mm512_fmadd_ps(n, _mm512_set1_ps(-0x1.62e4p-1f), hi);
    r = _mm512_add_ps(r, _mm512_fmadd_ps(n, _mm512_set1_ps(-0x1.7f7d1cp-20f), lo));
    return _mm512_scalef_ps(_mm512_add_ps(_mm512_set1_ps(1), vm512_expm1_small(r)), n);
}

VMATH_INLINE __m512 vm512_exp(__m512 x)
{
    return vm512_exp2parts(x, _mm512_setzero_ps());
}

/* x / (1 + e^-x), relative error below 1e-6 for |x| < 80. */
VMATH_INLINE __m512 vm512_silu(__m512 x)
{
    __m512 e = vm512_exp(_mm512_sub_ps(_mm512_setzero_ps(), x));
    return _mm512_div_ps(x, _mm512_add_ps(_mm512_set1_ps(1), e));
}

/* x/2 (1 + tanh(u)) = x / (1 + e^-2u), u = sqrt(2/pi) (x + 0.044715 x^3). */
VMATH_INLINE __m512 vm512_gelu_tanh(__m512 x)
{
    __m512 x2 = _mm512_mul_ps(x, x);
    __m512 u = _mm512_mul_ps(x, _mm512_fmadd_ps(x2, _mm512_set1_ps(0.044715f), _mm512_set1_ps(1)));
    __m512 e = vm512_exp(_mm512_mul_ps(u, _mm512_set1_ps(-1.5957691216057308f)));
    return _mm512_div_ps(x, _mm512_add_ps(_mm512_set1_ps(1), e));
}

/* x/2 erfc(-x/sqrt 2).  With z = |x|/sqrt 2, t = 1/(1 + z/2): erfc(z) = t exp(-z^2 + P(t)), P our own fit
 * for z <= 9.6 with error 5e-8; z^2 is kept in two parts so that the tail is as good as the middle. */
VMATH_INLINE __m512 vm512_gelu_erf(__m512 x)
{
    __m512 z = _mm512_min_ps(_mm512_mul_ps(_mm512_abs_ps(x), _mm512_set1_ps(0.70710678f)), _mm512_set1_ps(10));
    __m512 t = _mm512_div_ps(_mm512_set1_ps(1), _mm512_fmadd_ps(z, _mm512_set1_ps(0.5f), _mm512_set1_ps(1)));
    __m512 s = _mm512_sub_ps(t, _mm512_set1_ps(0.5f));
    __m512 p = _mm512_set1_ps(0.1442404622f);
    p = _mm512_fmadd_ps(p, s, _mm512_set1_ps(-0.02776851691f));
    p = _mm512_fmadd_ps(p, s, _mm512_set1_ps(-0.2624844591f));
    p = _mm512_fmadd_ps(p, s, _mm512_set1_ps(0.1082298249f));
    p = _mm512_fmadd_ps(p, s, _mm512_set1_ps(0.2794010457f));
    p = _mm512_fmadd_ps(p, s, _mm512_set1_ps(-0.1576286172f));
    p = _mm512_fmadd_ps(p, s, _mm512_set1_ps(-0.3750662112f));
    p = _mm512_fmadd_ps(p, s, _mm512_set1_ps(0.1893658571f));
    p = _mm512_fmadd_ps(p, s, _mm512_set1_ps(1.345285491f));
    p = _mm512_fmadd_ps(p, s, _mm512_set1_ps(-0.6717940611f));
    __m512 x2 = _mm512_mul_ps(x, x), hi = _mm512_mul_ps(x2, _mm512_set1_ps(-0.5f));
    __m512 lo = _mm512_mul_ps(_mm512_fmsub_ps(x, x, x2), _mm512_set1_ps(-0.5f));
    __m512 c = _mm512_mul_ps(t, vm512_exp2parts(hi, _mm512_add_ps(lo, p)));
    /* Past the fit (|x| > 13.5) lo may be NaN from infinity; the tail is 0 there. */
    c = _mm512_mask_mov_ps(c, _mm512_cmp_ps_mask(z, _mm512_set1_ps(9.59f), _CMP_GT_OQ), _mm512_setzero_ps());
    __mmask16 pos = _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_GT_OQ);
    c = _mm512_mask_sub_ps(c, pos, _mm512_set1_ps(2), c);
    return _mm512_mul_ps(_mm512_mul_ps(x, _mm512_set1_ps(0.5f)), c);
}

/* With e = e^2|x| - 1 (no cancellation near 0): e / (e + 2).  Relative error below 4e-7. */
VMATH_INLINE __m512 vm512_tanh(__m512 x)
{
    __m512 y = _mm512_min_ps(_mm512_set1_ps(20), _mm512_mul_ps(_mm512_abs_ps(x), _mm512_set1_ps(2)));
    __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(y, _mm512_set1_ps(0x1.715476p+0f)),
                                    _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512 r = _mm512_fmadd_ps(n, _mm512_set1_ps(-0x1.62e4p-1f), y);
    r = _mm512_fmadd_ps(n, _mm512_set1_ps(-0x1.7f7d1cp-20f), r);
    __m512 two_n = _mm512_scalef_ps(_mm512_set1_ps(1), n);
    __m512 e = _mm512_fmadd_ps(two_n, vm512_expm1_small(r), _mm512_sub_ps(two_n, _mm512_set1_ps(1)));
    __m512 t = _mm512_div_ps(e, _mm512_add_ps(e, _mm512_set1_ps(2)));
    const __m512 sign = _mm512_set1_ps(-0.0f);
    /* min() above drops a NaN; give it back. */
    t = _mm512_mask_mov_ps(t, _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), x);
    return _mm512_or_ps(_mm512_andnot_ps(sign, t), _mm512_and_ps(sign, x));
}

#undef VMATH_INLINE
#endif
