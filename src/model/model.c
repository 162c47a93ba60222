#include "model/model.h"
#include <string.h>
#include "base/json.h"
#include "base/mem.h"
#include "model/arch_int.h"
#include "model/weights_int.h"

#define BUILTIN_NAME "quire-builtin"

/* There is no config.json in a GGUF file: say so where a message speaks of one. */
static bool in_words_of_gguf(const struct model *m, struct err *e)
{
    static const char config[] = "config.json: ";
    size_t n = sizeof config - 1;
    if (m->gguf && e && strncmp(e->msg, config, n) == 0) {
        memmove(e->msg, e->msg + n, strlen(e->msg + n) + 1);
        err_prefix(e, "%s: metadata, in the words of a config.json", m->gguf->files[0].name);
    }
    return false;
}

static bool read_config(struct model *m, struct err *e)
{
    size_t len;
    char *text = file_set_read(&m->files, "config.json", 4 << 20, &len, e);
    if (!text)
        return false;
    json_t *config = json_parse(text, len, e);
    mem_free(text);
    if (!config)
        return err_prefix(e, "config.json");
    bool ok = arch_from_config(&m->arch, config, e) && (m->gguf || quant_config_read(&m->quant, config, &m->files, e));
    json_decref(config);
    return ok ? !m->gguf || gguf_adapt_arch(m->gguf, &m->arch, e) : in_words_of_gguf(m, e);
}

static enum dtype config_dtype(const struct arch *a)
{
    if (strcmp(a->dtype, "float32") == 0 || strcmp(a->dtype, "float") == 0)
        return DT_F32;
    if (strcmp(a->dtype, "float16") == 0 || strcmp(a->dtype, "half") == 0)
        return DT_F16;
    return DT_BF16;
}

static char *base_name(const char *path)
{
    size_t end = strlen(path);
    while (end > 1 && path[end - 1] == '/')
        end--;
    size_t start = end;
    while (start > 0 && path[start - 1] != '/')
        start--;
    return mem_try_strndup(path + start, end - start);
}

/* The metadata as the files of a folder. */
static bool describe_gguf(struct model *m, const struct model_opts *o, struct err *e)
{
    static const char *const names[] = { "config.json", "tokenizer.json", "tokenizer_config.json" };
    json_t *config = NULL;
    int n = 0;
    if (!gguf_tokenizer(m->gguf, &m->texts[1], &m->texts[2], e))
        return false;
    if (!o->files_only) {
        config = gguf_config(m->gguf, e);
        if (!config)
            return false;
        json_write(config, &m->texts[0]);
        json_decref(config);
    }
    for (int i = 0; i < 3; i++) {
        if (m->texts[i].failed)
            return err_set(e, ERR_NOMEM, "no memory for its %s", names[i]);
        if (m->texts[i].len)
            m->blobs[n++] = (struct file_blob){ names[i], (const unsigned char *)m->texts[i].data, m->texts[i].len };
    }
    m->files.blobs = m->blobs;
    return true;
}

static bool choose_gguf(struct model *m, const char *path, const struct model_opts *o, struct err *e)
{
    m->dir = mem_try_strdup(path);
    m->name = base_name(path);
    if (!m->dir || !m->name)
        return err_set(e, ERR_NOMEM, "no memory for the model's name");
    char *ending = strrchr(m->name, '.');
    if (ending && strcmp(ending, ".gguf") == 0)
        *ending = 0;
    return gguf_files_open(&m->gguf, path, o->files_only || o->load_format == MODEL_LOAD_DUMMY, e) && describe_gguf(m, o, e);
}

static bool choose_files(struct model *m, const char *path, const struct model_opts *o, struct err *e)
{
    if (path && gguf_is_file(path))
        return choose_gguf(m, path, o, e);
    if (!path) {
        m->files.blobs = m->blobs;
        m->name = mem_try_strdup(BUILTIN_NAME);
        if (!model_builtin_files(m->blobs))
            return err_set(e, ERR_NOT_FOUND, "this program was built without the built-in model: name a model folder");
        return m->name || err_set(e, ERR_NOMEM, "no memory for the model's name");
    }
    m->dir = mem_try_strdup(path);
    m->name = base_name(path);
    m->files.dir = m->dir;
    if (!m->dir || !m->name)
        return err_set(e, ERR_NOMEM, "no memory for the model's name");
    if (!file_is_dir(path))
        return err_set(e, file_exists(path) ? ERR_UNSUPPORTED : ERR_NOT_FOUND, "%s; expected a folder with config.json, or a .gguf file",
                       file_exists(path) ? "is not a folder" : "there is no such folder");
    bool config = file_set_has(&m->files, "config.json");
    if (!config && !file_set_has(&m->files, "tokenizer.json")) {
        char *inside;
        if (!gguf_find_in_folder(path, &inside, e))
            return false;
        if (inside) {
            mem_free(m->dir);
            mem_free(m->name);
            m->files.dir = NULL;
            bool ok = choose_gguf(m, inside, o, e);
            mem_free(inside);
            return ok;
        }
    }
    if (!o->files_only && !config)
        return err_set(e, ERR_NOT_FOUND, "no config.json: not a model folder in Hugging Face layout");
    return true;
}

bool model_open(struct model **out, const char *path, const struct model_opts *o, struct err *e)
{
    static const struct model_opts defaults = { 0 };
    *out = NULL;
    if (!o)
        o = &defaults;
    struct model *m = mem_try_zalloc(1, sizeof *m);
    if (!m)
        return err_set(e, ERR_NOMEM, "no memory for the model's description");
    if (!choose_files(m, path, o, e))
        goto fail;
    if (o->files_only) {
        *out = m;
        return true;
    }
    if (!read_config(m, e) || !model_generation_read(&m->generation, &m->arch, &m->files, e))
        goto fail;
    m->dummy = o->load_format == MODEL_LOAD_DUMMY;
    m->dummy_seed = o->dummy_seed;
    m->dtype = config_dtype(&m->arch);
    m->prefix = m->arch.prefixes[0];
    if (!m->dummy && !o->config_only) {
        if (!(m->gguf ? checkpoint_open_gguf(&m->ck, m->gguf, e) : checkpoint_open(&m->ck, &m->files, e)))
            goto fail;
        model_weights_bind(m);
    }
    *out = m;
    return true;
fail:
    err_prefix(e, "%s", path ? path : BUILTIN_NAME);
    model_close(&m);
    return false;
}

void model_close(struct model **m)
{
    struct model *p = *m;
    *m = NULL;
    if (!p)
        return;
    model_replace_none(p);
    mem_free(p->replaced);
    checkpoint_close(&p->ck);
    gguf_files_close(&p->gguf);
    for (size_t i = 0; i < sizeof p->texts / sizeof *p->texts; i++)
        buf_free(&p->texts[i]);
    mem_free(p->dir);
    mem_free(p->name);
    mem_free(p);
}

const struct arch *model_arch(const struct model *m)
{
    return &m->arch;
}

const struct file_set *model_files(const struct model *m)
{
    return &m->files;
}

const char *model_name(const struct model *m)
{
    return m->name;
}

const char *model_path(const struct model *m)
{
    return m->dir;
}

enum dtype model_dtype(const struct model *m)
{
    return m->dtype;
}

const struct model_generation *model_generation(const struct model *m)
{
    return &m->generation;
}

int64_t model_n_params(const struct model *m)
{
    const struct arch *a = &m->arch;
    int64_t n = 0;
    for (int s = 0; s < ARCH_LIN_COUNT; s++) {
        enum arch_linear slot = (enum arch_linear)s;
        int64_t rows[3], cols, v_rows, v_cols;
        arch_linear_shape(a, slot, rows, &cols);
        int64_t n_rows = rows[0] + rows[1] + rows[2];
        bool split = a->linear[s].layout == ARCH_LAYOUT_LATENT_SPLIT;
        if (split || a->linear[s].layout == ARCH_LAYOUT_LATENT)
            model_latent_shape(a, slot, 0, &n_rows, &cols);
        if (split) {
            model_latent_shape(a, slot, 1, &v_rows, &v_cols);
            n += a->n_layers * v_rows * v_cols;
        }
        for (int l = 0; l < (arch_linear_is_per_layer(slot) ? a->n_layers : 1); l++)
            n += arch_linear_count(a, slot, l) * n_rows * (cols + (a->linear[s].bias ? 1 : 0));
    }
    for (int s = 0; s < ARCH_VEC_COUNT; s++)
        n += arch_vector_len(a, (enum arch_vector)s) * (arch_vector_is_per_layer((enum arch_vector)s) ? a->n_layers : 1);
    return n;
}
