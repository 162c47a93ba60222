/* The vocabulary as a trie over bytes. */
#include <stdlib.h>
#include <string.h>
#include "base/mem.h"
#include "guide/guide_int.h"
#include "tok/tok.h"

enum { MAX_TOKEN_BYTES = 4096 };

struct word { const char *s; size_t len; int32_t id; };

static int compare_words(const void *pa, const void *pb)
{
    const struct word *a = pa, *b = pb;
    size_t n = a->len < b->len ? a->len : b->len;
    int c = memcmp(a->s, b->s, n);
    if (c)
        return c;
    if (a->len != b->len)
        return a->len < b->len ? -1 : 1;
    return (a->id > b->id) - (a->id < b->id);
}

static size_t common_prefix(const struct word *a, const struct word *b)
{
    size_t n = a->len < b->len ? a->len : b->len, i = 0;
    while (i < n && a->s[i] == b->s[i])
        i++;
    return i;
}

/* words are sorted: preorder is their order. */
static bool build_trie(struct trie *t, const struct word *w, int32_t n)
{
    size_t nodes = 1;
    for (int32_t i = 0; i < n; i++)
        nodes += w[i].len - (i ? common_prefix(&w[i - 1], &w[i]) : 0);
    t->byte = mem_try_zalloc(nodes, sizeof *t->byte);
    t->depth = mem_try_zalloc(nodes, sizeof *t->depth);
    t->skip = mem_try_zalloc(nodes, sizeof *t->skip);
    t->first = mem_try_zalloc(nodes + 1, sizeof *t->first);
    t->tokens = mem_try_alloc((size_t)n, sizeof *t->tokens);
    int32_t *open = mem_try_zalloc(MAX_TOKEN_BYTES + 1, sizeof *open);   /* the node at each depth of the current path */
    bool ok = nodes < INT32_MAX && t->byte && t->depth && t->skip && t->first && t->tokens && open;
    int32_t k = 1;
    size_t depth = 0;
    for (int32_t i = 0; ok && i < n; i++) {
        size_t same = i ? common_prefix(&w[i - 1], &w[i]) : 0;
        for (; depth > same; depth--)
            t->skip[open[depth]] = k;
        for (; depth < w[i].len; k++) {
            t->byte[k] = (uint8_t)w[i].s[depth];
            t->depth[k] = (uint16_t)++depth;
            t->first[k] = i;
            open[depth] = k;
        }
        t->tokens[i] = w[i].id;
        t->max_depth = (int32_t)depth > t->max_depth ? (int32_t)depth : t->max_depth;
    }
    for (; ok && depth > 0; depth--)
        t->skip[open[depth]] = k;
    if (ok) {
        t->n = k;
        t->n_tokens = n;
        t->skip[0] = k;
        t->first[k] = n;
    }
    mem_free(open);
    return ok;
}

static void vocab_free(struct guide_vocab *v)
{
    mem_free(v->eos_ids);
    mem_free(v->trie.byte);
    mem_free(v->trie.depth);
    mem_free(v->trie.skip);
    mem_free(v->trie.first);
    mem_free(v->trie.tokens);
    mem_free(v->quoted);
    mem_free(v->text_at);
    mem_free(v->text);
    pthread_mutex_destroy(&v->lock);
    mem_free(v);
}

void guide_vocab_unref(struct guide_vocab *v)
{
    if (v && atomic_fetch_sub(&v->refs, 1) == 1)
        vocab_free(v);
}

size_t guide_vocab_bytes(const struct guide_vocab *v)
{
    return (size_t)v->trie.n * 11 + (size_t)v->trie.n_tokens * 4 + (size_t)v->vocab_size * 4 + (size_t)v->text_at[v->vocab_size];
}

static bool is_eos(const struct guide_vocab *v, int32_t id)
{
    for (int32_t i = 0; i < v->n_eos; i++)
        if (v->eos_ids[i] == id)
            return true;
    return false;
}

static bool copy_text(struct guide_vocab *v, const char *const *tokens, const size_t *lens)
{
    size_t total = 0;
    for (int32_t i = 0; i < v->vocab_size; i++)
        total += tokens[i] && lens[i] <= MAX_TOKEN_BYTES ? lens[i] : 0;
    v->text_at = mem_try_alloc((size_t)v->vocab_size + 1, sizeof *v->text_at);
    v->text = mem_try_alloc(total, 1);
    if (!v->text_at || !v->text || total > INT32_MAX)
        return false;
    int32_t at = 0;
    for (int32_t i = 0; i < v->vocab_size; i++) {
        v->text_at[i] = at;
        if (!tokens[i] || lens[i] > MAX_TOKEN_BYTES || is_eos(v, i))
            continue;
        memcpy(v->text + at, tokens[i], lens[i]);
        at += (int32_t)lens[i];
    }
    v->text_at[v->vocab_size] = at;
    return true;
}

static bool find_quoted(struct guide_vocab *v)
{
    for (int pass = 0; pass < 2; pass++) {
        int32_t n = 0;
        for (int32_t i = 0; i < v->vocab_size; i++)
            if (memchr(v->text + v->text_at[i], '"', (size_t)(v->text_at[i + 1] - v->text_at[i])) && n++ < v->n_quoted)
                v->quoted[n - 1] = i;
        if (pass == 0 && !(v->quoted = mem_try_alloc((size_t)n, sizeof *v->quoted)))
            return false;
        v->n_quoted = n;
    }
    return true;
}

static bool sort_and_build(struct guide_vocab *v)
{
    struct word *w = mem_try_alloc((size_t)v->vocab_size, sizeof *w);
    int32_t n = 0;
    if (!w)
        return false;
    for (int32_t i = 0; i < v->vocab_size; i++)
        if (v->text_at[i + 1] > v->text_at[i])
            w[n++] = (struct word){v->text + v->text_at[i], (size_t)(v->text_at[i + 1] - v->text_at[i]), i};
    qsort(w, (size_t)n, sizeof *w, compare_words);
    bool ok = build_trie(&v->trie, w, n);
    mem_free(w);
    return ok && find_quoted(v);
}

bool guide_vocab_open_bytes(struct guide_vocab **out, const char *const *tokens, const size_t *lens, int32_t vocab_size,
                            const int32_t *eos_ids, int32_t n_eos, struct err *e)
{
    *out = NULL;
    struct guide_vocab *v = mem_try_zalloc(1, sizeof *v);
    if (!v)
        return err_set(e, ERR_NOMEM, "out of memory for the vocabulary");
    atomic_init(&v->refs, 1);
    pthread_mutex_init(&v->lock, NULL);
    v->vocab_size = vocab_size;
    v->n_words = (vocab_size + 31) / 32;
    v->eos_ids = mem_try_alloc((size_t)n_eos, sizeof *v->eos_ids);
    for (int32_t i = 0; v->eos_ids && i < n_eos; i++)
        if (eos_ids[i] >= 0 && eos_ids[i] < vocab_size)
            v->eos_ids[v->n_eos++] = eos_ids[i];
    if (!v->eos_ids || !copy_text(v, tokens, lens) || !sort_and_build(v)) {
        vocab_free(v);
        return err_set(e, ERR_NOMEM, "out of memory for the vocabulary");
    }
    *out = v;
    return true;
}

bool guide_vocab_open(struct guide_vocab **out, const struct tok *tok, int32_t vocab_size, const int32_t *eos_ids, int32_t n_eos,
                      struct err *e)
{
    const char **tokens = mem_try_zalloc((size_t)vocab_size, sizeof *tokens);
    size_t *lens = mem_try_zalloc((size_t)vocab_size, sizeof *lens);
    bool ok = tokens && lens;
    *out = NULL;
    for (int32_t i = 0; ok && i < vocab_size && i < tok_vocab_size(tok); i++)
        if (!tok_is_special(tok, i))
            tokens[i] = tok_token_bytes(tok, i, &lens[i]);
    ok = ok ? guide_vocab_open_bytes(out, tokens, lens, vocab_size, eos_ids, n_eos, e) : err_set(e, ERR_NOMEM, "out of memory for the vocabulary");
    mem_free(tokens);
    mem_free(lens);
    return ok;
}
