/* server/server.h - `quire serve` as a library: the routes of the OpenAI API and of operation, over one engine or several models.
 *
 *   server_open -> requests are answered -> server_drain -> server_idle ... -> server_close -> engine_close
 *
 * TGI's routes (INTERFACES 2.1): POST /generate, /generate_stream, /, /chat_tokenize, /invocations; GET /info.
 * Routes (INTERFACES 1.1): POST /v1/completions, /v1/chat/completions, /tokenize, /detokenize, /reset_prefix_cache;
 * GET /v1/models[/ID], /health, /ping, /version, /load, /metrics. */
#ifndef QUIRE_SERVER_SERVER_H
#define QUIRE_SERVER_SERVER_H

#include "engine/engine.h"
#include "server/api.h"
#include "server/http.h"
#include "server/models.h"

struct server;

struct server_opts {
    struct api_opts api;         /* engine and log are set there */
    struct server_models_opts models;   /* n_models > 0: these instead of api.engine, each with api's other options */
    struct http_opts http;       /* routes, ctx and log are the server's own */
    bool metrics_public;         /* /metrics needs no key */
    int64_t stall_us;            /* a step that takes longer makes /health say 503; 0: none does */
    const char *files_dir;       /* where files and batches are kept (server/files.h); NULL: nowhere */
    size_t files_max_bytes;      /* all together; 0: no bound */
    bool metrics_vllm, metrics_tgi;   /* also export under their names */
};
/* 127.0.0.1:8000, 2 socket threads, 2 workers, 32 MiB bodies, 120 s idle, request ids on, generation_config used. */
void server_opts_default(struct server_opts *o);

/* Listens when it returns.  api.engine is borrowed and must outlive it; engines of models are opened and closed as they are needed. */
bool server_open(struct server **out, const struct server_opts *o, struct err *e);
int server_port(const struct server *s);
/* Whether a file of keys or certificates is not the one that was read any more; reading them again (http_reload). */
bool server_files_changed(const struct server *s);
bool server_reload(struct server *s, struct err *e);
/* Whether every engine computes (engine_alive): what /health tells. */
bool server_alive(const struct server *s, struct err *why);
/* New generations are refused (503) and /health says 503, so that balancers look elsewhere; what runs goes on. */
void server_drain(struct server *s);
/* No generation is in progress or being sent. */
bool server_idle(const struct server *s);
/* Cuts off what is left. */
void server_close(struct server **s);

/* The page of /metrics: Prometheus text 0.0.4. */
void server_write_metrics(struct server *s, struct buf *out);
/* The same page, which must be what server_write_metrics wrote, as OpenMetrics 1.0. */
void server_write_openmetrics(const char *prometheus, struct buf *out);

#endif
