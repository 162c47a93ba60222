#include <math.h>
#include <stdio.h>
#include <string.h>
#include "model/arch_int.h"

bool arch_cfg_fail(struct arch_cfg *c, enum err_code code, const char *fmt, ...)
{
    if (c->failed)
        return false;
    c->failed = true;
    va_list ap;
    va_start(ap, fmt);
    err_vset(c->e, code, fmt, ap);
    va_end(ap);
    return false;
}

bool arch_cfg_has(const struct arch_cfg *c, const char *key)
{
    return json_object_get(c->json, key) != NULL;
}

/* The first of the keys "a|b|c" that is there and not null; *key is what messages call it. */
static const json_t *cfg_find(const struct arch_cfg *c, const char *keys, char key[64])
{
    const json_t *found = NULL;
    for (const char *p = keys; !found; ) {
        size_t n = strcspn(p, "|");
        snprintf(key, 64, "%.*s", (int)n, p);
        found = json_object_get(c->json, key);
        if (!found)
            found = json_object_get(c->defaults, key);
        if (found && json_is_null(found))
            found = NULL;
        if (!p[n])
            break;
        p += n + 1;
    }
    if (!found)
        snprintf(key, 64, "%.*s", (int)strcspn(keys, "|"), keys);
    return found;
}

void arch_cfg_defaults(struct arch_cfg *c, const char *text)
{
    json_decref(c->defaults);
    c->defaults = json_parse(text, strlen(text), c->e);
    c->failed |= !c->defaults;
}

void arch_cfg_refuse(struct arch_cfg *c, bool asked, const char *key)
{
    if (asked)
        arch_cfg_fail(c, ERR_UNSUPPORTED, "config.json: what '%s' asks for is not supported with this architecture", key);
}

const json_t *arch_cfg_get(struct arch_cfg *c, const char *keys)
{
    char key[64];
    return cfg_find(c, keys, key);
}

int64_t arch_cfg_int(struct arch_cfg *c, const char *keys, int64_t dflt, int64_t min, int64_t max)
{
    char key[64];
    const json_t *j = cfg_find(c, keys, key);
    int64_t fallback = dflt == ARCH_CFG_REQUIRED ? min : dflt;
    if (c->failed)
        return fallback;
    if (!j) {
        if (dflt == ARCH_CFG_REQUIRED)
            arch_cfg_fail(c, ERR_FORMAT, "config.json: '%s' is missing", key);
        return fallback;
    }
    /* Some writers store integers as 128.0. */
    double real = json_is_real(j) ? json_real_value(j) : 0.0;
    bool whole = json_is_integer(j) || (json_is_real(j) && fabs(real) < 9e15 && real == floor(real));
    if (!whole) {
        arch_cfg_fail(c, ERR_FORMAT, "config.json: '%s' must be an integer, found %s", key, json_type_name(j));
        return fallback;
    }
    int64_t v = json_is_integer(j) ? (int64_t)json_integer_value(j) : (int64_t)real;
    if (v < min || v > max) {
        arch_cfg_fail(c, ERR_FORMAT, "config.json: '%s' must be from %lld to %lld, found %lld", key,
                      (long long)min, (long long)max, (long long)v);
        return fallback;
    }
    return v;
}

double arch_cfg_num(struct arch_cfg *c, const char *keys, double dflt, double min, double max)
{
    char key[64];
    const json_t *j = cfg_find(c, keys, key);
    if (c->failed || !j)
        return dflt;
    if (!json_is_number(j)) {
        arch_cfg_fail(c, ERR_FORMAT, "config.json: '%s' must be a number, found %s", key, json_type_name(j));
        return dflt;
    }
    double v = json_number_value(j);
    if (!(v >= min && v <= max)) {
        arch_cfg_fail(c, ERR_FORMAT, "config.json: '%s' must be from %g to %g, found %g", key, min, max, v);
        return dflt;
    }
    return v;
}

bool arch_cfg_bool(struct arch_cfg *c, const char *keys, bool dflt)
{
    char key[64];
    const json_t *j = cfg_find(c, keys, key);
    if (c->failed || !j)
        return dflt;
    if (!json_is_boolean(j)) {
        arch_cfg_fail(c, ERR_FORMAT, "config.json: '%s' must be true or false, found %s", key, json_type_name(j));
        return dflt;
    }
    return json_is_true(j);
}

const char *arch_cfg_str(struct arch_cfg *c, const char *keys, const char *dflt)
{
    char key[64];
    const json_t *j = cfg_find(c, keys, key);
    if (c->failed || !j)
        return dflt;
    if (!json_is_string(j)) {
        arch_cfg_fail(c, ERR_FORMAT, "config.json: '%s' must be a string, found %s", key, json_type_name(j));
        return dflt;
    }
    return json_string_value(j);
}

enum arch_act arch_cfg_act(struct arch_cfg *c, const char *keys, const char *dflt)
{
    static const struct { const char *name; enum arch_act act; } acts[] = {
        { "silu", ARCH_ACT_SILU }, { "swish", ARCH_ACT_SILU },
        { "gelu", ARCH_ACT_GELU_ERF }, { "gelu_python", ARCH_ACT_GELU_ERF },
        { "gelu_new", ARCH_ACT_GELU_TANH }, { "gelu_pytorch_tanh", ARCH_ACT_GELU_TANH }, { "gelu_fast", ARCH_ACT_GELU_TANH },
        { "gelu_python_tanh", ARCH_ACT_GELU_TANH },
        { "relu", ARCH_ACT_RELU }, { "relu2", ARCH_ACT_RELU2 },
    };
    const char *name = arch_cfg_str(c, keys, dflt);
    for (size_t i = 0; i < sizeof acts / sizeof *acts; i++)
        if (strcmp(acts[i].name, name) == 0)
            return acts[i].act;
    char key[64];
    cfg_find(c, keys, key);
    arch_cfg_fail(c, ERR_UNSUPPORTED, "config.json: '%s' is \"%.40s\"; supported are silu, gelu, gelu_new, gelu_pytorch_tanh, gelu_fast, relu and relu2",
                  key, name);
    return ARCH_ACT_SILU;
}

static void read_token_ids(struct arch_cfg *c, struct arch *a)
{
    /* A list of bos ids is not known to exist; other kinds of value (false) mean none. */
    const json_t *bos = arch_cfg_get(c, "bos_token_id");
    a->bos_id = -1;
    if (bos && json_is_integer(bos) && json_integer_value(bos) >= 0 && json_integer_value(bos) < INT32_MAX)
        a->bos_id = (int32_t)json_integer_value(bos);
    const json_t *eos = arch_cfg_get(c, "eos_token_id");
    size_t n = eos && json_is_array(eos) ? json_array_size(eos) : eos != NULL;
    for (size_t i = 0; i < n && a->n_eos_ids < ARCH_MAX_EOS; i++) {
        const json_t *id = json_is_array(eos) ? json_array_get(eos, i) : eos;
        if (json_is_integer(id) && json_integer_value(id) >= 0 && json_integer_value(id) < INT32_MAX)
            a->eos_ids[a->n_eos_ids++] = (int32_t)json_integer_value(id);
    }
}

void arch_read_sizes(struct arch_cfg *c, struct arch *a)
{
    a->hidden = (int32_t)arch_cfg_int(c, "hidden_size|n_embd|d_model|n_embed", ARCH_CFG_REQUIRED, 1, 1 << 17);
    a->n_layers = (int32_t)arch_cfg_int(c, "num_hidden_layers|n_layer|n_layers|num_layers", ARCH_CFG_REQUIRED, 1, ARCH_MAX_LAYERS);
    a->n_heads = (int32_t)arch_cfg_int(c, "num_attention_heads|n_head|n_heads", ARCH_CFG_REQUIRED, 1, 4096);
    a->n_kv_heads = (int32_t)arch_cfg_int(c, "num_key_value_heads", a->n_heads, 1, 4096);
    a->vocab_size = (int32_t)arch_cfg_int(c, "vocab_size", ARCH_CFG_REQUIRED, 1, 1 << 20);
    a->max_len = (int32_t)arch_cfg_int(c, "max_position_embeddings|n_positions|n_ctx|max_seq_len|seq_length", 2048, 1, 1 << 27);
    a->head_dim = (int32_t)arch_cfg_int(c, "head_dim", 0, 0, 512);
    if (!c->failed && a->head_dim == 0) {
        if (a->hidden % a->n_heads)
            arch_cfg_fail(c, ERR_FORMAT, "config.json: hidden size %d is not a multiple of the number of heads %d, and there is no 'head_dim'",
                          a->hidden, a->n_heads);
        else
            a->head_dim = a->hidden / a->n_heads;
    }
    if (!c->failed && (a->head_dim < 1 || a->head_dim > 512))
        arch_cfg_fail(c, ERR_UNSUPPORTED, "config.json: heads of %d dimensions; supported are 1 to 512", a->head_dim);
    if (!c->failed && a->n_heads % a->n_kv_heads)
        arch_cfg_fail(c, ERR_FORMAT, "config.json: %d attention heads are not a multiple of %d key-value heads", a->n_heads, a->n_kv_heads);
    a->attn_scale = (float)(1.0 / sqrt(a->head_dim));
    snprintf(a->dtype, sizeof a->dtype, "%s", arch_cfg_str(c, "torch_dtype|dtype", ""));
    snprintf(a->model_type, sizeof a->model_type, "%s", arch_cfg_str(c, "model_type", ""));
    read_token_ids(c, a);
}

void arch_read_windows(struct arch_cfg *c, struct arch *a, int32_t window, int32_t first)
{
    const json_t *types = arch_cfg_get(c, "layer_types");
    if (c->failed)
        return;
    if (types && (!json_is_array(types) || json_array_size(types) != (size_t)a->n_layers)) {
        arch_cfg_fail(c, ERR_FORMAT, "config.json: 'layer_types' must be a list of %d strings, one a layer", a->n_layers);
        return;
    }
    for (int i = 0; i < a->n_layers; i++) {
        bool slides = i >= first;
        if (types) {
            const char *s = json_string_value(json_array_get(types, (size_t)i));
            slides = s && strcmp(s, "sliding_attention") == 0;
            if (!s || (!slides && strcmp(s, "full_attention") != 0)) {
                arch_cfg_fail(c, ERR_UNSUPPORTED, "config.json: layer_types[%d] is \"%.40s\"; supported are full_attention and sliding_attention",
                              i, s ? s : "(not a string)");
                return;
            }
            if (slides && window == 0) {
                arch_cfg_fail(c, ERR_FORMAT, "config.json: layer_types[%d] is sliding_attention but 'sliding_window' is not set", i);
                return;
            }
        }
        a->layer_window[i] = slides ? window : 0;
    }
}
