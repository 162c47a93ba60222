/* One batch, from its lines to the files with its answers.
 *
 *   validating -> in_progress -> finalizing -> completed        each is on the disk before the next begins, so that a restart goes on
 *   a line has an answer when the journal has it; only then     from there
 *
 * The lines of one model are answered together, the models in the order in which the lines name them. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/vec.h"
#include "server/batch.h"
#include "server/files_int.h"
#include "server/files_journal.h"
#include "server/models.h"

enum { MAX_LINES = 1000000, SAVE_US = 500000, LOAD_TRIES = 2 };

/* model NULL: nobody's.  unsure: it names none that could be looked for. */
struct line { const char *text; size_t len; struct server_model *model; struct files_record answer; bool answered, unsure; };

struct run {
    struct files *f;
    json_t *batch;
    const char *id;
    char *journal_path;
    struct file_view input;
    struct line *lines; size_t n, cap;
    struct files_journal journal;
    size_t n_answered, n_failed;
    bool unsynced;
    int64_t saved_us;
    struct server_model *model;      /* whose lines are answered now */
    size_t next;                     /* from where its further lines are looked for */
};

/* ---- what is told of it ---- */

static bool is_stopped(const struct run *r) { return atomic_load(&r->f->stop) || atomic_load(&r->f->cancel) || files_expired(r->batch); }

static bool refuse_stopped(struct err *e) { return err_set(e, ERR_CANCELLED, "stopped"); }

/* The batch as it is now, or with end as it ends; whoever cancels it before the end is on the disk is heard. */
static bool save(struct run *r, const char *end, struct err *e)
{
    int64_t now = clock_unix_s();
    json_object_set_new(r->batch, "request_counts", json_pack("{s:I,s:I,s:I}", "total", (json_int_t)r->n, "completed",
                                                              (json_int_t)(r->n_answered - r->n_failed), "failed", (json_int_t)r->n_failed));
    pthread_mutex_lock(&r->f->lock);
    bool cancelled = atomic_load(&r->f->cancel) && files_batch_is_open(r->batch);
    if (cancelled)
        files_batch_stamp(r->batch, "cancelling", r->f->cancelled_s);
    if (end)
        files_batch_stamp(r->batch, cancelled ? "cancelled" : end, now);
    bool ok = files_save(r->f, r->id, r->batch, e);
    pthread_mutex_unlock(&r->f->lock);
    return ok;
}

/* A few times a second while it runs. */
static bool go_on(void *ctx, const struct batch_counts *n)
{
    struct run *r = ctx;
    int64_t now = clock_now_us();
    struct err e;
    (void)n;
    if (is_stopped(r))
        return false;
    if (now - r->saved_us > SAVE_US && r->unsynced) {
        r->saved_us = now;
        r->unsynced = !files_journal_sync(&r->journal, &e);   /* a disk that is full is met when the next answer comes */
        save(r, NULL, &e);
    }
    return true;
}

static bool keep_waiting(void *ctx) { return !is_stopped(ctx); }

/* ---- lines ---- */

static bool add_line(struct run *r, const char *text, size_t len, struct err *e)
{
    while (len > 0 && strchr(" \t\r", text[len - 1]))
        len--;
    if (len == 0)
        return true;
    if (!vec_reserve((void **)&r->lines, &r->cap, r->n + 1, sizeof *r->lines))
        return err_set(e, ERR_NOMEM, "out of memory for the lines of a batch");
    r->lines[r->n++] = (struct line){.text = text, .len = len};
    return true;
}

/* What is no request with a good name is for a model's api to refuse. */
static void name_model(struct run *r, struct line *l)
{
    struct err err;
    json_t *doc = json_parse(l->text, l->len, &err);
    const json_t *body = json_object_get(doc, "body"), *name = json_object_get(body, "model");
    const char *text = json_string_value(name);
    l->unsure = !json_is_object(body) || (name && !json_is_null(name) && (!text || strlen(text) != json_string_length(name)));
    l->model = l->unsure ? NULL : server_models_named(r->f->o.models, text ? text : "");
    json_decref(doc);
}

static void name_models(struct run *r)
{
    struct server_models *ms = r->f->o.models;
    struct server_model *first = NULL;
    bool one = server_models_is_one(ms);
    for (size_t i = 0; i < r->n && !one; i++) {
        name_model(r, &r->lines[i]);
        first = first ? first : r->lines[i].model;     /* it is loaded anyhow */
    }
    first = first ? first : server_models_named(ms, "");
    for (size_t i = 0; i < r->n; i++)
        if (one || r->lines[i].unsure)
            r->lines[i].model = first;
}

/* False with ERR_INVALID or ERR_NOT_FOUND: the batch has failed. */
static bool read_lines(struct run *r, struct err *e)
{
    const char *input = json_string_value(json_object_get(r->batch, "input_file_id"));
    char *path = input && files_is_id(input, "file-") ? files_path(r->f, input, ".data") : NULL;
    bool ok = path ? file_view_open(&r->input, path, e) : err_set(e, ERR_NOT_FOUND, "the input file is gone");
    mem_free(path);
    const char *at = (const char *)r->input.data, *end = at + r->input.size;
    while (ok && r->input.size > 0 && at < end) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        ok = add_line(r, at, (size_t)((stop ? stop : end) - at), e);
        if (ok && r->n > MAX_LINES)
            ok = err_set(e, ERR_INVALID, "the input file has more than %d lines", MAX_LINES);
        at = stop ? stop + 1 : end;
    }
    if (ok && r->n == 0)
        ok = err_set(e, ERR_INVALID, "the input file has no lines");
    return ok;
}

static void on_record(void *ctx, const struct files_record *record)
{
    struct run *r = ctx;
    struct line *l = record->index >= 0 && (size_t)record->index < r->n ? &r->lines[record->index] : NULL;
    if (!l || l->answered)
        return;
    l->answered = true;
    l->answer = *record;
    r->n_answered++;
    r->n_failed += record->failed;
}

static bool keep_answer(struct run *r, int64_t index, bool failed, const char *text, size_t len, struct err *e)
{
    struct files_record record = {.failed = failed, .index = index, .len = len};
    if (!files_journal_add(&r->journal, &record, text, e))
        return false;
    on_record(r, &record);
    r->unsynced = true;
    return true;
}

/* ---- answering ---- */

static bool next_line(void *ctx, int64_t *index, const char **text, size_t *len)
{
    struct run *r = ctx;
    if (server_model_is_wanted(r->model))
        return false;
    for (; r->next < r->n; r->next++) {
        const struct line *l = &r->lines[r->next];
        if (l->answered || l->model != r->model)
            continue;
        *index = (int64_t)r->next++;
        *text = l->text;
        *len = l->len;
        return true;
    }
    return false;
}

/* An answer that comes while everything ends may be an error for that reason. */
static bool take_answer(void *ctx, int64_t index, bool failed, const char *text, size_t len, struct err *e)
{
    struct run *r = ctx;
    return atomic_load(&r->f->stop) ? refuse_stopped(e) : keep_answer(r, index, failed, text, len, e);
}

static bool refuse_line(struct run *r, size_t i, const struct api_error *why, const char *code, struct err *e)
{
    const struct line *l = &r->lines[i];
    struct buf out;
    buf_init(&out, 0);
    bool ok = batch_write_refusal(l->text, l->len, why, code, &out) || err_set(e, ERR_NOMEM, "out of memory for a batch's answer");
    ok = ok && keep_answer(r, (int64_t)i, true, out.data, out.len, e);
    buf_free(&out);
    return ok;
}

/* All lines of the model that have no answer get this one. */
static bool refuse_lines(struct run *r, const struct server_model *model, const struct api_error *why, struct err *e)
{
    bool ok = true;
    for (size_t i = 0; ok && i < r->n; i++)
        if (!r->lines[i].answered && r->lines[i].model == model)
            ok = refuse_line(r, i, why, NULL, e);
    return ok;
}

/* Those of models that there are not. */
static bool refuse_nobodys(struct run *r, struct err *e)
{
    bool ok = true;
    for (size_t i = 0; ok && i < r->n; i++) {
        struct api_error why;
        struct err err;
        if (r->lines[i].answered || r->lines[i].model)
            continue;
        json_t *doc = json_parse(r->lines[i].text, r->lines[i].len, &err);
        const char *name = json_string_value(json_object_get(json_object_get(doc, "body"), "model"));
        api_fail(&why, ERR_NOT_FOUND, "model", "The model `%.256s` does not exist.", name ? name : "");
        json_decref(doc);
        ok = refuse_line(r, i, &why, NULL, e);
    }
    return ok;
}

static bool refuse_late(struct run *r, struct err *e)
{
    struct api_error why;
    bool ok = true;
    api_fail(&why, ERR_TIMEOUT, NULL, "This request could not be executed before the completion window expired.");
    for (size_t i = 0; ok && i < r->n; i++)
        ok = r->lines[i].answered || refuse_line(r, i, &why, "batch_expired", e);
    return ok;
}

/* Whether the model has lines without an answer; the first of them is where next_line begins. */
static bool has_lines(struct run *r)
{
    for (r->next = 0; r->next < r->n; r->next++)
        if (!r->lines[r->next].answered && r->lines[r->next].model == r->model)
            return true;
    return false;
}

static bool answer_model(struct run *r, struct server_model *m, struct err *e)
{
    struct batch_opts o = {.next = next_line, .take = take_answer, .go_on = go_on, .ctx = r};
    int tries = 0;
    o.only_url = json_string_value(json_object_get(r->batch, "endpoint"));
    r->model = m;
    while (has_lines(r)) {
        struct batch_counts n;
        struct api_error why;
        if (!server_model_wait(m, keep_waiting, r, &why)) {
            if (is_stopped(r))
                return refuse_stopped(e);
            if (++tries >= LOAD_TRIES)
                return refuse_lines(r, m, &why, e);
            continue;
        }
        o.api = server_model_api(m);
        bool ok = batch_run(&o, &n, e);
        server_model_leave(m);
        if (!ok)
            return false;
    }
    return true;
}

static bool answer_all(struct run *r, struct err *e)
{
    bool ok = refuse_nobodys(r, e);
    for (size_t i = 0; ok && i < r->n; i++)
        if (!r->lines[i].answered)
            ok = answer_model(r, r->lines[i].model, e);
    return ok;
}

/* ---- the end ---- */

/* The answers of one kind, in the order of their lines, to the file of that name. */
static bool write_answers(struct run *r, bool failed, FILE *to, size_t *n_bytes, struct err *e)
{
    struct buf text;
    bool ok = true;
    buf_init(&text, 0);
    for (size_t i = 0; ok && i < r->n; i++) {
        if (!r->lines[i].answered || r->lines[i].answer.failed != failed)
            continue;
        buf_clear(&text);
        ok = files_journal_read(&r->journal, &r->lines[i].answer, &text, e);
        ok = ok && ((buf_putc(&text, '\n') && fwrite(text.data, 1, text.len, to) == text.len) || err_set(e, ERR_IO, "the answers of a batch cannot be kept: %s", strerror(errno)));
        *n_bytes += text.len;
    }
    buf_free(&text);
    return ok;
}

static bool write_data(struct run *r, const char *id, bool failed, size_t *n_bytes, struct err *e)
{
    char *path = files_path(r->f, id, ".data"), *tmp = files_path(r->f, id, ".data.tmp");
    FILE *to = tmp ? fopen(tmp, "we") : NULL;
    bool ok = to && path ? write_answers(r, failed, to, n_bytes, e) : err_set(e, ERR_IO, "the answers of a batch cannot be kept: %s", strerror(errno));
    if (ok && (fflush(to) != 0 || fsync(fileno(to)) != 0))
        ok = err_set(e, ERR_IO, "the answers of a batch cannot be kept: %s", strerror(errno));
    if (to)
        fclose(to);
    if (ok && rename(tmp, path) != 0)
        ok = err_set(e, ERR_IO, "%s: %s", path, strerror(errno));
    if (!ok && tmp)
        unlink(tmp);
    mem_free(path);
    mem_free(tmp);
    return ok;
}

/* A file of the API, unless it would be empty.  Its id was chosen when the batch began: a second time makes the same file again. */
static bool make_file(struct run *r, bool failed, const char *key, const char *suffix, struct err *e)
{
    const json_t *own = json_object_get(r->batch, "quire");
    const char *id = json_string_value(json_object_get(own, key)), *owner = files_owner(r->batch);
    char name[128];
    struct files_upload u = {.name = name, .purpose = "batch_output", .expires_in_s = json_integer_value(json_object_get(own, "expiry_s"))};
    if ((failed ? r->n_failed : r->n_answered - r->n_failed) == 0)
        return true;
    snprintf(name, sizeof name, "%s_%s.jsonl", r->id, suffix);
    if (!id || !files_is_id(id, "file-") || !write_data(r, id, failed, &u.n_bytes, e))
        return id ? false : err_set(e, ERR_INTERNAL, "the batch has no '%s'", key);
    json_t *j = files_describe(id, owner ? owner : "", &u);
    pthread_mutex_lock(&r->f->lock);
    bool ok = j ? files_save(r->f, id, j, e) : err_set(e, ERR_NOMEM, "out of memory");
    pthread_mutex_unlock(&r->f->lock);
    json_decref(j);
    if (ok)
        json_object_set(r->batch, key, json_object_get(own, key));
    return ok;
}

/* On false the batch is still open. */
static bool finish(struct run *r, const char *status, struct err *e)
{
    if (strcmp(status, "expired") == 0 && !refuse_late(r, e))
        return false;
    if (strcmp(status, "completed") == 0)
        files_batch_stamp(r->batch, "finalizing", clock_unix_s());
    if (!files_journal_sync(&r->journal, e) || !save(r, NULL, e) || !make_file(r, false, "output_file_id", "output", e) ||
        !make_file(r, true, "error_file_id", "error", e) || !save(r, status, e))
        return false;
    unlink(r->journal_path);
    log_info(r->f->o.log, "files", "batch %s is %s: %zu of %zu lines answered, %zu of them by an error", r->id,
             json_string_value(json_object_get(r->batch, "status")), r->n_answered, r->n, r->n_failed);
    return true;
}

/* ---- all of it ---- */

/* Its answers get their names, so that a second time does not make second files. */
static bool begin(struct run *r, struct err *e)
{
    static const char *const keys[] = {"output_file_id", "error_file_id"};
    json_t *own = json_object_get(r->batch, "quire");
    if (!own) {                      /* of an older server */
        own = json_object();
        json_object_set_new(r->batch, "quire", own);
    }
    for (size_t i = 0; i < 2; i++) {
        char id[FILES_ID_MAX];
        if (json_is_string(json_object_get(own, keys[i])))
            continue;
        pthread_mutex_lock(&r->f->lock);
        files_make_id(r->f, "file-", id);
        pthread_mutex_unlock(&r->f->lock);
        json_object_set_new(own, keys[i], json_string(id));
    }
    if (files_batch_is(r->batch, "validating"))
        files_batch_stamp(r->batch, "in_progress", clock_unix_s());
    return save(r, NULL, e);
}

static bool fail(struct run *r, const struct err *why, struct err *e)
{
    files_batch_fail(r->batch, why->code == ERR_NOT_FOUND ? "input_file_gone" : r->n > 0 ? "too_many_lines" : "empty_file", why->msg);
    r->n = 0;
    if (!save(r, NULL, e))
        return false;
    unlink(r->journal_path);
    return true;
}

static bool run_open(struct run *r, struct err *e)
{
    struct err why;
    if (!read_lines(r, &why))
        return why.code == ERR_INVALID || why.code == ERR_NOT_FOUND ? fail(r, &why, e) : err_set(e, why.code, "%s", why.msg);
    name_models(r);
    if (!files_journal_open(&r->journal, r->journal_path, on_record, r, e) || !begin(r, e))
        return false;
    if (answer_all(r, e))
        return finish(r, "completed", e);
    if (e->code != ERR_CANCELLED || atomic_load(&r->f->stop))
        return false;
    return finish(r, atomic_load(&r->f->cancel) ? "cancelled" : "expired", e);
}

bool files_run(struct files *f, json_t *batch, struct err *e)
{
    struct run r = {.f = f, .batch = batch, .id = json_string_value(json_object_get(batch, "id")), .journal = {.fd = -1}};
    r.journal_path = files_path(f, r.id, ".part");
    bool ok = r.journal_path ? run_open(&r, e) : err_set(e, ERR_NOMEM, "out of memory");
    files_journal_close(&r.journal);
    file_view_close(&r.input);
    mem_free(r.lines);
    mem_free(r.journal_path);
    return ok;
}
