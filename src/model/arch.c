#include <math.h>
#include <stdio.h>
#include <string.h>
#include "base/buf.h"
#include "model/arch_int.h"
#include "tensor/tensor.h"

int arch_linear_shape(const struct arch *a, enum arch_linear slot, int64_t rows[3], int64_t *cols)
{
    int64_t q = (int64_t)a->n_heads * a->head_dim, kv = (int64_t)a->n_kv_heads * a->head_dim;
    *cols = a->hidden;
    rows[0] = rows[1] = rows[2] = 0;
    if (!a->linear[slot].names[0])
        return 0;
    switch (slot) {
    case ARCH_LIN_EMBED:
    case ARCH_LIN_HEAD:
        rows[0] = a->vocab_size;
        return 1;
    case ARCH_LIN_POSITIONS:
        rows[0] = a->n_positions;
        return 1;
    case ARCH_LIN_QKV:
        rows[0] = q;
        rows[1] = rows[2] = kv;
        return 3;
    case ARCH_LIN_ATTN_OUT:
        rows[0] = a->hidden;
        *cols = q;
        return 1;
    case ARCH_LIN_Q_A:
        rows[0] = a->latent.q_rank;
        return 1;
    case ARCH_LIN_Q:
        rows[0] = q;
        *cols = a->latent.q_rank ? a->latent.q_rank : a->hidden;
        return 1;
    case ARCH_LIN_KV_A:
        rows[0] = a->latent.kv_rank + a->latent.rope_dim;
        return 1;
    case ARCH_LIN_KV_B:
        rows[0] = rows[1] = kv;
        *cols = a->latent.kv_rank + a->latent.rope_dim;
        return 2;
    case ARCH_LIN_GATE_UP:
        rows[0] = a->ffn;
        rows[1] = a->mlp == ARCH_MLP_GATED ? a->ffn : 0;
        return a->mlp == ARCH_MLP_GATED ? 2 : 1;
    case ARCH_LIN_DOWN:
        rows[0] = a->hidden;
        *cols = a->ffn;
        return 1;
    case ARCH_LIN_ROUTER:
        rows[0] = a->n_experts;
        rows[1] = a->shared_gated;
        return a->shared_gated ? 2 : 1;
    case ARCH_LIN_EXPERT_GATE_UP:
    case ARCH_LIN_SHARED_GATE_UP:
        rows[0] = rows[1] = slot == ARCH_LIN_EXPERT_GATE_UP ? a->expert_ffn : a->shared_ffn;
        return 2;
    case ARCH_LIN_EXPERT_DOWN:
    case ARCH_LIN_SHARED_DOWN:
        rows[0] = a->hidden;
        *cols = slot == ARCH_LIN_EXPERT_DOWN ? a->expert_ffn : a->shared_ffn;
        return 1;
    case ARCH_LIN_COUNT:
        break;
    }
    return 0;
}

int64_t arch_vector_len(const struct arch *a, enum arch_vector slot)
{
    if (!a->vector[slot])
        return 0;
    if (slot == ARCH_VEC_Q_NORM || slot == ARCH_VEC_K_NORM) {
        int heads = slot == ARCH_VEC_Q_NORM ? a->n_heads : a->n_kv_heads;
        return a->qk_norm == ARCH_QK_NORM_HEAD ? a->head_dim : (int64_t)heads * a->head_dim;
    }
    if (slot == ARCH_VEC_Q_A_NORM || slot == ARCH_VEC_KV_A_NORM)
        return slot == ARCH_VEC_Q_A_NORM ? a->latent.q_rank : a->latent.kv_rank;
    return a->hidden;
}

bool arch_linear_is_per_layer(enum arch_linear slot)
{
    return slot >= ARCH_LIN_QKV;
}

int arch_linear_count(const struct arch *a, enum arch_linear slot, int layer)
{
    if (!a->linear[slot].names[0])
        return 0;
    if (slot == ARCH_LIN_HEAD)
        return !a->tied_head;
    if (slot == ARCH_LIN_GATE_UP || slot == ARCH_LIN_DOWN)
        return !a->layer_moe[layer];
    if (slot >= ARCH_LIN_ROUTER && !a->layer_moe[layer])
        return 0;
    return slot == ARCH_LIN_EXPERT_GATE_UP || slot == ARCH_LIN_EXPERT_DOWN ? a->n_experts : 1;
}

bool arch_vector_is_per_layer(enum arch_vector slot)
{
    return slot >= ARCH_VEC_NORM1 && slot <= ARCH_VEC_KV_A_NORM;
}

void arch_alibi_slopes(const struct arch *a, float *out)
{
    int pow2 = 1;
    while (pow2 * 2 <= a->n_heads)
        pow2 *= 2;
    /* Beyond a power of two come the odd members of the series that is twice as fine. */
    for (int i = 0; i < a->n_heads; i++) {
        double exponent = i < pow2 ? (i + 1.0) / pow2 : (2.0 * (i - pow2) + 1.0) / (2.0 * pow2);
        float slope = (float)pow(2.0, -a->alibi_max_bias * exponent);
        out[i] = (a->alibi_bf16 ? tensor_bf16_to_f32(tensor_f32_to_bf16(slope)) : slope) * a->alibi_scale;
    }
}

void arch_names_llama(struct arch *a)
{
    static const struct arch_linear_spec linear[ARCH_LIN_COUNT] = {
        [ARCH_LIN_EMBED] = { .names = { "~embed_tokens" } },
        [ARCH_LIN_HEAD] = { .names = { "lm_head" } },
        [ARCH_LIN_QKV] = { .names = { "~layers.#.self_attn.q_proj", "~layers.#.self_attn.k_proj", "~layers.#.self_attn.v_proj" } },
        [ARCH_LIN_ATTN_OUT] = { .names = { "~layers.#.self_attn.o_proj" } },
        [ARCH_LIN_GATE_UP] = { .names = { "~layers.#.mlp.gate_proj", "~layers.#.mlp.up_proj" } },
        [ARCH_LIN_DOWN] = { .names = { "~layers.#.mlp.down_proj" } },
    };
    memcpy(a->linear, linear, sizeof linear);
    a->vector[ARCH_VEC_FINAL_NORM] = "~norm";
    a->vector[ARCH_VEC_NORM1] = "~layers.#.input_layernorm";
    a->vector[ARCH_VEC_NORM2] = "~layers.#.post_attention_layernorm";
    a->prefixes[0] = "model.";
    a->ignore[0] = "*.rotary_emb.inv_freq";
}

void arch_set_layer_norm(struct arch *a, enum arch_vector slot, const char *name)
{
    a->vector[slot] = a->vector[slot + 1] = name;
}

void arch_set_attention_bias(struct arch *a, bool qkv, bool out)
{
    a->linear[ARCH_LIN_QKV].bias = qkv;
    a->linear[ARCH_LIN_ATTN_OUT].bias = out;
}

void arch_set_mlp_bias(struct arch *a, bool up, bool down)
{
    a->linear[ARCH_LIN_GATE_UP].bias = up;
    a->linear[ARCH_LIN_DOWN].bias = down;
}

static const struct arch_family *family_of_architecture(const char *architecture)
{
    for (const struct arch_family *f = arch_families(); f->architecture; f++)
        if (strcmp(f->architecture, architecture) == 0)
            return f;
    return NULL;
}

static const struct arch_family *family_of_type(const char *model_type)
{
    for (const struct arch_family *f = arch_families(); f->architecture; f++)
        if (f->model_type && strcmp(f->model_type, model_type) == 0)
            return f;
    return NULL;
}

static bool unknown_architecture(const char *what, struct err *e)
{
    struct buf b;
    buf_init(&b, 400);
    for (const struct arch_family *f = arch_families(); f->architecture; f++) {
        const char *tail = strstr(f->architecture, "ForCausalLM");
        size_t n = tail ? (size_t)(tail - f->architecture) : strlen(f->architecture);
        if (f->model_type)
            buf_printf(&b, "%s%.*s", b.len ? ", " : "", (int)n, f->architecture);
    }
    err_set(e, ERR_UNSUPPORTED, "config.json: architecture \"%.60s\" is not supported; supported are %s", what, b.data ? b.data : "?");
    buf_free(&b);
    return false;
}

static const struct arch_family *choose_family(struct arch_cfg *c)
{
    const json_t *list = arch_cfg_get(c, "architectures");
    if (list && !json_is_array(list)) {
        arch_cfg_fail(c, ERR_FORMAT, "config.json: 'architectures' must be a list of strings, found %s", json_type_name(list));
        return NULL;
    }
    const char *first = NULL;
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *name = json_string_value(json_array_get(list, i));
        const struct arch_family *f = name ? family_of_architecture(name) : NULL;
        if (f)
            return f;
        if (!first)
            first = name;
    }
    const char *type = arch_cfg_str(c, "model_type", "");
    const struct arch_family *f = first || c->failed ? NULL : family_of_type(type);
    if (!f && !c->failed) {
        c->failed = true;
        unknown_architecture(first ? first : *type ? type : "(none given)", c->e);
    }
    return f;
}

static void set_defaults(struct arch *a)
{
    memset(a, 0, sizeof *a);
    a->norm_eps = 1e-5f;
    a->embed_scale = a->residual_scale = a->logit_scale = a->experts_scale = 1.0f;
    a->alibi_max_bias = 8.0f;
    a->alibi_scale = 1.0f;
    a->pos = ARCH_POS_ROPE_HALF;
    a->mlp = ARCH_MLP_GATED;
    memset(a->layer_rope, ARCH_NO_ROPE, sizeof a->layer_rope);
    a->prefixes[0] = "";
}

/* A weight of each kind must be addressable and plausible before anyone multiplies. */
static bool check_sizes(const struct arch *a, struct err *e)
{
    for (int s = 0; s < ARCH_LIN_COUNT; s++) {
        int64_t rows[3], cols;
        arch_linear_shape(a, (enum arch_linear)s, rows, &cols);
        int64_t n = rows[0] + rows[1] + rows[2];
        if (n > 1 << 24 || cols > 1 << 24 || n * cols > (int64_t)1 << 40)
            return err_set(e, ERR_TOO_LARGE, "config.json: a weight of %lld x %lld values is not plausible", (long long)n, (long long)cols);
    }
    return true;
}

bool arch_from_config(struct arch *a, const json_t *config, struct err *e)
{
    set_defaults(a);
    if (!json_is_object(config))
        return err_set(e, ERR_FORMAT, "config.json: must be an object, found %s", json_type_name(config));
    struct arch_cfg c = { .json = config, .e = e };
    const struct arch_family *f = choose_family(&c);
    if (!f)
        return false;
    snprintf(a->architecture, sizeof a->architecture, "%s", f->architecture);
    f->fill(&c, a);
    json_decref(c.defaults);
    return !c.failed && check_sizes(a, e);
}
