#include "bench/kernels.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/clock.h"
#include "base/mem.h"
#include "base/topo.h"
#include "bench/kernels_int.h"

enum { REPEATS_MIN = 3, REPEATS_MAX = 400 };
static const double STEP_NS = 2e6;       /* a repetition runs as many operations as take about this */

/* ---- shapes ---- */

static const struct bench_shape shapes[] = {
    {"llama-3.2-1b", 2048, 32, 8, 64, 8192, 128256, 0, 0, 0},
    {"llama-3.2-3b", 3072, 24, 8, 128, 8192, 128256, 0, 0, 0},
    {"llama-3.1-8b", 4096, 32, 8, 128, 14336, 128256, 0, 0, 0},
    {"qwen3-4b", 2560, 32, 8, 128, 9728, 151936, 0, 0, 0},
    {"gemma-3-4b", 2560, 8, 4, 256, 10240, 262208, 0, 0, 0},
    {"qwen3-30b-a3b", 2048, 32, 4, 128, 6144, 151936, 128, 8, 768},
    {"mixtral-8x7b", 4096, 32, 8, 128, 14336, 32000, 8, 2, 14336},
};

const struct bench_shape *bench_shape_at(int i)
{
    return i >= 0 && (size_t)i < sizeof shapes / sizeof shapes[0] ? &shapes[i] : NULL;
}

const struct bench_shape *bench_shape_find(const char *name)
{
    const struct bench_shape *s;
    for (int i = 0; (s = bench_shape_at(i)); i++)
        if (strcmp(s->name, name) == 0)
            return s;
    return NULL;
}

/* ---- filters ---- */

const char *const bench_kv_names[DEV_KV_COUNT] = {
    [DEV_KV_F32] = "f32", [DEV_KV_F16] = "f16", [DEV_KV_BF16] = "bf16", [DEV_KV_I8] = "int8", [DEV_KV_F8] = "fp8",
};

bool bench_kernel_wanted(const struct kernel_run *r, const char *name, const char *format)
{
    static const char *const quick[] = {"f32", "bf16", "int8", "int4"};
    const struct bench_kernels_opts *o = r->o;
    const char *const *formats = o->n_formats ? o->formats : quick;
    int n_formats = o->n_formats ? o->n_formats : o->quick ? (int)(sizeof quick / sizeof quick[0]) : 0;
    bool named = o->n_kernels == 0, formatted = n_formats == 0;
    for (int i = 0; i < o->n_kernels; i++)
        named |= strstr(name, o->kernels[i]) != NULL;
    for (int i = 0; i < n_formats; i++)
        formatted |= strcmp(format, formats[i]) == 0;
    return named && formatted;
}

static bool check_formats(const struct bench_kernels_opts *o, struct err *e)
{
    for (int i = 0; i < o->n_formats; i++) {
        enum dev_format f;
        if (!dev_format_parse(o->formats[i], &f))
            return err_set(e, ERR_INVALID, "format '%s': one of f32, f16, bf16, int8, int8-g16, int8-g32, int4, int4-g32, int4-g64, int4-g128, fp8",
                           o->formats[i]);
    }
    return true;
}

/* ---- one row ---- */

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *v, int n)
{
    qsort(v, (size_t)n, sizeof *v, compare_doubles);
    return v[n / 2];
}

void bench_kernel_fill(float *x, size_t n, uint64_t seed)
{
    uint64_t s = seed * 2862933555777941757u + 3037000493u;
    for (size_t i = 0; i < n; i++) {
        s = s * 6364136223846793005u + 1442695040888963407u;
        x[i] = (float)(int32_t)(s >> 32) * (1.0f / (1 << 30));
    }
}

static bool report(struct kernel_run *r, const struct kernel_case *c, double ns, double gb_s, double gop_s, struct err *e)
{
    double memory_ns = c->bytes / gb_s, compute_ns = c->ops / gop_s;
    struct bench_kernel_row row = {
        .format = c->format, .m = c->m, .ns = ns, .gb_s = c->bytes / ns, .gop_s = c->ops / ns,
        .limit_gb_s = gb_s, .limit_gop_s = gop_s, .memory_bound = memory_ns >= compute_ns,
        .percent_of_limit = 100 * (memory_ns > compute_ns ? memory_ns : compute_ns) / ns,
    };
    snprintf(row.name, sizeof row.name, "%s", c->name);
    snprintf(row.shape, sizeof row.shape, "%s", c->shape);
    json_t *j = json_pack("{s:s,s:s,s:s,s:i,s:f,s:f,s:f,s:s,s:f,s:f,s:f}", "name", row.name, "shape", row.shape, "format", row.format, "m",
                          (int)row.m, "ns", ns, "gb_s", row.gb_s, "gop_s", row.gop_s, "limit", row.memory_bound ? "memory" : "compute",
                          "percent_of_limit", row.percent_of_limit, "limit_gb_s", gb_s, "limit_gop_s", gop_s);
    if (!j || json_array_append_new(r->rows, j) < 0)
        return err_set(e, ERR_NOMEM, "out of memory");
    return !r->on_row || r->on_row(r->ctx, &row) || err_set(e, ERR_IO, "the table could not be written");
}

bool bench_kernel_measure(struct kernel_run *r, const struct kernel_case *c, struct err *e)
{
    double times[REPEATS_MAX], reads[REPEATS_MAX], rates[REPEATS_MAX];
    int64_t start = clock_now_ns(), end = start + (int64_t)r->o->budget_ms * 1000000;
    if (!c->run(c->run_ctx, 1, e))   /* grows scratch, wakes the team */
        return false;
    double expected = c->bytes / 100 + c->ops / 2000;
    int n = expected > 0 && STEP_NS / expected < c->max_ops ? (int)(STEP_NS / expected) : c->max_ops, i = 0;
    n = n < 1 ? 1 : n;
    do {
        reads[i] = probe_slice(r->probe, PROBE_READ);
        rates[i] = probe_slice(r->probe, c->rate);
        int64_t t0 = clock_now_ns();
        if (!c->run(c->run_ctx, n, e))
            return false;
        times[i++] = (double)(clock_now_ns() - t0) / n;
    } while (i < REPEATS_MAX && (i < REPEATS_MIN || clock_now_ns() < end));
    return report(r, c, median(times, i), median(reads, i), median(rates, i), e);
}

/* ---- all of them ---- */

static json_t *result_json(const struct kernel_run *r, const struct topo *t)
{
    const struct bench_shape *s = &r->o->shape;
    return json_pack("{s:{s:s,s:s,s:i,s:f,s:f,s:f,s:f},s:{s:s,s:i,s:i,s:i,s:i,s:i,s:i},s:O}", "machine", "cpu", t->cpu_model, "isa",
                     dev_caps(r->d)->isa, "threads", dev_caps(r->d)->n_threads, "read_gb_s", probe_rate(r->probe, PROBE_READ),
                     "f32_gflop_s", probe_rate(r->probe, PROBE_F32), "bf16_gflop_s", probe_rate(r->probe, PROBE_BF16), "int8_gop_s",
                     probe_rate(r->probe, PROBE_INT8), "model", "name", s->name, "hidden", (int)s->hidden, "heads", (int)s->n_heads,
                     "kv_heads", (int)s->n_kv_heads, "head_dim", (int)s->head_dim, "ffn", (int)s->ffn, "vocab", (int)s->vocab, "kernels",
                     r->rows);
}

bool bench_kernels(struct dev *d, const struct bench_kernels_opts *o, bool (*on_row)(void *, const struct bench_kernel_row *), void *ctx,
                   json_t **out, struct err *e)
{
    struct kernel_run r = {.d = d, .o = o, .on_row = on_row, .ctx = ctx};
    struct topo topo;
    *out = NULL;
    if (!check_formats(o, e) || !topo_detect(&topo, e) || !probe_open(&r.probe, d, e))
        return false;
    size_t cold = 8 * topo.l3_bytes, least = (size_t)256 << 20, most = (size_t)2 << 30;
    r.cold_bytes = o->cold_bytes ? o->cold_bytes : cold < least ? least : cold > most ? most : cold;
    r.memory_bytes = topo.memory_bytes / 2;
    r.rows = json_array();
    bool ok = r.rows || err_set(e, ERR_NOMEM, "out of memory");
    probe_run(r.probe, 100);
    ok = ok && bench_kernels_linear(&r, e) && bench_kernels_moe(&r, e) && bench_kernels_attention(&r, e) && bench_kernels_rows(&r, e) &&
         bench_kernels_sample(&r, e);
    if (ok && json_array_size(r.rows) == 0)
        ok = err_set(e, ERR_INVALID, "no kernel has such a name and format");
    if (ok && !(*out = result_json(&r, &topo)))
        ok = err_set(e, ERR_NOMEM, "out of memory");
    json_decref(r.rows);
    probe_close(&r.probe);
    return ok;
}
