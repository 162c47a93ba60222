/* base/arena.h - memory of one request, dropped whole.  Not thread safe. */
#ifndef QUIRE_BASE_ARENA_H
#define QUIRE_BASE_ARENA_H

#include <stddef.h>

struct arena;

/* limit_bytes bounds everything ever taken from it (0 = none).  NULL when out of memory. */
struct arena *arena_open(size_t limit_bytes);
void arena_close(struct arena **a);  /* sets *a to NULL; NULL is fine */
void arena_reset(struct arena *a);   /* drop all contents, keep one chunk */

/* 16-byte aligned, zeroed.  NULL past the limit, on overflow, or when out of memory. */
void *arena_try_alloc(struct arena *a, size_t n, size_t elem_bytes);
char *arena_try_strndup(struct arena *a, const char *s, size_t len);
size_t arena_used(const struct arena *a);

#endif
