#include "base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/utf8.h"

static const char *const level_names[] = {"error", "warn", "info", "debug", "trace"};

struct log {
    int fd;
    enum log_format format;
    _Atomic(int) level;
};

struct log *log_open(int fd, enum log_level level, enum log_format format)
{
    struct log *lg = mem_try_zalloc(1, sizeof *lg);
    if (!lg)
        return NULL;
    lg->fd = fd;
    lg->format = format;
    atomic_init(&lg->level, (int)level);
    return lg;
}

void log_close(struct log **lg)
{
    mem_free(*lg);
    *lg = NULL;
}

bool log_enabled(const struct log *lg, enum log_level level)
{
    return lg && (int)level <= atomic_load_explicit(&lg->level, memory_order_relaxed);
}

void log_set_level(struct log *lg, enum log_level level)
{
    atomic_store_explicit(&lg->level, (int)level, memory_order_relaxed);
}

bool log_level_parse(const char *name, enum log_level *out)
{
    for (int i = 0; i <= LOG_TRACE; i++)
        if (strcmp(name, level_names[i]) == 0) {
            *out = (enum log_level)i;
            return true;
        }
    return false;
}

/* Text for a terminal: control characters and broken UTF-8 are made visible, so that what a
 * client sends can neither forge a line nor move the cursor. */
static void append_visible(struct buf *b, const char *s, size_t n)
{
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        int len = utf8_decode(s + i, n - i, &cp);
        if (len == 0)
            buf_printf(b, "\\x%02x", (unsigned)(unsigned char)s[i]);
        else if (cp == '\n' || cp == '\r' || cp == '\t')
            buf_append(b, cp == '\n' ? "\\n" : cp == '\r' ? "\\r" : "\\t", 2);
        else if (cp < 0x20 || (cp >= 0x7f && cp < 0xa0))
            buf_printf(b, "\\x%02x", (unsigned)cp);
        else
            buf_append(b, s + i, (size_t)len);
        i += len ? (size_t)len : 1;
    }
}

static void build_line(struct buf *b, const struct log *lg, enum log_level level, const char *event,
                       const char *msg, size_t len)
{
    char ts[32];
    clock_format_utc(ts, sizeof ts);
    if (lg->format == LOG_JSON) {
        buf_printf(b, "{\"ts\":\"%s\",\"level\":\"%s\",\"event\":", ts, level_names[level]);
        json_write_str(b, event, strlen(event));
        buf_puts(b, ",\"msg\":");
        json_write_str(b, msg, len);
        buf_putc(b, '}');
    } else {
        buf_printf(b, "%s %s ", ts, level_names[level]);
        append_visible(b, event, strlen(event));
        buf_putc(b, ' ');
        append_visible(b, msg, len);
    }
    buf_putc(b, '\n');
}

/* One write for the line; more only if the kernel took a part of it (a full pipe). */
static void write_line(int fd, const char *s, size_t n)
{
    while (n) {
        ssize_t put = write(fd, s, n);
        if (put < 0 && errno == EINTR)
            continue;
        if (put <= 0)
            return; /* nowhere to complain */
        s += put;
        n -= (size_t)put;
    }
}

void log_line(struct log *lg, enum log_level level, const char *event, const char *fmt, ...)
{
    static const char lost_text[] = "error log out of memory: a line is missing\n";
    static const char lost_json[] = "{\"level\":\"error\",\"event\":\"log\",\"msg\":\"out of memory: a line is missing\"}\n";
    if (!log_enabled(lg, level))
        return;
    int saved_errno = errno;
    char small[1024], *msg = small;
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(small, sizeof small, fmt, ap);
    va_end(ap);
    size_t len = n < 0 ? 0 : (size_t)n;
    if (len >= sizeof small) {
        msg = mem_try_alloc(len + 1, 1);
        if (msg) {
            va_start(ap, fmt);
            vsnprintf(msg, len + 1, fmt, ap);
            va_end(ap);
        } else { /* the beginning is better than nothing */
            msg = small;
            len = utf8_complete_prefix(small, sizeof small - 1);
        }
    }
    struct buf line;
    buf_init(&line, 0);
    build_line(&line, lg, level, event, msg, len);
    if (!line.failed)
        write_line(lg->fd, line.data, line.len);
    else if (lg->format == LOG_JSON)
        write_line(lg->fd, lost_json, sizeof lost_json - 1);
    else
        write_line(lg->fd, lost_text, sizeof lost_text - 1);
    buf_free(&line);
    if (msg != small)
        mem_free(msg);
    errno = saved_errno;
}
