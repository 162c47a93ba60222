/* server/http.h - HTTP/1.1 over libmicrohttpd: routes, limits, keys, replies that take time.
 *
 * Threads.  A pool of n_threads threads owns the sockets (epoll); a request lives on one of them.  Routes marked
 * HTTP_WORK are handled on a pool of n_workers threads instead, because parsing, rendering and tokenizing a huge prompt would
 * hold up every other client of the socket thread; one worker takes small bodies only, so that huge
 * ones cannot hold up small ones either.  A request that waits, for a worker or for the engine, is suspended: it costs
 * memory and a descriptor but no thread and no polling.
 *
 * Waiting.  A handler may give a reply that is pulled (struct http_pull): the transport calls pull until it
 * has no more now, suspends the request, and pulls again after http_wake.  http_wake only pushes to a queue, so the
 * engine's thread may call it for every token; the thread that empties the queue resumes the requests.
 *
 * Disconnects.  libmicrohttpd does not watch suspended sockets.  One thread does, with epoll (EPOLLRDHUP): a request
 * whose client hung up (or shut down its sending side) is woken at once and its pull closed.
 *
 * Slow clients block nobody: what the engine produces waits in its stream, bounded by the request's max_tokens, and after
 * idle_timeout_s without progress the connection is closed. */
#ifndef QUIRE_SERVER_HTTP_H
#define QUIRE_SERVER_HTTP_H

#include <stddef.h>
#include <stdint.h>
#include "base/buf.h"
#include "base/log.h"
#include "server/api_error.h"

struct http;
struct http_exchange;

enum http_method { HTTP_GET = 1, HTTP_POST = 2 };   /* HEAD goes with GET, OPTIONS is answered for every route */

enum http_route_flags {
    HTTP_OPEN = 1,       /* needs no key */
    HTTP_JSON = 2,       /* POST bodies must be application/json (415) */
    HTTP_WORK = 4,       /* handled on the workers; its client is watched */
    HTTP_LIMITED = 8,    /* counts against max_concurrent (429) */
    HTTP_PREFIX = 16,    /* matches every path that begins with it */
    HTTP_QUIET = 32      /* logged at debug: asked again and again */
};

/* Must give exactly one reply. */
typedef void http_handler(void *ctx, struct http_exchange *x);

struct http_route {
    const char *path;
    unsigned methods, flags;
    http_handler *handle;
};

struct http_opts {
    const char *host;                        /* name or address */
    int port;                                /* 0: any free one */
    int n_threads, n_workers;                /* at least 1 each */
    int max_connections;                     /* 0: as many as descriptors allow */
    int max_concurrent;                      /* 0: no limit */
    size_t max_body_bytes;
    int idle_timeout_s;
    const char *const *keys; int n_keys;     /* none: everything is open */
    const char *const *origins; int n_origins;   /* CORS; "*" allows all; none: no CORS headers */
    bool request_id_headers;                 /* answer with X-Request-Id */
    const struct http_route *routes; int n_routes;   /* borrowed; the first match wins */
    void *ctx;                               /* of handlers */
    struct log *log;                         /* borrowed, may be NULL: one line a request at info, event "http" */
};

/* Everything in o but routes, ctx and log is copied.  Listens when it returns. */
bool http_open(struct http **out, const struct http_opts *o, struct err *e);
/* Cuts what is still running off, joins all threads. */
void http_close(struct http **h);
int http_port(const struct http *h);

struct http_stats {
    int64_t n_connections, n_active;         /* now; active: limited requests */
    uint64_t n_by_class[6];                  /* finished requests by first digit of the status, [0]: cut off before a status */
};
void http_stats(const struct http *h, struct http_stats *out);

/* ---- for handlers ---- */

const char *http_body(const struct http_exchange *x, size_t *len);   /* NUL-terminated */
const char *http_path(const struct http_exchange *x);
/* The client's X-Request-Id when it was acceptable, else 32 hex digits. */
const char *http_id(const struct http_exchange *x);

/* For handlers of HTTP_WORK routes that cannot go on yet: instead of replying they call http_park and return.  http_unpark, by any
 * thread, once, and even before the handler has returned, has the handler run again from its beginning.  All must be unparked
 * before http_close. */
void http_park(struct http_exchange *x);
void http_unpark(struct http_exchange *x);
/* The client hung up: whatever is replied, nobody reads it. */
bool http_client_gone(struct http_exchange *x);
int64_t http_age_us(const struct http_exchange *x);    /* since the request began */

/* Takes body's memory (it is left empty). */
void http_reply(struct http_exchange *x, int status, const char *content_type, struct buf *body);
void http_reply_error(struct http_exchange *x, const struct api_error *e);

/* A reply that takes time.  All three run on one thread at a time; close is called exactly once, and after it
 * returns http_wake must not be called any more. */
struct http_pull {
    void *ctx;
    bool stream;                                  /* send the headers now and what pull appends at once; else one body at the end */
    const char *content_type;
    bool (*pull)(void *ctx, struct buf *out);     /* true: that was all */
    int (*status)(void *ctx);                     /* of a body, after pull was true */
    void (*close)(void *ctx);
    void (*describe)(void *ctx, struct buf *out); /* for the access log: " key=value ..." */
};
void http_reply_pull(struct http_exchange *x, const struct http_pull *p);
/* Any thread, quick, never blocks; ctx is the exchange, so that it fits engine_notify. */
void http_wake(void *exchange);

#endif
