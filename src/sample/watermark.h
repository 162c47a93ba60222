/* sample/watermark.h - a mark in generated text that a secret key finds again (Kirchenbauer et al., "A Watermark for Large Language
 * Models", ICML 2023), seeded by one previous token as TGI does.
 *
 * For each position the previous token and the key divide the vocabulary: a token is green with probability gamma, by a keyed
 * counter-based function of (key, previous token, token), the same on every machine and device.  The sampler adds delta to the logits of
 * green tokens, before everything else.  Text written without the key has a share of about gamma of green tokens; marked text has more, and
 *
 *   z = (green - gamma T) / sqrt(T gamma (1 - gamma))
 *
 * over its T scored tokens tells how much more than chance.  A pair of tokens that comes again is scored once, as its colour is no new
 * evidence: only so are the draws independent and the p-value honest.
 *
 * The function is Philox (base/rng.h), which is no cipher: it resists chance, not an adversary who collects much marked text. */
#ifndef QUIRE_SAMPLE_WATERMARK_H
#define QUIRE_SAMPLE_WATERMARK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/err.h"

struct sample_watermark {
    float gamma;      /* share of green tokens, in (0, 1) */
    float delta;      /* what is added to their logits, > 0 */
    uint64_t key;
};

/* gamma 0.5, delta 2, key 15485863: TGI's. */
void sample_watermark_default(struct sample_watermark *w);
/* ERR_INVALID naming what is out of range. */
bool sample_watermark_check(const struct sample_watermark *w, struct err *e);
/* The key that a secret stands for; spaces and newlines at its end do not count. */
uint64_t sample_watermark_key(const void *secret, size_t n);

bool sample_watermark_green(const struct sample_watermark *w, int32_t previous, int32_t token);
/* Adds delta to the green tokens of logits[vocab]. */
void sample_watermark_add(const struct sample_watermark *w, int32_t previous, float *logits, int32_t vocab);

struct sample_watermark_score {
    int64_t n_scored, n_green;   /* distinct pairs */
    double z, p;                 /* p: how often text without the mark scores as high, by the normal approximation */
};
/* Of ids[n]: each token but the first is scored.  False: no memory. */
bool sample_watermark_detect(const struct sample_watermark *w, const int32_t *ids, size_t n, struct sample_watermark_score *out);

#endif
