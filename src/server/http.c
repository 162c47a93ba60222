#include "server/http.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/mem.h"
#include "base/rng.h"
#include "server/http_header.h"
#include "server/http_int.h"
#include "server/tgi.h"

/* Bodies of requests refused by their headers are read and dropped up to this, so that the client, which reads only after it
 * has written, gets the answer rather than a reset. */
enum { DROP_BYTES = 64 << 20, RESERVE_BYTES = 1 << 20, CHUNK_BYTES = 32 << 10, SPARE_FDS = 64, BACKLOG = 4096 };

/* ---- exchanges ---- */

void http_exchange_ref(struct http_exchange *x) { atomic_fetch_add_explicit(&x->refs, 1, memory_order_relaxed); }

void http_exchange_unref(struct http_exchange *x)
{
    if (atomic_fetch_sub_explicit(&x->refs, 1, memory_order_acq_rel) != 1)
        return;
    buf_free(&x->body);
    buf_free(&x->out);
    buf_free(&x->headers);
    buf_free(&x->query);
    pthread_mutex_destroy(&x->lock);
    mem_free(x->path);
    mem_free(x);
}

void http_exchange_resume(struct http_exchange *x)
{
    pthread_mutex_lock(&x->lock);
    if (x->suspended) {
        x->suspended = false;
        MHD_resume_connection(x->conn);
    } else {
        x->pending = true;
    }
    pthread_mutex_unlock(&x->lock);
}

/* False: there was news meanwhile, or the server stops: look again instead. */
static bool suspend(struct http_exchange *x)
{
    pthread_mutex_lock(&x->lock);
    bool wait = !x->pending && !atomic_load(&x->h->stopping);
    x->pending = false;
    if (wait) {
        x->suspended = true;
        MHD_suspend_connection(x->conn);
    }
    pthread_mutex_unlock(&x->lock);
    return wait;
}

static void name_exchange(struct http_exchange *x)
{
    const char *given = MHD_lookup_connection_value(x->conn, MHD_HEADER_KIND, "X-Request-Id");
    if (given && http_header_is_id(given))
        snprintf(x->id, sizeof x->id, "%s", given);
    else
        snprintf(x->id, sizeof x->id, "%016llx%016llx", (unsigned long long)rng_entropy(), (unsigned long long)rng_entropy());
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(x->conn, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
    const struct sockaddr *sa = info ? info->client_addr : NULL;
    if (sa && sa->sa_family == AF_INET)
        inet_ntop(AF_INET, &((const struct sockaddr_in *)(const void *)sa)->sin_addr, x->client, sizeof x->client);
    else if (sa && sa->sa_family == AF_INET6)
        inet_ntop(AF_INET6, &((const struct sockaddr_in6 *)(const void *)sa)->sin6_addr, x->client, sizeof x->client);
}

static struct http_exchange *exchange_open(struct http *h, struct MHD_Connection *conn, const char *url, const char *method)
{
    struct http_exchange *x = mem_try_zalloc(1, sizeof *x);
    if (!x)
        return NULL;
    x->path = mem_try_strdup(url);
    if (!x->path) {
        mem_free(x);
        return NULL;
    }
    x->h = h;
    x->conn = conn;
    x->watched_fd = -1;
    x->start_us = clock_now_us();
    atomic_init(&x->refs, 1);
    pthread_mutex_init(&x->lock, NULL);
    snprintf(x->method, sizeof x->method, "%s", method);
    buf_init(&x->body, h->o.max_body_bytes);
    buf_init(&x->out, 0);
    buf_init(&x->query, 0);
    name_exchange(x);
    http_read_headers(x);
    pthread_mutex_lock(&h->list_lock);
    x->next = h->exchanges;
    if (x->next)
        x->next->prev = x;
    h->exchanges = x;
    pthread_mutex_unlock(&h->list_lock);
    return x;
}

/* No one finds it any more; references may live on. */
static void exchange_unlist(struct http_exchange *x)
{
    pthread_mutex_lock(&x->h->list_lock);
    if (x->prev)
        x->prev->next = x->next;
    else
        x->h->exchanges = x->next;
    if (x->next)
        x->next->prev = x->prev;
    pthread_mutex_unlock(&x->h->list_lock);
}

/* ---- what handlers use ---- */

const char *http_body(const struct http_exchange *x, size_t *len)
{
    *len = x->body.len;
    return x->body.data ? x->body.data : "";
}

const char *http_path(const struct http_exchange *x) { return x->path; }
const char *http_id(const struct http_exchange *x) { return x->id; }
bool http_wants_timings(const struct http_exchange *x) { return x->wants_timings; }

int64_t http_timeout_us(const struct http_exchange *x, int64_t server_us)
{
    return x->timeout_us > 0 && (server_us <= 0 || x->timeout_us < server_us) ? x->timeout_us : server_us;
}

bool http_wants_openmetrics(const struct http_exchange *x)
{
    const char *accept = MHD_lookup_connection_value(x->conn, MHD_HEADER_KIND, "Accept");
    return accept && http_header_wants_openmetrics(accept);
}

void http_charge(struct http_exchange *x, int64_t prompt_tokens, int64_t generated_tokens)
{
    if (x->holder)
        http_key_charge(x->holder, prompt_tokens, generated_tokens, clock_now_us());
}

void http_reply(struct http_exchange *x, int status, const char *content_type, struct buf *body)
{
    buf_free(&x->out);
    x->out = *body;
    *body = (struct buf){0};
    x->status = status;
    x->content_type = content_type;
    if (x->out.failed) {
        buf_free(&x->out);
        struct api_error e;
        api_fail(&e, ERR_NOMEM, NULL, "out of memory for the answer");
        http_reply_error(x, &e);
    }
}

void http_reply_error(struct http_exchange *x, const struct api_error *e)
{
    struct buf body;
    int status = e->status;
    buf_init(&body, 0);
    bool tgi = x->tgi_errors || (x->route && x->route->flags & HTTP_TGI);
    if (!(tgi ? tgi_error_write(e, &status, &body) : api_error_write(e, &body)))
        buf_free(&body); /* a status without a body is better than none */
    x->retry_after_s = e->retry_after_s;
    http_reply(x, status, "application/json", &body);
}

void http_use_tgi_errors(struct http_exchange *x) { x->tgi_errors = true; }

void http_add_header(struct http_exchange *x, const char *name, const char *value)
{
    size_t before = x->headers.len;
    if (!buf_append(&x->headers, name, strlen(name) + 1) || !buf_append(&x->headers, value, strlen(value) + 1)) {
        x->headers.len = before;
        x->headers.failed = false;
    }
}

void http_reply_pull(struct http_exchange *x, const struct http_pull *p)
{
    x->is_pull = true;
    x->pull = *p;
    x->status = 200;
    x->content_type = p->content_type;
}

void http_run_handler(struct http_exchange *x)
{
    x->parks = false;
    x->route->handle(x->h->o.ctx, x);
    if (x->parks)
        return;
    if (x->status == 0) {
        struct api_error e;
        api_fail(&e, ERR_INTERNAL, NULL, "no answer was made");
        http_reply_error(x, &e);
    }
    buf_free(&x->body); /* requests may wait long */
}

/* ---- sending ---- */

static void add_headers(struct http_exchange *x, struct MHD_Response *r)
{
    if (x->content_type)
        MHD_add_response_header(r, "Content-Type", x->content_type);
    MHD_add_response_header(r, "X-Content-Type-Options", "nosniff");
    if (x->content_type && strncmp(x->content_type, "text/html", 9) == 0) {
        MHD_add_response_header(r, "Content-Security-Policy",
                                "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
                                "base-uri 'none'; form-action 'none'; frame-ancestors 'none'");
        MHD_add_response_header(r, "Referrer-Policy", "no-referrer");
        MHD_add_response_header(r, "Cache-Control", "no-cache");
    }
    for (size_t at = 0; at < x->headers.len;) {
        const char *name = x->headers.data + at, *value = name + strlen(name) + 1;
        MHD_add_response_header(r, name, value);
        at += strlen(name) + strlen(value) + 2;
    }
    if (x->h->o.request_id_headers)
        MHD_add_response_header(r, "X-Request-Id", x->id);
    if (x->allow[0])
        MHD_add_response_header(r, "Allow", x->allow);
    if (x->status == 401)
        MHD_add_response_header(r, "WWW-Authenticate", "Bearer");
    if (x->status == 429 || x->status == 503) {
        char seconds[16];
        snprintf(seconds, sizeof seconds, "%d", x->retry_after_s > 0 ? x->retry_after_s : 1);
        MHD_add_response_header(r, "Retry-After", seconds);
    }
    if (x->is_pull && x->pull.stream) {
        MHD_add_response_header(r, "Cache-Control", "no-cache");
        MHD_add_response_header(r, "X-Accel-Buffering", "no"); /* nginx would hold events back */
    }
    http_add_cors(x, r);
}

static enum MHD_Result queue(struct http_exchange *x, struct MHD_Response *r)
{
    if (!r)
        return MHD_NO;
    x->stage = HTTP_STAGE_SENT;
    x->first_us = clock_now_us();
    add_headers(x, r);
    enum MHD_Result ok = MHD_queue_response(x->conn, (unsigned)x->status, r);
    MHD_destroy_response(r);
    return ok;
}

static enum MHD_Result send_body(struct http_exchange *x)
{
    size_t len = x->out.len;
    char *data = len ? buf_take(&x->out) : NULL;
    x->n_sent = (int64_t)len;
    struct MHD_Response *r = data ? MHD_create_response_from_buffer_with_free_callback(len, data, mem_free)
                                  : MHD_create_response_from_buffer(0, (void *)"", MHD_RESPMEM_PERSISTENT);
    if (!r)
        mem_free(data);
    return queue(x, r);
}

/* The body of a stream, as libmicrohttpd asks for it. */
static ssize_t read_stream(void *cls, uint64_t pos, char *to, size_t max)
{
    struct http_exchange *x = cls;
    (void)pos;
    for (;;) {
        size_t left = x->out.len - x->out_pos;
        if (left > 0) {
            size_t n = left < max ? left : max;
            memcpy(to, x->out.data + x->out_pos, n);
            x->out_pos += n;
            x->n_sent += (int64_t)n;
            return (ssize_t)n;
        }
        buf_clear(&x->out);
        x->out_pos = 0;
        if (x->pull_done)
            return MHD_CONTENT_READER_END_OF_STREAM;
        if (atomic_load(&x->gone) || atomic_load(&x->h->stopping))
            return MHD_CONTENT_READER_END_WITH_ERROR;
        x->pull_done = x->pull.pull(x->pull.ctx, &x->out);
        if (x->out.len == 0 && !x->pull_done && suspend(x))
            return 0;
    }
}

/* One body at the end: MHD_NO cuts the connection. */
static enum MHD_Result pull_body(struct http_exchange *x)
{
    for (;;) {
        if (atomic_load(&x->gone) || atomic_load(&x->h->stopping))
            return MHD_NO;
        if (x->pull.pull(x->pull.ctx, &x->out)) {
            x->pull_done = true;
            x->status = x->pull.status(x->pull.ctx);
            return send_body(x);
        }
        if (suspend(x))
            return MHD_YES;
    }
}

/* The request is complete, or something it waited for has happened. */
static enum MHD_Result advance(struct http_exchange *x)
{
    if (x->stage == HTTP_STAGE_BODY) {
        x->stage = HTTP_STAGE_REPLY;
        if (!x->rejected && x->route->flags & HTTP_WORK) {
            x->stage = HTTP_STAGE_WORKING;
            http_watch_add(x);
            if (!http_work_add(x)) {
                x->stage = HTTP_STAGE_BODY;
                return MHD_NO; /* the server is being closed */
            }
        } else if (!x->rejected) {
            http_run_handler(x);
        }
    }
    while (x->stage == HTTP_STAGE_WORKING) {
        pthread_mutex_lock(&x->lock);
        bool worked = x->worked;
        pthread_mutex_unlock(&x->lock);
        if (worked)
            x->stage = HTTP_STAGE_REPLY;
        else if (suspend(x))
            return MHD_YES;
    }
    if (!x->is_pull)
        return send_body(x);
    if (x->pull.stream)
        return queue(x, MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, CHUNK_BYTES / 2, read_stream, x, NULL));
    x->stage = HTTP_STAGE_PULLING;
    return pull_body(x);
}

/* ---- receiving ---- */

/* The body cannot be taken: too long, or no memory for it. */
static void refuse_body(struct http_exchange *x, size_t bytes)
{
    struct api_error e;
    if (bytes > x->h->o.max_body_bytes)
        api_fail_status(&e, 413, "the body is larger than the %zu bytes that are accepted", x->h->o.max_body_bytes);
    else
        api_fail(&e, ERR_NOMEM, NULL, "out of memory for the body");
    x->rejected = true;
    buf_free(&x->body);
    http_reply_error(x, &e);
}

static enum MHD_Result receive(struct http_exchange *x, const char *data, size_t n)
{
    size_t bytes = x->body.len + n;
    /* Whoever drips would drip on; and no answer may be given before the body is complete. */
    if (x->h->o.body_timeout_s > 0 && http_age_us(x) > (int64_t)x->h->o.body_timeout_s * 1000000)
        return MHD_NO;
    if (!x->rejected && !buf_append(&x->body, data, n))
        refuse_body(x, bytes);
    if (!x->rejected)
        return MHD_YES;
    x->n_dropped += n;
    return x->n_dropped <= DROP_BYTES ? MHD_YES : MHD_NO;
}

/* Headers are there: check them.  A refusal is sent at once when the client waits for "100 Continue". */
static enum MHD_Result begin(struct http *h, struct MHD_Connection *conn, const char *url, const char *method, void **con_cls)
{
    struct http_exchange *x = exchange_open(h, conn, url, method);
    if (!x)
        return MHD_NO;
    *con_cls = x;
    x->rejected = !http_check_headers(x);
    const char *length = MHD_lookup_connection_value(conn, MHD_HEADER_KIND, "Content-Length");
    bool expects = MHD_lookup_connection_value(conn, MHD_HEADER_KIND, "Expect") != NULL;
    size_t bytes = length ? (size_t)strtoull(length, NULL, 10) : 0;
    if (x->rejected && (expects || bytes > DROP_BYTES)) {
        x->stage = HTTP_STAGE_REPLY;
        return send_body(x);
    }
    if (!x->rejected && bytes && !buf_reserve(&x->body, bytes < RESERVE_BYTES ? bytes : RESERVE_BYTES))
        refuse_body(x, bytes);
    return MHD_YES;
}

static enum MHD_Result on_request(void *cls, struct MHD_Connection *conn, const char *url, const char *method, const char *version,
                                  const char *data, size_t *n_data, void **con_cls)
{
    struct http_exchange *x = *con_cls;
    (void)version;
    if (!x)
        return begin(cls, conn, url, method, con_cls);
    if (*n_data) {
        enum MHD_Result ok = receive(x, data, *n_data);
        *n_data = 0;
        return ok;
    }
    return x->stage == HTTP_STAGE_PULLING ? pull_body(x) : advance(x);
}

/* ---- the end of a request ---- */

/* libmicrohttpd may give a connection up while a worker has its request (the socket failed): then what the worker makes of it
 * is the worker's to close, and its fields are not looked at here. */
static bool leave_to_worker(struct http_exchange *x)
{
    pthread_mutex_lock(&x->lock);
    bool busy = x->stage == HTTP_STAGE_WORKING && !x->worked;
    x->abandoned = busy;
    pthread_mutex_unlock(&x->lock);
    return busy;
}

const double http_duration_bounds[HTTP_DURATION_BUCKETS] = {.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120, 300};

static void count_request(const struct http_exchange *x, int class)
{
    const struct http *h = x->h;
    struct http_route_counts *c = &h->counts[x->route ? x->route - h->o.routes : h->o.n_routes];
    int64_t us = clock_now_us() - x->start_us;
    int i = 0;
    while (i < HTTP_DURATION_BUCKETS && (double)us > http_duration_bounds[i] * 1e6)
        i++;
    atomic_fetch_add_explicit(&c->n_by_class[class], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&c->buckets[i], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&c->sum_us, (unsigned long long)us, memory_order_relaxed);
}

int http_n_routes(const struct http *h) { return h->o.n_routes + 1; }

void http_route_stats(const struct http *h, int i, struct http_route_stats *out)
{
    const struct http_route_counts *c = &h->counts[i];
    *out = (struct http_route_stats){.path = i < h->o.n_routes ? h->o.routes[i].path : "other"};
    for (int k = 0; k < 6; k++)
        out->n_by_class[k] = atomic_load_explicit(&c->n_by_class[k], memory_order_relaxed);
    for (int k = 0; k <= HTTP_DURATION_BUCKETS; k++)
        out->buckets[k] = atomic_load_explicit(&c->buckets[k], memory_order_relaxed);
    out->n_turned_away = atomic_load_explicit(&c->n_turned_away, memory_order_relaxed);
    out->sum_s = (double)atomic_load_explicit(&c->sum_us, memory_order_relaxed) / 1e6;
}

static void on_completed(void *cls, struct MHD_Connection *conn, void **con_cls, enum MHD_RequestTerminationCode toe)
{
    struct http *h = cls;
    struct http_exchange *x = *con_cls;
    (void)conn;
    if (!x)
        return;
    *con_cls = NULL;
    exchange_unlist(x);
    http_watch_remove(x);
    bool busy = leave_to_worker(x), sent = x->stage == HTTP_STAGE_SENT;
    int status = sent ? x->status : 499, class = sent ? status / 100 : 0;
    http_log_request(x, status, sent && toe == MHD_REQUEST_TERMINATED_COMPLETED_OK && (!x->is_pull || x->pull_done), !busy);
    if (!busy && x->is_pull)
        x->pull.close(x->pull.ctx);
    if (x->limited)
        atomic_fetch_sub(&h->n_active, 1);
    if (x->entered)
        http_key_leave(x->holder);
    count_request(x, class >= 1 && class <= 5 ? class : 0);
    http_exchange_unref(x);
}

static void on_connection(void *cls, struct MHD_Connection *conn, void **socket_context, enum MHD_ConnectionNotificationCode toe)
{
    struct http *h = cls;
    bool begins = toe == MHD_CONNECTION_NOTIFY_STARTED;
    atomic_fetch_add(&h->n_connections, begins ? 1 : -1);
    if (begins && h->tls)
        http_tls_begin(h, conn, socket_context);
    else if (h->tls)
        http_tls_end(*socket_context);
}

static void on_message(void *cls, const char *fmt, va_list ap)
{
    struct http *h = cls;
    char line[512];
    if (!log_enabled(h->o.log, LOG_DEBUG))
        return;
    int n = vsnprintf(line, sizeof line, fmt, ap);
    while (n > 0 && n < (int)sizeof line && line[n - 1] == '\n')
        line[--n] = 0;
    log_debug(h->o.log, "http", "%s", line);
}

/* ---- opening ---- */

static bool copy_list(struct http *h, const char *const **list, int n, struct err *e)
{
    const char **copy = mem_try_zalloc((size_t)n + 1, sizeof *copy);
    char **strings = mem_try_realloc(h->strings, (size_t)(h->n_strings + n + 2), sizeof *strings);
    if (strings)
        h->strings = strings;
    if (!copy || !strings) {
        mem_free(copy);
        return err_set(e, ERR_NOMEM, "out of memory");
    }
    h->strings[h->n_strings++] = (char *)copy;
    for (int i = 0; i < n; i++) {
        char *s = mem_try_strdup((*list)[i]);
        if (!s)
            return err_set(e, ERR_NOMEM, "out of memory");
        h->strings[h->n_strings++] = s;
        copy[i] = s;
    }
    *list = copy;
    return true;
}

/* NULL stays NULL. */
static bool copy_text(struct http *h, const char **text, struct err *e)
{
    const char *const *list = text;
    if (!*text)
        return true;
    if (!copy_list(h, &list, 1, e))
        return false;
    *text = list[0];
    return true;
}

static int bind_one(const struct addrinfo *ai)
{
    int one = 1, fd = socket(ai->ai_family, ai->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, ai->ai_protocol);
    if (fd < 0)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, ai->ai_addr, ai->ai_addrlen) == 0 && listen(fd, BACKLOG) == 0)
        return fd;
    int saved = errno;
    close(fd);
    errno = saved;
    return -1;
}

static bool listen_on(struct http *h, struct err *e)
{
    char service[16];
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE}, *list;
    snprintf(service, sizeof service, "%d", h->o.port);
    int rc = getaddrinfo(h->o.host, service, &hints, &list);
    if (rc != 0)
        return err_set(e, ERR_INVALID, "host '%s': %s", h->o.host, gai_strerror(rc));
    for (struct addrinfo *ai = list; ai && h->listen_fd < 0; ai = ai->ai_next)
        h->listen_fd = bind_one(ai);
    int saved = errno;
    freeaddrinfo(list);
    if (h->listen_fd < 0)
        return err_set(e, ERR_IO, "cannot listen on %s port %d: %s%s", h->o.host, h->o.port, strerror(saved),
                       saved == EADDRINUSE ? "; choose another with --port" : "");
    struct sockaddr_storage at;
    socklen_t len = sizeof at;
    getsockname(h->listen_fd, (struct sockaddr *)&at, &len);
    h->port = ntohs(at.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&at)->sin6_port : ((struct sockaddr_in *)&at)->sin_port);
    return true;
}

/* Descriptors are what connections are made of. */
static unsigned connection_limit(const struct http *h)
{
    struct rlimit rl;
    unsigned most = 1000;
    if (getrlimit(RLIMIT_NOFILE, &rl) == 0)
        most = rl.rlim_cur > 65536 + SPARE_FDS ? 65536 : rl.rlim_cur > 2 * SPARE_FDS ? (unsigned)rl.rlim_cur - SPARE_FDS : SPARE_FDS;
    return h->o.max_connections > 0 && (unsigned)h->o.max_connections < most ? (unsigned)h->o.max_connections : most;
}

static bool start_daemon(struct http *h, struct err *e)
{
    unsigned limit = connection_limit(h), threads = (unsigned)h->o.n_threads;
    if (threads > limit)
        threads = limit;
    struct MHD_OptionItem more[5] = {{MHD_OPTION_END, 0, NULL}};
    int n = 0;
    if (threads > 1) /* a pool of one is no pool */
        more[n++] = (struct MHD_OptionItem){MHD_OPTION_THREAD_POOL_SIZE, (intptr_t)threads, NULL};
    if (h->o.max_connections_per_ip > 0)
        more[n++] = (struct MHD_OptionItem){MHD_OPTION_PER_IP_CONNECTION_LIMIT, h->o.max_connections_per_ip, NULL};
    if (h->tls) {
        more[n++] = (struct MHD_OptionItem){MHD_OPTION_HTTPS_CERT_CALLBACK, 0, (void *)(uintptr_t)http_tls_no_certificate};
        more[n++] = (struct MHD_OptionItem){MHD_OPTION_HTTPS_PRIORITIES, 0, (void *)(uintptr_t)http_tls_priorities};
    }
    more[n] = (struct MHD_OptionItem){MHD_OPTION_END, 0, NULL};
    unsigned flags = MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG | (h->tls ? MHD_USE_TLS : 0);
    h->daemon = MHD_start_daemon(flags, 0, NULL, NULL, on_request, h,
                                 MHD_OPTION_EXTERNAL_LOGGER, on_message, h, MHD_OPTION_LISTEN_SOCKET, h->listen_fd,
                                 MHD_OPTION_CONNECTION_LIMIT, limit, MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CHUNK_BYTES,
                                 MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)h->o.idle_timeout_s, MHD_OPTION_NOTIFY_COMPLETED, on_completed, h,
                                 MHD_OPTION_NOTIFY_CONNECTION, on_connection, h, MHD_OPTION_ARRAY, more, MHD_OPTION_END);
    if (!h->daemon)
        h->listen_fd = -1; /* whether it was closed is not told: better one descriptor lost than another's closed */
    return h->daemon || err_set(e, ERR_IO, "the HTTP server could not be started: %s", strerror(errno));
}

bool http_open(struct http **out, const struct http_opts *o, struct err *e)
{
    struct http *h = *out = mem_try_zalloc(1, sizeof *h); /* handlers look at it before this returns */
    if (!h)
        return err_set(e, ERR_NOMEM, "out of memory");
    h->o = *o;
    h->listen_fd = h->epoll_fd = h->stop_fd = -1;
    pthread_mutex_init(&h->list_lock, NULL);
    pthread_mutex_init(&h->watch_lock, NULL);
    pthread_mutex_init(&h->work_lock, NULL);
    pthread_cond_init(&h->work_cond, NULL);
    bool ok = copy_list(h, &h->o.origins, o->n_origins, e) && copy_text(h, &h->o.host, e) && copy_text(h, &h->o.tls.cert_file, e) &&
              copy_text(h, &h->o.tls.key_file, e) && copy_text(h, &h->o.tls.ca_file, e);
    h->o.keys = NULL; /* http_keys has them */
    h->o.access_log = o->access_log ? o->access_log : o->log;
    h->o.key_file = NULL;
    h->counts = mem_try_zalloc((size_t)o->n_routes + 1, sizeof *h->counts);
    ok = ok && (h->counts || err_set(e, ERR_NOMEM, "out of memory"));
    if (ok && (o->n_keys > 0 || o->key_file))
        ok = http_keys_open(&h->keys, o->keys, o->n_keys, o->key_file, e);
    if (!ok || !http_tls_open(h, e) || !listen_on(h, e) || !http_wake_open(h, e) || !http_watch_open(h, e) || !http_work_open(h, e) || !start_daemon(h, e)) {
        http_close(out);
        return false;
    }
    return true;
}

/* Order matters.  The workers finish what they have and take no more; from then on nothing suspends, and what is suspended is
 * resumed and cut.  Only then may the daemon stop: it aborts when a request is still suspended.  (MHD_quiesce_daemon before all
 * that would be tidier, but races with the pool's own threads, and the loser aborts.) */
void http_close(struct http **ph)
{
    struct http *h = *ph;
    if (!h)
        return;
    http_work_stop(h);
    atomic_store(&h->stopping, true);
    pthread_mutex_lock(&h->list_lock);
    for (struct http_exchange *x = h->exchanges; x; x = x->next)
        http_exchange_resume(x);
    pthread_mutex_unlock(&h->list_lock);
    if (h->daemon) {
        MHD_stop_daemon(h->daemon);
        h->listen_fd = -1; /* closed with it */
    }
    http_wake_close(h);
    http_watch_close(h);
    http_work_close(h);
    http_tls_close(h);
    http_keys_close(&h->keys);
    pthread_mutex_destroy(&h->list_lock);
    if (h->listen_fd >= 0)
        close(h->listen_fd);
    for (int i = 0; i < h->n_strings; i++)
        mem_free(h->strings[i]);
    mem_free(h->strings);
    mem_free(h->counts);
    mem_free(h);
    *ph = NULL;
}

int http_port(const struct http *h) { return h->port; }

bool http_files_changed(const struct http *h) { return (h->keys && http_keys_changed(h->keys)) || http_tls_changed(h); }

bool http_reload(struct http *h, struct err *e)
{
    struct err second;
    bool keys = !h->keys || http_keys_reload(h->keys, e);
    bool tls = http_tls_reload(h, keys ? e : &second);
    if (!keys && !tls)
        err_prefix(e, "%s; and", second.msg);
    return keys && tls;
}

struct http_keys *http_keys_of(const struct http *h) { return h->keys; }

void http_stats(const struct http *h, struct http_stats *out)
{
    out->n_connections = atomic_load(&h->n_connections);
    out->n_active = atomic_load(&h->n_active);
    out->n_lost_lines = log_n_lost(h->o.access_log) + (h->o.log != h->o.access_log ? log_n_lost(h->o.log) : 0);
    out->certificate_expires_s = http_tls_expires_s((struct http *)h); /* its lock is not part of what const promises */
    for (int i = 0; i < 6; i++)
        out->n_by_class[i] = 0;
    struct http_route_stats r;
    for (int i = 0; i < http_n_routes(h); i++) {
        http_route_stats(h, i, &r);
        for (int k = 0; k < 6; k++)
            out->n_by_class[k] += r.n_by_class[k];
    }
}
