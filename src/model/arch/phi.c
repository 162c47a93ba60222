/* Phi-1, 1.5 and 2: parallel block under one LayerNorm, biases everywhere, partial rope.
 * Phi-3 and 4: Llama's block with fused tensors, longrope. */
#include "model/arch_int.h"

void arch_fill_phi(struct arch_cfg *c, struct arch *a)
{
    arch_read_sizes(c, a);
    arch_names_llama(a);
    a->ffn = (int32_t)arch_cfg_int(c, "intermediate_size", ARCH_CFG_REQUIRED, 1, 1 << 20);
    a->norm = ARCH_NORM_LAYER;
    a->norm_eps = (float)arch_cfg_num(c, "layer_norm_eps", 1e-5, 0.0, 1.0);
    a->act = arch_cfg_act(c, "hidden_act", "gelu_new");
    a->mlp = ARCH_MLP_PLAIN;
    a->residual = ARCH_RES_PARALLEL;
    a->tied_head = arch_cfg_bool(c, "tie_word_embeddings", false);
    arch_cfg_refuse(c, arch_cfg_bool(c, "qk_layernorm", false), "qk_layernorm");
    arch_set_layer_norm(a, ARCH_VEC_NORM1, "~layers.#.input_layernorm");
    arch_set_layer_norm(a, ARCH_VEC_FINAL_NORM, "~final_layernorm");
    a->vector[ARCH_VEC_NORM2] = NULL;
    a->linear[ARCH_LIN_ATTN_OUT].names[0] = "~layers.#.self_attn.dense";
    a->linear[ARCH_LIN_GATE_UP] = (struct arch_linear_spec){ .names = { "~layers.#.mlp.fc1" } };
    a->linear[ARCH_LIN_DOWN].names[0] = "~layers.#.mlp.fc2";
    arch_set_attention_bias(a, true, true);
    arch_set_mlp_bias(a, true, true);
    a->linear[ARCH_LIN_HEAD].bias = true;
    arch_read_rope(c, a, arch_read_rotary_dim(c, a, "partial_rotary_factor", 0.5), 10000.0);
}

void arch_fill_phi3(struct arch_cfg *c, struct arch *a)
{
    arch_read_sizes(c, a);
    arch_names_llama(a);
    a->ffn = (int32_t)arch_cfg_int(c, "intermediate_size", ARCH_CFG_REQUIRED, 1, 1 << 20);
    a->norm_eps = (float)arch_cfg_num(c, "rms_norm_eps", 1e-5, 0.0, 1.0);
    a->act = arch_cfg_act(c, "hidden_act", "silu");
    a->tied_head = arch_cfg_bool(c, "tie_word_embeddings", false);
    a->linear[ARCH_LIN_QKV] = (struct arch_linear_spec){ .names = { "~layers.#.self_attn.qkv_proj" }, .layout = ARCH_LAYOUT_STACKED };
    a->linear[ARCH_LIN_GATE_UP] = (struct arch_linear_spec){ .names = { "~layers.#.mlp.gate_up_proj" }, .layout = ARCH_LAYOUT_STACKED };
    arch_read_windows(c, a, (int32_t)arch_cfg_int(c, "sliding_window", 0, 1, 1 << 27), 0);
    arch_read_rope(c, a, arch_read_rotary_dim(c, a, "partial_rotary_factor", 1.0), 10000.0);
}
