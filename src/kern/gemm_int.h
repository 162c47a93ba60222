/* kern/gemm_int.h - the ISA variants behind gemm_kern_get. */
#ifndef QUIRE_KERN_GEMM_INT_H
#define QUIRE_KERN_GEMM_INT_H

#include "kern/gemm.h"

void gemm_tile_f32_ref(const struct gemm_tile *t);
void gemm_tile_f16_ref(const struct gemm_tile *t);
void gemm_tile_bf16_ref(const struct gemm_tile *t);
void gemm_prepare_f32_ref(const float *x, int64_t ldx, int rows, int64_t k, void *a);
gemm_epilogue_fn gemm_epilogue_ref;

void gemm_tile_f32_avx2(const struct gemm_tile *t);
void gemm_tile_f16_avx2(const struct gemm_tile *t);
void gemm_tile_bf16_avx2(const struct gemm_tile *t);
gemm_epilogue_fn gemm_epilogue_avx2;

void gemm_tile_f32_avx512(const struct gemm_tile *t);
void gemm_tile_f16_avx512(const struct gemm_tile *t);
void gemm_tile_bf16_avx512(const struct gemm_tile *t);
void gemm_prepare_f32_avx512(const float *x, int64_t ldx, int rows, int64_t k, void *a);
gemm_epilogue_fn gemm_epilogue_avx512;

void gemm_tile_bf16_avx512bf16(const struct gemm_tile *t);
void gemm_prepare_bf16_avx512bf16(const float *x, int64_t ldx, int rows, int64_t k, void *a);

#endif
