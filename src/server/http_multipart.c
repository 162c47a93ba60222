#include "server/http_multipart.h"

#include <string.h>

bool http_multipart_mark(const char *type, char mark[HTTP_MARK_MAX])
{
    const char *at = type && strncasecmp(type, "multipart/form-data", 19) == 0 ? strcasestr(type, "boundary=") : NULL;
    if (!at)
        return false;
    at += strlen("boundary=");
    bool quoted = *at == '"';
    at += quoted;
    size_t n = strcspn(at, quoted ? "\"" : "; \t");
    if (n == 0 || n > 70)
        return false;
    memcpy(mark, "--", 2);
    memcpy(mark + 2, at, n);
    mark[n + 2] = 0;
    return true;
}

/* The value of key="..." in a part's headers. */
static const char *attribute(const char *from, const char *to, const char *key, size_t *n)
{
    size_t k = strlen(key);
    for (const char *at = from; at + k < to; at++)
        if (strncasecmp(at, key, k) == 0 && (at == from || strchr(" ;\t", at[-1]))) {
            const char *end = memchr(at + k, '"', (size_t)(to - at) - k);
            *n = end ? (size_t)(end - at) - k : 0;
            return end ? at + k : NULL;
        }
    return NULL;
}

bool http_multipart_next(const char **at, const char *end, const char *mark, struct http_part *p)
{
    size_t n_mark = strlen(mark);
    const char *from = memmem(*at, (size_t)(end - *at), mark, n_mark);
    if (!from || end - from < (ptrdiff_t)n_mark + 2 || memcmp(from + n_mark, "\r\n", 2) != 0)
        return false;
    from += n_mark;
    const char *data = memmem(from, (size_t)(end - from), "\r\n\r\n", 4);
    const char *stop = data ? memmem(data + 2, (size_t)(end - data) - 2, mark, n_mark) : NULL;
    if (!stop || stop - 2 < data + 2)
        return false;
    *p = (struct http_part){.data = data + 4, .len = stop - 2 < data + 4 ? 0 : (size_t)(stop - 2 - (data + 4))};
    p->name = attribute(from, data, "name=\"", &p->name_len);
    p->filename = attribute(from, data, "filename=\"", &p->filename_len);
    *at = stop;
    return true;
}
