/* hub/hub.h - models of a Hugging Face compatible hub: finding, downloading, keeping.
 *
 * The cache has the layout that Hugging Face's own tools use, so that each finds what the other downloaded:
 *
 *   CACHE/models--ORG--NAME/blobs/ETAG                   contents: named by SHA-256, or git's SHA-1 of small files
 *                           refs/REVISION                the commit that a branch or tag was last seen at
 *                           snapshots/COMMIT/PATH        relative links to blobs
 *                           .no_exist/COMMIT/PATH        empty: the commit has no such file
 *                           .quire/COMMIT.json           the commit's list of files, so that later starts need no network
 *   CACHE/.locks/models--ORG--NAME/ETAG.lock             flock'ed by who downloads that blob
 *
 * What is downloaded is written to blobs/ETAG.quire.incomplete, several ranges at once, with a map of what is there behind its end;
 * a contiguous beginning that another tool left in blobs/ETAG.incomplete is taken over.  A blob gets its name only once its checksum was
 * found right.
 *
 * Everything a hub says is untrusted: names that would leave the folder, sizes, redirects and checksums are checked, and
 * the token goes to the endpoint's own origin only.
 *
 * Threads: one caller a call; processes and threads may fetch the same repository at once.  Environment variables are read by
 * the caller (cli/), not here. */
#ifndef QUIRE_HUB_HUB_H
#define QUIRE_HUB_HUB_H

#include <stdbool.h>
#include <stdint.h>
#include "base/err.h"
#include "base/log.h"

enum { HUB_NAME_MAX = 256, HUB_FILE_MAX = 1024 };

/* "org/name", "org/name@revision", "org/name:file.gguf", "org/name@revision:Q4_K_M". */
struct hub_ref {
    char repo[HUB_NAME_MAX];       /* "org/name", or "name" of the oldest repositories */
    char revision[HUB_NAME_MAX];   /* branch, tag, commit; "main" when not given */
    char file[HUB_FILE_MAX];       /* a .gguf file or the name of a quantization; "" when not given */
};
/* ERR_INVALID says what is wrong with text. */
bool hub_ref_parse(struct hub_ref *ref, const char *text, struct err *e);
/* Whether text can only be a hub id with an organisation; says nothing of files of that name. */
bool hub_ref_fits(const char *text);

enum hub_want {
    HUB_WANT_MODEL,   /* configuration, tokenizer, weights: safetensors, else one GGUF model */
    HUB_WANT_TEXT     /* what tokenizing needs: no weights, unless they are a GGUF model, which is one file */
};

struct hub_progress {
    int64_t done_bytes, total_bytes;   /* of the files wanted; done includes what was there before */
    int n_done, n_files;
    const char *name;                  /* one of the files under way, or NULL */
};

struct hub_opts {
    const char *endpoint;       /* NULL: https://huggingface.co */
    const char *token;          /* NULL: none */
    const char *cache_dir;      /* made when missing */
    bool offline;               /* no connection is opened */
    bool refresh;               /* ask the hub what the revision is now, even when the cache has one */
    bool dry_run;               /* only tell what would be downloaded */
    bool verify;                /* hash blobs that are there already, and download wrong ones again */
    enum hub_want want;
    const char *const *include, *const *exclude;   /* fnmatch patterns over paths; include replaces the choice by want */
    int n_include, n_exclude;
    int n_connections;          /* 0: 8 */
    int64_t segment_bytes;      /* of one ranged request; 0: 32 MiB */
    int n_attempts;             /* of a request without progress in between; 0: 6 */
    int retry_ms;               /* first pause between attempts, doubled each time; 0: 500 */
    int stall_s;                /* a connection slower than 1 KiB/s for so long is cut and tried again; 0: 30 */
    int max_wait_s;             /* a Retry-After of more is an error; 0: 300 */
    void (*progress)(void *ctx, const struct hub_progress *p);
    void *progress_ctx;
    struct log *log;            /* may be NULL */
};

struct hub_result_file { char *name; int64_t size; bool cached; };   /* cached: was there before */
struct hub_result {
    char *path;                 /* what to open: the snapshot's folder, or the first .gguf file in it */
    char *snapshot;             /* the folder */
    char commit[72];
    struct hub_result_file *files;
    int n_files;
    int64_t total_bytes, downloaded_bytes;
};

/* The files of ref that opts ask for, in the cache when it returns true.  Without refresh a complete copy in the cache is taken as it is,
 * without a connection.  ERR_NOT_FOUND: no such repository, revision or file (or it is hidden from this token); ERR_INVALID: refused
 * by the hub; ERR_IO: network, disk; ERR_FORMAT: wrong checksum, nonsense from the hub; ERR_TOO_LARGE: not enough room on the disk. */
bool hub_get(struct hub_result *out, const struct hub_ref *ref, const struct hub_opts *o, struct err *e);
void hub_result_free(struct hub_result *r);

#endif
