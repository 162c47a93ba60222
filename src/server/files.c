#include "server/files.h"

#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/rng.h"
#include "server/batch.h"
#include "server/models.h"

enum { MAX_META = 1 << 20, WINDOW_S = 24 * 3600, ID_DIGITS = 32 };

struct files {
    char *dir;
    struct files_opts o;
    pthread_mutex_t lock;            /* guards the folder's changes */
    pthread_cond_t news;
    pthread_t thread;
    bool has_thread;
    atomic_bool stop, cancel;
    char running[64];                /* id of the batch that runs, or "" */
    int64_t told_us;                 /* when its counts were last written */
};

/* ---- names ---- */

static void make_id(const char *prefix, char id[64])
{
    snprintf(id, 64, "%s%016llx%016llx", prefix, (unsigned long long)rng_entropy(), (unsigned long long)rng_entropy());
}

/* Nothing else becomes part of a path. */
static bool is_id(const char *id, const char *prefix)
{
    size_t n = strlen(prefix);
    return strncmp(id, prefix, n) == 0 && strlen(id) == n + ID_DIGITS && strspn(id + n, "0123456789abcdef") == ID_DIGITS;
}

static char *path_of(const struct files *f, const char *id, const char *suffix)
{
    char name[96];
    snprintf(name, sizeof name, "%.64s%s", id, suffix);
    return file_join(f->dir, name);
}

static bool no_memory(struct api_error *e) { return api_fail(e, ERR_NOMEM, NULL, "out of memory"); }

/* ---- objects on the disk ---- */

static json_t *load(const struct files *f, const char *id)
{
    struct err err;
    size_t n;
    char *path = path_of(f, id, ".json"), *text = path ? file_read(path, MAX_META, &n, &err) : NULL;
    json_t *j = text ? json_parse(text, n, &err) : NULL;
    mem_free(text);
    mem_free(path);
    return j;
}

static bool save(const struct files *f, const char *id, const json_t *j, struct err *e)
{
    struct buf text;
    char *path = path_of(f, id, ".json");
    buf_init(&text, 0);
    bool ok = path && j && json_write(j, &text) ? file_write_atomic(path, text.data, text.len, e) : err_set(e, ERR_NOMEM, "out of memory");
    buf_free(&text);
    mem_free(path);
    return ok;
}

static void erase(const struct files *f, const char *id)
{
    char *meta = path_of(f, id, ".json"), *data = path_of(f, id, ".data");
    if (meta && data) {
        unlink(meta);
        unlink(data);
    }
    mem_free(meta);
    mem_free(data);
}

static bool expired(const json_t *j)
{
    json_int_t at = json_integer_value(json_object_get(j, "expires_at"));
    return at > 0 && at <= clock_unix_s();
}

static json_t *find(struct files *f, const char *id, const char *prefix, const char *what, struct api_error *e)
{
    json_t *j = is_id(id, prefix) ? load(f, id) : NULL;
    if (j && *prefix == 'f' && expired(j)) {
        erase(f, id);
        json_decref(j);
        j = NULL;
    }
    if (!j)
        api_fail(e, ERR_NOT_FOUND, what, "There is no %s `%.80s`.", what, id);
    return j;
}

static int newest_first(const void *x, const void *y)
{
    const json_t *a = *(json_t *const *)x, *b = *(json_t *const *)y;
    json_int_t s = json_integer_value(json_object_get(a, "created_at")), t = json_integer_value(json_object_get(b, "created_at"));
    return s != t ? (s < t ? 1 : -1) : strcmp(json_string_value(json_object_get(a, "id")), json_string_value(json_object_get(b, "id")));
}

json_t *files_list(struct files *f, const char *prefix)
{
    DIR *d = opendir(f->dir);
    json_t *all = json_array(), *sorted = json_array();
    for (struct dirent *de; d && (de = readdir(d)) != NULL;) {
        char id[64] = "";
        size_t n = strlen(de->d_name);
        if (n > 5 && n < sizeof id + 5 && strcmp(de->d_name + n - 5, ".json") == 0)
            snprintf(id, sizeof id, "%.*s", (int)(n - 5), de->d_name);
        json_t *j = is_id(id, prefix) ? load(f, id) : NULL;
        if (j && !(*prefix == 'f' && expired(j)) && json_is_string(json_object_get(j, "id")))
            json_array_append(all, j);
        else if (j)
            erase(f, id);
        json_decref(j);
    }
    if (d)
        closedir(d);
    size_t n = json_array_size(all);
    json_t **items = mem_try_zalloc(n, sizeof *items);
    for (size_t i = 0; items && i < n; i++)
        items[i] = json_array_get(all, i);
    if (items && n)
        qsort(items, n, sizeof *items, newest_first);
    for (size_t i = 0; items && i < n; i++)
        json_array_append(sorted, items[i]);
    mem_free(items);
    json_decref(all);
    return sorted;
}

static size_t bytes_kept(struct files *f)
{
    json_t *all = files_list(f, "file-"), *j;
    size_t i, sum = 0;
    json_array_foreach(all, i, j)
        sum += (size_t)json_integer_value(json_object_get(j, "bytes"));
    json_decref(all);
    return sum;
}

/* ---- files ---- */

static json_t *describe(const char *id, const char *name, const char *purpose, int64_t bytes, int64_t expires_in_s)
{
    int64_t now = clock_unix_s();
    json_t *j = json_pack("{s:s,s:s,s:I,s:I,s:s,s:s,s:s,s:n}", "id", id, "object", "file", "bytes", (json_int_t)bytes, "created_at", (json_int_t)now,
                          "filename", name, "purpose", purpose, "status", "processed", "status_details");
    if (j)
        json_object_set_new(j, "expires_at", expires_in_s > 0 ? json_integer(now + expires_in_s) : json_null());
    return j;
}

json_t *files_add(struct files *f, const char *name, const char *purpose, const void *data, size_t n, int64_t expires_in_s, struct api_error *e)
{
    char id[64];
    struct err err;
    make_id("file-", id);
    char *path = path_of(f, id, ".data");
    json_t *j = describe(id, name, purpose, (int64_t)n, expires_in_s);
    pthread_mutex_lock(&f->lock);
    bool ok = path && j ? true : no_memory(e);
    if (ok && f->o.max_total_bytes && bytes_kept(f) + n > f->o.max_total_bytes)
        ok = api_fail_status(e, 413, "the server keeps at most %zu bytes of files; delete some", f->o.max_total_bytes);
    ok = ok && ((file_write_atomic(path, data, n, &err) && save(f, id, j, &err)) || api_fail_err(e, NULL, &err));
    if (!ok)
        erase(f, id);
    pthread_mutex_unlock(&f->lock);
    mem_free(path);
    if (ok)
        return j;
    json_decref(j);
    return NULL;
}

json_t *files_get(struct files *f, const char *id, struct api_error *e)
{
    bool batch = strncmp(id, "batch_", 6) == 0;
    return find(f, id, batch ? "batch_" : "file-", batch ? "batch" : "file", e);
}

bool files_delete(struct files *f, const char *id, struct api_error *e)
{
    pthread_mutex_lock(&f->lock);
    json_t *j = find(f, id, "file-", "file", e);
    if (j)
        erase(f, id);
    pthread_mutex_unlock(&f->lock);
    json_decref(j);
    return j != NULL;
}

bool files_content(struct files *f, const char *id, struct buf *out, struct api_error *e)
{
    struct err err;
    size_t n;
    json_t *j = find(f, id, "file-", "file", e);
    if (!j)
        return false;
    json_decref(j);
    char *path = path_of(f, id, ".data"), *data = path ? file_read(path, SIZE_MAX / 2, &n, &err) : NULL;
    bool ok = data ? buf_append(out, data, n) || no_memory(e) : path ? api_fail_err(e, NULL, &err) : no_memory(e);
    mem_free(data);
    mem_free(path);
    return ok;
}

/* ---- batches ---- */

static void stamp(json_t *j, const char *status)
{
    char key[48];
    json_object_set_new(j, "status", json_string(status));
    snprintf(key, sizeof key, "%s_at", status);
    json_object_set_new(j, key, json_integer(clock_unix_s()));
}

static bool is_status(const json_t *j, const char *status)
{
    const char *s = json_string_value(json_object_get(j, "status"));
    return s && strcmp(s, status) == 0;
}

static bool is_open(const json_t *j) { return is_status(j, "validating") || is_status(j, "in_progress") || is_status(j, "finalizing") || is_status(j, "cancelling"); }

static void set_counts(json_t *j, const struct batch_counts *n)
{
    json_object_set_new(j, "request_counts", json_pack("{s:I,s:I,s:I}", "total", (json_int_t)n->n_read, "completed",
                                                       (json_int_t)(n->n_written - n->n_failed), "failed", (json_int_t)n->n_failed));
}

json_t *files_batch_add(struct files *f, const json_t *r, struct api_error *e)
{
    static const char *const times[] = {"in_progress_at", "finalizing_at", "completed_at", "failed_at", "expired_at", "cancelling_at", "cancelled_at"};
    const char *input = json_string_value(json_object_get(r, "input_file_id")), *url = json_string_value(json_object_get(r, "endpoint")),
               *window = json_string_value(json_object_get(r, "completion_window"));
    json_t *meta = json_object_get(r, "metadata");
    char id[64];
    struct err err;
    if (!input || !url) {
        api_fail(e, ERR_INVALID, input ? "endpoint" : "input_file_id", "'%s' is required, a string", input ? "endpoint" : "input_file_id");
        return NULL;
    }
    if (!batch_knows_url(url) || (window && strcmp(window, "24h") != 0) || (meta && !json_is_object(meta) && !json_is_null(meta))) {
        const char *at = !batch_knows_url(url) ? "endpoint" : window && strcmp(window, "24h") != 0 ? "completion_window" : "metadata";
        api_fail(e, ERR_INVALID, at, *at == 'e' ? "'endpoint' is not one that batches may use" : *at == 'c' ? "'completion_window' must be 24h" : "'metadata' must be an object");
        return NULL;
    }
    json_t *file = find(f, input, "file-", "file", e);
    if (!file)
        return NULL;
    json_decref(file);
    make_id("batch_", id);
    int64_t now = clock_unix_s();
    json_t *j = json_pack("{s:s,s:s,s:s,s:n,s:s,s:s,s:s,s:n,s:n,s:I,s:I}", "id", id, "object", "batch", "endpoint", url, "errors", "input_file_id", input,
                          "completion_window", "24h", "status", "validating", "output_file_id", "error_file_id", "created_at", (json_int_t)now, "expires_at",
                          (json_int_t)(now + WINDOW_S));
    for (size_t i = 0; i < sizeof times / sizeof times[0]; i++)
        json_object_set_new(j, times[i], json_null());
    set_counts(j, &(struct batch_counts){0});
    json_object_set_new(j, "metadata", meta ? json_incref(meta) : json_null());
    pthread_mutex_lock(&f->lock);
    bool ok = save(f, id, j, &err) || api_fail_err(e, NULL, &err);
    pthread_cond_signal(&f->news);
    pthread_mutex_unlock(&f->lock);
    if (ok)
        return j;
    json_decref(j);
    return NULL;
}

json_t *files_batch_cancel(struct files *f, const char *id, struct api_error *e)
{
    struct err err;
    pthread_mutex_lock(&f->lock);
    json_t *j = find(f, id, "batch_", "batch", e);
    if (j && !is_open(j)) {
        api_fail_status(e, 409, "batch `%.80s` is over already", id);
        json_decref(j);
        j = NULL;
    } else if (j && !is_status(j, "cancelling")) {
        stamp(j, "cancelling");
        if (strcmp(f->running, id) == 0)
            atomic_store(&f->cancel, true);
        else
            stamp(j, "cancelled");
        if (!save(f, id, j, &err)) {
            api_fail_err(e, NULL, &err);
            json_decref(j);
            j = NULL;
        }
    }
    pthread_mutex_unlock(&f->lock);
    return j;
}

/* ---- running ---- */

struct run { struct files *f; json_t *batch; const char *id; };

/* Counts are shown a few times a second; the clock and people may end it. */
static bool go_on(void *ctx, const struct batch_counts *n)
{
    struct run *r = ctx;
    struct files *f = r->f;
    int64_t now = clock_now_us();
    if (atomic_load(&f->stop) || atomic_load(&f->cancel) || expired(r->batch))
        return false;
    if (now - f->told_us > 500000) {
        struct err err;
        f->told_us = now;
        set_counts(r->batch, n);
        pthread_mutex_lock(&f->lock);
        if (!atomic_load(&f->cancel))
            save(f, r->id, r->batch, &err);
        pthread_mutex_unlock(&f->lock);
    }
    return true;
}

/* What was written becomes a file of its own, unless it is empty. */
static bool keep_output(struct files *f, json_t *batch, const char *key, const char *name, FILE **tmp, struct err *e)
{
    long n = fflush(*tmp) == 0 ? ftell(*tmp) : -1;
    struct api_error ae;
    if (n == 0)
        return true;
    char *data = n > 0 ? mem_try_alloc((size_t)n, 1) : NULL;
    rewind(*tmp);
    if (!data || fread(data, 1, (size_t)n, *tmp) != (size_t)n) {
        mem_free(data);
        return err_set(e, ERR_IO, "the batch's answers cannot be read back: %s", strerror(errno));
    }
    json_t *j = files_add(f, name, "batch_output", data, (size_t)n, 0, &ae);
    mem_free(data);
    if (!j)
        return err_set(e, ERR_IO, "%s", ae.msg);
    json_object_set(batch, key, json_object_get(j, "id"));
    json_decref(j);
    return true;
}

static void fail_batch(json_t *batch, const struct err *e)
{
    stamp(batch, "failed");
    json_object_set_new(batch, "errors", json_pack("{s:s,s:[{s:s,s:s,s:n,s:n}]}", "object", "list", "data", "code", "batch_failed", "message", e->msg, "param", "line"));
}

static bool answer_lines(struct run *r, const struct api *api, FILE *in, FILE *out, FILE *errors, struct err *e)
{
    struct batch_counts n = {0};
    const struct batch_opts o = {.api = api, .in = in, .out = out, .errors = errors, .in_name = "the batch's input", .out_name = "the batch's output",
                                 .only_url = json_string_value(json_object_get(r->batch, "endpoint")), .go_on = go_on, .ctx = r};
    bool ok = batch_run(&o, &n, e);
    set_counts(r->batch, &n);
    return ok;
}

static void run_batch(struct files *f, json_t *batch)
{
    struct err e;
    struct run r = {.f = f, .batch = batch, .id = json_string_value(json_object_get(batch, "id"))};
    struct server_model *m = server_models_peek(f->o.models, "");
    const char *input = json_string_value(json_object_get(batch, "input_file_id"));
    char *path = input && is_id(input, "file-") ? path_of(f, input, ".data") : NULL;
    FILE *in = path ? fopen(path, "re") : NULL, *out = tmpfile(), *errors = tmpfile();
    bool ok = m && in && out && errors;
    if (!ok)
        err_set(&e, ERR_IO, !m ? "no model is loaded" : !in ? "the input file is gone" : "no temporary file: %s", strerror(errno));
    ok = ok && answer_lines(&r, server_model_api(m), in, out, errors, &e);
    bool stopped = !ok && e.code == ERR_CANCELLED;
    if (!atomic_load(&f->stop)) {   /* else lines may have failed because the server ends */
        struct err why;
        if ((ok || stopped) && (!keep_output(f, batch, "output_file_id", "output.jsonl", &out, &why) ||
                                !keep_output(f, batch, "error_file_id", "errors.jsonl", &errors, &why)))
            fail_batch(batch, &why);
        else if (ok)
            stamp(batch, "completed");
        else if (stopped)
            stamp(batch, atomic_load(&f->cancel) ? "cancelled" : "expired");
        else
            fail_batch(batch, &e);
        pthread_mutex_lock(&f->lock);
        if (!save(f, r.id, batch, &why))
            log_error(f->o.log, "files", "batch %s: %s", r.id, why.msg);
        pthread_mutex_unlock(&f->lock);
    }
    if (in)
        fclose(in);
    if (out)
        fclose(out);
    if (errors)
        fclose(errors);
    mem_free(path);
    if (m)
        server_model_leave(m);
}

/* The oldest that is not over, a new reference. */
static json_t *next_batch(struct files *f)
{
    json_t *all = files_list(f, "batch_"), *found = NULL;
    for (size_t i = json_array_size(all); i-- > 0 && !found;)
        if (is_open(json_array_get(all, i)))
            found = json_incref(json_array_get(all, i));
    json_decref(all);
    return found;
}

static void *work(void *arg)
{
    struct files *f = arg;
    pthread_mutex_lock(&f->lock);
    while (!atomic_load(&f->stop)) {
        struct err e;
        json_t *batch = next_batch(f);
        if (!batch) {
            pthread_cond_wait(&f->news, &f->lock);
            continue;
        }
        snprintf(f->running, sizeof f->running, "%s", json_string_value(json_object_get(batch, "id")));
        atomic_store(&f->cancel, is_status(batch, "cancelling"));
        if (!is_status(batch, "cancelling"))
            stamp(batch, "in_progress");
        bool ok = save(f, f->running, batch, &e);
        pthread_mutex_unlock(&f->lock);
        if (ok)
            run_batch(f, batch);
        else
            log_error(f->o.log, "files", "%s", e.msg);
        json_decref(batch);
        pthread_mutex_lock(&f->lock);
        f->running[0] = 0;
        if (!ok)
            pthread_cond_wait(&f->news, &f->lock);
    }
    pthread_mutex_unlock(&f->lock);
    return NULL;
}

/* ---- opening ---- */

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
    f->has_thread = pthread_create(&f->thread, NULL, work, f) == 0;
    if (!f->has_thread) {
        files_close(&f);
        return err_set(e, ERR_IO, "no thread for batches");
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
    pthread_cond_destroy(&f->news);
    pthread_mutex_destroy(&f->lock);
    mem_free(f->dir);
    mem_free(f);
}
