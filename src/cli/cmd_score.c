/* quire score: log-probabilities of given text or token ids. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include "base/json.h"
#include "base/mem.h"
#include "cli/cli.h"
#include "engine/engine.h"
#include "tok/tok.h"

struct score {
    struct cli_engine_flags flags;
    const char *text, *text_file, *token_ids, *logits_path;
    int32_t stride;
    bool json, add_special_tokens;

    struct log *log;
    struct engine *eng;
    struct tok_ids ids;
    float *logprobs;             /* [n]; [0] has none */
    FILE *npy;
    struct cli_progress bar;
};

static bool read_ids(struct score *s, struct err *e)
{
    if ((s->text != NULL) + (s->text_file != NULL) + (s->token_ids != NULL) != 1)
        return err_set(e, ERR_INVALID, "give one of --text, --text-file and --token-ids");
    if (s->token_ids) {
        int32_t n;
        if (!cli_parse_ids(s->token_ids, &s->ids.ids, &n, e))
            return false;
        s->ids.n = s->ids.cap = (size_t)n;
    } else {
        const struct tok *t = engine_tok(s->eng);
        size_t len = s->text ? strlen(s->text) : 0;
        char *text = s->text_file ? cli_read(s->text_file, &len, e) : NULL;
        if (s->text_file && !text)
            return false;
        bool ok = t ? tok_encode(t, text ? text : s->text, len, s->add_special_tokens ? TOK_ENCODE_SPECIAL : TOK_ENCODE_PLAIN, &s->ids, e)
                    : err_set(e, ERR_UNSUPPORTED, "the model has no tokenizer.json; give --token-ids");
        mem_free(text);
        if (!ok)
            return false;
    }
    return s->ids.n > 0 || err_set(e, ERR_INVALID, "there are no tokens to score");
}

/* The .npy format, version 1.0 (NEP 1): magic, version, header length, a Python dict padded to 64 bytes. */
static bool open_npy(struct score *s, struct err *e)
{
    char header[128];
    s->npy = fopen(s->logits_path, "wb");
    if (!s->npy)
        return err_set(e, ERR_IO, "cannot write %s: %s", s->logits_path, strerror(errno));
    int n = snprintf(header + 10, sizeof header - 10, "{'descr': '<f4', 'fortran_order': False, 'shape': (%zu, %d), }", s->ids.n,
                     engine_info(s->eng)->vocab_size);
    memset(header + 10 + n, ' ', sizeof header - 10 - (size_t)n);
    header[sizeof header - 1] = '\n';
    memcpy(header, "\x93NUMPY\x01\x00", 8);
    header[8] = (char)(sizeof header - 10);
    header[9] = 0;
    return fwrite(header, 1, sizeof header, s->npy) == sizeof header || err_set(e, ERR_IO, "cannot write %s", s->logits_path);
}

/* Score tokens [from, to) as one context; only what lies past the first `known` of them is new. */
static bool score_window(struct score *s, size_t from, size_t to, size_t known, struct err *e)
{
    struct sample_params p;
    sample_params_default(&p);
    p.n_prompt_logprobs = 0;
    struct engine_request r = {.kind = ENGINE_SCORE, .tokens = s->ids.ids + from, .n_tokens = (int32_t)(to - from), .params = &p, .n = 1,
                               .want_logits = s->logits_path != NULL};
    struct engine_stream *st;
    if (!engine_submit(s->eng, &r, NULL, NULL, &st, e))
        return false;
    bool ok = true, done = false;
    size_t vocab = (size_t)engine_info(s->eng)->vocab_size;
    while (ok && !done) {
        struct engine_event ev;
        if (!engine_stream_next(st, &ev)) {
            engine_stream_wait(st, -1);
            continue;
        }
        if (ev.type == ENGINE_EV_PROMPT) {
            size_t pos = from + (size_t)ev.pos;
            if (ev.token >= 0 && (size_t)ev.pos >= known)
                s->logprobs[pos] = ev.logprob;
            if (ev.logits && (size_t)ev.pos > known && fwrite(ev.logits, sizeof(float), vocab, s->npy) != vocab)
                ok = err_set(e, ERR_IO, "cannot write %s: %s", s->logits_path, strerror(errno));
            cli_progress_update(&s->bar, (int64_t)pos, (int64_t)s->ids.n);
        } else if (ev.type == ENGINE_EV_ERROR) {
            ok = err_set(e, ev.code, "%s", ev.message);
        }
        done = ev.type == ENGINE_EV_DONE;
    }
    engine_stream_close(&st);
    return ok;
}

static bool print_result(const struct score *s, struct err *e)
{
    double sum = 0;
    size_t n = s->ids.n;
    for (size_t i = 1; i < n; i++)
        sum += s->logprobs[i];
    double perplexity = n > 1 ? exp(-sum / (double)(n - 1)) : NAN;
    if (!s->json) {
        printf("%zu tokens, perplexity %.6g, mean logprob %.6g\n", n, perplexity, n > 1 ? sum / (double)(n - 1) : NAN);
        return true;
    }
    json_t *ids = json_array(), *lps = json_array();
    for (size_t i = 0; i < n; i++) {
        json_array_append_new(ids, json_integer(s->ids.ids[i]));
        json_array_append_new(lps, i == 0 ? json_null() : json_real(isfinite(s->logprobs[i]) ? (double)s->logprobs[i] : -9999.0));
    }
    json_t *out = json_pack("{s:o,s:o,s:o,s:I}", "token_ids", ids, "logprobs", lps, "perplexity",
                            isfinite(perplexity) ? json_real(perplexity) : json_null(), "n_tokens", (json_int_t)n);
    struct buf b;
    buf_init(&b, 0);
    bool ok = out && json_write(out, &b) && buf_putc(&b, '\n') && fwrite(b.data, 1, b.len, stdout) == b.len;
    json_decref(out);
    buf_free(&b);
    return ok || err_set(e, ERR_IO, "the answer could not be written");
}

static bool score(struct score *s, const char *model, struct err *e)
{
    struct engine_opts o;
    if (!cli_engine_opts(&s->flags, model, &o, &s->log, e))
        return false;
    if (!s->flags.max_num_seqs)
        o.max_num_seqs = 1;
    cli_progress_begin(&s->bar, "loading");
    o.progress = cli_progress_update;
    o.progress_ctx = &s->bar;
    bool ok = engine_open(&s->eng, &o, e);
    cli_progress_end(&s->bar);
    if (!ok || !read_ids(s, e) || (s->logits_path && !open_npy(s, e)))
        return false;
    size_t n = s->ids.n, window = (size_t)engine_info(s->eng)->max_model_len;
    size_t stride = s->stride > 0 ? (size_t)s->stride : window > 1 ? window / 2 : 1;
    if (stride > window)
        return err_set(e, ERR_INVALID, "--stride %zu is longer than the context of %zu", stride, window);
    s->logprobs = mem_try_zalloc(n, sizeof *s->logprobs);
    if (!s->logprobs)
        return err_set(e, ERR_NOMEM, "out of memory");
    cli_progress_begin(&s->bar, "scoring");
    size_t scored = 0; /* every token before it is done */
    while (ok && scored < n) {
        size_t to = scored == 0 ? window : scored + stride;
        to = to < n ? to : n;
        size_t from = to > window ? to - window : 0;
        ok = score_window(s, from, to, scored - from, e);
        scored = to;
    }
    cli_progress_end(&s->bar);
    return ok && print_result(s, e);
}

int cmd_score(int argc, char **argv)
{
    struct score s = {.add_special_tokens = true};
    struct cli_opt engine_table[CLI_ENGINE_OPTS];
    cli_engine_flags_default(&s.flags);
    cli_engine_table(&s.flags, engine_table);
    const struct cli_opt opts[] = {
        {"text", 0, CLI_STR, &s.text, "TEXT", "the text to score", 0, 0},
        {"text-file", 0, CLI_STR, &s.text_file, "FILE", "the text from a file, - for stdin", 0, 0},
        {"token-ids", 0, CLI_STR, &s.token_ids, "1,2,3", "token ids instead of text", 0, 0},
        {"logits", 0, CLI_STR, &s.logits_path, "FILE.npy", "write all logits: float32 [n_tokens, vocab]", 0, 0},
        {"stride", 0, CLI_INT, &s.stride, "N", "new tokens a window brings when the text is longer than the context; 0: half the context", 0, 1 << 30},
        {"add-special-tokens", 0, CLI_FLAG, &s.add_special_tokens, NULL, "begin with the model's BOS token where it wants one", 0, 0},
        {"json", 0, CLI_FLAG, &s.json, NULL, "one JSON object on stdout: ids, logprobs, perplexity", 0, 0},
        {0},
    };
    const struct cli_opt *const tables[] = {opts, engine_table, NULL};
    const struct cli_cmd cmd = {"score", "quire score [MODEL] (--text TEXT | --text-file FILE | --token-ids IDS) [options]",
                                "Prints the log-probability of every token given those before it, and the perplexity.  Texts longer than\n"
                                "the context are scored in overlapping windows.", tables, 0, 1};
    const char *args[1];
    int n_args;
    bool done;
    int status = cli_parse(&cmd, argc, argv, args, &n_args, &done);
    if (!done) {
        struct err e;
        status = score(&s, n_args ? args[0] : NULL, &e) ? CLI_OK : cli_error(&cmd, &e);
    }
    if (s.npy && fclose(s.npy) != 0 && status == CLI_OK) {
        fprintf(stderr, "quire: score: cannot write %s: %s\n", s.logits_path, strerror(errno));
        status = CLI_FAILED;
    }
    mem_free(s.logprobs);
    tok_ids_free(&s.ids);
    engine_close(&s.eng);
    log_close(&s.log);
    return status;
}
