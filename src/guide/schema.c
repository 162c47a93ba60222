/* JSON Schema to expressions: types, alternatives, recursion. */
#include "guide/schema_int.h"

#include <stdarg.h>
#include <string.h>
#include "base/json.h"
#include "base/mem.h"

enum { MAX_DEPTH = 100, MAX_BRANCHES = 20000 };

int32_t schema_fail(struct schema *s, enum err_code code, const char *fmt, ...)
{
    char msg[400];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(msg, sizeof msg, fmt, ap);
    va_end(ap);
    return expr_fail(s->b, code, "JSON schema at #%.160s: %s", s->path.data ? s->path.data : "", msg);
}

json_t *schema_keep(struct schema *s, json_t *j)
{
    if (!j || json_array_append_new(s->keep, j) != 0) {
        schema_fail(s, ERR_NOMEM, "out of memory");
        return NULL;
    }
    return expr_spend(s->b, 200) ? j : NULL;
}

int32_t schema_rule_of(struct schema *s, int32_t body, const char *name)
{
    if (body < 0)
        return -1;
    int32_t r = expr_rule_new(s->b, name);
    if (r >= 0)
        s->b->rules[r].body = body;
    return expr_call(s->b, r);
}

/* ---- free JSON ---- */

static int32_t text(struct schema *s, const char *t) { return expr_text(s->b, t, strlen(t)); }

static int32_t regex(struct schema *s, const char *t) { return regex_parse(s->b, t, strlen(t)); }

/* Any JSON string; \u0000 and lone surrogates are left out, which many readers refuse. */
static int32_t free_string(struct schema *s)
{
    if (s->rule_string < 0)
        s->rule_string = expr_rule_new(s->b, "string");
    if (s->rule_string >= 0 && s->b->rules[s->rule_string].body < 0)
        s->b->rules[s->rule_string].body = regex(
            s, "\"([^\"\\\\\\x00-\\x1f]|\\\\([\"\\\\/bfnrt]|u(0{3}[1-9a-fA-F]|0{2}[1-9a-fA-F][0-9a-fA-F]|0[1-9a-fA-F][0-9a-fA-F]{2}|[1-9a-cefA-CEF][0-9a-fA-F]{3}"
               "|[dD][0-7][0-9a-fA-F]{2}|[dD][89abAB][0-9a-fA-F]{2}\\\\u[dD][c-fC-F][0-9a-fA-F]{2})))*\"");
    return expr_call(s->b, s->rule_string);
}

int32_t schema_any(struct schema *s)
{
    if (s->rule_any < 0) {
        s->rule_any = expr_rule_new(s->b, "any");
        int32_t empty = -1;
        json_t *object = schema_keep(s, json_pack("{s:s}", "type", "object")), *array = schema_keep(s, json_pack("{s:s}", "type", "array"));
        if (object && array && s->rule_any >= 0)
            empty = expr_alt(s->b, (int32_t[]){schema_rule_of(s, schema_object(s, object), "object"),
                                               schema_rule_of(s, schema_array(s, array), "array"), free_string(s), schema_number(s, NULL, false),
                                               text(s, "true"), text(s, "false"), text(s, "null")}, 7);
        if (s->rule_any >= 0)
            s->b->rules[s->rule_any].body = empty;
    }
    return expr_call(s->b, s->rule_any);
}

/* ---- one flattened schema ---- */

/* What a schema without "type" is about: a subset of what it allows, chosen by its keywords. */
static unsigned guess_types(const json_t *flat)
{
    static const struct { const char *keyword; unsigned types; } hints[] = {
        {"properties", TYPE_OBJECT}, {"required", TYPE_OBJECT}, {"additionalProperties", TYPE_OBJECT}, {"patternProperties", TYPE_OBJECT},
        {"propertyNames", TYPE_OBJECT}, {"minProperties", TYPE_OBJECT}, {"maxProperties", TYPE_OBJECT},
        {"items", TYPE_ARRAY}, {"prefixItems", TYPE_ARRAY}, {"minItems", TYPE_ARRAY}, {"maxItems", TYPE_ARRAY}, {"uniqueItems", TYPE_ARRAY},
        {"contains", TYPE_ARRAY},
        {"pattern", TYPE_STRING}, {"format", TYPE_STRING}, {"minLength", TYPE_STRING}, {"maxLength", TYPE_STRING}, {"$not", TYPE_STRING},
        {"minimum", TYPE_NUMBER}, {"maximum", TYPE_NUMBER}, {"exclusiveMinimum", TYPE_NUMBER}, {"exclusiveMaximum", TYPE_NUMBER},
        {"multipleOf", TYPE_NUMBER}, {"$notNumber", TYPE_NUMBER},
    };
    unsigned types = 0;
    for (size_t i = 0; i < sizeof hints / sizeof hints[0]; i++)
        if (json_object_get(flat, hints[i].keyword))
            types |= hints[i].types;
    return types ? types : TYPE_ALL;
}

static int32_t enumerated(struct schema *s, const json_t *flat, const json_t *values)
{
    size_t n = json_array_size(values), k = 0;
    int32_t *ids = mem_try_alloc(n, sizeof *ids);
    if (!ids)
        return schema_fail(s, ERR_NOMEM, "out of memory");
    for (size_t i = 0; i < n && !s->b->failed; i++)
        if (schema_accepts(s, flat, json_array_get(values, i)))
            ids[k++] = schema_literal(s, json_array_get(values, i));
    int32_t id = s->b->failed ? -1 : expr_alt(s->b, ids, k);
    mem_free(ids);
    return id;
}

static bool is_plain_string(const json_t *flat)
{
    static const char *const keywords[] = {"pattern", "format", "minLength", "maxLength", "$not"};
    for (size_t i = 0; i < sizeof keywords / sizeof keywords[0]; i++)
        if (json_object_get(flat, keywords[i]))
            return false;
    return true;
}

static int32_t of_type(struct schema *s, const json_t *flat, unsigned type)
{
    switch (type) {
    case TYPE_NULL: return text(s, "null");
    case TYPE_BOOLEAN: return expr_alt2(s->b, text(s, "true"), text(s, "false"));
    case TYPE_INTEGER: return schema_number(s, flat, true);
    case TYPE_NUMBER: return schema_number(s, flat, false);
    case TYPE_STRING: return is_plain_string(flat) ? free_string(s) : schema_string(s, flat);
    case TYPE_ARRAY: return schema_array(s, flat);
    default: return schema_object(s, flat);
    }
}

/* No alternatives left. */
static int32_t plain(struct schema *s, const json_t *flat)
{
    const json_t *values = json_object_get(flat, "enum");
    unsigned types = schema_types(flat);
    int32_t alts[8];
    size_t n = 0;
    if (schema_never(flat))
        return expr_never(s->b);
    if (values)
        return enumerated(s, flat, values);
    if (types == TYPE_ALL)
        types = guess_types(flat);
    if (types == TYPE_ALL && json_object_size(flat) == 0)
        return schema_any(s);
    if (types & TYPE_NUMBER)
        types &= ~(unsigned)TYPE_INTEGER;
    for (unsigned t = TYPE_NULL; t <= TYPE_OBJECT && !s->b->failed; t <<= 1)
        if (types & t)
            alts[n++] = of_type(s, flat, t);
    return s->b->failed ? -1 : expr_alt(s->b, alts, n);
}

/* ---- alternatives ---- */

static int32_t flattened(struct schema *s, const json_t *flat);

/* The branches of a oneOf must not meet: each is narrowed until it is apart from all others. */
static const json_t *apart(struct schema *s, const json_t *branch, const json_t *branches, size_t i)
{
    for (size_t k = 0; k < json_array_size(branches) && branch; k++) {
        if (k == i)
            continue;
        const json_t *other = schema_flatten(s, json_array_get(branches, k));
        const json_t *narrowed = other ? schema_exclude(s, branch, other) : NULL;
        if (!narrowed && !s->b->failed)
            schema_fail(s, ERR_UNSUPPORTED, "'oneOf': branches %zu and %zu may both match; use anyOf, or a property that tells them apart", i, k);
        branch = narrowed;
    }
    return branch;
}

static int32_t first_group(struct schema *s, const json_t *flat)
{
    const json_t *group = json_array_get(json_object_get(flat, "$groups"), 0), *branches = json_object_get(group, "of");
    json_t *base = schema_keep(s, json_copy((json_t *)flat)), *rest;
    size_t n = json_array_size(branches);
    int32_t *alts = mem_try_alloc(n, sizeof *alts), id = -1;
    if (!base || !alts)
        goto out;
    rest = schema_keep(s, json_copy(json_object_get(flat, "$groups")));
    if (!rest)
        goto out;
    json_array_remove(rest, 0);
    if (json_array_size(rest))
        json_object_set(base, "$groups", rest);
    else
        json_object_del(base, "$groups");
    if ((s->n_branches += (int)n) > MAX_BRANCHES) {
        schema_fail(s, ERR_TOO_LARGE, "more than %d combinations of alternatives", MAX_BRANCHES);
        goto out;
    }
    for (size_t i = 0; i < n; i++) {
        const json_t *branch = schema_flatten(s, json_array_get(branches, i));
        const json_t *merged = branch ? schema_merge(s, base, branch) : NULL;
        if (merged && json_is_true(json_object_get(group, "one")) && !schema_never(merged))
            merged = apart(s, merged, branches, i);
        alts[i] = merged ? flattened(s, merged) : -1;
        if (alts[i] < 0)
            goto out;
    }
    id = expr_alt(s->b, alts, n);
out:
    mem_free(alts);
    return id;
}

/* "not": the language without what matches. */
static int32_t without(struct schema *s, const json_t *flat)
{
    json_t *rest = schema_keep(s, json_copy((json_t *)flat));
    const json_t *nots = json_object_get(flat, "not"), *out = rest;
    if (!rest)
        return -1;
    json_object_del(rest, "not");
    if (schema_types(rest) == TYPE_ALL && !json_object_get(rest, "enum")) {
        unsigned guess = guess_types(rest);
        static const char *const names[] = {"null", "boolean", "integer", "number", "string", "array", "object"};
        json_t *list = json_array();
        for (int i = 0; i < 7; i++)
            if (guess >> i & 1 && !(i == 2 && guess & TYPE_NUMBER))
                json_array_append_new(list, json_string(names[i]));
        json_object_set_new(rest, "type", list);
    }
    for (size_t i = 0; i < json_array_size(nots) && out; i++) {
        const json_t *other = schema_flatten(s, json_array_get(nots, i));
        const json_t *narrowed = other ? schema_exclude(s, out, other) : NULL;
        if (!narrowed && !s->b->failed)
            schema_fail(s, ERR_UNSUPPORTED, "'not' cannot be expressed for this schema");
        out = narrowed;
    }
    return out ? flattened(s, out) : -1;
}

static int32_t flattened(struct schema *s, const json_t *flat)
{
    if (schema_never(flat))
        return expr_never(s->b);
    if (json_array_size(json_object_get(flat, "$groups")))
        return first_group(s, flat);
    return json_object_get(flat, "not") ? without(s, flat) : plain(s, flat);
}

/* A rule for the schema at this node, made at its first use, so that it may refer to itself. */
static int32_t node_rule(struct schema *s, const json_t *schema)
{
    int64_t known;
    if (hash_u64_get(s->by_node, (uint64_t)(uintptr_t)schema, &known))
        return expr_call(s->b, (int32_t)known);
    int32_t rule = expr_rule_new(s->b, s->path.data ? s->path.data : "#");
    if (rule < 0 || !hash_u64_put(s->by_node, (uint64_t)(uintptr_t)schema, rule))
        return schema_fail(s, ERR_NOMEM, "out of memory");
    const json_t *flat = schema_flatten(s, schema);
    int32_t body = flat ? flattened(s, flat) : -1;
    s->b->rules[rule].body = body;
    return body < 0 ? -1 : expr_call(s->b, rule);
}

/* Merged schemas have no node of their own: equal text, equal rule. */
static int32_t text_rule(struct schema *s, const json_t *schema)
{
    struct buf key;
    int64_t known;
    int32_t rule = -1, body;
    buf_init(&key, 0);
    if (!json_write(schema, &key) || !expr_spend(s->b, (int64_t)key.len)) {
        schema_fail(s, ERR_NOMEM, "out of memory");
    } else if (hash_map_get(s->by_text, key.data, key.len, &known)) {
        rule = (int32_t)known;
    } else {
        rule = expr_rule_new(s->b, s->path.data ? s->path.data : "#");
        if (rule < 0 || !hash_map_put(s->by_text, key.data, key.len, rule)) {
            rule = schema_fail(s, ERR_NOMEM, "out of memory");
        } else {
            const json_t *flat = schema_flatten(s, schema);
            body = flat ? flattened(s, flat) : -1;
            s->b->rules[rule].body = body;
            rule = body < 0 ? -1 : rule;
        }
    }
    buf_free(&key);
    return expr_call(s->b, rule);
}

int32_t schema_value(struct schema *s, const json_t *schema)
{
    if (s->b->failed)
        return -1;
    if (json_is_true(schema) || (json_is_object(schema) && json_object_size(schema) == 0))
        return schema_any(s);
    if (json_is_false(schema))
        return expr_never(s->b);
    if (!json_is_object(schema))
        return schema_fail(s, ERR_INVALID, "a schema must be an object or a boolean, found %s", json_type_name(schema));
    if (++s->depth > MAX_DEPTH)
        return schema_fail(s, ERR_TOO_LARGE, "nested deeper than %d", MAX_DEPTH);
    const json_t *ref = json_object_get(schema, "$ref");
    int32_t id;
    if (json_is_string(ref) && json_object_size(schema) == 1) {
        const json_t *target = schema_resolve(s, json_string_value(ref));
        id = !target ? -1 : json_is_object(target) ? node_rule(s, target) : schema_value(s, target);
    } else {
        id = text_rule(s, schema);
    }
    s->depth--;
    return id;
}

/* ---- opening ---- */

static void schema_close(struct schema *s)
{
    json_decref(s->keep);
    hash_u64_close(&s->by_node);
    hash_map_close(&s->by_text);
    buf_free(&s->path);
}

int32_t schema_parse(struct guide_builder *b, const json_t *root, const char *whitespace)
{
    struct schema s = {.b = b, .root = root, .rule_string = -1, .rule_integer = -1, .rule_number = -1, .rule_any = -1, .rule_key = -1};
    buf_init(&s.path, 0);
    s.keep = json_array();
    s.by_node = hash_u64_open(16);
    s.by_text = hash_map_open(16, HASH_MAP_COPY_KEYS);
    int32_t id = -1;
    if (!s.keep || !s.by_node || !s.by_text) {
        schema_fail(&s, ERR_NOMEM, "out of memory");
    } else {
        if (!whitespace) {
            s.space = schema_rule_of(&s, regex(&s, "( |\\n[ \\t]{0,16})?"), "space");
            s.colon_space = expr_repeat(b, text(&s, " "), 0, 1);
        } else {
            s.space = s.colon_space = schema_rule_of(&s, *whitespace ? regex(&s, whitespace) : expr_empty(b), "space");
        }
        id = json_is_object(root) ? node_rule(&s, root) : schema_value(&s, root);
    }
    schema_close(&s);
    return id;
}
