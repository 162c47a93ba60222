/* From expressions to one byte NFA per rule: Thompson's construction, then trimmed and classified. */
#include <string.h>
#include "base/mem.h"
#include "base/utf8.h"
#include "base/vec.h"
#include "guide/guide_int.h"

enum { COUNT_FROM = 17, MAX_DEPTH = 2000 };   /* shorter repetitions of characters are written out */

struct raw_edge { int32_t from, lo, hi, to; };
struct raw_eps { int32_t from, to; };
struct raw_call { int32_t from, rule, to; };
struct tail { int32_t lo, hi, next, state; };

struct build {
    struct guide_builder *b;
    bool with_rules;
    int32_t n_states;
    struct raw_edge *edges; size_t n_edges, cap_edges;
    struct raw_eps *eps; size_t n_eps, cap_eps;
    struct raw_call *calls; size_t n_calls, cap_calls;
    struct nfa_loop *loops; size_t n_loops, cap_loops;
    int32_t *loop_next; size_t cap_next;      /* [n_states] as they are made */
    int32_t *rule_of; size_t cap_rule_of;
    int32_t rule;                             /* whose states are made now */
    struct tail tails[64]; int n_tails;       /* shared ends of UTF-8 sequences within one set */
};

static int32_t new_state(struct build *nb)
{
    struct guide_builder *b = nb->b;
    if (b->failed)
        return -1;
    if (nb->n_states >= b->limits.max_states)
        return expr_fail(b, ERR_TOO_LARGE, "more than %d automaton states: shorten repetitions or split the expression", b->limits.max_states);
    if (!vec_reserve((void **)&nb->loop_next, &nb->cap_next, (size_t)nb->n_states + 1, sizeof *nb->loop_next) ||
        !vec_reserve((void **)&nb->rule_of, &nb->cap_rule_of, (size_t)nb->n_states + 1, sizeof *nb->rule_of))
        return expr_fail(b, ERR_NOMEM, "out of memory for the guide");
    nb->loop_next[nb->n_states] = -1;
    nb->rule_of[nb->n_states] = nb->rule;
    return nb->n_states++;
}

static void add_edge(struct build *nb, int32_t from, int32_t lo, int32_t hi, int32_t to)
{
    if (from < 0 || to < 0 || nb->b->failed)
        return;
    if (nb->n_edges > (size_t)nb->b->limits.max_states * 8)
        expr_fail(nb->b, ERR_TOO_LARGE, "more than %d automaton edges", nb->b->limits.max_states * 8);
    else if (!vec_reserve((void **)&nb->edges, &nb->cap_edges, nb->n_edges + 1, sizeof *nb->edges))
        expr_fail(nb->b, ERR_NOMEM, "out of memory for the guide");
    else
        nb->edges[nb->n_edges++] = (struct raw_edge){from, lo, hi, to};
}

static void add_eps(struct build *nb, int32_t from, int32_t to)
{
    if (from < 0 || to < 0 || nb->b->failed)
        return;
    if (!vec_reserve((void **)&nb->eps, &nb->cap_eps, nb->n_eps + 1, sizeof *nb->eps))
        expr_fail(nb->b, ERR_NOMEM, "out of memory for the guide");
    else
        nb->eps[nb->n_eps++] = (struct raw_eps){from, to};
}

/* ---- bytes and characters ---- */

/* How JSON spells a byte below 0x20, a quote or a backslash.  0: not at all. */
static size_t json_spelling(int c, char out[8])
{
    static const char hex[] = "0123456789abcdef";
    const char *at = strchr("\"\"\\\\\bb\ff\nn\rr\tt", c);
    if (c == 0)
        return 0;
    out[0] = '\\';
    if (at) {
        out[1] = c == '"' ? '"' : c == '\\' ? '\\' : at[1];
        return 2;
    }
    memcpy(out + 1, "u00", 3);
    out[4] = hex[c >> 4];
    out[5] = hex[c & 15];
    return 6;
}

static void add_chain(struct build *nb, int32_t from, const char *s, size_t n, int32_t to)
{
    for (size_t i = 0; i < n; i++) {
        int32_t next = i + 1 == n ? to : new_state(nb);
        add_edge(nb, from, (unsigned char)s[i], (unsigned char)s[i], next);
        from = next;
    }
}

/* The byte range, spelled as JSON spells it inside a string when json. */
static void add_bytes(struct build *nb, int32_t from, int32_t lo, int32_t hi, int32_t to, bool json)
{
    int32_t start = lo;
    if (!json) {
        add_edge(nb, from, lo, hi, to);
        return;
    }
    for (int32_t c = lo; c <= hi + 1; c++) {
        bool special = c <= hi && (c < 0x20 || c == '"' || c == '\\');
        if (!special && c <= hi)
            continue;
        if (start < c)
            add_edge(nb, from, start, c - 1, to);
        start = c + 1;
        char text[8];
        if (special)
            add_chain(nb, from, text, json_spelling(c, text), to);
    }
}

static int32_t tail_state(struct build *nb, int32_t lo, int32_t hi, int32_t next)
{
    for (int i = 0; i < nb->n_tails; i++)
        if (nb->tails[i].lo == lo && nb->tails[i].hi == hi && nb->tails[i].next == next)
            return nb->tails[i].state;
    int32_t s = new_state(nb);
    add_edge(nb, s, lo, hi, next);
    if (nb->n_tails < 64)
        nb->tails[nb->n_tails++] = (struct tail){lo, hi, next, s};
    return s;
}

/* Code points lo..hi as byte sequences. */
static void add_code_points(struct build *nb, int32_t from, uint32_t lo, uint32_t hi, int32_t to, bool json)
{
    static const uint32_t last_of_length[] = {0x7F, 0x7FF, 0xFFFF};
    for (int i = 0; i < 3; i++)
        if (lo <= last_of_length[i] && hi > last_of_length[i]) {
            add_code_points(nb, from, lo, last_of_length[i], to, json);
            add_code_points(nb, from, last_of_length[i] + 1, hi, to, json);
            return;
        }
    if (hi <= 0x7F) {
        add_bytes(nb, from, (int32_t)lo, (int32_t)hi, to, json);
        return;
    }
    for (int i = 1; i < 4; i++) {
        uint32_t m = ((uint32_t)1 << (6 * i)) - 1;
        if ((lo & ~m) == (hi & ~m))
            continue;
        if (lo & m) {
            add_code_points(nb, from, lo, lo | m, to, json);
            add_code_points(nb, from, (lo | m) + 1, hi, to, json);
            return;
        }
        if ((hi & m) != m) {
            add_code_points(nb, from, lo, (hi & ~m) - 1, to, json);
            add_code_points(nb, from, hi & ~m, hi, to, json);
            return;
        }
    }
    char x[4], y[4];
    int n = utf8_encode(lo, x);
    utf8_encode(hi, y);
    for (int i = n - 1; i > 0; i--)
        to = tail_state(nb, (unsigned char)x[i], (unsigned char)y[i], to);
    add_edge(nb, from, (unsigned char)x[0], (unsigned char)y[0], to);
}

static void add_set(struct build *nb, const struct expr *x, int32_t from, int32_t to, bool json)
{
    nb->n_tails = 0;
    for (int32_t i = 0; i < x->n && !nb->b->failed; i++)
        add_code_points(nb, from, nb->b->ranges[x->a + i].lo, nb->b->ranges[x->a + i].hi, to, json);
}

/* ---- what may follow: decides whether a loop may be counted ---- */

struct bytes { uint64_t w[4]; };
static void bytes_add(struct bytes *s, int c) { s->w[c >> 6] |= (uint64_t)1 << (c & 63); }
static bool bytes_meet(const struct bytes *x, const struct bytes *y)
{
    return (x->w[0] & y->w[0]) | (x->w[1] & y->w[1]) | (x->w[2] & y->w[2]) | (x->w[3] & y->w[3]);
}

/* A chain of what comes after the expression being built, innermost first. */
struct follow {
    const int32_t *kids; int32_t n;
    bool optional;               /* a loop's own body may come again, or not */
    bool json;
    const struct follow *outer;
};

static void first_range(struct bytes *out, int32_t lo, int32_t hi, bool json)
{
    for (int32_t c = lo; c <= hi; c++)
        bytes_add(out, json && (c < 0x20 || c == '"' || c == '\\') ? '\\' : c);
}

/* Adds the bytes x may begin with; whether x may be empty. */
static bool first_of(const struct guide_builder *b, int32_t id, bool json, struct bytes *out, int depth)
{
    const struct expr *x = &b->nodes[id];
    bool empty;
    char c[4];
    if (depth > MAX_DEPTH)
        goto all;
    switch (x->kind) {
    case EXPR_NEVER:
        return false;
    case EXPR_EMPTY:
        return true;
    case EXPR_TEXT:
        first_range(out, (unsigned char)b->text.data[x->a], (unsigned char)b->text.data[x->a], json);
        return false;
    case EXPR_SET:
        for (int32_t i = 0; i < x->n; i++) {
            const struct expr_range *r = &b->ranges[x->a + i];
            int32_t lo = r->lo < 0x80 ? (int32_t)r->lo : (utf8_encode(r->lo, c), (unsigned char)c[0]);
            int32_t hi = r->hi < 0x80 ? (int32_t)r->hi : (utf8_encode(r->hi, c), (unsigned char)c[0]);
            first_range(out, lo, hi, json);
        }
        return false;
    case EXPR_SEQ:
        for (int32_t i = 0; i < x->n; i++)
            if (!first_of(b, b->kids[x->a + i], json, out, depth + 1))
                return false;
        return true;
    case EXPR_ALT:
        empty = false;
        for (int32_t i = 0; i < x->n; i++)
            empty |= first_of(b, b->kids[x->a + i], json, out, depth + 1);
        return empty;
    case EXPR_REPEAT:
        return first_of(b, x->a, json, out, depth + 1) || x->min == 0;
    case EXPR_STRING:
        return first_of(b, x->a, true, out, depth + 1);
    case EXPR_RULE:
    case EXPR_GRAPH:
    case EXPR_DFA:
        break;
    }
all:
    memset(out, 0xff, sizeof *out);
    return true;
}

static void follow_bytes(const struct guide_builder *b, const struct follow *f, struct bytes *out)
{
    for (; f; f = f->outer) {
        bool open = true;
        for (int32_t i = 0; open && i < f->n; i++)
            open = first_of(b, f->kids[i], f->json, out, 0);
        if (!open && !f->optional)
            return;
    }
    memset(out, 0xff, sizeof *out);
}

/* Follows that end the chain: nothing at all (the whole output ends), or a JSON string's quote. */
static const struct follow follow_quote_mark = {0}, follow_end_mark = {0};

static bool may_count(const struct build *nb, const struct expr *x, bool json, const struct follow *f)
{
    struct bytes body = {{0}}, after = {{0}};
    int32_t most = x->max < 0 ? x->min : x->max;
    if (nb->b->nodes[x->a].kind != EXPR_SET || most < COUNT_FROM)
        return false;
    first_of(nb->b, x->a, json, &body, 0);
    const struct follow *last = f;
    while (last && last->outer)
        last = last->outer;
    if (last == &follow_quote_mark || last == &follow_end_mark) {
        /* The marks stop the walk: what they stand for cannot be one of the body's first bytes. */
        for (const struct follow *at = f; at != last; at = at->outer) {
            bool open = true;
            for (int32_t i = 0; open && i < at->n; i++)
                open = first_of(nb->b, at->kids[i], at->json, &after, 0);
            if (!open && !at->optional)
                break;
        }
    } else {
        follow_bytes(nb->b, f, &after);
    }
    return !bytes_meet(&body, &after);
}

/* ---- building ---- */

static int32_t build(struct build *nb, int32_t id, int32_t s, bool json, const struct follow *f, int depth);

/* head --body--> next, which counts one more and is head again; head leaves to exit when min are done. */
static int32_t build_counted(struct build *nb, const struct expr *x, int32_t s, bool json)
{
    int32_t head = new_state(nb), body = new_state(nb), next = new_state(nb), exit = new_state(nb);
    if (nb->b->failed || !vec_reserve((void **)&nb->loops, &nb->cap_loops, nb->n_loops + 1, sizeof *nb->loops))
        return nb->b->failed ? -1 : expr_fail(nb->b, ERR_NOMEM, "out of memory for the guide");
    nb->loops[nb->n_loops] = (struct nfa_loop){head, body, exit, 0, x->min, x->max};
    nb->loop_next[next] = (int32_t)nb->n_loops++;
    add_eps(nb, s, head);
    add_eps(nb, head, body);      /* these three are the loop's own: the machine counts on them */
    add_eps(nb, head, exit);
    add_eps(nb, next, head);
    add_set(nb, &nb->b->nodes[x->a], body, next, json);
    nb->loops[nb->n_loops - 1].end = nb->n_states;
    return exit;
}

static int32_t build_repeat(struct build *nb, const struct expr *x, int32_t s, bool json, const struct follow *f, int depth)
{
    if (may_count(nb, x, json, f))
        return build_counted(nb, x, s, json);
    struct follow again = {&x->a, 1, true, json, f};
    for (int32_t i = 0; i < x->min && s >= 0; i++)
        s = build(nb, x->a, s, json, &again, depth);
    if (x->max < 0) {
        int32_t head = new_state(nb);
        add_eps(nb, s, head);
        add_eps(nb, build(nb, x->a, head, json, &again, depth), head);
        return head;
    }
    int32_t end = new_state(nb);
    add_eps(nb, s, end);
    for (int32_t i = x->min; i < x->max && s >= 0; i++) {
        s = build(nb, x->a, s, json, &again, depth);
        add_eps(nb, s, end);
    }
    return end;
}

static int32_t build_dfa(struct build *nb, const struct dfa *d, int32_t s, bool json)
{
    int32_t first = nb->n_states, end;
    for (int32_t i = 0; i < d->n; i++)
        new_state(nb);
    end = new_state(nb);
    if (end < 0)
        return -1;
    add_eps(nb, s, first);
    for (int32_t i = 0; i < d->n; i++) {
        const int32_t *row = d->trans + (size_t)i * 256;
        if (d->accept[i])
            add_eps(nb, first + i, end);
        for (int32_t c = 0; c < 256;) {
            int32_t lo = c, to = row[c];
            while (c < 256 && row[c] == to)
                c++;
            if (to >= 0)
                add_bytes(nb, first + i, lo, c - 1, first + to, json);
        }
    }
    return end;
}

static int32_t build_graph(struct build *nb, const struct expr *x, int32_t s, bool json, int depth)
{
    int32_t first = nb->n_states;
    for (int32_t i = 0; i < x->min; i++)
        if (new_state(nb) < 0)
            return -1;
    add_eps(nb, s, first);
    for (int32_t i = 0; i < x->n && !nb->b->failed; i++) {
        struct expr_move m = nb->b->moves[x->a + i];
        int32_t t = m.label < 0 ? first + m.from : build(nb, m.label, first + m.from, json, NULL, depth + 1);
        add_eps(nb, t, first + m.to);
    }
    return first + x->min - 1;
}

/* Builds the expression from state s; returns where it ends, -1 after a failure. */
static int32_t build(struct build *nb, int32_t id, int32_t s, bool json, const struct follow *f, int depth)
{
    struct guide_builder *b = nb->b;
    if (s < 0 || b->failed)
        return -1;
    if (depth > MAX_DEPTH)
        return expr_fail(b, ERR_TOO_LARGE, "nested deeper than %d", MAX_DEPTH);
    struct expr x = b->nodes[id];
    int32_t t;
    switch (x.kind) {
    case EXPR_NEVER:
        return new_state(nb);
    case EXPR_EMPTY:
        return s;
    case EXPR_TEXT:
        for (int32_t i = 0; i < x.n && s >= 0; i++) {
            t = new_state(nb);
            add_bytes(nb, s, (unsigned char)b->text.data[x.a + i], (unsigned char)b->text.data[x.a + i], t, json);
            s = t;
        }
        return s;
    case EXPR_SET:
        t = new_state(nb);
        if (t >= 0)
            add_set(nb, &x, s, t, json);
        return t;
    case EXPR_SEQ:
        for (int32_t i = 0; i < x.n && s >= 0; i++) {
            struct follow rest = {b->kids + x.a + i + 1, x.n - i - 1, false, json, f};
            s = build(nb, b->kids[x.a + i], s, json, &rest, depth + 1);
        }
        return s;
    case EXPR_ALT:
        t = new_state(nb);
        for (int32_t i = 0; i < x.n && t >= 0; i++) {
            int32_t from = new_state(nb); /* a start of its own: a loop's head must not be shared with its siblings */
            add_eps(nb, s, from);
            add_eps(nb, build(nb, b->kids[x.a + i], from, json, f, depth + 1), t);
        }
        return t;
    case EXPR_REPEAT:
        return build_repeat(nb, &x, s, json, f, depth + 1);
    case EXPR_GRAPH:
        return build_graph(nb, &x, s, json, depth);
    case EXPR_STRING:
        return build(nb, x.a, s, true, &follow_quote_mark, depth + 1);
    case EXPR_DFA:
        return build_dfa(nb, &b->dfas[x.a], s, json);
    case EXPR_RULE:
        if (json || !nb->with_rules)
            return expr_fail(b, ERR_INTERNAL, "a rule inside a regular language");
        t = new_state(nb);
        if (t >= 0 && !vec_reserve((void **)&nb->calls, &nb->cap_calls, nb->n_calls + 1, sizeof *nb->calls))
            return expr_fail(b, ERR_NOMEM, "out of memory for the guide");
        if (t >= 0)
            nb->calls[nb->n_calls++] = (struct raw_call){s, x.a, t};
        return t;
    }
    return -1;
}

/* ---- analysis ---- */

/* Adjacency by state: at[n + 1] and idx into the raw array. */
struct index { int32_t *at, *idx; };

static void index_free(struct index *x)
{
    mem_free(x->at);
    mem_free(x->idx);
}

/* key(i) is ((int32_t *)base)[i * stride + offset]. */
static bool index_by(struct index *x, int32_t n_keys, const void *base, size_t n, size_t stride, size_t offset)
{
    const int32_t *v = base;
    x->at = mem_try_zalloc((size_t)n_keys + 2, sizeof *x->at);
    x->idx = mem_try_alloc(n, sizeof *x->idx);
    if (!x->at || !x->idx)
        return false;
    for (size_t i = 0; i < n; i++)
        x->at[v[i * stride + offset] + 2]++;
    for (int32_t k = 0; k < n_keys; k++)
        x->at[k + 2] += x->at[k + 1];
    for (size_t i = 0; i < n; i++)
        x->idx[x->at[v[i * stride + offset] + 1]++] = (int32_t)i;
    return true;
}

struct analysis {
    struct build *nb;
    int32_t n_rules;
    int32_t *start, *final;
    int32_t *head_of;             /* [n_states]: the loop this state heads, or -1 */
    bool *lead, *nullable;        /* states reached from their rule's start without a byte; rules that may be empty */
    bool *good, *productive;      /* states from which their rule can end */
    int32_t *work; size_t n_work;
    struct index call_by_rule, call_from, call_to, eps_from, eps_to, edge_to;
};

static void lead_push(struct analysis *a, int32_t s)
{
    if (!a->lead[s]) {
        a->lead[s] = true;
        a->work[a->n_work++] = s;
    }
}

static void find_nullable(struct analysis *a)
{
    struct build *nb = a->nb;
    a->n_work = 0;
    for (int32_t r = 0; r < a->n_rules; r++)
        lead_push(a, a->start[r]);
    while (a->n_work) {
        int32_t s = a->work[--a->n_work], r = nb->rule_of[s];
        for (int32_t i = a->eps_from.at[s]; i < a->eps_from.at[s + 1]; i++)
            if (!(a->head_of[s] >= 0 && nb->loops[a->head_of[s]].min > 0 && nb->eps[a->eps_from.idx[i]].to == nb->loops[a->head_of[s]].exit))
                lead_push(a, nb->eps[a->eps_from.idx[i]].to);
        for (int32_t i = a->call_from.at[s]; i < a->call_from.at[s + 1]; i++) {
            const struct raw_call *c = &nb->calls[a->call_from.idx[i]];
            if (a->nullable[c->rule])
                lead_push(a, c->to);
        }
        if (s != a->final[r] || a->nullable[r])
            continue;
        a->nullable[r] = true;
        for (int32_t i = a->call_by_rule.at[r]; i < a->call_by_rule.at[r + 1]; i++) {
            const struct raw_call *c = &nb->calls[a->call_by_rule.idx[i]];
            if (a->lead[c->from])
                lead_push(a, c->to);
        }
    }
}

static void good_push(struct analysis *a, int32_t s)
{
    if (!a->good[s]) {
        a->good[s] = true;
        a->work[a->n_work++] = s;
    }
}

static void find_good(struct analysis *a)
{
    struct build *nb = a->nb;
    a->n_work = 0;
    for (int32_t r = 0; r < a->n_rules; r++)
        good_push(a, a->final[r]);
    while (a->n_work) {
        int32_t s = a->work[--a->n_work], r = nb->rule_of[s];
        for (int32_t i = a->edge_to.at[s]; i < a->edge_to.at[s + 1]; i++)
            good_push(a, nb->edges[a->edge_to.idx[i]].from);
        for (int32_t i = a->eps_to.at[s]; i < a->eps_to.at[s + 1]; i++)
            good_push(a, nb->eps[a->eps_to.idx[i]].from);
        for (int32_t i = a->call_to.at[s]; i < a->call_to.at[s + 1]; i++) {
            const struct raw_call *c = &nb->calls[a->call_to.idx[i]];
            if (a->productive[c->rule])
                good_push(a, c->from);
        }
        if (s != a->start[r] || a->productive[r])
            continue;
        a->productive[r] = true;
        for (int32_t i = a->call_by_rule.at[r]; i < a->call_by_rule.at[r + 1]; i++) {
            const struct raw_call *c = &nb->calls[a->call_by_rule.idx[i]];
            if (a->good[c->to])
                good_push(a, c->from);
        }
    }
}

/* Rules called before any byte, in an order where callers come first; left recursion is an error. */
static bool find_order(struct analysis *a, struct nfa *out)
{
    struct build *nb = a->nb;
    struct guide_builder *b = nb->b;
    struct raw_eps *left = NULL;
    struct index by_from = {0};
    size_t n = 0;
    int32_t *waiting = mem_try_zalloc((size_t)a->n_rules + 1, sizeof *waiting);
    left = mem_try_alloc(nb->n_calls, sizeof *left);
    bool ok = waiting && left;
    for (size_t i = 0; ok && i < nb->n_calls; i++)
        if (a->lead[nb->calls[i].from] && a->productive[nb->calls[i].rule] && a->good[nb->calls[i].to])
            left[n++] = (struct raw_eps){nb->rule_of[nb->calls[i].from], nb->calls[i].rule};
    ok = ok && index_by(&by_from, a->n_rules, left, n, 2, 0);
    for (size_t i = 0; ok && i < n; i++)
        waiting[left[i].to]++;
    int32_t done = 0, head = 0;
    for (int32_t r = 0; ok && r < a->n_rules; r++)
        if (waiting[r] == 0)
            out->by_order[done++] = r;
    for (; ok && head < done; head++)
        for (int32_t i = by_from.at[out->by_order[head]]; i < by_from.at[out->by_order[head] + 1]; i++)
            if (--waiting[left[by_from.idx[i]].to] == 0)
                out->by_order[done++] = left[by_from.idx[i]].to;
    for (int32_t k = 0; ok && k < done; k++)
        out->order[out->by_order[k]] = k;
    if (!ok) {
        expr_fail(b, ERR_NOMEM, "out of memory for the guide");
    } else if (done < a->n_rules) {
        int32_t r = 0;
        while (waiting[r] <= 0)
            r++;
        for (int32_t k = 0; k <= a->n_rules; k++) /* walk back along the cycle until surely on it */
            for (size_t i = 0; i < n; i++)
                if (left[i].to == r && waiting[left[i].from] > 0) {
                    r = left[i].from;
                    break;
                }
        expr_fail(b, ERR_UNSUPPORTED, "rule '%.64s' begins with itself (left recursion): write it as a repetition", r > 0 ? b->rules[r - 1].name : "root");
    }
    mem_free(waiting);
    mem_free(left);
    index_free(&by_from);
    return !b->failed;
}

/* ---- the finished form ---- */

static void find_classes(struct nfa *out, const struct build *nb)
{
    bool begins[257] = {[0] = true};
    for (size_t i = 0; i < nb->n_edges; i++)
        begins[nb->edges[i].lo] = begins[nb->edges[i].hi + 1] = true;
    int32_t n = -1;
    for (int c = 0; c < 256; c++) {
        n += begins[c];
        out->class_of[c] = (uint8_t)n;
    }
    out->n_classes = n + 1;
}

static bool fill(struct nfa *out, struct analysis *a)
{
    struct build *nb = a->nb;
    size_t n = (size_t)nb->n_states, n_nullable = 0;
    struct index edge_from = {0};
    bool ok = index_by(&edge_from, nb->n_states, nb->edges, nb->n_edges, 4, 0);
    for (size_t i = 0; i < nb->n_calls; i++)
        n_nullable += a->nullable[nb->calls[i].rule];
    out->flags = mem_try_zalloc(n, sizeof *out->flags);
    out->edge_at = mem_try_zalloc(n + 1, sizeof *out->edge_at);
    out->eps_at = mem_try_zalloc(n + 1, sizeof *out->eps_at);
    out->call_at = mem_try_zalloc(n + 1, sizeof *out->call_at);
    out->edges = mem_try_alloc(nb->n_edges, sizeof *out->edges);
    out->eps = mem_try_alloc(nb->n_eps + n_nullable, sizeof *out->eps);
    out->calls = mem_try_alloc(nb->n_calls, sizeof *out->calls);
    out->loop_head = a->head_of;
    a->head_of = NULL;
    out->loop_body = mem_try_alloc(n, sizeof *out->loop_body);
    out->loops = mem_try_alloc(nb->n_loops, sizeof *out->loops);
    ok = ok && out->flags && out->edge_at && out->eps_at && out->call_at && out->edges && out->eps && out->calls && out->loop_body && out->loops;
    int32_t n_edges = 0, n_eps = 0, n_calls = 0;
    for (int32_t s = 0; ok && s < nb->n_states; s++) {
        for (int32_t i = edge_from.at[s]; i < edge_from.at[s + 1]; i++) {
            const struct raw_edge *e = &nb->edges[edge_from.idx[i]];
            if (a->good[e->to])
                out->edges[n_edges++] = (struct nfa_edge){out->class_of[e->lo], out->class_of[e->hi], e->to};
        }
        bool counts = out->loop_head[s] >= 0 || nb->loop_next[s] >= 0;
        for (int32_t i = a->eps_from.at[s]; !counts && i < a->eps_from.at[s + 1]; i++)
            if (a->good[nb->eps[a->eps_from.idx[i]].to])
                out->eps[n_eps++] = nb->eps[a->eps_from.idx[i]].to;
        for (int32_t i = a->call_from.at[s]; i < a->call_from.at[s + 1]; i++) {
            const struct raw_call *c = &nb->calls[a->call_from.idx[i]];
            if (!a->productive[c->rule] || !a->good[c->to])
                continue;
            out->calls[n_calls++] = (struct nfa_call){c->rule, c->to};
            if (a->nullable[c->rule])
                out->eps[n_eps++] = c->to;
        }
        out->edge_at[s + 1] = n_edges;
        out->eps_at[s + 1] = n_eps;
        out->call_at[s + 1] = n_calls;
        out->loop_body[s] = -1;
        if (out->edge_at[s] < n_edges || out->call_at[s] < n_calls)
            out->flags[s] |= NFA_KEEP;
    }
    for (size_t i = 0; ok && i < nb->n_loops; i++) {
        out->loops[i] = nb->loops[i];
        out->flags[nb->loops[i].head] |= NFA_KEEP;
        out->loop_body[nb->loops[i].body] = (int32_t)i;
        for (int32_t s = nb->loops[i].exit + 1; s < nb->loops[i].end; s++)
            out->loop_body[s] = (int32_t)i;
    }
    for (int32_t r = 0; ok && r < a->n_rules; r++)
        out->flags[a->final[r]] |= NFA_FINAL | NFA_KEEP;
    index_free(&edge_from);
    if (!ok)
        expr_fail(nb->b, ERR_NOMEM, "out of memory for the guide");
    return ok;
}

static bool analyse(struct nfa *out, struct analysis *a)
{
    struct build *nb = a->nb;
    size_t n = (size_t)nb->n_states, n_rules = (size_t)a->n_rules;
    int32_t states = nb->n_states;
    a->lead = mem_try_zalloc(n, sizeof *a->lead);
    a->good = mem_try_zalloc(n, sizeof *a->good);
    a->nullable = mem_try_zalloc(n_rules, sizeof *a->nullable);
    a->productive = mem_try_zalloc(n_rules, sizeof *a->productive);
    a->work = mem_try_alloc(n, sizeof *a->work);
    a->head_of = mem_try_alloc(n, sizeof *a->head_of);
    for (int32_t s = 0; a->head_of && s < states; s++)
        a->head_of[s] = -1;
    for (size_t i = 0; a->head_of && i < nb->n_loops; i++)
        a->head_of[nb->loops[i].head] = (int32_t)i;
    bool ok = a->head_of && a->lead && a->good && a->nullable && a->productive && a->work &&
              index_by(&a->call_by_rule, a->n_rules, nb->calls, nb->n_calls, 3, 1) &&
              index_by(&a->call_from, states, nb->calls, nb->n_calls, 3, 0) && index_by(&a->call_to, states, nb->calls, nb->n_calls, 3, 2) &&
              index_by(&a->eps_from, states, nb->eps, nb->n_eps, 2, 0) && index_by(&a->eps_to, states, nb->eps, nb->n_eps, 2, 1) &&
              index_by(&a->edge_to, states, nb->edges, nb->n_edges, 4, 3);
    if (!ok)
        return expr_fail(nb->b, ERR_NOMEM, "out of memory for the guide"), false;
    find_nullable(a);
    find_good(a);
    if (!a->productive[0] && a->n_rules == 1) {
        out->is_void = true; /* a regular language being combined; the caller decides */
        return true;
    }
    if (!a->productive[0])
        return expr_fail(nb->b, ERR_INVALID, "nothing matches: the guide allows no output at all"), false;
    find_classes(out, nb);
    return find_order(a, out) && fill(out, a);
}

static void analysis_free(struct analysis *a)
{
    mem_free(a->start);
    mem_free(a->final);
    mem_free(a->head_of);
    mem_free(a->lead);
    mem_free(a->nullable);
    mem_free(a->good);
    mem_free(a->productive);
    mem_free(a->work);
    index_free(&a->call_by_rule);
    index_free(&a->call_from);
    index_free(&a->call_to);
    index_free(&a->eps_from);
    index_free(&a->eps_to);
    index_free(&a->edge_to);
}

static void build_free(struct build *nb)
{
    mem_free(nb->edges);
    mem_free(nb->eps);
    mem_free(nb->calls);
    mem_free(nb->loops);
    mem_free(nb->rule_of);
}

void nfa_free(struct nfa *n)
{
    mem_free(n->flags);
    mem_free(n->edge_at);
    mem_free(n->eps_at);
    mem_free(n->call_at);
    mem_free(n->edges);
    mem_free(n->eps);
    mem_free(n->calls);
    mem_free(n->loop_head);
    mem_free(n->loop_next);
    mem_free(n->loop_body);
    mem_free(n->loops);
    mem_free(n->start);
    mem_free(n->order);
    mem_free(n->by_order);
    *n = (struct nfa){0};
}

/* Rule 0 of the NFA is the root; rule i + 1 is the builder's rule i. */
static bool build_rules(struct build *nb, struct analysis *a, int32_t root)
{
    struct guide_builder *b = nb->b;
    for (int32_t r = 0; r < a->n_rules && !b->failed; r++) {
        int32_t body = r == 0 ? root : b->rules[r - 1].body;
        nb->rule = r;
        if (body < 0)
            return expr_fail(b, ERR_INVALID, "rule '%.64s' is used but not defined", b->rules[r - 1].name), false;
        a->start[r] = new_state(nb);
        int32_t end = build(nb, body, a->start[r], false, r == 0 ? &follow_end_mark : NULL, 0);
        a->final[r] = new_state(nb); /* of its own: an end state may have ways on */
        add_eps(nb, end, a->final[r]);
    }
    for (size_t i = 0; i < nb->n_calls; i++)
        nb->calls[i].rule++;
    return !b->failed;
}

bool nfa_build(struct nfa *out, struct guide_builder *b, int32_t root, bool with_rules, struct err *e)
{
    struct build nb = {.b = b, .with_rules = with_rules};
    struct analysis a = {.nb = &nb, .n_rules = with_rules ? (int32_t)b->n_rules + 1 : 1};
    *out = (struct nfa){.n_rules = a.n_rules};
    size_t n_rules = (size_t)a.n_rules;
    out->start = a.start = mem_try_alloc(n_rules, sizeof *a.start);
    a.final = mem_try_alloc(n_rules, sizeof *a.final);
    out->order = mem_try_zalloc(n_rules, sizeof *out->order);
    out->by_order = mem_try_zalloc(n_rules, sizeof *out->by_order);
    bool ok = root >= 0 && !b->failed;
    if (ok && (!a.start || !a.final || !out->order || !out->by_order))
        ok = expr_fail(b, ERR_NOMEM, "out of memory for the guide") >= 0;
    ok = ok && build_rules(&nb, &a, root) && analyse(out, &a);
    out->n_states = nb.n_states;
    out->n_loops = (int32_t)nb.n_loops;
    out->loop_next = nb.loop_next;
    a.start = NULL;
    analysis_free(&a);
    build_free(&nb);
    if (ok && (!out->is_void || !with_rules))
        return true;
    if (ok)
        expr_fail(b, ERR_INVALID, "nothing matches: the guide allows no output at all");
    nfa_free(out);
    if (e)
        *e = b->err;
    return false;
}
