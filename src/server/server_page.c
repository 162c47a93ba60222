#include "server/server_page.h"

#include <math.h>

void server_page_label(struct buf *out, const char *s)
{
    for (; *s; s++) {
        if (*s == '\\' || *s == '"')
            buf_putc(out, '\\');
        if (*s == '\n')
            buf_puts(out, "\\n");
        else
            buf_putc(out, *s);
    }
}

void server_page_number(struct buf *out, double x)
{
    if (x == floor(x) && fabs(x) < 1e15)
        buf_printf(out, "%.0f\n", x);
    else
        buf_printf(out, "%.17g\n", x);
}

void server_page_head(struct server_page *p, const char *prefix, const char *name, const char *type, const char *help)
{
    buf_printf(p->out, "# HELP %s%s %s\n# TYPE %s%s %s\n", prefix, name, help, prefix, name, type);
}

void server_page_one(struct server_page *p, const char *prefix, const char *name, const char *type, double value, const char *help)
{
    server_page_head(p, prefix, name, type, help);
    buf_printf(p->out, "%s%s{%s} ", prefix, name, p->labels);
    server_page_number(p->out, value);
}

void server_page_hist(struct server_page *p, const char *prefix, const char *name, const char *extra, const struct server_hist *h)
{
    uint64_t below = 0;
    const char *comma = extra ? "," : "";
    extra = extra ? extra : "";
    for (int i = 0; i < h->n; i++) {
        below += h->counts[i];
        buf_printf(p->out, "%s%s_bucket{%s%s%s,le=\"%.10g\"} %llu\n", prefix, name, p->labels, comma, extra, h->bounds ? h->bounds[i] : h->step * (i + 1),
                   (unsigned long long)below);
    }
    buf_printf(p->out, "%s%s_bucket{%s%s%s,le=\"+Inf\"} %llu\n", prefix, name, p->labels, comma, extra, (unsigned long long)h->total);
    buf_printf(p->out, "%s%s_sum{%s%s%s} ", prefix, name, p->labels, comma, extra);
    server_page_number(p->out, h->sum);
    buf_printf(p->out, "%s%s_count{%s%s%s} %llu\n", prefix, name, p->labels, comma, extra, (unsigned long long)h->total);
}

void server_page_engine_hist(struct server_page *p, const char *prefix, const char *name, const char *extra, const struct engine_hist *h)
{
    server_page_hist(p, prefix, name, extra, &(struct server_hist){.bounds = h->bounds, .n = h->n, .counts = h->counts, .sum = h->sum, .total = h->total});
}
