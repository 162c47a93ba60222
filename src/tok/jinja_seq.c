/* jinja_seq.c - filters on sequences and mappings. */
#include <string.h>
#include "tok/jinja_int.h"

#define FILTER(name) static bool name(struct jrender *r, struct jval self, struct jval *argv, struct jargs *args, struct jval *out)
#define UNUSED(x) ((void)(x))

static bool given(struct jval v)
{
    return v.t != JT_MISSING && v.t != JT_NONE;
}

/* One step of an attribute path: digits are an index. */
static bool path_step(struct jrender *r, struct jval item, const char *s, size_t n, struct jval dflt, struct jval *out)
{
    struct jval key;
    int64_t i;
    bool overflow, digits = n > 0;
    for (size_t k = 0; k < n; k++)
        digits &= s[k] >= '0' && s[k] <= '9';
    if (digits && jinja_parse_int(s, n, 10, &i, &overflow))
        key = jv_int(i);
    else if (!jinja_str_borrow(r, s, n, &key))
        return false;
    if (!jinja_charge(r, 1) || !jinja_getitem(r, item, key, out))
        return false;
    if (out->t == JT_UNDEFINED && given(dflt))
        *out = dflt;
    return true;
}

bool jinja_path_get(struct jrender *r, struct jval item, struct jval path, struct jval dflt, struct jval *out)
{
    *out = item;
    if (!given(path))
        return true;
    if (path.t != JT_STR) {
        if (!jinja_getitem(r, item, path, out))
            return false;
        if (out->t == JT_UNDEFINED && given(dflt))
            *out = dflt;
        return true;
    }
    const char *s = path.u.s->s, *end = s + path.u.s->len;
    for (;;) {
        const char *dot = memchr(s, '.', (size_t)(end - s)), *to = dot ? dot : end;
        if (!path_step(r, *out, s, (size_t)(to - s), dflt, out))
            return false;
        if (!dot)
            return true;
        s = dot + 1;
    }
}

static bool fold_case(struct jrender *r, struct jval v, bool sensitive, struct jval *out)
{
    *out = v;
    return sensitive || v.t != JT_STR || jinja_str_case(r, v, 'l', out);
}

/* The key a sort by "a,b.c" compares: a list of one value a path. */
static bool multi_key(struct jrender *r, struct jval item, struct jval path, bool sensitive, struct jval *out)
{
    struct jval part, v;
    if (path.t != JT_STR || !memchr(path.u.s->s, ',', path.u.s->len))
        return jinja_path_get(r, item, path, jv_missing(), &v) && fold_case(r, v, sensitive, out);
    if (!jinja_list_new(r, JT_LIST, 2, out))
        return false;
    const char *s = path.u.s->s, *end = s + path.u.s->len;
    for (;;) {
        const char *comma = memchr(s, ',', (size_t)(end - s)), *to = comma ? comma : end;
        if (!jinja_str_borrow(r, s, (size_t)(to - s), &part) || !jinja_path_get(r, item, part, jv_missing(), &v) ||
            !fold_case(r, v, sensitive, &v) || !jinja_list_push(r, out->u.list, v))
            return false;
        if (!comma)
            return true;
        s = comma + 1;
    }
}

static bool sort_by(struct jrender *r, struct jval list, struct jval path, bool sensitive, bool reverse)
{
    struct jlist *l = list.u.list;
    struct jval *keys = jinja_alloc(r, l->n, sizeof *keys);
    if (!keys)
        return false;
    for (size_t i = 0; i < l->n; i++)
        if (!multi_key(r, l->items[i], path, sensitive, &keys[i]))
            return false;
    return jinja_sort(r, l->items, keys, l->n, reverse);
}

FILTER(f_sort)
{
    UNUSED(args);
    return jinja_to_list(r, self, out) && sort_by(r, *out, argv[2], jinja_arg_bool(argv[1], false), jinja_arg_bool(argv[0], false));
}

FILTER(f_dictsort)
{
    UNUSED(args);
    bool by_key = argv[1].t == JT_MISSING || jinja_str_is(argv[1], "key");
    if (!by_key && !jinja_str_is(argv[1], "value"))
        return jinja_fail(r, "You can only sort by either \"key\" or \"value\"");
    if (self.t == JT_UNDEFINED)
        return jinja_fail_undef(r, self);
    if (self.t != JT_DICT)
        return jinja_fail(r, "dictsort needs a dict, not %s", jinja_type_name(self));
    struct jview view = {.dict = self.u.dict, .kind = JVIEW_ITEMS};
    return jinja_to_list(r, (struct jval){.t = JT_VIEW, .u.view = &view}, out) &&
           sort_by(r, *out, jv_int(by_key ? 0 : 1), jinja_arg_bool(argv[0], false), jinja_arg_bool(argv[2], false));
}

static bool extreme(struct jrender *r, struct jval self, struct jval *argv, int op, struct jval *out)
{
    struct jval list, best, key;
    bool better;
    if (!jinja_to_list(r, self, &list))
        return false;
    struct jlist *l = list.u.list;
    if (l->n == 0)
        return jinja_undef_hint(r, "No aggregated item, sequence was empty.", out);
    bool sensitive = jinja_arg_bool(argv[0], false);
    for (size_t i = 0; i < l->n; i++) {
        if (!jinja_path_get(r, l->items[i], argv[1], jv_missing(), &key) || !fold_case(r, key, sensitive, &key))
            return false;
        better = i == 0;
        if (i > 0 && !jinja_compare(r, op, key, best, &better))
            return false;
        if (better) {
            best = key;
            *out = l->items[i];
        }
    }
    return true;
}

FILTER(f_min) { UNUSED(args); return extreme(r, self, argv, JOP_LT, out); }
FILTER(f_max) { UNUSED(args); return extreme(r, self, argv, JOP_GT, out); }

FILTER(f_sum)
{
    UNUSED(args);
    struct jiter *it;
    struct jval acc = argv[1].t == JT_MISSING ? jv_int(0) : argv[1], v;
    int got;
    if (acc.t == JT_STR)
        return jinja_fail(r, "sum() can't sum strings [use ''.join(seq) instead]");
    if (!jinja_iter(r, self, &it))
        return false;
    while ((got = jinja_iter_next(r, it, &v)) > 0)
        if (!jinja_path_get(r, v, argv[0], jv_missing(), &v) || !jinja_binop(r, JOP_ADD, acc, v, &acc))
            return false;
    *out = acc;
    return got == 0;
}

FILTER(f_join)
{
    UNUSED(args);
    struct jiter *it;
    struct jval sep, v;
    struct buf b;
    int got;
    bool first = true;
    if (argv[0].t == JT_MISSING ? !jinja_str_z(r, "", &sep) : !jinja_to_str(r, argv[0], &sep))
        return false;
    if (!jinja_iter(r, self, &it))
        return false;
    jinja_buf_init(r, &b);
    while ((got = jinja_iter_next(r, it, &v)) > 0) {
        if (!first)
            buf_append(&b, sep.u.s->s, sep.u.s->len);
        first = false;
        if (!jinja_path_get(r, v, argv[1], jv_missing(), &v) || !jinja_print(r, v, &b) || b.failed) {
            got = -1;
            break;
        }
    }
    if (got < 0 && !b.failed) {
        buf_free(&b);
        return false;
    }
    return jinja_str_take(r, &b, out);
}

/* ---- ends, order ---- */

FILTER(f_first)
{
    UNUSED(args);
    UNUSED(argv);
    struct jiter *it;
    if (!jinja_iter(r, self, &it))
        return false;
    int got = jinja_iter_next(r, it, out);
    return got > 0 || (got == 0 && jinja_undef_hint(r, "No first item, sequence was empty.", out));
}

FILTER(f_last)
{
    UNUSED(args);
    UNUSED(argv);
    struct jval rev;
    bool ok;
    if (self.t == JT_STR)
        return self.u.s->len ? jinja_getitem(r, self, jv_int(-1), out) : jinja_undef_hint(r, "No last item, sequence was empty.", out);
    if (!jinja_reversed(r, self, &rev, &ok))
        return false;
    if (!ok)
        return jinja_fail(r, "'%s' object is not reversible", jinja_type_name(self));
    int got = jinja_iter_next(r, rev.u.iter, out);
    return got > 0 || (got == 0 && jinja_undef_hint(r, "No last item, sequence was empty.", out));
}

FILTER(f_length)
{
    UNUSED(args);
    UNUSED(argv);
    int64_t n;
    if (!jinja_len(r, self, &n))
        return false;
    *out = jv_int(n);
    return true;
}

FILTER(f_list) { UNUSED(args); UNUSED(argv); return jinja_to_list(r, self, out); }

FILTER(f_reverse)
{
    UNUSED(args);
    UNUSED(argv);
    bool ok;
    if (self.t == JT_STR)
        return jinja_slice(r, self, jv_missing(), jv_missing(), jv_int(-1), out);
    if (!jinja_reversed(r, self, out, &ok))
        return false;
    if (ok)
        return true;
    if (!jinja_iterable(self))
        return jinja_fail(r, "argument must be iterable");
    if (!jinja_to_list(r, self, out))
        return false;
    struct jlist *l = out->u.list;
    for (size_t i = 0; i < l->n / 2; i++) {
        struct jval t = l->items[i];
        l->items[i] = l->items[l->n - 1 - i];
        l->items[l->n - 1 - i] = t;
    }
    return true;
}

/* ---- generators: their work is done when they are first walked ---- */

static bool lazy(struct jrender *r, struct jval self, const struct jval *argv, int n, jfunc_fn *fn, struct jval *out)
{
    struct jiter *it;
    if (!jinja_iter_new(r, JITER_LAZY, &it))
        return false;
    it->src = self;
    it->fn = fn;
    for (int i = 0; i < n; i++)
        it->argv[i] = argv[i];
    *out = (struct jval){.t = JT_ITER, .u.iter = it};
    return true;
}

FILTER(run_unique)
{
    UNUSED(args);
    struct jiter *it;
    struct jval item, key, seen, ignored;
    int got;
    bool found;
    if (!jinja_iter(r, self, &it) || !jinja_list_new(r, JT_LIST, 8, out) || !jinja_dict_new(r, &seen))
        return false;
    while ((got = jinja_iter_next(r, it, &item)) > 0) {
        if (!jinja_path_get(r, item, argv[1], jv_missing(), &key) || !fold_case(r, key, jinja_arg_bool(argv[0], false), &key) ||
            !jinja_dict_get(r, seen.u.dict, key, &ignored, &found))
            return false;
        if (!found && (!jinja_dict_put(r, seen.u.dict, key, jv_none()) || !jinja_list_push(r, out->u.list, item)))
            return false;
    }
    return got == 0;
}

FILTER(f_unique) { UNUSED(args); return lazy(r, self, argv, 2, run_unique, out); }

FILTER(run_batch)
{
    UNUSED(args);
    struct jiter *it;
    struct jval item, row = jv_missing();
    int64_t n;
    int got;
    if (!jinja_arg_int(r, argv[0], 0, &n, "linecount") || !jinja_iter(r, self, &it) || !jinja_list_new(r, JT_LIST, 8, out))
        return false;
    while ((got = jinja_iter_next(r, it, &item)) > 0) {
        if (row.t == JT_MISSING || (int64_t)row.u.list->n == n) {
            /* a count of 0 puts an empty row in front, as the reference does */
            if (row.t == JT_MISSING && n == 0) {
                struct jval empty;
                if (!jinja_list_new(r, JT_LIST, 0, &empty) || !jinja_list_push(r, out->u.list, empty))
                    return false;
            }
            if (!jinja_list_new(r, JT_LIST, 4, &row) || !jinja_list_push(r, out->u.list, row))
                return false;
        }
        if (!jinja_list_push(r, row.u.list, item))
            return false;
    }
    while (got == 0 && row.t != JT_MISSING && given(argv[1]) && (int64_t)row.u.list->n < n)
        if (!jinja_charge(r, 1) || !jinja_list_push(r, row.u.list, argv[1]))
            return false;
    return got == 0;
}

FILTER(f_batch) { UNUSED(args); return lazy(r, self, argv, 2, run_batch, out); }

FILTER(run_slice)
{
    UNUSED(args);
    struct jval list, row;
    int64_t n, at = 0;
    if (!jinja_arg_int(r, argv[0], 0, &n, "slices") || !jinja_to_list(r, self, &list) || !jinja_list_new(r, JT_LIST, 4, out))
        return false;
    if (n == 0)
        return jinja_fail(r, "integer division or modulo by zero");
    int64_t len = (int64_t)list.u.list->n;
    for (int64_t k = 0; k < n; k++) {
        int64_t take = len / n + (k < len % n);
        if (!jinja_charge(r, 1) || !jinja_list_new(r, JT_LIST, (size_t)take + 1, &row) || !jinja_list_push(r, out->u.list, row))
            return false;
        for (int64_t i = 0; i < take; i++)
            if (!jinja_list_push(r, row.u.list, list.u.list->items[at++]))
                return false;
        if (given(argv[1]) && k >= len % n && !jinja_list_push(r, row.u.list, argv[1]))
            return false;
    }
    return true;
}

FILTER(f_slice) { UNUSED(args); return lazy(r, self, argv, 2, run_slice, out); }

FILTER(run_items)
{
    UNUSED(args);
    UNUSED(argv);
    if (self.t == JT_UNDEFINED)
        return jinja_list_new(r, JT_LIST, 0, out);
    if (self.t != JT_DICT)
        return jinja_fail(r, "Can only get item pairs from a mapping.");
    struct jview view = {.dict = self.u.dict, .kind = JVIEW_ITEMS};
    return jinja_to_list(r, (struct jval){.t = JT_VIEW, .u.view = &view}, out);
}

FILTER(f_items) { UNUSED(args); return lazy(r, self, argv, 0, run_items, out); }

static bool generator(struct jrender *r, struct jval self, const struct jargs *args, enum jiter_kind kind, bool negate, bool attr, struct jval *out)
{
    struct jiter *it;
    if (!jinja_iter_new(r, kind, &it))
        return false;
    it->negate = negate;
    it->with_attr = attr;
    *out = (struct jval){.t = JT_ITER, .u.iter = it};
    if (!jinja_truth(self)) {  /* nothing is looked at, not even whether it can be walked */
        it->kind = JITER_EMPTY;
        return true;
    }
    if (!jinja_iterable(self) || self.t == JT_LOOP)
        return jinja_fail(r, "'%s' object is not iterable", jinja_type_name(self));
    it->args = *args;
    if (!(it->args.pos = jinja_alloc(r, args->n_pos, sizeof *args->pos)) || !(it->args.kw = jinja_alloc(r, args->n_kw, sizeof *args->kw)))
        return false;
    if (args->n_pos)
        memcpy(it->args.pos, args->pos, args->n_pos * sizeof *args->pos);
    if (args->n_kw)
        memcpy(it->args.kw, args->kw, args->n_kw * sizeof *args->kw);
    return jinja_iter(r, self, &it->inner);
}

FILTER(f_map) { UNUSED(argv); return generator(r, self, args, JITER_MAP, false, false, out); }
FILTER(f_select) { UNUSED(argv); return generator(r, self, args, JITER_SELECT, false, false, out); }
FILTER(f_reject) { UNUSED(argv); return generator(r, self, args, JITER_SELECT, true, false, out); }
FILTER(f_selectattr) { UNUSED(argv); return generator(r, self, args, JITER_SELECT, false, true, out); }
FILTER(f_rejectattr) { UNUSED(argv); return generator(r, self, args, JITER_SELECT, true, true, out); }

FILTER(f_groupby)
{
    UNUSED(args);
    struct jval list, key, last = jv_missing(), group = jv_missing(), real;
    bool sensitive = jinja_arg_bool(argv[2], false), same;
    if (!jinja_to_list(r, self, &list) || !jinja_list_new(r, JT_LIST, 4, out))
        return false;
    struct jlist *l = list.u.list;
    struct jval *keys = jinja_alloc(r, l->n, sizeof *keys);
    if (!keys)
        return false;
    for (size_t i = 0; i < l->n; i++)
        if (!jinja_path_get(r, l->items[i], argv[0], argv[1], &key) || !fold_case(r, key, sensitive, &keys[i]))
            return false;
    if (!jinja_sort(r, l->items, keys, l->n, false))
        return false;
    for (size_t i = 0; i < l->n; i++) {
        same = false;
        if (last.t != JT_MISSING && !jinja_eq(r, last, keys[i], &same))
            return false;
        if (!same) {
            struct jval pair;
            if (!jinja_path_get(r, l->items[i], argv[0], argv[1], &real) || !jinja_list_new(r, JT_LIST, 4, &group) ||
                !jinja_tuple2(r, real, group, &pair) || !jinja_list_push(r, out->u.list, pair))
                return false;
            pair.u.list->group = true;
            last = keys[i];
        }
        if (!jinja_list_push(r, group.u.list, l->items[i]))
            return false;
    }
    return true;
}

FILTER(f_attr)
{
    UNUSED(args);
    bool found = false;
    if (argv[0].t != JT_STR)
        return jinja_fail(r, "attr needs a name, not %s", jinja_type_name(argv[0]));
    if (!jinja_attr(r, self, argv[0], out, &found))
        return false;
    return found || jinja_undef_obj(r, self, argv[0], out);
}

static const struct jfunc_spec FILTERS[] = {
    {"attr", "name!", f_attr}, {"batch", "linecount! fill_with", f_batch}, {"count", "", f_length},
    {"dictsort", "case_sensitive by reverse", f_dictsort}, {"first", "", f_first},
    {"groupby", "attribute! default case_sensitive", f_groupby}, {"items", "", f_items}, {"join", "d attribute", f_join},
    {"last", "", f_last}, {"length", "", f_length}, {"list", "", f_list}, {"map", NULL, f_map},
    {"max", "case_sensitive attribute", f_max}, {"min", "case_sensitive attribute", f_min}, {"reject", NULL, f_reject},
    {"rejectattr", NULL, f_rejectattr}, {"reverse", "", f_reverse}, {"select", NULL, f_select}, {"selectattr", NULL, f_selectattr},
    {"slice", "slices! fill_with", f_slice}, {"sort", "reverse case_sensitive attribute", f_sort}, {"sum", "attribute start", f_sum},
    {"unique", "case_sensitive attribute", f_unique}, {NULL, NULL, NULL},
};

const struct jfunc_spec *jinja_filter_seq_find(const char *name, size_t len)
{
    return jinja_spec_find(FILTERS, name, len);
}
