/* Model folders made by tests: files written below a fresh temporary directory. */
#ifndef QUIRE_TESTS_MODEL_FILES_H
#define QUIRE_TESTS_MODEL_FILES_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/buf.h"
#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"

struct folder { char dir[64]; };

static inline void folder_make(struct folder *f)
{
    strcpy(f->dir, "/tmp/quire-test-XXXXXX");
    if (!mkdtemp(f->dir))
        abort();
}

static inline void folder_write(const struct folder *f, const char *name, const void *data, size_t n)
{
    struct err e;
    char *path = file_join(f->dir, name);
    if (!file_write_atomic(path, data, n, &e)) {
        fprintf(stderr, "%s\n", e.msg);
        abort();
    }
    mem_free(path);
}

static inline void folder_text(const struct folder *f, const char *name, const char *text)
{
    folder_write(f, name, text, strlen(text));
}

static inline void folder_remove(struct folder *f)
{
    char cmd[96];
    snprintf(cmd, sizeof cmd, "rm -rf '%s'", f->dir);
    if (system(cmd) != 0)
        abort();
}

/* A safetensors file of the given header text and data. */
static inline void st_bytes(struct buf *b, const char *header, const void *data, size_t n)
{
    uint64_t len = strlen(header);
    unsigned char head[8];
    for (int i = 0; i < 8; i++)
        head[i] = (unsigned char)(len >> (8 * i));
    buf_append(b, head, 8);
    buf_append(b, header, len);
    buf_append(b, data, n);
}

/* Builds one by appending float32 tensors filled with 1, 2, 3, ... */
struct st_build { struct buf header, data; };

static inline void st_add(struct st_build *b, const char *name, const char *dtype, int elem_bytes, int n_dims, int64_t d0, int64_t d1)
{
    size_t n = (size_t)d0 * (n_dims > 1 ? (size_t)d1 : 1), from = b->data.len;
    for (size_t i = 0; i < n; i++) {
        float v = 1.0f + (float)i;
        uint32_t u;
        memcpy(&u, &v, 4);
        uint16_t h = (uint16_t)(u >> 16);
        buf_append(&b->data, elem_bytes == 4 ? (const void *)&u : (const void *)&h, (size_t)elem_bytes);
    }
    char shape[64];
    if (n_dims > 1)
        snprintf(shape, sizeof shape, "%lld,%lld", (long long)d0, (long long)d1);
    else
        snprintf(shape, sizeof shape, "%lld", (long long)d0);
    buf_printf(&b->header, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[%s],\"data_offsets\":[%zu,%zu]}", b->header.len ? "," : "{", name, dtype,
               shape, from, b->data.len);
}

static inline void st_write(struct st_build *b, const struct folder *f, const char *file)
{
    struct buf out = { 0 };
    buf_puts(&b->header, b->header.len ? "}" : "{}");
    st_bytes(&out, b->header.data, b->data.data ? b->data.data : "", b->data.len);
    folder_write(f, file, out.data, out.len);
    buf_free(&out);
    buf_free(&b->header);
    buf_free(&b->data);
}

#endif
