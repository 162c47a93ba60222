/* quire batch: OpenAI batch lines in, vLLM run-batch lines out, through the same code as the server.
 *
 * A window of lines is in flight, large enough to keep the engine's sequences busy; answers are written in input order, so
 * one that is ready early waits in the window.  Memory is bounded by the window, not by the file. */
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/mpsc.h"
#include "base/rng.h"
#include "cli/cli.h"
#include "server/api.h"

struct batch;

struct slot {
    struct mpsc_node node;             /* in batch.ready */
    atomic_bool queued;
    struct batch *b;
    struct api_job *job;               /* NULL: over */
    char *custom_id;                   /* JSON text */
    bool used, done;
    int status;
    struct buf body;                   /* the response, or the error object */
};

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
    char *line; size_t line_cap;
    int64_t in_bytes, n_read, n_written, n_failed;

    struct slot *slots; int n_slots;
    int first, n_used;                 /* ring: oldest slot, slots in use */
    struct mpsc ready;
    struct cli_progress bar;
};

static volatile sig_atomic_t interrupted;
static void on_interrupt(int sig) { (void)sig; interrupted = 1; }

/* ---- one line ---- */

/* On the engine's thread. */
static void on_news(void *ctx)
{
    struct slot *s = ctx;
    if (!atomic_exchange(&s->queued, true))
        mpsc_push(&s->b->ready, &s->node);
}

static void fail_slot(struct slot *s, const struct api_error *e)
{
    s->done = true;
    s->status = e->status;
    buf_clear(&s->body);
    api_error_write(e, &s->body);
}

/* The request of a line: {"custom_id":..,"method":"POST","url":"/v1/..","body":{..}}. */
static bool open_line(struct slot *s, const json_t *line, struct api_error *e)
{
    static const struct { const char *url; enum api_endpoint endpoint; } urls[] = {
        {"/v1/chat/completions", API_CHAT}, {"/v1/completions", API_COMPLETIONS}, {"/v1/responses", API_RESPONSES},
    };
    const json_t *id = json_object_get(line, "custom_id"), *body = json_object_get(line, "body");
    const char *method = json_string_value(json_object_get(line, "method")), *url = json_string_value(json_object_get(line, "url"));
    if (!json_is_object(line))
        return api_fail(e, ERR_INVALID, NULL, "a line must be a JSON object, found %s", json_type_name(line));
    if (!json_is_string(id))
        return api_fail(e, ERR_INVALID, "custom_id", "'custom_id': expected string, found %s", json_type_name(id));
    if (!method || strcmp(method, "POST") != 0)
        return api_fail(e, ERR_INVALID, "method", "'method' must be POST");
    if (!json_is_object(body))
        return api_fail(e, ERR_INVALID, "body", "'body': expected object, found %s", json_type_name(body));
    for (size_t i = 0; url && i < sizeof urls / sizeof urls[0]; i++) {
        if (strcmp(url, urls[i].url) != 0)
            continue;
        struct buf text;
        buf_init(&text, 0);
        struct api_job_opts o = {.refuse_stream = true, .notify = on_news, .notify_ctx = s};
        bool ok = json_write(body, &text) ? api_job_open(&s->job, s->b->api, urls[i].endpoint, text.data, text.len, &o, e)
                                          : api_fail(e, ERR_NOMEM, NULL, "out of memory for the request");
        buf_free(&text);
        return ok;
    }
    return api_fail(e, ERR_UNSUPPORTED, "url", "'url' must be /v1/chat/completions or /v1/completions, found '%.128s'", url ? url : "");
}

static void keep_custom_id(struct slot *s, const json_t *line)
{
    const json_t *id = json_object_get(line, "custom_id");
    struct buf text;
    buf_init(&text, 0);
    if (json_is_string(id) && json_write(id, &text))
        s->custom_id = buf_take(&text);
    buf_free(&text);
}

static void start_slot(struct batch *b, struct slot *s, const char *text, size_t len)
{
    struct err err;
    struct api_error e;
    *s = (struct slot){.b = b, .used = true};
    atomic_init(&s->queued, false);
    buf_init(&s->body, 0);
    json_t *line = json_parse(text, len, &err);
    bool ok = line ? true : api_fail_err(&e, NULL, &err);
    if (line)
        keep_custom_id(s, line);
    ok = ok && open_line(s, line, &e);
    json_decref(line);
    if (ok)
        on_news(s); /* pulled at least once, whether or not the engine has a part in it */
    else
        fail_slot(s, &e);
}

static void pull_slot(struct slot *s)
{
    if (s->done || api_job_pull(s->job, &s->body) != API_PULL_DONE)
        return;
    s->done = true;
    s->status = api_job_status(s->job);
    api_job_close(&s->job);
}

/* {"id":..,"custom_id":..,"response":{"status_code":..,"request_id":..,"body":..},"error":..} */
static bool write_slot(struct batch *b, struct slot *s, struct err *e)
{
    static const char wrap[] = "{\"error\":"; /* HTTP bodies have it around the error object; a line has its own */
    bool ok = s->status == 200;
    if (!ok && s->body.len > sizeof wrap && memcmp(s->body.data, wrap, sizeof wrap - 1) == 0) {
        buf_consume(&s->body, sizeof wrap - 1);
        s->body.data[--s->body.len] = 0;
    }
    const char *body = s->body.len ? s->body.data : "null";
    int n = fprintf(b->out,
                    "{\"id\":\"quire-%016llx%016llx\",\"custom_id\":%s,\"response\":{\"status_code\":%d,\"request_id\":\"quire-batch-%016llx%016llx\","
                    "\"body\":%s},\"error\":%s}\n",
                    (unsigned long long)rng_entropy(), (unsigned long long)rng_entropy(), s->custom_id ? s->custom_id : "null", s->status,
                    (unsigned long long)rng_entropy(), (unsigned long long)rng_entropy(), ok ? body : "null", ok ? "null" : body);
    b->n_written++;
    b->n_failed += !ok;
    return n > 0 || err_set(e, ERR_IO, "%s: %s", b->tmp, strerror(errno));
}

static void free_slot(struct slot *s)
{
    api_job_close(&s->job);
    buf_free(&s->body);
    mem_free(s->custom_id);
    s->custom_id = NULL;
    s->used = false;
}

/* ---- the window ---- */

/* Fill free slots with lines.  False at the end of the file. */
static bool read_lines(struct batch *b)
{
    while (b->n_used < b->n_slots) {
        ssize_t n = getline(&b->line, &b->line_cap, b->in);
        if (n < 0)
            return false;
        while (n > 0 && strchr(" \t\r\n", b->line[n - 1]))
            n--;
        if (n == 0)
            continue;
        b->n_read++;
        start_slot(b, &b->slots[(b->first + b->n_used) % b->n_slots], b->line, (size_t)n);
        b->n_used++;
    }
    return true;
}

/* A slot may be given to another line only when the engine cannot push it any more and it is not in the queue. */
static bool retire(struct batch *b, struct err *e)
{
    while (b->n_used > 0 && b->slots[b->first].done && !atomic_load(&b->slots[b->first].queued)) {
        if (!write_slot(b, &b->slots[b->first], e))
            return false;
        free_slot(&b->slots[b->first]);
        b->first = (b->first + 1) % b->n_slots;
        b->n_used--;
    }
    return true;
}

static bool run_all(struct batch *b, struct err *e)
{
    bool more = true;
    while (more || b->n_used > 0) {
        struct mpsc_node *node;
        if (interrupted)
            return err_set(e, ERR_CANCELLED, "interrupted after %lld lines; %s is unchanged", (long long)b->n_written, b->output);
        more = more && read_lines(b);
        while ((node = mpsc_pop(&b->ready)) != NULL) {
            struct slot *s = (struct slot *)((char *)node - offsetof(struct slot, node));
            atomic_store(&s->queued, false); /* before the pull: later news must queue it again */
            pull_slot(s);
        }
        int64_t before = b->n_written;
        if (!retire(b, e))
            return false;
        cli_progress_update(&b->bar, ftello(b->in), b->in_bytes);
        if (b->n_written == before && b->n_used > 0 && (!more || b->n_used == b->n_slots))
            mpsc_wait(&b->ready, 200000);
    }
    if (ferror(b->in))
        return err_set(e, ERR_IO, "%s: %s", b->input, strerror(errno));
    return true;
}

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
    if (!api_open(&b->api, &a, e))
        return false;
    /* Twice the engine's sequences: whenever some end, others are tokenized and waiting. */
    b->n_slots = b->max_in_flight ? b->max_in_flight : 2 * engine_info(b->eng)->max_num_seqs;
    b->slots = mem_try_zalloc((size_t)b->n_slots, sizeof *b->slots);
    mpsc_init(&b->ready);
    return b->slots || err_set(e, ERR_NOMEM, "out of memory");
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

static bool run(struct batch *b, const char *model, struct err *e)
{
    if (!open_files(b, e) || !open_engine(b, model, e) || !open_api(b, e))
        return false;
    cli_progress_begin(&b->bar, "batch");
    bool ok = run_all(b, e);
    cli_progress_end(&b->bar);
    if (!ok || !finish_output(b, e))
        return false;
    fprintf(stderr, "%lld answers, %lld of them errors, in %s\n", (long long)b->n_written, (long long)b->n_failed, b->output);
    return true;
}

static void close_all(struct batch *b)
{
    for (int i = 0; i < b->n_slots && b->slots; i++)
        if (b->slots[i].used)
            free_slot(&b->slots[i]);
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
    mem_free(b->line);
    mem_free(b->slots);
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
                                "Answers a file of OpenAI batch requests (/v1/chat/completions, /v1/completions).  A line that fails gets an\n"
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
