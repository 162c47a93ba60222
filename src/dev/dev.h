/* dev/dev.h - the device interface: whole batched operations over one ragged batch.
 *
 * A device owns memory, weights in its own packed formats, KV pages, and a queue of operations.  Between
 * dev_step_begin and dev_step_end the op functions only enqueue; results are there when dev_step_end
 * returns (the CPU runs the list inside one run of its compute team with a barrier between
 * operations; a graph-capturing device records or replays).  Arguments are checked by
 * assertion at enqueue: wrong ones are our bug, not input.
 *
 * Promise 1 (batch invariance) is the device's duty: each output row depends on that row's
 * inputs alone, bit for bit, whatever the other rows, the number of rows, or of threads.
 *   - linear: every output element sums over K in one fixed order, the same for every M.
 *   - attention: fixed partitions of DEV_PARTITION absolute positions, merged in position order.
 *   - everything else works row by row.
 *
 * Activations are rows of f32 (n_tokens x width, dense unless a stride says otherwise) in memory
 * from dev_alloc.  Thread: one (the engine's) at a time.  */
#ifndef QUIRE_DEV_DEV_H
#define QUIRE_DEV_DEV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/err.h"
#include "tensor/quant.h"
#include "tensor/tensor.h"

enum { DEV_BLOCK_TOKENS = 32, DEV_PARTITION = 256 };

struct dev;
struct dev_weight;
struct dev_kv;

struct dev_opts {
    const char *name;        /* "cpu" or NULL */
    int n_threads;           /* 0: all cores this process may use */
    const char *isa;         /* NULL: $QUIRE_ISA is NOT read here; the caller passes it.  "scalar", "avx2", ... */
    bool pin_threads;
    bool float_inputs;       /* products with integer weights keep their inputs as floats (bf16 where the CPU has its products, else f32) */
};

/* What policy may know of the hardware: numbers only. */
struct dev_caps {
    const char *name;            /* "cpu" */
    const char *isa;             /* "avx512_bf16" */
    int n_threads;
    size_t memory_bytes;         /* what this device may hold */
    int block_tokens;            /* tokens a KV page holds */
    bool has_bf16_dot;           /* bf16 linear runs on dot-product units */
    bool float_inputs;           /* as opened */
    bool host_memory;            /* dev_alloc memory is the host's: between steps it can be read and written directly */
};

bool dev_open(struct dev **out, const struct dev_opts *opts, struct err *e);
void dev_close(struct dev **d);
const struct dev_caps *dev_caps(const struct dev *d);

/* ---- memory ---- */
void *dev_alloc(struct dev *d, size_t bytes, struct err *e);  /* 64-byte aligned, zeroed; NULL on failure */
void dev_free(struct dev *d, void *p);                        /* NULL is fine */
void dev_upload(struct dev *d, void *dst, const void *src, size_t bytes);    /* outside a step */
void dev_download(struct dev *d, void *dst, const void *src, size_t bytes);  /* outside a step */

/* ---- weights ---- */
/* The quantized ones round to nearest at packing; 4-bit scales and minima are searched for the least squared error.
 * All but fp8 also quantize activations, each row by itself, to 8 bits by the same groups of K (int8: the whole row; int4: 128),
 * unless the device was opened with float_inputs. */
enum dev_format {
    DEV_FMT_F32, DEV_FMT_F16, DEV_FMT_BF16,
    DEV_FMT_I8,                                        /* a scale for each output */
    DEV_FMT_I8_G16, DEV_FMT_I8_G32,                    /* a scale for each output and 16 or 32 inputs */
    DEV_FMT_I4,                                        /* 4 bits, an 8-bit scale and offset for each output and 32 inputs, and a scale for each output */
    DEV_FMT_U4_G32, DEV_FMT_U4_G64, DEV_FMT_U4_G128,   /* 4 bits, scale and minimum for each output and group */
    DEV_FMT_U8_G16, DEV_FMT_U8_G32,                    /* 8 bits, the same */
    DEV_FMT_F8,                                        /* E4M3, a scale for each output */
    DEV_FMT_F8_G128,                                   /* E4M3, a scale for each output and group */
    DEV_FMT_COUNT
};
/* "f32", "f16", "bf16", "int8", "int8-g16", "int8-g32", "int4", "int4-g32", "int4-g64", "int4-g128", "uint8-g16", "uint8-g32", "fp8", "fp8-g128" */
const char *dev_format_name(enum dev_format f);
bool dev_format_parse(const char *name, enum dev_format *out);
bool dev_format_searches(enum dev_format f);                  /* 4 bits: packing makes use of dev_weight_spec.importance */

/* The format that holds what q says of rows of n_cols: codes as they are, scales and minima rounded to the format's type (f16; f32 for int8, fp8
 * and fp8-g128).  False: there is none, and only values can be packed. */
bool dev_format_of_codes(const struct tensor_quant *q, int64_t n_cols, enum dev_format *out);

struct dev_weight_spec {
    enum dev_format format;
    /* All parts' codes are packed, instead of their values: each part has a quant for which dev_format_of_codes said this format, and columns are in
     * groups in the same way. */
    bool codes;
    /* The matrix is these stacked along output rows (n_out = sum of n_rows); all have the same n_cols (= K). */
    const struct tensor_rows *parts;
    int n_parts;
    const float *bias;       /* [n_out] host memory or NULL; copied */
    /* [n_cols] host memory or NULL: mean squares of the inputs, up to a common factor, as far as they are known (of a normed input
     * the squared weights of the norm).  The search for 4-bit scales weighs errors by them. */
    const float *importance;
    /* Gated MLP: exactly two parts (gate, up) of equal shape, laid out so that the DEV_EPI_GLU epilogue
     * finds both of a pair at once; the output width is then n_out / 2. */
    bool gated;
};
/* Packs with the whole team.  The name is for messages. */
bool dev_weight_pack(struct dev *d, struct dev_weight **out, const struct dev_weight_spec *s, const char *name, struct err *e);
void dev_weight_free(struct dev *d, struct dev_weight **w);
int64_t dev_weight_rows(const struct dev_weight *w);   /* n_out */
int64_t dev_weight_cols(const struct dev_weight *w);   /* K */
/* The packed bytes, for keeping in a file; dev_weight_from_image takes them back where dev_weight_layout is the same. */
const void *dev_weight_image(const struct dev_weight *w, size_t *bytes);
/* Names the packed layout of this device, its version included. */
const char *dev_weight_layout(const struct dev *d);
/* A weight over packed bytes that stay where they are: image is borrowed until dev_weight_free and 64-byte aligned.
 * ordered: packed from codes with column_groups.  ERR_FORMAT when the size does not fit the shape. */
struct dev_weight_shape { enum dev_format format; int64_t n_out, k; bool bias, gated, ordered; };
bool dev_weight_from_image(struct dev *d, struct dev_weight **out, const struct dev_weight_shape *s, const void *image, size_t bytes, struct err *e);
/* Bytes dev_weight_pack will take for this shape, for planning. */
size_t dev_weight_bytes(enum dev_format format, int64_t n_out, int64_t k, bool bias);
size_t dev_weight_shape_bytes(const struct dev_weight_shape *s);

/* ---- KV pages ---- */
/* I8: a scale for each head and token; F8: E4M3 without scale, |x| <= 448. */
enum dev_kv_type { DEV_KV_F32, DEV_KV_F16, DEV_KV_BF16, DEV_KV_I8, DEV_KV_F8, DEV_KV_COUNT };
struct dev_kv_spec {
    int n_layers, n_kv_heads, head_dim;
    int32_t n_blocks;        /* pages per layer, page 0 included (never read by a real row; padding may write there) */
    enum dev_kv_type type;
};
bool dev_kv_open(struct dev *d, struct dev_kv **out, const struct dev_kv_spec *s, struct err *e);
void dev_kv_close(struct dev *d, struct dev_kv **kv);
/* Bytes of one page over all layers; 0 when the product does not fit. */
size_t dev_kv_block_bytes(const struct dev_kv_spec *s);
/* Copy whole pages, all layers (copy on write).  Outside a step. */
void dev_kv_copy(struct dev *d, struct dev_kv *kv, const int32_t *src, const int32_t *dst, int n);

/* ---- a step ---- */

/* The ragged batch.  Sequence s owns rows [seq_start[s], seq_start[s+1]); its rows have
 * consecutive positions; it sees all its positions up to each row's own.  Arrays are host memory and stay
 * unchanged until dev_step_end. */
struct dev_batch {
    int32_t n_tokens, n_seqs;
    const int32_t *token_ids;      /* [n_tokens] */
    const int32_t *positions;      /* [n_tokens], absolute, from 0 */
    const int32_t *seq_start;      /* [n_seqs + 1] */
    const int32_t *block_tables;   /* [n_seqs][table_stride] page ids; entry i holds positions
                                      [i*DEV_BLOCK_TOKENS, (i+1)*DEV_BLOCK_TOKENS); pages wholly behind a window may be 0 */
    int32_t table_stride;
};

void dev_step_begin(struct dev *d, const struct dev_batch *b);
/* Runs what was enqueued.  False only when the device is lost. */
bool dev_step_end(struct dev *d, struct err *e);

/* out[n_tokens][K] = scale * table[token_ids].  The table is a packed weight [vocab, K] (shared with a tied head). */
void dev_embed(struct dev *d, float *out, const struct dev_weight *table, float scale);
/* out[n_tokens][dim] (+)= table[positions + offset]: learned positions.  table f32 [n_pos][dim] device memory. */
void dev_add_positions(struct dev *d, float *x, const float *table, int32_t dim, int32_t offset);

enum dev_norm_kind { DEV_NORM_RMS, DEV_NORM_LAYER };
struct dev_norm {
    enum dev_norm_kind kind;
    const float *weight;     /* [dim] device memory; the caller has added 1 where the model says (1+w).  NULL: only the addition, no out */
    const float *bias;       /* [dim] or NULL */
    float eps;
    int32_t dim;
    int64_t ld;              /* floats between the rows of x, out and add; 0: dim */
};
/* When add is given: x += add_scale * add first (x is the residual stream).  Then out = norm(x).
 * out may equal add, or x when there is no add.  n rows. */
void dev_norm(struct dev *d, const struct dev_norm *p, float *out, float *x, const float *add, float add_scale, int32_t n);

enum dev_act { DEV_ACT_NONE, DEV_ACT_SILU, DEV_ACT_GELU_ERF, DEV_ACT_GELU_TANH, DEV_ACT_RELU, DEV_ACT_RELU2 };
enum dev_epi { DEV_EPI_STORE, DEV_EPI_ADD, DEV_EPI_GLU };
struct dev_linear {
    enum dev_epi epi;        /* STORE: out = act(y); ADD: out += scale * y; GLU: out = act(gate) * up */
    enum dev_act act;
    float scale;             /* y is multiplied by it (STORE too, before act); 1 for none */
    float softcap;           /* > 0: y = softcap * tanh(y / softcap), after scale; 0 for none */
};
/* y = x W^T + bias for n rows.  x rows are ldx floats apart (>= K), out rows ldo apart. */
void dev_linear(struct dev *d, const struct dev_linear *p, const struct dev_weight *w,
                const float *x, int64_t ldx, float *out, int64_t ldo, int32_t n);

/* A mixture of experts: each row's best n_used of n_experts, by the softmax of its router logits, each a gated MLP.  An expert that
 * all rows use may come after the others. */
enum dev_moe_shared { DEV_MOE_NO_SHARED, DEV_MOE_SHARED, DEV_MOE_SHARED_GATED };
struct dev_moe {
    int32_t n_experts, n_used;
    enum dev_moe_shared shared;  /* expert n_experts: none, with weight 1, or with the sigmoid of a router logit of its own */
    bool renormalize;            /* the weights of those used are divided by their sum */
    int32_t n_groups, n_groups_used;   /* > 0: only experts of the n_groups_used groups whose best is best; groups are equal runs of experts */
    float routed_scale;          /* of all weights but the shared expert's */
    enum dev_act act;
    /* Host arrays [n_experts, + 1 if shared], valid until dev_step_end: gated [2 ffn, hidden], and [hidden, ffn]. */
    struct dev_weight *const *gate_up, *const *down;
};
/* out[i] += scale * sum over i's experts of weight * expert(x[i]), for n rows of hidden floats, in an order that depends on row i alone.
 * router is [n][n_experts, + 1 if SHARED_GATED].  Equal logits: the lower expert first. */
void dev_moe(struct dev *d, const struct dev_moe *p, const float *router, const float *x, float *out, float scale, int32_t n);

/* The choice dev_moe makes for one row: expert and weight [n_used, + 1 with a shared one].  Host memory, outside or inside a step. */
void dev_moe_route(const struct dev_moe *p, const float *router, int32_t *expert, float *weight);

enum dev_rope_style { DEV_ROPE_NONE, DEV_ROPE_HALF, DEV_ROPE_INTERLEAVED };
/* Prepare q and write k, v of all n_tokens rows into the pages of one layer.
 * qkv rows hold q [n_heads][head_dim], k [n_kv_heads][head_dim], v [n_kv_heads][head_dim], in this order, ld floats
 * apart.  In order: optional RMS norm of each q and k head, rotation of the first rope_dim dims of q and k.
 * q stays in the row (rotated in place); k and v go to the pages. */
struct dev_rope_kv {
    int32_t n_heads, n_kv_heads, head_dim;
    enum dev_rope_style style;
    int32_t rope_dim;            /* even */
    const float *cos, *sin;      /* host memory [n_tokens][rope_dim/2], valid until dev_step_end */
    const float *q_norm, *k_norm;  /* device memory [head_dim] or NULL */
    float qk_norm_eps;
    int layer;
};
void dev_rope_kv(struct dev *d, const struct dev_rope_kv *p, float *qkv, int64_t ld, struct dev_kv *kv);

struct dev_attention {
    int32_t n_heads, n_kv_heads, head_dim;
    float scale;                 /* of q.k, before softcap */
    float softcap;               /* 0: none */
    int32_t window;              /* a row at p sees positions > p - window; 0: all */
    const float *alibi_slopes;   /* device memory [n_heads] or NULL: adds slope * (key position - p) */
    const float *sinks;          /* device memory [n_heads] or NULL: one extra logit in the softmax's sum */
    int layer;
};
/* out[n_tokens][n_heads*head_dim], rows ldo apart, from q in rows ld apart. */
void dev_attention(struct dev *d, const struct dev_attention *p, const float *q, int64_t ld,
                   const struct dev_kv *kv, float *out, int64_t ldo);

/* out[i][0..dim) = x[rows[i]][0..dim). rows is host memory valid until dev_step_end. */
void dev_gather_rows(struct dev *d, float *out, const float *x, const int32_t *rows, int32_t n, int32_t dim);

/* ---- host math, for sampling; outside a step ---- */

/* fn(ctx, i, member) for i in [0, n) on the team's threads, each i once, in no order. */
void dev_for(struct dev *d, int64_t n, void (*fn)(void *ctx, int64_t i, int member), void *ctx);

/* Pure row functions in the device's best instructions; results do not depend on alignment. */
struct dev_math {
    int32_t (*argmax)(const float *x, int32_t n);            /* lowest index among equals; NaN never wins; n >= 1 */
    float (*max)(const float *x, int32_t n);                 /* -inf for none or all NaN */
    /* Indices (ascending) of x >= threshold: stores the first cap, returns how many there are. */
    int32_t (*above)(const float *x, int32_t n, float threshold, int32_t *idx, int32_t cap);
    /* Indices (ascending) of lo <= x < hi: stores the first cap, returns how many there are. */
    int32_t (*between)(const float *x, int32_t n, float lo, float hi, int32_t *idx, int32_t cap);
    /* out = exp((x - max) * scale) where x >= floor, else 0 (and 0 below exp(-87.3) and for NaN); returns their sum in a fixed order.
     * max is x's, scale > 0.  exp is within 1.2 units in the last place.  out may be x, or NULL when only the sum is wanted. */
    double (*weights)(float *out, const float *x, float max, float scale, float floor, int32_t n);
    /* The sum, in a fixed order, of w[i] >= 0 where key[i] >= floor; raising the floor never raises it. */
    double (*sum_above)(const float *key, const float *w, float floor, int32_t n);
    double (*moment)(const float *x, const float *w, float max, int32_t n);   /* the sum of w * (x - max) where w > 0 */
    /* out = -|x - to| where w > 0, else -inf; out may be x or w. */
    void (*nearness)(float *out, const float *x, const float *w, float to, int32_t n);
    /* Keys are x or, unless near is NULL, the nearness to *near.  Those with lo <= key < hi go with their weights, in order, to keys and
     * weights, which have room for n and may be x and w; returns how many.  *above: the sum, in a fixed order, of w >= 0 where key >= hi.
     * w NULL: all weigh 1, near is NULL too, and weights is not written. */
    int32_t (*split)(const float *x, const float *w, int32_t n, const float *near, float lo, float hi, float *keys, float *weights,
                     double *above);
    /* out[i] = x[i] where bit i % 32 of bits[i / 32] is set, else -inf; out may be x.  bits: ceil(n / 32) words. */
    void (*mask)(float *out, const float *x, const uint32_t *bits, int32_t n);
};
const struct dev_math *dev_math(const struct dev *d);

/* ---- tracing ---- */
struct dev_trace_event { const char *op; int layer; int member; int64_t start_ns, end_ns; };
/* Called (on the leader, at dev_step_end) with each step's per-thread events when set; NULL switches it off. */
void dev_set_trace(struct dev *d, void (*fn)(void *ctx, const struct dev_trace_event *ev, int n), void *ctx);

#endif
