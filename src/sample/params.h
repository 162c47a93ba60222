/* sample/params.h - everything a request may say about sampling, with defaults and limits.
 *
 * Field names and ranges follow vLLM's SamplingParams and TGI's parameters (INTERFACES 1.2, 2.2). */
#ifndef QUIRE_SAMPLE_PARAMS_H
#define QUIRE_SAMPLE_PARAMS_H

#include <stdbool.h>
#include <stdint.h>
#include "base/err.h"
#include "sample/watermark.h"

struct sample_bias { int32_t id; float bias; };
struct sample_word { const int32_t *ids; int32_t n; };      /* a forbidden token sequence, n >= 1 */

enum sample_logprobs_mode { SAMPLE_LOGPROBS_RAW, SAMPLE_LOGPROBS_PROCESSED };

struct sample_params {
    float temperature;          /* < 1e-5: greedy */
    int32_t top_k;              /* <= 0: off */
    float top_p, min_p, typical_p;       /* 1, 0, 1: off */
    float repetition_penalty;   /* 1: off; prompt and output */
    float frequency_penalty, presence_penalty;   /* OpenAI's, output only */
    uint64_t seed;
    bool has_seed;
    int32_t min_tokens;         /* end-of-sequence and stop ids are masked before */
    bool ignore_eos;
    const int32_t *stop_ids;  int32_t n_stop_ids;         /* beside the model's own eos ids */
    const struct sample_bias *bias; int32_t n_bias;       /* added to logits, clamped to [-100, 100] */
    const int32_t *allowed_ids; int32_t n_allowed;        /* 0: all */
    const struct sample_word *bad_words; int32_t n_bad_words;
    int32_t n_logprobs;         /* -1: none; 0: the sampled token's; N: and the N most likely */
    int32_t n_prompt_logprobs;  /* -1: none */
    enum sample_logprobs_mode logprobs_mode;
    bool ties_included;         /* TGI's top_n_tokens: ties with the last are kept */
    bool watermarked; struct sample_watermark watermark;
};

struct sample_limits { int32_t max_logprobs, vocab_size; };

void sample_params_default(struct sample_params *p);
/* ERR_INVALID naming the field and its range.  Checks ids against the vocabulary. */
bool sample_params_check(const struct sample_params *p, const struct sample_limits *l, struct err *e);
/* Deep copy into one block; mem_free it. */
struct sample_params *sample_params_dup(const struct sample_params *p);
static inline bool sample_params_greedy(const struct sample_params *p) { return p->temperature < 1e-5f; }

#endif
