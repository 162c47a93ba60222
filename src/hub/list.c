/* The list of a commit's files, as hubs send it. */
#include <ctype.h>
#include <string.h>
#include "base/hash.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/vec.h"
#include "hub/hub_int.h"

enum { MAX_FILES = 50000 };
static const int64_t MAX_SIZE = INT64_C(1) << 50;

bool hub_id_is_safe(const char *s, size_t max)
{
    size_t n = strlen(s);
    for (size_t i = 0; i < n; i++)
        if (!isalnum((unsigned char)s[i]) && s[i] != '-' && s[i] != '_')
            return false;
    return n > 0 && n <= max;
}

bool hub_etag_clean(char out[HUB_ETAG_MAX], const char *header)
{
    const char *s = strncmp(header, "W/", 2) == 0 ? header + 2 : header;
    size_t n = strlen(s);
    if (n >= 2 && s[0] == '"' && s[n - 1] == '"') {
        s++;
        n -= 2;
    }
    out[0] = 0;
    if (n >= HUB_ETAG_MAX)
        return false;
    memcpy(out, s, n);
    out[n] = 0;
    if (hub_id_is_safe(out, HUB_ETAG_MAX - 1))
        return true;
    out[0] = 0;
    return false;
}

void hub_file_set_etag(struct hub_file *f, const char *etag)
{
    size_t n = strlen(etag), n_hex = strspn(etag, "0123456789abcdef");
    memcpy(f->etag, etag, n + 1);
    f->sha = n != n_hex ? HUB_SHA_NONE : n == 64 ? HUB_SHA256 : n == 40 ? HUB_SHA1_GIT : HUB_SHA_NONE;
}

void hub_list_free(struct hub_list *l)
{
    for (size_t i = 0; i < l->n; i++)
        mem_free(l->files[i].name);
    mem_free(l->files);
    *l = (struct hub_list){0};
}

struct hub_file *hub_list_find(const struct hub_list *l, const char *name)
{
    for (size_t i = 0; i < l->n; i++)
        if (strcmp(l->files[i].name, name) == 0)
            return &l->files[i];
    return NULL;
}

struct hub_file *hub_list_add(struct hub_list *l, const char *name, struct err *e)
{
    if (!hub_name_is_safe(name)) {
        err_set(e, ERR_FORMAT, "the hub lists a file named '%.100s': refused, it would leave the model's folder", name);
        return NULL;
    }
    if (l->n >= MAX_FILES) {
        err_set(e, ERR_TOO_LARGE, "the hub lists more than %d files", MAX_FILES);
        return NULL;
    }
    char *copy = mem_try_strdup(name);
    if (!copy || !vec_reserve((void **)&l->files, &l->cap, l->n + 1, sizeof *l->files)) {
        mem_free(copy);
        err_set(e, ERR_NOMEM, "no memory for the list of files");
        return NULL;
    }
    struct hub_file *f = &l->files[l->n++];
    *f = (struct hub_file){.name = copy, .size = -1};
    return f;
}

static bool read_size(const json_t *j, const char *name, int64_t *size, struct err *e)
{
    if (!json_get_i64(j, "size", -1, size, e))
        return err_prefix(e, "%s", name);
    if (*size < -1 || *size > MAX_SIZE)
        return err_set(e, ERR_FORMAT, "%s: the hub says it has %lld bytes", name, (long long)*size);
    return true;
}

/* A checksum of n hexadecimal digits is taken, anything else is left unknown.  ("sha256:" stands before some.) */
static bool take_etag(struct hub_file *f, const char *text, size_t n)
{
    char clean[HUB_ETAG_MAX];
    if (text && strncmp(text, "sha256:", 7) == 0)
        text += 7;
    if (!text || strlen(text) != n || !hub_etag_clean(clean, text))
        return false;
    for (char *c = clean; *c; c++)
        *c = (char)tolower((unsigned char)*c);
    hub_file_set_etag(f, clean);
    if (f->sha != HUB_SHA_NONE)
        return true;
    f->etag[0] = 0;
    return false;
}

/* One entry of either form: the keys of name and git's checksum differ, and so does that of the large file's. */
static bool add_entry(struct hub_list *l, const json_t *j, const char *name_key, const char *oid_key, const char *lfs_key, struct err *e)
{
    const char *name, *oid, *lfs_oid;
    const json_t *lfs;
    if (!json_get_str(j, name_key, NULL, &name, e) || !json_get_str(j, oid_key, NULL, &oid, e) || !json_get_obj(j, "lfs", &lfs, e) ||
        !json_get_str(lfs, lfs_key, NULL, &lfs_oid, e))
        return err_prefix(e, "the hub's list of files");
    if (!name)
        return err_set(e, ERR_FORMAT, "the hub's list of files: an entry has no %s", name_key);
    struct hub_file *f = hub_list_add(l, name, e);
    if (!f || !read_size(j, f->name, &f->size, e))
        return false;
    if (lfs && !take_etag(f, lfs_oid, 64))
        return true;               /* a large file without its checksum: the headers will tell */
    if (lfs) {
        int64_t size;
        if (!read_size(lfs, f->name, &size, e))
            return false;
        f->size = size >= 0 ? size : f->size;
    } else {
        take_etag(f, oid, 40);
    }
    return true;
}

/* No two entries may claim one path, nor one the folder of another. */
static bool check_unique(const struct hub_list *l, struct err *e)
{
    struct hash_map *names = hash_map_open(l->n * 2, HASH_MAP_BORROW_KEYS);
    bool ok = names != NULL;
    for (size_t i = 0; ok && i < l->n; i++) {
        int64_t other;
        const char *name = l->files[i].name;
        if (hash_map_get(names, name, strlen(name), &other)) {
            hash_map_close(&names);
            return err_set(e, ERR_FORMAT, "the hub lists '%.100s' twice", name);
        }
        ok = hash_map_put(names, name, strlen(name), 1);
    }
    for (size_t i = 0; ok && i < l->n; i++)
        for (const char *name = l->files[i].name, *slash = strchr(name, '/'); slash; slash = strchr(slash + 1, '/')) {
            int64_t other;
            if (hash_map_get(names, name, (size_t)(slash - name), &other)) {
                hash_map_close(&names);
                return err_set(e, ERR_FORMAT, "the hub lists '%.100s' below a file", name);
            }
        }
    hash_map_close(&names);
    return ok || err_set(e, ERR_NOMEM, "no memory for the list of files");
}

bool hub_list_parse(struct hub_list *l, const char *text, size_t len, bool *has_files, struct err *e)
{
    const char *sha;
    const json_t *files, *item;
    size_t i;
    json_t *j = json_parse(text, len, e);
    bool ok = false;
    *has_files = false;
    if (!j)
        return err_prefix(e, "the hub's list of files");
    if (!json_is_object(j)) {
        err_set(e, ERR_FORMAT, "the hub's list of files is no JSON object");
        goto done;
    }
    if (!json_get_str(j, "sha", NULL, &sha, e) || !json_get_arr(j, "siblings", &files, e)) {
        err_prefix(e, "the hub's list of files");
        goto done;
    }
    if (!sha || !hub_id_is_safe(sha, sizeof l->commit - 1)) {
        err_set(e, ERR_FORMAT, "the hub's list of files: 'sha' is not a commit");
        goto done;
    }
    memcpy(l->commit, sha, strlen(sha) + 1);
    json_array_foreach((json_t *)files, i, item)
        if (!add_entry(l, item, "rfilename", "blobId", "sha256", e))
            goto done;
    *has_files = files != NULL;
    ok = check_unique(l, e);
done:
    json_decref(j);
    return ok;
}

bool hub_list_parse_tree(struct hub_list *l, const char *text, size_t len, struct err *e)
{
    json_t *j = json_parse(text, len, e), *item;
    size_t i;
    bool ok = json_is_array(j);
    if (!j)
        return err_prefix(e, "the hub's tree of files");
    if (!ok)
        err_set(e, ERR_FORMAT, "the hub's tree of files is no JSON array");
    json_array_foreach(j, i, item) {
        const char *type;
        ok = ok && json_get_str(item, "type", "file", &type, e);
        if (ok && strcmp(type, "file") == 0)
            ok = add_entry(l, item, "path", "oid", "oid", e);
    }
    json_decref(j);
    return ok && check_unique(l, e);
}

bool hub_list_write(const struct hub_list *l, struct buf *b)
{
    buf_puts(b, "{\"sha\":");
    json_write_str(b, l->commit, strlen(l->commit));
    buf_puts(b, ",\"siblings\":[");
    for (size_t i = 0; i < l->n; i++) {
        const struct hub_file *f = &l->files[i];
        buf_puts(b, i ? ",\n{\"rfilename\":" : "\n{\"rfilename\":");
        json_write_str(b, f->name, strlen(f->name));
        if (f->size >= 0)
            buf_printf(b, ",\"size\":%lld", (long long)f->size);
        if (f->sha == HUB_SHA256)
            buf_printf(b, ",\"lfs\":{\"sha256\":\"%s\"}", f->etag);
        else if (f->sha == HUB_SHA1_GIT)
            buf_printf(b, ",\"blobId\":\"%s\"", f->etag);
        buf_putc(b, '}');
    }
    return buf_puts(b, "]}\n");
}
