/* quire quantize: a full-precision checkpoint to a compressed-tensors one. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include "base/clock.h"
#include "base/json.h"
#include "base/mem.h"
#include "cli/cli.h"
#include "convert/convert.h"

struct quantize {
    const char *format, *method, *calibration, *heldout, *isa;
    struct cli_list rules, ignore;
    int32_t group, sequence, tokens, heldout_tokens, threads;
    int64_t shard;
    double damp, smooth;
    bool act_order, asymmetric, search, perplexity, json;

    struct cli_hub_flags hub;
    struct convert_opts o;
    struct convert_rule *list;
    char *calibration_text, *heldout_text;
    struct cli_progress bar;
};

/* The ignored come first: they are the stronger word. */
static bool read_rules(struct quantize *q, struct err *e)
{
    size_t n = 0;
    q->list = mem_try_zalloc((size_t)(q->rules.n + q->ignore.n) + 1, sizeof *q->list);
    if (!q->list)
        return err_set(e, ERR_NOMEM, "out of memory");
    for (int i = 0; i < q->ignore.n; i++)
        q->list[n++] = (struct convert_rule){ q->ignore.items[i], strlen(q->ignore.items[i]), CONVERT_NONE, -1 };
    for (int i = 0; i < q->rules.n; i++) {
        const char *rule = q->rules.items[i], *is = strrchr(rule, '=');
        if (!is || is == rule || !convert_format_parse(is + 1, strlen(is + 1), &q->list[n].format, &q->list[n].group))
            return err_set(e, ERR_INVALID, "--recipe: '%s' is not PATTERN=FORMAT with int4, int4-gN, int8, int8-weight, int8-weight-gN, fp8 or none", rule);
        q->list[n].pattern = rule;
        q->list[n++].pattern_len = (size_t)(is - rule);
    }
    q->o.rules = q->list;
    q->o.n_rules = n;
    return true;
}

static bool read_text(const char *path, char **text, const char **out, size_t *len, struct err *e)
{
    if (!path)
        return true;
    *text = cli_read(path, len, e);
    *out = *text;
    return *text != NULL;
}

static bool read_method(struct quantize *q, struct err *e)
{
    static const struct { const char *name; bool awq, gptq; } methods[] = {
        { "rtn", false, false }, { "awq", true, false }, { "gptq", false, true }, { "awq-gptq", true, true },
    };
    for (size_t i = 0; i < sizeof methods / sizeof *methods; i++) {
        if (strcmp(q->method, methods[i].name) == 0) {
            q->o.awq = methods[i].awq;
            q->o.gptq = methods[i].gptq;
            return true;
        }
    }
    return err_set(e, ERR_INVALID, "--method: '%s' is not rtn, awq, gptq or awq-gptq", q->method);
}

static bool read_options(struct quantize *q, struct err *e)
{
    struct convert_opts *o = &q->o;
    int64_t group;
    if (!convert_format_parse(q->format, strlen(q->format), &o->format, &group) || o->format == CONVERT_NONE || group >= 0)
        return err_set(e, ERR_INVALID, "--format: '%s' is not int4, int8, int8-weight or fp8 (the size of groups is --group-size)", q->format);
    if (!read_method(q, e) || !read_rules(q, e))
        return false;
    if (q->act_order && !o->gptq)
        return err_set(e, ERR_INVALID, "--act-order is an order of GPTQ: give --method gptq too");
    if (o->awq && o->format != CONVERT_INT4 && o->format != CONVERT_INT8_WEIGHT && !q->rules.n)
        return err_set(e, ERR_INVALID, "--method %s searches scales for int4 and int8-weight; with int8 give --smooth instead", q->method);
    if (q->heldout && !q->perplexity)
        return err_set(e, ERR_INVALID, "--heldout is for the perplexity that --no-perplexity leaves out");
    if (q->calibration && !o->awq && !o->gptq && !(q->smooth > 0))
        return err_set(e, ERR_INVALID, "--calibration is not used by round to nearest: give --method awq or gptq, or --smooth");
    o->group = q->group;
    o->act_order = q->act_order;
    o->symmetric = !q->asymmetric;
    o->search = q->search;
    o->damp = q->damp;
    o->smooth = q->smooth;
    o->sequence = q->sequence;
    o->max_tokens = q->tokens;
    o->max_heldout_tokens = q->heldout_tokens;
    o->perplexity = q->perplexity;
    o->max_shard_bytes = q->shard << 20;
    o->n_threads = q->threads;
    o->isa = q->isa;
    o->progress = cli_progress_update;
    o->progress_ctx = &q->bar;
    return true;
}

/* ---- the report ---- */

static json_t *number(double x)
{
    return isfinite(x) ? json_real(x) : json_null();
}

static json_t *linears(const struct convert_report *r)
{
    json_t *list = json_array();
    for (size_t i = 0; i < r->n_linears; i++) {
        const struct convert_linear *l = &r->linears[i];
        json_array_append_new(list, json_pack("{s:s,s:i,s:s,s:I,s:I,s:I,s:o,s:s?}", "name", l->name, "layer", l->layer, "format", convert_format_name(l->format),
                                              "rows", (json_int_t)l->rows, "cols", (json_int_t)l->cols, "group", (json_int_t)l->group, "error",
                                              l->format == CONVERT_NONE ? json_null() : number(l->error), "note", l->why));
    }
    return list;
}

static bool print_json(const struct quantize *q, const struct convert_report *r, double seconds, struct err *e)
{
    json_t *layers = json_array();
    for (int i = 0; r->layer_error && i < r->n_layers; i++)
        json_array_append_new(layers, number(r->layer_error[i]));
    json_t *out = json_pack("{s:s,s:s,s:s,s:o,s:o,s:o,s:I,s:I,s:I,s:I,s:i,s:i,s:f,s:s,s:o,s:o}", "dst", q->o.dst, "format", q->format, "method", q->method,
                            "perplexity_before", r->has_perplexity ? number(r->perplexity_before) : json_null(), "perplexity_after",
                            r->has_perplexity ? number(r->perplexity_after) : json_null(),
                            "divergence", r->has_perplexity ? number(r->divergence) : json_null(), "calibration_tokens", (json_int_t)r->calibration_tokens,
                            "heldout_tokens", (json_int_t)r->heldout_tokens, "bytes_before", (json_int_t)r->bytes_before, "bytes_after",
                            (json_int_t)r->bytes_after, "shards", r->n_shards, "resumed_at", r->resumed_at, "seconds", seconds, "error_of",
                            r->errors_of_outputs ? "outputs" : "weights", "layer_error", layers, "linears", linears(r));
    struct buf b;
    buf_init(&b, 0);
    bool ok = out && json_write(out, &b) && buf_putc(&b, '\n') && fwrite(b.data, 1, b.len, stdout) == b.len;
    json_decref(out);
    buf_free(&b);
    return ok || err_set(e, ERR_IO, "the report could not be written");
}

static void print_table(const struct quantize *q, const struct convert_report *r, double seconds)
{
    if (r->resumed_at)
        printf("went on behind layer %d, where an earlier run had stopped\n", r->resumed_at - 1);
    printf("%-52s %-16s %14s %12s\n", "linear", "format", "shape", r->errors_of_outputs ? "output error" : "weight error");
    for (size_t i = 0; i < r->n_linears; i++) {
        const struct convert_linear *l = &r->linears[i];
        char shape[40], format[40];
        snprintf(shape, sizeof shape, "%lldx%lld", (long long)l->rows, (long long)l->cols);
        if (l->group)
            snprintf(format, sizeof format, "%s-g%lld", convert_format_name(l->format), (long long)l->group);
        else
            snprintf(format, sizeof format, "%s", convert_format_name(l->format));
        if (l->format == CONVERT_NONE)
            printf("%-52s %-16s %14s %12s", l->name, "as it is", shape, "");
        else
            printf("%-52s %-16s %14s %11.4f%%", l->name, format, shape, 100 * sqrt(l->error));
        printf("%s%s\n", l->why ? "  " : "", l->why ? l->why : "");
    }
    for (int i = 0; r->layer_error && i < r->n_layers; i++)
        printf("behind layer %-3d rows differ by %.4f%%\n", i, 100 * sqrt(r->layer_error[i]));
    if (r->has_perplexity)
        printf("perplexity of %lld held-out tokens: %.4f before, %.4f after; distributions differ by %.5f nats a token\n", (long long)r->heldout_tokens,
               r->perplexity_before, r->perplexity_after, r->divergence);
    printf("%.1f MB before, %.1f MB after, in %d file%s of %s, %.1f s\n", (double)r->bytes_before / 1e6, (double)r->bytes_after / 1e6, r->n_shards,
           r->n_shards == 1 ? "" : "s", q->o.dst, seconds);
}

static bool quantize(struct quantize *q, struct err *e)
{
    struct convert_report r;
    int64_t start = clock_now_us();
    if (q->o.src && !cli_model_path(&q->hub, q->o.src, false, NULL, &q->o.src, e))
        return false;
    if (!read_text(q->calibration, &q->calibration_text, &q->o.calibration, &q->o.calibration_len, e) ||
        !read_text(q->heldout, &q->heldout_text, &q->o.heldout, &q->o.heldout_len, e))
        return false;
    cli_progress_begin(&q->bar, "quantizing");
    bool ok = convert_run(&q->o, &r, e);
    cli_progress_end(&q->bar);
    if (!ok)
        return false;
    double seconds = (double)(clock_now_us() - start) / 1e6;
    ok = !q->json || print_json(q, &r, seconds, e);
    if (!q->json)
        print_table(q, &r, seconds);
    convert_report_free(&r);
    return ok;
}

int cmd_quantize(int argc, char **argv)
{
    struct quantize q = { .format = "int4", .method = "rtn", .group = 128, .sequence = 512, .tokens = 65536, .heldout_tokens = 16384, .shard = 4096,
                          .damp = 0.01, .search = true, .perplexity = true };
    const struct cli_opt opts[] = {
        {"format", 0, CLI_STR, &q.format, "FORMAT", "int4 (groups, activations kept), int8 (W8A8), int8-weight (groups, activations kept) or fp8", 0, 0},
        {"method", 0, CLI_STR, &q.method, "HOW", "rtn (round to nearest), awq, gptq or awq-gptq", 0, 0},
        {"group-size", 0, CLI_INT, &q.group, "N", "inputs that share a scale in int4 and int8-weight, halved where they do not divide a linear's; 0: all", 0, 1 << 20},
        {"asymmetric", 0, CLI_FLAG, &q.asymmetric, NULL, "int4 and int8-weight: a zero point for each group", 0, 0},
        {"search-scales", 0, CLI_FLAG, &q.search, NULL, "search each scale for the least error; without, it covers the largest weight", 0, 0},
        {"smooth", 0, CLI_F64, &q.smooth, "A", "SmoothQuant's migration strength for int8 behind norms, such as 0.5; 0: none", 0, 1},
        {"damp", 0, CLI_F64, &q.damp, "X", "gptq: damping, as a share of the mean of the Hessian's diagonal", 0, 1},
        {"act-order", 0, CLI_FLAG, &q.act_order, NULL, "gptq: columns with the largest inputs first; groups keep their places", 0, 0},
        {"recipe", 0, CLI_LIST, &q.rules, "PATTERN=FORMAT", "a format for linears whose names fit ('*' any text), -gN behind it for groups of N; the first that fits counts; none: as they are", 0, 0},
        {"ignore", 0, CLI_LIST, &q.ignore, "PATTERN", "leave these linears as they are; goes before --recipe", 0, 0},
        {"calibration", 0, CLI_STR, &q.calibration, "FILE", "text whose activations choose scales and codes, - for stdin; else one that is built in", 0, 0},
        {"calibration-tokens", 0, CLI_INT, &q.tokens, "N", "most tokens of it", 2, 1 << 28},
        {"heldout", 0, CLI_STR, &q.heldout, "FILE", "text that perplexity is measured on; else one that is built in", 0, 0},
        {"heldout-tokens", 0, CLI_INT, &q.heldout_tokens, "N", "most tokens of it", 2, 1 << 28},
        {"sequence-length", 0, CLI_INT, &q.sequence, "N", "tokens that are run together", 2, 1 << 20},
        {"perplexity", 0, CLI_FLAG, &q.perplexity, NULL, "measure perplexity and the error behind each layer", 0, 0},
        {"max-shard-size", 0, CLI_I64, &q.shard, "MIB", "largest file of weights, in MiB", 1, 1 << 30},
        {"threads", 't', CLI_INT, &q.threads, "N", "compute threads; 0: all cores this process may use", 0, 1024},
        {"isa", 0, CLI_STR, &q.isa, "NAME", "scalar, avx2, avx512 or avx512_bf16 instead of the best this CPU has", 0, 0},
        {"json", 0, CLI_FLAG, &q.json, NULL, "one JSON object on stdout: errors, perplexities, sizes", 0, 0},
        {0},
    };
    struct cli_opt hub_table[CLI_HUB_OPTS];
    cli_hub_table(&q.hub, hub_table);
    const struct cli_opt *const tables[] = {opts, hub_table, NULL};
    const struct cli_cmd cmd = {"quantize", "quire quantize SRC DST [options]   or   quire quantize DST [options]",
                                "Writes the full-precision model SRC (a folder or hub id; without it the built-in model) to the folder DST as\n"
                                "compressed-tensors safetensors, which quire and vLLM read.  Memory holds one layer at a time.  A run that was\n"
                                "stopped goes on from its last whole layer when it is started again with the same options.", tables, 1, 2};
    const char *args[2];
    int n_args;
    bool done;
    int status = cli_parse(&cmd, argc, argv, args, &n_args, &done);
    if (!done) {
        struct err e;
        convert_opts_default(&q.o);
        q.o.src = n_args == 2 ? args[0] : NULL;
        q.o.dst = args[n_args - 1];
        if (!read_options(&q, &e))
            status = cli_usage_error(&cmd, "%s", e.msg);
        else
            status = quantize(&q, &e) ? CLI_OK : cli_error(&cmd, &e);
    }
    mem_free(q.list);
    mem_free(q.calibration_text);
    mem_free(q.heldout_text);
    return status;
}
