/* server/api_error.h - what a client is told when something is wrong.
 *
 * One table maps error codes to HTTP statuses (STYLE rule 16), another statuses to the `type` that clients match
 * on.  The body is OpenAI's: {"error":{"message","type","param","code"}} (INTERFACES 0.1). */
#ifndef QUIRE_SERVER_API_ERROR_H
#define QUIRE_SERVER_API_ERROR_H

#include "base/buf.h"
#include "base/err.h"

struct api_error {
    int status;          /* HTTP */
    int retry_after_s;   /* of a 429 or 503, when it is known; 0: a second */
    bool in_template;    /* the chat template failed, or there is none */
    char param[64];      /* the field at fault, or "" (null in the body) */
    char msg[1024];
};

/* Fills e and returns false.  param NULL: no field is at fault. */
bool api_fail(struct api_error *e, enum err_code code, const char *param, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* From an error of a module below, its message unchanged. */
bool api_fail_err(struct api_error *e, const char *param, const struct err *err);
/* By HTTP status, for what only the transport knows (404, 405, 413, ...). */
bool api_fail_status(struct api_error *e, int status, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

int api_error_status(enum err_code code);
/* 400: "BadRequestError", ... */
const char *api_error_type(int status);
/* Appends the body. */
bool api_error_write(const struct api_error *e, struct buf *out);

#endif
