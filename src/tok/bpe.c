/* Byte pair encoding (Sennrich et al. 2016) as applied by the reference: of all mergeable
 * neighbours the pair of lowest rank, leftmost first, until none is left. */
#include <string.h>

#include "base/mem.h"
#include "base/vec.h"
#include "tok/tok_int.h"

enum {
    SMALL_WORD = 40,         /* symbols; up to here a scan beats a heap */
    CUT_MIN_BYTES = 16,      /* shorter words are not worth cutting */
    BIGRAM_BITS = 21,
};
#define NO_RANK UINT32_MAX
#define NO_MERGE UINT64_MAX

/* A slot of the merge table is one word, left id | right id | rank, so that a lookup touches one cache line. */
enum { ID_BITS = 22, RANK_BITS = 20, MAX_MERGES = (1 << RANK_BITS) - 1 };
_Static_assert(TOK_MAX_IDS <= 1 << ID_BITS && 2 * ID_BITS + RANK_BITS <= 64, "ids and ranks share a word");

static uint64_t pair_of(int32_t a, int32_t b)
{
    return (uint64_t)(uint32_t)a << ID_BITS | (uint32_t)b;
}

static size_t merge_slot(const struct tok_model *m, uint64_t pair)
{
    uint64_t h = pair * 0x9E3779B97F4A7C15u;
    return (size_t)(h ^ h >> 29) & m->merge_mask;
}

static uint32_t rank_of(const struct tok_model *m, int32_t a, int32_t b)
{
    uint64_t pair = pair_of(a, b);
    for (size_t i = merge_slot(m, pair);; i = (i + 1) & m->merge_mask) {
        uint64_t slot = m->merges[i];
        if (slot >> RANK_BITS == pair && slot != NO_MERGE)
            return (uint32_t)slot & MAX_MERGES;
        if (slot == NO_MERGE)
            return NO_RANK;
    }
}

static size_t bigram_bit(uint32_t a, uint32_t b)
{
    uint64_t h = ((uint64_t)a << 21 | b) * 0x9E3779B97F4A7C15u;
    return (size_t)(h >> (64 - BIGRAM_BITS));
}

/* Whether some merge may join characters a and b; may say yes when none does. */
static bool may_join(const struct tok_model *m, uint32_t a, uint32_t b)
{
    size_t bit = bigram_bit(a, b);
    return m->bigrams[bit / 64] >> (bit % 64) & 1;
}

/* ---- opening */

/* Merges are read in batches, so that the lookups of a batch overlap. */
enum { BATCH = 64 };

struct merge_list {
    struct { uint64_t *items; size_t n, cap; } pairs;
    struct { int32_t *items; size_t n, cap; } ids;
    struct buf text, joined;     /* spellings of a batch; of one result */
    struct { size_t a, b, end; } at[BATCH];   /* into text: left part, right part, end */
    size_t n;                    /* in the batch */
};

static bool merge_error(struct err *e, size_t rank, const char *text, size_t len, const char *why)
{
    return err_set(e, ERR_FORMAT, "tokenizer.json: model.merges[%zu]: '%.*s' %s", rank, len < 80 ? (int)len : 80, text, why);
}

/* Id of the joined parts: nearly always that of the merge before, or the next one. */
static int32_t result_id(const struct tok_model *m, const struct merge_list *l)
{
    int32_t guess = l->ids.n ? l->ids.items[l->ids.n - 1] : 0;
    for (int k = 0; k < 2; k++) {
        size_t len;
        const char *s = tok_vocab_spelling(&m->vocab, guess + k, &len);
        if (s && len == l->joined.len && memcmp(s, l->joined.data, len) == 0)
            return guess + k;
    }
    return tok_vocab_id(&m->vocab, l->joined.data, l->joined.len);
}

/* The merge of keys a and b has the next rank. */
static bool add_merge(const struct tok_model *m, struct merge_list *l, const struct tok_key *a, const struct tok_key *b, struct err *e)
{
    size_t rank = l->ids.n, prefix = m->prefix ? strlen(m->prefix) : 0;
    if (a->id < 0 || b->id < 0)
        return merge_error(e, rank, a->id < 0 ? a->s : b->s, a->id < 0 ? a->len : b->len, "is not in the vocabulary");
    if (b->len < prefix)
        return merge_error(e, rank, b->s, b->len, "is shorter than continuing_subword_prefix");
    buf_clear(&l->joined);
    if (!buf_reserve(&l->joined, a->len + b->len) || !buf_append(&l->joined, a->s, a->len) ||
        !buf_append(&l->joined, b->s + prefix, b->len - prefix))
        return tok_nomem(e);
    int32_t id = result_id(m, l);
    if (id < 0)
        return merge_error(e, rank, l->joined.data, l->joined.len, "is the result, but not in the vocabulary");
    if (rank >= MAX_MERGES)
        return err_set(e, ERR_TOO_LARGE, "tokenizer.json: model.merges has more than %d entries", MAX_MERGES);
    if (!vec_reserve((void **)&l->pairs.items, &l->pairs.cap, rank + 1, sizeof *l->pairs.items) ||
        !vec_reserve((void **)&l->ids.items, &l->ids.cap, rank + 1, sizeof *l->ids.items))
        return tok_nomem(e);
    l->pairs.items[l->pairs.n++] = pair_of(a->id, b->id);
    l->ids.items[l->ids.n++] = id;
    return true;
}

static bool add_batch(const struct tok_model *m, struct merge_list *l, struct err *e)
{
    struct tok_key keys[2 * BATCH];
    for (size_t i = 0; i < l->n; i++) {
        keys[2 * i] = (struct tok_key){.s = l->text.data + l->at[i].a, .len = l->at[i].b - l->at[i].a};
        keys[2 * i + 1] = (struct tok_key){.s = l->text.data + l->at[i].b, .len = l->at[i].end - l->at[i].b};
    }
    tok_vocab_find(&m->vocab, keys, 2 * l->n);
    for (size_t i = 0; i < l->n; i++)
        if (!add_merge(m, l, &keys[2 * i], &keys[2 * i + 1], e))
            return false;
    l->n = 0;
    buf_clear(&l->text);
    return true;
}

/* One element of the array: "a b" or ["a", "b"]. */
static bool read_merge(struct tok_js *j, struct merge_list *l, struct err *e)
{
    struct buf *t = &l->text;
    size_t a = t->len, b;
    if (!buf_reserve(t, 1))
        return tok_nomem(e);
    if (tok_js_eat(j, '[')) {
        if (!tok_js_string(j, t, e) || !tok_js_expect(j, ',', e))
            return false;
        b = t->len;
        if (!tok_js_string(j, t, e) || !tok_js_expect(j, ']', e))
            return false;
    } else {
        if (!tok_js_string(j, t, e))
            return false;
        size_t len = t->len - a;
        if (len >= 8 && memcmp(t->data + a, "#version", 8) == 0) {
            t->len = a;
            return true;
        }
        char *space = memchr(t->data + a, ' ', len);
        if (!space || memchr(space + 1, ' ', (size_t)(t->data + t->len - space - 1)))
            return merge_error(e, l->ids.n + l->n, t->data + a, len, "is not two tokens with a space between");
        b = (size_t)(space - t->data);
        memmove(space, space + 1, (size_t)(t->data + t->len - space - 1));
        t->len--;
    }
    l->at[l->n].a = a;
    l->at[l->n].b = b;
    l->at[l->n++].end = t->len;
    return true;
}

static bool build_merges(struct tok_model *m, const struct merge_list *l, struct err *e)
{
    size_t cap = 16;
    while (cap / 5 * 3 < l->pairs.n)
        cap *= 2;
    m->merges = mem_try_alloc(cap, sizeof *m->merges);
    if (!m->merges)
        return tok_nomem(e);
    memset(m->merges, 0xff, cap * sizeof *m->merges);
    m->merge_mask = cap - 1;
    for (size_t k = 0; k < l->pairs.n; k++) {
        size_t i = merge_slot(m, l->pairs.items[k]);
        while (m->merges[i] != NO_MERGE && m->merges[i] >> RANK_BITS != l->pairs.items[k])
            i = (i + 1) & m->merge_mask;
        m->merges[i] = l->pairs.items[k] << RANK_BITS | k;   /* of a pair given twice the later rank counts */
    }
    return true;
}

/* Marks every pair of neighbouring characters inside the result of a merge.  Between two
 * characters that are no such pair a text can be cut without changing any merge. */
static bool build_bigrams(struct tok_model *m, struct err *e)
{
    m->bigrams = mem_try_zalloc(((size_t)1 << BIGRAM_BITS) / 64, sizeof *m->bigrams);
    if (!m->bigrams)
        return tok_nomem(e);
    for (size_t k = 0; k < m->n_merges; k++) {
        size_t len;
        const char *s = tok_vocab_spelling(&m->vocab, m->rank_id[k], &len);
        uint32_t last, cp;
        if (!s || len == 0)
            continue;
        for (size_t i = (size_t)tok_cp(s, &last); i < len; last = cp) {
            i += (size_t)tok_cp(s + i, &cp);
            size_t bit = bigram_bit(last, cp);
            m->bigrams[bit / 64] |= (uint64_t)1 << (bit % 64);
        }
    }
    return true;
}

static bool build_chars(struct tok_model *m, struct err *e)
{
    m->char_id = mem_try_alloc(0x10000, sizeof *m->char_id);
    if (!m->char_id)
        return tok_nomem(e);
    memset(m->char_id, 0xff, 0x10000 * sizeof *m->char_id);
    for (size_t k = 0; k < m->vocab.n; k++) {
        const struct tok_entry *x = &m->vocab.entries[k];
        uint32_t cp;
        if (x->len == 0 || x->len > 3 || (size_t)tok_cp_len(m->vocab.text.data + x->at) != x->len)
            continue;
        tok_cp(m->vocab.text.data + x->at, &cp);
        m->char_id[cp] = x->id;
    }
    return true;
}

bool tok_bpe_load(struct tok *t, const struct tok_span *merges, struct err *e)
{
    struct tok_model *m = &t->model;
    struct merge_list l = {0};
    struct tok_js j;
    bool first = true, bad = false, ok = false;
    tok_js_init(&j, merges->p, merges->len, "tokenizer.json: model.merges");
    if (!tok_js_expect(&j, '[', e))
        goto done;
    while (tok_js_more(&j, ']', &first, &bad, e))
        if (!read_merge(&j, &l, e) || (l.n == BATCH && !add_batch(m, &l, e)))
            goto done;
    if (bad || !add_batch(m, &l, e) || !build_merges(m, &l, e) || !build_chars(m, e))
        goto done;
    m->rank_id = l.ids.items;
    m->n_merges = l.ids.n;
    l.ids.items = NULL;
    ok = m->prefix || m->suffix || build_bigrams(m, e);
done:
    mem_free(l.pairs.items);
    mem_free(l.ids.items);
    buf_free(&l.text);
    buf_free(&l.joined);
    return ok;
}

/* ---- encoding */

static bool push_sym(struct tok_work *w, int32_t id)
{
    if (!vec_reserve((void **)&w->syms.items, &w->syms.cap, w->syms.n + 1, sizeof *w->syms.items))
        return false;
    int32_t at = (int32_t)w->syms.n++;
    w->syms.items[at] = (struct tok_sym){id, at - 1, at + 1, NO_RANK};
    return true;
}

/* Id of a character, dressed in prefix and suffix where the model has them; *dressed is its spelling. */
static int32_t char_id(struct tok_work *w, const char *s, size_t n, bool first, bool last, const char **dressed, size_t *dressed_len)
{
    const struct tok_model *m = &w->t->model;
    uint32_t cp;
    *dressed = s;
    *dressed_len = n;
    if ((m->prefix && !first) || (m->suffix && last)) {
        struct buf *b = &w->scratch[0];
        buf_clear(b);
        if (m->prefix && !first)
            buf_puts(b, m->prefix);
        buf_append(b, s, n);
        if (m->suffix && last)
            buf_puts(b, m->suffix);
        if (b->failed)
            return -1;
        *dressed = b->data;
        *dressed_len = b->len;
        return tok_vocab_id(&m->vocab, b->data, b->len);
    }
    tok_cp(s, &cp);
    return cp < 0x10000 ? m->char_id[cp] : tok_vocab_id(&m->vocab, s, n);
}

/* The bytes of an unknown character as byte tokens; false when one of them is not in the vocabulary. */
static bool push_bytes(struct tok_work *w, const char *s, size_t n, bool *ok)
{
    const struct tok_model *m = &w->t->model;
    for (size_t i = 0; i < n; i++)
        if (m->byte_ids[(unsigned char)s[i]] < 0)
            return false;
    for (size_t i = 0; i < n && *ok; i++)
        *ok = push_sym(w, m->byte_ids[(unsigned char)s[i]]);
    return true;
}

/* Characters to symbols.  An unknown one waits until the next known one, so that
 * neighbours can fuse; byte tokens do not end the wait, as in the reference. */
static bool word_symbols(struct tok_work *w, const char *s, size_t len, struct err *e)
{
    const struct tok_model *m = &w->t->model;
    bool pending = false, ok = true;
    w->syms.n = 0;
    for (size_t i = 0, n; i < len && ok; i += n) {
        const char *dressed;
        size_t dressed_len;
        n = (size_t)tok_cp_len(s + i);
        int32_t id = char_id(w, s + i, n, i == 0, i + n == len, &dressed, &dressed_len);
        if (id >= 0) {
            ok = (!pending || push_sym(w, m->unk_id)) && push_sym(w, id);
            pending = false;
        } else if (m->byte_fallback && push_bytes(w, dressed, dressed_len, &ok)) {
            continue;
        } else if (m->unk) {
            if (m->unk_id < 0)
                return err_set(e, ERR_FORMAT, "tokenizer.json: model.unk_token '%.60s' is not in the vocabulary", m->unk);
            ok = !pending || m->fuse_unk || push_sym(w, m->unk_id);
            pending = true;
        }
    }
    return (ok && (!pending || push_sym(w, m->unk_id))) || tok_nomem(e);
}

/* Few symbols: look for the lowest rank each time. */
static size_t merge_small(const struct tok_model *m, struct tok_sym *sym, size_t n)
{
    for (size_t i = 0; i + 1 < n; i++)
        sym[i].rank = rank_of(m, sym[i].id, sym[i + 1].id);
    while (n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++)
            if (sym[i].rank < sym[best].rank)
                best = i;
        if (sym[best].rank == NO_RANK)
            break;
        sym[best].id = m->rank_id[sym[best].rank];
        memmove(sym + best + 1, sym + best + 2, (n - best - 2) * sizeof *sym);
        n--;
        sym[best].rank = best + 1 < n ? rank_of(m, sym[best].id, sym[best + 1].id) : NO_RANK;
        if (best > 0)
            sym[best - 1].rank = rank_of(m, sym[best - 1].id, sym[best].id);
    }
    return n;
}

/* ---- many symbols: a queue of candidate merges, a list of positions for each rank
 *
 * The next merge is the first position of the lowest rank.  New pairs nearly always come in
 * ascending positions and with higher ranks, so a list is mostly sorted and the heap holds
 * each rank once: the whole is near linear, whatever the text. */

static bool heap_push(struct tok_queue *q, uint32_t x)
{
    if (!vec_reserve((void **)&q->heap.items, &q->heap.cap, q->heap.n + 1, sizeof *q->heap.items))
        return false;
    size_t i = q->heap.n++;
    for (; i > 0 && q->heap.items[(i - 1) / 2] > x; i = (i - 1) / 2)
        q->heap.items[i] = q->heap.items[(i - 1) / 2];
    q->heap.items[i] = x;
    return true;
}

static void heap_pop(struct tok_queue *q)
{
    uint32_t *heap = q->heap.items;
    if (--q->heap.n == 0)
        return;
    uint32_t x = heap[q->heap.n];
    size_t i = 0;
    for (size_t c; (c = 2 * i + 1) < q->heap.n; i = c) {
        c += c + 1 < q->heap.n && heap[c + 1] < heap[c];
        if (heap[c] >= x)
            break;
        heap[i] = heap[c];
    }
    heap[i] = x;
}

static bool queue_push(struct tok_queue *q, uint32_t rank, uint32_t at)
{
    if (!vec_reserve((void **)&q->nodes.items, &q->nodes.cap, q->nodes.n + 1, sizeof *q->nodes.items))
        return false;
    uint32_t node = (uint32_t)q->nodes.n++;
    struct tok_bucket *b = &q->buckets[rank];
    q->nodes.items[node] = (struct tok_node){at, 0};
    if (!b->first) {
        *b = (struct tok_bucket){node, node, false};
        return heap_push(q, rank);
    }
    b->unsorted |= q->nodes.items[b->last].at > at;
    q->nodes.items[b->last].next = node;
    b->last = node;
    return true;
}

/* Merge two sorted lists. */
static uint32_t merge_lists(struct tok_node *nodes, uint32_t a, uint32_t b)
{
    uint32_t first = 0, *tail = &first;
    while (a && b) {
        uint32_t *least = nodes[a].at <= nodes[b].at ? &a : &b;
        *tail = *least;
        tail = &nodes[*least].next;
        *least = *tail;
    }
    *tail = a ? a : b;
    return first;
}

/* Sort a list by its ascending runs: run k of the counter holds 2^k runs merged. */
static void sort_bucket(struct tok_queue *q, struct tok_bucket *b)
{
    struct tok_node *nodes = q->nodes.items;
    uint32_t runs[32] = {0}, at = b->first, list = 0;
    while (at) {
        uint32_t run = at, last = at;
        while (nodes[last].next && nodes[nodes[last].next].at >= nodes[last].at)
            last = nodes[last].next;
        at = nodes[last].next;
        nodes[last].next = 0;
        int k = 0;
        for (; k < 31 && runs[k]; k++) {
            run = merge_lists(nodes, runs[k], run);
            runs[k] = 0;
        }
        runs[k] = runs[k] ? merge_lists(nodes, runs[k], run) : run;
    }
    for (int k = 0; k < 32; k++)
        list = merge_lists(nodes, runs[k], list);
    b->first = list;
    while (nodes[list].next)
        list = nodes[list].next;
    b->last = list;
    b->unsorted = false;
}

/* The next candidate; false when there is none. */
static bool queue_pop(struct tok_queue *q, uint32_t *rank, uint32_t *at)
{
    if (q->heap.n == 0)
        return false;
    *rank = q->heap.items[0];
    struct tok_bucket *b = &q->buckets[*rank];
    if (b->unsorted)
        sort_bucket(q, b);
    *at = q->nodes.items[b->first].at;
    b->first = q->nodes.items[b->first].next;
    if (!b->first)
        heap_pop(q);
    return true;
}

/* Rank symbol i with its next one and queue the merge. */
static bool queue_pair(struct tok_work *w, int32_t i)
{
    struct tok_sym *s = w->syms.items;
    int32_t next = s[i].next;
    s[i].rank = (size_t)next < w->syms.n ? rank_of(&w->t->model, s[i].id, s[next].id) : NO_RANK;
    return s[i].rank == NO_RANK || queue_push(&w->queue, s[i].rank, (uint32_t)i);
}

static bool merge_large(struct tok_work *w)
{
    const struct tok_model *m = &w->t->model;
    struct tok_sym *s = w->syms.items;
    struct tok_queue *q = &w->queue;
    if (!q->buckets && !(q->buckets = mem_try_zalloc(m->n_merges, sizeof *q->buckets)))
        return false;
    q->nodes.n = 1;              /* node 0 is the end of a list */
    if (!vec_reserve((void **)&q->nodes.items, &q->nodes.cap, w->syms.n + 1, sizeof *q->nodes.items))
        return false;
    for (size_t i = 0; i + 1 < w->syms.n; i++)
        if (!queue_pair(w, (int32_t)i))
            return false;
    for (uint32_t rank, at; queue_pop(q, &rank, &at);) {
        /* Stale when the symbol is gone or its pair now gives another token. */
        if (s[at].id < 0 || s[at].rank == NO_RANK || m->rank_id[s[at].rank] != m->rank_id[rank])
            continue;
        int32_t right = s[at].next;
        s[at].id = m->rank_id[rank];
        s[at].next = s[right].next;
        s[right].id = -1;
        if ((size_t)s[at].next < w->syms.n)
            s[s[at].next].prev = (int32_t)at;
        if ((s[at].prev >= 0 && !queue_pair(w, s[at].prev)) || !queue_pair(w, (int32_t)at))
            return false;
    }
    size_t n = 0;
    for (size_t i = 0; i < w->syms.n; i++)
        if (s[i].id >= 0)
            s[n++].id = s[i].id;
    w->syms.n = n;
    return true;
}

/* One word, or a cut of one, through the cache. */
static bool encode_word(struct tok_work *w, const char *s, size_t len, struct err *e)
{
    bool ok;
    size_t from = w->ids.n;
    if (tok_cache_get(w->cache, s, len, &w->ids, &ok))
        return ok || tok_nomem(e);
    if (!word_symbols(w, s, len, e))
        return false;
    if (w->syms.n <= SMALL_WORD)
        w->syms.n = merge_small(&w->t->model, w->syms.items, w->syms.n);
    else if (!merge_large(w))
        return tok_nomem(e);
    if (!vec_reserve((void **)&w->ids.ids, &w->ids.cap, from + w->syms.n, sizeof *w->ids.ids))
        return tok_nomem(e);
    for (size_t i = 0; i < w->syms.n; i++)
        w->ids.ids[w->ids.n++] = w->syms.items[i].id;
    tok_cache_put(w->cache, s, len, &w->ids, from);
    return true;
}

bool tok_bpe_encode(struct tok_work *w, const char *s, size_t len, struct err *e)
{
    const struct tok_model *m = &w->t->model;
    if (m->ignore_merges) {
        int32_t id = len <= m->vocab.max_len ? tok_vocab_id(&m->vocab, s, len) : -1;
        if (id >= 0)
            return tok_ids_push(&w->ids, id) || tok_nomem(e);
    }
    if (!m->bigrams || len < CUT_MIN_BYTES)
        return encode_word(w, s, len, e);
    uint32_t last = 0, cp;
    size_t start = 0, n;
    bool last_known = false;
    for (size_t i = 0; i < len; i += n) {
        n = (size_t)tok_cp(s + i, &cp);
        bool known = cp < 0x10000 ? m->char_id[cp] >= 0 : tok_vocab_id(&m->vocab, s + i, n) >= 0;
        if (known && last_known && !may_join(m, last, cp)) {
            if (!encode_word(w, s + start, i - start, e))
                return false;
            start = i;
        }
        last = cp;
        last_known = known;
    }
    return encode_word(w, s + start, len - start, e);
}
