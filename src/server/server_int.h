/* server/server_int.h - the server's fields and handlers, for the server's own files. */
#ifndef QUIRE_SERVER_SERVER_INT_H
#define QUIRE_SERVER_SERVER_INT_H

#include <stdatomic.h>
#include "server/models.h"
#include "server/server.h"

enum { SERVER_MAX_ROUTES = 64, SERVER_GENERATES = HTTP_OWNERS };   /* the latter: a route that answers with text, which TGI's metrics count */

struct server {
    struct server_opts o;
    struct server_models *models;
    struct http *http;
    struct http_route routes[SERVER_MAX_ROUTES]; int n_routes;
    int64_t start_unix_s;
    struct files *files;                 /* NULL: none are kept */
    atomic_bool draining;
    struct tgi_stats tgi;                /* requests that reached none of several models */
};

/* The request's model; false: the request was parked or refused, and the handler must return. */
bool server_enter(struct server *s, struct http_exchange *x, struct server_model **m);

/* ---- server_run.c: what every kind of request has in common ----
 *
 * A kind is a table of what can be done to its jobs (void *job); server_run does the rest: it refuses while the server drains, enters
 * the model and keeps it loaded as long as the job lives, hands over the request's id, age, deadline and wish for timings, replies what is
 * pulled, charges the key for the tokens and writes them to the access log.  All functions of one job are called by one thread at a time. */
struct server_job_ops {
    /* Parses, checks, submits.  kind is what server_run was given.  NULL: e says why, and nothing runs. */
    void *(*open)(const struct api *a, int kind, const char *body, size_t len, const struct api_job_opts *o, struct api_error *e);
    enum api_pull (*pull)(void *job, struct buf *out);             /* as api_job_pull */
    int (*status)(const void *job);                                /* of a whole body, after DONE */
    void (*stats)(const void *job, struct api_job_stats *out);     /* at any time */
    void (*close)(void *job);                                      /* cancels what still runs */
    /* The rest may be NULL. */
    bool (*streams)(const void *job);                              /* events rather than one body; NULL: never */
    const char *stream_type;                                       /* the content type of events */
    void (*headers)(const void *job, struct http_exchange *x);     /* further ones: of a body after DONE, of events before the first */
    bool generates;                                                /* text: its requests are counted in TGI's metrics */
};
/* For handlers of HTTP_WORK routes: replies, or parks the request until its model is loaded. */
void server_run(struct server *s, struct http_exchange *x, const struct server_job_ops *ops, int kind);
/* The jobs of api.h; kind is an enum api_endpoint. */
extern const struct server_job_ops server_api_ops;

/* server_metrics_tgi.c: the families of one model; what belongs to none of several.  n_turned_away: requests that nobody looked at, which are
 * counted as overloaded. */
struct server_page;
void server_write_tgi(struct server_page *p, const struct server_model_view *v, uint64_t n_turned_away);
void server_write_tgi_modelless(struct server_page *p, struct tgi_stats *s, uint64_t n_turned_away);

/* server_tgi.c */
void server_tgi_generate(void *ctx, struct http_exchange *x);
void server_tgi_generate_stream(void *ctx, struct http_exchange *x);
void server_tgi_compat(void *ctx, struct http_exchange *x);
void server_tgi_chat_tokenize(void *ctx, struct http_exchange *x);
void server_tgi_info(void *ctx, struct http_exchange *x);
void server_invocations(void *ctx, struct http_exchange *x);
void server_tokenize(void *ctx, struct http_exchange *x);

/* server_embed.c */
void server_embeddings(void *ctx, struct http_exchange *x);
void server_pooling(void *ctx, struct http_exchange *x);
void server_score(void *ctx, struct http_exchange *x);
void server_rerank(void *ctx, struct http_exchange *x);

/* server_files.c */
void server_files(void *ctx, struct http_exchange *x);
void server_file(void *ctx, struct http_exchange *x);
void server_batches(void *ctx, struct http_exchange *x);
void server_batch(void *ctx, struct http_exchange *x);

/* server_web.c: the page's files, and the numbers that it draws. */
void server_web_file(void *ctx, struct http_exchange *x);
void server_web_state(void *ctx, struct http_exchange *x);

#endif
