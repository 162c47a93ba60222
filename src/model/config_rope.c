#include <math.h>
#include <string.h>
#include "model/arch_int.h"

static enum arch_rope_scaling read_kind(struct arch_cfg *s)
{
    static const struct { const char *name; enum arch_rope_scaling kind; } kinds[] = {
        { "default", ARCH_ROPE_PLAIN }, { "linear", ARCH_ROPE_LINEAR }, { "dynamic", ARCH_ROPE_DYNAMIC },
        { "llama3", ARCH_ROPE_LLAMA3 }, { "yarn", ARCH_ROPE_YARN }, { "longrope", ARCH_ROPE_LONGROPE }, { "su", ARCH_ROPE_LONGROPE },
    };
    /* "rope_type" is the newer key; files that carry both agree. */
    const char *name = arch_cfg_str(s, "rope_type|type", "default");
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (strcmp(kinds[i].name, name) == 0)
            return kinds[i].kind;
    arch_cfg_fail(s, ERR_UNSUPPORTED, "config.json: rope scaling \"%.40s\" is not supported; supported are default, linear, dynamic, llama3, yarn and longrope", name);
    return ARCH_ROPE_PLAIN;
}

/* mscale of YaRN, section 3.4 of Peng et al. 2023. */
static double yarn_mscale(double factor, double mscale)
{
    return factor <= 1.0 ? 1.0 : 0.1 * mscale * log(factor) + 1.0;
}

static void read_yarn(struct arch_cfg *s, struct arch_rope *r)
{
    r->beta_fast = arch_cfg_num(s, "beta_fast", 32.0, 1e-6, 1e6);
    r->beta_slow = arch_cfg_num(s, "beta_slow", 1.0, 1e-6, 1e6);
    r->yarn_truncate = arch_cfg_bool(s, "truncate", true);
    double mscale = arch_cfg_num(s, "mscale", 0.0, 0.0, 1e6), all_dim = arch_cfg_num(s, "mscale_all_dim", 0.0, 0.0, 1e6);
    double derived = mscale > 0 && all_dim > 0 ? yarn_mscale(r->factor, mscale) / yarn_mscale(r->factor, all_dim)
                                               : yarn_mscale(r->factor, 1.0);
    r->attn_factor = arch_cfg_num(s, "attention_factor|attn_factor", derived, 0.0, 1e6);
}

static void read_factors(struct arch_cfg *s, const char *key, int32_t n, float *out)
{
    const json_t *list = arch_cfg_get(s, key);
    if (!list || !json_is_array(list) || json_array_size(list) != (size_t)n) {
        arch_cfg_fail(s, ERR_FORMAT, "config.json: rope scaling longrope needs '%s', a list of %d numbers", key, n);
        return;
    }
    for (int32_t i = 0; i < n; i++) {
        const json_t *v = json_array_get(list, (size_t)i);
        double x = json_is_number(v) ? json_number_value(v) : 0.0;
        if (!(x >= 1e-6 && x <= 1e9)) {
            arch_cfg_fail(s, ERR_FORMAT, "config.json: %s[%d] must be a positive number", key, (int)i);
            return;
        }
        out[i] = (float)x;
    }
}

static void read_longrope(struct arch_cfg *s, struct arch_rope *r, int32_t max_len, bool has_original)
{
    /* With both lengths known their ratio is the factor, whatever the file says (as in Phi-3). */
    if (has_original)
        r->factor = (double)max_len / r->original_len;
    double derived = r->factor <= 1.0 || r->original_len < 2 ? 1.0 : sqrt(1.0 + log(r->factor) / log(r->original_len));
    r->attn_factor = arch_cfg_num(s, "attention_factor", derived, 0.0, 1e6);
    read_factors(s, "short_factor", r->dim / 2, r->short_factor);
    read_factors(s, "long_factor", r->dim / 2, r->long_factor);
}

/* How far the model reaches: a scaling that stretches is not part of max_position_embeddings, except where the length before it is given. */
static void stretch_max_len(struct arch *a, const struct arch_rope *r, bool has_original)
{
    double len = a->max_len;
    if (r->scaling == ARCH_ROPE_LINEAR || r->scaling == ARCH_ROPE_DYNAMIC)
        len *= r->factor;
    else if (r->scaling == ARCH_ROPE_YARN)
        len = fmax(len, r->factor * (has_original ? (double)r->original_len : len));
    if (len > a->max_len)
        a->max_len = len < 1 << 27 ? (int32_t)len : 1 << 27;
}

void arch_read_rope_object(struct arch_cfg *c, struct arch *a, struct arch_rope *r, const json_t *scaling, int32_t dim, double theta)
{
    r->theta = theta;
    r->dim = dim;
    r->factor = 1.0;
    r->attn_factor = 1.0;
    r->original_len = a->max_len;
    if (c->failed)
        return;
    if (dim < 2 || dim % 2 || dim > ARCH_MAX_ROPE_DIM || dim > a->head_dim) {
        arch_cfg_fail(c, ERR_UNSUPPORTED, "config.json: rotary embedding on %d of %d head dimensions; it must be even and from 2 to %d",
                      dim, a->head_dim, a->head_dim < ARCH_MAX_ROPE_DIM ? a->head_dim : ARCH_MAX_ROPE_DIM);
        return;
    }
    if (!scaling)
        return;
    if (!json_is_object(scaling)) {
        arch_cfg_fail(c, ERR_FORMAT, "config.json: rope scaling must be an object, found %s", json_type_name(scaling));
        return;
    }
    struct arch_cfg s = { .json = scaling, .e = c->e };
    r->scaling = read_kind(&s);
    r->theta = arch_cfg_num(&s, "rope_theta", theta, 1e-3, 1e15);
    /* Phi-3 keeps the original length beside rope_scaling, newer files inside. */
    const char *key = "original_max_position_embeddings";
    bool inside = arch_cfg_get(&s, key) != NULL, beside = arch_cfg_get(c, key) != NULL;
    r->original_len = (int32_t)arch_cfg_int(inside ? &s : c, key, a->max_len, 1, 1 << 27);
    if (r->scaling != ARCH_ROPE_PLAIN) {
        bool has_factor = arch_cfg_get(&s, "factor") != NULL;
        r->factor = arch_cfg_num(&s, "factor", (double)a->max_len / r->original_len, 1e-3, 1e6);
        if (!has_factor && r->scaling != ARCH_ROPE_LONGROPE && !((inside || beside) && r->scaling == ARCH_ROPE_YARN))
            arch_cfg_fail(&s, ERR_FORMAT, "config.json: rope scaling has no 'factor'");
    }
    if (r->scaling == ARCH_ROPE_LLAMA3) {
        r->low_freq_factor = arch_cfg_num(&s, "low_freq_factor", 1.0, 1e-6, 1e6);
        r->high_freq_factor = arch_cfg_num(&s, "high_freq_factor", 4.0, 1e-6, 1e6);
        if (!s.failed && r->high_freq_factor == r->low_freq_factor)
            arch_cfg_fail(&s, ERR_FORMAT, "config.json: rope scaling llama3 needs high_freq_factor above low_freq_factor");
    } else if (r->scaling == ARCH_ROPE_YARN) {
        read_yarn(&s, r);
    } else if (r->scaling == ARCH_ROPE_LONGROPE) {
        read_longrope(&s, r, a->max_len, inside || beside);
    }
    c->failed |= s.failed;
    if (!c->failed)
        stretch_max_len(a, r, inside || beside);
}

/* rope_parameters holds one object, or one for each layer type. */
static const json_t *rope_parameters(struct arch_cfg *c)
{
    const json_t *p = arch_cfg_get(c, "rope_parameters");
    const json_t *full = p ? json_object_get(p, "full_attention") : NULL;
    return full ? full : p;
}

void arch_read_rope(struct arch_cfg *c, struct arch *a, int32_t dim, double default_theta)
{
    double theta = arch_cfg_num(c, "rope_theta|rotary_emb_base", default_theta, 1e-3, 1e15);
    const json_t *scaling = rope_parameters(c);
    if (!scaling)
        scaling = arch_cfg_get(c, "rope_scaling");
    arch_read_rope_object(c, a, &a->rope[0], scaling, dim, theta);
    memset(a->layer_rope, 0, sizeof a->layer_rope);
}

int32_t arch_read_rotary_dim(struct arch_cfg *c, const struct arch *a, const char *keys, double dflt)
{
    const json_t *params = rope_parameters(c);
    struct arch_cfg p = { .json = params, .e = c->e, .failed = c->failed };
    double fraction = params && json_is_object(params) ? arch_cfg_num(&p, keys, dflt, 0.0, 1.0) : dflt;
    fraction = arch_cfg_num(c, keys, fraction, 0.0, 1.0);
    c->failed |= p.failed;
    return (int32_t)(a->head_dim * fraction);
}
