/* quire bench kernels: each kernel at a model's shapes, against this machine's ceilings. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/mem.h"
#include "bench/kernels.h"
#include "cli/cli.h"
#include "engine/engine.h"
#include "model/model.h"

enum { MAX_ITEMS = 64 };

struct kernels {
    struct bench_kernels_opts o;
    const char *shape, *isa, *kernels, *formats, *rows, *contexts, *activations;
    int32_t threads, budget_ms;
    bool json;
    char *text[2];                        /* what the names point into */
    const char *names[2][MAX_ITEMS];
    int32_t numbers[2][MAX_ITEMS];
    char model_name[128];
};

/* ---- options ---- */

static bool split_names(const char *list, char **text, const char **names, int *n, struct err *e)
{
    *n = 0;
    if (!list)
        return true;
    if (!(*text = mem_try_strdup(list)))
        return err_set(e, ERR_NOMEM, "out of memory");
    for (char *save = NULL, *p = strtok_r(*text, ",", &save); p; p = strtok_r(NULL, ",", &save)) {
        if (*n == MAX_ITEMS)
            return err_set(e, ERR_INVALID, "'%s': more than %d items", list, MAX_ITEMS);
        names[(*n)++] = p;
    }
    return true;
}

static bool split_numbers(const char *list, int32_t least, int32_t most, int32_t *numbers, int *n, struct err *e)
{
    int32_t *ids = NULL, count = 0;
    *n = 0;
    if (!list)
        return true;
    if (!cli_parse_ids(list, &ids, &count, e))
        return false;
    bool ok = count <= MAX_ITEMS;
    for (int32_t i = 0; ok && i < count; i++) {
        ok = ids[i] >= least && ids[i] <= most;
        numbers[(*n)++] = ids[i];
    }
    mem_free(ids);
    return ok || err_set(e, ERR_INVALID, "'%s': at most %d numbers from %d to %d", list, MAX_ITEMS, (int)least, (int)most);
}

/* Of a model's configuration; its weights need not be there. */
static bool shape_of_model(struct kernels *k, const char *path, struct err *e)
{
    struct model *m;
    if (!model_open(&m, path, &(struct model_opts){.config_only = true}, e))
        return false;
    const struct arch *a = model_arch(m);
    snprintf(k->model_name, sizeof k->model_name, "%s", model_name(m));
    k->o.shape = (struct bench_shape){k->model_name, a->hidden, a->n_heads, a->n_kv_heads, a->head_dim, a->ffn > 0 ? a->ffn : a->expert_ffn, a->vocab_size,
                                        a->n_experts, a->n_experts_used, a->expert_ffn};
    model_close(&m);
    return true;
}

static bool find_shape(struct kernels *k, struct err *e)
{
    const struct bench_shape *s = bench_shape_find(k->shape);
    char known[256] = "";
    if (s) {
        k->o.shape = *s;
        return true;
    }
    for (int i = 0; (s = bench_shape_at(i)); i++)
        snprintf(known + strlen(known), sizeof known - strlen(known), "%s%s", i ? ", " : "", s->name);
    return err_set(e, ERR_INVALID, "--shape '%s': one of %s, or name a MODEL", k->shape, known);
}

static bool fill_opts(struct kernels *k, const char *model, struct err *e)
{
    k->o.budget_ms = k->budget_ms ? k->budget_ms : k->o.quick ? 20 : 50;
    k->o.kernels = k->names[0];
    k->o.formats = k->names[1];
    k->o.rows = k->numbers[0];
    k->o.contexts = k->numbers[1];
    return (model ? shape_of_model(k, model, e) : find_shape(k, e)) &&
           split_names(k->kernels, &k->text[0], k->names[0], &k->o.n_kernels, e) &&
           split_names(k->formats, &k->text[1], k->names[1], &k->o.n_formats, e) &&
           split_numbers(k->rows, 1, 4096, k->numbers[0], &k->o.n_rows, e) &&
           split_numbers(k->contexts, 1, 1 << 20, k->numbers[1], &k->o.n_contexts, e);
}

/* ---- output ---- */

static bool print_row(void *ctx, const struct bench_kernel_row *r)
{
    (void)ctx;
    const char *unit = r->ns < 1e6 ? "us" : "ms";
    double time = r->ns < 1e6 ? r->ns / 1e3 : r->ns / 1e6;
    return printf("%-24s %-50s %9.2f %s %8.1f %9.1f  %-7s %5.1f%%\n", r->name, r->shape, time, unit, r->gb_s, r->gop_s,
                  r->memory_bound ? "memory" : "compute", r->percent_of_limit) > 0 && fflush(stdout) == 0;
}

static double machine_rate(const json_t *result, const char *key)
{
    return json_number_value(json_object_get(json_object_get(result, "machine"), key));
}

static bool run(struct kernels *k, struct err *e)
{
    struct dev *d = NULL;
    json_t *result = NULL;
    bool wide = false;
    if (!engine_parse_activation_dtype(k->activations, &wide, e) ||
        !dev_open(&d, &(struct dev_opts){.n_threads = k->threads, .isa = k->isa, .float_inputs = wide}, e))
        return false;
    if (!k->json)
        printf("%-24s %-50s %12s %8s %9s  %-7s %6s\n", "kernel", "shape", "time", "GB/s", "GOP/s", "limit", "of it");
    bool ok = bench_kernels(d, &k->o, k->json ? NULL : print_row, NULL, &result, e);
    if (ok && k->json)
        ok = (json_dumpf(result, stdout, JSON_COMPACT | JSON_REAL_PRECISION(7)) == 0 && putchar('\n') != EOF && fflush(stdout) == 0) ||
             err_set(e, ERR_IO, "the result could not be written");
    else if (ok)
        printf("\n%s, %s, %d threads: read %.1f GB/s, f32 %.0f GFLOP/s, bf16 %.0f GFLOP/s, int8 %.0f GOP/s (medians)\n", k->o.shape.name,
               dev_caps(d)->isa, dev_caps(d)->n_threads, machine_rate(result, "read_gb_s"), machine_rate(result, "f32_gflop_s"),
               machine_rate(result, "bf16_gflop_s"), machine_rate(result, "int8_gop_s"));
    json_decref(result);
    dev_close(&d);
    return ok;
}

int cmd_bench_kernels(int argc, char **argv)
{
    struct kernels k = {.shape = "llama-3.2-1b", .activations = "auto"};
    const struct cli_opt opts[] = {
        {"shape", 0, CLI_STR, &k.shape, "NAME", "llama-3.2-1b, llama-3.2-3b, llama-3.1-8b, qwen3-4b, gemma-3-4b, qwen3-30b-a3b or mixtral-8x7b, when there is no MODEL", 0, 0},
        {"kernel", 0, CLI_STR, &k.kernels, "LIST", "only kernels whose name contains one of these, such as linear,attention_decode", 0, 0},
        {"format", 0, CLI_STR, &k.formats, "LIST", "only these: f32,f16,bf16,int8,int8-g16,int8-g32,int4,int4-g32,int4-g64,int4-g128,fp8", 0, 0},
        {"activation-dtype", 0, CLI_STR, &k.activations, "TYPE", "inputs of products with integer weights: auto (int8), int8 or bf16", 0, 0},
        {"m", 0, CLI_STR, &k.rows, "LIST", "rows of products and mixtures; without, 1,2,4,8,16,32,64,128,512 (mixtures 1,8,32,128,512)", 0, 0},
        {"context", 0, CLI_STR, &k.contexts, "LIST", "tokens that attention sees; without, 1024,8192,16384", 0, 0},
        {"quick", 0, CLI_FLAG, &k.o.quick, NULL, "few formats, rows and contexts where none were chosen, in a few seconds", 0, 0},
        {"budget-ms", 0, CLI_INT, &k.budget_ms, "N", "time for each line; 0: 50, or 20 with --quick", 0, 1000000},
        {"threads", 't', CLI_INT, &k.threads, "N", "0: all cores", 0, 4096},
        {"isa", 0, CLI_STR, &k.isa, "NAME", "scalar, avx2, avx512 or avx512_bf16 instead of the best this CPU has", 0, 0},
        {"json", 0, CLI_FLAG, &k.json, NULL, "one JSON object on stdout", 0, 0},
        {0},
    };
    const struct cli_opt *const tables[] = {opts, NULL};
    const struct cli_cmd cmd = {"bench kernels", "quire bench kernels [MODEL] [options]",
                                "Times products, mixtures of experts, attention, row functions and the sampler at a model's shapes, as the engine runs them, and says what part that is of\n"
                                "the limit that binds them: read bandwidth or arithmetic, measured beside them.", tables, 0, 1};
    const char *args[1];
    int n_args;
    bool done;
    int status = cli_parse(&cmd, argc, argv, args, &n_args, &done);
    if (!done) {
        struct err e;
        if (!fill_opts(&k, n_args ? args[0] : NULL, &e))
            status = e.code == ERR_INVALID ? cli_usage_error(&cmd, "%s", e.msg) : cli_error(&cmd, &e);
        else
            status = run(&k, &e) ? CLI_OK : e.code == ERR_INVALID ? cli_usage_error(&cmd, "%s", e.msg) : cli_error(&cmd, &e);
    }
    mem_free(k.text[0]);
    mem_free(k.text[1]);
    return status;
}
