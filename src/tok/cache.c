#include <string.h>

#include "base/mem.h"
#include "base/rng.h"
#include "base/vec.h"
#include "tok/tok_int.h"

/* Open addressing over a fixed table; a full table forgets everything and starts over, so
 * memory is bounded whatever the text. */
enum { CACHE_MIN_SLOTS = 1 << 6, CACHE_MAX_SLOTS = 1 << 14, CACHE_MAX_LEN = 256, CACHE_MAX_IDS = 1 << 18 };

struct slot { uint64_t hash; size_t word, ids; uint32_t len, n_ids; };

struct tok_cache {
    struct slot *slots;
    size_t mask, n;              /* slots - 1; words stored, at most half as many as slots */
    uint64_t seed, hash;         /* hash: of the word last looked up */
    struct buf text;
    struct tok_ids ids;
};

struct tok_cache *tok_cache_open(size_t text_len)
{
    size_t n_slots = CACHE_MIN_SLOTS;
    while (n_slots < text_len / 2 && n_slots < CACHE_MAX_SLOTS)
        n_slots *= 2;
    struct tok_cache *c = mem_try_zalloc(1, sizeof *c);
    if (!c)
        return NULL;
    c->seed = rng_entropy();
    c->mask = n_slots - 1;
    c->slots = mem_try_zalloc(n_slots, sizeof *c->slots);
    if (!c->slots)
        tok_cache_close(&c);
    return c;
}

void tok_cache_close(struct tok_cache **c)
{
    if (!*c)
        return;
    mem_free((*c)->slots);
    buf_free(&(*c)->text);
    tok_ids_free(&(*c)->ids);
    mem_free(*c);
    *c = NULL;
}

static void forget(struct tok_cache *c)
{
    memset(c->slots, 0, (c->mask + 1) * sizeof *c->slots);
    buf_clear(&c->text);
    c->ids.n = c->n = 0;
}

bool tok_cache_get(struct tok_cache *c, const char *word, size_t len, struct tok_ids *out, bool *ok)
{
    *ok = true;
    if (len > CACHE_MAX_LEN)
        return false;
    c->hash = hash_bytes(word, len, c->seed) | 1;
    for (size_t i = (c->hash >> 20) & c->mask; c->slots[i].hash; i = (i + 1) & c->mask) {
        const struct slot *s = &c->slots[i];
        if (s->hash != c->hash || s->len != len || memcmp(c->text.data + s->word, word, len) != 0)
            continue;
        *ok = vec_reserve((void **)&out->ids, &out->cap, out->n + s->n_ids, sizeof *out->ids);
        if (*ok && s->n_ids) {
            memcpy(out->ids + out->n, c->ids.ids + s->ids, s->n_ids * sizeof *out->ids);
            out->n += s->n_ids;
        }
        return true;
    }
    return false;
}

void tok_cache_put(struct tok_cache *c, const char *word, size_t len, const struct tok_ids *out, size_t from)
{
    size_t n = out->n - from;
    if (len > CACHE_MAX_LEN || n > CACHE_MAX_LEN * 4)
        return;
    if (c->n > c->mask / 2 || c->ids.n + n > CACHE_MAX_IDS)
        forget(c);
    size_t at = c->text.len;
    if (!vec_reserve((void **)&c->ids.ids, &c->ids.cap, c->ids.n + n, sizeof *c->ids.ids) ||
        !buf_append(&c->text, word, len)) {
        forget(c);               /* words already stored point into what failed */
        return;
    }
    size_t i = (c->hash >> 20) & c->mask;
    while (c->slots[i].hash)
        i = (i + 1) & c->mask;
    c->slots[i] = (struct slot){c->hash, at, c->ids.n, (uint32_t)len, (uint32_t)n};
    if (n)
        memcpy(c->ids.ids + c->ids.n, out->ids + from, n * sizeof *out->ids);
    c->ids.n += n;
    c->n++;
}
