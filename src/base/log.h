/* base/log.h - structured log lines on stderr, as text or as one JSON object a line.
 *
 *   log_info(lg, "request", "id=%s status=%d", id, status);
 *
 * text:  2026-01-31T12:00:00.123Z info request id=... status=200
 * json:  {"ts":"...","level":"info","event":"request","msg":"id=... status=200"}
 * Levels: error - something is broken; warn - works, but not as asked; info - life cycle and
 * one line a request; debug - one line a decision; trace - one line a step. */
#ifndef QUIRE_BASE_LOG_H
#define QUIRE_BASE_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include "base/err.h"

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG, LOG_TRACE };
enum log_format { LOG_TEXT, LOG_JSON };

/* Thread safe: each line (of up to PIPE_BUF bytes) is one write(2).  fd is borrowed.  A reader of a pipe that stops reading holds nobody up for longer
 * than a moment: lines are lost, and counted, until it goes on. */
struct log;
struct log *log_open(int fd, enum log_level level, enum log_format format); /* NULL: no memory */
/* Appends to a file, which is created (readable by its owner's group) when it is not there. */
bool log_open_file(struct log **out, const char *path, enum log_level level, enum log_format format, struct err *e);
/* Opens the file by its name again, for rotation by renaming; on an error the old one is kept.  Nothing to do for a log of a descriptor. */
bool log_reopen(struct log *lg, struct err *e);
/* Lines that could not be written, all or in part: the disk is full, the pipe closed, or nobody reads it. */
unsigned long long log_n_lost(const struct log *lg);
void log_close(struct log **lg);
bool log_enabled(const struct log *lg, enum log_level level);  /* lg NULL: false */
void log_set_level(struct log *lg, enum log_level level);
bool log_level_parse(const char *name, enum log_level *out);

/* lg may be NULL: nothing is written. */
void log_line(struct log *lg, enum log_level level, const char *event, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/* A line of named values: "a=1 b=x" in text, members of the object in JSON.  raw: text is a JSON number, true or false; else it is a
 * string.  Names are our own: plain words. */
struct log_field { const char *name, *text; bool raw; };
void log_fields(struct log *lg, enum log_level level, const char *event, const struct log_field *fields, size_t n);

#define log_error(lg, ...) log_line((lg), LOG_ERROR, __VA_ARGS__)
#define log_warn(lg, ...) log_line((lg), LOG_WARN, __VA_ARGS__)
#define log_info(lg, ...) log_line((lg), LOG_INFO, __VA_ARGS__)
#define log_debug(lg, ...) log_line((lg), LOG_DEBUG, __VA_ARGS__)
#define log_trace(lg, ...) log_line((lg), LOG_TRACE, __VA_ARGS__)

#endif
