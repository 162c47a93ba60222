#include "kv/prefix.h"

#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "base/rng.h"

struct node {                   /* one a page; serial 0: the page is not in the table */
    uint64_t serial, parent, hash;
    int32_t depth;
    kv_block prev, next;        /* chain of the bucket; prev KV_BLOCK_NULL: the first */
};

struct kv_prefix {
    struct kv_pool *pool;
    struct node *nodes;         /* [n_blocks] */
    int32_t *tokens;            /* [n_blocks][block_tokens] */
    kv_block *buckets;          /* [mask + 1] */
    uint64_t mask, seed, last_serial;
    int32_t n_blocks, block_tokens;
    uint64_t (*hash)(const int32_t *tokens, int32_t n, uint64_t seed);
};

static uint64_t hash_xxh3(const int32_t *tokens, int32_t n, uint64_t seed)
{
    return hash_bytes(tokens, (size_t)n * sizeof *tokens, seed);
}

static uint64_t identity_hash(const struct kv_prefix *x, uint64_t parent, int32_t depth, const int32_t *tokens)
{
    uint64_t seed = hash_mix(hash_mix(x->seed, parent), (uint64_t)depth);
    return x->hash(tokens, x->block_tokens, seed);
}

static int32_t *page_tokens(const struct kv_prefix *x, kv_block id)
{
    return x->tokens + (size_t)id * (size_t)x->block_tokens;
}

static void table_insert(struct kv_prefix *x, kv_block id)
{
    struct node *n = &x->nodes[id];
    kv_block *bucket = &x->buckets[n->hash & x->mask];
    n->prev = KV_BLOCK_NULL;
    n->next = *bucket;
    if (n->next != KV_BLOCK_NULL)
        x->nodes[n->next].prev = id;
    *bucket = id;
}

static void table_remove(struct kv_prefix *x, kv_block id)
{
    struct node *n = &x->nodes[id];
    if (n->prev != KV_BLOCK_NULL)
        x->nodes[n->prev].next = n->next;
    else
        x->buckets[n->hash & x->mask] = n->next;
    if (n->next != KV_BLOCK_NULL)
        x->nodes[n->next].prev = n->prev;
    n->serial = 0;
}

static void on_evict(void *ctx, kv_block id)
{
    table_remove(ctx, id);
}

bool kv_prefix_open(struct kv_prefix **out, struct kv_pool *pool, const struct kv_prefix_opts *opts, struct err *e)
{
    *out = NULL;
    if (opts->block_tokens < 1)
        return err_set(e, ERR_INVALID, "prefix index: block_tokens is %d, at least 1 is needed", opts->block_tokens);
    size_t n = (size_t)kv_pool_stats(pool).n_blocks, n_buckets = 16, n_tokens;
    while (n_buckets < n)
        n_buckets *= 2;
    struct kv_prefix *x = mem_try_zalloc(1, sizeof *x);
    if (!x)
        goto nomem;
    if (!mem_mul(n, (size_t)opts->block_tokens, &n_tokens))
        goto nomem;
    x->nodes = mem_try_zalloc(n, sizeof *x->nodes);
    x->tokens = mem_try_zalloc(n_tokens, sizeof *x->tokens);
    x->buckets = mem_try_zalloc(n_buckets, sizeof *x->buckets);
    if (!x->nodes || !x->tokens || !x->buckets)
        goto nomem;
    x->pool = pool;
    x->mask = n_buckets - 1;
    x->seed = rng_entropy();
    x->n_blocks = (int32_t)n;
    x->block_tokens = opts->block_tokens;
    x->hash = opts->hash ? opts->hash : hash_xxh3;
    kv_pool_on_evict(pool, on_evict, x);
    *out = x;
    return true;
nomem:
    kv_prefix_close(&x);
    return err_set(e, ERR_NOMEM, "prefix index: no memory for %zu pages of %d tokens", n, opts->block_tokens);
}

void kv_prefix_close(struct kv_prefix **x)
{
    if (!*x)
        return;
    if ((*x)->pool)
        kv_pool_on_evict((*x)->pool, NULL, NULL);
    mem_free((*x)->nodes);
    mem_free((*x)->tokens);
    mem_free((*x)->buckets);
    mem_free(*x);
    *x = NULL;
}

struct kv_chain kv_chain_root(uint64_t salt)
{
    return (struct kv_chain){.parent = salt, .page = KV_BLOCK_NULL};
}

/* The page with this identity, or KV_BLOCK_NULL. */
static kv_block find(const struct kv_prefix *x, const struct kv_chain *chain, const int32_t *tokens, uint64_t hash)
{
    size_t bytes = (size_t)x->block_tokens * sizeof *tokens;
    kv_block id = x->buckets[hash & x->mask];
    for (; id != KV_BLOCK_NULL; id = x->nodes[id].next) {
        const struct node *n = &x->nodes[id];
        if (n->hash == hash && n->parent == chain->parent && n->depth == chain->depth &&
            memcmp(page_tokens(x, id), tokens, bytes) == 0)
            break;
    }
    return id;
}

static void advance(const struct kv_prefix *x, struct kv_chain *chain, kv_block id)
{
    chain->parent = x->nodes[id].serial;
    chain->page = id;
    chain->depth++;
}

int32_t kv_prefix_match(struct kv_prefix *x, struct kv_chain *chain, const int32_t *tokens, int32_t max_pages,
                        kv_block *ids)
{
    int32_t n = 0;
    for (; n < max_pages; n++, tokens += x->block_tokens) {
        kv_block id = find(x, chain, tokens, identity_hash(x, chain->parent, chain->depth, tokens));
        if (id == KV_BLOCK_NULL)
            break;
        kv_pool_ref(x->pool, id);
        advance(x, chain, id);
        ids[n] = id;
    }
    return n;
}

bool kv_prefix_publish(struct kv_prefix *x, struct kv_chain *chain, kv_block id, const int32_t *tokens)
{
    if (chain->depth > 0 && x->nodes[chain->page].serial != chain->parent)
        return false;
    struct node *mine = &x->nodes[id];
    uint64_t hash = identity_hash(x, chain->parent, chain->depth, tokens);
    kv_block known = find(x, chain, tokens, hash);
    if (known == id || (known != KV_BLOCK_NULL && kv_pool_refs(x->pool, known) > 0)) {
        advance(x, chain, known);
        return true;
    }
    /* A serial that moves along keeps the children reachable. */
    uint64_t serial = mine->serial;
    if (serial)     /* was published below a parent that is gone */
        table_remove(x, id);
    if (known != KV_BLOCK_NULL) {
        serial = x->nodes[known].serial;
        table_remove(x, known);
        kv_pool_unpublish(x->pool, known);
    }
    *mine = (struct node){.serial = serial ? serial : ++x->last_serial,
                          .parent = chain->parent, .depth = chain->depth, .hash = hash};
    memcpy(page_tokens(x, id), tokens, (size_t)x->block_tokens * sizeof *tokens);
    table_insert(x, id);
    kv_pool_publish(x->pool, id);
    advance(x, chain, id);
    return true;
}

/* X2 and X3 of one page. */
static bool check_node(const struct kv_prefix *x, kv_block id, struct err *e)
{
    const struct node *n = &x->nodes[id];
    if (n->hash != identity_hash(x, n->parent, n->depth, page_tokens(x, id)))
        return err_set(e, ERR_INTERNAL, "X2: page %d is stored under another hash than its content's", id);
    kv_block first = n->prev != KV_BLOCK_NULL ? x->nodes[n->prev].next : x->buckets[n->hash & x->mask];
    if (first != id || (n->next != KV_BLOCK_NULL && x->nodes[n->next].prev != id))
        return err_set(e, ERR_INTERNAL, "X2: the bucket of page %d is torn there", id);
    struct kv_chain at = {.parent = n->parent, .depth = n->depth};
    kv_block found = find(x, &at, page_tokens(x, id), n->hash);
    if (found != id)
        return err_set(e, ERR_INTERNAL, "X3: page %d has the same identity as page %d", id, found);
    return true;
}

bool kv_prefix_check(const struct kv_prefix *x, struct err *e)
{
    for (kv_block id = 1; id < x->n_blocks; id++) {
        bool stored = x->nodes[id].serial != 0;
        if (stored != kv_pool_is_published(x->pool, id))
            return err_set(e, ERR_INTERNAL, "X1: page %d is %s the table but %spublished", id, stored ? "in" : "not in",
                           stored ? "not " : "");
        if (stored && !check_node(x, id, e))
            return false;
    }
    return true;
}
