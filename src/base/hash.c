#include "base/hash.h"

#include <stdatomic.h>
#include <string.h>
#include <xxhash.h>

#include "base/mem.h"
#include "base/rng.h"

/* Both maps: open addressing, linear probing, at most 3/4 full, power-of-two capacity;
 * deletion shifts the following entries back, so there are no tombstones. */
enum { MAP_MIN_CAP = 16 };

uint64_t hash_bytes(const void *p, size_t n, uint64_t seed)
{
    return XXH3_64bits_withSeed(n ? p : "", n, seed);
}

uint64_t hash_mix(uint64_t a, uint64_t b)
{
    uint64_t h = a ^ (b * 0x9E3779B97F4A7C15u + 0x632BE59BD9B4E019u + (a << 6) + (a >> 2));
    h = (h ^ h >> 32) * 0xD6E8FEB86659FD93u;
    h = (h ^ h >> 32) * 0xD6E8FEB86659FD93u;
    return h ^ h >> 32;
}

/* Drawn once, constant from then on. */
static uint64_t process_seed(void)
{
    static _Atomic(uint64_t) seed;
    uint64_t s = atomic_load_explicit(&seed, memory_order_relaxed);
    if (s == 0) {
        uint64_t mine = rng_entropy() | 1, none = 0;
        s = atomic_compare_exchange_strong(&seed, &none, mine) ? mine : none;
    }
    return s;
}

/* Capacity that holds n entries at 3/4, or 0 when that is too many. */
static size_t cap_for(size_t n)
{
    size_t cap = MAP_MIN_CAP;
    while (cap / 4 * 3 < n) {
        if (cap > SIZE_MAX / 4)
            return 0;
        cap *= 2;
    }
    return cap;
}

/* Whether the entry of home slot `home`, found at `at`, may move back to the hole. */
static bool may_fill(size_t hole, size_t at, size_t home, size_t mask)
{
    return ((at - home) & mask) >= ((at - hole) & mask);
}

struct entry {
    const char *key;    /* NULL: empty slot */
    size_t len;
    uint64_t hash;
    int64_t value;
};

struct hash_map {
    struct entry *slots;
    size_t cap, count;
    uint64_t seed;
    enum hash_map_flags flags;
};

struct hash_map *hash_map_open(size_t expected, enum hash_map_flags flags)
{
    size_t cap = cap_for(expected);
    struct hash_map *m = cap ? mem_try_zalloc(1, sizeof *m) : NULL;
    if (!m)
        return NULL;
    m->slots = mem_try_zalloc(cap, sizeof *m->slots);
    if (!m->slots) {
        mem_free(m);
        return NULL;
    }
    m->cap = cap;
    m->seed = process_seed();
    m->flags = flags;
    return m;
}

static void drop_key(struct hash_map *m, struct entry *s)
{
    if (!(m->flags & HASH_MAP_BORROW_KEYS))
        mem_free((char *)s->key);
}

void hash_map_close(struct hash_map **m)
{
    if (!*m)
        return;
    for (size_t i = 0; i < (*m)->cap; i++)
        if ((*m)->slots[i].key)
            drop_key(*m, &(*m)->slots[i]);
    mem_free((*m)->slots);
    mem_free(*m);
    *m = NULL;
}

/* The slot that holds the key, or the empty one where it would go. */
static struct entry *map_find(const struct hash_map *m, const char *key, size_t len, uint64_t hash)
{
    size_t mask = m->cap - 1;
    for (size_t i = hash & mask;; i = (i + 1) & mask) {
        struct entry *s = &m->slots[i];
        if (!s->key || (s->hash == hash && s->len == len && (len == 0 || memcmp(s->key, key, len) == 0)))
            return s;
    }
}

static bool map_grow(struct hash_map *m)
{
    struct hash_map grown = *m;
    grown.cap = cap_for(m->cap);
    grown.slots = grown.cap ? mem_try_zalloc(grown.cap, sizeof *grown.slots) : NULL;
    if (!grown.slots)
        return false;
    for (size_t i = 0; i < m->cap; i++)
        if (m->slots[i].key)
            *map_find(&grown, m->slots[i].key, m->slots[i].len, m->slots[i].hash) = m->slots[i];
    mem_free(m->slots);
    *m = grown;
    return true;
}

bool hash_map_put(struct hash_map *m, const char *key, size_t len, int64_t value)
{
    if (!key)
        key = "";
    uint64_t hash = hash_bytes(key, len, m->seed);
    struct entry *s = map_find(m, key, len, hash);
    if (s->key) {
        s->value = value;
        return true;
    }
    if (m->count >= m->cap / 4 * 3) {
        if (!map_grow(m))
            return false;
        s = map_find(m, key, len, hash);
    }
    if (!(m->flags & HASH_MAP_BORROW_KEYS) && !(key = mem_try_strndup(key, len)))
        return false;
    *s = (struct entry){key, len, hash, value};
    m->count++;
    return true;
}

bool hash_map_get(const struct hash_map *m, const char *key, size_t len, int64_t *value)
{
    const struct entry *s = map_find(m, key, len, hash_bytes(key, len, m->seed));
    if (!s->key)
        return false;
    if (value)
        *value = s->value;
    return true;
}

bool hash_map_del(struct hash_map *m, const char *key, size_t len)
{
    struct entry *s = map_find(m, key, len, hash_bytes(key, len, m->seed));
    if (!s->key)
        return false;
    drop_key(m, s);
    size_t mask = m->cap - 1, hole = (size_t)(s - m->slots);
    for (size_t i = (hole + 1) & mask; m->slots[i].key; i = (i + 1) & mask) {
        if (!may_fill(hole, i, m->slots[i].hash & mask, mask))
            continue;
        m->slots[hole] = m->slots[i];
        hole = i;
    }
    m->slots[hole] = (struct entry){0};
    m->count--;
    return true;
}

size_t hash_map_count(const struct hash_map *m)
{
    return m->count;
}

bool hash_map_next(const struct hash_map *m, size_t *it, const char **key, size_t *len, int64_t *value)
{
    while (*it < m->cap) {
        const struct entry *s = &m->slots[(*it)++];
        if (!s->key)
            continue;
        if (key)
            *key = s->key;
        if (len)
            *len = s->len;
        if (value)
            *value = s->value;
        return true;
    }
    return false;
}

/* Key 0 marks an empty slot, so its own entry lives beside the table. */
struct slot { uint64_t key; int64_t value; };

struct hash_u64 {
    struct slot *slots;
    size_t cap, count;  /* count: without key 0 */
    uint64_t seed;
    bool has_zero;
    int64_t zero_value;
};

struct hash_u64 *hash_u64_open(size_t expected)
{
    size_t cap = cap_for(expected);
    struct hash_u64 *m = cap ? mem_try_zalloc(1, sizeof *m) : NULL;
    if (!m)
        return NULL;
    m->slots = mem_try_zalloc(cap, sizeof *m->slots);
    if (!m->slots) {
        mem_free(m);
        return NULL;
    }
    m->cap = cap;
    m->seed = process_seed();
    return m;
}

void hash_u64_close(struct hash_u64 **m)
{
    if (!*m)
        return;
    mem_free((*m)->slots);
    mem_free(*m);
    *m = NULL;
}

static size_t u64_home(const struct hash_u64 *m, uint64_t key)
{
    return hash_mix(key ^ m->seed, m->seed) & (m->cap - 1);
}

static struct slot *u64_find(const struct hash_u64 *m, uint64_t key)
{
    size_t i = u64_home(m, key);
    while (m->slots[i].key && m->slots[i].key != key)
        i = (i + 1) & (m->cap - 1);
    return &m->slots[i];
}

static bool u64_grow(struct hash_u64 *m)
{
    struct hash_u64 grown = *m;
    grown.cap = cap_for(m->cap);
    grown.slots = grown.cap ? mem_try_zalloc(grown.cap, sizeof *grown.slots) : NULL;
    if (!grown.slots)
        return false;
    for (size_t i = 0; i < m->cap; i++)
        if (m->slots[i].key)
            *u64_find(&grown, m->slots[i].key) = m->slots[i];
    mem_free(m->slots);
    *m = grown;
    return true;
}

bool hash_u64_put(struct hash_u64 *m, uint64_t key, int64_t value)
{
    if (key == 0) {
        m->has_zero = true;
        m->zero_value = value;
        return true;
    }
    struct slot *s = u64_find(m, key);
    if (s->key) {
        s->value = value;
        return true;
    }
    if (m->count >= m->cap / 4 * 3) {
        if (!u64_grow(m))
            return false;
        s = u64_find(m, key);
    }
    *s = (struct slot){key, value};
    m->count++;
    return true;
}

bool hash_u64_get(const struct hash_u64 *m, uint64_t key, int64_t *value)
{
    int64_t found = m->zero_value;
    if (key == 0) {
        if (!m->has_zero)
            return false;
    } else {
        const struct slot *s = u64_find(m, key);
        if (!s->key)
            return false;
        found = s->value;
    }
    if (value)
        *value = found;
    return true;
}

bool hash_u64_del(struct hash_u64 *m, uint64_t key)
{
    if (key == 0) {
        bool had = m->has_zero;
        m->has_zero = false;
        return had;
    }
    struct slot *s = u64_find(m, key);
    if (!s->key)
        return false;
    size_t mask = m->cap - 1, hole = (size_t)(s - m->slots);
    for (size_t i = (hole + 1) & mask; m->slots[i].key; i = (i + 1) & mask) {
        if (!may_fill(hole, i, u64_home(m, m->slots[i].key), mask))
            continue;
        m->slots[hole] = m->slots[i];
        hole = i;
    }
    m->slots[hole] = (struct slot){0};
    m->count--;
    return true;
}

size_t hash_u64_count(const struct hash_u64 *m)
{
    return m->count + m->has_zero;
}
