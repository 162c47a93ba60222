/* server/batch.h - OpenAI batch lines, answered through the same code as the server's requests.
 *
 * A window of lines is in flight, large enough to keep the engine's sequences busy.  Memory is bounded by the window, not by the lines.
 *
 * Either a file of lines becomes a file of vLLM's run-batch lines (INTERFACES 4.2; "error" tells what failed), in the order of the input: one
 * that is ready early waits in the window.  Or lines come from next and go to take as soon as they are ready, as OpenAI writes them: an error
 * is the body of its response. */
#ifndef QUIRE_SERVER_BATCH_H
#define QUIRE_SERVER_BATCH_H

#include <stdio.h>
#include "server/api.h"

struct batch_counts { int64_t n_read, n_written, n_failed, in_at; };   /* lines; in_at: bytes of the input read */

struct batch_opts {
    const struct api *api;
    FILE *in, *out;                    /* borrowed */
    const char *in_name, *out_name;    /* for messages */
    /* Instead of in: a line that stays where it is until it was taken, and its index; false: there are no more, now.  One that finds the engine's queue
     * full waits rather than fail. */
    bool (*next)(void *ctx, int64_t *index, const char **text, size_t *len);
    /* Instead of out; false: stop, e says why. */
    bool (*take)(void *ctx, int64_t index, bool failed, const char *text, size_t len, struct err *e);
    const char *only_url;              /* NULL, or the url that every line must have */
    int n_in_flight;                   /* 0: twice the engine's sequences */
    bool (*go_on)(void *ctx, const struct batch_counts *c);   /* asked at least 5 times a second; false: stop */
    void *ctx;                         /* of next, take and go_on */
};

/* A line that fails gets a line with its error.  False: the job could not run (files, memory), or go_on stopped it (ERR_CANCELLED);
 * what was written by then is in the files. */
bool batch_run(const struct batch_opts *o, struct batch_counts *counts, struct err *e);

/* The answer to a line that was not run.  code NULL: a response with e's status and body; else no response, but an error of that code with e's message. */
bool batch_write_refusal(const char *line, size_t len, const struct api_error *e, const char *code, struct buf *out);
/* Whether lines may have that url. */
bool batch_knows_url(const char *url);

#endif
