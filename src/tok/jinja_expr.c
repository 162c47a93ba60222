/* jinja_expr.c - the parser's expressions: one function a precedence level, as the reference has them. */
#include <string.h>
#include "tok/jinja_int.h"

static struct jnode *parse_unary(struct jcomp *c, bool with_filter);

static bool deeper(struct jcomp *c)
{
    if (++c->depth > JINJA_PARSE_DEPTH)
        return jinja_comp_fail(c, jinja_cur(c)->line, "expressions and blocks are nested more than %d deep", JINJA_PARSE_DEPTH);
    return true;
}

static int max_height(const struct jnode *n, int h)
{
    return n && n->height > h ? n->height : h;
}

/* Sets the height of a node whose children are in place; NULL when the tree grows too high. */
static struct jnode *finish(struct jcomp *c, struct jnode *n)
{
    int h = max_height(n->a, max_height(n->b, max_height(n->c, 0)));
    for (size_t i = 0; i < n->list.n; i++)
        h = max_height(n->list.items[i], h);
    for (size_t i = 0; i < n->kw.n; i++)
        h = max_height(n->kw.items[i], h);
    n->height = h + 1;
    if (n->height <= JINJA_TREE_HEIGHT)
        return n;
    jinja_comp_fail(c, n->line, "the expression has more than %d levels", JINJA_TREE_HEIGHT);
    return NULL;
}

static struct jnode *binary(struct jcomp *c, enum jkind kind, int op, int line, struct jnode *a, struct jnode *b)
{
    struct jnode *n = a && b ? jinja_node(c, kind, line) : NULL;
    if (!n)
        return NULL;
    n->op = op;
    n->a = a;
    n->b = b;
    return finish(c, n);
}

static struct jnode *constant(struct jcomp *c, int line, struct jval v)
{
    struct jnode *n = jinja_node(c, JN_CONST, line);
    if (n)
        n->value = v;
    return n;
}

/* A string value in the template's arena. */
static bool const_str(struct jcomp *c, const char *s, size_t len, struct jval *out)
{
    struct jstr *str = jinja_comp_alloc(c, 1, sizeof *str);
    if (!str)
        return false;
    *str = (struct jstr){.s = s, .len = len, .n_chars = SIZE_MAX};
    jinja_str_chars(str);  /* counted now: a compiled template is read by many threads */
    *out = (struct jval){.t = JT_STR, .u.s = str};
    return true;
}

static struct jnode *named(struct jcomp *c, enum jkind kind, int line, const struct jtoken *t)
{
    struct jnode *n = jinja_node(c, kind, line);
    if (!n || !const_str(c, t->s, t->len, &n->value))
        return NULL;
    n->name = t->s;
    n->name_len = t->len;
    return n;
}

static struct jnode *parse_strings(struct jcomp *c)
{
    const struct jtoken *first = jinja_next(c);
    size_t total = first->len, n = 1;
    while (jinja_cur(c)->type == JTOK_STRING) {
        total += jinja_next(c)->len;
        n++;
    }
    const char *s = first->s;
    if (n > 1) {
        char *joined = jinja_comp_alloc(c, total + 1, 1);
        if (!joined)
            return NULL;
        size_t at = 0;
        for (size_t i = 0; i < n; at += first[i].len, i++)
            memcpy(joined + at, first[i].s, first[i].len);
        s = joined;
    }
    struct jval v;
    return const_str(c, s, total, &v) ? constant(c, first->line, v) : NULL;
}

static struct jnode *parse_list(struct jcomp *c)
{
    struct jnode *n = jinja_node(c, JN_LIST, jinja_next(c)->line);
    while (n && jinja_cur(c)->type != JTOK_RBRACKET) {
        if (n->list.n > 0 && !jinja_expect(c, JTOK_COMMA))
            return NULL;
        if (jinja_cur(c)->type == JTOK_RBRACKET)
            break;
        if (!jinja_nodes_push(c, &n->list, jinja_parse_expr(c, true)))
            return NULL;
    }
    return n && jinja_expect(c, JTOK_RBRACKET) ? finish(c, n) : NULL;
}

static struct jnode *parse_dict(struct jcomp *c)
{
    struct jnode *n = jinja_node(c, JN_DICT, jinja_next(c)->line);
    while (n && jinja_cur(c)->type != JTOK_RBRACE) {
        if (n->list.n > 0 && !jinja_expect(c, JTOK_COMMA))
            return NULL;
        if (jinja_cur(c)->type == JTOK_RBRACE)
            break;
        if (!jinja_nodes_push(c, &n->list, jinja_parse_expr(c, true)) || !jinja_expect(c, JTOK_COLON) ||
            !jinja_nodes_push(c, &n->list, jinja_parse_expr(c, true)))
            return NULL;
    }
    return n && jinja_expect(c, JTOK_RBRACE) ? finish(c, n) : NULL;
}

static struct jnode *parse_name(struct jcomp *c)
{
    const struct jtoken *t = jinja_next(c);
    if (jinja_is_name(t, "true") || jinja_is_name(t, "True"))
        return constant(c, t->line, jv_bool(true));
    if (jinja_is_name(t, "false") || jinja_is_name(t, "False"))
        return constant(c, t->line, jv_bool(false));
    if (jinja_is_name(t, "none") || jinja_is_name(t, "None"))
        return constant(c, t->line, jv_none());
    struct jnode *n = named(c, JN_NAME, t->line, t);
    if (n)
        n->op = JCTX_LOAD;
    return n;
}

static struct jnode *parse_primary(struct jcomp *c)
{
    const struct jtoken *t = jinja_cur(c);
    struct jnode *n;
    switch (t->type) {
    case JTOK_NAME:
        return parse_name(c);
    case JTOK_STRING:
        return parse_strings(c);
    case JTOK_INT:
        jinja_next(c);
        return constant(c, t->line, jv_int(t->i));
    case JTOK_FLOAT:
        jinja_next(c);
        return constant(c, t->line, jv_float(t->f));
    case JTOK_LPAREN:
        jinja_next(c);
        n = jinja_parse_tuple(c, JINJA_TUPLE_PARENS, NULL);
        return n && jinja_expect(c, JTOK_RPAREN) ? n : NULL;
    case JTOK_LBRACKET:
        return parse_list(c);
    case JTOK_LBRACE:
        return parse_dict(c);
    default:
        jinja_comp_fail(c, t->line, "an expression is expected, found %s", jinja_tok_name(t->type));
        return NULL;
    }
}

struct jnode *jinja_parse_tuple(struct jcomp *c, unsigned flags, const char *end_name)
{
    struct jnode *n = jinja_node(c, JN_TUPLE, jinja_cur(c)->line);
    bool is_tuple = false;
    if (!n || !deeper(c))
        return NULL;
    for (;;) {
        if (n->list.n > 0 && !jinja_expect(c, JTOK_COMMA))
            return NULL;
        const struct jtoken *t = jinja_cur(c);
        if (t->type == JTOK_VAR_END || t->type == JTOK_BLOCK_END || t->type == JTOK_RPAREN || (end_name && jinja_is_name(t, end_name)))
            break;
        struct jnode *item = flags & JINJA_TUPLE_SIMPLE ? parse_primary(c) : jinja_parse_expr(c, !(flags & JINJA_TUPLE_NO_COND));
        if (!jinja_nodes_push(c, &n->list, item))
            return NULL;
        if (jinja_cur(c)->type != JTOK_COMMA)
            break;
        is_tuple = true;
    }
    c->depth--;
    if (!is_tuple && n->list.n > 0)
        return n->list.items[0];
    if (!is_tuple && !(flags & JINJA_TUPLE_PARENS)) {
        jinja_comp_fail(c, jinja_cur(c)->line, "an expression is expected, found %s", jinja_tok_name(jinja_cur(c)->type));
        return NULL;
    }
    return finish(c, n);
}

/* What stands between [ and ]: an expression or a slice. */
static struct jnode *parse_subscribed(struct jcomp *c)
{
    int line = jinja_cur(c)->line;
    struct jnode *start = NULL;
    if (jinja_cur(c)->type != JTOK_COLON) {
        start = jinja_parse_expr(c, true);
        if (!start || jinja_cur(c)->type != JTOK_COLON)
            return start;
    }
    jinja_next(c);
    struct jnode *n = jinja_node(c, JN_SLICE, line);
    if (!n)
        return NULL;
    n->a = start;
    enum jtok t = jinja_cur(c)->type;
    if (t != JTOK_COLON && t != JTOK_RBRACKET && t != JTOK_COMMA && !(n->b = jinja_parse_expr(c, true)))
        return NULL;
    if (jinja_skip_tok(c, JTOK_COLON)) {
        t = jinja_cur(c)->type;
        if (t != JTOK_RBRACKET && t != JTOK_COMMA && !(n->c = jinja_parse_expr(c, true)))
            return NULL;
    }
    return finish(c, n);
}

static struct jnode *parse_subscript(struct jcomp *c, struct jnode *node)
{
    const struct jtoken *t = jinja_next(c);
    if (t->type == JTOK_DOT) {
        const struct jtoken *at = jinja_next(c);
        if (at->type == JTOK_INT)
            return binary(c, JN_ITEM, 0, t->line, node, constant(c, at->line, jv_int(at->i)));
        if (at->type != JTOK_NAME) {
            jinja_comp_fail(c, at->line, "a name or number is expected behind '.', found %s", jinja_tok_name(at->type));
            return NULL;
        }
        struct jnode *n = named(c, JN_ATTR, t->line, at);
        if (!n)
            return NULL;
        n->a = node;
        return finish(c, n);
    }
    struct jnode *tuple = jinja_node(c, JN_TUPLE, t->line);
    while (tuple && jinja_cur(c)->type != JTOK_RBRACKET) {
        if (tuple->list.n > 0 && !jinja_expect(c, JTOK_COMMA))
            return NULL;
        if (!jinja_nodes_push(c, &tuple->list, parse_subscribed(c)))
            return NULL;
    }
    if (!tuple || !jinja_expect(c, JTOK_RBRACKET))
        return NULL;
    struct jnode *arg = tuple->list.n == 1 ? tuple->list.items[0] : finish(c, tuple);
    for (size_t i = 0; tuple->list.n > 1 && i < tuple->list.n; i++)
        if (tuple->list.items[i]->kind == JN_SLICE) {
            jinja_comp_fail(c, t->line, "a slice inside a tuple of subscripts is not supported");
            return NULL;
        }
    return binary(c, JN_ITEM, 0, t->line, node, arg);
}

/* (args, name=value, *list, **dict) into n. */
static bool parse_call_args(struct jcomp *c, struct jnode *n)
{
    int line = jinja_cur(c)->line;
    bool comma = false;
    if (!jinja_expect(c, JTOK_LPAREN))
        return false;
    while (jinja_cur(c)->type != JTOK_RPAREN) {
        if (comma && !jinja_expect(c, JTOK_COMMA))
            return false;
        if (comma && jinja_cur(c)->type == JTOK_RPAREN)
            break;
        comma = true;
        const struct jtoken *t = jinja_cur(c);
        bool ok;
        if (t->type == JTOK_MUL || t->type == JTOK_POW) {
            ok = !n->c && (t->type == JTOK_POW || !n->b);
            jinja_next(c);
            struct jnode *v = jinja_parse_expr(c, true);
            if (!v)
                return false;
            *(t->type == JTOK_MUL ? &n->b : &n->c) = v;
        } else if (t->type == JTOK_NAME && jinja_look(c)->type == JTOK_ASSIGN) {
            ok = !n->c;
            jinja_next(c);
            jinja_next(c);
            struct jnode *kw = named(c, JN_KEYWORD, t->line, t);
            for (size_t i = 0; kw && i < n->kw.n; i++)
                if (n->kw.items[i]->name_len == t->len && memcmp(n->kw.items[i]->name, t->s, t->len) == 0)
                    return jinja_comp_fail(c, t->line, "the keyword argument '%.*s' is given twice", (int)t->len, t->s);
            if (!kw || !(kw->a = jinja_parse_expr(c, true)) || !finish(c, kw) || !jinja_nodes_push(c, &n->kw, kw))
                return false;
        } else {
            ok = !n->b && !n->c && n->kw.n == 0;
            if (!jinja_nodes_push(c, &n->list, jinja_parse_expr(c, true)))
                return false;
        }
        if (!ok)
            return jinja_comp_fail(c, line, "the arguments of this call are in an order that is not allowed");
    }
    return jinja_expect(c, JTOK_RPAREN);
}

static struct jnode *parse_call(struct jcomp *c, struct jnode *node)
{
    struct jnode *n = jinja_node(c, JN_CALL, jinja_cur(c)->line);
    if (!n || !parse_call_args(c, n))
        return NULL;
    n->a = node;
    return finish(c, n);
}

static struct jnode *parse_postfix(struct jcomp *c, struct jnode *node)
{
    while (node) {
        enum jtok t = jinja_cur(c)->type;
        if (t == JTOK_DOT || t == JTOK_LBRACKET)
            node = parse_subscript(c, node);
        else if (t == JTOK_LPAREN)
            node = parse_call(c, node);
        else
            break;
    }
    return node;
}

/* name(.name)* as one text. */
static bool parse_dotted(struct jcomp *c, struct jtoken *out)
{
    *out = *jinja_cur(c);
    if (!jinja_expect(c, JTOK_NAME))
        return false;
    while (jinja_skip_tok(c, JTOK_DOT)) {
        const struct jtoken *t = jinja_cur(c);
        if (!jinja_expect(c, JTOK_NAME))
            return false;
        char *s = jinja_comp_alloc(c, out->len + 1 + t->len + 1, 1);
        if (!s)
            return false;
        memcpy(s, out->s, out->len);
        s[out->len] = '.';
        memcpy(s + out->len + 1, t->s, t->len);
        out->s = s;
        out->len += 1 + t->len;
    }
    return true;
}

struct jnode *jinja_parse_filter(struct jcomp *c, struct jnode *node, bool start_inline)
{
    while (start_inline || jinja_cur(c)->type == JTOK_PIPE) {
        struct jtoken t;
        if (!start_inline)
            jinja_next(c);
        start_inline = false;
        if (!parse_dotted(c, &t))
            return NULL;
        struct jnode *n = named(c, JN_FILTER, t.line, &t);
        if (!n || (jinja_cur(c)->type == JTOK_LPAREN && !parse_call_args(c, n)))
            return NULL;
        n->a = node;
        n->spec = jinja_filter_find(t.s, t.len);
        if (!(node = finish(c, n)))
            return NULL;
    }
    return node;
}

static struct jnode *parse_test(struct jcomp *c, struct jnode *node)
{
    int line = jinja_next(c)->line;
    bool negated = jinja_skip_name(c, "not");
    struct jtoken t;
    if (!parse_dotted(c, &t))
        return NULL;
    struct jnode *n = named(c, JN_TEST, line, &t);
    if (!n)
        return NULL;
    const struct jtoken *cur = jinja_cur(c);
    if (cur->type == JTOK_LPAREN) {
        if (!parse_call_args(c, n))
            return NULL;
    } else if (cur->type == JTOK_STRING || cur->type == JTOK_INT || cur->type == JTOK_FLOAT || cur->type == JTOK_LBRACKET ||
               cur->type == JTOK_LBRACE ||
               (cur->type == JTOK_NAME && !jinja_is_name(cur, "else") && !jinja_is_name(cur, "or") && !jinja_is_name(cur, "and"))) {
        if (jinja_is_name(cur, "is")) {
            jinja_comp_fail(c, cur->line, "tests with 'is' cannot be chained");
            return NULL;
        }
        if (!jinja_nodes_push(c, &n->list, parse_postfix(c, parse_primary(c))))
            return NULL;
    }
    n->a = node;
    n->spec = jinja_test_find(t.s, t.len);
    if (!finish(c, n) || !negated)
        return n->height <= JINJA_TREE_HEIGHT ? n : NULL;
    struct jnode *not = jinja_node(c, JN_NOT, line);
    if (!not)
        return NULL;
    not->a = n;
    return finish(c, not);
}

static struct jnode *parse_filter_expr(struct jcomp *c, struct jnode *node)
{
    while (node) {
        const struct jtoken *t = jinja_cur(c);
        if (t->type == JTOK_PIPE)
            node = jinja_parse_filter(c, node, false);
        else if (jinja_is_name(t, "is"))
            node = parse_test(c, node);
        else if (t->type == JTOK_LPAREN)
            node = parse_call(c, node);
        else
            break;
    }
    return node;
}

static struct jnode *parse_unary(struct jcomp *c, bool with_filter)
{
    const struct jtoken *t = jinja_cur(c);
    struct jnode *n;
    if (!deeper(c))
        return NULL;
    if (t->type == JTOK_SUB || t->type == JTOK_ADD) {
        jinja_next(c);
        struct jnode *a = parse_unary(c, false);
        n = a ? jinja_node(c, t->type == JTOK_SUB ? JN_NEG : JN_POS, t->line) : NULL;
        if (n) {
            n->a = a;
            n = finish(c, n);
        }
    } else {
        n = parse_primary(c);
    }
    n = parse_postfix(c, n);
    if (with_filter)
        n = parse_filter_expr(c, n);
    c->depth--;
    return n;
}

static struct jnode *parse_pow(struct jcomp *c)
{
    struct jnode *n = parse_unary(c, true);
    while (n && jinja_cur(c)->type == JTOK_POW) {
        int line = jinja_next(c)->line;
        n = binary(c, JN_BIN, JOP_POW, line, n, parse_unary(c, true));
    }
    return n;
}

static struct jnode *parse_math2(struct jcomp *c)
{
    struct jnode *n = parse_pow(c);
    while (n) {
        enum jtok t = jinja_cur(c)->type;
        int op = t == JTOK_MUL ? JOP_MUL : t == JTOK_DIV ? JOP_DIV : t == JTOK_FLOORDIV ? JOP_FLOORDIV : t == JTOK_MOD ? JOP_MOD : -1;
        if (op < 0)
            break;
        int line = jinja_next(c)->line;
        n = binary(c, JN_BIN, op, line, n, parse_pow(c));
    }
    return n;
}

static struct jnode *parse_concat(struct jcomp *c)
{
    struct jnode *first = parse_math2(c);
    if (!first || jinja_cur(c)->type != JTOK_TILDE)
        return first;
    struct jnode *n = jinja_node(c, JN_CONCAT, first->line);
    if (!n || !jinja_nodes_push(c, &n->list, first))
        return NULL;
    while (jinja_skip_tok(c, JTOK_TILDE))
        if (!jinja_nodes_push(c, &n->list, parse_math2(c)))
            return NULL;
    return finish(c, n);
}

static struct jnode *parse_math1(struct jcomp *c)
{
    struct jnode *n = parse_concat(c);
    while (n && (jinja_cur(c)->type == JTOK_ADD || jinja_cur(c)->type == JTOK_SUB)) {
        const struct jtoken *t = jinja_next(c);
        n = binary(c, JN_BIN, t->type == JTOK_ADD ? JOP_ADD : JOP_SUB, t->line, n, parse_concat(c));
    }
    return n;
}

/* A comparison operator at the current token, consumed; -1 for none. */
static int compare_op(struct jcomp *c)
{
    switch (jinja_cur(c)->type) {
    case JTOK_EQ: jinja_next(c); return JOP_EQ;
    case JTOK_NE: jinja_next(c); return JOP_NE;
    case JTOK_LT: jinja_next(c); return JOP_LT;
    case JTOK_LE: jinja_next(c); return JOP_LE;
    case JTOK_GT: jinja_next(c); return JOP_GT;
    case JTOK_GE: jinja_next(c); return JOP_GE;
    default: break;
    }
    if (jinja_skip_name(c, "in"))
        return JOP_IN;
    if (jinja_is_name(jinja_cur(c), "not") && jinja_is_name(jinja_look(c), "in")) {
        jinja_next(c);
        jinja_next(c);
        return JOP_NOTIN;
    }
    return -1;
}

static struct jnode *parse_compare(struct jcomp *c)
{
    struct jnode *first = parse_math1(c), *n = NULL;
    int line = first ? jinja_cur(c)->line : 0;
    for (int op; first && (op = compare_op(c)) >= 0;) {
        if (!n && !(n = jinja_node(c, JN_COMPARE, line)))
            return NULL;
        struct jnode *right = parse_math1(c), *operand = right ? jinja_node(c, JN_OPERAND, right->line) : NULL;
        if (!operand)
            return NULL;
        operand->op = op;
        operand->a = right;
        if (!finish(c, operand) || !jinja_nodes_push(c, &n->list, operand))
            return NULL;
    }
    if (!n)
        return first;
    n->a = first;
    return finish(c, n);
}

static struct jnode *parse_not(struct jcomp *c)
{
    if (!jinja_is_name(jinja_cur(c), "not"))
        return parse_compare(c);
    int line = jinja_next(c)->line;
    if (!deeper(c))
        return NULL;
    struct jnode *a = parse_not(c), *n = a ? jinja_node(c, JN_NOT, line) : NULL;
    c->depth--;
    if (!n)
        return NULL;
    n->a = a;
    return finish(c, n);
}

static struct jnode *parse_and(struct jcomp *c)
{
    struct jnode *n = parse_not(c);
    while (n && jinja_is_name(jinja_cur(c), "and")) {
        int line = jinja_next(c)->line;
        n = binary(c, JN_AND, 0, line, n, parse_not(c));
    }
    return n;
}

static struct jnode *parse_or(struct jcomp *c)
{
    struct jnode *n = parse_and(c);
    while (n && jinja_is_name(jinja_cur(c), "or")) {
        int line = jinja_next(c)->line;
        n = binary(c, JN_OR, 0, line, n, parse_and(c));
    }
    return n;
}

static struct jnode *parse_cond(struct jcomp *c)
{
    struct jnode *n = parse_or(c);
    while (n && jinja_is_name(jinja_cur(c), "if")) {
        int line = jinja_next(c)->line;
        struct jnode *test = parse_or(c), *cond = test ? jinja_node(c, JN_COND, line) : NULL;
        if (!cond)
            return NULL;
        cond->a = test;
        cond->b = n;
        if (jinja_skip_name(c, "else")) {
            if (!deeper(c) || !(cond->c = parse_cond(c)))
                return NULL;
            c->depth--;
        }
        n = finish(c, cond);
    }
    return n;
}

struct jnode *jinja_parse_expr(struct jcomp *c, bool with_cond)
{
    if (!deeper(c))
        return NULL;
    struct jnode *n = with_cond ? parse_cond(c) : parse_or(c);
    c->depth--;
    return n;
}
