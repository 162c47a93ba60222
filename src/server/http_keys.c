#include "server/http_keys.h"

#include <errno.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "base/file.h"
#include "base/hash.h"
#include "base/mem.h"
#include "base/rng.h"
#include "base/vec.h"

enum { MAX_FILE_BYTES = 16 << 20, MIN_KEY = 8, MAX_KEY = 512, MAX_NAME = 64 };
static const int64_t MINUTE_US = 60000000;

struct http_key {
    struct http_keys *keys;
    char name[MAX_NAME + 1];
    struct http_key_limits limits;
    bool present;                  /* in the table now */
    double requests, tokens;       /* what is left in the buckets; tokens may be below zero */
    int64_t filled_us;             /* when they were last filled; 0: never, they are full */
    int64_t n_active;
    uint64_t n_requests, n_refused, prompt_tokens, generated_tokens;
};

/* A key's text and whose it is. */
struct secret { uint64_t hash[2]; char *text; size_t len; struct http_key *key; };

struct http_keys {
    char **given; int n_given;     /* of the command line */
    char *file;
    struct stat seen;              /* the file as it was read, if it could be used or not */
    uint64_t seeds[2];
    pthread_mutex_t lock;          /* guards what follows, and all holders */
    struct secret *secrets; size_t n_secrets;
    struct http_key **all; size_t n_all, cap_all;   /* holders, also those that are gone */
};

/* ---- the file ---- */

static bool is_name(const char *s)
{
    size_t n = strspn(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-");
    return n > 0 && n <= MAX_NAME && s[n] == 0;
}

static bool is_key(const char *s, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (s[i] <= 0x20 || s[i] >= 0x7f)
            return false;
    return len >= 1 && len <= MAX_KEY;
}

static bool read_count(const char *text, int64_t *out)
{
    char *end;
    errno = 0;
    long long v = strtoll(text, &end, 10);
    *out = v;
    return end != text && *end == 0 && errno == 0 && v >= 0 && v <= INT32_MAX && text[0] != '+' && text[0] != ' ';
}

/* The word's text never goes into a message: it could be a key with a blank in it. */
static bool read_attribute(struct http_key_line *l, char *word, struct err *e)
{
    char *eq = strchr(word, '=');
    const struct { const char *name; int64_t *value; } counts[] = {
        {"rpm", &l->limits.requests_per_min}, {"tpm", &l->limits.tokens_per_min}, {"concurrent", &l->limits.concurrent},
    };
    if (!eq)
        return err_set(e, ERR_FORMAT, "line %d: what follows the key must be name=, rpm=, tpm= or concurrent=", l->line);
    *eq = 0;
    if (strcmp(word, "name") == 0) {
        l->name = eq + 1;
        return is_name(l->name) || err_set(e, ERR_FORMAT, "line %d: a name has 1 to %d letters, digits, or any of ._-", l->line, MAX_NAME);
    }
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++)
        if (strcmp(word, counts[i].name) == 0)
            return read_count(eq + 1, counts[i].value) ||
                   err_set(e, ERR_FORMAT, "line %d: %s= must be a whole number of 0 to %d", l->line, counts[i].name, INT32_MAX);
    return err_set(e, ERR_FORMAT, "line %d: what follows the key must be name=, rpm=, tpm= or concurrent=", l->line);
}

static bool read_line(struct http_key_line *l, char *text, struct err *e)
{
    char *save = NULL;
    for (char *word = strtok_r(text, " \t\r", &save); word; word = strtok_r(NULL, " \t\r", &save)) {
        if (!l->key) {
            l->key = word;
            if (strlen(word) < MIN_KEY || !is_key(word, strlen(word)))
                return err_set(e, ERR_FORMAT, "line %d: a key has %d to %d printable ASCII characters", l->line, MIN_KEY, MAX_KEY);
        } else if (word[0] == '#') {
            break;
        } else if (!read_attribute(l, word, e)) {
            return false;
        }
    }
    return true;
}

bool http_keys_parse(char *text, size_t len, struct http_key_line **lines, int *n, struct err *e)
{
    size_t cap = 0;
    *lines = NULL;
    *n = 0;
    if (memchr(text, 0, len))
        return err_set(e, ERR_FORMAT, "the file holds a 0 byte: it is not text");
    int number = 0;
    for (char *at = text, *end = text + len; at < end;) {
        struct http_key_line l = {.name = "", .line = ++number};
        char *next = memchr(at, '\n', (size_t)(end - at));
        if (next)
            *next = 0;
        char *first = at + strspn(at, " \t\r");
        bool blank = *first == 0 || *first == '#';
        if (!blank) {
            if (!read_line(&l, first, e))
                goto fail;
            if (!vec_reserve((void **)lines, &cap, (size_t)*n + 1, sizeof **lines)) {
                err_set(e, ERR_NOMEM, "out of memory");
                goto fail;
            }
            (*lines)[(*n)++] = l;
        }
        at = next ? next + 1 : end;
    }
    return true;
fail:
    mem_free(*lines);
    *lines = NULL;
    *n = 0;
    return false;
}

/* ---- the table ---- */

static void hash_key(const struct http_keys *k, const char *s, size_t len, uint64_t out[2])
{
    out[0] = hash_bytes(s, len, k->seeds[0]);
    out[1] = hash_bytes(s, len, k->seeds[1]);
}

static void secrets_free(struct secret *list, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (list[i].text)
            explicit_bzero(list[i].text, list[i].len);
        mem_free(list[i].text);
    }
    mem_free(list);
}

static struct http_key *find_name(const struct http_keys *k, const char *name)
{
    for (size_t i = 0; i < k->n_all; i++)
        if (strcmp(k->all[i]->name, name) == 0)
            return k->all[i];
    return NULL;
}

/* The holder of that name, new or as it was; its limits are set when the whole table is good. */
static struct http_key *take_holder(struct http_keys *k, const char *name)
{
    struct http_key *key = find_name(k, name);
    if (key || !vec_reserve((void **)&k->all, &k->cap_all, k->n_all + 1, sizeof *k->all))
        return key;
    key = mem_try_zalloc(1, sizeof *key);
    if (!key)
        return NULL;
    key->keys = k;
    snprintf(key->name, sizeof key->name, "%s", name);
    return k->all[k->n_all++] = key;
}

/* A table under construction. */
struct table { struct secret *secrets; struct http_key_limits *limits; size_t n; };

static bool table_add(struct http_keys *k, struct table *t, const char *key, const char *name, const struct http_key_limits *limits, struct err *e)
{
    struct secret s = {.len = strlen(key)};
    hash_key(k, key, s.len, s.hash);
    for (size_t i = 0; i < t->n; i++) {
        if (t->secrets[i].hash[0] == s.hash[0] && t->secrets[i].hash[1] == s.hash[1])
            return err_set(e, ERR_INVALID, "the keys of %s and %s are the same", t->secrets[i].key->name, name);
        if (strcmp(t->secrets[i].key->name, name) == 0)
            return err_set(e, ERR_INVALID, "two keys are called %s", name);
    }
    s.text = mem_try_strdup(key);
    s.key = take_holder(k, name);
    if (!s.text || !s.key) {
        mem_free(s.text);
        return err_set(e, ERR_NOMEM, "out of memory");
    }
    t->limits[t->n] = *limits;
    t->secrets[t->n++] = s;
    return true;
}

static bool table_fill(struct http_keys *k, struct table *t, const struct http_key_line *lines, int n_lines, struct err *e)
{
    char name[MAX_NAME + 1];
    size_t n = (size_t)k->n_given + (size_t)n_lines;
    t->secrets = mem_try_zalloc(n, sizeof *t->secrets);
    t->limits = mem_try_zalloc(n, sizeof *t->limits);
    if (!t->secrets || !t->limits)
        return err_set(e, ERR_NOMEM, "out of memory");
    for (int i = 0; i < k->n_given; i++) {
        snprintf(name, sizeof name, "key-%d", i + 1);
        if (!table_add(k, t, k->given[i], name, &(struct http_key_limits){0}, e))
            return false;
    }
    for (int i = 0; i < n_lines; i++) {
        snprintf(name, sizeof name, "line-%d", lines[i].line);
        if (!table_add(k, t, lines[i].key, lines[i].name[0] ? lines[i].name : name, &lines[i].limits, e))
            return false;
    }
    return true;
}

/* With the lock held. */
static void table_use(struct http_keys *k, struct table *t)
{
    for (size_t i = 0; i < k->n_all; i++)
        k->all[i]->present = false;
    for (size_t i = 0; i < t->n; i++) {
        struct http_key *key = t->secrets[i].key;
        key->present = true;
        if (memcmp(&key->limits, &t->limits[i], sizeof key->limits) != 0)
            key->filled_us = 0;    /* new limits start with full buckets */
        key->limits = t->limits[i];
    }
    secrets_free(k->secrets, k->n_secrets);
    k->secrets = t->secrets;
    k->n_secrets = t->n;
    t->secrets = NULL;
    t->n = 0;
}

/* Reads what there is to read and makes it the table, or changes nothing. */
static bool load(struct http_keys *k, struct err *e)
{
    struct table t = {0};
    struct http_key_line *lines = NULL;
    char *text = NULL;
    size_t len = 0;
    int n = 0;
    bool ok = true;
    if (k->file) {
        ok = stat(k->file, &k->seen) == 0 || err_set(e, ERR_IO, "%s", strerror(errno));
        ok = ok && (text = file_read(k->file, MAX_FILE_BYTES, &len, e)) && http_keys_parse(text, len, &lines, &n, e);
        if (ok && n == 0)
            ok = err_set(e, ERR_FORMAT, "there is no key in it");
    }
    if (ok) {
        pthread_mutex_lock(&k->lock);
        ok = table_fill(k, &t, lines, n, e);
        if (ok)
            table_use(k, &t);
        pthread_mutex_unlock(&k->lock);
    }
    if (text)
        explicit_bzero(text, len);
    mem_free(text);
    mem_free(lines);
    secrets_free(t.secrets, t.n);
    mem_free(t.limits);
    return ok || (k->file ? err_prefix(e, "API keys in %s", k->file) : false);
}

bool http_keys_open(struct http_keys **out, const char *const *keys, int n, const char *file, struct err *e)
{
    struct err local;
    e = e ? e : &local;
    struct http_keys *k = mem_try_zalloc(1, sizeof *k);
    *out = NULL;
    if (!k)
        return err_set(e, ERR_NOMEM, "out of memory");
    pthread_mutex_init(&k->lock, NULL);
    k->seeds[0] = rng_entropy();
    k->seeds[1] = rng_entropy();
    k->given = mem_try_zalloc((size_t)n, sizeof *k->given);
    k->file = file ? mem_try_strdup(file) : NULL;
    bool ok = (k->given && (!file || k->file)) || err_set(e, ERR_NOMEM, "out of memory");
    for (int i = 0; ok && i < n; i++) {
        ok = is_key(keys[i], strlen(keys[i])) || err_set(e, ERR_INVALID, "an API key has 1 to %d printable ASCII characters without spaces", MAX_KEY);
        ok = ok && ((k->given[i] = mem_try_strdup(keys[i])) || err_set(e, ERR_NOMEM, "out of memory"));
        k->n_given += ok;
    }
    if (!ok || !load(k, e)) {
        http_keys_close(&k);
        return false;
    }
    *out = k;
    return true;
}

void http_keys_close(struct http_keys **pk)
{
    struct http_keys *k = *pk;
    if (!k)
        return;
    *pk = NULL;
    secrets_free(k->secrets, k->n_secrets);
    for (size_t i = 0; i < k->n_all; i++)
        mem_free(k->all[i]);
    mem_free(k->all);
    for (int i = 0; i < k->n_given; i++)
        mem_free(k->given[i]);
    mem_free(k->given);
    mem_free(k->file);
    pthread_mutex_destroy(&k->lock);
    mem_free(k);
}

bool http_keys_changed(const struct http_keys *k)
{
    struct stat st;
    return k->file && stat(k->file, &st) == 0 &&
           (st.st_ino != k->seen.st_ino || st.st_size != k->seen.st_size || st.st_mtim.tv_sec != k->seen.st_mtim.tv_sec ||
            st.st_mtim.tv_nsec != k->seen.st_mtim.tv_nsec);
}

bool http_keys_reload(struct http_keys *k, struct err *e)
{
    struct err local;
    return !k->file || load(k, e ? e : &local);
}

/* ---- use ---- */

/* In time that depends on len alone; a key of another length costs no comparison, but its hash has been one already. */
static bool same_bytes(const char *a, const char *b, size_t len)
{
    unsigned diff = 0;
    for (size_t i = 0; i < len; i++)
        diff |= (unsigned)(unsigned char)a[i] ^ (unsigned)(unsigned char)b[i];
    return diff == 0;
}

struct http_key *http_keys_find(struct http_keys *k, const char *given, size_t len)
{
    uint64_t hash[2];
    size_t found = SIZE_MAX;
    struct http_key *key = NULL;
    hash_key(k, given, len, hash);
    pthread_mutex_lock(&k->lock);
    for (size_t i = 0; i < k->n_secrets; i++) {
        const struct secret *s = &k->secrets[i];
        uint64_t diff = (s->hash[0] ^ hash[0]) | (s->hash[1] ^ hash[1]);
        found = diff ? found : i;
    }
    if (found != SIZE_MAX && k->secrets[found].len == len && same_bytes(k->secrets[found].text, given, len))
        key = k->secrets[found].key;
    pthread_mutex_unlock(&k->lock);
    return key;
}

const char *http_key_name(const struct http_key *key) { return key->name; }

bool http_key_id(const char *given, size_t len, char id[HTTP_KEY_ID_MAX])
{
    static const char use[] = "quire API key id\n";     /* the same hash for another use would be another */
    unsigned char sum[32];
    char text[sizeof use + MAX_KEY];
    if (len > MAX_KEY)
        return false;
    memcpy(text, use, sizeof use);
    memcpy(text + sizeof use, given, len);
    bool ok = gnutls_hash_fast(GNUTLS_DIG_SHA256, text, sizeof use + len, sum) == 0;
    explicit_bzero(text, sizeof text);
    for (int i = 0; ok && i < (HTTP_KEY_ID_MAX - 1) / 2; i++)
        snprintf(id + 2 * i, 3, "%02x", sum[i]);
    return ok;
}

static double fill_one(double level, int64_t per_minute, double minutes)
{
    double most = (double)per_minute, now = level + most * minutes;
    return now > most ? most : now;
}

static void fill(struct http_key *key, int64_t now_us)
{
    double minutes = key->filled_us ? (double)(now_us - key->filled_us) / (double)MINUTE_US : 1;
    bool first = key->filled_us == 0;
    key->requests = fill_one(first ? 0 : key->requests, key->limits.requests_per_min, minutes);
    key->tokens = fill_one(first ? 0 : key->tokens, key->limits.tokens_per_min, minutes);
    key->filled_us = now_us;
}

/* Whole seconds until level has risen by missing. */
static int seconds_until(double missing, int64_t per_minute)
{
    double s = missing * 60 / (double)per_minute;
    return s >= 3600 ? 3600 : (int)s + 1;
}

static bool refuse(struct http_key *key, struct api_error *e, int retry_s, const char *what, int64_t limit)
{
    key->n_refused++;
    api_fail(e, ERR_OVERLOADED, NULL, "the key '%s' may have %lld %s; try again later", key->name, (long long)limit, what);
    e->retry_after_s = retry_s;
    return false;
}

static bool enter(struct http_key *key, int64_t now_us, struct api_error *e)
{
    const struct http_key_limits *l = &key->limits;
    fill(key, now_us);
    if (l->concurrent > 0 && key->n_active >= l->concurrent)
        return refuse(key, e, 1, "requests in progress", l->concurrent);
    if (l->requests_per_min > 0 && key->requests < 1)
        return refuse(key, e, seconds_until(1 - key->requests, l->requests_per_min), "requests a minute", l->requests_per_min);
    if (l->tokens_per_min > 0 && key->tokens <= 0)
        return refuse(key, e, seconds_until(1 - key->tokens, l->tokens_per_min), "tokens a minute", l->tokens_per_min);
    key->requests -= l->requests_per_min > 0;
    key->n_requests++;
    key->n_active++;
    return true;
}

bool http_key_enter(struct http_key *key, int64_t now_us, struct api_error *e)
{
    pthread_mutex_lock(&key->keys->lock);
    bool ok = enter(key, now_us, e);
    pthread_mutex_unlock(&key->keys->lock);
    return ok;
}

void http_key_leave(struct http_key *key)
{
    pthread_mutex_lock(&key->keys->lock);
    key->n_active--;
    pthread_mutex_unlock(&key->keys->lock);
}

void http_key_charge(struct http_key *key, int64_t prompt_tokens, int64_t generated_tokens, int64_t now_us)
{
    pthread_mutex_lock(&key->keys->lock);
    fill(key, now_us);
    key->tokens -= key->limits.tokens_per_min > 0 ? (double)(prompt_tokens + generated_tokens) : 0;
    key->prompt_tokens += (uint64_t)prompt_tokens;
    key->generated_tokens += (uint64_t)generated_tokens;
    pthread_mutex_unlock(&key->keys->lock);
}

static void show(const struct http_key *key, void (*visit)(void *ctx, const struct http_key_view *v), void *ctx)
{
    struct http_key_view v = {.name = key->name, .limits = key->limits, .n_active = key->n_active, .n_requests = key->n_requests,
                              .n_refused = key->n_refused, .prompt_tokens = key->prompt_tokens, .generated_tokens = key->generated_tokens};
    visit(ctx, &v);
}

void http_keys_visit(struct http_keys *k, void (*visit)(void *ctx, const struct http_key_view *v), void *ctx)
{
    pthread_mutex_lock(&k->lock);
    for (size_t i = 0; i < k->n_secrets; i++)
        show(k->secrets[i].key, visit, ctx);
    for (size_t i = 0; i < k->n_all; i++)
        if (!k->all[i]->present && k->all[i]->n_requests + k->all[i]->n_refused > 0)
            show(k->all[i], visit, ctx);
    pthread_mutex_unlock(&k->lock);
}
