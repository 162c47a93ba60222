#include "base/buf.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"

enum { BUF_FIRST = 64 };

void buf_init(struct buf *b, size_t limit)
{
    *b = (struct buf){.limit = limit};
}

void buf_free(struct buf *b)
{
    mem_free(b->data);
    buf_init(b, b->limit);
}

void buf_clear(struct buf *b)
{
    b->len = 0;
    b->failed = false;
    if (b->data)
        b->data[0] = '\0';
}

static bool fail(struct buf *b)
{
    b->failed = true;
    return false;
}

bool buf_reserve(struct buf *b, size_t extra)
{
    size_t len, need;
    if (b->failed)
        return false;
    if (!mem_add(b->len, extra, &len) || !mem_add(len, 1, &need) || (b->limit && len > b->limit))
        return fail(b);
    if (need <= b->cap)
        return true;
    size_t cap = b->cap > SIZE_MAX / 2 ? SIZE_MAX : b->cap * 2;
    if (cap < BUF_FIRST)
        cap = BUF_FIRST;
    if (b->limit && cap > b->limit)
        cap = b->limit + 1;
    if (cap < need)
        cap = need;
    char *data = mem_try_realloc(b->data, cap, 1);
    if (!data)
        return fail(b);
    data[b->len] = '\0';
    b->data = data;
    b->cap = cap;
    return true;
}

bool buf_append(struct buf *b, const void *p, size_t n)
{
    if (!buf_reserve(b, n))
        return false;
    if (n)
        memcpy(b->data + b->len, p, n);
    b->len += n;
    b->data[b->len] = '\0';
    return true;
}

bool buf_puts(struct buf *b, const char *s)
{
    return buf_append(b, s, strlen(s));
}

bool buf_putc(struct buf *b, char c)
{
    return buf_append(b, &c, 1);
}

bool buf_printf(struct buf *b, const char *fmt, ...)
{
    va_list ap, again;
    if (!buf_reserve(b, 0))
        return false;
    va_start(ap, fmt);
    va_copy(again, ap);
    size_t room = b->cap - b->len;
    int n = vsnprintf(b->data + b->len, room, fmt, ap);
    bool ok = n >= 0;
    if (!ok)
        fail(b);
    else if (!buf_reserve(b, (size_t)n))
        ok = false;
    else if ((size_t)n >= room)
        ok = vsnprintf(b->data + b->len, (size_t)n + 1, fmt, again) == n || fail(b);
    if (ok)
        b->len += (size_t)n;
    else
        b->data[b->len] = '\0'; /* the first try may have written behind the content */
    va_end(again);
    va_end(ap);
    return ok;
}

void buf_consume(struct buf *b, size_t n)
{
    if (n > b->len)
        n = b->len;
    if (n == 0)
        return;
    memmove(b->data, b->data + n, b->len - n + 1);
    b->len -= n;
}

char *buf_take(struct buf *b)
{
    if (!buf_reserve(b, 0)) { /* also gives a never used buffer its empty string */
        buf_free(b);
        return NULL;
    }
    char *data = b->data;
    buf_init(b, b->limit);
    return data;
}
