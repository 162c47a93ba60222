/* jinja_parse.c - the parser's statements, and jinja_compile. */
#include <stdio.h>
#include <string.h>
#include "base/mem.h"
#include "base/utf8.h"
#include "base/vec.h"
#include "tok/jinja_int.h"

enum { SOURCE_MAX = 8 << 20, TREE_MAX = 512 << 20 };

static bool parse_statements(struct jcomp *c, struct jnodes *body, const char *const *ends);

/* ---- what the expression parser shares ---- */

bool jinja_comp_fail(struct jcomp *c, int line, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    err_vset(c->e, ERR_INVALID, fmt, ap);
    va_end(ap);
    return err_prefix(c->e, "template line %d", line);
}

void *jinja_comp_alloc(struct jcomp *c, size_t n, size_t elem_bytes)
{
    void *p = arena_try_alloc(c->arena, n, elem_bytes);
    if (!p)
        err_set(c->e, ERR_NOMEM, "template: out of memory");
    return p;
}

struct jnode *jinja_node(struct jcomp *c, enum jkind kind, int line)
{
    struct jnode *n = jinja_comp_alloc(c, 1, sizeof *n);
    if (n) {
        n->kind = kind;
        n->line = line;
        n->height = 1;
    }
    return n;
}

/* n may be NULL: an error already told. */
bool jinja_nodes_push(struct jcomp *c, struct jnodes *v, struct jnode *n)
{
    if (!n)
        return false;
    if (v->n == v->cap) {
        size_t cap = v->cap ? v->cap * 2 : 4;
        struct jnode **items = jinja_comp_alloc(c, cap, sizeof *items);
        if (!items)
            return false;
        if (v->n)
            memcpy(items, v->items, v->n * sizeof *items);
        v->items = items;
        v->cap = cap;
    }
    v->items[v->n++] = n;
    return true;
}

const struct jtoken *jinja_cur(const struct jcomp *c)
{
    return &c->toks[c->pos];
}

const struct jtoken *jinja_look(const struct jcomp *c)
{
    return &c->toks[c->pos + 1 < c->n_toks ? c->pos + 1 : c->pos];
}

const struct jtoken *jinja_next(struct jcomp *c)
{
    const struct jtoken *t = &c->toks[c->pos];
    if (c->pos + 1 < c->n_toks)
        c->pos++;
    return t;
}

bool jinja_is_name(const struct jtoken *t, const char *name)
{
    return t->type == JTOK_NAME && t->len == strlen(name) && memcmp(t->s, name, t->len) == 0;
}

bool jinja_skip_name(struct jcomp *c, const char *name)
{
    if (!jinja_is_name(jinja_cur(c), name))
        return false;
    jinja_next(c);
    return true;
}

bool jinja_skip_tok(struct jcomp *c, enum jtok type)
{
    if (jinja_cur(c)->type != type)
        return false;
    jinja_next(c);
    return true;
}

bool jinja_expect(struct jcomp *c, enum jtok type)
{
    const struct jtoken *t = jinja_cur(c);
    if (t->type == type) {
        jinja_next(c);
        return true;
    }
    if (t->type == JTOK_NAME)
        return jinja_comp_fail(c, t->line, "%s is expected, found '%.*s'", jinja_tok_name(type), (int)(t->len < 60 ? t->len : 60), t->s);
    return jinja_comp_fail(c, t->line, "%s is expected, found %s", jinja_tok_name(type), jinja_tok_name(t->type));
}

static bool expect_name(struct jcomp *c, const char *name)
{
    const struct jtoken *t = jinja_cur(c);
    return jinja_skip_name(c, name) || jinja_comp_fail(c, t->line, "'%s' is expected, found %s", name, jinja_tok_name(t->type));
}

/* ---- targets ---- */

static bool mark_store(struct jcomp *c, struct jnode *n, enum jctx ctx)
{
    if (n->kind == JN_TUPLE) {
        for (size_t i = 0; i < n->list.n; i++)
            if (!mark_store(c, n->list.items[i], ctx))
                return false;
        return true;
    }
    if (n->kind != JN_NAME)
        return jinja_comp_fail(c, n->line, "only names and tuples of names can be assigned to");
    n->op = ctx;
    return true;
}

static struct jnode *target_name(struct jcomp *c, enum jctx ctx)
{
    const struct jtoken *t = jinja_cur(c);
    if (t->type == JTOK_NAME && (jinja_is_name(t, "true") || jinja_is_name(t, "false") || jinja_is_name(t, "none") ||
                                 jinja_is_name(t, "True") || jinja_is_name(t, "False") || jinja_is_name(t, "None"))) {
        jinja_comp_fail(c, t->line, "'%.*s' cannot be assigned to", (int)t->len, t->s);
        return NULL;
    }
    if (!jinja_expect(c, JTOK_NAME))
        return NULL;
    struct jnode *n = jinja_node(c, JN_NAME, t->line);
    if (!n)
        return NULL;
    n->name = t->s;
    n->name_len = t->len;
    n->op = ctx;
    struct jstr *s = jinja_comp_alloc(c, 1, sizeof *s);
    if (!s)
        return NULL;
    *s = (struct jstr){.s = t->s, .len = t->len, .n_chars = SIZE_MAX};
    jinja_str_chars(s);
    n->value = (struct jval){.t = JT_STR, .u.s = s};
    return n;
}

/* A name, a tuple of them, or with namespaces ns.attr. */
static struct jnode *parse_target(struct jcomp *c, bool with_ns, const char *end_name)
{
    if (with_ns && jinja_look(c)->type == JTOK_DOT) {
        struct jnode *n = target_name(c, JCTX_STORE);
        if (!n)
            return NULL;
        jinja_next(c);
        struct jnode *attr = target_name(c, JCTX_STORE);
        if (!attr)
            return NULL;
        n->kind = JN_NSREF;
        n->attr = attr->name;
        n->attr_len = attr->name_len;
        n->value = attr->value;
        return n;
    }
    struct jnode *n = jinja_parse_tuple(c, JINJA_TUPLE_SIMPLE, end_name);
    return n && mark_store(c, n, JCTX_STORE) ? n : NULL;
}

static struct jnode *clone_target(struct jcomp *c, const struct jnode *t)
{
    struct jnode *n = jinja_node(c, t->kind, t->line);
    if (!n)
        return NULL;
    *n = *t;
    n->list = (struct jnodes){0};
    for (size_t i = 0; i < t->list.n; i++)
        if (!jinja_nodes_push(c, &n->list, clone_target(c, t->list.items[i])))
            return NULL;
    return n;
}

/* ---- statements ---- */

static struct jnode *parse_set(struct jcomp *c)
{
    static const char *const ends[] = {"endset", NULL};
    int line = jinja_next(c)->line;
    struct jnode *target = parse_target(c, true, NULL), *n = target ? jinja_node(c, JN_SET, line) : NULL;
    if (!n)
        return NULL;
    n->a = target;
    if (jinja_skip_tok(c, JTOK_ASSIGN)) {
        n->b = jinja_parse_tuple(c, 0, NULL);
        return n->b ? n : NULL;
    }
    n->kind = JN_SETBLOCK;
    if (jinja_cur(c)->type == JTOK_PIPE && !(n->b = jinja_parse_filter(c, NULL, false)))
        return NULL;
    if (!parse_statements(c, &n->body, ends))
        return NULL;
    jinja_next(c);
    return n;
}

static struct jnode *parse_for(struct jcomp *c)
{
    static const char *const ends[] = {"endfor", "else", NULL}, *const else_ends[] = {"endfor", NULL};
    struct jnode *n = jinja_node(c, JN_FOR, jinja_next(c)->line);
    if (!n || !(n->a = parse_target(c, false, "in")) || !expect_name(c, "in") ||
        !(n->b = jinja_parse_tuple(c, JINJA_TUPLE_NO_COND, "recursive")))
        return NULL;
    if (jinja_skip_name(c, "if") && (!(n->c = jinja_parse_expr(c, true)) || !(n->d = clone_target(c, n->a))))
        return NULL;
    n->flag = jinja_skip_name(c, "recursive");
    c->n_loops++;
    bool ok = parse_statements(c, &n->body, ends);
    c->n_loops--;
    if (!ok)
        return NULL;
    if (jinja_is_name(jinja_next(c), "else")) {
        if (!parse_statements(c, &n->orelse, else_ends))
            return NULL;
        jinja_next(c);
    }
    return n;
}

static struct jnode *parse_if(struct jcomp *c)
{
    static const char *const ends[] = {"elif", "else", "endif", NULL}, *const else_ends[] = {"endif", NULL};
    struct jnode *result = jinja_node(c, JN_IF, jinja_next(c)->line), *n = result;
    while (n) {
        if (!(n->a = jinja_parse_tuple(c, JINJA_TUPLE_NO_COND, NULL)) || !parse_statements(c, &n->body, ends))
            return NULL;
        const struct jtoken *t = jinja_next(c);
        if (jinja_is_name(t, "elif")) {
            n = jinja_node(c, JN_IF, jinja_cur(c)->line);
            if (!jinja_nodes_push(c, &result->list, n))
                return NULL;
            continue;
        }
        if (jinja_is_name(t, "else")) {
            if (!parse_statements(c, &result->orelse, else_ends))
                return NULL;
            jinja_next(c);
        }
        break;
    }
    return n ? result : NULL;
}

static struct jnode *parse_with(struct jcomp *c)
{
    static const char *const ends[] = {"endwith", NULL};
    struct jnode *n = jinja_node(c, JN_WITH, jinja_next(c)->line);
    while (n && jinja_cur(c)->type != JTOK_BLOCK_END) {
        if (n->list.n > 0 && !jinja_expect(c, JTOK_COMMA))
            return NULL;
        struct jnode *target = parse_target(c, false, NULL);
        if (!target || !mark_store(c, target, JCTX_PARAM) || !jinja_nodes_push(c, &n->list, target) || !jinja_expect(c, JTOK_ASSIGN) ||
            !jinja_nodes_push(c, &n->kw, jinja_parse_expr(c, true)))
            return NULL;
    }
    if (!n || !parse_statements(c, &n->body, ends))
        return NULL;
    jinja_next(c);
    return n;
}

static bool parse_signature(struct jcomp *c, struct jnode *n)
{
    if (!jinja_expect(c, JTOK_LPAREN))
        return false;
    while (jinja_cur(c)->type != JTOK_RPAREN) {
        if (n->list.n > 0 && !jinja_expect(c, JTOK_COMMA))
            return false;
        struct jnode *arg = target_name(c, JCTX_PARAM);
        if (!arg)
            return false;
        for (size_t i = 0; i < n->list.n; i++)
            if (n->list.items[i]->name_len == arg->name_len && memcmp(n->list.items[i]->name, arg->name, arg->name_len) == 0)
                return jinja_comp_fail(c, arg->line, "the parameter '%.*s' is there twice", (int)arg->name_len, arg->name);
        if (jinja_skip_tok(c, JTOK_ASSIGN)) {
            if (!jinja_nodes_push(c, &n->kw, jinja_parse_expr(c, true)))
                return false;
        } else if (n->kw.n > 0) {
            return jinja_comp_fail(c, arg->line, "a parameter without default follows one with a default");
        }
        if (!jinja_nodes_push(c, &n->list, arg))
            return false;
    }
    return jinja_expect(c, JTOK_RPAREN);
}

/* The body of a macro, call or generation block: a function of its own. */
static bool parse_function_body(struct jcomp *c, struct jnode *n, const char *const *ends)
{
    int loops = c->n_loops;
    c->n_loops = 0;
    bool ok = parse_statements(c, &n->body, ends);
    c->n_loops = loops;
    if (ok)
        jinja_next(c);
    return ok;
}

static struct jnode *parse_macro(struct jcomp *c)
{
    static const char *const ends[] = {"endmacro", NULL};
    int line = jinja_next(c)->line;
    struct jnode *n = target_name(c, JCTX_STORE);
    if (!n)
        return NULL;
    n->kind = JN_MACRO;
    n->line = line;
    return parse_signature(c, n) && parse_function_body(c, n, ends) ? n : NULL;
}

static struct jnode *parse_callblock(struct jcomp *c)
{
    static const char *const ends[] = {"endcall", NULL};
    struct jnode *n = jinja_node(c, JN_CALLBLOCK, jinja_next(c)->line);
    if (!n || (jinja_cur(c)->type == JTOK_LPAREN && !parse_signature(c, n)) || !(n->a = jinja_parse_expr(c, true)))
        return NULL;
    if (n->a->kind != JN_CALL) {
        jinja_comp_fail(c, n->line, "a call is expected behind 'call'");
        return NULL;
    }
    return parse_function_body(c, n, ends) ? n : NULL;
}

/* {% generation %}: transformers marks what the assistant wrote; the text is that of the body. */
static struct jnode *parse_generation(struct jcomp *c)
{
    static const char *const ends[] = {"endgeneration", NULL};
    struct jnode *n = jinja_node(c, JN_CALLBLOCK, jinja_next(c)->line);
    return n && parse_function_body(c, n, ends) ? n : NULL;
}

static struct jnode *parse_filterblock(struct jcomp *c)
{
    static const char *const ends[] = {"endfilter", NULL};
    struct jnode *n = jinja_node(c, JN_FILTERBLOCK, jinja_next(c)->line);
    if (!n || !(n->a = jinja_parse_filter(c, NULL, true)) || !parse_statements(c, &n->body, ends))
        return NULL;
    jinja_next(c);
    return n;
}

static struct jnode *parse_print(struct jcomp *c)
{
    struct jnode *n = jinja_node(c, JN_OUTPUT, jinja_next(c)->line);
    while (n && jinja_cur(c)->type != JTOK_BLOCK_END) {
        if (n->list.n > 0 && !jinja_expect(c, JTOK_COMMA))
            return NULL;
        if (!jinja_nodes_push(c, &n->list, jinja_parse_expr(c, true)))
            return NULL;
    }
    return n;
}

/* {% block name %}: without inheritance it is a scope where it stands. */
static struct jnode *parse_block(struct jcomp *c)
{
    static const char *const ends[] = {"endblock", NULL};
    struct jnode *n = jinja_node(c, JN_SCOPE, jinja_next(c)->line);
    const struct jtoken *name = jinja_cur(c);
    if (!n || !jinja_expect(c, JTOK_NAME))
        return NULL;
    jinja_skip_name(c, "scoped");
    jinja_skip_name(c, "required");
    int loops = c->n_loops;
    c->n_loops = 0;
    bool ok = parse_statements(c, &n->body, ends);
    c->n_loops = loops;
    if (!ok)
        return NULL;
    jinja_next(c);
    if (jinja_cur(c)->type == JTOK_NAME && jinja_cur(c)->len == name->len && memcmp(jinja_cur(c)->s, name->s, name->len) == 0)
        jinja_next(c);
    return n;
}

static struct jnode *parse_autoescape(struct jcomp *c)
{
    static const char *const ends[] = {"endautoescape", NULL};
    struct jnode *n = jinja_node(c, JN_SCOPE, jinja_next(c)->line), *on = n ? jinja_parse_expr(c, true) : NULL;
    if (!on)
        return NULL;
    if (on->kind != JN_CONST || jinja_truth(on->value)) {
        jinja_comp_fail(c, n->line, "autoescape is supported only as {%% autoescape false %%}");
        return NULL;
    }
    if (!parse_statements(c, &n->body, ends))
        return NULL;
    jinja_next(c);
    return n;
}

static struct jnode *parse_loopcontrol(struct jcomp *c)
{
    const struct jtoken *t = jinja_next(c);
    if (c->n_loops == 0) {
        jinja_comp_fail(c, t->line, "'%.*s' outside of a loop", (int)t->len, t->s);
        return NULL;
    }
    return jinja_node(c, jinja_is_name(t, "break") ? JN_BREAK : JN_CONTINUE, t->line);
}

static struct jnode *parse_other(struct jcomp *c)
{
    static const char *const files[] = {"extends", "include", "import", "from", NULL};
    const struct jtoken *t = jinja_cur(c);
    for (int i = 0; files[i]; i++)
        if (jinja_is_name(t, files[i])) {
            jinja_comp_fail(c, t->line, "'%s' is not supported: a chat template is one file", files[i]);
            return NULL;
        }
    jinja_comp_fail(c, t->line, "unknown or misplaced tag '%.*s'", (int)(t->len < 60 ? t->len : 60), t->s);
    return NULL;
}

static struct jnode *parse_statement(struct jcomp *c)
{
    static const struct { const char *name; struct jnode *(*parse)(struct jcomp *); } tags[] = {
        {"set", parse_set}, {"for", parse_for}, {"if", parse_if}, {"macro", parse_macro}, {"call", parse_callblock},
        {"generation", parse_generation}, {"filter", parse_filterblock}, {"with", parse_with}, {"print", parse_print},
        {"block", parse_block}, {"autoescape", parse_autoescape}, {"break", parse_loopcontrol}, {"continue", parse_loopcontrol},
    };
    const struct jtoken *t = jinja_cur(c);
    if (t->type != JTOK_NAME) {
        jinja_comp_fail(c, t->line, "a tag's name is expected, found %s", jinja_tok_name(t->type));
        return NULL;
    }
    for (size_t i = 0; i < sizeof tags / sizeof *tags; i++)
        if (jinja_is_name(t, tags[i].name))
            return tags[i].parse(c);
    return parse_other(c);
}

static bool at_end_name(struct jcomp *c, const char *const *ends)
{
    for (; ends && *ends; ends++)
        if (jinja_is_name(jinja_cur(c), *ends))
            return true;
    return false;
}

static bool add_output(struct jcomp *c, struct jnodes *body, struct jnode **output, struct jnode *n)
{
    if (!n)
        return false;
    if (!*output) {
        *output = jinja_node(c, JN_OUTPUT, n->line);
        if (!jinja_nodes_push(c, body, *output))
            return false;
    }
    return jinja_nodes_push(c, &(*output)->list, n);
}

static struct jnode *data_node(struct jcomp *c, const struct jtoken *t)
{
    struct jnode *n = jinja_node(c, JN_CONST, t->line);
    struct jstr *s = n ? jinja_comp_alloc(c, 1, sizeof *s) : NULL;
    if (!s)
        return NULL;
    *s = (struct jstr){.s = t->s, .len = t->len, .n_chars = 0};
    s->n_chars = utf8_length(t->s, t->len);
    n->value = (struct jval){.t = JT_STR, .u.s = s};
    return n;
}

/* Up to a block that starts with one of ends (not consumed), or the end of the template. */
static bool subparse(struct jcomp *c, struct jnodes *body, const char *const *ends)
{
    struct jnode *output = NULL;
    for (;;) {
        const struct jtoken *t = jinja_cur(c);
        switch (t->type) {
        case JTOK_EOF:
            return true;
        case JTOK_DATA:
            if (!add_output(c, body, &output, data_node(c, t)))
                return false;
            jinja_next(c);
            break;
        case JTOK_VAR_BEGIN:
            jinja_next(c);
            if (!add_output(c, body, &output, jinja_parse_tuple(c, 0, NULL)) || !jinja_expect(c, JTOK_VAR_END))
                return false;
            break;
        default:
            output = NULL;
            jinja_next(c);
            if (at_end_name(c, ends))
                return true;
            if (!jinja_nodes_push(c, body, parse_statement(c)) || !jinja_expect(c, JTOK_BLOCK_END))
                return false;
        }
    }
}

static bool parse_statements(struct jcomp *c, struct jnodes *body, const char *const *ends)
{
    int line = jinja_cur(c)->line;
    jinja_skip_tok(c, JTOK_COLON);
    if (!jinja_expect(c, JTOK_BLOCK_END))
        return false;
    if (++c->depth > JINJA_PARSE_DEPTH)
        return jinja_comp_fail(c, line, "blocks are nested more than %d deep", JINJA_PARSE_DEPTH);
    if (!subparse(c, body, ends))
        return false;
    c->depth--;
    if (jinja_cur(c)->type == JTOK_EOF)
        return jinja_comp_fail(c, line, "the block that starts here has no end: '%s' is missing",
                               strcmp(ends[0], "elif") == 0 ? "endif" : ends[0]);
    return true;
}

bool jinja_parse(struct jcomp *c, struct jnodes *body)
{
    return subparse(c, body, NULL);
}

/* ---- the whole ---- */

/* \r\n and \r become \n; one newline at the end goes away. */
static bool copy_source(struct jinja *j, const char *s, size_t len, struct err *e)
{
    j->source = arena_try_alloc(j->arena, len + 1, 1);
    if (!j->source)
        return err_set(e, ERR_NOMEM, "template: out of memory for %zu bytes", len);
    size_t k = 0;
    for (size_t i = 0; i < len; i++) {
        if (s[i] == '\r') {
            j->source[k++] = '\n';
            if (i + 1 < len && s[i + 1] == '\n')
                i++;
        } else {
            j->source[k++] = s[i];
        }
    }
    if (k > 0 && j->source[k - 1] == '\n')
        k--;
    j->len = k;
    return true;
}

bool jinja_compile(struct jinja **out, const char *source, size_t len, struct err *e)
{
    *out = NULL;
    if (len > SOURCE_MAX)
        return err_set(e, ERR_TOO_LARGE, "template: %zu bytes, the limit is %d", len, SOURCE_MAX);
    if (!utf8_valid(source, len))
        return err_set(e, ERR_INVALID, "template: the text is not valid UTF-8");
    struct jinja *j = mem_try_zalloc(1, sizeof *j);
    if (!j || !(j->arena = arena_open(TREE_MAX))) {
        mem_free(j);
        return err_set(e, ERR_NOMEM, "template: out of memory");
    }
    struct jcomp c = {.arena = j->arena, .e = e};
    bool ok = copy_source(j, source, len, e);
    if (ok) {
        c.source = j->source;
        c.len = j->len;
        ok = jinja_lex(&c) && jinja_parse(&c, &j->body) && jinja_scope(&c, j);
    }
    mem_free(c.toks);
    if (ok)
        *out = j;
    else
        jinja_free(&j);
    return ok;
}

void jinja_free(struct jinja **j)
{
    if (!*j)
        return;
    arena_close(&(*j)->arena);
    mem_free(*j);
    *j = NULL;
}
