/* fwd/rope.h - rotary positions: the cosines and sines of a step.
 *
 * inv[i] = theta^(-2i/dim) for i < dim/2 (Su et al. 2021), then by scaling:
 *   linear    inv / factor (Chen et al. 2023)
 *   dynamic   theta' = theta * (factor*L/M - (factor-1))^(dim/(dim-2)), L = max(rope_len, M), M = original_len (NTK-aware)
 *   llama3    wavelengths above M/low are divided by factor, those below M/high kept, between them interpolated
 *   yarn      inv/factor and inv mixed by a ramp over the dims that turn beta_slow .. beta_fast times within M (Peng et al. 2023)
 *   longrope  inv / short_factor[i], or / long_factor[i] when rope_len > M (Ding et al. 2024)
 * and cos, sin times attn_factor (yarn, longrope).
 *
 * The angle is the float32 product position * inv: the rounding that checkpoints were made and are checked with.
 *
 * Rows are kept in a table by position where the scaling does not change with each length, so that a step mostly copies. */
#ifndef QUIRE_FWD_ROPE_H
#define QUIRE_FWD_ROPE_H

#include <stdbool.h>
#include <stdint.h>
#include "base/err.h"
#include "dev/dev.h"
#include "model/arch.h"

/* inv[dim/2].  rope_len as in struct fwd_batch. */
void rope_frequencies(const struct arch_rope *r, int32_t rope_len, float *inv);
/* Equal keys: equal frequencies. */
uint64_t rope_key(const struct arch_rope *r, int32_t rope_len);

struct rope;
/* r is borrowed.  d runs large steps on its team. */
bool rope_open(struct rope **out, struct dev *d, const struct arch_rope *r, int32_t max_tokens, int32_t max_len, struct err *e);
void rope_close(struct rope **r);
size_t rope_bytes(const struct arch_rope *r, int32_t max_tokens, int32_t max_len);
/* Fill cos and sin, both [n_tokens][dim/2], for this step.  Outside a device step; valid until the next call. */
void rope_fill(struct rope *r, const struct dev_batch *b, const int32_t *rope_len, const float **cos, const float **sin);

#endif
