/* server/http_multipart.h - bodies of multipart/form-data (RFC 7578), read in place. */
#ifndef QUIRE_SERVER_HTTP_MULTIPART_H
#define QUIRE_SERVER_HTTP_MULTIPART_H

#include <stdbool.h>
#include <stddef.h>

enum { HTTP_MARK_MAX = 73 };     /* "--", a boundary of at most 70 bytes, 0 */

/* What parts the body, from its Content-Type (NULL: there was none).  False: it is not multipart/form-data with a good boundary. */
bool http_multipart_mark(const char *content_type, char mark[HTTP_MARK_MAX]);

/* Name and filename NULL when they are not there; all point into the body. */
struct http_part { const char *name, *filename, *data; size_t name_len, filename_len, len; };
/* The part that begins at or after *at, which moves behind it; false: there is none that is whole. */
bool http_multipart_next(const char **at, const char *end, const char *mark, struct http_part *p);

#endif
