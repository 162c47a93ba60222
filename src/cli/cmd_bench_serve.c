/* quire bench serve: many clients against an OpenAI-compatible server. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "bench/load.h"
#include "cli/cli.h"

enum { INPUT_LEN = 1024 };

struct bench_serve {
    struct bench_load_opts load;
    const char *base_url, *host, *endpoint, *model, *api_key, *dataset, *metrics, *percentiles, *result_filename;
    struct cli_list goodput;
    int32_t port;
    int64_t seed;
    double timeout;
    bool save_result, detailed, json;
    char *found_model;
    json_t *prompts;
    struct bench_http *client;
};

/* Every request under way is a descriptor. */
static void raise_fd_limit(void)
{
    struct rlimit rl;
    if (getrlimit(RLIMIT_NOFILE, &rl) == 0 && rl.rlim_cur < rl.rlim_max) {
        rl.rlim_cur = rl.rlim_max;
        setrlimit(RLIMIT_NOFILE, &rl);
    }
}

/* Options that contradict each other, so that none is given in vain. */
static bool fill_opts(struct bench_serve *b, const char **args, int n_args, struct err *e)
{
    struct bench_load_opts *o = &b->load;
    o->target.endpoint = b->endpoint;
    bool chat = bench_target_is_chat(&o->target);
    if (b->endpoint[0] != '/')
        return err_set(e, ERR_INVALID, "--endpoint '%s' must begin with /", b->endpoint);
    if (b->dataset && (o->input_len != INPUT_LEN || o->prefix_len || o->vocab))
        return err_set(e, ERR_INVALID, "--random-input-len, --random-prefix-len and --random-vocab do not go with --dataset-path");
    if (chat && o->vocab)
        return err_set(e, ERR_INVALID, "--random-vocab does not go with a chat endpoint, which gets words");
    if (b->result_filename)
        b->save_result = true;
    if (b->detailed && !b->save_result && !b->json)
        return err_set(e, ERR_INVALID, "--save-detailed needs --save-result or --json");
    if (n_args > 0 && b->goodput.n == 0)
        return err_set(e, ERR_INVALID, "unexpected argument '%s'", args[0]);
    for (int i = 0; i < b->goodput.n; i++)
        if (!bench_load_parse_goodput(o, b->goodput.items[i], e))
            return false;
    for (int i = 0; i < n_args; i++)
        if (!bench_load_parse_goodput(o, args[i], e))
            return false;
    o->seed = (uint64_t)b->seed;
    o->detailed = b->detailed;
    if (b->dataset && !(b->prompts = bench_load_read_dataset(b->dataset, chat, e)))
        return false;
    o->prompts = b->prompts;
    return bench_load_parse_metrics(o, b->metrics, e) && bench_load_parse_percentiles(o, b->percentiles, e);
}

static bool connect_server(struct bench_serve *b, struct err *e)
{
    char url[512];
    snprintf(url, sizeof url, "http://%s:%d", b->host, (int)b->port);
    struct bench_http_opts o = {.base_url = b->base_url ? b->base_url : url, .api_key = b->api_key, .timeout_s = b->timeout,
                                .n_connections = b->load.max_concurrency > 0 ? b->load.max_concurrency : b->load.num_prompts};
    if (!bench_http_open(&b->client, &o, e))
        return false;
    if (!b->model && !(b->found_model = bench_http_first_model(b->client, e)))
        return false;
    b->load.target.model = b->model ? b->model : b->found_model;
    return true;
}

static void timestamp(char out[32])
{
    struct tm tm;
    time_t now = time(NULL);
    localtime_r(&now, &tm);
    strftime(out, 32, "%Y%m%d-%H%M%S", &tm);
}

/* What was asked stands before what came out. */
static json_t *add_setup(const struct bench_serve *b, json_t *result)
{
    const struct bench_load_opts *o = &b->load;
    char date[32];
    timestamp(date);
    json_t *rate = isfinite(o->request_rate) ? json_real(o->request_rate) : json_string("inf");
    json_t *all = json_pack("{s:s,s:s,s:s,s:i,s:o,s:f,s:o}", "date", date, "endpoint_type", bench_target_is_chat(&o->target) ? "openai-chat" : "openai",
                            "model_id", o->target.model, "num_prompts", (int)o->num_prompts, "request_rate", rate, "burstiness", o->burstiness,
                            "max_concurrency", o->max_concurrency ? json_integer(o->max_concurrency) : json_null());
    if (all && json_object_update(all, result) == 0)
        return all;
    json_decref(all);
    return NULL;
}

static bool save(const struct bench_serve *b, const struct buf *text, struct err *e)
{
    char name[512], date[32], concurrency[48] = "";
    const char *model = strrchr(b->load.target.model, '/');
    model = model && model[1] ? model + 1 : b->load.target.model;
    timestamp(date);
    if (b->load.max_concurrency)
        snprintf(concurrency, sizeof concurrency, "-concurrency%d", (int)b->load.max_concurrency);
    snprintf(name, sizeof name, "openai-%gqps%s-%.200s-%s.json", b->load.request_rate, concurrency, model, date);
    for (char *p = name; *p; p++)
        *p = *p == '/' ? '-' : *p;
    const char *path = b->result_filename ? b->result_filename : name;
    if (!file_write_atomic(path, text->data, text->len, e))
        return false;
    fprintf(stderr, "result saved in %s\n", path);
    return true;
}

static bool output(struct bench_serve *b, json_t *result, struct err *e)
{
    struct buf json, text;
    buf_init(&json, 0);
    buf_init(&text, 0);
    json_t *all = add_setup(b, result);
    bool ok = (all && json_write(all, &json) && buf_putc(&json, '\n') && bench_load_report(all, &b->load, &text)) ||
              err_set(e, ERR_NOMEM, "out of memory");
    const struct buf *shown = b->json ? &json : &text;
    if (ok && (fwrite(shown->data, 1, shown->len, stdout) != shown->len || fflush(stdout) != 0))
        ok = err_set(e, ERR_IO, "the result could not be written");
    ok = ok && (!b->save_result || save(b, &json, e));
    json_decref(all);
    buf_free(&json);
    buf_free(&text);
    return ok;
}

static bool bench_serve(struct bench_serve *b, struct err *e)
{
    struct cli_progress bar;
    json_t *result = NULL;
    raise_fd_limit();
    if (!connect_server(b, e))
        return false;
    cli_progress_begin(&bar, "measuring");
    bool ok = bench_load_run(b->client, &b->load, cli_progress_update, &bar, &result, e);
    cli_progress_end(&bar);
    ok = ok && output(b, result, e);
    json_int_t failed = json_integer_value(json_object_get(result, "failed"));
    const char *first = json_string_value(json_object_get(result, "first_error"));
    if (ok && failed == b->load.num_prompts)
        ok = err_set(e, ERR_IO, "all requests failed, the first with: %s", first ? first : "?");
    else if (ok && failed > 0)
        fprintf(stderr, "quire: bench: %lld of %d requests failed, the first with: %s\n", (long long)failed, (int)b->load.num_prompts,
                first ? first : "?");
    json_decref(result);
    return ok;
}

int cmd_bench_serve(int argc, char **argv)
{
    struct bench_serve b = {.host = "127.0.0.1", .port = 8000, .endpoint = "/v1/completions", .metrics = "ttft,tpot,itl", .percentiles = "99",
                            .timeout = 3600};
    struct bench_load_opts *o = &b.load;
    bench_load_opts_default(o);
    o->input_len = INPUT_LEN;
    const struct cli_opt opts[] = {
        {"base-url", 0, CLI_STR, &b.base_url, "URL", "of the server, in place of --host and --port", 0, 0},
        {"host", 0, CLI_STR, &b.host, "NAME", "of the server", 0, 0},
        {"port", 0, CLI_INT, &b.port, "N", "of the server", 1, 65535},
        {"endpoint", 0, CLI_STR, &b.endpoint, "PATH", "/v1/completions or /v1/chat/completions", 0, 0},
        {"model", 0, CLI_STR, &b.model, "NAME", "as requests name it; without, the first of /v1/models", 0, 0},
        {"api-key", 0, CLI_STR, &b.api_key, "KEY", "sent as a bearer token", 0, 0},
        {"timeout", 0, CLI_F64, &b.timeout, "S", "seconds a request may take, then it has failed; 0: no bound", 0, 1e9},
        {"num-prompts", 0, CLI_INT, &o->num_prompts, "N", "requests", 1, 1 << 20},
        {"request-rate", 0, CLI_F64, &o->request_rate, "R", "requests a second; inf: all at once", 1e-6, INFINITY},
        {"burstiness", 0, CLI_F64, &o->burstiness, "B", "gamma shape of the gaps: 1 Poisson, smaller burstier, larger more even", 1e-3, 1e9},
        {"max-concurrency", 0, CLI_INT, &o->max_concurrency, "N", "requests under way at most; 0: no bound", 0, 1 << 20},
        {"dataset-path", 0, CLI_STR, &b.dataset, "FILE", "JSON lines of {\"prompt\": text or ids}, taken in turn; without, random prompts", 0, 0},
        {"random-input-len", 0, CLI_INT, &o->input_len, "N", "prompt tokens of a random prompt", 1, 1 << 24},
        {"random-output-len", 0, CLI_INT, &o->output_len, "N", "new tokens at most, of every request", 1, 1 << 24},
        {"random-range-ratio", 0, CLI_F64, &o->range_ratio, "R", "lengths are uniform in [N*(1-R), N*(1+R)]", 0, 0.999999},
        {"random-prefix-len", 0, CLI_INT, &o->prefix_len, "N", "tokens before these that all prompts share", 0, 1 << 24},
        {"random-vocab", 0, CLI_INT, &o->vocab, "N", "token ids are below it; 0: found by asking", 0, INT32_MAX},
        {"seed", 0, CLI_I64, &b.seed, "N", "of prompts, lengths and arrivals", 0, 0},
        {"ignore-eos", 0, CLI_FLAG, &o->target.ignore_eos, NULL, "generate to the full length", 0, 0},
        {"temperature", 0, CLI_F64, &o->target.temperature, "T", "of the sampling", 0, 100},
        {"percentile-metrics", 0, CLI_STR, &b.metrics, "LIST", "of ttft, tpot, itl, e2el: those reported", 0, 0},
        {"metric-percentiles", 0, CLI_STR, &b.percentiles, "LIST", "percentiles of each", 0, 0},
        {"goodput", 0, CLI_LIST, &b.goodput, "K:MS", "count requests within limits: ttft:500 tpot:50 e2el:9000", 0, 0},
        {"save-result", 0, CLI_FLAG, &b.save_result, NULL, "write the JSON to a file", 0, 0},
        {"save-detailed", 0, CLI_FLAG, &b.detailed, NULL, "the JSON also holds each request's lengths, times, text and error", 0, 0},
        {"result-filename", 0, CLI_STR, &b.result_filename, "FILE", "where --save-result writes; without, a name made of rate, model and date", 0, 0},
        {"json", 0, CLI_FLAG, &b.json, NULL, "one JSON object on stdout", 0, 0},
        {0},
    };
    const struct cli_opt *const tables[] = {opts, NULL};
    const struct cli_cmd cmd = {"bench serve", "quire bench serve [--base-url URL] [options]",
                                "Sends streamed requests to an OpenAI-compatible server and reports throughput, time to first token (TTFT),\n"
                                "time per output token (TPOT) and inter-token latency (ITL).", tables, 0, 3};
    const char *args[3];
    int n_args;
    bool done;
    int status = cli_parse(&cmd, argc, argv, args, &n_args, &done);
    if (!done) {
        struct err e;
        if (!fill_opts(&b, args, n_args, &e))
            status = e.code == ERR_INVALID ? cli_usage_error(&cmd, "%s", e.msg) : cli_error(&cmd, &e);
        else
            status = bench_serve(&b, &e) ? CLI_OK : cli_error(&cmd, &e);
    }
    bench_http_close(&b.client);
    json_decref(b.prompts);
    mem_free(b.found_model);
    mem_free(b.goodput.items);
    return status;
}
