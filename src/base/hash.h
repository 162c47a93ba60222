/* base/hash.h - hashing (XXH3) and a small map from byte strings or integers to int64. */
#ifndef QUIRE_BASE_HASH_H
#define QUIRE_BASE_HASH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

uint64_t hash_bytes(const void *p, size_t n, uint64_t seed);
/* Mix two 64-bit values into one. */
uint64_t hash_mix(uint64_t a, uint64_t b);

/* Map from byte string to int64.  Keys are copied unless opened with HASH_MAP_BORROW_KEYS.
 * Seeded per process, so that hostile keys cannot be chosen to collide. */
enum hash_map_flags { HASH_MAP_COPY_KEYS = 0, HASH_MAP_BORROW_KEYS = 1 };
struct hash_map;
struct hash_map *hash_map_open(size_t expected, enum hash_map_flags flags);  /* NULL: no memory */
void hash_map_close(struct hash_map **m);
bool hash_map_put(struct hash_map *m, const char *key, size_t len, int64_t value); /* replaces */
bool hash_map_get(const struct hash_map *m, const char *key, size_t len, int64_t *value);
bool hash_map_del(struct hash_map *m, const char *key, size_t len);
size_t hash_map_count(const struct hash_map *m);
/* Iterate: *it starts at 0; false at the end.  Order is not specified. */
bool hash_map_next(const struct hash_map *m, size_t *it, const char **key, size_t *len, int64_t *value);

/* Map from uint64 to int64, open addressing. */
struct hash_u64;
struct hash_u64 *hash_u64_open(size_t expected);
void hash_u64_close(struct hash_u64 **m);
bool hash_u64_put(struct hash_u64 *m, uint64_t key, int64_t value);
bool hash_u64_get(const struct hash_u64 *m, uint64_t key, int64_t *value);
bool hash_u64_del(struct hash_u64 *m, uint64_t key);
size_t hash_u64_count(const struct hash_u64 *m);

#endif
