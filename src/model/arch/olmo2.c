/* OLMo 2: Llama's block with norms after the sub-layers instead of before, and over the whole of q and of k. */
#include "model/arch_int.h"

void arch_fill_olmo2(struct arch_cfg *c, struct arch *a)
{
    arch_fill_llama(c, a);
    arch_set_mlp_bias(a, false, false);
    a->norm_eps = (float)arch_cfg_num(c, "rms_norm_eps", 1e-5, 0.0, 1.0);
    a->vector[ARCH_VEC_NORM1] = a->vector[ARCH_VEC_NORM2] = NULL;
    a->vector[ARCH_VEC_POST_ATTN_NORM] = "~layers.#.post_attention_layernorm";
    a->vector[ARCH_VEC_POST_MLP_NORM] = "~layers.#.post_feedforward_layernorm";
    a->qk_norm = ARCH_QK_NORM_ROW;
    a->vector[ARCH_VEC_Q_NORM] = "~layers.#.self_attn.q_norm";
    a->vector[ARCH_VEC_K_NORM] = "~layers.#.self_attn.k_norm";
}
