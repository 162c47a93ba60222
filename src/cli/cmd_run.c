/* quire run: one prompt, streamed to the terminal. */
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/json.h"
#include "base/mem.h"
#include "cli/cli.h"
#include "engine/gen.h"

struct run {
    struct cli_engine_flags engine_flags;
    struct cli_sample_flags sample_flags;
    const char *prompt, *prompt_file, *token_ids;
    bool json, add_special_tokens;

    struct log *log;
    struct engine *eng;
    struct tok_ids ids;
    struct gen *gen;
    json_t *choices;
    int64_t start_us;
    bool failed;
};

static volatile sig_atomic_t interrupted;
static void on_interrupt(int sig) { (void)sig; interrupted = 1; }

/* ---- the prompt ---- */

static bool read_prompt(struct run *r, struct err *e)
{
    int given = (r->prompt != NULL) + (r->prompt_file != NULL) + (r->token_ids != NULL);
    if (given > 1)
        return err_set(e, ERR_INVALID, "give one of --prompt, --prompt-file and --token-ids");
    if (r->token_ids) {
        int32_t n;
        if (!cli_parse_ids(r->token_ids, &r->ids.ids, &n, e))
            return false;
        r->ids.n = r->ids.cap = (size_t)n;
        return true;
    }
    const struct tok *t = engine_tok(r->eng);
    if (!t)
        return err_set(e, ERR_UNSUPPORTED, "the model has no tokenizer.json; give --token-ids");
    if (r->prompt)
        return tok_encode(t, r->prompt, strlen(r->prompt), r->add_special_tokens ? TOK_ENCODE_SPECIAL : TOK_ENCODE_PLAIN, &r->ids, e);
    size_t len;
    char *text = cli_read(r->prompt_file ? r->prompt_file : "-", &len, e);
    if (!text)
        return false;
    bool ok = tok_encode(t, text, len, r->add_special_tokens ? TOK_ENCODE_SPECIAL : TOK_ENCODE_PLAIN, &r->ids, e);
    mem_free(text);
    return ok;
}

/* ---- collecting ---- */

static json_t *logprob_json(const struct run *r, const struct gen_event *ev)
{
    json_t *top = json_array();
    struct buf b;
    buf_init(&b, 0);
    for (int32_t i = 0; i < ev->lp.n; i++) {
        buf_clear(&b);
        if (engine_tok(r->eng))
            gen_token_text(engine_tok(r->eng), ev->lp.ids[i], &b);
        json_array_append_new(top, json_pack("{s:i,s:s,s:f}", "id", ev->lp.ids[i], "token", b.data ? b.data : "", "logprob",
                                             isfinite(ev->lp.logprobs[i]) ? (double)ev->lp.logprobs[i] : -9999.0));
    }
    buf_free(&b);
    return json_pack("{s:i,s:f,s:i,s:o}", "id", ev->token, "logprob", isfinite(ev->logprob) ? (double)ev->logprob : -9999.0, "rank",
                     ev->rank, "top", top);
}

static void collect(struct run *r, struct buf *texts, const struct gen_event *ev)
{
    json_t *c = json_array_get(r->choices, (size_t)ev->choice);
    buf_append(&texts[ev->choice], ev->text, ev->text_len);
    if (ev->token >= 0) {
        json_array_append_new(json_object_get(c, "token_ids"), json_integer(ev->token));
        if (r->sample_flags.logprobs >= 0)
            json_array_append_new(json_object_get(c, "logprobs"), logprob_json(r, ev));
    }
    if (ev->finish != ENGINE_FINISH_NONE) {
        json_object_set_new(c, "finish_reason", json_string(gen_finish_name(ev->finish)));
        json_object_set_new(c, "text", json_stringn_nocheck(texts[ev->choice].data ? texts[ev->choice].data : "", texts[ev->choice].len));
    }
}

/* With one choice text appears as it comes; with several they are printed when all are there. */
static bool follow(struct run *r, struct err *e)
{
    bool stream = !r->json && r->sample_flags.n == 1;
    struct buf *texts = mem_try_zalloc((size_t)r->sample_flags.n, sizeof *texts);
    if (!texts)
        return err_set(e, ERR_NOMEM, "out of memory");
    r->choices = json_array();
    for (int32_t i = 0; i < r->sample_flags.n; i++)
        json_array_append_new(r->choices, json_pack("{s:i,s:[],s:s,s:n,s:o}", "index", i, "token_ids", "text", "", "finish_reason", "logprobs",
                                                    r->sample_flags.logprobs >= 0 ? json_array() : json_null()));
    bool ok = true, done = false;
    while (ok && !done) {
        struct gen_event ev;
        if (interrupted == 1) {
            gen_cancel(r->gen);
            interrupted = 2;
        }
        if (!gen_next(r->gen, &ev)) {
            gen_wait(r->gen, 200000);
            continue;
        }
        if (ev.type == GEN_DELTA) {
            collect(r, texts, &ev);
            if (stream && ev.text_len) {
                fwrite(ev.text, 1, ev.text_len, stdout);
                fflush(stdout);
            }
        } else if (ev.type == GEN_ERROR) {
            *e = ev.error;
            ok = false;
        }
        done = ev.type == GEN_DONE;
    }
    if (stream)
        putchar('\n');
    for (int32_t i = 0; ok && !stream && !r->json && i < r->sample_flags.n; i++)
        printf("[%d] %s\n", i, texts[i].data ? texts[i].data : "");
    for (int32_t i = 0; i < r->sample_flags.n; i++)
        buf_free(&texts[i]);
    mem_free(texts);
    return ok;
}

/* ---- the answer ---- */

struct speed { double load_s, ttft_s, prefill, decode, total_s; int32_t n_completion; };

static struct speed measure(const struct run *r)
{
    struct engine_times t;
    struct speed s = {.load_s = engine_info(r->eng)->load_s, .total_s = (double)(clock_now_us() - r->start_us) / 1e6};
    gen_times(r->gen, &t);
    for (int32_t i = 0; i < r->sample_flags.n; i++)
        s.n_completion += gen_n_completion(r->gen, i);
    if (!t.first_token)
        return s;
    double prefill_s = (double)(t.first_token - t.first_scheduled) / 1e6, decode_s = (double)(t.last_token - t.first_token) / 1e6;
    s.ttft_s = (double)(t.first_token - t.submitted) / 1e6;
    s.prefill = prefill_s > 0 ? (t.n_prompt - t.n_cached) / prefill_s : 0;
    s.decode = decode_s > 0 ? (s.n_completion - r->sample_flags.n) / decode_s : 0;
    return s;
}

static bool print_json(const struct run *r, const struct speed *s, struct err *e)
{
    json_t *prompt = json_array();
    for (size_t i = 0; i < r->ids.n; i++)
        json_array_append_new(prompt, json_integer(r->ids.ids[i]));
    json_t *out = json_pack("{s:o,s:O,s:{s:i,s:i,s:i},s:{s:f,s:f,s:f,s:f,s:f}}", "prompt_token_ids", prompt, "choices", r->choices, "usage",
                            "prompt_tokens", (int)r->ids.n, "completion_tokens", s->n_completion, "total_tokens",
                            (int)r->ids.n + s->n_completion, "timing", "load_s", s->load_s, "ttft_s", s->ttft_s, "prefill_tok_s",
                            s->prefill, "decode_tok_s", s->decode, "total_s", s->total_s);
    struct buf b;
    buf_init(&b, 0);
    bool ok = out && json_write(out, &b) && buf_putc(&b, '\n') && fwrite(b.data, 1, b.len, stdout) == b.len;
    json_decref(out);
    buf_free(&b);
    return ok || err_set(e, ERR_IO, "the answer could not be written");
}

static bool run(struct run *r, const char *model, struct err *e)
{
    struct engine_opts o;
    struct cli_progress bar;
    r->start_us = clock_now_us();
    if (!cli_engine_opts(&r->engine_flags, model, &o, &r->log, e))
        return false;
    if (!r->engine_flags.max_num_seqs) /* one prompt: workspace for its choices is enough */
        o.max_num_seqs = r->sample_flags.n > 16 ? r->sample_flags.n : 16;
    if (r->sample_flags.best_of > o.max_num_seqs || r->sample_flags.beam_width > o.max_num_seqs)
        o.max_num_seqs = r->sample_flags.best_of > r->sample_flags.beam_width ? r->sample_flags.best_of : r->sample_flags.beam_width;
    cli_progress_begin(&bar, "loading");
    o.progress = cli_progress_update;
    o.progress_ctx = &bar;
    bool ok = engine_open(&r->eng, &o, e);
    cli_progress_end(&bar);
    if (!ok || !read_prompt(r, e))
        return false;
    struct sample_params params;
    struct gen_request q;
    gen_request_default(&q);
    if (!cli_sample_request(&r->sample_flags, r->eng, &params, &q, e))
        return false;
    q.engine.tokens = r->ids.ids;
    q.engine.n_tokens = (int32_t)r->ids.n;
    if (!gen_open(&r->gen, r->eng, &q, NULL, NULL, e) || !follow(r, e))
        return false;
    struct speed s = measure(r);
    if (r->json)
        return print_json(r, &s, e);
    if (isatty(STDERR_FILENO))
        fprintf(stderr, "\n%zu prompt tokens at %.0f/s, %d new at %.1f/s, first after %.3f s, loaded in %.2f s\n", r->ids.n, s.prefill,
                s.n_completion, s.decode, s.ttft_s, s.load_s);
    return true;
}

int cmd_run(int argc, char **argv)
{
    struct run r = {.add_special_tokens = true};
    struct cli_opt engine_table[CLI_ENGINE_OPTS], sample_table[CLI_SAMPLE_OPTS];
    cli_engine_flags_default(&r.engine_flags);
    cli_sample_flags_default(&r.sample_flags);
    cli_engine_table(&r.engine_flags, engine_table);
    cli_sample_table(&r.sample_flags, sample_table);
    const struct cli_opt opts[] = {
        {"prompt", 'p', CLI_STR, &r.prompt, "TEXT", "the prompt; without one it is read from stdin", 0, 0},
        {"prompt-file", 'f', CLI_STR, &r.prompt_file, "FILE", "the prompt from a file, - for stdin", 0, 0},
        {"token-ids", 0, CLI_STR, &r.token_ids, "1,2,3", "the prompt as token ids", 0, 0},
        {"add-special-tokens", 0, CLI_FLAG, &r.add_special_tokens, NULL, "begin with the model's BOS token where it wants one", 0, 0},
        {"json", 0, CLI_FLAG, &r.json, NULL, "one JSON object on stdout: ids, text, usage, timing", 0, 0},
        {0},
    };
    const struct cli_opt *const tables[] = {opts, sample_table, engine_table, NULL};
    const struct cli_cmd cmd = {"run", "quire run [MODEL] -p TEXT [options]",
                                "Completes one prompt and streams the text to stdout.  MODEL is a folder in Hugging Face layout, a\n"
                                "GGUF file or a hub id (org/name); without one the built-in model is used.", tables, 0, 1};
    const char *args[1];
    int n_args;
    bool done;
    int status = cli_parse(&cmd, argc, argv, args, &n_args, &done);
    if (!done) {
        struct err e;
        signal(SIGINT, on_interrupt);
        status = run(&r, n_args ? args[0] : NULL, &e) ? interrupted ? CLI_FAILED : CLI_OK : cli_error(&cmd, &e);
    }
    gen_close(&r.gen);
    json_decref(r.choices);
    tok_ids_free(&r.ids);
    engine_close(&r.eng);
    log_close(&r.log);
    cli_sample_flags_free(&r.sample_flags);
    return status;
}
