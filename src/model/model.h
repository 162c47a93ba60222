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
/* A number that changes when any file of the checkpoint changes (name, size, time, inode); 0 when the model is not in files of
 * its own (built in, dummy), so that nothing derived from it can be kept. */
uint64_t model_identity(const struct model *m);
/* After everything was taken: tensors that nobody asked for (except those the architecture says to ignore) are an error naming the first. */
bool model_check_all_used(const struct model *m, struct err *e);

#endif
