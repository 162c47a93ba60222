/* Objects: declared properties in their order, then others, as a graph over (property, how many so far). */
#include <string.h>
#include "base/json.h"
#include "base/mem.h"
#include "base/vec.h"
#include "guide/schema_int.h"

enum { MAX_PATTERNS = 6 };

struct graph { struct guide_builder *b; struct expr_move *moves; size_t n, cap; int32_t n_places; };

static void move(struct graph *g, int32_t from, int32_t to, int32_t label)
{
    if (!vec_reserve((void **)&g->moves, &g->cap, g->n + 1, sizeof *g->moves))
        expr_fail(g->b, ERR_NOMEM, "out of memory for the guide");
    else
        g->moves[g->n++] = (struct expr_move){from, to, label};
}

struct property { const char *name; int32_t pair; bool required; };

struct object {
    struct schema *s;
    const json_t *flat;
    struct property *list; size_t n, cap;
    int32_t other;                /* a pair that is not declared, or -1 */
    int32_t n_required;
    int64_t min, max;             /* max -1: none */
};

static int32_t text(struct schema *s, const char *t) { return expr_text(s->b, t, strlen(t)); }

static size_t enter(struct schema *s, const char *part)
{
    size_t was = s->path.len;
    buf_printf(&s->path, "/properties/%.64s", part);
    return was;
}

static void leave(struct schema *s, size_t was)
{
    s->path.len = was;
    if (s->path.data)
        s->path.data[was] = 0;
}

/* ": value" */
static int32_t colon_value(struct schema *s, const json_t *schema)
{
    return expr_seq(s->b, (int32_t[]){text(s, ":"), s->colon_space, schema_value(s, schema)}, 3);
}

static bool is_required(const json_t *flat, const char *name)
{
    const json_t *list = json_object_get(flat, "required");
    for (size_t i = 0; i < json_array_size(list); i++)
        if (strcmp(json_string_value(json_array_get(list, i)), name) == 0)
            return true;
    return false;
}

static int32_t name_language(struct schema *s, const char *name) { return expr_text(s->b, name, strlen(name)); }

/* What patternProperties add for this name: a schema to hold together with v. */
static const json_t *with_patterns(struct schema *s, const json_t *flat, const char *name, const json_t *v, bool *matched)
{
    json_t *patterns = json_object_get(flat, "patternProperties"), *all = schema_keep(s, json_array());
    *matched = false;
    if (!patterns || !all)
        return v;
    if (v)
        json_array_append(all, (json_t *)v);
    for (void *it = json_object_iter(patterns); it; it = json_object_iter_next(patterns, it)) {
        const char *p = json_object_iter_key(it);
        if (expr_contains(s->b, regex_parse_search(s->b, p, strlen(p)), name, strlen(name))) {
            json_array_append(all, json_object_iter_value(it));
            *matched = true;
        }
    }
    return json_array_size(all) == 1 ? json_array_get(all, 0) : json_array_size(all) == 0 ? NULL : schema_keep(s, json_pack("{s:O}", "allOf", all));
}

static bool name_allowed(struct schema *s, const json_t *flat, const char *name)
{
    const json_t *names = json_object_get(flat, "propertyNames");
    if (!names)
        return true;
    json_t *v = schema_keep(s, json_string(name));
    const json_t *rule = schema_flatten(s, names);
    return v && rule && schema_accepts(s, rule, v);
}

/* False: no object can be valid. */
static bool add_property(struct object *o, const char *name, const json_t *schema)
{
    struct schema *s = o->s;
    bool required = is_required(o->flat, name), matched;
    const json_t *v = with_patterns(s, o->flat, name, schema, &matched);
    const json_t *flat = v ? schema_flatten(s, v) : NULL;
    if (s->b->failed)
        return false;
    if (!flat || schema_never(flat) || !name_allowed(s, o->flat, name))
        return !required;
    size_t was = enter(s, name);
    json_t *key = schema_keep(s, json_string(name));
    int32_t pair = key ? expr_seq2(s->b, schema_literal(s, key), colon_value(s, v)) : -1;
    leave(s, was);
    pair = schema_rule_of(s, pair, name);
    if (pair < 0 || !vec_reserve((void **)&o->list, &o->cap, o->n + 1, sizeof *o->list))
        return schema_fail(s, ERR_NOMEM, "out of memory"), false;
    o->list[o->n++] = (struct property){name, pair, required};
    o->n_required += required;
    return true;
}

static bool add_properties(struct object *o)
{
    json_t *declared = json_object_get(o->flat, "properties"), *required = json_object_get(o->flat, "required");
    const json_t *more = json_object_get(o->flat, "additionalProperties");
    for (void *it = json_object_iter(declared); it; it = json_object_iter_next(declared, it))
        if (!add_property(o, json_object_iter_key(it), json_object_iter_value(it)))
            return false;
    for (size_t i = 0; i < json_array_size(required); i++) {
        const char *name = json_string_value(json_array_get(required, i));
        bool matched;
        if (json_object_get(declared, name))
            continue;
        for (size_t k = 0; k < o->n; k++)
            if (strcmp(o->list[k].name, name) == 0)
                goto next;
        with_patterns(o->s, o->flat, name, NULL, &matched);
        if (!add_property(o, name, matched ? NULL : more ? more : json_true()))
            return false;
    next:;
    }
    return true;
}

/* Names for pairs that are not declared: any text but the declared names, as propertyNames wants. */
static int32_t other_names(struct object *o)
{
    struct schema *s = o->s;
    json_t *declared = json_object_get(o->flat, "properties"), *required = json_object_get(o->flat, "required");
    const json_t *rule = json_object_get(o->flat, "propertyNames"), *flat = rule ? schema_flatten(s, rule) : NULL;
    int32_t all, taken = expr_never(s->b);
    if (rule && !flat)
        return -1;
    const json_t *values = json_object_get(flat, "enum");
    if (json_object_get(flat, "$groups") || json_object_get(flat, "not"))
        return schema_fail(s, ERR_UNSUPPORTED, "'propertyNames' with alternatives");
    if (values) {
        all = expr_never(s->b);
        for (size_t i = 0; i < json_array_size(values); i++)
            if (json_is_string(json_array_get(values, i)))
                all = expr_alt2(s->b, all, name_language(s, json_string_value(json_array_get(values, i))));
    } else {
        all = flat ? schema_string_language(s, flat) : expr_repeat(s->b, expr_not_set(s->b, &(struct expr_range){0, 0}, 1), 0, -1);
    }
    for (void *it = json_object_iter(declared); it; it = json_object_iter_next(declared, it))
        taken = expr_alt2(s->b, taken, name_language(s, json_object_iter_key(it)));
    for (size_t i = 0; i < json_array_size(required); i++)
        taken = expr_alt2(s->b, taken, name_language(s, json_string_value(json_array_get(required, i))));
    return json_object_size(declared) + json_array_size(required) ? expr_combine(s->b, all, taken, DFA_AND_NOT) : all;
}

/* Names by which patterns they match: each set of patterns has its own schema. */
static int32_t other_pair(struct object *o, bool open)
{
    struct schema *s = o->s;
    json_t *patterns = json_object_get(o->flat, "patternProperties");
    const json_t *more = json_object_get(o->flat, "additionalProperties");
    size_t n = json_object_size(patterns), i = 0;
    int32_t language[MAX_PATTERNS], names = other_names(o), result = expr_never(s->b);
    const json_t *schemas[MAX_PATTERNS];
    if (n > MAX_PATTERNS)
        return schema_fail(s, ERR_UNSUPPORTED, "more than %d 'patternProperties'", MAX_PATTERNS);
    for (void *it = json_object_iter(patterns); it; it = json_object_iter_next(patterns, it), i++) {
        language[i] = regex_parse_search(s->b, json_object_iter_key(it), strlen(json_object_iter_key(it)));
        schemas[i] = json_object_iter_value(it);
    }
    for (uint32_t set = 0; set < 1u << n && !s->b->failed; set++) {
        int32_t x = names;
        json_t *all = schema_keep(s, json_array());
        if (!all || (set == 0 && !open))
            continue;
        for (i = 0; i < n; i++) {
            x = expr_combine(s->b, x, language[i], set >> i & 1 ? DFA_AND : DFA_AND_NOT);
            if (set >> i & 1)
                json_array_append(all, (json_t *)schemas[i]);
        }
        const json_t *v = set == 0 ? (more ? more : json_true()) : json_array_size(all) == 1 ? json_array_get(all, 0)
                                                                 : schema_keep(s, json_pack("{s:O}", "allOf", all));
        if ((n || json_object_get(o->flat, "propertyNames")) && expr_is_void(s->b, x))
            continue;
        size_t was = enter(s, "*");
        result = expr_alt2(s->b, result, expr_seq2(s->b, schema_quoted(s, x), v ? colon_value(s, v) : -1));
        leave(s, was);
    }
    return schema_rule_of(s, result, "pair");
}

/* Whether pairs that are not declared are produced: when the schema asks for them, or declares nothing at all. */
static bool wants_others(const json_t *flat, bool *open)
{
    const json_t *more = json_object_get(flat, "additionalProperties");
    bool declares = json_object_get(flat, "properties") || json_object_get(flat, "required") || json_object_get(flat, "patternProperties");
    *open = more ? !json_is_false(more) : !declares;
    return *open || json_object_size(json_object_get(flat, "patternProperties")) > 0;
}

static bool read_counts(struct object *o)
{
    const json_t *lo = json_object_get(o->flat, "minProperties"), *hi = json_object_get(o->flat, "maxProperties");
    o->min = lo ? (int64_t)json_number_value(lo) : 0;
    o->max = hi ? (int64_t)json_number_value(hi) : -1;
    if (o->min > (int64_t)o->n + (o->other >= 0) && o->other >= 0)
        return schema_fail(o->s, ERR_UNSUPPORTED, "'minProperties' of %lld with names that are not declared: names could repeat", (long long)o->min), false;
    if (o->max > 2000)
        o->max = -1 * (o->other < 0);
    if (o->max > 2000 || (o->max == 0 && hi && json_number_value(hi) > 2000))
        return schema_fail(o->s, ERR_TOO_LARGE, "'maxProperties' of more than 2000"), false;
    return true;
}

/* Places: (i, c): properties before i are decided, c were written; then (c, k): k others as well. */
static int32_t build(struct object *o)
{
    struct schema *s = o->s;
    struct guide_builder *b = s->b;
    struct graph g = {.b = b};
    int64_t cap = o->max >= 0 ? o->max : o->min > 1 ? o->min : 1;
    if (cap > (int64_t)o->n)
        cap = (int64_t)o->n > 0 ? (int64_t)o->n : 1;
    int32_t width = (int32_t)cap + 1, rows = (int32_t)o->n + 1, others = o->other < 0 ? 0 : o->max >= 0 ? (int32_t)o->max : 1;
    int32_t base = 1, tail = base + rows * width, last = tail + width * (others + 1), end = last + 1;
    int32_t comma = expr_seq2(b, text(s, ","), s->space);
    move(&g, 0, base, expr_seq2(b, text(s, "{"), s->space));
    for (int32_t i = 0; i < (int32_t)o->n; i++)
        for (int32_t c = 0; c < width; c++) {
            int32_t at = base + i * width + c, more = c + 1 < width ? c + 1 : o->max >= 0 && o->max <= cap ? -1 : c;
            if (!o->list[i].required)
                move(&g, at, at + width, -1);
            if (more >= 0)
                move(&g, at, base + (i + 1) * width + more, c ? expr_seq2(b, comma, o->list[i].pair) : o->list[i].pair);
        }
    for (int32_t c = 0; c < width; c++) {
        int32_t row = tail + c * (others + 1);
        move(&g, base + (rows - 1) * width + c, row, -1);
        for (int32_t k = 0; k <= others; k++) {
            bool room = o->max < 0 || c + k < o->max;
            int32_t next = k < others ? k + 1 : o->max < 0 ? k : -1;
            if (o->other >= 0 && room && next >= 0)
                move(&g, row + k, row + next, c + k ? expr_seq2(b, comma, o->other) : o->other);
            if (c + (k > 0) >= o->min)
                move(&g, row + k, last, c + k ? s->space : -1);
        }
    }
    move(&g, last, end, text(s, "}"));
    int32_t id = expr_graph(b, g.moves, g.n, end + 1);
    mem_free(g.moves);
    return id;
}

int32_t schema_object(struct schema *s, const json_t *flat)
{
    struct object o = {.s = s, .flat = flat, .other = -1};
    bool open, possible = add_properties(&o);
    if (possible && wants_others(flat, &open))
        o.other = other_pair(&o, open);
    int32_t id = -1;
    if (!s->b->failed)
        id = possible && read_counts(&o) ? build(&o) : s->b->failed ? -1 : expr_never(s->b);
    mem_free(o.list);
    return id;
}
