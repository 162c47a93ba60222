/* kern/avx2/attn_ops_avx2.h - what attn_body.inc needs for bf16 KV for AVX2: both halves of a stored pair become f32 in registers;
 * queries and weights are f32. */
#ifndef QUIRE_KERN_ATTN_OPS_AVX2_H
#define QUIRE_KERN_ATTN_OPS_AVX2_H

#include "kern/avx2/vec_avx2.h"
#include <string.h>

enum { ATTN_ROWS = 2, STEP = 2, ELEM_BYTES = 2, WORDS = 2 };
typedef float word;

struct q_op { vec even, odd; };
struct kv_op { vec even, odd; };

static inline struct q_op q_load(const word *p)
{
    return (struct q_op){vec_set1(p[0]), vec_set1(p[1])};
}
static inline struct kv_op kv_load(const unsigned char *p)
{
    __m256i x = _mm256_loadu_si256((const void *)p);
    return (struct kv_op){_mm256_castsi256_ps(_mm256_slli_epi32(x, 16)),
                          _mm256_castsi256_ps(_mm256_and_si256(x, _mm256_set1_epi32((int)0xffff0000u)))};
}
static inline vec mac(vec acc, struct kv_op b, struct q_op a)
{
    return vec_fma(b.odd, a.odd, vec_fma(b.even, a.even, acc));
}
static inline void pack(word *dst, const float *x, int n)
{
    memcpy(dst, x, (size_t)n * 4);
}
static inline vec weight_exp2(vec x)
{
    return vec_exp2(x);
}
static inline vec put_weights(word *dst, const vec *w, vec l)
{
    for (int v = 0; v < 32 / VEC_N; v++) {
        vec_store(dst + v * VEC_N, w[v]);
        l = vec_add(l, w[v]);
    }
    return l;
}

#endif
