/* server/http_int.h - what the http*.c files share. */
#ifndef QUIRE_SERVER_HTTP_INT_H
#define QUIRE_SERVER_HTTP_INT_H

#include <gnutls/abstract.h>
#include <microhttpd.h>
#include <pthread.h>
#include <stdatomic.h>
#include "base/hash.h"
#include "base/mpsc.h"
#include "server/http.h"
#include "server/http_keys.h"

/* ---- one request ---- */

enum http_stage {
    HTTP_STAGE_BODY,       /* the body is coming in */
    HTTP_STAGE_WORKING,    /* with a worker */
    HTTP_STAGE_REPLY,      /* the handler has replied */
    HTTP_STAGE_PULLING,    /* one body, not complete */
    HTTP_STAGE_SENT        /* the response belongs to libmicrohttpd */
};

struct http_exchange {
    struct http *h;
    struct MHD_Connection *conn;
    const struct http_route *route;       /* NULL: none fits */
    char method[16], *path;
    char id[136], client[64];
    char trace_id[33], span_id[17];       /* of traceparent; "": none came */
    int64_t timeout_us;                   /* of X-Request-Timeout; 0: none came */
    bool wants_timings;
    struct http_key *holder;              /* whose key it has; NULL: none is needed */
    char owner[HTTP_KEY_ID_MAX];          /* of HTTP_KEY_ID routes */
    struct buf query;                     /* name, 0, value, 0 */
    bool entered;                         /* counts against the holder's limits */
    int64_t start_us, first_us;           /* first_us: when the reply began */
    uint64_t key;                         /* in the watcher's map */
    int watched_fd;                       /* -1: not watched */
    bool limited;
    struct http_exchange *prev, *next;    /* in the server's list */
    bool parks;                           /* this run of the handler has parked it; the worker's */

    /* the socket thread's, or the worker's while WORKING */
    enum http_stage stage;
    struct buf body;
    bool rejected;                        /* decided by the headers: the body is read and dropped */
    size_t n_dropped;
    int status;
    struct buf out; size_t out_pos;       /* reply body, or what was pulled and not sent */
    const char *content_type;
    char allow[48];
    bool tgi_errors;
    char body_type[160];                  /* Content-Type of the body, cut */
    struct buf headers;                   /* further ones: name, 0, value, 0 */
    int retry_after_s;
    bool is_pull, pull_done;
    struct http_pull pull;
    int64_t n_sent;

    /* between threads */
    atomic_int refs;                      /* libmicrohttpd's request, a place in the wake queue, the watcher, the worker */
    struct mpsc_node wake_node;
    atomic_bool wake_queued;
    pthread_mutex_t lock;                 /* guards the rest; taken before libmicrohttpd's locks, never with the engine's inside */
    bool suspended, pending, worked;
    enum { HTTP_PARK_NONE, HTTP_PARK_ASKED, HTTP_PARK_HELD, HTTP_PARK_RELEASED } park;
    bool abandoned;                       /* libmicrohttpd gave it up while a worker had it */
    atomic_bool gone;                     /* the client hung up */
    struct http_exchange *next_work;
};

void http_exchange_ref(struct http_exchange *x);
void http_exchange_unref(struct http_exchange *x);
/* Resume if suspended; else make the next suspension return at once. */
void http_exchange_resume(struct http_exchange *x);

/* ---- the server ---- */

/* What became of a route's requests; the last one is of requests that fit no route. */
struct http_route_counts { atomic_ullong n_by_class[6], buckets[HTTP_DURATION_BUCKETS + 1], sum_us, n_turned_away; };

struct http {
    struct http_opts o;
    char **strings; int n_strings;        /* copies that o points to */
    struct http_keys *keys;               /* NULL: everything is open */
    struct http_tls *tls;                 /* NULL: plain */
    struct MHD_Daemon *daemon;
    int listen_fd, port;
    atomic_bool stopping;
    atomic_llong n_connections, n_active;
    struct http_route_counts *counts;     /* [o.n_routes + 1] */
    pthread_mutex_t list_lock;
    struct http_exchange *exchanges;      /* all that libmicrohttpd knows of */

    /* http_wake.c */
    struct mpsc wakes;
    pthread_t wake_thread;
    bool wake_started;

    /* http_watch.c */
    int epoll_fd, stop_fd;
    pthread_t watch_thread;
    bool watch_started;
    pthread_mutex_t watch_lock;
    struct hash_u64 *watched;             /* key -> exchange */
    uint64_t next_key;

    /* http_work.c */
    pthread_mutex_t work_lock;
    pthread_cond_t work_cond;
    struct http_exchange *work_first[2], *work_last[2];   /* small and large bodies */
    pthread_t *workers; int n_workers_started;
    bool work_stop;
};

/* http_wake.c */
bool http_wake_open(struct http *h, struct err *e);
void http_wake_close(struct http *h);

/* http_watch.c: tells exchanges that their client has gone. */
bool http_watch_open(struct http *h, struct err *e);
void http_watch_close(struct http *h);
void http_watch_add(struct http_exchange *x);
void http_watch_remove(struct http_exchange *x);

/* http_work.c: runs handlers. */
bool http_work_open(struct http *h, struct err *e);
/* Finishes what was added, joins the workers; nothing can be added afterwards. */
void http_work_stop(struct http *h);
void http_work_close(struct http *h);
/* False: stopped. */
bool http_work_add(struct http_exchange *x);
/* Runs the handler; an answer is certain afterwards, unless it parked the exchange. */
void http_run_handler(struct http_exchange *x);

/* http_check.c: everything the headers decide.  False: a reply (an error, or that to OPTIONS) is in place. */
bool http_check_headers(struct http_exchange *x);
void http_read_headers(struct http_exchange *x);   /* those that need no decision */
void http_add_cors(const struct http_exchange *x, struct MHD_Response *r);


/* http_log.c: the access log. */
void http_log_request(struct http_exchange *x, int status, bool complete, bool describe);

/* http_tls.c */
extern const char http_tls_priorities[];
bool http_tls_open(struct http *h, struct err *e);      /* does nothing when no TLS is asked for */
void http_tls_close(struct http *h);
bool http_tls_changed(const struct http *h);
bool http_tls_reload(struct http *h, struct err *e);
int64_t http_tls_expires_s(struct http *h);             /* 0: no TLS */
/* Around a connection; what begin puts into *socket_context goes to end. */
void http_tls_begin(struct http *h, struct MHD_Connection *conn, void **socket_context);
void http_tls_end(void *socket_context);
/* For libmicrohttpd, which wants a certificate at its start, before there is any connection to give one to. */
int http_tls_no_certificate(gnutls_session_t session, const gnutls_datum_t *ca, int n_ca, const gnutls_pk_algorithm_t *pk, int n_pk,
                            gnutls_pcert_st **cert, unsigned *n_cert, gnutls_privkey_t *key);

#endif
