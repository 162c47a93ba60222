/* base/vec.h - growth of plain arrays: `struct { T *items; size_t n, cap; }` stays the
 * caller's; this only makes room.  Growth is geometric. */
#ifndef QUIRE_BASE_VEC_H
#define QUIRE_BASE_VEC_H

#include <stdbool.h>
#include <stddef.h>

/* Make *items (of elem_bytes each) hold at least need elements.  On false nothing changed.
 * Call as vec_reserve((void **)&v.items, &v.cap, v.n + 1, sizeof *v.items). */
bool vec_reserve(void **items, size_t *cap, size_t need, size_t elem_bytes);

#endif
