/* GGUF metadata as a config.json, so that one description of an architecture serves both.
 * Keys: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include "model/gguf_int.h"

struct conv {
    struct gguf_files *f;
    struct gguf *g;
    const char *arch;              /* general.architecture, which most keys begin with */
    json_t *out;
    struct err *e;
    bool failed;
};

static const char *full_key(const struct conv *c, const char *key, char buf[128])
{
    snprintf(buf, 128, "%.40s.%.80s", c->arch, key);
    return buf;
}

static void put(struct conv *c, const char *key, json_t *v)
{
    if (c->failed) {
        json_decref(v);
        return;
    }
    if (!v || json_object_set_new(c->out, key, v) != 0)
        c->failed = !err_set(c->e, ERR_NOMEM, "%s: no memory for its metadata", c->g->file);
}

/* "a|b": one value under several names, as the families spell it. */
static void put_all(struct conv *c, const char *keys, json_t *v)
{
    for (const char *p = keys; *p;) {
        char key[64];
        size_t n = strcspn(p, "|");
        snprintf(key, sizeof key, "%.*s", (int)n, p);
        put(c, key, json_incref(v));
        p += n + (p[n] != 0);
    }
    json_decref(v);
}

static bool has(const struct conv *c, const char *key)
{
    char buf[128];
    return gguf_find(c->g, full_key(c, key, buf)) != NULL;
}

static bool has_tensor(const struct conv *c, const char *name)
{
    return gguf_files_find(c->f, name) != NULL;
}

/* A whole number, or an array of equal ones (a value a layer). */
static int64_t get_int(struct conv *c, const char *key, int64_t dflt)
{
    char buf[128];
    int64_t v = dflt;
    const struct gguf_kv *kv = gguf_find(c->g, full_key(c, key, buf));
    if (c->failed || !kv)
        return dflt;
    if (!kv->is_array) {
        c->failed = !gguf_get_i64(c->g, buf, &v, c->e);
        return v;
    }
    double first = 0, x;
    for (uint64_t i = 0; !c->failed && i < kv->n; i++) {
        if (!gguf_number_at(kv, i, &x) || x != floor(x) || fabs(x) > 1e15)
            c->failed = !err_set(c->e, ERR_FORMAT, "%s: %s must be whole numbers", c->g->file, buf);
        else if (i > 0 && x != first)
            c->failed = !err_set(c->e, ERR_UNSUPPORTED, "%s: %s differs between layers, which is not supported", c->g->file, buf);
        first = x;
    }
    return c->failed || kv->n == 0 ? dflt : (int64_t)first;
}

static double get_num(struct conv *c, const char *key, double dflt)
{
    char buf[128];
    double v = dflt;
    if (!c->failed)
        c->failed = !gguf_get_f64(c->g, full_key(c, key, buf), &v, c->e);
    return v;
}

static bool get_bool(struct conv *c, const char *key, bool dflt)
{
    char buf[128];
    bool v = dflt;
    if (!c->failed)
        c->failed = !gguf_get_bool(c->g, full_key(c, key, buf), &v, c->e);
    return v;
}

static const char *get_str(struct conv *c, const char *key, const char *dflt)
{
    char buf[128];
    const char *v = dflt;
    if (!c->failed)
        c->failed = !gguf_get_str(c->g, full_key(c, key, buf), &v, c->e);
    return v;
}

static void copy_int(struct conv *c, const char *key, const char *as)
{
    if (has(c, key))
        put_all(c, as, json_integer(get_int(c, key, 0)));
}

static void copy_num(struct conv *c, const char *key, const char *as)
{
    if (has(c, key))
        put_all(c, as, json_real(get_num(c, key, 0)));
}

static void need(struct conv *c, const char *key)
{
    char buf[128];
    if (!c->failed && !has(c, key))
        c->failed = !err_set(c->e, ERR_FORMAT, "%s: metadata %s is missing", c->g->file, full_key(c, key, buf));
}

static int64_t head_dim(struct conv *c)
{
    int64_t heads = get_int(c, "attention.head_count", 1);
    return get_int(c, "attention.key_length", heads > 0 ? get_int(c, "embedding_length", 0) / heads : 0);
}

static int64_t vocab_size(struct conv *c)
{
    const struct tensor *t = gguf_files_find(c->f, "token_embd.weight");
    const struct gguf_kv *tokens = gguf_find(c->g, "tokenizer.ggml.tokens");
    if (t && t->n_dims == 2)
        return t->dims[0];
    return get_int(c, "vocab_size", tokens && tokens->is_array && tokens->n < INT32_MAX ? (int64_t)tokens->n : 0);
}

/* Every n-th layer is a full one; or a flag a layer, set where there is a window. */
static void put_window_pattern(struct conv *c)
{
    char buf[128];
    const struct gguf_kv *kv = gguf_find(c->g, full_key(c, "attention.sliding_window_pattern", buf));
    if (!kv || !kv->is_array) {
        copy_int(c, "attention.sliding_window_pattern", "sliding_window_pattern");
        return;
    }
    json_t *types = json_array();
    for (uint64_t i = 0; i < kv->n && i < ARCH_MAX_LAYERS; i++) {
        double slides = 0;
        gguf_number_at(kv, i, &slides);
        json_array_append_new(types, json_string(slides != 0 ? "sliding_attention" : "full_attention"));
    }
    put(c, "layer_types", types);
}

static void put_sizes(struct conv *c)
{
    need(c, "embedding_length");
    need(c, "block_count");
    need(c, "attention.head_count");
    copy_int(c, "embedding_length", "hidden_size");
    copy_int(c, "block_count", "num_hidden_layers");
    copy_int(c, "attention.head_count", "num_attention_heads");
    copy_int(c, "attention.head_count_kv", "num_key_value_heads|num_kv_heads");
    copy_int(c, "context_length", "max_position_embeddings|n_positions");
    copy_int(c, "feed_forward_length", "intermediate_size|n_inner|ffn_hidden_size");
    copy_int(c, "attention.sliding_window", "sliding_window");
    put_window_pattern(c);
    put(c, "vocab_size", json_integer(vocab_size(c)));
    int64_t dim = head_dim(c), v_dim = get_int(c, "attention.value_length", dim);
    put(c, "head_dim", json_integer(dim));
    if (!c->failed && v_dim != dim && strcmp(c->arch, "deepseek2") != 0)
        c->failed = !err_set(c->e, ERR_UNSUPPORTED, "%s: heads of %lld dimensions for keys and %lld for values are not supported", c->g->file,
                             (long long)dim, (long long)v_dim);
    /* Some files have both, whichever norm the architecture uses. */
    const char *rms = "attention.layer_norm_rms_epsilon", *layer = "attention.layer_norm_epsilon";
    copy_num(c, has(c, rms) ? rms : layer, "rms_norm_eps");
    copy_num(c, has(c, layer) ? layer : rms, "layer_norm_eps|layer_norm_epsilon|norm_epsilon");
    put(c, "tie_word_embeddings", json_boolean(!has_tensor(c, "output.weight")));
}

static void put_rope(struct conv *c)
{
    int64_t head = head_dim(c), dim = get_int(c, "rope.dimension_count", head);
    copy_num(c, "rope.freq_base", "rope_theta");
    /* A half more, so that the product with head_dim, rounded down, is dim again. */
    put_all(c, "partial_rotary_factor|rotary_pct", json_real(head > 0 && dim < head ? ((double)dim + 0.5) / (double)head : 1.0));
    const char *type = get_str(c, "rope.scaling.type", has(c, "rope.scale_linear") ? "linear" : "none");
    double factor = get_num(c, "rope.scaling.factor", get_num(c, "rope.scale_linear", 1.0));
    if (c->failed || strcmp(type, "none") == 0 || strcmp(type, "longrope") == 0 || (strcmp(type, "linear") == 0 && factor == 1.0))
        return;
    json_t *scaling = json_pack("{s:s,s:f}", "rope_type", type, "factor", factor);
    if (scaling && has(c, "rope.scaling.original_context_length"))
        json_object_set_new(scaling, "original_max_position_embeddings", json_integer(get_int(c, "rope.scaling.original_context_length", 0)));
    static const struct { const char *key, *as; } betas[] = { { "rope.scaling.yarn_beta_fast", "beta_fast" }, { "rope.scaling.yarn_beta_slow", "beta_slow" } };
    for (size_t i = 0; scaling && i < sizeof betas / sizeof *betas; i++)
        if (has(c, betas[i].key))
            json_object_set_new(scaling, betas[i].as, json_real(get_num(c, betas[i].key, 0)));
    put(c, "rope_scaling", scaling);
}

/* Tokens that end a turn, which older files do not name by a key. */
static void add_turn_ends(struct conv *c, json_t *eos)
{
    static const char *const names[] = { "<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|eom_id|>", "<|END_OF_TURN_TOKEN|>", "<|endoftext|>" };
    const struct gguf_kv *tokens = gguf_find(c->g, "tokenizer.ggml.tokens"), *types = gguf_find(c->g, "tokenizer.ggml.token_type");
    if (!tokens || !types || !tokens->is_array || !types->is_array || tokens->type != GGUF_STRING || types->n != tokens->n)
        return;
    const unsigned char *at = tokens->data;
    for (uint64_t i = 0; i < tokens->n && i < INT32_MAX; i++) {
        const char *s;
        size_t len;
        double type;
        gguf_next_string(&at, &s, &len);
        if (len < 7 || s[0] != '<' || !gguf_number_at(types, i, &type) || type != 3)
            continue;
        for (size_t k = 0; k < sizeof names / sizeof *names; k++)
            if (strlen(names[k]) == len && memcmp(names[k], s, len) == 0)
                json_array_append_new(eos, json_integer((json_int_t)i));
    }
}

static void put_token_ids(struct conv *c)
{
    static const char *const ends[] = { "tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id" };
    int64_t id = -1;
    json_t *eos = json_array();
    for (size_t i = 0; !c->failed && i < sizeof ends / sizeof *ends; i++, id = -1) {
        c->failed = !gguf_get_i64(c->g, ends[i], &id, c->e);
        if (id >= 0 && id < INT32_MAX)
            json_array_append_new(eos, json_integer(id));
    }
    add_turn_ends(c, eos);
    put(c, "eos_token_id", eos);
    if (!c->failed)
        c->failed = !gguf_get_i64(c->g, "tokenizer.ggml.bos_token_id", &id, c->e);
    if (id >= 0 && id < INT32_MAX)
        put(c, "bos_token_id", json_integer(id));
}

/* Rows of a layer's expert: what an older file does not say. */
static int64_t expert_rows(struct conv *c, const char *tensor)
{
    const struct tensor *t = gguf_files_find(c->f, tensor);
    return t && t->n_dims == 2 ? t->dims[0] : 0;
}

static void put_experts(struct conv *c)
{
    if (get_int(c, "expert_count", 0) == 0)
        return;
    copy_int(c, "expert_count", "num_local_experts|num_experts|n_routed_experts");
    copy_int(c, "expert_used_count", "num_experts_per_tok");
    int64_t ffn = get_int(c, "expert_feed_forward_length", expert_rows(c, "blk.0.ffn_gate_exps.0.weight"));
    int64_t shared = get_int(c, "expert_shared_feed_forward_length", expert_rows(c, "blk.0.ffn_gate_shexp.weight"));
    if (ffn > 0)
        put(c, "moe_intermediate_size", json_integer(ffn));
    if (shared > 0)
        put(c, "shared_expert_intermediate_size", json_integer(shared));
}

/* ---- what only some families say ---- */

static void more_none(struct conv *c)
{
    (void)c;
}

static void more_llama(struct conv *c)
{
    if (get_int(c, "expert_count", 0) > 0)
        put(c, "architectures", json_pack("[s]", "MixtralForCausalLM"));
    else if (has(c, "attention.sliding_window"))
        put(c, "architectures", json_pack("[s]", "MistralForCausalLM"));
    if (!has(c, "attention.head_count_kv"))
        copy_int(c, "attention.head_count", "num_key_value_heads");
}

static void more_qwen3moe(struct conv *c)
{
    put(c, "norm_topk_prob", json_true());
}

/* The scale of q.k is not stored: the largest model of each family has its own. */
static void more_gemma2(struct conv *c)
{
    bool gemma3 = strcmp(c->arch, "gemma3") == 0, largest = get_int(c, "block_count", 0) == (gemma3 ? 62 : 46);
    int64_t heads = get_int(c, "attention.head_count", 1), dim = head_dim(c);
    if (largest && heads > 0)
        dim = get_int(c, "embedding_length", 0) / heads;
    put(c, "query_pre_attn_scalar", json_real((double)dim));
    copy_num(c, "attn_logit_softcapping", "attn_logit_softcapping");
    copy_num(c, "final_logit_softcapping", "final_logit_softcapping");
    copy_num(c, "rope.freq_base_swa", "rope_local_base_freq");
}

static void more_phi3(struct conv *c)
{
    copy_int(c, "rope.scaling.original_context_length", "original_max_position_embeddings");
}

static void more_falcon(struct conv *c)
{
    bool two = has_tensor(c, "blk.0.attn_norm_2.weight");
    put(c, "new_decoder_architecture", json_boolean(two || get_int(c, "attention.head_count_kv", 1) > 1));
    put(c, "num_ln_in_parallel_attn", json_integer(two ? 2 : 1));
}

static void more_starcoder(struct conv *c)
{
    put(c, "multi_query", json_boolean(get_int(c, "attention.head_count_kv", 1) == 1));
}

static void more_gptneox(struct conv *c)
{
    put(c, "use_parallel_residual", json_boolean(get_bool(c, "use_parallel_residual", true)));
}

static void more_stablelm(struct conv *c)
{
    put(c, "use_parallel_residual", json_boolean(get_bool(c, "use_parallel_residual", false)));
    put(c, "qk_layernorm", json_boolean(has_tensor(c, "blk.0.attn_q_norm.weight")));
}

static void more_command_r(struct conv *c)
{
    put(c, "use_qk_norm", json_boolean(has_tensor(c, "blk.0.attn_q_norm.weight")));
    copy_num(c, "logit_scale", "logit_scale");
}

static void more_granite(struct conv *c)
{
    int64_t dim = head_dim(c);
    put(c, "attention_multiplier", json_real(get_num(c, "attention.scale", dim > 0 ? 1.0 / sqrt((double)dim) : 1.0)));
    copy_num(c, "embedding_scale", "embedding_multiplier");
    copy_num(c, "residual_scale", "residual_multiplier");
    copy_num(c, "logit_scale", "logits_scaling");
}

static void more_mpt(struct conv *c)
{
    put(c, "attn_config", json_pack("{s:b,s:f,s:f}", "alibi", get_num(c, "attention.max_alibi_bias", 0.0) > 0, "alibi_bias_max",
                                    get_num(c, "attention.max_alibi_bias", 8.0), "clip_qkv", get_num(c, "attention.clamp_kqv", 0.0)));
}

/* Latent attention: key_length and value_length are those of whole heads, unless those have keys of their own; version 2 has no other way to score experts than softmax. */
static void more_deepseek2(struct conv *c)
{
    int64_t rope = get_int(c, "rope.dimension_count", 0), key = get_int(c, "attention.key_length_mla", head_dim(c));
    copy_int(c, "attention.q_lora_rank", "q_lora_rank");
    copy_int(c, "attention.kv_lora_rank", "kv_lora_rank");
    copy_int(c, has(c, "attention.value_length_mla") ? "attention.value_length_mla" : "attention.value_length", "v_head_dim");
    put(c, "qk_rope_head_dim", json_integer(rope));
    put(c, "qk_nope_head_dim", json_integer(key - rope));
    copy_int(c, "expert_shared_count", "n_shared_experts");
    copy_int(c, "expert_group_count", "n_group");
    copy_int(c, "expert_group_used_count", "topk_group");
    if (has(c, "expert_group_count"))
        put(c, "topk_method", json_string("group_limited_greedy"));
    copy_int(c, "leading_dense_block_count", "first_k_dense_replace");
    copy_num(c, "expert_weights_scale", "routed_scaling_factor");
    put(c, "norm_topk_prob", json_boolean(get_bool(c, "expert_weights_norm", false)));
    if (get_int(c, "expert_gating_func", 1) != 1)
        put(c, "scoring_func", json_string("sigmoid"));
    /* Stored is what the logarithm of the factor is multiplied by. */
    json_t *scaling = json_object_get(c->out, "rope_scaling");
    if (scaling && has(c, "rope.scaling.yarn_log_multiplier")) {
        double mscale = get_num(c, "rope.scaling.yarn_log_multiplier", 0) * 10.0;
        json_object_set_new(scaling, "mscale", json_real(mscale));
        json_object_set_new(scaling, "mscale_all_dim", json_real(mscale));
    }
}

static const struct family { const char *arch, *hf; void (*more)(struct conv *); } families[] = {
    { "llama", "LlamaForCausalLM", more_llama },
    { "internlm2", "LlamaForCausalLM", more_none },
    { "qwen2", "Qwen2ForCausalLM", more_none },
    { "qwen2moe", "Qwen2MoeForCausalLM", more_none },
    { "qwen3", "Qwen3ForCausalLM", more_none },
    { "qwen3moe", "Qwen3MoeForCausalLM", more_qwen3moe },
    { "gemma", "GemmaForCausalLM", more_none },
    { "gemma2", "Gemma2ForCausalLM", more_gemma2 },
    { "gemma3", "Gemma3ForCausalLM", more_gemma2 },
    { "phi2", "PhiForCausalLM", more_none },
    { "phi3", "Phi3ForCausalLM", more_phi3 },
    { "gpt2", "GPT2LMHeadModel", more_none },
    { "starcoder", "GPTBigCodeForCausalLM", more_starcoder },
    { "starcoder2", "Starcoder2ForCausalLM", more_none },
    { "falcon", "FalconForCausalLM", more_falcon },
    { "bloom", "BloomForCausalLM", more_none },
    { "mpt", "MptForCausalLM", more_mpt },
    { "gptneox", "GPTNeoXForCausalLM", more_gptneox },
    { "command-r", "CohereForCausalLM", more_command_r },
    { "cohere2", "Cohere2ForCausalLM", more_command_r },
    { "granite", "GraniteForCausalLM", more_granite },
    { "stablelm", "StableLmForCausalLM", more_stablelm },
    { "olmo2", "Olmo2ForCausalLM", more_none },
    { "smollm3", "SmolLM3ForCausalLM", more_none },
    { "deepseek2", "DeepseekV2ForCausalLM", more_deepseek2 },
};

static const struct family *choose_family(struct conv *c)
{
    struct buf names = { 0 };
    buf_init(&names, 400);
    for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
        if (strcmp(families[i].arch, c->arch) == 0) {
            buf_free(&names);
            return &families[i];
        }
        buf_printf(&names, "%s%s", i ? ", " : "", families[i].arch);
    }
    err_set(c->e, ERR_UNSUPPORTED, "%s: architecture \"%.40s\" is not supported; supported are %s", c->g->file, c->arch, names.data ? names.data : "?");
    buf_free(&names);
    return NULL;
}

json_t *gguf_config(struct gguf_files *f, struct err *e)
{
    struct conv c = { .f = f, .g = &f->files[0].g, .e = e };
    if (!gguf_get_str(c.g, "general.architecture", &c.arch, e))
        return NULL;
    if (!c.arch) {
        err_set(e, ERR_FORMAT, "%s: metadata general.architecture is missing", c.g->file);
        return NULL;
    }
    const struct family *family = choose_family(&c);
    c.out = family ? json_object() : NULL;
    if (!c.out)
        return NULL;
    put(&c, "architectures", json_pack("[s]", family->hf));
    put(&c, "model_type", json_string(c.arch));
    put_sizes(&c);
    put_rope(&c);
    put_token_ids(&c);
    put_experts(&c);
    family->more(&c);
    if (!c.failed)
        return c.out;
    json_decref(c.out);
    return NULL;
}
