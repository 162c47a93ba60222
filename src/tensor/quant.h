/* tensor/quant.h - matrices stored as small integers that share a scale.
 *
 * Two views of one thing.  Every quantized matrix is a tensor_rows: read() gives the exact f32
 * values the format defines, so whatever can pack f32 runs it.  Where the values are integers under a scale for
 * each group of neighbouring columns, tensor_rows.quant also tells those, so that a packer may
 * carry the integers themselves:
 *
 *     value = scale[g] * (code - zero[g]) + minimum[g]        g = column / group
 *
 * computed in f32 in that order, which is exactly what read() gives (but for column_groups, which see).
 *
 * The block formats are GGML's: a row is cut into blocks of `values` columns, each of `bytes` bytes, little endian.
 * Layouts and formulas: https://github.com/ggml-org/llama.cpp (ggml-common.h documents the structures). */
#ifndef QUIRE_TENSOR_QUANT_H
#define QUIRE_TENSOR_QUANT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "tensor/tensor.h"

struct tensor_quant {
    int bits;                  /* codes are below 1 << bits; at most 8 */
    int64_t group;             /* columns; the last group of a row may be shorter */
    bool has_minimum;          /* false: every minimum is -0, which adds nothing, not even to the sign of a zero */
    bool fixed_zero;           /* every zero is 1 << (bits - 1), or 0 when has_minimum: the usual formats */
    bool e4m3;                 /* codes are floats of 8 bits: value = scale[g] * E4M3(code), without zeros and minima */
    bool int8_inputs;          /* made for products with inputs of 8 bits under one scale a row */
    /* NULL; or, where columns of a group are not neighbours, the group of each: int32 [n_cols], unaligned.  Groups then have exactly `group` columns,
     * the last what is left. */
    const void *column_groups;
    /* Rows [row0, row0 + n) of r: codes [n][n_cols] in the stored order of columns; scales, zeros and minima [n][n_groups].  May be called by many
     * threads. */
    void (*read)(const struct tensor_rows *r, int64_t row0, int64_t n, uint8_t *codes, float *scales, float *zeros, float *minima);
};

static inline int64_t tensor_quant_groups(const struct tensor_quant *q, int64_t n_cols)
{
    return (n_cols + q->group - 1) / q->group;
}

/* ---- GGML block formats ---- */

struct quant_block {
    const char *name;          /* "Q4_K" */
    int id;                    /* the number in GGUF files */
    int values, bytes;         /* of a block */
    /* One block as tensor_quant has it. */
    void (*split)(const unsigned char *block, uint8_t *codes, float *scales, float *zeros, float *minima);
    struct tensor_quant quant;
};

/* NULL: no such format here. */
const struct quant_block *quant_block_by_id(int id);
const struct quant_block *quant_block_by_name(const char *name);
/* "Q4_K", also of the formats that are not read, or "?": for messages. */
const char *quant_block_type_name(int id);

/* n blocks into n * values floats. */
void quant_block_to_f32(const struct quant_block *q, const unsigned char *src, size_t n, float *out);

/* Rows [row0, row0 + n_rows) of a tensor whose block is set; as tensor_rows_of, which calls this. */
void quant_block_rows_of(struct tensor_rows *r, const struct tensor *t, int64_t row0, int64_t n_rows);

#endif
