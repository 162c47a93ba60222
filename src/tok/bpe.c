/* Byte pair encoding (Sennrich et al. 2016) as applied by the reference: of all mergeable
 * neighbours the pair of lowest rank, leftmost first, until none is left. */
#include <stdio.h>
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
#define NO_PAIR UINT64_MAX

static uint64_t pair_of(int32_t a, int32_t b)
{
    return (uint64_t)(uint32_t)a << 32 | (uint32_t)b;
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
        if (m->merges[i].pair == pair)
            return m->merges[i].rank;
        if (m->merges[i].pair == NO_PAIR)
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

struct merge_list {
    struct { uint64_t *items; size_t n, cap; } pairs;
    struct { int32_t *items; size_t n, cap; } ids;
    struct buf a, b;
};

static bool merge_error(struct err *e, size_t rank, const char *text, const char *why)
{
    return err_set(e, ERR_FORMAT, "tokenizer.json: model.merges[%zu]: '%.80s' %s", rank, text, why);
}

/* The merge of l->a and l->b has the next rank. */
static bool add_merge(const struct tok_model *m, struct merge_list *l, struct err *e)
{
    size_t rank = l->ids.n, prefix = m->prefix ? strlen(m->prefix) : 0;
    int32_t a = tok_vocab_id(&m->vocab, l->a.data, l->a.len), b = tok_vocab_id(&m->vocab, l->b.data, l->b.len);
    if (a < 0 || b < 0)
        return merge_error(e, rank, a < 0 ? l->a.data : l->b.data, "is not in the vocabulary");
    if (l->b.len < prefix)
        return merge_error(e, rank, l->b.data, "is shorter than continuing_subword_prefix");
    if (!buf_append(&l->a, l->b.data + prefix, l->b.len - prefix))
        return tok_nomem(e);
    int32_t id = tok_vocab_id(&m->vocab, l->a.data, l->a.len);
    if (id < 0)
        return merge_error(e, rank, l->a.data, "is the result, but not in the vocabulary");
    if (!vec_reserve((void **)&l->pairs.items, &l->pairs.cap, rank + 1, sizeof *l->pairs.items) ||
        !vec_reserve((void **)&l->ids.items, &l->ids.cap, rank + 1, sizeof *l->ids.items))
        return tok_nomem(e);
    l->pairs.items[l->pairs.n++] = pair_of(a, b);
    l->ids.items[l->ids.n++] = id;
    return true;
}

/* One element of the array: "a b" or ["a", "b"]. */
static bool read_merge(struct tok_js *j, struct merge_list *l, bool *skip, struct err *e)
{
    buf_clear(&l->a);
    buf_clear(&l->b);
    *skip = false;
    if (!buf_reserve(&l->a, 1) || !buf_reserve(&l->b, 1))
        return tok_nomem(e);
    if (tok_js_eat(j, '['))
        return tok_js_string(j, &l->a, e) && tok_js_expect(j, ',', e) && tok_js_string(j, &l->b, e) && tok_js_expect(j, ']', e);
    if (!tok_js_string(j, &l->a, e))
        return false;
    *skip = l->a.len >= 8 && memcmp(l->a.data, "#version", 8) == 0;
    if (*skip)
        return true;
    char *space = memchr(l->a.data, ' ', l->a.len);
    size_t at = space ? (size_t)(space - l->a.data) : 0, rest = space ? l->a.len - at - 1 : 0;
    if (!space || memchr(space + 1, ' ', rest))
        return merge_error(e, l->ids.n, l->a.data, "is not two tokens with a space between");
    if (!buf_append(&l->b, space + 1, rest))
        return tok_nomem(e);
    l->a.len = at;
    l->a.data[at] = 0;
    return true;
}

static bool build_merges(struct tok_model *m, const struct merge_list *l, struct err *e)
{
    size_t cap = 16;
    while (cap / 2 < l->pairs.n)
        cap *= 2;
    m->merges = mem_try_alloc(cap, sizeof *m->merges);
    if (!m->merges)
        return tok_nomem(e);
    memset(m->merges, 0xff, cap * sizeof *m->merges);
    m->merge_mask = cap - 1;
    for (size_t k = 0; k < l->pairs.n; k++) {
        size_t i = merge_slot(m, l->pairs.items[k]);
        while (m->merges[i].pair != NO_PAIR && m->merges[i].pair != l->pairs.items[k])
            i = (i + 1) & m->merge_mask;
        m->merges[i] = (struct tok_merge){l->pairs.items[k], (uint32_t)k, l->ids.items[k]};
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
    bool first = true, bad = false, skip, ok = false;
    tok_js_init(&j, merges->p, merges->len, "tokenizer.json: model.merges");
    if (!tok_js_expect(&j, '[', e))
        goto done;
    while (tok_js_more(&j, ']', &first, &bad, e))
        if (!read_merge(&j, &l, &skip, e) || (!skip && !add_merge(m, &l, e)))
            goto done;
    if (bad || !build_merges(m, &l, e) || !build_chars(m, e))
        goto done;
    m->rank_id = l.ids.items;
    m->n_merges = l.ids.n;
    l.ids.items = NULL;
    /* Words of a byte-level pre-tokenizer are short already. */
    bool cut = !m->prefix && !m->suffix;
    for (size_t i = 0; i < t->n_pres; i++)
        cut = cut && t->pres[i].kind != TOK_PRE_BYTE_LEVEL;
    ok = !cut || build_bigrams(m, e);
done:
    mem_free(l.pairs.items);
    mem_free(l.ids.items);
    buf_free(&l.a);
    buf_free(&l.b);
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

/* Binary min-heap of rank << 32 | position. */
static void sift_down(uint64_t *heap, size_t n, size_t i)
{
    uint64_t x = heap[i];
    for (size_t c; (c = 2 * i + 1) < n; i = c) {
        c += c + 1 < n && heap[c + 1] < heap[c];
        if (heap[c] >= x)
            break;
        heap[i] = heap[c];
    }
    heap[i] = x;
}

static bool heap_push(struct tok_work *w, uint64_t x)
{
    if (!vec_reserve((void **)&w->heap.items, &w->heap.cap, w->heap.n + 1, sizeof *w->heap.items))
        return false;
    size_t i = w->heap.n++;
    for (; i > 0 && w->heap.items[(i - 1) / 2] > x; i = (i - 1) / 2)
        w->heap.items[i] = w->heap.items[(i - 1) / 2];
    w->heap.items[i] = x;
    return true;
}

static uint64_t heap_pop(struct tok_work *w)
{
    uint64_t top = w->heap.items[0];
    w->heap.items[0] = w->heap.items[--w->heap.n];
    if (w->heap.n)
        sift_down(w->heap.items, w->heap.n, 0);
    return top;
}

/* Rank symbol i with its next one and queue the merge. */
static bool queue_pair(struct tok_work *w, int32_t i)
{
    struct tok_sym *s = w->syms.items;
    int32_t next = s[i].next;
    s[i].rank = (size_t)next < w->syms.n ? rank_of(&w->t->model, s[i].id, s[next].id) : NO_RANK;
    return s[i].rank == NO_RANK || heap_push(w, (uint64_t)s[i].rank << 32 | (uint32_t)i);
}

/* Many symbols: a heap of candidate merges, O(n log n).  A candidate is stale when its
 * symbol is gone or its pair now gives another token. */
static bool merge_large(struct tok_work *w)
{
    const struct tok_model *m = &w->t->model;
    struct tok_sym *s = w->syms.items;
    w->heap.n = 0;
    if (!vec_reserve((void **)&w->heap.items, &w->heap.cap, w->syms.n, sizeof *w->heap.items))
        return false;
    for (size_t i = 0; i + 1 < w->syms.n; i++) {
        s[i].rank = rank_of(m, s[i].id, s[i + 1].id);
        if (s[i].rank != NO_RANK)
            w->heap.items[w->heap.n++] = (uint64_t)s[i].rank << 32 | i;
    }
    for (size_t i = w->heap.n / 2; i-- > 0;)
        sift_down(w->heap.items, w->heap.n, i);
    while (w->heap.n) {
        uint64_t top = heap_pop(w);
        int32_t at = (int32_t)(uint32_t)top, new_id = m->rank_id[top >> 32];
        if (s[at].id < 0 || s[at].rank == NO_RANK || m->rank_id[s[at].rank] != new_id)
            continue;
        int32_t right = s[at].next;
        s[at].id = new_id;
        s[at].next = s[right].next;
        s[right].id = -1;
        if ((size_t)s[at].next < w->syms.n)
            s[s[at].next].prev = at;
        if ((s[at].prev >= 0 && !queue_pair(w, s[at].prev)) || !queue_pair(w, at))
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
