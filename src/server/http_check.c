/* What the headers of a request decide: route, method, key, media type, size, room. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include "base/clock.h"
#include "server/http_header.h"
#include "server/http_int.h"

static const char *header(const struct http_exchange *x, const char *name)
{
    return MHD_lookup_connection_value(x->conn, MHD_HEADER_KIND, name);
}

static void reject(struct http_exchange *x, int status, const char *msg)
{
    struct api_error e;
    api_fail_status(&e, status, "%s", msg);
    http_reply_error(x, &e);
}

static unsigned method_bit(const char *method)
{
    if (strcmp(method, "GET") == 0 || strcmp(method, "HEAD") == 0)
        return HTTP_GET;
    return strcmp(method, "POST") == 0 ? HTTP_POST : strcmp(method, "DELETE") == 0 ? HTTP_DELETE : 0;
}

static bool hits(const struct http_route *r, const char *path)
{
    return r->flags & HTTP_PREFIX ? strncmp(path, r->path, strlen(r->path)) == 0 : strcmp(path, r->path) == 0;
}

/* The first of the path that takes the method, else the first of the path. */
static void find_route(struct http_exchange *x)
{
    for (int i = 0; i < x->h->o.n_routes; i++) {
        const struct http_route *r = &x->h->o.routes[i];
        bool fits = hits(r, x->path) && r->methods & method_bit(x->method);
        if (fits || (!x->route && hits(r, x->path)))
            x->route = r;
        if (fits)
            return;
    }
}

static bool has_key(struct http_exchange *x)
{
    if (!x->h->keys || (x->route && x->route->flags & HTTP_OPEN))
        return true;
    const char *auth = header(x, "Authorization");
    if (!auth || strncasecmp(auth, "Bearer ", 7) != 0)
        return false;
    x->holder = http_keys_find(x->h->keys, auth + 7, strlen(auth + 7));
    return x->holder && (!x->route || !(x->route->flags & HTTP_KEY_ID) || http_key_id(auth + 7, strlen(auth + 7), x->owner));
}

const char *http_content_type(const struct http_exchange *x) { return x->body_type[0] ? x->body_type : NULL; }

bool http_is_get(const struct http_exchange *x) { return method_bit(x->method) == HTTP_GET; }

static enum MHD_Result keep_argument(void *cls, enum MHD_ValueKind kind, const char *name, const char *value)
{
    struct buf *query = cls;
    (void)kind;
    buf_append(query, name, strlen(name) + 1);
    buf_append(query, value ? value : "", value ? strlen(value) + 1 : 1);
    return MHD_YES;
}

const char *http_query(const struct http_exchange *x, const char *name)
{
    for (size_t at = 0; at < x->query.len;) {
        const char *key = x->query.data + at, *value = key + strlen(key) + 1;
        if (strcmp(key, name) == 0)
            return value;
        at += strlen(key) + strlen(value) + 2;
    }
    return NULL;
}

const char *http_owner(const struct http_exchange *x) { return x->owner; }

/* What the headers say that is not decided on: an invalid traceparent counts as none. */
void http_read_headers(struct http_exchange *x)
{
    const char *trace = header(x, "traceparent"), *timings = header(x, "X-Quire-Timings");
    if (trace && !http_header_traceparent(trace, x->trace_id, x->span_id))
        x->trace_id[0] = x->span_id[0] = 0;
    const char *type = header(x, "Content-Type");
    MHD_get_connection_values(x->conn, MHD_GET_ARGUMENT_KIND, keep_argument, &x->query);
    snprintf(x->body_type, sizeof x->body_type, "%s", type ? type : "");
    x->wants_timings = timings && http_header_is_true(timings);
}

static bool is_json(const struct http_exchange *x)
{
    static const char json[] = "application/json";
    const char *type = header(x, "Content-Type");
    return type && strncasecmp(type, json, sizeof json - 1) == 0 && strchr("; \t", type[sizeof json - 1]);
}

/* ---- CORS ---- */

static const char *allowed_origin(const struct http_exchange *x)
{
    const char *origin = header(x, "Origin");
    for (int i = 0; origin && i < x->h->o.n_origins; i++)
        if (strcmp(x->h->o.origins[i], "*") == 0 || strcmp(x->h->o.origins[i], origin) == 0)
            return x->h->o.origins[i][0] == '*' ? "*" : origin;
    return NULL;
}

void http_add_cors(const struct http_exchange *x, struct MHD_Response *r)
{
    const char *origin = x->h->o.n_origins ? allowed_origin(x) : NULL;
    if (!origin)
        return;
    MHD_add_response_header(r, "Access-Control-Allow-Origin", origin);
    MHD_add_response_header(r, "Access-Control-Expose-Headers", "X-Request-Id, Retry-After");
    if (origin[0] != '*')
        MHD_add_response_header(r, "Vary", "Origin");
    if (strcmp(x->method, "OPTIONS") == 0) {
        const char *wanted = header(x, "Access-Control-Request-Headers");
        MHD_add_response_header(r, "Access-Control-Allow-Methods", "GET, POST, DELETE, OPTIONS");
        MHD_add_response_header(r, "Access-Control-Allow-Headers", wanted ? wanted : "Authorization, Content-Type");
        MHD_add_response_header(r, "Access-Control-Max-Age", "600");
    }
}

/* ---- all checks in order ---- */

static void set_allow(struct http_exchange *x)
{
    unsigned methods = 0;
    for (int i = 0; i < x->h->o.n_routes; i++)
        methods |= hits(&x->h->o.routes[i], x->path) ? x->h->o.routes[i].methods : 0;
    snprintf(x->allow, sizeof x->allow, "%s%s%sOPTIONS", methods & HTTP_GET ? "GET, HEAD, " : "", methods & HTTP_POST ? "POST, " : "",
             methods & HTTP_DELETE ? "DELETE, " : "");
}

static bool take_place(struct http_exchange *x)
{
    struct http *h = x->h;
    if (!(x->route->flags & HTTP_LIMITED))
        return true;
    x->limited = true;
    long long before = atomic_fetch_add(&h->n_active, 1);
    return h->o.max_concurrent <= 0 || before < h->o.max_concurrent;
}

static void count_turned_away(const struct http_exchange *x)
{
    atomic_fetch_add_explicit(&x->h->counts[x->route - x->h->o.routes].n_turned_away, 1, memory_order_relaxed);
}

bool http_check_headers(struct http_exchange *x)
{
    const struct http_opts *o = &x->h->o;
    find_route(x);
    if (strcmp(x->method, "OPTIONS") == 0 && x->route) {
        set_allow(x);
        http_reply(x, 204, NULL, &(struct buf){0});
        return false;
    }
    /* The key first: who has none does not learn which routes there are. */
    if (!has_key(x)) {
        reject(x, 401, "a valid API key is needed: send 'Authorization: Bearer KEY'");
        return false;
    }
    char msg[256];
    if (!x->route) {
        snprintf(msg, sizeof msg, "there is nothing at %.160s", x->path);
        reject(x, 404, msg);
        return false;
    }
    if (!(x->route->methods & method_bit(x->method))) {
        set_allow(x);
        snprintf(msg, sizeof msg, "%s does not take %s; it takes %s", x->route->path, x->method, x->allow);
        reject(x, 405, msg);
        return false;
    }
    if (x->route->flags & HTTP_JSON && method_bit(x->method) == HTTP_POST && !is_json(x)) {
        reject(x, 415, "the body must be JSON: send 'Content-Type: application/json'");
        return false;
    }
    const char *length = header(x, "Content-Length");
    if (length && strtoull(length, NULL, 10) > o->max_body_bytes) {
        snprintf(msg, sizeof msg, "the body of %.24s bytes is larger than the %zu that are accepted", length, o->max_body_bytes);
        reject(x, 413, msg);
        return false;
    }
    const char *timeout = header(x, "X-Request-Timeout");
    if (timeout && !http_header_seconds(timeout, &x->timeout_us)) {
        reject(x, 400, "X-Request-Timeout must be a number of seconds above 0, such as 30 or 2.5");
        return false;
    }
    if (x->query.failed) {
        reject(x, 503, "out of memory for the request");
        return false;
    }
    if (!take_place(x)) {
        count_turned_away(x);
        snprintf(msg, sizeof msg, "%d requests are in progress already; try again later", o->max_concurrent);
        reject(x, 429, msg);
        return false;
    }
    struct api_error e;
    if (x->limited && x->holder && !(x->entered = http_key_enter(x->holder, clock_now_us(), &e))) {
        count_turned_away(x);
        http_reply_error(x, &e);
        return false;
    }
    return true;
}
