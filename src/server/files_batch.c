/* Batches as the API shows them, and the thread that runs them. */
#include <stdio.h>
#include <string.h>
#include <time.h>
#include "base/clock.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "server/batch.h"
#include "server/files_int.h"

enum { WINDOW_S = 24 * 3600, RETRY_S = 5, MAX_METADATA = 16, MAX_EXPIRY_S = 10 * 365 * 86400 };

/* ---- states ---- */

bool files_batch_is(const json_t *batch, const char *status)
{
    const char *s = json_string_value(json_object_get(batch, "status"));
    return s && strcmp(s, status) == 0;
}

bool files_batch_is_open(const json_t *b)
{
    return files_batch_is(b, "validating") || files_batch_is(b, "in_progress") || files_batch_is(b, "finalizing") || files_batch_is(b, "cancelling");
}

void files_batch_stamp(json_t *batch, const char *status, int64_t now_s)
{
    char key[48];
    json_object_set_new(batch, "status", json_string(status));
    snprintf(key, sizeof key, "%s_at", status);
    if (!json_is_integer(json_object_get(batch, key)))
        json_object_set_new(batch, key, json_integer(now_s));
}

void files_batch_fail(json_t *batch, const char *code, const char *msg)
{
    files_batch_stamp(batch, "failed", clock_unix_s());
    json_object_set_new(batch, "errors", json_pack("{s:s,s:[{s:s,s:s,s:n,s:n}]}", "object", "list", "data", "code", code, "message", msg, "param", "line"));
}

/* ---- requests ---- */

static bool check_metadata(const json_t *meta, struct api_error *e)
{
    const char *key;
    json_t *v;
    if (!meta || json_is_null(meta))
        return true;
    if (!json_is_object(meta) || json_object_size(meta) > MAX_METADATA)
        return api_fail(e, ERR_INVALID, "metadata", "'metadata' must be an object of at most %d strings", MAX_METADATA);
    json_object_foreach((json_t *)meta, key, v)
        if (!json_is_string(v) || strlen(key) > 64 || json_string_length(v) > 512)
            return api_fail(e, ERR_INVALID, "metadata", "'metadata.%.64s' must be a string of at most 512 bytes, its name of at most 64", key);
    return true;
}

/* output_expires_after: {"anchor":"created_at","seconds":n} */
static bool read_expiry(const json_t *after, int64_t *seconds, struct api_error *e)
{
    *seconds = 0;
    if (!after || json_is_null(after))
        return true;
    const char *anchor = json_string_value(json_object_get(after, "anchor"));
    *seconds = json_integer_value(json_object_get(after, "seconds"));
    return (anchor && strcmp(anchor, "created_at") == 0 && *seconds >= 1 && *seconds <= MAX_EXPIRY_S) ||
           api_fail(e, ERR_INVALID, "output_expires_after", "'output_expires_after' must be {\"anchor\": \"created_at\", \"seconds\": 1 to %d}", MAX_EXPIRY_S);
}

struct order { const char *input, *url; const json_t *metadata; int64_t expiry_s; };

static bool read_order(const json_t *r, struct order *o, struct api_error *e)
{
    const json_t *window = json_object_get(r, "completion_window");
    o->input = json_string_value(json_object_get(r, "input_file_id"));
    o->url = json_string_value(json_object_get(r, "endpoint"));
    o->metadata = json_object_get(r, "metadata");
    if (!o->input || !o->url)
        return api_fail(e, ERR_INVALID, o->input ? "endpoint" : "input_file_id", "'%s' is required, a string", o->input ? "endpoint" : "input_file_id");
    if (!batch_knows_url(o->url))
        return api_fail(e, ERR_INVALID, "endpoint", "'endpoint' is not one that batches may use");
    if (window && (!json_is_string(window) || strcmp(json_string_value(window), "24h") != 0))
        return api_fail(e, ERR_INVALID, "completion_window", "'completion_window' must be 24h");
    return check_metadata(o->metadata, e) && read_expiry(json_object_get(r, "output_expires_after"), &o->expiry_s, e);
}

static json_t *describe(const char *id, const char *owner, const struct order *o)
{
    static const char *const times[] = {"in_progress_at", "finalizing_at", "completed_at", "failed_at", "expired_at", "cancelling_at", "cancelled_at"};
    int64_t now = clock_unix_s();
    json_t *j = json_pack("{s:s,s:s,s:s,s:n,s:s,s:s,s:s,s:n,s:n,s:I,s:I,s:{s:i,s:i,s:i}}", "id", id, "object", "batch", "endpoint", o->url, "errors",
                          "input_file_id", o->input, "completion_window", "24h", "status", "validating", "output_file_id", "error_file_id", "created_at",
                          (json_int_t)now, "expires_at", (json_int_t)(now + WINDOW_S), "request_counts", "total", 0, "completed", 0, "failed", 0);
    for (size_t i = 0; i < sizeof times / sizeof times[0]; i++)
        json_object_set_new(j, times[i], json_null());
    json_object_set_new(j, "metadata", o->metadata ? json_deep_copy(o->metadata) : json_null());
    if (j && files_own(j, owner) && (o->expiry_s == 0 || json_object_set_new(json_object_get(j, "quire"), "expiry_s", json_integer(o->expiry_s)) == 0))
        return j;
    json_decref(j);
    return NULL;
}

json_t *files_batch_add(struct files *f, const char *owner, const json_t *r, struct api_error *e)
{
    struct order o = {0};
    char id[FILES_ID_MAX];
    struct err err;
    json_t *file, *j = NULL;
    if (!read_order(r, &o, e))
        return NULL;
    pthread_mutex_lock(&f->lock);
    file = files_find(f, owner, o.input, "file-", e);
    if (file) {
        files_make_id(f, "batch_", id);
        j = describe(id, owner, &o);
        if (!j) {
            api_fail(e, ERR_NOMEM, NULL, "out of memory");
        } else if (!files_save(f, id, j, &err)) {
            api_fail_err(e, NULL, &err);
            json_decref(j);
            j = NULL;
        }
        pthread_cond_signal(&f->news);
    }
    pthread_mutex_unlock(&f->lock);
    json_decref(file);
    return j ? files_show(j) : NULL;
}

json_t *files_batch_list(struct files *f, const char *owner, const struct files_page *p, struct api_error *e) { return files_page(f, owner, "batch_", p, e); }

/* One that never began is over at once; else the thread keeps what was answered and ends it. */
static void cancel(struct files *f, json_t *j, const char *id)
{
    int64_t now = clock_unix_s();
    files_batch_stamp(j, "cancelling", now);
    if (strcmp(f->running, id) == 0) {
        f->cancelled_s = now;
        atomic_store(&f->cancel, true);
    } else if (!json_is_integer(json_object_get(j, "in_progress_at"))) {
        files_batch_stamp(j, "cancelled", now);
    }
    pthread_cond_signal(&f->news);
}

json_t *files_batch_cancel(struct files *f, const char *owner, const char *id, struct api_error *e)
{
    struct err err;
    pthread_mutex_lock(&f->lock);
    json_t *j = files_find(f, owner, id, "batch_", e);
    bool ok = j != NULL;
    if (j && !files_batch_is_open(j)) {
        ok = api_fail_status(e, 409, "batch `%.80s` is over already", id);
    } else if (j && !files_batch_is(j, "cancelling")) {
        cancel(f, j, id);
        ok = files_save(f, id, j, &err) || api_fail_err(e, NULL, &err);
    }
    pthread_mutex_unlock(&f->lock);
    if (ok)
        return files_show(j);
    json_decref(j);
    return NULL;
}

/* ---- the thread ---- */

/* One that was cancelled, else the oldest that is not over; a new reference. */
static json_t *next_batch(struct files *f)
{
    json_t *all = files_all(f, "batch_"), *found = NULL;
    for (size_t i = json_array_size(all); i-- > 0;) {
        json_t *j = json_array_get(all, i);
        if (files_batch_is_open(j) && (!found || (files_batch_is(j, "cancelling") && !files_batch_is(found, "cancelling"))))
            found = j;
    }
    json_incref(found);
    json_decref(all);
    return found;
}

static void wait_for_news(struct files *f, int seconds)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += seconds;
    if (seconds > 0)
        pthread_cond_timedwait(&f->news, &f->lock, &until);
    else
        pthread_cond_wait(&f->news, &f->lock);
}

void *files_batch_work(void *arg)
{
    struct files *f = arg;
    pthread_mutex_lock(&f->lock);
    while (!atomic_load(&f->stop)) {
        struct err e = {.msg = ""};
        json_t *batch = next_batch(f);
        if (!batch) {
            wait_for_news(f, 0);
            continue;
        }
        snprintf(f->running, sizeof f->running, "%s", json_string_value(json_object_get(batch, "id")));
        f->cancelled_s = json_integer_value(json_object_get(batch, "cancelling_at"));
        atomic_store(&f->cancel, files_batch_is(batch, "cancelling"));
        pthread_mutex_unlock(&f->lock);
        bool over = files_run(f, batch, &e);
        json_decref(batch);
        pthread_mutex_lock(&f->lock);
        if (!over && !atomic_load(&f->stop)) {
            log_error(f->o.log, "files", "batch %s waits: %s", f->running, e.msg);
            f->running[0] = 0;
            wait_for_news(f, RETRY_S);
        }
        f->running[0] = 0;
    }
    pthread_mutex_unlock(&f->lock);
    return NULL;
}
