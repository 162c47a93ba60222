/* Masks: the trie walked with the machine.
 *
 * A configuration's mask is the union over its frames (set, parent).  What a set allows by itself is walked once with a hole
 * for the parent and kept (struct local): tokens, and the trie nodes at which the set's rule may end inside a token.  From those nodes the
 * walk goes on with the real parent, which is short.
 *
 * A set inside a counted loop (a string with a length) is walked symbolically: once for all counts, each token noting how many
 * characters it needs before it ends or leaves the loop. */
#include <string.h>
#include "base/mem.h"
#include "base/vec.h"
#include "guide/guide_int.h"

void local_free(struct local *l)
{
    if (!l)
        return;
    mem_free(l->bits);
    mem_free(l->ids);
    mem_free(l->escapes);
    mem_free(l->stay);
    mem_free(l->leave);
    mem_free(l);
}

static bool no_memory(struct machine *m)
{
    m->failed = true;
    return false;
}

static void set_bit(uint32_t *bits, int32_t i) { bits[i >> 5] |= (uint32_t)1 << (i & 31); }

/* ---- walking ---- */

struct walk {
    struct guide *g;
    struct machine *m;
    const struct trie *t;
    int32_t *cfg;                /* [max_depth + 1]: the configuration at each depth of the path */
    int32_t *count;              /* the same, symbolic: characters read when the loop was left, or INSIDE */
    struct local *local;         /* where results go, or */
    uint32_t *bits;
    int32_t *ids; size_t n_ids, cap_ids;
};

enum { INSIDE = -1 };

static bool walk_open(struct walk *w, struct guide *g)
{
    size_t n = (size_t)g->vocab->trie.max_depth + 1;
    *w = (struct walk){.g = g, .m = &g->m, .t = &g->vocab->trie};
    w->cfg = mem_try_alloc(n, sizeof *w->cfg);
    w->count = mem_try_alloc(n, sizeof *w->count);
    return (w->cfg && w->count) || no_memory(w->m);
}

static void walk_close(struct walk *w)
{
    mem_free(w->cfg);
    mem_free(w->count);
    mem_free(w->ids);
}

static bool add_escape(struct walk *w, int32_t node, int32_t count)
{
    struct local *l = w->local;
    if (!vec_reserve((void **)&l->escapes, &l->cap_escapes, l->n_escapes + 1, sizeof *l->escapes))
        return no_memory(w->m);
    l->escapes[l->n_escapes++] = (struct escape){node, count};
    return true;
}

static bool add_counted(struct walk *w, struct counted **v, size_t *n, size_t *cap, int32_t node, int32_t count)
{
    for (int32_t i = w->t->first[node]; i < w->t->first[node + 1]; i++) {
        if (!vec_reserve((void **)v, cap, *n + 1, sizeof **v))
            return no_memory(w->m);
        (*v)[(*n)++] = (struct counted){w->t->tokens[i], count};
    }
    return true;
}

/* Whether cfg is inside the symbolic loop: then how many characters were read, and whether one is begun. */
static bool symbolic_place(const struct machine *m, int32_t cfg, int32_t *count, bool *begun)
{
    const struct cfg *c = &m->cfgs[cfg];
    for (int32_t k = 0; k < c->n_kernel && k < 2; k++) {
        const struct frame *f = &m->frames[c->kernel + k];
        const struct set *s = &m->sets[f->set];
        const uint64_t *x = m->elems + s->at;
        if (f->parent != MACHINE_HOLE || s->n == 0 || !(x[s->n - 1] & MACHINE_SYMBOLIC))
            continue;
        *count = (int32_t)machine_count(x[s->n - 1]);
        *begun = true;
        for (int32_t i = s->n; i-- > 0 && x[i] & MACHINE_SYMBOLIC;)
            if (m->nfa->loop_head[machine_state(x[i])] >= 0)
                *begun = false;
        return true;
    }
    return false;
}

/* The node was reached by cfg: its tokens, and whether the set may end here. */
static bool arrive(struct walk *w, int32_t node, size_t depth)
{
    const struct trie *t = w->t;
    struct local *l = w->local;
    int32_t cfg = w->cfg[depth], read = 0;
    bool begun = false, leaf = t->skip[node] == node + 1;
    if (!l) {
        for (int32_t i = t->first[node]; i < t->first[node + 1]; i++)
            set_bit(w->bits, t->tokens[i]);
        return true;
    }
    bool hole = w->m->cfgs[cfg].flags & CFG_HOLE;
    if (!l->symbolic) {
        size_t n = (size_t)(t->first[node + 1] - t->first[node]);
        if (n && !vec_reserve((void **)&w->ids, &w->cap_ids, w->n_ids + n, sizeof *w->ids))
            return no_memory(w->m);
        if (n)
            memcpy(w->ids + w->n_ids, t->tokens + t->first[node], n * sizeof *w->ids);
        w->n_ids += n;
        return !hole || leaf || add_escape(w, node, -1);
    }
    if (w->count[depth - 1] == INSIDE && symbolic_place(w->m, cfg, &read, &begun)) {
        w->count[depth] = INSIDE;
        return add_counted(w, &l->stay, &l->n_stay, &l->cap_stay, node, read + begun) && (!hole || leaf || add_escape(w, node, read));
    }
    if (w->count[depth - 1] == INSIDE) {
        /* This byte left the loop: as many characters as were read before it. */
        if (!symbolic_place(w->m, w->cfg[depth - 1], &read, &begun))
            read = 0;
        w->count[depth] = read;
    } else {
        w->count[depth] = w->count[depth - 1];
    }
    return add_counted(w, &l->leave, &l->n_leave, &l->cap_leave, node, w->count[depth]) && (!hole || leaf || add_escape(w, node, w->count[depth]));
}

/* All nodes below node, from cfg.  With kernel_only, rules that begin at cfg itself are left to their own frames. */
static bool walk_below(struct walk *w, int32_t node, int32_t cfg, bool kernel_only)
{
    const struct trie *t = w->t;
    size_t base = t->depth[node];
    int32_t end = t->skip[node], visited = 0;
    w->cfg[0] = cfg;
    w->count[0] = INSIDE;
    for (int32_t i = node + 1; i < end;) {
        size_t d = t->depth[i] - base;
        int32_t next = d == 1 && kernel_only ? machine_step_kernel(w->m, cfg, t->byte[i]) : machine_step(w->m, w->cfg[d - 1], t->byte[i]);
        visited++;
        if (next < 0) {
            if (w->m->failed)
                return false;
            i = t->skip[i];
            continue;
        }
        w->cfg[d] = next;
        if (!arrive(w, i, d))
            return false;
        i = w->m->cfgs[next].n_kernel ? i + 1 : t->skip[i];
    }
    w->m->work += visited / 2 + 1;
    if (w->m->work > w->m->max_work)
        w->m->over_budget = w->m->failed = true;
    return !w->m->failed;
}

/* ---- what a set allows by itself ---- */

/* Ascending by count, which is at most the longest token's length. */
static bool sort_by_count(struct walk *w, struct counted *v, size_t n)
{
    size_t kinds = (size_t)w->t->max_depth + 2, *at = mem_try_zalloc(kinds + 1, sizeof *at);
    struct counted *out = mem_try_alloc(n, sizeof *out);
    bool ok = at && out;
    for (size_t i = 0; ok && i < n; i++)
        at[(size_t)v[i].count + 1]++;
    for (size_t i = 0; ok && i < kinds; i++)
        at[i + 1] += at[i];
    for (size_t i = 0; ok && i < n; i++)
        out[at[v[i].count]++] = v[i];
    if (ok && n)
        memcpy(v, out, n * sizeof *v);
    mem_free(at);
    mem_free(out);
    return ok || no_memory(w->m);
}

/* Keeps the tokens as a list or as bits, whichever is smaller. */
static bool keep_tokens(struct walk *w, struct local *l)
{
    size_t words = (size_t)w->g->vocab->n_words;
    if (l->symbolic) {
        l->bits = mem_try_zalloc(words, sizeof *l->bits);
        if (!l->bits)
            return no_memory(w->m);
        for (size_t i = 0; i < l->n_stay; i++)
            set_bit(l->bits, l->stay[i].token);
        if (!sort_by_count(w, l->stay, l->n_stay))
            return false;
        l->bytes = words * 4 + (l->cap_stay + l->cap_leave + l->cap_escapes) * 8;
        return true;
    }
    if (w->n_ids < words) {
        l->ids = w->ids;
        l->n_ids = (int32_t)w->n_ids;
        w->ids = NULL;
        l->bytes = w->cap_ids * 4 + l->cap_escapes * 8;
        return true;
    }
    l->bits = mem_try_zalloc(words, sizeof *l->bits);
    if (!l->bits)
        return no_memory(w->m);
    for (size_t i = 0; i < w->n_ids; i++)
        set_bit(l->bits, w->ids[i]);
    l->bytes = words * 4 + l->cap_escapes * 8;
    return true;
}

static struct local *local_make(struct guide *g, int32_t set, bool symbolic)
{
    struct machine *m = &g->m;
    struct walk w;
    struct local *l = mem_try_zalloc(1, sizeof *l);
    size_t n = (size_t)m->sets[set].n;
    uint64_t *elems = mem_try_alloc(n, sizeof *elems);
    bool ok = walk_open(&w, g) && ((l && elems) || no_memory(m));
    if (ok) {
        l->symbolic = symbolic;
        w.local = l;
        memcpy(elems, m->elems + m->sets[set].at, n * sizeof *elems);
        int32_t cfg = machine_cfg(m, elems, n, MACHINE_HOLE);
        ok = cfg >= 0 && walk_below(&w, 0, cfg, true) && keep_tokens(&w, l) &&
             (vec_reserve((void **)&m->locals, &m->cap_locals, m->n_locals + 1, sizeof *m->locals) || no_memory(m));
    }
    walk_close(&w);
    mem_free(elems);
    if (!ok) {
        local_free(l);
        return NULL;
    }
    m->local_bytes += l->bytes + sizeof *l;
    m->sets[set].local = (int32_t)m->n_locals;
    m->locals[m->n_locals++] = l;
    return l;
}

/* If all of the set is one place in one counted loop: the set of the same place without bounds, the loop and the count. */
static int32_t symbolic_set(struct machine *m, int32_t set, int32_t *loop, int64_t *count)
{
    const struct nfa *nfa = m->nfa;
    struct set s = m->sets[set];
    uint64_t head = 0, seeds[64];
    int32_t n_seeds = 0;
    *loop = -1;
    for (int32_t i = 0; i < s.n; i++) {
        uint64_t x = m->elems[s.at + i];
        if (nfa->loop_head[machine_state(x)] < 0)
            continue;
        if (*loop >= 0)
            return -1;
        *loop = nfa->loop_head[machine_state(x)];
        head = x;
    }
    if (*loop >= 0) {
        *count = machine_count(head);
        int32_t same = machine_cfg(m, &head, 1, MACHINE_HOLE);
        if (same < 0 || m->cfgs[same].n_kernel != 1 || m->frames[m->cfgs[same].kernel].set != set)
            return -1;
        seeds[n_seeds++] = (uint64_t)(uint32_t)machine_state(head) | MACHINE_SYMBOLIC;
    } else {
        for (int32_t i = 0; i < s.n; i++) {
            uint64_t x = m->elems[s.at + i];
            int32_t l = nfa->loop_body[machine_state(x)];
            if (l < 0 || (*loop >= 0 && (l != *loop || machine_count(x) != *count)) || n_seeds >= 64)
                return -1;
            *loop = l;
            *count = machine_count(x);
            seeds[n_seeds++] = (uint64_t)(uint32_t)machine_state(x) | MACHINE_SYMBOLIC;
        }
        if (*loop < 0)
            return -1;
    }
    int32_t cfg = machine_cfg(m, seeds, (size_t)n_seeds, MACHINE_HOLE);
    return cfg < 0 || m->cfgs[cfg].n_kernel != 1 ? -1 : m->frames[m->cfgs[cfg].kernel].set;
}

/* ---- putting it together ---- */

static void add_stay(const struct local *l, uint32_t *bits, size_t words, int64_t room)
{
    size_t lo = 0, hi = l->n_stay; /* how many need at most room */
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (l->stay[mid].count <= room)
            lo = mid + 1;
        else
            hi = mid;
    }
    if (lo < l->n_stay / 2) {
        for (size_t i = 0; i < lo; i++)
            set_bit(bits, l->stay[i].token);
        return;
    }
    /* Most: all, then those that were not set before and need more are taken out again. */
    for (size_t i = lo; i < l->n_stay; i++)
        l->bits[l->stay[i].token >> 5] &= ~((uint32_t)1 << (l->stay[i].token & 31));
    for (size_t i = 0; i < words; i++)
        bits[i] |= l->bits[i];
    for (size_t i = lo; i < l->n_stay; i++)
        set_bit(l->bits, l->stay[i].token);
}

static bool add_frame(struct walk *w, struct frame f)
{
    struct guide *g = w->g;
    struct machine *m = w->m;
    size_t words = (size_t)g->vocab->n_words;
    int32_t loop = -1, set = f.set;
    int64_t count = 0, room = INT64_MAX, need = 0;
    int32_t symbolic = m->nfa->n_loops ? symbolic_set(m, f.set, &loop, &count) : -1;
    if (m->failed)
        return false;
    if (symbolic >= 0) {
        const struct nfa_loop *lp = &m->nfa->loops[loop];
        set = symbolic;
        room = lp->max < 0 ? INT64_MAX : lp->max - count;
        need = lp->min - count;
    }
    struct local *l = m->sets[set].local >= 0 ? m->locals[m->sets[set].local] : local_make(g, set, symbolic >= 0);
    if (!l)
        return false;
    if (l->symbolic) {
        add_stay(l, w->bits, words, room);
        for (size_t i = 0; i < l->n_leave; i++)
            if (l->leave[i].count >= need && l->leave[i].count <= room)
                set_bit(w->bits, l->leave[i].token);
    } else if (l->bits) {
        for (size_t i = 0; i < words; i++)
            w->bits[i] |= l->bits[i];
    } else {
        for (int32_t i = 0; i < l->n_ids; i++)
            set_bit(w->bits, l->ids[i]);
    }
    if (m->cfgs[f.parent].n_kernel == 0)
        return true;
    for (size_t i = 0; i < l->n_escapes; i++)
        if ((!l->symbolic || (l->escapes[i].count >= need && l->escapes[i].count <= room)) &&
            !walk_below(w, l->escapes[i].node, f.parent, false))
            return false;
    return true;
}

bool mask_fill(struct guide *g, int32_t cfg, uint32_t *bits)
{
    struct machine *m = &g->m;
    struct walk w;
    memset(bits, 0, (size_t)g->vocab->n_words * sizeof *bits);
    if (m->cfgs[cfg].flags & CFG_ACCEPT)
        for (int32_t i = 0; i < g->vocab->n_eos; i++)
            set_bit(bits, g->vocab->eos_ids[i]);
    bool ok = walk_open(&w, g) && machine_expand(m, cfg);
    w.bits = bits;
    for (int32_t k = 0; ok && k < m->cfgs[cfg].n_frames; k++)
        ok = add_frame(&w, m->frames[m->cfgs[cfg].frames + k]);
    walk_close(&w);
    return ok;
}
