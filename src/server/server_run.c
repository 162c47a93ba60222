/* One request of any kind, from its body to the end of its answer. */
#include "base/clock.h"
#include "base/mem.h"
#include "server/server_int.h"

/* A job keeps its model loaded.  counted: how it ended. */
struct running {
    const struct server_job_ops *ops;
    void *job;
    struct server_model *model;
    struct http_exchange *x;
    int64_t begun_us;
    bool counted;
};

static bool streams(const struct running *r) { return r->ops->streams && r->ops->streams(r->job); }

static void count_end(struct running *r)
{
    struct api_job_stats s;
    r->counted = true;
    if (!r->ops->generates)
        return;
    r->ops->stats(r->job, &s);
    tgi_stats_ended(server_model_tgi(r->model), &s, r->begun_us);
}

static bool job_pull(void *ctx, struct buf *out)
{
    struct running *r = ctx;
    if (r->ops->pull(r->job, out) != API_PULL_DONE)
        return false;
    if (!r->counted)
        count_end(r);
    if (r->ops->headers && !streams(r))
        r->ops->headers(r->job, r->x);
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
    if (!r->counted && r->ops->generates)
        tgi_stats_failed(server_model_tgi(r->model), TGI_DROPPED);
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
    const char *type = streams(r) ? r->ops->stream_type : NULL;
    if (type && r->ops->headers)
        r->ops->headers(r->job, x);
    http_reply_pull(x, &(struct http_pull){.ctx = r, .stream = type != NULL, .content_type = type ? type : "application/json",
                                           .pull = job_pull, .status = job_status, .close = job_close, .describe = job_describe});
}

/* m NULL: the request reached none.  A server that ends is no failure of the request's, nor was it one of the server's requests. */
static void refuse(struct server *s, struct http_exchange *x, const struct server_job_ops *ops, struct server_model *m, const struct api_error *e)
{
    struct tgi_stats *stats = m ? server_model_tgi(m) : &s->tgi;
    if (ops->generates && !(e->status == 503 && atomic_load(&s->draining))) {
        tgi_stats_came(stats);
        tgi_stats_failed(stats, tgi_failure_of(e));
    }
    http_reply_error(x, e);
}

static bool open_job(struct running *r, const struct server_job_ops *ops, int kind, struct api_error *e)
{
    struct http_exchange *x = r->x;
    struct api_job_stats s;
    size_t len;
    const char *body = http_body(x, &len);
    const struct api_job_opts o = {.request_id = http_id(x), .notify = http_wake, .notify_ctx = x, .waited_us = http_age_us(x),
                                   .timeout_us = http_timeout_us(x, 0), .timings = http_wants_timings(x)};
    r->ops = ops;
    r->job = ops->open(server_model_api(r->model), kind, body, len, &o, e);
    if (r->job && ops->generates) {
        ops->stats(r->job, &s);
        tgi_stats_came(server_model_tgi(r->model));
        tgi_stats_valid(server_model_tgi(r->model), server_model_api(r->model), &s);
    }
    return r->job != NULL;
}

void server_run(struct server *s, struct http_exchange *x, const struct server_job_ops *ops, int kind)
{
    int64_t begun_us = clock_now_us();
    struct api_error e;
    struct server_model *m = NULL;
    if (atomic_load(&s->draining)) {
        api_fail(&e, ERR_DRAINING, NULL, "the server is shutting down");
        refuse(s, x, ops, NULL, &e);
        return;
    }
    enum server_enter how = server_models_enter(s->models, x, &m, &e);
    if (how == SERVER_REFUSED)
        refuse(s, x, ops, m, &e);
    if (how != SERVER_ENTERED)
        return;
    struct running *r = mem_try_zalloc(1, sizeof *r);
    if (r) {
        *r = (struct running){.model = m, .x = x, .begun_us = begun_us};
        if (open_job(r, ops, kind, &e)) {
            reply(x, r);
            return;
        }
    } else {
        api_fail(&e, ERR_NOMEM, NULL, "out of memory for the request");
    }
    mem_free(r);
    if (e.status == 429 && e.retry_after_s == 0)
        e.retry_after_s = server_model_retry_after_s(m);
    refuse(s, x, ops, m, &e);
    server_model_leave(m);
}
