/* server/tgi_stats.h - requests for text as TGI counts them (INTERFACES 3.2): what came, how it ended, how long each part took.
 *
 * One request of HTTP is one request here, whatever route it came by and however many prompts and choices it has.
 *   n_requests = n_ok + all of n_failed + those that still run.
 * Any thread. */
#ifndef QUIRE_SERVER_TGI_STATS_H
#define QUIRE_SERVER_TGI_STATS_H

#include <pthread.h>
#include "server/api.h"

enum tgi_failure {
    TGI_OVERLOADED,    /* no room for it: 429 */
    TGI_VALIDATION,    /* something is wrong with it */
    TGI_TEMPLATE,      /* its messages could not be rendered */
    TGI_INCOMPLETE,    /* its output stopped without an end */
    TGI_DROPPED,       /* its client went away first */
    TGI_GENERATION,    /* the engine failed, a deadline passed, its model could not be loaded */
    TGI_N_FAILURES
};
extern const char *const tgi_failure_names[TGI_N_FAILURES];
/* Of a request that was refused. */
enum tgi_failure tgi_failure_of(const struct api_error *e);

enum { TGI_LENGTHS = 100 };
/* Equal buckets up to most; 0: not known yet, and nothing was counted. */
struct tgi_lengths { int32_t most; uint64_t counts[TGI_LENGTHS + 1]; double sum; uint64_t total; };

struct tgi_counts {
    uint64_t n_requests, n_ok, n_failed[TGI_N_FAILURES];
    struct engine_hist duration, validation, queue, inference, per_token;    /* seconds, of those that went well */
    struct tgi_lengths input, max_new;    /* of those that were valid */
    struct tgi_lengths generated;         /* of those that went well */
};

struct tgi_stats { pthread_mutex_t lock; struct tgi_counts c; };
void tgi_stats_init(struct tgi_stats *s);
void tgi_stats_free(struct tgi_stats *s);

void tgi_stats_came(struct tgi_stats *s);
void tgi_stats_failed(struct tgi_stats *s, enum tgi_failure why);
/* Valid, and now the engine's; lengths are counted in buckets that end with the limits of the first api seen. */
void tgi_stats_valid(struct tgi_stats *s, const struct api *a, const struct api_job_stats *job);
/* Over.  begun_us: when its handling began, on the clock of engine_times. */
void tgi_stats_ended(struct tgi_stats *s, const struct api_job_stats *job, int64_t begun_us);
void tgi_stats_get(struct tgi_stats *s, struct tgi_counts *out);

#endif
