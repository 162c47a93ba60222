/* jinja_iter.c - iterators, the loop variable, subscripts and attributes. */
#include <string.h>
#include "base/utf8.h"
#include "tok/jinja_int.h"

/* ---- iterators ---- */

bool jinja_iter_new(struct jrender *r, enum jiter_kind kind, struct jiter **out)
{
    *out = jinja_alloc(r, 1, sizeof **out);
    if (*out)
        (*out)->kind = kind;
    return *out != NULL;
}

bool jinja_iterable(struct jval v)
{
    return v.t == JT_UNDEFINED || v.t == JT_STR || v.t == JT_LIST || v.t == JT_TUPLE || v.t == JT_DICT || v.t == JT_RANGE ||
           v.t == JT_VIEW || v.t == JT_ITER || v.t == JT_LOOP;
}

bool jinja_iter(struct jrender *r, struct jval v, struct jiter **out)
{
    enum jiter_kind kind;
    switch (v.t) {
    case JT_ITER: *out = v.u.iter; return true;
    case JT_LIST:
    case JT_TUPLE: kind = JITER_ITEMS; break;
    case JT_STR: kind = JITER_STR; break;
    case JT_DICT:
    case JT_VIEW: kind = JITER_DICT; break;
    case JT_RANGE: kind = JITER_RANGE; break;
    case JT_UNDEFINED: kind = JITER_EMPTY; break;
    default: return jinja_fail(r, "'%s' object is not iterable", jinja_type_name(v));
    }
    if (!jinja_iter_new(r, kind, out))
        return false;
    (*out)->src = v;
    return true;
}

static int dict_item(struct jrender *r, struct jval src, size_t i, struct jval *out)
{
    const struct jdict *d = src.t == JT_VIEW ? src.u.view->dict : src.u.dict;
    enum jview_kind kind = src.t == JT_VIEW ? src.u.view->kind : JVIEW_KEYS;
    if (i >= d->n)
        return 0;
    if (kind == JVIEW_ITEMS)
        return jinja_tuple2(r, d->items[i].key, d->items[i].value, out) ? 1 : -1;
    *out = kind == JVIEW_KEYS ? d->items[i].key : d->items[i].value;
    return 1;
}

static int reversed_next(struct jrender *r, struct jiter *it, struct jval *out)
{
    int64_t n;
    if (!jinja_len(r, it->src, &n))
        return -1;
    if ((int64_t)it->i >= n)
        return 0;
    size_t at = (size_t)n - 1 - it->i++;
    switch (it->src.t) {
    case JT_RANGE: *out = jv_int(it->src.u.range->start + (int64_t)at * it->src.u.range->step); return 1;
    case JT_DICT:
    case JT_VIEW: return dict_item(r, it->src, at, out);
    default: *out = it->src.u.list->items[at]; return 1;
    }
}

static int str_next(struct jrender *r, struct jiter *it, struct jval *out)
{
    const struct jstr *s = it->src.u.s;
    if (it->byte >= s->len)
        return 0;
    size_t from = it->byte++;
    while (it->byte < s->len && ((unsigned char)s->s[it->byte] & 0xC0) == 0x80)
        it->byte++;
    return jinja_str_borrow(r, s->s + from, it->byte - from, out) ? 1 : -1;
}

/* The arguments of map, select ...: a name and what follows it. */
static bool call_named(struct jrender *r, struct jiter *it, bool filter, size_t at, struct jval item, struct jval *out)
{
    struct jval name = it->args.pos[at];
    const struct jfunc_spec *spec = name.t != JT_STR ? NULL : filter ? jinja_filter_find(name.u.s->s, name.u.s->len)
                                                                   : jinja_test_find(name.u.s->s, name.u.s->len);
    if (!spec)
        return jinja_fail(r, "no %s named '%.*s'", filter ? "filter" : "test", name.t == JT_STR ? (int)(name.u.s->len < 60 ? name.u.s->len : 60) : 1,
                          name.t == JT_STR ? name.u.s->s : "?");
    struct jargs rest = {.pos = it->args.pos + at + 1, .n_pos = it->args.n_pos - at - 1, .kw = it->args.kw, .n_kw = it->args.n_kw};
    return jinja_call_spec(r, spec, item, &rest, out);
}

static int map_next(struct jrender *r, struct jiter *it, struct jval *out)
{
    struct jval item;
    struct jkw *attr = it->args.n_pos == 0 ? jinja_kw(&it->args, "attribute") : NULL, *dflt = jinja_kw(&it->args, "default");
    if (!it->started) {
        it->started = true;
        if (!attr && it->args.n_pos == 0)
            return jinja_fail(r, "map needs a filter's name or attribute=") ? 0 : -1;
        if (attr && it->args.n_kw > (dflt ? 2u : 1u))
            return jinja_fail(r, "map has an unexpected keyword argument") ? 0 : -1;
    }
    int got = jinja_iter_next(r, it->inner, &item);
    if (got <= 0)
        return got;
    bool ok = attr ? jinja_path_get(r, item, attr->v, dflt ? dflt->v : jv_missing(), out) : call_named(r, it, true, 0, item, out);
    return ok ? 1 : -1;
}

static int select_next(struct jrender *r, struct jiter *it, struct jval *out)
{
    size_t off = it->with_attr ? 1 : 0;
    if (it->args.n_pos < off)
        return jinja_fail(r, "selectattr and rejectattr need an attribute's name") ? 0 : -1;
    for (;;) {
        struct jval item, v, verdict;
        int got = jinja_iter_next(r, it->inner, &item);
        if (got <= 0)
            return got;
        v = item;
        if (it->with_attr && !jinja_path_get(r, item, it->args.pos[0], jv_missing(), &v))
            return -1;
        verdict = v;
        if (it->args.n_pos > off && !call_named(r, it, false, off, v, &verdict))
            return -1;
        if (jinja_truth(verdict) != it->negate) {
            *out = item;
            return 1;
        }
    }
}

static int lazy_next(struct jrender *r, struct jiter *it, struct jval *out)
{
    if (!it->started) {
        struct jval list;
        it->started = true;
        if (!it->fn(r, it->src, it->argv, NULL, &list))
            return -1;
        it->src = list;
    }
    if (it->i >= it->src.u.list->n)
        return 0;
    *out = it->src.u.list->items[it->i++];
    return 1;
}

static int iter_step(struct jrender *r, struct jiter *it, struct jval *out)
{
    switch (it->kind) {
    case JITER_ITEMS:
        if (it->i >= it->src.u.list->n)
            return 0;
        *out = it->src.u.list->items[it->i++];
        return 1;
    case JITER_STR: return str_next(r, it, out);
    case JITER_DICT: return dict_item(r, it->src, it->i++, out);
    case JITER_RANGE:
        if ((int64_t)it->i >= it->src.u.range->n)
            return 0;
        *out = jv_int(it->src.u.range->start + (int64_t)it->i++ * it->src.u.range->step);
        return 1;
    case JITER_REVERSED: return reversed_next(r, it, out);
    case JITER_MAP: return map_next(r, it, out);
    case JITER_SELECT: return select_next(r, it, out);
    case JITER_LAZY: return lazy_next(r, it, out);
    case JITER_LOOPTEST: return jinja_looptest_next(r, it, out);
    case JITER_EMPTY: return 0;
    }
    return 0;
}

int jinja_iter_next(struct jrender *r, struct jiter *it, struct jval *out)
{
    if (it->finished)
        return 0;
    if (!jinja_charge(r, 1) || !jinja_enter(r))
        return -1;
    int got = iter_step(r, it, out);
    jinja_leave(r);
    if (got <= 0)
        it->finished = true;
    return got;
}

bool jinja_to_list(struct jrender *r, struct jval v, struct jval *out)
{
    struct jiter *it;
    struct jval item;
    int64_t n = 0;
    int got;
    if (v.t != JT_LOOP && jinja_has_len(v) && !jinja_len(r, v, &n))
        return false;
    if (!jinja_iter(r, v, &it) || !jinja_list_new(r, JT_LIST, n < 1024 ? (size_t)n : 1024, out))
        return false;
    while ((got = jinja_iter_next(r, it, &item)) > 0)
        if (!jinja_list_push(r, out->u.list, item))
            return false;
    return got == 0;
}

/* reversed(v): *ok false when v has no order to reverse. */
bool jinja_reversed(struct jrender *r, struct jval v, struct jval *out, bool *ok)
{
    *ok = v.t == JT_LIST || v.t == JT_TUPLE || v.t == JT_DICT || v.t == JT_VIEW || v.t == JT_RANGE || v.t == JT_UNDEFINED;
    if (!*ok)
        return true;
    struct jiter *it;
    if (!jinja_iter_new(r, v.t == JT_UNDEFINED ? JITER_EMPTY : JITER_REVERSED, &it))
        return false;
    it->src = v;
    it->type_name = v.t == JT_LIST ? "list_reverseiterator" : v.t == JT_RANGE ? "range_iterator" : "reversed";
    *out = (struct jval){.t = JT_ITER, .u.iter = it};
    return true;
}

/* ---- the loop variable ---- */

int jinja_loop_next(struct jrender *r, struct jloop *l, struct jval *out)
{
    struct jval v = l->after;
    int got = 1;
    if (v.t == JT_MISSING)
        got = jinja_iter_next(r, l->it, &v);
    l->after = jv_missing();
    if (got <= 0)
        return got;
    l->index0++;
    l->before = l->current;
    l->current = v;
    *out = v;
    return 1;
}

int jinja_loop_peek(struct jrender *r, struct jloop *l, struct jval *out)
{
    if (l->after.t == JT_MISSING) {
        struct jval v;
        int got = jinja_iter_next(r, l->it, &v);
        if (got <= 0)
            return got;
        l->after = v;
    }
    *out = l->after;
    return 1;
}

bool jinja_loop_length(struct jrender *r, struct jloop *l, int64_t *out)
{
    if (l->length < 0 && jinja_has_len(l->iterable)) {
        if (!jinja_len(r, l->iterable, &l->length))
            return false;
    } else if (l->length < 0) {
        struct jval rest;
        if (!jinja_to_list(r, (struct jval){.t = JT_ITER, .u.iter = l->it}, &rest) || !jinja_iter(r, rest, &l->it))
            return false;
        l->length = (int64_t)rest.u.list->n + l->index0 + 1 + (l->after.t != JT_MISSING);
    }
    *out = l->length;
    return true;
}

/* Attributes of loop; methods are in the table of jinja_obj_method. */
static bool loop_attr(struct jrender *r, struct jloop *l, const struct jstr *name, struct jval *out, bool *found)
{
    struct jval key = {.t = JT_STR, .u.s = (struct jstr *)name}, v;
    int64_t n;
    *found = true;
    if (jinja_str_is(key, "index")) {
        *out = jv_int(l->index0 + 1);
    } else if (jinja_str_is(key, "index0")) {
        *out = jv_int(l->index0);
    } else if (jinja_str_is(key, "first")) {
        *out = jv_bool(l->index0 == 0);
    } else if (jinja_str_is(key, "last")) {
        int got = jinja_loop_peek(r, l, &v);
        *out = jv_bool(got == 0);
        return got >= 0;
    } else if (jinja_str_is(key, "length") || jinja_str_is(key, "revindex") || jinja_str_is(key, "revindex0")) {
        if (!jinja_loop_length(r, l, &n))
            return false;
        *out = jv_int(name->len == 6 ? n : name->len == 8 ? n - l->index0 : n - l->index0 - 1);
    } else if (jinja_str_is(key, "previtem")) {
        if (l->index0 == 0)
            return jinja_undef_hint(r, "there is no previous item", out);
        *out = l->before;
    } else if (jinja_str_is(key, "nextitem")) {
        int got = jinja_loop_peek(r, l, out);
        return got > 0 || (got == 0 && jinja_undef_hint(r, "there is no next item", out));
    } else if (jinja_str_is(key, "depth")) {
        *out = jv_int(l->depth0 + 1);
    } else if (jinja_str_is(key, "depth0")) {
        *out = jv_int(l->depth0);
    } else {
        *found = false;
    }
    return true;
}

/* ---- attributes ---- */

/* Properties that are not methods. */
static bool property(struct jrender *r, struct jval o, const struct jstr *name, struct jval *out, bool *found)
{
    struct jval key = {.t = JT_STR, .u.s = (struct jstr *)name};
    *found = false;
    switch (o.t) {
    case JT_LOOP: return loop_attr(r, o.u.loop, name, out, found);
    case JT_NAMESPACE:
        *found = jinja_dict_find(r, o.u.dict, name->s, name->len, out);
        return !r->failed;
    case JT_TUPLE:
        if (o.u.list->group && (jinja_str_is(key, "grouper") || jinja_str_is(key, "list"))) {
            *out = o.u.list->items[name->len == 7 ? 0 : 1];
            *found = true;
        }
        return true;
    case JT_RANGE:
        *found = jinja_str_is(key, "start") || jinja_str_is(key, "stop") || jinja_str_is(key, "step");
        if (*found)
            *out = jv_int(name->len == 5 ? o.u.range->start : name->s[2] == 'o' ? o.u.range->stop : o.u.range->step);
        return true;
    case JT_CYCLER:
        if ((*found = jinja_str_is(key, "current")))
            *out = o.u.cycler->items[o.u.cycler->pos];
        return true;
    case JT_MACRO:
        if (jinja_str_is(key, "name")) {
            const struct jnode *n = o.u.macro->node;
            *found = true;
            *out = n->kind == JN_MACRO ? n->value : jv_none();
        } else if (jinja_str_is(key, "arguments")) {
            const struct jnode *n = o.u.macro->node;
            *found = true;
            if (!jinja_list_new(r, JT_TUPLE, n->list.n, out))
                return false;
            for (size_t i = 0; i < n->list.n; i++)
                if (!jinja_list_push(r, out->u.list, n->list.items[i]->value))
                    return false;
        } else if (jinja_str_is(key, "catch_kwargs") || jinja_str_is(key, "catch_varargs") || jinja_str_is(key, "caller")) {
            const struct jnode *n = o.u.macro->node;
            *found = true;
            *out = jv_bool(name->len == 6 ? n->flag : name->len == 12 ? n->kwargs_var != NULL : n->varargs_var != NULL);
        }
        return true;
    default: return true;
    }
}

/* Methods of list and dict that would change them: the sandbox answers with an undefined. */
static bool mutates(struct jval o, struct jval name)
{
    static const char *const list[] = {"append", "reverse", "insert", "sort", "extend", "remove", "clear", "pop", NULL};
    static const char *const dict[] = {"clear", "pop", "popitem", "setdefault", "update", NULL};
    const char *const *p = o.t == JT_LIST ? list : o.t == JT_DICT ? dict : NULL;
    for (; p && *p; p++)
        if (jinja_str_is(name, *p))
            return true;
    return false;
}

bool jinja_attr(struct jrender *r, struct jval o, struct jval name, struct jval *out, bool *found)
{
    const struct jstr *s = name.u.s;
    if (o.t == JT_UNDEFINED)
        return jinja_fail_undef(r, o);
    if (s->len >= 2 && s->s[0] == '_' && s->s[1] == '_') {
        static const char *const known[] = {"__class__", "__init__", "__len__", "__getitem__", "__iter__", "__str__", "__dict__", "__doc__", NULL};
        for (int i = 0; known[i]; i++)
            if (jinja_str_is(name, known[i])) {
                *found = true;
                return jinja_undef_hint(r, "access to this attribute is unsafe", out);
            }
    }
    if (!property(r, o, s, out, found) || *found)
        return !r->failed;
    if (mutates(o, name)) {
        *found = true;
        return jinja_undef_hint(r, "methods that change a list or dict are not allowed in templates", out);
    }
    const struct jfunc_spec *spec = o.t == JT_STR ? jinja_str_method(s->s, s->len) : jinja_obj_method(o.t, s->s, s->len);
    if (!spec)
        return true;
    struct jmethod *m = jinja_alloc(r, 1, sizeof *m);
    if (!m)
        return false;
    *m = (struct jmethod){.self = o, .spec = spec};
    *out = (struct jval){.t = JT_METHOD, .u.method = m};
    *found = true;
    return true;
}

/* o[key] without fallback: *found false for what Python reports as LookupError or TypeError. */
static bool item(struct jrender *r, struct jval o, struct jval key, struct jval *out, bool *found)
{
    *found = false;
    switch (o.t) {
    case JT_UNDEFINED: return jinja_fail_undef(r, o);
    case JT_DICT:
        if (key.t == JT_LIST || key.t == JT_DICT || key.t == JT_VIEW)
            return true;
        return jinja_dict_get(r, o.u.dict, key, out, found);
    case JT_LIST:
    case JT_TUPLE:
    case JT_STR:
    case JT_RANGE: {
        int64_t n, i;
        if (!jv_is_intlike(key))
            return true;
        if (!jinja_len(r, o, &n))
            return false;
        i = jv_as_int(key);
        if (i < 0)
            i += n;
        if (i < 0 || i >= n)
            return true;
        *found = true;
        if (o.t == JT_RANGE) {
            *out = jv_int(o.u.range->start + i * o.u.range->step);
            return true;
        }
        if (o.t != JT_STR) {
            *out = o.u.list->items[i];
            return true;
        }
        size_t at = jinja_str_offset(o.u.s, (size_t)i), end = at + 1;
        while (end < o.u.s->len && ((unsigned char)o.u.s->s[end] & 0xC0) == 0x80)
            end++;
        return jinja_charge(r, (size_t)n == o.u.s->len ? 1 : at / 16) && jinja_str_borrow(r, o.u.s->s + at, end - at, out);
    }
    default: return true;
    }
}

bool jinja_getattr(struct jrender *r, struct jval o, struct jval name, struct jval *out)
{
    bool found = false;
    /* A dict's own keys are looked at only when it has no such method, which is nearly always. */
    if (!jinja_attr(r, o, name, out, &found))
        return false;
    if (!found && !item(r, o, name, out, &found))
        return false;
    return found || jinja_undef_obj(r, o, name, out);
}

bool jinja_getitem(struct jrender *r, struct jval o, struct jval key, struct jval *out)
{
    bool found = false;
    if (!item(r, o, key, out, &found))
        return false;
    if (!found && key.t == JT_STR && !jinja_attr(r, o, key, out, &found))
        return false;
    return found || jinja_undef_obj(r, o, key, out);
}

/* ---- slices ---- */

static bool slice_index(struct jrender *r, struct jval v, int64_t dflt, int64_t n, int64_t low, int64_t high, int64_t *out)
{
    if (v.t == JT_MISSING || v.t == JT_NONE) {
        *out = dflt;
        return true;
    }
    if (v.t == JT_UNDEFINED)
        return jinja_fail_undef(r, v);
    if (!jv_is_intlike(v))
        return jinja_fail(r, "slice indices must be integers or None, not %s", jinja_type_name(v));
    int64_t i = jv_as_int(v);
    if (i < 0)
        i = i < -n ? low : i + n;
    *out = i < low ? low : i > high ? high : i;
    return true;
}

static bool slice_str(struct jrender *r, struct jstr *s, int64_t start, int64_t step, int64_t count, struct jval *out)
{
    if (step == 1) {
        size_t from = jinja_str_offset(s, (size_t)start), to = from;
        if (jinja_str_chars(s) == s->len)
            to = from + (size_t)count;
        else
            for (int64_t i = 0; i < count; i++)
                for (to++; to < s->len && ((unsigned char)s->s[to] & 0xC0) == 0x80;)
                    to++;
        if (!jinja_charge(r, jinja_str_chars(s) == s->len ? 1 : to / 16) || !jinja_str_borrow(r, s->s + from, to - from, out))
            return false;
        out->u.s->markup = s->markup;
        return true;
    }
    size_t n = jinja_str_chars(s), k = 0;
    size_t *at = jinja_alloc(r, n + 1, sizeof *at);
    char *copy = jinja_alloc(r, s->len + 1, 1);
    if (!at || !copy || !jinja_charge(r, n))
        return false;
    for (size_t i = 0; i < s->len; i++)
        if (((unsigned char)s->s[i] & 0xC0) != 0x80)
            at[k++] = i;
    at[n] = s->len;
    k = 0;
    for (int64_t i = 0; i < count; i++) {
        size_t p = (size_t)(start + i * step), len = at[p + 1] - at[p];
        memcpy(copy + k, s->s + at[p], len);
        k += len;
    }
    if (!jinja_str_borrow(r, copy, k, out))
        return false;
    out->u.s->markup = s->markup;
    return true;
}

bool jinja_slice(struct jrender *r, struct jval o, struct jval start, struct jval stop, struct jval step, struct jval *out)
{
    int64_t n, by = 1, a, b;
    if (o.t == JT_UNDEFINED)
        return jinja_fail_undef(r, o);
    if (o.t != JT_STR && o.t != JT_LIST && o.t != JT_TUPLE && o.t != JT_RANGE)
        return jinja_fail(r, "'%s' object cannot be sliced", jinja_type_name(o));
    if (step.t != JT_MISSING && step.t != JT_NONE) {
        if (!jv_is_intlike(step))
            return jinja_fail(r, "slice indices must be integers or None, not %s", jinja_type_name(step));
        by = jv_as_int(step);
        if (by == 0)
            return jinja_fail(r, "slice step cannot be zero");
    }
    if (!jinja_len(r, o, &n))
        return false;
    if (by < -n - 1)
        by = -n - 1;
    if (by > n + 1)
        by = n + 1;
    int64_t low = by < 0 ? -1 : 0, high = by < 0 ? n - 1 : n;
    if (!slice_index(r, start, by < 0 ? high : low, n, low, high, &a) || !slice_index(r, stop, by < 0 ? low : high, n, low, high, &b))
        return false;
    int64_t count = by > 0 ? (b > a ? (b - a - 1) / by + 1 : 0) : (a > b ? (a - b - 1) / -by + 1 : 0);
    if (o.t == JT_STR)
        return slice_str(r, o.u.s, count ? a : 0, by, count, out);
    if (o.t == JT_RANGE) {
        struct jrange *g = jinja_alloc(r, 1, sizeof *g);
        if (!g)
            return false;
        const struct jrange *from = o.u.range;
        /* Of a large step the stop may lie outside 64 bits: it wraps, and only repr would show it. */
        *g = (struct jrange){.start = (int64_t)((uint64_t)from->start + (uint64_t)a * (uint64_t)from->step), .n = count,
                             .step = (int64_t)((uint64_t)from->step * (uint64_t)by),
                             .stop = (int64_t)((uint64_t)from->start + (uint64_t)b * (uint64_t)from->step)};
        *out = (struct jval){.t = JT_RANGE, .u.range = g};
        return true;
    }
    if (!jinja_charge(r, (uint64_t)count / 8) || !jinja_list_new(r, o.t, (size_t)count, out))
        return false;
    for (int64_t i = 0; i < count; i++)
        out->u.list->items[i] = o.u.list->items[a + i * by];
    out->u.list->n = (size_t)count;
    return true;
}
