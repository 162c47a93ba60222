/* kern/attn.h - attention of some query rows over one partition of the context, and KV slabs.
 *
 * The context is cut at absolute positions into pages of 32 tokens and partitions of 8 pages.
 * A slab is one page of one KV head: K, then V.  With D the head size rounded up to 16 and
 * e the bytes of an element (Kf: pairs for bf16, so that one dot-product instruction meets 16 tokens):
 *
 *     f32, f16   K[d][t]             at (d * 32 + t) * e           V[t][d]          at (t * D + d) * e
 *     bf16       K[d/2][t][d%2]      at (d/2 * 32 + t) * 4 + ...   V[t/2][d][t%2]   at (t/2 * D + d) * 4 + ...
 *
 *     i8, f8     as bf16 with one byte an element and D of V rounded up to 32, in blocks of 64 bytes that widen to two vectors of
 *                pairs by unpacking inside lanes of 16 bytes (kern_attn_k8_at, kern_attn_v8_at).  f8 is E4M3; i8 is sign and magnitude,
 *                times a scale of the head and token: f32 K scale[32], V scale[32] at the slab's end
 *
 * Dimensions from head_dim to D are never written and must be zero (a page is zero at first).  Tokens never
 * written may hold any K, NaN included, but V must be finite; write() makes it so.
 *
 * A row is one query head of one token.  What part() computes for a row depends on that row and its K and V alone,
 * bit for bit, whatever the other rows of the call (a row's scores run over d ascending, one chain a token;
 * its values over t ascending, one chain a dimension; the sum of weights in lanes fixed by t).  Partitions
 * are joined by merge() strictly in position order; part() with `into` set does the same as
 * part() without it followed by merge().
 *
 * Weights are base 2: m is max(score) * log2(e), l the sum of 2^(score * log2(e) - m), o the sum of these times V. */
#ifndef QUIRE_KERN_ATTN_H
#define QUIRE_KERN_ATTN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "kern/cpu.h"

enum kern_kv { KERN_KV_F32, KERN_KV_F16, KERN_KV_BF16, KERN_KV_I8, KERN_KV_F8, KERN_KV_COUNT };

enum {
    KERN_ATTN_PAGE = 32,         /* tokens */
    KERN_ATTN_PAGES = 8,         /* pages of a partition */
    KERN_ATTN_PART = 256,        /* tokens */
    KERN_ATTN_MAX_DIM = 256,
    KERN_ATTN_WORK_BYTES = 32768 + 8 * 32768 + 4096,   /* the last part is for 8-bit types */
};

/* head_dim rounded up to 16: the distance of rows of o, and of V. */
static inline int kern_attn_dim(int head_dim)
{
    return (head_dim + 15) & ~15;
}

/* Byte of an 8-bit element in its slab. */
static inline size_t kern_attn_k8_at(int d, int t)
{
    return (size_t)(d / 2 * 64 + t % 16 / 4 * 16 + t / 16 * 8 + t % 4 * 2 + d % 2);
}
static inline size_t kern_attn_v8_at(int d, int t, int head_dim)
{
    size_t k = (size_t)(KERN_ATTN_PAGE * kern_attn_dim(head_dim)), row = (size_t)((head_dim + 31) / 32 * 64);
    return k + (size_t)(t / 2) * row + (size_t)(d / 32 * 64 + d % 16 / 4 * 16 + d % 32 / 16 * 8 + d % 4 * 2 + t % 2);
}
/* Where the scales of an i8 slab begin. */
static inline size_t kern_attn_scales_at(int head_dim)
{
    return (size_t)(KERN_ATTN_PAGE * (kern_attn_dim(head_dim) + (head_dim + 31) / 32 * 32));
}

/* bf16 of the magnitudes 0 .. 127 of an 8-bit element; the sign is its top bit in both. */
extern const uint16_t kern_attn_i8_bf16[128], kern_attn_f8_bf16[128];

/* head_dim even, 2 .. KERN_ATTN_MAX_DIM. */
size_t kern_attn_slab_bytes(enum kern_kv type, int head_dim);

struct kern_attn_part {
    /* Slabs of the partition's pages.  Only those that hold an unmasked token of some row are read. */
    const unsigned char *slabs[KERN_ATTN_PAGES];
    /* Pieces of memory of a slab's size to bring into the cache meanwhile, in this order; NULL for none.  The kernel
     * spreads them over its own reading: half a piece for each half slab. */
    const unsigned char *next[KERN_ATTN_PAGES];
    int head_dim, n_rows;
    const void *q;               /* [n_rows] packed queries, q_row_bytes apart */
    const int32_t *lo, *hi;      /* [n_rows] row sees tokens [lo, hi) of the partition, 0 <= lo, hi <= 256; lo >= hi: none */
    float scale;                 /* of q.k, > 0 */
    float softcap;               /* > 0: score = softcap * tanh(score / softcap) */
    const float *slopes;         /* [n_rows] or NULL: score += slope * (token - rel) */
    const int32_t *rel;          /* [n_rows] the row's own position, counted from the partition's first; with slopes */
    bool into;                   /* false: store m, l, o;  true: merge into what they hold */
    float *m, *l;                /* [n_rows]; a row without tokens: m = -inf, l = 0, o anything / all unchanged */
    float *o;                    /* [n_rows][kern_attn_dim] */
    void *work;                  /* KERN_ATTN_WORK_BYTES of scratch, 64-byte aligned */
};

struct kern_attn {
    int q_bytes;                 /* bytes of a packed query per dimension: a row takes q_bytes * kern_attn_dim */
    void (*pack_q)(void *dst, const float *q, int head_dim);
    /* k, v [head_dim] to token t of a slab.  Rounded to nearest even; infinities become the largest number, NaN in v too. */
    void (*write)(void *slab, int t, const float *k, const float *v, int head_dim);
    void (*part)(const struct kern_attn_part *p);
    /* Join the partial result (pm, pl, po) of n rows to (m, l, o); start from (-inf, 0, 0).  Rows with pm = -inf are left alone. */
    void (*merge)(int n, float *m, float *l, float *o, const float *pm, const float *pl, const float *po, int head_dim);
    /* out[head_dim] = o / l, with one more logit in the softmax's sum when sink is not NULL. */
    void (*finish)(float *out, float m, float l, const float *o, const float *sink, int head_dim);
};

/* isa must not be better than kern_isa_best(). */
const struct kern_attn *kern_attn_table(enum kern_isa isa, enum kern_kv type);

extern const struct kern_attn kern_attn_f32_ref, kern_attn_f16_ref, kern_attn_bf16_ref, kern_attn_i8_ref, kern_attn_f8_ref;
extern const struct kern_attn kern_attn_f32_avx2, kern_attn_f16_avx2, kern_attn_bf16_avx2, kern_attn_i8_avx2, kern_attn_f8_avx2;
extern const struct kern_attn kern_attn_f32_avx512, kern_attn_f16_avx512, kern_attn_bf16_avx512, kern_attn_i8_avx512, kern_attn_f8_avx512;
extern const struct kern_attn kern_attn_bf16_avx512bf16, kern_attn_i8_avx512bf16, kern_attn_f8_avx512bf16;

#endif
