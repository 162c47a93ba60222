#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/rng.h"

/* err_set for a failed system call; uses errno. */
static bool set_errno(struct err *e, const char *doing, const char *path)
{
    int no = errno;
    enum err_code code = no == ENOENT || no == ENOTDIR ? ERR_NOT_FOUND : no == ENOMEM ? ERR_NOMEM : ERR_IO;
    char text[128];
    return err_set(e, code, "%s: cannot %s: %s", path, doing, strerror_r(no, text, sizeof text));
}

bool file_view_open(struct file_view *v, const char *path, struct err *e)
{
    struct stat st;
    *v = (struct file_view){0};
    /* O_NONBLOCK: a pipe given by mistake must not hang the open. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return set_errno(e, "open", path);
    if (fstat(fd, &st) != 0) {
        set_errno(e, "stat", path);
        goto fail;
    }
    if (!S_ISREG(st.st_mode)) {
        err_set(e, ERR_IO, "%s: expected a regular file, found %s", path,
                S_ISDIR(st.st_mode) ? "a directory" : "something else");
        goto fail;
    }
    if (st.st_size > 0) {
        void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (p == MAP_FAILED) {
            set_errno(e, "map", path);
            goto fail;
        }
        *v = (struct file_view){.data = p, .size = (size_t)st.st_size, .mapped = true};
    }
    close(fd); /* the mapping stays */
    return true;
fail:
    close(fd);
    return false;
}

void file_view_close(struct file_view *v)
{
    if (v->mapped)
        munmap((void *)v->data, v->size);
    *v = (struct file_view){0};
}

static char *too_large(const char *path, size_t max_bytes, struct err *e)
{
    err_set(e, ERR_TOO_LARGE, "%s: larger than the %zu bytes allowed", path, max_bytes);
    return NULL;
}

/* Bytes to begin with: the size the file claims, or a page for what has none (pipes, /proc). */
static size_t first_room(int fd, size_t max_bytes)
{
    struct stat st;
    size_t room = fstat(fd, &st) == 0 && st.st_size > 0 ? (size_t)st.st_size : 4096;
    return room < max_bytes ? room : max_bytes;
}

/* Reads on until the end; the claimed size is only a hint. */
static char *read_all(int fd, const char *path, size_t max_bytes, size_t *len, struct err *e)
{
    /* Two more than the content: the terminator, and a byte to notice the end or excess. */
    size_t cap = first_room(fd, max_bytes) + 2, n = 0;
    char *text = mem_try_alloc(cap, 1);
    while (text) {
        ssize_t got = read(fd, text + n, cap - 1 - n);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0) {
            set_errno(e, "read", path);
            goto fail;
        }
        if (got == 0) {
            text[n] = '\0';
            if (len)
                *len = n;
            return text;
        }
        n += (size_t)got;
        if (n > max_bytes) {
            too_large(path, max_bytes, e);
            goto fail;
        }
        if (n + 1 < cap)
            continue;
        size_t more = n <= max_bytes / 2 ? n * 2 : max_bytes;
        char *grown = mem_try_realloc(text, more + 2, 1);
        if (!grown) {
            mem_free(text);
            text = NULL;
            break;
        }
        text = grown;
        cap = more + 2;
    }
    err_set(e, ERR_NOMEM, "%s: no memory for its content", path);
    return NULL;
fail:
    mem_free(text);
    return NULL;
}

char *file_read(const char *path, size_t max_bytes, size_t *len, struct err *e)
{
    if (max_bytes > PTRDIFF_MAX - 2)
        max_bytes = PTRDIFF_MAX - 2;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        set_errno(e, "open", path);
        return NULL;
    }
    struct stat st;
    char *text = NULL;
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && (uintmax_t)st.st_size > max_bytes)
        too_large(path, max_bytes, e);
    else
        text = read_all(fd, path, max_bytes, len, e);
    close(fd);
    return text;
}

bool file_write_all(int fd, const void *data, size_t n)
{
    for (const char *at = data; n;) {
        ssize_t put = write(fd, at, n);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return false;
        at += put;
        n -= (size_t)put;
    }
    return true;
}

/* A new file with a name nobody uses, beside path; its name goes to tmp. */
static int open_beside(const char *path, char *tmp, size_t cap)
{
    for (int tries = 0; tries < 16; tries++) {
        snprintf(tmp, cap, "%s.tmp-%016llx", path, (unsigned long long)rng_entropy());
        int fd = open(tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (fd >= 0 || errno != EEXIST)
            return fd;
    }
    return -1;
}

/* After a crash the rename itself must be found.  Some file systems cannot: not an error. */
static void sync_folder_of(const char *path, char *scratch)
{
    const char *slash = strrchr(path, '/');
    size_t n = slash ? (size_t)(slash - path) : 0;
    memcpy(scratch, path, n);
    scratch[n] = '\0';
    int fd = open(n ? scratch : slash ? "/" : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return;
    (void)fsync(fd);
    close(fd);
}

bool file_write_atomic(const char *path, const void *data, size_t n, struct err *e)
{
    size_t cap = strlen(path) + 32;
    char *tmp = mem_try_alloc(cap, 1);
    struct stat st;
    if (!tmp)
        return err_set(e, ERR_NOMEM, "%s: no memory for a temporary name", path);
    int fd = open_beside(path, tmp, cap);
    if (fd < 0) {
        set_errno(e, "create a temporary file beside it", path);
        mem_free(tmp);
        return false;
    }
    if (stat(path, &st) == 0)
        (void)fchmod(fd, st.st_mode & 0777); /* a replaced file keeps its permissions */
    bool ok = file_write_all(fd, data, n) && fsync(fd) == 0;
    if (!ok)
        set_errno(e, "write", path);
    if (close(fd) != 0 && ok)
        ok = set_errno(e, "write", path);
    if (ok && rename(tmp, path) != 0)
        ok = set_errno(e, "rename into place", path);
    if (ok)
        sync_folder_of(path, tmp);
    else
        unlink(tmp);
    mem_free(tmp);
    return ok;
}

bool file_exists(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0;
}

bool file_is_dir(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

char *file_join(const char *dir, const char *name)
{
    size_t n_dir = strlen(dir), n_name = strlen(name), total;
    size_t n_slash = n_dir && dir[n_dir - 1] != '/';
    if (!mem_add(n_dir, n_name, &total) || !mem_add(total, n_slash + 1, &total))
        return NULL;
    char *path = mem_try_alloc(total, 1);
    if (!path)
        return NULL;
    memcpy(path, dir, n_dir);
    if (n_slash)
        path[n_dir] = '/';
    memcpy(path + n_dir + n_slash, name, n_name + 1);
    return path;
}

static bool name_is_plain(const char *name)
{
    return name && name[0] && strcmp(name, ".") != 0 && !strchr(name, '/') && !strstr(name, "..");
}

static bool check_name(const char *name, struct err *e)
{
    return name_is_plain(name) ||
           err_set(e, ERR_INVALID, "'%s' is not a plain file name (no '/' and no '..')", name ? name : "");
}

static const struct file_blob *find_blob(const struct file_set *fs, const char *name)
{
    for (const struct file_blob *b = fs->blobs; b && b->name; b++)
        if (strcmp(b->name, name) == 0)
            return b;
    return NULL;
}

static bool blob_missing(const char *name, struct err *e)
{
    return err_set(e, ERR_NOT_FOUND, "%s: not among the files built in", name);
}

bool file_set_has(const struct file_set *fs, const char *name)
{
    if (!name_is_plain(name))
        return false;
    if (!fs->dir)
        return find_blob(fs, name) != NULL;
    char *path = file_join(fs->dir, name);
    bool has = path && file_exists(path);
    mem_free(path);
    return has;
}

bool file_set_open(const struct file_set *fs, const char *name, struct file_view *v, struct err *e)
{
    *v = (struct file_view){0};
    if (!check_name(name, e))
        return false;
    if (!fs->dir) {
        const struct file_blob *b = find_blob(fs, name);
        if (!b)
            return blob_missing(name, e);
        *v = (struct file_view){.data = b->size ? b->data : NULL, .size = b->size};
        return true;
    }
    char *path = file_join(fs->dir, name);
    if (!path)
        return err_set(e, ERR_NOMEM, "%s: no memory for its path", name);
    bool ok = file_view_open(v, path, e);
    mem_free(path);
    return ok;
}

static char *blob_read(const struct file_blob *b, size_t max_bytes, size_t *len, struct err *e)
{
    if (b->size > max_bytes)
        return too_large(b->name, max_bytes, e);
    char *text = mem_try_strndup((const char *)b->data, b->size);
    if (!text)
        err_set(e, ERR_NOMEM, "%s: no memory for its content", b->name);
    else if (len)
        *len = b->size;
    return text;
}

char *file_set_read(const struct file_set *fs, const char *name, size_t max_bytes, size_t *len, struct err *e)
{
    if (!check_name(name, e))
        return NULL;
    if (!fs->dir) {
        const struct file_blob *b = find_blob(fs, name);
        if (b)
            return blob_read(b, max_bytes, len, e);
        blob_missing(name, e);
        return NULL;
    }
    char *path = file_join(fs->dir, name);
    if (!path) {
        err_set(e, ERR_NOMEM, "%s: no memory for its path", name);
        return NULL;
    }
    char *text = file_read(path, max_bytes, len, e);
    mem_free(path);
    return text;
}
