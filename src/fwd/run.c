/* The layer loop.  What a block looks like: model/arch.h. */
#include <assert.h>
#include "base/mem.h"
#include "fwd/fwd_int.h"

/* Shows the rows that are about to enter a linear to whoever asked: what computes them must have run. */
static void show(struct flow *w, enum arch_linear slot, int index, const float *x, int64_t ld, int32_t n)
{
    if (!w->capture)
        return;
    w->failed = !dev_step_end(w->f->d, w->e) || w->failed;
    if (!w->failed)
        w->capture->fn(w->capture->ctx, slot, index, x, ld, n);
    dev_step_begin(w->f->d, &w->batch->b);
}

static const struct dev_linear STORE = { .epi = DEV_EPI_STORE, .act = DEV_ACT_NONE, .scale = 1.0f };

static enum dev_act device_act(enum arch_act act)
{
    switch (act) {
    case ARCH_ACT_SILU: return DEV_ACT_SILU;
    case ARCH_ACT_GELU_ERF: return DEV_ACT_GELU_ERF;
    case ARCH_ACT_GELU_TANH: return DEV_ACT_GELU_TANH;
    case ARCH_ACT_RELU: return DEV_ACT_RELU;
    case ARCH_ACT_RELU2: return DEV_ACT_RELU2;
    }
    return DEV_ACT_NONE;
}

/* Adds what is pending to x, then norms it into out; without such a norm in the description x itself is the result. */
static const float *norm(struct flow *w, const float *weight, const float *bias, float *out)
{
    const struct arch *a = &w->f->arch;
    if (!weight && !w->pending)
        return w->x;
    struct dev_norm p = {
        .kind = a->norm == ARCH_NORM_RMS ? DEV_NORM_RMS : DEV_NORM_LAYER, .weight = weight, .bias = bias, .eps = a->norm_eps, .dim = a->hidden,
    };
    dev_norm(w->f->d, &p, weight ? out : NULL, w->x, w->pending, a->residual_scale, w->n);
    w->pending = NULL;
    return weight ? out : w->x;
}

/* The end of a sub-layer: y = linear(in) is added to x now, or normed and left pending. */
static void add_linear(struct flow *w, const struct dev_weight *lin, const float *in, const float *post_norm)
{
    struct fwd *f = w->f;
    const struct arch *a = &f->arch;
    if (!post_norm) {
        struct dev_linear add = { .epi = DEV_EPI_ADD, .act = DEV_ACT_NONE, .scale = a->residual_scale };
        dev_linear(f->d, &add, lin, in, dev_weight_cols(lin), w->x, a->hidden, w->n);
        return;
    }
    struct dev_norm p = { .kind = a->norm == ARCH_NORM_RMS ? DEV_NORM_RMS : DEV_NORM_LAYER, .weight = post_norm, .eps = a->norm_eps, .dim = a->hidden };
    dev_linear(f->d, &STORE, lin, in, dev_weight_cols(lin), f->ws.h2, a->hidden, w->n);
    dev_norm(f->d, &p, f->ws.h2, f->ws.h2, NULL, 0.0f, w->n);
    w->pending = f->ws.h2;
}

static void mlp(struct flow *w, const struct fwd_layer *l, const float *in)
{
    struct fwd *f = w->f;
    const struct arch *a = &f->arch;
    struct dev_linear up = { .epi = a->mlp == ARCH_MLP_GATED ? DEV_EPI_GLU : DEV_EPI_STORE, .act = device_act(a->act), .scale = 1.0f };
    show(w, ARCH_LIN_GATE_UP, 0, in, a->hidden, w->n);
    dev_linear(f->d, &up, l->lin[ARCH_LIN_GATE_UP], in, a->hidden, f->ws.mlp, a->ffn, w->n);
    show(w, ARCH_LIN_DOWN, 0, f->ws.mlp, a->ffn, w->n);
    add_linear(w, l->lin[ARCH_LIN_DOWN], f->ws.mlp, l->vec[ARCH_VEC_POST_MLP_NORM]);
}

/* The rows of each expert, and what they become inside it: dev_moe keeps them to itself. */
static void show_expert(struct flow *w, const struct dev_moe *p, int index, const float *in, const int32_t *rows, int32_t n, float *x, float *middle)
{
    struct fwd *f = w->f;
    const struct arch *a = &f->arch;
    bool shared = index == a->n_experts;
    struct dev_linear up = { .epi = DEV_EPI_GLU, .act = p->act, .scale = 1.0f };
    int32_t ffn = shared ? a->shared_ffn : a->expert_ffn;
    if (n == 0)
        return;
    dev_gather_rows(f->d, x, in, rows, n, a->hidden);
    show(w, shared ? ARCH_LIN_SHARED_GATE_UP : ARCH_LIN_EXPERT_GATE_UP, shared ? 0 : index, x, a->hidden, n);
    dev_linear(f->d, &up, p->gate_up[index], x, a->hidden, middle, ffn, n);
    show(w, shared ? ARCH_LIN_SHARED_DOWN : ARCH_LIN_EXPERT_DOWN, shared ? 0 : index, middle, ffn, n);
}

static void show_experts(struct flow *w, const struct dev_moe *p, const float *in, int32_t width)
{
    struct fwd *f = w->f;
    const struct arch *a = &f->arch;
    int32_t k = a->n_experts_used + (a->shared_ffn > 0), n_all = fwd_n_experts(a), ffn = a->expert_ffn > a->shared_ffn ? a->expert_ffn : a->shared_ffn;
    int32_t *expert = mem_try_alloc((size_t)(w->n * k), sizeof *expert), *rows = mem_try_alloc((size_t)w->n, sizeof *rows);
    float *weight = mem_try_alloc((size_t)k, sizeof *weight), *x = dev_alloc(f->d, (size_t)w->n * (size_t)a->hidden * sizeof *x, w->e);
    float *middle = dev_alloc(f->d, (size_t)w->n * (size_t)ffn * sizeof *middle, w->e);
    float *router = mem_try_alloc((size_t)w->n, (size_t)width * sizeof *router);
    if (!expert || !rows || !weight || !x || !middle || !router) {
        w->failed = true;
        err_set(w->e, ERR_NOMEM, "no memory for the experts of %d tokens", (int)w->n);
        goto done;
    }
    w->failed = !dev_step_end(f->d, w->e) || w->failed;
    dev_download(f->d, router, f->ws.router, (size_t)w->n * (size_t)width * sizeof *router);
    dev_step_begin(f->d, &w->batch->b);
    for (int32_t i = 0; i < w->n; i++)
        dev_moe_route(p, router + (int64_t)i * width, expert + (int64_t)i * k, weight);
    for (int index = 0; index < n_all; index++) {
        int32_t n = 0;
        for (int32_t i = 0; i < w->n * k; i++)
            if (expert[i] == index)
                rows[n++] = i / k;
        show_expert(w, p, index, in, rows, n, x, middle);
    }
    /* rows and x are used by what is still enqueued. */
    w->failed = !dev_step_end(f->d, w->e) || w->failed;
    dev_step_begin(f->d, &w->batch->b);
done:
    mem_free(expert);
    mem_free(rows);
    mem_free(weight);
    mem_free(router);
    dev_free(f->d, x);
    dev_free(f->d, middle);
}

static void mixture(struct flow *w, const struct fwd_layer *l, const float *in)
{
    struct fwd *f = w->f;
    const struct arch *a = &f->arch;
    struct dev_moe p = {
        .n_experts = a->n_experts, .n_used = a->n_experts_used,
        .shared = !a->shared_ffn ? DEV_MOE_NO_SHARED : a->shared_gated ? DEV_MOE_SHARED_GATED : DEV_MOE_SHARED,
        .renormalize = a->experts_renormalize, .n_groups = a->n_expert_groups, .n_groups_used = a->n_expert_groups_used,
        .routed_scale = a->experts_scale, .act = device_act(a->act), .gate_up = l->expert_up, .down = l->expert_down,
    };
    int32_t width = a->n_experts + a->shared_gated, most = fwd_moe_rows(a);
    show(w, ARCH_LIN_ROUTER, 0, in, a->hidden, w->n);
    dev_linear(f->d, &STORE, l->lin[ARCH_LIN_ROUTER], in, a->hidden, f->ws.router, width, w->n);
    if (w->capture)
        show_experts(w, &p, in, width);
    /* Pieces of equal size: each reads the experts it uses, which is nearly all of them even for few rows. */
    int32_t pieces = (w->n + most - 1) / most;
    for (int32_t i = 0, from = 0, n; i < pieces; i++, from += n) {
        n = w->n / pieces + (i < w->n % pieces);
        dev_moe(f->d, &p, f->ws.router + (int64_t)from * width, in + (int64_t)from * a->hidden, w->x + (int64_t)from * a->hidden,
                a->residual_scale, n);
    }
}

/* q and k norms that rope does not do itself. */
static void norm_qk(struct flow *w, const struct fwd_layer *l, int64_t ld)
{
    struct fwd *f = w->f;
    const struct arch *a = &f->arch;
    int32_t widths[2] = { a->n_heads * a->head_dim, a->n_kv_heads * a->head_dim };
    float *at = f->ws.qkv;
    for (int i = 0; i < 2; at += widths[i], i++) {
        const float *weight = l->vec[i == 0 ? ARCH_VEC_Q_NORM : ARCH_VEC_K_NORM];
        bool row = a->qk_norm == ARCH_QK_NORM_ROW;
        int32_t dim = row ? widths[i] : a->head_dim;
        for (int32_t from = 0; from < widths[i]; from += dim) {
            struct dev_norm p = { .kind = row ? DEV_NORM_RMS : DEV_NORM_LAYER, .weight = weight + from, .eps = a->norm_eps, .dim = dim, .ld = ld };
            dev_norm(f->d, &p, at + from, at + from, NULL, 0.0f, w->n);
        }
    }
}

static void norm_latent(struct flow *w, const float *weight, float *x, int32_t dim, int64_t ld)
{
    struct dev_norm p = { .kind = DEV_NORM_RMS, .weight = weight, .eps = w->f->arch.latent.norm_eps, .dim = dim, .ld = ld };
    dev_norm(w->f->d, &p, x, x, NULL, 0.0f, w->n);
}

/* q, k and v by way of short rows. */
static void latent_qkv(struct flow *w, const struct fwd_layer *l, const float *in, int64_t ld)
{
    struct fwd *f = w->f;
    const struct arch *a = &f->arch;
    int64_t q_width = (int64_t)a->n_heads * a->head_dim, width = a->latent.kv_rank + a->latent.rope_dim;
    const float *q_in = in;
    if (a->latent.q_rank) {
        show(w, ARCH_LIN_Q_A, 0, in, a->hidden, w->n);
        dev_linear(f->d, &STORE, l->lin[ARCH_LIN_Q_A], in, a->hidden, f->ws.latent, a->latent.q_rank, w->n);
        norm_latent(w, l->vec[ARCH_VEC_Q_A_NORM], f->ws.latent, a->latent.q_rank, a->latent.q_rank);
        q_in = f->ws.latent;
    }
    show(w, ARCH_LIN_Q, 0, q_in, dev_weight_cols(l->lin[ARCH_LIN_Q]), w->n);
    dev_linear(f->d, &STORE, l->lin[ARCH_LIN_Q], q_in, dev_weight_cols(l->lin[ARCH_LIN_Q]), f->ws.qkv, ld, w->n);
    show(w, ARCH_LIN_KV_A, 0, in, a->hidden, w->n);
    dev_linear(f->d, &STORE, l->lin[ARCH_LIN_KV_A], in, a->hidden, f->ws.latent, width, w->n);
    norm_latent(w, l->vec[ARCH_VEC_KV_A_NORM], f->ws.latent, a->latent.kv_rank, width);
    show(w, ARCH_LIN_KV_B, 0, f->ws.latent, width, w->n);
    dev_linear(f->d, &STORE, l->lin[ARCH_LIN_KV_B], f->ws.latent, width, f->ws.qkv + q_width, ld, w->n);
}

/* In one product, or in three. */
static void qkv(struct flow *w, const struct fwd_layer *l, const float *in, int64_t ld)
{
    struct fwd *f = w->f;
    float *out = f->ws.qkv;
    if (l->lin[ARCH_LIN_QKV])
        dev_linear(f->d, &STORE, l->lin[ARCH_LIN_QKV], in, f->arch.hidden, out, ld, w->n);
    for (int i = 0; !l->lin[ARCH_LIN_QKV] && i < 3; out += dev_weight_rows(l->qkv[i]), i++)
        dev_linear(f->d, &STORE, l->qkv[i], in, f->arch.hidden, out, ld, w->n);
}

static void write_kv(struct flow *w, int layer, int64_t ld)
{
    struct fwd *f = w->f;
    const struct arch *a = &f->arch;
    const struct fwd_layer *l = &f->layers[layer];
    int r = a->layer_rope[layer];
    bool rope = r != ARCH_NO_ROPE && (a->pos == ARCH_POS_ROPE_HALF || a->pos == ARCH_POS_ROPE_INTERLEAVED);
    bool head_norm = a->qk_norm == ARCH_QK_NORM_HEAD;
    struct dev_rope_kv p = {
        .n_heads = a->n_heads, .n_kv_heads = a->n_kv_heads, .head_dim = a->head_dim,
        .style = !rope ? DEV_ROPE_NONE : a->pos == ARCH_POS_ROPE_HALF ? DEV_ROPE_HALF : DEV_ROPE_INTERLEAVED,
        .rope_dim = rope ? a->rope[r].dim : 0, .cos = rope ? w->cos[r] : NULL, .sin = rope ? w->sin[r] : NULL,
        .q_norm = head_norm ? l->vec[ARCH_VEC_Q_NORM] : NULL, .k_norm = head_norm ? l->vec[ARCH_VEC_K_NORM] : NULL,
        .qk_norm_eps = a->norm_eps, .layer = f->one_kv_layer ? 0 : layer,
    };
    dev_rope_kv(f->d, &p, f->ws.qkv, ld, f->kv);
}

/* Only these rows are needed from here on: the rest of the last layer and the head work on so many rows. */
static void keep_logit_rows(struct flow *w, const struct fwd_batch *b, const float **in)
{
    struct fwd *f = w->f;
    const struct arch *a = &f->arch;
    dev_gather_rows(f->d, f->ws.last_x, w->x, b->logit_rows, b->n_logits, a->hidden);
    dev_gather_rows(f->d, f->ws.last_attn, w->attn, b->logit_rows, b->n_logits, a->n_heads * a->head_dim);
    if (a->residual == ARCH_RES_PARALLEL) {
        dev_gather_rows(f->d, f->ws.last_h, *in, b->logit_rows, b->n_logits, a->hidden);
        *in = f->ws.last_h;
    }
    w->x = f->ws.last_x;
    w->attn = f->ws.last_attn;
    w->n = b->n_logits;
}

static void run_layer(struct flow *w, const struct fwd_batch *b, int layer)
{
    struct fwd *f = w->f;
    const struct arch *a = &f->arch;
    const struct fwd_layer *l = &f->layers[layer];
    bool last = !w->alone && layer == a->n_layers - 1;
    int64_t ld = (int64_t)(a->n_heads + 2 * a->n_kv_heads) * a->head_dim;
    const float *in = norm(w, l->vec[ARCH_VEC_NORM1], l->vec[ARCH_VEC_NORM1_BIAS], f->ws.h);
    if (a->latent.kv_rank) {
        latent_qkv(w, l, in, ld);
    } else {
        show(w, ARCH_LIN_QKV, 0, in, a->hidden, w->n);
        qkv(w, l, in, ld);
    }
    if (a->qk_norm == ARCH_QK_NORM_ROW || a->qk_norm == ARCH_QK_NORM_HEAD_LAYER)
        norm_qk(w, l, ld);
    write_kv(w, layer, ld);
    if (last && b->n_logits == 0)
        return;
    struct dev_attention p = {
        .n_heads = a->n_heads, .n_kv_heads = a->n_kv_heads, .head_dim = a->head_dim, .scale = a->attn_scale, .softcap = a->attn_softcap,
        .window = a->layer_window[layer], .alibi_slopes = f->alibi, .layer = f->one_kv_layer ? 0 : layer,
    };
    dev_attention(f->d, &p, f->ws.qkv, ld, f->kv, w->attn, (int64_t)a->n_heads * a->head_dim);
    if (last && b->n_logits < w->n)
        keep_logit_rows(w, b, &in);
    show(w, ARCH_LIN_ATTN_OUT, 0, w->attn, (int64_t)a->n_heads * a->head_dim, w->n);
    if (a->residual == ARCH_RES_PARALLEL) {
        /* The second norm must see x as it was before attention is added. */
        if (l->vec[ARCH_VEC_NORM2])
            in = norm(w, l->vec[ARCH_VEC_NORM2], l->vec[ARCH_VEC_NORM2_BIAS], f->ws.h2);
        add_linear(w, l->lin[ARCH_LIN_ATTN_OUT], w->attn, NULL);
    } else {
        add_linear(w, l->lin[ARCH_LIN_ATTN_OUT], w->attn, l->vec[ARCH_VEC_POST_ATTN_NORM]);
        in = norm(w, l->vec[ARCH_VEC_NORM2], l->vec[ARCH_VEC_NORM2_BIAS], f->ws.h);
    }
    if (a->layer_moe[layer])
        mixture(w, l, in);
    else
        mlp(w, l, in);
}

static void embed(struct flow *w)
{
    struct fwd *f = w->f;
    const struct arch *a = &f->arch;
    bool normed = f->vec[ARCH_VEC_EMBED_NORM] != NULL;
    float *out = normed ? f->ws.h : f->ws.x;
    dev_embed(f->d, out, f->lin[ARCH_LIN_EMBED], a->embed_scale);
    if (f->positions)
        dev_add_positions(f->d, out, f->positions, a->hidden, a->position_offset);
    if (normed) {
        struct dev_norm p = {
            .kind = a->norm == ARCH_NORM_RMS ? DEV_NORM_RMS : DEV_NORM_LAYER, .weight = f->vec[ARCH_VEC_EMBED_NORM],
            .bias = f->vec[ARCH_VEC_EMBED_NORM_BIAS], .eps = a->norm_eps, .dim = a->hidden,
        };
        dev_norm(f->d, &p, f->ws.x, f->ws.h, NULL, 0.0f, w->n);
    }
}

static void head(struct flow *w)
{
    struct fwd *f = w->f;
    const struct arch *a = &f->arch;
    const float *in = norm(w, f->vec[ARCH_VEC_FINAL_NORM], f->vec[ARCH_VEC_FINAL_NORM_BIAS], f->ws.last_h);
    struct dev_linear p = { .epi = DEV_EPI_STORE, .act = DEV_ACT_NONE, .scale = a->logit_scale, .softcap = a->final_softcap };
    show(w, a->tied_head ? ARCH_LIN_EMBED : ARCH_LIN_HEAD, 0, in, a->hidden, w->n);
    dev_linear(f->d, &p, f->lin[a->tied_head ? ARCH_LIN_EMBED : ARCH_LIN_HEAD], in, a->hidden, f->ws.logits, a->vocab_size, w->n);
}

bool fwd_run(struct fwd *f, const struct fwd_batch *b, float **logits, struct err *e)
{
    const struct arch *a = &f->arch;
    assert(b->b.n_tokens > 0 && b->b.n_tokens <= f->max_tokens && b->n_logits >= 0 && b->n_logits <= f->max_logits);
    struct flow w = { .f = f, .x = f->ws.x, .attn = f->ws.attn, .n = b->b.n_tokens };
    for (int i = 0; i < ARCH_N_ROPES; i++)
        if (f->rope[i])
            rope_fill(f->rope[i], &b->b, b->rope_len, &w.cos[i], &w.sin[i]);
    dev_step_begin(f->d, &b->b);
    embed(&w);
    for (int l = 0; l < a->n_layers; l++)
        run_layer(&w, b, l);
    if (b->n_logits > 0)
        head(&w);
    *logits = f->host_logits;
    if (!dev_step_end(f->d, e))
        return false;
    if (f->host_logits != f->ws.logits && b->n_logits > 0) {
        dev_download(f->d, f->host_logits, f->ws.logits, (size_t)b->n_logits * (size_t)a->vocab_size * sizeof(float));
        dev_download(f->d, f->host_hidden, f->ws.last_h, (size_t)b->n_logits * (size_t)a->hidden * sizeof(float));
    }
    return true;
}

/* ---- one piece at a time (walk.h) ---- */

bool fwd_run_piece(struct fwd *f, const struct fwd_batch *b, enum fwd_piece piece, int layer, const struct fwd_capture *capture, struct err *e)
{
    struct flow w = { .f = f, .x = f->ws.x, .attn = f->ws.attn, .n = b->b.n_tokens, .alone = true, .capture = capture, .batch = b, .e = e };
    for (int i = 0; i < ARCH_N_ROPES; i++)
        if (f->rope[i])
            rope_fill(f->rope[i], &b->b, b->rope_len, &w.cos[i], &w.sin[i]);
    dev_step_begin(f->d, &b->b);
    switch (piece) {
    case FWD_PIECE_EMBED: embed(&w); break;
    case FWD_PIECE_LAYER:
        run_layer(&w, b, layer);
        if (w.pending)
            norm(&w, NULL, NULL, NULL);
        break;
    case FWD_PIECE_HEAD: head(&w); break;
    }
    return dev_step_end(f->d, e) && !w.failed;
}
