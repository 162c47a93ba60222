/* The routes of embeddings, pooling, scores and ranks. */
#include "server/embed.h"
#include "server/server_int.h"

static void *open_job(const struct api *a, int endpoint, const char *body, size_t len, const struct api_job_opts *o, struct api_error *e)
{
    struct embed_job *job;
    return embed_job_open(&job, a, (enum embed_endpoint)endpoint, body, len, o, e) ? job : NULL;
}

static enum api_pull pull_job(void *job, struct buf *out) { return embed_job_pull(job, out); }
static int status_of_job(const void *job) { return embed_job_status(job); }
static void stats_of_job(const void *job, struct api_job_stats *out) { embed_job_stats(job, out); }

static void close_job(void *ctx)
{
    struct embed_job *job = ctx;
    embed_job_close(&job);
}

static const struct server_job_ops ops = {.open = open_job, .pull = pull_job, .status = status_of_job, .stats = stats_of_job, .close = close_job};

void server_embeddings(void *ctx, struct http_exchange *x) { server_run(ctx, x, &ops, EMBED_EMBEDDINGS); }
void server_pooling(void *ctx, struct http_exchange *x) { server_run(ctx, x, &ops, EMBED_POOLING); }
void server_score(void *ctx, struct http_exchange *x) { server_run(ctx, x, &ops, EMBED_SCORE); }
void server_rerank(void *ctx, struct http_exchange *x) { server_run(ctx, x, &ops, EMBED_RERANK); }
