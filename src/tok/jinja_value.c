/* jinja_value.c - values: making, counting, hashing, comparing. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include "base/hash.h"
#include "base/utf8.h"
#include "tok/jinja_int.h"

enum { SMALL_DICT = 8, JSON_DEPTH = 500 };

/* ---- errors and bounds ---- */

static bool vfail(struct jrender *r, enum err_code code, const char *fmt, va_list ap)
{
    if (r->failed)
        return false;  /* the first error is the one that counts */
    r->failed = true;
    err_vset(r->e, code, fmt, ap);
    return err_prefix(r->e, "template line %d", r->line);
}

bool jinja_fail(struct jrender *r, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vfail(r, ERR_INVALID, fmt, ap);
    va_end(ap);
    return false;
}

bool jinja_fail_code(struct jrender *r, enum err_code code, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vfail(r, code, fmt, ap);
    va_end(ap);
    return false;
}

bool jinja_fail_undef(struct jrender *r, struct jval v)
{
    const struct jundef *u = v.u.undef;
    if (u->hint)
        return jinja_fail(r, "%s", u->hint);
    const char *of = jinja_type_name(u->obj);
    if (u->name.t != JT_STR)
        return jinja_fail(r, "%s object has no such element", of);
    int len = (int)(u->name.u.s->len < 80 ? u->name.u.s->len : 80);
    const char *s = u->name.u.s->s;
    if (u->obj.t == JT_MISSING)
        return jinja_fail(r, "'%.*s' is undefined", len, s);
    if (u->obj.t == JT_NONE)
        return jinja_fail(r, "None has no attribute '%.*s'", len, s);
    return jinja_fail(r, "'%s object' has no attribute '%.*s'", of, len, s);
}

bool jinja_charge(struct jrender *r, uint64_t n)
{
    r->steps += n;
    if (r->steps <= r->lim.max_steps)
        return true;
    return jinja_fail_code(r, ERR_TOO_LARGE, "the template runs longer than %llu steps", (unsigned long long)r->lim.max_steps);
}

void *jinja_alloc(struct jrender *r, size_t n, size_t elem_bytes)
{
    void *p = arena_try_alloc(r->arena, n, elem_bytes);
    if (!p)
        jinja_fail_code(r, ERR_TOO_LARGE, "the template's values need more than %zu bytes", r->lim.max_memory);
    return p;
}

bool jinja_enter(struct jrender *r)
{
    if (++r->levels <= r->lim.max_depth * 10)
        return true;
    r->levels--;
    return jinja_fail_code(r, ERR_TOO_LARGE, "evaluation is nested too deep (more than %d levels)", r->lim.max_depth * 10);
}

void jinja_leave(struct jrender *r)
{
    r->levels--;
}

/* ---- strings ---- */

static bool str_make(struct jrender *r, const char *s, size_t len, struct jval *out)
{
    struct jstr *p = jinja_alloc(r, 1, sizeof *p);
    if (!p)
        return false;
    *p = (struct jstr){.s = s, .len = len, .n_chars = SIZE_MAX};
    *out = (struct jval){.t = JT_STR, .u.s = p};
    return true;
}

bool jinja_str_new(struct jrender *r, const char *s, size_t len, struct jval *out)
{
    char *copy = jinja_alloc(r, len + 1, 1);
    if (!copy || !jinja_charge(r, len / 16))
        return false;
    if (len)
        memcpy(copy, s, len);
    return str_make(r, copy, len, out);
}

bool jinja_str_borrow(struct jrender *r, const char *s, size_t len, struct jval *out)
{
    return str_make(r, s, len, out);
}

bool jinja_str_z(struct jrender *r, const char *z, struct jval *out)
{
    return str_make(r, z, strlen(z), out);
}

bool jinja_str_markup(struct jrender *r, struct jval s, struct jval *out)
{
    struct jstr *p = jinja_alloc(r, 1, sizeof *p);
    if (!p)
        return false;
    *p = *s.u.s;
    p->markup = true;
    p->block = NULL;
    *out = (struct jval){.t = JT_STR, .u.s = p};
    return true;
}

/* a + b.  When a ends the used part of a growable block and b fits behind it, nothing of a is copied. */
bool jinja_str_concat(struct jrender *r, const struct jstr *a, const struct jstr *b, struct jval *out)
{
    if (!jinja_charge(r, b->len / 16))
        return false;
    struct jblock *blk = a->block;
    if (!(blk && a->s + a->len == blk->data + blk->used && blk->cap - blk->used >= b->len)) {
        size_t need = a->len + b->len;
        blk = jinja_alloc(r, 1, sizeof *blk);
        if (!blk || !jinja_charge(r, a->len / 16))
            return false;
        blk->cap = need < 256 ? need : need * 2;
        if (!(blk->data = jinja_alloc(r, blk->cap + 1, 1)))
            return false;
        if (a->len)
            memcpy(blk->data, a->s, a->len);
        blk->used = a->len;
    }
    const char *start = blk->data + blk->used - a->len;
    if (b->len)
        memmove(blk->data + blk->used, b->s, b->len);
    blk->used += b->len;
    if (!str_make(r, start, a->len + b->len, out))
        return false;
    out->u.s->block = blk;
    if (a->n_chars != SIZE_MAX && b->n_chars != SIZE_MAX)
        out->u.s->n_chars = a->n_chars + b->n_chars;
    return true;
}

void jinja_buf_init(struct jrender *r, struct buf *b)
{
    buf_init(b, r->lim.max_memory / 2);
}

bool jinja_str_take(struct jrender *r, struct buf *b, struct jval *out)
{
    bool ok = !b->failed || jinja_fail_code(r, ERR_TOO_LARGE, "a text of the template needs more than %zu bytes", r->lim.max_memory / 2);
    ok = ok && jinja_str_new(r, b->data ? b->data : "", b->len, out);
    buf_free(b);
    return ok;
}

size_t jinja_str_chars(struct jstr *s)
{
    if (s->n_chars == SIZE_MAX)
        s->n_chars = utf8_length(s->s, s->len);
    return s->n_chars;
}

size_t jinja_str_offset(struct jstr *s, size_t index)
{
    if (jinja_str_chars(s) == s->len)
        return index;
    size_t at = 0;
    for (; index > 0 && at < s->len; index--)
        for (at++; at < s->len && ((unsigned char)s->s[at] & 0xC0) == 0x80;)
            at++;
    return at;
}

bool jinja_str_is(struct jval v, const char *z)
{
    return v.t == JT_STR && v.u.s->len == strlen(z) && memcmp(v.u.s->s, z, v.u.s->len) == 0;
}

/* ---- lists and dicts ---- */

bool jinja_list_new(struct jrender *r, enum jtype t, size_t cap, struct jval *out)
{
    struct jlist *l = jinja_alloc(r, 1, sizeof *l);
    if (!l || (cap > 0 && !(l->items = jinja_alloc(r, cap, sizeof *l->items))))
        return false;
    l->cap = cap;
    *out = (struct jval){.t = t, .u.list = l};
    return true;
}

bool jinja_list_push(struct jrender *r, struct jlist *l, struct jval v)
{
    if (l->n == l->cap) {
        size_t cap = l->cap ? l->cap * 2 : 4;
        struct jval *items = jinja_alloc(r, cap, sizeof *items);
        if (!items || !jinja_charge(r, l->n / 8))
            return false;
        if (l->n)
            memcpy(items, l->items, l->n * sizeof *items);
        l->items = items;
        l->cap = cap;
    }
    l->items[l->n++] = v;
    return true;
}

bool jinja_tuple2(struct jrender *r, struct jval a, struct jval b, struct jval *out)
{
    if (!jinja_list_new(r, JT_TUPLE, 2, out))
        return false;
    out->u.list->items[0] = a;
    out->u.list->items[1] = b;
    out->u.list->n = 2;
    return true;
}

bool jinja_dict_new(struct jrender *r, struct jval *out)
{
    struct jdict *d = jinja_alloc(r, 1, sizeof *d);
    *out = (struct jval){.t = JT_DICT, .u.dict = d};
    return d != NULL;
}

static bool dict_index(struct jrender *r, struct jdict *d)
{
    size_t cap = d->index_cap ? d->index_cap * 2 : 32;
    uint32_t *index = jinja_alloc(r, cap, sizeof *index);
    if (!index)
        return false;
    for (size_t i = 0; i < d->n; i++) {
        size_t at = d->items[i].hash & (cap - 1);
        while (index[at])
            at = (at + 1) & (cap - 1);
        index[at] = (uint32_t)i + 1;
    }
    d->index = index;
    d->index_cap = cap;
    return true;
}

/* Item number of a key, or SIZE_MAX. */
static bool dict_lookup(struct jrender *r, struct jdict *d, struct jval k, uint64_t hash, size_t *at)
{
    bool same = false;
    *at = SIZE_MAX;
    if (!d->index) {
        for (size_t i = 0; i < d->n; i++)
            if (d->items[i].hash == hash) {
                if (!jinja_eq(r, d->items[i].key, k, &same))
                    return false;
                if (same) {
                    *at = i;
                    return true;
                }
            }
        return true;
    }
    for (size_t p = hash & (d->index_cap - 1); d->index[p]; p = (p + 1) & (d->index_cap - 1)) {
        size_t i = d->index[p] - 1;
        if (d->items[i].hash != hash)
            continue;
        if (!jinja_charge(r, 1) || !jinja_eq(r, d->items[i].key, k, &same))
            return false;
        if (same) {
            *at = i;
            return true;
        }
    }
    return true;
}

bool jinja_dict_put(struct jrender *r, struct jdict *d, struct jval k, struct jval v)
{
    uint64_t hash;
    size_t at;
    if (!jinja_hash(r, k, &hash) || !dict_lookup(r, d, k, hash, &at))
        return false;
    if (at != SIZE_MAX) {
        d->items[at].value = v;
        return true;
    }
    if (d->n >= UINT32_MAX / 2)
        return jinja_fail_code(r, ERR_TOO_LARGE, "a dict has too many items");
    if (d->n == d->cap) {
        size_t cap = d->cap ? d->cap * 2 : 4;
        struct jpair *items = jinja_alloc(r, cap, sizeof *items);
        if (!items)
            return false;
        if (d->n)
            memcpy(items, d->items, d->n * sizeof *items);
        d->items = items;
        d->cap = cap;
    }
    d->items[d->n++] = (struct jpair){.key = k, .value = v, .hash = hash};
    if (d->n > SMALL_DICT && d->n * 2 > d->index_cap)
        return dict_index(r, d);
    if (d->index) {
        size_t p = hash & (d->index_cap - 1);
        while (d->index[p])
            p = (p + 1) & (d->index_cap - 1);
        d->index[p] = (uint32_t)d->n;
    }
    return true;
}

bool jinja_dict_get(struct jrender *r, struct jdict *d, struct jval k, struct jval *out, bool *found)
{
    uint64_t hash;
    size_t at;
    *found = false;
    if (!jinja_hash(r, k, &hash) || !dict_lookup(r, d, k, hash, &at))
        return false;
    if (at != SIZE_MAX) {
        *out = d->items[at].value;
        *found = true;
    }
    return true;
}

static uint64_t str_hash(const struct jrender *r, const char *s, size_t len)
{
    return hash_bytes(s, len, r->hash_seed);
}

bool jinja_dict_find(struct jrender *r, const struct jdict *d, const char *s, size_t len, struct jval *out)
{
    struct jstr text = {.s = s, .len = len, .n_chars = SIZE_MAX};
    size_t at;
    if (!dict_lookup(r, (struct jdict *)d, (struct jval){.t = JT_STR, .u.s = &text}, str_hash(r, s, len), &at) || at == SIZE_MAX)
        return false;
    *out = d->items[at].value;
    return true;
}

static bool from_json(struct jrender *r, const json_t *j, int depth, struct jval *out)
{
    if (depth > JSON_DEPTH)
        return jinja_fail_code(r, ERR_TOO_LARGE, "the variables are nested more than %d deep", JSON_DEPTH);
    switch (json_typeof(j)) {
    case JSON_NULL: *out = jv_none(); return true;
    case JSON_TRUE: *out = jv_bool(true); return true;
    case JSON_FALSE: *out = jv_bool(false); return true;
    case JSON_INTEGER: *out = jv_int(json_integer_value(j)); return true;
    case JSON_REAL: *out = jv_float(json_real_value(j)); return true;
    case JSON_STRING: return jinja_str_borrow(r, json_string_value(j), json_string_length(j), out);
    case JSON_ARRAY: {
        size_t n = json_array_size(j);
        if (!jinja_list_new(r, JT_LIST, n, out))
            return false;
        for (size_t i = 0; i < n; i++)
            if (!from_json(r, json_array_get(j, i), depth + 1, &out->u.list->items[i]))
                return false;
        out->u.list->n = n;
        return true;
    }
    default: {
        const char *key;
        size_t key_len;
        json_t *value;
        if (!jinja_dict_new(r, out))
            return false;
        json_object_keylen_foreach((json_t *)j, key, key_len, value) {
            struct jval k, v;
            if (!jinja_str_borrow(r, key, key_len, &k) || !from_json(r, value, depth + 1, &v) || !jinja_dict_put(r, out->u.dict, k, v))
                return false;
        }
        return true;
    }
    }
}

bool jinja_from_json(struct jrender *r, const json_t *j, struct jval *out)
{
    return from_json(r, j, 0, out);
}

/* ---- undefined ---- */

static bool undef_new(struct jrender *r, const char *hint, struct jval obj, struct jval name, struct jval *out)
{
    struct jundef *u = jinja_alloc(r, 1, sizeof *u);
    if (!u)
        return false;
    *u = (struct jundef){.hint = hint, .name = name, .obj = obj};
    *out = (struct jval){.t = JT_UNDEFINED, .u.undef = u};
    return true;
}

bool jinja_undef_name(struct jrender *r, struct jval name, struct jval *out)
{
    return undef_new(r, NULL, jv_missing(), name, out);
}

bool jinja_undef_obj(struct jrender *r, struct jval obj, struct jval name, struct jval *out)
{
    return undef_new(r, NULL, obj, name, out);
}

bool jinja_undef_hint(struct jrender *r, const char *hint, struct jval *out)
{
    return undef_new(r, hint, jv_missing(), jv_none(), out);
}

/* ---- properties ---- */

const char *jinja_type_name(struct jval v)
{
    switch (v.t) {
    case JT_MISSING: return "missing";
    case JT_UNDEFINED: return "Undefined";
    case JT_NONE: return "NoneType";
    case JT_BOOL: return "bool";
    case JT_INT: return "int";
    case JT_FLOAT: return "float";
    case JT_STR: return v.u.s->markup ? "Markup" : "str";
    case JT_LIST: return "list";
    case JT_TUPLE: return "tuple";
    case JT_DICT: return "dict";
    case JT_RANGE: return "range";
    case JT_VIEW: return v.u.view->kind == JVIEW_KEYS ? "dict_keys" : v.u.view->kind == JVIEW_VALUES ? "dict_values" : "dict_items";
    case JT_ITER: return v.u.iter->type_name ? v.u.iter->type_name : "generator";
    case JT_NAMESPACE: return "Namespace";
    case JT_MACRO: return "Macro";
    case JT_FUNC: return "function";
    case JT_METHOD: return "builtin_function_or_method";
    case JT_LOOP: return "LoopContext";
    case JT_CYCLER: return "Cycler";
    case JT_JOINER: return "Joiner";
    }
    return "object";
}

bool jinja_truth(struct jval v)
{
    switch (v.t) {
    case JT_MISSING:
    case JT_UNDEFINED:
    case JT_NONE: return false;
    case JT_BOOL: return v.u.b;
    case JT_INT: return v.u.i != 0;
    case JT_FLOAT: return v.u.f != 0;
    case JT_STR: return v.u.s->len > 0;
    case JT_LIST:
    case JT_TUPLE: return v.u.list->n > 0;
    case JT_DICT: return v.u.dict->n > 0;
    case JT_RANGE: return v.u.range->n > 0;
    case JT_VIEW: return v.u.view->dict->n > 0;
    default: return true;
    }
}

bool jinja_has_len(struct jval v)
{
    return v.t == JT_STR || v.t == JT_LIST || v.t == JT_TUPLE || v.t == JT_DICT || v.t == JT_RANGE || v.t == JT_VIEW ||
           v.t == JT_UNDEFINED || v.t == JT_LOOP;
}

bool jinja_len(struct jrender *r, struct jval v, int64_t *out)
{
    switch (v.t) {
    case JT_UNDEFINED: *out = 0; return true;
    case JT_STR: *out = (int64_t)jinja_str_chars(v.u.s); return true;
    case JT_LIST:
    case JT_TUPLE: *out = (int64_t)v.u.list->n; return true;
    case JT_DICT: *out = (int64_t)v.u.dict->n; return true;
    case JT_RANGE: *out = v.u.range->n; return true;
    case JT_VIEW: *out = (int64_t)v.u.view->dict->n; return true;
    case JT_LOOP: return jinja_loop_length(r, v.u.loop, out);
    default: return jinja_fail(r, "object of type '%s' has no len()", jinja_type_name(v));
    }
}

bool jinja_identical(struct jval a, struct jval b)
{
    if (a.t != b.t)
        return false;
    switch (a.t) {
    case JT_NONE:
    case JT_MISSING: return true;
    case JT_BOOL: return a.u.b == b.u.b;
    case JT_INT: return a.u.i == b.u.i;
    case JT_FLOAT: return a.u.f == b.u.f;
    case JT_STR: return a.u.s == b.u.s || (a.u.s->len == b.u.s->len && a.u.s->s == b.u.s->s) ||
                        (a.u.s->len <= 1 && a.u.s->len == b.u.s->len && memcmp(a.u.s->s, b.u.s->s, a.u.s->len) == 0);
    default: return a.u.list == b.u.list;  /* the one pointer every other kind is */
    }
}

/* ---- hashing ---- */

bool jinja_hash(struct jrender *r, struct jval v, uint64_t *out)
{
    switch (v.t) {
    case JT_STR: *out = str_hash(r, v.u.s->s, v.u.s->len); return true;
    case JT_NONE: *out = 0x9E3779B97F4A7C15u; return true;
    case JT_UNDEFINED: *out = 0x51ED270B35C8F1u; return true;
    case JT_BOOL:
    case JT_INT: *out = hash_mix((uint64_t)jv_as_int(v), r->hash_seed); return true;
    case JT_FLOAT:
        if (v.u.f == floor(v.u.f) && fabs(v.u.f) < 9e18) {
            *out = hash_mix((uint64_t)(int64_t)v.u.f, r->hash_seed);
        } else {
            uint64_t bits;
            memcpy(&bits, &v.u.f, sizeof bits);
            *out = hash_mix(bits, r->hash_seed + 1);
        }
        return true;
    case JT_TUPLE: {
        uint64_t h = v.u.list->n, x;
        if (!jinja_charge(r, v.u.list->n) || !jinja_enter(r))
            return false;
        bool ok = true;
        for (size_t i = 0; ok && i < v.u.list->n; i++)
            if ((ok = jinja_hash(r, v.u.list->items[i], &x)))
                h = hash_mix(h, x);
        jinja_leave(r);
        *out = h;
        return ok;
    }
    case JT_LIST:
    case JT_DICT:
    case JT_VIEW: return jinja_fail(r, "unhashable type: '%s'", jinja_type_name(v));
    case JT_RANGE: *out = (uint64_t)v.u.range->n; return true;
    default: *out = hash_mix((uint64_t)(uintptr_t)v.u.list, r->hash_seed); return true;
    }
}

/* ---- comparing ---- */

static int cmp_num(struct jval a, struct jval b)
{
    if (a.t != JT_FLOAT && b.t != JT_FLOAT) {
        int64_t x = jv_as_int(a), y = jv_as_int(b);
        return x < y ? -1 : x > y;
    }
    if (a.t == JT_FLOAT && b.t == JT_FLOAT)
        return a.u.f < b.u.f ? -1 : a.u.f > b.u.f ? 1 : a.u.f == b.u.f ? 0 : 2;
    bool swap = a.t == JT_FLOAT;
    double f = swap ? a.u.f : b.u.f;
    int64_t i = jv_as_int(swap ? b : a);
    if (isnan(f))
        return 2;
    int c = f >= 9223372036854775808.0 ? -1 : f < -9223372036854775808.0 ? 1 : 0;
    if (c == 0) {  /* both fit: compare exactly */
        int64_t t = (int64_t)f;
        c = i < t ? -1 : i > t ? 1 : f > (double)t ? -1 : f < (double)t ? 1 : 0;
    }
    return swap ? -c : c;
}

static bool eq_lists(struct jrender *r, const struct jlist *a, const struct jlist *b, bool *out)
{
    *out = a->n == b->n;
    for (size_t i = 0; *out && i < a->n; i++)
        if (!jinja_identical(a->items[i], b->items[i]) && !jinja_eq(r, a->items[i], b->items[i], out))
            return false;
    return true;
}

static bool eq_dicts(struct jrender *r, struct jdict *a, struct jdict *b, bool *out)
{
    *out = a->n == b->n;
    for (size_t i = 0; *out && i < a->n; i++) {
        size_t at;
        if (!dict_lookup(r, b, a->items[i].key, a->items[i].hash, &at))
            return false;
        *out = at != SIZE_MAX;
        if (*out && !jinja_eq(r, a->items[i].value, b->items[at].value, out))
            return false;
    }
    return true;
}

static bool eq_deep(struct jrender *r, struct jval a, struct jval b, bool *out)
{
    if (a.t == JT_LIST || a.t == JT_TUPLE)
        return eq_lists(r, a.u.list, b.u.list, out);
    if (a.t == JT_DICT)
        return eq_dicts(r, a.u.dict, b.u.dict, out);
    if (a.t == JT_VIEW && a.u.view->kind != JVIEW_VALUES && a.u.view->kind == b.u.view->kind) {
        if (a.u.view->kind == JVIEW_ITEMS)
            return eq_dicts(r, a.u.view->dict, b.u.view->dict, out);
        struct jdict *x = a.u.view->dict, *y = b.u.view->dict;
        *out = x->n == y->n;
        for (size_t i = 0, at; *out && i < x->n; i++) {
            if (!dict_lookup(r, y, x->items[i].key, x->items[i].hash, &at))
                return false;
            *out = at != SIZE_MAX;
        }
        return true;
    }
    if (a.t == JT_RANGE) {
        const struct jrange *x = a.u.range, *y = b.u.range;
        *out = x->n == y->n && (x->n == 0 || (x->start == y->start && (x->n == 1 || x->step == y->step)));
        return true;
    }
    *out = a.u.list == b.u.list;
    return true;
}

bool jinja_eq(struct jrender *r, struct jval a, struct jval b, bool *out)
{
    if (!jinja_charge(r, 1))
        return false;
    if (jv_is_num(a) && jv_is_num(b)) {
        *out = cmp_num(a, b) == 0;
        return true;
    }
    if (a.t != b.t) {
        *out = false;
        return true;
    }
    switch (a.t) {
    case JT_STR:
        *out = a.u.s->len == b.u.s->len && (a.u.s->s == b.u.s->s || memcmp(a.u.s->s, b.u.s->s, a.u.s->len) == 0);
        return jinja_charge(r, *out ? a.u.s->len / 32 : 0);
    case JT_NONE:
    case JT_MISSING:
    case JT_UNDEFINED:
        *out = true;
        return true;
    default:
        if (!jinja_enter(r))
            return false;
        bool ok = eq_deep(r, a, b, out);
        jinja_leave(r);
        return ok;
    }
}

static int cmp_str(const struct jstr *a, const struct jstr *b)
{
    size_t n = a->len < b->len ? a->len : b->len;
    int c = n ? memcmp(a->s, b->s, n) : 0;
    return c < 0 ? -1 : c > 0 ? 1 : a->len < b->len ? -1 : a->len > b->len;
}

static const char *const OP_TEXT[] = {"+", "-", "*", "/", "//", "%", "**", "==", "!=", "<", "<=", ">", ">=", "in", "not in"};

static bool holds(int op, int c)
{
    if (c == 2)  /* not a number */
        return false;
    return op == JOP_LT ? c < 0 : op == JOP_LE ? c <= 0 : op == JOP_GT ? c > 0 : c >= 0;
}

static bool order_lists(struct jrender *r, int op, const struct jlist *a, const struct jlist *b, bool *out)
{
    size_t n = a->n < b->n ? a->n : b->n, i = 0;
    for (bool same = true; i < n; i++) {
        if (!jinja_identical(a->items[i], b->items[i]) && !jinja_eq(r, a->items[i], b->items[i], &same))
            return false;
        if (!same)
            return jinja_compare(r, op, a->items[i], b->items[i], out);
    }
    *out = holds(op, a->n < b->n ? -1 : a->n > b->n);
    return true;
}

static bool order(struct jrender *r, int op, struct jval a, struct jval b, bool *out)
{
    if (jv_is_num(a) && jv_is_num(b)) {
        *out = holds(op, cmp_num(a, b));
        return true;
    }
    if (a.t == JT_UNDEFINED || b.t == JT_UNDEFINED)
        return jinja_fail_undef(r, a.t == JT_UNDEFINED ? a : b);
    if (a.t == JT_STR && b.t == JT_STR) {
        *out = holds(op, cmp_str(a.u.s, b.u.s));
        return jinja_charge(r, 1 + (a.u.s->len < b.u.s->len ? a.u.s->len : b.u.s->len) / 32);
    }
    if ((a.t == JT_LIST || a.t == JT_TUPLE) && a.t == b.t) {
        if (!jinja_enter(r))
            return false;
        bool ok = order_lists(r, op, a.u.list, b.u.list, out);
        jinja_leave(r);
        return ok;
    }
    return jinja_fail(r, "'%s' not supported between instances of '%s' and '%s'", OP_TEXT[op], jinja_type_name(a), jinja_type_name(b));
}

bool jinja_compare(struct jrender *r, int op, struct jval a, struct jval b, bool *out)
{
    bool ok;
    switch (op) {
    case JOP_EQ: return jinja_eq(r, a, b, out);
    case JOP_NE: ok = jinja_eq(r, a, b, out); *out = !*out; return ok;
    case JOP_IN: return jinja_contains(r, b, a, out);
    case JOP_NOTIN: *out = false; ok = jinja_contains(r, b, a, out); *out = !*out; return ok;
    default: return jinja_charge(r, 1) && order(r, op, a, b, out);
    }
}

static bool contains_iter(struct jrender *r, struct jval seq, struct jval v, bool *out)
{
    struct jiter *it;
    struct jval item;
    int got;
    if (!jinja_iter(r, seq, &it))
        return false;
    *out = false;
    while (!*out && (got = jinja_iter_next(r, it, &item)) != 0) {
        if (got < 0)
            return false;
        if (jinja_identical(item, v))
            *out = true;
        else if (!jinja_eq(r, item, v, out))
            return false;
    }
    return true;
}

bool jinja_contains(struct jrender *r, struct jval seq, struct jval v, bool *out)
{
    struct jval ignored;
    switch (seq.t) {
    case JT_STR:
        if (v.t != JT_STR)
            return jinja_fail(r, "'in <string>' requires string as left operand, not %s", jinja_type_name(v));
        *out = jinja_find(seq.u.s->s, seq.u.s->len, v.u.s->s, v.u.s->len) != SIZE_MAX;
        return jinja_charge(r, seq.u.s->len / 16);
    case JT_DICT:
        return jinja_dict_get(r, seq.u.dict, v, &ignored, out);
    case JT_VIEW:
        if (seq.u.view->kind == JVIEW_KEYS)
            return jinja_dict_get(r, seq.u.view->dict, v, &ignored, out);
        return contains_iter(r, seq, v, out);
    case JT_RANGE:
        *out = false;
        if (jv_is_intlike(v) || (v.t == JT_FLOAT && v.u.f == floor(v.u.f) && fabs(v.u.f) < 9e18)) {
            const struct jrange *g = seq.u.range;
            __int128 d = (__int128)(v.t == JT_FLOAT ? (int64_t)v.u.f : jv_as_int(v)) - g->start;
            *out = d % g->step == 0 && d / g->step >= 0 && d / g->step < g->n;
        }
        return true;
    case JT_UNDEFINED:
        *out = false;
        return true;
    default:
        if (!jinja_iterable(seq))
            return jinja_fail(r, "argument of type '%s' is not iterable", jinja_type_name(seq));
        return contains_iter(r, seq, v, out);
    }
}

/* ---- sorting: stable merge sort by keys ---- */

static bool merge(struct jrender *r, struct jval *items, struct jval *keys, struct jval *ti, struct jval *tk, size_t n, bool reverse)
{
    if (n < 2)
        return true;
    size_t m = n / 2;
    if (!merge(r, items, keys, ti, tk, m, reverse) || !merge(r, items + m, keys + m, ti, tk, n - m, reverse))
        return false;
    size_t a = 0, b = m, k = 0;
    while (a < m && b < n) {
        bool second;  /* take from the right only when it must come first: equal items keep their order */
        if (!(reverse ? jinja_compare(r, JOP_LT, keys[a], keys[b], &second) : jinja_compare(r, JOP_LT, keys[b], keys[a], &second)))
            return false;
        size_t from = second ? b++ : a++;
        ti[k] = items[from];
        tk[k++] = keys[from];
    }
    for (; a < m; a++, k++) {
        ti[k] = items[a];
        tk[k] = keys[a];
    }
    memcpy(items, ti, k * sizeof *items);
    memcpy(keys, tk, k * sizeof *keys);
    return true;
}

bool jinja_sort(struct jrender *r, struct jval *items, struct jval *keys, size_t n, bool reverse)
{
    struct jval *ti = jinja_alloc(r, n, sizeof *ti), *tk = jinja_alloc(r, n, sizeof *tk);
    return ti && tk && merge(r, items, keys, ti, tk, n, reverse);
}
