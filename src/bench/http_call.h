/* bench/http_call.h - what one streamed generation did: its times, its counts, and why it failed.
 *
 * A chunk counts as a token when its choice carries text (or reasoning, or tool calls), or when it has neither text
 * nor a role nor a finish reason: so servers mark a token whose text is held back until a character is whole. */
#ifndef QUIRE_BENCH_HTTP_CALL_H
#define QUIRE_BENCH_HTTP_CALL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/buf.h"

struct bench_call {
    /* set by the caller, before the start */
    bool keep_text;

    /* valid once the call has ended */
    bool ok;
    int status;                          /* of HTTP; 0: no answer came */
    char error[320];                     /* one line; empty when ok */
    int64_t start_us, first_us, last_us; /* clock_now_us() at the start, the first and the last token; 0: none */
    int64_t prompt_tokens;               /* as the server's usage tells; -1: it told nothing */
    int64_t completion_tokens;
    int64_t n_chunks;                    /* token chunks */
    double *gaps;                        /* seconds between token chunks, n_gaps of them */
    size_t n_gaps;
    struct buf text;                     /* what was generated, if keep_text */

    /* while it runs */
    size_t cap_gaps;
    int64_t any_us;                      /* the first chunk with a choice, token or not */
    bool done, finished;                 /* [DONE] came; a finish reason came */
};

/* Empties the results (keep_text stays); free what an earlier use holds with bench_call_free first. */
void bench_call_reset(struct bench_call *c);
void bench_call_free(struct bench_call *c);

/* The data of one event that arrived at now_us.  False, with c->error set, when the call cannot go on: no JSON, or an
 * error told by the server. */
bool bench_call_event(struct bench_call *c, const char *data, size_t len, int64_t now_us);

/* The end of the answer: transport is NULL or says what broke, reply is the body of an answer other than 200. */
void bench_call_end(struct bench_call *c, int status, const char *transport, const struct buf *reply);

/* Tokens generated: from usage, else the number of token chunks. */
int64_t bench_call_out_len(const struct bench_call *c);
/* Seconds to the first token, and to the last. */
double bench_call_ttft(const struct bench_call *c);
double bench_call_latency(const struct bench_call *c);

#endif
