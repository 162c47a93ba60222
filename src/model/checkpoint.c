#include "model/checkpoint_int.h"
#include <string.h>
#include "base/hash.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/vec.h"
#include "model/gguf_int.h"
#include "model/safetensors_int.h"

enum { MAX_INDEX_BYTES = 64 << 20, MAX_SHARDS = 4096 };
#define SINGLE_FILE "model.safetensors"
#define INDEX_FILE "model.safetensors.index.json"

struct shard {
    char *file;
    struct file_view view;
    struct safetensors st;
    const struct tensor *tensors;
    size_t n_tensors;
    size_t first;              /* index of its first tensor in the whole checkpoint */
};

struct checkpoint {
    struct shard *shards;
    size_t n_shards, cap_shards;
    size_t n_tensors;
    struct hash_map *by_name;  /* name -> index in the whole checkpoint */
    bool *used;
};

static bool no_memory(struct err *e)
{
    return err_set(e, ERR_NOMEM, "no memory for the list of tensors");
}

static struct shard *new_shard(struct checkpoint *ck, const char *file, struct err *e)
{
    if (ck->n_shards >= MAX_SHARDS)
        return err_set(e, ERR_FORMAT, "%s: more than %d weight files", INDEX_FILE, MAX_SHARDS), NULL;
    if (!vec_reserve((void **)&ck->shards, &ck->cap_shards, ck->n_shards + 1, sizeof *ck->shards))
        return no_memory(e), NULL;
    struct shard *s = &ck->shards[ck->n_shards];
    *s = (struct shard){ .file = mem_try_strdup(file), .first = ck->n_tensors };
    if (!s->file)
        return no_memory(e), NULL;
    ck->n_shards++;
    return s;
}

/* The shard's tensors by name. */
static bool list_shard(struct checkpoint *ck, struct shard *s, const struct tensor *tensors, size_t n, struct err *e)
{
    const char *file = s->file;
    s->tensors = tensors;
    s->n_tensors = n;
    for (size_t i = 0; i < n; i++) {
        const char *name = tensors[i].name;
        int64_t other;
        if (hash_map_get(ck->by_name, name, strlen(name), &other)) {
            const char *other_file;
            checkpoint_at(ck, (size_t)other, &other_file, NULL);
            return err_set(e, ERR_FORMAT, "tensor %.200s is both in %.100s and in %.100s", name, other_file, file);
        }
        if (!hash_map_put(ck->by_name, name, strlen(name), (int64_t)ck->n_tensors))
            return no_memory(e);
        ck->n_tensors++;
    }
    return true;
}

static bool add_shard(struct checkpoint *ck, const struct file_set *files, const char *file, struct err *e)
{
    struct shard *s = new_shard(ck, file, e);
    return s && file_set_open(files, file, &s->view, e) && safetensors_parse(&s->st, s->view.data, s->view.size, file, e)
        && list_shard(ck, s, s->st.tensors, s->st.n_tensors, e);
}

static bool open_listed_shards(struct checkpoint *ck, const struct file_set *files, const json_t *map, struct err *e)
{
    struct hash_map *seen = hash_map_open(16, HASH_MAP_BORROW_KEYS);
    const char *name;
    json_t *value;
    bool ok = seen != NULL;
    if (!ok)
        no_memory(e);
    json_object_foreach((json_t *)map, name, value) {
        const char *file = json_string_value(value);
        int64_t unused;
        if (!ok)
            break;
        if (!file) {
            ok = err_set(e, ERR_FORMAT, "%s: the file of tensor %.200s must be a string, found %s", INDEX_FILE, name, json_type_name(value));
        } else if (!hash_map_get(seen, file, strlen(file), &unused)) {
            ok = add_shard(ck, files, file, e);
            if (!ok)
                err_prefix(e, "%s", INDEX_FILE);
            else if (!hash_map_put(seen, file, strlen(file), 1))
                ok = no_memory(e);
        }
    }
    hash_map_close(&seen);
    return ok;
}

static bool check_listed(const struct checkpoint *ck, const json_t *map, struct err *e)
{
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)map, name, value) {
        int64_t i;
        const char *file = NULL;
        if (hash_map_get(ck->by_name, name, strlen(name), &i))
            checkpoint_at(ck, (size_t)i, &file, NULL);
        if (!file || strcmp(file, json_string_value(value)) != 0)
            return err_set(e, ERR_FORMAT, "%s: tensor %.200s is not in %.100s", INDEX_FILE, name, json_string_value(value));
    }
    return true;
}

static bool open_index(struct checkpoint *ck, const struct file_set *files, struct err *e)
{
    size_t len;
    char *text = file_set_read(files, INDEX_FILE, MAX_INDEX_BYTES, &len, e);
    if (!text)
        return false;
    json_t *index = json_parse(text, len, e);
    mem_free(text);
    if (!index)
        return err_prefix(e, "%s", INDEX_FILE);
    const json_t *map = json_object_get(index, "weight_map");
    bool ok = json_is_object(map) && json_object_size(map) > 0;
    if (!ok)
        err_set(e, ERR_FORMAT, "%s: 'weight_map' must be an object from tensor names to files", INDEX_FILE);
    ok = ok && open_listed_shards(ck, files, map, e) && check_listed(ck, map, e);
    json_decref(index);
    return ok;
}

static bool open_folder(struct checkpoint *ck, const struct file_set *files, struct err *e)
{
    bool single = file_set_has(files, SINGLE_FILE), sharded = file_set_has(files, INDEX_FILE);
    if (!single && !sharded)
        return err_set(e, ERR_NOT_FOUND, "no weights: expected %s, or %s and its shards%s", SINGLE_FILE, INDEX_FILE,
                file_set_has(files, "pytorch_model.bin") || file_set_has(files, "pytorch_model.bin.index.json")
                    ? " (pytorch_model.bin is not read: convert it to safetensors)" : "");
    return single ? add_shard(ck, files, SINGLE_FILE, e) : open_index(ck, files, e);
}

static bool open_gguf(struct checkpoint *ck, const struct gguf_files *f, struct err *e)
{
    for (size_t i = 0; i < f->n_files; i++) {
        struct shard *s = new_shard(ck, f->files[i].name, e);
        if (!s || !list_shard(ck, s, f->files[i].g.tensors, f->files[i].g.n_tensors, e))
            return false;
    }
    return true;
}

/* One of files and gguf. */
static bool open_any(struct checkpoint **out, const struct file_set *files, const struct gguf_files *gguf, struct err *e)
{
    *out = NULL;
    struct checkpoint *ck = mem_try_zalloc(1, sizeof *ck);
    if (!ck)
        return no_memory(e);
    ck->by_name = hash_map_open(1024, HASH_MAP_BORROW_KEYS);
    if (!ck->by_name) {
        no_memory(e);
        goto fail;
    }
    if (!(gguf ? open_gguf(ck, gguf, e) : open_folder(ck, files, e)))
        goto fail;
    ck->used = mem_try_zalloc(ck->n_tensors, sizeof *ck->used);
    if (!ck->used) {
        no_memory(e);
        goto fail;
    }
    *out = ck;
    return true;
fail:
    checkpoint_close(&ck);
    return false;
}

bool checkpoint_open(struct checkpoint **out, const struct file_set *files, struct err *e)
{
    return open_any(out, files, NULL, e);
}

bool checkpoint_open_gguf(struct checkpoint **out, const struct gguf_files *f, struct err *e)
{
    return open_any(out, NULL, f, e);
}

void checkpoint_close(struct checkpoint **ck)
{
    struct checkpoint *c = *ck;
    *ck = NULL;
    if (!c)
        return;
    for (size_t i = 0; i < c->n_shards; i++) {
        safetensors_free(&c->shards[i].st);
        file_view_close(&c->shards[i].view);
        mem_free(c->shards[i].file);
    }
    mem_free(c->shards);
    hash_map_close(&c->by_name);
    mem_free(c->used);
    mem_free(c);
}

size_t checkpoint_count(const struct checkpoint *ck)
{
    return ck->n_tensors;
}

const struct tensor *checkpoint_at(const struct checkpoint *ck, size_t i, const char **file, bool *used)
{
    size_t s = 0;
    while (i >= ck->shards[s].first + ck->shards[s].n_tensors)
        s++;
    if (file)
        *file = ck->shards[s].file;
    if (used)
        *used = ck->used[i];
    return &ck->shards[s].tensors[i - ck->shards[s].first];
}

const struct tensor *checkpoint_find(const struct checkpoint *ck, const char *name)
{
    int64_t i;
    return hash_map_get(ck->by_name, name, strlen(name), &i) ? checkpoint_at(ck, (size_t)i, NULL, NULL) : NULL;
}

const struct tensor *checkpoint_take(const struct checkpoint *ck, const char *name)
{
    int64_t i;
    if (!hash_map_get(ck->by_name, name, strlen(name), &i))
        return NULL;
    ck->used[i] = true;
    return checkpoint_at(ck, (size_t)i, NULL, NULL);
}

const char *checkpoint_file_of(const struct checkpoint *ck, const struct tensor *t)
{
    for (size_t s = 0; s < ck->n_shards; s++) {
        const struct shard *shard = &ck->shards[s];
        if (t >= shard->tensors && t < shard->tensors + shard->n_tensors)
            return shard->file;
    }
    return SINGLE_FILE;
}
