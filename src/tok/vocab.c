#include <string.h>

#include "base/mem.h"
#include "base/vec.h"
#include "tok/tok_int.h"

bool tok_nomem(struct err *e)
{
    return err_set(e, ERR_NOMEM, "tokenizer: out of memory");
}

static size_t slot_of(const struct tok_vocab *v, const char *s, size_t len, uint32_t *tag)
{
    uint64_t h = hash_bytes(s, len, 0);
    *tag = (uint32_t)(h >> 32);
    return (size_t)h & v->mask;
}

/* Slot that holds the spelling, or the empty slot where it belongs, from slot i on. */
static size_t find_from(const struct tok_vocab *v, size_t i, uint32_t tag, const char *s, size_t len)
{
    for (; v->slots[i].entry; i = (i + 1) & v->mask) {
        if (v->slots[i].tag != tag)
            continue;
        const struct tok_entry *x = &v->entries[v->slots[i].entry - 1];
        if (x->len == len && memcmp(v->text.data + x->at, s, len) == 0)
            break;
    }
    return i;
}

static size_t find(const struct tok_vocab *v, const char *s, size_t len, uint32_t *tag)
{
    size_t i = slot_of(v, s, len, tag);
    return find_from(v, i, *tag, s, len);
}

/* Room for n entries at half load. */
static bool grow(struct tok_vocab *v, size_t n)
{
    size_t cap = 64;
    while (cap / 2 < n)
        cap *= 2;
    if (v->slots && cap <= v->mask + 1)
        return true;
    void *slots = mem_try_zalloc(cap, sizeof *v->slots);
    if (!slots)
        return false;
    mem_free(v->slots);
    v->slots = slots;
    v->mask = cap - 1;
    for (size_t k = 0; k < v->n; k++) {
        uint32_t tag;
        const struct tok_entry *x = &v->entries[k];
        size_t i = slot_of(v, v->text.data + x->at, x->len, &tag);
        while (v->slots[i].entry)
            i = (i + 1) & v->mask;
        v->slots[i].tag = tag;
        v->slots[i].entry = (uint32_t)k + 1;
    }
    return true;
}

bool tok_vocab_reserve(struct tok_vocab *v, size_t n, struct err *e)
{
    if (n > TOK_MAX_IDS)
        n = TOK_MAX_IDS;
    return (vec_reserve((void **)&v->entries, &v->cap, n, sizeof *v->entries) && grow(v, n)) || tok_nomem(e);
}

bool tok_vocab_add(struct tok_vocab *v, size_t at, int64_t id, struct err *e)
{
    uint32_t tag;
    size_t len = v->text.len - at;
    if (!buf_putc(&v->text, 0))
        return tok_nomem(e);
    if (id < 0 || id >= TOK_MAX_IDS || v->n >= TOK_MAX_IDS)
        return err_set(e, ERR_TOO_LARGE, "tokenizer.json: token '%.60s' has id %lld, ids must be below %d",
                       v->text.data + at, (long long)id, TOK_MAX_IDS);
    if (v->text.len > UINT32_MAX - 1)
        return err_set(e, ERR_TOO_LARGE, "tokenizer.json: vocabulary text exceeds 4 GiB");
    if (!vec_reserve((void **)&v->entries, &v->cap, v->n + 1, sizeof *v->entries) || !grow(v, v->n + 1))
        return tok_nomem(e);
    size_t i = find(v, v->text.data + at, len, &tag);
    if (v->slots[i].entry) {
        v->entries[v->slots[i].entry - 1].id = (int32_t)id;
    } else {
        v->entries[v->n] = (struct tok_entry){(uint32_t)at, (uint32_t)len, (int32_t)id};
        v->slots[i].tag = tag;
        v->slots[i].entry = (uint32_t)++v->n;
        if (len > v->max_len)
            v->max_len = len;
    }
    if (id >= v->n_ids)
        v->n_ids = (int32_t)id + 1;
    return true;
}

bool tok_vocab_finish(struct tok_vocab *v, struct err *e)
{
    v->n_strings = v->n;
    if (!grow(v, 1))
        return tok_nomem(e);
    v->by_id = mem_try_alloc((size_t)v->n_ids, sizeof *v->by_id);
    if (!v->by_id)
        return tok_nomem(e);
    memset(v->by_id, 0xff, (size_t)v->n_ids * sizeof *v->by_id);
    for (size_t k = 0; k < v->n; k++)
        v->by_id[v->entries[k].id] = (int32_t)k;
    return true;
}

void tok_vocab_free(struct tok_vocab *v)
{
    buf_free(&v->text);
    mem_free(v->entries);
    mem_free(v->slots);
    mem_free(v->by_id);
    *v = (struct tok_vocab){0};
}

int32_t tok_vocab_id(const struct tok_vocab *v, const char *s, size_t len)
{
    uint32_t tag;
    size_t i = find(v, s, len, &tag);
    return v->slots[i].entry ? v->entries[v->slots[i].entry - 1].id : -1;
}

void tok_vocab_find(const struct tok_vocab *v, struct tok_key *keys, size_t n)
{
    for (size_t k = 0; k < n; k++) {
        keys[k].slot = slot_of(v, keys[k].s, keys[k].len, &keys[k].tag);
        __builtin_prefetch(&v->slots[keys[k].slot]);
    }
    for (size_t k = 0; k < n; k++) {
        uint32_t entry = v->slots[keys[k].slot].entry;
        __builtin_prefetch(&v->entries[entry ? entry - 1 : 0]);
    }
    for (size_t k = 0; k < n; k++) {
        uint32_t entry = v->slots[keys[k].slot].entry;
        __builtin_prefetch(v->text.data + (entry ? v->entries[entry - 1].at : 0));
    }
    for (size_t k = 0; k < n; k++) {
        size_t i = find_from(v, keys[k].slot, keys[k].tag, keys[k].s, keys[k].len);
        keys[k].id = v->slots[i].entry ? v->entries[v->slots[i].entry - 1].id : -1;
    }
}

const char *tok_vocab_spelling(const struct tok_vocab *v, int32_t id, size_t *len)
{
    *len = 0;
    if (id < 0 || id >= v->n_ids || v->by_id[id] < 0)
        return NULL;
    const struct tok_entry *x = &v->entries[v->by_id[id]];
    *len = x->len;
    return v->text.data + x->at;
}
