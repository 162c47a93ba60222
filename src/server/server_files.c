/* The routes of files and batches. */
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include "base/json.h"
#include "base/mem.h"
#include "server/files.h"
#include "server/http_multipart.h"
#include "server/server_int.h"

static const char JSON[] = "application/json";

/* Takes over j; NULL: e is the answer. */
static void answer(struct http_exchange *x, json_t *j, const struct api_error *e)
{
    struct buf out;
    buf_init(&out, 0);
    if (j && json_write(j, &out)) {
        http_reply(x, 200, JSON, &out);
    } else {
        struct api_error nomem;
        api_fail(&nomem, ERR_NOMEM, NULL, "out of memory");
        http_reply_error(x, j ? &nomem : e);
    }
    buf_free(&out);
    json_decref(j);
}

static bool has_files(struct server *s, struct http_exchange *x)
{
    struct api_error e;
    if (s->files)
        return true;
    api_fail_status(&e, 404, "this server keeps no files: start it with --files-dir DIR");
    http_reply_error(x, &e);
    return false;
}

/* ---- uploads ---- */

static bool is_named(const struct http_part *p, const char *name) { return p->name && p->name_len == strlen(name) && memcmp(p->name, name, p->name_len) == 0; }

static json_t *upload(struct server *s, struct http_exchange *x, struct api_error *e)
{
    char mark[HTTP_MARK_MAX], purpose[32] = "batch", name[256] = "file", seconds[24] = "";
    size_t len;
    const char *at = http_body(x, &len), *end = at + len;
    struct http_part p, file = {0};
    if (!http_multipart_mark(http_content_type(x), mark)) {
        api_fail_status(e, 415, "a file is sent as multipart/form-data with the fields purpose and file");
        return NULL;
    }
    while (http_multipart_next(&at, end, mark, &p)) {
        if (is_named(&p, "file"))
            file = p;
        else if (is_named(&p, "purpose") && p.len < sizeof purpose)
            snprintf(purpose, sizeof purpose, "%.*s", (int)p.len, p.data);
        else if (is_named(&p, "expires_after[seconds]") && p.len < sizeof seconds)
            snprintf(seconds, sizeof seconds, "%.*s", (int)p.len, p.data);
    }
    if (!file.data) {
        api_fail(e, ERR_INVALID, "file", "'file' is required");
        return NULL;
    }
    if (strcmp(purpose, "batch") != 0) {
        api_fail(e, ERR_INVALID, "purpose", "'purpose' must be batch, found '%.32s'", purpose);
        return NULL;
    }
    if (file.filename && file.filename_len && file.filename_len < sizeof name)
        snprintf(name, sizeof name, "%.*s", (int)file.filename_len, file.filename);
    int64_t expires = *seconds ? strtoll(seconds, NULL, 10) : 0;
    if (*seconds && (expires < 1 || expires > 10LL * 365 * 86400)) {
        api_fail(e, ERR_INVALID, "expires_after", "'expires_after[seconds]' must be a number of seconds");
        return NULL;
    }
    const struct files_upload u = {.name = name, .purpose = purpose, .data = file.data, .n_bytes = file.len, .expires_in_s = expires};
    return files_add(s->files, http_owner(x), &u, e);
}

/* ---- routes ---- */

/* ?limit, ?after, ?order and, of files, ?purpose. */
static bool read_page(struct http_exchange *x, int most, int usual, struct files_page *p, struct api_error *e)
{
    const char *limit = http_query(x, "limit"), *order = http_query(x, "order");
    *p = (struct files_page){.limit = usual, .after = http_query(x, "after"), .purpose = http_query(x, "purpose")};
    if (p->after && !*p->after)
        p->after = NULL;
    if (limit && *limit) {
        char *end;
        p->limit = strtoll(limit, &end, 10);
        if (*end || p->limit < 1 || p->limit > most)
            return api_fail(e, ERR_INVALID, "limit", "'limit' must be a whole number of 1 to %d, found '%.32s'", most, limit);
    }
    if (order && *order && strcmp(order, "asc") != 0 && strcmp(order, "desc") != 0)
        return api_fail(e, ERR_INVALID, "order", "'order' must be asc or desc, found '%.32s'", order);
    p->oldest_first = order && strcmp(order, "asc") == 0;
    return true;
}

static json_t *list_files(struct server *s, struct http_exchange *x, struct api_error *e)
{
    struct files_page p;
    return read_page(x, 10000, 10000, &p, e) ? files_list(s->files, http_owner(x), &p, e) : NULL;
}

static json_t *list_batches(struct server *s, struct http_exchange *x, struct api_error *e)
{
    struct files_page p;
    if (!read_page(x, 100, 20, &p, e))
        return NULL;
    p.purpose = NULL;              /* batches have none */
    return files_batch_list(s->files, http_owner(x), &p, e);
}

void server_files(void *ctx, struct http_exchange *x)
{
    struct server *s = ctx;
    struct api_error e = {.status = 503};
    if (has_files(s, x))
        answer(x, http_is_get(x) ? list_files(s, x, &e) : upload(s, x, &e), &e);
}

void server_file(void *ctx, struct http_exchange *x)
{
    struct server *s = ctx;
    struct api_error e = {.status = 503};
    struct buf out;
    char id[64];
    const char *rest = http_path(x) + strlen("/v1/files/"), *slash = strchr(rest, '/');
    if (!has_files(s, x))
        return;
    snprintf(id, sizeof id, "%.*s", (int)(slash ? slash - rest : 63), rest);
    if (!http_is_get(x)) {
        answer(x, files_delete(s->files, http_owner(x), id, &e) ? json_pack("{s:s,s:s,s:b}", "id", id, "object", "file", "deleted", 1) : NULL, &e);
    } else if (!slash) {
        answer(x, files_get(s->files, http_owner(x), id, &e), &e);
    } else if (strcmp(slash, "/content") == 0) {
        buf_init(&out, 0);
        if (files_content(s->files, http_owner(x), id, &out, &e))
            http_reply(x, 200, "application/octet-stream", &out);
        else
            http_reply_error(x, &e);
        buf_free(&out);
    } else {
        api_fail_status(&e, 404, "there is nothing at %.160s", http_path(x));
        http_reply_error(x, &e);
    }
}

static json_t *add_batch(struct server *s, struct http_exchange *x, struct api_error *e)
{
    struct err err;
    size_t len;
    const char *body = http_body(x, &len);
    json_t *doc = json_parse(body, len, &err), *j = NULL;
    if (!doc)
        api_fail_err(e, NULL, &err);
    else
        j = files_batch_add(s->files, http_owner(x), doc, e);
    json_decref(doc);
    return j;
}

void server_batches(void *ctx, struct http_exchange *x)
{
    struct server *s = ctx;
    struct api_error e = {.status = 503};
    if (has_files(s, x))
        answer(x, http_is_get(x) ? list_batches(s, x, &e) : add_batch(s, x, &e), &e);
}

void server_batch(void *ctx, struct http_exchange *x)
{
    struct server *s = ctx;
    struct api_error e = {.status = 503};
    char id[64];
    const char *rest = http_path(x) + strlen("/v1/batches/"), *slash = strchr(rest, '/');
    if (!has_files(s, x))
        return;
    snprintf(id, sizeof id, "%.*s", (int)(slash ? slash - rest : 63), rest);
    if (strncmp(id, "batch_", 6) != 0 || (slash && strcmp(slash, "/cancel") != 0) || (slash == NULL) != http_is_get(x)) {
        api_fail_status(&e, 404, "there is nothing at %.160s", http_path(x));
        http_reply_error(x, &e);
        return;
    }
    answer(x, slash ? files_batch_cancel(s->files, http_owner(x), id, &e) : files_get(s->files, http_owner(x), id, &e), &e);
}
