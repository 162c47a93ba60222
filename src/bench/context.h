/* bench/context.h - how a server's speed changes as the prompt grows, up to the end of its context and past it.
 *
 * One request at a time, of step, 2*step, ... prompt tokens and output_len new ones, until the server answers 400;
 * then one more of the first size proves that the server lives. */
#ifndef QUIRE_BENCH_CONTEXT_H
#define QUIRE_BENCH_CONTEXT_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include "base/buf.h"
#include "base/err.h"
#include "bench/http_client.h"
#include "bench/load_prompt.h"

struct bench_context_opts {
    struct bench_target target;
    int32_t step, output_len;
    int32_t max_prompt;      /* past it the server has shown no limit, which is an error */
    int32_t vocab;           /* ids are below it; 0: bench_vocab_probe */
    bool reuse_prefix;       /* each prompt begins with the one before, so that a prefix cache may help; else all are new */
    uint64_t seed;
};

/* One answered request. */
struct bench_context_row {
    int64_t n_prompt, n_generated;
    double time_s, ttft_s, itl_s;   /* time_s from sending to the last token; itl_s the mean gap, 0 with one token */
    double tokens_per_s;            /* n_generated / time_s */
};

enum { BENCH_CONTEXT_MAX_PROMPT = 1 << 24 };

/* row is called as rows come; false from it stops with an error.  *out, also on failure when anything was measured:
 * {"rows":[{"prompt_tokens","generated_tokens","total_tokens","time_s","tokens_per_s","ttft_ms","itl_ms"}..],
 *  "limit":null|{"status","prompt_tokens","message"}, "alive":bool}.
 * True when the server answered 400 and then lived. */
bool bench_context_run(struct bench_http *c, const struct bench_context_opts *o, bool (*row)(void *, const struct bench_context_row *),
                       void *ctx, json_t **out, struct err *e);

/* gnuplot's script for a PNG at path: time to first token, gap and speed over the prompt.  False: no rows, no memory,
 * or a path that the script cannot name. */
bool bench_context_plot(const json_t *result, const char *path, struct buf *script, struct err *e);

/* ---- a server of our own ---- */

struct bench_server { pid_t pid; int fd; char url[256]; };

/* Runs argv (argv[0] the program, NULL-ended) and waits until it prints a line that holds "http://..." on stdout, at most
 * timeout_s.  stderr is shared; the server ends with this process. */
bool bench_server_start(struct bench_server *s, char *const argv[], double timeout_s, struct err *e);
/* SIGTERM, and SIGKILL after ten seconds.  Fine on a zeroed struct. */
void bench_server_stop(struct bench_server *s);

#endif
