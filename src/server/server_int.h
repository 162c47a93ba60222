/* server/server_int.h - the server's fields, for server.c and server_metrics.c. */
#ifndef QUIRE_SERVER_SERVER_INT_H
#define QUIRE_SERVER_SERVER_INT_H

#include <stdatomic.h>
#include "server/models.h"
#include "server/server.h"

enum { SERVER_MAX_ROUTES = 16 };

struct server {
    struct server_opts o;
    struct server_models *models;
    struct http *http;
    struct http_route routes[SERVER_MAX_ROUTES];
    int64_t start_unix_s;
    atomic_bool draining;
};

#endif
