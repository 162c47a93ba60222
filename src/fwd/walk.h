/* fwd/walk.h - the same forward pass one layer at a time: for work that looks at a model's insides and must not hold it whole.
 *
 * Only the embedding, the head and one layer's weights are in memory.  Sequences are run through a layer each from its begin to its
 * end, and the rows between layers are the caller's.  Whatever the model gives now is loaded: with model_replace a layer can be
 * run as it is and as it would be. */
#ifndef QUIRE_FWD_WALK_H
#define QUIRE_FWD_WALK_H

#include <stdbool.h>
#include <stdint.h>
#include "base/err.h"
#include "dev/dev.h"
#include "fwd/fwd.h"
#include "model/model.h"

struct fwd_walk;

/* Called with the rows that are about to enter each linear of a layer, of the device's memory, between operations: x [n] rows, ld floats
 * apart.  index: which expert, or 0; experts come with their own rows only, and not at all without any.  The head's is ARCH_LIN_EMBED when tied. */
struct fwd_capture {
    void (*fn)(void *ctx, enum arch_linear slot, int index, const float *x, int64_t ld, int32_t n);
    void *ctx;
};

/* Sequences of at most max_tokens.  d and m are borrowed. */
bool fwd_walk_open(struct fwd_walk **out, struct dev *d, const struct model *m, int32_t max_tokens, struct err *e);
void fwd_walk_close(struct fwd_walk **w);

/* The rows that enter layer 0: x[n][hidden], host memory. */
bool fwd_walk_embed(struct fwd_walk *w, const int32_t *ids, int32_t n, float *x, struct err *e);
/* Loads a layer's weights (F32, or q's formats where not NULL) in place of the one before. */
bool fwd_walk_load(struct fwd_walk *w, int layer, const struct fwd_quant *q, struct err *e);
/* Runs one sequence's rows through the loaded layer, in place.  capture may be NULL. */
bool fwd_walk_layer(struct fwd_walk *w, float *x, int32_t n, const struct fwd_capture *capture, struct err *e);
/* Logits of one sequence's rows, [n][vocab], valid until the next call. */
bool fwd_walk_head(struct fwd_walk *w, const float *x, int32_t n, const struct fwd_capture *capture, const float **logits, struct err *e);

#endif
