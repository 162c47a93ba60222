/* bench/offline.h - latency and throughput of an engine in this process, as vLLM's `bench latency` and `bench throughput`
 * define them: random token ids, no end of sequence, no text. */
#ifndef QUIRE_BENCH_OFFLINE_H
#define QUIRE_BENCH_OFFLINE_H

#include <jansson.h>
#include "base/err.h"
#include "engine/engine.h"

struct bench_latency_opts { int32_t input_len, output_len, batch_size, n_warmup, n_iters; uint64_t seed; };
/* A batch of equal requests, again and again.  *out: avg_latency, latencies, percentiles {10,25,50,75,90,99} (seconds),
 * prefill_tok_s, decode_tok_s (medians over iterations, of the whole batch), ttft_s, peak_rss_bytes, config. */
bool bench_latency(struct engine *eng, const struct bench_latency_opts *o, void (*progress)(void *, int64_t, int64_t), void *ctx,
                   json_t **out, struct err *e);

struct bench_throughput_opts {
    int32_t input_len, output_len, num_prompts;
    uint64_t seed;
    const struct sample_params *sampling;   /* of every request, but for the seed and the end of sequence; NULL: the defaults */
};
/* All requests at once.  *out: elapsed_time, num_requests, total_num_tokens, requests_per_second, tokens_per_second,
 * output_tokens_per_second, steps (their count, seconds in all and in each part, and the parts' shares), config. */
bool bench_throughput(struct engine *eng, const struct bench_throughput_opts *o, void (*progress)(void *, int64_t, int64_t), void *ctx,
                      json_t **out, struct err *e);

#endif
