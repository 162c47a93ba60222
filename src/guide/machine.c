/* The machine: sets of NFA states with stacks below them, built as they are met.
 *
 * A configuration is a set of frames (state set, parent): the parent is the configuration that goes on when the state set's rule ends, so
 * stacks are shared and merged wherever they meet.  Its kernel is what identifies it: frames reached by bytes or by returning, already
 * closed over empty moves and over returns.  Rules that are called here are entered only when it is asked for more
 * (machine_expand): a stack of parents never unfolds by itself.  A parent always has a lower number than its children. */
#include <stdlib.h>
#include <string.h>
#include "base/hash.h"
#include "base/mem.h"
#include "base/vec.h"
#include "guide/guide_int.h"

enum { MAX_FRAMES = 4096 };

static int32_t fail(struct machine *m)
{
    m->failed = true;
    return -1;
}

static bool spend(struct machine *m, size_t work)
{
    m->work += (int64_t)work;
    if (m->work <= m->max_work)
        return !m->failed;
    m->over_budget = true;
    return fail(m), false;
}

/* ---- interning ---- */

static bool table_grow(struct table *t)
{
    size_t cap = t->cap ? t->cap * 2 : 256;
    uint32_t *old = t->slots, *slots = mem_try_zalloc(cap, sizeof *slots);
    if (!slots)
        return false;
    mem_free(old);
    *t = (struct table){slots, t->n, cap};
    return true;
}

static uint64_t hash_set(const struct machine *m, int32_t id)
{
    return hash_bytes(m->sets[id].n ? m->elems + m->sets[id].at : NULL, (size_t)m->sets[id].n * sizeof *m->elems, 1);
}

static uint64_t hash_cfg(const struct machine *m, int32_t id)
{
    const struct cfg *c = &m->cfgs[id];
    return hash_bytes(c->n_kernel ? m->frames + c->kernel : NULL, (size_t)c->n_kernel * sizeof *m->frames, c->flags & (CFG_ACCEPT | CFG_HOLE));
}

static void table_put(struct table *t, uint64_t hash, int32_t id)
{
    size_t i = (size_t)hash & (t->cap - 1);
    while (t->slots[i])
        i = (i + 1) & (t->cap - 1);
    t->slots[i] = (uint32_t)id + 1;
}

static bool table_room(struct machine *m, struct table *t, bool of_sets)
{
    if ((t->n + 1) * 2 <= t->cap)
        return true;
    if (!table_grow(t))
        return false;
    for (size_t id = 0; id < (of_sets ? m->n_sets : m->n_cfgs); id++)
        table_put(t, of_sets ? hash_set(m, (int32_t)id) : hash_cfg(m, (int32_t)id), (int32_t)id);
    return true;
}

/* x[0..n) sorted, distinct. */
static int32_t intern_set(struct machine *m, const uint64_t *x, size_t n)
{
    if (!spend(m, n) || !table_room(m, &m->set_table, true))
        return fail(m);
    uint64_t h = hash_bytes(x, n * sizeof *x, 1);
    for (size_t i = (size_t)h & (m->set_table.cap - 1); m->set_table.slots[i]; i = (i + 1) & (m->set_table.cap - 1)) {
        const struct set *s = &m->sets[m->set_table.slots[i] - 1];
        if ((size_t)s->n == n && memcmp(m->elems + s->at, x, n * sizeof *x) == 0)
            return (int32_t)m->set_table.slots[i] - 1;
    }
    if (m->n_elems + n > INT32_MAX || !vec_reserve((void **)&m->elems, &m->cap_elems, m->n_elems + n, sizeof *m->elems) ||
        !vec_reserve((void **)&m->sets, &m->cap_sets, m->n_sets + 1, sizeof *m->sets))
        return fail(m);
    if (n)
        memcpy(m->elems + m->n_elems, x, n * sizeof *x);
    m->sets[m->n_sets] = (struct set){(int32_t)m->n_elems, (int32_t)n, -1};
    m->n_elems += n;
    table_put(&m->set_table, h, (int32_t)m->n_sets);
    m->set_table.n++;
    return (int32_t)m->n_sets++;
}

/* The kernel was appended to m->frames from at on; it is dropped again when it is known. */
static int32_t intern_cfg(struct machine *m, size_t at, unsigned flags)
{
    size_t n = m->n_frames - at;
    if (!spend(m, n + 1) || !table_room(m, &m->cfg_table, false))
        return fail(m);
    const struct frame *k = n ? m->frames + at : NULL;
    uint64_t h = hash_bytes(k, n * sizeof *k, flags);
    for (size_t i = (size_t)h & (m->cfg_table.cap - 1); m->cfg_table.slots[i]; i = (i + 1) & (m->cfg_table.cap - 1)) {
        int32_t id = (int32_t)m->cfg_table.slots[i] - 1;
        const struct cfg *c = &m->cfgs[id];
        if ((size_t)c->n_kernel == n && (c->flags & (CFG_ACCEPT | CFG_HOLE)) == flags &&
            (n == 0 || memcmp(m->frames + c->kernel, k, n * sizeof *k) == 0)) {
            m->n_frames = at;
            return id;
        }
    }
    if (!vec_reserve((void **)&m->cfgs, &m->cap_cfgs, m->n_cfgs + 1, sizeof *m->cfgs))
        return fail(m);
    m->cfgs[m->n_cfgs] = (struct cfg){.frames = (int32_t)at, .kernel = (int32_t)at, .n_kernel = (int32_t)n, .n_frames = (int32_t)n,
                                      .trans = -1, .mask = -1, .flags = (uint8_t)flags};
    table_put(&m->cfg_table, h, (int32_t)m->n_cfgs);
    m->cfg_table.n++;
    return (int32_t)m->n_cfgs++;
}

/* ---- closure ---- */

static bool seed_push(struct machine *m, int32_t parent, uint64_t x)
{
    if (!vec_reserve((void **)&m->seeds, &m->cap_seeds, m->n_seeds + 1, sizeof *m->seeds))
        return fail(m), false;
    m->seeds[m->n_seeds++] = (struct seed){parent, x};
    return true;
}

static int compare_seeds(const void *pa, const void *pb)
{
    const struct seed *a = pa, *b = pb;
    if (a->parent != b->parent)
        return a->parent < b->parent ? -1 : 1;
    return (a->x > b->x) - (a->x < b->x);
}

static void sort_seeds(struct machine *m, size_t from)
{
    size_t n = m->n_seeds - from, k = 0;
    struct seed *s = m->seeds + from;
    if (n > 24)
        qsort(s, n, sizeof *s, compare_seeds);
    else
        for (size_t i = 1; i < n; i++) { /* nearly always a handful */
            struct seed x = s[i];
            size_t j = i;
            for (; j > 0 && compare_seeds(&s[j - 1], &x) > 0; j--)
                s[j] = s[j - 1];
            s[j] = x;
        }
    for (size_t i = 0; i < n; i++)
        if (k == 0 || compare_seeds(&s[k - 1], &s[i]) != 0)
            s[k++] = s[i];
    m->n_seeds = from + k;
}

/* Adds x to the work list tmp[0..*n) unless it was there in this generation. */
static bool visit(struct machine *m, uint64_t x, size_t *n)
{
    int32_t s = machine_state(x);
    if (m->stamp[s] == m->generation) {
        if (m->stamp_x[s] == x)
            return true;
        for (size_t i = 0; i < *n; i++) /* the same state with another count: rare */
            if (m->tmp[i] == x)
                return true;
    }
    m->stamp[s] = m->generation;
    m->stamp_x[s] = x;
    if (!vec_reserve((void **)&m->tmp, &m->cap_tmp, *n + 1, sizeof *m->tmp))
        return fail(m), false;
    m->tmp[(*n)++] = x;
    return true;
}

static uint64_t with_count(int32_t state, int64_t count, uint64_t like)
{
    return (uint64_t)(uint32_t)state | (uint64_t)count << 32 | (like & MACHINE_SYMBOLIC);
}

/* At the head of a loop with so many characters read. */
static bool visit_head(struct machine *m, uint64_t x, const struct nfa_loop *l, size_t *n)
{
    int64_t c = machine_count(x);
    bool symbolic = x & MACHINE_SYMBOLIC;
    bool ok = true;
    if (symbolic || l->max < 0 || c < l->max)
        ok = visit(m, with_count(l->body, c, x), n);
    if (symbolic || c >= l->min)
        ok = ok && visit(m, (uint64_t)(uint32_t)l->exit, n);
    return ok;
}

static bool visit_next(struct machine *m, uint64_t x, const struct nfa_loop *l, size_t *n)
{
    int64_t c = machine_count(x) + 1;
    if (!(x & MACHINE_SYMBOLIC) && l->max < 0 && c > l->min)
        c = l->min; /* more make no difference */
    return visit(m, with_count(l->head, c, x), n);
}

/* The empty moves' closure of tmp[0..n); returns its size, and whether the rule may end here. */
static size_t close_set(struct machine *m, size_t n, bool *final)
{
    const struct nfa *nfa = m->nfa;
    *final = false;
    for (size_t i = 0; i < n && !m->failed; i++) {
        uint64_t x = m->tmp[i];
        int32_t s = machine_state(x);
        *final |= (nfa->flags[s] & NFA_FINAL) != 0;
        if (nfa->loop_head[s] >= 0)
            visit_head(m, x, &nfa->loops[nfa->loop_head[s]], &n);
        else if (nfa->loop_next[s] >= 0)
            visit_next(m, x, &nfa->loops[nfa->loop_next[s]], &n);
        for (int32_t k = nfa->eps_at[s]; k < nfa->eps_at[s + 1] && !m->failed; k++)
            visit(m, (uint64_t)(uint32_t)nfa->eps[k], &n);
        spend(m, (size_t)(nfa->eps_at[s + 1] - nfa->eps_at[s]) + 1);
    }
    return n;
}

/* A final state with nothing else is not kept: returning has been done. */
static bool worth_keeping(const struct nfa *nfa, int32_t s)
{
    return nfa->edge_at[s] < nfa->edge_at[s + 1] || nfa->call_at[s] < nfa->call_at[s + 1] || nfa->loop_head[s] >= 0;
}

/* From seeds[from..): closes each parent's group, returns through finished rules, interns. */
static int32_t close_seeds(struct machine *m, size_t from)
{
    unsigned flags = 0;
    sort_seeds(m, from);
    size_t end = m->n_seeds;
    for (size_t i = from; i < end && !m->failed;) {
        int32_t parent = m->seeds[i].parent;
        size_t n = 0;
        bool final;
        m->generation++;
        for (; i < end && m->seeds[i].parent == parent; i++)
            visit(m, m->seeds[i].x, &n);
        n = close_set(m, n, &final);
        for (size_t k = 0; k < n && !m->failed; k++)
            if (worth_keeping(m->nfa, machine_state(m->tmp[k])))
                seed_push(m, parent, m->tmp[k]);
        if (!final || m->failed)
            continue;
        const struct cfg *p = &m->cfgs[parent];
        flags |= p->flags & (CFG_ACCEPT | CFG_HOLE);
        for (int32_t k = 0; k < p->n_kernel && !m->failed; k++) {
            struct frame f = m->frames[p->kernel + k];
            for (int32_t j = 0; j < m->sets[f.set].n; j++)
                seed_push(m, f.parent, m->elems[m->sets[f.set].at + j]);
            spend(m, (size_t)m->sets[f.set].n);
        }
    }
    /* What was closed lies behind the original seeds. */
    size_t n_closed = m->n_seeds - end;
    if (m->failed) {
        m->n_seeds = from;
        return -1;
    }
    if (n_closed)
        memmove(m->seeds + from, m->seeds + end, n_closed * sizeof *m->seeds);
    m->n_seeds = from + n_closed;
    sort_seeds(m, from);
    size_t at = m->n_frames;
    for (size_t i = from; i < m->n_seeds && !m->failed;) {
        int32_t parent = m->seeds[i].parent, set;
        size_t n = 0;
        for (; i < m->n_seeds && m->seeds[i].parent == parent; i++) {
            if (!vec_reserve((void **)&m->tmp, &m->cap_tmp, n + 1, sizeof *m->tmp))
                return fail(m);
            m->tmp[n++] = m->seeds[i].x;
        }
        set = intern_set(m, m->tmp, n);
        if (set < 0 || m->n_frames - at >= MAX_FRAMES || m->n_frames >= INT32_MAX - 1 ||
            !vec_reserve((void **)&m->frames, &m->cap_frames, m->n_frames + 1, sizeof *m->frames)) {
            m->n_frames = at;
            m->n_seeds = from;
            m->over_budget |= m->n_frames - at >= MAX_FRAMES;
            return fail(m);
        }
        m->frames[m->n_frames++] = (struct frame){set, parent};
    }
    m->n_seeds = from;
    if (m->n_frames == at && flags == 0)
        return -1;
    return intern_cfg(m, at, flags);
}

int32_t machine_cfg(struct machine *m, const uint64_t *elems, size_t n, int32_t parent)
{
    size_t from = m->n_seeds;
    for (size_t i = 0; i < n; i++)
        if (!seed_push(m, parent, elems[i]))
            return -1;
    return close_seeds(m, from);
}

/* ---- entering rules ---- */

static bool pend_push(struct machine *m, int32_t rule, int32_t parent, int32_t ret)
{
    int32_t order = m->nfa->order[rule];
    if (!vec_reserve((void **)&m->pends, &m->cap_pends, m->n_pends + 1, sizeof *m->pends))
        return fail(m), false;
    m->pends[m->n_pends] = (struct pend){m->pend_head[order], parent, (uint64_t)(uint32_t)ret};
    m->pend_head[order] = (int32_t)m->n_pends++;
    m->pend_bits[order / 64] |= (uint64_t)1 << (order % 64);
    return true;
}

static bool pend_calls(struct machine *m, int32_t set, int32_t parent)
{
    const struct nfa *nfa = m->nfa;
    for (int32_t i = 0; i < m->sets[set].n; i++) {
        int32_t s = machine_state(m->elems[m->sets[set].at + i]);
        for (int32_t k = nfa->call_at[s]; k < nfa->call_at[s + 1]; k++)
            if (!pend_push(m, nfa->calls[k].rule, parent, nfa->calls[k].to))
                return false;
    }
    return spend(m, (size_t)m->sets[set].n);
}

static int32_t start_set(struct machine *m, int32_t rule)
{
    if (m->start_set[rule] >= 0)
        return m->start_set[rule];
    bool final;
    size_t n = 0;
    m->generation++;
    visit(m, (uint64_t)(uint32_t)m->nfa->start[rule], &n);
    n = close_set(m, n, &final);
    size_t kept = 0;
    for (size_t i = 0; i < n; i++)
        if (worth_keeping(m->nfa, machine_state(m->tmp[i])))
            m->tmp[kept++] = m->tmp[i];
    for (size_t i = 1; i < kept; i++) /* insertion sort: small */
        for (size_t j = i; j > 0 && m->tmp[j - 1] > m->tmp[j]; j--) {
            uint64_t x = m->tmp[j];
            m->tmp[j] = m->tmp[j - 1];
            m->tmp[j - 1] = x;
        }
    if (!spend(m, kept * (kept < 64 ? 1 : kept / 16)))
        return -1;
    return m->start_set[rule] = intern_set(m, m->tmp, kept);
}

/* Enters one rule for all its callers at this place. */
static bool enter(struct machine *m, int32_t order, struct frame *out)
{
    int32_t rule = m->nfa->by_order[order];
    size_t from = m->n_seeds;
    for (int32_t i = m->pend_head[order]; i >= 0; i = m->pends[i].next)
        if (!seed_push(m, m->pends[i].parent, m->pends[i].ret))
            return false;
    m->pend_head[order] = -1;
    m->pend_bits[order / 64] &= ~((uint64_t)1 << (order % 64));
    int32_t parent = close_seeds(m, from), set = m->failed ? -1 : start_set(m, rule);
    if (parent < 0 || set < 0)
        return fail(m), false;
    *out = (struct frame){set, parent};
    return true;
}

bool machine_expand(struct machine *m, int32_t id)
{
    if (m->cfgs[id].flags & CFG_EXPANDED)
        return true;
    size_t words = (size_t)(m->nfa->n_rules + 63) / 64, n = 0, cap = 0;
    struct frame *entered = NULL;
    bool ok = true;
    m->n_pends = 0;
    for (int32_t k = 0; ok && k < m->cfgs[id].n_kernel; k++)
        ok = pend_calls(m, m->frames[m->cfgs[id].kernel + k].set, m->frames[m->cfgs[id].kernel + k].parent);
    for (size_t w = 0; ok && w < words;) {
        if (!m->pend_bits[w]) {
            w++;
            continue;
        }
        struct frame f;
        ok = enter(m, (int32_t)w * 64 + __builtin_ctzll(m->pend_bits[w]), &f) && pend_calls(m, f.set, f.parent) &&
             (vec_reserve((void **)&entered, &cap, n + 1, sizeof *entered) || (fail(m), false));
        if (ok && m->sets[f.set].n > 0)
            entered[n++] = f;
    }
    for (size_t w = 0; !ok && w < words; w++) /* leave the scratch empty */
        for (; m->pend_bits[w]; m->pend_bits[w] &= m->pend_bits[w] - 1)
            m->pend_head[w * 64 + (size_t)__builtin_ctzll(m->pend_bits[w])] = -1;
    struct cfg *c = &m->cfgs[id];
    size_t total = (size_t)c->n_kernel + n;
    if (ok && n > 0) {
        if (m->n_frames + total < INT32_MAX && vec_reserve((void **)&m->frames, &m->cap_frames, m->n_frames + total, sizeof *m->frames)) {
            memcpy(m->frames + m->n_frames, m->frames + c->kernel, (size_t)c->n_kernel * sizeof *m->frames);
            memcpy(m->frames + m->n_frames + c->n_kernel, entered, n * sizeof *entered);
            c->frames = (int32_t)m->n_frames;
            c->n_frames = (int32_t)total;
            m->n_frames += total;
        } else {
            ok = fail(m) >= 0;
        }
    }
    mem_free(entered);
    if (ok)
        c->flags |= CFG_EXPANDED;
    return ok;
}

/* ---- stepping ---- */

static int32_t step_frames(struct machine *m, int32_t at, int32_t n, int32_t class)
{
    const struct nfa *nfa = m->nfa;
    size_t from = m->n_seeds;
    for (int32_t k = 0; k < n; k++) {
        struct frame f = m->frames[at + k];
        struct set s = m->sets[f.set];
        for (int32_t i = 0; i < s.n; i++) {
            uint64_t x = m->elems[s.at + i];
            int32_t state = machine_state(x);
            for (int32_t j = nfa->edge_at[state]; j < nfa->edge_at[state + 1]; j++)
                if (class >= nfa->edges[j].lo && class <= nfa->edges[j].hi &&
                    !seed_push(m, f.parent, (x & ~(uint64_t)UINT32_MAX) | (uint32_t)nfa->edges[j].to))
                    return -1;
        }
        if (!spend(m, (size_t)s.n))
            return -1;
    }
    return m->n_seeds == from ? -1 : close_seeds(m, from);
}

int32_t machine_step_kernel(struct machine *m, int32_t id, uint8_t byte)
{
    return step_frames(m, m->cfgs[id].kernel, m->cfgs[id].n_kernel, m->nfa->class_of[byte]);
}

enum { UNKNOWN = -2 };

int32_t machine_step(struct machine *m, int32_t id, uint8_t byte)
{
    int32_t class = m->nfa->class_of[byte], n = m->nfa->n_classes;
    if (m->cfgs[id].trans >= 0) {
        int32_t to = m->trans[(size_t)m->cfgs[id].trans * (size_t)n + (size_t)class];
        if (to != UNKNOWN)
            return to;
    } else {
        if (!vec_reserve((void **)&m->trans, &m->cap_trans, (m->n_trans + 1) * (size_t)n, sizeof *m->trans))
            return fail(m);
        for (int32_t i = 0; i < n; i++)
            m->trans[m->n_trans * (size_t)n + (size_t)i] = UNKNOWN;
        m->cfgs[id].trans = (int32_t)m->n_trans++;
    }
    if (!machine_expand(m, id))
        return -1;
    int32_t to = step_frames(m, m->cfgs[id].frames, m->cfgs[id].n_frames, class);
    if (m->failed)
        return -1;
    return m->trans[(size_t)m->cfgs[id].trans * (size_t)n + (size_t)class] = to;
}

/* ---- opening, compaction ---- */

static bool open_ends(struct machine *m)
{
    /* ROOT and HOLE have no frames; returning into them is what their flags say. */
    return intern_cfg(m, m->n_frames, CFG_ACCEPT) == MACHINE_ROOT && intern_cfg(m, m->n_frames, CFG_HOLE) == MACHINE_HOLE;
}

bool machine_open(struct machine *m, const struct nfa *n)
{
    size_t words = (size_t)(n->n_rules + 63) / 64, rules = (size_t)n->n_rules, states = (size_t)n->n_states;
    *m = (struct machine){.nfa = n, .max_work = INT64_MAX};
    m->start_set = mem_try_alloc(rules, sizeof *m->start_set);
    m->pend_head = mem_try_alloc(words * 64, sizeof *m->pend_head);
    m->pend_bits = mem_try_zalloc(words, sizeof *m->pend_bits);
    m->stamp = mem_try_zalloc(states, sizeof *m->stamp);
    m->stamp_x = mem_try_zalloc(states, sizeof *m->stamp_x);
    bool ok = m->start_set && m->pend_head && m->pend_bits && m->stamp && m->stamp_x;
    for (size_t i = 0; ok && i < rules; i++)
        m->start_set[i] = -1;
    for (size_t i = 0; ok && i < words * 64; i++)
        m->pend_head[i] = -1;
    if (ok && open_ends(m))
        return true;
    machine_close(m);
    return false;
}

static void free_memory(struct machine *m)
{
    for (size_t i = 0; i < m->n_locals; i++)
        local_free(m->locals[i]);
    for (size_t i = 0; i < m->n_masks; i++)
        mem_free(m->masks[i]);
    mem_free(m->sets);
    mem_free(m->elems);
    mem_free(m->cfgs);
    mem_free(m->frames);
    mem_free(m->trans);
    mem_free(m->locals);
    mem_free(m->masks);
    mem_free(m->set_table.slots);
    mem_free(m->cfg_table.slots);
}

void machine_close(struct machine *m)
{
    free_memory(m);
    mem_free(m->start_set);
    mem_free(m->pend_head);
    mem_free(m->pend_bits);
    mem_free(m->stamp);
    mem_free(m->stamp_x);
    mem_free(m->seeds);
    mem_free(m->pends);
    mem_free(m->tmp);
    *m = (struct machine){0};
}

size_t machine_bytes(const struct machine *m)
{
    return m->cap_sets * sizeof *m->sets + m->cap_elems * sizeof *m->elems + m->cap_cfgs * sizeof *m->cfgs +
           m->cap_frames * sizeof *m->frames + m->cap_trans * sizeof *m->trans + m->local_bytes +
           (m->set_table.cap + m->cfg_table.cap) * sizeof(uint32_t);
}

int32_t machine_start(struct machine *m)
{
    return machine_cfg(m, &(uint64_t){(uint64_t)(uint32_t)m->nfa->start[0]}, 1, MACHINE_ROOT);
}

/* Copies one configuration whose parents are copied already. */
static bool copy_cfg(struct machine *to, const struct machine *from, int32_t id, int32_t *map)
{
    const struct cfg *c = &from->cfgs[id];
    size_t at = to->n_frames;
    for (int32_t k = 0; k < c->n_kernel; k++) {
        const struct frame *f = &from->frames[c->kernel + k];
        int32_t set = intern_set(to, from->elems + from->sets[f->set].at, (size_t)from->sets[f->set].n);
        if (set < 0 || !vec_reserve((void **)&to->frames, &to->cap_frames, to->n_frames + 1, sizeof *to->frames))
            return false;
        to->frames[to->n_frames++] = (struct frame){set, map[f->parent]};
    }
    map[id] = intern_cfg(to, at, c->flags & (CFG_ACCEPT | CFG_HOLE));
    return map[id] >= 0;
}

bool machine_compact(struct machine *m, int32_t *const *roots, size_t n)
{
    struct machine fresh;
    int32_t *map = mem_try_zalloc(m->n_cfgs, sizeof *map);
    if (!map || !machine_open(&fresh, m->nfa)) {
        mem_free(map);
        return false;
    }
    for (size_t i = 0; i < n; i++)
        map[*roots[i]] = 1;
    for (size_t id = m->n_cfgs; id-- > 2;)
        for (int32_t k = 0; map[id] && k < m->cfgs[id].n_kernel; k++)
            map[m->frames[m->cfgs[id].kernel + k].parent] = 1;
    map[MACHINE_ROOT] = MACHINE_ROOT;
    map[MACHINE_HOLE] = MACHINE_HOLE;
    bool ok = true;
    for (size_t id = 2; ok && id < m->n_cfgs; id++)
        if (map[id])
            ok = copy_cfg(&fresh, m, (int32_t)id, map);
    if (ok) {
        for (size_t i = 0; i < n; i++)
            *roots[i] = map[*roots[i]];
        fresh.work = m->work;
        fresh.max_work = m->max_work;
        machine_close(m);
        *m = fresh;
    } else {
        machine_close(&fresh);
    }
    mem_free(map);
    return ok;
}
