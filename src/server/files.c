#include "server/files.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <fcntl.h>
#include <time.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/rng.h"
#include "server/files_int.h"

enum { MAX_META = 1 << 20, TIME_DIGITS = 16, ID_DIGITS = 32 };
/* The first digits of an id between these are a time (2020 to 2200); of random ones one in a thousand is. */
static const int64_t FIRST_US = 1577836800000000, LAST_US = 7258118400000000;

/* ---- ids ---- */

bool files_is_id(const char *id, const char *prefix)
{
    size_t n = strlen(prefix);
    return strncmp(id, prefix, n) == 0 && strlen(id) == n + ID_DIGITS && strspn(id + n, "0123456789abcdef") == ID_DIGITS;
}

void files_make_id(struct files *f, const char *prefix, char id[FILES_ID_MAX])
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    int64_t us = (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
    f->last_id_us = us > f->last_id_us ? us : f->last_id_us + 1;
    snprintf(id, FILES_ID_MAX, "%s%016llx%016llx", prefix, (unsigned long long)f->last_id_us, (unsigned long long)rng_entropy());
}

/* When it was made; 0: the id does not say. */
static int64_t time_of_id(const char *id)
{
    char digits[TIME_DIGITS + 1];
    size_t n = strlen(id);
    if (n < ID_DIGITS)
        return 0;
    snprintf(digits, sizeof digits, "%s", id + n - ID_DIGITS);
    unsigned long long us = strtoull(digits, NULL, 16);
    return us >= (unsigned long long)FIRST_US && us <= (unsigned long long)LAST_US ? (int64_t)us : 0;
}

char *files_path(const struct files *f, const char *id, const char *suffix)
{
    char name[96];
    snprintf(name, sizeof name, "%.64s%s", id, suffix);
    return file_join(f->dir, name);
}

static bool no_memory(struct api_error *e) { return api_fail(e, ERR_NOMEM, NULL, "out of memory"); }

/* ---- objects on the disk ---- */

json_t *files_load(const struct files *f, const char *id)
{
    struct err err;
    size_t n;
    char *path = files_path(f, id, ".json"), *text = path ? file_read(path, MAX_META, &n, &err) : NULL;
    json_t *j = text ? json_parse(text, n, &err) : NULL;
    const char *own = json_string_value(json_object_get(j, "id"));
    if (j && (!own || strcmp(own, id) != 0)) {      /* not ours, whatever it is */
        json_decref(j);
        j = NULL;
    }
    mem_free(text);
    mem_free(path);
    return j;
}

bool files_save(const struct files *f, const char *id, const json_t *j, struct err *e)
{
    struct buf text;
    char *path = files_path(f, id, ".json");
    buf_init(&text, 0);
    bool ok = path && j && json_write(j, &text) ? file_write_atomic(path, text.data, text.len, e) : err_set(e, ERR_NOMEM, "out of memory");
    buf_free(&text);
    mem_free(path);
    return ok;
}

static void erase(const struct files *f, const char *id)
{
    char *meta = files_path(f, id, ".json"), *data = files_path(f, id, ".data");
    if (meta && data) {
        unlink(meta);
        unlink(data);
    }
    mem_free(meta);
    mem_free(data);
}

bool files_expired(const json_t *j)
{
    json_int_t at = json_integer_value(json_object_get(j, "expires_at"));
    return at > 0 && at <= clock_unix_s();
}

const char *files_owner(const json_t *j) { return json_string_value(json_object_get(json_object_get(j, "quire"), "owner")); }

bool files_own(json_t *j, const char *owner)
{
    json_t *own = json_object();
    bool ok = own && (!*owner || json_object_set_new(own, "owner", json_string(owner)) == 0);
    return json_object_set_new(j, "quire", own) == 0 && ok;
}

static bool may_see(const char *owner, const json_t *j)
{
    const char *whose = files_owner(j);
    return !*owner || !whose || strcmp(owner, whose) == 0;
}

json_t *files_show(json_t *j)
{
    json_object_del(j, "quire");
    return j;
}

json_t *files_find(struct files *f, const char *owner, const char *id, const char *prefix, struct api_error *e)
{
    const char *what = *prefix == 'f' ? "file" : "batch";
    json_t *j = files_is_id(id, prefix) ? files_load(f, id) : NULL;
    if (j && ((*prefix == 'f' && files_expired(j)) || !may_see(owner, j))) {
        json_decref(j);
        j = NULL;
    }
    if (!j)
        api_fail(e, ERR_NOT_FOUND, what, "There is no %s `%.80s`.", what, id);
    return j;
}

/* ---- lists ---- */

/* By age, then by id: a total order that no deletion changes. */
static int compare(int64_t a_us, const char *a, int64_t b_us, const char *b) { return a_us != b_us ? (a_us < b_us ? -1 : 1) : strcmp(a, b); }

static const char *id_of(const json_t *j) { return json_string_value(json_object_get(j, "id")); }

static int64_t time_of(const json_t *j)
{
    int64_t us = time_of_id(id_of(j)), s = json_integer_value(json_object_get(j, "created_at"));
    return us / 1000000 == s ? us : s * 1000000;
}

static int newest_first(const void *x, const void *y)
{
    const json_t *a = *(json_t *const *)x, *b = *(json_t *const *)y;
    return -compare(time_of(a), id_of(a), time_of(b), id_of(b));
}

/* Calls visit for each name in the folder that is an id and a suffix. */
static void visit_folder(struct files *f, const char *prefix, void (*visit)(struct files *f, const char *id, const char *suffix, void *ctx), void *ctx)
{
    DIR *d = opendir(f->dir);
    size_t n_id = strlen(prefix) + ID_DIGITS;
    for (struct dirent *de; d && (de = readdir(d)) != NULL;) {
        char id[FILES_ID_MAX] = "";
        if (strlen(de->d_name) > n_id)
            snprintf(id, sizeof id, "%.*s", (int)n_id, de->d_name);
        if (files_is_id(id, prefix))
            visit(f, id, de->d_name + n_id, ctx);
    }
    if (d)
        closedir(d);
}

static void collect(struct files *f, const char *id, const char *suffix, void *ctx)
{
    json_t *j = strcmp(suffix, ".json") == 0 ? files_load(f, id) : NULL;
    if (j && *id == 'f' && files_expired(j))
        erase(f, id);
    else if (j)
        json_array_append(ctx, j);
    json_decref(j);
}

json_t *files_all(struct files *f, const char *prefix)
{
    json_t *all = json_array(), *sorted = json_array();
    if (all)
        visit_folder(f, prefix, collect, all);
    size_t n = json_array_size(all);
    json_t **items = mem_try_zalloc(n, sizeof *items);
    bool ok = all && sorted && items;
    for (size_t i = 0; ok && i < n; i++)
        items[i] = json_array_get(all, i);
    if (ok && n)
        qsort(items, n, sizeof *items, newest_first);
    for (size_t i = 0; ok && i < n; i++)
        ok = json_array_append(sorted, items[i]) == 0;
    mem_free(items);
    json_decref(all);
    if (ok)
        return sorted;
    json_decref(sorted);
    return NULL;
}

/* Where a page begins: behind after, which need not be there any more if its id says how old it was. */
static bool read_after(struct files *f, const char *owner, const char *prefix, const char *after, int64_t *us, struct api_error *e)
{
    struct api_error none;
    if (!files_is_id(after, prefix))
        return api_fail(e, ERR_INVALID, "after", "'after' must be the id that the page before ended with, found '%.80s'", after);
    json_t *j = files_find(f, owner, after, prefix, &none);
    *us = j ? time_of(j) : time_of_id(after);
    json_decref(j);
    return *us > 0 || api_fail(e, ERR_NOT_FOUND, "after", "'after': there is no `%.80s`", after);
}

json_t *files_page(struct files *f, const char *owner, const char *prefix, const struct files_page *p, struct api_error *e)
{
    int64_t after_us = 0;
    if (p->after && !read_after(f, owner, prefix, p->after, &after_us, e))
        return NULL;
    pthread_mutex_lock(&f->lock);
    json_t *all = files_all(f, prefix), *data = json_array();
    pthread_mutex_unlock(&f->lock);
    size_t n = json_array_size(all);
    bool more = false;
    for (size_t i = 0; i < n && !more; i++) {
        json_t *j = json_array_get(all, p->oldest_first ? n - 1 - i : i);
        const char *purpose = json_string_value(json_object_get(j, "purpose"));
        int order = p->after ? compare(time_of(j), id_of(j), after_us, p->after) : 0;
        bool before = p->after && (p->oldest_first ? order <= 0 : order >= 0);
        if (before || !may_see(owner, j) || (p->purpose && (!purpose || strcmp(purpose, p->purpose) != 0)))
            continue;
        more = (int64_t)json_array_size(data) == p->limit;
        if (!more)
            json_array_append(data, files_show(j));
    }
    const char *first = id_of(json_array_get(data, 0)), *last = id_of(json_array_get(data, json_array_size(data) - 1));
    json_t *list = all && data ? json_pack("{s:s,s:O,s:s?,s:s?,s:b}", "object", "list", "data", data, "first_id", first, "last_id", last, "has_more", more) : NULL;
    json_decref(all);
    json_decref(data);
    if (!list)
        no_memory(e);
    return list;
}

json_t *files_list(struct files *f, const char *owner, const struct files_page *p, struct api_error *e) { return files_page(f, owner, "file-", p, e); }

static size_t bytes_kept(struct files *f)
{
    json_t *all = files_all(f, "file-"), *j;
    size_t i, sum = 0;
    json_array_foreach(all, i, j)
        sum += (size_t)json_integer_value(json_object_get(j, "bytes"));
    json_decref(all);
    return sum;
}

/* ---- files ---- */

json_t *files_describe(const char *id, const char *owner, const struct files_upload *u)
{
    int64_t us = time_of_id(id), s = us / 1000000;
    json_t *j = json_pack("{s:s,s:s,s:I,s:I,s:s,s:s,s:s,s:n}", "id", id, "object", "file", "bytes", (json_int_t)u->n_bytes, "created_at", (json_int_t)s,
                          "filename", u->name, "purpose", u->purpose, "status", "processed", "status_details");
    if (j && json_object_set_new(j, "expires_at", u->expires_in_s > 0 ? json_integer(s + u->expires_in_s) : json_null()) == 0 && files_own(j, owner))
        return j;
    json_decref(j);
    return NULL;
}

json_t *files_add(struct files *f, const char *owner, const struct files_upload *u, struct api_error *e)
{
    char id[FILES_ID_MAX];
    struct err err;
    pthread_mutex_lock(&f->lock);
    files_make_id(f, "file-", id);
    char *path = files_path(f, id, ".data");
    json_t *j = files_describe(id, owner, u);
    bool ok = path && j ? true : no_memory(e);
    if (ok && f->o.max_total_bytes && bytes_kept(f) + u->n_bytes > f->o.max_total_bytes)
        ok = api_fail_status(e, 413, "the server keeps at most %zu bytes of files; delete some", f->o.max_total_bytes);
    ok = ok && ((file_write_atomic(path, u->data, u->n_bytes, &err) && files_save(f, id, j, &err)) || api_fail_err(e, NULL, &err));
    if (!ok)
        erase(f, id);
    pthread_mutex_unlock(&f->lock);
    mem_free(path);
    if (ok)
        return files_show(j);
    json_decref(j);
    return NULL;
}

json_t *files_get(struct files *f, const char *owner, const char *id, struct api_error *e)
{
    json_t *j = files_find(f, owner, id, strncmp(id, "batch_", 6) == 0 ? "batch_" : "file-", e);
    return j ? files_show(j) : NULL;
}

/* Whether a batch that is not over reads from it. */
static bool is_input(struct files *f, const char *id, struct api_error *e)
{
    json_t *all = files_all(f, "batch_"), *j;
    size_t i;
    bool found = false;
    json_array_foreach(all, i, j) {
        const char *input = json_string_value(json_object_get(j, "input_file_id"));
        if (!found && input && strcmp(input, id) == 0 && files_batch_is_open(j)) {
            api_fail_status(e, 409, "file `%.80s` is the input of batch `%.80s`, which is not over; cancel that first", id, id_of(j));
            found = true;
        }
    }
    json_decref(all);
    return found;
}

bool files_delete(struct files *f, const char *owner, const char *id, struct api_error *e)
{
    pthread_mutex_lock(&f->lock);
    json_t *j = files_find(f, owner, id, "file-", e);
    bool ok = j && !is_input(f, id, e);
    if (ok)
        erase(f, id);
    pthread_mutex_unlock(&f->lock);
    json_decref(j);
    return ok;
}

bool files_content(struct files *f, const char *owner, const char *id, struct buf *out, struct api_error *e)
{
    struct err err;
    size_t n;
    json_t *j = files_find(f, owner, id, "file-", e);
    if (!j)
        return false;
    json_decref(j);
    char *path = files_path(f, id, ".data"), *data = path ? file_read(path, SIZE_MAX / 2, &n, &err) : NULL;
    bool ok = data ? buf_append(out, data, n) || no_memory(e) : path ? api_fail_err(e, NULL, &err) : no_memory(e);
    mem_free(data);
    mem_free(path);
    return ok;
}

/* ---- opening ---- */

static void remove_named(struct files *f, const char *id, const char *suffix)
{
    char name[300], *path;
    snprintf(name, sizeof name, "%s%s", id, suffix);
    path = file_join(f->dir, name);
    if (path)
        unlink(path);
    mem_free(path);
}

/* Data that no .json tells of, what was to be renamed, answers of batches that are over. */
static void sweep(struct files *f, const char *id, const char *suffix, void *ctx)
{
    (void)ctx;
    json_t *j = files_load(f, id);
    char *meta = files_path(f, id, ".json");
    bool gone = meta && !file_exists(meta);          /* one that cannot be read now may be another time */
    if (strstr(suffix, ".tmp") || (strcmp(suffix, ".data") == 0 && gone) ||
        (strcmp(suffix, ".part") == 0 && (gone || (j && !files_batch_is_open(j)))))
        remove_named(f, id, suffix);
    mem_free(meta);
    json_decref(j);
}

/* Two servers would run the same batches. */
static bool lock_folder(struct files *f, struct err *e)
{
    char *path = file_join(f->dir, "lock");
    f->lock_fd = path ? open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600) : -1;
    mem_free(path);
    if (f->lock_fd < 0)
        return err_set(e, ERR_IO, "--files-dir %s: %s", f->dir, strerror(errno));
    return flock(f->lock_fd, LOCK_EX | LOCK_NB) == 0 || err_set(e, ERR_IO, "--files-dir %s: another server uses it (%s)", f->dir, strerror(errno));
}

bool files_open(struct files **out, const struct files_opts *o, struct err *e)
{
    *out = NULL;
    if (mkdir(o->dir, 0700) != 0 && errno != EEXIST)
        return err_set(e, ERR_IO, "--files-dir %s: %s", o->dir, strerror(errno));
    if (access(o->dir, R_OK | W_OK | X_OK) != 0)
        return err_set(e, ERR_IO, "--files-dir %s: %s", o->dir, strerror(errno));
    struct files *f = mem_try_zalloc(1, sizeof *f);
    if (!f || !(f->dir = mem_try_strdup(o->dir))) {
        mem_free(f);
        return err_set(e, ERR_NOMEM, "out of memory");
    }
    f->o = *o;
    pthread_mutex_init(&f->lock, NULL);
    pthread_cond_init(&f->news, NULL);
    bool ok = lock_folder(f, e);
    if (ok) {
        visit_folder(f, "file-", sweep, NULL);
        visit_folder(f, "batch_", sweep, NULL);
        f->has_thread = pthread_create(&f->thread, NULL, files_batch_work, f) == 0;
        ok = f->has_thread || err_set(e, ERR_IO, "no thread for batches");
    }
    if (!ok) {
        files_close(&f);
        return false;
    }
    *out = f;
    return true;
}

void files_stop(struct files *f)
{
    pthread_mutex_lock(&f->lock);
    atomic_store(&f->stop, true);
    pthread_cond_signal(&f->news);
    pthread_mutex_unlock(&f->lock);
}

void files_close(struct files **pf)
{
    struct files *f = *pf;
    if (!f)
        return;
    *pf = NULL;
    files_stop(f);
    if (f->has_thread)
        pthread_join(f->thread, NULL);
    if (f->lock_fd >= 0)
        close(f->lock_fd);
    pthread_cond_destroy(&f->news);
    pthread_mutex_destroy(&f->lock);
    mem_free(f->dir);
    mem_free(f);
}
