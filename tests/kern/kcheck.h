/* Tools of the kernel tests: guarded buffers and random fill. */
#ifndef QUIRE_TESTS_KCHECK_H
#define QUIRE_TESTS_KCHECK_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "base/rng.h"
#include "kern/cpu.h"

/* Memory whose last byte touches a page that may not be touched, and so does its first one minus the slack. */
struct guarded { unsigned char *p, *map; size_t bytes, map_bytes; };

/* bytes rounded up so that p is align-ed; the rounding slack lies in front and is poisoned. */
static inline struct guarded guard_alloc(size_t bytes, size_t align)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), body = (bytes + align + page - 1) / page * page;
    struct guarded g = {.bytes = bytes, .map_bytes = body + 2 * page};
    g.map = mmap(NULL, g.map_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (g.map == MAP_FAILED)
        abort();
    mprotect(g.map, page, PROT_NONE);
    mprotect(g.map + page + body, page, PROT_NONE);
    memset(g.map + page, 0xa5, body);
    g.p = g.map + page + body - (bytes + align - 1) / align * align;
    return g;
}

static inline void guard_free(struct guarded *g)
{
    munmap(g->map, g->map_bytes);
    g->p = NULL;
}

static inline float random_float(struct rng *r)
{
    return (float)(rng_next_unit(r) * 2 - 1);
}

static inline int random_between(struct rng *r, int low, int high)
{
    return low + (int)rng_next_below(r, (uint64_t)(high - low + 1));
}

#endif
