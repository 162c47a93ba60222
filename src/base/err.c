#include "base/err.h"

#include <stdio.h>
#include <string.h>

#include "base/utf8.h"

/* Text that came from a file or a request may hold anything; the message stays one line. */
static void flatten(char *s)
{
    for (; *s; s++)
        if ((unsigned char)*s < 0x20 || *s == 0x7f)
            *s = ' ';
}

/* Formats into out[cap], dropping a character that the end of the buffer cut in two. */
static void format_line(char *out, size_t cap, const char *fmt, va_list ap)
{
    int n = vsnprintf(out, cap, fmt, ap);
    if (n < 0)
        out[0] = '\0';
    else if ((size_t)n >= cap)
        out[utf8_complete_prefix(out, cap - 1)] = '\0';
    flatten(out);
}

bool err_vset(struct err *e, enum err_code code, const char *fmt, va_list ap)
{
    if (!e)
        return false;
    /* Not straight into e->msg: an argument may point there. */
    char line[sizeof e->msg];
    format_line(line, sizeof line, fmt, ap);
    e->code = code;
    memcpy(e->msg, line, strlen(line) + 1);
    return false;
}

bool err_set(struct err *e, enum err_code code, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    err_vset(e, code, fmt, ap);
    va_end(ap);
    return false;
}

bool err_prefix(struct err *e, const char *fmt, ...)
{
    if (!e)
        return false;
    char line[sizeof e->msg];
    va_list ap;
    va_start(ap, fmt);
    format_line(line, sizeof line - 2, fmt, ap);
    va_end(ap);
    size_t n = strlen(line);
    line[n++] = ':';
    line[n++] = ' ';
    size_t room = sizeof line - n - 1, old = strlen(e->msg);
    if (old > room)
        old = utf8_complete_prefix(e->msg, room);
    memcpy(line + n, e->msg, old);
    line[n + old] = '\0';
    memcpy(e->msg, line, n + old + 1);
    return false;
}

const char *err_code_name(enum err_code code)
{
    static const char *const names[] = {
#define X(sym, name, text) name,
        ERR_CODES(X)
#undef X
    };
    return (unsigned)code < ERR_N_CODES ? names[code] : "unknown";
}
