/* StableLM: Llama's block with LayerNorms and partial rope; StableLM 2 12B runs attention and MLP in parallel under one norm and
 * norms each q and k head. */
#include "model/arch_int.h"

void arch_fill_stablelm(struct arch_cfg *c, struct arch *a)
{
    arch_read_sizes(c, a);
    arch_names_llama(a);
    a->ffn = (int32_t)arch_cfg_int(c, "intermediate_size", ARCH_CFG_REQUIRED, 1, 1 << 20);
    a->norm = ARCH_NORM_LAYER;
    a->norm_eps = (float)arch_cfg_num(c, "layer_norm_eps|norm_eps", 1e-5, 0.0, 1.0);
    a->act = arch_cfg_act(c, "hidden_act", "silu");
    a->tied_head = arch_cfg_bool(c, "tie_word_embeddings", false);
    arch_set_layer_norm(a, ARCH_VEC_NORM1, a->vector[ARCH_VEC_NORM1]);
    arch_set_layer_norm(a, ARCH_VEC_NORM2, a->vector[ARCH_VEC_NORM2]);
    arch_set_layer_norm(a, ARCH_VEC_FINAL_NORM, a->vector[ARCH_VEC_FINAL_NORM]);
    if (arch_cfg_bool(c, "use_parallel_residual", false)) {
        a->residual = ARCH_RES_PARALLEL;
        arch_set_layer_norm(a, ARCH_VEC_NORM2, NULL);
    }
    if (arch_cfg_bool(c, "qk_layernorm", false)) {
        a->qk_norm = ARCH_QK_NORM_HEAD_LAYER;
        a->vector[ARCH_VEC_Q_NORM] = "~layers.#.self_attn.q_layernorm.norms.@";
        a->vector[ARCH_VEC_K_NORM] = "~layers.#.self_attn.k_layernorm.norms.@";
    }
    arch_set_attention_bias(a, arch_cfg_bool(c, "use_qkv_bias", false), false);
    arch_read_rope(c, a, arch_read_rotary_dim(c, a, "partial_rotary_factor|rope_pct", 0.25), 10000.0);
}
