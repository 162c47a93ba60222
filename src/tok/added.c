/* Added tokens are cut out of the text by leftmost-longest match: those with normalized false from the
 * raw text, the others from the normalized text, where their own normalized spelling is looked for. */
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/mem.h"
#include "base/vec.h"
#include "tok/tok_int.h"

/* While loading, ids are looked up here: spelling to index of the token, and id to index. */
struct known { struct hash_map *texts; struct hash_u64 *ids; int64_t max_id; };

static int32_t find_id(const struct tok *t, const struct known *k, const char *s, size_t len)
{
    int64_t i;
    if (hash_map_get(k->texts, s, len, &i))
        return t->added.tokens[i].id;
    return tok_vocab_id(&t->model.vocab, s, len);
}

/* The next id the reference gives to a token the vocabulary lacks; the id in the file does not count. */
static int64_t next_id(const struct tok *t, const struct known *k)
{
    int64_t size = (int64_t)t->model.vocab.n_strings;
    return k->max_id >= size || (size == 0 && k->max_id >= 0) ? k->max_id + 1 : size;
}

static bool read_token(const json_t *j, size_t index, struct tok_added_token *x, struct err *e)
{
    *x = (struct tok_added_token){0};
    if (!json_is_object(j))
        return err_set(e, ERR_FORMAT, "tokenizer.json: added_tokens[%zu] is not an object", index);
    if (!json_get_bool(j, "single_word", false, &x->single_word, e) || !json_get_bool(j, "lstrip", false, &x->lstrip, e) ||
        !json_get_bool(j, "rstrip", false, &x->rstrip, e) || !json_get_bool(j, "special", false, &x->special, e) ||
        !json_get_bool(j, "normalized", !x->special, &x->normalized, e) || !tok_load_str(j, "content", &x->content, &x->len, e))
        return err_prefix(e, "tokenizer.json: added_tokens[%zu]", index);
    return true;
}

/* Takes over x: a new token, or new properties of one whose id is known. */
static bool put_token(struct tok *t, struct known *k, struct tok_added_token *x, struct err *e)
{
    struct tok_added *a = &t->added;
    int64_t id = x->len ? find_id(t, k, x->content, x->len) : -1, at;
    if (id < 0)
        id = next_id(t, k);
    if (x->len && hash_u64_get(k->ids, (uint64_t)id, &at)) {
        x->id = (int32_t)id;
        x->special |= a->tokens[at].special && a->tokens[at].len == x->len;
        mem_free(a->tokens[at].content);
        a->tokens[at] = *x;
        return hash_map_put(k->texts, x->content, x->len, at) || tok_nomem(e);
    }
    bool ok = id < 2 * TOK_MAX_IDS || err_set(e, ERR_TOO_LARGE, "tokenizer.json: added token '%.60s' gets id %lld", x->content, (long long)id);
    if (ok && x->len && !(vec_reserve((void **)&a->tokens, &a->cap, a->n + 1, sizeof *a->tokens) &&
                          hash_map_put(k->texts, x->content, x->len, (int64_t)a->n) && hash_u64_put(k->ids, (uint64_t)id, (int64_t)a->n)))
        ok = tok_nomem(e);
    if (!ok || x->len == 0) {    /* an empty token is left out */
        mem_free(x->content);
        return ok;
    }
    x->id = (int32_t)id;
    a->tokens[a->n++] = *x;
    k->max_id = id > k->max_id ? id : k->max_id;
    return true;
}

static bool read_tokens(struct tok *t, struct known *k, const json_t *arr, struct err *e)
{
    const json_t *item;
    size_t i;
    json_array_foreach(arr, i, item) {
        struct tok_added_token x;
        if (!read_token(item, i, &x, e)) {
            mem_free(x.content);
            return false;
        }
        if (!put_token(t, k, &x, e))
            return false;
    }
    return true;
}

static int compare_patterns(const void *a, const void *b)
{
    const struct tok_pattern *x = a, *y = b;
    size_t n = x->len < y->len ? x->len : y->len;
    int c = memcmp(x->text, y->text, n);
    return c ? c : x->len != y->len ? (x->len < y->len ? -1 : 1) : (x->token > y->token) - (x->token < y->token);
}

static bool add_pattern(struct tok_pattern_set *set, const char *s, size_t len, size_t token)
{
    if (len == 0)
        return true;
    char *text = mem_try_strndup(s, len);
    if (text)
        memcpy(text, s, len);
    set->items[set->n] = (struct tok_pattern){text, len, (int32_t)token};
    set->n += text != NULL;
    return text != NULL;
}

static bool build_patterns(struct tok *t, struct err *e)
{
    struct tok_added *a = &t->added;
    struct tok_work w = {.t = t};
    bool ok = true;
    a->raw.items = mem_try_zalloc(a->n, sizeof *a->raw.items);
    a->normalized.items = mem_try_zalloc(a->n, sizeof *a->normalized.items);
    if (!a->raw.items || !a->normalized.items)
        return tok_nomem(e);
    for (size_t i = 0; ok && i < a->n; i++) {
        const struct tok_added_token *x = &a->tokens[i];
        uint32_t zero = 0;
        int which;
        if (!x->normalized) {
            ok = add_pattern(&a->raw, x->content, x->len, i) || tok_nomem(e);
        } else if (t->n_norms == 0) {
            ok = add_pattern(&a->normalized, x->content, x->len, i) || tok_nomem(e);
        } else {
            ok = tok_norm_run(&w, x->content, x->len, &zero, &which, e) &&
                 (add_pattern(&a->normalized, w.scratch[which].data, w.scratch[which].len, i) || tok_nomem(e));
        }
    }
    buf_free(&w.scratch[0]);
    buf_free(&w.scratch[1]);
    mem_free(w.cps.items);
    struct tok_pattern_set *sets[2] = {&a->raw, &a->normalized};
    for (int k = 0; ok && k < 2; k++) {
        qsort(sets[k]->items, sets[k]->n, sizeof *sets[k]->items, compare_patterns);
        for (size_t i = 0; i < sets[k]->n; i++)
            sets[k]->first[(unsigned char)sets[k]->items[i].text[0]] = true;
    }
    return ok;
}

bool tok_added_load(struct tok *t, const json_t *arr, struct err *e)
{
    struct tok_added *a = &t->added;
    if (arr && !json_is_null(arr) && !json_is_array(arr))
        return err_set(e, ERR_FORMAT, "tokenizer.json: added_tokens is not an array");
    struct known k = {hash_map_open(json_array_size(arr), HASH_MAP_COPY_KEYS), hash_u64_open(json_array_size(arr)), -1};
    bool ok = k.texts && k.ids ? read_tokens(t, &k, arr, e) : tok_nomem(e);
    a->by_text = k.texts;
    hash_u64_close(&k.ids);
    if (!ok)
        return false;
    a->n_ids = (int32_t)(k.max_id + 1);
    a->by_id = mem_try_alloc((size_t)a->n_ids, sizeof *a->by_id);
    if (!a->by_id)
        return tok_nomem(e);
    memset(a->by_id, 0xff, (size_t)a->n_ids * sizeof *a->by_id);
    for (size_t i = 0; i < a->n; i++)
        a->by_id[a->tokens[i].id] = (int32_t)i;
    return build_patterns(t, e);
}

static void free_set(struct tok_pattern_set *s)
{
    for (size_t i = 0; i < s->n; i++)
        mem_free(s->items[i].text);
    mem_free(s->items);
}

void tok_added_free(struct tok_added *a)
{
    for (size_t i = 0; i < a->n; i++)
        mem_free(a->tokens[i].content);
    mem_free(a->tokens);
    mem_free(a->by_id);
    hash_map_close(&a->by_text);
    free_set(&a->raw);
    free_set(&a->normalized);
}

const struct tok_added_token *tok_added_find(const struct tok_added *a, int32_t id)
{
    return id >= 0 && id < a->n_ids && a->by_id[id] >= 0 ? &a->tokens[a->by_id[id]] : NULL;
}

/* ---- cutting */

/* First index in [lo, hi) whose byte at depth is at least c; all have the same bytes before depth.
 * Patterns that end at depth come first. */
static size_t lower(const struct tok_pattern *p, size_t lo, size_t hi, size_t depth, int c)
{
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        int b = p[mid].len > depth ? (unsigned char)p[mid].text[depth] : -1;
        if (b < c)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

/* Longest pattern at s[0..len), or NULL. */
static const struct tok_pattern *longest_at(const struct tok_pattern_set *set, const char *s, size_t len)
{
    size_t lo = 0, hi = set->n;
    const struct tok_pattern *best = NULL;
    for (size_t depth = 0; lo < hi; depth++) {
        if (set->items[lo].len == depth)
            best = &set->items[lo];
        if (depth == len)
            break;
        int c = (unsigned char)s[depth];
        lo = lower(set->items, lo, hi, depth, c);
        hi = lower(set->items, lo, hi, depth, c + 1);
    }
    return best;
}

/* Whether the text before start or behind stop continues a word. */
static bool inside_word(const uint8_t *uc, const char *s, size_t len, size_t start, size_t stop)
{
    uint32_t cp;
    if (start > 0) {
        tok_cp(s + tok_cp_before(s, start), &cp);
        if (tok_uc_is_word(uc, cp))
            return true;
    }
    if (stop == len)
        return false;
    tok_cp(s + stop, &cp);
    return tok_uc_is_word(uc, cp);
}

static size_t spaces_before(const uint8_t *uc, const char *s, size_t at, size_t floor)
{
    while (at > floor) {
        uint32_t cp;
        size_t before = tok_cp_before(s, at);
        tok_cp(s + before, &cp);
        if (!tok_uc_is_space(uc[cp]))
            break;
        at = before;
    }
    return at;
}

static size_t spaces_after(const uint8_t *uc, const char *s, size_t len, size_t at)
{
    while (at < len) {
        uint32_t cp;
        size_t n = (size_t)tok_cp(s + at, &cp);
        if (!tok_uc_is_space(uc[cp]))
            break;
        at += n;
    }
    return at;
}

static bool push_text(struct tok_work *w, size_t base, size_t from, size_t to, uint32_t zero_len)
{
    uint32_t zero = from >= zero_len ? 0 : zero_len - (uint32_t)from;
    return tok_piece_push(&w->out, base + from, to - from, -1, zero > to - from ? (uint32_t)(to - from) : zero);
}

bool tok_added_split(struct tok_work *w, const struct tok_pattern_set *set, const char *s, size_t len, size_t base,
                     uint32_t zero_len, unsigned flags)
{
    const uint8_t *uc = w->t->uc;
    size_t done = 0, end;
    for (size_t i = 0; set->n && i < len; i = end) {
        const struct tok_pattern *p = NULL;
        while (i < len && (!set->first[(unsigned char)s[i]] || !(p = longest_at(set, s + i, len - i))))
            i++;
        if (!p)
            break;
        end = i + p->len;
        const struct tok_added_token *x = &w->t->added.tokens[p->token];
        if (((flags & TOK_ENCODE_NO_PARSE) && x->special) || (x->single_word && inside_word(uc, s, len, i, end)))
            continue;
        size_t start = x->lstrip ? spaces_before(uc, s, i, done) : i;
        start = start < done ? done : start;
        size_t stop = x->rstrip ? spaces_after(uc, s, len, end) : end;
        if (start > done && !push_text(w, base, done, start, zero_len))
            return false;
        if (!tok_piece_push(&w->out, base + start, stop - start, x->id, 0))
            return false;
        done = stop;
    }
    return push_text(w, base, done, len, zero_len);
}
