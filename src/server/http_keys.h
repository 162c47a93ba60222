/* server/http_keys.h - API keys: who may call, how much, and what each has used.
 *
 * Keys come from the command line (named key-1, key-2, ... and without limits) and from a file, one a line:
 *
 *   # comment
 *   sk-2f7c91  name=alice rpm=60 tpm=100000 concurrent=4
 *
 * name: the label in metrics and logs, of letters, digits and ._- (without: line-N); rpm: generation requests a minute; tpm: tokens a minute, prompt
 * and answer; concurrent: generation requests in progress.  A limit that is not given, or 0, is none.  A key has 8 to 512
 * printable characters without spaces.
 *
 * Limits are token buckets that hold a minute's worth and start full.  Tokens are charged when a request ends, since nobody knows before how many it
 * will be: what was used beyond is paid back by waiting.
 *
 * Finding a key takes the same time whichever fits or none: all are compared, by a hash keyed with a secret of this process and then
 * in full.  A secret is in memory only; nothing here writes it anywhere.
 *
 * Thread safe. */
#ifndef QUIRE_SERVER_HTTP_KEYS_H
#define QUIRE_SERVER_HTTP_KEYS_H

#include <stddef.h>
#include <stdint.h>
#include "server/api_error.h"

struct http_keys;
/* The holder of a key.  Reloading the file keeps its counters and what is in progress, by name. */
struct http_key;

struct http_key_limits { int64_t requests_per_min, tokens_per_min, concurrent; };   /* 0: none */

/* keys[n] and file (NULL: none) are copied.  A file without any key is an error: it would lock everybody out. */
bool http_keys_open(struct http_keys **out, const char *const *keys, int n, const char *file, struct err *e);
/* Every http_key must have been left. */
void http_keys_close(struct http_keys **k);

/* Whether the file is another than the one that was read (by inode, size and time). */
bool http_keys_changed(const struct http_keys *k);
/* Reads the file again.  On an error the keys stay as they were. */
bool http_keys_reload(struct http_keys *k, struct err *e);

/* The holder of the key given[len]; NULL: nobody.  Valid until http_keys_close. */
struct http_key *http_keys_find(struct http_keys *k, const char *given, size_t len);
const char *http_key_name(const struct http_key *key);
/* A name for the key given[len] that may be written to disk: 32 hex digits, the first half of a SHA-256 over it.  It is the same on every server, and
 * tells the key only to who can guess it. */
enum { HTTP_KEY_ID_MAX = 33 };
bool http_key_id(const char *given, size_t len, char id[HTTP_KEY_ID_MAX]);
/* Begins a generation request; false: over a limit, e is a 429 that says which and when to try again. */
bool http_key_enter(struct http_key *key, int64_t now_us, struct api_error *e);
/* Ends it. */
void http_key_leave(struct http_key *key);
/* What a request used. */
void http_key_charge(struct http_key *key, int64_t prompt_tokens, int64_t generated_tokens, int64_t now_us);

struct http_key_view {
    const char *name;
    struct http_key_limits limits;
    int64_t n_active;
    uint64_t n_requests, n_refused, prompt_tokens, generated_tokens;
};
/* In the order of the command line and the file; those that a reload took away come last, as long as they have used anything. */
void http_keys_visit(struct http_keys *k, void (*visit)(void *ctx, const struct http_key_view *v), void *ctx);

/* ---- the file's format, for its tests ---- */

struct http_key_line { const char *key, *name; struct http_key_limits limits; int line; };   /* name "": not given */
/* Splits text (changed: it is cut into strings that lines borrow).  mem_free *lines. */
bool http_keys_parse(char *text, size_t len, struct http_key_line **lines, int *n, struct err *e);

#endif
