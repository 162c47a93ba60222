/* GGUF bytes from a few lines: metadata, tensors, and every way to get them wrong. */
#ifndef QUIRE_TESTS_GGUF_BUILD_H
#define QUIRE_TESTS_GGUF_BUILD_H

#include <stdint.h>
#include <string.h>
#include "base/buf.h"
#include "model/gguf_int.h"

struct gguf_build {
    struct buf kv, infos, data;
    uint64_t n_kv, n_tensors;
    uint32_t version;          /* 0: 3 */
};

static inline void gb_int(struct buf *b, uint64_t v, int n)
{
    for (int i = 0; i < n; i++)
        buf_putc(b, (char)(v >> (8 * i)));
}

static inline void gb_text(struct buf *b, const char *s, size_t len)
{
    gb_int(b, len, 8);
    buf_append(b, s, len);
}

static inline void gb_key(struct gguf_build *g, const char *key, enum gguf_type type)
{
    gb_text(&g->kv, key, strlen(key));
    gb_int(&g->kv, type, 4);
    g->n_kv++;
}

static inline void gb_u32(struct gguf_build *g, const char *key, uint32_t v)
{
    gb_key(g, key, GGUF_U32);
    gb_int(&g->kv, v, 4);
}

static inline void gb_f32(struct gguf_build *g, const char *key, float v)
{
    gb_key(g, key, GGUF_F32);
    buf_append(&g->kv, &v, 4);
}

static inline void gb_bool(struct gguf_build *g, const char *key, bool v)
{
    gb_key(g, key, GGUF_BOOL);
    buf_putc(&g->kv, (char)v);
}

static inline void gb_str(struct gguf_build *g, const char *key, const char *v)
{
    gb_key(g, key, GGUF_STRING);
    gb_text(&g->kv, v, strlen(v));
}

/* The elements follow, written to g->kv. */
static inline void gb_array(struct gguf_build *g, const char *key, enum gguf_type type, uint64_t n)
{
    gb_key(g, key, GGUF_ARRAY);
    gb_int(&g->kv, type, 4);
    gb_int(&g->kv, n, 8);
}

/* dims fastest first, as in the file; the offset where the data is now, padded to 32. */
static inline void gb_info(struct gguf_build *g, const char *name, int n_dims, const uint64_t *dims, uint32_t type, uint64_t offset)
{
    gb_text(&g->infos, name, strlen(name));
    gb_int(&g->infos, (uint64_t)n_dims, 4);
    for (int i = 0; i < n_dims; i++)
        gb_int(&g->infos, dims[i], 8);
    gb_int(&g->infos, type, 4);
    gb_int(&g->infos, offset, 8);
    g->n_tensors++;
}

static inline void gb_tensor(struct gguf_build *g, const char *name, int n_dims, const uint64_t *dims, uint32_t type, const void *data, size_t bytes)
{
    while (g->data.len % 32)
        buf_putc(&g->data, 0);
    gb_info(g, name, n_dims, dims, type, g->data.len);
    buf_append(&g->data, data, bytes);
}

/* Appends the file to out and empties g. */
static inline void gb_finish(struct gguf_build *g, struct buf *out)
{
    size_t start = out->len;
    buf_puts(out, "GGUF");
    gb_int(out, g->version ? g->version : 3, 4);
    gb_int(out, g->n_tensors, 8);
    gb_int(out, g->n_kv, 8);
    buf_append(out, g->kv.data ? g->kv.data : "", g->kv.len);
    buf_append(out, g->infos.data ? g->infos.data : "", g->infos.len);
    while ((out->len - start) % 32)
        buf_putc(out, 0);
    buf_append(out, g->data.data ? g->data.data : "", g->data.len);
    buf_free(&g->kv);
    buf_free(&g->infos);
    buf_free(&g->data);
    *g = (struct gguf_build){ 0 };
}

#endif
