/* The cache's folders. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>
#include "base/file.h"
#include "base/mem.h"
#include "base/rng.h"
#include "hub/hub_int.h"

enum { MAX_LIST_BYTES = 64 << 20, MAX_DEPTH = 16 };

char *hub_path(struct err *e, const char *fmt, ...)
{
    struct buf b;
    va_list ap;
    char *s = NULL;
    int n;
    buf_init(&b, 0);
    va_start(ap, fmt);
    n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n >= 0 && buf_reserve(&b, (size_t)n + 1)) {
        va_start(ap, fmt);
        vsnprintf(b.data, (size_t)n + 1, fmt, ap);
        va_end(ap);
        b.len = (size_t)n;
        s = buf_take(&b);
    }
    if (!s)
        err_set(e, ERR_NOMEM, "no memory for a path");
    return s;
}

bool hub_make_parents(const char *path, struct err *e)
{
    char *copy = mem_try_strdup(path);
    if (!copy)
        return err_set(e, ERR_NOMEM, "no memory for a path");
    bool ok = true;
    for (char *p = strchr(copy + 1, '/'); ok && p; p = strchr(p + 1, '/')) {
        *p = 0;
        if (mkdir(copy, 0777) != 0 && errno != EEXIST && !file_is_dir(copy))
            ok = err_set(e, ERR_IO, "%s: cannot make this folder: %s", copy, strerror(errno));
        *p = '/';
    }
    mem_free(copy);
    return ok;
}

bool hub_cache_open(struct hub_cache *c, const char *root, const char *repo, struct err *e)
{
    char flat[HUB_NAME_MAX * 2];
    size_t n = 0;
    for (const char *p = repo; *p && n + 3 < sizeof flat; p++) {
        flat[n++] = *p == '/' ? '-' : *p;
        if (*p == '/')
            flat[n++] = '-';
    }
    flat[n] = 0;
    c->root = hub_path(e, "%s", root);
    c->repo = hub_path(e, "%s/models--%s", root, flat);
    c->locks = hub_path(e, "%s/.locks/models--%s", root, flat);
    if (c->root && c->repo && c->locks)
        return true;
    hub_cache_free(c);
    return false;
}

void hub_cache_free(struct hub_cache *c)
{
    mem_free(c->root);
    mem_free(c->repo);
    mem_free(c->locks);
    *c = (struct hub_cache){0};
}

char *hub_cache_snapshot(const struct hub_cache *c, const char *commit, struct err *e)
{
    return hub_path(e, "%s/snapshots/%s", c->repo, commit);
}

/* ---- revisions ---- */

bool hub_cache_commit(const struct hub_cache *c, const char *revision, char commit[72])
{
    char *path = hub_path(NULL, "%s/refs/%s", c->repo, revision);
    size_t len = 0;
    char *text = path ? file_read(path, 4096, &len, NULL) : NULL;
    bool ok = false;
    if (text) {
        text[strcspn(text, " \t\r\n")] = 0;
        ok = hub_id_is_safe(text, 71);
        if (ok)
            memcpy(commit, text, strlen(text) + 1);
    }
    mem_free(text);
    mem_free(path);
    if (ok || !hub_id_is_safe(revision, 71))
        return ok;
    path = hub_cache_snapshot(c, revision, NULL);
    ok = path && file_is_dir(path);
    if (ok)
        memcpy(commit, revision, strlen(revision) + 1);
    mem_free(path);
    return ok;
}

static bool write_file(char *path, const void *data, size_t n, struct err *e)
{
    bool ok = path && hub_make_parents(path, e) && file_write_atomic(path, data, n, e);
    mem_free(path);
    return ok;
}

bool hub_cache_set_commit(const struct hub_cache *c, const char *revision, const char *commit, struct err *e)
{
    char old[72];
    if (strcmp(revision, commit) == 0 || (hub_cache_commit(c, revision, old) && strcmp(old, commit) == 0))
        return true;
    return write_file(hub_path(e, "%s/refs/%s", c->repo, revision), commit, strlen(commit), e);
}

bool hub_cache_save_list(const struct hub_cache *c, const struct hub_list *l, struct err *e)
{
    struct buf b;
    buf_init(&b, 0);
    bool ok = hub_list_write(l, &b) ? write_file(hub_path(e, "%s/.quire/%s.json", c->repo, l->commit), b.data, b.len, e)
                                    : err_set(e, ERR_NOMEM, "no memory for the list of files");
    buf_free(&b);
    return ok;
}

bool hub_cache_load_list(const struct hub_cache *c, const char *commit, struct hub_list *l)
{
    size_t len;
    bool has_files = false;
    char *path = hub_path(NULL, "%s/.quire/%s.json", c->repo, commit);
    char *text = path ? file_read(path, MAX_LIST_BYTES, &len, NULL) : NULL;
    bool ok = text && hub_list_parse(l, text, len, &has_files, NULL) && has_files && strcmp(l->commit, commit) == 0;
    if (!ok)
        hub_list_free(l);
    mem_free(text);
    mem_free(path);
    return ok;
}

static bool list_folder(struct hub_list *l, const char *dir, const char *prefix, int depth, struct err *e)
{
    DIR *d = opendir(dir);
    bool ok = true;
    for (struct dirent *ent; ok && d && (ent = readdir(d));) {
        struct stat st;
        if (strcmp(ent->d_name, ".") == 0 || strcmp(ent->d_name, "..") == 0)
            continue;
        char *path = file_join(dir, ent->d_name), *name = *prefix ? file_join(prefix, ent->d_name) : mem_try_strdup(ent->d_name);
        if (!path || !name) {
            ok = err_set(e, ERR_NOMEM, "no memory for a path");
        } else if (stat(path, &st) == 0 && S_ISDIR(st.st_mode)) {
            ok = depth >= MAX_DEPTH || list_folder(l, path, name, depth + 1, e);
        } else if (stat(path, &st) == 0 && hub_name_is_safe(name)) {
            struct hub_file *f = hub_list_add(l, name, e);
            ok = f != NULL;
            if (f)
                f->size = st.st_size;
        }
        mem_free(path);
        mem_free(name);
    }
    if (d)
        closedir(d);
    return ok;
}

bool hub_cache_list_snapshot(const struct hub_cache *c, const char *commit, struct hub_list *l, struct err *e)
{
    char *dir = hub_cache_snapshot(c, commit, e);
    bool ok = dir && list_folder(l, dir, "", 0, e);
    snprintf(l->commit, sizeof l->commit, "%s", commit);
    mem_free(dir);
    return ok;
}

/* ---- files ---- */

static bool has_size(char *path, int64_t size)
{
    struct stat st;
    bool ok = path && stat(path, &st) == 0 && S_ISREG(st.st_mode) && (size < 0 || st.st_size == size);
    mem_free(path);
    return ok;
}

bool hub_cache_has(const struct hub_cache *c, const char *commit, const struct hub_file *f)
{
    return has_size(hub_path(NULL, "%s/snapshots/%s/%s", c->repo, commit, f->name), f->size);
}

bool hub_cache_has_blob(const struct hub_cache *c, const struct hub_file *f)
{
    return f->etag[0] && has_size(hub_path(NULL, "%s/blobs/%s", c->repo, f->etag), f->size);
}

bool hub_cache_link(const struct hub_cache *c, const char *commit, const struct hub_file *f, struct err *e)
{
    char now[HUB_FILE_MAX];
    struct buf target;
    buf_init(&target, 0);
    for (const char *p = strchr(f->name, '/'); p; p = strchr(p + 1, '/'))
        buf_puts(&target, "../");
    buf_printf(&target, "../../blobs/%s", f->etag);
    char *path = hub_path(e, "%s/snapshots/%s/%s", c->repo, commit, f->name);
    char *tmp = hub_path(e, "%s/snapshots/%s/.quire-link-%016llx", c->repo, commit, (unsigned long long)rng_entropy());
    char *blob = hub_path(e, "%s/blobs/%s", c->repo, f->etag);
    bool ok = path && tmp && blob && !target.failed && hub_make_parents(path, e);
    if (ok) {
        ssize_t n = readlink(path, now, sizeof now - 1);
        if (n >= 0 && (size_t)n == target.len && memcmp(now, target.data, target.len) == 0)
            goto done;
        /* Where there are no symbolic links a hard one does. */
        if ((symlink(target.data, tmp) != 0 && link(blob, tmp) != 0) || rename(tmp, path) != 0) {
            ok = err_set(e, ERR_IO, "%s: cannot be linked to its blob: %s", path, strerror(errno));
            unlink(tmp);
        }
    }
done:
    buf_free(&target);
    mem_free(path);
    mem_free(tmp);
    mem_free(blob);
    return ok;
}

void hub_cache_mark_absent(const struct hub_cache *c, const struct hub_list *l)
{
    static const char *const asked[] = {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
                                        "added_tokens.json", "chat_template.jinja", "model.safetensors", "model.safetensors.index.json"};
    for (size_t i = 0; i < sizeof asked / sizeof asked[0]; i++) {
        char *path = hub_list_find(l, asked[i]) ? NULL : hub_path(NULL, "%s/.no_exist/%s/%s", c->repo, l->commit, asked[i]);
        if (path && hub_make_parents(path, NULL)) {
            int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);   /* only an aid to other tools: errors do not matter */
            if (fd >= 0)
                close(fd);
        }
        mem_free(path);
    }
}

bool hub_cache_lock(const struct hub_cache *c, const struct hub_file *f, int *fd, struct err *e)
{
    char *path = hub_path(e, "%s/%s.lock", c->locks, f->etag);
    bool ok = path && hub_make_parents(path, e);
    for (*fd = -1; ok;) {
        struct stat mine, there;
        int got = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
        if (got < 0) {
            ok = err_set(e, ERR_IO, "%s: cannot be opened: %s", path, strerror(errno));
            break;
        }
        if (flock(got, LOCK_EX | LOCK_NB) != 0 && (errno == EWOULDBLOCK || errno == EINTR)) {
            close(got);
            break;
        }
        /* Others remove lock files when done: one that is not there any more locks nothing. */
        if (fstat(got, &mine) == 0 && stat(path, &there) == 0 && mine.st_ino == there.st_ino && mine.st_dev == there.st_dev) {
            *fd = got;
            break;
        }
        close(got);
    }
    mem_free(path);
    return ok;
}

int64_t hub_cache_room(const struct hub_cache *c)
{
    struct statvfs v;
    unsigned long long bytes;
    if (statvfs(c->root, &v) != 0 || __builtin_mul_overflow((unsigned long long)v.f_bavail, (unsigned long long)v.f_frsize, &bytes) || bytes > INT64_MAX)
        return INT64_MAX;
    return (int64_t)bytes;
}
