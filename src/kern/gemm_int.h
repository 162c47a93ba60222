/* kern/gemm_int.h - the ISA variants behind gemm_kern_get. */
#ifndef QUIRE_KERN_GEMM_INT_H
#define QUIRE_KERN_GEMM_INT_H

#include "kern/gemm.h"

/* How a format lies in its panel. */
struct gemm_layout {
    uint8_t unit_k;          /* K of a unit */
    uint8_t unit_bytes;      /* all columns of a unit */
    uint8_t group_units;     /* units that share scales; 0: no groups */
    uint16_t head_bytes;     /* scales (and minima) before a group */
    uint8_t tail_bytes;      /* scales behind the panel */
};
const struct gemm_layout *gemm_layout_of(enum gemm_format f);

/* I4: a block of 128 K is 4 groups of 32.  Its head is [4][GEMM_COLS] scales, a byte for each group and column, and behind them
 * [2][GEMM_COLS][2] offsets, those of two groups side by side.  Behind the integers of the activations there follow for each block
 *     [rows] the scale (f32);  [4][rows] where the sum of each group starts: -8 times the sum of its integers;
 *     [2][rows] for each two groups 8 times those sums, as 16-bit numbers. */
enum {
    GEMM_I4_GROUPS = 4, GEMM_I4_UNITS = 32, GEMM_I4_OFFSETS = GEMM_I4_GROUPS * GEMM_COLS, GEMM_I4_HEAD = 2 * GEMM_I4_OFFSETS,
    GEMM_I4_BYTES = GEMM_I4_HEAD + GEMM_I4_UNITS * 64, GEMM_I4_AUX = 7,
};
/* Where the scale and the offset of a column and group lie in the head. */
static inline int gemm_i4_scale_at(int col, int group)
{
    return group * GEMM_COLS + col;
}

static inline int gemm_i4_offset_at(int col, int group)
{
    return GEMM_I4_OFFSETS + group / 2 * 2 * GEMM_COLS + 2 * col + group % 2;
}

/* Integers without an offset, whose groups have minima. */
static inline bool gemm_has_minima(enum gemm_format f)
{
    return f >= GEMM_U4_G32 && f <= GEMM_U8_G32;
}

/* Where an F8 unit's 64 bytes hold K i (0 or 1) of a column: of each 16 bytes the first 8 belong to columns 0..15, so that
 * interleaving bytes within 16-byte lanes yields whole vectors of columns in order. */
static inline int gemm_f8_at(int col, int i)
{
    return col % 16 / 4 * 16 + col / 16 * 8 + col % 4 * 2 + i;
}

/* Groups of activations no larger than this in magnitude count as zero. */
#define GEMM_TINY 1e-30f

typedef void gemm_tile_fn(const struct gemm_tile *t);
typedef void gemm_prepare_fn(const struct gemm_kern *kern, const float *x, int64_t ldx, int rows, int64_t k, void *a);

/* out[i * n + r] = rows[r][i] for n <= 16 rows of 4-byte words. */
void gemm_join_avx512(const void *const *rows, int n, size_t words, void *out);

/* One group of n values (a multiple of 16, at most GEMM_GROUP_MAX) to 4 bits: x is near scale * q + minimum (f16), by
 * the weighted squared error. */
enum { GEMM_GROUP_MAX = 128 };
typedef void gemm_quant_fn(const float *x, const float *weight, int n, uint8_t *q, uint16_t *scale, uint16_t *minimum);
/* The same with an integer scale (0..255) and offset (-127..127): x is near d * (scale * (q - 8) + 8 * offset); near: the scale and offset
 * (of d) to search around. */
typedef void gemm_quant_i4_fn(const float *x, const float *weight, int n, float d, const float near[2], uint8_t *q, uint8_t *scale, int8_t *offset);
gemm_quant_i4_fn gemm_quant_i4_ref, gemm_quant_i4_avx2, gemm_quant_i4_avx512;
gemm_quant_fn gemm_quant_u4_ref, gemm_quant_u4_avx2, gemm_quant_u4_avx512;
/* Columns of a quantized panel: the work of gemm_pack and gemm_unpack (gemm_quant.c). */
void gemm_quant_pack(enum gemm_format f, void *panel, int col, int64_t k, const float *row, const float *importance);
void gemm_quant_unpack(enum gemm_format f, const void *panel, int col, int64_t k, float *out);

gemm_tile_fn gemm_tile_f32_ref, gemm_tile_f16_ref, gemm_tile_bf16_ref, gemm_tile_f8_ref;
gemm_tile_fn gemm_tile_i8_ref, gemm_tile_i8_g16_ref, gemm_tile_i8_g32_ref, gemm_tile_u8_g16_ref, gemm_tile_u8_g32_ref, gemm_tile_f8_g128_ref;
gemm_tile_fn gemm_tile_i4_ref, gemm_tile_i4_avx2, gemm_tile_i4_avxvnni, gemm_tile_i4_avx512vnni;
gemm_tile_fn gemm_tile_u4_g32_ref, gemm_tile_u4_g64_ref, gemm_tile_u4_g128_ref;
gemm_prepare_fn gemm_prepare_f32_ref, gemm_prepare_int_ref;
gemm_epilogue_fn gemm_epilogue_ref;

gemm_tile_fn gemm_tile_f32_avx2, gemm_tile_f16_avx2, gemm_tile_bf16_avx2, gemm_tile_f8_avx2;
gemm_tile_fn gemm_tile_i8_avx2, gemm_tile_i8_g16_avx2, gemm_tile_i8_g32_avx2, gemm_tile_u8_g16_avx2, gemm_tile_u8_g32_avx2, gemm_tile_f8_g128_avx2;
gemm_tile_fn gemm_tile_u4_g32_avx2, gemm_tile_u4_g64_avx2, gemm_tile_u4_g128_avx2;
gemm_prepare_fn gemm_prepare_int_avx2;
gemm_epilogue_fn gemm_epilogue_avx2;

gemm_tile_fn gemm_tile_i8_avxvnni, gemm_tile_i8_g16_avxvnni, gemm_tile_i8_g32_avxvnni, gemm_tile_u8_g16_avxvnni, gemm_tile_u8_g32_avxvnni;
gemm_tile_fn gemm_tile_u4_g32_avxvnni, gemm_tile_u4_g64_avxvnni, gemm_tile_u4_g128_avxvnni;

gemm_tile_fn gemm_tile_f32_avx512, gemm_tile_f16_avx512, gemm_tile_bf16_avx512, gemm_tile_f8_avx512;
gemm_prepare_fn gemm_prepare_f32_avx512, gemm_prepare_s8_avx512;
gemm_epilogue_fn gemm_epilogue_avx512;

gemm_tile_fn gemm_tile_i8_avx512vnni, gemm_tile_i8_g16_avx512vnni, gemm_tile_i8_g32_avx512vnni, gemm_tile_u8_g16_avx512vnni, gemm_tile_u8_g32_avx512vnni;
gemm_tile_fn gemm_tile_u4_g32_avx512vnni, gemm_tile_u4_g64_avx512vnni, gemm_tile_u4_g128_avx512vnni;

gemm_tile_fn gemm_tile_f8_g128_avx512;
gemm_tile_fn gemm_tile_bf16_avx512bf16, gemm_tile_f8_avx512bf16, gemm_tile_f8_g128_avx512bf16;
gemm_prepare_fn gemm_prepare_bf16_avx512bf16;

/* Integer weights times floats (gemm_wide_body.inc): the kernels, and what makes floats of a piece for several tiles. */
typedef void gemm_widen_fn(const struct gemm_tile *t, char *out);
#define GEMM_WIDE_DECLARE(isa) \
    gemm_tile_fn gemm_wide_i8_##isa, gemm_wide_i8_g16_##isa, gemm_wide_i8_g32_##isa, gemm_wide_i4_##isa, gemm_wide_u4_g32_##isa, \
        gemm_wide_u4_g64_##isa, gemm_wide_u4_g128_##isa, gemm_wide_u8_g16_##isa, gemm_wide_u8_g32_##isa; \
    gemm_widen_fn gemm_widen_i8_##isa, gemm_widen_i8_g16_##isa, gemm_widen_i8_g32_##isa, gemm_widen_i4_##isa, gemm_widen_u4_g32_##isa, \
        gemm_widen_u4_g64_##isa, gemm_widen_u4_g128_##isa, gemm_widen_u8_g16_##isa, gemm_widen_u8_g32_##isa;
GEMM_WIDE_DECLARE(ref)
GEMM_WIDE_DECLARE(avx2)
GEMM_WIDE_DECLARE(avx512)
GEMM_WIDE_DECLARE(avx512bf16)

#endif
