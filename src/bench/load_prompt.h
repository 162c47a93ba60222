/* bench/load_prompt.h - bodies of requests that measure. */
#ifndef QUIRE_BENCH_LOAD_PROMPT_H
#define QUIRE_BENCH_LOAD_PROMPT_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include "base/buf.h"
#include "base/err.h"
#include "base/rng.h"
#include "bench/http_client.h"

/* What all requests of a measurement share. */
struct bench_target {
    const char *endpoint;    /* "/v1/completions"; a path that ends in /chat/completions gets messages */
    const char *model;
    double temperature;
    bool ignore_eos;
};

bool bench_target_is_chat(const struct bench_target *t);

/* Appends n random token ids below vocab, comma separated, or for a chat n short English words: one token each for most
 * tokenizers.  *some tells whether b holds a prompt's tokens already (then a separator comes first) and becomes true. */
bool bench_prompt_append(struct buf *b, bool chat, struct rng *r, int32_t n, int32_t vocab, bool *some);

/* The whole body.  tokens: what bench_prompt_append wrote; or, when prompt is not NULL, that JSON value (a string, or an
 * array of ids for completions) instead. */
bool bench_body_write(struct buf *b, const struct bench_target *t, const struct buf *tokens, const json_t *prompt, int32_t max_tokens);

/* The number of ids that may be drawn: 10000 as vLLM's benchmarks, or the largest of a few smaller powers of two whose
 * last id the server takes in a one-token request. */
bool bench_vocab_probe(struct bench_http *c, const struct bench_target *t, int32_t *vocab, struct err *e);

#endif
