/* Falcon, three kinds: 7B (one key-value head, one LayerNorm for attention and MLP in parallel), 40B and 180B (grouped heads, a
 * norm each; the 11B has one), RW (ALiBi, a head of its own for each query, one after the other). */
#include <string.h>
#include "model/arch_int.h"

static void read_blocks(struct arch_cfg *c, struct arch *a)
{
    bool grouped = arch_cfg_bool(c, "new_decoder_architecture", arch_cfg_get(c, "n_head_kv") != NULL), multi_query = arch_cfg_bool(c, "multi_query", true);
    bool parallel = arch_cfg_bool(c, "parallel_attn", true);
    int64_t norms = arch_cfg_int(c, "num_ln_in_parallel_attn", grouped ? 2 : 1, 1, 2);
    a->residual = grouped || parallel ? ARCH_RES_PARALLEL : ARCH_RES_SEQUENTIAL;
    if (grouped)
        a->n_kv_heads = (int32_t)arch_cfg_int(c, "num_kv_heads|n_head_kv", a->n_heads, 1, 4096);
    else
        a->n_kv_heads = multi_query ? 1 : a->n_heads;
    if (a->n_heads % a->n_kv_heads)
        arch_cfg_fail(c, ERR_FORMAT, "config.json: %d attention heads are not a multiple of %d key-value heads", a->n_heads, a->n_kv_heads);
    /* With one group, a group's q heads, its k and its v are all of q, k and v. */
    a->linear[ARCH_LIN_QKV].layout = ARCH_LAYOUT_GROUPED;
    arch_set_layer_norm(a, ARCH_VEC_NORM1, "~h.#.input_layernorm");
    if (a->residual == ARCH_RES_SEQUENTIAL) {
        arch_set_layer_norm(a, ARCH_VEC_NORM2, "~h.#.post_attention_layernorm");
    } else if (grouped && norms == 2) {
        arch_set_layer_norm(a, ARCH_VEC_NORM1, "~h.#.ln_attn");
        arch_set_layer_norm(a, ARCH_VEC_NORM2, "~h.#.ln_mlp");
    }
}

void arch_fill_falcon(struct arch_cfg *c, struct arch *a)
{
    static const struct arch_linear_spec linear[ARCH_LIN_COUNT] = {
        [ARCH_LIN_EMBED] = { .names = { "~word_embeddings" } },
        [ARCH_LIN_HEAD] = { .names = { "lm_head" } },
        [ARCH_LIN_QKV] = { .names = { "~h.#.self_attention.query_key_value" } },
        [ARCH_LIN_ATTN_OUT] = { .names = { "~h.#.self_attention.dense" } },
        [ARCH_LIN_GATE_UP] = { .names = { "~h.#.mlp.dense_h_to_4h" } },
        [ARCH_LIN_DOWN] = { .names = { "~h.#.mlp.dense_4h_to_h" } },
    };
    arch_read_sizes(c, a);
    memcpy(a->linear, linear, sizeof linear);
    a->prefixes[0] = "transformer.";
    a->prefixes[1] = "";
    a->ignore[0] = "*.rotary_emb.inv_freq";
    read_blocks(c, a);
    arch_set_layer_norm(a, ARCH_VEC_FINAL_NORM, "~ln_f");
    a->ffn = (int32_t)arch_cfg_int(c, "ffn_hidden_size", 4 * (int64_t)a->hidden, 1, 1 << 20);
    a->norm = ARCH_NORM_LAYER;
    a->norm_eps = (float)arch_cfg_num(c, "layer_norm_epsilon", 1e-5, 0.0, 1.0);
    a->act = arch_cfg_act(c, "activation", "gelu");
    a->mlp = ARCH_MLP_PLAIN;
    a->tied_head = arch_cfg_bool(c, "tie_word_embeddings", true);
    arch_cfg_refuse(c, arch_cfg_bool(c, "apply_residual_connection_post_layernorm", false), "apply_residual_connection_post_layernorm");
    bool bias = arch_cfg_bool(c, "bias", false);
    arch_set_attention_bias(a, bias, bias);
    arch_set_mlp_bias(a, bias, bias);
    if (arch_cfg_bool(c, "alibi", false)) {
        /* The bias is added to q.k before it is scaled, and its slopes have always been BF16. */
        a->pos = ARCH_POS_ALIBI;
        a->alibi_scale = a->attn_scale;
        a->alibi_bf16 = true;
    } else {
        arch_read_rope(c, a, a->head_dim, 10000.0);
    }
}
