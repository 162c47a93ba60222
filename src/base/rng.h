/* base/rng.h - counter-based random numbers: Philox4x32-10 (Salmon et al., SC 2011).
 *
 * A value depends only on (key, counter), never on what was drawn before, so a request's
 * token at (seed, choice, position) is the same in any batch and after any preemption. */
#ifndef QUIRE_BASE_RNG_H
#define QUIRE_BASE_RNG_H

#include <stdint.h>

struct rng_block { uint32_t v[4]; };

struct rng_block rng_philox(uint64_t key, uint64_t ctr_hi, uint64_t ctr_lo);

/* Uniform in (0, 1), never 0 or 1, from 32 random bits / 53 of 64 bits. */
float rng_unit_f32(uint32_t bits);
double rng_unit_f64(uint64_t bits);

/* Sequential generator for tests and dummy weights (SplitMix64). */
struct rng { uint64_t state; };
uint64_t rng_next(struct rng *r);
double rng_next_unit(struct rng *r);          /* [0,1) */
double rng_next_normal(struct rng *r);        /* Box-Muller */
uint64_t rng_next_below(struct rng *r, uint64_t n); /* n >= 1; unbiased */

/* Seed from the system's entropy, for requests that bring none. */
uint64_t rng_entropy(void);

#endif
