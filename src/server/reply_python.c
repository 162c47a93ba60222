/* Calls as Python writes them, with literal arguments: f(a=1, b=[True, 'x'], c={'k': None}). */
#include <stdlib.h>
#include <string.h>
#include "base/json.h"
#include "server/reply.h"

enum { MAX_DEPTH = 64, MAX_NAME = 256 };

struct python { const char *at, *end; struct buf *out; int depth; };

static bool is_name(char c, bool first)
{
    return c == '_' || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (!first && ((c >= '0' && c <= '9') || c == '.' || c == '-'));
}

static void blanks(struct python *p)
{
    while (p->at < p->end && (*p->at == ' ' || *p->at == '\n' || *p->at == '\t' || *p->at == '\r'))
        p->at++;
}

static bool eat(struct python *p, char c)
{
    blanks(p);
    return p->at < p->end && *p->at == c && p->at++;
}

static bool word(struct python *p, const char *w)
{
    size_t n = strlen(w);
    if ((size_t)(p->end - p->at) < n || memcmp(p->at, w, n) != 0 || ((size_t)(p->end - p->at) > n && is_name(p->at[n], false)))
        return false;
    p->at += n;
    return true;
}

ptrdiff_t reply_python_length(const char *text, size_t len)
{
    size_t i = 0;
    int depth = 0;
    char quote = 0;
    while (i < len && i <= MAX_NAME && is_name(text[i], i == 0))
        i++;
    if (i == len && i <= MAX_NAME)
        return 0;
    if (i == 0 || i > MAX_NAME || text[i] != '(')
        return -1;
    for (; i < len; i++) {
        char c = text[i];
        if (quote) {
            if (c == '\\')
                i++;
            else if (c == quote)
                quote = 0;
        } else if (c == '"' || c == '\'') {
            quote = c;
        } else if (c == '(' || c == '[' || c == '{') {
            depth++;
        } else if (c == ')' || c == ']' || c == '}') {
            if (--depth == 0)
                return c == ')' ? (ptrdiff_t)i + 1 : -1;
        }
    }
    return 0;
}

static bool hex(struct python *p, int digits, unsigned *out)
{
    *out = 0;
    for (int i = 0; i < digits; i++, p->at++) {
        char c = p->at < p->end ? *p->at : 0;
        int v = c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;
        if (v < 0)
            return false;
        *out = *out * 16 + (unsigned)v;
    }
    return true;
}

static void put_utf8(struct buf *b, unsigned c)
{
    if (c > 0x10ffff || (c >= 0xd800 && c < 0xe000))
        c = 0xfffd;
    if (c < 0x80) {
        buf_putc(b, (char)c);
    } else if (c < 0x800) {
        buf_putc(b, (char)(0xc0 | c >> 6));
    } else {
        if (c < 0x10000) {
            buf_putc(b, (char)(0xe0 | c >> 12));
        } else {
            buf_putc(b, (char)(0xf0 | c >> 18));
            buf_putc(b, (char)(0x80 | (c >> 12 & 63)));
        }
        buf_putc(b, (char)(0x80 | (c >> 6 & 63)));
    }
    if (c >= 0x80)
        buf_putc(b, (char)(0x80 | (c & 63)));
}

/* The rest of an escape, behind its backslash. */
static bool escape(struct python *p, struct buf *b)
{
    static const char from[] = "ntrabfv0\\'\"", to[] = "\n\t\r\a\b\f\v\0\\'\"";
    unsigned c;
    if (p->at == p->end)
        return false;
    char e = *p->at++;
    const char *hit = memchr(from, e, sizeof from - 1);
    if (hit) {
        buf_putc(b, to[hit - from]);
    } else if (e == 'x' || e == 'u' || e == 'U') {
        if (!hex(p, e == 'x' ? 2 : e == 'u' ? 4 : 8, &c))
            return false;
        put_utf8(b, c);
    } else if (e != '\n') {
        buf_putc(b, '\\');
        buf_putc(b, e);
    }
    return true;
}

static bool string(struct python *p)
{
    struct buf b;
    char quote = *p->at++;
    bool ok = true;
    buf_init(&b, 0);
    while (ok && p->at < p->end && *p->at != quote) {
        char c = *p->at++;
        if (c == '\\')
            ok = escape(p, &b);
        else
            buf_putc(&b, c);
    }
    ok = ok && p->at < p->end && p->at++ && json_write_str(p->out, b.data ? b.data : "", b.len);
    p->out->failed |= b.failed;
    buf_free(&b);
    return ok;
}

/* Digits, a point, an exponent: what JSON takes as well, otherwise no. */
static bool number(struct python *p)
{
    char text[64];
    size_t n = 0;
    while (p->at < p->end && n + 1 < sizeof text && (strchr("+-.eE_", *p->at) || (*p->at >= '0' && *p->at <= '9'))) {
        if (*p->at != '_')
            text[n++] = *p->at;
        p->at++;
    }
    text[n] = 0;
    json_t *v = n ? json_loadb(text, n, JSON_DECODE_ANY, NULL) : NULL;
    bool ok = v && buf_append(p->out, text, n);
    json_decref(v);
    return ok;
}

static bool value(struct python *p);

static bool items(struct python *p, char close, bool pairs)
{
    bool ok = true;
    for (int n = 0; ok && !eat(p, close); n++) {
        if (n > 0)
            ok = eat(p, ',');
        if (ok && n > 0 && eat(p, close))
            break;
        if (n > 0)
            buf_putc(p->out, ',');
        blanks(p);
        if (pairs)
            ok = ok && p->at < p->end && (*p->at == '"' || *p->at == '\'') && string(p) && eat(p, ':') && buf_putc(p->out, ':');
        ok = ok && value(p);
    }
    return ok;
}

static bool value(struct python *p)
{
    static const char *const words[][2] = {{"True", "true"}, {"False", "false"}, {"None", "null"}, {"true", "true"}, {"false", "false"}, {"null", "null"}};
    blanks(p);
    if (p->at == p->end || p->depth >= MAX_DEPTH)
        return false;
    char c = *p->at;
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (word(p, words[i][0]))
            return buf_puts(p->out, words[i][1]);
    if (c == '"' || c == '\'')
        return string(p);
    if (c != '[' && c != '(' && c != '{')
        return number(p);
    p->at++;
    p->depth++;
    buf_putc(p->out, c == '{' ? '{' : '[');
    bool ok = items(p, c == '{' ? '}' : c == '(' ? ')' : ']', c == '{');
    p->depth--;
    return ok && buf_putc(p->out, c == '{' ? '}' : ']');
}

bool reply_python_call(const char *text, size_t len, struct buf *name, struct buf *arguments)
{
    struct python p = {.at = text, .end = text + len, .out = arguments};
    while (p.at < p.end && is_name(*p.at, p.at == text))
        p.at++;
    if (p.at == text || !buf_append(name, text, (size_t)(p.at - text)) || !eat(&p, '('))
        return false;
    buf_putc(arguments, '{');
    for (int n = 0; !eat(&p, ')'); n++) {
        if (n > 0 && !eat(&p, ','))
            return false;
        if (n > 0 && eat(&p, ')'))
            break;
        blanks(&p);
        const char *key = p.at;
        while (p.at < p.end && is_name(*p.at, p.at == key))
            p.at++;
        size_t key_len = (size_t)(p.at - key);
        if (key_len == 0 || (n > 0 && !buf_putc(arguments, ',')) || !json_write_str(arguments, key, key_len) || !eat(&p, '=') || !buf_putc(arguments, ':') || !value(&p))
            return false;
    }
    return p.at == p.end && buf_putc(arguments, '}');
}
