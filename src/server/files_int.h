/* server/files_int.h - what the files*.c files share. */
#ifndef QUIRE_SERVER_FILES_INT_H
#define QUIRE_SERVER_FILES_INT_H

#include <pthread.h>
#include <stdatomic.h>
#include "server/files.h"

enum { FILES_ID_MAX = 64 };

struct files {
    char *dir;
    int lock_fd;
    struct files_opts o;
    pthread_mutex_t lock;            /* guards the folder's changes, and what follows */
    pthread_cond_t news;             /* for the thread of batches */
    pthread_t thread;
    bool has_thread;
    char running[FILES_ID_MAX];      /* id of the batch that runs, or "" */
    int64_t cancelled_s;             /* when that one was cancelled */
    int64_t last_id_us;
    atomic_bool stop, cancel;        /* of everything; of the batch that runs */
};

/* ---- files.c: objects on the disk, with their "quire" part ---- */

/* Nothing else becomes part of a path. */
bool files_is_id(const char *id, const char *prefix);
/* With the lock held: no two are alike, and later ones are larger. */
void files_make_id(struct files *f, const char *prefix, char id[FILES_ID_MAX]);
char *files_path(const struct files *f, const char *id, const char *suffix);
json_t *files_load(const struct files *f, const char *id);
bool files_save(const struct files *f, const char *id, const json_t *j, struct err *e);
bool files_expired(const json_t *j);
/* One that owner may see, else NULL and a 404. */
json_t *files_find(struct files *f, const char *owner, const char *id, const char *prefix, struct api_error *e);
/* All of that prefix that are not expired, newest first; NULL: no memory.  With the lock held. */
json_t *files_all(struct files *f, const char *prefix);
json_t *files_page(struct files *f, const char *owner, const char *prefix, const struct files_page *p, struct api_error *e);
/* j without its "quire" part. */
json_t *files_show(json_t *j);
/* "quire": {"owner"}, where there is one. */
bool files_own(json_t *j, const char *owner);
const char *files_owner(const json_t *j);
/* What the API says of a file. */
json_t *files_describe(const char *id, const char *owner, const struct files_upload *u);

/* ---- files_batch.c ---- */

void *files_batch_work(void *files);
bool files_batch_is(const json_t *batch, const char *status);
bool files_batch_is_open(const json_t *batch);
/* status and its time, unless the time is there already. */
void files_batch_stamp(json_t *batch, const char *status, int64_t now_s);
void files_batch_fail(json_t *batch, const char *code, const char *msg);

/* ---- files_run.c ---- */

/* Answers the lines of a batch that have no answer yet, to the end of all; batch is the thread's own copy.  False: the server stops, or something that may pass
 * is in the way (e says what): the batch is not over, and is to be run again. */
bool files_run(struct files *f, json_t *batch, struct err *e);

#endif
