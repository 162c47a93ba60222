#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/utf8.h"

static const char *const level_names[] = {"error", "warn", "info", "debug", "trace"};

struct log {
    int fd;
    char *path;                 /* NULL: fd is borrowed */
    atomic_ullong n_lost;
    bool may_block;             /* a pipe, socket or terminal, whose other end may stop reading */
    pthread_mutex_t lock;       /* of writing */
    bool torn;                  /* the last line was written in part: the next begins a line of its own */
    bool stalled;               /* nobody took the last one */
    enum log_format format;
    _Atomic(int) level;
};

struct log *log_open(int fd, enum log_level level, enum log_format format)
{
    struct log *lg = mem_try_zalloc(1, sizeof *lg);
    if (!lg)
        return NULL;
    struct stat st;
    int saved_errno = errno;
    lg->fd = fd;
    lg->may_block = fstat(fd, &st) == 0 && !S_ISREG(st.st_mode);
    errno = saved_errno;
    pthread_mutex_init(&lg->lock, NULL);
    lg->format = format;
    atomic_init(&lg->level, (int)level);
    return lg;
}

static int open_path(const char *path) { return open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0640); }

bool log_open_file(struct log **out, const char *path, enum log_level level, enum log_format format, struct err *e)
{
    int fd = open_path(path);
    *out = NULL;
    if (fd < 0)
        return err_set(e, ERR_IO, "%s cannot be written: %s", path, strerror(errno));
    struct log *lg = log_open(fd, level, format);
    if (lg && (lg->path = mem_try_strdup(path))) {
        *out = lg;
        return true;
    }
    log_close(&lg);
    close(fd);
    return err_set(e, ERR_NOMEM, "out of memory");
}

/* The new file takes the old one's descriptor, so that writers on other threads see one or the other and never none. */
bool log_reopen(struct log *lg, struct err *e)
{
    if (!lg || !lg->path)
        return true;
    int fd = open_path(lg->path);
    if (fd < 0)
        return err_set(e, ERR_IO, "%s cannot be written: %s", lg->path, strerror(errno));
    bool ok = dup3(fd, lg->fd, O_CLOEXEC) >= 0 || err_set(e, ERR_IO, "%s: %s", lg->path, strerror(errno));
    close(fd);
    return ok;
}

unsigned long long log_n_lost(const struct log *lg) { return lg ? atomic_load_explicit(&lg->n_lost, memory_order_relaxed) : 0; }

void log_close(struct log **lg)
{
    if (*lg && (*lg)->path) {
        close((*lg)->fd);
        mem_free((*lg)->path);
    }
    if (*lg)
        pthread_mutex_destroy(&(*lg)->lock);
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

/* What every line begins with. */
static void begin_line(struct buf *b, const struct log *lg, enum log_level level, const char *event)
{
    char ts[32];
    clock_format_utc(ts, sizeof ts);
    if (lg->format == LOG_JSON) {
        buf_printf(b, "{\"ts\":\"%s\",\"level\":\"%s\",\"event\":", ts, level_names[level]);
        json_write_str(b, event, strlen(event));
    } else {
        buf_printf(b, "%s %s ", ts, level_names[level]);
        append_visible(b, event, strlen(event));
    }
}

static void build_line(struct buf *b, const struct log *lg, enum log_level level, const char *event,
                       const char *msg, size_t len)
{
    begin_line(b, lg, level, event);
    if (lg->format == LOG_JSON) {
        buf_puts(b, ",\"msg\":");
        json_write_str(b, msg, len);
        buf_putc(b, '}');
    } else {
        buf_putc(b, ' ');
        append_visible(b, msg, len);
    }
    buf_putc(b, '\n');
}

/* Room for PIPE_BUF bytes.  A reader that has stopped is waited for once, for a moment; until it reads again, lines are lost instead: our
 * threads have better things to do. */
static bool wait_for_room(struct log *lg)
{
    struct pollfd p = {.fd = lg->fd, .events = POLLOUT};
    enum { PATIENCE_MS = 200 };
    if (!lg->may_block)
        return true;
    int n = poll(&p, 1, lg->stalled ? 0 : PATIENCE_MS);
    lg->stalled = n == 0;
    return n != 0;
}

static bool put_all(struct log *lg, const char *s, size_t n, size_t *done)
{
    for (*done = 0; *done < n;) {
        size_t piece = n - *done < PIPE_BUF || !lg->may_block ? n - *done : PIPE_BUF;
        ssize_t put = wait_for_room(lg) ? write(lg->fd, s + *done, piece) : -1;
        if (put < 0 && !lg->stalled && errno == EINTR)
            continue;
        if (put <= 0)
            return false;
        *done += (size_t)put;
    }
    return true;
}

/* One write for the line, unless it is very long or only a part of it was taken.  What cannot be written is counted: there is nowhere
 * to complain. */
static void write_line(struct log *lg, const char *s, size_t n)
{
    size_t done = 0;
    pthread_mutex_lock(&lg->lock);
    if (lg->torn)
        lg->torn = !put_all(lg, "\n", 1, &done);
    if (!put_all(lg, s, n, &done)) {
        atomic_fetch_add_explicit(&lg->n_lost, 1, memory_order_relaxed);
        lg->torn |= done > 0;
    }
    pthread_mutex_unlock(&lg->lock);
}

/* Writes a complete line, or says that there was no memory for it. */
static void finish_line(struct log *lg, struct buf *line)
{
    static const char lost_text[] = "error log out of memory: a line is missing\n";
    static const char lost_json[] = "{\"level\":\"error\",\"event\":\"log\",\"msg\":\"out of memory: a line is missing\"}\n";
    if (!line->failed)
        write_line(lg, line->data, line->len);
    else if (lg->format == LOG_JSON)
        write_line(lg, lost_json, sizeof lost_json - 1);
    else
        write_line(lg, lost_text, sizeof lost_text - 1);
    buf_free(line);
}

void log_line(struct log *lg, enum log_level level, const char *event, const char *fmt, ...)
{
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
    finish_line(lg, &line);
    if (msg != small)
        mem_free(msg);
    errno = saved_errno;
}

void log_fields(struct log *lg, enum log_level level, const char *event, const struct log_field *fields, size_t n)
{
    struct buf line;
    if (!log_enabled(lg, level))
        return;
    int saved_errno = errno;
    buf_init(&line, 0);
    begin_line(&line, lg, level, event);
    for (size_t i = 0; i < n; i++) {
        const struct log_field *f = &fields[i];
        if (lg->format == LOG_JSON) {
            buf_printf(&line, ",\"%s\":", f->name);
            if (f->raw)
                buf_puts(&line, f->text);
            else
                json_write_str(&line, f->text, strlen(f->text));
        } else {
            buf_printf(&line, " %s=", f->name);
            append_visible(&line, f->text, strlen(f->text));
        }
    }
    buf_puts(&line, lg->format == LOG_JSON ? "}\n" : "\n");
    finish_line(lg, &line);
    errno = saved_errno;
}
