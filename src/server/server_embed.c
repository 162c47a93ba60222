/* The routes of embeddings, pooling, scores and ranks. */
#include "base/mem.h"
#include "server/embed.h"
#include "server/server_int.h"

static const char JSON[] = "application/json";

struct work { struct embed_job *job; struct server_model *model; struct http_exchange *x; };

static bool job_pull(void *ctx, struct buf *out) { return embed_job_pull(((struct work *)ctx)->job, out) == API_PULL_DONE; }
static int job_status(void *ctx) { return embed_job_status(((struct work *)ctx)->job); }

static void job_close(void *ctx)
{
    struct work *w = ctx;
    struct api_job_stats s;
    embed_job_stats(w->job, &s);
    http_charge(w->x, s.n_prompt, 0);
    embed_job_close(&w->job);
    server_model_leave(w->model);
    mem_free(w);
}

static void job_describe(void *ctx, struct buf *out)
{
    struct api_job_stats s;
    embed_job_stats(((struct work *)ctx)->job, &s);
    buf_printf(out, " prompt_tokens=%d cached_tokens=%d", s.n_prompt, s.n_cached);
}

static void run(struct server *s, struct http_exchange *x, enum embed_endpoint endpoint)
{
    struct api_error e;
    struct server_model *m;
    size_t len;
    const char *body = http_body(x, &len);
    struct api_job_opts o = {.request_id = http_id(x), .notify = http_wake, .notify_ctx = x};
    if (atomic_load(&s->draining)) {
        api_fail(&e, ERR_DRAINING, NULL, "the server is shutting down");
        http_reply_error(x, &e);
        return;
    }
    if (!server_enter(s, x, &m))
        return;
    o.waited_us = http_age_us(x);
    o.timeout_us = http_timeout_us(x, 0);
    struct work *w = mem_try_zalloc(1, sizeof *w);
    if (!w)
        api_fail(&e, ERR_NOMEM, NULL, "out of memory for the request");
    else if (embed_job_open(&w->job, server_model_api(m), endpoint, body, len, &o, &e)) {
        w->model = m;
        w->x = x;
        http_reply_pull(x, &(struct http_pull){.ctx = w, .content_type = JSON, .pull = job_pull, .status = job_status, .close = job_close,
                                               .describe = job_describe});
        return;
    }
    mem_free(w);
    if (e.status == 429 && e.retry_after_s == 0)
        e.retry_after_s = server_model_retry_after_s(m);
    server_model_leave(m);
    http_reply_error(x, &e);
}

void server_embeddings(void *ctx, struct http_exchange *x) { run(ctx, x, EMBED_EMBEDDINGS); }
void server_pooling(void *ctx, struct http_exchange *x) { run(ctx, x, EMBED_POOLING); }
void server_score(void *ctx, struct http_exchange *x) { run(ctx, x, EMBED_SCORE); }
void server_rerank(void *ctx, struct http_exchange *x) { run(ctx, x, EMBED_RERANK); }
