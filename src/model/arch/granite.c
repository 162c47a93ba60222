/* Granite: Llama with four multipliers. */
#include "model/arch_int.h"

void arch_fill_granite(struct arch_cfg *c, struct arch *a)
{
    arch_fill_llama(c, a);
    a->embed_scale = (float)arch_cfg_num(c, "embedding_multiplier", 1.0, 1e-9, 1e9);
    a->residual_scale = (float)arch_cfg_num(c, "residual_multiplier", 1.0, 1e-9, 1e9);
    a->attn_scale = (float)arch_cfg_num(c, "attention_multiplier", 1.0, 1e-9, 1e9);
    a->logit_scale = (float)(1.0 / arch_cfg_num(c, "logits_scaling", 1.0, 1e-9, 1e9));
}
