/* jinja_eval.c - expressions and calls. */
#include <string.h>
#include "tok/jinja_int.h"

enum { SMALL_ARGS = 6 };

struct jval *jinja_slot(struct jenv *env, const struct jvar *var)
{
    while (env->fn != var->fn)
        env = env->parent;
    return &env->slots[var->slot];
}

static bool eval_name(struct jrender *r, struct jenv *env, const struct jnode *n, struct jval *out)
{
    struct jval *slot = jinja_slot(env, n->var);
    if (slot->t != JT_MISSING) {
        *out = *slot;
        return true;
    }
    return jinja_undef_name(r, n->value, out);
}

static bool eval_items(struct jrender *r, struct jenv *env, const struct jnode *n, struct jval *out)
{
    if (!jinja_list_new(r, n->kind == JN_LIST ? JT_LIST : JT_TUPLE, n->list.n, out))
        return false;
    struct jlist *l = out->u.list;
    for (; l->n < n->list.n; l->n++)
        if (!jinja_eval(r, env, n->list.items[l->n], &l->items[l->n]))
            return false;
    return true;
}

static bool eval_dict(struct jrender *r, struct jenv *env, const struct jnode *n, struct jval *out)
{
    if (!jinja_dict_new(r, out))
        return false;
    for (size_t i = 0; i + 1 < n->list.n; i += 2) {
        struct jval k, v;
        if (!jinja_eval(r, env, n->list.items[i], &k) || !jinja_eval(r, env, n->list.items[i + 1], &v) ||
            !jinja_dict_put(r, out->u.dict, k, v))
            return false;
    }
    return true;
}

static bool eval_cond(struct jrender *r, struct jenv *env, const struct jnode *n, struct jval *out)
{
    struct jval test;
    if (!jinja_eval(r, env, n->a, &test))
        return false;
    if (jinja_truth(test))
        return jinja_eval(r, env, n->b, out);
    if (n->c)
        return jinja_eval(r, env, n->c, out);
    return jinja_undef_hint(r, "the inline if-expression evaluated to false and no else section was defined", out);
}

static bool eval_binary(struct jrender *r, struct jenv *env, const struct jnode *n, struct jval *out)
{
    struct jval a, b;
    if (!jinja_eval(r, env, n->a, &a) || !jinja_eval(r, env, n->b, &b))
        return false;
    r->line = n->line;
    /* The reference prints a negated literal into Python source before a **, where the minus binds looser. */
    if (n->op == JOP_POW && n->a->kind == JN_NEG && n->a->a->kind == JN_CONST && n->b->kind != JN_CONST &&
        !(n->b->kind == JN_NEG && n->b->a->kind == JN_CONST) && jv_is_num(a))
        return jinja_unary(r, true, a, &a) && jinja_binop(r, n->op, a, b, out) && jinja_unary(r, true, *out, out);
    return jinja_binop(r, n->op, a, b, out);
}

static bool eval_logic(struct jrender *r, struct jenv *env, const struct jnode *n, struct jval *out)
{
    if (!jinja_eval(r, env, n->a, out))
        return false;
    if (jinja_truth(*out) == (n->kind == JN_OR))
        return true;
    return jinja_eval(r, env, n->b, out);
}

static bool eval_unary(struct jrender *r, struct jenv *env, const struct jnode *n, struct jval *out)
{
    struct jval a;
    if (!jinja_eval(r, env, n->a, &a))
        return false;
    if (n->kind != JN_NOT)
        return jinja_unary(r, n->kind == JN_NEG, a, out);
    *out = jv_bool(!jinja_truth(a));
    return true;
}

static bool eval_compare(struct jrender *r, struct jenv *env, const struct jnode *n, struct jval *out)
{
    struct jval a, b;
    bool holds = true;
    if (!jinja_eval(r, env, n->a, &a))
        return false;
    for (size_t i = 0; holds && i < n->list.n; i++, a = b) {
        const struct jnode *op = n->list.items[i];
        if (!jinja_eval(r, env, op->a, &b))
            return false;
        r->line = n->line;
        if (!jinja_compare(r, op->op, a, b, &holds))
            return false;
    }
    *out = jv_bool(holds);
    return true;
}

static bool eval_concat(struct jrender *r, struct jenv *env, const struct jnode *n, struct jval *out)
{
    struct jval v, s, acc = {.t = JT_MISSING};
    for (size_t i = 0; i < n->list.n; i++) {
        if (!jinja_eval(r, env, n->list.items[i], &v) || !jinja_to_str(r, v, &s))
            return false;
        if (acc.t == JT_MISSING)
            acc = s;
        else if (!jinja_str_concat(r, acc.u.s, s.u.s, &acc))
            return false;
    }
    *out = acc;
    return true;
}

static bool eval_attr(struct jrender *r, struct jenv *env, const struct jnode *n, struct jval *out)
{
    struct jval o;
    if (!jinja_eval(r, env, n->a, &o))
        return false;
    r->line = n->line;
    return jinja_getattr(r, o, n->value, out);
}

static bool eval_item(struct jrender *r, struct jenv *env, const struct jnode *n, struct jval *out)
{
    struct jval o, part[3] = {jv_missing(), jv_missing(), jv_missing()};
    if (!jinja_eval(r, env, n->a, &o))
        return false;
    if (n->b->kind != JN_SLICE) {
        if (!jinja_eval(r, env, n->b, &part[0]))
            return false;
        r->line = n->line;
        return jinja_getitem(r, o, part[0], out);
    }
    const struct jnode *bounds[3] = {n->b->a, n->b->b, n->b->c};
    for (int i = 0; i < 3; i++)
        if (bounds[i] && !jinja_eval(r, env, bounds[i], &part[i]))
            return false;
    r->line = n->line;
    return jinja_slice(r, o, part[0], part[1], part[2], out);
}

/* ---- arguments ---- */

struct jkw *jinja_kw(struct jargs *a, const char *name)
{
    for (size_t i = 0; i < a->n_kw; i++)
        if (a->kw[i].len == strlen(name) && memcmp(a->kw[i].name, name, a->kw[i].len) == 0)
            return &a->kw[i];
    return NULL;
}

/* *list and **dict of a call appended to what is there. */
static bool spread_args(struct jrender *r, struct jenv *env, const struct jnode *n, struct jargs *args)
{
    struct jval v, list;
    if (n->b) {
        if (!jinja_eval(r, env, n->b, &v) || !jinja_to_list(r, v, &list))
            return false;
        struct jval *pos = jinja_alloc(r, args->n_pos + list.u.list->n, sizeof *pos);
        if (!pos)
            return false;
        if (args->n_pos)
            memcpy(pos, args->pos, args->n_pos * sizeof *pos);
        if (list.u.list->n)
            memcpy(pos + args->n_pos, list.u.list->items, list.u.list->n * sizeof *pos);
        args->pos = pos;
        args->n_pos += list.u.list->n;
    }
    if (n->c) {
        if (!jinja_eval(r, env, n->c, &v))
            return false;
        if (v.t != JT_DICT)
            return jinja_fail(r, "the argument behind ** must be a dict, not %s", jinja_type_name(v));
        struct jdict *d = v.u.dict;
        struct jkw *kw = jinja_alloc(r, args->n_kw + d->n, sizeof *kw);
        if (!kw || !jinja_charge(r, (args->n_kw + d->n) * (args->n_kw + 1)))
            return false;
        if (args->n_kw)
            memcpy(kw, args->kw, args->n_kw * sizeof *kw);
        for (size_t i = 0; i < d->n; i++) {
            struct jval k = d->items[i].key;
            if (k.t != JT_STR)
                return jinja_fail(r, "keywords must be strings");
            for (size_t m = 0; m < args->n_kw; m++)
                if (kw[m].len == k.u.s->len && memcmp(kw[m].name, k.u.s->s, kw[m].len) == 0)
                    return jinja_fail(r, "got multiple values for keyword argument '%.*s'", (int)kw[m].len, kw[m].name);
            kw[args->n_kw + i] = (struct jkw){.name = k.u.s->s, .len = k.u.s->len, .v = d->items[i].value};
        }
        args->kw = kw;
        args->n_kw += d->n;
    }
    return true;
}

/* The arguments of a call, filter or test; pos and kw are the caller's room for SMALL_ARGS each. */
static bool eval_args(struct jrender *r, struct jenv *env, const struct jnode *n, struct jval *pos, struct jkw *kw, struct jargs *args)
{
    *args = (struct jargs){.pos = pos, .kw = kw};
    if (n->list.n > SMALL_ARGS && !(args->pos = jinja_alloc(r, n->list.n, sizeof *args->pos)))
        return false;
    if (n->kw.n > SMALL_ARGS - 1 && !(args->kw = jinja_alloc(r, n->kw.n + 1, sizeof *args->kw)))
        return false;
    for (; args->n_pos < n->list.n; args->n_pos++)
        if (!jinja_eval(r, env, n->list.items[args->n_pos], &args->pos[args->n_pos]))
            return false;
    for (; args->n_kw < n->kw.n; args->n_kw++) {
        const struct jnode *k = n->kw.items[args->n_kw];
        args->kw[args->n_kw] = (struct jkw){.name = k->name, .len = k->name_len};
        if (!jinja_eval(r, env, k->a, &args->kw[args->n_kw].v))
            return false;
    }
    return spread_args(r, env, n, args);
}

static bool eval_call(struct jrender *r, struct jenv *env, const struct jnode *n, struct jval *caller, struct jval *out)
{
    struct jval f, pos[SMALL_ARGS];
    struct jkw kw[SMALL_ARGS];
    struct jargs args;
    if (!jinja_eval(r, env, n->a, &f) || !eval_args(r, env, n, pos, kw, &args))
        return false;
    if (caller) {
        struct jkw *more = jinja_alloc(r, args.n_kw + 1, sizeof *more);
        if (!more)
            return false;
        if (args.n_kw)
            memcpy(more, args.kw, args.n_kw * sizeof *more);
        more[args.n_kw++] = (struct jkw){.name = "caller", .len = 6, .v = *caller};
        args.kw = more;
    }
    r->line = n->line;
    return jinja_call(r, f, &args, out);
}

bool jinja_eval_call(struct jrender *r, struct jenv *env, const struct jnode *n, struct jval *caller, struct jval *out)
{
    return eval_call(r, env, n, caller, out);
}

bool jinja_eval_filter(struct jrender *r, struct jenv *env, const struct jnode *n, struct jval *self, struct jval *out)
{
    struct jval v, pos[SMALL_ARGS];
    struct jkw kw[SMALL_ARGS];
    struct jargs args;
    if (n->a ? (n->a->kind == JN_FILTER && self ? !jinja_eval_filter(r, env, n->a, self, &v) : !jinja_eval(r, env, n->a, &v)) : !self)
        return n->a ? false : jinja_fail(r, "a filter without a value");
    if (!n->a)
        v = *self;
    if (!n->spec)
        return jinja_fail(r, "no %s named '%.*s'", n->kind == JN_FILTER ? "filter" : "test", (int)(n->name_len < 60 ? n->name_len : 60), n->name);
    if (!eval_args(r, env, n, pos, kw, &args))
        return false;
    r->line = n->line;
    return jinja_call_spec(r, n->spec, v, &args, out);
}

static bool eval_node(struct jrender *r, struct jenv *env, const struct jnode *n, struct jval *out)
{
    switch (n->kind) {
    case JN_TUPLE:
    case JN_LIST: return eval_items(r, env, n, out);
    case JN_DICT: return eval_dict(r, env, n, out);
    case JN_COND: return eval_cond(r, env, n, out);
    case JN_BIN: return eval_binary(r, env, n, out);
    case JN_AND:
    case JN_OR: return eval_logic(r, env, n, out);
    case JN_NOT:
    case JN_NEG:
    case JN_POS: return eval_unary(r, env, n, out);
    case JN_COMPARE: return eval_compare(r, env, n, out);
    case JN_CONCAT: return eval_concat(r, env, n, out);
    case JN_ATTR: return eval_attr(r, env, n, out);
    case JN_ITEM: return eval_item(r, env, n, out);
    case JN_CALL: return eval_call(r, env, n, NULL, out);
    case JN_FILTER:
    case JN_TEST: return jinja_eval_filter(r, env, n, NULL, out);
    default: return jinja_fail(r, "this cannot be evaluated");
    }
}

bool jinja_eval(struct jrender *r, struct jenv *env, const struct jnode *n, struct jval *out)
{
    if (!jinja_charge(r, 1))
        return false;
    r->line = n->line;
    if (n->kind == JN_CONST) {
        *out = n->value;
        return true;
    }
    if (n->kind == JN_NAME)
        return eval_name(r, env, n, out);
    if (!jinja_enter(r))
        return false;
    bool ok = eval_node(r, env, n, out);
    jinja_leave(r);
    return ok;
}

/* ---- assignment ---- */

static bool unpack(struct jrender *r, struct jenv *env, const struct jnode *target, struct jval v)
{
    struct jiter *it;
    struct jval item;
    int got;
    if (v.t == JT_UNDEFINED || !jinja_iterable(v)) {
        if (v.t != JT_UNDEFINED)
            return jinja_fail(r, "cannot unpack non-iterable %s object", jinja_type_name(v));
    }
    if (!jinja_iter(r, v, &it))
        return false;
    for (size_t i = 0; i < target->list.n; i++) {
        if ((got = jinja_iter_next(r, it, &item)) < 0)
            return false;
        if (got == 0)
            return jinja_fail(r, "not enough values to unpack (expected %zu, got %zu)", target->list.n, i);
        if (!jinja_assign(r, env, target->list.items[i], item))
            return false;
    }
    got = jinja_iter_next(r, it, &item);
    return got == 0 || (got > 0 && jinja_fail(r, "too many values to unpack (expected %zu)", target->list.n));
}

bool jinja_assign(struct jrender *r, struct jenv *env, const struct jnode *target, struct jval v)
{
    r->line = target->line;
    if (target->kind == JN_TUPLE)
        return unpack(r, env, target, v);
    struct jval *slot = jinja_slot(env, target->var);
    if (target->kind == JN_NAME) {
        *slot = v;
        return true;
    }
    if (slot->t != JT_NAMESPACE)
        return jinja_fail(r, "cannot assign attribute '%.*s' on something that is not a namespace", (int)target->attr_len, target->attr);
    return jinja_dict_put(r, slot->u.dict, target->value, v);
}

/* ---- calls ---- */

/* The next parameter in a list of names ("width! fill"); false at the end. */
static bool next_param(const char **p, const char **name, size_t *len, bool *required)
{
    while (**p == ' ')
        (*p)++;
    if (!**p)
        return false;
    *name = *p;
    while (**p && **p != ' ' && **p != '!')
        (*p)++;
    *len = (size_t)(*p - *name);
    *required = **p == '!';
    if (*required)
        (*p)++;
    return true;
}

static bool bind_builtin(struct jrender *r, const struct jfunc_spec *spec, struct jargs *args, struct jval *argv)
{
    const char *p = spec->params, *name;
    size_t len, n = 0, used = 0;
    bool required;
    while (n < JINJA_MAX_PARAMS && next_param(&p, &name, &len, &required)) {
        argv[n] = jv_missing();
        if (n < args->n_pos)
            argv[n] = args->pos[n];
        for (size_t i = 0; i < args->n_kw; i++) {
            if (args->kw[i].len != len || memcmp(args->kw[i].name, name, len) != 0)
                continue;
            if (argv[n].t != JT_MISSING)
                return jinja_fail(r, "%s() got multiple values for argument '%.*s'", spec->name, (int)len, name);
            argv[n] = args->kw[i].v;
            used++;
        }
        if (required && argv[n].t == JT_MISSING)
            return jinja_fail(r, "%s() misses its argument '%.*s'", spec->name, (int)len, name);
        n++;
    }
    if (args->n_pos > n)
        return jinja_fail(r, "%s() takes at most %zu arguments (%zu given)", spec->name, n, args->n_pos);
    if (used < args->n_kw)
        return jinja_fail(r, "%s() got an unexpected keyword argument", spec->name);
    return true;
}

bool jinja_call_spec(struct jrender *r, const struct jfunc_spec *spec, struct jval self, struct jargs *args, struct jval *out)
{
    struct jval argv[JINJA_MAX_PARAMS];
    if (!spec->params)
        return spec->fn(r, self, NULL, args, out);
    return bind_builtin(r, spec, args, argv) && spec->fn(r, self, argv, args, out);
}

bool jinja_call(struct jrender *r, struct jval f, struct jargs *args, struct jval *out)
{
    switch (f.t) {
    case JT_FUNC: return jinja_call_spec(r, f.u.func, jv_none(), args, out);
    case JT_METHOD: return jinja_call_spec(r, f.u.method->spec, f.u.method->self, args, out);
    case JT_MACRO: return jinja_call_macro(r, f.u.macro, args, out);
    case JT_LOOP:
        if (args->n_pos + args->n_kw != 1 || (args->n_kw == 1 && !jinja_kw(args, "iterable")))
            return jinja_fail(r, "loop() takes one argument, the inner items");
        return jinja_call_loop(r, f.u.loop, args->n_pos ? args->pos[0] : args->kw[0].v, out);
    case JT_JOINER:
        *out = f.u.joiner->used ? f.u.joiner->sep : jv_missing();
        f.u.joiner->used = true;
        return out->t != JT_MISSING || jinja_str_z(r, "", out);
    case JT_UNDEFINED: return jinja_fail_undef(r, f);
    default: return jinja_fail(r, "'%s' object is not callable", jinja_type_name(f));
    }
}
