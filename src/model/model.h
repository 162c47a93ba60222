/* model/model.h - a model on disk: its configuration, its architecture's description, and its
 * weights as readable matrices.  Knows nothing of devices or kernels; fwd/ packs and runs it.
 *
 * Sources: a Hugging Face folder (config.json, model.safetensors or shards with an index,
 * generation_config.json), a GGUF file (or all parts of a split one), or the set linked into the program.  Everything read here is
 * untrusted: one clear error names the file, key or tensor. */
#ifndef QUIRE_MODEL_MODEL_H
#define QUIRE_MODEL_MODEL_H

#include <stdbool.h>
#include <stdint.h>
#include "base/err.h"
#include "base/file.h"
#include "model/arch.h"
#include "tensor/quant.h"
#include "tensor/tensor.h"

struct model;

enum model_load_format { MODEL_LOAD_AUTO, MODEL_LOAD_DUMMY };

struct model_opts {
    enum model_load_format load_format;   /* DUMMY: seeded random weights from config.json alone */
    uint64_t dummy_seed;
    bool config_only;                     /* do not open weights: for planning */
    bool files_only;                      /* nothing but model_files: for tokenizing and rendering; config.json need not be there */
};

/* path NULL: the built-in model. */
bool model_open(struct model **out, const char *path, const struct model_opts *o, struct err *e);
void model_close(struct model **m);

const struct arch *model_arch(const struct model *m);
/* The files of the model, for tok_open and others; of a GGUF model, what its metadata says in their terms.  Borrowed. */
const struct file_set *model_files(const struct model *m);
const char *model_name(const struct model *m);       /* name of folder or file, or "quire-builtin" */
const char *model_path(const struct model *m);       /* as it was opened; NULL: built in */
/* The type the checkpoint's matrices are stored in (the most common of F32, F16, BF16); with config_only or dummy weights
 * what config.json says, or BF16. */
enum dtype model_dtype(const struct model *m);
int64_t model_n_params(const struct model *m);

/* generation_config.json: defaults for sampling, and the end-of-sequence ids (also config.json's). */
struct model_generation {
    bool has_temperature, has_top_p, has_top_k, has_min_p, has_typical_p, has_repetition_penalty, has_max_new_tokens, has_do_sample;
    double temperature, top_p, min_p, typical_p, repetition_penalty;
    int64_t top_k, max_new_tokens;
    bool do_sample;
    int32_t eos_ids[16];
    int n_eos_ids;
};
const struct model_generation *model_generation(const struct model *m);

/* The weights of one linear of a layer, ready to pack: parts stacked along output rows in the order the
 * description wants (q,k,v of a fused slot; gate,up), bias in f32 or NULL.  The slots are listed in arch.h. */
struct model_linear {
    struct tensor_rows parts[3];
    int n_parts;
    float *bias;            /* [sum of n_rows] or NULL; mem_free by model_linear_free */
    const char *name;       /* of the first tensor, for messages; borrowed */
    void *owned;            /* what parts refer to; freed by model_linear_free */
};
/* index < arch_linear_count: which expert, or 0. */
bool model_get_linear(const struct model *m, enum arch_linear slot, int layer, int index, struct model_linear *out, struct err *e);
void model_linear_free(struct model_linear *l);
/* The narrowest of F32, F16 and BF16 that holds all its weights exactly. */
enum dtype model_linear_dtype(const struct model *m, enum arch_linear slot, int layer, int index);
/* Whether any of its weights are stored quantized: no type holds those more narrowly than they are. */
bool model_linear_is_quantized(const struct model *m, enum arch_linear slot, int layer, int index);
/* What is known of its parts before they are read, for choosing a format that keeps them. */
struct model_part {
    int64_t n_rows, n_cols;
    enum dtype dtype;             /* as tensor_rows has it */
    bool is_quantized;
    struct tensor_quant quant;    /* bits 0: not integers (or floats of 8 bits) under scales, or not ones that can be had */
};
/* How many parts; 0 when there are no weights, or those are bad (model_get_linear says how).  quant.column_groups lives as long as m. */
int model_linear_parts(const struct model *m, enum arch_linear slot, int layer, int index, struct model_part out[3]);
/* A vector (norm weight, bias): f32 [n], mem_free it; arch's norm_weight_add has been added to norm weights.  *out NULL without error when the architecture has none. */
bool model_get_vector(const struct model *m, enum arch_vector slot, int layer, float **out, int64_t *n, struct err *e);

/* ---- for rewriting a checkpoint (quire quantize) ---- */

/* The tensors as they are stored; 0 without weights.  *file (may be NULL) names the one it is in. */
size_t model_tensor_count(const struct model *m);
const struct tensor *model_tensor_at(const struct model *m, size_t i, const char **file);
/* Whether nothing of the architecture needs it: a mask, a head beside a tied embedding. */
bool model_tensor_is_ignored(const struct model *m, const char *name);
bool model_is_gguf(const struct model *m);
/* "compressed-tensors", "GGUF blocks", ...: how any of its weights are quantized already; NULL: none. */
const char *model_quantized_by(const struct model *m);

/* A matrix as it is stored: a whole linear, or one of the tensors a slot is made of (q, k and v, say).  Rows are outputs here also
 * where the checkpoint has them as columns. */
struct model_matrix {
    char name[256];            /* without ".weight" */
    int64_t rows, cols;
    bool transposed;           /* stored [cols, rows] */
    bool bias;                 /* there is name.bias */
    enum dtype dtype;
};
/* How many matrices a slot is stored in: 1 to 3, or 0. */
int model_matrix_count(const struct model *m, enum arch_linear slot);
bool model_matrix_at(const struct model *m, enum arch_linear slot, int layer, int index, int i, struct model_matrix *out, struct err *e);
/* All of it, [rows][cols]. */
bool model_matrix_read(const struct model *m, const struct model_matrix *x, float *out, struct err *e);
/* Where row r of a part of the slot is stored: matrix i, and the row in it. */
int64_t model_matrix_row(const struct model *m, enum arch_linear slot, int part, int64_t r, int *i);
/* The stored name of a vector slot's tensor, bias slots' with ".bias".  Not for norms stored head by head. */
bool model_vector_name(const struct model *m, enum arch_vector slot, int layer, char out[256], struct err *e);

/* From now on the model gives these values for the tensor of this name, borrowed: [rows][cols] as model_matrix has them, or rows 0 for
 * a vector of cols.  model_replace_none: as stored again. */
bool model_replace(struct model *m, const char *name, int64_t rows, int64_t cols, const float *values, struct err *e);
void model_replace_none(struct model *m);

/* A number that changes when any file of the checkpoint changes (name, size, time, inode); 0 when the model is not in files of
 * its own (built in, dummy), so that nothing derived from it can be kept. */
uint64_t model_identity(const struct model *m);
/* After everything was taken: tensors that nobody asked for (except those the architecture says to ignore) are an error naming the first. */
bool model_check_all_used(const struct model *m, struct err *e);

#endif
