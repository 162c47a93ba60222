/* Flattening: references, allOf, and what drafts write differently. */
#include <stdlib.h>
#include <string.h>
#include "base/json.h"
#include "guide/schema_int.h"

enum { MAX_CHAIN = 60 };

static const char *const type_names[] = {"null", "boolean", "integer", "number", "string", "array", "object"};

static unsigned type_bit(const char *name)
{
    for (unsigned i = 0; i < 7; i++)
        if (strcmp(name, type_names[i]) == 0)
            return i == 3 ? TYPE_NUMBER | TYPE_INTEGER : 1u << i;
    return 0;
}

unsigned schema_types(const json_t *flat)
{
    const json_t *t = json_object_get(flat, "type");
    unsigned types = 0;
    if (!t)
        return TYPE_ALL;
    for (size_t i = 0; i < json_array_size(t); i++)
        types |= type_bit(json_string_value(json_array_get(t, i)));
    return types;
}

static json_t *types_json(unsigned types)
{
    json_t *list = json_array();
    for (unsigned i = 0; i < 7; i++)
        if (types >> i & 1 && !(i == 2 && types & TYPE_NUMBER))
            json_array_append_new(list, json_string(type_names[i]));
    return list;
}

bool schema_never(const json_t *flat) { return json_object_get(flat, "$never") || schema_types(flat) == 0; }

static json_t *never(struct schema *s) { return schema_keep(s, json_pack("{s:b}", "$never", 1)); }

/* ---- references ---- */

/* ~1, ~0 and %XX undone. */
static void unescape(char *p)
{
    char *out = p;
    for (; *p; p++) {
        char hex[3] = {p[0] == '%' ? p[1] : 0, p[0] == '%' && p[1] ? p[2] : 0, 0}, *end = hex;
        long c = hex[0] && hex[1] ? strtol(hex, &end, 16) : 0;
        if (c > 0 && end == hex + 2) {
            *out++ = (char)c;
            p += 2;
        } else {
            *out++ = *p;
        }
    }
    *out = 0;
}

static const json_t *step(const json_t *at, char *part)
{
    char *out = part;
    for (char *p = part; *p; p++)
        *out++ = p[0] == '~' && p[1] == '1' ? (p++, '/') : p[0] == '~' && p[1] == '0' ? (p++, '~') : *p;
    *out = 0;
    if (json_is_object(at))
        return json_object_get(at, part);
    char *end;
    unsigned long i = strtoul(part, &end, 10);
    return json_is_array(at) && *part && !*end ? json_array_get(at, i) : NULL;
}

/* The subschema with this $id, $anchor or $dynamicAnchor. */
static const json_t *find_named(struct schema *s, const json_t *at, const char *key, const char *name, int depth)
{
    const json_t *found = NULL;
    if (depth > 100 || !expr_spend(s->b, 1))
        return NULL;
    if (json_is_object(at)) {
        const json_t *v = json_object_get(at, key);
        if (json_is_string(v) && strcmp(json_string_value(v), name) == 0)
            return at;
        for (void *it = json_object_iter((json_t *)at); it && !found; it = json_object_iter_next((json_t *)at, it))
            found = find_named(s, json_object_iter_value(it), key, name, depth + 1);
    } else {
        for (size_t i = 0; i < json_array_size(at) && !found; i++)
            found = find_named(s, json_array_get(at, i), key, name, depth + 1);
    }
    return found;
}

const json_t *schema_resolve(struct schema *s, const char *ref)
{
    const json_t *at = s->root, *id = json_object_get(s->root, "$id");
    const char *hash = strchr(ref, '#');
    size_t n = hash ? (size_t)(hash - ref) : strlen(ref);
    char base[512], part[512];
    if (n >= sizeof base) {
        schema_fail(s, ERR_UNSUPPORTED, "'$ref' is too long");
        return NULL;
    }
    memcpy(base, ref, n);
    base[n] = 0;
    if (n && !(json_is_string(id) && strcmp(json_string_value(id), base) == 0))
        at = find_named(s, s->root, "$id", base, 0);
    const char *p = hash ? hash + 1 : "";
    if (at && *p && *p != '/') {
        const json_t *found = find_named(s, at, "$anchor", p, 0);
        if (!found)
            found = find_named(s, at, "$dynamicAnchor", p, 0);
        char dashed[512];
        snprintf(dashed, sizeof dashed, "#%.500s", p);
        at = found ? found : find_named(s, at, "$id", dashed, 0);
        p = "";
    }
    while (at && *p == '/') {
        size_t len = strcspn(++p, "/");
        if (len >= sizeof part)
            at = NULL;
        if (!at)
            break;
        memcpy(part, p, len);
        part[len] = 0;
        unescape(part);
        at = step(at, part);
        p += len;
    }
    if (!at && !s->b->failed)
        schema_fail(s, ERR_UNSUPPORTED, "'$ref': \"%.200s\" is not in this schema (remote references are not fetched)", ref);
    return at;
}

/* ---- merging two flat schemas ---- */

static json_t *all_of(json_t *x, json_t *y)
{
    return json_equal(x, y) ? json_incref(x) : json_pack("{s:[O,O]}", "allOf", x, y);
}

/* What x says about a property it does not name itself: NULL nothing. */
static json_t *says_of_other(struct schema *s, const json_t *x, const char *key)
{
    json_t *patterns = json_object_get(x, "patternProperties"), *all = json_array();
    for (void *it = json_object_iter(patterns); it; it = json_object_iter_next(patterns, it)) {
        const char *p = json_object_iter_key(it);
        if (expr_contains(s->b, regex_parse_search(s->b, p, strlen(p)), key, strlen(key)))
            json_array_append(all, json_object_iter_value(it));
    }
    if (json_array_size(all) == 0 && json_object_get(x, "additionalProperties"))
        json_array_append(all, json_object_get(x, "additionalProperties"));
    json_t *out = json_array_size(all) == 0 ? NULL : json_array_size(all) == 1 ? json_incref(json_array_get(all, 0)) : json_pack("{s:O}", "allOf", all);
    json_decref(all);
    return out;
}

static bool merge_properties(struct schema *s, json_t *out, const json_t *x, const json_t *y)
{
    json_t *px = json_object_get(x, "properties"), *py = json_object_get(y, "properties"), *merged = json_object();
    for (int side = 0; side < 2; side++) {
        json_t *from = side ? py : px, *other = side ? px : py;
        const json_t *other_schema = side ? x : y;
        for (void *it = json_object_iter(from); it; it = json_object_iter_next(from, it)) {
            const char *key = json_object_iter_key(it);
            json_t *v = json_object_iter_value(it), *w = json_object_get(other, key);
            if (side && w)
                continue;
            json_t *said = w ? json_incref(w) : says_of_other(s, other_schema, key);
            json_object_set_new(merged, key, said ? all_of(v, said) : json_incref(v));
            json_decref(said);
        }
    }
    if (px || py)
        json_object_set(out, "properties", merged);
    json_decref(merged);
    return !s->b->failed;
}

static json_t *union_of(const json_t *x, const json_t *y)
{
    json_t *out = json_array();
    for (int side = 0; side < 2; side++)
        for (size_t i = 0; i < json_array_size(side ? y : x); i++) {
            json_t *v = json_array_get(side ? y : x, i);
            bool known = false;
            for (size_t k = 0; k < json_array_size(out); k++)
                known |= json_equal(json_array_get(out, k), v);
            if (!known)
                json_array_append(out, v);
        }
    return out;
}

static bool same_value(const json_t *a, const json_t *b)
{
    if (json_is_number(a) && json_is_number(b))
        return json_number_value(a) == json_number_value(b);
    return json_equal((json_t *)a, (json_t *)b);
}

static json_t *intersection_of(const json_t *x, const json_t *y)
{
    json_t *out = json_array();
    for (size_t i = 0; i < json_array_size(x); i++)
        for (size_t k = 0; k < json_array_size(y); k++)
            if (same_value(json_array_get(x, i), json_array_get(y, k))) {
                json_array_append(out, json_array_get(x, i));
                break;
            }
    return out;
}

/* The k-th item's schema under x, or NULL when it says nothing. */
static json_t *item_of(const json_t *x, size_t k)
{
    json_t *prefix = json_object_get(x, "prefixItems");
    return k < json_array_size(prefix) ? json_array_get(prefix, k) : json_object_get(x, "items");
}

static void merge_items(json_t *out, const json_t *x, const json_t *y)
{
    size_t nx = json_array_size(json_object_get(x, "prefixItems")), ny = json_array_size(json_object_get(y, "prefixItems")), n = nx > ny ? nx : ny;
    json_t *prefix = json_array();
    for (size_t i = 0; i <= n; i++) {
        json_t *a = i < n ? item_of(x, i) : json_object_get(x, "items"), *b = i < n ? item_of(y, i) : json_object_get(y, "items");
        json_t *both = a && b ? all_of(a, b) : json_incref(a ? a : b);
        if (i < n)
            json_array_append_new(prefix, both ? both : json_true());
        else if (both)
            json_object_set_new(out, "items", both);
    }
    if (n)
        json_object_set(out, "prefixItems", prefix);
    json_decref(prefix);
}

/* multipleOf of both: the least common multiple of integers. */
static json_t *common_multiple(struct schema *s, json_t *a, json_t *b)
{
    if (same_value(a, b))
        return json_incref(a);
    if (!json_is_integer(a) || !json_is_integer(b) || json_integer_value(a) > 1000000 || json_integer_value(b) > 1000000) {
        schema_fail(s, ERR_UNSUPPORTED, "'multipleOf': two different values that are not small integers");
        return json_incref(a);
    }
    json_int_t x = json_integer_value(a), y = json_integer_value(b), p = x, q = y;
    while (q) {
        json_int_t t = p % q;
        p = q;
        q = t;
    }
    return json_integer(x / p * y);
}

static json_t *merge_keyword(struct schema *s, const char *key, json_t *a, json_t *b)
{
    static const char *const larger[] = {"minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties", "minContains"},
                            *const smaller[] = {"maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties", "maxContains"},
                            *const lists[] = {"pattern", "format", "not", "$not", "$groups", "contains", "$notNumber"},
                            *const both[] = {"additionalProperties", "propertyNames"};
    for (size_t i = 0; i < 7; i++) {
        if (strcmp(key, lists[i]) == 0)
            return strcmp(key, "$groups") == 0 ? (a = json_copy(a), json_array_extend(a, b), a) : union_of(a, b);
        if (i == 6)
            break;
        if (strcmp(key, larger[i]) == 0)
            return json_incref(json_number_value(a) >= json_number_value(b) ? a : b);
        if (strcmp(key, smaller[i]) == 0)
            return json_incref(json_number_value(a) <= json_number_value(b) ? a : b);
    }
    for (size_t i = 0; i < 2; i++)
        if (strcmp(key, both[i]) == 0)
            return json_is_false(a) || json_is_false(b) ? json_false() : all_of(a, b);
    if (strcmp(key, "enum") == 0)
        return intersection_of(a, b);
    if (strcmp(key, "required") == 0)
        return union_of(a, b);
    if (strcmp(key, "multipleOf") == 0)
        return common_multiple(s, a, b);
    return json_incref(json_is_true(a) ? a : b); /* uniqueItems */
}

static void merge_patterns(json_t *out, const json_t *x, const json_t *y)
{
    json_t *a = json_object_get(x, "patternProperties"), *b = json_object_get(y, "patternProperties");
    if (!a && !b)
        return;
    json_t *m = a ? json_copy(a) : json_object();
    for (void *it = json_object_iter(b); it; it = json_object_iter_next(b, it)) {
        json_t *known = json_object_get(m, json_object_iter_key(it)), *v = json_object_iter_value(it);
        json_object_set_new(m, json_object_iter_key(it), known ? all_of(known, v) : json_incref(v));
    }
    json_object_set_new(out, "patternProperties", m);
}

const json_t *schema_merge(struct schema *s, const json_t *x, const json_t *y)
{
    static const char *const special[] = {"properties", "patternProperties", "items", "prefixItems", "type"};
    if (schema_never(x) || schema_never(y))
        return never(s);
    if (json_object_size(x) == 0 || json_object_size(y) == 0)
        return json_object_size(x) == 0 ? y : x;
    json_t *out = schema_keep(s, json_object());
    if (!out)
        return NULL;
    unsigned types = schema_types(x) & schema_types(y);
    if (types != TYPE_ALL)
        json_object_set_new(out, "type", types_json(types));
    for (int side = 0; side < 2; side++) {
        json_t *from = (json_t *)(side ? y : x);
        for (void *it = json_object_iter(from); it && !s->b->failed; it = json_object_iter_next(from, it)) {
            const char *key = json_object_iter_key(it);
            bool skip = false;
            for (size_t i = 0; i < 5; i++)
                skip |= strcmp(key, special[i]) == 0;
            json_t *other = json_object_get(side ? x : y, key);
            if (skip || (side && other))
                continue;
            json_object_set_new(out, key, other ? merge_keyword(s, key, json_object_iter_value(it), other) : json_incref(json_object_iter_value(it)));
        }
    }
    if (!merge_properties(s, out, x, y))
        return NULL;
    merge_patterns(out, x, y);
    merge_items(out, x, y);
    return s->b->failed ? NULL : out;
}

/* ---- flattening one schema's own keywords ---- */

enum shape { ANY, NUMBER, COUNT, STRING, OBJECT, ARRAY, SCHEMA, BOOLEAN };

/* Keywords that are taken over as they are, with what they must be. */
static const struct { const char *name; enum shape shape; } kept[] = {
    {"properties", OBJECT}, {"patternProperties", OBJECT}, {"additionalProperties", SCHEMA}, {"required", ARRAY}, {"minProperties", COUNT},
    {"maxProperties", COUNT}, {"propertyNames", SCHEMA}, {"minItems", COUNT}, {"maxItems", COUNT}, {"uniqueItems", BOOLEAN},
    {"minContains", COUNT}, {"maxContains", COUNT}, {"minLength", COUNT}, {"maxLength", COUNT}, {"minimum", NUMBER}, {"maximum", NUMBER},
    {"multipleOf", NUMBER}, {"enum", ARRAY}, {"prefixItems", ARRAY}, {"$not", ARRAY}, {"$notNumber", ARRAY}, {"$groups", ARRAY}, {"$never", ANY},
};

static bool has_shape(const json_t *v, enum shape shape)
{
    switch (shape) {
    case NUMBER: return json_is_number(v);
    case COUNT: return json_is_number(v) && json_number_value(v) >= 0 && json_number_value(v) < 1e9;
    case STRING: return json_is_string(v);
    case OBJECT: return json_is_object(v);
    case ARRAY: return json_is_array(v);
    case SCHEMA: return json_is_object(v) || json_is_boolean(v);
    case BOOLEAN: return json_is_boolean(v);
    case ANY: break;
    }
    return true;
}

static bool wrong(struct schema *s, const char *key, const char *expected, const json_t *found)
{
    return schema_fail(s, ERR_INVALID, "'%s': expected %s, found %s", key, expected, json_type_name(found)), false;
}

static bool take_kept(struct schema *s, const json_t *schema, json_t *out)
{
    static const char *const names[] = {"a value", "a number", "a count", "a string", "an object", "an array", "a schema", "a boolean"};
    for (size_t i = 0; i < sizeof kept / sizeof kept[0]; i++) {
        json_t *v = json_object_get(schema, kept[i].name);
        if (!v)
            continue;
        if (!has_shape(v, kept[i].shape))
            return wrong(s, kept[i].name, names[kept[i].shape], v);
        json_object_set(out, kept[i].name, v);
    }
    const json_t *required = json_object_get(out, "required");
    for (size_t i = 0; i < json_array_size(required); i++)
        if (!json_is_string(json_array_get(required, i)))
            return wrong(s, "required", "strings", json_array_get(required, i));
    if (json_is_false(json_object_get(out, "uniqueItems")))
        json_object_del(out, "uniqueItems");
    return true;
}

static bool take_type(struct schema *s, const json_t *schema, json_t *out)
{
    json_t *t = json_object_get(schema, "type");
    unsigned types = 0;
    if (!t)
        return true;
    json_t *list = json_is_string(t) ? json_pack("[O]", t) : json_incref(t);
    bool ok = json_is_array(list) || wrong(s, "type", "a string or an array", t);
    for (size_t i = 0; ok && i < json_array_size(list); i++) {
        const char *name = json_string_value(json_array_get(list, i));
        unsigned bit = name ? type_bit(name) : 0;
        types |= bit;
        ok = bit || (schema_fail(s, ERR_INVALID, "'type': \"%.40s\" is not a type", name ? name : json_type_name(json_array_get(list, i))), false);
    }
    json_decref(list);
    if (ok && json_is_true(json_object_get(schema, "nullable")))
        types |= TYPE_NULL;
    if (ok && types != TYPE_ALL)
        json_object_set_new(out, "type", types_json(types));
    return ok;
}

/* const, pattern, format, not: lists inside, so that merging need not choose. */
static bool take_lists(struct schema *s, const json_t *schema, json_t *out)
{
    static const char *const keys[] = {"pattern", "format", "not", "contains"};
    json_t *c = json_object_get(schema, "const");
    if (c) {
        json_t *one = json_pack("[O]", c), *known = json_object_get(out, "enum");
        json_object_set_new(out, "enum", known ? intersection_of(known, one) : json_incref(one));
        json_decref(one);
    }
    for (size_t i = 0; i < 4; i++) {
        json_t *v = json_object_get(schema, keys[i]);
        if (!v)
            continue;
        if (json_is_array(v)) /* was flattened before */
            json_object_set(out, keys[i], v);
        else if (!has_shape(v, i < 2 ? STRING : SCHEMA))
            return wrong(s, keys[i], i < 2 ? "a string" : "a schema", v);
        else
            json_object_set_new(out, keys[i], json_pack("[O]", v));
    }
    return true;
}

/* Draft 4 has booleans, later ones numbers. */
static bool take_bounds(struct schema *s, const json_t *schema, json_t *out)
{
    static const char *const keys[2][2] = {{"exclusiveMinimum", "minimum"}, {"exclusiveMaximum", "maximum"}};
    for (int i = 0; i < 2; i++) {
        json_t *v = json_object_get(schema, keys[i][0]), *bound = json_object_get(out, keys[i][1]);
        if (json_is_true(v) && bound) {
            json_object_set(out, keys[i][0], bound);
            json_object_del(out, keys[i][1]);
        } else if (json_is_number(v)) {
            json_object_set(out, keys[i][0], v);
        } else if (v && !json_is_boolean(v)) {
            return wrong(s, keys[i][0], "a number", v);
        }
    }
    return true;
}

/* Until draft 2019: items may be an array, additionalItems what follows it. */
static bool take_items(struct schema *s, const json_t *schema, json_t *out)
{
    json_t *items = json_object_get(schema, "items"), *more = json_object_get(schema, "additionalItems");
    if (json_is_array(items)) {
        json_object_set(out, "prefixItems", items);
        items = more;
    }
    if (items && !has_shape(items, SCHEMA))
        return wrong(s, "items", "a schema", items);
    if (items)
        json_object_set(out, "items", items);
    return true;
}

static void add_group(json_t *out, json_t *branches, bool one)
{
    json_t *groups = json_object_get(out, "$groups");
    groups = groups ? json_copy(groups) : json_array();
    json_array_append_new(groups, json_pack("{s:O,s:b}", "of", branches, "one", one));
    json_object_set_new(out, "$groups", groups);
    json_decref(branches);
}

static bool take_alternatives(struct schema *s, const json_t *schema, json_t *out)
{
    for (int one = 0; one < 2; one++) {
        json_t *list = json_object_get(schema, one ? "oneOf" : "anyOf");
        if (!list)
            continue;
        if (!json_is_array(list) || json_array_size(list) == 0)
            return wrong(s, one ? "oneOf" : "anyOf", "an array that is not empty", list);
        add_group(out, json_incref(list), one && json_array_size(list) > 1);
    }
    json_t *cond = json_object_get(schema, "if"), *then = json_object_get(schema, "then"), *other = json_object_get(schema, "else");
    if (cond && (then || other))
        add_group(out, json_pack("[{s:[O,o]},{s:[{s:O},o]}]", "allOf", cond, then ? json_incref(then) : json_true(), "allOf", "not", cond,
                                 other ? json_incref(other) : json_true()), false);
    static const char *const keys[] = {"dependentRequired", "dependentSchemas", "dependencies"};
    for (int i = 0; i < 3; i++) {
        json_t *deps = json_object_get(schema, keys[i]);
        for (void *it = json_object_iter(deps); it; it = json_object_iter_next(deps, it)) {
            json_t *v = json_object_iter_value(it), *need = json_is_array(v) ? json_pack("{s:O}", "required", v) : json_incref(v);
            add_group(out, json_pack("[{s:{s:b}},{s:[{s:[s]},o]}]", "properties", json_object_iter_key(it), 0, "allOf", "required",
                                     json_object_iter_key(it), need), false);
        }
    }
    return true;
}

static const json_t *flatten(struct schema *s, const json_t *schema, int depth);

static const json_t *own_keywords(struct schema *s, const json_t *schema)
{
    json_t *out = schema_keep(s, json_object());
    if (!out || !take_kept(s, schema, out) || !take_type(s, schema, out) || !take_lists(s, schema, out) || !take_bounds(s, schema, out) ||
        !take_items(s, schema, out) || !take_alternatives(s, schema, out))
        return NULL;
    return out;
}

static const json_t *flatten(struct schema *s, const json_t *schema, int depth)
{
    static const char *const refs[] = {"$ref", "$recursiveRef", "$dynamicRef"};
    if (s->b->failed)
        return NULL;
    if (depth > MAX_CHAIN) {
        schema_fail(s, ERR_UNSUPPORTED, "'$ref' and 'allOf' lead back to themselves");
        return NULL;
    }
    if (json_is_boolean(schema))
        return json_is_true(schema) ? schema_keep(s, json_object()) : never(s);
    if (!json_is_object(schema)) {
        schema_fail(s, ERR_INVALID, "a schema must be an object or a boolean, found %s", json_type_name(schema));
        return NULL;
    }
    const json_t *out = own_keywords(s, schema);
    for (size_t i = 0; out && i < 3; i++) {
        const json_t *ref = json_object_get(schema, refs[i]);
        if (!ref)
            continue;
        if (!json_is_string(ref))
            return wrong(s, refs[i], "a string", ref), NULL;
        const json_t *target = schema_resolve(s, json_string_value(ref));
        const json_t *flat = target ? flatten(s, target, depth + 1) : NULL;
        out = flat ? schema_merge(s, flat, out) : NULL;
    }
    const json_t *all = json_object_get(schema, "allOf");
    if (out && all && !json_is_array(all))
        return wrong(s, "allOf", "an array", all), NULL;
    for (size_t i = 0; out && i < json_array_size(all); i++) {
        const json_t *flat = flatten(s, json_array_get(all, i), depth + 1);
        out = flat ? schema_merge(s, out, flat) : NULL;
    }
    return out;
}

const json_t *schema_flatten(struct schema *s, const json_t *schema) { return flatten(s, schema, 0); }
