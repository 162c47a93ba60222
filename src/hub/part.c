/* A file that is partly there.  Behind its size bytes lies a map: magic, size, bytes of a segment, then the bytes that each
 * segment has.  The map is written after the bytes it speaks of, and the checksum is the judge of the whole. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/mem.h"
#include "hub/hub_int.h"

struct map_head { char magic[8]; int64_t size, segment_bytes; };
static const char magic[8] = {'q', 'u', 'i', 'r', 'e', 'm', 'a', 'p'};
enum { MAX_SEGMENTS = 1 << 20, SAVE_EVERY = 4 << 20 };

static bool failed(const struct hub_part *p, const char *what, struct err *e)
{
    return err_set(e, ERR_IO, "%s: %s: %s", p->path, what, strerror(errno));
}

static bool write_all(const struct hub_part *p, const void *data, size_t n, int64_t at, struct err *e)
{
    for (const char *c = data; n > 0;) {
        ssize_t put = pwrite(p->fd, c, n, at);
        if (put < 0 && errno == EINTR)
            continue;
        if (put <= 0)
            return failed(p, "cannot be written", e);
        c += put;
        n -= (size_t)put;
        at += put;
    }
    return true;
}

static int64_t map_at(const struct hub_part *p)
{
    return p->size + (int64_t)sizeof(struct map_head);
}

/* Segments of segment_bytes, all of them empty. */
static bool lay_out(struct hub_part *p, int64_t segment_bytes, struct err *e)
{
    int64_t n = p->size / segment_bytes + (p->size % segment_bytes != 0);
    if (n > MAX_SEGMENTS) {
        segment_bytes = p->size / MAX_SEGMENTS + 1;
        n = p->size / segment_bytes + (p->size % segment_bytes != 0);
    }
    int64_t *done = mem_try_zalloc((size_t)n, sizeof *done), *saved = mem_try_zalloc((size_t)n, sizeof *saved);
    if (!done || !saved) {
        mem_free(done);
        mem_free(saved);
        return err_set(e, ERR_NOMEM, "no memory for the map of a download");
    }
    mem_free(p->done);
    mem_free(p->saved);
    p->segment_bytes = segment_bytes;
    p->n_segments = (int)n;
    p->done = done;
    p->saved = saved;
    return true;
}

/* Writes the whole map. */
static bool write_map(struct hub_part *p, struct err *e)
{
    struct map_head head = {.size = p->size, .segment_bytes = p->segment_bytes};
    memcpy(head.magic, magic, sizeof magic);
    if (!write_all(p, p->done, (size_t)p->n_segments * sizeof *p->done, map_at(p), e) || !write_all(p, &head, sizeof head, p->size, e))
        return false;
    memcpy(p->saved, p->done, (size_t)p->n_segments * sizeof *p->done);
    return true;
}

/* The map of an earlier run; false when there is none that fits. */
static bool read_map(struct hub_part *p)
{
    struct map_head head;
    struct stat st;
    if (pread(p->fd, &head, sizeof head, p->size) != sizeof head || memcmp(head.magic, magic, sizeof magic) != 0 || head.size != p->size ||
        head.segment_bytes < 1 || head.segment_bytes > INT64_C(1) << 50 || !lay_out(p, head.segment_bytes, NULL) || p->segment_bytes != head.segment_bytes)
        return false;
    size_t bytes = (size_t)p->n_segments * sizeof *p->done;
    bool ok = fstat(p->fd, &st) == 0 && st.st_size == map_at(p) + (int64_t)bytes && pread(p->fd, p->done, bytes, map_at(p)) == (ssize_t)bytes;
    for (int i = 0; ok && i < p->n_segments; i++)
        ok = p->done[i] >= 0 && p->done[i] <= hub_part_segment_len(p, i);
    if (ok)
        memcpy(p->saved, p->done, bytes);
    return ok;
}

/* The contiguous beginning another tool left becomes ours. */
static int64_t adopt(const struct hub_part *p)
{
    struct stat st;
    char *theirs = hub_path(NULL, "%s.incomplete", p->blob);
    int64_t n = 0;
    if (theirs && access(p->path, F_OK) != 0 && stat(theirs, &st) == 0 && S_ISREG(st.st_mode) && st.st_size > 0 && st.st_size <= p->size &&
        rename(theirs, p->path) == 0)
        n = st.st_size;
    mem_free(theirs);
    return n;
}

bool hub_part_open(struct hub_part *p, const struct hub_cache *c, const struct hub_file *f, int64_t segment_bytes, struct err *e)
{
    *p = (struct hub_part){.fd = -1, .size = f->size};
    p->blob = hub_path(e, "%s/blobs/%s", c->repo, f->etag);
    p->path = hub_path(e, "%s/blobs/%s.quire.incomplete", c->repo, f->etag);
    if (!p->blob || !p->path || !hub_make_parents(p->path, e))
        goto fail;
    int64_t adopted = adopt(p);
    p->fd = open(p->path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (p->fd < 0) {
        failed(p, "cannot be opened", e);
        goto fail;
    }
    if (!adopted && read_map(p))
        return true;
    if (!lay_out(p, segment_bytes, e))
        goto fail;
    for (int i = 0; i < p->n_segments && adopted > 0; i++) {
        int64_t len = hub_part_segment_len(p, i);
        p->done[i] = adopted < len ? adopted : len;
        adopted -= p->done[i];
    }
    if (ftruncate(p->fd, map_at(p) + p->n_segments * (int64_t)sizeof *p->done) != 0) {
        failed(p, "cannot be made as large as it must be", e);
        goto fail;
    }
    if (write_map(p, e))
        return true;
fail:
    hub_part_close(p, false);
    return false;
}

int64_t hub_part_segment_len(const struct hub_part *p, int i)
{
    int64_t start = (int64_t)i * p->segment_bytes;
    return p->size - start < p->segment_bytes ? p->size - start : p->segment_bytes;
}

int64_t hub_part_frontier(const struct hub_part *p)
{
    int64_t n = 0;
    for (int i = 0; i < p->n_segments; i++) {
        n += p->done[i];
        if (p->done[i] < hub_part_segment_len(p, i))
            break;
    }
    return n;
}

int64_t hub_part_total(const struct hub_part *p)
{
    int64_t n = 0;
    for (int i = 0; i < p->n_segments; i++)
        n += p->done[i];
    return n;
}

bool hub_part_write(struct hub_part *p, int i, const void *data, size_t n, struct err *e)
{
    if ((int64_t)n > hub_part_segment_len(p, i) - p->done[i])
        return err_set(e, ERR_FORMAT, "the server sends more than it was asked for");
    if (!write_all(p, data, n, (int64_t)i * p->segment_bytes + p->done[i], e))
        return false;
    p->done[i] += (int64_t)n;
    return p->done[i] - p->saved[i] < SAVE_EVERY || hub_part_save(p, i, e);
}

bool hub_part_save(struct hub_part *p, int i, struct err *e)
{
    if (!write_all(p, &p->done[i], sizeof p->done[i], map_at(p) + i * (int64_t)sizeof *p->done, e))
        return false;
    p->saved[i] = p->done[i];
    return true;
}

bool hub_part_reset(struct hub_part *p, bool whole, struct err *e)
{
    if (!lay_out(p, whole && p->size > 0 ? p->size : p->segment_bytes, e))
        return false;
    if (ftruncate(p->fd, 0) != 0 || ftruncate(p->fd, map_at(p) + p->n_segments * (int64_t)sizeof *p->done) != 0)
        return failed(p, "cannot be cleared", e);
    return write_map(p, e);
}

bool hub_part_finish(struct hub_part *p, struct err *e)
{
    if (ftruncate(p->fd, p->size) != 0)
        return failed(p, "cannot be cut to its size", e);
    if (rename(p->path, p->blob) != 0)
        return failed(p, "cannot be renamed to its checksum", e);
    return true;
}

void hub_part_close(struct hub_part *p, bool remove_it)
{
    if (remove_it && p->path)
        unlink(p->path);
    if (p->fd >= 0)
        close(p->fd);
    mem_free(p->path);
    mem_free(p->blob);
    mem_free(p->done);
    mem_free(p->saved);
    *p = (struct hub_part){.fd = -1};
}
