/* base/err.h - error codes and messages.
 *
 * Cold functions that can fail return bool and take `struct err *e` last: on false, *e holds
 * a code and one line that says what was wrong, where, and what was expected and found.
 * Hot functions return a code or a bool alone.  Nothing below cli/ prints, exits or aborts
 * on bad input; the caller decides (STYLE rules 12-16).
 *
 * e may be NULL everywhere: then only the return value tells. */
#ifndef QUIRE_BASE_ERR_H
#define QUIRE_BASE_ERR_H

#include <stdarg.h>
#include <stdbool.h>

/* X(symbol, name, text): the one list of codes.  server/ maps them to HTTP in one table. */
#define ERR_CODES(X)                                                                            \
    X(ERR_OK, "ok", "no error")                                                                 \
    X(ERR_INVALID, "invalid", "the input is not valid")                                         \
    X(ERR_NOT_FOUND, "not_found", "no such thing")                                              \
    X(ERR_UNSUPPORTED, "unsupported", "valid, but not supported here")                          \
    X(ERR_FORMAT, "format", "a file does not follow its format")                                \
    X(ERR_IO, "io", "the operating system refused a read, write or call")                       \
    X(ERR_NOMEM, "nomem", "memory could not be had")                                            \
    X(ERR_TOO_LARGE, "too_large", "can never fit the configured limits")                        \
    X(ERR_OVERLOADED, "overloaded", "does not fit now; try again later")                        \
    X(ERR_DRAINING, "draining", "shutting down; no new work is taken")                          \
    X(ERR_CANCELLED, "cancelled", "the requester gave up")                                      \
    X(ERR_TIMEOUT, "timeout", "a deadline passed")                                              \
    X(ERR_INTERNAL, "internal", "a bug in quire")

enum err_code {
#define X(sym, name, text) sym,
    ERR_CODES(X)
#undef X
    ERR_N_CODES
};

struct err {
    enum err_code code;
    char msg[512];
};

/* Fills e (if not NULL) and returns false, so that `return err_set(e, ...)` reads well. */
bool err_set(struct err *e, enum err_code code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
bool err_vset(struct err *e, enum err_code code, const char *fmt, va_list ap)
    __attribute__((format(printf, 3, 0)));

/* Puts "fmt: " before the message already in e, to add where it happened.  Returns false. */
bool err_prefix(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* "invalid", ... ; "unknown" for a code outside the list. */
const char *err_code_name(enum err_code code);

#endif
