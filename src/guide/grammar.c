/* Context-free grammars: GBNF ("name ::= ...") and a subset of Lark ("name: ...").
 *
 * Both are read by one parser; newlines mean nothing, a rule ends where the next definition begins.  Lark's terminals are languages like any
 * other here: there is no lexer that takes the longest match, and what %ignore names may stand after every terminal of a rule.  Rules that begin with
 * themselves are rewritten as repetitions; longer cycles of that kind are refused when the automaton is built. */
#include <stdlib.h>
#include <string.h>
#include "base/hash.h"
#include "base/mem.h"
#include "base/utf8.h"
#include "base/vec.h"
#include "guide/guide_int.h"

enum { MAX_NESTING = 200, MAX_COUNT = 100000 };

struct gram {
    struct guide_builder *b;
    const char *s; size_t n, at;
    bool lark;
    struct hash_map *names;       /* rule -> index */
    int32_t first;                /* the first rule defined */
    int32_t ignore_rule;          /* Lark: what may stand between terminals, or -1 */
    int32_t ignored;              /* its alternatives so far, or -1 */
    bool in_terminal;             /* the rule being read is a terminal: nothing is ignored inside */
    int depth;
};

/* Common terminals of Lark's library, as regular expressions. */
static const struct { const char *name, *regex; } common[] = {
    {"DIGIT", "[0-9]"}, {"HEXDIGIT", "[0-9a-fA-F]"}, {"INT", "[0-9]+"}, {"SIGNED_INT", "[+-]?[0-9]+"},
    {"DECIMAL", "[0-9]+\\.[0-9]*|\\.[0-9]+"}, {"_EXP", "[eE][+-]?[0-9]+"},
    {"FLOAT", "[0-9]+[eE][+-]?[0-9]+|([0-9]+\\.[0-9]*|\\.[0-9]+)([eE][+-]?[0-9]+)?"},
    {"SIGNED_FLOAT", "[+-]?([0-9]+[eE][+-]?[0-9]+|([0-9]+\\.[0-9]*|\\.[0-9]+)([eE][+-]?[0-9]+)?)"},
    {"NUMBER", "([0-9]+(\\.[0-9]*)?|\\.[0-9]+)([eE][+-]?[0-9]+)?"}, {"SIGNED_NUMBER", "[+-]?([0-9]+(\\.[0-9]*)?|\\.[0-9]+)([eE][+-]?[0-9]+)?"},
    {"ESCAPED_STRING", "\"([^\"\\\\\\n]|\\\\[^\\n])*\""}, {"LCASE_LETTER", "[a-z]"}, {"UCASE_LETTER", "[A-Z]"}, {"LETTER", "[A-Za-z]"},
    {"WORD", "[A-Za-z]+"}, {"CNAME", "[A-Za-z_][A-Za-z_0-9]*"}, {"WS_INLINE", "[ \\t]+"}, {"WS", "[ \\t\\f\\r\\n]+"}, {"CR", "\\r"}, {"LF", "\\n"},
    {"NEWLINE", "(\\r?\\n)+"}, {"SH_COMMENT", "#[^\\n]*"}, {"CPP_COMMENT", "//[^\\n]*"},
};

static int32_t bad(struct gram *g, const char *what)
{
    size_t line = 1;
    for (size_t i = 0; i < g->at && i < g->n; i++)
        line += g->s[i] == '\n';
    return expr_fail(g->b, ERR_INVALID, "grammar, line %zu: %s", line, what);
}

static char peek(const struct gram *g) { return g->at < g->n ? g->s[g->at] : 0; }

static bool looking_at(const struct gram *g, const char *s)
{
    size_t n = strlen(s);
    return g->n - g->at >= n && memcmp(g->s + g->at, s, n) == 0;
}

static bool comment_at(const struct gram *g) { return g->lark ? looking_at(g, "//") || peek(g) == '#' : peek(g) == '#'; }

static void skip_space(struct gram *g)
{
    while (g->at < g->n) {
        if (comment_at(g))
            while (g->at < g->n && g->s[g->at] != '\n')
                g->at++;
        else if (strchr(" \t\r\n", g->s[g->at]) && g->s[g->at])
            g->at++;
        else
            break;
    }
}

static bool take(struct gram *g, const char *s)
{
    skip_space(g);
    if (!looking_at(g, s))
        return false;
    g->at += strlen(s);
    return true;
}

static bool name_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
}

static size_t name_length(const struct gram *g, size_t at)
{
    size_t n = 0;
    while (at + n < g->n && name_char(g->s[at + n]) && !(g->lark && g->s[at + n] == '-'))
        n++;
    return n;
}

/* Whether a definition begins here: a name, then "::=" or ":" (with Lark's marks and priority). */
static bool definition_at(struct gram *g)
{
    size_t at = g->at;
    while (g->lark && at < g->n && (g->s[at] == '?' || g->s[at] == '!'))
        at++;
    size_t n = name_length(g, at);
    if (n == 0)
        return false;
    at += n;
    if (g->lark && at < g->n && g->s[at] == '.') {
        at++;
        while (at < g->n && ((g->s[at] >= '0' && g->s[at] <= '9') || g->s[at] == '-'))
            at++;
    }
    while (at < g->n && (g->s[at] == ' ' || g->s[at] == '\t'))
        at++;
    return g->lark ? at < g->n && g->s[at] == ':' : g->n - at >= 3 && memcmp(g->s + at, "::=", 3) == 0;
}

static int32_t rule_named(struct gram *g, const char *name, size_t n)
{
    int64_t known;
    if (hash_map_get(g->names, name, n, &known))
        return (int32_t)known;
    char *copy = mem_try_strndup(name, n);
    int32_t r = copy ? expr_rule_new(g->b, copy) : -1;
    if (r < 0 || !hash_map_put(g->names, name, n, r))
        r = expr_fail(g->b, ERR_NOMEM, "out of memory for the guide");
    mem_free(copy);
    return r;
}

/* ---- literals ---- */

static int hex_value(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* One character of a literal or class; false at an error. */
static bool take_char(struct gram *g, uint32_t *c)
{
    static const char from[] = "nrtfv0", to[] = "\n\r\t\f\v\0";
    if (peek(g) != '\\') {
        int n = utf8_decode(g->s + g->at, g->n - g->at, c);
        g->at += (size_t)n;
        return n > 0 || bad(g, "not UTF-8") >= 0;
    }
    g->at++;
    char e = peek(g);
    const char *k = e ? strchr(from, e) : NULL;
    if (g->at >= g->n)
        return bad(g, "nothing follows the backslash"), false;
    int digits = e == 'x' ? 2 : e == 'u' ? 4 : e == 'U' ? 8 : 0;
    if (k) {
        *c = (unsigned char)to[k - from];
        g->at++;
    } else if (digits) {
        *c = 0;
        g->at++;
        for (int i = 0; i < digits; i++, g->at++) {
            if (hex_value(peek(g)) < 0)
                return bad(g, "not a character code"), false;
            *c = *c * 16 + (uint32_t)hex_value(peek(g));
        }
    } else {
        int n = utf8_decode(g->s + g->at, g->n - g->at, c);
        g->at += (size_t)n;
        if (!n)
            return bad(g, "not UTF-8"), false;
    }
    return (*c <= 0x10FFFF && !(*c >= 0xD800 && *c <= 0xDFFF)) || bad(g, "not a character code") >= 0;
}

static int32_t char_any_case(struct gram *g, uint32_t c)
{
    struct expr_range r[2] = {{c, c}, {c, c}};
    if ((c | 32) >= 'a' && (c | 32) <= 'z' && c < 128)
        r[1].lo = r[1].hi = c ^ 32;
    return expr_set(g->b, r, 2);
}

/* After the quote. */
static int32_t parse_literal(struct gram *g)
{
    struct buf text;
    uint32_t c, only = 0;
    size_t n = 0;
    char utf8[4];
    buf_init(&text, 0);
    while (g->at < g->n && peek(g) != '"' && take_char(g, &c)) {
        buf_append(&text, utf8, (size_t)utf8_encode(c, utf8));
        only = c;
        n++;
    }
    int32_t id = -1;
    if (g->b->failed || peek(g) != '"') {
        bad(g, "a literal has no closing quote");
    } else {
        g->at++;
        if (g->lark && n == 1 && take(g, "..\"")) { /* "a".."z" */
            id = take_char(g, &c) && peek(g) == '"' ? expr_set(g->b, &(struct expr_range){only, c}, 1) : bad(g, "not a range of characters");
            g->at++;
        } else if (g->lark && peek(g) == 'i' && name_length(g, g->at) == 1) {
            g->at++;
            id = expr_empty(g->b);
            for (size_t i = 0; i < text.len;) {
                i += (size_t)utf8_decode(text.data + i, text.len - i, &c);
                id = expr_seq2(g->b, id, char_any_case(g, c));
            }
        } else {
            id = text.failed ? expr_fail(g->b, ERR_NOMEM, "out of memory for the guide") : expr_text(g->b, text.data, text.len);
        }
    }
    buf_free(&text);
    return id;
}

/* After "[": GBNF's class of characters. */
static int32_t parse_class(struct gram *g)
{
    struct expr_range *r = NULL;
    size_t n = 0, cap = 0;
    bool negate = looking_at(g, "^"), ok = true;
    g->at += negate;
    while (ok && g->at < g->n && peek(g) != ']') {
        uint32_t lo = 0, hi;
        ok = take_char(g, &lo);
        hi = lo;
        if (ok && peek(g) == '-' && g->at + 1 < g->n && g->s[g->at + 1] != ']') {
            g->at++;
            ok = take_char(g, &hi) && (hi >= lo || bad(g, "the range is reversed") >= 0);
        }
        if (ok && !vec_reserve((void **)&r, &cap, n + 1, sizeof *r))
            ok = expr_fail(g->b, ERR_NOMEM, "out of memory for the guide") >= 0;
        if (ok)
            r[n++] = (struct expr_range){lo, hi};
    }
    if (ok && peek(g) != ']')
        ok = bad(g, "'[' without ']'") >= 0;
    g->at++;
    int32_t id = !ok ? -1 : negate ? expr_not_set(g->b, r, n) : expr_set(g->b, r, n);
    mem_free(r);
    return id;
}

/* After "/": Lark's regular expression. */
static int32_t parse_regex(struct gram *g)
{
    size_t start = g->at;
    bool in_class = false;
    struct buf text;
    for (; g->at < g->n && g->s[g->at] != '\n' && (in_class || g->s[g->at] != '/'); g->at++) {
        if (g->s[g->at] == '\\' && g->at + 1 < g->n)
            g->at++;
        else if (g->s[g->at] == '[')
            in_class = true;
        else if (g->s[g->at] == ']')
            in_class = false;
    }
    if (peek(g) != '/')
        return bad(g, "a regular expression has no closing slash");
    size_t end = g->at++;
    bool fold = false, dot = false;
    for (; peek(g) && strchr("imslux", peek(g)); g->at++) {
        fold |= peek(g) == 'i';
        dot |= peek(g) == 's';
    }
    buf_init(&text, 0);
    buf_puts(&text, fold && dot ? "(?is)" : fold ? "(?i)" : dot ? "(?s)" : "");
    buf_append(&text, g->s + start, end - start);
    int32_t id = text.failed ? expr_fail(g->b, ERR_NOMEM, "out of memory for the guide") : regex_parse(g->b, text.data, text.len);
    buf_free(&text);
    return id;
}

/* ---- structure ---- */

static int32_t parse_alt(struct gram *g);

/* A terminal inside a rule: what is ignored may follow. */
static int32_t terminal(struct gram *g, int32_t x)
{
    if (!g->lark || g->in_terminal || g->ignore_rule < 0 || x < 0)
        return x;
    return expr_seq2(g->b, x, expr_call(g->b, g->ignore_rule));
}

static bool is_terminal_name(const char *name, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (name[i] >= 'a' && name[i] <= 'z')
            return false;
    return true;
}

static int32_t parse_atom(struct gram *g)
{
    skip_space(g);
    char c = peek(g);
    if (c == '(' || (g->lark && c == '[')) {
        g->at++;
        if (++g->depth > MAX_NESTING)
            return expr_fail(g->b, ERR_TOO_LARGE, "grammar: groups nested deeper than %d", MAX_NESTING);
        int32_t id = parse_alt(g);
        g->depth--;
        if (id >= 0 && !take(g, c == '(' ? ")" : "]"))
            return bad(g, c == '(' ? "'(' without ')'" : "'[' without ']'");
        return c == '(' ? id : expr_repeat(g->b, id, 0, 1);
    }
    if (c == '"') {
        g->at++;
        return terminal(g, parse_literal(g));
    }
    if (c == '[') {
        g->at++;
        return parse_class(g);
    }
    if (g->lark && c == '/') {
        g->at++;
        return terminal(g, parse_regex(g));
    }
    if (c == '.' && !g->lark) {
        g->at++;
        return expr_any(g->b);
    }
    size_t n = name_length(g, g->at);
    if (n == 0)
        return bad(g, "expected a literal, a name or a group");
    const char *name = g->s + g->at;
    g->at += n;
    if (peek(g) == '{' && g->lark)
        return bad(g, "templates are not supported");
    int32_t id = expr_call(g->b, rule_named(g, name, n));
    return g->lark && is_terminal_name(name, n) ? terminal(g, id) : id;
}

static bool take_count(struct gram *g, int32_t *out)
{
    skip_space(g);
    size_t was = g->at;
    int64_t v = 0;
    for (; peek(g) >= '0' && peek(g) <= '9'; g->at++)
        if ((v = v * 10 + (peek(g) - '0')) > MAX_COUNT)
            return expr_fail(g->b, ERR_TOO_LARGE, "grammar: a repetition of more than %d times", MAX_COUNT), false;
    *out = (int32_t)v;
    return g->at > was;
}

static int32_t parse_item(struct gram *g)
{
    int32_t x = parse_atom(g), min, max;
    while (x >= 0) {
        if (take(g, "*")) {
            x = expr_repeat(g->b, x, 0, -1);
        } else if (take(g, "+")) {
            x = expr_repeat(g->b, x, 1, -1);
        } else if (!(g->lark && (skip_space(g), definition_at(g))) && take(g, "?")) {
            x = expr_repeat(g->b, x, 0, 1);
        } else if (!g->lark && take(g, "{")) {
            bool low = take_count(g, &min);
            max = min;
            if (take(g, ",") && !take_count(g, &max))
                max = -1;
            if (!take(g, "}") || (!low && max < 0))
                return bad(g, "not a repetition {m,n}");
            x = expr_repeat(g->b, x, min, max);
        } else if (g->lark && take(g, "~")) {
            if (!take_count(g, &min))
                return bad(g, "'~' needs a count");
            max = min;
            if (take(g, "..") && !take_count(g, &max))
                return bad(g, "'~' needs a count after '..'");
            x = expr_repeat(g->b, x, min, max);
        } else {
            break;
        }
    }
    return x;
}

static bool sequence_ends(struct gram *g)
{
    skip_space(g);
    char c = peek(g);
    return g->at >= g->n || c == '|' || c == ')' || (g->lark && (c == ']' || c == '%' || looking_at(g, "->"))) || definition_at(g);
}

static int32_t parse_seq(struct gram *g)
{
    int32_t *ids = NULL, id = -1;
    size_t n = 0, cap = 0;
    bool ok = true;
    while (ok && !sequence_ends(g)) {
        int32_t x = parse_item(g);
        ok = x >= 0 && (vec_reserve((void **)&ids, &cap, n + 1, sizeof *ids) || expr_fail(g->b, ERR_NOMEM, "out of memory for the guide") >= 0);
        if (ok)
            ids[n++] = x;
    }
    if (ok && g->lark && take(g, "->")) { /* an alias names the tree's node: no meaning here */
        skip_space(g);
        g->at += name_length(g, g->at);
    }
    if (ok)
        id = expr_seq(g->b, ids, n);
    mem_free(ids);
    return id;
}

static int32_t parse_alt(struct gram *g)
{
    int32_t *ids = NULL, id = -1;
    size_t n = 0, cap = 0;
    bool ok;
    do {
        int32_t x = parse_seq(g);
        ok = x >= 0 && (vec_reserve((void **)&ids, &cap, n + 1, sizeof *ids) || expr_fail(g->b, ERR_NOMEM, "out of memory for the guide") >= 0);
        if (ok)
            ids[n++] = x;
    } while (ok && take(g, "|"));
    if (ok)
        id = expr_alt(g->b, ids, n);
    mem_free(ids);
    return id;
}

/* rule: rule a | b  becomes  rule: b a* */
static int32_t without_left_recursion(struct gram *g, int32_t rule, int32_t body)
{
    struct guide_builder *b = g->b;
    if (body < 0)
        return -1;
    bool is_alt = b->nodes[body].kind == EXPR_ALT;
    int32_t n = is_alt ? b->nodes[body].n : 1, n_again = 0, n_first = 0;
    int32_t *again = mem_try_alloc((size_t)n, sizeof *again), *first = mem_try_alloc((size_t)n, sizeof *first), id = body;
    for (int32_t i = 0; again && first && i < n; i++) {
        int32_t kid = is_alt ? b->kids[b->nodes[body].a + i] : body;
        struct expr x = b->nodes[kid];
        if (x.kind == EXPR_RULE && x.a == rule)
            continue;
        const struct expr *head = x.kind == EXPR_SEQ ? &b->nodes[b->kids[x.a]] : NULL;
        if (head && head->kind == EXPR_RULE && head->a == rule) {
            int32_t *rest = mem_try_alloc((size_t)x.n, sizeof *rest);
            if (!rest) {
                expr_fail(b, ERR_NOMEM, "out of memory for the guide");
                break;
            }
            memcpy(rest, b->kids + x.a, (size_t)x.n * sizeof *rest);
            again[n_again++] = expr_seq(b, rest + 1, (size_t)x.n - 1);
            mem_free(rest);
        } else {
            first[n_first++] = kid;
        }
    }
    if (!again || !first)
        id = expr_fail(b, ERR_NOMEM, "out of memory for the guide");
    else if (n_again + n_first < n || n_again)
        id = expr_seq2(b, expr_alt(b, first, (size_t)n_first), expr_repeat(b, expr_alt(b, again, (size_t)n_again), 0, n_again ? -1 : 0));
    mem_free(again);
    mem_free(first);
    return id;
}

static bool parse_definition(struct gram *g)
{
    while (g->lark && (peek(g) == '?' || peek(g) == '!'))
        g->at++;
    const char *name = g->s + g->at;
    size_t n = name_length(g, g->at);
    int32_t rule = rule_named(g, name, n);
    g->at += n;
    if (g->lark && peek(g) == '.')
        while (peek(g) != ':')
            g->at++;
    if (rule < 0 || !take(g, g->lark ? ":" : "::="))
        return bad(g, "expected a definition"), false;
    if (g->b->rules[rule].body >= 0)
        return bad(g, "a rule is defined twice"), false;
    if (g->first < 0)
        g->first = rule;
    g->in_terminal = g->lark && is_terminal_name(name, n);
    int32_t body = without_left_recursion(g, rule, parse_alt(g));
    g->b->rules[rule].body = body;
    return body >= 0;
}

/* ---- Lark's directives ---- */

static bool import_one(struct gram *g, const char *name, size_t n)
{
    const char *as = name;
    size_t n_as = n;
    if (take(g, "->")) {
        skip_space(g);
        as = g->s + g->at;
        n_as = name_length(g, g->at);
        g->at += n_as;
    }
    for (size_t i = 0; i < sizeof common / sizeof common[0]; i++)
        if (strlen(common[i].name) == n && memcmp(common[i].name, name, n) == 0) {
            int32_t r = rule_named(g, as, n_as);
            if (r >= 0)
                g->b->rules[r].body = regex_parse(g->b, common[i].regex, strlen(common[i].regex));
            return r >= 0 && !g->b->failed;
        }
    return expr_fail(g->b, ERR_UNSUPPORTED, "grammar: '%.*s' is not among the common terminals", (int)(n < 64 ? n : 64), name), false;
}

static bool parse_import(struct gram *g)
{
    if (!take(g, "common"))
        return expr_fail(g->b, ERR_UNSUPPORTED, "grammar: only imports from 'common' are supported"), false;
    bool list = !take(g, ".");
    if (list && !take(g, "("))
        return bad(g, "expected a name after 'common.'"), false;
    do {
        skip_space(g);
        size_t n = name_length(g, g->at);
        const char *name = g->s + g->at;
        g->at += n;
        if (!import_one(g, name, n))
            return false;
    } while (list && take(g, ","));
    return !list || take(g, ")") || bad(g, "'(' without ')'") >= 0;
}

static bool parse_directive(struct gram *g)
{
    if (take(g, "%ignore")) {
        g->in_terminal = true;
        int32_t x = parse_alt(g);
        g->ignored = g->ignored < 0 ? x : expr_alt2(g->b, g->ignored, x);
        return x >= 0;
    }
    if (take(g, "%import"))
        return parse_import(g);
    return expr_fail(g->b, ERR_UNSUPPORTED, "grammar: only %%ignore and %%import are supported"), false;
}

/* ---- all of it ---- */

static int32_t parse(struct gram *g)
{
    int64_t root;
    int32_t id;
    const char *name = g->lark ? "start" : "root";
    if (g->lark && memmem(g->s, g->n, "%ignore", 7) && (g->ignore_rule = expr_rule_new(g->b, "%ignore")) < 0)
        return -1;
    for (skip_space(g); g->at < g->n; skip_space(g))
        if (g->lark && peek(g) == '%' ? !parse_directive(g) : !definition_at(g) ? bad(g, "expected a definition") >= 0 || true : !parse_definition(g))
            return -1;
    if (!hash_map_get(g->names, name, strlen(name), &root) || g->b->rules[root].body < 0)
        root = g->first;
    if (root < 0)
        return bad(g, "no rule is defined");
    id = expr_call(g->b, (int32_t)root);
    if (g->ignore_rule >= 0) {
        g->b->rules[g->ignore_rule].body = expr_repeat(g->b, g->ignored, 0, -1);
        id = expr_seq2(g->b, expr_call(g->b, g->ignore_rule), id);
    }
    return id;
}

/* "::=" outside of quotes and comments tells GBNF. */
static bool is_gbnf(const char *s, size_t n)
{
    bool quoted = false;
    for (size_t i = 0; i + 2 < n; i++) {
        if (s[i] == '\\')
            i++;
        else if (s[i] == '"')
            quoted = !quoted;
        else if (s[i] == '\n')
            quoted = false;
        else if (!quoted && memcmp(s + i, "::=", 3) == 0)
            return true;
    }
    return false;
}

int32_t grammar_parse(struct guide_builder *b, const char *s, size_t n)
{
    struct gram g = {.b = b, .s = s, .n = n, .lark = !is_gbnf(s, n), .first = -1, .ignore_rule = -1, .ignored = -1};
    g.names = hash_map_open(16, HASH_MAP_COPY_KEYS);
    int32_t id = g.names ? parse(&g) : expr_fail(b, ERR_NOMEM, "out of memory for the guide");
    hash_map_close(&g.names);
    return id;
}
