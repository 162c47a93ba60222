/* Expressions: the common tongue of regular expressions, schemas and grammars. */
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include "base/mem.h"
#include "base/vec.h"
#include "guide/guide_int.h"

void guide_limits_default(struct guide_limits *l)
{
    *l = (struct guide_limits){.max_text_bytes = 1 << 20, .max_states = 400000, .max_dfa_states = 20000, .max_bytes = (size_t)64 << 20,
                               .max_work = 40000000};
}

struct guide_builder *guide_build_open(const struct guide_limits *l)
{
    struct guide_builder *b = mem_try_zalloc(1, sizeof *b);
    if (!b)
        return NULL;
    guide_limits_default(&b->limits);
    if (l)
        b->limits = *l;
    buf_init(&b->text, 0);
    return b;
}

void guide_build_close(struct guide_builder **pb)
{
    struct guide_builder *b = *pb;
    if (!b)
        return;
    *pb = NULL;
    for (size_t i = 0; i < b->n_rules; i++)
        mem_free(b->rules[i].name);
    for (size_t i = 0; i < b->n_dfas; i++)
        dfa_free(&b->dfas[i]);
    mem_free(b->nodes);
    mem_free(b->kids);
    mem_free(b->ranges);
    mem_free(b->rules);
    mem_free(b->dfas);
    mem_free(b->moves);
    buf_free(&b->text);
    mem_free(b);
}

int32_t expr_fail(struct guide_builder *b, enum err_code code, const char *fmt, ...)
{
    if (!b->failed) {
        va_list ap;
        va_start(ap, fmt);
        err_vset(&b->err, code, fmt, ap);
        va_end(ap);
        b->failed = true;
    }
    return -1;
}

static int32_t no_memory(struct guide_builder *b) { return expr_fail(b, ERR_NOMEM, "out of memory for the guide"); }

bool expr_spend(struct guide_builder *b, int64_t work)
{
    b->work += work;
    if (b->work > b->limits.max_work)
        expr_fail(b, ERR_TOO_LARGE, "compiling takes too long: simplify the expression, schema or grammar");
    return !b->failed;
}

static int32_t add(struct guide_builder *b, struct expr x)
{
    if (b->failed)
        return -1;
    if (b->n_nodes > (size_t)b->limits.max_states)
        return expr_fail(b, ERR_TOO_LARGE, "more than %d expressions", b->limits.max_states);
    if (!vec_reserve((void **)&b->nodes, &b->cap_nodes, b->n_nodes + 1, sizeof *b->nodes))
        return no_memory(b);
    b->nodes[b->n_nodes] = x;
    return (int32_t)b->n_nodes++;
}

int32_t expr_never(struct guide_builder *b) { return add(b, (struct expr){.kind = EXPR_NEVER}); }
int32_t expr_empty(struct guide_builder *b) { return add(b, (struct expr){.kind = EXPR_EMPTY}); }

int32_t expr_text(struct guide_builder *b, const char *s, size_t n)
{
    if (b->failed)
        return -1;
    if (n == 0)
        return expr_empty(b);
    if (b->text.len + n > (size_t)b->limits.max_states)
        return expr_fail(b, ERR_TOO_LARGE, "more than %d bytes of literal text", b->limits.max_states);
    int32_t at = (int32_t)b->text.len;
    if (!buf_append(&b->text, s, n))
        return no_memory(b);
    return add(b, (struct expr){.kind = EXPR_TEXT, .a = at, .n = (int32_t)n});
}

static int by_lo(const void *pa, const void *pb)
{
    const struct expr_range *x = pa, *y = pb;
    return (x->lo > y->lo) - (x->lo < y->lo);
}

static bool push_range(struct guide_builder *b, uint32_t lo, uint32_t hi)
{
    if (lo > hi)
        return true;
    if (lo < 0xD800 && hi > 0xDFFF)
        return push_range(b, lo, 0xD7FF) && push_range(b, 0xE000, hi);
    if (lo >= 0xD800 && lo <= 0xDFFF)
        lo = 0xE000;
    if (hi >= 0xD800 && hi <= 0xDFFF)
        hi = 0xD7FF;
    if (lo > hi)
        return true;
    if (!vec_reserve((void **)&b->ranges, &b->cap_ranges, b->n_ranges + 1, sizeof *b->ranges))
        return no_memory(b), false;
    b->ranges[b->n_ranges++] = (struct expr_range){lo, hi};
    return true;
}

/* Sorted, merged copy; or its complement. */
static int32_t make_set(struct guide_builder *b, const struct expr_range *r, size_t n, bool negate)
{
    if (b->failed || !expr_spend(b, (int64_t)n))
        return -1;
    struct expr_range *s = mem_try_alloc(n, sizeof *s);
    if (!s)
        return no_memory(b);
    size_t at = b->n_ranges;
    if (n)
        memcpy(s, r, n * sizeof *s);
    qsort(s, n, sizeof *s, by_lo);
    bool ok = true;
    uint32_t next = 0; /* first code point not yet covered, for the complement */
    for (size_t i = 0; ok && i < n;) {
        uint32_t lo = s[i].lo, hi = s[i].hi;
        for (i++; i < n && s[i].lo <= hi + 1; i++)
            hi = s[i].hi > hi ? s[i].hi : hi;
        if (!negate)
            ok = push_range(b, lo, hi);
        else if (lo > next)
            ok = push_range(b, next, lo - 1);
        next = hi + 1;
    }
    if (ok && negate)
        ok = push_range(b, next, 0x10FFFF);
    mem_free(s);
    if (!ok)
        return -1;
    if (b->n_ranges == at)
        return expr_never(b);
    return add(b, (struct expr){.kind = EXPR_SET, .a = (int32_t)at, .n = (int32_t)(b->n_ranges - at)});
}

int32_t expr_set(struct guide_builder *b, const struct expr_range *r, size_t n) { return make_set(b, r, n, false); }
int32_t expr_not_set(struct guide_builder *b, const struct expr_range *r, size_t n) { return make_set(b, r, n, true); }
int32_t expr_any(struct guide_builder *b) { return expr_not_set(b, NULL, 0); }

static int32_t add_list(struct guide_builder *b, enum expr_kind kind, const int32_t *kids, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (kids[i] < 0 || b->failed)
            return -1;
    if (!vec_reserve((void **)&b->kids, &b->cap_kids, b->n_kids + n, sizeof *b->kids))
        return no_memory(b);
    int32_t at = (int32_t)b->n_kids;
    if (n)
        memcpy(b->kids + at, kids, n * sizeof *kids);
    b->n_kids += n;
    return add(b, (struct expr){.kind = kind, .a = at, .n = (int32_t)n});
}

int32_t expr_seq(struct guide_builder *b, const int32_t *kids, size_t n)
{
    return n == 0 ? expr_empty(b) : n == 1 ? kids[0] : add_list(b, EXPR_SEQ, kids, n);
}

int32_t expr_alt(struct guide_builder *b, const int32_t *kids, size_t n)
{
    return n == 0 ? expr_never(b) : n == 1 ? kids[0] : add_list(b, EXPR_ALT, kids, n);
}

int32_t expr_seq2(struct guide_builder *b, int32_t x, int32_t y) { return expr_seq(b, (int32_t[]){x, y}, 2); }
int32_t expr_alt2(struct guide_builder *b, int32_t x, int32_t y) { return expr_alt(b, (int32_t[]){x, y}, 2); }

int32_t expr_repeat(struct guide_builder *b, int32_t x, int32_t min, int32_t max)
{
    if (x < 0)
        return -1;
    if (max == 0)
        return expr_empty(b);
    if (min < 0 || (max >= 0 && max < min))
        return expr_fail(b, ERR_INVALID, "a repetition from %d to %d times is empty", min, max);
    return min == 1 && max == 1 ? x : add(b, (struct expr){.kind = EXPR_REPEAT, .a = x, .min = min, .max = max});
}

int32_t expr_string(struct guide_builder *b, int32_t x)
{
    return x < 0 ? -1 : add(b, (struct expr){.kind = EXPR_STRING, .a = x});
}

int32_t expr_call(struct guide_builder *b, int32_t rule)
{
    return rule < 0 ? -1 : add(b, (struct expr){.kind = EXPR_RULE, .a = rule});
}

int32_t expr_graph(struct guide_builder *b, const struct expr_move *moves, size_t n, int32_t n_places)
{
    if (b->failed)
        return -1;
    if (n_places > b->limits.max_states || n > (size_t)b->limits.max_states * 8)
        return expr_fail(b, ERR_TOO_LARGE, "more than %d places in one object or array", b->limits.max_states);
    if (!vec_reserve((void **)&b->moves, &b->cap_moves, b->n_moves + n, sizeof *b->moves))
        return no_memory(b);
    if (n)
        memcpy(b->moves + b->n_moves, moves, n * sizeof *moves);
    b->n_moves += n;
    return add(b, (struct expr){.kind = EXPR_GRAPH, .a = (int32_t)(b->n_moves - n), .n = (int32_t)n, .min = n_places});
}

int32_t expr_dfa(struct guide_builder *b, int32_t dfa) { return add(b, (struct expr){.kind = EXPR_DFA, .a = dfa}); }

int32_t expr_rule_new(struct guide_builder *b, const char *name)
{
    if (b->failed)
        return -1;
    char *copy = mem_try_strdup(name);
    if (!copy || !vec_reserve((void **)&b->rules, &b->cap_rules, b->n_rules + 1, sizeof *b->rules)) {
        mem_free(copy);
        return no_memory(b);
    }
    b->rules[b->n_rules] = (struct expr_rule){copy, -1};
    return (int32_t)b->n_rules++;
}

/* ---- the public face ---- */

int32_t guide_build_text(struct guide_builder *b, const char *text, ptrdiff_t len)
{
    return expr_text(b, text, len < 0 ? strlen(text) : (size_t)len);
}

static bool fits(struct guide_builder *b, size_t len)
{
    if (len > b->limits.max_text_bytes)
        expr_fail(b, ERR_TOO_LARGE, "the text has %zu bytes, more than %zu", len, b->limits.max_text_bytes);
    return !b->failed;
}

int32_t guide_build_regex(struct guide_builder *b, const char *text, size_t len)
{
    return fits(b, len) ? regex_parse(b, text, len) : -1;
}

int32_t guide_build_schema(struct guide_builder *b, const json_t *schema, const char *whitespace)
{
    return b->failed ? -1 : schema_parse(b, schema, whitespace);
}

int32_t guide_build_grammar(struct guide_builder *b, const char *text, size_t len)
{
    return fits(b, len) ? grammar_parse(b, text, len) : -1;
}

int32_t guide_build_seq(struct guide_builder *b, const int32_t *parts, size_t n) { return expr_seq(b, parts, n); }
int32_t guide_build_alt(struct guide_builder *b, const int32_t *parts, size_t n) { return expr_alt(b, parts, n); }
int32_t guide_build_repeat(struct guide_builder *b, int32_t part, int32_t min, int32_t max) { return expr_repeat(b, part, min, max); }

int32_t guide_build_until(struct guide_builder *b, const char *const *stops, size_t n)
{
    int32_t all = expr_repeat(b, expr_any(b), 0, -1), stop = expr_never(b);
    b->free_text = true;
    for (size_t i = 0; i < n; i++)
        stop = expr_alt2(b, stop, *stops[i] ? expr_text(b, stops[i], strlen(stops[i])) : expr_fail(b, ERR_INVALID, "an empty stop"));
    return n == 0 ? all : expr_combine(b, all, expr_seq(b, (int32_t[]){all, stop, all}, 3), DFA_AND_NOT);
}
