/* config.json with its quantization_config, and the files that are copied. */
#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include "base/buf.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/vec.h"
#include "convert/convert_int.h"

enum { MAX_CONFIG = 4 << 20, MAX_FILE = 256 << 20 };

/* What one config group says of its linears. */
struct kind { enum convert_format format; int64_t group; };
struct kinds { struct kind *list; size_t n, cap; };

static bool is_kind(const struct unit *u, const struct kind *k)
{
    return u->format == k->format && u->group == k->group;
}

/* All that differ, by format and then as they come. */
static bool list_kinds(const struct convert *c, struct kinds *out)
{
    for (int f = CONVERT_NONE + 1; f < CONVERT_FORMAT_COUNT; f++)
        for (size_t i = 0; i < c->n_units; i++) {
            bool known = (int)c->units[i].format != f;
            for (size_t k = 0; k < out->n && !known; k++)
                known = is_kind(&c->units[i], &out->list[k]);
            if (known)
                continue;
            if (!vec_reserve((void **)&out->list, &out->cap, out->n + 1, sizeof *out->list))
                return false;
            out->list[out->n++] = (struct kind){ c->units[i].format, c->units[i].group };
        }
    return true;
}

static const char *layout(enum convert_format f)
{
    return f == CONVERT_INT8 ? "int-quantized" : f == CONVERT_FP8 ? "float-quantized" : "pack-quantized";
}

static json_t *weights(const struct convert *c, const struct kind *k)
{
    bool packed = k->format == CONVERT_INT4 || k->format == CONVERT_INT8_WEIGHT;
    json_t *order = c->o->gptq && c->o->act_order && packed ? json_string("weight") : json_null();
    return json_pack("{s:i,s:s,s:b,s:s,s:o,s:n,s:b,s:o,s:s,s:{}}", "num_bits", k->format == CONVERT_INT4 ? 4 : 8, "type",
                     k->format == CONVERT_FP8 ? "float" : "int", "symmetric", packed ? c->o->symmetric : 1, "strategy", k->group > 0 ? "group" : "channel",
                     "group_size", k->group > 0 ? json_integer((json_int_t)k->group) : json_null(), "block_structure", "dynamic", 0, "actorder", order,
                     "observer", "minmax", "observer_kwargs");
}

static json_t *activations(enum convert_format f)
{
    if (f != CONVERT_INT8 && f != CONVERT_FP8)
        return json_null();
    return json_pack("{s:i,s:s,s:b,s:s,s:n,s:n,s:b,s:n,s:n,s:{}}", "num_bits", 8, "type", f == CONVERT_FP8 ? "float" : "int", "symmetric", 1, "strategy",
                     "token", "group_size", "block_structure", "dynamic", 1, "actorder", "observer", "observer_kwargs");
}

/* With one format all linears but those of `ignore`; with several each by name. */
/* With one kind all linears but those of `ignore`; with several each by name: a class would be found before the parts of a fused linear are. */
static json_t *targets(const struct convert *c, const struct kind *k, bool several)
{
    json_t *list = json_array();
    if (!several)
        json_array_append_new(list, json_string("Linear"));
    for (size_t i = 0; several && i < c->n_units; i++)
        for (int j = 0; is_kind(&c->units[i], k) && j < c->units[i].n_mats; j++)
            json_array_append_new(list, json_string(c->units[i].mats[j].name));
    return list;
}

static json_t *ignored(const struct convert *c)
{
    json_t *list = json_array();
    for (size_t i = 0; i < c->n_units; i++)
        for (int j = 0; c->units[i].format == CONVERT_NONE && j < c->units[i].n_mats; j++)
            json_array_append_new(list, json_string(c->units[i].mats[j].name));
    if (c->arch->tied_head)
        json_array_append_new(list, json_string("lm_head"));
    return list;
}

static json_t *quantization_config(const struct convert *c)
{
    struct kinds kinds = { 0 };
    if (!list_kinds(c, &kinds)) {
        mem_free(kinds.list);
        return NULL;
    }
    json_t *groups = json_object();
    const char *one = NULL;
    for (size_t i = 0; i < kinds.n; i++) {
        const struct kind *k = &kinds.list[i];
        char name[32];
        snprintf(name, sizeof name, "group_%zu", i);
        one = !one || strcmp(one, layout(k->format)) == 0 ? layout(k->format) : "mixed-precision";
        json_object_set_new(groups, name, json_pack("{s:o,s:o,s:o,s:n,s:s}", "targets", targets(c, k, kinds.n > 1), "weights", weights(c, k),
                                                    "input_activations", activations(k->format), "output_activations", "format", layout(k->format)));
    }
    mem_free(kinds.list);
    return json_pack("{s:s,s:s,s:s,s:o,s:o,s:n,s:n}", "quant_method", "compressed-tensors", "format", one, "quantization_status", "compressed",
                     "config_groups", groups, "ignore", ignored(c), "kv_cache_scheme", "global_compression_ratio");
}

bool convert_write_config(struct convert *c, struct err *e)
{
    size_t len;
    char *text = file_set_read(model_files(c->m), "config.json", MAX_CONFIG, &len, e);
    json_t *config = text ? json_parse(text, len, e) : NULL, *q = config ? quantization_config(c) : NULL;
    mem_free(text);
    if (!config)
        return false;
    bool ok = q && json_object_set_new(config, "quantization_config", q) == 0;
    char *out = ok ? json_dumps(config, JSON_INDENT(2) | JSON_PRESERVE_ORDER) : NULL, *path = file_join(c->o->dst, "config.json");
    ok = out && path ? file_write_atomic(path, out, strlen(out), e) : err_set(e, ERR_NOMEM, "no memory for config.json");
    free(out);
    mem_free(path);
    json_decref(config);
    return ok;
}

/* ---- other files ---- */

static bool ends_with(const char *s, const char *ending)
{
    size_t n = strlen(s), k = strlen(ending);
    return n >= k && strcmp(s + n - k, ending) == 0;
}

/* Tokenizer, template, generation settings, licence: all that is small and no weights. */
static bool is_wanted(const char *name)
{
    static const char *const wanted[] = { ".json", ".jinja", ".txt", ".model", ".md", ".tiktoken", ".py" };
    if (strcmp(name, "config.json") == 0 || ends_with(name, ".index.json") || name[0] == '.')
        return false;
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
        if (ends_with(name, wanted[i]))
            return true;
    return strncmp(name, "LICENSE", 7) == 0 || strncmp(name, "NOTICE", 6) == 0;
}

static bool copy_one(struct convert *c, const char *name, struct err *e)
{
    struct file_view v;
    if (!file_set_open(model_files(c->m), name, &v, e))
        return false;
    char *path = file_join(c->o->dst, name);
    bool ok = path ? file_write_atomic(path, v.data ? v.data : (const unsigned char *)"", v.size, e) : err_set(e, ERR_NOMEM, "no memory for a path");
    mem_free(path);
    file_view_close(&v);
    return ok;
}

bool convert_copy_files(struct convert *c, struct err *e)
{
    const struct file_set *fs = model_files(c->m);
    bool ok = true;
    for (int i = 0; !fs->dir && fs->blobs[i].name; i++)
        if (is_wanted(fs->blobs[i].name) && !copy_one(c, fs->blobs[i].name, e))
            return false;
    DIR *d = fs->dir ? opendir(fs->dir) : NULL;
    if (fs->dir && !d)
        return err_set(e, ERR_IO, "%s: cannot list its files", fs->dir);
    for (struct dirent *ent; ok && d && (ent = readdir(d));) {
        char *path = file_join(fs->dir, ent->d_name);
        bool regular = path && !file_is_dir(path);
        mem_free(path);
        if (regular && is_wanted(ent->d_name))
            ok = copy_one(c, ent->d_name, e);
    }
    if (d)
        closedir(d);
    return ok;
}
