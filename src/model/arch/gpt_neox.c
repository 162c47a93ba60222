/* GPT-NeoX and Pythia: two LayerNorms over the same input, attention and MLP in parallel, partial rope; and GPT-J: one
 * LayerNorm for both, rope on neighbouring pairs. */
#include <string.h>
#include "model/arch_int.h"

void arch_fill_gpt_neox(struct arch_cfg *c, struct arch *a)
{
    static const struct arch_linear_spec linear[ARCH_LIN_COUNT] = {
        [ARCH_LIN_EMBED] = { .names = { "~embed_in" } },
        [ARCH_LIN_HEAD] = { .names = { "embed_out" } },
        [ARCH_LIN_QKV] = { .names = { "~layers.#.attention.query_key_value" }, .layout = ARCH_LAYOUT_GROUPED },
        [ARCH_LIN_ATTN_OUT] = { .names = { "~layers.#.attention.dense" } },
        [ARCH_LIN_GATE_UP] = { .names = { "~layers.#.mlp.dense_h_to_4h" }, .bias = true },
        [ARCH_LIN_DOWN] = { .names = { "~layers.#.mlp.dense_4h_to_h" }, .bias = true },
    };
    arch_read_sizes(c, a);
    a->n_kv_heads = a->n_heads;
    memcpy(a->linear, linear, sizeof linear);
    arch_set_layer_norm(a, ARCH_VEC_NORM1, "~layers.#.input_layernorm");
    arch_set_layer_norm(a, ARCH_VEC_NORM2, "~layers.#.post_attention_layernorm");
    arch_set_layer_norm(a, ARCH_VEC_FINAL_NORM, "~final_layer_norm");
    a->prefixes[0] = "gpt_neox.";
    a->ignore[0] = "*.attention.bias";
    a->ignore[1] = "*.attention.masked_bias";
    a->ignore[2] = "*.rotary_emb.inv_freq";
    a->ffn = (int32_t)arch_cfg_int(c, "intermediate_size", 4 * (int64_t)a->hidden, 1, 1 << 20);
    a->norm = ARCH_NORM_LAYER;
    a->norm_eps = (float)arch_cfg_num(c, "layer_norm_eps", 1e-5, 0.0, 1.0);
    a->act = arch_cfg_act(c, "hidden_act", "gelu");
    a->mlp = ARCH_MLP_PLAIN;
    a->residual = arch_cfg_bool(c, "use_parallel_residual", true) ? ARCH_RES_PARALLEL : ARCH_RES_SEQUENTIAL;
    a->tied_head = arch_cfg_bool(c, "tie_word_embeddings", false);
    bool bias = arch_cfg_bool(c, "attention_bias", true);
    arch_set_attention_bias(a, bias, bias);
    arch_read_rope(c, a, arch_read_rotary_dim(c, a, "rotary_pct|partial_rotary_factor", 0.25), 10000.0);
}

void arch_fill_gptj(struct arch_cfg *c, struct arch *a)
{
    static const struct arch_linear_spec linear[ARCH_LIN_COUNT] = {
        [ARCH_LIN_EMBED] = { .names = { "~wte" } },
        [ARCH_LIN_HEAD] = { .names = { "lm_head" }, .bias = true },
        [ARCH_LIN_QKV] = { .names = { "~h.#.attn.q_proj", "~h.#.attn.k_proj", "~h.#.attn.v_proj" } },
        [ARCH_LIN_ATTN_OUT] = { .names = { "~h.#.attn.out_proj" } },
        [ARCH_LIN_GATE_UP] = { .names = { "~h.#.mlp.fc_in" }, .bias = true },
        [ARCH_LIN_DOWN] = { .names = { "~h.#.mlp.fc_out" }, .bias = true },
    };
    arch_read_sizes(c, a);
    a->n_kv_heads = a->n_heads;
    memcpy(a->linear, linear, sizeof linear);
    arch_set_layer_norm(a, ARCH_VEC_NORM1, "~h.#.ln_1");
    arch_set_layer_norm(a, ARCH_VEC_FINAL_NORM, "~ln_f");
    a->prefixes[0] = "transformer.";
    a->ignore[0] = "*.attn.bias";
    a->ignore[1] = "*.attn.masked_bias";
    a->pos = ARCH_POS_ROPE_INTERLEAVED;
    a->ffn = (int32_t)arch_cfg_int(c, "n_inner", 4 * (int64_t)a->hidden, 1, 1 << 20);
    a->norm = ARCH_NORM_LAYER;
    a->norm_eps = (float)arch_cfg_num(c, "layer_norm_epsilon", 1e-5, 0.0, 1.0);
    a->act = arch_cfg_act(c, "activation_function", "gelu_new");
    a->mlp = ARCH_MLP_PLAIN;
    a->residual = ARCH_RES_PARALLEL;
    a->tied_head = arch_cfg_bool(c, "tie_word_embeddings", false);
    /* null: all dimensions */
    int32_t dim = (int32_t)arch_cfg_int(c, "rotary_dim", arch_cfg_has(c, "rotary_dim") ? a->head_dim : 64, 1, ARCH_MAX_ROPE_DIM);
    arch_read_rope(c, a, dim, 10000.0);
}
