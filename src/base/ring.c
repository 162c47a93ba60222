#include "base/ring.h"

#include <stdatomic.h>
#include <stdint.h>
#include <string.h>

#include "base/mem.h"

/* Positions count up for ever and are masked on use; each side keeps its own line and a copy
 * of the other's position, which it refreshes only when the copy says full or empty. */
struct ring {
    unsigned char *items;
    size_t mask, item_bytes;
    _Alignas(64) _Atomic(size_t) head;  /* next to write; the producer's */
    size_t tail_seen;
    _Alignas(64) _Atomic(size_t) tail;  /* next to read; the consumer's */
    size_t head_seen;
};

struct ring *ring_open(size_t n_items, size_t item_bytes)
{
    size_t cap = 1, bytes;
    while (cap < n_items) {
        if (cap > SIZE_MAX / 2)
            return NULL;
        cap *= 2;
    }
    if (!mem_mul(cap, item_bytes, &bytes))
        return NULL;
    struct ring *r = mem_try_aligned(sizeof *r);
    if (!r)
        return NULL;
    r->items = mem_try_alloc(bytes, 1);
    if (!r->items) {
        mem_free(r);
        return NULL;
    }
    r->mask = cap - 1;
    r->item_bytes = item_bytes;
    atomic_init(&r->head, 0);
    atomic_init(&r->tail, 0);
    return r;
}

void ring_close(struct ring **r)
{
    if (!*r)
        return;
    mem_free((*r)->items);
    mem_free(*r);
    *r = NULL;
}

bool ring_push(struct ring *r, const void *item)
{
    size_t head = atomic_load_explicit(&r->head, memory_order_relaxed);
    if (head - r->tail_seen > r->mask) {
        r->tail_seen = atomic_load_explicit(&r->tail, memory_order_acquire);
        if (head - r->tail_seen > r->mask)
            return false;
    }
    memcpy(r->items + (head & r->mask) * r->item_bytes, item, r->item_bytes);
    atomic_store_explicit(&r->head, head + 1, memory_order_release);
    return true;
}

bool ring_pop(struct ring *r, void *item)
{
    size_t tail = atomic_load_explicit(&r->tail, memory_order_relaxed);
    if (tail == r->head_seen) {
        r->head_seen = atomic_load_explicit(&r->head, memory_order_acquire);
        if (tail == r->head_seen)
            return false;
    }
    memcpy(item, r->items + (tail & r->mask) * r->item_bytes, r->item_bytes);
    atomic_store_explicit(&r->tail, tail + 1, memory_order_release);
    return true;
}

size_t ring_count(const struct ring *r)
{
    /* tail first: it never passes head, so the difference cannot be negative.  Seen by a third
     * thread it may exceed the capacity by what moved in between; clamp. */
    size_t tail = atomic_load_explicit(&r->tail, memory_order_acquire);
    size_t n = atomic_load_explicit(&r->head, memory_order_acquire) - tail;
    return n <= r->mask + 1 ? n : r->mask + 1;
}

size_t ring_capacity(const struct ring *r)
{
    return r->mask + 1;
}
