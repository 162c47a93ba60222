#include "base/arena.h"

#include <stdint.h>
#include <string.h>

#include "base/mem.h"

/* Chunks double from CHUNK_MIN to CHUNK_MAX; what is larger gets a chunk of its own. */
enum { ALIGN = 16, CHUNK_MIN = 4096, CHUNK_MAX = 256 << 10 };

struct chunk {
    struct chunk *next;
    size_t cap, used;   /* bytes of data[] */
    _Alignas(ALIGN) unsigned char data[];
};

struct arena {
    struct chunk *chunks;   /* the first is the one allocated from */
    size_t limit, used, next_cap;
};

struct arena *arena_open(size_t limit_bytes)
{
    struct arena *a = mem_try_zalloc(1, sizeof *a);
    if (!a)
        return NULL;
    a->limit = limit_bytes;
    a->next_cap = CHUNK_MIN;
    return a;
}

void arena_close(struct arena **a)
{
    if (!*a)
        return;
    for (struct chunk *c = (*a)->chunks, *next; c; c = next) {
        next = c->next;
        mem_free(c);
    }
    mem_free(*a);
    *a = NULL;
}

void arena_reset(struct arena *a)
{
    /* Keep the largest ordinary chunk; an outsized one would pin the worst request's memory. */
    struct chunk *keep = NULL;
    for (struct chunk *c = a->chunks, *next; c; c = next) {
        next = c->next;
        if (c->cap <= CHUNK_MAX && (!keep || c->cap > keep->cap)) {
            mem_free(keep);
            keep = c;
        } else {
            mem_free(c);
        }
    }
    if (keep) {
        keep->next = NULL;
        keep->used = 0;
    }
    a->chunks = keep;
    a->used = 0;
}

/* A chunk with room for bytes, which is a multiple of ALIGN; NULL when out of memory. */
static struct chunk *chunk_for(struct arena *a, size_t bytes)
{
    struct chunk *head = a->chunks;
    if (head && head->cap - head->used >= bytes)
        return head;
    size_t cap = bytes > a->next_cap ? bytes : a->next_cap, total;
    if (!mem_add(cap, sizeof(struct chunk), &total))
        return NULL;
    struct chunk *c = mem_try_alloc(total, 1);
    if (!c)
        return NULL;
    c->cap = cap;
    c->used = 0;
    if (head && bytes > a->next_cap) { /* filled at once: go on with the present one */
        c->next = head->next;
        head->next = c;
        return c;
    }
    if (a->next_cap < CHUNK_MAX)
        a->next_cap *= 2;
    c->next = head;
    a->chunks = c;
    return c;
}

void *arena_try_alloc(struct arena *a, size_t n, size_t elem_bytes)
{
    size_t bytes, rounded, used;
    if (!mem_mul(n, elem_bytes, &bytes) || !mem_add(bytes ? bytes : 1, ALIGN - 1, &rounded))
        return NULL;
    rounded &= ~(size_t)(ALIGN - 1);
    if (!mem_add(a->used, rounded, &used) || (a->limit && used > a->limit))
        return NULL;
    struct chunk *c = chunk_for(a, rounded);
    if (!c)
        return NULL;
    void *p = c->data + c->used;
    memset(p, 0, rounded);
    c->used += rounded;
    a->used = used;
    return p;
}

char *arena_try_strndup(struct arena *a, const char *s, size_t len)
{
    size_t bytes;
    if (!mem_add(len, 1, &bytes))
        return NULL;
    char *copy = arena_try_alloc(a, bytes, 1);
    if (copy && len)
        memcpy(copy, s, len);
    return copy;
}

size_t arena_used(const struct arena *a)
{
    return a->used;
}
