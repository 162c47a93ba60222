#include "bench/startup.h"

#include <stdlib.h>
#include "base/buf.h"
#include "base/clock.h"
#include "base/mem.h"
#include "bench/http_client.h"
#include "bench/load_prompt.h"

/* ---- one server ---- */

static bool ask_health(struct bench_http *c, struct err *e)
{
    struct buf reply;
    int status = 0;
    buf_init(&reply, 0);
    bool ok = bench_http_request(c, "/health", NULL, &status, &reply, e);
    buf_free(&reply);
    return ok && (status == 200 || err_set(e, ERR_IO, "/health: the server answered %d", status));
}

static bool ask_token(struct bench_http *c, const char *model, int32_t input_len, int32_t vocab, uint64_t seed, struct bench_call *call, struct err *e)
{
    struct bench_target target = {.endpoint = "/v1/completions", .model = model, .ignore_eos = true};
    struct rng rng = {seed};
    struct buf tokens, body;
    bool some = false;
    buf_init(&tokens, 0);
    buf_init(&body, 0);
    bench_call_reset(call);
    bool ok = (bench_prompt_append(&tokens, false, &rng, input_len, vocab, &some) && bench_body_write(&body, &target, &tokens, NULL, 1)) ||
              err_set(e, ERR_NOMEM, "out of memory");
    ok = ok && bench_http_run(c, target.endpoint, &body, call, e);
    if (ok && (!call->ok || call->first_us == 0))
        ok = err_set(e, ERR_IO, "the first request failed: %s", call->ok ? "no token came" : call->error);
    buf_free(&tokens);
    buf_free(&body);
    return ok;
}

bool bench_startup_ask(const char *url, int64_t start_us, int32_t input_len, int32_t vocab, uint64_t seed, double timeout_s,
                       struct bench_startup_times *out, struct err *e)
{
    struct bench_http *c = NULL;
    struct bench_call call = {0};
    char *model = NULL;
    if (!bench_http_open(&c, &(struct bench_http_opts){.base_url = url, .timeout_s = timeout_s}, e))
        return false;
    bool ok = ask_health(c, e);
    out->health_s = (double)(clock_now_us() - start_us) / 1e6;
    ok = ok && (model = bench_http_first_model(c, e)) && ask_token(c, model, input_len, vocab, seed, &call, e);
    if (ok) {
        out->first_token_s = (double)(call.first_us - start_us) / 1e6;
        out->ttft_s = bench_call_ttft(&call);
    }
    bench_call_free(&call);
    mem_free(model);
    bench_http_close(&c);
    return ok;
}

/* ---- results ---- */

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Of one of the three times; v is scratch. */
static double median_of(const struct bench_startup_times *t, int n, int which, double *v)
{
    for (int i = 0; i < n; i++)
        v[i] = which == 0 ? t[i].health_s : which == 1 ? t[i].first_token_s : t[i].ttft_s;
    qsort(v, (size_t)n, sizeof *v, compare_doubles);
    return n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

json_t *bench_startup_json(const struct bench_startup_times *t, int n)
{
    double *v = mem_try_alloc((size_t)n, sizeof *v);
    json_t *runs = json_array();
    if (!v || !runs) {
        mem_free(v);
        json_decref(runs);
        return NULL;
    }
    for (int i = 0; i < n; i++)
        json_array_append_new(runs, json_pack("{s:f,s:f,s:f}", "health_s", t[i].health_s, "first_token_s", t[i].first_token_s, "ttft_s", t[i].ttft_s));
    json_t *out = json_pack("{s:f,s:f,s:f,s:o}", "health_s", median_of(t, n, 0, v), "first_token_s", median_of(t, n, 1, v), "ttft_s",
                            median_of(t, n, 2, v), "runs", runs);
    mem_free(v);
    return out;
}
