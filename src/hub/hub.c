/* hub_get: which commit, which files, from the cache or the hub. */
#include "hub/hub.h"

#include <curl/curl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/file.h"
#include "base/mem.h"
#include "hub/hub_int.h"

enum { MAX_LIST_BYTES = 64 << 20, MAX_PAGES = 1000, MAX_INDEX_BYTES = 256 << 20 };
#define INDEX_FILE "model.safetensors.index.json"

struct get {
    const struct hub_ref *ref;
    const struct hub_opts *o;
    struct hub_http http;
    struct hub_cache cache;
    struct hub_list list;
    struct hub_transfer transfer;
    bool online;                   /* list is the hub's answer of now */
    bool found;                    /* list is of a snapshot that others made: what is not there is not known */
    const char *main_file;         /* a .gguf; borrowed from list */
};

/* ---- the list ---- */

static bool ask_tree(struct get *g, struct err *e)
{
    char *url = hub_path(e, "%s/api/models/%s/tree/%s?recursive=true", g->http.endpoint, g->ref->repo, g->list.commit);
    struct buf text;
    buf_init(&text, MAX_LIST_BYTES);
    bool ok = url != NULL;
    for (int page = 0; ok && url; page++) {
        char *next = NULL;
        ok = page < MAX_PAGES ? hub_http_get(&g->http, url, g->ref->repo, &text, &next, e) &&
                                    hub_list_parse_tree(&g->list, text.data ? text.data : "", text.len, e)
                              : err_set(e, ERR_TOO_LARGE, "the hub's list of files has more than %d pages", MAX_PAGES);
        mem_free(url);
        url = next;
    }
    mem_free(url);
    buf_free(&text);
    return ok;
}

static bool ask_hub(struct get *g, struct err *e)
{
    char what[HUB_NAME_MAX * 2 + 8];
    struct buf text;
    bool has_files = false;
    char *rev = hub_escape(g->ref->revision, false, e);
    char *url = rev ? hub_path(e, "%s/api/models/%s/revision/%s?blobs=true", g->http.endpoint, g->ref->repo, rev) : NULL;
    snprintf(what, sizeof what, "%s%s%s", g->ref->repo, strcmp(g->ref->revision, "main") != 0 ? "@" : "",
             strcmp(g->ref->revision, "main") != 0 ? g->ref->revision : "");
    buf_init(&text, MAX_LIST_BYTES);
    bool ok = url && hub_http_get(&g->http, url, what, &text, NULL, e) &&
              hub_list_parse(&g->list, text.data ? text.data : "", text.len, &has_files, e) && (has_files || ask_tree(g, e));
    if (!ok)
        hub_list_free(&g->list);
    g->online = ok;
    mem_free(rev);
    mem_free(url);
    buf_free(&text);
    return ok;
}

/* ---- choosing ---- */

static bool text_of_snapshot(const struct get *g, const char *name, char **text, size_t *len, struct err *e)
{
    char *path = hub_path(e, "%s/snapshots/%s/%s", g->cache.repo, g->list.commit, name);
    *text = path ? file_read(path, MAX_INDEX_BYTES, len, e) : NULL;
    mem_free(path);
    return *text != NULL;
}

/* Whether the weights are shards, whose names only the index knows. */
static bool needs_index(const struct get *g)
{
    return g->o->want == HUB_WANT_MODEL && !g->ref->file[0] && !g->o->n_include && hub_list_find(&g->list, INDEX_FILE) &&
           !hub_list_find(&g->list, "model.safetensors");
}

static void choose_first(struct get *g)
{
    bool gguf = g->ref->file[0] || (!hub_list_has_safetensors(&g->list) && g->o->want == HUB_WANT_MODEL);
    if (!g->o->n_include && !gguf)
        hub_select_text(&g->list);
    hub_select_patterns(&g->list, g->o);
}

/* After what choose_first marked is there. */
static bool choose_weights(struct get *g, struct err *e)
{
    char *index = NULL;
    size_t len = 0;
    bool ok = true, gguf = g->ref->file[0];
    for (size_t i = 0; g->o->want == HUB_WANT_TEXT && !gguf && i < g->list.n; i++)
        gguf |= !hub_list_find(&g->list, "config.json") && !hub_list_find(&g->list, "tokenizer.json") && strstr(g->list.files[i].name, ".gguf");
    if (g->o->n_include)
        return true;
    if (g->o->want == HUB_WANT_TEXT)
        ok = !gguf || hub_select_gguf(&g->list, g->ref->file, &g->main_file, e);
    else
        ok = (!needs_index(g) || text_of_snapshot(g, INDEX_FILE, &index, &len, e)) &&
             hub_select_weights(&g->list, g->ref, index, len, &g->main_file, e);
    mem_free(index);
    hub_select_patterns(&g->list, g->o);
    return ok || err_prefix(e, "%s", g->ref->repo);
}

/* ---- the cache alone ---- */

static bool all_there(const struct get *g, struct err *e)
{
    for (size_t i = 0; i < g->list.n; i++)
        if (g->list.files[i].wanted && !hub_cache_has(&g->cache, g->list.commit, &g->list.files[i]))
            return err_set(e, ERR_NOT_FOUND, "%s is not in the cache", g->list.files[i].name);
    return true;
}

/* Whether the cache has what is asked for, judged by the list that was saved or, with guess, by what another tool's snapshot holds. */
static bool from_cache(struct get *g, bool guess, struct err *e)
{
    char commit[72];
    if (!hub_cache_commit(&g->cache, g->ref->revision, commit))
        return err_set(e, ERR_NOT_FOUND, "%s is not in the cache", g->ref->repo);
    if (!hub_cache_load_list(&g->cache, commit, &g->list)) {
        if (!guess)
            return err_set(e, ERR_NOT_FOUND, "which files %s has is not known", g->ref->repo);
        g->found = true;
        if (!hub_cache_list_snapshot(&g->cache, commit, &g->list, e))
            goto fail;
        bool gguf_only = !hub_list_find(&g->list, "config.json");
        if (gguf_only && !g->ref->file[0] && hub_list_has_safetensors(&g->list)) {
            err_set(e, ERR_NOT_FOUND, "config.json is not in the cache");
            goto fail;
        }
    }
    choose_first(g);
    if (all_there(g, e) && choose_weights(g, e) && all_there(g, e))
        return true;
fail:
    hub_list_free(&g->list);
    g->main_file = NULL;
    g->found = false;
    return false;
}

/* ---- downloading ---- */

static int64_t partly_there(const struct get *g, const struct hub_file *f)
{
    struct stat st;
    char *path = hub_path(NULL, "%s/blobs/%s.quire.incomplete", g->cache.repo, f->etag);
    int64_t n = path && f->etag[0] && stat(path, &st) == 0 ? (int64_t)st.st_blocks * 512 : 0;
    mem_free(path);
    return n < f->size ? n : f->size;
}

static bool check_room(struct get *g, struct hub_file *const *files, int n, struct err *e)
{
    int64_t need = 0, room = hub_cache_room(&g->cache);
    for (int i = 0; i < n; i++)
        if (__builtin_add_overflow(need, files[i]->size - partly_there(g, files[i]), &need))
            need = INT64_MAX;
    return need <= room || err_set(e, ERR_TOO_LARGE, "%s: %.2f GB are to be downloaded, but %s has room for %.2f GB", g->ref->repo, (double)need / 1e9,
                                   g->cache.root, (double)room / 1e9);
}

/* A blob that does not have the checksum in its name is removed. */
static bool verify_blob(const struct get *g, const struct hub_file *f, struct err *e)
{
    char *path = hub_path(e, "%s/blobs/%s", g->cache.repo, f->etag), hex[65];
    struct file_view v = {0};
    bool ok = path && file_view_open(&v, path, e);
    if (ok) {
        struct hub_sha sha;
        hub_sha_begin(&sha, f->sha, v.size);
        hub_sha_update(&sha, v.data, v.size);
        hub_sha_end(&sha, hex);
        if (f->sha != HUB_SHA_NONE && strcmp(hex, f->etag) != 0) {
            log_warn(g->o->log, "hub", "%s: its content has changed since it was downloaded; downloading it again", f->name);
            unlink(path);
        }
    }
    file_view_close(&v);
    mem_free(path);
    return ok;
}

/* Learns what the list did not tell, links what is there, and collects what is not. */
static bool find_missing(struct get *g, struct hub_file **missing, int *n, struct err *e)
{
    *n = 0;
    for (size_t i = 0; i < g->list.n; i++) {
        struct hub_file *f = &g->list.files[i];
        if (!f->wanted)
            continue;
        if (!f->etag[0] || f->size < 0) {
            char *name = hub_escape(f->name, true, e);
            char *url = name ? hub_path(e, "%s/%s/resolve/%s/%s", g->http.endpoint, g->ref->repo, g->list.commit, name) : NULL;
            bool ok = url && hub_http_head(&g->http, url, f, e);
            mem_free(name);
            mem_free(url);
            if (!ok)
                return false;
        }
        if (g->o->verify && hub_cache_has_blob(&g->cache, f) && !verify_blob(g, f, e))
            return false;
        if (!hub_cache_has_blob(&g->cache, f))
            missing[(*n)++] = f;
        else if (!g->o->dry_run && !hub_cache_link(&g->cache, g->list.commit, f, e))
            return false;
    }
    return true;
}

static bool download(struct get *g, struct err *e)
{
    struct hub_transfer *t = &g->transfer;
    struct hub_file **missing = mem_try_zalloc(g->list.n, sizeof *missing);
    int n = 0;
    if (!missing)
        return err_set(e, ERR_NOMEM, "no memory for the list of files");
    bool ok = find_missing(g, missing, &n, e);
    t->o = g->o;
    t->http = &g->http;
    t->cache = &g->cache;
    t->repo = g->ref->repo;
    t->commit = g->list.commit;
    t->total = t->base_done = 0;
    t->n_files = t->base_n_done = 0;
    for (size_t i = 0; ok && i < g->list.n; i++) {
        const struct hub_file *f = &g->list.files[i];
        if (f->wanted && __builtin_add_overflow(t->total, f->size, &t->total))
            ok = err_set(e, ERR_FORMAT, "%s: the hub's sizes do not add up", g->ref->repo);
        t->n_files += f->wanted;
    }
    t->base_done = t->total;
    t->base_n_done = t->n_files - n;
    for (int i = 0; i < n; i++)
        t->base_done -= missing[i]->size;
    if (ok && !g->o->dry_run && n > 0)
        ok = check_room(g, missing, n, e) && hub_transfer_run(t, missing, n, e);
    mem_free(missing);
    return ok;
}

/* With dry_run the index is downloaded all the same: without it the weights' names are not known. */
static bool download_all(struct get *g, struct hub_opts *opts, struct err *e)
{
    bool dry = opts->dry_run;
    struct hub_file *index = needs_index(g) ? hub_list_find(&g->list, INDEX_FILE) : NULL;
    if (dry && index) {
        index->wanted = true;
        opts->dry_run = false;
        if (!download(g, e))
            return false;
        opts->dry_run = true;
    }
    choose_first(g);
    if (!needs_index(g))           /* nothing to wait for: all at once */
        return choose_weights(g, e) && download(g, e);
    return download(g, e) && choose_weights(g, e) && download(g, e);
}

static bool fetch(struct get *g, struct hub_opts *opts, struct err *e)
{
    char *root = hub_path(e, "%s/.", g->cache.root);
    bool ok = root && hub_make_parents(root, e) && download_all(g, opts, e);
    mem_free(root);
    size_t n_wanted = 0;
    for (size_t i = 0; i < g->list.n; i++)
        n_wanted += g->list.files[i].wanted;
    if (ok && n_wanted == 0)
        ok = err_set(e, ERR_NOT_FOUND, "%s: none of its %zu files is wanted", g->ref->repo, g->list.n);
    if (!ok || opts->dry_run)
        return ok;
    hub_cache_mark_absent(&g->cache, &g->list);
    return hub_cache_save_list(&g->cache, &g->list, e) && hub_cache_set_commit(&g->cache, g->ref->revision, g->list.commit, e);
}

/* ---- together ---- */

static bool fill_result(struct hub_result *r, const struct get *g, const struct hub_list *before, struct err *e)
{
    r->files = mem_try_zalloc(g->list.n, sizeof *r->files);
    r->snapshot = hub_cache_snapshot(&g->cache, g->list.commit, e);
    if (!r->snapshot || !r->files)
        return err_set(e, ERR_NOMEM, "no memory for a path");
    r->path = g->main_file ? hub_path(e, "%s/%s", r->snapshot, g->main_file) : hub_path(e, "%s", r->snapshot);
    memcpy(r->commit, g->list.commit, sizeof r->commit);
    for (size_t i = 0; r->path && i < g->list.n; i++) {
        const struct hub_file *f = &g->list.files[i];
        if (!f->wanted)
            continue;
        struct hub_result_file *out = &r->files[r->n_files++];
        bool cached = !g->online || (i < before->n && before->files[i].wanted);
        *out = (struct hub_result_file){.name = mem_try_strdup(f->name), .size = f->size, .cached = cached};
        if (!out->name)
            return err_set(e, ERR_NOMEM, "no memory for the list of files");
        r->total_bytes += f->size;
    }
    r->downloaded_bytes = g->transfer.downloaded;
    return r->path != NULL;
}

/* Marks in a copy of the list, index by index, which blobs the cache has now. */
static bool note_cached(const struct get *g, struct hub_list *before, struct err *e)
{
    for (size_t i = 0; i < g->list.n; i++) {
        struct hub_file *f = hub_list_add(before, g->list.files[i].name, e);
        if (!f)
            return false;
        f->wanted = hub_cache_has_blob(&g->cache, &g->list.files[i]);
    }
    return true;
}

static bool get(struct get *g, struct hub_opts *opts, struct hub_list *before, struct err *e)
{
    struct err why = {0};
    if (!opts->refresh && !opts->verify && !opts->dry_run && from_cache(g, false, NULL))
        return true;
    if (opts->offline) {
        if (from_cache(g, true, &why))
            return true;
        return err_set(e, ERR_NOT_FOUND, "%s: offline, and %s; its place is %s", g->ref->repo, why.msg, g->cache.repo);
    }
    if (ask_hub(g, e))
        return note_cached(g, before, e) && fetch(g, opts, e);
    /* A hub out of reach is no reason not to start with what is there. */
    if (e->code == ERR_IO && !opts->refresh && from_cache(g, true, NULL)) {
        log_warn(opts->log, "hub", "%s; using the copy in the cache", e->msg);
        return true;
    }
    return false;
}

bool hub_get(struct hub_result *out, const struct hub_ref *ref, const struct hub_opts *o, struct err *e)
{
    struct hub_opts opts = *o;
    struct get g = {.ref = ref, .o = &opts};
    struct hub_list before = {0};
    struct err own;
    e = e ? e : &own;
    *out = (struct hub_result){0};
    bool global = curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK;
    bool ok = (global || err_set(e, ERR_NOMEM, "libcurl cannot start")) && hub_http_open(&g.http, &opts, e) &&
              hub_cache_open(&g.cache, opts.cache_dir, ref->repo, e) && get(&g, &opts, &before, e) && fill_result(out, &g, &before, e);
    if (!ok)
        hub_result_free(out);
    hub_cache_free(&g.cache);
    hub_list_free(&g.list);
    hub_list_free(&before);
    if (global)
        curl_global_cleanup();
    return ok;
}

void hub_result_free(struct hub_result *r)
{
    for (int i = 0; i < r->n_files; i++)
        mem_free(r->files[i].name);
    mem_free(r->files);
    mem_free(r->path);
    mem_free(r->snapshot);
    *r = (struct hub_result){0};
}
