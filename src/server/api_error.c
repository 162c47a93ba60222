#include "server/api_error.h"

#include <stdio.h>
#include <string.h>
#include "base/json.h"
#include "base/utf8.h"

/* ERR_FORMAT and ERR_IO are about our own files, never about what the client sent. */
static const int status_of[ERR_N_CODES] = {
    [ERR_OK] = 200,          [ERR_INVALID] = 400,    [ERR_NOT_FOUND] = 404, [ERR_UNSUPPORTED] = 400, [ERR_FORMAT] = 500,
    [ERR_IO] = 500,          [ERR_NOMEM] = 503,      [ERR_TOO_LARGE] = 400, [ERR_OVERLOADED] = 429,  [ERR_DRAINING] = 503,
    [ERR_CANCELLED] = 499,   [ERR_TIMEOUT] = 504,    [ERR_INTERNAL] = 500,
};

static const struct { int status; const char *type; } types[] = {
    {400, "BadRequestError"},      {401, "AuthenticationError"},       {404, "NotFoundError"},
    {405, "MethodNotAllowedError"}, {413, "PayloadTooLargeError"},     {415, "UnsupportedMediaTypeError"},
    {429, "RateLimitError"},       {499, "ClientClosedRequestError"},  {500, "InternalServerError"},
    {503, "ServiceUnavailableError"}, {504, "TimeoutError"},
};

int api_error_status(enum err_code code)
{
    return (unsigned)code < ERR_N_CODES ? status_of[code] : 500;
}

const char *api_error_type(int status)
{
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        if (types[i].status == status)
            return types[i].type;
    return status < 500 ? "BadRequestError" : "InternalServerError";
}

/* A message cut by the end of its buffer must not end inside a character. */
static void set(struct api_error *e, int status, const char *param, const char *fmt, va_list ap)
{
    *e = (struct api_error){.status = status};
    snprintf(e->param, sizeof e->param, "%s", param ? param : "");
    int n = vsnprintf(e->msg, sizeof e->msg, fmt, ap);
    if (n >= (int)sizeof e->msg)
        e->msg[utf8_complete_prefix(e->msg, sizeof e->msg - 1)] = 0;
}

bool api_fail(struct api_error *e, enum err_code code, const char *param, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    set(e, api_error_status(code), param, fmt, ap);
    va_end(ap);
    return false;
}

bool api_fail_err(struct api_error *e, const char *param, const struct err *err)
{
    return api_fail(e, err->code, param, "%s", err->msg);
}

bool api_fail_status(struct api_error *e, int status, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    set(e, status, NULL, fmt, ap);
    va_end(ap);
    return false;
}

bool api_error_write(const struct api_error *e, struct buf *out)
{
    buf_puts(out, "{\"error\":{\"message\":");
    json_write_str(out, e->msg, strlen(e->msg));
    buf_printf(out, ",\"type\":\"%s\",\"param\":", api_error_type(e->status));
    if (e->param[0])
        json_write_str(out, e->param, strlen(e->param));
    else
        buf_puts(out, "null");
    return buf_printf(out, ",\"code\":%d}}", e->status);
}
