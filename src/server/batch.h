/* server/batch.h - a file of OpenAI batch lines to a file of vLLM's run-batch lines (INTERFACES 4.2), through the same code as the server.
 *
 * A window of lines is in flight, large enough to keep the engine's sequences busy; answers are written in the order of the input, so one that is
 * ready early waits in the window.  Memory is bounded by the window, not by the file. */
#ifndef QUIRE_SERVER_BATCH_H
#define QUIRE_SERVER_BATCH_H

#include <stdio.h>
#include "server/api.h"

struct batch_counts { int64_t n_read, n_written, n_failed, in_at; };   /* lines; in_at: bytes of the input read */

struct batch_opts {
    const struct api *api;
    FILE *in, *out;                    /* borrowed */
    FILE *errors;                      /* lines that failed go there; NULL: to out */
    const char *in_name, *out_name;    /* for messages */
    const char *only_url;              /* NULL, or the url that every line must have */
    int n_in_flight;                   /* 0: twice the engine's sequences */
    bool (*go_on)(void *ctx, const struct batch_counts *c);   /* asked at least 5 times a second; false: stop */
    void *ctx;
};

/* A line that fails gets a line with its error.  False: the job could not run (files, memory), or go_on stopped it (ERR_CANCELLED);
 * what was written by then is in the files. */
bool batch_run(const struct batch_opts *o, struct batch_counts *counts, struct err *e);

/* Whether lines may have that url. */
bool batch_knows_url(const char *url);

#endif
