/* base/ring.h - bounded ring of fixed-size items, one producer, one consumer, lock free. */
#ifndef QUIRE_BASE_RING_H
#define QUIRE_BASE_RING_H

#include <stdbool.h>
#include <stddef.h>

struct ring;

/* Capacity is rounded up to a power of two.  NULL when out of memory. */
struct ring *ring_open(size_t n_items, size_t item_bytes);
void ring_close(struct ring **r);
bool ring_push(struct ring *r, const void *item);   /* false: full */
bool ring_pop(struct ring *r, void *item);          /* false: empty */
size_t ring_count(const struct ring *r);
size_t ring_capacity(const struct ring *r);

#endif
