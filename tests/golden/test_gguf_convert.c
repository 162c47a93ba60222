/* Models of tests/data/tiny turned into GGUF as the format's converters do it: the same logits come from the file as from the
 * folder.  The converter here knows tensor names and what is done to weights, and nothing of the reader. */
#include "golden/golden.h"
#include "model/gguf_build.h"
#include "model/model_files.h"
#include "model/safetensors_int.h"

#define TINY QUIRE_SOURCE_DIR "/tests/data/tiny"
enum { MAX_VALUES = 1 << 16, MAX_NAME = 200 };

/* What is done to weights. */
enum { PERMUTE = 1, PLUS_ONE = 2, UNGROUP = 4, POST_NORMS = 8, CONV = 16, SINGLE_EXPERTS = 32, SPLIT_KV = 64 };

struct source {
    const char *folder, *arch;
    unsigned flags;
    const char *config;        /* keys of config.json to change first: what GGUF cannot say */
};

static const struct source SOURCES[] = {
    { "llama", "llama", PERMUTE, NULL },
    { "llama-llama3", "llama", PERMUTE, NULL },
    { "llama-yarn", "llama", PERMUTE, NULL },
    { "mistral", "llama", PERMUTE, NULL },
    { "mixtral", "llama", PERMUTE, NULL },
    { "mixtral", "llama", PERMUTE | SINGLE_EXPERTS, NULL },
    { "qwen2", "qwen2", 0, "{\"use_sliding_window\":false}" },
    { "qwen3", "qwen3", 0, NULL },
    { "qwen2_moe", "qwen2moe", 0, NULL },
    { "qwen3_moe", "qwen3moe", 0, "{\"norm_topk_prob\":true}" },
    { "gemma", "gemma", PLUS_ONE, NULL },
    { "gemma2", "gemma2", PLUS_ONE | POST_NORMS, "{\"query_pre_attn_scalar\":16}" },
    { "gemma3", "gemma3", PLUS_ONE | POST_NORMS, "{\"query_pre_attn_scalar\":16}" },
    { "phi2", "phi2", 0, NULL },
    { "phi3", "phi3", 0, NULL },
    { "phi3-longrope-long", "phi3", 0, NULL },
    { "phi3-longrope-short", "phi3", 0, NULL },
    { "gpt2", "gpt2", CONV, NULL },
    { "gpt_bigcode", "starcoder", 0, NULL },
    { "starcoder2", "starcoder2", 0, NULL },
    { "falcon-7b", "falcon", UNGROUP, NULL },
    { "falcon-11b", "falcon", UNGROUP, NULL },
    { "falcon-40b", "falcon", UNGROUP, NULL },
    { "bloom", "bloom", UNGROUP, NULL },
    { "mpt", "mpt", 0, "{\"attn_config\":{\"alibi\":true,\"alibi_bias_max\":4}}" },
    { "gpt_neox", "gptneox", UNGROUP, "{\"num_key_value_heads\":4}" },
    { "gpt_neox-sequential", "gptneox", UNGROUP, "{\"num_key_value_heads\":4}" },
    { "cohere", "command-r", 0, NULL },
    { "cohere2", "cohere2", 0, NULL },
    { "granite", "granite", PERMUTE, NULL },
    { "stablelm", "stablelm", 0, NULL },
    { "stablelm-12b", "stablelm", 0, NULL },
    { "olmo2", "olmo2", POST_NORMS, NULL },
    { "smollm3", "smollm3", PERMUTE, "{\"no_rope_layers\":null}" },
    { "deepseek_v2-lite-moe", "deepseek2", 0, "{\"rope_scaling\":{\"type\":\"yarn\",\"factor\":4,\"original_max_position_embeddings\":16,"
                                             "\"mscale\":0.8,\"mscale_all_dim\":0.8}}" },
    { "deepseek_v2-moe", "deepseek2", 0, NULL },
    { "deepseek_v2-moe", "deepseek2", SPLIT_KV, NULL },
};

/* Behind the layer's number; the longest match counts. */
static const struct { const char *from, *to; } NAMES[] = {
    { "self_attn.q_proj", "attn_q" }, { "self_attn.k_proj", "attn_k" }, { "self_attn.v_proj", "attn_v" }, { "self_attn.o_proj", "attn_output" },
    { "self_attn.dense", "attn_output" }, { "self_attn.qkv_proj", "attn_qkv" }, { "self_attn.q_norm", "attn_q_norm" }, { "self_attn.k_norm", "attn_k_norm" },
    { "self_attention.query_key_value", "attn_qkv" }, { "self_attention.dense", "attn_output" }, { "attention.query_key_value", "attn_qkv" },
    { "attention.dense", "attn_output" }, { "attn.c_attn", "attn_qkv" }, { "attn.c_proj", "attn_output" }, { "attn.Wqkv", "attn_qkv" },
    { "attn.out_proj", "attn_output" }, { "mlp.gate_proj", "ffn_gate" }, { "mlp.up_proj", "ffn_up" }, { "mlp.down_proj", "ffn_down" },
    { "mlp.gate_up_proj", "ffn_up" }, { "mlp.fc1", "ffn_up" }, { "mlp.fc2", "ffn_down" }, { "mlp.c_fc", "ffn_up" }, { "mlp.c_proj", "ffn_down" },
    { "mlp.dense_h_to_4h", "ffn_up" }, { "mlp.dense_4h_to_h", "ffn_down" }, { "ffn.up_proj", "ffn_up" }, { "ffn.down_proj", "ffn_down" },
    { "mlp.gate", "ffn_gate_inp" }, { "block_sparse_moe.gate", "ffn_gate_inp" }, { "mlp.shared_expert_gate", "ffn_gate_inp_shexp" },
    { "mlp.shared_expert.gate_proj", "ffn_gate_shexp" }, { "mlp.shared_expert.up_proj", "ffn_up_shexp" }, { "mlp.shared_expert.down_proj", "ffn_down_shexp" },
    { "self_attn.q_a_proj", "attn_q_a" }, { "self_attn.q_a_layernorm", "attn_q_a_norm" }, { "self_attn.q_b_proj", "attn_q_b" },
    { "self_attn.kv_a_proj_with_mqa", "attn_kv_a_mqa" }, { "self_attn.kv_a_layernorm", "attn_kv_a_norm" }, { "self_attn.kv_b_proj", "attn_kv_b" },
    { "mlp.shared_experts.gate_proj", "ffn_gate_shexp" }, { "mlp.shared_experts.up_proj", "ffn_up_shexp" }, { "mlp.shared_experts.down_proj", "ffn_down_shexp" },
    { "input_layernorm", "attn_norm" }, { "post_attention_layernorm", "ffn_norm" }, { "pre_feedforward_layernorm", "ffn_norm" },
    { "post_feedforward_layernorm", "post_ffw_norm" }, { "ln_1", "attn_norm" }, { "ln_2", "ffn_norm" }, { "norm_1", "attn_norm" }, { "norm_2", "ffn_norm" },
    { "ln_attn", "attn_norm_2" }, { "ln_mlp", "attn_norm" },
};
static const struct { const char *from, *to; } TOP[] = {
    { "embed_tokens", "token_embd" }, { "wte", "token_embd" }, { "word_embeddings", "token_embd" }, { "embed_in", "token_embd" }, { "wpe", "position_embd" },
    { "word_embeddings_layernorm", "token_embd_norm" }, { "norm", "output_norm" }, { "ln_f", "output_norm" }, { "norm_f", "output_norm" },
    { "final_layer_norm", "output_norm" }, { "final_layernorm", "output_norm" }, { "lm_head", "output" }, { "embed_out", "output" },
};

struct convert {
    const struct source *s;
    const json_t *config;
    struct safetensors st;
    struct gguf_build g;
    int64_t heads, kv_heads, head_dim;
};

static const json_t *config_any(const json_t *config, const char *a, const char *b, const char *c)
{
    const json_t *v = json_object_get(config, a);
    if ((!v || json_is_null(v)) && b)
        v = json_object_get(config, b);
    if ((!v || json_is_null(v)) && c)
        v = json_object_get(config, c);
    return v && !json_is_null(v) ? v : NULL;
}

static const struct tensor *find(const struct convert *c, const char *name)
{
    for (size_t i = 0; i < c->st.n_tensors; i++)
        if (strcmp(c->st.tensors[i].name, name) == 0)
            return &c->st.tensors[i];
    return NULL;
}

static void values_of(const struct tensor *t, float *out)
{
    size_t n;
    assert_true(tensor_count(t, &n) && n <= MAX_VALUES);
    tensor_to_f32(t->dtype, t->data, n, out);
}

/* Rows of a head, from halves to neighbours: row 2i + h is row i of half h. */
static void permute(float *v, int64_t heads, int64_t rows, int64_t cols)
{
    static float copy[MAX_VALUES];
    int64_t d = rows / heads, half = d / 2;
    memcpy(copy, v, (size_t)(rows * cols) * sizeof *v);
    for (int64_t h = 0; h < heads; h++)
        for (int64_t i = 0; i < d; i++)
            memcpy(v + (h * d + i) * cols, copy + (h * d + i % 2 * half + i / 2) * cols, (size_t)cols * sizeof *v);
}

/* [groups][q heads of a group, k, v][head_dim] to all q, all k, all v. */
static void ungroup(float *v, int64_t heads, int64_t kv, int64_t d, int64_t cols)
{
    static float copy[MAX_VALUES];
    int64_t per = heads / kv, at = 0;
    memcpy(copy, v, (size_t)((heads + 2 * kv) * d * cols) * sizeof *v);
    for (int part = 0; part < 3; part++)
        for (int64_t g = 0; g < kv; g++)
            for (int64_t j = part == 0 ? 0 : per + part - 1; j < (part == 0 ? per : per + part); j++, at += d * cols)
                memcpy(v + at, copy + (g * (per + 2) + j) * d * cols, (size_t)(d * cols) * sizeof *v);
}

static void transpose(float *v, int64_t rows, int64_t cols)
{
    static float copy[MAX_VALUES];
    memcpy(copy, v, (size_t)(rows * cols) * sizeof *v);
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < cols; j++)
            v[j * rows + i] = copy[i * cols + j];
}

static const char *tail_name(const struct convert *c, const char *rest, size_t n)
{
    for (size_t i = 0; i < sizeof NAMES / sizeof *NAMES; i++) {
        if (strlen(NAMES[i].from) != n || strncmp(NAMES[i].from, rest, n) != 0)
            continue;
        if ((c->s->flags & POST_NORMS) && strcmp(NAMES[i].from, "post_attention_layernorm") == 0)
            return "post_attention_norm";
        return NAMES[i].to;
    }
    return NULL;
}

static void add(struct convert *c, const char *name, int n_dims, const int64_t *dims, const float *values)
{
    uint64_t reversed[4];
    size_t n = 1;
    for (int i = 0; i < n_dims; i++) {
        reversed[n_dims - 1 - i] = (uint64_t)dims[i];
        n *= (size_t)dims[i];
    }
    gb_tensor(&c->g, name, n_dims, reversed, 0, values, n * sizeof *values);
}

static void convert_plain(struct convert *c, const struct tensor *t, const char *name)
{
    static float v[MAX_VALUES];
    int64_t dims[2] = { t->dims[0], t->n_dims > 1 ? t->dims[1] : 1 };
    bool norm = strstr(name, "norm") != NULL, qkv = strstr(name, "attn_qkv") != NULL;
    bool q = strstr(name, "attn_q.") != NULL, k = strstr(name, "attn_k.") != NULL;
    int n_dims = t->n_dims;
    values_of(t, v);
    if ((c->s->flags & PERMUTE) && (q || k))
        permute(v, q ? c->heads : c->kv_heads, dims[0], dims[1]);
    if ((c->s->flags & UNGROUP) && qkv)
        ungroup(v, c->heads, c->kv_heads, c->head_dim, dims[1]);
    if ((c->s->flags & CONV) && n_dims == 2 && strncmp(name, "blk.", 4) == 0) {
        transpose(v, dims[0], dims[1]);
        dims[0] = t->dims[1];
        dims[1] = t->dims[0];
    }
    for (int64_t i = 0; (c->s->flags & PLUS_ONE) && norm && i < dims[0]; i++)
        v[i] += 1.0f;
    if (strstr(name, "ffn_gate_inp_shexp")) {
        dims[0] = dims[1];
        n_dims = 1;
    }
    add(c, name, n_dims, dims, v);
}

/* Norms stored head by head, as one tensor. */
static void convert_head_norms(struct convert *c, int layer, const char *which, int64_t heads)
{
    static float v[MAX_VALUES];
    char name[MAX_NAME];
    for (int64_t h = 0; h < heads; h++) {
        snprintf(name, sizeof name, "model.layers.%d.self_attn.%s_layernorm.norms.%d.weight", layer, which, (int)h);
        values_of(find(c, name), v + h * c->head_dim);
    }
    snprintf(name, sizeof name, "blk.%d.attn_%s_norm.weight", layer, which);
    add(c, name, 2, (const int64_t[]){ heads, c->head_dim }, v);
}

/* Experts one behind the other. */
static void convert_experts(struct convert *c, int layer, const char *pattern, const char *which, const char *to)
{
    static float v[MAX_VALUES];
    char name[MAX_NAME];
    int64_t dims[3] = { 0 };
    for (;; dims[0]++) {
        snprintf(name, sizeof name, pattern, layer, (int)dims[0], which);
        const struct tensor *t = find(c, name);
        if (!t)
            break;
        dims[1] = t->dims[0];
        dims[2] = t->dims[1];
        values_of(t, v + dims[0] * dims[1] * dims[2]);
        if (c->s->flags & SINGLE_EXPERTS) {
            snprintf(name, sizeof name, "blk.%d.%s.%d.weight", layer, to, (int)dims[0]);
            add(c, name, 2, dims + 1, v + dims[0] * dims[1] * dims[2]);
        }
    }
    snprintf(name, sizeof name, "blk.%d.%s_exps.weight", layer, to);
    if (dims[0] && !(c->s->flags & SINGLE_EXPERTS))
        add(c, name, 3, dims, v);
}

/* [heads][nope + v][rank] to k, turned round, and v. */
static void convert_kv_b(struct convert *c, const struct tensor *t, int layer)
{
    static float v[MAX_VALUES], k_b[MAX_VALUES], v_b[MAX_VALUES];
    int64_t rank = t->dims[1], nope = json_integer_value(json_object_get(c->config, "qk_nope_head_dim"));
    int64_t v_dim = json_integer_value(json_object_get(c->config, "v_head_dim"));
    char name[MAX_NAME];
    values_of(t, v);
    for (int64_t h = 0; h < c->heads; h++) {
        const float *head = v + h * (nope + v_dim) * rank;
        for (int64_t i = 0; i < nope * rank; i++)
            k_b[(h * rank + i % rank) * nope + i / rank] = head[i];
        memcpy(v_b + h * v_dim * rank, head + nope * rank, (size_t)(v_dim * rank) * sizeof *v);
    }
    snprintf(name, sizeof name, "blk.%d.attn_k_b.weight", layer);
    add(c, name, 3, (const int64_t[]){ c->heads, rank, nope }, k_b);
    snprintf(name, sizeof name, "blk.%d.attn_v_b.weight", layer);
    add(c, name, 3, (const int64_t[]){ c->heads, v_dim, rank }, v_b);
}

static void convert_tensor(struct convert *c, const struct tensor *t)
{
    const char *dot = strrchr(t->name, '.');
    char name[MAX_NAME];
    int layer = -1, used = 0;
    const char *p = NULL;
    static const char *const marks[] = { "layers.", "h.", "blocks." };
    for (size_t i = 0; !p && i < sizeof marks / sizeof *marks; i++) {
        const char *at = strstr(t->name, marks[i]);
        if (at && (at == t->name || at[-1] == '.') && sscanf(at + strlen(marks[i]), "%d.%n", &layer, &used) == 1)
            p = at + strlen(marks[i]) + used;
    }
    if (p) {
        const char *to = tail_name(c, p, (size_t)(dot - p));
        if (!to)
            return;
        if ((c->s->flags & SPLIT_KV) && strcmp(to, "attn_kv_b") == 0) {
            convert_kv_b(c, t, layer);
            return;
        }
        snprintf(name, sizeof name, "blk.%d.%s%s", layer, to, dot);
        convert_plain(c, t, name);
        return;
    }
    const char *from = t->name;
    for (const char *q = t->name; q < dot; q++)
        if (*q == '.')
            from = q + 1;
    for (size_t i = 0; i < sizeof TOP / sizeof *TOP; i++) {
        if (strlen(TOP[i].from) == (size_t)(dot - from) && strncmp(TOP[i].from, from, (size_t)(dot - from)) == 0) {
            snprintf(name, sizeof name, "%s%s", TOP[i].to, dot);
            convert_plain(c, t, name);
        }
    }
}

static void put_u32(struct convert *c, const char *key, const json_t *v)
{
    char full[128];
    snprintf(full, sizeof full, "%s.%s", c->s->arch, key);
    if (v)
        gb_u32(&c->g, full, (uint32_t)json_number_value(v));
}

static void put_f32(struct convert *c, const char *key, const json_t *v)
{
    char full[128];
    snprintf(full, sizeof full, "%s.%s", c->s->arch, key);
    if (v)
        gb_f32(&c->g, full, (float)json_number_value(v));
}

static void put_factors(struct convert *c, const char *name, const json_t *list)
{
    float v[256];
    for (size_t i = 0; i < json_array_size(list); i++)
        v[i] = (float)json_number_value(json_array_get(list, i));
    add(c, name, 1, (const int64_t[]){ (int64_t)json_array_size(list) }, v);
}

/* Llama 3.1: wavelengths above the original length over low are divided by factor, those below it over high stay. */
static void put_llama3(struct convert *c, const json_t *s, double theta)
{
    double factor = json_number_value(json_object_get(s, "factor")), low = json_number_value(json_object_get(s, "low_freq_factor"));
    double high = json_number_value(json_object_get(s, "high_freq_factor")), length = json_number_value(json_object_get(s, "original_max_position_embeddings"));
    float v[256];
    for (int64_t i = 0; i < c->head_dim / 2; i++) {
        double wave = 2 * acos(-1.0) * pow(theta, 2.0 * (double)i / (double)c->head_dim);
        double smooth = (length / wave - low) / (high - low);
        v[i] = wave < length / high ? 1.0f : wave > length / low ? (float)factor : (float)(1.0 / ((1 - smooth) / factor + smooth));
    }
    add(c, "rope_freqs.weight", 1, (const int64_t[]){ c->head_dim / 2 }, v);
}

static void put_rope(struct convert *c)
{
    const json_t *j = c->config, *s = config_any(j, "rope_scaling", NULL, NULL), *type = config_any(s, "rope_type", "type", NULL);
    const json_t *theta = config_any(j, "rope_theta", "rotary_emb_base", NULL), *part = config_any(j, "partial_rotary_factor", "rotary_pct", NULL);
    char key[128];
    put_f32(c, "rope.freq_base", theta);
    put_f32(c, "rope.freq_base_swa", config_any(j, "rope_local_base_freq", NULL, NULL));
    snprintf(key, sizeof key, "%s.rope.dimension_count", c->s->arch);
    double fraction = part ? json_number_value(part) : strcmp(c->s->arch, "phi2") == 0 ? 0.5 : 1.0;
    if (strcmp(c->s->arch, "phi3") != 0 || part)
        gb_u32(&c->g, key, (uint32_t)((double)c->head_dim * fraction));
    if (!s)
        return;
    const char *kind = json_string_value(type);
    if (strcmp(kind, "llama3") == 0) {
        put_llama3(c, s, json_number_value(theta));
    } else if (strcmp(kind, "longrope") == 0) {
        const json_t *original = config_any(j, "original_max_position_embeddings", NULL, NULL);
        double n = json_number_value(original), m = json_number_value(config_any(j, "max_position_embeddings", NULL, NULL));
        put_u32(c, "rope.scaling.original_context_length", original);
        snprintf(key, sizeof key, "%s.rope.scaling.attn_factor", c->s->arch);
        gb_f32(&c->g, key, (float)sqrt(1 + log(m / n) / log(n)));
        put_factors(c, "rope_factors_short.weight", json_object_get(s, "short_factor"));
        put_factors(c, "rope_factors_long.weight", json_object_get(s, "long_factor"));
    } else {
        snprintf(key, sizeof key, "%s.rope.scaling.type", c->s->arch);
        gb_str(&c->g, key, kind);
        put_f32(c, "rope.scaling.factor", json_object_get(s, "factor"));
        put_u32(c, "rope.scaling.original_context_length", json_object_get(s, "original_max_position_embeddings"));
        put_f32(c, "rope.scaling.yarn_beta_fast", json_object_get(s, "beta_fast"));
    }
}

static void put_deepseek(struct convert *c)
{
    const json_t *j = c->config, *s = config_any(j, "rope_scaling", NULL, NULL), *rope = json_object_get(j, "qk_rope_head_dim");
    put_u32(c, "attention.q_lora_rank", config_any(j, "q_lora_rank", NULL, NULL));
    put_u32(c, "attention.kv_lora_rank", json_object_get(j, "kv_lora_rank"));
    int64_t nope = json_integer_value(json_object_get(j, "qk_nope_head_dim")), rank = json_integer_value(json_object_get(j, "kv_lora_rank"));
    bool split = c->s->flags & SPLIT_KV;
    put_u32(c, split ? "attention.value_length_mla" : "attention.value_length", json_object_get(j, "v_head_dim"));
    gb_u32(&c->g, split ? "deepseek2.attention.key_length_mla" : "deepseek2.attention.key_length", (uint32_t)(json_integer_value(rope) + nope));
    if (split) {
        gb_u32(&c->g, "deepseek2.attention.key_length", (uint32_t)(json_integer_value(rope) + rank));
        gb_u32(&c->g, "deepseek2.attention.value_length", (uint32_t)rank);
    }
    put_u32(c, "rope.dimension_count", rope);
    put_f32(c, "rope.freq_base", json_object_get(j, "rope_theta"));
    put_u32(c, "expert_count", json_object_get(j, "n_routed_experts"));
    put_u32(c, "expert_shared_count", json_object_get(j, "n_shared_experts"));
    put_u32(c, "expert_group_count", json_object_get(j, "n_group"));
    put_u32(c, "expert_group_used_count", json_object_get(j, "topk_group"));
    put_u32(c, "leading_dense_block_count", json_object_get(j, "first_k_dense_replace"));
    put_f32(c, "expert_weights_scale", json_object_get(j, "routed_scaling_factor"));
    gb_bool(&c->g, "deepseek2.expert_weights_norm", false);
    if (!s)
        return;
    gb_str(&c->g, "deepseek2.rope.scaling.type", "yarn");
    put_f32(c, "rope.scaling.factor", json_object_get(s, "factor"));
    put_u32(c, "rope.scaling.original_context_length", json_object_get(s, "original_max_position_embeddings"));
    gb_f32(&c->g, "deepseek2.rope.scaling.yarn_log_multiplier", (float)(0.1 * json_number_value(json_object_get(s, "mscale_all_dim"))));
}

static void put_metadata(struct convert *c)
{
    const json_t *j = c->config;
    char key[128];
    gb_str(&c->g, "general.architecture", c->s->arch);
    put_u32(c, "block_count", config_any(j, "num_hidden_layers", "n_layer", "n_layers"));
    put_u32(c, "context_length", config_any(j, "max_position_embeddings", "n_positions", "max_seq_len"));
    put_u32(c, "embedding_length", config_any(j, "hidden_size", "n_embd", "d_model"));
    put_u32(c, "attention.head_count", config_any(j, "num_attention_heads", "n_head", "n_heads"));
    snprintf(key, sizeof key, "%s.attention.head_count_kv", c->s->arch);
    gb_u32(&c->g, key, (uint32_t)c->kv_heads);
    put_u32(c, "attention.key_length", config_any(j, "head_dim", NULL, NULL));
    put_u32(c, "attention.value_length", config_any(j, "head_dim", NULL, NULL));
    put_f32(c, "attention.layer_norm_rms_epsilon", config_any(j, "rms_norm_eps", NULL, NULL));
    put_f32(c, "attention.layer_norm_epsilon", config_any(j, "layer_norm_eps", "layer_norm_epsilon", "norm_epsilon"));
    if (strcmp(c->s->arch, "qwen2") != 0)
        put_u32(c, "attention.sliding_window", config_any(j, "sliding_window", NULL, NULL));
    put_u32(c, "attention.sliding_window_pattern", config_any(j, "sliding_window_pattern", NULL, NULL));
    put_f32(c, "attn_logit_softcapping", config_any(j, "attn_logit_softcapping", NULL, NULL));
    put_f32(c, "final_logit_softcapping", config_any(j, "final_logit_softcapping", NULL, NULL));
    put_f32(c, "logit_scale", config_any(j, "logit_scale", "logits_scaling", NULL));
    put_f32(c, "embedding_scale", config_any(j, "embedding_multiplier", NULL, NULL));
    put_f32(c, "residual_scale", config_any(j, "residual_multiplier", NULL, NULL));
    put_f32(c, "attention.scale", config_any(j, "attention_multiplier", NULL, NULL));
    put_u32(c, "expert_count", config_any(j, "num_local_experts", "num_experts", NULL));
    put_u32(c, "expert_used_count", config_any(j, "num_experts_per_tok", NULL, NULL));
    put_u32(c, "expert_feed_forward_length", config_any(j, "moe_intermediate_size", NULL, NULL));
    const json_t *parallel = config_any(j, "use_parallel_residual", NULL, NULL);
    snprintf(key, sizeof key, "%s.use_parallel_residual", c->s->arch);
    if (parallel)
        gb_bool(&c->g, key, json_is_true(parallel));
    if (strcmp(c->s->arch, "mpt") == 0)
        gb_f32(&c->g, "mpt.attention.max_alibi_bias", (float)json_number_value(config_any(json_object_get(j, "attn_config"), "alibi_bias_max", NULL, NULL)));
    if (strcmp(c->s->arch, "deepseek2") == 0)
        put_deepseek(c);
    else
        put_rope(c);
}

/* The size that converters read or compute: here from the tensor, whatever the config calls it. */
static void put_ffn(struct convert *c)
{
    static const char *const downs[] = { "model.layers.0.mlp.down_proj.weight", "model.layers.1.mlp.down_proj.weight", "model.layers.0.mlp.fc2.weight",
        "model.layers.0.mlp.c_proj.weight", "transformer.h.0.mlp.dense_4h_to_h.weight", "gpt_neox.layers.0.mlp.dense_4h_to_h.weight",
        "transformer.blocks.0.ffn.down_proj.weight", "transformer.h.0.mlp.c_proj.weight", "h.0.mlp.c_proj.weight", "h.0.mlp.dense_4h_to_h.weight",
        "model.layers.0.block_sparse_moe.experts.0.w2.weight", "model.layers.0.mlp.experts.0.down_proj.weight" };
    char key[128];
    snprintf(key, sizeof key, "%s.feed_forward_length", c->s->arch);
    for (size_t i = 0; i < sizeof downs / sizeof *downs; i++) {
        const struct tensor *t = find(c, downs[i]);
        if (!t)
            continue;
        gb_u32(&c->g, key, (uint32_t)t->dims[(c->s->flags & CONV) ? 0 : 1]);
        return;
    }
    fail_msg("%s: no ffn", c->s->folder);
}

static void convert(const struct source *s, const json_t *config, const struct file_view *view, struct buf *out)
{
    struct convert c = { .s = s, .config = config };
    struct err e;
    if (!safetensors_parse(&c.st, view->data, view->size, s->folder, &e))
        fail_msg("%s", e.msg);
    const json_t *dim = config_any(config, "head_dim", NULL, NULL), *kv = config_any(config, "num_key_value_heads", "num_kv_heads", NULL);
    const json_t *hidden = config_any(config, "hidden_size", "n_embd", "d_model");
    c.heads = (int64_t)json_integer_value(config_any(config, "num_attention_heads", "n_head", "n_heads"));
    bool one = strcmp(s->folder, "falcon-7b") == 0 || strcmp(s->folder, "gpt_bigcode") == 0;
    c.kv_heads = one ? 1 : kv ? (int64_t)json_integer_value(kv) : c.heads;
    if (strstr("bloom mpt gpt2 gptneox phi2", s->arch))
        c.kv_heads = c.heads;
    c.head_dim = dim ? (int64_t)json_integer_value(dim) : (int64_t)json_integer_value(hidden) / c.heads;
    put_metadata(&c);
    put_ffn(&c);
    int64_t layers = (int64_t)json_integer_value(config_any(config, "num_hidden_layers", "n_layer", "n_layers"));
    for (size_t i = 0; i < c.st.n_tensors; i++)
        convert_tensor(&c, &c.st.tensors[i]);
    for (int l = 0; l < layers; l++) {
        static const char *const qwen[] = { "gate_proj", "up_proj", "down_proj" }, *const mixtral[] = { "w1", "w3", "w2" };
        static const char *const to[] = { "ffn_gate", "ffn_up", "ffn_down" };
        for (int k = 0; k < 3; k++) {
            convert_experts(&c, l, "model.layers.%d.mlp.experts.%d.%s.weight", qwen[k], to[k]);
            convert_experts(&c, l, "model.layers.%d.block_sparse_moe.experts.%d.%s.weight", mixtral[k], to[k]);
        }
        if (json_is_true(json_object_get(config, "qk_layernorm"))) {
            convert_head_norms(&c, l, "q", c.heads);
            convert_head_norms(&c, l, "k", c.kv_heads);
        }
    }
    gb_finish(&c.g, out);
    safetensors_free(&c.st);
}

static void check_source(const struct source *s)
{
    struct folder f;
    struct err e = { 0 };
    struct file_view view = { 0 };
    struct buf text = { 0 }, out = { 0 };
    char path[600], dir[512];
    int32_t ids[GOLDEN_MAX_IDS];
    folder_make(&f);
    snprintf(dir, sizeof dir, TINY "/%s", s->folder);
    snprintf(path, sizeof path, "%s/config.json", dir);
    json_t *config = json_parse_file(path, 1 << 20, &e), *change = s->config ? json_parse(s->config, strlen(s->config), &e) : NULL;
    assert_non_null(config);
    json_object_update(config, change);
    assert_true(json_write(config, &text));
    folder_write(&f, "config.json", text.data, text.len);
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    if (!file_view_open(&view, path, &e))
        fail_msg("%s", e.msg);
    folder_write(&f, "model.safetensors", view.data, view.size);
    convert(s, config, &view, &out);
    folder_write(&f, "m.gguf", out.data, out.len);
    snprintf(path, sizeof path, "%s/golden.json", dir);
    json_t *golden = json_parse_file(path, 1 << 20, &e);
    int n = golden_ids(json_object_get(golden, "input_ids"), ids);
    n += golden_ids(json_object_get(golden, "greedy_ids"), ids + n);
    struct runner from_folder, from_file;
    snprintf(path, sizeof path, "%s/m.gguf", f.dir);
    runner_open(&from_folder, f.dir, FWD_DTYPE_F32, NULL, 2);
    runner_open(&from_file, path, FWD_DTYPE_F32, NULL, 2);
    float *want = runner_logits(&from_folder, ids, n, 0), *got = runner_logits(&from_file, ids, n, 0);
    double worst = 0;
    for (int i = 0; i < n * from_folder.vocab; i++)
        worst = fmax(worst, fabs((double)want[i] - got[i]));
    printf("%-22s %.1e\n", s->folder, worst);
    if (!(worst <= 2e-5))
        fail_msg("%s: logits differ by %g", s->folder, worst);
    assert_int_equal(model_arch(from_file.m)->max_len, model_arch(from_folder.m)->max_len);
    mem_free(want);
    mem_free(got);
    runner_close(&from_folder);
    runner_close(&from_file);
    json_decref(golden);
    json_decref(config);
    json_decref(change);
    file_view_close(&view);
    buf_free(&text);
    buf_free(&out);
    folder_remove(&f);
}

static void test_converted(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof SOURCES / sizeof *SOURCES; i++)
        check_source(&SOURCES[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_converted) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
