/* sample/sample.h - from a row of logits to a token.
 *
 * Order (INTERFACES 2.6 with part 0's decisions):
 *   raw log-probabilities of the untouched row, when asked
 *   watermark
 *   allowed ids (the request's and the row's), bad words, logit bias, min_tokens mask
 *   repetition (prompt and output), frequency and presence penalties (output)
 *   greedy: argmax, lowest id among equals
 *   else temperature, min_p, top_k (ties kept), top_p, typical_p, then one draw
 * The draw is counter based, keyed by (seed, choice, position): it depends on nothing but the
 * row and the request, so promise 1 holds for sampled tokens too.  No full sort of the
 * vocabulary: candidates are narrowed by threshold first, with the device's row math.
 *
 * Rows are const: several choices may draw from one row.  */
#ifndef QUIRE_SAMPLE_SAMPLE_H
#define QUIRE_SAMPLE_SAMPLE_H

#include <stdbool.h>
#include <stdint.h>
#include "base/err.h"
#include "dev/dev.h"
#include "sample/params.h"

struct sampler;       /* scratch for the team's members */
struct sample_seq;    /* what one sequence's processors remember: token counts, prompt set */

struct sample_env {
    int32_t vocab_size;
    const int32_t *eos_ids; int32_t n_eos;   /* copied */
    uint64_t seed;                           /* base of requests that bring none */
};

bool sampler_open(struct sampler **out, struct dev *d, const struct sample_env *env, struct err *e);
void sampler_close(struct sampler **s);

/* params is borrowed for the sequence's life.  choice is the index among the request's n.  Without params->has_seed,
 * fallback_seed keys the draws.  Memory is allocated only if a processor needs it. */
bool sample_seq_open(struct sample_seq **out, const struct sampler *s, const struct sample_params *params,
                     uint64_t fallback_seed, int32_t choice, const int32_t *prompt, int32_t n_prompt, struct err *e);
/* The same history for another choice.  NULL: no memory. */
struct sample_seq *sample_seq_fork(const struct sample_seq *seq, int32_t choice);
/* A token of the output is now part of the sequence.  False: no memory. */
bool sample_seq_push(struct sample_seq *seq, int32_t token);
void sample_seq_close(struct sample_seq **seq);

struct sample_result {
    int32_t token;
    float logprob;               /* by logprobs_mode; NaN unless n_logprobs >= 0 or want_logprob */
    int32_t rank;                /* 1-based: #(logprob >= its own) */
    int32_t n_top;               /* most likely, descending, ties by id; the sampled token is not added */
    int32_t top_cap;             /* in: room in the arrays */
    int32_t *top_ids;            /* caller's arrays; may be NULL when top_cap is 0 */
    float *top_logprobs;
};
struct sample_row {
    const float *logits;         /* [vocab_size] */
    /* NULL, or the tokens that may be drawn now (a grammar's): token t when bit t % 32 of allowed[t / 32] is set,
     * ceil(vocab_size / 32) words, borrowed until sample_rows returns; bits past the vocabulary are ignored.  It joins with the
     * request's own allowed ids, and it always holds: when bias, bad words or min_tokens leave none of its tokens, its lowest is taken. */
    const uint32_t *allowed;
    const struct sample_seq *seq;
    int32_t position;            /* of the token to be sampled, from 0 at the prompt's start: keys the draw */
    int32_t n_generated;         /* output tokens so far, for min_tokens */
    bool want_logprob;
    struct sample_result out;
};
/* Samples n rows on the device's team.  A row of NaN or all -inf gives the lowest allowed id (never fails). */
void sample_rows(struct sampler *s, struct sample_row *rows, int32_t n);

/* Log-probabilities of a given token and the n_top most likely, raw: prompt logprobs, beams.
 * token < 0: only the most likely. */
struct sample_lookup { const float *logits; int32_t token; int32_t n_top; struct sample_result out; };
void sample_lookups(struct sampler *s, struct sample_lookup *l, int32_t n);

#endif
