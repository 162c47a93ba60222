/* kern/avx512/gemm_wide_avx512.c */
#include <string.h>
#include "kern/gemm_int.h"

typedef float lanes __attribute__((vector_size(64)));

#define WIDE_ISA avx512
#define WIDE_TILE gemm_tile_f32_avx512
#define WIDE_UNITS 4

static inline void wide_put(char *out, lanes v[4][2])
{
    memcpy(out, v, 8 * sizeof v[0][0]);
}

#include "kern/gemm_wide_body.inc"
