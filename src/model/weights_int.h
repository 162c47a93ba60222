/* model/weights_int.h - where the values of a slot come from: the checkpoint, or seeded noise. */
#ifndef QUIRE_MODEL_WEIGHTS_INT_H
#define QUIRE_MODEL_WEIGHTS_INT_H

#include "base/file.h"
#include "model/checkpoint_int.h"
#include "model/gguf_int.h"
#include "model/model.h"
#include "model/quant_int.h"

/* The files linked into the program, ended by a NULL name; false when it was built without. */
enum { BUILTIN_MAX_FILES = 8 };
bool model_builtin_files(struct file_blob out[BUILTIN_MAX_FILES]);

/* A tensor given in place of a stored one. */
struct replaced { char *name; struct tensor t; };

struct model {
    struct arch arch;
    struct model_generation generation;
    struct file_set files;
    struct file_blob blobs[BUILTIN_MAX_FILES];   /* of the built-in model, or what GGUF metadata says */
    struct buf texts[3];           /* of blobs */
    struct gguf_files *gguf;       /* NULL: not from GGUF */
    struct quant_config quant;
    char *dir, *name;
    struct checkpoint *ck;         /* NULL: config_only or dummy */
    const char *prefix;            /* what '~' stands for */
    struct replaced *replaced;
    size_t n_replaced, cap_replaced;
    bool dummy;
    uint64_t dummy_seed;
    enum dtype dtype;
};

/* Latent attention: rows as arch.h has them, made of the stored tensor. */
enum latent_what { LATENT_Q, LATENT_K, LATENT_V, LATENT_OUT, LATENT_K_TURNED, LATENT_V_ALONE };
struct latent_view { const struct arch *arch; const struct tensor_rows *stored; enum latent_what what; };
/* Rows of Q, KV_B (part 0: k, 1: v; each of its own tensor when its layout is split) or ATTN_OUT; v, a and stored must outlive r. */
void model_latent_rows(struct tensor_rows *r, struct latent_view *v, const struct arch *a, const struct tensor_rows *stored, enum arch_linear slot, int part,
                       int64_t n_rows, int64_t n_cols);
/* The shape of the stored tensor, where it differs from the slot's. */
void model_latent_shape(const struct arch *a, enum arch_linear slot, int part, int64_t *rows, int64_t *cols);

/* NULL: the stored one counts. */
const struct tensor *model_replaced(const struct model *m, const char *name);

/* Names have at most this many bytes, the end included. */
enum { MODEL_MAX_NAME = 256 };
/* '~' is the checkpoint's prefix, '#' the layer, '%' an expert, '@' a head: the last two are index. */
bool model_make_name(const struct model *m, const char *pattern, const char *suffix, int layer, int index, char out[MODEL_MAX_NAME], struct err *e);
/* Where row r of a part of a slot lies in the tensor that has it. */
int64_t model_stored_row(const struct model *m, enum arch_linear slot, int part, int64_t r);

/* Choose the prefix and the most common type. */
void model_weights_bind(struct model *m);

/* Dummy rows: n_cols values a row, uniform, of variance 1/n_cols, each exactly a F32, F16 and BF16; a row depends on seed and
 * its number alone. */
void model_dummy_rows(struct tensor_rows *r, enum dtype dtype, int64_t n_rows, int64_t n_cols, uint64_t seed);
/* One seed for each tensor of a model. */
uint64_t model_dummy_seed(uint64_t seed, int kind, int slot, int layer, int part);

bool model_generation_read(struct model_generation *g, const struct arch *a, const struct file_set *files, struct err *e);

#endif
