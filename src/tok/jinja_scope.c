/* jinja_scope.c - binds every name of a template to a variable before anything is rendered.
 *
 * Jinja scopes statically: a frame (template, loop body, macro ...) is looked through for the names it reads and
 * sets, and from that follows what each variable holds when the frame is entered: nothing, the value of
 * an outer variable, or what the caller of the template gave.  A template that sets a name in a loop or
 * only in one branch of an `if` behaves as the reference does only when this analysis is the same. */
#include <string.h>
#include "base/hash.h"
#include "base/mem.h"
#include "base/vec.h"
#include "tok/jinja_int.h"

struct entry {
    size_t name;               /* id */
    struct jvar *var;          /* NULL: no reference here */
    enum jload_kind load;
    const struct jvar *from;
    bool stored;
};

/* The names of one frame. */
struct symbols {
    struct symbols *parent;
    int level;
    struct jfn *fn;
    struct entry *items;
    size_t n, cap;
    struct hash_u64 *by_name;
    struct journal *journal;   /* changes of the branch at work, or NULL */
};

/* What a branch changed: the entry as it was before. */
struct journal {
    struct entry *before;
    size_t *at;
    size_t n, cap, cap_at;
};

struct scope {
    struct jcomp *c;
    struct hash_map *names;    /* text to id */
    struct jval *name_vals;    /* by id */
    size_t n_names, cap_names;
    struct hash_map *vars;     /* (function, level, name) to struct jvar * */
    int64_t n_fns;
};

static bool analyze(struct scope *s, struct symbols *sym, const struct jnode *n);
static bool bind_body(struct scope *s, struct symbols *sym, struct jnodes *body, bool soft);
static bool bind_expr(struct scope *s, struct symbols *sym, struct jnode *n, bool soft);

static bool no_memory(struct scope *s)
{
    return err_set(s->c->e, ERR_NOMEM, "template: out of memory");
}

/* ---- tables ---- */

static bool name_id(struct scope *s, const char *name, size_t len, size_t *id)
{
    int64_t v;
    if (hash_map_get(s->names, name, len, &v)) {
        *id = (size_t)v;
        return true;
    }
    if (!vec_reserve((void **)&s->name_vals, &s->cap_names, s->n_names + 1, sizeof *s->name_vals) ||
        !hash_map_put(s->names, name, len, (int64_t)s->n_names))
        return no_memory(s);
    struct jstr *str = jinja_comp_alloc(s->c, 1, sizeof *str);
    if (!str)
        return false;
    *str = (struct jstr){.s = name, .len = len, .n_chars = SIZE_MAX};
    jinja_str_chars(str);
    s->name_vals[s->n_names] = (struct jval){.t = JT_STR, .u.s = str};
    *id = s->n_names++;
    return true;
}

static struct jfn *new_fn(struct scope *s, const struct jfn *parent)
{
    struct jfn *fn = jinja_comp_alloc(s->c, 1, sizeof *fn);
    if (fn)
        fn->depth = parent ? parent->depth + 1 : 0;
    return fn;
}

static struct jvar *variable(struct scope *s, struct symbols *sym, size_t name)
{
    struct { const struct jfn *fn; int64_t level; uint64_t name; } key = {sym->fn, sym->level, name};
    int64_t v;
    if (hash_map_get(s->vars, (const char *)&key, sizeof key, &v))
        return (struct jvar *)(uintptr_t)v;
    struct jvar *var = jinja_comp_alloc(s->c, 1, sizeof *var);
    if (!var)
        return NULL;
    const struct jstr *text = s->name_vals[name].u.s;
    *var = (struct jvar){.name = text->s, .len = text->len, .fn = sym->fn, .level = sym->level, .slot = sym->fn->n_slots++};
    if (!hash_map_put(s->vars, (const char *)&key, sizeof key, (int64_t)(uintptr_t)var)) {
        no_memory(s);
        return NULL;
    }
    return var;
}

static struct symbols *symbols_open(struct scope *s, struct symbols *parent, struct jfn *fn)
{
    struct symbols *sym = mem_try_zalloc(1, sizeof *sym);
    if (!sym || !(sym->by_name = hash_u64_open(8))) {
        mem_free(sym);
        no_memory(s);
        return NULL;
    }
    sym->parent = parent;
    sym->level = parent ? parent->level + 1 : 0;
    sym->fn = fn;
    return sym;
}

static void symbols_close(struct symbols *sym)
{
    if (!sym)
        return;
    hash_u64_close(&sym->by_name);
    mem_free(sym->items);
    mem_free(sym);
}

static struct entry *entry_find(struct symbols *sym, size_t name)
{
    int64_t at;
    return hash_u64_get(sym->by_name, name, &at) ? &sym->items[at] : NULL;
}

/* The entry of a name, made if need be, about to be changed (so journalled). */
static struct entry *entry_change(struct scope *s, struct symbols *sym, size_t name)
{
    struct entry *en = entry_find(sym, name);
    if (!en) {
        if (!vec_reserve((void **)&sym->items, &sym->cap, sym->n + 1, sizeof *sym->items) ||
            !hash_u64_put(sym->by_name, name, (int64_t)sym->n)) {
            no_memory(s);
            return NULL;
        }
        en = &sym->items[sym->n++];
        *en = (struct entry){.name = name};
    }
    struct journal *j = sym->journal;
    if (j) {
        if (!vec_reserve((void **)&j->before, &j->cap, j->n + 1, sizeof *j->before) ||
            !vec_reserve((void **)&j->at, &j->cap_at, j->n + 1, sizeof *j->at)) {
            no_memory(s);
            return NULL;
        }
        j->before[j->n] = *en;
        j->at[j->n++] = (size_t)(en - sym->items);
    }
    return en;
}

static struct jvar *find_ref(struct symbols *sym, size_t name)
{
    for (; sym; sym = sym->parent) {
        struct entry *en = entry_find(sym, name);
        if (en && en->var)
            return en->var;
    }
    return NULL;
}

static bool define(struct scope *s, struct symbols *sym, struct entry *en, enum jload_kind load, const struct jvar *from)
{
    en->var = variable(s, sym, en->name);
    en->load = load;
    en->from = from;
    return en->var != NULL;
}

static bool sym_store(struct scope *s, struct symbols *sym, size_t name)
{
    struct entry *en = entry_change(s, sym, name);
    if (!en)
        return false;
    en->stored = true;
    if (en->var)
        return true;
    const struct jvar *outer = find_ref(sym->parent, name);
    return define(s, sym, en, outer ? JLOAD_ALIAS : JLOAD_UNDEFINED, outer);
}

static bool sym_load(struct scope *s, struct symbols *sym, size_t name)
{
    if (find_ref(sym, name))
        return true;
    struct entry *en = entry_change(s, sym, name);
    return en && define(s, sym, en, JLOAD_RESOLVE, NULL);
}

static bool sym_param(struct scope *s, struct symbols *sym, size_t name)
{
    struct entry *en = entry_change(s, sym, name);
    if (!en)
        return false;
    en->stored = true;
    return define(s, sym, en, JLOAD_PARAM, NULL);
}

static bool param_named(struct scope *s, struct symbols *sym, const char *name, const struct jvar **var)
{
    size_t id;
    if (!name_id(s, name, strlen(name), &id) || !sym_param(s, sym, id))
        return false;
    *var = find_ref(sym, id);
    return true;
}

/* ---- analysis of a frame (the reference's FrameSymbolVisitor) ---- */

static bool analyze_all(struct scope *s, struct symbols *sym, const struct jnodes *v)
{
    for (size_t i = 0; i < v->n; i++)
        if (!analyze(s, sym, v->items[i]))
            return false;
    return true;
}

static bool analyze_target(struct scope *s, struct symbols *sym, const struct jnode *n, bool as_param)
{
    if (n->kind == JN_TUPLE) {
        for (size_t i = 0; i < n->list.n; i++)
            if (!analyze_target(s, sym, n->list.items[i], as_param))
                return false;
        return true;
    }
    size_t id;
    if (!name_id(s, n->name, n->name_len, &id))
        return false;
    if (n->kind == JN_NSREF)
        return sym_load(s, sym, id);
    return as_param || n->op == JCTX_PARAM ? sym_param(s, sym, id) : sym_store(s, sym, id);
}

/* Runs a branch of an if on sym and takes its changes back; they end up in *out with the entries as the branch
 * left them. */
static bool analyze_branch(struct scope *s, struct symbols *sym, const struct jnodes *body, struct journal *out)
{
    struct journal j = {0}, *outer = sym->journal;
    sym->journal = &j;
    bool ok = analyze_all(s, sym, body);
    sym->journal = outer;
    for (size_t i = j.n; ok && i-- > 0;) {  /* backwards: the first change holds the oldest state */
        struct entry now = sym->items[j.at[i]];
        sym->items[j.at[i]] = j.before[i];
        j.before[i] = now;
    }
    *out = j;
    return ok;
}

/* Joins what the three branches of an if did.  A name that not all of them set keeps what it had outside. */
static bool merge_branches(struct scope *s, struct symbols *sym, struct journal *j)
{
    size_t n = 0;
    for (int b = 0; b < 3; b++)
        n += j[b].n;
    struct { size_t name; int count; bool counted; } *stores = mem_try_zalloc(n, sizeof *stores);
    struct hash_u64 *seen = hash_u64_open(n);
    size_t n_stores = 0;
    bool ok = stores && seen;
    for (int b = 0; ok && b < 3; b++) {
        for (size_t i = 0; i < n_stores; i++)
            stores[i].counted = false;
        for (size_t i = 0; ok && i < j[b].n; i++) {
            const struct entry *en = &j[b].before[i], *orig = entry_find(sym, en->name);
            int64_t at;
            if (!en->stored || (orig && orig->stored))
                continue;
            if (!hash_u64_get(seen, en->name, &at)) {
                at = (int64_t)n_stores++;
                stores[at].name = en->name;
                ok = hash_u64_put(seen, en->name, at);
            }
            stores[at].count += !stores[at].counted;
            stores[at].counted = true;
        }
    }
    for (int b = 0; ok && b < 3; b++)
        for (size_t i = 0; ok && i < j[b].n; i++) {
            struct entry *en = entry_change(s, sym, j[b].before[i].name);
            const struct entry *from = &j[b].before[i];
            if (!en)
                ok = false;
            else if (from->var) {
                en->var = from->var;
                en->load = from->load;
                en->from = from->from;
                en->stored |= from->stored;
            }
        }
    for (size_t i = 0; ok && i < n_stores; i++) {
        if (stores[i].count == 3)
            continue;
        struct entry *en = entry_change(s, sym, stores[i].name);
        if (!en) {
            ok = false;
            break;
        }
        const struct jvar *outer = find_ref(sym->parent, stores[i].name);
        en->load = outer ? JLOAD_ALIAS : JLOAD_RESOLVE;
        en->from = outer;
    }
    mem_free(stores);
    hash_u64_close(&seen);
    return ok || no_memory(s);
}

static bool analyze_if(struct scope *s, struct symbols *sym, const struct jnode *n)
{
    struct journal j[3] = {{0}, {0}, {0}};
    const struct jnodes *branches[3] = {&n->body, &n->list, &n->orelse};
    bool ok = analyze(s, sym, n->a);
    for (int b = 0; ok && b < 3; b++)
        ok = analyze_branch(s, sym, branches[b], &j[b]);
    ok = ok && merge_branches(s, sym, j);
    for (int b = 0; b < 3; b++) {
        mem_free(j[b].before);
        mem_free(j[b].at);
    }
    return ok;
}

static bool analyze(struct scope *s, struct symbols *sym, const struct jnode *n)
{
    size_t id;
    if (!n)
        return true;
    switch (n->kind) {
    case JN_NAME:
        return name_id(s, n->name, n->name_len, &id) && sym_load(s, sym, id);
    case JN_IF:
        return analyze_if(s, sym, n);
    case JN_MACRO:
        return name_id(s, n->name, n->name_len, &id) && sym_store(s, sym, id);
    case JN_SET:
        return analyze(s, sym, n->b) && analyze_target(s, sym, n->a, false);
    case JN_SETBLOCK:
        return analyze_target(s, sym, n->a, false);
    case JN_FOR:
        return analyze(s, sym, n->b);
    case JN_CALLBLOCK:
    case JN_FILTERBLOCK:
        return analyze(s, sym, n->a);
    case JN_WITH:
        return analyze_all(s, sym, &n->kw);
    case JN_SCOPE:
    case JN_BREAK:
    case JN_CONTINUE:
        return true;
    default:
        return analyze(s, sym, n->a) && analyze(s, sym, n->b) && analyze(s, sym, n->c) && analyze_all(s, sym, &n->list) &&
               analyze_all(s, sym, &n->kw);
    }
}

/* ---- which special names a body reads before it sets them ---- */

struct undeclared { const char *names[3]; bool found[3], set[3]; };

static void undeclared_visit(const struct jnode *n, struct undeclared *u)
{
    if (!n)
        return;
    if (n->kind == JN_NAME) {
        for (int i = 0; i < 3 && u->names[i]; i++) {
            if (strlen(u->names[i]) != n->name_len || memcmp(u->names[i], n->name, n->name_len) != 0)
                continue;
            if (n->op != JCTX_LOAD)
                u->set[i] = true;
            else if (!u->set[i])
                u->found[i] = true;
        }
        return;
    }
    const struct jnodes *lists[4] = {&n->list, &n->kw, &n->body, &n->orelse};
    if (n->kind != JN_SETBLOCK && n->kind != JN_SET) {
        undeclared_visit(n->a, u);
        undeclared_visit(n->b, u);
        undeclared_visit(n->c, u);
    }
    for (int k = 0; k < 4; k++)
        for (size_t i = 0; i < lists[k]->n; i++)
            undeclared_visit(lists[k]->items[i], u);
    if (n->kind == JN_SET || n->kind == JN_SETBLOCK) {
        undeclared_visit(n->b, u);
        undeclared_visit(n->a, u);
    }
}

static bool reads_loop(const struct jnodes *body)
{
    struct undeclared u = {.names = {"loop"}};
    for (size_t i = 0; i < body->n; i++)
        undeclared_visit(body->items[i], &u);
    return u.found[0];
}

/* Does anything in here assign to `loop`? */
static const struct jnode *stores_loop(const struct jnode *n)
{
    if (!n)
        return NULL;
    if (n->kind == JN_NAME)
        return n->op == JCTX_STORE && n->name_len == 4 && memcmp(n->name, "loop", 4) == 0 ? n : NULL;
    const struct jnode *found = NULL, *kids[4] = {n->a, n->b, n->c, NULL};
    const struct jnodes *lists[4] = {&n->list, &n->kw, &n->body, &n->orelse};
    for (int k = 0; !found && k < 3; k++)
        found = stores_loop(kids[k]);
    for (int k = 0; !found && k < 4; k++)
        for (size_t i = 0; !found && i < lists[k]->n; i++)
            found = stores_loop(lists[k]->items[i]);
    return found;
}

/* ---- binding ---- */

static struct jframe *make_frame(struct scope *s, const struct symbols *sym)
{
    struct jframe *f = jinja_comp_alloc(s->c, 1, sizeof *f);
    if (!f || !(f->loads = jinja_comp_alloc(s->c, sym->n, sizeof *f->loads)))
        return NULL;
    f->fn = sym->fn;
    for (size_t i = 0; i < sym->n; i++)
        if (sym->items[i].var)
            f->loads[f->n++] = (struct jload){.var = sym->items[i].var, .kind = sym->items[i].load, .from = sym->items[i].from,
                                              .name = s->name_vals[sym->items[i].name]};
    return f;
}

static bool bind_name(struct scope *s, struct symbols *sym, struct jnode *n)
{
    size_t id;
    if (!name_id(s, n->name, n->name_len, &id))
        return false;
    n->var = find_ref(sym, id);
    if (n->var)
        return true;
    /* Names the analysis did not meet (a set block's filter arguments): look them up on entry. */
    if (!sym_load(s, sym, id))
        return false;
    n->var = find_ref(sym, id);
    return n->var != NULL;
}

static bool bind_target(struct scope *s, struct symbols *sym, struct jnode *n)
{
    if (n->kind != JN_TUPLE)
        return bind_name(s, sym, n);
    for (size_t i = 0; i < n->list.n; i++)
        if (!bind_target(s, sym, n->list.items[i]))
            return false;
    return true;
}

static bool bind_all(struct scope *s, struct symbols *sym, struct jnodes *v, bool soft)
{
    for (size_t i = 0; i < v->n; i++)
        if (!bind_expr(s, sym, v->items[i], soft))
            return false;
    return true;
}

static bool bind_expr(struct scope *s, struct symbols *sym, struct jnode *n, bool soft)
{
    if (!n || n->kind == JN_CONST)
        return true;
    if (n->kind == JN_NAME)
        return bind_name(s, sym, n);
    if (n->kind == JN_COND)
        soft = true;
    /* As in the reference, an unknown filter inside an if is an error only when it is reached. */
    if ((n->kind == JN_FILTER || n->kind == JN_TEST) && !n->spec && !soft)
        return jinja_comp_fail(s->c, n->line, "no %s named '%.*s'", n->kind == JN_FILTER ? "filter" : "test",
                               (int)(n->name_len < 60 ? n->name_len : 60), n->name);
    return bind_expr(s, sym, n->a, soft) && bind_expr(s, sym, n->b, soft) && bind_expr(s, sym, n->c, soft) &&
           bind_all(s, sym, &n->list, soft) && bind_all(s, sym, &n->kw, soft);
}

/* A frame inside sym whose names come from analyze_all(body): opens it, leaves the rest to the caller. */
static bool bind_inner(struct scope *s, struct symbols *inner, struct jnode *n, struct jframe **frame)
{
    return bind_body(s, inner, &n->body, false) && (*frame = make_frame(s, inner)) != NULL;
}

static bool bind_macro_params(struct scope *s, struct symbols *sym, struct jnode *n)
{
    struct undeclared u = {.names = {"caller", "kwargs", "varargs"}};
    bool given[3] = {false, false, false};
    size_t caller_at = 0;
    for (size_t i = 0; i < n->list.n; i++) {
        if (!analyze_target(s, sym, n->list.items[i], true))
            return false;
        for (int k = 0; k < 3; k++)
            if (n->list.items[i]->name_len == strlen(u.names[k]) && memcmp(n->list.items[i]->name, u.names[k], n->list.items[i]->name_len) == 0) {
                given[k] = true;
                caller_at = k == 0 ? i : caller_at;
            }
    }
    for (size_t i = 0; i < n->body.n; i++)
        undeclared_visit(n->body.items[i], &u);
    if (!analyze_all(s, sym, &n->kw) || !analyze_all(s, sym, &n->body))
        return false;
    if (u.found[0]) {
        n->flag = true;
        if (given[0] && caller_at + n->kw.n < n->list.n)
            return jinja_comp_fail(s->c, n->line, "a macro's parameter 'caller' must have a default");
        if (!given[0] && !param_named(s, sym, "caller", &n->caller_var))
            return false;
    }
    return (!u.found[1] || given[1] || param_named(s, sym, "kwargs", &n->kwargs_var)) &&
           (!u.found[2] || given[2] || param_named(s, sym, "varargs", &n->varargs_var));
}

/* The function a macro or call block is. */
static bool bind_function(struct scope *s, struct symbols *sym, struct jnode *n)
{
    struct jfn *fn = new_fn(s, sym->fn);
    struct symbols *inner = fn ? symbols_open(s, sym, fn) : NULL;
    bool ok = inner && bind_macro_params(s, inner, n) && bind_all(s, inner, &n->kw, false);
    for (size_t i = 0; ok && i < n->list.n; i++)
        ok = bind_name(s, inner, n->list.items[i]);
    ok = ok && bind_inner(s, inner, n, &n->frame);
    symbols_close(inner);
    return ok;
}

static bool bind_loop_test(struct scope *s, struct symbols *sym, struct jnode *n)
{
    struct jfn *fn = new_fn(s, sym->fn);
    struct symbols *test = fn ? symbols_open(s, sym, fn) : NULL;
    bool ok = test && analyze_target(s, test, n->d, true) && analyze(s, test, n->c) && bind_target(s, test, n->d) &&
              bind_expr(s, test, n->c, false) && (n->test_frame = make_frame(s, test)) != NULL;
    symbols_close(test);
    return ok;
}

static bool bind_for(struct scope *s, struct symbols *sym, struct jnode *n, bool soft)
{
    const struct jnode *bad = stores_loop(n);
    if (bad)
        return jinja_comp_fail(s->c, bad->line, "the special variable 'loop' cannot be assigned to");
    struct jfn *fn = n->flag ? new_fn(s, sym->fn) : sym->fn;
    struct symbols *body = fn ? symbols_open(s, sym, fn) : NULL, *other = NULL;
    n->wants_loop = n->flag || reads_loop(&n->body);
    bool ok = body && bind_expr(s, sym, n->b, soft) && (!n->wants_loop || param_named(s, body, "loop", &n->loop_var)) &&
              analyze_target(s, body, n->a, true) && analyze_all(s, body, &n->body) && bind_target(s, body, n->a) &&
              bind_inner(s, body, n, &n->frame) && (!n->c || bind_loop_test(s, sym, n));
    if (ok && n->orelse.n > 0) {
        other = symbols_open(s, sym, fn);
        ok = other && analyze_all(s, other, &n->orelse) && bind_body(s, other, &n->orelse, false) &&
             (n->else_frame = make_frame(s, other)) != NULL;
    }
    symbols_close(body);
    symbols_close(other);
    return ok;
}

static bool bind_scope(struct scope *s, struct symbols *sym, struct jnode *n, bool soft)
{
    struct symbols *inner = symbols_open(s, sym, sym->fn);
    bool ok = inner != NULL;
    if (ok && n->kind == JN_WITH) {
        ok = bind_all(s, sym, &n->kw, soft);
        for (size_t i = 0; ok && i < n->list.n; i++)
            ok = analyze_target(s, inner, n->list.items[i], true);
        for (size_t i = 0; ok && i < n->list.n; i++)
            ok = bind_target(s, inner, n->list.items[i]);
    }
    if (ok && n->kind == JN_FILTERBLOCK)
        ok = analyze(s, inner, n->a);
    ok = ok && analyze_all(s, inner, &n->body);
    if (ok && n->kind == JN_FILTERBLOCK)
        ok = bind_expr(s, inner, n->a, false);
    if (ok && n->kind == JN_SETBLOCK)
        ok = bind_target(s, sym, n->a) && bind_expr(s, inner, n->b, false);
    ok = ok && bind_inner(s, inner, n, &n->frame);
    symbols_close(inner);
    return ok;
}

static bool bind_stmt(struct scope *s, struct symbols *sym, struct jnode *n, bool soft)
{
    switch (n->kind) {
    case JN_OUTPUT:
        return bind_all(s, sym, &n->list, soft);
    case JN_FOR:
        return bind_for(s, sym, n, soft);
    case JN_IF:
        if (!bind_expr(s, sym, n->a, true) || !bind_body(s, sym, &n->body, true) || !bind_body(s, sym, &n->orelse, true))
            return false;
        for (size_t i = 0; i < n->list.n; i++)
            if (!bind_stmt(s, sym, n->list.items[i], true))
                return false;
        return true;
    case JN_SET:
        return bind_expr(s, sym, n->b, soft) && bind_target(s, sym, n->a);
    case JN_MACRO:
        return bind_name(s, sym, n) && bind_function(s, sym, n);
    case JN_CALLBLOCK:
        return bind_expr(s, sym, n->a, soft) && bind_function(s, sym, n);
    case JN_SETBLOCK:
    case JN_FILTERBLOCK:
    case JN_WITH:
    case JN_SCOPE:
        return bind_scope(s, sym, n, soft);
    default:
        return true;
    }
}

static bool bind_body(struct scope *s, struct symbols *sym, struct jnodes *body, bool soft)
{
    for (size_t i = 0; i < body->n; i++)
        if (!bind_stmt(s, sym, body->items[i], soft))
            return false;
    return true;
}

bool jinja_scope(struct jcomp *c, struct jinja *j)
{
    struct scope s = {.c = c, .names = hash_map_open(64, HASH_MAP_BORROW_KEYS), .vars = hash_map_open(64, HASH_MAP_COPY_KEYS)};
    struct jfn *fn = new_fn(&s, NULL);
    struct symbols *root = NULL;
    bool ok = s.names && s.vars ? fn != NULL : no_memory(&s);
    if (ok)
        ok = (root = symbols_open(&s, NULL, fn)) != NULL && analyze_all(&s, root, &j->body) && bind_body(&s, root, &j->body, false) &&
             (j->frame = make_frame(&s, root)) != NULL;
    symbols_close(root);
    hash_map_close(&s.names);
    hash_map_close(&s.vars);
    mem_free(s.name_vals);
    return ok;
}
