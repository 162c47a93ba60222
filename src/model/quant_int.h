/* model/quant_int.h - quantized linears of safetensors checkpoints: several tensors under one module's name that together are a
 * matrix [rows, cols].
 *
 *   GPTQ                qweight, qzeros, scales, g_idx          2, 3, 4 or 8 bits packed along columns
 *   AWQ (GEMM order)    qweight, qzeros, scales                 4 bits packed along rows, interleaved
 *   compressed-tensors  weight_packed, weight_scale, weight_shape [, weight_zero_point, weight_g_idx]
 *                       weight (I8 or F8), weight_scale [, weight_zero_point]
 *   fp8                 weight (F8), weight_scale or weight_scale_inv: of the tensor, of each row, or of blocks
 *   bitsandbytes        weight (U8), weight.absmax, weight.quant_map, weight.quant_state.* [, weight.nested_*]: 4-bit codes into a table
 *                       weight (I8), SCB
 *
 * Which linears are quantized is seen from the tensors, not from lists of exceptions in the config; so are widths and groups, as far as
 * shapes tell.  Values are what the formats define, computed in f32: code minus zero, times scale. */
#ifndef QUIRE_MODEL_QUANT_INT_H
#define QUIRE_MODEL_QUANT_INT_H

#include "base/json.h"
#include "model/checkpoint_int.h"
#include "tensor/quant.h"

enum quant_method { QUANT_NONE, QUANT_GPTQ, QUANT_AWQ, QUANT_COMPRESSED, QUANT_FP8, QUANT_BNB };

struct quant_config {
    enum quant_method method;
    int64_t group_size;            /* 0: not given; -1: one group */
    bool zeros_exact;              /* GPTQ: version 2; else the stored zero is one less */
    int64_t block_rows, block_cols;    /* fp8 scales of blocks; 0: none */
    int bits[8], n_bits;           /* compressed-tensors: widths that occur */
    bool int8_inputs;              /* compressed-tensors: inputs are of 8 bits too */
};

/* From config.json, or quantize_config.json or quant_config.json in files.  ERR_UNSUPPORTED for methods and variants that are not read. */
bool quant_config_read(struct quant_config *q, const json_t *config, const struct file_set *files, struct err *e);

enum quant_layout { QUANT_PACKED_COLS, QUANT_AWQ_ROWS, QUANT_PACKED_ROWS, QUANT_INT8, QUANT_FLOAT8, QUANT_TABLE4 };

/* One matrix.  All tensors are borrowed and checked. */
struct quant_matrix {
    enum quant_layout layout;
    int64_t n_rows, n_cols;
    int bits;
    int zero_add;                  /* to stored zeros, within bits */
    int64_t group, n_groups;       /* columns under one scale; block_cols for blocks */
    int64_t rows_per_scale;        /* rows under one scale: 1, a block's, or all */
    const struct tensor *codes, *scales, *zeros, *g_idx;
    bool zeros_packed;             /* compressed-tensors: along rows; else I8 */
    float scale_factor;            /* of every scale */
    bool int8_inputs;              /* inputs of 8 bits are what it was made for */
    /* tables of four bits */
    const struct tensor *absmax, *map, *nested_absmax, *nested_map;
    int64_t block, nested_block;
    float nested_offset;
    struct tensor_quant quant;     /* bits 0: the values are not integers, or floats of 8 bits, under scales of as many columns each */
};

enum quant_found { QUANT_IS_NOT, QUANT_IS, QUANT_IS_BAD };
/* The linear that module names: QUANT_IS_NOT when its weight is an ordinary tensor or missing.  Marks the tensors as used. */
enum quant_found quant_matrix_bind(struct quant_matrix *q, const struct quant_config *c, const struct checkpoint *ck, const char *module,
                                   int64_t rows, int64_t cols, bool has_bias, struct err *e);
/* Fills q->quant, where it applies. */
void quant_matrix_split(struct quant_matrix *q);
/* Rows [row0, row0 + n) of q, which must outlive r. */
void quant_matrix_rows(struct tensor_rows *r, const struct quant_matrix *q, int64_t row0, int64_t n);
/* A tensor that belongs to a quantized checkpoint and that values do not depend on: scales of activations and of the cache. */
bool quant_is_unused(const char *name);

#endif
