/* hub/hub_int.h - what hub/'s own files share. */
#ifndef QUIRE_HUB_HUB_INT_H
#define QUIRE_HUB_HUB_INT_H

#include <stddef.h>
#include "base/buf.h"
#include "hub/hub.h"
#include "hub/sha.h"

/* ---- ref.c ---- */

/* A relative path with no empty, "." or ".." component, no backslash and no control character. */
bool hub_name_is_safe(const char *name);

/* ---- list.c: the files of one commit ---- */

enum { HUB_ETAG_MAX = 128 };

struct hub_file {
    char *name;
    int64_t size;                  /* -1: the listing does not say */
    char etag[HUB_ETAG_MAX];       /* names the blob; "": the listing does not say */
    enum hub_sha_kind sha;         /* what etag is, if it is a checksum */
    bool wanted;                   /* hub_select_* */
};

struct hub_list {
    char commit[72];
    struct hub_file *files;
    size_t n, cap;
};

/* Whether s may be a file or folder name: letters, digits, '-', '_', at most max. */
bool hub_id_is_safe(const char *s, size_t max);
/* An entity tag as a header has it: without W/ and quotes.  False when it cannot name a blob. */
bool hub_etag_clean(char out[HUB_ETAG_MAX], const char *header);
/* Sets etag, and sha from its length. */
void hub_file_set_etag(struct hub_file *f, const char *etag);

/* The hub's answer to /api/models/REPO/revision/REVISION; l is empty before.  *has_files false: it lists none (ask the tree). */
bool hub_list_parse(struct hub_list *l, const char *text, size_t len, bool *has_files, struct err *e);
/* One page of /api/models/REPO/tree/COMMIT, appended. */
bool hub_list_parse_tree(struct hub_list *l, const char *text, size_t len, struct err *e);
/* The same form that hub_list_parse reads. */
bool hub_list_write(const struct hub_list *l, struct buf *b);
struct hub_file *hub_list_find(const struct hub_list *l, const char *name);
struct hub_file *hub_list_add(struct hub_list *l, const char *name, struct err *e);
void hub_list_free(struct hub_list *l);

/* ---- select.c: which of them are needed ---- */

/* Marks configuration, tokenizer and the index of the weights. */
void hub_select_text(struct hub_list *l);
/* Marks the weights.  index: the content of model.safetensors.index.json, or NULL.  *main_file: the .gguf to open, or NULL when the folder
 * is to be opened; borrowed from l. */
bool hub_select_weights(struct hub_list *l, const struct hub_ref *ref, const char *index, size_t index_len, const char **main_file, struct err *e);
/* Marks one GGUF model (all its parts).  what: file, quantization or "". */
bool hub_select_gguf(struct hub_list *l, const char *what, const char **main_file, struct err *e);
bool hub_list_has_safetensors(const struct hub_list *l);
/* Marks by patterns instead (include), or unmarks (exclude). */
void hub_select_patterns(struct hub_list *l, const struct hub_opts *o);

/* ---- cache.c: folders ---- */

struct hub_cache { char *root, *repo, *locks; };   /* CACHE, CACHE/models--a--b, CACHE/.locks/models--a--b */

bool hub_cache_open(struct hub_cache *c, const char *root, const char *repo, struct err *e);
void hub_cache_free(struct hub_cache *c);
/* printf to a path, mem_free it; NULL: no memory (e is set). */
char *hub_path(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Makes all folders above path. */
bool hub_make_parents(const char *path, struct err *e);
/* The commit that refs/REVISION holds, or revision itself when it is a commit whose snapshot is there.  False: unknown (no error). */
bool hub_cache_commit(const struct hub_cache *c, const char *revision, char commit[72]);
bool hub_cache_set_commit(const struct hub_cache *c, const char *revision, const char *commit, struct err *e);
bool hub_cache_save_list(const struct hub_cache *c, const struct hub_list *l, struct err *e);
/* The list saved for commit.  False: none. */
bool hub_cache_load_list(const struct hub_cache *c, const char *commit, struct hub_list *l);
/* A list of what the snapshot's folder holds, for snapshots that other tools made. */
bool hub_cache_list_snapshot(const struct hub_cache *c, const char *commit, struct hub_list *l, struct err *e);
char *hub_cache_snapshot(const struct hub_cache *c, const char *commit, struct err *e);
/* Whether the snapshot holds f with the size it must have. */
bool hub_cache_has(const struct hub_cache *c, const char *commit, const struct hub_file *f);
bool hub_cache_has_blob(const struct hub_cache *c, const struct hub_file *f);
/* Links the snapshot's f to its blob. */
bool hub_cache_link(const struct hub_cache *c, const char *commit, const struct hub_file *f, struct err *e);
void hub_cache_mark_absent(const struct hub_cache *c, const struct hub_list *l);
/* Takes the blob's lock without waiting: *fd >= 0 when taken, -1 when another holds it.  Closing fd releases it.  Where the file system
 * has no locks *fd is a descriptor that locks nothing. */
bool hub_cache_lock(const struct hub_cache *c, const struct hub_file *f, int *fd, struct err *e);
/* Bytes that may still be written below path's folder; INT64_MAX when unknown. */
int64_t hub_cache_room(const struct hub_cache *c);

/* ---- http.c: one request ---- */

struct hub_http {
    const struct hub_opts *o;
    const char *endpoint;          /* without '/' at its end */
    char origin[HUB_FILE_MAX];     /* scheme://host:port of endpoint */
};

enum hub_verdict { HUB_CALL_OK, HUB_CALL_AGAIN, HUB_CALL_REDIRECT, HUB_CALL_NO_RANGES, HUB_CALL_FAILED };

/* One request on one easy handle, from URL to verdict. */
struct hub_call {
    void *easy, *headers;          /* CURL, curl_slist */
    char *url, *next;              /* now, and where a redirect points */
    bool head;
    int n_hops;
    /* what is asked for */
    int64_t from, to;              /* to > from: the range [from, to) of a file of size bytes */
    int64_t size;                  /* expected of the whole file; -1: unknown */
    bool (*sink)(void *ctx, const char *data, size_t n, struct err *e);   /* bytes of a good answer, in order */
    void *sink_ctx;
    /* what came */
    int status;
    bool checked, refused;         /* the headers of a good answer were looked at; sink or check said no (e is set) */
    bool no_ranges;
    int64_t received, header_bytes, retry_after;
    int64_t content_length, linked_size, range_from, range_total;
    char etag[HUB_ETAG_MAX], linked_etag[HUB_ETAG_MAX], commit[72], error_code[64], error_message[256];
    char *next_page;
    struct buf text;               /* the beginning of an answer that is an error */
    struct err error;
};

bool hub_http_open(struct hub_http *h, const struct hub_opts *o, struct err *e);
/* Puts call's easy handle (made when NULL) in order for call->url.  The token goes along exactly when url is of the endpoint's origin. */
bool hub_call_prepare(const struct hub_http *h, struct hub_call *c, struct err *e);
/* After the transfer: what to do.  FAILED and AGAIN fill e; AGAIN sets *wait_s to what the server asks for (0: nothing); REDIRECT has made
 * call->next the next url.  what names the thing for messages. */
enum hub_verdict hub_call_judge(const struct hub_http *h, struct hub_call *c, int curl_code, const char *what, int *wait_s, struct err *e);
/* Follows: url becomes next. */
void hub_call_follow(struct hub_call *c);
void hub_call_free(struct hub_call *c);
/* Milliseconds before attempt number n (1: the first repetition). */
int hub_retry_ms(const struct hub_opts *o, int n, int wait_s);
int hub_n_attempts(const struct hub_opts *o);

/* Whole answers with redirects and retries, blocking.  next_page: mem_free'd URL of a Link rel="next", or NULL; may be NULL. */
bool hub_http_get(const struct hub_http *h, const char *url, const char *what, struct buf *out, char **next_page, struct err *e);
/* Headers of url: size, etag and commit of f, when the listing does not tell. */
bool hub_http_head(const struct hub_http *h, const char *url, struct hub_file *f, struct err *e);
/* s with everything but letters, digits and "-._~/" escaped; mem_free it. */
char *hub_escape(const char *s, bool slashes, struct err *e);

/* ---- part.c: a file that is partly there ---- */

struct hub_part {
    char *path, *blob;             /* blobs/ETAG.quire.incomplete and blobs/ETAG */
    int fd;
    int64_t size, segment_bytes;
    int n_segments;
    int64_t *done;                 /* bytes there of each segment, from its start */
    int64_t *saved;                /* what the map in the file says */
};

/* Opens or makes it; the caller holds the blob's lock.  On false nothing is left open. */
bool hub_part_open(struct hub_part *p, const struct hub_cache *c, const struct hub_file *f, int64_t segment_bytes, struct err *e);
int64_t hub_part_segment_len(const struct hub_part *p, int i);
int64_t hub_part_frontier(const struct hub_part *p);     /* bytes there from the start without a gap */
int64_t hub_part_total(const struct hub_part *p);
bool hub_part_write(struct hub_part *p, int i, const void *data, size_t n, struct err *e);
bool hub_part_save(struct hub_part *p, int i, struct err *e);   /* the map */
/* Forgets everything; as one segment when whole. */
bool hub_part_reset(struct hub_part *p, bool whole, struct err *e);
/* Cuts the map off and gives it its name. */
bool hub_part_finish(struct hub_part *p, struct err *e);
void hub_part_close(struct hub_part *p, bool remove);

/* ---- transfer.c ---- */

struct hub_transfer {
    const struct hub_opts *o;
    const struct hub_http *http;
    const struct hub_cache *cache;
    const char *repo, *commit;
    /* for progress: over all transfers of one hub_get */
    int64_t base_done, total;
    int base_n_done, n_files;
    int64_t downloaded;            /* bytes received, added to */
};

/* Downloads files[0..n) that are not in the cache yet, checks and links them. */
bool hub_transfer_run(struct hub_transfer *t, struct hub_file *const *files, int n, struct err *e);

#endif
