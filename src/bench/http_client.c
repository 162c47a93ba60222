#include "bench/http_client.h"

#include <curl/curl.h>
#include <stdio.h>
#include <string.h>
#include "base/clock.h"
#include "base/json.h"
#include "base/mem.h"
#include "bench/http_sse.h"

enum { CONNECT_TIMEOUT_S = 30, MAX_REPLY = 1 << 20, MAX_EVENT = 16 << 20, MAX_POLL_MS = 1000 };

/* One request on its way. */
struct flight {
    struct bench_http *client;
    struct bench_call *call;      /* NULL for a plain request */
    CURL *easy;
    struct buf body;
    struct buf *reply;            /* where a plain answer goes */
    struct buf own_reply;         /* the answer to a call that is not 200 */
    struct bench_sse sse;
    int64_t now_us;               /* when the bytes being read came */
    char error[CURL_ERROR_SIZE];
    struct flight *next, **link;  /* the client's list */
};

struct bench_http {
    CURLM *multi;
    struct curl_slist *headers;
    char *base_url;
    long timeout_ms;
    struct flight *flights;
    bool global;                  /* curl_global_init was called */
};

/* ---- opening ---- */

static bool add_header(struct bench_http *c, const char *line)
{
    struct curl_slist *l = curl_slist_append(c->headers, line);
    if (l)
        c->headers = l;
    return l != NULL;
}

static bool add_headers(struct bench_http *c, const char *key)
{
    /* Without "Expect:" libcurl would ask for permission before large bodies, which costs a round trip. */
    if (!add_header(c, "Content-Type: application/json") || !add_header(c, "Expect:"))
        return false;
    if (!key)
        return true;
    struct buf line;
    buf_init(&line, 0);
    bool ok = buf_printf(&line, "Authorization: Bearer %s", key) && add_header(c, line.data);
    buf_free(&line);
    return ok;
}

bool bench_http_open(struct bench_http **out, const struct bench_http_opts *o, struct err *e)
{
    *out = NULL;
    if (strncmp(o->base_url, "http://", 7) != 0 && strncmp(o->base_url, "https://", 8) != 0)
        return err_set(e, ERR_INVALID, "base URL '%s' must begin with http:// or https://", o->base_url);
    if (o->api_key && strpbrk(o->api_key, "\r\n"))
        return err_set(e, ERR_INVALID, "the API key holds a line end");
    struct bench_http *c = mem_try_zalloc(1, sizeof *c);
    if (!c)
        return err_set(e, ERR_NOMEM, "out of memory");
    c->global = curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK;
    c->multi = c->global ? curl_multi_init() : NULL;
    c->base_url = mem_try_strdup(o->base_url);
    if (!c->multi || !c->base_url || !add_headers(c, o->api_key)) {
        bench_http_close(&c);
        return err_set(e, ERR_NOMEM, "libcurl could not be set up: out of memory");
    }
    size_t len = strlen(c->base_url);
    while (len > 0 && c->base_url[len - 1] == '/')
        c->base_url[--len] = 0;
    c->timeout_ms = o->timeout_s > 0 && o->timeout_s < 1e9 ? (long)(o->timeout_s * 1e3) + 1 : 0;
    curl_multi_setopt(c->multi, CURLMOPT_PIPELINING, (long)CURLPIPE_NOTHING);
    if (o->n_connections > 0)
        curl_multi_setopt(c->multi, CURLMOPT_MAXCONNECTS, (long)o->n_connections);
    *out = c;
    return true;
}

static void flight_close(struct flight *f)
{
    if (f->link) {
        curl_multi_remove_handle(f->client->multi, f->easy);
        *f->link = f->next;
        if (f->next)
            f->next->link = f->link;
    }
    curl_easy_cleanup(f->easy);
    bench_sse_free(&f->sse);
    buf_free(&f->body);
    buf_free(&f->own_reply);
    mem_free(f);
}

void bench_http_cancel(struct bench_http *c)
{
    while (c->flights)
        flight_close(c->flights);
}

void bench_http_close(struct bench_http **out)
{
    struct bench_http *c = *out;
    *out = NULL;
    if (!c)
        return;
    bench_http_cancel(c);
    curl_multi_cleanup(c->multi);
    curl_slist_free_all(c->headers);
    if (c->global)
        curl_global_cleanup();
    mem_free(c->base_url);
    mem_free(c);
}

/* ---- one request ---- */

static bool on_event(void *ctx, const char *data, size_t len)
{
    struct flight *f = ctx;
    return bench_call_event(f->call, data, len, f->now_us);
}

/* libcurl's write callback; anything but the full count ends the transfer. */
static size_t on_bytes(char *p, size_t size, size_t n, void *ctx)
{
    struct flight *f = ctx;
    long status = 0;
    size_t len = size * n;
    f->now_us = clock_now_us();
    curl_easy_getinfo(f->easy, CURLINFO_RESPONSE_CODE, &status);
    if (!f->call || status != 200) {
        if (f->reply->len < MAX_REPLY)
            buf_append(f->reply, p, len < MAX_REPLY - f->reply->len ? len : MAX_REPLY - f->reply->len);
        return f->reply->failed ? 0 : len;
    }
    if (bench_sse_feed(&f->sse, p, len, on_event, f))
        return len;
    if (!f->call->error[0])
        snprintf(f->call->error, sizeof f->call->error, "an event of the stream is larger than %d bytes", MAX_EVENT);
    return 0;
}

static bool set_options(struct flight *f, const char *url)
{
    struct bench_http *c = f->client;
    CURL *h = f->easy;
    CURLcode r[] = {
        curl_easy_setopt(h, CURLOPT_URL, url),
        curl_easy_setopt(h, CURLOPT_PROTOCOLS_STR, "http,https"),
        curl_easy_setopt(h, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1),
        curl_easy_setopt(h, CURLOPT_PROXY, ""),
        curl_easy_setopt(h, CURLOPT_NOSIGNAL, 1L),
        curl_easy_setopt(h, CURLOPT_HTTPHEADER, c->headers),
        curl_easy_setopt(h, CURLOPT_CONNECTTIMEOUT, (long)CONNECT_TIMEOUT_S),
        curl_easy_setopt(h, CURLOPT_TIMEOUT_MS, c->timeout_ms),
        curl_easy_setopt(h, CURLOPT_TCP_KEEPALIVE, 1L),
        curl_easy_setopt(h, CURLOPT_ERRORBUFFER, f->error),
        curl_easy_setopt(h, CURLOPT_WRITEFUNCTION, on_bytes),
        curl_easy_setopt(h, CURLOPT_WRITEDATA, f),
        curl_easy_setopt(h, CURLOPT_PRIVATE, f),
    };
    for (size_t i = 0; i < sizeof r / sizeof r[0]; i++)
        if (r[i] != CURLE_OK)
            return false;
    return !f->body.data || (curl_easy_setopt(h, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)f->body.len) == CURLE_OK &&
                             curl_easy_setopt(h, CURLOPT_POSTFIELDS, f->body.data) == CURLE_OK);
}

/* Takes body over, also when it fails. */
static struct flight *flight_open(struct bench_http *c, const char *path, struct buf *body, struct err *e)
{
    struct buf url;
    struct flight *f = mem_try_zalloc(1, sizeof *f);
    if (!f) {
        buf_free(body);
        err_set(e, ERR_NOMEM, "out of memory");
        return NULL;
    }
    f->client = c;
    f->body = *body;
    buf_init(body, 0);
    buf_init(&f->own_reply, 0);
    f->reply = &f->own_reply;
    bench_sse_init(&f->sse, MAX_EVENT);
    f->easy = curl_easy_init();
    buf_init(&url, 0);
    bool ok = f->easy && !f->body.failed && buf_printf(&url, "%s%s", c->base_url, path) && set_options(f, url.data);
    buf_free(&url);
    if (!ok) {
        flight_close(f);
        err_set(e, ERR_NOMEM, "%s%s: the request could not be made: out of memory or no URL", c->base_url, path);
        return NULL;
    }
    return f;
}

static const char *flight_error(const struct flight *f, CURLcode code)
{
    return code == CURLE_OK ? NULL : f->error[0] ? f->error : curl_easy_strerror(code);
}

bool bench_http_request(struct bench_http *c, const char *path, const char *body, int *status, struct buf *reply, struct err *e)
{
    struct buf b;
    long code = 0;
    buf_init(&b, 0);
    buf_clear(reply);
    if (body)
        buf_puts(&b, body);
    struct flight *f = flight_open(c, path, &b, e);
    if (!f)
        return false;
    f->reply = reply;
    CURLcode r = curl_easy_perform(f->easy);
    curl_easy_getinfo(f->easy, CURLINFO_RESPONSE_CODE, &code);
    *status = (int)code;
    bool ok = r == CURLE_OK || err_set(e, r == CURLE_OPERATION_TIMEDOUT ? ERR_TIMEOUT : ERR_IO, "%s%s: %s", c->base_url, path, flight_error(f, r));
    flight_close(f);
    return ok;
}

bool bench_http_start(struct bench_http *c, const char *path, struct buf *body, struct bench_call *call, struct err *e)
{
    struct flight *f = flight_open(c, path, body, e);
    if (!f)
        return false;
    f->call = call;
    bench_call_reset(call);
    call->start_us = clock_now_us();
    if (curl_multi_add_handle(c->multi, f->easy) != CURLM_OK) {
        flight_close(f);
        return err_set(e, ERR_NOMEM, "out of memory");
    }
    f->link = &c->flights;
    f->next = c->flights;
    if (f->next)
        f->next->link = &f->next;
    c->flights = f;
    return true;
}

/* ---- many at once ---- */

static struct bench_call *take_finished(struct bench_http *c)
{
    CURLMsg *m;
    int left;
    while ((m = curl_multi_info_read(c->multi, &left))) {
        char *private = NULL;
        long status = 0;
        if (m->msg != CURLMSG_DONE)
            continue;
        CURLcode code = m->data.result;
        curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, &private);
        curl_easy_getinfo(m->easy_handle, CURLINFO_RESPONSE_CODE, &status);
        struct flight *f = (struct flight *)(void *)private;
        struct bench_call *call = f->call;
        bench_call_end(call, (int)status, flight_error(f, code), &f->own_reply);
        flight_close(f);
        return call;
    }
    return NULL;
}

struct bench_call *bench_http_next(struct bench_http *c, int64_t timeout_us)
{
    int64_t until = timeout_us < 0 ? INT64_MAX : clock_now_us() + timeout_us;
    for (;;) {
        int running = 0;
        struct bench_call *call = take_finished(c);
        if (call)
            return call;
        if (curl_multi_perform(c->multi, &running) != CURLM_OK)
            return NULL;
        if ((call = take_finished(c)))
            return call;
        int64_t left = until == INT64_MAX ? INT64_MAX : until - clock_now_us();
        if (left <= 0 || (!c->flights && timeout_us < 0))
            return NULL;
        int ms = left < MAX_POLL_MS * 1000 ? (int)((left + 999) / 1000) : MAX_POLL_MS;
        if (curl_multi_poll(c->multi, NULL, 0, ms, NULL) != CURLM_OK)
            return NULL;
    }
}

bool bench_http_run(struct bench_http *c, const char *path, struct buf *body, struct bench_call *call, struct err *e)
{
    if (!bench_http_start(c, path, body, call, e))
        return false;
    if (bench_http_next(c, -1) == call)
        return true;
    bench_http_cancel(c);
    return err_set(e, ERR_IO, "%s%s: libcurl gave up", c->base_url, path);
}

char *bench_http_first_model(struct bench_http *c, struct err *e)
{
    struct buf reply;
    int status;
    char *name = NULL;
    buf_init(&reply, 0);
    if (bench_http_request(c, "/v1/models", NULL, &status, &reply, e)) {
        json_t *doc = status == 200 ? json_parse(reply.data ? reply.data : "", reply.len, NULL) : NULL;
        const char *id = json_string_value(json_object_get(json_array_get(json_object_get(doc, "data"), 0), "id"));
        if (status == 401 || status == 403)
            err_set(e, ERR_INVALID, "%s/v1/models answers %d: the server wants another API key (--api-key)", c->base_url, status);
        else if (!id)
            err_set(e, ERR_NOT_FOUND, "%s/v1/models answers %d and names no model; give --model", c->base_url, status);
        else if (!(name = mem_try_strdup(id)))
            err_set(e, ERR_NOMEM, "out of memory");
        json_decref(doc);
    }
    buf_free(&reply);
    return name;
}
