/* quire bench context: a server's speed as the prompt grows, until it refuses. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/mem.h"
#include "bench/context.h"
#include "cli/cli.h"

enum { STARTUP_TIMEOUT_S = 600 };

struct bench_context {
    struct bench_context_opts o;
    struct cli_engine_flags flags;   /* of the server that is started here; its seed is also that of the prompts */
    const char *base_url, *endpoint, *model, *api_key, *csv_path, *plot;
    double timeout, startup_timeout;
    bool json;
    char *found_model;
    FILE *csv, *table;
    struct bench_http *client;
    struct bench_server server;
};

/* An engine option on the command line would do nothing to a server that runs already. */
static const char *engine_option_given(int argc, char **argv, const struct cli_opt *table)
{
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
        const char *name = strncmp(argv[i], "--no-", 5) == 0 ? argv[i] + 5 : strncmp(argv[i], "--", 2) == 0 ? argv[i] + 2 : "";
        for (const struct cli_opt *o = table; *name && o->name; o++)
            if (strcmp(o->name, "seed") != 0 && strcspn(name, "=") == strlen(o->name) && strncmp(o->name, name, strlen(o->name)) == 0)
                return o->name;
        for (const struct cli_opt *o = table; !*name && argv[i][0] == '-' && o->name; o++)
            if (o->letter && o->letter == argv[i][1])
                return o->name;
    }
    return NULL;
}

/* ---- output ---- */

static bool on_row(void *ctx, const struct bench_context_row *r)
{
    struct bench_context *b = ctx;
    fprintf(b->table, "%16lld | %16lld | %12lld | %8.3f | %16.2f | %10.2f | %8.2f\n", (long long)r->n_prompt, (long long)r->n_generated,
            (long long)(r->n_prompt + r->n_generated), r->time_s, r->tokens_per_s, r->ttft_s * 1e3, r->itl_s * 1e3);
    if (b->csv)
        fprintf(b->csv, "%lld,%lld,%lld,%.6f,%.4f,%.3f,%.3f\n", (long long)r->n_prompt, (long long)r->n_generated,
                (long long)(r->n_prompt + r->n_generated), r->time_s, r->tokens_per_s, r->ttft_s * 1e3, r->itl_s * 1e3);
    return fflush(b->table) == 0 && (!b->csv || fflush(b->csv) == 0);
}

static void print_head(struct bench_context *b)
{
    fprintf(b->table, "%16s | %16s | %12s | %8s | %16s | %10s | %8s\n", "Tokens in prompt", "Tokens generated", "Total tokens", "Time (s)",
            "Speed (tokens/s)", "TTFT (ms)", "ITL (ms)");
    if (b->csv)
        fputs("prompt_tokens,generated_tokens,total_tokens,time_s,tokens_per_s,ttft_ms,itl_ms\n", b->csv);
}

static void print_end(struct bench_context *b, const json_t *result)
{
    const json_t *limit = json_object_get(result, "limit");
    if (json_is_object(limit))
        fprintf(b->table, "%16lld | %s\n", (long long)json_integer_value(json_object_get(limit, "prompt_tokens")),
                json_string_value(json_object_get(limit, "message")));
    fprintf(b->table, "%s\n", json_is_true(json_object_get(result, "alive")) ? "a normal request afterwards was answered: the server lives"
                                                                           : "a normal request afterwards was not answered");
}

static bool write_json(const json_t *result, struct err *e)
{
    bool ok = json_dumpf(result, stdout, JSON_COMPACT) == 0 && putchar('\n') != EOF && fflush(stdout) == 0;
    return ok || err_set(e, ERR_IO, "the result could not be written");
}

/* ---- gnuplot ---- */

static bool have_gnuplot(void)
{
    const char *path = getenv("PATH");
    while (path && *path) {
        char file[4096];
        size_t n = strcspn(path, ":");
        if (snprintf(file, sizeof file, "%.*s/gnuplot", (int)n, path) < (int)sizeof file && access(file, X_OK) == 0)
            return true;
        path += n + (path[n] == ':');
    }
    return false;
}

static bool plot(const struct bench_context *b, const json_t *result, struct err *e)
{
    struct buf script;
    buf_init(&script, 0);
    FILE *f = NULL;
    bool ok = bench_context_plot(result, b->plot, &script, e);
    if (ok && !(f = popen("gnuplot", "w")))
        ok = err_set(e, ERR_IO, "gnuplot: %s", strerror(errno));
    if (ok)
        ok = fwrite(script.data, 1, script.len, f) == script.len;
    if (f && (pclose(f) != 0 || !ok))
        ok = err_set(e, ERR_IO, "gnuplot could not write %s", b->plot);
    buf_free(&script);
    return ok;
}

/* ---- the command ---- */

static bool prepare(struct bench_context *b, const char *model, struct err *e)
{
    if (b->plot && !have_gnuplot())
        return err_set(e, ERR_NOT_FOUND, "--plot needs gnuplot, which is not in PATH");
    if (b->csv_path && !(b->csv = fopen(b->csv_path, "we")))
        return err_set(e, ERR_IO, "%s: %s", b->csv_path, strerror(errno));
    if (!b->base_url && !cli_child_serve(&b->server, &b->flags, model, b->api_key, b->startup_timeout, e))
        return false;
    struct bench_http_opts h = {.base_url = b->base_url ? b->base_url : b->server.url, .api_key = b->api_key, .timeout_s = b->timeout};
    if (!bench_http_open(&b->client, &h, e))
        return false;
    if (!b->model && !(b->found_model = bench_http_first_model(b->client, e)))
        return false;
    b->o.target.model = b->model ? b->model : b->found_model;
    b->o.target.endpoint = b->endpoint;
    b->o.seed = (uint64_t)b->flags.seed;
    b->table = b->json ? stderr : stdout;
    return true;
}

static bool measure(struct bench_context *b, const char *model, struct err *e)
{
    json_t *result = NULL;
    struct err second;
    if (!prepare(b, model, e))
        return false;
    print_head(b);
    bool ok = bench_context_run(b->client, &b->o, on_row, b, &result, e);
    if (result) {
        print_end(b, result);
        if (b->json && !write_json(result, ok ? e : &second))
            ok = false;
        if (b->plot && !plot(b, result, ok ? e : &second))
            ok = false;
    }
    json_decref(result);
    if (b->csv && fclose(b->csv) != 0 && ok)
        ok = err_set(e, ERR_IO, "%s: %s", b->csv_path, strerror(errno));
    b->csv = NULL;
    return ok;
}

static int check_usage(const struct bench_context *b, const struct cli_cmd *cmd, int argc, char **argv, int n_args, const struct cli_opt *engine)
{
    if (b->endpoint[0] != '/')
        return cli_usage_error(cmd, "--endpoint '%s' must begin with /", b->endpoint);
    if (b->base_url && n_args)
        return cli_usage_error(cmd, "give a MODEL to serve or --base-url, not both (--model names one to that server)");
    if (b->base_url && engine_option_given(argc, argv, engine))
        return cli_usage_error(cmd, "--%s is for a server started here, and does not go with --base-url", engine_option_given(argc, argv, engine));
    if (b->base_url && b->startup_timeout != STARTUP_TIMEOUT_S)
        return cli_usage_error(cmd, "--startup-timeout is for a server started here, and does not go with --base-url");
    if (!b->base_url && b->model)
        return cli_usage_error(cmd, "--model names a model to the server of --base-url; give the MODEL to serve without it");
    if (b->o.vocab && strstr(b->endpoint, "/chat/"))
        return cli_usage_error(cmd, "--random-vocab does not go with a chat endpoint, which gets words");
    return CLI_OK;
}

int cmd_bench_context(int argc, char **argv)
{
    struct bench_context b = {.endpoint = "/v1/completions", .timeout = 3600, .startup_timeout = STARTUP_TIMEOUT_S, .server = {.fd = -1},
                              .o = {.step = 512, .output_len = 32, .max_prompt = 1 << 20, .target = {.ignore_eos = true}}};
    struct cli_opt engine_table[CLI_ENGINE_OPTS];
    cli_engine_flags_default(&b.flags);
    cli_engine_table(&b.flags, engine_table);
    const struct cli_opt opts[] = {
        {"base-url", 0, CLI_STR, &b.base_url, "URL", "a running server, instead of serving MODEL here", 0, 0},
        {"endpoint", 0, CLI_STR, &b.endpoint, "PATH", "/v1/completions or /v1/chat/completions", 0, 0},
        {"model", 0, CLI_STR, &b.model, "NAME", "as requests to --base-url name it; without, the first of /v1/models", 0, 0},
        {"api-key", 0, CLI_STR, &b.api_key, "KEY", "sent as a bearer token", 0, 0},
        {"timeout", 0, CLI_F64, &b.timeout, "S", "seconds a request may take; 0: no bound", 0, 1e9},
        {"startup-timeout", 0, CLI_F64, &b.startup_timeout, "S", "seconds until a server started here must listen", 1, 1e6},
        {"step", 0, CLI_INT, &b.o.step, "N", "prompt tokens added by each request", 1, BENCH_CONTEXT_MAX_PROMPT},
        {"output-len", 0, CLI_INT, &b.o.output_len, "N", "new tokens of each request", 1, 1 << 24},
        {"max-prompt", 0, CLI_INT, &b.o.max_prompt, "N", "give up if a prompt of so many tokens is still taken", 1, BENCH_CONTEXT_MAX_PROMPT},
        {"reuse-prefix", 0, CLI_FLAG, &b.o.reuse_prefix, NULL, "each prompt continues the one before, so that prefix caches help", 0, 0},
        {"random-vocab", 0, CLI_INT, &b.o.vocab, "N", "token ids are below it; 0: found by asking", 0, INT32_MAX},
        {"ignore-eos", 0, CLI_FLAG, &b.o.target.ignore_eos, NULL, "generate to the full length", 0, 0},
        {"csv", 0, CLI_STR, &b.csv_path, "FILE", "the table, row by row", 0, 0},
        {"plot", 0, CLI_STR, &b.plot, "FILE.png", "curves over the prompt, by gnuplot", 0, 0},
        {"json", 0, CLI_FLAG, &b.json, NULL, "one JSON object on stdout, the table on stderr", 0, 0},
        {0},
    };
    const struct cli_opt *const tables[] = {opts, engine_table, NULL};
    const struct cli_cmd cmd = {"bench context", "quire bench context [MODEL | --base-url URL] [options]",
                                "Asks for a few tokens after longer and longer prompts, printing times as it goes, until the server answers 400;\n"
                                "a normal request then proves that it lives.  MODEL is served by this program for the time being; the options\n"
                                "of the engine are for that server.", tables, 0, 1};
    const char *args[1];
    int n_args;
    bool done;
    int status = cli_parse(&cmd, argc, argv, args, &n_args, &done);
    if (!done)
        status = check_usage(&b, &cmd, argc, argv, n_args, engine_table);
    if (!done && status == CLI_OK) {
        struct err e;
        status = measure(&b, n_args ? args[0] : NULL, &e) ? CLI_OK : cli_error(&cmd, &e);
    }
    bench_http_close(&b.client);
    bench_server_stop(&b.server);
    mem_free(b.found_model);
    if (b.csv)
        fclose(b.csv);
    return status;
}
