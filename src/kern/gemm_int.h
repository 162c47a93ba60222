/* kern/gemm_int.h - the ISA variants behind gemm_kern_get. */
#ifndef QUIRE_KERN_GEMM_INT_H
#define QUIRE_KERN_GEMM_INT_H

#include "kern/gemm.h"

/* How a format lies in its panel. */
struct gemm_layout {
    uint8_t unit_k;          /* K of a unit */
    uint8_t unit_bytes;      /* all columns of a unit */
    uint8_t group_units;     /* units that share scales; 0: no groups */
    uint8_t head_bytes;      /* scales (and minima) before a group */
    uint8_t tail_bytes;      /* scales behind the panel */
};
const struct gemm_layout *gemm_layout_of(enum gemm_format f);

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

/* One group of n values (a multiple of 16, at most GEMM_GROUP_MAX) to 4 bits: x is near scale * q + minimum (f16), by
 * the weighted squared error. */
enum { GEMM_GROUP_MAX = 128 };
typedef void gemm_quant_fn(const float *x, const float *weight, int n, uint8_t *q, uint16_t *scale, uint16_t *minimum);
gemm_quant_fn gemm_quant_u4_ref, gemm_quant_u4_avx2, gemm_quant_u4_avx512;
/* Columns of a quantized panel: the work of gemm_pack and gemm_unpack (gemm_quant.c). */
void gemm_quant_pack(enum gemm_format f, void *panel, int col, int64_t k, const float *row, const float *importance);
void gemm_quant_unpack(enum gemm_format f, const void *panel, int col, int64_t k, float *out);

gemm_tile_fn gemm_tile_f32_ref, gemm_tile_f16_ref, gemm_tile_bf16_ref, gemm_tile_f8_ref;
gemm_tile_fn gemm_tile_i8_ref, gemm_tile_i8_g16_ref, gemm_tile_i8_g32_ref, gemm_tile_u8_g16_ref, gemm_tile_u8_g32_ref, gemm_tile_f8_g128_ref;
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

#endif
