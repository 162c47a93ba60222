/* quire batch: OpenAI batch lines in, vLLM run-batch lines out (server/batch.h). */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/log.h"
#include "base/mem.h"
#include "cli/cli.h"
#include "server/batch.h"

struct batch {
    struct cli_engine_flags flags;
    const char *input, *output, *generation_config, *chat_template, *tool_parser, *reasoning_parser;
    bool auto_tools;
    struct cli_list names;
    int32_t max_in_flight;

    struct log *log;
    struct engine *eng;
    struct api *api;
    char *template; size_t template_len;
    FILE *in, *out;
    char *tmp;                         /* written first, renamed when complete */
    int64_t in_bytes;
    struct cli_progress bar;
};

static volatile sig_atomic_t interrupted;
static void on_interrupt(int sig) { (void)sig; interrupted = 1; }

/* ---- files and engine ---- */

static bool open_files(struct batch *b, struct err *e)
{
    struct stat st;
    struct buf tmp;
    b->in = strcmp(b->input, "-") == 0 ? stdin : fopen(b->input, "re");
    if (!b->in)
        return err_set(e, ERR_IO, "%s: %s", b->input, strerror(errno));
    b->in_bytes = fstat(fileno(b->in), &st) == 0 && S_ISREG(st.st_mode) ? st.st_size : 0;
    buf_init(&tmp, 0);
    if (!buf_printf(&tmp, "%s.tmp%ld", b->output, (long)getpid()) || !(b->tmp = buf_take(&tmp)))
        return err_set(e, ERR_NOMEM, "out of memory");
    b->out = fopen(b->tmp, "we");
    return b->out || err_set(e, ERR_IO, "%s: %s", b->tmp, strerror(errno));
}

static bool open_engine(struct batch *b, const char *model, struct err *e)
{
    struct engine_opts o;
    if (!cli_engine_opts(&b->flags, model, &o, &b->log, e))
        return false;
    cli_progress_begin(&b->bar, "loading");
    o.progress = cli_progress_update;
    o.progress_ctx = &b->bar;
    bool ok = engine_open(&b->eng, &o, e);
    cli_progress_end(&b->bar);
    return ok;
}

static bool open_api(struct batch *b, struct err *e)
{
    struct api_opts a = {.engine = b->eng, .log = b->log, .served_names = b->names.items, .n_served_names = b->names.n};
    a.use_generation_config = strcmp(b->generation_config, "auto") == 0;
    if (!a.use_generation_config && strcmp(b->generation_config, "none") != 0)
        return err_set(e, ERR_INVALID, "--generation-config: '%s' is neither auto nor none", b->generation_config);
    if (b->chat_template && !(b->template = cli_read(b->chat_template, &b->template_len, e)))
        return false;
    a.chat_template = b->template;
    a.chat_template_len = b->template_len;
    a.tool_parser = b->tool_parser;
    a.reasoning_parser = b->reasoning_parser;
    a.no_auto_tools = !b->auto_tools;
    return api_open(&b->api, &a, e);
}

/* The answers get their name only when they are all on the disk. */
static bool finish_output(struct batch *b, struct err *e)
{
    bool ok = fflush(b->out) == 0 && fsync(fileno(b->out)) == 0;
    ok = fclose(b->out) == 0 && ok;
    b->out = NULL;
    if (!ok || rename(b->tmp, b->output) != 0)
        return err_set(e, ERR_IO, "%s: %s", b->output, strerror(errno));
    mem_free(b->tmp);
    b->tmp = NULL;
    return true;
}

static bool go_on(void *ctx, const struct batch_counts *n)
{
    struct batch *b = ctx;
    cli_progress_update(&b->bar, n->in_at, b->in_bytes);
    return !interrupted;
}

static bool run(struct batch *b, const char *model, struct err *e)
{
    struct batch_counts n;
    if (!open_files(b, e) || !open_engine(b, model, e) || !open_api(b, e))
        return false;
    cli_progress_begin(&b->bar, "batch");
    const struct batch_opts o = {.api = b->api, .in = b->in, .out = b->out, .in_name = b->input, .out_name = b->tmp,
                                 .n_in_flight = b->max_in_flight, .go_on = go_on, .ctx = b};
    bool ok = batch_run(&o, &n, e);
    cli_progress_end(&b->bar);
    if (!ok && e->code == ERR_CANCELLED)
        return err_set(e, ERR_CANCELLED, "interrupted after %lld lines; %s is unchanged", (long long)n.n_written, b->output);
    if (!ok || !finish_output(b, e))
        return false;
    fprintf(stderr, "%lld answers, %lld of them errors, in %s\n", (long long)n.n_written, (long long)n.n_failed, b->output);
    return true;
}

static void close_all(struct batch *b)
{
    api_close(&b->api);
    engine_close(&b->eng);
    log_close(&b->log);
    if (b->in && b->in != stdin)
        fclose(b->in);
    if (b->out)
        fclose(b->out);
    if (b->tmp)
        unlink(b->tmp);
    mem_free(b->tmp);
    mem_free(b->template);
    mem_free(b->names.items);
}

int cmd_batch(int argc, char **argv)
{
    struct batch b = {.generation_config = "auto", .auto_tools = true, .tool_parser = "auto", .reasoning_parser = "auto"};
    struct cli_opt engine_table[CLI_ENGINE_OPTS];
    cli_engine_flags_default(&b.flags);
    cli_engine_table(&b.flags, engine_table);
    const struct cli_opt opts[] = {
        {"input", 'i', CLI_STR, &b.input, "FILE", "requests, one JSON object a line; - for stdin", 0, 0},
        {"output", 'o', CLI_STR, &b.output, "FILE", "answers, in the order of the requests", 0, 0},
        {"max-in-flight", 0, CLI_INT, &b.max_in_flight, "N", "requests handed to the engine at once; 0: twice --max-num-seqs", 0, 1 << 20},
        {"served-model-name", 0, CLI_LIST, &b.names, "NAME", "what the requests call the model", 0, 0},
        {"chat-template", 0, CLI_STR, &b.chat_template, "FILE", "Jinja template instead of the model's own", 0, 0},
        {"tool-call-parser", 0, CLI_STR, &b.tool_parser, "NAME", "how tool calls are written: hermes, llama3, mistral, pythonic, none, or auto (what the chat template teaches)", 0, 0},
        {"enable-auto-tool-choice", 0, CLI_FLAG, &b.auto_tools, NULL, "read tool calls from replies that are free to make them", 0, 0},
        {"reasoning-parser", 0, CLI_STR, &b.reasoning_parser, "NAME", "how thoughts are marked: deepseek_r1, qwen3, none, or auto", 0, 0},
        {"generation-config", 0, CLI_STR, &b.generation_config, "HOW", "auto: sampling defaults from generation_config.json; none: neutral ones", 0, 0},
        {0},
    };
    const struct cli_opt *const tables[] = {opts, engine_table, NULL};
    const struct cli_cmd cmd = {"batch", "quire batch [MODEL] -i IN.jsonl -o OUT.jsonl [options]",
                                "Answers a file of OpenAI batch requests (/v1/chat/completions, /v1/completions, /v1/responses,\n"
                                "/v1/embeddings, /score, /rerank).  A line that fails gets an\n"
                                "error line; the exit status is 1 only when the job as a whole could not run.", tables, 0, 1};
    const char *args[1];
    int n_args;
    bool done;
    int status = cli_parse(&cmd, argc, argv, args, &n_args, &done);
    if (done)
        return status;
    if (!b.input || !b.output)
        return cli_usage_error(&cmd, "--input and --output are needed");
    struct err e;
    signal(SIGINT, on_interrupt);
    signal(SIGTERM, on_interrupt);
    status = run(&b, n_args ? args[0] : NULL, &e) ? CLI_OK : cli_error(&cmd, &e);
    close_all(&b);
    return status;
}
