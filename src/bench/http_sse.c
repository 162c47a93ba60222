#include "bench/http_sse.h"

#include <string.h>

void bench_sse_init(struct bench_sse *s, size_t limit)
{
    *s = (struct bench_sse){0};
    buf_init(&s->line, limit);
    buf_init(&s->data, limit);
}

void bench_sse_free(struct bench_sse *s)
{
    buf_free(&s->line);
    buf_free(&s->data);
}

static bool end_event(struct bench_sse *s, bool (*event)(void *, const char *, size_t), void *ctx)
{
    bool ok = !s->has_data || event(ctx, s->data.data ? s->data.data : "", s->data.len);
    buf_clear(&s->data);
    s->has_data = false;
    return ok;
}

static bool end_line(struct bench_sse *s, bool (*event)(void *, const char *, size_t), void *ctx)
{
    const char *line = s->line.data;
    size_t len = s->line.len;
    if (len == 0)
        return end_event(s, event, ctx);
    bool ok = true;
    if (len >= 4 && memcmp(line, "data", 4) == 0 && (len == 4 || line[4] == ':')) {
        size_t skip = len == 4 ? 4 : len > 5 && line[5] == ' ' ? 6 : 5;
        ok = (!s->has_data || buf_putc(&s->data, '\n')) && buf_append(&s->data, line + skip, len - skip);
        s->has_data = true;
    }
    buf_clear(&s->line);
    return ok;
}

bool bench_sse_feed(struct bench_sse *s, const char *p, size_t n, bool (*event)(void *ctx, const char *data, size_t len), void *ctx)
{
    const char *end = p + n;
    while (p < end) {
        if (s->after_cr && *p == '\n') {
            s->after_cr = false;
            p++;
            continue;
        }
        s->after_cr = false;
        const char *stop = p;
        while (stop < end && *stop != '\n' && *stop != '\r')
            stop++;
        if (stop > p && !buf_append(&s->line, p, (size_t)(stop - p)))
            return false;
        if (stop == end)
            return true;
        s->after_cr = *stop == '\r';
        if (!end_line(s, event, ctx))
            return false;
        p = stop + 1;
    }
    return true;
}
