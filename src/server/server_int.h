/* server/server_int.h - the server's fields and handlers, for the server's own files. */
#ifndef QUIRE_SERVER_SERVER_INT_H
#define QUIRE_SERVER_SERVER_INT_H

#include <stdatomic.h>
#include "server/models.h"
#include "server/server.h"

enum { SERVER_MAX_ROUTES = 64 };

struct server {
    struct server_opts o;
    struct server_models *models;
    struct http *http;
    struct http_route routes[SERVER_MAX_ROUTES];
    int64_t start_unix_s;
    struct files *files;                 /* NULL: none are kept */
    atomic_bool draining;
    atomic_ullong tgi_overloaded, tgi_invalid;   /* requests on TGI's routes that were refused */
};

/* The request's model; false: the request was parked or refused, and the handler must return. */
bool server_enter(struct server *s, struct http_exchange *x, struct server_model **m);
/* A completion or a chat completion. */
void server_generate(struct server *s, struct http_exchange *x, enum api_endpoint endpoint);

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
