#include "kv/pool.h"

#include <assert.h>

#include "base/mem.h"

enum state { FREE, IDLE, HELD };

struct page {
    int32_t refs;
    kv_block prev, next;        /* FREE: only next; IDLE: both; HELD: neither */
    uint8_t state;
    bool published;
};

struct kv_pool {
    struct page *pages;         /* [n_blocks]; page 0 is the head of the ring of IDLE pages: its next is
                                   the least recently dropped one, its prev the most recently dropped one */
    int32_t n_blocks, n_free, n_idle;
    kv_block free_head;         /* stack, KV_BLOCK_NULL at its end */
    uint64_t n_evictions;
    kv_pool_evict_fn *evict;
    void *evict_ctx;
};

static void free_push(struct kv_pool *pool, kv_block id)
{
    struct page *p = &pool->pages[id];
    p->state = FREE;
    p->next = pool->free_head;
    pool->free_head = id;
    pool->n_free++;
}

static kv_block free_pop(struct kv_pool *pool)
{
    kv_block id = pool->free_head;
    pool->free_head = pool->pages[id].next;
    pool->n_free--;
    return id;
}

static void idle_push(struct kv_pool *pool, kv_block id)
{
    struct page *all = pool->pages, *p = &all[id];
    p->state = IDLE;
    p->next = 0;
    p->prev = all[0].prev;
    all[p->prev].next = id;
    all[0].prev = id;
    pool->n_idle++;
}

static void idle_remove(struct kv_pool *pool, kv_block id)
{
    struct page *all = pool->pages, *p = &all[id];
    all[p->prev].next = p->next;
    all[p->next].prev = p->prev;
    pool->n_idle--;
}

bool kv_pool_open(struct kv_pool **out, const struct kv_pool_opts *opts, struct err *e)
{
    *out = NULL;
    if (opts->n_blocks < 2)
        return err_set(e, ERR_INVALID, "KV pool: n_blocks is %d, at least 2 are needed (page 0 is reserved)", opts->n_blocks);
    struct kv_pool *pool = mem_try_zalloc(1, sizeof *pool);
    if (!pool)
        goto nomem;
    pool->pages = mem_try_zalloc((size_t)opts->n_blocks, sizeof *pool->pages);
    if (!pool->pages)
        goto nomem;
    pool->n_blocks = opts->n_blocks;
    for (kv_block id = opts->n_blocks - 1; id > 0; id--)
        free_push(pool, id);
    *out = pool;
    return true;
nomem:
    mem_free(pool);
    return err_set(e, ERR_NOMEM, "KV pool: no memory for the table of %d pages", opts->n_blocks);
}

void kv_pool_close(struct kv_pool **pool)
{
    if (!*pool)
        return;
    mem_free((*pool)->pages);
    mem_free(*pool);
    *pool = NULL;
}

void kv_pool_on_evict(struct kv_pool *pool, kv_pool_evict_fn *fn, void *ctx)
{
    pool->evict = fn;
    pool->evict_ctx = ctx;
}

int32_t kv_pool_available(const struct kv_pool *pool)
{
    return pool->n_free + pool->n_idle;
}

/* The content of an IDLE page is lost; the page is on no list afterwards. */
static void evict(struct kv_pool *pool, kv_block id)
{
    idle_remove(pool, id);
    pool->pages[id].published = false;
    if (pool->evict)
        pool->evict(pool->evict_ctx, id);
}

bool kv_pool_take(struct kv_pool *pool, int32_t n, kv_block *ids)
{
    if (n > kv_pool_available(pool))
        return false;
    for (int32_t i = 0; i < n; i++) {
        kv_block id;
        if (pool->n_free > 0) {
            id = free_pop(pool);
        } else {
            id = pool->pages[0].next;
            evict(pool, id);
            pool->n_evictions++;
        }
        pool->pages[id].state = HELD;
        pool->pages[id].refs = 1;
        ids[i] = id;
    }
    return true;
}

void kv_pool_ref(struct kv_pool *pool, kv_block id)
{
    struct page *p = &pool->pages[id];
    assert(id > 0 && id < pool->n_blocks && p->state != FREE);
    if (p->state == IDLE) {
        idle_remove(pool, id);
        p->state = HELD;
    }
    p->refs++;
}

int32_t kv_pool_refs(const struct kv_pool *pool, kv_block id)
{
    return pool->pages[id].refs;
}

void kv_pool_drop(struct kv_pool *pool, const kv_block *ids, int32_t n)
{
    while (n-- > 0) {
        kv_block id = ids[n];
        if (id == KV_BLOCK_NULL)
            continue;
        struct page *p = &pool->pages[id];
        assert(id > 0 && id < pool->n_blocks && p->state == HELD && p->refs > 0);
        if (--p->refs > 0)
            continue;
        if (p->published)
            idle_push(pool, id);
        else
            free_push(pool, id);
    }
}

void kv_pool_publish(struct kv_pool *pool, kv_block id)
{
    assert(id > 0 && id < pool->n_blocks && pool->pages[id].state == HELD);
    pool->pages[id].published = true;
}

void kv_pool_unpublish(struct kv_pool *pool, kv_block id)
{
    struct page *p = &pool->pages[id];
    p->published = false;
    if (p->state == IDLE) {
        idle_remove(pool, id);
        free_push(pool, id);
    }
}

bool kv_pool_is_published(const struct kv_pool *pool, kv_block id)
{
    return pool->pages[id].published;
}

void kv_pool_forget_idle(struct kv_pool *pool)
{
    while (pool->n_idle > 0) {
        kv_block id = pool->pages[0].next;
        evict(pool, id);
        free_push(pool, id);
    }
}

struct kv_pool_stats kv_pool_stats(const struct kv_pool *pool)
{
    return (struct kv_pool_stats){
        .n_blocks = pool->n_blocks,
        .n_free = pool->n_free,
        .n_idle = pool->n_idle,
        .n_held = pool->n_blocks - 1 - pool->n_free - pool->n_idle,
        .n_evictions = pool->n_evictions,
    };
}

/* P4.  A list that visits as many pages as are in its state, each of that state and, for the
 * ring, with matching links back, visits each once: a repeated page would make it endless. */
static bool check_lists(const struct kv_pool *pool, struct err *e)
{
    const struct page *all = pool->pages;
    int32_t n = 0;
    kv_block id;
    for (id = pool->free_head; id != KV_BLOCK_NULL && n <= pool->n_free; id = all[id].next, n++)
        if (id < 0 || id >= pool->n_blocks || all[id].state != FREE)
            return err_set(e, ERR_INTERNAL, "P4: page %d is on the free list but not free", id);
    if (n != pool->n_free)
        return err_set(e, ERR_INTERNAL, "P4: the free list does not hold the %d free pages", pool->n_free);
    n = 0;
    for (id = all[0].next; id != 0 && n <= pool->n_idle; id = all[id].next, n++) {
        if (id < 0 || id >= pool->n_blocks || all[id].state != IDLE)
            return err_set(e, ERR_INTERNAL, "P4: page %d is on the idle list but not idle", id);
        if (all[all[id].prev].next != id || all[all[id].next].prev != id)
            return err_set(e, ERR_INTERNAL, "P4: the idle list is torn at page %d", id);
    }
    if (n != pool->n_idle)
        return err_set(e, ERR_INTERNAL, "P4: the idle list does not hold the %d idle pages", pool->n_idle);
    return true;
}

bool kv_pool_check(const struct kv_pool *pool, struct err *e)
{
    int32_t n[3] = {0};
    for (kv_block id = 1; id < pool->n_blocks; id++) {
        const struct page *p = &pool->pages[id];
        if (p->state > HELD)
            return err_set(e, ERR_INTERNAL, "P1: page %d is in no known state (%d)", id, p->state);
        n[p->state]++;
        if (p->refs < 0 || (p->refs > 0) != (p->state == HELD))
            return err_set(e, ERR_INTERNAL, "P2: page %d has %d references in state %d", id, p->refs, p->state);
        if (p->state != HELD && p->published != (p->state == IDLE))
            return err_set(e, ERR_INTERNAL, "P3: page %d is %s and %spublished", id,
                           p->state == IDLE ? "idle" : "free", p->published ? "" : "not ");
    }
    if (pool->pages[0].refs != 0 || pool->pages[0].published)
        return err_set(e, ERR_INTERNAL, "P1: the reserved page 0 is in use");
    if (n[FREE] != pool->n_free || n[IDLE] != pool->n_idle)
        return err_set(e, ERR_INTERNAL, "P1: counted %d free and %d idle pages, expected %d and %d", n[FREE], n[IDLE],
                       pool->n_free, pool->n_idle);
    return check_lists(pool, e);
}
