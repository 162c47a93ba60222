/* server/server_int.h - the server's fields and handlers, for the server's own files. */
#ifndef QUIRE_SERVER_SERVER_INT_H
#define QUIRE_SERVER_SERVER_INT_H

#include <stdatomic.h>
#include "server/models.h"
#include "server/server.h"

enum { SERVER_MAX_ROUTES = 32 };

struct server {
    struct server_opts o;
    struct server_models *models;
    struct http *http;
    struct http_route routes[SERVER_MAX_ROUTES];
    int64_t start_unix_s;
    atomic_bool draining;
};

/* server_web.c: the page's files, and the numbers that it draws. */
void server_web_file(void *ctx, struct http_exchange *x);
void server_web_state(void *ctx, struct http_exchange *x);

#endif
