/* Attention with f16 KV for AVX2: stored halves become f32 in registers; queries and weights are f32. */
#include "kern/avx2/vec_avx2.h"
#include <string.h>

enum { ATTN_ROWS = 3, STEP = 1, ELEM_BYTES = 2, WORDS = 1 };
#define ELEM_MAX 65504.0f
typedef float word;

struct q_op { vec v; };
struct kv_op { vec v; };

static inline struct q_op q_load(const word *p)
{
    return (struct q_op){vec_set1(*p)};
}
static inline struct kv_op kv_load(const unsigned char *p)
{
    return (struct kv_op){_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p))};
}
static inline vec mac(vec acc, struct kv_op b, struct q_op a)
{
    return vec_fma(b.v, a.v, acc);
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
/* x and dst have room for whole vectors. */
static inline void narrow(void *dst, const float *x, int n)
{
    uint16_t *h = dst;
    for (int i = 0; i < n; i += VEC_N)
        _mm_storeu_si128((__m128i *)(h + i), _mm256_cvtps_ph(vec_load(x + i), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

#include "kern/attn_plain.inc"
#include "kern/attn_body.inc"

const struct kern_attn kern_attn_f16_avx2 = {4, pack_q, write, part, merge, finish};
