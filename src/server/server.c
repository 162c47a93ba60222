#include "server/server.h"

#include <string.h>
#include "base/clock.h"
#include "base/mem.h"
#include "server/server_int.h"

static const char JSON[] = "application/json";

/* ---- generation ---- */

static bool job_pull(void *ctx, struct buf *out) { return api_job_pull(ctx, out) == API_PULL_DONE; }
static int job_status(void *ctx) { return api_job_status(ctx); }

static void job_close(void *ctx)
{
    struct api_job *job = ctx;
    api_job_close(&job);
}

static void job_describe(void *ctx, struct buf *out)
{
    struct api_job_stats s;
    api_job_stats(ctx, &s);
    buf_printf(out, " prompt_tokens=%d completion_tokens=%d cached_tokens=%d", s.n_prompt, s.n_completion, s.n_cached);
}

static void generate(struct server *s, struct http_exchange *x, enum api_endpoint endpoint)
{
    struct api_error e;
    struct api_job *job;
    size_t len;
    const char *body = http_body(x, &len);
    struct api_job_opts o = {.request_id = http_id(x), .notify = http_wake, .notify_ctx = x};
    if (atomic_load(&s->draining))
        api_fail(&e, ERR_DRAINING, NULL, "the server is shutting down");
    else if (api_job_open(&job, s->api, endpoint, body, len, &o, &e)) {
        bool stream = api_job_streams(job);
        http_reply_pull(x, &(struct http_pull){.ctx = job, .stream = stream, .content_type = stream ? "text/event-stream; charset=utf-8" : JSON,
                                               .pull = job_pull, .status = job_status, .close = job_close, .describe = job_describe});
        return;
    }
    http_reply_error(x, &e);
}

static void on_completions(void *ctx, struct http_exchange *x) { generate(ctx, x, API_COMPLETIONS); }
static void on_chat(void *ctx, struct http_exchange *x) { generate(ctx, x, API_CHAT); }

/* ---- tokenizer, models ---- */

static void reply_json(struct http_exchange *x, bool ok, struct buf *body, const struct api_error *e)
{
    if (ok)
        http_reply(x, 200, JSON, body);
    else
        http_reply_error(x, e);
    buf_free(body);
}

static void on_tokenize(void *ctx, struct http_exchange *x)
{
    struct server *s = ctx;
    struct api_error e;
    struct buf out;
    size_t len;
    const char *body = http_body(x, &len);
    buf_init(&out, 0);
    bool ok = api_tokenize(s->api, body, len, &out, &e);
    reply_json(x, ok, &out, &e);
}

static void on_detokenize(void *ctx, struct http_exchange *x)
{
    struct server *s = ctx;
    struct api_error e;
    struct buf out;
    size_t len;
    const char *body = http_body(x, &len);
    buf_init(&out, 0);
    bool ok = api_detokenize(s->api, body, len, &out, &e);
    reply_json(x, ok, &out, &e);
}

static void on_models(void *ctx, struct http_exchange *x)
{
    struct server *s = ctx;
    struct buf out;
    buf_init(&out, 0);
    api_write_models(s->api, &out);
    http_reply(x, 200, JSON, &out);
}

static void on_model(void *ctx, struct http_exchange *x)
{
    struct server *s = ctx;
    struct api_error e;
    struct buf out;
    buf_init(&out, 0);
    bool ok = api_write_model(s->api, http_path(x) + strlen("/v1/models/"), &out, &e);
    reply_json(x, ok, &out, &e);
}

/* ---- operation ---- */

static void on_health(void *ctx, struct http_exchange *x)
{
    struct server *s = ctx;
    struct buf empty;
    buf_init(&empty, 0);
    http_reply(x, atomic_load(&s->draining) ? 503 : 200, NULL, &empty);
}

static void on_version(void *ctx, struct http_exchange *x)
{
    struct buf out;
    (void)ctx;
    buf_init(&out, 0);
    buf_puts(&out, "{\"version\":\"" QUIRE_VERSION "\"}");
    http_reply(x, 200, JSON, &out);
}

static void on_load(void *ctx, struct http_exchange *x)
{
    struct server *s = ctx;
    struct http_stats st;
    struct buf out;
    http_stats(s->http, &st);
    buf_init(&out, 0);
    buf_printf(&out, "{\"server_load\":%lld}", (long long)st.n_active);
    http_reply(x, 200, JSON, &out);
}

static void on_metrics(void *ctx, struct http_exchange *x)
{
    struct buf out;
    buf_init(&out, 0);
    server_write_metrics(ctx, &out);
    http_reply(x, 200, "text/plain; version=0.0.4; charset=utf-8", &out);
}

static void on_reset_prefix_cache(void *ctx, struct http_exchange *x)
{
    struct server *s = ctx;
    struct api_error e;
    struct buf out;
    buf_init(&out, 0);
    bool ok = engine_reset_prefix_cache(s->eng);
    if (ok)
        buf_puts(&out, "{\"success\":true}");
    else
        api_fail_status(&e, 409, "cached pages are in use by running requests; try again when none runs");
    reply_json(x, ok, &out, &e);
}

/* ---- opening ---- */

/* Everything that tokenizes or waits for the engine is for the workers. */
static const struct http_route routes[] = {
    {"/v1/completions", HTTP_POST, HTTP_JSON | HTTP_WORK | HTTP_LIMITED, on_completions},
    {"/v1/chat/completions", HTTP_POST, HTTP_JSON | HTTP_WORK | HTTP_LIMITED, on_chat},
    {"/v1/models", HTTP_GET, 0, on_models},
    {"/v1/models/", HTTP_GET, HTTP_PREFIX, on_model},
    {"/tokenize", HTTP_POST, HTTP_JSON | HTTP_WORK, on_tokenize},
    {"/detokenize", HTTP_POST, HTTP_JSON | HTTP_WORK, on_detokenize},
    {"/reset_prefix_cache", HTTP_POST, HTTP_WORK, on_reset_prefix_cache},
    {"/health", HTTP_GET, HTTP_OPEN, on_health},
    {"/ping", HTTP_GET | HTTP_POST, HTTP_OPEN, on_health},
    {"/version", HTTP_GET, 0, on_version},
    {"/load", HTTP_GET, 0, on_load},
    {"/metrics", HTTP_GET, 0, on_metrics},
};
enum { N_ROUTES = sizeof routes / sizeof routes[0] };
_Static_assert((int)N_ROUTES <= (int)SERVER_MAX_ROUTES, "room for the routes");

void server_opts_default(struct server_opts *o)
{
    *o = (struct server_opts){
        .api = {.use_generation_config = true},
        .http = {.host = "127.0.0.1", .port = 8000, .n_threads = 2, .n_workers = 2, .max_body_bytes = 32 << 20, .idle_timeout_s = 120,
                 .request_id_headers = true},
    };
}

bool server_open(struct server **out, const struct server_opts *o, struct err *e)
{
    *out = NULL;
    struct server *s = mem_try_zalloc(1, sizeof *s);
    if (!s)
        return err_set(e, ERR_NOMEM, "out of memory");
    s->o = *o;
    s->eng = o->api.engine;
    s->start_unix_s = clock_unix_s();
    memcpy(s->routes, routes, sizeof routes);
    for (int i = 0; i < N_ROUTES; i++)
        if (o->metrics_public && s->routes[i].handle == on_metrics)
            s->routes[i].flags |= HTTP_OPEN;
    struct http_opts h = o->http;
    h.routes = s->routes;
    h.n_routes = N_ROUTES;
    h.ctx = s;
    h.log = o->api.log;
    if (!api_open(&s->api, &o->api, e) || !http_open(&s->http, &h, e)) {
        server_close(&s);
        return false;
    }
    *out = s;
    return true;
}

int server_port(const struct server *s) { return http_port(s->http); }

void server_drain(struct server *s)
{
    atomic_store(&s->draining, true);
    engine_drain(s->eng);
}

bool server_idle(const struct server *s)
{
    struct http_stats st;
    http_stats(s->http, &st);
    return st.n_active == 0;
}

void server_close(struct server **ps)
{
    struct server *s = *ps;
    if (!s)
        return;
    *ps = NULL;
    http_close(&s->http);
    api_close(&s->api);
    mem_free(s);
}
