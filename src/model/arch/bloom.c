/* BLOOM: ALiBi, a LayerNorm over the embeddings, q, k and v of a head side by side. */
#include <string.h>
#include "model/arch_int.h"

void arch_fill_bloom(struct arch_cfg *c, struct arch *a)
{
    static const struct arch_linear_spec linear[ARCH_LIN_COUNT] = {
        [ARCH_LIN_EMBED] = { .names = { "~word_embeddings" } },
        [ARCH_LIN_HEAD] = { .names = { "lm_head" } },
        [ARCH_LIN_QKV] = { .names = { "~h.#.self_attention.query_key_value" }, .layout = ARCH_LAYOUT_GROUPED, .bias = true },
        [ARCH_LIN_ATTN_OUT] = { .names = { "~h.#.self_attention.dense" }, .bias = true },
        [ARCH_LIN_GATE_UP] = { .names = { "~h.#.mlp.dense_h_to_4h" }, .bias = true },
        [ARCH_LIN_DOWN] = { .names = { "~h.#.mlp.dense_4h_to_h" }, .bias = true },
    };
    arch_read_sizes(c, a);
    a->n_kv_heads = a->n_heads;
    memcpy(a->linear, linear, sizeof linear);
    arch_set_layer_norm(a, ARCH_VEC_EMBED_NORM, "~word_embeddings_layernorm");
    arch_set_layer_norm(a, ARCH_VEC_NORM1, "~h.#.input_layernorm");
    arch_set_layer_norm(a, ARCH_VEC_NORM2, "~h.#.post_attention_layernorm");
    arch_set_layer_norm(a, ARCH_VEC_FINAL_NORM, "~ln_f");
    a->prefixes[0] = "transformer.";
    a->prefixes[1] = "";
    a->pos = ARCH_POS_ALIBI;
    a->ffn = 4 * a->hidden;
    a->norm = ARCH_NORM_LAYER;
    a->norm_eps = (float)arch_cfg_num(c, "layer_norm_epsilon", 1e-5, 0.0, 1.0);
    a->act = ARCH_ACT_GELU_TANH;
    a->mlp = ARCH_MLP_PLAIN;
    a->tied_head = arch_cfg_bool(c, "tie_word_embeddings", true);
    arch_cfg_refuse(c, arch_cfg_bool(c, "apply_residual_connection_post_layernorm", false), "apply_residual_connection_post_layernorm");
}
