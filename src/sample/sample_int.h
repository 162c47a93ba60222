/* sample/sample_int.h - what the sampler's files share. */
#ifndef QUIRE_SAMPLE_SAMPLE_INT_H
#define QUIRE_SAMPLE_SAMPLE_INT_H

#include <math.h>
#include "sample/sample.h"

struct hash_u64;

/* Tokens of a cut's guess: those of a sample, and the largest; and of its sums. */
enum { SAMPLE_CUT_SAMPLE = 2048, SAMPLE_CUT_HEAVY = 1024, SAMPLE_CUT_BLOCK = 512 };

struct candidate { int32_t id; float key; };

/* Scratch of one member of the team. */
struct scratch {
    float *row;                         /* [vocab] logits after the processors */
    float *weights;                     /* [vocab] of what may be drawn */
    int32_t *ids;                       /* [vocab] */
    float *cut_keys, *cut_weights;      /* [vocab] what a cut's bracket holds; */
    float *keys, *near_weights;         /* [vocab] of them those that a narrower bracket holds */
    int32_t *from;                      /* where in it each block's begin, and the end: [blocks + 1] */
    double *blocks;                     /* sums of weights of [vocab / SAMPLE_CUT_BLOCK, rounded up] */
    float few_keys[SAMPLE_CUT_SAMPLE + SAMPLE_CUT_HEAVY], few_weights[SAMPLE_CUT_SAMPLE + SAMPLE_CUT_HEAVY];   /* a guess's */
    float few_squares[SAMPLE_CUT_SAMPLE + SAMPLE_CUT_HEAVY];
    struct candidate *cands;            /* [vocab] */
};

struct sampler {
    struct dev *dev;
    const struct dev_math *math;
    int32_t vocab, n_eos, n_members;
    int32_t *eos_ids;
    uint64_t seed;
    struct scratch *scratch;      /* [n_members] */
};

/* A distinct token of prompt and output, for penalties. */
struct seen { int32_t id, n_output; };

struct sample_seq {
    const struct sampler *sampler;
    const struct sample_params *params;
    uint64_t seed;
    int32_t choice;
    struct seen *seen; size_t n_seen, cap_seen;       /* only with penalties */
    struct hash_u64 *seen_at;                         /* id -> index in seen */
    int32_t last;                                     /* token before the next one, or -1 */
    int32_t *output; size_t n_output, cap_output;     /* only with bad words */
};

/* cut.c: truncation of a whole row by threshold */

/* A token's key is its logit x, or -|x - to| when folded.  Kept are key > floor, and of key == floor the ids up to last. */
struct sample_cut { float floor; int32_t last; bool folded; float to; };
static inline bool sample_cut_keeps(const struct sample_cut *c, const float *x, int32_t id)
{
    float key = c->folded ? -fabsf(x[id] - c->to) : x[id];
    return key > c->floor || (key == c->floor && id <= c->last);
}
/* A row to be cut: logits and weights; near NULL, or what the keys are folded at, of weights above 0 (others are last).  w NULL: each weighs 1. */
struct sample_keys { const float *x, *w, *near; bool keep_ties; };
/* Of the tokens with key >= floor, descending and ties by id: the shortest run whose weights before its last member sum to less than part of
 * total, which is the sum of them all; with keep_ties also those that equal its last.  max: no key is larger, finite.
 * *kept, unless NULL, is the sum of what is kept, and sc->blocks then has that of each block. */
struct sample_cut sample_cut_mass(const struct sampler *s, struct scratch *sc, const struct sample_keys *r, float max, float floor,
                                  double total, double part, double *kept);
/* The k-th largest key. */
float sample_cut_count(const struct sampler *s, struct scratch *sc, const float *key, float max, int32_t k);
/* sc->weights = exp((x - max) * scale) where x >= floor, else 0 (struct dev_math); returns their sum, and sc->blocks has that of each block.
 * *moment, unless NULL: the sum of weight * (x - max). */
double sample_cut_weigh(const struct sampler *s, struct scratch *sc, const float *x, float max, float scale, float floor, double *moment);
/* With sc->blocks of what the cut keeps: the first kept token at which the running sum of weights exceeds target. */
int32_t sample_cut_draw(const struct sampler *s, const struct scratch *sc, const float *x, const float *w, const struct sample_cut *c,
                        double target);

/* logprobs.c */

void sample_logprobs_fill(const struct sampler *s, struct scratch *sc, const float *logits, int32_t token, int32_t n_top, bool ties,
                          struct sample_result *out);
/* The same of the distribution exp((x - max) * scale) / total of a row where what cannot be drawn is -inf. */
struct sample_law { const float *x; float max, scale; double total; };
void sample_logprobs_of(const struct sampler *s, struct scratch *sc, const struct sample_law *law, int32_t token, int32_t n_top, bool ties,
                        struct sample_result *out);

#endif
