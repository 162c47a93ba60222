/* Llama 1 to 3.x: RMS norms, grouped heads, SwiGLU, half-rotation rope with every scaling. */
#include "model/arch_int.h"

void arch_fill_llama(struct arch_cfg *c, struct arch *a)
{
    arch_read_sizes(c, a);
    arch_names_llama(a);
    a->ffn = (int32_t)arch_cfg_int(c, "intermediate_size", ARCH_CFG_REQUIRED, 1, 1 << 20);
    a->norm_eps = (float)arch_cfg_num(c, "rms_norm_eps", 1e-6, 0.0, 1.0);
    a->act = arch_cfg_act(c, "hidden_act", "silu");
    a->tied_head = arch_cfg_bool(c, "tie_word_embeddings", false);
    bool attention_bias = arch_cfg_bool(c, "attention_bias", false), mlp_bias = arch_cfg_bool(c, "mlp_bias", false);
    arch_set_attention_bias(a, attention_bias, attention_bias);
    arch_set_mlp_bias(a, mlp_bias, mlp_bias);
    arch_read_rope(c, a, a->head_dim, 10000.0);
}
