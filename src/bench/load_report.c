/* What the calls of a load add up to, and how it is printed. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/mem.h"
#include "bench/load_int.h"

static const struct { const char *name, *title, *label; } metrics[BENCH_N_METRICS] = {
    [BENCH_TTFT] = {"ttft", "Time to First Token", "TTFT"},
    [BENCH_TPOT] = {"tpot", "Time per Output Token (excl. 1st token)", "TPOT"},
    [BENCH_ITL] = {"itl", "Inter-token Latency", "ITL"},
    [BENCH_E2EL] = {"e2el", "End-to-end Latency", "E2EL"},
};

/* ---- options as text ---- */

static int find_metric(const char *name, size_t len)
{
    for (int i = 0; i < BENCH_N_METRICS; i++)
        if (strlen(metrics[i].name) == len && strncmp(metrics[i].name, name, len) == 0)
            return i;
    return -1;
}

bool bench_load_parse_metrics(struct bench_load_opts *o, const char *text, struct err *e)
{
    memset(o->selected, 0, sizeof o->selected);
    for (const char *p = text; *p;) {
        size_t n = strcspn(p, ", ");
        int m = find_metric(p, n);
        if (n && m < 0)
            return err_set(e, ERR_INVALID, "'%.*s' is none of ttft, tpot, itl, e2el", (int)n, p);
        if (n)
            o->selected[m] = true;
        p += n + (p[n] != 0);
    }
    return true;
}

bool bench_load_parse_percentiles(struct bench_load_opts *o, const char *text, struct err *e)
{
    o->n_percentiles = 0;
    for (const char *p = text; *p;) {
        char *end;
        double v = strtod(p, &end);
        if (end == p || (*end && *end != ',') || !(v >= 0 && v <= 100))
            return err_set(e, ERR_INVALID, "'%s' is not a list of percentiles such as 50,99", text);
        if (o->n_percentiles == BENCH_MAX_PERCENTILES)
            return err_set(e, ERR_INVALID, "more than %d percentiles", BENCH_MAX_PERCENTILES);
        o->percentiles[o->n_percentiles++] = v;
        p = end + (*end == ',');
    }
    return true;
}

bool bench_load_parse_goodput(struct bench_load_opts *o, const char *text, struct err *e)
{
    for (const char *p = text; *p;) {
        size_t n = strcspn(p, ", "), colon = strcspn(p, ":");
        if (n) {
            int m = colon < n ? find_metric(p, colon) : -1;
            char *end = NULL;
            double v = m >= 0 ? strtod(p + colon + 1, &end) : -1;
            if (m < 0 || m == BENCH_ITL || end != p + n || !(v >= 0))
                return err_set(e, ERR_INVALID, "'%.*s' is not a goal such as ttft:500 (ttft, tpot or e2el, milliseconds)", (int)n, p);
            o->goodput_ms[m] = v;
        }
        p += n + (p[n] != 0);
    }
    return true;
}

/* ---- statistics ---- */

struct samples { double *v; size_t n; };

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Of a sorted array, with linear interpolation (numpy's default); 0 when there is none, as vLLM. */
static double percentile(const struct samples *s, double p)
{
    if (s->n == 0)
        return 0;
    double at = p / 100 * (double)(s->n - 1);
    size_t i = (size_t)at;
    return i + 1 < s->n ? s->v[i] + (at - (double)i) * (s->v[i + 1] - s->v[i]) : s->v[s->n - 1];
}

static bool set_ms(json_t *out, const char *prefix, const char *name, double seconds)
{
    char key[64];
    snprintf(key, sizeof key, "%s_%s_ms", prefix, name);
    return json_object_set_new(out, key, json_real(seconds * 1e3)) == 0;
}

static bool add_metric(json_t *out, const struct bench_load_opts *o, enum bench_metric m, struct samples *s)
{
    double sum = 0, squares = 0;
    const char *name = metrics[m].name;
    qsort(s->v, s->n, sizeof *s->v, compare_doubles);
    for (size_t i = 0; i < s->n; i++)
        sum += s->v[i];
    double mean = s->n ? sum / (double)s->n : 0;
    for (size_t i = 0; i < s->n; i++)
        squares += (s->v[i] - mean) * (s->v[i] - mean);
    bool ok = set_ms(out, "mean", name, mean) && set_ms(out, "median", name, percentile(s, 50)) &&
              set_ms(out, "std", name, s->n ? sqrt(squares / (double)s->n) : 0);
    for (int i = 0; ok && i < o->n_percentiles; i++) {
        char prefix[32];
        snprintf(prefix, sizeof prefix, "p%g", o->percentiles[i]);
        ok = set_ms(out, prefix, name, percentile(s, o->percentiles[i]));
    }
    return ok;
}

static double tpot(const struct bench_call *c)
{
    int64_t n = bench_call_out_len(c);
    return n > 1 ? (bench_call_latency(c) - bench_call_ttft(c)) / (double)(n - 1) : 0;
}

/* A metric's values over all calls that worked; v has room for all of them. */
static void collect(const struct bench_load_opts *o, const struct bench_call *calls, enum bench_metric m, struct samples *s)
{
    s->n = 0;
    for (int32_t i = 0; i < o->num_prompts; i++) {
        const struct bench_call *c = &calls[i];
        if (!c->ok)
            continue;
        if (m == BENCH_TTFT)
            s->v[s->n++] = bench_call_ttft(c);
        else if (m == BENCH_E2EL)
            s->v[s->n++] = bench_call_latency(c);
        else if (m == BENCH_TPOT && bench_call_out_len(c) > 1)
            s->v[s->n++] = tpot(c);
        else if (m == BENCH_ITL)
            for (size_t k = 0; k < c->n_gaps; k++)
                s->v[s->n++] = c->gaps[k];
    }
}

static bool add_metrics(json_t *out, const struct bench_load_opts *o, const struct bench_call *calls)
{
    size_t most = (size_t)o->num_prompts;
    for (int32_t i = 0; i < o->num_prompts; i++)
        most += calls[i].n_gaps;
    struct samples s = {mem_try_alloc(most, sizeof *s.v), 0};
    bool ok = s.v != NULL;
    for (int m = 0; ok && m < BENCH_N_METRICS; m++) {
        collect(o, calls, m, &s);
        ok = !o->selected[m] || add_metric(out, o, m, &s);
    }
    mem_free(s.v);
    return ok;
}

/* ---- the result ---- */

static bool is_good(const struct bench_load_opts *o, const struct bench_call *c)
{
    double values[BENCH_N_METRICS] = {[BENCH_TTFT] = bench_call_ttft(c), [BENCH_TPOT] = tpot(c), [BENCH_E2EL] = bench_call_latency(c)};
    for (int m = 0; m < BENCH_N_METRICS; m++)
        if (!isnan(o->goodput_ms[m]) && values[m] * 1e3 > o->goodput_ms[m])
            return false;
    return true;
}

static int64_t prompt_len(const struct bench_call *c, int32_t sent_len)
{
    return c->prompt_tokens >= 0 ? c->prompt_tokens : sent_len > 0 ? sent_len : 0;
}

static bool add_details(json_t *out, const struct bench_load_opts *o, const struct bench_call *calls, const int32_t *sent_len)
{
    json_t *in = json_array(), *len = json_array(), *ttft = json_array(), *itl = json_array(), *text = json_array(), *error = json_array();
    bool ok = true;
    for (int32_t i = 0; ok && i < o->num_prompts; i++) {
        const struct bench_call *c = &calls[i];
        json_t *gaps = json_array(), *t = json_stringn(c->text.data ? c->text.data : "", c->ok ? c->text.len : 0);
        for (size_t k = 0; ok && c->ok && k < c->n_gaps; k++)
            ok = json_array_append_new(gaps, json_real(c->gaps[k])) == 0;
        ok = json_array_append_new(itl, gaps) == 0 && ok;
        ok = json_array_append_new(text, t ? t : json_string("")) == 0 && ok;
        ok = json_array_append_new(in, json_integer(prompt_len(c, sent_len[i]))) == 0 && ok;
        ok = json_array_append_new(len, json_integer(c->ok ? bench_call_out_len(c) : 0)) == 0 && ok;
        ok = json_array_append_new(ttft, json_real(c->ok ? bench_call_ttft(c) : 0)) == 0 && ok;
        json_t *message = json_string(c->error);
        ok = json_array_append_new(error, message ? message : json_string("an error that is not UTF-8")) == 0 && ok;
    }
    ok = json_object_set_new(out, "input_lens", in) == 0 && ok;
    ok = json_object_set_new(out, "output_lens", len) == 0 && ok;
    ok = json_object_set_new(out, "ttfts", ttft) == 0 && ok;
    ok = json_object_set_new(out, "itls", itl) == 0 && ok;
    ok = json_object_set_new(out, "generated_texts", text) == 0 && ok;
    return json_object_set_new(out, "errors", error) == 0 && ok;
}

json_t *bench_load_result(const struct bench_load_opts *o, const struct bench_call *calls, const int32_t *sent_len, double duration_s)
{
    int64_t n_ok = 0, n_good = 0, n_in = 0, n_out = 0;
    const char *first_error = NULL;
    bool goals = false;
    for (int m = 0; m < BENCH_N_METRICS; m++)
        goals = goals || !isnan(o->goodput_ms[m]);
    for (int32_t i = 0; i < o->num_prompts; i++) {
        const struct bench_call *c = &calls[i];
        if (!c->ok) {
            first_error = first_error ? first_error : c->error;
            continue;
        }
        n_ok++;
        n_good += is_good(o, c);
        n_in += prompt_len(c, sent_len[i]);
        n_out += bench_call_out_len(c);
    }
    double s = duration_s > 0 ? duration_s : 1e-6;
    json_t *message = first_error ? json_string(first_error) : NULL;
    json_t *out = json_pack("{s:f,s:I,s:I,s:o?,s:I,s:I,s:f,s:o,s:f,s:f}", "duration", duration_s, "completed", (json_int_t)n_ok, "failed",
                            (json_int_t)(o->num_prompts - n_ok), "first_error", message, "total_input_tokens", (json_int_t)n_in,
                            "total_output_tokens", (json_int_t)n_out, "request_throughput", (double)n_ok / s, "request_goodput",
                            goals ? json_real((double)n_good / s) : json_null(), "output_throughput", (double)n_out / s,
                            "total_token_throughput", (double)(n_in + n_out) / s);
    if (!out)
        return NULL;
    if (!add_metrics(out, o, calls) || (o->detailed && !add_details(out, o, calls, sent_len))) {
        json_decref(out);
        return NULL;
    }
    return out;
}

/* ---- printing ---- */

static void line(struct buf *b, const json_t *result, const char *label, const char *key)
{
    const json_t *v = json_object_get(result, key);
    if (json_is_integer(v))
        buf_printf(b, "%-40s %-10lld\n", label, (long long)json_integer_value(v));
    else if (json_is_real(v))
        buf_printf(b, "%-40s %-10.2f\n", label, json_real_value(v));
}

static void title(struct buf *b, const char *text, char fill)
{
    int n = 50 - (int)strlen(text), left = n / 2;
    for (int i = 0; i < n; i++) {
        if (i == left)
            buf_puts(b, text);
        buf_putc(b, fill);
    }
    buf_putc(b, '\n');
}

static void metric_line(struct buf *b, const json_t *result, int m, const char *prefix, const char *word)
{
    char label[80], key[64];
    snprintf(label, sizeof label, "%s %s (ms):", word, metrics[m].label);
    snprintf(key, sizeof key, "%s_%s_ms", prefix, metrics[m].name);
    line(b, result, label, key);
}

bool bench_load_report(const json_t *result, const struct bench_load_opts *o, struct buf *b)
{
    title(b, " Serving Benchmark Result ", '=');
    line(b, result, "Successful requests:", "completed");
    if (json_integer_value(json_object_get(result, "failed")) > 0)
        line(b, result, "Failed requests:", "failed");
    line(b, result, "Benchmark duration (s):", "duration");
    line(b, result, "Total input tokens:", "total_input_tokens");
    line(b, result, "Total generated tokens:", "total_output_tokens");
    line(b, result, "Request throughput (req/s):", "request_throughput");
    line(b, result, "Request goodput (req/s):", "request_goodput");
    line(b, result, "Output token throughput (tok/s):", "output_throughput");
    line(b, result, "Total Token throughput (tok/s):", "total_token_throughput");
    for (int m = 0; m < BENCH_N_METRICS; m++) {
        if (!o->selected[m])
            continue;
        title(b, metrics[m].title, '-');
        metric_line(b, result, m, "mean", "Mean");
        metric_line(b, result, m, "median", "Median");
        for (int i = 0; i < o->n_percentiles; i++) {
            char prefix[32], word[32];
            snprintf(prefix, sizeof prefix, "p%g", o->percentiles[i]);
            snprintf(word, sizeof word, "P%g", o->percentiles[i]);
            metric_line(b, result, m, prefix, word);
        }
    }
    buf_puts(b, "==================================================\n");
    return !b->failed;
}
