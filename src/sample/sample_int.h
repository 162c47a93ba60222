/* sample/sample_int.h - what the sampler's files share. */
#ifndef QUIRE_SAMPLE_SAMPLE_INT_H
#define QUIRE_SAMPLE_SAMPLE_INT_H

#include "sample/sample.h"

struct hash_u64;

/* A token that may still be drawn. */
struct candidate {
    int32_t id;
    float key;      /* candidates are chosen in ascending (key, id) order: -logit, or distance from the entropy */
    float weight;   /* exp(logit - max), not normalised */
};

/* Scratch of one member of the team. */
struct scratch {
    float *row;                   /* [vocab] */
    int32_t *ids;                 /* [vocab] */
    struct candidate *cands;      /* [vocab] */
    float *values;                /* [vocab] */
    double *blocks;               /* [vocab / SAMPLE_CUT_BLOCK, rounded up] */
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
    int32_t *output; size_t n_output, cap_output;     /* only with bad words */
};

/* select.c: choosing among candidates in O(n) */

/* Moves the n_first smallest by (key, id) to the front, in no order there. */
void sample_select_smallest(struct candidate *c, int32_t n, int32_t n_first);
/* The smallest set in (key, id) order whose weights before its last member sum to less than mass: moved to the front; returns its
 * size, at least 1.  with_ties: also all that share the last one's key. */
int32_t sample_select_mass(struct candidate *c, int32_t n, double mass, bool with_ties);
/* Ascending by (key, id). */
void sample_select_sort(struct candidate *c, int32_t n);

/* cut.c: truncation of a whole row by threshold */

enum { SAMPLE_CUT_BLOCK = 512 };
/* Kept are y > floor, and of y == floor the ids up to last. */
struct sample_cut { float floor; int32_t last; };
/* The cut of top_p: of the tokens y >= floor, descending and ties by id, the shortest run whose weights before its last member sum to less than
 * part of them all.  max is y's, finite. */
struct sample_cut sample_cut_mass(const struct sampler *s, struct scratch *sc, const float *y, float max, float floor, double part);
/* A draw among what is kept by u in (0, 1). */
int32_t sample_cut_draw(const struct sampler *s, struct scratch *sc, const float *y, float max, const struct sample_cut *c, double u);

/* logprobs.c */
void sample_logprobs_fill(const struct sampler *s, struct scratch *sc, const float *logits, int32_t token, int32_t n_top, bool ties,
                   struct sample_result *out);
/* The candidates whose logits are among the k largest (ties with the k-th included), key = -logit; returns how many. */
int32_t sample_largest(const struct sampler *s, struct scratch *sc, const float *x, float max, int32_t k);

#endif
