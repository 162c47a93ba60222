/* kern/avx512bf16/attn_ops_avx512bf16.h - what attn_body.inc needs for bf16 KV for AVX-512 with BF16: queries and weights are rounded to bf16, products
 * summed in f32 by vdpbf16ps; the sum of weights is of the rounded ones. */
#ifndef QUIRE_KERN_ATTN_OPS_AVX512BF16_H
#define QUIRE_KERN_ATTN_OPS_AVX512BF16_H

#include "kern/avx512/vec_avx512.h"
#include <string.h>

enum { ATTN_ROWS = 6, STEP = 2, ELEM_BYTES = 2, WORDS = 1 };
typedef uint32_t word;

struct q_op { __m512bh v; };
struct kv_op { __m512bh v; };

static inline struct q_op q_load(const word *p)
{
    return (struct q_op){(__m512bh)_mm512_set1_epi32((int)*p)};
}
static inline struct kv_op kv_load(const unsigned char *p)
{
    return (struct kv_op){(__m512bh)_mm512_loadu_si512(p)};
}
static inline vec mac(vec acc, struct kv_op b, struct q_op a)
{
    return _mm512_dpbf16_ps(acc, b.v, a.v);
}
static inline void pack(word *dst, const float *x, int n)
{
    for (int i = 0; i < n; i += 16)
        _mm256_mask_storeu_epi16(dst + i / 2, vec_mask(n - i), (__m256i)_mm512_cvtneps_pbh(vec_load_n(x + i, n - i)));
}
static inline vec weight_exp2(vec x)
{
    return vec_exp2_short(x);
}
static inline vec put_weights(word *dst, const vec *w, vec l)
{
    __m512bh pairs = _mm512_cvtne2ps_pbh(w[1], w[0]);
    _mm512_storeu_si512(dst, (__m512i)pairs);
    return _mm512_dpbf16_ps(l, pairs, (__m512bh)_mm512_set1_epi32(0x3f803f80));
}

#endif
