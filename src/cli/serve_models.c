/* Several models in one server: what they are called, where they lie, how they share the memory. */
#include <stdlib.h>
#include <string.h>
#include "base/log.h"
#include "base/mem.h"
#include "cli/cli.h"
#include "server/models.h"

char *cli_model_name(const char *text, const char **model)
{
    const char *eq = strchr(text, '='), *slash = strchr(text, '/');
    bool named = eq && eq > text && (!slash || slash > eq);
    *model = named ? eq + 1 : text;
    char *name = named ? mem_try_strndup(text, (size_t)(eq - text)) : mem_try_strdup(text);
    if (!**model)
        *model = NULL;
    return name;
}

static int descending(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? 1 : x > y ? -1 : 0;
}

static double gib(int64_t bytes)
{
    return (double)bytes / (1 << 30);
}

/* Weights and workspace belong to a model; what is left when the largest max_loaded are loaded is split evenly for KV pages.  So any
 * max_loaded of them fit together. */
static bool share_memory(struct cli_models *m, double utilization, struct log *lg, struct err *e)
{
    int64_t *fixed = mem_try_zalloc((size_t)m->n, 2 * sizeof *fixed), *sorted = fixed + m->n, budget = 0, largest = 0;
    if (!fixed)
        return err_set(e, ERR_NOMEM, "out of memory");
    for (int i = 0; i < m->n; i++) {
        struct engine_plan p;
        struct err why;
        if (engine_plan(&m->models[i].engine, &p, &why)) {
            fixed[i] = p.weight_bytes + p.workspace_bytes + 2 * p.page_bytes;
            budget = (int64_t)((double)p.machine_bytes * utilization);
        } else {
            log_warn(lg, "serve", "%s cannot be loaded as it is: %s", m->names[i], why.msg);
        }
    }
    memcpy(sorted, fixed, (size_t)m->n * sizeof *fixed);
    qsort(sorted, (size_t)m->n, sizeof *sorted, descending);
    for (int i = 0; i < m->max_loaded; i++)
        largest += sorted[i];
    int64_t share = (budget - largest) / m->max_loaded;
    bool ok = budget == 0 || share > 0;
    if (!ok)
        err_set(e, ERR_TOO_LARGE, "the largest %d of the models need %.2f GiB for weights and workspace, but only %.2f GiB may be used: lower "
                "--max-loaded-models, --max-num-batched-tokens or --max-num-seqs, or raise --memory-utilization", m->max_loaded, gib(largest), gib(budget));
    for (int i = 0; ok && budget && i < m->n; i++) {
        m->models[i].engine.memory_bytes = fixed[i] + share;
        log_info(lg, "serve", "%s may use %.2f GiB: %.2f GiB for weights and workspace, %.2f GiB for KV pages", m->names[i], gib(fixed[i] + share),
                 gib(fixed[i]), gib(share));
    }
    mem_free(fixed);
    return ok;
}

bool cli_models_open(struct cli_models *m, const struct cli_list *list, int max_loaded, struct cli_engine_flags *f, struct log **lg, struct err *e)
{
    struct engine_opts o;
    if (f->profile)
        return err_set(e, ERR_INVALID, "--profile is for one model");
    if (!cli_engine_opts(f, NULL, &o, lg, e))
        return false;
    m->models = mem_try_zalloc((size_t)list->n, sizeof *m->models);
    m->hubs = mem_try_zalloc((size_t)list->n, sizeof *m->hubs);
    m->names = mem_try_zalloc((size_t)list->n, sizeof *m->names);
    if (!m->models || !m->hubs || !m->names)
        return err_set(e, ERR_NOMEM, "out of memory");
    m->max_loaded = max_loaded > 0 && max_loaded < list->n ? max_loaded : list->n;
    for (int i = 0; i < list->n; i++) {
        const char *model, *path;
        m->names[i] = cli_model_name(list->items[i], &model);
        if (!m->names[i])
            return err_set(e, ERR_NOMEM, "out of memory");
        m->n = i + 1;
        m->hubs[i] = f->hub;
        if (!cli_model_path(&m->hubs[i], model, strcmp(f->load_format, "dummy") == 0, *lg, &path, e))
            return err_prefix(e, "--model %s", m->names[i]);
        m->models[i] = (struct server_model_opts){.name = m->names[i], .engine = o};
        m->models[i].engine.model = path;
        m->models[i].engine.model_name = model && path != model ? model : NULL;
    }
    return share_memory(m, f->memory_utilization, *lg, e);
}

void cli_models_free(struct cli_models *m)
{
    for (int i = 0; i < m->n; i++)
        mem_free(m->names[i]);
    mem_free(m->names);
    mem_free(m->models);
    mem_free(m->hubs);
    *m = (struct cli_models){0};
}
