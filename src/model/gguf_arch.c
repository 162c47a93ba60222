/* A description made from a config, turned to what GGUF files hold: their tensor names, every fused tensor with its parts one after
 * the other, nothing transposed; and what the converters have already done to the weights. */
#include <stdio.h>
#include <string.h>
#include "model/gguf_int.h"

static bool has(const struct gguf_files *f, const char *name)
{
    return gguf_files_find(f, name) != NULL;
}

/* Whether layer 0 (or the model) has NAME.suffix; '#' is the layer. */
static bool has_part(const struct gguf_files *f, const char *pattern, const char *suffix)
{
    char name[96];
    const char *hash = strchr(pattern, '#');
    snprintf(name, sizeof name, "%.*s%s%s%s", (int)(hash ? hash - pattern : (long)strlen(pattern)), pattern, hash ? "0" : "", hash ? hash + 1 : "", suffix);
    return has(f, name);
}

static void set_linear(const struct gguf_files *f, struct arch *a, enum arch_linear slot, enum arch_layout layout, const char *n0, const char *n1, const char *n2)
{
    if (!a->linear[slot].names[0])
        return;
    if (a->linear[slot].layout == ARCH_LAYOUT_LATENT)
        layout = ARCH_LAYOUT_LATENT;
    a->linear[slot] = (struct arch_linear_spec){ .names = { n0, n1, n2 }, .layout = layout, .bias = has_part(f, n0, ".bias") };
}

static void set_linears(const struct gguf_files *f, struct arch *a)
{
    bool gated = a->mlp == ARCH_MLP_GATED;
    set_linear(f, a, ARCH_LIN_EMBED, ARCH_LAYOUT_SPLIT, "token_embd", NULL, NULL);
    set_linear(f, a, ARCH_LIN_HEAD, ARCH_LAYOUT_SPLIT, "output", NULL, NULL);
    set_linear(f, a, ARCH_LIN_POSITIONS, ARCH_LAYOUT_SPLIT, "position_embd", NULL, NULL);
    if (has(f, "blk.0.attn_qkv.weight"))
        set_linear(f, a, ARCH_LIN_QKV, ARCH_LAYOUT_STACKED, "blk.#.attn_qkv", NULL, NULL);
    else
        set_linear(f, a, ARCH_LIN_QKV, ARCH_LAYOUT_SPLIT, "blk.#.attn_q", "blk.#.attn_k", "blk.#.attn_v");
    set_linear(f, a, ARCH_LIN_Q_A, ARCH_LAYOUT_SPLIT, "blk.#.attn_q_a", NULL, NULL);
    set_linear(f, a, ARCH_LIN_Q, ARCH_LAYOUT_SPLIT, a->latent.q_rank ? "blk.#.attn_q_b" : "blk.#.attn_q", NULL, NULL);
    set_linear(f, a, ARCH_LIN_KV_A, ARCH_LAYOUT_SPLIT, "blk.#.attn_kv_a_mqa", NULL, NULL);
    set_linear(f, a, ARCH_LIN_KV_B, ARCH_LAYOUT_SPLIT, "blk.#.attn_kv_b", NULL, NULL);
    if (a->latent.kv_rank && !has(f, "blk.0.attn_kv_b.weight") && has(f, "blk.0.attn_k_b.weight")) {
        a->linear[ARCH_LIN_KV_B].layout = ARCH_LAYOUT_LATENT_SPLIT;
        a->linear[ARCH_LIN_KV_B].names[0] = "blk.#.attn_k_b";
        a->linear[ARCH_LIN_KV_B].names[1] = "blk.#.attn_v_b";
    }
    set_linear(f, a, ARCH_LIN_ATTN_OUT, ARCH_LAYOUT_SPLIT, "blk.#.attn_output", NULL, NULL);
    if (gated && has(f, "blk.0.ffn_up.weight") && !has(f, "blk.0.ffn_gate.weight"))
        set_linear(f, a, ARCH_LIN_GATE_UP, ARCH_LAYOUT_STACKED, "blk.#.ffn_up", NULL, NULL);
    else
        set_linear(f, a, ARCH_LIN_GATE_UP, ARCH_LAYOUT_SPLIT, gated ? "blk.#.ffn_gate" : "blk.#.ffn_up", gated ? "blk.#.ffn_up" : NULL, NULL);
    set_linear(f, a, ARCH_LIN_DOWN, ARCH_LAYOUT_SPLIT, "blk.#.ffn_down", NULL, NULL);
    set_linear(f, a, ARCH_LIN_ROUTER, ARCH_LAYOUT_SPLIT, "blk.#.ffn_gate_inp", a->shared_gated ? "blk.#.ffn_gate_inp_shexp" : NULL, NULL);
    if (has(f, "blk.0.ffn_gate.0.weight")) {   /* the first files had a tensor for each expert */
        set_linear(f, a, ARCH_LIN_EXPERT_GATE_UP, ARCH_LAYOUT_SPLIT, "blk.#.ffn_gate.%", "blk.#.ffn_up.%", NULL);
        set_linear(f, a, ARCH_LIN_EXPERT_DOWN, ARCH_LAYOUT_SPLIT, "blk.#.ffn_down.%", NULL, NULL);
    } else {
        set_linear(f, a, ARCH_LIN_EXPERT_GATE_UP, ARCH_LAYOUT_SPLIT, "blk.#.ffn_gate_exps.%", "blk.#.ffn_up_exps.%", NULL);
        set_linear(f, a, ARCH_LIN_EXPERT_DOWN, ARCH_LAYOUT_SPLIT, "blk.#.ffn_down_exps.%", NULL, NULL);
    }
    set_linear(f, a, ARCH_LIN_SHARED_GATE_UP, ARCH_LAYOUT_SPLIT, "blk.#.ffn_gate_shexp", "blk.#.ffn_up_shexp", NULL);
    set_linear(f, a, ARCH_LIN_SHARED_DOWN, ARCH_LAYOUT_SPLIT, "blk.#.ffn_down_shexp", NULL, NULL);
}

static void set_vectors(const struct gguf_files *f, struct arch *a)
{
    /* Falcon's second norm is the one before attention. */
    bool two = has(f, "blk.0.attn_norm_2.weight");
    const char *const names[ARCH_VEC_COUNT] = {
        [ARCH_VEC_FINAL_NORM] = "output_norm", [ARCH_VEC_FINAL_NORM_BIAS] = "output_norm",
        [ARCH_VEC_NORM1] = two ? "blk.#.attn_norm_2" : "blk.#.attn_norm", [ARCH_VEC_NORM1_BIAS] = two ? "blk.#.attn_norm_2" : "blk.#.attn_norm",
        [ARCH_VEC_NORM2] = two ? "blk.#.attn_norm" : "blk.#.ffn_norm", [ARCH_VEC_NORM2_BIAS] = two ? "blk.#.attn_norm" : "blk.#.ffn_norm",
        [ARCH_VEC_POST_ATTN_NORM] = "blk.#.post_attention_norm", [ARCH_VEC_POST_MLP_NORM] = "blk.#.post_ffw_norm",
        [ARCH_VEC_Q_NORM] = "blk.#.attn_q_norm", [ARCH_VEC_K_NORM] = "blk.#.attn_k_norm",
        [ARCH_VEC_Q_A_NORM] = "blk.#.attn_q_a_norm", [ARCH_VEC_KV_A_NORM] = "blk.#.attn_kv_a_norm",
        [ARCH_VEC_EMBED_NORM] = "token_embd_norm", [ARCH_VEC_EMBED_NORM_BIAS] = "token_embd_norm",
    };
    for (int i = 0; i < ARCH_VEC_COUNT; i++)
        if (a->vector[i])
            a->vector[i] = names[i];
}

/* Which layers have a mixture is seen from their tensors. */
static void set_mixtures(const struct gguf_files *f, struct arch *a)
{
    for (int i = 0; a->n_experts && i < a->n_layers; i++) {
        char router[64], up[64];
        snprintf(router, sizeof router, "blk.%d.ffn_gate_inp.weight", i);
        snprintf(up, sizeof up, "blk.%d.ffn_up.weight", i);
        if (has(f, router))
            a->layer_moe[i] = true;
        else if (has(f, up))
            a->layer_moe[i] = false;
    }
}

static bool read_factors(const struct gguf_files *f, const struct tensor *t, int32_t n, float *out, struct err *e)
{
    if (t->n_dims != 1 || t->dims[0] != n || t->block || !dtype_is_float(t->dtype))
        return err_set(e, ERR_FORMAT, "%s: tensor %s must be %d floats, one for each pair of rotated dimensions", f->files[0].name, t->name, n);
    tensor_to_f32(t->dtype, t->data, (size_t)n, out);
    for (int32_t i = 0; i < n; i++)
        if (!(out[i] >= 1e-6f && out[i] <= 1e9f))
            return err_set(e, ERR_FORMAT, "%s: tensor %s: factor %d is not a positive number", f->files[0].name, t->name, (int)i);
    return true;
}

/* Factors that frequencies are divided by: one set for every length (Llama 3.1), or one for each side of the original length (Phi-3). */
static bool set_rope_factors(struct gguf_files *f, struct arch *a, const char *arch_name, struct err *e)
{
    struct arch_rope *r = &a->rope[0];
    const struct tensor *all = gguf_files_find(f, "rope_freqs.weight");
    const struct tensor *lo = all ? all : gguf_files_find(f, "rope_factors_short.weight"), *hi = all ? all : gguf_files_find(f, "rope_factors_long.weight");
    char key[96];
    double attn = 1.0;
    int64_t original = a->max_len;
    if (!lo || !hi || r->dim < 2)
        return true;
    if (!read_factors(f, lo, r->dim / 2, r->short_factor, e) || !read_factors(f, hi, r->dim / 2, r->long_factor, e))
        return false;
    snprintf(key, sizeof key, "%.40s.rope.scaling.attn_factor", arch_name);
    if (!gguf_get_f64(&f->files[0].g, key, &attn, e))
        return false;
    snprintf(key, sizeof key, "%.40s.rope.scaling.original_context_length", arch_name);
    if (!all && !gguf_get_i64(&f->files[0].g, key, &original, e))
        return false;
    if (original < 1 || original > a->max_len || !(attn > 0 && attn < 1e6))
        return err_set(e, ERR_FORMAT, "%s: %s is %lld, but the context has %d", f->files[0].name, key, (long long)original, a->max_len);
    r->scaling = ARCH_ROPE_LONGROPE;
    r->original_len = (int32_t)original;
    r->factor = (double)a->max_len / (double)original;
    r->attn_factor = attn;
    return true;
}

static bool is_one_of(const char *name, const char *const *list)
{
    for (; *list; list++)
        if (strcmp(name, *list) == 0)
            return true;
    return false;
}

bool gguf_adapt_arch(struct gguf_files *f, struct arch *a, struct err *e)
{
    /* Rows of q and k are stored so that the dimensions that rotate together are neighbours. */
    static const char *const permuted[] = { "llama", "internlm2", "granite", "smollm3", NULL };
    static const char *const added[] = { "gemma", "gemma2", "gemma3", NULL };
    static const char *const ignore[] = { "rope_freqs.*", "rope_factors_short.*", "rope_factors_long.*", "*.attn_rot_embd.weight", "*.rope_freqs.weight",
                                          "*.attn_k_b.weight", "*.attn_v_b.weight" /* beside attn_kv_b, which they are made of */ };
    struct gguf *g = &f->files[0].g;
    const char *name = "";
    char key[96];
    int64_t ffn = a->ffn;
    if (!gguf_get_str(g, "general.architecture", &name, e))
        return false;
    /* Families whose config has a ratio instead; others have read it already. */
    snprintf(key, sizeof key, "%.40s.feed_forward_length", name);
    const struct gguf_kv *kv = gguf_find(g, key);
    if (kv && !kv->is_array && !gguf_get_i64(g, key, &ffn, e))
        return false;
    if (ffn < 1 || ffn > 1 << 20)
        return err_set(e, ERR_FORMAT, "%s: %s is %lld; from 1 to %d are possible", f->files[0].name, key, (long long)ffn, 1 << 20);
    a->ffn = (int32_t)ffn;
    if (is_one_of(name, permuted))
        a->pos = ARCH_POS_ROPE_INTERLEAVED;
    if (is_one_of(name, added))
        a->norm_weight_add = 0.0f;
    a->tied_head = !has(f, "output.weight");
    set_linears(f, a);
    set_vectors(f, a);
    set_mixtures(f, a);
    memset(a->prefixes, 0, sizeof a->prefixes);
    memset(a->ignore, 0, sizeof a->ignore);
    a->prefixes[0] = "";
    memcpy(a->ignore, ignore, sizeof ignore);
    return set_rope_factors(f, a, name, e);
}
