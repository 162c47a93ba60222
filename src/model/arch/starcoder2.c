/* StarCoder2: Llama's names, but LayerNorms, a plain MLP and biases. */
#include "model/arch_int.h"

void arch_fill_starcoder2(struct arch_cfg *c, struct arch *a)
{
    arch_read_sizes(c, a);
    arch_names_llama(a);
    a->ffn = (int32_t)arch_cfg_int(c, "intermediate_size", ARCH_CFG_REQUIRED, 1, 1 << 20);
    a->norm = ARCH_NORM_LAYER;
    a->norm_eps = (float)arch_cfg_num(c, "norm_epsilon", 1e-5, 0.0, 1.0);
    a->act = arch_cfg_act(c, "hidden_act", "gelu_pytorch_tanh");
    a->mlp = ARCH_MLP_PLAIN;
    a->tied_head = arch_cfg_bool(c, "tie_word_embeddings", true);
    arch_set_layer_norm(a, ARCH_VEC_NORM1, a->vector[ARCH_VEC_NORM1]);
    arch_set_layer_norm(a, ARCH_VEC_NORM2, a->vector[ARCH_VEC_NORM2]);
    arch_set_layer_norm(a, ARCH_VEC_FINAL_NORM, a->vector[ARCH_VEC_FINAL_NORM]);
    a->linear[ARCH_LIN_GATE_UP] = (struct arch_linear_spec){ .names = { "~layers.#.mlp.c_fc" } };
    a->linear[ARCH_LIN_DOWN].names[0] = "~layers.#.mlp.c_proj";
    bool bias = arch_cfg_bool(c, "use_bias", true);
    arch_set_attention_bias(a, bias, bias);
    arch_set_mlp_bias(a, bias, bias);
    arch_read_windows(c, a, (int32_t)arch_cfg_int(c, "sliding_window", 0, 1, 1 << 27), 0);
    arch_read_rope(c, a, a->head_dim, 10000.0);
}
