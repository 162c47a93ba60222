/* bench/http_client.h - a client of OpenAI-compatible servers: many streamed generations at once, in one thread (libcurl).
 *
 * Proxies of the environment are not used: a measurement goes straight to the server.  Not thread safe. */
#ifndef QUIRE_BENCH_HTTP_CLIENT_H
#define QUIRE_BENCH_HTTP_CLIENT_H

#include <stdbool.h>
#include <stdint.h>
#include "base/buf.h"
#include "base/err.h"
#include "bench/http_call.h"

struct bench_http;

struct bench_http_opts {
    const char *base_url;   /* http://127.0.0.1:8000; copied */
    const char *api_key;    /* NULL: none; copied */
    double timeout_s;       /* bound of each request, connecting included; 0: none */
    int n_connections;      /* connections kept open for reuse; 0: libcurl's own number */
};

bool bench_http_open(struct bench_http **out, const struct bench_http_opts *o, struct err *e);
/* Cuts what still runs (those calls get no result); *c becomes NULL. */
void bench_http_close(struct bench_http **c);

/* GET (body NULL) or POST of a JSON text, waiting for the answer; any status is success.  reply is cleared first. */
bool bench_http_request(struct bench_http *c, const char *path, const char *body, int *status, struct buf *reply, struct err *e);

/* POSTs the JSON in body (taken over: body is empty afterwards) and reads the answer as a stream into call, which must
 * stay in place until bench_http_next returns it. */
bool bench_http_start(struct bench_http *c, const char *path, struct buf *body, struct bench_call *call, struct err *e);

/* Works until a call ends and returns it, or until timeout_us have passed (< 0: no limit) or nothing runs: then NULL. */
struct bench_call *bench_http_next(struct bench_http *c, int64_t timeout_us);

/* Cuts all that runs; those calls get no result and may be freed. */
void bench_http_cancel(struct bench_http *c);

/* Start and wait for this call; no other may be running. */
bool bench_http_run(struct bench_http *c, const char *path, struct buf *body, struct bench_call *call, struct err *e);

/* The id of the server's first model, mem_free it; NULL with e set when it has none. */
char *bench_http_first_model(struct bench_http *c, struct err *e);

#endif
