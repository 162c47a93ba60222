/* model/gguf_int.h - GGUF files, versions 2 and 3, little endian: metadata and tensors in one file, or in several split ones.
 *
 *     "GGUF", u32 version, u64 n_tensors, u64 n_kv
 *     n_kv      x  string key, u32 type, value        (an array: u32 type of elements, u64 count, elements)
 *     n_tensors x  string name, u32 n_dims, u64 dims[n_dims] (fastest first), u32 type, u64 offset
 *     padding to general.alignment (32), then the data, offsets from here
 *     string = u64 length, bytes
 * https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
 *
 * Checked here, once: everything lies inside the file, no key comes twice, values have the sizes of their types, and every tensor
 * has whole blocks, is aligned and shares no byte with another.  What a key means is for the readers of metadata. */
#ifndef QUIRE_MODEL_GGUF_INT_H
#define QUIRE_MODEL_GGUF_INT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/file.h"
#include "base/hash.h"
#include "model/arch.h"
#include "tensor/tensor.h"

enum gguf_type {
    GGUF_U8, GGUF_I8, GGUF_U16, GGUF_I16, GGUF_U32, GGUF_I32, GGUF_F32, GGUF_BOOL, GGUF_STRING, GGUF_ARRAY, GGUF_U64, GGUF_I64, GGUF_F64,
    GGUF_TYPE_COUNT
};

/* Borrows from the file's bytes. */
struct gguf_kv {
    const char *key;
    enum gguf_type type;           /* of the value, or of an array's elements */
    bool is_array;
    uint64_t n;                    /* elements; 1 for a plain value */
    const unsigned char *data;
};

struct gguf {
    const char *file;              /* for messages; borrowed */
    struct gguf_kv *kv;
    size_t n_kv;
    struct hash_map *by_key;
    struct tensor *tensors;        /* experts stacked in a 3-d "X_exps.weight" appear one by one, as "X_exps.N.weight" */
    size_t n_tensors;
    struct arena *arena;           /* names */
};

/* The bytes and file must outlive the result. */
bool gguf_parse(struct gguf *g, const unsigned char *data, size_t size, const char *file, struct err *e);
void gguf_free(struct gguf *g);

const struct gguf_kv *gguf_find(const struct gguf *g, const char *key);
/* Values of a key.  A missing key leaves *out alone and is no error; a value of another kind is one. */
bool gguf_get_i64(const struct gguf *g, const char *key, int64_t *out, struct err *e);
bool gguf_get_f64(const struct gguf *g, const char *key, double *out, struct err *e);     /* integers too */
bool gguf_get_bool(const struct gguf *g, const char *key, bool *out, struct err *e);
/* A copy in the arena; strings with a NUL inside are an error. */
bool gguf_get_str(struct gguf *g, const char *key, const char **out, struct err *e);
/* Element i of a value or array of numbers, as the number it is nearest to; false when it is not numbers. */
bool gguf_number_at(const struct gguf_kv *kv, uint64_t i, double *out);
/* Walk strings: *at starts as kv->data; exactly kv->n calls. */
void gguf_next_string(const unsigned char **at, const char **s, size_t *len);

/* ---- one model: one file, or all that a split one names ---- */

struct gguf_files {
    struct gguf_file {
        char *name;                /* without the folder */
        struct file_view view;
        struct gguf g;
    } *files;                      /* [0] has the metadata */
    size_t n_files;
    char *dir;
};
bool gguf_is_file(const char *path);      /* a file that begins as GGUF, or is named so */
/* The one GGUF model in a folder, or *path NULL; several are an error.  mem_free it. */
bool gguf_find_in_folder(const char *dir, char **path, struct err *e);
/* first_only: just the file with the metadata. */
bool gguf_files_open(struct gguf_files **out, const char *path, bool first_only, struct err *e);
void gguf_files_close(struct gguf_files **f);
const struct tensor *gguf_files_find(const struct gguf_files *f, const char *name);

/* ---- what the metadata says, in the terms of a Hugging Face folder ---- */

/* The equivalent of config.json, a new reference. */
json_t *gguf_config(struct gguf_files *f, struct err *e);
/* After arch_from_config: tensor names and layouts, and what GGUF stores differently (q and k permuted for neighbouring pairs, norms with
 * the one added, rope factors as a tensor). */
bool gguf_adapt_arch(struct gguf_files *f, struct arch *a, struct err *e);
/* The equivalents of tokenizer.json and tokenizer_config.json; empty when there is no vocabulary. */
bool gguf_tokenizer(struct gguf_files *f, struct buf *tokenizer, struct buf *config, struct err *e);

#endif
