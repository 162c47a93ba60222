/* jinja_exec.c - statements, macros, loops, and jinja_render. */
#include <string.h>
#include "base/mem.h"
#include "base/rng.h"
#include "tok/jinja_int.h"

enum status { EX_OK, EX_BREAK, EX_CONTINUE, EX_FAIL };

static enum status exec_body(struct jrender *r, struct jenv *env, const struct jnodes *body);

bool jinja_env_new(struct jrender *r, struct jenv *parent, const struct jfn *fn, struct jenv **out)
{
    struct jenv *env = jinja_alloc(r, 1, sizeof *env + fn->n_slots * sizeof(struct jval));
    if (!env)
        return false;
    env->parent = parent;
    env->fn = fn;
    *out = env;  /* zeroed memory: every slot is JT_MISSING */
    return true;
}

static bool resolve(struct jrender *r, const struct jval *name, struct jval *out)
{
    const struct jstr *s = name->u.s;
    if (jinja_dict_find(r, r->globals, s->s, s->len, out))
        return true;
    if (r->failed)
        return false;
    const struct jfunc_spec *spec = jinja_global_find(s->s, s->len);
    *out = spec ? (struct jval){.t = JT_FUNC, .u.func = spec} : jv_missing();
    return true;
}

bool jinja_frame_enter(struct jrender *r, struct jenv *env, const struct jframe *f)
{
    if (!jinja_charge(r, f->n))
        return false;
    for (size_t i = 0; i < f->n; i++) {
        const struct jload *l = &f->loads[i];
        struct jval *slot = jinja_slot(env, l->var);
        switch (l->kind) {
        case JLOAD_PARAM: break;
        case JLOAD_UNDEFINED: *slot = jv_missing(); break;
        case JLOAD_ALIAS: *slot = *jinja_slot(env, l->from); break;
        case JLOAD_RESOLVE:
            if (!resolve(r, &l->name, slot))
                return false;
        }
    }
    return true;
}

static void frame_leave(struct jenv *env, const struct jframe *f)
{
    for (size_t i = 0; i < f->n; i++)
        *jinja_slot(env, f->loads[i].var) = jv_missing();
}

/* ---- output and captures ---- */

static bool check_output(struct jrender *r)
{
    return !r->out.failed || jinja_fail_code(r, ERR_TOO_LARGE, "the output is larger than %zu bytes", r->lim.max_output);
}

/* What was written since mark, as a string; the output goes back to mark. */
static bool capture_end(struct jrender *r, size_t mark, struct jval *out)
{
    if (!check_output(r) || !jinja_str_new(r, r->out.data ? r->out.data + mark : "", r->out.len - mark, out))
        return false;
    r->out.len = mark;
    return true;
}

static enum status exec_output(struct jrender *r, struct jenv *env, const struct jnode *n)
{
    struct jval v;
    for (size_t i = 0; i < n->list.n; i++)
        if (!jinja_eval(r, env, n->list.items[i], &v) || !jinja_print(r, v, &r->out) || !check_output(r))
            return EX_FAIL;
    return EX_OK;
}

static enum status exec_setblock(struct jrender *r, struct jenv *env, const struct jnode *n)
{
    struct jval v;
    size_t mark = r->out.len;
    if (!jinja_frame_enter(r, env, n->frame))
        return EX_FAIL;
    enum status st = exec_body(r, env, &n->body);
    if (st != EX_OK) {
        if (st != EX_FAIL)
            r->out.len = mark;
        return st;
    }
    if (!capture_end(r, mark, &v) || (n->b && !jinja_eval_filter(r, env, n->b, &v, &v)) || !jinja_assign(r, env, n->a, v))
        return EX_FAIL;
    frame_leave(env, n->frame);
    return EX_OK;
}

static enum status exec_filterblock(struct jrender *r, struct jenv *env, const struct jnode *n)
{
    struct jval v;
    size_t mark = r->out.len;
    if (!jinja_frame_enter(r, env, n->frame))
        return EX_FAIL;
    enum status st = exec_body(r, env, &n->body);
    if (st != EX_OK) {
        if (st != EX_FAIL)
            r->out.len = mark;
        return st;
    }
    if (!capture_end(r, mark, &v) || !jinja_eval_filter(r, env, n->a, &v, &v) || !jinja_print(r, v, &r->out) || !check_output(r))
        return EX_FAIL;
    frame_leave(env, n->frame);
    return EX_OK;
}

static enum status exec_with(struct jrender *r, struct jenv *env, const struct jnode *n)
{
    struct jval v;
    if (!jinja_frame_enter(r, env, n->frame))
        return EX_FAIL;
    for (size_t i = 0; i < n->list.n; i++)
        if (!jinja_eval(r, env, n->kw.items[i], &v) || !jinja_assign(r, env, n->list.items[i], v))
            return EX_FAIL;
    enum status st = exec_body(r, env, &n->body);
    if (st == EX_OK)
        frame_leave(env, n->frame);
    return st;
}

static enum status exec_if(struct jrender *r, struct jenv *env, const struct jnode *n)
{
    const struct jnode *branch = n;
    struct jval test;
    for (size_t i = 0;; branch = n->list.items[i++]) {
        if (!jinja_eval(r, env, branch->a, &test))
            return EX_FAIL;
        if (jinja_truth(test))
            return exec_body(r, env, &branch->body);
        if (i == n->list.n)
            return exec_body(r, env, &n->orelse);
    }
}

/* ---- loops ---- */

/* One step of the generator that a loop's `if` is. */
int jinja_looptest_next(struct jrender *r, struct jiter *it, struct jval *out)
{
    for (;;) {
        struct jval test;
        int got = jinja_iter_next(r, it->inner, out);
        if (got <= 0)
            return got;
        if (!jinja_assign(r, it->env, it->node->d, *out) || !jinja_eval(r, it->env, it->node->c, &test))
            return -1;
        if (jinja_truth(test))
            return 1;
    }
}

static bool loop_iter(struct jrender *r, struct jenv *env, const struct jnode *n, struct jval *iterable, struct jiter **it)
{
    if (iterable->t == JT_LOOP)
        return jinja_fail(r, "the variable 'loop' cannot be looped over");
    if (!jinja_iter(r, *iterable, it))
        return false;
    if (!n->c)
        return true;
    struct jiter *test;
    if (!jinja_iter_new(r, JITER_LOOPTEST, &test) || !jinja_env_new(r, env, n->test_frame->fn, &test->env) ||
        !jinja_frame_enter(r, test->env, n->test_frame))
        return false;
    test->inner = *it;
    test->node = n;
    *it = test;
    *iterable = (struct jval){.t = JT_ITER, .u.iter = test};
    return true;
}

static enum status loop_else(struct jrender *r, struct jenv *env, const struct jnode *n)
{
    if (!n->else_frame)
        return EX_OK;
    if (!jinja_frame_enter(r, env, n->else_frame))
        return EX_FAIL;
    enum status st = exec_body(r, env, &n->orelse);
    if (st == EX_OK)
        frame_leave(env, n->else_frame);
    return st;
}

/* Runs the loop in env, which is the activation its body's variables belong to; outer is where `loop()` closes over. */
static enum status run_loop(struct jrender *r, struct jenv *env, struct jenv *outer, const struct jnode *n, struct jval iterable, int64_t depth0)
{
    struct jiter *it;
    struct jloop *loop = NULL;
    struct jval v;
    bool none = true;
    int got;
    if (!loop_iter(r, outer, n, &iterable, &it))
        return EX_FAIL;
    if (n->wants_loop) {
        if (!(loop = jinja_alloc(r, 1, sizeof *loop)))
            return EX_FAIL;
        *loop = (struct jloop){.iterable = iterable, .it = it, .index0 = -1, .depth0 = depth0, .length = -1, .node = n, .env = outer};
    }
    while ((got = loop ? jinja_loop_next(r, loop, &v) : jinja_iter_next(r, it, &v)) > 0) {
        if (!jinja_assign(r, env, n->a, v))
            return EX_FAIL;
        if (loop)
            *jinja_slot(env, n->loop_var) = (struct jval){.t = JT_LOOP, .u.loop = loop};
        if (!jinja_frame_enter(r, env, n->frame))
            return EX_FAIL;
        enum status st = exec_body(r, env, &n->body);
        if (st == EX_FAIL)
            return st;
        if (st == EX_BREAK)
            break;
        none &= st == EX_CONTINUE;  /* as in the reference, continue skips the note that there was an item */
    }
    if (got < 0)
        return EX_FAIL;
    frame_leave(env, n->frame);
    return none ? loop_else(r, env, n) : EX_OK;
}

static bool deeper(struct jrender *r)
{
    if (++r->depth <= r->lim.max_depth)
        return true;
    r->depth--;
    return jinja_fail_code(r, ERR_TOO_LARGE, "macro calls and recursive loops are nested more than %d deep", r->lim.max_depth);
}

static enum status exec_for(struct jrender *r, struct jenv *env, const struct jnode *n)
{
    struct jval iterable;
    struct jenv *inner = env;
    if (!jinja_eval(r, env, n->b, &iterable) || (n->flag && !jinja_env_new(r, env, n->frame->fn, &inner)))
        return EX_FAIL;
    r->line = n->line;
    return run_loop(r, inner, env, n, iterable, 0);
}

bool jinja_call_loop(struct jrender *r, struct jloop *l, struct jval iterable, struct jval *out)
{
    struct jenv *env;
    size_t mark = r->out.len;
    if (!l->node->flag)
        return jinja_fail(r, "the loop must have the 'recursive' marker to be called recursively");
    if (!deeper(r))
        return false;
    bool ok = jinja_env_new(r, l->env, l->node->frame->fn, &env) &&
              run_loop(r, env, l->env, l->node, iterable, l->depth0 + 1) != EX_FAIL && capture_end(r, mark, out);
    r->depth--;
    return ok;
}

/* ---- macros ---- */

static bool kw_taken(const struct jnode *n, const struct jkw *kw)
{
    for (size_t i = 0; i < n->list.n; i++)
        if (n->list.items[i]->name_len == kw->len && memcmp(n->list.items[i]->name, kw->name, kw->len) == 0)
            return true;
    return false;
}

/* Positional and keyword arguments into the parameters; what is left over to kwargs and varargs. */
static bool bind_params(struct jrender *r, struct jenv *env, const struct jnode *n, struct jargs *args)
{
    size_t np = n->list.n;
    bool has_caller_param = false;
    for (size_t i = 0; i < np; i++) {
        const struct jnode *p = n->list.items[i];
        struct jval *slot = jinja_slot(env, p->var);
        has_caller_param |= p->name_len == 6 && memcmp(p->name, "caller", 6) == 0;
        *slot = i < args->n_pos ? args->pos[i] : jv_missing();
        for (size_t k = 0; k < args->n_kw; k++)
            if (i >= args->n_pos && args->kw[k].len == p->name_len && memcmp(args->kw[k].name, p->name, p->name_len) == 0)
                *slot = args->kw[k].v;
    }
    struct jval kwargs, varargs;
    if (!jinja_dict_new(r, &kwargs) || !jinja_list_new(r, JT_TUPLE, 0, &varargs))
        return false;
    struct jkw *caller = jinja_kw(args, "caller");
    bool takes_caller = n->flag && !has_caller_param;
    if (takes_caller && n->caller_var) {
        struct jval *slot = jinja_slot(env, n->caller_var);
        if (caller && caller->v.t != JT_NONE)
            *slot = caller->v;
        else if (!jinja_undef_hint(r, "No caller defined", slot))
            return false;
    }
    for (size_t k = 0; k < args->n_kw; k++) {
        struct jkw *kw = &args->kw[k];
        bool positional = false;  /* a parameter already filled by position: the keyword is left over */
        for (size_t i = 0; i < np && i < args->n_pos; i++)
            positional |= n->list.items[i]->name_len == kw->len && memcmp(n->list.items[i]->name, kw->name, kw->len) == 0;
        if ((kw_taken(n, kw) && !positional) || (takes_caller && kw == caller))
            continue;
        struct jval key;
        if (!n->kwargs_var)
            return jinja_fail(r, "the macro takes no keyword argument '%.*s'", (int)(kw->len < 60 ? kw->len : 60), kw->name);
        if (!jinja_str_borrow(r, kw->name, kw->len, &key) || !jinja_dict_put(r, kwargs.u.dict, key, kw->v))
            return false;
    }
    if (args->n_pos > np && !n->varargs_var)
        return jinja_fail(r, "the macro takes not more than %zu arguments, %zu are given", np, args->n_pos);
    for (size_t i = np; i < args->n_pos; i++)
        if (!jinja_list_push(r, varargs.u.list, args->pos[i]))
            return false;
    if (n->kwargs_var)
        *jinja_slot(env, n->kwargs_var) = kwargs;
    if (n->varargs_var)
        *jinja_slot(env, n->varargs_var) = varargs;
    return true;
}

static bool bind_defaults(struct jrender *r, struct jenv *env, const struct jnode *n)
{
    for (size_t i = 0; i < n->list.n; i++) {
        const struct jnode *p = n->list.items[i];
        struct jval *slot = jinja_slot(env, p->var), v;
        if (slot->t != JT_MISSING)
            continue;
        if (i + n->kw.n >= n->list.n) {
            if (!jinja_eval(r, env, n->kw.items[i + n->kw.n - n->list.n], &v))
                return false;
        } else if (!jinja_undef_name(r, p->value, &v)) {
            return false;
        }
        *slot = v;
    }
    return true;
}

static bool run_macro(struct jrender *r, const struct jnode *n, struct jenv *parent, struct jargs *args, struct jval *out)
{
    struct jenv *env;
    size_t mark = r->out.len;
    return jinja_env_new(r, parent, n->frame->fn, &env) && bind_params(r, env, n, args) && jinja_frame_enter(r, env, n->frame) &&
           bind_defaults(r, env, n) && exec_body(r, env, &n->body) != EX_FAIL && capture_end(r, mark, out);
}

bool jinja_call_macro(struct jrender *r, struct jmacro *m, struct jargs *args, struct jval *out)
{
    if (!deeper(r))
        return false;
    bool ok = run_macro(r, m->node, m->env, args, out);
    r->depth--;
    return ok;
}

static bool make_macro(struct jrender *r, struct jenv *env, const struct jnode *n, struct jval *out)
{
    struct jmacro *m = jinja_alloc(r, 1, sizeof *m);
    if (!m)
        return false;
    *m = (struct jmacro){.node = n, .env = env};
    *out = (struct jval){.t = JT_MACRO, .u.macro = m};
    return true;
}

static enum status exec_callblock(struct jrender *r, struct jenv *env, const struct jnode *n)
{
    struct jval caller, v;
    struct jargs none = {0};
    if (!make_macro(r, env, n, &caller))
        return EX_FAIL;
    if (!(n->a ? jinja_eval_call(r, env, n->a, &caller, &v) : jinja_call_macro(r, caller.u.macro, &none, &v)))
        return EX_FAIL;
    return jinja_print(r, v, &r->out) && check_output(r) ? EX_OK : EX_FAIL;
}

/* ---- statements ---- */

static enum status exec_stmt(struct jrender *r, struct jenv *env, const struct jnode *n)
{
    struct jval v;
    switch (n->kind) {
    case JN_OUTPUT: return exec_output(r, env, n);
    case JN_FOR: return exec_for(r, env, n);
    case JN_IF: return exec_if(r, env, n);
    case JN_SET: return jinja_eval(r, env, n->b, &v) && jinja_assign(r, env, n->a, v) ? EX_OK : EX_FAIL;
    case JN_SETBLOCK: return exec_setblock(r, env, n);
    case JN_MACRO: return make_macro(r, env, n, jinja_slot(env, n->var)) ? EX_OK : EX_FAIL;
    case JN_CALLBLOCK: return exec_callblock(r, env, n);
    case JN_FILTERBLOCK: return exec_filterblock(r, env, n);
    case JN_WITH:
    case JN_SCOPE: return exec_with(r, env, n);
    case JN_BREAK: return EX_BREAK;
    case JN_CONTINUE: return EX_CONTINUE;
    default: jinja_fail(r, "unknown statement"); return EX_FAIL;
    }
}

static enum status exec_body(struct jrender *r, struct jenv *env, const struct jnodes *body)
{
    enum status st = EX_OK;
    if (!jinja_enter(r))
        return EX_FAIL;
    for (size_t i = 0; st == EX_OK && i < body->n; i++) {
        r->line = body->items[i]->line;
        st = jinja_charge(r, 1) ? exec_stmt(r, env, body->items[i]) : EX_FAIL;
    }
    jinja_leave(r);
    return st;
}

/* ---- the render ---- */

static struct jinja_limits with_defaults(const struct jinja_limits *l)
{
    struct jinja_limits d = l ? *l : (struct jinja_limits){0};
    if (d.max_steps == 0)
        d.max_steps = 50u * 1000 * 1000;
    if (d.max_output == 0)
        d.max_output = (size_t)64 << 20;
    if (d.max_memory == 0)
        d.max_memory = (size_t)256 << 20;
    if (d.max_depth <= 0)
        d.max_depth = 200;
    if (d.max_depth > 400)
        d.max_depth = 400;  /* what a common stack of 8 MiB carries */
    return d;
}

bool jinja_render(const struct jinja *j, const json_t *globals, int64_t now_unix, const struct jinja_limits *limits,
                  struct buf *out, struct err *e)
{
    struct jrender r = {.e = e, .lim = with_defaults(limits), .now_unix = now_unix, .line = 1, .hash_seed = rng_entropy()};
    struct jval vars;
    struct jenv *env;
    r.arena = arena_open(r.lim.max_memory);
    if (!r.arena)
        return err_set(e, ERR_NOMEM, "template: out of memory");
    buf_init(&r.out, r.lim.max_output);
    bool ok = globals && json_is_object(globals) ? jinja_from_json(&r, globals, &vars) : jinja_dict_new(&r, &vars);
    if (ok) {
        r.globals = vars.u.dict;
        ok = jinja_env_new(&r, NULL, j->frame->fn, &env) && jinja_frame_enter(&r, env, j->frame) &&
             exec_body(&r, env, &j->body) != EX_FAIL && check_output(&r);
    }
    if (ok && !buf_append(out, r.out.data ? r.out.data : "", r.out.len))
        ok = err_set(e, ERR_NOMEM, "template: no room for an output of %zu bytes", r.out.len);
    buf_free(&r.out);
    arena_close(&r.arena);
    return ok;
}

