/* Compiled guides and the states of sequences in them. */
#include <string.h>
#include "base/hash.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/vec.h"
#include "guide/guide_int.h"

enum { CACHE_SIZE = 64, MASK_RING = 64 };

/* ---- compiling ---- */

static void guide_free(struct guide *g)
{
    struct guide_vocab *v = g->vocab;
    machine_close(&g->m);
    nfa_free(&g->nfa);
    pthread_mutex_destroy(&g->lock);
    mem_free(g);
    guide_vocab_unref(v);
}

struct guide *guide_ref(struct guide *g)
{
    atomic_fetch_add(&g->refs, 1);
    return g;
}

void guide_unref(struct guide **pg)
{
    struct guide *g = *pg;
    *pg = NULL;
    if (g && atomic_fetch_sub(&g->refs, 1) == 1)
        guide_free(g);
}

size_t guide_bytes(struct guide *g)
{
    pthread_mutex_lock(&g->lock);
    size_t n = sizeof *g + machine_bytes(&g->m) + (size_t)g->nfa.n_states * 30;
    pthread_mutex_unlock(&g->lock);
    return n;
}

static void begin(struct guide *g)
{
    pthread_mutex_lock(&g->lock);
    g->m.failed = g->m.over_budget = false;
    g->m.work = 0;
    g->m.max_work = g->limits.max_work;
    g->m.n_seeds = 0;
}

/* Masks of the last configurations are kept: a ring, so that the oldest goes first. */
static void remember(struct guide *g, int32_t cfg, const uint32_t *bits)
{
    struct machine *m = &g->m;
    size_t words = (size_t)g->vocab->n_words;
    int32_t slot = g->n_ring % MASK_RING;
    if ((size_t)slot >= m->n_masks) {
        if (!vec_reserve((void **)&m->masks, &m->cap_masks, m->n_masks + 1, sizeof *m->masks))
            return;
        m->masks[m->n_masks] = mem_try_alloc(words, sizeof *bits);
        if (!m->masks[m->n_masks])
            return;
        m->n_masks++;
        m->local_bytes += words * sizeof *bits;
    } else {
        m->cfgs[g->mask_ring[slot]].mask = -1;
    }
    memcpy(m->masks[slot], bits, words * sizeof *bits);
    m->cfgs[cfg].mask = slot;
    g->mask_ring[slot] = cfg;
    g->n_ring++;
}

/* Masks met first are made here, on the thread that compiles, within a few milliseconds: the start's, then along the first ways on. */
static void prepare(struct guide *g)
{
    enum { BUDGET = 400000, STEPS = 24 };   /* units of work */
    size_t words = (size_t)g->vocab->n_words;
    uint32_t *bits = mem_try_alloc(words, sizeof *bits);
    int32_t cfg = g->start;
    for (int i = 0; bits && i < STEPS && cfg >= 0 && g->m.work < BUDGET && mask_fill(g, cfg, bits); i++) {
        if (i == 0)
            remember(g, cfg, bits);
        int32_t next = -1;
        for (int c = 0; c < 256 && next < 0; c++) /* a byte that leads to another place */
            if ((next = machine_step(&g->m, cfg, (uint8_t)((c + '"') & 255))) == cfg)
                next = -1;
        cfg = next;
    }
    mem_free(bits);
}

static bool over_budget(const struct guide *g, struct err *e)
{
    if (g->m.over_budget)
        return err_set(e, ERR_TOO_LARGE, "the guide is too ambiguous: one token takes more than %lld steps", (long long)g->limits.max_work);
    return err_set(e, ERR_NOMEM, "out of memory for the guide");
}

bool guide_build_finish(struct guide_builder **pb, int32_t root, struct guide_vocab *v, struct guide **out, struct err *e)
{
    struct guide_builder *b = *pb;
    *out = NULL;
    *pb = NULL;
    struct guide *g = mem_try_zalloc(1, sizeof *g);
    bool ok = g || err_set(e, ERR_NOMEM, "out of memory for the guide");
    if (ok) {
        atomic_init(&g->refs, 1);
        pthread_mutex_init(&g->lock, NULL);
        g->vocab = v;
        atomic_fetch_add(&v->refs, 1);
        g->limits = b->limits;
        g->unique = b->unique;
        if (b->unique && b->free_text)
            expr_fail(b, ERR_UNSUPPORTED, "'uniqueItems' of strings cannot be combined with free text");
        if (root < 0 && !b->failed)
            expr_fail(b, ERR_INTERNAL, "no expression");
        ok = nfa_build(&g->nfa, b, b->failed ? -1 : root, true, e) &&
             (machine_open(&g->m, &g->nfa) || err_set(e, ERR_NOMEM, "out of memory for the guide"));
    }
    if (ok) {
        begin(g);
        g->m.compact_at = g->limits.max_bytes;
        g->start = machine_start(&g->m);
        ok = g->start >= 0 && machine_expand(&g->m, g->start);
        if (ok)
            prepare(g);
        else
            over_budget(g, e);
        pthread_mutex_unlock(&g->lock);
    }
    if (b->failed && e)
        *e = b->err;
    guide_build_close(&b);
    if (!ok) {
        if (g)
            guide_free(g);
        return false;
    }
    *out = g;
    return true;
}

static int32_t build_choice(struct guide_builder *b, const char *text, size_t len)
{
    struct err e;
    json_t *list = json_parse(text, len, &e);
    int32_t alt = -1;
    if (!list) {
        expr_fail(b, e.code, "%s", e.msg);
    } else if (!json_is_array(list) || json_array_size(list) == 0) {
        expr_fail(b, ERR_INVALID, "the choices must be an array of strings that is not empty");
    } else {
        size_t n = json_array_size(list);
        int32_t *ids = mem_try_alloc(n, sizeof *ids);
        for (size_t i = 0; ids && i < n && !b->failed; i++) {
            const json_t *s = json_array_get(list, i);
            if (json_is_string(s) && json_string_length(s) > 0)
                ids[i] = expr_text(b, json_string_value(s), json_string_length(s));
            else
                ids[i] = expr_fail(b, ERR_INVALID, "choice %zu must be a string that is not empty", i);
        }
        alt = ids ? expr_alt(b, ids, n) : expr_fail(b, ERR_NOMEM, "out of memory for the guide");
        mem_free(ids);
    }
    json_decref(list);
    return alt;
}

static int32_t build_schema(struct guide_builder *b, const struct guide_spec *spec)
{
    struct err e;
    bool object = spec->kind == GUIDE_JSON_OBJECT;
    json_t *schema = object ? json_pack("{s:s}", "type", "object") : json_parse(spec->text, spec->len, &e);
    int32_t id = schema ? guide_build_schema(b, schema, spec->whitespace)
                        : object ? expr_fail(b, ERR_NOMEM, "out of memory for the guide") : expr_fail(b, e.code, "%s", e.msg);
    json_decref(schema);
    return id;
}

static bool compile(struct guide **out, struct guide_vocab *v, const struct guide_spec *spec, const struct guide_limits *l, struct err *e)
{
    struct guide_builder *b = guide_build_open(l);
    int32_t root = -1;
    if (!b)
        return err_set(e, ERR_NOMEM, "out of memory for the guide");
    if (spec->len > b->limits.max_text_bytes)
        expr_fail(b, ERR_TOO_LARGE, "the text has %zu bytes, more than %zu", spec->len, b->limits.max_text_bytes);
    else if (spec->kind == GUIDE_REGEX)
        root = guide_build_regex(b, spec->text, spec->len);
    else if (spec->kind == GUIDE_CHOICE)
        root = build_choice(b, spec->text, spec->len);
    else if (spec->kind == GUIDE_GRAMMAR)
        root = guide_build_grammar(b, spec->text, spec->len);
    else
        root = build_schema(b, spec);
    return guide_build_finish(&b, root, v, out, e);
}

/* ---- the last compiled guides ---- */

/* kind, whitespace, limits and text in one string. */
static bool make_key(struct buf *key, const struct guide_spec *spec, const struct guide_limits *l)
{
    struct guide_limits dflt;
    guide_limits_default(&dflt);
    l = l ? l : &dflt;
    buf_init(key, 0);
    buf_printf(key, "%d|%s|%s|%zu %d %d %zu %lld|", (int)spec->kind, spec->whitespace ? "w" : "d", spec->whitespace ? spec->whitespace : "",
               l->max_text_bytes, l->max_states, l->max_dfa_states, l->max_bytes, (long long)l->max_work);
    if (spec->kind != GUIDE_JSON_OBJECT)
        buf_append(key, spec->text, spec->len);
    return !key->failed;
}

static struct guide *cache_find(struct guide_vocab *v, const struct buf *key, uint64_t hash)
{
    struct guide *g = NULL;
    pthread_mutex_lock(&v->lock);
    for (int i = 0; v->cache && i < CACHE_SIZE; i++) {
        struct cached *c = &v->cache[i];
        if (c->guide && c->hash == hash && c->key_len == key->len && memcmp(c->key, key->data, key->len) == 0) {
            c->used = ++v->clock;
            g = guide_ref(c->guide);
            break;
        }
    }
    pthread_mutex_unlock(&v->lock);
    return g;
}

/* The cache's guides hold a reference of the vocabulary: guide_vocab_close empties it. */
static void cache_put(struct guide_vocab *v, struct guide *g, struct buf *key, uint64_t hash)
{
    struct guide *old = NULL;
    pthread_mutex_lock(&v->lock);
    if (!v->cache)
        v->cache = mem_try_zalloc(CACHE_SIZE, sizeof *v->cache);
    struct cached *at = v->cache;
    for (int i = 0; at && i < CACHE_SIZE; i++)
        if (v->cache[i].used < at->used)
            at = &v->cache[i];
    if (at && !v->closed) {
        old = at->guide;
        mem_free(at->key);
        *at = (struct cached){guide_ref(g), hash, NULL, key->len, ++v->clock};
        at->key = buf_take(key);
    }
    pthread_mutex_unlock(&v->lock);
    guide_unref(&old);
}

void guide_vocab_close(struct guide_vocab **pv)
{
    struct guide_vocab *v = *pv;
    if (!v)
        return;
    *pv = NULL;
    pthread_mutex_lock(&v->lock);
    struct cached *cache = v->cache;
    v->cache = NULL;
    v->closed = true;
    pthread_mutex_unlock(&v->lock);
    for (int i = 0; cache && i < CACHE_SIZE; i++) {
        guide_unref(&cache[i].guide);
        mem_free(cache[i].key);
    }
    mem_free(cache);
    guide_vocab_unref(v);
}

bool guide_compile(struct guide **out, struct guide_vocab *v, const struct guide_spec *spec, const struct guide_limits *l, struct err *e)
{
    struct buf key;
    *out = NULL;
    if (!make_key(&key, spec, l)) {
        buf_free(&key);
        return err_set(e, ERR_NOMEM, "out of memory for the guide");
    }
    uint64_t hash = hash_bytes(key.data, key.len, 0);
    *out = cache_find(v, &key, hash);
    bool known = *out != NULL, ok = known || compile(out, v, spec, l, e);
    if (ok && !known)
        cache_put(v, *out, &key, hash);
    buf_free(&key);
    return ok;
}

/* ---- states ---- */

static struct guide_state *state_new(struct guide *g, int32_t cfg, const struct unique *from)
{
    struct guide_state *s = mem_try_zalloc(1, sizeof *s);
    if (!s)
        return NULL;
    s->unique = from ? unique_fork(from) : g->unique ? unique_open() : NULL;
    if (g->unique && !s->unique) {
        mem_free(s);
        return NULL;
    }
    s->guide = guide_ref(g);
    s->cfg = cfg;
    s->mask_cfg = -1;
    s->next = g->states;
    if (s->next)
        s->next->prev = s;
    g->states = s;
    return s;
}

bool guide_state_open(struct guide_state **out, struct guide *g, struct err *e)
{
    pthread_mutex_lock(&g->lock);
    *out = state_new(g, g->start, NULL);
    pthread_mutex_unlock(&g->lock);
    return *out || err_set(e, ERR_NOMEM, "out of memory for the guide");
}

struct guide_state *guide_state_fork(const struct guide_state *s)
{
    struct guide *g = s->guide;
    pthread_mutex_lock(&g->lock);
    struct guide_state *n = state_new(g, s->cfg, s->unique);
    if (n)
        n->eos = s->eos;
    pthread_mutex_unlock(&g->lock);
    return n;
}

void guide_state_close(struct guide_state **ps)
{
    struct guide_state *s = *ps;
    if (!s)
        return;
    *ps = NULL;
    struct guide *g = s->guide;
    pthread_mutex_lock(&g->lock);
    if (s->prev)
        s->prev->next = s->next;
    else
        g->states = s->next;
    if (s->next)
        s->next->prev = s->prev;
    pthread_mutex_unlock(&g->lock);
    unique_close(s->unique);
    mem_free(s->mask);
    mem_free(s);
    guide_unref(&g);
}

/* Past the memory limit all but the live states' stacks is forgotten. */
static bool forget(struct guide *g)
{
    size_t n = 1;
    for (struct guide_state *s = g->states; s; s = s->next)
        n++;
    int32_t **roots = mem_try_alloc(n, sizeof *roots);
    if (!roots)
        return false;
    n = 0;
    roots[n++] = &g->start;
    for (struct guide_state *s = g->states; s; s = s->next) {
        s->mask_cfg = -1;
        roots[n++] = &s->cfg;
    }
    bool ok = machine_compact(&g->m, roots, n);
    size_t after = machine_bytes(&g->m) * 2;
    g->m.compact_at = after > g->limits.max_bytes ? after : g->limits.max_bytes;
    g->n_ring = 0;
    memset(g->mask_ring, 0, sizeof g->mask_ring);
    mem_free(roots);
    return ok;
}

static bool fill(struct guide_state *s, struct err *e)
{
    struct guide *g = s->guide;
    size_t words = (size_t)g->vocab->n_words;
    if (machine_bytes(&g->m) > g->m.compact_at && !forget(g))
        return err_set(e, ERR_NOMEM, "out of memory for the guide");
    int32_t known = g->m.cfgs[s->cfg].mask;
    if (known >= 0) {
        memcpy(s->mask, g->m.masks[known], words * sizeof *s->mask);
    } else {
        if (!mask_fill(g, s->cfg, s->mask))
            return over_budget(g, e);
        remember(g, s->cfg, s->mask);
    }
    s->mask_cfg = s->cfg;
    return true;
}

const uint32_t *guide_state_mask(struct guide_state *s, struct err *e)
{
    struct guide *g = s->guide;
    size_t words = (size_t)g->vocab->n_words;
    bool any = false;
    if (!s->mask && !(s->mask = mem_try_zalloc(words, sizeof *s->mask))) {
        err_set(e, ERR_NOMEM, "out of memory for the guide");
        return NULL;
    }
    if (s->eos) {
        memset(s->mask, 0, words * sizeof *s->mask);
        for (int32_t i = 0; i < g->vocab->n_eos; i++)
            s->mask[g->vocab->eos_ids[i] / 32] |= (uint32_t)1 << (g->vocab->eos_ids[i] % 32);
        s->mask_cfg = -1;
        return s->mask;
    }
    begin(g);
    bool ok = s->mask_cfg == s->cfg || fill(s, e);
    if (ok && s->unique) {
        s->mask_cfg = -1; /* the same place, but other strings next time */
        ok = unique_filter(s->unique, g, s->cfg, s->mask) || over_budget(g, e);
    }
    pthread_mutex_unlock(&g->lock);
    for (size_t i = 0; ok && !any && i < words; i++)
        any = s->mask[i] != 0;
    if (ok && !any)
        ok = s->unique ? err_set(e, ERR_TOO_LARGE, "no string is left that differs from those that the array has, as 'uniqueItems' demands")
                       : err_set(e, ERR_INVALID, "no token of the vocabulary can continue what the guide demands");
    return ok ? s->mask : NULL;
}

static bool is_end(const struct guide_vocab *v, int32_t token)
{
    for (int32_t i = 0; i < v->n_eos; i++)
        if (v->eos_ids[i] == token)
            return true;
    return false;
}

/* cfg after so many bytes; -1 when nothing goes on. */
static int32_t run(struct machine *m, int32_t cfg, const char *s, size_t n)
{
    for (size_t i = 0; cfg >= 0 && i < n; i++)
        cfg = machine_step(m, cfg, (uint8_t)s[i]);
    return cfg;
}

bool guide_state_advance(struct guide_state *s, int32_t token, struct err *e)
{
    struct guide *g = s->guide;
    const struct guide_vocab *v = g->vocab;
    if (token < 0 || token >= v->vocab_size)
        return err_set(e, ERR_INVALID, "token %d is outside the vocabulary of %d", token, v->vocab_size);
    bool end = is_end(v, token), ok = true;
    begin(g);
    if (end) {
        ok = s->eos || g->m.cfgs[s->cfg].flags & CFG_ACCEPT;
        s->eos |= ok;
    } else {
        size_t n = (size_t)(v->text_at[token + 1] - v->text_at[token]);
        int32_t cfg = n && !s->eos ? run(&g->m, s->cfg, v->text + v->text_at[token], n) : -1;
        ok = cfg >= 0;
        if (ok && s->unique && !unique_feed(s->unique, v->text + v->text_at[token], n)) {
            pthread_mutex_unlock(&g->lock);
            return err_set(e, ERR_NOMEM, "out of memory for the guide");
        }
        if (ok)
            s->cfg = cfg;
    }
    if (!ok && g->m.failed)
        over_budget(g, e);
    else if (!ok)
        err_set(e, ERR_INVALID, "token %d is not what the guide allows here", token);
    pthread_mutex_unlock(&g->lock);
    return ok;
}

bool guide_state_accepts(const struct guide_state *s)
{
    pthread_mutex_lock(&s->guide->lock);
    bool accepts = s->guide->m.cfgs[s->cfg].flags & CFG_ACCEPT;
    pthread_mutex_unlock(&s->guide->lock);
    return accepts;
}

bool guide_state_ended(struct guide_state *s)
{
    pthread_mutex_lock(&s->guide->lock);
    const struct cfg *c = &s->guide->m.cfgs[s->cfg];
    bool ended = s->eos || (c->n_kernel == 0 && c->flags & CFG_ACCEPT);
    pthread_mutex_unlock(&s->guide->lock);
    return ended;
}

size_t guide_state_forced(struct guide_state *s, char *out, size_t cap)
{
    struct guide *g = s->guide;
    size_t n = 0;
    begin(g);
    int32_t cfg = s->eos ? -1 : s->cfg;
    while (cfg >= 0 && n < cap && !(g->m.cfgs[cfg].flags & CFG_ACCEPT)) {
        int32_t only = -1, byte = 0, ways = 0;
        for (int c = 0; c < 256 && ways < 2; c++) {
            int32_t to = machine_step(&g->m, cfg, (uint8_t)c);
            if (to < 0)
                continue;
            only = to;
            byte = c;
            ways++;
        }
        if (ways != 1 || g->m.failed)
            break;
        out[n++] = (char)byte;
        cfg = only;
    }
    pthread_mutex_unlock(&g->lock);
    return n;
}

bool guide_matches(struct guide *g, const char *bytes, size_t n)
{
    begin(g);
    if (machine_bytes(&g->m) > g->m.compact_at)
        forget(g);
    int32_t cfg = run(&g->m, g->start, bytes, n);
    bool ok = cfg >= 0 && g->m.cfgs[cfg].flags & CFG_ACCEPT;
    pthread_mutex_unlock(&g->lock);
    return ok;
}
