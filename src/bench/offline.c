#include "bench/offline.h"

#include <stdlib.h>
#include <string.h>
#include "base/clock.h"
#include "base/mem.h"
#include "base/rng.h"

/* ---- helpers ---- */

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Of a sorted array, with linear interpolation (numpy's default). */
static double percentile(const double *sorted, int n, double p)
{
    double at = p / 100 * (n - 1);
    int i = (int)at;
    return i + 1 < n ? sorted[i] + (at - i) * (sorted[i + 1] - sorted[i]) : sorted[n - 1];
}

static double median(double *v, int n)
{
    qsort(v, (size_t)n, sizeof *v, compare_doubles);
    return percentile(v, n, 50);
}

static json_t *config_json(const struct engine *eng)
{
    const struct engine_info *i = engine_info(eng);
    return json_pack("{s:s,s:s,s:s,s:s,s:s,s:s,s:i,s:i,s:i,s:i,s:I}", "model", i->model_name, "architecture", i->architecture, "dtype", i->dtype,
                     "weight_formats", i->weight_formats,
                     "kv_dtype", i->kv_dtype, "isa", i->isa, "threads", i->n_threads, "max_model_len", i->max_model_len, "max_num_seqs",
                     i->max_num_seqs, "max_num_batched_tokens", i->max_num_batched_tokens, "params", (json_int_t)i->n_params);
}

/* One request of random ids; every call gets other ids, so that no prefix is ever found. */
static bool submit_random(struct engine *eng, struct rng *r, int32_t *ids, int32_t input_len, int32_t output_len,
                          const struct sample_params *sampling, struct engine_stream **st, struct err *e)
{
    int32_t vocab = engine_info(eng)->vocab_size;
    for (int32_t i = 0; i < input_len; i++)
        ids[i] = (int32_t)rng_next_below(r, (uint64_t)(vocab < 10000 ? vocab : 10000));
    struct sample_params p;
    if (sampling)
        p = *sampling;
    else
        sample_params_default(&p);
    p.ignore_eos = true;
    p.has_seed = true;
    p.seed = rng_next(r);
    struct engine_request q = {.kind = ENGINE_GENERATE, .tokens = ids, .n_tokens = input_len, .params = &p, .max_tokens = output_len, .n = 1};
    return engine_submit(eng, &q, NULL, NULL, st, e);
}

static bool wait_done(struct engine_stream *st, struct engine_times *t, struct err *e)
{
    struct engine_event ev;
    for (;;) {
        while (engine_stream_next(st, &ev)) {
            if (ev.type == ENGINE_EV_ERROR)
                return err_set(e, ev.code, "%s", ev.message);
            if (ev.type == ENGINE_EV_DONE) {
                engine_stream_times(st, t);
                return true;
            }
        }
        engine_stream_wait(st, -1);
    }
}

/* ---- latency ---- */

struct iteration { double latency, ttft, prefill_tok_s, decode_tok_s; };

static bool run_batch(struct engine *eng, const struct bench_latency_opts *o, struct rng *r, int32_t *ids, struct engine_stream **streams,
                      struct iteration *it, struct err *e)
{
    bool ok = true;
    int64_t start = clock_now_us(), first = INT64_MAX, all_first = 0, end = 0;
    int n = 0;
    while (ok && n < o->batch_size && (ok = submit_random(eng, r, ids, o->input_len, o->output_len, NULL, &streams[n], e)))
        n++;
    for (int i = 0; i < n; i++) {
        struct engine_times t = {0};
        ok = ok && wait_done(streams[i], &t, e);
        first = t.first_token < first ? t.first_token : first;
        all_first = t.first_token > all_first ? t.first_token : all_first;
        end = t.finished > end ? t.finished : end;
        engine_stream_close(&streams[i]);
    }
    if (!ok)
        return false;
    double prefill_s = (double)(all_first - start) / 1e6, decode_s = (double)(end - all_first) / 1e6;
    *it = (struct iteration){
        .latency = (double)(end - start) / 1e6, .ttft = (double)(first - start) / 1e6,
        .prefill_tok_s = prefill_s > 0 ? (double)o->batch_size * o->input_len / prefill_s : 0,
        .decode_tok_s = decode_s > 0 ? (double)o->batch_size * (o->output_len - 1) / decode_s : 0,
    };
    return true;
}

static json_t *latency_json(const struct engine *eng, const struct bench_latency_opts *o, struct iteration *its)
{
    int n = o->n_iters;
    double *v = mem_try_zalloc((size_t)n, sizeof *v), sum = 0;
    if (!v)
        return NULL;
    json_t *list = json_array(), *pct = json_object();
    for (int i = 0; i < n; i++) {
        v[i] = its[i].latency;
        sum += v[i];
        json_array_append_new(list, json_real(v[i]));
    }
    qsort(v, (size_t)n, sizeof *v, compare_doubles);
    static const struct { const char *name; double p; } points[] = {{"10", 10}, {"25", 25}, {"50", 50}, {"75", 75}, {"90", 90}, {"99", 99}};
    for (size_t i = 0; i < sizeof points / sizeof points[0]; i++)
        json_object_set_new(pct, points[i].name, json_real(percentile(v, n, points[i].p)));
    json_t *out = json_pack("{s:f,s:o,s:o}", "avg_latency", sum / n, "latencies", list, "percentiles", pct);
    for (int i = 0; i < n; i++)
        v[i] = its[i].prefill_tok_s;
    json_object_set_new(out, "prefill_tok_s", json_real(median(v, n)));
    for (int i = 0; i < n; i++)
        v[i] = its[i].decode_tok_s;
    json_object_set_new(out, "decode_tok_s", json_real(median(v, n)));
    for (int i = 0; i < n; i++)
        v[i] = its[i].ttft;
    json_object_set_new(out, "ttft_s", json_real(median(v, n)));
    json_object_set_new(out, "peak_rss_bytes", json_integer((json_int_t)mem_peak_rss_bytes()));
    json_t *config = config_json(eng);
    json_object_set_new(config, "input_len", json_integer(o->input_len));
    json_object_set_new(config, "output_len", json_integer(o->output_len));
    json_object_set_new(config, "batch_size", json_integer(o->batch_size));
    json_object_set_new(out, "config", config);
    mem_free(v);
    return out;
}

bool bench_latency(struct engine *eng, const struct bench_latency_opts *o, void (*progress)(void *, int64_t, int64_t), void *ctx, json_t **out,
                   struct err *e)
{
    struct rng r = {o->seed};
    int32_t *ids = mem_try_zalloc((size_t)o->input_len, sizeof *ids);
    struct engine_stream **streams = mem_try_zalloc((size_t)o->batch_size, sizeof *streams);
    struct iteration *its = mem_try_zalloc((size_t)o->n_iters, sizeof *its), warm;
    bool ok = (ids && streams && its) || err_set(e, ERR_NOMEM, "out of memory");
    for (int i = 0; ok && i < o->n_warmup + o->n_iters; i++) {
        ok = run_batch(eng, o, &r, ids, streams, i < o->n_warmup ? &warm : &its[i - o->n_warmup], e);
        if (progress)
            progress(ctx, i + 1, o->n_warmup + o->n_iters);
    }
    *out = ok ? latency_json(eng, o, its) : NULL;
    mem_free(ids);
    mem_free(streams);
    mem_free(its);
    return ok && (*out || err_set(e, ERR_NOMEM, "out of memory"));
}

/* ---- throughput ---- */

/* Where the time of the steps between two readings went. */
static json_t *steps_json(const struct engine_metrics *before, const struct engine_metrics *after)
{
    double step_s = after->step_seconds - before->step_seconds, forward_s = after->forward_seconds - before->forward_seconds;
    double sample_s = after->sample_seconds - before->sample_seconds, sched_s = after->schedule_seconds - before->schedule_seconds;
    double whole = step_s > 0 ? step_s : 1;
    return json_pack("{s:I,s:f,s:f,s:f,s:f,s:f,s:f,s:f}", "count", (json_int_t)(after->n_steps - before->n_steps), "step_s", step_s, "forward_s",
                     forward_s, "sample_s", sample_s, "sched_s", sched_s, "forward_share", forward_s / whole, "sample_share", sample_s / whole,
                     "schedule_share", sched_s / whole);
}

bool bench_throughput(struct engine *eng, const struct bench_throughput_opts *o, void (*progress)(void *, int64_t, int64_t), void *ctx,
                      json_t **out, struct err *e)
{
    struct rng r = {o->seed};
    struct engine_metrics before, after;
    int32_t *ids = mem_try_zalloc((size_t)o->input_len, sizeof *ids);
    struct engine_stream **streams = mem_try_zalloc((size_t)o->num_prompts, sizeof *streams);
    bool ok = (ids && streams) || err_set(e, ERR_NOMEM, "out of memory");
    *out = NULL;
    engine_metrics(eng, &before);
    int64_t start = clock_now_us();
    int n = 0;
    while (ok && n < o->num_prompts && (ok = submit_random(eng, &r, ids, o->input_len, o->output_len, o->sampling, &streams[n], e)))
        n++;
    for (int i = 0; i < n; i++) {
        struct engine_times t;
        ok = ok && wait_done(streams[i], &t, e);
        engine_stream_close(&streams[i]);
        if (progress)
            progress(ctx, i + 1, n);
    }
    double s = (double)(clock_now_us() - start) / 1e6;
    mem_free(ids);
    mem_free(streams);
    if (!ok)
        return false;
    engine_metrics(eng, &after);
    double total = (double)o->num_prompts * (o->input_len + o->output_len);
    *out = json_pack("{s:f,s:i,s:I,s:f,s:f,s:f,s:o,s:I,s:o}", "elapsed_time", s, "num_requests", o->num_prompts, "total_num_tokens",
                     (json_int_t)total, "requests_per_second", o->num_prompts / s, "tokens_per_second", total / s,
                     "output_tokens_per_second", (double)o->num_prompts * o->output_len / s, "steps", steps_json(&before, &after),
                     "peak_rss_bytes", (json_int_t)mem_peak_rss_bytes(), "config", config_json(eng));
    return *out || err_set(e, ERR_NOMEM, "out of memory");
}
