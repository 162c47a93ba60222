/* Mistral: Llama's block with a sliding window; head_dim need not be hidden / heads. */
#include "model/arch_int.h"

void arch_fill_mistral(struct arch_cfg *c, struct arch *a)
{
    arch_cfg_defaults(c, "{\"num_key_value_heads\":8}");
    arch_fill_llama(c, a);
    arch_set_attention_bias(a, false, false);
    arch_set_mlp_bias(a, false, false);
    /* The first release has the key's default; null means none. */
    int32_t window = (int32_t)arch_cfg_int(c, "sliding_window", arch_cfg_has(c, "sliding_window") ? 0 : 4096, 1, 1 << 27);
    arch_read_windows(c, a, window, 0);
}
