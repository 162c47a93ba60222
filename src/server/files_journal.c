#include "server/files_journal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/file.h"
#include "base/hash.h"

enum { HEAD_MAX = 64, HASH_DIGITS = 16 };

static bool fail(struct err *e, const char *what) { return err_set(e, ERR_IO, "the answers of a batch cannot be %s: %s", what, strerror(errno)); }

static uint64_t hash_of(const char *head, size_t n_head, const char *text, size_t n_text)
{
    return hash_mix(hash_bytes(head, n_head, 0), hash_bytes(text, n_text, 0));
}

/* Digits and the space behind them. */
static bool read_number(const char **at, const char *end, int64_t *n)
{
    const char *from = *at;
    for (*n = 0; *at < end && **at >= '0' && **at <= '9' && *n < INT64_MAX / 16; ++*at)
        *n = *n * 10 + (**at - '0');
    return *at > from && *at < end && *(*at)++ == ' ';
}

/* The record at from; false: there is none that is whole.  Its text ends one byte, the newline, before the next one. */
static bool read_record(const char *base, const char *from, const char *end, struct files_record *r)
{
    const char *at = from;
    int64_t len;
    char digits[HASH_DIGITS + 1];
    if (end - at < 2 || (*at != 'O' && *at != 'E') || at[1] != ' ')
        return false;
    at += 2;
    if (!read_number(&at, end, &r->index) || !read_number(&at, end, &len) || end - at < HASH_DIGITS + 1 + 1)
        return false;
    size_t n_head = (size_t)(at - from);
    memcpy(digits, at, HASH_DIGITS);
    digits[HASH_DIGITS] = 0;
    at += HASH_DIGITS;
    if (*at++ != ' ' || len > end - at - 1 || at[len] != '\n' || strspn(digits, "0123456789abcdef") != HASH_DIGITS)
        return false;
    r->failed = *from == 'E';
    r->at = at - base;
    r->len = (size_t)len;
    return strtoull(digits, NULL, 16) == hash_of(from, n_head, at, r->len);
}

bool files_journal_open(struct files_journal *j, const char *path, void (*visit)(void *ctx, const struct files_record *r), void *ctx, struct err *e)
{
    struct file_view v;
    struct files_record r;
    *j = (struct files_journal){.fd = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600)};
    if (j->fd < 0)
        return fail(e, "kept");
    if (!file_view_open(&v, path, e)) {
        files_journal_close(j);
        return false;
    }
    const char *base = (const char *)v.data, *end = base + v.size;
    for (const char *at = base; v.size > 0 && read_record(base, at, end, &r); at = base + j->end) {
        j->end = r.at + (int64_t)r.len + 1;
        visit(ctx, &r);
    }
    bool torn = (size_t)j->end < v.size;
    file_view_close(&v);
    if (!torn || ftruncate(j->fd, j->end) == 0)
        return true;
    fail(e, "mended");
    files_journal_close(j);
    return false;
}

void files_journal_close(struct files_journal *j)
{
    if (j->fd >= 0)
        close(j->fd);
    j->fd = -1;
    buf_free(&j->record);
}

bool files_journal_add(struct files_journal *j, struct files_record *r, const char *text, struct err *e)
{
    char head[HEAD_MAX];
    int n = snprintf(head, sizeof head, "%c %" PRId64 " %zu ", r->failed ? 'E' : 'O', r->index, r->len);
    buf_clear(&j->record);
    buf_printf(&j->record, "%s%016" PRIx64 " ", head, hash_of(head, (size_t)n, text, r->len));
    r->at = j->end + (int64_t)j->record.len;
    buf_append(&j->record, text, r->len);
    if (!buf_putc(&j->record, '\n'))
        return err_set(e, ERR_NOMEM, "out of memory for a batch's answer");
    if (!file_write_all(j->fd, j->record.data, j->record.len)) {
        fail(e, "kept");
        (void)!ftruncate(j->fd, j->end);     /* or the next opening does it */
        return false;
    }
    j->end += (int64_t)j->record.len;
    return true;
}

bool files_journal_sync(struct files_journal *j, struct err *e) { return fdatasync(j->fd) == 0 || fail(e, "kept"); }

bool files_journal_read(const struct files_journal *j, const struct files_record *r, struct buf *out, struct err *e)
{
    if (!buf_reserve(out, r->len + 1))
        return err_set(e, ERR_NOMEM, "out of memory for a batch's answer");
    for (size_t got = 0; got < r->len;) {
        ssize_t n = pread(j->fd, out->data + out->len, r->len - got, (off_t)(r->at + (int64_t)got));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            errno = n == 0 ? EIO : errno;
            return fail(e, "read back");
        }
        got += (size_t)n;
        out->len += (size_t)n;
    }
    out->data[out->len] = 0;
    return true;
}
