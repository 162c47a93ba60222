/* One request of any kind, from its body to the end of its answer. */
#include "base/mem.h"
#include "server/server_int.h"

/* A job keeps its model loaded. */
struct running { const struct server_job_ops *ops; void *job; struct server_model *model; struct http_exchange *x; };

static bool job_pull(void *ctx, struct buf *out)
{
    struct running *r = ctx;
    if (r->ops->pull(r->job, out) != API_PULL_DONE)
        return false;
    if (r->ops->done)
        r->ops->done(r->job, r->x);
    return true;
}

static int job_status(void *ctx)
{
    struct running *r = ctx;
    return r->ops->status(r->job);
}

static void job_close(void *ctx)
{
    struct running *r = ctx;
    struct api_job_stats s;
    r->ops->stats(r->job, &s);
    http_charge(r->x, s.n_prompt, s.n_completion);
    r->ops->close(r->job);
    server_model_leave(r->model);
    mem_free(r);
}

static void job_describe(void *ctx, struct buf *out)
{
    struct running *r = ctx;
    struct api_job_stats s;
    r->ops->stats(r->job, &s);
    buf_printf(out, " prompt_tokens=%d completion_tokens=%d cached_tokens=%d", s.n_prompt, s.n_completion, s.n_cached);
}

bool server_enter(struct server *s, struct http_exchange *x, struct server_model **m)
{
    struct api_error e;
    enum server_enter how = server_models_enter(s->models, x, m, &e);
    if (how == SERVER_REFUSED)
        http_reply_error(x, &e);
    return how == SERVER_ENTERED;
}

static void reply(struct http_exchange *x, struct running *r)
{
    const char *type = r->ops->streams && r->ops->streams(r->job) ? r->ops->stream_type : NULL;
    http_reply_pull(x, &(struct http_pull){.ctx = r, .stream = type != NULL, .content_type = type ? type : "application/json",
                                           .pull = job_pull, .status = job_status, .close = job_close, .describe = job_describe});
}

static void refuse(struct server *s, struct http_exchange *x, const struct server_job_ops *ops, const struct api_error *e)
{
    if (ops->refused)
        ops->refused(s, e);
    http_reply_error(x, e);
}

void server_run(struct server *s, struct http_exchange *x, const struct server_job_ops *ops, int kind)
{
    struct api_error e;
    struct server_model *m;
    size_t len;
    const char *body = http_body(x, &len);
    struct api_job_opts o = {.request_id = http_id(x), .notify = http_wake, .notify_ctx = x};
    if (atomic_load(&s->draining)) {
        api_fail(&e, ERR_DRAINING, NULL, "the server is shutting down");
        refuse(s, x, ops, &e);
        return;
    }
    if (!server_enter(s, x, &m))
        return;
    o.waited_us = http_age_us(x);
    o.timeout_us = http_timeout_us(x, 0);
    o.timings = http_wants_timings(x);
    struct running *r = mem_try_zalloc(1, sizeof *r);
    if (!r)
        api_fail(&e, ERR_NOMEM, NULL, "out of memory for the request");
    else if ((r->job = ops->open(server_model_api(m), kind, body, len, &o, &e)) != NULL) {
        r->ops = ops;
        r->model = m;
        r->x = x;
        reply(x, r);
        return;
    }
    mem_free(r);
    if (e.status == 429 && e.retry_after_s == 0)
        e.retry_after_s = server_model_retry_after_s(m);
    server_model_leave(m);
    refuse(s, x, ops, &e);
}
