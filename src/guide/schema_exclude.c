/* Which values are valid, and making two schemas disjoint: for oneOf, not, if. */
#include <math.h>
#include <string.h>
#include "base/json.h"
#include "base/utf8.h"
#include "guide/schema_int.h"

enum { MAX_NESTING = 40 };

/* ---- validation of given values (enum, const) ---- */

static bool accepts(struct schema *s, const json_t *schema, const json_t *v, int depth);

static unsigned type_of(const json_t *v)
{
    switch (json_typeof(v)) {
    case JSON_OBJECT: return TYPE_OBJECT;
    case JSON_ARRAY: return TYPE_ARRAY;
    case JSON_STRING: return TYPE_STRING;
    case JSON_INTEGER: return TYPE_INTEGER | TYPE_NUMBER;
    case JSON_REAL: return json_real_value(v) == floor(json_real_value(v)) ? TYPE_INTEGER | TYPE_NUMBER : TYPE_NUMBER;
    case JSON_TRUE:
    case JSON_FALSE: return TYPE_BOOLEAN;
    case JSON_NULL: break;
    }
    return TYPE_NULL;
}

static double number(const json_t *flat, const char *key, double dflt)
{
    const json_t *v = json_object_get(flat, key);
    return v ? json_number_value(v) : dflt;
}

static bool accepts_number(struct schema *s, const json_t *flat, const json_t *v, int depth)
{
    const json_t *nots = json_object_get(flat, "$notNumber");
    for (size_t i = 0; i < json_array_size(nots); i++)
        if (accepts(s, json_array_get(nots, i), v, depth + 1))
            return false;
    double x = json_number_value(v), m = number(flat, "multipleOf", 0), q = m > 0 ? x / m : 0;
    return x >= number(flat, "minimum", -INFINITY) && x <= number(flat, "maximum", INFINITY) &&
           (!json_object_get(flat, "exclusiveMinimum") || x > number(flat, "exclusiveMinimum", 0)) &&
           (!json_object_get(flat, "exclusiveMaximum") || x < number(flat, "exclusiveMaximum", 0)) && fabs(q - nearbyint(q)) < 1e-9;
}

static bool has_string_keywords(const json_t *flat)
{
    return json_object_get(flat, "pattern") || json_object_get(flat, "format") || json_object_get(flat, "minLength") ||
           json_object_get(flat, "maxLength") || json_object_get(flat, "$not");
}

static bool accepts_string(struct schema *s, const json_t *flat, const json_t *v)
{
    return !has_string_keywords(flat) || expr_contains(s->b, schema_string_language(s, flat), json_string_value(v), json_string_length(v));
}

static bool accepts_array(struct schema *s, const json_t *flat, const json_t *v, int depth)
{
    size_t n = json_array_size(v);
    const json_t *prefix = json_object_get(flat, "prefixItems"), *items = json_object_get(flat, "items");
    if ((double)n < number(flat, "minItems", 0) || (double)n > number(flat, "maxItems", INFINITY))
        return false;
    for (size_t i = 0; i < n; i++) {
        const json_t *one = i < json_array_size(prefix) ? json_array_get(prefix, i) : items;
        if (one && !accepts(s, one, json_array_get(v, i), depth + 1))
            return false;
        for (size_t k = 0; k < i && json_object_get(flat, "uniqueItems"); k++)
            if (json_equal(json_array_get(v, i), json_array_get(v, k)))
                return false;
    }
    return !json_object_get(flat, "contains");
}

static bool accepts_object(struct schema *s, const json_t *flat, const json_t *v, int depth)
{
    json_t *obj = (json_t *)v, *declared = json_object_get(flat, "properties");
    const json_t *required = json_object_get(flat, "required"), *more = json_object_get(flat, "additionalProperties");
    double n = (double)json_object_size(obj);
    if (n < number(flat, "minProperties", 0) || n > number(flat, "maxProperties", INFINITY) || json_object_get(flat, "propertyNames") ||
        json_object_get(flat, "patternProperties"))
        return false;
    for (size_t i = 0; i < json_array_size(required); i++)
        if (!json_object_get(obj, json_string_value(json_array_get(required, i))))
            return false;
    for (void *it = json_object_iter(obj); it; it = json_object_iter_next(obj, it)) {
        const json_t *one = json_object_get(declared, json_object_iter_key(it));
        one = one ? one : more;
        if (one && !accepts(s, one, json_object_iter_value(it), depth + 1))
            return false;
    }
    return true;
}

static bool accepts_groups(struct schema *s, const json_t *flat, const json_t *v, int depth)
{
    const json_t *groups = json_object_get(flat, "$groups"), *nots = json_object_get(flat, "not");
    for (size_t i = 0; i < json_array_size(groups); i++) {
        const json_t *of = json_object_get(json_array_get(groups, i), "of");
        int n = 0;
        for (size_t k = 0; k < json_array_size(of); k++)
            n += accepts(s, json_array_get(of, k), v, depth + 1);
        if (json_is_true(json_object_get(json_array_get(groups, i), "one")) ? n != 1 : n == 0)
            return false;
    }
    for (size_t i = 0; i < json_array_size(nots); i++)
        if (accepts(s, json_array_get(nots, i), v, depth + 1))
            return false;
    return true;
}

static bool same(const json_t *a, const json_t *b)
{
    return json_is_number(a) && json_is_number(b) ? json_number_value(a) == json_number_value(b) : json_equal((json_t *)a, (json_t *)b);
}

static bool accepts(struct schema *s, const json_t *schema, const json_t *v, int depth)
{
    const json_t *flat = s->b->failed || depth > MAX_NESTING ? NULL : schema_flatten(s, schema);
    if (!flat || schema_never(flat) || !(schema_types(flat) & type_of(v)))
        return false;
    const json_t *values = json_object_get(flat, "enum");
    bool listed = !values;
    for (size_t i = 0; i < json_array_size(values); i++)
        listed |= same(json_array_get(values, i), v);
    if (!listed || !accepts_groups(s, flat, v, depth))
        return false;
    if (json_is_number(v))
        return accepts_number(s, flat, v, depth);
    if (json_is_string(v))
        return accepts_string(s, flat, v);
    if (json_is_array(v))
        return accepts_array(s, flat, v, depth);
    return !json_is_object(v) || accepts_object(s, flat, v, depth);
}

bool schema_accepts(struct schema *s, const json_t *flat, const json_t *value) { return accepts(s, flat, value, 0); }

/* ---- making disjoint ---- */

static const json_t *exclude(struct schema *s, const json_t *x, const json_t *y, int depth);

static json_t *copy(struct schema *s, const json_t *x) { return schema_keep(s, json_copy((json_t *)x)); }

static bool in_list(const json_t *list, const char *name)
{
    for (size_t i = 0; i < json_array_size(list); i++)
        if (strcmp(json_string_value(json_array_get(list, i)), name) == 0)
            return true;
    return false;
}

static const json_t *with_property(struct schema *s, const json_t *x, const char *name, const json_t *schema)
{
    json_t *out = copy(s, x), *props = json_object_get(x, "properties");
    if (!out)
        return NULL;
    props = props ? json_copy(props) : json_object();
    json_object_set(props, name, (json_t *)schema);
    json_object_set_new(out, "properties", props);
    return out;
}

/* A property that x must have and y sees differently: x's is narrowed, if need be, so that y refuses it. */
static const json_t *by_shared_property(struct schema *s, const json_t *x, const json_t *y, int depth, bool free_only)
{
    json_t *px = json_object_get(x, "properties"), *py = json_object_get(y, "properties"), *required = json_object_get(x, "required");
    const json_t *more = json_object_get(y, "additionalProperties");
    for (size_t i = 0; i < json_array_size(required) && !s->b->failed; i++) {
        const char *name = json_string_value(json_array_get(required, i));
        const json_t *a = json_object_get(px, name), *b = json_object_get(py, name);
        if (!b && more && json_object_size(json_object_get(y, "patternProperties")) == 0)
            b = more;
        if (!b)
            continue;
        const json_t *fa = a ? schema_flatten(s, a) : NULL, *fb = schema_flatten(s, b);
        if (!fb)
            return NULL;
        if (schema_never(fb))
            return x;
        if (!fa)
            continue;
        const json_t *narrowed = exclude(s, fa, fb, depth + 1);
        if (narrowed && (narrowed == fa || !free_only) && !schema_never(narrowed))
            return narrowed == fa ? x : with_property(s, x, name, narrowed);
    }
    return NULL;
}

/* A property that y must have: x goes without it. */
static const json_t *by_absent_property(struct schema *s, const json_t *x, const json_t *y)
{
    const json_t *wanted = json_object_get(y, "required"), *mine = json_object_get(x, "required");
    json_t *px = json_object_get(x, "properties");
    for (int loses = 0; loses < 2; loses++)
        for (size_t i = 0; i < json_array_size(wanted); i++) {
            const char *name = json_string_value(json_array_get(wanted, i));
            if (in_list(mine, name) || (!loses && json_object_get(px, name)))
                continue;
            return with_property(s, x, name, json_false());
        }
    return NULL;
}

/* A property that y does not demand but sees in its own way: x must have it, and differently. */
static const json_t *by_forced_property(struct schema *s, const json_t *x, const json_t *y, int depth)
{
    json_t *px = json_object_get(x, "properties"), *py = json_object_get(y, "properties"), *required = json_object_get(x, "required");
    for (void *it = json_object_iter(py); it && !s->b->failed; it = json_object_iter_next(py, it)) {
        const char *name = json_object_iter_key(it);
        const json_t *a = json_object_get(px, name), *fa = a ? schema_flatten(s, a) : NULL, *fb = fa ? schema_flatten(s, json_object_iter_value(it)) : NULL;
        const json_t *narrowed = fb && !schema_never(fa) ? schema_never(fb) ? fa : exclude(s, fa, fb, depth + 1) : NULL;
        if (!narrowed || schema_never(narrowed) || in_list(required, name))
            continue;
        const json_t *out = with_property(s, x, name, narrowed);
        json_t *with = out ? copy(s, out) : NULL, *list = required ? json_copy(required) : json_array();
        json_array_append_new(list, json_string(name));
        if (with)
            json_object_set(with, "required", list);
        json_decref(list);
        return with;
    }
    return NULL;
}

static const json_t *exclude_object(struct schema *s, const json_t *x, const json_t *y, int depth)
{
    const json_t *out = by_shared_property(s, x, y, depth, true);
    if (!out && !s->b->failed)
        out = by_absent_property(s, x, y);
    if (!out && !s->b->failed)
        out = by_shared_property(s, x, y, depth, false);
    if (!out && !s->b->failed)
        out = by_forced_property(s, x, y, depth);
    return out;
}

static const json_t *without_numbers(struct schema *s, const json_t *x, const json_t *y)
{
    json_t *out = copy(s, x), *nots = json_object_get(x, "$notNumber");
    if (!out)
        return NULL;
    nots = nots ? json_copy(nots) : json_array();
    json_array_append(nots, (json_t *)y);
    json_object_set_new(out, "$notNumber", nots);
    return out;
}

static const json_t *exclude_number(struct schema *s, const json_t *x, const json_t *y, bool integer)
{
    static const char *const up[] = {"minimum", "exclusiveMinimum"}, *const down[] = {"maximum", "exclusiveMaximum"};
    double lo = -INFINITY, hi = INFINITY, ylo = -INFINITY, yhi = INFINITY;
    bool strict_lo = false, strict_hi = false;
    for (int i = 0; i < 2; i++) {
        lo = fmax(lo, number(x, up[i], -INFINITY));
        hi = fmin(hi, number(x, down[i], INFINITY));
        ylo = fmax(ylo, number(y, up[i], -INFINITY));
        yhi = fmin(yhi, number(y, down[i], INFINITY));
    }
    strict_lo = json_object_get(y, "exclusiveMinimum") && number(y, "exclusiveMinimum", 0) == ylo;
    strict_hi = json_object_get(y, "exclusiveMaximum") && number(y, "exclusiveMaximum", 0) == yhi;
    if (hi < ylo || lo > yhi || (hi == ylo && (strict_lo || json_object_get(x, "exclusiveMaximum"))) ||
        (lo == yhi && (strict_hi || json_object_get(x, "exclusiveMinimum"))))
        return x;
    if (integer || !(schema_types(y) & TYPE_NUMBER))
        return without_numbers(s, x, y);
    if (!isfinite(ylo) && !isfinite(yhi))
        return schema_keep(s, json_pack("{s:b}", "$never", 1));
    json_t *out = copy(s, x);
    if (!out)
        return NULL;
    if (isfinite(ylo)) /* the part below y */
        json_object_set_new(out, strict_lo ? "maximum" : "exclusiveMaximum", json_real(ylo));
    else
        json_object_set_new(out, strict_hi ? "minimum" : "exclusiveMinimum", json_real(yhi));
    return out;
}

static const json_t *exclude_string(struct schema *s, const json_t *x, const json_t *y)
{
    json_t *out = copy(s, x), *nots = json_object_get(x, "$not");
    if (!out)
        return NULL;
    /* Of a format only the usual forms are known: what is no such form may still be valid. */
    bool all_of_y = json_object_get(y, "format") && !json_object_get(x, "format") && !json_object_get(x, "pattern");
    if (all_of_y || (!json_object_get(y, "enum") && !has_string_keywords(y)))
        return schema_keep(s, json_pack("{s:b}", "$never", 1));
    nots = nots ? json_copy(nots) : json_array();
    json_array_append(nots, (json_t *)y);
    json_object_set_new(out, "$not", nots);
    return out;
}

static const json_t *item_at(const json_t *x, size_t i)
{
    const json_t *prefix = json_object_get(x, "prefixItems");
    return i < json_array_size(prefix) ? json_array_get(prefix, i) : json_object_get(x, "items");
}

/* x's items must be as here at place i. */
static const json_t *with_item(struct schema *s, const json_t *x, size_t i, const json_t *schema)
{
    json_t *out = copy(s, x), *prefix = json_array();
    for (size_t k = 0; k <= i || k < json_array_size(json_object_get(x, "prefixItems")); k++) {
        const json_t *one = k == i ? schema : item_at(x, k);
        json_array_append(prefix, one ? (json_t *)one : json_true());
    }
    if (out && !json_object_get(out, "items")) /* what follows was open and stays so */
        json_object_set_new(out, "items", json_true());
    if (out)
        json_object_set(out, "prefixItems", prefix);
    json_decref(prefix);
    return out;
}

/* Apart by length, or by an item that x must have. */
static const json_t *exclude_array(struct schema *s, const json_t *x, const json_t *y, int depth)
{
    double min = number(x, "minItems", 0), max = number(x, "maxItems", INFINITY), ymin = number(y, "minItems", 0), ymax = number(y, "maxItems", INFINITY);
    if (min > ymax || max < ymin)
        return x;
    for (int narrowing = 0; narrowing < 2; narrowing++)
        for (size_t i = 0; (double)i < min && i < 16 && !s->b->failed; i++) {
            const json_t *a = item_at(x, i), *b = item_at(y, i);
            const json_t *fa = b ? schema_flatten(s, a ? a : json_true()) : NULL, *fb = fa ? schema_flatten(s, b) : NULL;
            const json_t *left = fb ? exclude(s, fa, fb, depth + 1) : NULL;
            if (left == fa && left)
                return x;
            if (narrowing && left && !schema_never(left))
                return with_item(s, x, i, left);
        }
    if (s->b->failed || ymin < 1)
        return NULL;
    json_t *out = copy(s, x); /* shorter than y's shortest */
    if (out)
        json_object_set_new(out, "maxItems", json_integer((json_int_t)ymin - 1));
    return out;
}

static const json_t *exclude_enum(struct schema *s, const json_t *x, const json_t *y)
{
    json_t *out = copy(s, x), *left = json_array(), *values = json_object_get(x, "enum");
    if (!out) {
        json_decref(left);
        return NULL;
    }
    for (size_t i = 0; i < json_array_size(values); i++)
        if (!accepts(s, y, json_array_get(values, i), 0))
            json_array_append(left, json_array_get(values, i));
    bool all = json_array_size(left) == json_array_size(values);
    json_object_set_new(out, "enum", left);
    return all ? x : json_array_size(left) == 0 ? schema_keep(s, json_pack("{s:b}", "$never", 1)) : out;
}

/* x of one type only. */
static const json_t *exclude_typed(struct schema *s, const json_t *x, const json_t *y, unsigned type, int depth)
{
    unsigned meets = type == TYPE_NUMBER ? TYPE_NUMBER | TYPE_INTEGER : type; /* a number may be whole */
    if (!(schema_types(y) & meets))
        return x;
    if (json_object_get(y, "enum")) {
        unsigned theirs = 0;
        json_t *values = json_object_get(y, "enum");
        for (size_t i = 0; i < json_array_size(values); i++)
            theirs |= type_of(json_array_get(values, i));
        if (!(theirs & meets))
            return x;
        if (type & (TYPE_INTEGER | TYPE_NUMBER))
            return without_numbers(s, x, y);
        if (type & (TYPE_OBJECT | TYPE_ARRAY))
            return NULL;
    }
    switch (type) {
    case TYPE_OBJECT: return exclude_object(s, x, y, depth);
    case TYPE_STRING: return exclude_string(s, x, y);
    case TYPE_ARRAY: return exclude_array(s, x, y, depth);
    case TYPE_INTEGER: return exclude_number(s, x, y, true);
    case TYPE_NUMBER: return exclude_number(s, x, y, false);
    default: break;
    }
    /* null and boolean: value by value */
    json_t *listed = copy(s, x);
    if (!listed)
        return NULL;
    json_object_set_new(listed, "enum", type == TYPE_NULL ? json_pack("[n]") : json_pack("[b,b]", 1, 0));
    return exclude_enum(s, listed, y);
}

/* Several types: an alternative for each. */
static const json_t *exclude_types(struct schema *s, const json_t *x, const json_t *y, unsigned types, int depth)
{
    static const char *const names[] = {"null", "boolean", "integer", "number", "string", "array", "object"};
    json_t *of = json_array();
    for (unsigned i = 0; i < 7; i++) {
        if (!(types >> i & 1) || (i == 2 && types & TYPE_NUMBER))
            continue;
        json_t *one = copy(s, x);
        if (!one)
            break;
        json_object_set_new(one, "type", json_pack("[s]", names[i]));
        const json_t *left = exclude_typed(s, one, y, 1u << i, depth);
        if (!left) {
            json_decref(of);
            return NULL;
        }
        if (!schema_never(left))
            json_array_append(of, (json_t *)left);
    }
    json_t *out = schema_keep(s, json_array_size(of) == 0 ? json_pack("{s:b}", "$never", 1)
                                 : json_pack("{s:[{s:O,s:b}]}", "$groups", "of", of, "one", 0));
    json_decref(of);
    return out;
}

static const json_t *exclude(struct schema *s, const json_t *x, const json_t *y, int depth)
{
    if (s->b->failed || depth > MAX_NESTING)
        return NULL;
    unsigned tx = schema_types(x), ty = schema_types(y);
    if (schema_never(x) || schema_never(y) || !(tx & ty))
        return x;
    if (json_object_get(x, "enum"))
        return exclude_enum(s, x, y);
    const json_t *groups = json_object_get(y, "$groups");
    if (json_array_size(groups)) {
        /* y is one of several: x must keep apart from each of them. */
        const json_t *of = json_object_get(json_array_get(groups, 0), "of");
        for (size_t i = 0; i < json_array_size(of) && x; i++) {
            json_t *rest = copy(s, y);
            const json_t *branch = rest ? schema_flatten(s, json_array_get(of, i)) : NULL;
            if (!branch)
                return NULL;
            json_object_del(rest, "$groups");
            const json_t *whole = schema_merge(s, rest, branch);
            x = whole ? exclude(s, x, whole, depth + 1) : NULL;
        }
        return x;
    }
    if (json_object_get(y, "not") || json_object_get(x, "$groups") || json_object_get(x, "not")) {
        /* Only what is plain is looked at: less of y means more is excluded, which is safe; but "not" inside is not understood. */
        if (json_object_get(y, "not"))
            return NULL;
    }
    unsigned both = tx;
    if (tx & TYPE_NUMBER)
        both &= ~(unsigned)TYPE_INTEGER;
    return (both & (both - 1)) == 0 ? exclude_typed(s, x, y, both, depth) : json_object_get(x, "$groups") ? NULL : exclude_types(s, x, y, tx, depth);
}

const json_t *schema_exclude(struct schema *s, const json_t *flat, const json_t *other) { return exclude(s, flat, other, 0); }
