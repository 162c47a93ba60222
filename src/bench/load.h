/* bench/load.h - many clients against an OpenAI-compatible server, as vLLM's `bench serve` defines it.
 *
 * Per request: TTFT is the time from sending to the first token; E2EL to the last; TPOT = (E2EL - TTFT) / (tokens - 1)
 * for requests of two tokens or more; ITL are all gaps between token chunks of all requests (bench/http_call.h).  Tokens
 * are what the server's usage tells; without it, generated ones are chunks and prompt ones the ids that were sent.
 * Failed requests are counted in "failed" and enter nothing else. */
#ifndef QUIRE_BENCH_LOAD_H
#define QUIRE_BENCH_LOAD_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include "base/buf.h"
#include "base/err.h"
#include "bench/http_client.h"
#include "bench/load_prompt.h"

enum bench_metric { BENCH_TTFT, BENCH_TPOT, BENCH_ITL, BENCH_E2EL, BENCH_N_METRICS };
enum { BENCH_MAX_PERCENTILES = 16 };

struct bench_load_opts {
    struct bench_target target;
    int32_t num_prompts;
    double request_rate;          /* arrivals a second; infinity: all at once */
    double burstiness;            /* gamma shape of the gaps: 1 Poisson, larger more even */
    int32_t max_concurrency;      /* requests under way at most; 0: no bound.  A request's time starts when it is sent */
    const json_t *prompts;        /* array of prompts taken in turn, or NULL: random ones */
    int32_t input_len, output_len, prefix_len;   /* prefix_len tokens, equal in all prompts, come before input_len others */
    double range_ratio;           /* lengths are uniform in [len*(1-r), len*(1+r)] */
    int32_t vocab;                /* ids are below it; 0: bench_vocab_probe */
    uint64_t seed;
    bool selected[BENCH_N_METRICS];
    double percentiles[BENCH_MAX_PERCENTILES];
    int n_percentiles;
    double goodput_ms[BENCH_N_METRICS];  /* limits of a good request; NaN: none (BENCH_ITL is not used) */
    bool detailed;                /* also input_lens, output_lens, ttfts, itls, generated_texts, errors, each by request */
};

void bench_load_opts_default(struct bench_load_opts *o);

/* "ttft,tpot,itl,e2el" */
bool bench_load_parse_metrics(struct bench_load_opts *o, const char *text, struct err *e);
/* "50,99,99.9" */
bool bench_load_parse_percentiles(struct bench_load_opts *o, const char *text, struct err *e);
/* "ttft:500"; several, divided by commas or spaces */
bool bench_load_parse_goodput(struct bench_load_opts *o, const char *text, struct err *e);

/* Sends one request that is not counted (it must succeed), then the load.  *out: the keys of vLLM (INTERFACES 4.2) and
 * failed, first_error. */
bool bench_load_run(struct bench_http *c, const struct bench_load_opts *o, void (*progress)(void *, int64_t, int64_t), void *ctx,
                    json_t **out, struct err *e);

/* The result as vLLM prints it. */
bool bench_load_report(const json_t *result, const struct bench_load_opts *o, struct buf *text);

/* Lines of {"prompt": ..} to an array of the prompts: strings, or arrays of ids.  NULL with the line told in e. */
json_t *bench_load_read_dataset(const char *path, bool chat, struct err *e);

#endif
