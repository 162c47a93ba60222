/* quire bench latency | throughput: what an engine does on this machine; the others have files of their own. */
#include <stdio.h>
#include <string.h>
#include "base/json.h"
#include "base/log.h"
#include "bench/offline.h"
#include "cli/cli.h"
#include "engine/gen.h"

struct bench {
    struct cli_engine_flags flags;
    struct cli_sample_flags sampling;
    int32_t input_len, output_len, batch_size, n_warmup, n_iters, num_prompts;
    bool json;
    struct log *log;
    struct engine *eng;
};

static bool open_engine(struct bench *b, const char *model, int32_t n_seqs, struct err *e)
{
    struct engine_opts o;
    struct cli_progress bar;
    if (!cli_engine_opts(&b->flags, model, &o, &b->log, e))
        return false;
    if (!b->flags.max_num_seqs)
        o.max_num_seqs = n_seqs;
    if (!b->flags.max_model_len)
        o.max_model_len = b->input_len + b->output_len;
    o.enable_prefix_caching = false;
    cli_progress_begin(&bar, "loading");
    o.progress = cli_progress_update;
    o.progress_ctx = &bar;
    bool ok = engine_open(&b->eng, &o, e);
    cli_progress_end(&bar);
    return ok;
}

static bool print(const struct bench *b, const json_t *result, struct err *e)
{
    struct buf text;
    buf_init(&text, 0);
    if (b->json) {
        bool ok = json_write(result, &text) && buf_putc(&text, '\n') && fwrite(text.data, 1, text.len, stdout) == text.len;
        buf_free(&text);
        return ok || err_set(e, ERR_IO, "the result could not be written");
    }
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)result, key, value) {
        if (json_is_number(value))
            printf("%-28s %.4f\n", key, json_number_value(value));
    }
    return true;
}

static bool run_latency(struct bench *b, const char *model, struct err *e)
{
    struct bench_latency_opts o = {.input_len = b->input_len, .output_len = b->output_len, .batch_size = b->batch_size,
                                   .n_warmup = b->n_warmup, .n_iters = b->n_iters, .seed = (uint64_t)b->flags.seed};
    struct cli_progress bar;
    json_t *result = NULL;
    if (!open_engine(b, model, b->batch_size, e))
        return false;
    cli_progress_begin(&bar, "measuring");
    bool ok = bench_latency(b->eng, &o, cli_progress_update, &bar, &result, e);
    cli_progress_end(&bar);
    ok = ok && print(b, result, e);
    json_decref(result);
    return ok;
}

static bool run_throughput(struct bench *b, const char *model, struct err *e)
{
    struct bench_throughput_opts o = {.input_len = b->input_len, .output_len = b->output_len, .num_prompts = b->num_prompts,
                                      .seed = (uint64_t)b->flags.seed};
    struct sample_params sampling;
    struct gen_request unused;
    struct cli_progress bar;
    json_t *result = NULL;
    if (!open_engine(b, model, b->num_prompts < 256 ? b->num_prompts : 256, e))
        return false;
    gen_request_default(&unused);
    if (!cli_sample_request(&b->sampling, b->eng, &sampling, &unused, e))
        return false;
    o.sampling = &sampling;
    cli_progress_begin(&bar, "measuring");
    bool ok = bench_throughput(b->eng, &o, cli_progress_update, &bar, &result, e);
    cli_progress_end(&bar);
    ok = ok && print(b, result, e);
    json_decref(result);
    return ok;
}

static int bench_main(int argc, char **argv, const struct cli_opt *opts, struct bench *b, const char *usage, const char *summary,
                      bool (*run)(struct bench *, const char *, struct err *))
{
    struct cli_opt engine_table[CLI_ENGINE_OPTS];
    cli_engine_table(&b->flags, engine_table);
    const struct cli_opt *const tables[] = {opts, engine_table, NULL};
    const struct cli_cmd cmd = {"bench", usage, summary, tables, 0, 1};
    const char *args[1];
    int n_args;
    bool done;
    int status = cli_parse(&cmd, argc, argv, args, &n_args, &done);
    if (!done) {
        struct err e;
        status = run(b, n_args ? args[0] : NULL, &e) ? CLI_OK : cli_error(&cmd, &e);
    }
    engine_close(&b->eng);
    log_close(&b->log);
    return status;
}

static int cmd_latency(int argc, char **argv)
{
    struct bench b = {.input_len = 32, .output_len = 128, .batch_size = 8, .n_warmup = 1, .n_iters = 5};
    cli_engine_flags_default(&b.flags);
    const struct cli_opt opts[] = {
        {"input-len", 0, CLI_INT, &b.input_len, "N", "prompt tokens of each request", 1, 1 << 24},
        {"output-len", 0, CLI_INT, &b.output_len, "N", "new tokens of each request", 1, 1 << 24},
        {"batch-size", 0, CLI_INT, &b.batch_size, "N", "requests of a batch", 1, 65536},
        {"num-iters-warmup", 0, CLI_INT, &b.n_warmup, "N", "batches not counted, first", 0, 10000},
        {"num-iters", 0, CLI_INT, &b.n_iters, "N", "batches counted", 1, 10000},
        {"json", 0, CLI_FLAG, &b.json, NULL, "one JSON object on stdout", 0, 0},
        {0},
    };
    return bench_main(argc, argv, opts, &b, "quire bench latency [MODEL] [options]",
                      "Runs a batch of equal requests of random tokens again and again and reports its latency, prefill and decode rates.",
                      run_latency);
}

static int cmd_throughput(int argc, char **argv)
{
    struct bench b = {.input_len = 128, .output_len = 64, .num_prompts = 64};
    cli_engine_flags_default(&b.flags);
    cli_sample_flags_default(&b.sampling);
    b.sampling.generation_config = false;
    const struct cli_opt opts[] = {
        {"input-len", 0, CLI_INT, &b.input_len, "N", "prompt tokens of each request", 1, 1 << 24},
        {"output-len", 0, CLI_INT, &b.output_len, "N", "new tokens of each request", 1, 1 << 24},
        {"num-prompts", 0, CLI_INT, &b.num_prompts, "N", "requests, all submitted at once", 1, 1 << 20},
        {"temperature", 0, CLI_F64, &b.sampling.temperature, "X", "of every request; 0 is greedy", 0, 1e6},
        {"top-k", 0, CLI_INT, &b.sampling.top_k, "N", "the N most likely tokens only; 0 or -1: all", -1, INT32_MAX},
        {"top-p", 0, CLI_F64, &b.sampling.top_p, "X", "the smallest set of tokens with this probability", 0, 1},
        {"min-p", 0, CLI_F64, &b.sampling.min_p, "X", "tokens at least X times as likely as the most likely one", 0, 1},
        {"typical-p", 0, CLI_F64, &b.sampling.typical_p, "X", "locally typical sampling with this mass", 0, 1},
        {"repetition-penalty", 0, CLI_F64, &b.sampling.repetition_penalty, "X", "over 1 discourages tokens of prompt and output", 0, 1e6},
        {"logprobs", 0, CLI_INT, &b.sampling.logprobs, "N", "log-probabilities of the token and the N most likely; -1: none", -1, 1 << 20},
        {"json", 0, CLI_FLAG, &b.json, NULL, "one JSON object on stdout", 0, 0},
        {0},
    };
    return bench_main(argc, argv, opts, &b, "quire bench throughput [MODEL] [options]",
                      "Submits all requests of random tokens at once and reports tokens per second until the last has finished.", run_throughput);
}

static const struct { const char *name, *what; int (*run)(int argc, char **argv); } kinds[] = {
    {"latency", "a batch of equal requests, again and again", cmd_latency},
    {"throughput", "many requests at once", cmd_throughput},
    {"serve", "many clients against an OpenAI-compatible server", cmd_bench_serve},
    {"context", "a server's speed as the prompt grows to the end of its context", cmd_bench_context},
    {"kernels", "each kernel against this machine's measured limits", cmd_bench_kernels},
    {"guide", "masks of structured output with a model's vocabulary", cmd_bench_guide},
    {"startup", "from the start of a server to /health and to the first token", cmd_bench_startup},
};

int cmd_bench(int argc, char **argv)
{
    bool help = argc > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0);
    for (size_t i = 0; argc > 1 && i < sizeof kinds / sizeof kinds[0]; i++)
        if (strcmp(argv[1], kinds[i].name) == 0)
            return kinds[i].run(argc - 1, argv + 1);
    FILE *f = help ? stdout : stderr;
    fprintf(f, "usage: quire bench KIND [MODEL] [options]\n\n");
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        fprintf(f, "  %-12s %s\n", kinds[i].name, kinds[i].what);
    fprintf(f, "\n'quire bench KIND --help' tells its options.\n");
    return help ? CLI_OK : CLI_USAGE;
}
