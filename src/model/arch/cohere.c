/* Command-R: parallel block under one LayerNorm without bias, rope on neighbouring pairs, scaled logits; the larger one norms each
 * q and k head.  Command-R7B (Cohere2): three windowed layers with rope for each full one without. */
#include "model/arch_int.h"

static void read_cohere(struct arch_cfg *c, struct arch *a)
{
    arch_read_sizes(c, a);
    arch_names_llama(a);
    a->ffn = (int32_t)arch_cfg_int(c, "intermediate_size", ARCH_CFG_REQUIRED, 1, 1 << 20);
    a->norm = ARCH_NORM_LAYER;
    a->norm_eps = (float)arch_cfg_num(c, "layer_norm_eps", 1e-5, 0.0, 1.0);
    a->act = arch_cfg_act(c, "hidden_act", "silu");
    a->residual = ARCH_RES_PARALLEL;
    a->vector[ARCH_VEC_NORM2] = NULL;
    a->pos = ARCH_POS_ROPE_INTERLEAVED;
    a->logit_scale = (float)arch_cfg_num(c, "logit_scale", 0.0625, 1e-9, 1e9);
    a->tied_head = arch_cfg_bool(c, "tie_word_embeddings", true);
    bool bias = arch_cfg_bool(c, "attention_bias", false);
    arch_set_attention_bias(a, bias, bias);
    arch_read_rope(c, a, a->head_dim, 10000.0);
}

void arch_fill_cohere(struct arch_cfg *c, struct arch *a)
{
    read_cohere(c, a);
    if (arch_cfg_bool(c, "use_qk_norm", false)) {
        a->qk_norm = ARCH_QK_NORM_HEAD_LAYER;
        a->vector[ARCH_VEC_Q_NORM] = "~layers.#.self_attn.q_norm";
        a->vector[ARCH_VEC_K_NORM] = "~layers.#.self_attn.k_norm";
    }
}

void arch_fill_cohere2(struct arch_cfg *c, struct arch *a)
{
    read_cohere(c, a);
    int32_t pattern = (int32_t)arch_cfg_int(c, "sliding_window_pattern|_sliding_window_pattern", 4, 1, 1 << 20);
    arch_read_windows(c, a, (int32_t)arch_cfg_int(c, "sliding_window", 4096, 1, 1 << 27), 0);
    for (int i = 0; i < a->n_layers; i++) {
        if (!arch_cfg_get(c, "layer_types") && (i + 1) % pattern == 0)
            a->layer_window[i] = 0;
        a->layer_rope[i] = a->layer_window[i] ? 0 : ARCH_NO_ROPE;
    }
}
