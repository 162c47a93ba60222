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

enum http_method { HTTP_GET = 1, HTTP_POST = 2, HTTP_DELETE = 4 };   /* HEAD goes with GET, OPTIONS is answered for every route */

enum http_route_flags {
    HTTP_OPEN = 1,       /* needs no key */
    HTTP_JSON = 2,       /* POST bodies must be application/json (415) */
    HTTP_WORK = 4,       /* handled on the workers; its client is watched */
    HTTP_LIMITED = 8,    /* counts against max_concurrent (429) */
    HTTP_PREFIX = 16,    /* matches every path that begins with it */
    HTTP_QUIET = 32,     /* logged at debug: asked again and again */
    HTTP_OWNERS = 128,   /* means nothing here: what the owner of the routes likes */
    HTTP_TGI = 64,       /* errors are TGI's {"error","error_type"} */
    HTTP_KEY_ID = 256    /* its handler asks for http_owner */
};

/* Must give exactly one reply. */
typedef void http_handler(void *ctx, struct http_exchange *x);

struct http_route {
    const char *path;
    unsigned methods, flags;
    http_handler *handle;
};
/* Several routes may have one path, with different methods. */

enum http_tls_client { HTTP_TLS_CLIENT_NONE, HTTP_TLS_CLIENT_OPTIONAL, HTTP_TLS_CLIENT_REQUIRED };
struct http_tls_opts {
    const char *cert_file, *key_file;        /* PEM; both or none */
    const char *ca_file;                     /* PEM: who may sign clients' certificates */
    enum http_tls_client client_certs;       /* OPTIONAL: one that is sent must be good */
};

struct http_opts {
    const char *host;                        /* name or address */
    int port;                                /* 0: any free one */
    int n_threads, n_workers;                /* at least 1 each */
    int max_connections;                     /* 0: as many as descriptors allow */
    int max_connections_per_ip;              /* 0: no limit */
    int body_timeout_s;                      /* one whose body has not arrived by then is cut off; 0: no limit */
    int max_concurrent;                      /* 0: no limit */
    size_t max_body_bytes;
    int idle_timeout_s;
    const char *const *keys; int n_keys;     /* none, and no file: everything is open */
    const char *key_file;                    /* further keys, with limits (http_keys.h), or NULL */
    struct http_tls_opts tls;                /* none: plain HTTP */
    const char *const *origins; int n_origins;   /* CORS; "*" allows all; none: no CORS headers */
    bool request_id_headers;                 /* answer with X-Request-Id */
    const struct http_route *routes; int n_routes;   /* borrowed; the first match wins */
    void *ctx;                               /* of handlers */
    struct log *log;                         /* borrowed, may be NULL */
    struct log *access_log;                  /* borrowed, NULL: log; one line a request at info, event "http" */
};

/* Everything in o but routes, ctx and the logs is copied.  Listens when it returns; handlers may run before, and find *out set. */
bool http_open(struct http **out, const struct http_opts *o, struct err *e);
/* Cuts what is still running off, joins all threads, and then clears *h. */
void http_close(struct http **h);
int http_port(const struct http *h);

/* Whether a file of keys or certificates is no longer the one that was read. */
bool http_files_changed(const struct http *h);
/* Reads them again: new requests meet the new keys, new connections the new certificates.  What cannot be used leaves the old in place; e says
 * which. */
bool http_reload(struct http *h, struct err *e);
struct http_keys;
/* NULL: there are none. */
struct http_keys *http_keys_of(const struct http *h);

struct http_stats {
    int64_t n_connections, n_active;         /* now; active: limited requests */
    uint64_t n_by_class[6];                  /* finished requests by first digit of the status, [0]: cut off before a status */
    int64_t certificate_expires_s;           /* since 1970; 0: no TLS */
    uint64_t n_lost_lines;                   /* of both logs */
};
void http_stats(const struct http *h, struct http_stats *out);

/* The requests of one route that are finished. */
enum { HTTP_DURATION_BUCKETS = 17 };
extern const double http_duration_bounds[HTTP_DURATION_BUCKETS];    /* seconds */
struct http_route_stats {
    const char *path;                        /* "other": of no route */
    uint64_t n_by_class[6], buckets[HTTP_DURATION_BUCKETS + 1];     /* the last bucket has no bound */
    double sum_s;
    uint64_t n_turned_away;                  /* 429 before the handler ran: by max_concurrent, or by the limits of a key */
};
int http_n_routes(const struct http *h);     /* "other" included */
void http_route_stats(const struct http *h, int i, struct http_route_stats *out);

/* ---- for handlers ---- */

const char *http_body(const struct http_exchange *x, size_t *len);   /* NUL-terminated */
const char *http_path(const struct http_exchange *x);
bool http_is_get(const struct http_exchange *x);              /* or HEAD */
const char *http_content_type(const struct http_exchange *x); /* of the body; NULL: it does not say.  Handlers of HTTP_WORK routes, too */
/* The value of ?name=, decoded; NULL: it is not there, "" when it has none.  Handlers of HTTP_WORK routes, too. */
const char *http_query(const struct http_exchange *x, const char *name);
/* On routes with HTTP_KEY_ID, who asks: the http_key_id of its key, or "" where no key is needed. */
const char *http_owner(const struct http_exchange *x);
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
/* How long the request may take from its beginning: the smaller of server_us and what its X-Request-Timeout says; 0: no bound. */
int64_t http_timeout_us(const struct http_exchange *x, int64_t server_us);
/* It has X-Quire-Timings: 1. */
bool http_wants_timings(const struct http_exchange *x);
/* It prefers OpenMetrics. */
bool http_wants_openmetrics(const struct http_exchange *x);
/* What it used goes on its key's account. */
void http_charge(struct http_exchange *x, int64_t prompt_tokens, int64_t generated_tokens);

/* Takes body's memory (it is left empty). */
void http_reply(struct http_exchange *x, int status, const char *content_type, struct buf *body);
void http_reply_error(struct http_exchange *x, const struct api_error *e);
/* From now on http_reply_error writes TGI's errors. */
void http_use_tgi_errors(struct http_exchange *x);
/* A header of the reply, before it is sent: of a pulled body up to the end of the pull that is the last.  Without memory it is left out. */
void http_add_header(struct http_exchange *x, const char *name, const char *value);

/* A reply that takes time.  All three run on one thread at a time; close is called exactly once, and after it
 * returns http_wake must not be called any more. */
struct http_pull {
    void *ctx;
    bool stream;                                  /* send the headers now and what pull appends at once; else one body at the end */
    const char *content_type;
    bool (*pull)(void *ctx, struct buf *out);     /* true: that was all */
    int (*status)(void *ctx);                     /* of a body, after pull was true */
    void (*close)(void *ctx);
    void (*describe)(void *ctx, struct buf *out); /* for the access log: " key=value ...", values without spaces */
};
void http_reply_pull(struct http_exchange *x, const struct http_pull *p);
/* Any thread, quick, never blocks; ctx is the exchange, so that it fits engine_notify. */
void http_wake(void *exchange);

#endif
