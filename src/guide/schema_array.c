/* Arrays: items in order, counted by places of a graph. */
#include <string.h>
#include "base/json.h"
#include "base/mem.h"
#include "base/vec.h"
#include "guide/schema_int.h"

enum { MAX_ITEMS = 20000, MAX_SUBSETS = 6, MAX_INTEGERS = 256 };

struct graph { struct guide_builder *b; struct expr_move *moves; size_t n, cap; };

static void move(struct graph *g, int32_t from, int32_t to, int32_t label)
{
    if (!vec_reserve((void **)&g->moves, &g->cap, g->n + 1, sizeof *g->moves))
        expr_fail(g->b, ERR_NOMEM, "out of memory for the guide");
    else
        g->moves[g->n++] = (struct expr_move){from, to, label};
}

static int32_t text(struct schema *s, const char *t) { return expr_text(s->b, t, strlen(t)); }

static int64_t count_of(const json_t *flat, const char *key, int64_t dflt)
{
    const json_t *v = json_object_get(flat, key);
    return v ? (int64_t)json_number_value(v) : dflt;
}

static int32_t item(struct schema *s, const json_t *schema, const char *where)
{
    size_t was = s->path.len;
    buf_puts(&s->path, where);
    int32_t id = schema_value(s, schema);
    s->path.len = was;
    if (s->path.data)
        s->path.data[was] = 0;
    return id;
}

static bool is_void(struct schema *s, const json_t *schema)
{
    const json_t *flat = schema ? schema_flatten(s, schema) : NULL;
    return flat && schema_never(flat);
}

/* "[" ... "]" around places 0 (none written) to n of the graph; final places lead to `last` by the caller. */
static int32_t close_graph(struct schema *s, struct graph *g, int32_t last)
{
    move(g, last, last + 1, text(s, "]"));
    int32_t id = expr_graph(s->b, g->moves, g->n, last + 2);
    mem_free(g->moves);
    return id;
}

/* ---- distinct items of a finite set ---- */

/* The values a schema of items enumerates, or NULL. */
static const json_t *finite(struct schema *s, const json_t *flat)
{
    const json_t *values = json_object_get(flat, "enum");
    if (values && !json_object_get(flat, "$groups") && !json_object_get(flat, "not")) {
        json_t *kept = schema_keep(s, json_array());
        for (size_t i = 0; kept && i < json_array_size(values); i++) {
            json_t *v = json_array_get(values, i);
            bool known = false;
            for (size_t k = 0; k < json_array_size(kept); k++)
                known |= json_equal(json_array_get(kept, k), v);
            if (!known && schema_accepts(s, flat, v))
                json_array_append(kept, v);
        }
        return kept;
    }
    unsigned types = schema_types(flat);
    const json_t *lo = json_object_get(flat, "minimum"), *hi = json_object_get(flat, "maximum");
    if (types == TYPE_INTEGER && json_is_integer(lo) && json_is_integer(hi) && json_integer_value(hi) - json_integer_value(lo) < MAX_INTEGERS &&
        !json_object_get(flat, "$groups") && !json_object_get(flat, "not")) {
        json_t *list = schema_keep(s, json_array());
        for (json_int_t x = json_integer_value(lo); list && x <= json_integer_value(hi); x++) {
            json_t *v = json_integer(x);
            if (schema_accepts(s, flat, v))
                json_array_append(list, v);
            json_decref(v);
        }
        return list;
    }
    if (types & ~(unsigned)(TYPE_BOOLEAN | TYPE_NULL) || json_object_get(flat, "$groups"))
        return NULL;
    json_t *list = schema_keep(s, json_array());
    if (list && types & TYPE_BOOLEAN) {
        json_array_append(list, json_true());
        json_array_append(list, json_false());
    }
    if (list && types & TYPE_NULL)
        json_array_append(list, json_null());
    return list;
}

/* A few values: any order, places are subsets.  More: in their own order, places are (value, how many). */
static int32_t distinct(struct schema *s, const json_t *values, int64_t min, int64_t max)
{
    struct graph g = {.b = s->b};
    int32_t n = (int32_t)json_array_size(values), comma = expr_seq2(s->b, text(s, ","), s->space);
    if (n > 1000)
        return schema_fail(s, ERR_TOO_LARGE, "'uniqueItems' over more than 1000 values");
    if (max < 0 || max > n)
        max = n;
    int32_t width = (int32_t)max + 1, subsets = n <= MAX_SUBSETS, places = subsets ? 1 << n : (n + 1) * width, last = places + 1;
    move(&g, 0, 1, expr_seq2(s->b, text(s, "["), s->space));
    for (int32_t p = 0; p < places && !s->b->failed; p++) {
        int32_t c = subsets ? __builtin_popcount((unsigned)p) : p % width;
        for (int32_t i = 0; i < n; i++) {
            int32_t lit, to = subsets ? p | 1 << i : p + width + 1;
            if (subsets ? p >> i & 1 : p / width != i)
                continue;
            if (!subsets)
                move(&g, 1 + p, 1 + p + width, -1);
            if (c >= max)
                continue;
            lit = schema_literal(s, json_array_get(values, (size_t)i));
            move(&g, 1 + p, 1 + to, c ? expr_seq2(s->b, comma, lit) : lit);
        }
        if (c >= min && (subsets || p / width == n))
            move(&g, 1 + p, last, c ? s->space : -1);
    }
    return close_graph(s, &g, last);
}

/* ---- plain arrays ---- */

static int32_t sequence(struct schema *s, const json_t *flat, int64_t min, int64_t max)
{
    struct graph g = {.b = s->b};
    const json_t *prefix = json_object_get(flat, "prefixItems"), *items = json_object_get(flat, "items");
    int64_t n_prefix = (int64_t)json_array_size(prefix);
    char where[48];
    int32_t rest = -1, comma = expr_seq2(s->b, text(s, ","), s->space);
    for (int64_t i = 0; i < n_prefix; i++)
        if (is_void(s, json_array_get(prefix, (size_t)i)) && (max < 0 || max > i))
            max = i;
    /* Past the declared items: what "items" says; when it says nothing, nothing more is produced unless needed. */
    bool open = items ? !is_void(s, items) : n_prefix == 0 || min > n_prefix;
    if (s->b->failed)
        return -1;
    if (!open && (max < 0 || max > n_prefix))
        max = n_prefix;
    if (max >= 0 && max < min)
        return expr_never(s->b);
    if (min > MAX_ITEMS || n_prefix > MAX_ITEMS)
        return schema_fail(s, ERR_TOO_LARGE, "'minItems' of more than %d", MAX_ITEMS);
    if (max > MAX_ITEMS)
        max = -1;
    if (open && (max < 0 || max > n_prefix))
        rest = item(s, items ? items : json_true(), "/items");
    int64_t places = max >= 0 ? max : (min > n_prefix ? min : n_prefix) + 1;
    int32_t last = (int32_t)places + 2;
    move(&g, 0, 1, expr_seq2(s->b, text(s, "["), s->space));
    for (int64_t i = 0; i <= places && !s->b->failed; i++) {
        if (i >= min)
            move(&g, (int32_t)i + 1, last, i ? s->space : -1);
        if (i == places && max >= 0)
            break;
        int32_t one = rest;
        if (i < n_prefix) {
            snprintf(where, sizeof where, "/prefixItems/%lld", (long long)i);
            one = item(s, json_array_get(prefix, (size_t)i), where);
        }
        move(&g, (int32_t)i + 1, (int32_t)(i == places ? i : i + 1) + 1, i ? expr_seq2(s->b, comma, one) : one);
    }
    return close_graph(s, &g, last);
}

/* contains: items, one that is contained, items. */
static int32_t containing(struct schema *s, const json_t *flat)
{
    struct graph g = {.b = s->b};
    const json_t *items = json_object_get(flat, "items"), *list = json_object_get(flat, "contains");
    int64_t min = count_of(flat, "minContains", 1), lo = count_of(flat, "minItems", 0), hi = count_of(flat, "maxItems", -1);
    if (json_array_size(list) != 1 || json_object_get(flat, "prefixItems") || json_object_get(flat, "maxContains") || min > 100 || lo > min || hi >= 0)
        return schema_fail(s, ERR_UNSUPPORTED, "'contains' together with other bounds of the array");
    json_t *wanted = schema_keep(s, items ? json_pack("{s:[O,O]}", "allOf", items, json_array_get(list, 0)) : json_incref(json_array_get(list, 0)));
    int32_t any = item(s, items ? items : json_true(), "/items"), one = wanted ? item(s, wanted, "/contains") : -1;
    int32_t comma = expr_seq2(s->b, text(s, ","), s->space), last = (int32_t)min * 2 + 3;
    /* Place 1: nothing written; 2k + 2: k wanted and something written. */
    move(&g, 0, 1, expr_seq2(s->b, text(s, "["), s->space));
    move(&g, 1, 2, any);
    move(&g, 1, 4 - 2 * (min == 0), one);
    for (int32_t k = 0; k <= (int32_t)min; k++) {
        move(&g, 2 * k + 2, 2 * k + 2, expr_seq2(s->b, comma, any));
        if (k < (int32_t)min)
            move(&g, 2 * k + 2, 2 * k + 4, expr_seq2(s->b, comma, one));
    }
    move(&g, 2 * (int32_t)min + 2, last, s->space);
    if (min == 0)
        move(&g, 1, last, -1);
    return close_graph(s, &g, last);
}

/* With this keyword; v NULL: 0.  A length, even none, makes strings be spelled in one way only. */
static json_t *copy_with(struct schema *s, const json_t *flat, const char *key, const json_t *v)
{
    json_t *out = schema_keep(s, json_copy((json_t *)flat));
    if (out)
        json_object_set_new(out, key, v ? json_incref((json_t *)v) : json_integer(0));
    return out;
}

int32_t schema_array(struct schema *s, const json_t *flat)
{
    int64_t min = count_of(flat, "minItems", 0), max = count_of(flat, "maxItems", -1);
    const json_t *items = json_object_get(flat, "items");
    if (json_object_get(flat, "contains") && count_of(flat, "minContains", 1) > 0)
        return containing(s, flat);
    if (json_object_get(flat, "maxContains") && json_object_get(flat, "contains"))
        return schema_fail(s, ERR_UNSUPPORTED, "'maxContains'");
    if (json_is_true(json_object_get(flat, "uniqueItems")) && (max < 0 || max > 1)) {
        const json_t *one = items ? schema_flatten(s, items) : NULL, *values = one && !json_object_get(flat, "prefixItems") ? finite(s, one) : NULL;
        if (values)
            return distinct(s, values, min, max);
        if (s->b->failed)
            return -1;
        if (!one || schema_types(one) != TYPE_STRING || json_object_get(flat, "prefixItems"))
            return schema_fail(s, ERR_UNSUPPORTED, "'uniqueItems' is supported only for items that are strings, of an enum, boolean or of a small range of integers");
        s->b->unique = true;
        json_t *spelled = copy_with(s, one, "minLength", json_object_get(one, "minLength")), *whole = spelled ? copy_with(s, flat, "items", spelled) : NULL;
        return whole ? sequence(s, whole, min, max) : -1;
    }
    return s->b->failed ? -1 : sequence(s, flat, min, max);
}
