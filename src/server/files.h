/* server/files.h - OpenAI's files and batches kept in one folder (POST /v1/files, /v1/batches).
 *
 *   DIR/file-<32 hex>.json   what the API says of a file;  DIR/file-<32 hex>.data   its bytes
 *   DIR/batch_<32 hex>.json  what the API says of a batch
 *
 * The folder is the only memory: each file is written beside and renamed, data before its .json, so that a crash leaves the old or the new.  One
 * thread runs the batches, oldest first; one that a restart finds unfinished is run again from its beginning.  Any thread may call. */
#ifndef QUIRE_SERVER_FILES_H
#define QUIRE_SERVER_FILES_H

#include <jansson.h>
#include "server/api.h"

struct files;
struct server_models;
struct files_opts {
    const char *dir;                 /* made if it is not there; copied */
    size_t max_total_bytes;          /* of all data; 0: no bound */
    struct server_models *models;    /* borrowed */
    struct log *log;
};
bool files_open(struct files **out, const struct files_opts *o, struct err *e);
/* What runs is left as it is, for the next start. */
void files_stop(struct files *f);
/* Stops and waits; no other call may be in progress. */
void files_close(struct files **f);

/* Objects as the API shows them, new references; NULL: e says why. */
json_t *files_add(struct files *f, const char *name, const char *purpose, const void *data, size_t n, int64_t expires_in_s, struct api_error *e);
json_t *files_get(struct files *f, const char *id, struct api_error *e);
json_t *files_list(struct files *f, const char *prefix);
bool files_delete(struct files *f, const char *id, struct api_error *e);
bool files_content(struct files *f, const char *id, struct buf *out, struct api_error *e);

json_t *files_batch_add(struct files *f, const json_t *request, struct api_error *e);
json_t *files_batch_cancel(struct files *f, const char *id, struct api_error *e);

#endif
