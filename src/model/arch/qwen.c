/* Qwen2: Llama's block with biases on q, k and v, and windows on the upper layers if asked.
 * Qwen3: no biases by default, RMS norms on each q and k head. */
#include "model/arch_int.h"

static void read_qwen(struct arch_cfg *c, struct arch *a)
{
    arch_fill_llama(c, a);
    arch_set_mlp_bias(a, false, false);
    int32_t window = 0;
    if (arch_cfg_bool(c, "use_sliding_window", false))
        window = (int32_t)arch_cfg_int(c, "sliding_window", arch_cfg_has(c, "sliding_window") ? 0 : 4096, 1, 1 << 27);
    arch_read_windows(c, a, window, (int32_t)arch_cfg_int(c, "max_window_layers", 28, 0, 1 << 20));
}

void arch_fill_qwen2(struct arch_cfg *c, struct arch *a)
{
    read_qwen(c, a);
    arch_set_attention_bias(a, true, false);
}

void arch_fill_qwen3(struct arch_cfg *c, struct arch *a)
{
    read_qwen(c, a);
    a->qk_norm = ARCH_QK_NORM_HEAD;
    a->vector[ARCH_VEC_Q_NORM] = "~layers.#.self_attn.q_norm";
    a->vector[ARCH_VEC_K_NORM] = "~layers.#.self_attn.k_norm";
}
