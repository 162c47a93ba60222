/* Requests to a hub: headers, redirects, retries. */
#include <ctype.h>
#include <curl/curl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include "base/clock.h"
#include "base/mem.h"
#include "base/rng.h"
#include "hub/hub_int.h"

enum { MAX_HOPS = 10, MAX_ERROR_TEXT = 4096, MAX_HEADER_BYTES = 1 << 20, MAX_URL = 16384, SLOWEST = 1024, MAX_PAUSE_MS = 30000,
       TEXT_TIMEOUT_S = 120 };

/* ---- addresses ---- */

/* "scheme://host:port"; false when url is not one of http or https. */
static bool origin_of(const char *url, char *out, size_t cap)
{
    CURLU *u = curl_url();
    char *scheme = NULL, *host = NULL, *port = NULL;
    bool ok = u && curl_url_set(u, CURLUPART_URL, url, 0) == CURLUE_OK && curl_url_get(u, CURLUPART_SCHEME, &scheme, 0) == CURLUE_OK &&
              curl_url_get(u, CURLUPART_HOST, &host, 0) == CURLUE_OK && curl_url_get(u, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT) == CURLUE_OK &&
              (strcmp(scheme, "http") == 0 || strcmp(scheme, "https") == 0) && (size_t)snprintf(out, cap, "%s://%s:%s", scheme, host, port) < cap;
    for (char *c = out; ok && *c; c++)
        *c = (char)tolower((unsigned char)*c);
    curl_free(scheme);
    curl_free(host);
    curl_free(port);
    curl_url_cleanup(u);
    return ok;
}

/* Where a Location of an answer from base leads; mem_free it. */
static char *resolve(const char *base, const char *location)
{
    CURLU *u = curl_url();
    char *full = NULL, *copy = NULL;
    if (u && curl_url_set(u, CURLUPART_URL, base, 0) == CURLUE_OK && curl_url_set(u, CURLUPART_URL, location, CURLU_URLENCODE) == CURLUE_OK &&
        curl_url_get(u, CURLUPART_URL, &full, 0) == CURLUE_OK && strlen(full) < MAX_URL)
        copy = mem_try_strdup(full);
    curl_free(full);
    curl_url_cleanup(u);
    return copy;
}

char *hub_escape(const char *s, bool slashes, struct err *e)
{
    struct buf b;
    buf_init(&b, 0);
    for (; *s; s++) {
        if (isalnum((unsigned char)*s) || strchr("-._~", *s) || (slashes && *s == '/'))
            buf_putc(&b, *s);
        else
            buf_printf(&b, "%%%02X", (unsigned char)*s);
    }
    char *out = buf_puts(&b, "") ? buf_take(&b) : NULL;
    buf_free(&b);
    if (!out)
        err_set(e, ERR_NOMEM, "no memory for a URL");
    return out;
}

bool hub_http_open(struct hub_http *h, const struct hub_opts *o, struct err *e)
{
    *h = (struct hub_http){.o = o, .endpoint = o->endpoint && *o->endpoint ? o->endpoint : "https://huggingface.co"};
    if (!origin_of(h->endpoint, h->origin, sizeof h->origin))
        return err_set(e, ERR_INVALID, "'%.200s' is not the http:// or https:// address of a hub", h->endpoint);
    if (o->token && o->token[strcspn(o->token, "\r\n")])
        return err_set(e, ERR_INVALID, "the hub's token has a line break in it");
    return true;
}

/* ---- headers ---- */

/* What a server says, fit for a terminal. */
static void copy_text(char *out, size_t cap, const char *s, size_t n)
{
    size_t len = 0;
    for (size_t i = 0; i < n && len + 1 < cap; i++)
        out[len++] = (unsigned char)s[i] < 32 || s[i] == 127 ? ' ' : s[i];
    out[len] = 0;
}

static int64_t number(const char *s)
{
    char *end;
    long long v = strtoll(s, &end, 10);
    return end == s || v < 0 ? -1 : v;
}

/* "bytes 0-99/1000" */
static void read_range(struct hub_call *c, const char *v)
{
    long long from, to, total = -1;
    if (sscanf(v, "bytes %lld-%lld/%lld", &from, &to, &total) >= 2 && from >= 0) {
        c->range_from = from;
        c->range_total = total;
    }
}

/* <https://..>; rel="next" */
static void read_link(struct hub_call *c, const char *v)
{
    const char *end = *v == '<' ? strchr(v, '>') : NULL;
    if (!end || !strstr(end, "rel=\"next\"") || c->next_page)
        return;
    char *target = mem_try_strndup(v + 1, (size_t)(end - v - 1));
    c->next_page = target ? resolve(c->url, target) : NULL;
    mem_free(target);
}

static void read_header(struct hub_call *c, const char *name, const char *v)
{
    if (strcasecmp(name, "location") == 0) {
        mem_free(c->next);
        c->next = resolve(c->url, v);
    } else if (strcasecmp(name, "content-length") == 0) {
        c->content_length = number(v);
    } else if (strcasecmp(name, "content-range") == 0) {
        read_range(c, v);
    } else if (strcasecmp(name, "retry-after") == 0) {
        time_t at = isdigit((unsigned char)*v) ? -1 : curl_getdate(v, NULL);
        c->retry_after = at >= 0 ? (int64_t)at - clock_unix_s() : number(v);
        c->retry_after = c->retry_after < 0 ? 0 : c->retry_after;
    } else if (strcasecmp(name, "etag") == 0) {
        hub_etag_clean(c->etag, v);
    } else if (strcasecmp(name, "x-linked-etag") == 0) {
        hub_etag_clean(c->linked_etag, v);
    } else if (strcasecmp(name, "x-linked-size") == 0) {
        c->linked_size = number(v);
    } else if (strcasecmp(name, "x-repo-commit") == 0) {
        copy_text(c->commit, sizeof c->commit, v, strlen(v));
    } else if (strcasecmp(name, "x-error-code") == 0) {
        copy_text(c->error_code, sizeof c->error_code, v, strlen(v));
    } else if (strcasecmp(name, "x-error-message") == 0) {
        copy_text(c->error_message, sizeof c->error_message, v, strlen(v));
    } else if (strcasecmp(name, "link") == 0) {
        read_link(c, v);
    }
}

static size_t on_header(char *data, size_t size, size_t n, void *ctx)
{
    struct hub_call *c = ctx;
    size_t len = size * n;
    c->header_bytes += (int64_t)len;
    if (c->header_bytes > MAX_HEADER_BYTES || len > MAX_URL) {
        c->refused = true;
        err_set(&c->error, ERR_FORMAT, "the server's headers are absurdly long");
        return 0;
    }
    const char *colon = memchr(data, ':', len);
    if (!colon)
        return len;
    char *name = mem_try_strndup(data, (size_t)(colon - data)), *value = mem_try_strndup(colon + 1, len - (size_t)(colon + 1 - data));
    if (name && value) {
        char *v = value + strspn(value, " \t");
        size_t end = strlen(v);
        while (end && isspace((unsigned char)v[end - 1]))
            end--;
        v[end] = 0;
        read_header(c, name, v);
    }
    mem_free(name);
    mem_free(value);
    return len;
}

/* ---- bodies ---- */

/* The answer of a good status must be the bytes that were asked for. */
static bool check_answer(struct hub_call *c)
{
    bool ranged = c->to > c->from, whole = c->from == 0 && (c->size < 0 || c->to == c->size);
    if (!ranged)
        return true;
    if (c->status == 200 && !whole) {
        c->no_ranges = true;
        return false;
    }
    if (c->status == 206 && c->range_from != c->from)
        return err_set(&c->error, ERR_FORMAT, "the server sends bytes from %lld on when asked for those from %lld on", (long long)c->range_from,
                       (long long)c->from);
    int64_t total = c->status == 206 ? c->range_total : c->content_length;
    if (total >= 0 && c->size >= 0 && total != c->size)
        return err_set(&c->error, ERR_FORMAT, "the server says it has %lld bytes, its list %lld", (long long)total, (long long)c->size);
    return true;
}

static size_t on_body(char *data, size_t size, size_t n, void *ctx)
{
    struct hub_call *c = ctx;
    size_t len = size * n;
    long status = 0;
    curl_easy_getinfo(c->easy, CURLINFO_RESPONSE_CODE, &status);
    c->status = (int)status;
    if (status != 200 && status != 206) {
        size_t room = c->text.len < MAX_ERROR_TEXT ? MAX_ERROR_TEXT - c->text.len : 0;
        buf_append(&c->text, data, len < room ? len : room);
        return len <= room || status >= 300 ? len : 0;
    }
    if (!c->checked) {
        c->checked = true;
        c->refused = !check_answer(c);
    }
    c->received += (int64_t)len;
    if (!c->refused && c->to > c->from && c->received > c->to - c->from)
        c->refused = !err_set(&c->error, ERR_FORMAT, "the server sends more than the %lld bytes it was asked for", (long long)(c->to - c->from));
    if (!c->refused && c->sink && !c->sink(c->sink_ctx, data, len, &c->error))
        c->refused = true;
    return c->refused ? 0 : len;
}

/* ---- one call ---- */

static void forget_answer(struct hub_call *c)
{
    mem_free(c->next);
    mem_free(c->next_page);
    buf_free(&c->text);
    c->next = c->next_page = NULL;
    c->status = 0;
    c->checked = c->refused = c->no_ranges = false;
    c->received = c->header_bytes = 0;
    c->retry_after = c->content_length = c->linked_size = c->range_from = c->range_total = -1;
    c->etag[0] = c->linked_etag[0] = c->commit[0] = c->error_code[0] = c->error_message[0] = 0;
    c->error = (struct err){0};
}

bool hub_call_prepare(const struct hub_http *h, struct hub_call *c, struct err *e)
{
    char origin[HUB_FILE_MAX], text[4096];
    forget_answer(c);
    if (!origin_of(c->url, origin, sizeof origin))
        return err_set(e, ERR_FORMAT, "'%.200s' is not an http:// or https:// address", c->url);
    if (!c->easy)
        c->easy = curl_easy_init();
    if (!c->easy)
        return err_set(e, ERR_NOMEM, "no memory for a connection");
    CURL *easy = c->easy;
    curl_slist_free_all(c->headers);
    c->headers = NULL;
    curl_easy_reset(easy);
    if (h->o->token && *h->o->token && strcmp(origin, h->origin) == 0) {
        snprintf(text, sizeof text, "Authorization: Bearer %.4000s", h->o->token);
        c->headers = curl_slist_append(NULL, text);
        if (!c->headers)
            return err_set(e, ERR_NOMEM, "no memory for a request");
        curl_easy_setopt(easy, CURLOPT_HTTPHEADER, c->headers);
    }
    curl_easy_setopt(easy, CURLOPT_URL, c->url);
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(easy, CURLOPT_USERAGENT, "quire/" QUIRE_VERSION);
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT, 15L);
    curl_easy_setopt(easy, CURLOPT_LOW_SPEED_LIMIT, (long)SLOWEST);
    curl_easy_setopt(easy, CURLOPT_LOW_SPEED_TIME, (long)(h->o->stall_s > 0 ? h->o->stall_s : 30));
    curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, 262144L);
    curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(easy, CURLOPT_HEADERDATA, c);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, c);
    curl_easy_setopt(easy, CURLOPT_NOBODY, c->head ? 1L : 0L);
    if (c->to <= c->from)
        curl_easy_setopt(easy, CURLOPT_TIMEOUT, (long)TEXT_TIMEOUT_S);
    if (c->to > c->from && !(c->from == 0 && c->to == c->size)) {
        snprintf(text, sizeof text, "%lld-%lld", (long long)c->from, (long long)c->to - 1);
        curl_easy_setopt(easy, CURLOPT_RANGE, text);
    }
    return true;
}

void hub_call_follow(struct hub_call *c)
{
    mem_free(c->url);
    c->url = c->next;
    c->next = NULL;
    c->n_hops++;
}

void hub_call_free(struct hub_call *c)
{
    forget_answer(c);
    curl_slist_free_all(c->headers);
    if (c->easy)
        curl_easy_cleanup(c->easy);
    mem_free(c->url);
    *c = (struct hub_call){0};
}

/* ---- verdicts ---- */

static enum hub_verdict judge_redirect(struct hub_call *c, const char *what, struct err *e)
{
    char from[HUB_FILE_MAX], to[HUB_FILE_MAX];
    if (!c->next || !origin_of(c->next, to, sizeof to) || !origin_of(c->url, from, sizeof from)) {
        err_set(e, ERR_FORMAT, "%s: the server redirects to no http:// or https:// address", what);
        return HUB_CALL_FAILED;
    }
    if (c->n_hops >= MAX_HOPS) {
        err_set(e, ERR_FORMAT, "%s: the server redirects more than %d times", what, MAX_HOPS);
        return HUB_CALL_FAILED;
    }
    if (strncmp(from, "https:", 6) == 0 && strncmp(to, "http:", 5) == 0) {
        err_set(e, ERR_FORMAT, "%s: the server redirects from https to plain http: refused", what);
        return HUB_CALL_FAILED;
    }
    return HUB_CALL_REDIRECT;
}

/* The text of {"error": ".."}, else nothing. */
static void error_text(struct hub_call *c)
{
    if (c->error_message[0] || !c->text.data)
        return;
    const char *p = strstr(c->text.data, "\"error\":\"");
    if (p)
        copy_text(c->error_message, sizeof c->error_message, p + 9, strcspn(p + 9, "\""));
}

static void explain(const struct hub_http *h, struct hub_call *c, const char *what, struct err *e)
{
    error_text(c);
    const char *said = c->error_message, *sep = *said ? ": " : "", *code = c->error_code;
    bool token = h->o->token && *h->o->token;
    if (strcmp(code, "GatedRepo") == 0 || (c->status == 403 && !*code))
        err_set(e, ERR_INVALID, "%s: access is restricted%s%s; accept the model's terms on its page at %s and set HF_TOKEN%s", what, sep, said,
                h->endpoint, token ? " to a token of that account" : "");
    else if (strcmp(code, "RevisionNotFound") == 0)
        err_set(e, ERR_NOT_FOUND, "%s: there is no such revision", what);
    else if (strcmp(code, "EntryNotFound") == 0)
        err_set(e, ERR_NOT_FOUND, "%s: the repository has no such file", what);
    else if (c->status == 401 || strcmp(code, "RepoNotFound") == 0)
        err_set(e, strcmp(code, "RepoNotFound") == 0 ? ERR_NOT_FOUND : ERR_INVALID, "%s: %s has no such repository, or not for %s%s%s (HTTP %d)", what,
                h->endpoint, token ? "this HF_TOKEN" : "the public: set HF_TOKEN", sep, said, c->status);
    else if (c->status == 404)
        err_set(e, ERR_NOT_FOUND, "%s: not found at %s%s%s", what, h->endpoint, sep, said);
    else
        err_set(e, ERR_IO, "%s: the server answers HTTP %d%s%s", what, c->status, sep, said);
}

static bool worth_repeating(int code)
{
    switch (code) {
    case CURLE_URL_MALFORMAT:
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_OUT_OF_MEMORY:
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_ENGINE_INITFAILED:
        return false;
    default:
        return true;
    }
}

enum hub_verdict hub_call_judge(const struct hub_http *h, struct hub_call *c, int curl_code, const char *what, int *wait_s, struct err *e)
{
    long status = 0;
    int max_wait = h->o->max_wait_s > 0 ? h->o->max_wait_s : 300;
    *wait_s = 0;
    if (c->easy)
        curl_easy_getinfo((CURL *)c->easy, CURLINFO_RESPONSE_CODE, &status);
    c->status = (int)status;
    if (c->no_ranges)
        return HUB_CALL_NO_RANGES;
    if (c->refused) {
        *e = c->error;
        err_prefix(e, "%s", what);
        return e->code == ERR_FORMAT && c->checked ? HUB_CALL_AGAIN : HUB_CALL_FAILED;
    }
    if (curl_code != CURLE_OK) {
        err_set(e, ERR_IO, "%s: %s%s%s", what, curl_easy_strerror((CURLcode)curl_code),
                curl_code == CURLE_COULDNT_RESOLVE_HOST || curl_code == CURLE_COULDNT_CONNECT ? " at " : "",
                curl_code == CURLE_COULDNT_RESOLVE_HOST || curl_code == CURLE_COULDNT_CONNECT ? h->endpoint : "");
        return worth_repeating(curl_code) ? HUB_CALL_AGAIN : HUB_CALL_FAILED;
    }
    if (status == 301 || status == 302 || status == 303 || status == 307 || status == 308)
        return judge_redirect(c, what, e);
    bool ranged = c->to > c->from;
    if (status == 200 || (status == 206 && ranged)) {
        if (!ranged || c->received == c->to - c->from)
            return HUB_CALL_OK;
        err_set(e, ERR_IO, "%s: the server ended after %lld of %lld bytes", what, (long long)c->received, (long long)(c->to - c->from));
        return HUB_CALL_AGAIN;
    }
    explain(h, c, what, e);
    if (status != 408 && status != 425 && status != 429 && status != 500 && status != 502 && status != 503 && status != 504)
        return HUB_CALL_FAILED;
    if (c->retry_after > max_wait) {
        err_set(e, ERR_OVERLOADED, "%s: the server answers HTTP %ld and asks to come back in %lld s", what, status, (long long)c->retry_after);
        return HUB_CALL_FAILED;
    }
    *wait_s = c->retry_after > 0 ? (int)c->retry_after : 0;
    return HUB_CALL_AGAIN;
}

int hub_n_attempts(const struct hub_opts *o)
{
    return o->n_attempts > 0 ? o->n_attempts : 6;
}

int hub_retry_ms(const struct hub_opts *o, int n, int wait_s)
{
    int64_t ms = o->retry_ms > 0 ? o->retry_ms : 500;
    for (int i = 1; i < n && ms < MAX_PAUSE_MS; i++)
        ms *= 2;
    ms = ms > MAX_PAUSE_MS ? MAX_PAUSE_MS : ms;
    ms += (int64_t)(rng_entropy() % (uint64_t)(ms / 4 + 1));    /* so that many clients do not come back together */
    return (int)(ms > (int64_t)wait_s * 1000 ? ms : (int64_t)wait_s * 1000);
}

/* ---- blocking ---- */

static bool run(const struct hub_http *h, struct hub_call *c, struct buf *out, const char *what, struct err *e)
{
    for (int attempt = 1;;) {
        int wait_s;
        if (out)
            buf_clear(out);
        if (!hub_call_prepare(h, c, e))
            return false;
        CURLcode code = curl_easy_perform(c->easy);
        switch (hub_call_judge(h, c, code, what, &wait_s, e)) {
        case HUB_CALL_OK:
            return true;
        case HUB_CALL_REDIRECT:
            hub_call_follow(c);
            continue;
        case HUB_CALL_AGAIN:
            break;
        default:
            return false;
        }
        if (attempt >= hub_n_attempts(h->o))
            return err_prefix(e, "given up after %d attempts", attempt);
        int ms = hub_retry_ms(h->o, attempt++, wait_s);
        log_info(h->o->log, "hub", "%s; trying again in %.1f s", e->msg, ms / 1e3);
        poll(NULL, 0, ms);
    }
}

static bool to_buf(void *ctx, const char *data, size_t n, struct err *e)
{
    return buf_append(ctx, data, n) || err_set(e, ERR_TOO_LARGE, "the hub's list of files is larger than 64 MiB");
}

bool hub_http_get(const struct hub_http *h, const char *url, const char *what, struct buf *out, char **next_page, struct err *e)
{
    struct hub_call c = {.url = mem_try_strdup(url), .sink = to_buf, .sink_ctx = out};
    bool ok = c.url ? run(h, &c, out, what, e) : err_set(e, ERR_NOMEM, "no memory for a URL");
    if (ok && next_page) {
        *next_page = c.next_page;
        c.next_page = NULL;
    }
    hub_call_free(&c);
    return ok;
}

/* The entity tags of a large file are in the redirect's own headers; what it leads to only knows its length. */
bool hub_http_head(const struct hub_http *h, const char *url, struct hub_file *f, struct err *e)
{
    struct hub_call c = {.url = mem_try_strdup(url), .head = true};
    char etag[HUB_ETAG_MAX] = "";
    int64_t size = -1;
    bool ok = c.url || err_set(e, ERR_NOMEM, "no memory for a URL");
    for (int attempt = 1; ok;) {
        int wait_s;
        ok = hub_call_prepare(h, &c, e);
        if (!ok)
            break;
        enum hub_verdict v = hub_call_judge(h, &c, curl_easy_perform(c.easy), f->name, &wait_s, e);
        if (v == HUB_CALL_OK || v == HUB_CALL_REDIRECT) {
            const char *tag = c.linked_etag[0] ? c.linked_etag : c.etag;
            if (!etag[0])
                memcpy(etag, tag, strlen(tag) + 1);
            if (size < 0)
                size = c.linked_size >= 0 ? c.linked_size : v == HUB_CALL_OK ? c.content_length : -1;
            if (v == HUB_CALL_OK || (etag[0] && size >= 0))
                break;
            hub_call_follow(&c);
        } else if (v == HUB_CALL_AGAIN && attempt < hub_n_attempts(h->o)) {
            poll(NULL, 0, hub_retry_ms(h->o, attempt++, wait_s));
        } else {
            ok = false;
        }
    }
    hub_call_free(&c);
    if (!ok)
        return false;
    if (!f->etag[0] && etag[0])
        hub_file_set_etag(f, etag);
    f->size = f->size >= 0 ? f->size : size;
    return (f->etag[0] && f->size >= 0 && f->size <= INT64_C(1) << 50) ||
           err_set(e, ERR_FORMAT, "%s: the hub tells neither in its list nor by headers %s", f->name, f->etag[0] ? "how long it is" : "what names its content");
}
