/* Which linear becomes what. */
#include <stdio.h>
#include <string.h>
#include "base/hash.h"
#include "base/mem.h"
#include "base/vec.h"
#include "convert/convert_int.h"

static const char *const formats[CONVERT_FORMAT_COUNT] = {
    [CONVERT_NONE] = "none", [CONVERT_INT4] = "int4", [CONVERT_INT8_WEIGHT] = "int8-weight", [CONVERT_INT8] = "int8", [CONVERT_FP8] = "fp8",
};

const char *convert_format_name(enum convert_format f)
{
    return (unsigned)f < CONVERT_FORMAT_COUNT ? formats[f] : "unknown";
}

enum { LEAST_GROUP = 16, MOST_GROUP = 1 << 20 };

static bool has_groups(enum convert_format f)
{
    return f == CONVERT_INT4 || f == CONVERT_INT8_WEIGHT;
}

/* "-gN" */
static bool parse_group(const char *s, size_t len, int64_t *out)
{
    int64_t n = 0;
    if (len < 3 || s[0] != '-' || s[1] != 'g')
        return false;
    for (size_t i = 2; i < len; i++) {
        if (s[i] < '0' || s[i] > '9' || (n = n * 10 + (s[i] - '0')) > MOST_GROUP)
            return false;
    }
    *out = n;
    return n > 0;
}

bool convert_format_parse(const char *name, size_t len, enum convert_format *out, int64_t *group)
{
    for (int i = 0; i < CONVERT_FORMAT_COUNT; i++) {
        size_t n = strlen(formats[i]);
        enum convert_format f = (enum convert_format)i;
        if (len < n || memcmp(formats[i], name, n) != 0)
            continue;
        *group = -1;
        if (len == n || (has_groups(f) && parse_group(name + n, len - n, group))) {
            *out = f;
            return true;
        }
    }
    return false;
}

/* Greedy with one place to go back to: linear in practice, quadratic at worst. */
static bool fits(const char *pattern, size_t n, const char *name)
{
    const char *p = pattern, *end = pattern + n, *star = NULL, *from = NULL;
    while (*name) {
        if (p < end && *p == '*') {
            star = p++;
            from = name;
        } else if (p < end && (*p == '?' || *p == *name)) {
            p++;
            name++;
        } else if (star) {
            p = star + 1;
            name = ++from;
        } else {
            return false;
        }
    }
    while (p < end && *p == '*')
        p++;
    return p == end;
}

static enum convert_format choose(const struct convert *c, const char *name, bool head, int64_t *group, const char **why)
{
    *why = NULL;
    *group = c->o->group;
    for (size_t i = 0; i < c->o->n_rules; i++) {
        if (fits(c->o->rules[i].pattern, c->o->rules[i].pattern_len, name)) {
            if (c->o->rules[i].format == CONVERT_NONE)
                *why = "a rule says so";
            if (c->o->rules[i].group >= 0)
                *group = c->o->rules[i].group;
            return c->o->rules[i].format;
        }
    }
    if (head)
        *why = "the head is left alone unless a rule names it";
    return head ? CONVERT_NONE : c->o->format;
}

static bool is_head(enum arch_linear slot)
{
    return slot == ARCH_LIN_HEAD;
}

/* Groups of which the last is cut short are nothing that the format has. */
static void even_groups(struct unit *u, int64_t group)
{
    int64_t g = group < u->cols ? group : 0;
    while (g >= LEAST_GROUP && u->cols % g != 0)
        g /= 2;
    u->group = g > 0 && u->cols % g == 0 ? g : 0;
    if (group < u->cols && u->group != group)
        u->why = u->group ? "smaller groups: its inputs are no multiple of what was asked for" : "whole rows: its inputs make no even groups";
}

/* All matrices of a unit go through one product, in quire and elsewhere, so they share a format. */
static bool choose_unit(const struct convert *c, struct unit *u, struct err *e)
{
    if (u->slot == ARCH_LIN_ROUTER) {
        u->why = "a rounded router would send tokens to other experts";
        return true;
    }
    int64_t group = 0;
    for (int i = 0; i < u->n_mats; i++) {
        const char *why;
        int64_t own;
        enum convert_format f = choose(c, u->mats[i].name, is_head(u->slot), &own, &why);
        if (i > 0 && f != u->format)
            return err_set(e, ERR_INVALID, "%s would be %s but %s %s: they are computed together and need one format", u->mats[0].name,
                           convert_format_name(u->format), u->mats[i].name, convert_format_name(f));
        if (i > 0 && own != group && has_groups(f))
            return err_set(e, ERR_INVALID, "%s would have groups of %lld but %s of %lld: they are computed together and need one size", u->mats[0].name,
                           (long long)group, u->mats[i].name, (long long)own);
        group = own;
        u->format = f;
        u->why = why;
    }
    if (has_groups(u->format) && group > 0)
        even_groups(u, group);
    return true;
}

static bool add_unit(struct convert *c, enum arch_linear slot, int layer, int index, struct err *e)
{
    if (!vec_reserve((void **)&c->units, &c->cap_units, c->n_units + 1, sizeof *c->units))
        return err_set(e, ERR_NOMEM, "no memory for the list of linears");
    struct unit *u = &c->units[c->n_units];
    *u = (struct unit){ .slot = slot, .layer = slot == ARCH_LIN_HEAD ? CONVERT_HEAD : layer, .index = index };
    for (int i = 0; i < model_matrix_count(c->m, slot); i++) {
        if (!model_matrix_at(c->m, slot, layer, index, i, &u->mats[i], e))
            return false;
        u->first_row[i] = u->rows;
        u->rows += u->mats[i].rows;
        u->cols = u->mats[i].cols;
        u->n_mats++;
    }
    if (!choose_unit(c, u, e))
        return false;
    c->n_units++;
    return true;
}

static bool list_units(struct convert *c, struct err *e)
{
    for (int l = 0; l < c->arch->n_layers; l++)
        for (int s = 0; s < ARCH_LIN_COUNT; s++)
            for (int i = 0; arch_linear_is_per_layer((enum arch_linear)s) && i < arch_linear_count(c->arch, (enum arch_linear)s, l); i++)
                if (!add_unit(c, (enum arch_linear)s, l, i, e))
                    return false;
    return c->arch->tied_head || add_unit(c, ARCH_LIN_HEAD, 0, 0, e);
}

static bool report_units(struct convert *c, struct err *e)
{
    struct convert_report *r = c->r;
    for (size_t i = 0; i < c->n_units; i++) {
        struct unit *u = &c->units[i];
        u->linear = r->n_linears;
        for (int j = 0; j < u->n_mats; j++) {
            if (!vec_reserve((void **)&r->linears, &r->cap_linears, r->n_linears + 1, sizeof *r->linears))
                return err_set(e, ERR_NOMEM, "no memory for the report");
            struct convert_linear *l = &r->linears[r->n_linears++];
            *l = (struct convert_linear){ .layer = u->layer, .format = u->format, .why = u->why, .rows = u->mats[j].rows, .cols = u->cols,
                                            .group = u->group };
            snprintf(l->name, sizeof l->name, "%s", u->mats[j].name);
        }
    }
    return true;
}

/* Everything the model needs is there and fits, before anything is written. */
static bool check_model(const struct convert *c, struct err *e)
{
    for (int l = 0; l < c->arch->n_layers; l++) {
        for (int s = 0; s < ARCH_LIN_COUNT; s++) {
            for (int i = 0; i < arch_linear_count(c->arch, (enum arch_linear)s, l); i++) {
                struct model_linear linear;
                if (!model_get_linear(c->m, (enum arch_linear)s, l, i, &linear, e))
                    return false;
                model_linear_free(&linear);
            }
        }
        for (int s = 0; s < ARCH_VEC_COUNT; s++) {
            float *v;
            int64_t n;
            if (!model_get_vector(c->m, (enum arch_vector)s, l, &v, &n, e))
                return false;
            mem_free(v);
        }
    }
    return model_check_all_used(c->m, e);
}

static uint64_t mix_text(uint64_t key, const char *text, size_t len)
{
    return hash_mix(key, text ? hash_bytes(text, len, 1) : 0);
}

/* Options that change the output, and the source. */
static uint64_t plan_key(const struct convert *c)
{
    const struct convert_opts *o = c->o;
    uint64_t key = hash_bytes(QUIRE_VERSION, sizeof QUIRE_VERSION, model_identity(c->m));
    const int64_t numbers[] = {
        o->format, o->awq, o->gptq, o->act_order, o->symmetric, o->search, (int64_t)(o->damp * 1e9), (int64_t)(o->smooth * 1e9), o->group,
        o->sequence, o->max_tokens, o->max_heldout_tokens, o->perplexity, o->max_shard_bytes,
    };
    key = hash_mix(key, hash_bytes(numbers, sizeof numbers, 2));
    key = mix_text(mix_text(key, o->calibration, o->calibration_len), o->heldout, o->heldout_len);
    for (size_t i = 0; i < c->n_units; i++)
        key = hash_mix(key, ((uint64_t)c->units[i].format << 32 | (uint64_t)c->units[i].group) * 1000003u + (uint64_t)c->units[i].rows * 31u + (uint64_t)c->units[i].cols);
    return key;
}

bool convert_plan(struct convert *c, struct err *e)
{
    const char *by = model_quantized_by(c->m);
    if (by)
        return err_set(e, ERR_UNSUPPORTED, "%s: is quantized already (%s): begin with the full-precision checkpoint", model_name(c->m), by);
    if (model_is_gguf(c->m))
        return err_set(e, ERR_UNSUPPORTED, "%s: is GGUF, whose tensors have other names: begin with the safetensors folder", model_name(c->m));
    if (!check_model(c, e) || !list_units(c, e) || !report_units(c, e))
        return err_prefix(e, "%s", model_name(c->m));
    bool any = false;
    for (size_t i = 0; i < c->n_units; i++)
        any |= c->units[i].format != CONVERT_NONE;
    if (!any)
        return err_set(e, ERR_INVALID, "%s: nothing is left to quantize: every linear is ignored", model_name(c->m));
    c->key = plan_key(c);
    return true;
}

size_t convert_layer_units(const struct convert *c, int layer, size_t *first)
{
    size_t n = 0;
    *first = 0;
    for (size_t i = 0; i < c->n_units; i++) {
        if (c->units[i].layer != layer)
            continue;
        if (n++ == 0)
            *first = i;
    }
    return n;
}

struct unit *convert_unit(struct convert *c, int layer, enum arch_linear slot, int index)
{
    for (size_t i = 0; i < c->n_units; i++)
        if (c->units[i].layer == layer && c->units[i].slot == slot && c->units[i].index == index)
            return &c->units[i];
    return NULL;
}

bool convert_needs_inputs(const struct convert *c)
{
    return c->o->awq || c->o->gptq || c->o->smooth > 0;
}
