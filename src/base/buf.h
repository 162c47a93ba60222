/* base/buf.h - a growing byte buffer, always followed by a 0 byte that is not counted.
 *
 * A failed append marks the buffer (buf->failed) and leaves its content; later appends do
 * nothing, so a writer may append freely and check once at the end. */
#ifndef QUIRE_BASE_BUF_H
#define QUIRE_BASE_BUF_H

#include <stdbool.h>
#include <stddef.h>

struct buf {
    char *data;      /* NULL until the first append */
    size_t len, cap;
    size_t limit;    /* 0 = none; longer content fails */
    bool failed;
};

void buf_init(struct buf *b, size_t limit);
void buf_free(struct buf *b);               /* back to an empty buffer */
void buf_clear(struct buf *b);              /* length 0, memory kept, failed reset */
bool buf_reserve(struct buf *b, size_t extra);
bool buf_append(struct buf *b, const void *p, size_t n);
bool buf_puts(struct buf *b, const char *s);
bool buf_putc(struct buf *b, char c);
bool buf_printf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Remove the first n bytes (n <= len). */
void buf_consume(struct buf *b, size_t n);
/* Give the memory (NUL-terminated, mem_free it) to the caller and empty b; NULL if failed. */
char *buf_take(struct buf *b);

#endif
