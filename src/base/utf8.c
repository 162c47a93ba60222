#include "base/utf8.h"

#include <string.h>

/* What a lead byte allows: length of the sequence and range of its second byte, which is
 * where overlong forms, surrogates and values above U+10FFFF show (Unicode, table 3-7). */
struct lead { int len; unsigned char lo, hi; };

static struct lead lead_of(unsigned char c)
{
    if (c < 0x80)
        return (struct lead){1, 0, 0};
    if (c >= 0xc2 && c <= 0xdf)
        return (struct lead){2, 0x80, 0xbf};
    if (c >= 0xe0 && c <= 0xef)
        return (struct lead){3, c == 0xe0 ? 0xa0 : 0x80, c == 0xed ? 0x9f : 0xbf};
    if (c >= 0xf0 && c <= 0xf4)
        return (struct lead){4, c == 0xf0 ? 0x90 : 0x80, c == 0xf4 ? 0x8f : 0xbf};
    return (struct lead){0, 0, 0};
}

/* How many bytes at s[0..n) follow the pattern of one character; *len is how many it needs
 * (0 when no character starts here). */
static int match(const unsigned char *s, size_t n, int *len)
{
    struct lead l = lead_of(s[0]);
    *len = l.len;
    if (l.len == 0)
        return 0;
    int k = 1;
    while (k < l.len && (size_t)k < n) {
        unsigned char lo = k == 1 ? l.lo : 0x80, hi = k == 1 ? l.hi : 0xbf;
        if (s[k] < lo || s[k] > hi)
            break;
        k++;
    }
    return k;
}

int utf8_decode(const char *s, size_t n, uint32_t *cp)
{
    const unsigned char *u = (const unsigned char *)s;
    int len;
    if (n == 0 || match(u, n, &len) != len || len == 0)
        return 0;
    uint32_t c = len == 1 ? u[0] : u[0] & (0x7fu >> len);
    for (int i = 1; i < len; i++)
        c = c << 6 | (u[i] & 0x3f);
    *cp = c;
    return len;
}

int utf8_encode(uint32_t cp, char out[4])
{
    if (cp < 0x80) {
        out[0] = (char)cp;
        return 1;
    }
    if (cp < 0x800) {
        out[0] = (char)(0xc0 | cp >> 6);
        out[1] = (char)(0x80 | (cp & 0x3f));
        return 2;
    }
    if (cp < 0x10000) {
        out[0] = (char)(0xe0 | cp >> 12);
        out[1] = (char)(0x80 | (cp >> 6 & 0x3f));
        out[2] = (char)(0x80 | (cp & 0x3f));
        return 3;
    }
    out[0] = (char)(0xf0 | (cp >> 18 & 7));
    out[1] = (char)(0x80 | (cp >> 12 & 0x3f));
    out[2] = (char)(0x80 | (cp >> 6 & 0x3f));
    out[3] = (char)(0x80 | (cp & 0x3f));
    return 4;
}

/* Bytes of plain ASCII at the start, eight at a time. */
static size_t ascii_run(const char *s, size_t n)
{
    size_t i = 0;
    for (; n - i >= 8; i += 8) {
        uint64_t word;
        memcpy(&word, s + i, 8);
        if (word & 0x8080808080808080u)
            break;
    }
    while (i < n && !(s[i] & 0x80))
        i++;
    return i;
}

bool utf8_valid(const char *s, size_t n)
{
    for (size_t i = 0; i < n;) {
        i += ascii_run(s + i, n - i);
        if (i == n)
            break;
        int len;
        if (match((const unsigned char *)s + i, n - i, &len) != len || len == 0)
            return false;
        i += (size_t)len;
    }
    return true;
}

size_t utf8_complete_prefix(const char *s, size_t n)
{
    /* Only a sequence that reaches the end and wants more can be completed: it starts in the
     * last three bytes. */
    for (size_t back = 1; back <= 3 && back <= n; back++) {
        int len, got = match((const unsigned char *)s + n - back, back, &len);
        if (len > 1)
            return (size_t)got == back && got < len ? n - back : n;
        if (len == 1)
            return n;
    }
    return n;
}

size_t utf8_lossy(const char *s, size_t n, char *out)
{
    size_t o = 0;
    for (size_t i = 0; i < n;) {
        size_t run = ascii_run(s + i, n - i);
        if (run) {
            memcpy(out + o, s + i, run);
            o += run;
            i += run;
            continue;
        }
        int len, got = match((const unsigned char *)s + i, n - i, &len);
        if (len && got == len) {
            memcpy(out + o, s + i, (size_t)len);
            o += (size_t)len;
        } else {
            memcpy(out + o, "\xef\xbf\xbd", 3);
            o += 3;
            if (got == 0)
                got = 1;
        }
        i += (size_t)got;
    }
    return o;
}

size_t utf8_length(const char *s, size_t n)
{
    size_t count = 0;
    for (size_t i = 0; i < n; i++)
        count += ((unsigned char)s[i] & 0xc0) != 0x80;
    return count;
}
