/* The page of /metrics as OpenMetrics 1.0, made from the Prometheus text: same samples, other heads. */
#include <string.h>
#include "server/server_int.h"

struct span { const char *s; size_t n; };

static struct span take_line(const char **text)
{
    size_t n = strcspn(*text, "\n");
    struct span line = {*text, n};
    *text += n + ((*text)[n] == '\n');
    return line;
}

static struct span take_word(struct span *line)
{
    struct span w = {line->s, 0};
    while (w.n < line->n && w.s[w.n] != ' ')
        w.n++;
    size_t skip = w.n + (w.n < line->n);
    line->s += skip;
    line->n -= skip;
    return w;
}

static bool is(struct span w, const char *text) { return w.n == strlen(text) && memcmp(w.s, text, w.n) == 0; }

static bool begins(struct span line, const char *with) { return line.n >= strlen(with) && memcmp(line.s, with, strlen(with)) == 0; }

/* A counter is named without the _total that its sample has; one whose sample has none is of unknown type. */
static void write_head(struct span help, struct span type_line, struct buf *out)
{
    static const char total[] = "_total";
    struct span type = type_line;
    for (int i = 0; i < 3; i++)
        take_word(&type);              /* "#", "TYPE", the name */
    take_word(&help);
    take_word(&help);
    struct span name = take_word(&help);
    bool counter = is(type, "counter"), ends = name.n > sizeof total - 1 && memcmp(name.s + name.n - (sizeof total - 1), total, sizeof total - 1) == 0;
    if (counter && ends)
        name.n -= sizeof total - 1;
    buf_printf(out, "# TYPE %.*s %.*s\n# HELP %.*s ", (int)name.n, name.s, counter && !ends ? 7 : (int)type.n, counter && !ends ? "unknown" : type.s,
               (int)name.n, name.s);
    for (size_t i = 0; i < help.n; i++) {
        if (help.s[i] == '"')
            buf_putc(out, '\\');
        buf_putc(out, help.s[i]);
    }
    buf_putc(out, '\n');
}

/* Bounds of buckets are written as floats: le="1.0". */
static void write_sample(struct span line, struct buf *out)
{
    static const char le[] = ",le=\"";
    const char *at = memmem(line.s, line.n, le, sizeof le - 1), *end = line.s + line.n;
    const char *close = at ? memchr(at + sizeof le - 1, '"', (size_t)(end - at) - (sizeof le - 1)) : NULL;
    if (close && strspn(at + sizeof le - 1, "0123456789") == (size_t)(close - at) - (sizeof le - 1)) {
        buf_append(out, line.s, (size_t)(close - line.s));
        buf_puts(out, ".0");
        buf_append(out, close, (size_t)(end - close));
    } else {
        buf_append(out, line.s, line.n);
    }
    buf_putc(out, '\n');
}

void server_write_openmetrics(const char *prometheus, struct buf *out)
{
    struct span help = {"", 0};
    while (*prometheus) {
        struct span line = take_line(&prometheus);
        if (begins(line, "# HELP "))
            help = line;
        else if (begins(line, "# TYPE "))
            write_head(help, line, out);
        else if (line.n)
            write_sample(line, out);
    }
    buf_puts(out, "# EOF\n");
}
