/* server/http_header.h - request headers whose text means something to us. */
#ifndef QUIRE_SERVER_HTTP_HEADER_H
#define QUIRE_SERVER_HTTP_HEADER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* X-Request-Id: 1 to 128 printable ASCII characters without spaces. */
bool http_header_is_id(const char *s);
/* traceparent (W3C Trace Context): the ids of the trace and of the calling span, lower-case hex.  A header that the recommendation calls
 * invalid is to be treated as if it were not there. */
bool http_header_traceparent(const char *s, char trace_id[33], char span_id[17]);
/* X-Request-Timeout: seconds, as 30 or 2.5; more than 0, at most 1e9. */
bool http_header_seconds(const char *s, int64_t *us);
/* 1 or true, in any case. */
bool http_header_is_true(const char *s);
/* Whether an Accept header prefers OpenMetrics to plain text: it names it, and with no smaller q than text/plain. */
bool http_header_wants_openmetrics(const char *accept);

#endif
