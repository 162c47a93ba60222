/* Mixtures of experts: Mixtral (eight large ones in every layer), Qwen2-MoE (many small ones and one that all tokens use), Qwen3-MoE. */
#include "model/arch_int.h"

static void read_experts(struct arch_cfg *c, struct arch *a, const char *count_keys, const char *ffn_keys, int64_t default_used)
{
    a->n_experts = (int32_t)arch_cfg_int(c, count_keys, ARCH_CFG_REQUIRED, 1, 1024);
    a->n_experts_used = (int32_t)arch_cfg_int(c, "num_experts_per_tok", default_used, 1, 64);
    a->expert_ffn = (int32_t)arch_cfg_int(c, ffn_keys, ARCH_CFG_REQUIRED, 1, 1 << 20);
    if (!c->failed && a->n_experts_used > a->n_experts)
        arch_cfg_fail(c, ERR_FORMAT, "config.json: %d experts a token, but there are %d", a->n_experts_used, a->n_experts);
}

void arch_fill_mixtral(struct arch_cfg *c, struct arch *a)
{
    arch_cfg_defaults(c, "{\"num_key_value_heads\":8,\"rms_norm_eps\":1e-5,\"rope_theta\":1000000.0}");
    arch_fill_llama(c, a);
    arch_set_attention_bias(a, false, false);
    read_experts(c, a, "num_local_experts", "intermediate_size", 2);
    a->experts_renormalize = true;
    a->linear[ARCH_LIN_ROUTER] = (struct arch_linear_spec){ .names = { "~layers.#.block_sparse_moe.gate" } };
    a->linear[ARCH_LIN_EXPERT_GATE_UP] = (struct arch_linear_spec){
        .names = { "~layers.#.block_sparse_moe.experts.%.w1", "~layers.#.block_sparse_moe.experts.%.w3" } };
    a->linear[ARCH_LIN_EXPERT_DOWN] = (struct arch_linear_spec){ .names = { "~layers.#.block_sparse_moe.experts.%.w2" } };
    for (int i = 0; i < a->n_layers; i++)
        a->layer_moe[i] = true;
    arch_read_windows(c, a, (int32_t)arch_cfg_int(c, "sliding_window", 0, 1, 1 << 27), 0);
}

/* Every decoder_sparse_step-th layer, except those listed in mlp_only_layers. */
static void read_sparse_layers(struct arch_cfg *c, struct arch *a)
{
    int64_t step = arch_cfg_int(c, "decoder_sparse_step", 1, 1, 1 << 20);
    const json_t *dense = arch_cfg_get(c, "mlp_only_layers");
    for (int i = 0; !c->failed && i < a->n_layers; i++)
        a->layer_moe[i] = (i + 1) % step == 0;
    for (size_t i = 0; !c->failed && i < json_array_size(dense); i++) {
        json_int_t l = json_integer_value(json_array_get(dense, i));
        if (l >= 0 && l < a->n_layers)
            a->layer_moe[l] = false;
    }
    a->linear[ARCH_LIN_ROUTER] = (struct arch_linear_spec){ .names = { "~layers.#.mlp.gate" } };
    a->linear[ARCH_LIN_EXPERT_GATE_UP] = (struct arch_linear_spec){ .names = { "~layers.#.mlp.experts.%.gate_proj", "~layers.#.mlp.experts.%.up_proj" } };
    a->linear[ARCH_LIN_EXPERT_DOWN] = (struct arch_linear_spec){ .names = { "~layers.#.mlp.experts.%.down_proj" } };
    a->experts_renormalize = arch_cfg_bool(c, "norm_topk_prob", false);
}

void arch_fill_qwen2_moe(struct arch_cfg *c, struct arch *a)
{
    arch_fill_qwen2(c, a);
    read_experts(c, a, "num_experts", "moe_intermediate_size", 4);
    read_sparse_layers(c, a);
    a->shared_ffn = (int32_t)arch_cfg_int(c, "shared_expert_intermediate_size", ARCH_CFG_REQUIRED, 1, 1 << 20);
    a->shared_gated = true;
    a->linear[ARCH_LIN_ROUTER].names[1] = "~layers.#.mlp.shared_expert_gate";
    a->linear[ARCH_LIN_SHARED_GATE_UP] = (struct arch_linear_spec){
        .names = { "~layers.#.mlp.shared_expert.gate_proj", "~layers.#.mlp.shared_expert.up_proj" } };
    a->linear[ARCH_LIN_SHARED_DOWN] = (struct arch_linear_spec){ .names = { "~layers.#.mlp.shared_expert.down_proj" } };
}

void arch_fill_qwen3_moe(struct arch_cfg *c, struct arch *a)
{
    arch_fill_qwen3(c, a);
    read_experts(c, a, "num_experts", "moe_intermediate_size", 8);
    read_sparse_layers(c, a);
}
