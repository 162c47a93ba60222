/* Row functions for AVX-512. */
#include "kern/avx512/vec_avx512.h"
#include "kern/row_body.inc"

const struct kern_row kern_row_avx512 = {
    .rms_norm = rms_norm,
    .layer_norm = layer_norm,
    .add_scaled = add_scaled,
    .rope_half = rope_half,
    .rope_interleaved = rope_interleaved,
    .argmax = argmax,
    .max = row_max,
    .above = above,
    .between = between,
    .weights = weights,
    .sum_above = sum_above,
    .moment = moment,
    .nearness = nearness,
    .split = split,
    .mask = mask,
};
