#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "tok/tok_int.h"

void tok_js_init(struct tok_js *j, const char *text, size_t len, const char *what)
{
    *j = (struct tok_js){.start = text, .p = text, .end = text + len, .what = what};
}

bool tok_js_fail(const struct tok_js *j, struct err *e, const char *expected)
{
    size_t line = 1;
    for (const char *q = j->start; q < j->p; q++)
        line += *q == '\n';
    return err_set(e, ERR_FORMAT, "%s: line %zu, byte %zu: expected %s", j->what, line, (size_t)(j->p - j->start), expected);
}

static void skip_space(struct tok_js *j)
{
    while (j->p < j->end && (*j->p == ' ' || *j->p == '\n' || *j->p == '\r' || *j->p == '\t'))
        j->p++;
}

bool tok_js_eat(struct tok_js *j, char c)
{
    skip_space(j);
    if (j->p == j->end || *j->p != c)
        return false;
    j->p++;
    return true;
}

bool tok_js_expect(struct tok_js *j, char c, struct err *e)
{
    char what[4] = {'\'', c, '\'', 0};
    return tok_js_eat(j, c) || tok_js_fail(j, e, what);
}

/* Value of 4 hex digits at p, or -1. */
static int hex4(const char *p, const char *end)
{
    int v = 0;
    if (end - p < 4)
        return -1;
    for (int i = 0; i < 4; i++) {
        char c = p[i];
        int d = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
        if (d < 0)
            return -1;
        v = v * 16 + d;
    }
    return v;
}

/* The escape whose backslash is at j->p. */
static bool read_escape(struct tok_js *j, struct buf *b, struct err *e)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    if (j->end - j->p < 2)
        return tok_js_fail(j, e, "an escape");
    char c = j->p[1];
    const char *k = c ? strchr(from, c) : NULL;
    if (k) {
        j->p += 2;
        return buf_putc(b, to[k - from]) || tok_nomem(e);
    }
    int hi = c == 'u' ? hex4(j->p + 2, j->end) : -1;
    if (hi < 0)
        return tok_js_fail(j, e, "an escape");
    uint32_t cp = (uint32_t)hi;
    size_t used = 6;
    if (hi >= 0xd800 && hi < 0xe000) {
        int lo = hi < 0xdc00 && j->end - j->p >= 12 && j->p[6] == '\\' && j->p[7] == 'u' ? hex4(j->p + 8, j->end) : -1;
        if (lo < 0xdc00 || lo > 0xdfff)
            return tok_js_fail(j, e, "a whole surrogate pair");
        cp = 0x10000 + ((uint32_t)(hi - 0xd800) << 10) + (uint32_t)(lo - 0xdc00);
        used = 12;
    }
    char utf8[4];
    j->p += used;
    return buf_append(b, utf8, (size_t)utf8_encode(cp, utf8)) || tok_nomem(e);
}

bool tok_js_string(struct tok_js *j, struct buf *b, struct err *e)
{
    size_t at = b->len;
    if (!tok_js_eat(j, '"'))
        return tok_js_fail(j, e, "a string");
    for (;;) {
        const char *q = j->p;
        while (q < j->end && *q != '"' && *q != '\\' && (unsigned char)*q >= 0x20)
            q++;
        if (!buf_append(b, j->p, (size_t)(q - j->p)))
            return tok_nomem(e);
        j->p = q;
        if (q == j->end || (unsigned char)*q < 0x20)
            return tok_js_fail(j, e, "the end of a string");
        if (*q == '"')
            break;
        if (!read_escape(j, b, e))
            return false;
    }
    j->p++;
    return utf8_valid(b->data ? b->data + at : "", b->len - at) || tok_js_fail(j, e, "valid UTF-8 in the string before");
}

bool tok_js_number(struct tok_js *j, double *v, struct err *e)
{
    char text[64], *end;
    size_t n = 0;
    skip_space(j);
    while (j->p + n < j->end && n + 1 < sizeof text && j->p[n] && strchr("+-.0123456789eE", j->p[n])) {
        text[n] = j->p[n];
        n++;
    }
    text[n] = 0;
    *v = strtod(text, &end);
    if (n == 0 || *end)
        return tok_js_fail(j, e, "a number");
    j->p += n;
    return true;
}

/* Step over the string whose opening quote was eaten. */
static bool skip_string(struct tok_js *j)
{
    while (j->p < j->end && *j->p != '"')
        j->p += *j->p == '\\' && j->p + 1 < j->end ? 2 : 1;
    if (j->p == j->end)
        return false;
    j->p++;
    return true;
}

bool tok_js_skip(struct tok_js *j, struct tok_span *span, struct err *e)
{
    size_t depth = 0;
    skip_space(j);
    const char *start = j->p;
    while (j->p < j->end) {
        char c = *j->p;
        if (depth == 0 && j->p > start && (c == ',' || c == '}' || c == ']'))
            break;
        j->p++;
        if (c == '"' && !skip_string(j))
            return tok_js_fail(j, e, "the end of a string");
        if (c == '{' || c == '[')
            depth++;
        if (c == '}' || c == ']') {
            if (depth == 0)
                return tok_js_fail(j, e, "a value");
            depth--;
        }
        if (depth == 0 && (c == '}' || c == ']' || c == '"'))
            break;
    }
    if (depth != 0 || j->p == start)
        return tok_js_fail(j, e, "a whole value");
    *span = (struct tok_span){start, (size_t)(j->p - start)};
    return true;
}

bool tok_js_more(struct tok_js *j, char close, bool *first, bool *bad, struct err *e)
{
    bool was_first = *first;
    *first = false;
    if (tok_js_eat(j, close))
        return false;
    if (was_first || tok_js_eat(j, ','))
        return true;
    *bad = true;
    tok_js_fail(j, e, close == '}' ? "',' or '}'" : "',' or ']'");
    return false;
}
