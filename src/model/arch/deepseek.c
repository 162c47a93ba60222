/* DeepSeek-V2 and V2-Lite: latent attention, a mixture of many small experts with shared ones in all but the first layers. */
#include <math.h>
#include <string.h>
#include "model/arch_int.h"

static void read_attention(struct arch_cfg *c, struct arch *a)
{
    struct arch_latent *l = &a->latent;
    l->q_rank = (int32_t)arch_cfg_int(c, "q_lora_rank", 0, 1, 1 << 16);
    l->kv_rank = (int32_t)arch_cfg_int(c, "kv_lora_rank", ARCH_CFG_REQUIRED, 1, 1 << 16);
    l->rope_dim = (int32_t)arch_cfg_int(c, "qk_rope_head_dim", ARCH_CFG_REQUIRED, 2, 512);
    l->nope_dim = (int32_t)arch_cfg_int(c, "qk_nope_head_dim", ARCH_CFG_REQUIRED, 1, 512);
    l->v_dim = (int32_t)arch_cfg_int(c, "v_head_dim", ARCH_CFG_REQUIRED, 1, 512);
    l->norm_eps = 1e-6f;
    a->n_kv_heads = a->n_heads;
    a->head_dim = l->rope_dim + l->nope_dim;
    if (!c->failed && l->v_dim > a->head_dim)
        arch_cfg_fail(c, ERR_UNSUPPORTED, "config.json: 'v_head_dim' above the %d dimensions of q and k is not supported", a->head_dim);
    arch_cfg_refuse(c, arch_cfg_bool(c, "attention_bias", false), "attention_bias");
    a->pos = ARCH_POS_ROPE_INTERLEAVED;
    arch_read_rope(c, a, l->rope_dim, 10000.0);
    a->attn_scale = (float)(1.0 / sqrt(a->head_dim));
    /* YaRN's temperature over all dims, where the file asks for it. */
    const json_t *scaling = arch_cfg_get(c, "rope_scaling|rope_parameters");
    double all_dim = json_number_value(json_object_get(scaling, "mscale_all_dim"));
    if (a->rope[0].scaling == ARCH_ROPE_YARN && all_dim > 0 && a->rope[0].factor > 1) {
        double mscale = 0.1 * all_dim * log(a->rope[0].factor) + 1.0;
        a->attn_scale = (float)(mscale * mscale / sqrt(a->head_dim));
    }
}

static void read_experts(struct arch_cfg *c, struct arch *a)
{
    a->n_experts = (int32_t)arch_cfg_int(c, "n_routed_experts", 0, 1, 1024);
    if (!a->n_experts)
        return;
    a->n_experts_used = (int32_t)arch_cfg_int(c, "num_experts_per_tok", ARCH_CFG_REQUIRED, 1, 64);
    a->expert_ffn = (int32_t)arch_cfg_int(c, "moe_intermediate_size", ARCH_CFG_REQUIRED, 1, 1 << 20);
    a->shared_ffn = a->expert_ffn * (int32_t)arch_cfg_int(c, "n_shared_experts", 0, 1, 64);
    const char *method = arch_cfg_str(c, "topk_method", "greedy");
    if (strcmp(method, "group_limited_greedy") == 0) {
        a->n_expert_groups = (int32_t)arch_cfg_int(c, "n_group", ARCH_CFG_REQUIRED, 1, 1024);
        a->n_expert_groups_used = (int32_t)arch_cfg_int(c, "topk_group", ARCH_CFG_REQUIRED, 1, a->n_expert_groups);
    } else {
        arch_cfg_refuse(c, strcmp(method, "greedy") != 0, "topk_method");
    }
    arch_cfg_refuse(c, strcmp(arch_cfg_str(c, "scoring_func", "softmax"), "softmax") != 0, "scoring_func");
    a->experts_renormalize = arch_cfg_bool(c, "norm_topk_prob", false) && a->n_experts_used > 1;
    a->experts_scale = a->experts_renormalize ? 1.0f : (float)arch_cfg_num(c, "routed_scaling_factor", 1.0, 1e-6, 1e6);
    int32_t available = a->n_expert_groups ? a->n_experts / a->n_expert_groups * a->n_expert_groups_used : a->n_experts;
    if (!c->failed && (a->n_experts_used > available || (a->n_expert_groups && a->n_experts % a->n_expert_groups)))
        arch_cfg_fail(c, ERR_FORMAT, "config.json: %d experts a token cannot be chosen from %d experts in %d groups", a->n_experts_used,
                      a->n_experts, a->n_expert_groups);
    int64_t dense = arch_cfg_int(c, "first_k_dense_replace", 0, 0, ARCH_MAX_LAYERS), every = arch_cfg_int(c, "moe_layer_freq", 1, 1, ARCH_MAX_LAYERS);
    for (int i = 0; !c->failed && i < a->n_layers; i++)
        a->layer_moe[i] = i >= dense && i % every == 0;
}

void arch_fill_deepseek_v2(struct arch_cfg *c, struct arch *a)
{
    static const struct arch_linear_spec names[ARCH_LIN_COUNT] = {
        [ARCH_LIN_Q_A] = { .names = { "~layers.#.self_attn.q_a_proj" } },
        [ARCH_LIN_Q] = { .names = { "~layers.#.self_attn.q_proj" }, .layout = ARCH_LAYOUT_LATENT },
        [ARCH_LIN_KV_A] = { .names = { "~layers.#.self_attn.kv_a_proj_with_mqa" } },
        [ARCH_LIN_KV_B] = { .names = { "~layers.#.self_attn.kv_b_proj" }, .layout = ARCH_LAYOUT_LATENT },
        [ARCH_LIN_ROUTER] = { .names = { "~layers.#.mlp.gate" } },
        [ARCH_LIN_EXPERT_GATE_UP] = { .names = { "~layers.#.mlp.experts.%.gate_proj", "~layers.#.mlp.experts.%.up_proj" } },
        [ARCH_LIN_EXPERT_DOWN] = { .names = { "~layers.#.mlp.experts.%.down_proj" } },
        [ARCH_LIN_SHARED_GATE_UP] = { .names = { "~layers.#.mlp.shared_experts.gate_proj", "~layers.#.mlp.shared_experts.up_proj" } },
        [ARCH_LIN_SHARED_DOWN] = { .names = { "~layers.#.mlp.shared_experts.down_proj" } },
    };
    arch_read_sizes(c, a);
    arch_names_llama(a);
    memcpy(a->linear + ARCH_LIN_Q_A, names + ARCH_LIN_Q_A, (ARCH_LIN_COUNT - ARCH_LIN_Q_A) * sizeof *names);
    a->linear[ARCH_LIN_QKV].names[0] = NULL;
    a->linear[ARCH_LIN_ATTN_OUT].layout = ARCH_LAYOUT_LATENT;
    a->ffn = (int32_t)arch_cfg_int(c, "intermediate_size", ARCH_CFG_REQUIRED, 1, 1 << 20);
    a->norm_eps = (float)arch_cfg_num(c, "rms_norm_eps", 1e-6, 0.0, 1.0);
    a->act = arch_cfg_act(c, "hidden_act", "silu");
    a->tied_head = arch_cfg_bool(c, "tie_word_embeddings", false);
    read_attention(c, a);
    read_experts(c, a);
    a->vector[ARCH_VEC_KV_A_NORM] = "~layers.#.self_attn.kv_a_layernorm";
    if (a->latent.q_rank) {
        a->vector[ARCH_VEC_Q_A_NORM] = "~layers.#.self_attn.q_a_layernorm";
        a->linear[ARCH_LIN_Q].names[0] = "~layers.#.self_attn.q_b_proj";
    } else {
        a->linear[ARCH_LIN_Q_A].names[0] = NULL;
    }
    if (!a->shared_ffn)
        a->linear[ARCH_LIN_SHARED_GATE_UP].names[0] = a->linear[ARCH_LIN_SHARED_DOWN].names[0] = NULL;
    if (!a->n_experts)
        for (int s = ARCH_LIN_ROUTER; s < ARCH_LIN_COUNT; s++)
            a->linear[s].names[0] = NULL;
}
