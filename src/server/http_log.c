/* The access log: one line a request. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/clock.h"
#include "server/http_int.h"

enum { MAX_FIELDS = 32 };

struct line { struct log_field fields[MAX_FIELDS]; size_t n; };

static void add(struct line *l, const char *name, const char *text, bool raw)
{
    if (l->n < MAX_FIELDS)
        l->fields[l->n++] = (struct log_field){name, text, raw};
}

static bool is_number(const char *s)
{
    char *end;
    (void)strtod(s, &end);
    return *s && *end == 0 && (s[0] == '-' || (s[0] >= '0' && s[0] <= '9')) && strspn(s, "-+.0123456789eE") == strlen(s);
}

/* " name=value name=value", cut into strings. */
static void add_described(struct line *l, char *text)
{
    char *save = NULL;
    for (char *word = strtok_r(text, " ", &save); word; word = strtok_r(NULL, " ", &save)) {
        char *eq = strchr(word, '=');
        if (!eq)
            continue;
        *eq = 0;
        add(l, word, eq + 1, is_number(eq + 1));
    }
}

void http_log_request(struct http_exchange *x, int status, bool complete, bool describe)
{
    struct log *lg = x->h->o.access_log;
    enum log_level level = x->route && x->route->flags & HTTP_QUIET && status < 400 ? LOG_DEBUG : LOG_INFO;
    struct line l = {.n = 0};
    char path[201], code[16], bytes[24], ms[32];
    struct buf extra;
    if (!log_enabled(lg, level))
        return;
    buf_init(&extra, 4096);
    if (describe && x->is_pull && x->pull.describe)
        x->pull.describe(x->pull.ctx, &extra);
    snprintf(path, sizeof path, "%s", x->path);
    snprintf(code, sizeof code, "%d", status);
    snprintf(bytes, sizeof bytes, "%lld", (long long)x->n_sent);
    snprintf(ms, sizeof ms, "%.1f", (double)(clock_now_us() - x->start_us) / 1e3);
    add(&l, "id", x->id, false);
    add(&l, "client", x->client, false);
    if (x->holder)
        add(&l, "key", http_key_name(x->holder), false);
    add(&l, "method", x->method, false);
    add(&l, "path", path, false);
    add(&l, "status", code, true);
    add(&l, "bytes", bytes, true);
    add(&l, "ms", ms, true);
    if (!complete)
        add(&l, "cut", "true", true);
    if (x->trace_id[0]) {
        add(&l, "trace_id", x->trace_id, false);
        add(&l, "parent_id", x->span_id, false);
    }
    if (extra.data && !extra.failed)
        add_described(&l, extra.data);
    log_fields(lg, level, "http", l.fields, l.n);
    buf_free(&extra);
}
