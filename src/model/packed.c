#include "model/packed.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/file.h"
#include "base/hash.h"
#include "base/mem.h"

static const char magic[8] = {'Q', 'U', 'I', 'R', 'E', 'P', 'K', '1'};
enum { DATA_ALIGN = 4096 };
#define HUGE ((size_t)2 << 20)
/* Files are written in aligned pieces of this size: file systems with large folios then keep them in huge pages, which a mapping shares. */
#define BLOCK HUGE
static const int64_t MAX_ENTRIES = 1 << 20;

struct header { char magic[8]; uint64_t key, n_entries, file_bytes, table_hash; };
struct entry { char name[PACKED_NAME_MAX + 1]; uint64_t offset, bytes, hash; };

struct packed {
    struct file_view view;
    const struct entry *entries;
    int64_t n;
    struct hash_map *names;
    pthread_t mover;
    bool moving;
    atomic_bool stop;
};

struct packed_writer {
    int fd;
    unsigned char *block;   /* what is not written yet: the file's bytes from a multiple of BLOCK to offset */
    char *path, *part;
    uint64_t key, offset;
    struct entry *entries;
    int64_t n, cap;
};

char *packed_default_dir(void)
{
    const char *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    if (xdg && *xdg)
        return file_join(xdg, "quire/packed");
    return home && *home ? file_join(home, ".cache/quire/packed") : NULL;
}

char *packed_path(const char *dir, const char *model_path, const char *layout)
{
    char name[40];
    char *real = realpath(model_path, NULL);
    const char *path = real ? real : model_path;
    uint64_t h = hash_bytes(layout, strlen(layout), hash_bytes(path, strlen(path), 0));
    free(real);
    snprintf(name, sizeof name, "%016llx.qpk", (unsigned long long)h);
    return file_join(dir, name);
}

/* ---- reading ---- */

/* Everything but the entries' bytes. */
static bool check(struct packed *p, uint64_t key, struct err *e)
{
    struct header h;
    if (p->view.size < sizeof h)
        return err_set(e, ERR_FORMAT, "it is too short");
    memcpy(&h, p->view.data, sizeof h);
    if (memcmp(h.magic, magic, sizeof magic) != 0)
        return err_set(e, ERR_FORMAT, "it is not a packed-weight file of this version");
    if (h.key != key)
        return err_set(e, ERR_FORMAT, "it was made from another checkpoint or layout");
    if (h.file_bytes != p->view.size || h.n_entries > (uint64_t)MAX_ENTRIES ||
        p->view.size - sizeof h < h.n_entries * sizeof(struct entry))
        return err_set(e, ERR_FORMAT, "it is cut off");
    p->n = (int64_t)h.n_entries;
    p->entries = (const struct entry *)(const void *)(p->view.data + sizeof h);
    if (hash_bytes(p->entries, (size_t)p->n * sizeof(struct entry), key) != h.table_hash)
        return err_set(e, ERR_FORMAT, "its table is damaged");
    for (int64_t i = 0; i < p->n; i++) {
        const struct entry *t = &p->entries[i];
        if (t->offset % DATA_ALIGN || t->offset > p->view.size || t->bytes > p->view.size - t->offset || t->name[PACKED_NAME_MAX])
            return err_set(e, ERR_FORMAT, "entry %lld is out of bounds", (long long)i);
        if (!hash_map_put(p->names, t->name, strlen(t->name), i))
            return err_set(e, ERR_NOMEM, "out of memory");
    }
    return true;
}

/* ---- huge pages ---- */

#define MOVED_AT_ONCE (16 * HUGE)
/* Where new memory is slow to come by (a virtual machine whose host has taken it back), moving takes seconds of a core that the first prompts want. */
#define MOVER_NICE 10

/* An address that huge pages can lie at; what is mapped stays mapped where that fails. */
static void align_view(struct file_view *v)
{
    if (!v->mapped || v->size < HUGE || v->size > SIZE_MAX / 2)
        return;
    size_t page = (size_t)sysconf(_SC_PAGESIZE), size = (v->size + page - 1) / page * page, room = size + HUGE;
    unsigned char *place = mmap(NULL, room, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (place == MAP_FAILED)
        return;
    unsigned char *aligned = place + (HUGE - (uintptr_t)place % HUGE) % HUGE;
    if (mremap((void *)v->data, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, aligned) == MAP_FAILED) {
        munmap(place, room);
        return;
    }
    if (aligned > place)
        munmap(place, (size_t)(aligned - place));
    munmap(aligned + size, room - size - (size_t)(aligned - place));
    v->data = aligned;
    (void)madvise(aligned, size, MADV_HUGEPAGE);   /* what is not in memory yet is read in huge pages, where the file system has them */
}

/* The request PAGEMAP_SCAN of /proc/self/pagemap, which Linux has since 6.7 and linux/fs.h of older systems lacks. */
struct scan { uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages, category_inverted, category_mask, category_anyof_mask, return_mask; };
struct scan_region { uint64_t start, end, categories; };
#define SCAN_REQUEST _IOWR('f', 16, struct scan)
enum { SCAN_IS_HUGE = 1 << 6 };

/* Whether one huge page maps the bytes at `at` already; false where the system does not tell. */
static bool is_huge(int pagemap, const unsigned char *at)
{
    struct scan_region r = {0};
    struct scan s = {.size = sizeof s, .start = (uintptr_t)at, .end = (uintptr_t)at + HUGE, .vec = (uintptr_t)&r, .vec_len = 1,
                     .category_mask = SCAN_IS_HUGE, .return_mask = SCAN_IS_HUGE};
    return pagemap >= 0 && ioctl(pagemap, SCAN_REQUEST, &s) == 1 && r.start <= s.start && r.end >= s.end;
}

/* A copy of n bytes (whole huge pages) takes the place of the bytes themselves.  The kernel holds off whoever reads there meanwhile. */
static bool move_piece(const unsigned char *at, size_t n)
{
    unsigned char *place = mmap(NULL, n + HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (place == MAP_FAILED)
        return false;
    unsigned char *copy = place + (HUGE - (uintptr_t)place % HUGE) % HUGE;
    bool ok = madvise(copy, n, MADV_HUGEPAGE) == 0;
    if (ok) {
        memcpy(copy, at, n);
        ok = mprotect(copy, n, PROT_READ) == 0 && mremap(copy, n, n, MREMAP_MAYMOVE | MREMAP_FIXED, (void *)at) != MAP_FAILED;
    }
    if (!ok) {
        munmap(place, n + HUGE);
        return false;
    }
    if (copy > place)
        munmap(place, (size_t)(copy - place));
    munmap(copy + n, HUGE - (size_t)(copy - place));
    return true;
}

/* Runs of huge pages' size that these do not map are moved, piece by piece. */
static void *mover_main(void *arg)
{
    struct packed *p = arg;
    (void)setpriority(PRIO_PROCESS, (id_t)gettid(), MOVER_NICE);
    int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    size_t whole = p->view.size / HUGE * HUGE, n;
    for (size_t at = 0; at < whole && !atomic_load(&p->stop); at += n > 0 ? n : HUGE) {
        n = 0;
        while (n < MOVED_AT_ONCE && at + n < whole && !is_huge(pagemap, p->view.data + at + n))
            n += HUGE;
        if (n > 0 && !move_piece(p->view.data + at, n))
            break;
    }
    if (pagemap >= 0)
        close(pagemap);
    return NULL;
}

void packed_move_to_huge_pages(struct packed *p)
{
    bool aligned = p->view.mapped && (uintptr_t)p->view.data % HUGE == 0 && p->view.size >= HUGE;
    if (aligned && !p->moving)
        p->moving = pthread_create(&p->mover, NULL, mover_main, p) == 0;
}

bool packed_open(struct packed **out, const char *path, uint64_t key, struct err *e)
{
    *out = NULL;
    if (!file_exists(path))
        return err_set(e, ERR_NOT_FOUND, "%s: there is no such file", path);
    struct packed *p = mem_try_zalloc(1, sizeof *p);
    if (!p || !(p->names = hash_map_open(64, HASH_MAP_COPY_KEYS))) {
        packed_close(&p);
        return err_set(e, ERR_NOMEM, "out of memory");
    }
    bool ok = file_view_open(&p->view, path, e);
    align_view(&p->view);
    if (!ok || !check(p, key, e)) {
        packed_close(&p);
        return err_prefix(e, "%s", path);
    }
    *out = p;
    return true;
}

void packed_close(struct packed **pp)
{
    struct packed *p = *pp;
    if (!p)
        return;
    *pp = NULL;
    atomic_store(&p->stop, true);
    if (p->moving)
        pthread_join(p->mover, NULL);
    file_view_close(&p->view);
    hash_map_close(&p->names);
    mem_free(p);
}

int64_t packed_count(const struct packed *p) { return p->n; }

const void *packed_entry(const struct packed *p, int64_t i, const char **name, size_t *bytes)
{
    const struct entry *t = &p->entries[i];
    if (name)
        *name = t->name;
    *bytes = (size_t)t->bytes;
    return p->view.data + t->offset;
}

bool packed_verify(const struct packed *p, int64_t i)
{
    const struct entry *t = &p->entries[i];
    return hash_bytes(p->view.data + t->offset, (size_t)t->bytes, 0) == t->hash;
}

int64_t packed_find(const struct packed *p, const char *name)
{
    int64_t i;
    return hash_map_get(p->names, name, strlen(name), &i) ? i : -1;
}

/* ---- writing ---- */

static bool make_folders(const char *path, struct err *e)
{
    char *copy = mem_try_strdup(path);
    if (!copy)
        return err_set(e, ERR_NOMEM, "out of memory");
    bool ok = true;
    for (char *p = copy + 1; ok && (p = strchr(p, '/')); p++) {
        *p = 0;
        if (mkdir(copy, 0700) != 0 && errno != EEXIST)
            ok = err_set(e, ERR_IO, "cannot make the folder %s: %s", copy, strerror(errno));
        *p = '/';
    }
    mem_free(copy);
    return ok;
}

static bool write_failed(const struct packed_writer *w, struct err *e)
{
    return err_set(e, ERR_IO, "cannot write %s: %s", w->part, strerror(errno));
}

/* n more bytes of the file, zeros where data is NULL. */
static bool put(struct packed_writer *w, const void *data, size_t n, struct err *e)
{
    const unsigned char *from = data;
    while (n > 0) {
        size_t used = (size_t)(w->offset % BLOCK), direct = n / BLOCK * BLOCK, part = BLOCK - used < n ? BLOCK - used : n;
        if (from && used == 0 && direct > 0) {
            if (!file_write_all(w->fd, from, direct))
                return write_failed(w, e);
            part = direct;
        } else {
            if (from)
                memcpy(w->block + used, from, part);
            else
                memset(w->block + used, 0, part);
            if (used + part == BLOCK && !file_write_all(w->fd, w->block, BLOCK))
                return write_failed(w, e);
        }
        w->offset += part;
        n -= part;
        from = from ? from + part : NULL;
    }
    return true;
}

bool packed_writer_open(struct packed_writer **out, const char *path, uint64_t key, int64_t max_entries, struct err *e)
{
    *out = NULL;
    if (max_entries < 1 || max_entries > MAX_ENTRIES)
        return err_set(e, ERR_TOO_LARGE, "%lld packed weights are too many", (long long)max_entries);
    struct packed_writer *w = mem_try_zalloc(1, sizeof *w);
    size_t len = strlen(path);
    if (!w)
        return err_set(e, ERR_NOMEM, "out of memory");
    w->fd = -1;
    w->key = key;
    w->cap = max_entries;
    w->path = mem_try_strdup(path);
    w->part = mem_try_alloc(len + 16, 1);
    w->entries = mem_try_zalloc((size_t)max_entries, sizeof *w->entries);
    w->block = mem_try_aligned(BLOCK);
    if (!w->path || !w->part || !w->entries || !w->block) {
        err_set(e, ERR_NOMEM, "out of memory");
        goto fail;
    }
    snprintf(w->part, len + 16, "%s.XXXXXX", path);
    if (!make_folders(path, e))
        goto fail;
    w->fd = mkostemp(w->part, O_CLOEXEC);
    if (w->fd < 0) {
        write_failed(w, e);
        goto fail;
    }
    if (!put(w, NULL, sizeof(struct header) + (size_t)max_entries * sizeof(struct entry), e))
        goto fail;
    *out = w;
    return true;
fail:
    packed_writer_close(&w, false, NULL);
    return false;
}

bool packed_writer_add(struct packed_writer *w, const char *name, const void *data, size_t bytes, struct err *e)
{
    if (w->n == w->cap || strlen(name) > PACKED_NAME_MAX)
        return err_set(e, ERR_INTERNAL, "packed weight %s does not fit the table", name);
    if (!put(w, NULL, (size_t)((DATA_ALIGN - w->offset % DATA_ALIGN) % DATA_ALIGN), e))
        return false;
    struct entry *t = &w->entries[w->n];
    t->offset = w->offset;
    t->bytes = bytes;
    t->hash = hash_bytes(data, bytes, 0);
    snprintf(t->name, sizeof t->name, "%s", name);
    if (!put(w, data, bytes, e))
        return false;
    w->n++;
    return true;
}

static bool finish(struct packed_writer *w, struct err *e)
{
    struct header h = {.key = w->key, .n_entries = (uint64_t)w->n, .file_bytes = w->offset,
                       .table_hash = hash_bytes(w->entries, (size_t)w->n * sizeof *w->entries, w->key)};
    memcpy(h.magic, magic, sizeof magic);
    bool ok = file_write_all(w->fd, w->block, (size_t)(w->offset % BLOCK)) && lseek(w->fd, 0, SEEK_SET) == 0 && file_write_all(w->fd, &h, sizeof h) &&
              file_write_all(w->fd, w->entries, (size_t)w->n * sizeof *w->entries) && fsync(w->fd) == 0;
    return ok || write_failed(w, e);
}

bool packed_writer_close(struct packed_writer **pw, bool commit, struct err *e)
{
    struct packed_writer *w = *pw;
    *pw = NULL;
    if (!w)
        return true;
    bool ok = true;
    if (w->fd >= 0) {
        ok = !commit || finish(w, e);
        if (close(w->fd) != 0 && ok)
            ok = write_failed(w, e);
        if (!commit || !ok)
            unlink(w->part);
        else if (rename(w->part, w->path) != 0)
            ok = err_set(e, ERR_IO, "cannot rename %s: %s", w->part, strerror(errno));
    }
    mem_free(w->path);
    mem_free(w->part);
    mem_free(w->entries);
    mem_free(w->block);
    mem_free(w);
    return ok;
}
