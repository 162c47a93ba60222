#include "server/http_header.h"

#include <string.h>
#include <strings.h>

enum { MAX_ID = 128 };

bool http_header_is_id(const char *s)
{
    size_t n = 0;
    for (; s[n]; n++)
        if (s[n] <= 0x20 || s[n] >= 0x7f || n >= MAX_ID)
            return false;
    return n > 0;
}

/* n lower-case hex digits at s, not all zero. */
static bool hex_id(const char *s, size_t n)
{
    size_t zeros = strspn(s, "0");
    return strspn(s, "0123456789abcdef") >= n && zeros < n;
}

bool http_header_traceparent(const char *s, char trace_id[33], char span_id[17])
{
    enum { VERSION = 0, TRACE = 3, SPAN = 36, FLAGS = 53, END = 55 };
    static const char hex[] = "0123456789abcdef";
    size_t len = strnlen(s, 512);
    if (len < END || strspn(s, hex) != 2 || strncmp(s, "ff", 2) == 0 || s[TRACE - 1] != '-' || s[SPAN - 1] != '-' || s[FLAGS - 1] != '-')
        return false;
    if (!hex_id(s + TRACE, 32) || !hex_id(s + SPAN, 16) || strspn(s + FLAGS, hex) != 2)
        return false;
    /* Version 00 ends here; later ones may go on after another dash. */
    if (len > END && (strncmp(s, "00", 2) == 0 || s[END] != '-'))
        return false;
    memcpy(trace_id, s + TRACE, 32);
    trace_id[32] = 0;
    memcpy(span_id, s + SPAN, 16);
    span_id[16] = 0;
    return true;
}

/* A decimal number such as 2 or 0.25 at *s, which is moved behind it. */
static bool read_decimal(const char **s, double *out)
{
    double v = 0, unit = 1;
    const char *at = *s;
    for (; *at >= '0' && *at <= '9' && v < 1e15; at++)
        v = v * 10 + (*at - '0');
    if (at == *s)
        return false;
    if (*at == '.')
        for (at++; *at >= '0' && *at <= '9'; at++)
            v += (*at - '0') * (unit /= 10);
    *s = at;
    *out = v;
    return true;
}

bool http_header_seconds(const char *s, int64_t *us)
{
    double v;
    if (!read_decimal(&s, &v) || *s || v > 1e9 || v < 1e-6)
        return false;
    *us = (int64_t)(v * 1e6 + 0.5);
    return true;
}

bool http_header_is_true(const char *s) { return strcmp(s, "1") == 0 || strcasecmp(s, "true") == 0; }

/* The range that begins at s, its q in *q (1 unless said), and where the next begins. */
static const char *next_range(const char *s, const char **name, size_t *n, double *q)
{
    s += strspn(s, " \t,");
    *name = s;
    *n = strcspn(s, ";, \t");
    *q = 1;
    const char *end = s + strcspn(s, ",");
    for (const char *p = s + *n; p < end; p++)
        if (*p == ';') {
            p += 1 + strspn(p + 1, " \t");
            if ((*p == 'q' || *p == 'Q') && p[1] == '=') {
                const char *at = p + 2;
                if (!read_decimal(&at, q))
                    *q = 0;
            }
            p--;
        }
    return end;
}

bool http_header_wants_openmetrics(const char *accept)
{
    double open = 0, text = 0, q;
    size_t n;
    for (const char *name; *accept;) {
        accept = next_range(accept, &name, &n, &q);
        if (n == strlen("application/openmetrics-text") && strncasecmp(name, "application/openmetrics-text", n) == 0)
            open = q > open ? q : open;
        else if ((n == strlen("text/plain") && strncasecmp(name, "text/plain", n) == 0) || (n == 3 && strncmp(name, "*/*", n) == 0))
            text = q > text ? q : text;
    }
    return open > 0 && open >= text;
}
