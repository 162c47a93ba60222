/* bench/startup.h - how long a server takes from its start to a served /health, and to the first token of a first request. */
#ifndef QUIRE_BENCH_STARTUP_H
#define QUIRE_BENCH_STARTUP_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include "base/err.h"

struct bench_startup_times {
    double health_s;         /* from start_us to the answer of GET /health */
    double first_token_s;    /* from start_us to the first token of a request sent then */
    double ttft_s;           /* of that request alone */
};

/* Of a server that was started at start_us (clock_now_us) and listens at url: asks for /health, then for one token after
 * input_len random ids below vocab. */
bool bench_startup_ask(const char *url, int64_t start_us, int32_t input_len, int32_t vocab, uint64_t seed, double timeout_s,
                       struct bench_startup_times *out, struct err *e);

/* {"health_s","first_token_s","ttft_s"}: medians of n >= 1, and "runs" with all of them.  NULL: out of memory. */
json_t *bench_startup_json(const struct bench_startup_times *t, int n);

#endif
