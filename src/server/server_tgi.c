/* The routes of TGI's API, and those whose body tells whose they are. */
#include <string.h>
#include "base/json.h"
#include "base/mem.h"
#include "server/server_int.h"
#include "server/tgi.h"

static const char JSON[] = "application/json";

/* A job keeps its model loaded. */
struct generation { struct tgi_job *job; struct server_model *model; struct http_exchange *x; };

static void add_header(void *ctx, const char *name, const char *value) { http_add_header(ctx, name, value); }

static bool job_pull(void *ctx, struct buf *out)
{
    struct generation *g = ctx;
    if (tgi_job_pull(g->job, out) != API_PULL_DONE)
        return false;
    if (!tgi_job_streams(g->job))
        tgi_job_headers(g->job, add_header, g->x);
    return true;
}

static int job_status(void *ctx) { return tgi_job_status(((struct generation *)ctx)->job); }

static void job_close(void *ctx)
{
    struct generation *g = ctx;
    struct api_job_stats s;
    tgi_job_stats(g->job, &s);
    http_charge(g->x, s.n_prompt, s.n_completion);
    tgi_job_close(&g->job);
    server_model_leave(g->model);
    mem_free(g);
}

static void job_describe(void *ctx, struct buf *out)
{
    struct api_job_stats s;
    tgi_job_stats(((struct generation *)ctx)->job, &s);
    buf_printf(out, " prompt_tokens=%d completion_tokens=%d cached_tokens=%d", s.n_prompt, s.n_completion, s.n_cached);
}

static void count_failure(struct server *s, int status)
{
    atomic_fetch_add(status == 429 ? &s->tgi_overloaded : &s->tgi_invalid, 1);
}

static void generate(struct server *s, struct http_exchange *x, enum tgi_route route)
{
    struct api_error e;
    struct server_model *m;
    size_t len;
    const char *body = http_body(x, &len);
    struct api_job_opts o = {.request_id = http_id(x), .notify = http_wake, .notify_ctx = x};
    http_use_tgi_errors(x);
    if (atomic_load(&s->draining)) {
        api_fail(&e, ERR_DRAINING, NULL, "the server is shutting down");
        http_reply_error(x, &e);
        return;
    }
    if (!server_enter(s, x, &m))
        return;
    o.waited_us = http_age_us(x);
    o.timeout_us = http_timeout_us(x, 0);
    struct generation *g = mem_try_zalloc(1, sizeof *g);
    if (!g)
        api_fail(&e, ERR_NOMEM, NULL, "out of memory for the request");
    else if (tgi_job_open(&g->job, server_model_api(m), route, body, len, &o, &e)) {
        bool stream = tgi_job_streams(g->job);
        g->model = m;
        g->x = x;
        http_reply_pull(x, &(struct http_pull){.ctx = g, .stream = stream, .content_type = stream ? "text/event-stream" : JSON,
                                               .pull = job_pull, .status = job_status, .close = job_close, .describe = job_describe});
        return;
    }
    mem_free(g);
    count_failure(s, e.status);
    if (e.status == 429 && e.retry_after_s == 0)
        e.retry_after_s = server_model_retry_after_s(m);
    server_model_leave(m);
    http_reply_error(x, &e);
}

void server_tgi_generate(void *ctx, struct http_exchange *x) { generate(ctx, x, TGI_GENERATE); }
void server_tgi_generate_stream(void *ctx, struct http_exchange *x) { generate(ctx, x, TGI_GENERATE_STREAM); }
void server_tgi_compat(void *ctx, struct http_exchange *x) { generate(ctx, x, TGI_COMPAT); }

/* ---- whose body is it? ---- */

enum dialect { DIALECT_CHAT, DIALECT_COMPLETION, DIALECT_TGI };

static enum dialect dialect_of(struct http_exchange *x)
{
    size_t len;
    struct err e;
    const char *body = http_body(x, &len);
    json_t *doc = json_parse(body, len, &e);
    enum dialect d = json_object_get(doc, "messages") ? DIALECT_CHAT : json_object_get(doc, "inputs") ? DIALECT_TGI : DIALECT_COMPLETION;
    json_decref(doc);
    return d;
}

/* SageMaker's one route: chat, TGI's or a completion, by the body's fields. */
void server_invocations(void *ctx, struct http_exchange *x)
{
    switch (dialect_of(x)) {
    case DIALECT_CHAT: server_generate(ctx, x, API_CHAT); break;
    case DIALECT_TGI: generate(ctx, x, TGI_COMPAT); break;
    case DIALECT_COMPLETION: server_generate(ctx, x, API_COMPLETIONS); break;
    }
}

/* ---- tokenizer, info ---- */

static void answer(struct server *s, struct http_exchange *x, bool (*make)(const struct api *a, const char *body, size_t len, struct buf *out, struct api_error *e))
{
    struct api_error e;
    struct server_model *m;
    struct buf out;
    size_t len;
    const char *body = http_body(x, &len);
    if (!server_enter(s, x, &m))
        return;
    buf_init(&out, 0);
    bool ok = make(server_model_api(m), body, len, &out, &e);
    server_model_leave(m);
    if (ok)
        http_reply(x, 200, JSON, &out);
    else
        http_reply_error(x, &e);
    buf_free(&out);
}

/* One route for two APIs: TGI's bodies have "inputs", vLLM's "prompt" or "messages". */
void server_tokenize(void *ctx, struct http_exchange *x)
{
    bool tgi = dialect_of(x) == DIALECT_TGI;
    if (tgi)
        http_use_tgi_errors(x);
    answer(ctx, x, tgi ? tgi_tokenize : api_tokenize);
}

void server_tgi_chat_tokenize(void *ctx, struct http_exchange *x)
{
    http_use_tgi_errors(x);
    answer(ctx, x, tgi_chat_tokenize);
}

void server_tgi_info(void *ctx, struct http_exchange *x)
{
    struct server *s = ctx;
    struct api_error e;
    struct buf out;
    struct server_model *m = server_models_peek(s->models, "");
    http_use_tgi_errors(x);
    if (!m) {
        api_fail_status(&e, 503, "no model is loaded yet");
        http_reply_error(x, &e);
        return;
    }
    buf_init(&out, 0);
    tgi_info(server_model_api(m), s->o.http.max_concurrent, &out);
    server_model_leave(m);
    http_reply(x, 200, JSON, &out);
}
