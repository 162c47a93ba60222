/* The routes of TGI's API, and those whose body tells whose they are. */
#include <string.h>
#include "base/json.h"
#include "server/server_int.h"
#include "server/tgi.h"

static const char JSON[] = "application/json";

static void *open_job(const struct api *a, int route, const char *body, size_t len, const struct api_job_opts *o, struct api_error *e)
{
    struct tgi_job *job;
    return tgi_job_open(&job, a, (enum tgi_route)route, body, len, o, e) ? job : NULL;
}

static enum api_pull pull_job(void *job, struct buf *out) { return tgi_job_pull(job, out); }
static int status_of_job(const void *job) { return tgi_job_status(job); }
static void stats_of_job(const void *job, struct api_job_stats *out) { tgi_job_stats(job, out); }
static bool job_streams(const void *job) { return tgi_job_streams(job); }
static void add_header(void *ctx, const char *name, const char *value) { http_add_header(ctx, name, value); }

static void close_job(void *ctx)
{
    struct tgi_job *job = ctx;
    tgi_job_close(&job);
}

static void add_headers(const void *job, struct http_exchange *x) { tgi_job_headers(job, add_header, x); }

static const struct server_job_ops ops = {
    .open = open_job, .pull = pull_job, .status = status_of_job, .stats = stats_of_job, .close = close_job, .streams = job_streams,
    .stream_type = "text/event-stream", .headers = add_headers, .generates = true,
};

static void generate(struct server *s, struct http_exchange *x, enum tgi_route route)
{
    http_use_tgi_errors(x);
    server_run(s, x, &ops, route);
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
    case DIALECT_CHAT: server_run(ctx, x, &server_api_ops, API_CHAT); break;
    case DIALECT_TGI: generate(ctx, x, TGI_COMPAT); break;
    case DIALECT_COMPLETION: server_run(ctx, x, &server_api_ops, API_COMPLETIONS); break;
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
