/* guard.h - memory for kernel tests: n bytes that end right before an inaccessible page. */
#ifndef QUIRE_TESTS_GUARD_H
#define QUIRE_TESTS_GUARD_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

struct guard { unsigned char *base; size_t total; };

/* Poisoned with 0xff (NaN as f32).  align is a power of two that n should be a multiple of for the end to be exact. */
static inline void *guard_alloc(struct guard *g, size_t n, size_t align)
{
    size_t body = (n + 4095 + align) & ~(size_t)4095;
    g->total = body + 2 * 4096;
    g->base = mmap(NULL, g->total, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (g->base == MAP_FAILED)
        abort();
    memset(g->base, 0xff, g->total);
    mprotect(g->base, 4096, PROT_NONE);
    mprotect(g->base + 4096 + body, 4096, PROT_NONE);
    uintptr_t p = (uintptr_t)(g->base + 4096 + body - n);
    return (void *)(p & ~(uintptr_t)(align - 1));
}

static inline void guard_free(struct guard *g)
{
    munmap(g->base, g->total);
}

#endif
