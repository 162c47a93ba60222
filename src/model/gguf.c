#include "model/gguf_int.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/mem.h"
#include "base/vec.h"
#include "tensor/quant.h"

enum { MAX_NAME = 200, MAX_DIMS = 4, MAX_EXPERTS = 4096, DEFAULT_ALIGNMENT = 32, MAX_ALIGNMENT = 1 << 20 };

/* ---- bytes ---- */

struct reader {
    const unsigned char *p, *end;
    const char *file;
    struct err *e;
};

static uint64_t little(const unsigned char *p, int n)
{
    uint64_t v = 0;
    for (int i = n - 1; i >= 0; i--)
        v = v << 8 | p[i];
    return v;
}

static bool cut_short(struct reader *r, const char *what)
{
    err_set(r->e, ERR_FORMAT, "%s: the file ends within %s (is it cut short?)", r->file, what);
    return false;
}

static bool take(struct reader *r, uint64_t n, const unsigned char **out, const char *what)
{
    if (n > (uint64_t)(r->end - r->p))
        return cut_short(r, what);
    *out = r->p;
    r->p += n;
    return true;
}

static bool take_int(struct reader *r, int n, uint64_t *out, const char *what)
{
    const unsigned char *p;
    if (!take(r, (uint64_t)n, &p, what))
        return false;
    *out = little(p, n);
    return true;
}

/* A key or name, copied and ended by a NUL. */
static bool take_name(struct reader *r, struct arena *arena, const char **out, const char *what)
{
    uint64_t n;
    const unsigned char *p;
    if (!take_int(r, 8, &n, what) || !take(r, n, &p, what))
        return false;
    if (n == 0 || n > MAX_NAME || memchr(p, 0, (size_t)n))
        return err_set(r->e, ERR_FORMAT, "%s: %s of %llu bytes is not a name (1 to %d characters)", r->file, what, (unsigned long long)n, MAX_NAME);
    char *s = arena_try_strndup(arena, (const char *)p, (size_t)n);
    for (char *c = s; c && *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            *c = '?';       /* names go into one-line messages */
    *out = s;
    return s || err_set(r->e, ERR_NOMEM, "%s: no memory for names", r->file);
}

/* ---- metadata ---- */

static const uint8_t type_bytes[GGUF_TYPE_COUNT] = { 1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8 };
static const char *const type_names[GGUF_TYPE_COUNT] = {
    "u8", "i8", "u16", "i16", "u32", "i32", "f32", "bool", "string", "array", "u64", "i64", "f64",
};

static bool take_type(struct reader *r, const char *key, enum gguf_type *out)
{
    uint64_t t;
    if (!take_int(r, 4, &t, "a value's type"))
        return false;
    if (t >= GGUF_TYPE_COUNT)
        return err_set(r->e, ERR_FORMAT, "%s: key %s: value type %llu is not known", r->file, key, (unsigned long long)t);
    *out = (enum gguf_type)t;
    return true;
}

static bool take_value(struct reader *r, struct gguf_kv *kv)
{
    if (!take_type(r, kv->key, &kv->type))
        return false;
    kv->n = 1;
    kv->is_array = kv->type == GGUF_ARRAY;
    if (kv->is_array && (!take_type(r, kv->key, &kv->type) || !take_int(r, 8, &kv->n, "an array's length")))
        return false;
    if (kv->type == GGUF_ARRAY)
        return err_set(r->e, ERR_UNSUPPORTED, "%s: key %s: an array of arrays is not supported", r->file, kv->key);
    kv->data = r->p;
    if (kv->type != GGUF_STRING) {
        const unsigned char *p;
        if (kv->n > (uint64_t)(r->end - r->p) / type_bytes[kv->type])
            return cut_short(r, kv->key);
        return take(r, kv->n * type_bytes[kv->type], &p, kv->key);
    }
    for (uint64_t i = 0; i < kv->n; i++) {
        uint64_t n;
        const unsigned char *p;
        if (!take_int(r, 8, &n, kv->key) || !take(r, n, &p, kv->key))
            return false;
    }
    return true;
}

static bool take_metadata(struct reader *r, struct gguf *g, uint64_t n)
{
    /* The least a pair can take is 8 + 1 + 4 + 1 bytes. */
    if (n > (uint64_t)(r->end - r->p) / 14)
        return cut_short(r, "the metadata");
    g->kv = mem_try_zalloc((size_t)n, sizeof *g->kv);
    g->by_key = hash_map_open((size_t)n, HASH_MAP_BORROW_KEYS);
    if (!g->kv || !g->by_key)
        return err_set(r->e, ERR_NOMEM, "%s: no memory for %llu keys", r->file, (unsigned long long)n);
    for (; g->n_kv < n; g->n_kv++) {
        struct gguf_kv *kv = &g->kv[g->n_kv];
        int64_t other;
        if (!take_name(r, g->arena, &kv->key, "a key") || !take_value(r, kv))
            return false;
        if (hash_map_get(g->by_key, kv->key, strlen(kv->key), &other))
            return err_set(r->e, ERR_FORMAT, "%s: key %s comes twice", r->file, kv->key);
        if (!hash_map_put(g->by_key, kv->key, strlen(kv->key), (int64_t)g->n_kv))
            return err_set(r->e, ERR_NOMEM, "%s: no memory for %llu keys", r->file, (unsigned long long)n);
    }
    return true;
}

const struct gguf_kv *gguf_find(const struct gguf *g, const char *key)
{
    int64_t i;
    return g->by_key && hash_map_get(g->by_key, key, strlen(key), &i) ? &g->kv[i] : NULL;
}

static bool wrong_kind(const struct gguf *g, const struct gguf_kv *kv, const char *want, struct err *e)
{
    return err_set(e, ERR_FORMAT, "%s: %s must be %s, found %s%s", g->file, kv->key, want, kv->is_array ? "an array of " : "", type_names[kv->type]);
}

/* Element i as a whole number; false when it is another kind or beyond int64. */
static bool integer_at(const struct gguf_kv *kv, uint64_t i, int64_t *out)
{
    if (kv->type == GGUF_STRING || kv->type == GGUF_F32 || kv->type == GGUF_F64 || kv->type == GGUF_BOOL)
        return false;
    int n = type_bytes[kv->type];
    uint64_t v = little(kv->data + i * (uint64_t)n, n);
    bool is_signed = kv->type == GGUF_I8 || kv->type == GGUF_I16 || kv->type == GGUF_I32 || kv->type == GGUF_I64;
    if (is_signed && n < 8 && v >> (8 * n - 1))
        v |= ~(uint64_t)0 << (8 * n);
    if (!is_signed && v > INT64_MAX)
        return false;
    *out = (int64_t)v;
    return true;
}

bool gguf_number_at(const struct gguf_kv *kv, uint64_t i, double *out)
{
    int64_t whole;
    float f;
    switch (kv->type) {
    case GGUF_F32:
        memcpy(&f, kv->data + 4 * i, 4);
        *out = (double)f;
        return true;
    case GGUF_F64:
        memcpy(out, kv->data + 8 * i, 8);
        return true;
    case GGUF_BOOL:
        *out = kv->data[i] != 0;
        return true;
    default:
        if (!integer_at(kv, i, &whole))
            return false;
        *out = (double)whole;
        return true;
    }
}

bool gguf_get_i64(const struct gguf *g, const char *key, int64_t *out, struct err *e)
{
    const struct gguf_kv *kv = gguf_find(g, key);
    return !kv || (!kv->is_array && integer_at(kv, 0, out)) || wrong_kind(g, kv, "a whole number", e);
}

bool gguf_get_f64(const struct gguf *g, const char *key, double *out, struct err *e)
{
    const struct gguf_kv *kv = gguf_find(g, key);
    double v;
    if (!kv)
        return true;
    if (kv->is_array || kv->type == GGUF_BOOL || !gguf_number_at(kv, 0, &v))
        return wrong_kind(g, kv, "a number", e);
    if (!isfinite(v))
        return err_set(e, ERR_FORMAT, "%s: %s must be a finite number", g->file, key);
    *out = v;
    return true;
}

bool gguf_get_bool(const struct gguf *g, const char *key, bool *out, struct err *e)
{
    const struct gguf_kv *kv = gguf_find(g, key);
    if (!kv)
        return true;
    if (kv->is_array || kv->type != GGUF_BOOL)
        return wrong_kind(g, kv, "a bool", e);
    *out = kv->data[0] != 0;
    return true;
}

void gguf_next_string(const unsigned char **at, const char **s, size_t *len)
{
    *len = (size_t)little(*at, 8);
    *s = (const char *)*at + 8;
    *at += 8 + *len;
}

bool gguf_get_str(struct gguf *g, const char *key, const char **out, struct err *e)
{
    const struct gguf_kv *kv = gguf_find(g, key);
    if (!kv)
        return true;
    if (kv->is_array || kv->type != GGUF_STRING)
        return wrong_kind(g, kv, "a string", e);
    const unsigned char *at = kv->data;
    const char *s;
    size_t len;
    gguf_next_string(&at, &s, &len);
    if (memchr(s, 0, len))
        return err_set(e, ERR_FORMAT, "%s: %s has a NUL inside", g->file, key);
    *out = arena_try_strndup(g->arena, s, len);
    return *out || err_set(e, ERR_NOMEM, "%s: no memory for %s", g->file, key);
}

/* ---- tensors ---- */

struct tensor_list { struct tensor *items; size_t n, cap; };

static bool type_of(struct reader *r, struct tensor *t, uint64_t id)
{
    static const struct { int id; enum dtype dtype; } plain[] = {
        { 0, DT_F32 }, { 1, DT_F16 }, { 30, DT_BF16 }, { 28, DT_F64 }, { 24, DT_I8 }, { 25, DT_I16 }, { 26, DT_I32 }, { 27, DT_I64 },
    };
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++) {
        if (id == (uint64_t)plain[i].id) {
            t->dtype = plain[i].dtype;
            return true;
        }
    }
    t->dtype = DT_U8;
    t->block = id < 1000 ? quant_block_by_id((int)id) : NULL;
    return t->block || err_set(r->e, ERR_UNSUPPORTED, "%s: tensor %s is of type %s (%llu), which is not supported", r->file, t->name,
                               quant_block_type_name(id < 1000 ? (int)id : -1), (unsigned long long)id);
}

/* The file has the fastest dimension first, we the slowest. */
static bool take_dims(struct reader *r, struct tensor *t)
{
    uint64_t n, d;
    if (!take_int(r, 4, &n, "a tensor's shape"))
        return false;
    if (n > MAX_DIMS)
        return err_set(r->e, ERR_FORMAT, "%s: tensor %s has %llu dimensions; at most %d", r->file, t->name, (unsigned long long)n, MAX_DIMS);
    t->n_dims = (int)n;
    for (int i = t->n_dims - 1; i >= 0; i--) {
        if (!take_int(r, 8, &d, "a tensor's shape"))
            return false;
        if (d > INT64_MAX)
            return err_set(r->e, ERR_FORMAT, "%s: tensor %s: a dimension of %llu is not plausible", r->file, t->name, (unsigned long long)d);
        t->dims[i] = (int64_t)d;
    }
    return true;
}

/* bytes, from shape and type. */
static bool size_of(struct reader *r, struct tensor *t)
{
    size_t count;
    bool ok = tensor_count(t, &count);
    if (ok && t->block) {
        int64_t cols = t->n_dims ? t->dims[t->n_dims - 1] : 1;
        if (cols % t->block->values)
            return err_set(r->e, ERR_FORMAT, "%s: tensor %s: rows of %lld values are not whole blocks of %d (%s)", r->file, t->name,
                           (long long)cols, t->block->values, t->block->name);
        ok = mem_mul(count / (size_t)t->block->values, (size_t)t->block->bytes, &t->bytes);
    } else if (ok) {
        ok = mem_mul(count, dtype_bytes(t->dtype), &t->bytes);
    }
    return ok || err_set(r->e, ERR_FORMAT, "%s: tensor %s: the product of its shape is too large", r->file, t->name);
}

static bool push(struct reader *r, struct tensor_list *list, const struct tensor *t)
{
    if (!vec_reserve((void **)&list->items, &list->cap, list->n + 1, sizeof *list->items))
        return err_set(r->e, ERR_NOMEM, "%s: no memory for tensors", r->file);
    list->items[list->n++] = *t;
    return true;
}

static bool ends_with(const char *s, const char *ending)
{
    size_t n = strlen(s), k = strlen(ending);
    return n > k && strcmp(s + n - k, ending) == 0;
}

/* Matrices of all heads, one behind the other, as one. */
static void join_heads(struct tensor *t)
{
    if (t->n_dims != 3 || t->dims[0] > INT32_MAX || t->dims[1] > INT32_MAX || !(ends_with(t->name, ".attn_k_b.weight") || ends_with(t->name, ".attn_v_b.weight")))
        return;
    t->n_dims = 2;
    t->dims[0] *= t->dims[1];
    t->dims[1] = t->dims[2];
}

/* "X_exps.weight" [experts][rows][cols] as "X_exps.0.weight", ... */
static bool push_experts(struct reader *r, struct arena *arena, struct tensor_list *list, const struct tensor *all)
{
    char name[MAX_NAME + 24];
    struct tensor t = *all;
    if (all->dims[0] < 1 || all->dims[0] > MAX_EXPERTS)
        return err_set(r->e, ERR_FORMAT, "%s: tensor %s: %lld experts; from 1 to %d are possible", r->file, all->name, (long long)all->dims[0], MAX_EXPERTS);
    t.n_dims = 2;
    t.dims[0] = all->dims[1];
    t.dims[1] = all->dims[2];
    t.bytes = all->bytes / (size_t)all->dims[0];
    for (int64_t i = 0; i < all->dims[0]; i++) {
        snprintf(name, sizeof name, "%.*s.%lld.weight", (int)(strlen(all->name) - strlen(".weight")), all->name, (long long)i);
        t.name = arena_try_strndup(arena, name, strlen(name));
        t.data = (const unsigned char *)all->data + (size_t)i * t.bytes;
        if (!t.name)
            return err_set(r->e, ERR_NOMEM, "%s: no memory for names", r->file);
        if (!push(r, list, &t))
            return false;
    }
    return true;
}

static int by_place(const void *a, const void *b)
{
    const struct tensor *x = a, *y = b;
    if (x->data != y->data)
        return (const unsigned char *)x->data < (const unsigned char *)y->data ? -1 : 1;
    return x->bytes < y->bytes ? -1 : x->bytes > y->bytes;
}

static bool place_tensors(struct reader *r, struct tensor_list *list, const uint64_t *offsets, const unsigned char *data, uint64_t alignment)
{
    uint64_t room = (uint64_t)(r->end - data);
    for (size_t i = 0; i < list->n; i++) {
        struct tensor *t = &list->items[i];
        if (offsets[i] % alignment)
            return err_set(r->e, ERR_FORMAT, "%s: tensor %s: offset %llu is not a multiple of %llu", r->file, t->name,
                           (unsigned long long)offsets[i], (unsigned long long)alignment);
        if (offsets[i] > room || t->bytes > room - offsets[i])
            return err_set(r->e, ERR_FORMAT, "%s: tensor %s: %zu bytes at %llu are not within the %llu bytes of data (is the file cut short?)",
                           r->file, t->name, t->bytes, (unsigned long long)offsets[i], (unsigned long long)room);
        t->data = data + offsets[i];
    }
    if (list->n)
        qsort(list->items, list->n, sizeof *list->items, by_place);
    for (size_t i = 1; i < list->n; i++) {
        const struct tensor *a = &list->items[i - 1], *b = &list->items[i];
        if ((const unsigned char *)a->data + a->bytes > (const unsigned char *)b->data)
            return err_set(r->e, ERR_FORMAT, "%s: tensors %s and %s overlap", r->file, a->name, b->name);
    }
    return true;
}

static bool is_stacked(const struct tensor *t)
{
    return t->n_dims == 3 && ends_with(t->name, "_exps.weight");
}

static bool take_tensors(struct reader *r, struct gguf *g, const unsigned char *start, uint64_t n, uint64_t alignment)
{
    struct tensor_list list = { 0 }, all = { 0 };
    uint64_t *offsets = NULL;
    bool ok = false;
    /* The least an entry can take is 8 + 1 + 4 + 4 + 8 bytes. */
    if (n > (uint64_t)(r->end - r->p) / 25)
        return cut_short(r, "the list of tensors");
    offsets = mem_try_alloc((size_t)n, sizeof *offsets);
    if (!offsets)
        return err_set(r->e, ERR_NOMEM, "%s: no memory for %llu tensors", r->file, (unsigned long long)n);
    for (uint64_t i = 0; i < n; i++) {
        struct tensor t = { 0 };
        uint64_t type;
        if (!take_name(r, g->arena, &t.name, "a tensor's name") || !take_dims(r, &t) || !take_int(r, 4, &type, "a tensor's type") ||
            !type_of(r, &t, type) || !take_int(r, 8, &offsets[i], "a tensor's offset") || !size_of(r, &t) || !push(r, &list, &t))
            goto out;
    }
    size_t header = (size_t)(r->p - start), pad = (size_t)((alignment - header % alignment) % alignment);
    if (!place_tensors(r, &list, offsets, pad > (size_t)(r->end - r->p) ? r->end : r->p + pad, alignment))
        goto out;
    for (size_t i = 0; i < list.n; i++) {
        join_heads(&list.items[i]);
        if (!(is_stacked(&list.items[i]) ? push_experts(r, g->arena, &all, &list.items[i]) : push(r, &all, &list.items[i])))
            goto out;
    }
    g->tensors = all.items;
    g->n_tensors = all.n;
    all.items = NULL;
    ok = true;
out:
    mem_free(offsets);
    mem_free(list.items);
    mem_free(all.items);
    return ok;
}

/* ---- a file ---- */

static bool take_header(struct reader *r, uint64_t *n_tensors, uint64_t *n_kv)
{
    const unsigned char *magic;
    uint64_t version;
    if (!take(r, 4, &magic, "the header") || memcmp(magic, "GGUF", 4) != 0)
        return err_set(r->e, ERR_FORMAT, "%s: is not a GGUF file (it does not begin with \"GGUF\")", r->file);
    if (!take_int(r, 4, &version, "the header"))
        return false;
    if (version && !(version & 0xffff))
        return err_set(r->e, ERR_UNSUPPORTED, "%s: is a big-endian GGUF file; only little-endian ones are read", r->file);
    if (version != 2 && version != 3)
        return err_set(r->e, ERR_UNSUPPORTED, "%s: GGUF version %llu; supported are 2 and 3", r->file, (unsigned long long)version);
    return take_int(r, 8, n_tensors, "the header") && take_int(r, 8, n_kv, "the header");
}

bool gguf_parse(struct gguf *g, const unsigned char *data, size_t size, const char *file, struct err *e)
{
    struct reader r = { .p = data, .end = data + size, .file = file, .e = e };
    uint64_t n_tensors = 0, n_kv = 0;
    int64_t alignment = DEFAULT_ALIGNMENT;
    *g = (struct gguf){ .file = file, .arena = arena_open(0) };
    if (!g->arena) {
        err_set(e, ERR_NOMEM, "%s: no memory", file);
        goto fail;
    }
    if (!take_header(&r, &n_tensors, &n_kv) || !take_metadata(&r, g, n_kv) || !gguf_get_i64(g, "general.alignment", &alignment, e))
        goto fail;
    if (alignment < 1 || alignment > MAX_ALIGNMENT || (alignment & (alignment - 1))) {
        err_set(e, ERR_FORMAT, "%s: general.alignment is %lld; it must be a power of two up to %d", file, (long long)alignment, MAX_ALIGNMENT);
        goto fail;
    }
    if (take_tensors(&r, g, data, n_tensors, (uint64_t)alignment))
        return true;
fail:
    gguf_free(g);
    return false;
}

void gguf_free(struct gguf *g)
{
    mem_free(g->kv);
    hash_map_close(&g->by_key);
    mem_free(g->tensors);
    arena_close(&g->arena);
    *g = (struct gguf){ 0 };
}
