/* tensor/tensor.h - element types and read-only views of stored tensors.  No compute beyond
 * exact conversions of single values. */
#ifndef QUIRE_TENSOR_TENSOR_H
#define QUIRE_TENSOR_TENSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include "base/err.h"

enum dtype {
    DT_F32, DT_F16, DT_BF16, DT_F64,
    DT_F8_E4M3, DT_F8_E5M2,
    DT_I8, DT_U8, DT_I16, DT_U16, DT_I32, DT_U32, DT_I64, DT_U64, DT_BOOL,
    DT_COUNT
};

/* "F32", "BF16", ... as safetensors spells them. */
const char *dtype_name(enum dtype t);
bool dtype_parse(const char *name, enum dtype *out);
size_t dtype_bytes(enum dtype t);
bool dtype_is_float(enum dtype t);

enum { TENSOR_MAX_DIMS = 8 };

struct quant_block;
struct tensor_quant;

/* Borrowed: name and data live as long as the checkpoint they came from. */
struct tensor {
    const char *name;
    enum dtype dtype;
    const struct quant_block *block;   /* rows are blocks of this format (tensor/quant.h) and dtype is DT_U8; NULL: plain values */
    int n_dims;
    int64_t dims[TENSOR_MAX_DIMS];
    const void *data;          /* row major, little endian, may be unaligned */
    size_t bytes;
};

/* Product of dims; false when it does not fit or a dim is negative. */
bool tensor_count(const struct tensor *t, size_t *out);

/* A matrix whose rows can be had as f32: what weights are packed from.  It hides where they
 * come from: one tensor, a part of a fused one, a transposed one, a quantized format, or seeded noise.
 * read may be called by many threads at once. */
struct tensor_rows {
    int64_t n_rows, n_cols;
    /* Narrowest of F32, F16, BF16 that holds every value exactly. */
    enum dtype dtype;
    /* rows [row0, row0+n) into out[n][n_cols].  Cannot fail: sources are checked when bound. */
    void (*read)(const struct tensor_rows *r, int64_t row0, int64_t n, float *out);
    const void *ctx;           /* read's own */
    int64_t ctx_offset;        /* read's own */
    uint64_t seed;             /* read's own */
    /* When the rows lie in memory as dtype, [n_rows][n_cols] with this distance between rows; else NULL. */
    const void *raw;
    size_t raw_stride_bytes;
    /* When the values are integers under scales: how to have those instead (tensor/quant.h); else NULL. */
    const struct tensor_quant *quant;
};

/* The plain case: a view of a 2-d float or block tensor's rows [row0, row0+n_rows); 1-d counts as one row. */
void tensor_rows_of(struct tensor_rows *r, const struct tensor *t, int64_t row0, int64_t n_rows);

/* Convert n stored values of a float dtype to f32, exactly. */
void tensor_to_f32(enum dtype t, const void *src, size_t n, float *out);

static inline float tensor_bf16_to_f32(uint16_t h)
{
    uint32_t u = (uint32_t)h << 16;
    float f;
    memcpy(&f, &u, 4);
    return f;
}

/* Round to nearest even; NaN stays NaN. */
static inline uint16_t tensor_f32_to_bf16(float f)
{
    uint32_t u;
    memcpy(&u, &f, 4);
    if ((u & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)((u >> 16) | 0x40u);
    return (uint16_t)((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}

float tensor_f16_to_f32(uint16_t h);
uint16_t tensor_f32_to_f16(float f);   /* round to nearest even, overflow to infinity */

#endif
