/* Regular languages combined: intersection and difference, by the product of automata. */
#include <string.h>
#include "base/hash.h"
#include "base/mem.h"
#include "base/vec.h"
#include "guide/guide_int.h"

void dfa_free(struct dfa *d)
{
    mem_free(d->trans);
    mem_free(d->accept);
    *d = (struct dfa){0};
}

int32_t dfa_add(struct guide_builder *b, struct dfa *d)
{
    if (d->n >= b->limits.max_dfa_states)
        return expr_fail(b, ERR_TOO_LARGE, "combining patterns needs more than %d states: simplify them", b->limits.max_dfa_states);
    if (d->n == d->cap) {
        int32_t cap = d->cap ? d->cap * 2 : 16;
        int32_t *t = mem_try_realloc(d->trans, (size_t)cap, 256 * sizeof *t);
        if (t)
            d->trans = t;
        bool *a = mem_try_realloc(d->accept, (size_t)cap, sizeof *a);
        if (a)
            d->accept = a;
        if (!t || !a)
            return expr_fail(b, ERR_NOMEM, "out of memory for the guide");
        d->cap = cap;
    }
    memset(d->trans + (size_t)d->n * 256, 0xff, 256 * sizeof *d->trans);
    d->accept[d->n] = false;
    return d->n++;
}

/* Breadth first over the configurations of a machine without rules: DFA state i is configuration i + 2. */
static bool determinize(struct guide_builder *b, struct machine *m, struct dfa *d)
{
    m->max_work = b->limits.max_work - b->work;
    int32_t start = machine_start(m);
    struct hash_u64 *seen = hash_u64_open(64);
    int32_t *cfgs = NULL;
    size_t cap = 0;
    bool ok = seen && start >= 0 && dfa_add(b, d) >= 0 && vec_reserve((void **)&cfgs, &cap, 1, sizeof *cfgs) &&
              hash_u64_put(seen, (uint64_t)start, 0);
    if (ok)
        cfgs[0] = start;
    for (int32_t i = 0; ok && i < d->n; i++) {
        d->accept[i] = m->cfgs[cfgs[i]].flags & CFG_ACCEPT;
        for (int c = 0; ok && c < 256; c++) {
            int32_t to = machine_step(m, cfgs[i], (uint8_t)c);
            int64_t at = -1;
            if (to < 0) {
                ok = !m->failed;
                continue;
            }
            if (!hash_u64_get(seen, (uint64_t)to, &at)) {
                at = dfa_add(b, d);
                ok = at >= 0 && vec_reserve((void **)&cfgs, &cap, (size_t)d->n, sizeof *cfgs) && hash_u64_put(seen, (uint64_t)to, at);
                if (ok)
                    cfgs[at] = to;
            }
            if (ok)
                d->trans[(size_t)i * 256 + (size_t)c] = (int32_t)at;
        }
        ok = ok && expr_spend(b, 64);
    }
    if (!ok)
        expr_fail(b, m->over_budget ? ERR_TOO_LARGE : ERR_NOMEM, m->over_budget ? "a pattern is too complex" : "out of memory for the guide");
    expr_spend(b, m->work);
    mem_free(cfgs);
    hash_u64_close(&seen);
    return ok && !b->failed;
}

static bool make_dfa(struct guide_builder *b, int32_t x, struct dfa *d)
{
    struct nfa nfa;
    struct machine m;
    *d = (struct dfa){0};
    if (x < 0 || b->failed || !nfa_build(&nfa, b, x, false, NULL))
        return false;
    bool ok;
    if (nfa.is_void) {
        ok = dfa_add(b, d) >= 0;
    } else if (machine_open(&m, &nfa)) {
        ok = determinize(b, &m, d);
        machine_close(&m);
    } else {
        ok = expr_fail(b, ERR_NOMEM, "out of memory for the guide") >= 0;
    }
    nfa_free(&nfa);
    if (!ok)
        dfa_free(d);
    return ok;
}

/* y's state -1 is its dead state. */
static bool product(struct guide_builder *b, const struct dfa *x, const struct dfa *y, enum dfa_op op, struct dfa *out)
{
    struct hash_u64 *seen = hash_u64_open(64);
    uint64_t *pairs = NULL;
    size_t cap = 0;
    bool ok = seen && dfa_add(b, out) >= 0 && vec_reserve((void **)&pairs, &cap, 1, sizeof *pairs) && hash_u64_put(seen, 1, 0);
    if (ok)
        pairs[0] = 1;   /* x's state in the upper half, y's plus one in the lower */
    for (int32_t i = 0; ok && i < out->n; i++) {
        int32_t p = (int32_t)(pairs[i] >> 32), q = (int32_t)(uint32_t)pairs[i] - 1;
        bool in_y = q >= 0 && y->accept[q];
        out->accept[i] = x->accept[p] && (op == DFA_AND ? in_y : !in_y);
        for (int c = 0; ok && c < 256; c++) {
            int32_t np = x->trans[(size_t)p * 256 + (size_t)c], nq = q < 0 ? -1 : y->trans[(size_t)q * 256 + (size_t)c];
            if (np < 0 || (op == DFA_AND && nq < 0))
                continue;
            uint64_t key = (uint64_t)(uint32_t)np << 32 | (uint32_t)(nq + 1);
            int64_t at;
            if (!hash_u64_get(seen, key, &at)) {
                at = dfa_add(b, out);
                ok = at >= 0 && vec_reserve((void **)&pairs, &cap, (size_t)out->n, sizeof *pairs) && hash_u64_put(seen, key, at);
                if (ok)
                    pairs[at] = key;
            }
            if (ok)
                out->trans[(size_t)i * 256 + (size_t)c] = (int32_t)at;
        }
        ok = ok && expr_spend(b, 300);
    }
    mem_free(pairs);
    hash_u64_close(&seen);
    if (!ok)
        expr_fail(b, ERR_NOMEM, "out of memory for the guide");
    return ok;
}

int32_t expr_from_dfa(struct guide_builder *b, struct dfa *d)
{
    if (b->failed || !vec_reserve((void **)&b->dfas, &b->cap_dfas, b->n_dfas + 1, sizeof *b->dfas)) {
        dfa_free(d);
        return expr_fail(b, ERR_NOMEM, "out of memory for the guide");
    }
    b->dfas[b->n_dfas] = *d;
    *d = (struct dfa){0};
    return expr_dfa(b, (int32_t)b->n_dfas++);
}

int32_t expr_combine(struct guide_builder *b, int32_t x, int32_t y, enum dfa_op op)
{
    struct dfa dx, dy, out = {0};
    if (!make_dfa(b, x, &dx))
        return -1;
    bool ok = make_dfa(b, y, &dy);
    if (ok) {
        ok = product(b, &dx, &dy, op, &out);
        dfa_free(&dy);
    }
    dfa_free(&dx);
    if (ok)
        return expr_from_dfa(b, &out);
    dfa_free(&out);
    return -1;
}

bool expr_is_void(struct guide_builder *b, int32_t x)
{
    struct nfa nfa;
    if (x < 0 || b->failed)
        return false;
    if (!nfa_build(&nfa, b, x, false, NULL))
        return false;
    bool is_void = nfa.is_void;
    nfa_free(&nfa);
    return is_void;
}

bool expr_contains(struct guide_builder *b, int32_t x, const char *s, size_t n)
{
    struct nfa nfa;
    struct machine m;
    if (x < 0 || b->failed || !nfa_build(&nfa, b, x, false, NULL))
        return false;
    bool found = false;
    if (!nfa.is_void && machine_open(&m, &nfa)) {
        int32_t c = machine_start(&m);
        for (size_t i = 0; c >= 0 && i < n; i++)
            c = machine_step(&m, c, (uint8_t)s[i]);
        found = c >= 0 && m.cfgs[c].flags & CFG_ACCEPT;
        expr_spend(b, m.work);
        machine_close(&m);
    }
    nfa_free(&nfa);
    return found;
}
