/* server/files.h - OpenAI's files and batches kept in one folder (POST /v1/files, /v1/batches).
 *
 *   DIR/file-<32 hex>.json   what the API says of a file, and "quire": {"owner"};  DIR/file-<32 hex>.data   its bytes
 *   DIR/batch_<32 hex>.json  what the API says of a batch, and "quire": {"owner", the ids that its answers will have};
 *   DIR/batch_<32 hex>.part  the answers of one that is not over (files_journal.h)
 *   DIR/lock                 empty; the server that uses the folder holds it
 *
 * The folder is the only memory.  Each file but .part is written beside and renamed, data before its .json, so that a crash leaves the old
 * or the new.  The first 16 digits of an id are when it was made, in microseconds since 1970: ids sort by age.  (Ids from before that was so are
 * random; "created_at" tells then.)
 *
 * Owners.  An object belongs to the API key that made it, by http_key_id; other keys are told that there is no such thing.  An object without
 * an owner, made by a server without keys or before there were owners, is everybody's, and who asks without a key ("") sees all.
 *
 * One thread runs the batches, oldest first.  Any thread may call. */
#ifndef QUIRE_SERVER_FILES_H
#define QUIRE_SERVER_FILES_H

#include <jansson.h>
#include "server/api.h"

struct files;
struct server_models;
struct files_opts {
    const char *dir;                 /* made if it is not there; copied */
    size_t max_total_bytes;          /* of all data: past it uploads are refused, the answers of batches never; 0: no bound */
    struct server_models *models;    /* borrowed */
    struct log *log;
};
/* Removes what a crash left half-written. */
bool files_open(struct files **out, const struct files_opts *o, struct err *e);
/* What runs is left as it is, for the next start. */
void files_stop(struct files *f);
/* Stops and waits; no other call may be in progress. */
void files_close(struct files **f);

/* Objects as the API shows them, new references; NULL: e says why. */
struct files_upload { const char *name, *purpose; const void *data; size_t n_bytes; int64_t expires_in_s; };   /* 0: it does not expire */
json_t *files_add(struct files *f, const char *owner, const struct files_upload *u, struct api_error *e);
/* A file or a batch, by its id. */
json_t *files_get(struct files *f, const char *owner, const char *id, struct api_error *e);
/* One that a batch which is not over reads from is refused. */
bool files_delete(struct files *f, const char *owner, const char *id, struct api_error *e);
bool files_content(struct files *f, const char *owner, const char *id, struct buf *out, struct api_error *e);

/* A page of the list {"object":"list","data","first_id","last_id","has_more"}.  after: the id that the page before ended with, which may have been
 * deleted since; NULL: the first page. */
struct files_page { int64_t limit; const char *after, *purpose; bool oldest_first; };   /* purpose: of files; NULL: all */
json_t *files_list(struct files *f, const char *owner, const struct files_page *p, struct api_error *e);

/* request: the body of POST /v1/batches. */
json_t *files_batch_add(struct files *f, const char *owner, const json_t *request, struct api_error *e);
json_t *files_batch_cancel(struct files *f, const char *owner, const char *id, struct api_error *e);
json_t *files_batch_list(struct files *f, const char *owner, const struct files_page *p, struct api_error *e);

#endif
