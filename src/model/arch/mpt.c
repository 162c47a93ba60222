/* MPT: ALiBi, LayerNorms and linears without biases. */
#include <math.h>
#include <string.h>
#include "model/arch_int.h"

static void read_attention(struct arch_cfg *c, struct arch *a)
{
    const json_t *attn = arch_cfg_get(c, "attn_config");
    struct arch_cfg s = { .json = attn, .e = c->e, .failed = c->failed };
    a->pos = ARCH_POS_ALIBI;
    arch_cfg_refuse(&s, !arch_cfg_bool(&s, "alibi", true), "attn_config.alibi");
    arch_cfg_refuse(&s, arch_cfg_bool(&s, "qk_ln", false), "attn_config.qk_ln");
    arch_cfg_refuse(&s, arch_cfg_bool(&s, "prefix_lm", false), "attn_config.prefix_lm");
    arch_cfg_refuse(&s, arch_cfg_num(&s, "clip_qkv", 0.0, 0.0, 1e9) > 0, "attn_config.clip_qkv");
    arch_cfg_refuse(&s, strcmp(arch_cfg_str(&s, "attn_type", "multihead_attention"), "multihead_attention") != 0, "attn_config.attn_type");
    a->alibi_max_bias = (float)arch_cfg_num(&s, "alibi_bias_max", 8.0, 1e-3, 1e3);
    a->attn_scale = (float)arch_cfg_num(&s, "softmax_scale", 1.0 / sqrt(a->head_dim), 1e-9, 1e9);
    c->failed |= s.failed;
}

void arch_fill_mpt(struct arch_cfg *c, struct arch *a)
{
    static const struct arch_linear_spec linear[ARCH_LIN_COUNT] = {
        [ARCH_LIN_EMBED] = { .names = { "~wte" } },
        [ARCH_LIN_HEAD] = { .names = { "lm_head" } },
        [ARCH_LIN_QKV] = { .names = { "~blocks.#.attn.Wqkv" }, .layout = ARCH_LAYOUT_STACKED },
        [ARCH_LIN_ATTN_OUT] = { .names = { "~blocks.#.attn.out_proj" } },
        [ARCH_LIN_GATE_UP] = { .names = { "~blocks.#.ffn.up_proj" } },
        [ARCH_LIN_DOWN] = { .names = { "~blocks.#.ffn.down_proj" } },
    };
    arch_read_sizes(c, a);
    a->n_kv_heads = a->n_heads;
    memcpy(a->linear, linear, sizeof linear);
    a->vector[ARCH_VEC_NORM1] = "~blocks.#.norm_1";
    a->vector[ARCH_VEC_NORM2] = "~blocks.#.norm_2";
    a->vector[ARCH_VEC_FINAL_NORM] = "~norm_f";
    a->prefixes[0] = "transformer.";
    a->norm = ARCH_NORM_LAYER;
    a->norm_eps = (float)arch_cfg_num(c, "layer_norm_epsilon", 1e-5, 0.0, 1.0);
    a->act = ARCH_ACT_GELU_ERF;
    a->mlp = ARCH_MLP_PLAIN;
    a->ffn = (int32_t)(a->hidden * arch_cfg_num(c, "expansion_ratio", 4.0, 0.1, 16.0));
    a->tied_head = arch_cfg_bool(c, "tie_word_embeddings", true);
    arch_cfg_refuse(c, !arch_cfg_bool(c, "no_bias", true), "no_bias");
    read_attention(c, a);
}
