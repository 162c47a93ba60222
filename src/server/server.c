#include "server/server.h"

#include <string.h>
#include "base/clock.h"
#include "base/mem.h"
#include "server/files.h"
#include "server/server_int.h"

static const char JSON[] = "application/json";

/* ---- generation ---- */

static void *open_job(const struct api *a, int endpoint, const char *body, size_t len, const struct api_job_opts *o, struct api_error *e)
{
    struct api_job *job;
    return api_job_open(&job, a, (enum api_endpoint)endpoint, body, len, o, e) ? job : NULL;
}

static enum api_pull pull_job(void *job, struct buf *out) { return api_job_pull(job, out); }
static int status_of_job(const void *job) { return api_job_status(job); }
static void stats_of_job(const void *job, struct api_job_stats *out) { api_job_stats(job, out); }
static bool job_streams(const void *job) { return api_job_streams(job); }

static void close_job(void *ctx)
{
    struct api_job *job = ctx;
    api_job_close(&job);
}

const struct server_job_ops server_api_ops = {
    .open = open_job, .pull = pull_job, .status = status_of_job, .stats = stats_of_job, .close = close_job, .streams = job_streams,
    .stream_type = "text/event-stream; charset=utf-8", .generates = true,
};

static void on_completions(void *ctx, struct http_exchange *x) { server_run(ctx, x, &server_api_ops, API_COMPLETIONS); }
static void on_chat(void *ctx, struct http_exchange *x) { server_run(ctx, x, &server_api_ops, API_CHAT); }
static void on_responses(void *ctx, struct http_exchange *x) { server_run(ctx, x, &server_api_ops, API_RESPONSES); }

/* ---- tokenizer, models ---- */

static void reply_json(struct http_exchange *x, bool ok, struct buf *body, const struct api_error *e)
{
    if (ok)
        http_reply(x, 200, JSON, body);
    else
        http_reply_error(x, e);
    buf_free(body);
}

static void on_detokenize(void *ctx, struct http_exchange *x)
{
    struct server *s = ctx;
    struct api_error e;
    struct buf out;
    size_t len;
    const char *body = http_body(x, &len);
    struct server_model *m;
    if (!server_enter(s, x, &m))
        return;
    buf_init(&out, 0);
    bool ok = api_detokenize(server_model_api(m), body, len, &out, &e);
    server_model_leave(m);
    reply_json(x, ok, &out, &e);
}

/* The list, or with id the one model of that name. */
struct cards { struct buf *out; const char *id; struct api_error *e; int n; bool found; };

static void write_cards(void *ctx, const struct server_model_view *v)
{
    struct cards *c = ctx;
    if (c->id && strcmp(c->id, v->name) != 0)
        return;
    if (!c->id && c->n++)
        buf_putc(c->out, ',');
    c->found = true;
    api_write_card(v->name, v->root, v->max_model_len, v->created_s, v->state, c->out);
}

/* One engine may have several names, which its api knows. */
static void write_names(void *ctx, const struct server_model_view *v)
{
    struct cards *c = ctx;
    c->found = c->id ? api_write_model(v->api, c->id, c->out, c->e) : api_write_models(v->api, c->out);
}

static void on_models(void *ctx, struct http_exchange *x)
{
    struct server *s = ctx;
    struct buf out;
    struct cards c = {.out = &out};
    buf_init(&out, 0);
    if (server_models_is_one(s->models)) {
        server_models_visit(s->models, write_names, &c);
    } else {
        buf_puts(&out, "{\"object\":\"list\",\"data\":[");
        server_models_visit(s->models, write_cards, &c);
        buf_puts(&out, "]}");
    }
    http_reply(x, 200, JSON, &out);
}

static void on_model(void *ctx, struct http_exchange *x)
{
    struct server *s = ctx;
    struct api_error e;
    struct buf out;
    struct cards c = {.out = &out, .id = http_path(x) + strlen("/v1/models/"), .e = &e};
    buf_init(&out, 0);
    api_fail(&e, ERR_NOT_FOUND, "model", "The model `%.256s` does not exist.", c.id);
    server_models_visit(s->models, server_models_is_one(s->models) ? write_names : write_cards, &c);
    reply_json(x, c.found, &out, &e);
}

/* ---- operation ---- */

static void on_health(void *ctx, struct http_exchange *x)
{
    struct server *s = ctx;
    struct buf empty;
    struct api_error e;
    struct err why;
    if (!server_alive(s, &why)) {
        api_fail_status(&e, 503, "%s", why.msg);
        http_reply_error(x, &e);
        return;
    }
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
    struct buf page, open;
    buf_init(&page, 0);
    buf_init(&open, 0);
    server_write_metrics(ctx, &page);
    if (page.data && !page.failed && http_wants_openmetrics(x)) {
        server_write_openmetrics(page.data, &open);
        http_reply(x, 200, "application/openmetrics-text; version=1.0.0; charset=utf-8", &open);
    } else {
        http_reply(x, 200, "text/plain; version=0.0.4; charset=utf-8", &page);
    }
    buf_free(&page);
}

static void on_reset_prefix_cache(void *ctx, struct http_exchange *x)
{
    struct server *s = ctx;
    struct api_error e;
    struct buf out;
    buf_init(&out, 0);
    bool ok = server_models_reset_prefix_cache(s->models);
    if (ok)
        buf_puts(&out, "{\"success\":true}");
    else
        api_fail_status(&e, 409, "cached pages are in use by running requests; try again when none runs");
    reply_json(x, ok, &out, &e);
}

/* ---- opening ---- */

/* Everything that tokenizes or waits for the engine is for the workers. */
static const struct http_route routes[] = {
    {"/v1/completions", HTTP_POST, HTTP_JSON | HTTP_WORK | HTTP_LIMITED | SERVER_GENERATES, on_completions},
    {"/v1/chat/completions", HTTP_POST, HTTP_JSON | HTTP_WORK | HTTP_LIMITED | SERVER_GENERATES, on_chat},
    {"/v1/responses", HTTP_POST, HTTP_JSON | HTTP_WORK | HTTP_LIMITED | SERVER_GENERATES, on_responses},
    {"/v1/models", HTTP_GET, 0, on_models},
    {"/v1/models/", HTTP_GET, HTTP_PREFIX, on_model},
    {"/tokenize", HTTP_POST, HTTP_JSON | HTTP_WORK, server_tokenize},
    {"/detokenize", HTTP_POST, HTTP_JSON | HTTP_WORK, on_detokenize},
    {"/reset_prefix_cache", HTTP_POST, HTTP_WORK, on_reset_prefix_cache},
    {"/health", HTTP_GET, HTTP_OPEN, on_health},
    {"/ping", HTTP_GET | HTTP_POST, HTTP_OPEN, on_health},
    {"/version", HTTP_GET, 0, on_version},
    {"/load", HTTP_GET, 0, on_load},
    {"/metrics", HTTP_GET, 0, on_metrics},
    {"/v1/embeddings", HTTP_POST, HTTP_JSON | HTTP_WORK | HTTP_LIMITED, server_embeddings},
    {"/v1/files", HTTP_GET | HTTP_POST, HTTP_WORK | HTTP_KEY_ID, server_files},
    {"/v1/files/", HTTP_GET | HTTP_DELETE, HTTP_PREFIX | HTTP_WORK | HTTP_KEY_ID, server_file},
    {"/v1/batches", HTTP_GET | HTTP_POST, HTTP_JSON | HTTP_WORK | HTTP_KEY_ID, server_batches},
    {"/v1/batches/", HTTP_GET | HTTP_POST, HTTP_PREFIX | HTTP_WORK | HTTP_KEY_ID, server_batch},
    {"/pooling", HTTP_POST, HTTP_JSON | HTTP_WORK | HTTP_LIMITED, server_pooling},
    {"/score", HTTP_POST, HTTP_JSON | HTTP_WORK | HTTP_LIMITED, server_score},
    {"/v1/score", HTTP_POST, HTTP_JSON | HTTP_WORK | HTTP_LIMITED, server_score},
    {"/rerank", HTTP_POST, HTTP_JSON | HTTP_WORK | HTTP_LIMITED, server_rerank},
    {"/v1/rerank", HTTP_POST, HTTP_JSON | HTTP_WORK | HTTP_LIMITED, server_rerank},
    {"/v2/rerank", HTTP_POST, HTTP_JSON | HTTP_WORK | HTTP_LIMITED, server_rerank},
    {"/generate", HTTP_POST, HTTP_JSON | HTTP_WORK | HTTP_LIMITED | SERVER_GENERATES | HTTP_TGI, server_tgi_generate},
    {"/generate_stream", HTTP_POST, HTTP_JSON | HTTP_WORK | HTTP_LIMITED | SERVER_GENERATES | HTTP_TGI, server_tgi_generate_stream},
    {"/invocations", HTTP_POST, HTTP_JSON | HTTP_WORK | HTTP_LIMITED | SERVER_GENERATES, server_invocations},
    {"/chat_tokenize", HTTP_POST, HTTP_JSON | HTTP_WORK | HTTP_TGI, server_tgi_chat_tokenize},
    {"/info", HTTP_GET, HTTP_TGI, server_tgi_info},
    {"/", HTTP_GET, HTTP_OPEN, server_web_file},
    {"/", HTTP_POST, HTTP_JSON | HTTP_WORK | HTTP_LIMITED | SERVER_GENERATES | HTTP_TGI, server_tgi_compat},
    {"/web/state", HTTP_GET, HTTP_PREFIX | HTTP_WORK | HTTP_QUIET, server_web_state},
    {"/web/", HTTP_GET, HTTP_PREFIX | HTTP_OPEN | HTTP_QUIET, server_web_file},
};
enum { N_ROUTES = sizeof routes / sizeof routes[0] };
_Static_assert((int)N_ROUTES <= (int)SERVER_MAX_ROUTES, "room for the routes");

void server_opts_default(struct server_opts *o)
{
    *o = (struct server_opts){
        .api = {.use_generation_config = true},
        .http = {.host = "127.0.0.1", .port = 8000, .n_threads = 2, .n_workers = 2, .max_body_bytes = 32 << 20, .idle_timeout_s = 120,
                 .request_id_headers = true},
        .stall_us = 120000000,
    };
}

bool server_open(struct server **out, const struct server_opts *o, struct err *e)
{
    *out = NULL;
    struct server *s = mem_try_zalloc(1, sizeof *s);
    if (!s)
        return err_set(e, ERR_NOMEM, "out of memory");
    s->o = *o;
    s->start_unix_s = clock_unix_s();
    tgi_stats_init(&s->tgi);
    memcpy(s->routes, routes, sizeof routes);
    s->n_routes = N_ROUTES;
    for (int i = 0; i < N_ROUTES; i++)
        if (o->metrics_public && s->routes[i].handle == on_metrics)
            s->routes[i].flags |= HTTP_OPEN;
    struct http_opts h = o->http;
    h.routes = s->routes;
    h.n_routes = N_ROUTES;
    h.ctx = s;
    h.log = o->api.log;
    struct server_models_opts mo = o->models;
    mo.api = o->api;
    bool ok = o->models.n_models > 0 ? server_models_open(&s->models, &mo, e) : server_models_open_one(&s->models, &o->api, e);
    const struct files_opts fo = {.dir = o->files_dir, .max_total_bytes = o->files_max_bytes, .models = s->models, .log = o->api.log};
    if (!ok || (o->files_dir && !files_open(&s->files, &fo, e)) || !http_open(&s->http, &h, e)) {
        server_close(&s);
        return false;
    }
    *out = s;
    return true;
}

int server_port(const struct server *s) { return http_port(s->http); }
bool server_alive(const struct server *s, struct err *why) { return server_models_alive(s->models, s->o.stall_us, why); }
bool server_files_changed(const struct server *s) { return http_files_changed(s->http); }
bool server_reload(struct server *s, struct err *e) { return http_reload(s->http, e); }

void server_drain(struct server *s)
{
    atomic_store(&s->draining, true);
    if (s->files)
        files_stop(s->files);
    server_models_drain(s->models);
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
    if (s->files)
        files_stop(s->files);            /* before the models, lest its lines fail because of them */
    if (s->models)
        server_models_stop(s->models);   /* so that nothing is parked when the workers end */
    http_close(&s->http);
    files_close(&s->files);
    server_models_close(&s->models);
    tgi_stats_free(&s->tgi);
    mem_free(s);
}
