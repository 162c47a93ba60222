#include <stdint.h>
#include "base/mem.h"
#include "fwd/fwd_int.h"

enum dev_kv_type fwd_kv_type(const struct model *m, const struct fwd_opts *o)
{
    enum fwd_dtype choice = o->kv_dtype != FWD_DTYPE_AUTO ? o->kv_dtype : o->dtype;
    switch (choice) {
    case FWD_DTYPE_F32: return DEV_KV_F32;
    case FWD_DTYPE_F16: return DEV_KV_F16;
    case FWD_DTYPE_BF16: return DEV_KV_BF16;
    case FWD_DTYPE_INT8: return DEV_KV_I8;
    case FWD_DTYPE_FP8: return DEV_KV_F8;
    case FWD_DTYPE_AUTO: break;
    }
    enum dtype t = model_dtype(m);
    return t == DT_F16 ? DEV_KV_F16 : t == DT_BF16 ? DEV_KV_BF16 : DEV_KV_F32;
}

int fwd_n_experts(const struct arch *a)
{
    return a->n_experts + (a->shared_ffn > 0);
}

/* Bytes a row needs on the device: for each expert it uses, input and middle, before and after they are prepared; and its own input, prepared. */
static int64_t moe_row_bytes(const struct arch *a)
{
    int64_t ffn = a->expert_ffn > a->shared_ffn ? a->expert_ffn : a->shared_ffn;
    return (int64_t)(a->n_experts_used + 1) * 8 * (a->hidden + ffn) + 4 * (int64_t)a->hidden;
}

int32_t fwd_moe_rows(const struct arch *a)
{
    int64_t rows = (128 << 20) / moe_row_bytes(a);
    return rows < 32 ? 32 : rows > 4096 ? 4096 : (int32_t)rows;
}

/* What the device needs beside our arrays: the activations of one product in its own layout, or of one mixture. */
static size_t device_scratch(const struct arch *a, int32_t max_tokens)
{
    int64_t q = (int64_t)a->n_heads * a->head_dim, widest = a->ffn > a->hidden ? a->ffn : a->hidden;
    size_t linear = (size_t)max_tokens * (size_t)((widest > q ? widest : q) + 2) * sizeof(float);
    int32_t rows = a->n_experts ? fwd_moe_rows(a) : 0;
    size_t moe = a->n_experts ? (size_t)(rows < max_tokens ? rows : max_tokens) * (size_t)moe_row_bytes(a) : 0;
    return linear > moe ? linear : moe;
}

/* Bytes so far, and the pointer for the next array. */
struct lay { unsigned char *base; size_t bytes; bool failed; };

static float *lay_floats(struct lay *l, int64_t rows, int64_t cols)
{
    size_t n, at = l->bytes;
    if (!mem_mul((size_t)rows, (size_t)cols, &n) || !mem_mul(n, sizeof(float), &n) || !mem_add(n, 63, &n)
        || !mem_add(l->bytes, n & ~(size_t)63, &l->bytes))
        l->failed = true;
    return l->base ? (float *)(void *)(l->base + at) : NULL;
}

size_t fwd_space_lay(struct fwd_space *ws, void *base, const struct arch *a, int32_t max_tokens, int32_t max_logits)
{
    struct lay l = { .base = base };
    int64_t q = (int64_t)a->n_heads * a->head_dim, kv = (int64_t)a->n_kv_heads * a->head_dim;
    ws->x = lay_floats(&l, max_tokens, a->hidden);
    ws->h = lay_floats(&l, max_tokens, a->hidden);
    bool two = a->residual == ARCH_RES_PARALLEL || a->vector[ARCH_VEC_POST_ATTN_NORM] || a->vector[ARCH_VEC_POST_MLP_NORM];
    ws->h2 = two ? lay_floats(&l, max_tokens, a->hidden) : NULL;
    ws->qkv = lay_floats(&l, max_tokens, q + 2 * kv);
    int32_t latent = a->latent.kv_rank + a->latent.rope_dim;
    ws->latent = a->latent.kv_rank ? lay_floats(&l, max_tokens, latent > a->latent.q_rank ? latent : a->latent.q_rank) : NULL;
    ws->attn = lay_floats(&l, max_tokens, q);
    ws->mlp = lay_floats(&l, max_tokens, a->ffn);
    ws->router = a->n_experts ? lay_floats(&l, max_tokens, a->n_experts + a->shared_gated) : NULL;
    ws->last_x = lay_floats(&l, max_logits, a->hidden);
    ws->last_h = lay_floats(&l, max_logits, a->hidden);
    ws->last_attn = lay_floats(&l, max_logits, q);
    ws->logits = lay_floats(&l, max_logits, a->vocab_size);
    return l.failed ? 0 : l.bytes;
}

static bool add_linear(struct fwd_plan *p, const struct model *m, const struct fwd_opts *o, enum arch_linear slot, int layer)
{
    const struct arch *a = model_arch(m);
    int64_t rows[3], cols;
    arch_linear_shape(a, slot, rows, &cols);
    int64_t n_out = rows[0] + rows[1] + rows[2];
    for (int i = 0; i < arch_linear_count(a, slot, layer); i++) {
        struct fwd_choice c;
        fwd_choose(m, o, slot, layer, i, &c);
        for (int w = 0; w < c.n; w++) {
            struct dev_weight_shape shape = {
                .format = c.format[w], .n_out = c.n > 1 ? rows[w] : n_out, .k = cols, .bias = a->linear[slot].bias, .ordered = c.ordered[w],
            };
            size_t bytes = slot == ARCH_LIN_POSITIONS ? (size_t)n_out * (size_t)cols * sizeof(float) : dev_weight_shape_bytes(&shape);
            if (!bytes || !mem_add(p->weight_bytes, bytes, &p->weight_bytes))
                return false;
        }
    }
    return true;
}

static bool add_layer(struct fwd_plan *p, const struct model *m, const struct fwd_opts *o, bool per_layer, int layer)
{
    const struct arch *a = model_arch(m);
    bool ok = true;
    for (int s = 0; ok && s < ARCH_LIN_COUNT; s++)
        if (arch_linear_is_per_layer((enum arch_linear)s) == per_layer)
            ok = add_linear(p, m, o, (enum arch_linear)s, layer);
    for (int s = 0; ok && s < ARCH_VEC_COUNT; s++)
        if (arch_vector_is_per_layer((enum arch_vector)s) == per_layer)
            ok = mem_add(p->weight_bytes, (size_t)arch_vector_len(a, (enum arch_vector)s) * sizeof(float), &p->weight_bytes);
    return ok;
}

bool fwd_plan_bytes(struct fwd_plan *out, const struct model *m, const struct fwd_opts *o, struct err *e)
{
    const struct arch *a = model_arch(m);
    struct fwd_space ws;
    struct dev_kv_spec kv = {
        .n_layers = a->n_layers, .n_kv_heads = a->n_kv_heads, .head_dim = a->head_dim, .n_blocks = 2, .type = fwd_kv_type(m, o),
    };
    *out = (struct fwd_plan){ .n_params = model_n_params(m), .kv_block_bytes = dev_kv_block_bytes(&kv) };
    if (!out->kv_block_bytes)
        return err_set(e, ERR_UNSUPPORTED, "pages for %d key-value heads of %d dimensions are not supported: heads must be even and at most 256 wide",
                       a->n_kv_heads, a->head_dim);
    bool ok = add_layer(out, m, o, false, 0);
    for (int l = 0; ok && l < a->n_layers; l++)
        ok = add_layer(out, m, o, true, l);
    size_t bytes = fwd_space_lay(&ws, NULL, a, o->max_tokens, o->max_logits);
    out->workspace_bytes = bytes;
    ok = ok && mem_add(out->workspace_bytes, device_scratch(a, o->max_tokens), &out->workspace_bytes);
    for (int i = 0; i < ARCH_N_ROPES; i++)
        if (a->rope[i].dim && ok)
            ok = mem_add(out->workspace_bytes, rope_bytes(&a->rope[i], o->max_tokens, o->max_model_len), &out->workspace_bytes);
    return (ok && bytes) || err_set(e, ERR_TOO_LARGE, "the model's size in bytes is too large to count");
}
