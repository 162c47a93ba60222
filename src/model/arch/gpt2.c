/* GPT-2 (weights stored [in, out]) and its kin GPT-BigCode, the first StarCoder: LayerNorms, learned positions, and a single
 * key-value head for all. */
#include <math.h>
#include <string.h>
#include "model/arch_int.h"

static void read_gpt(struct arch_cfg *c, struct arch *a, const char *act)
{
    static const struct arch_linear_spec linear[ARCH_LIN_COUNT] = {
        [ARCH_LIN_EMBED] = { .names = { "~wte" } },
        [ARCH_LIN_HEAD] = { .names = { "lm_head" } },
        [ARCH_LIN_POSITIONS] = { .names = { "~wpe" } },
        [ARCH_LIN_QKV] = { .names = { "~h.#.attn.c_attn" }, .layout = ARCH_LAYOUT_STACKED, .bias = true },
        [ARCH_LIN_ATTN_OUT] = { .names = { "~h.#.attn.c_proj" }, .bias = true },
        [ARCH_LIN_GATE_UP] = { .names = { "~h.#.mlp.c_fc" }, .bias = true },
        [ARCH_LIN_DOWN] = { .names = { "~h.#.mlp.c_proj" }, .bias = true },
    };
    arch_read_sizes(c, a);
    a->n_kv_heads = a->n_heads;
    memcpy(a->linear, linear, sizeof linear);
    arch_set_layer_norm(a, ARCH_VEC_NORM1, "~h.#.ln_1");
    arch_set_layer_norm(a, ARCH_VEC_NORM2, "~h.#.ln_2");
    arch_set_layer_norm(a, ARCH_VEC_FINAL_NORM, "~ln_f");
    a->prefixes[0] = "transformer.";
    a->prefixes[1] = "";
    a->ignore[0] = "*.attn.bias";
    a->ignore[1] = "*.attn.masked_bias";
    a->pos = ARCH_POS_LEARNED;
    a->n_positions = a->max_len = (int32_t)arch_cfg_int(c, "n_positions|n_ctx", 1024, 1, 1 << 24);
    a->ffn = (int32_t)arch_cfg_int(c, "n_inner", 4 * (int64_t)a->hidden, 1, 1 << 20);
    a->norm = ARCH_NORM_LAYER;
    a->norm_eps = (float)arch_cfg_num(c, "layer_norm_epsilon", 1e-5, 0.0, 1.0);
    a->act = arch_cfg_act(c, "activation_function", act);
    a->mlp = ARCH_MLP_PLAIN;
    a->tied_head = arch_cfg_bool(c, "tie_word_embeddings", true);
    if (!arch_cfg_bool(c, "scale_attn_weights", true))
        a->attn_scale = 1.0f;
}

void arch_fill_gpt2(struct arch_cfg *c, struct arch *a)
{
    read_gpt(c, a, "gelu_new");
    arch_cfg_refuse(c, arch_cfg_bool(c, "scale_attn_by_inverse_layer_idx", false), "scale_attn_by_inverse_layer_idx");
    for (int s = ARCH_LIN_QKV; s <= ARCH_LIN_DOWN; s++)
        a->linear[s].transposed = true;
}

void arch_fill_gpt_bigcode(struct arch_cfg *c, struct arch *a)
{
    read_gpt(c, a, "gelu_pytorch_tanh");
    if (arch_cfg_bool(c, "multi_query", true))
        a->n_kv_heads = 1;
    else
        a->linear[ARCH_LIN_QKV].layout = ARCH_LAYOUT_GROUPED;
}
