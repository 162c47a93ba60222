/* Unigram language model (Kudo 2018): the segmentation of highest total score, by Viterbi over
 * bytes with a trie of the pieces. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/vec.h"
#include "tok/tok_int.h"

#define UNK_PENALTY 10.0

/* ---- opening */

/* One ["piece", score]. */
static bool read_piece(struct tok_js *j, struct tok_model *m, size_t *score_cap, struct err *e)
{
    double score;
    size_t at = m->vocab.text.len, id = m->vocab.n_strings++;
    if (!tok_js_expect(j, '[', e) || !tok_js_string(j, &m->vocab.text, e) || !tok_js_expect(j, ',', e) ||
        !tok_js_number(j, &score, e) || !tok_js_expect(j, ']', e))
        return false;
    if (!tok_vocab_add(&m->vocab, at, (int64_t)id, e))
        return false;
    if (!vec_reserve((void **)&m->score_of, score_cap, id + 1, sizeof *m->score_of))
        return tok_nomem(e);
    m->score_of[id] = score;
    m->min_score = score < m->min_score ? score : m->min_score;
    return true;
}

struct build { const struct tok_vocab *v; const uint32_t *order; struct tok_model *m; size_t cap, labels_cap; };

static int compare_entries(const void *a, const void *b, void *arg)
{
    const struct tok_vocab *v = arg;
    const struct tok_entry *x = &v->entries[*(const uint32_t *)a], *y = &v->entries[*(const uint32_t *)b];
    size_t n = x->len < y->len ? x->len : y->len;
    int c = memcmp(v->text.data + x->at, v->text.data + y->at, n);
    return c ? c : (x->len > y->len) - (x->len < y->len);
}

/* Reserve n nodes; the first index. */
static bool take_nodes(struct build *b, size_t n, uint32_t *first)
{
    struct tok_model *m = b->m;
    if (m->n_nodes + n > UINT32_MAX || !vec_reserve((void **)&m->nodes, &b->cap, m->n_nodes + n, sizeof *m->nodes) ||
        !vec_reserve((void **)&m->labels, &b->labels_cap, m->n_nodes + n, 1))
        return false;
    *first = (uint32_t)m->n_nodes;
    for (size_t i = 0; i < n; i++)
        m->nodes[m->n_nodes + i] = (struct tok_trie_node){.id = -1};
    m->n_nodes += n;
    return true;
}

/* What is still to be made into nodes: entries order[lo..hi) share depth bytes, which lead to node. */
struct todo { uint32_t node, lo, hi, depth; };

/* Children of one node: a run of sorted entries for each next byte. */
static bool expand(struct build *b, struct todo x, struct todo **stack, size_t *n, size_t *cap)
{
    const struct tok_vocab *v = b->v;
    uint32_t lo = x.lo, first, kinds = 0;
    if (lo < x.hi && v->entries[b->order[lo]].len == x.depth)
        b->m->nodes[x.node].id = v->entries[b->order[lo++]].id;
    int last = -1;
    for (uint32_t i = lo; i < x.hi; i++) {
        int c = (unsigned char)v->text.data[v->entries[b->order[i]].at + x.depth];
        kinds += c != last;
        last = c;
    }
    if (!kinds)
        return true;
    if (!take_nodes(b, kinds, &first) || !vec_reserve((void **)stack, cap, *n + kinds, sizeof **stack))
        return false;
    b->m->nodes[x.node].child = first;
    b->m->nodes[x.node].n_children = (uint16_t)kinds;
    for (uint32_t i = lo, k = first; i < x.hi; k++) {
        uint32_t start = i;
        uint8_t c = (uint8_t)v->text.data[v->entries[b->order[i]].at + x.depth];
        while (i < x.hi && (uint8_t)v->text.data[v->entries[b->order[i]].at + x.depth] == c)
            i++;
        b->m->labels[k] = c;
        (*stack)[(*n)++] = (struct todo){k, start, i, x.depth + 1};
    }
    return true;
}

static bool build_trie(struct tok_model *m, struct err *e)
{
    struct build b = {.v = &m->vocab, .m = m};
    uint32_t root, *order = mem_try_alloc(m->vocab.n, sizeof *order);
    struct todo *stack = NULL;
    size_t n = 0, cap = 0;
    bool ok = order && take_nodes(&b, 1, &root) && vec_reserve((void **)&stack, &cap, 1, sizeof *stack);
    if (ok) {
        for (size_t i = 0; i < m->vocab.n; i++)
            order[i] = (uint32_t)i;
        qsort_r(order, m->vocab.n, sizeof *order, compare_entries, &m->vocab);
        b.order = order;
        stack[n++] = (struct todo){root, 0, (uint32_t)m->vocab.n, 0};
    }
    while (ok && n > 0) {
        struct todo x = stack[--n];
        ok = expand(&b, x, &stack, &n, &cap);
    }
    mem_free(order);
    mem_free(stack);
    return ok || tok_nomem(e);
}

bool tok_unigram_load(struct tok *t, const struct tok_span *vocab, struct err *e)
{
    struct tok_model *m = &t->model;
    struct tok_js j;
    size_t cap = 0;
    bool first = true, bad = false;
    m->min_score = INFINITY;
    tok_js_init(&j, vocab->p, vocab->len, "tokenizer.json: model.vocab");
    if (!tok_js_expect(&j, '[', e))
        return false;
    while (tok_js_more(&j, ']', &first, &bad, e))
        if (!read_piece(&j, m, &cap, e))
            return false;
    if (bad)
        return false;
    size_t n = m->vocab.n_strings;
    if (!tok_vocab_finish(&m->vocab, e))
        return false;
    m->vocab.n_strings = n;      /* the reference counts repeated pieces too */
    return build_trie(m, e);
}

/* ---- encoding */

/* Child of a node by byte, or 0 (the root is nobody's child). */
static uint32_t child(const struct tok_model *m, uint32_t node, uint8_t c)
{
    size_t lo = m->nodes[node].child, hi = lo + m->nodes[node].n_children;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (m->labels[mid] == c)
            return (uint32_t)mid;
        if (m->labels[mid] < c)
            lo = mid + 1;
        else
            hi = mid;
    }
    return 0;
}

static void improve(struct tok_best *b, double score, size_t start, int32_t id)
{
    if (b->start < 0 || score > b->score)
        *b = (struct tok_best){score, (int32_t)start, id};
}

/* Fills best[0..len]: how the best segmentation up to each byte ends. */
static bool viterbi(const struct tok_model *m, const char *s, size_t len, struct tok_best *best, struct err *e)
{
    double unk_score = m->min_score - UNK_PENALTY;
    for (size_t i = 0; i <= len; i++)
        best[i] = (struct tok_best){0, -1, 0};
    for (size_t i = 0, n; i < len; i += n) {
        double here = best[i].score;
        bool single = false;
        uint32_t node = 0;
        n = (size_t)tok_cp_len(s + i);
        for (size_t k = i; k < len && (node = child(m, node, (uint8_t)s[k]));) {
            k++;
            int32_t id = m->nodes[node].id;
            if (id < 0)
                continue;
            improve(&best[k], m->score_of[id] + here, i, id);
            single |= k - i == n;
        }
        if (single)
            continue;
        if (m->unk_id < 0)
            return err_set(e, ERR_INVALID, "the text has a character that is not in the vocabulary, and there is no unk_id");
        improve(&best[i + n], unk_score + here, i, m->unk_id);
    }
    return true;
}

/* The ids of one piece of the result; unknown text becomes bytes where the vocabulary has them all. */
static bool push_piece(struct tok_work *w, const char *s, size_t len)
{
    const struct tok_model *m = &w->t->model;
    int32_t id = tok_vocab_id(&m->vocab, s, len);
    bool bytes = id < 0 && m->byte_fallback;
    for (size_t i = 0; bytes && i < len; i++)
        bytes = m->byte_ids[(unsigned char)s[i]] >= 0;
    if (!bytes)
        return tok_ids_push(&w->ids, id < 0 ? m->unk_id : id);
    for (size_t i = 0; i < len; i++)
        if (!tok_ids_push(&w->ids, m->byte_ids[(unsigned char)s[i]]))
            return false;
    return true;
}

bool tok_unigram_encode(struct tok_work *w, const char *s, size_t len, struct err *e)
{
    const struct tok_model *m = &w->t->model;
    bool ok;
    size_t from = w->ids.n;
    if (tok_cache_get(w->cache, s, len, &w->ids, &ok))
        return ok || tok_nomem(e);
    if (!vec_reserve((void **)&w->best.items, &w->best.cap, len + 1, sizeof *w->best.items))
        return tok_nomem(e);
    struct tok_best *best = w->best.items;
    if (!viterbi(m, s, len, best, e))
        return false;
    /* Back along the links; neighbouring unknown pieces are one. */
    w->matches.n = 0;
    for (size_t at = len; at > 0; at = (size_t)best[at].start) {
        bool unk = best[at].id == m->unk_id;
        struct tok_match *last = w->matches.n ? &w->matches.items[w->matches.n - 1] : NULL;
        if (last && last->hit && unk) {
            last->start = (size_t)best[at].start;
            continue;
        }
        if (!vec_reserve((void **)&w->matches.items, &w->matches.cap, w->matches.n + 1, sizeof *w->matches.items))
            return tok_nomem(e);
        w->matches.items[w->matches.n++] = (struct tok_match){(size_t)best[at].start, at, unk};
    }
    for (size_t i = w->matches.n; i-- > 0;)
        if (!push_piece(w, s + w->matches.items[i].start, w->matches.items[i].end - w->matches.items[i].start))
            return tok_nomem(e);
    tok_cache_put(w->cache, s, len, &w->ids, from);
    return true;
}
