/* A TGI request from the engine's events to its output. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include "base/clock.h"
#include "server/tgi_int.h"

enum { PULL_BYTES = 64 << 10 };

bool tgi_job_streams(const struct tgi_job *t) { return t->stream; }
int tgi_job_status(const struct tgi_job *t) { return t->status; }

void tgi_job_stats(const struct tgi_job *t, struct api_job_stats *out)
{
    *out = (struct api_job_stats){.n_prompt = t->job->prompts[0].n, .n_cached = t->job->prompts[0].n_cached,
                                  .max_new = t->max_new, .times = t->times, .error = t->error};
    for (int32_t i = 0; i < t->n; i++)
        out->n_completion += t->choices[i].n_tokens;
}

/* ---- events ---- */

static void on_prompt(struct tgi_job *t, const struct gen_event *ev)
{
    if (ev->token < 0)
        return;
    if (t->prefill.len)
        buf_putc(&t->prefill, ',');
    tgi_write_token(&t->prefill, t->job->api, ev->token, NULL, 0, ev->logprob, false);
}

/* The prompt's first token, which nothing predicts, is told of by no event. */
static void begin_prefill(struct tgi_job *t)
{
    if (t->p.decoder_input_details && t->prefill.len == 0)
        on_prompt(t, &(struct gen_event){.token = t->job->prompts[0].ids[0], .logprob = NAN});
}

static void write_top(const struct tgi_job *t, const struct gen_event *ev, struct buf *out)
{
    if (t->p.top_n_tokens == API_UNSET || t->p.top_n_tokens == 0)
        return;
    buf_putc(out, '[');
    for (int32_t i = 0; i < ev->lp.n; i++) {
        if (i)
            buf_putc(out, ',');
        tgi_write_token(out, t->job->api, ev->lp.ids[i], NULL, 0, ev->lp.logprobs[i], true);
    }
    buf_putc(out, ']');
}

/* Tokens show the text that became certain with them, so that the texts of all are the generated text; special tokens, which have no part in
 * it, their spelling. */
static void on_token(struct tgi_job *t, struct tgi_choice *c, const struct gen_event *ev, struct buf *out)
{
    const struct api *a = t->job->api;
    struct buf token, top;
    buf_init(&token, 0);
    buf_init(&top, 0);
    bool special = tok_is_special(a->tok, ev->token) && ev->text_len == 0;
    tgi_write_token(&token, a, ev->token, special ? NULL : ev->text, ev->text_len, ev->logprob, true);
    write_top(t, ev, &top);
    c->n_tokens++;
    c->logprobs += isnan(ev->logprob) ? 0 : (double)ev->logprob;
    if (t->stream) {
        tgi_write_event(t, &token, &top, out);
    } else {
        if (c->tokens.len)
            buf_putc(&c->tokens, ',');
        buf_append(&c->tokens, token.data ? token.data : "", token.len);
        if (top.len && c->tops.len)
            buf_putc(&c->tops, ',');
        buf_append(&c->tops, top.len ? top.data : "", top.len);
    }
    out->failed |= token.failed || top.failed || c->tokens.failed || c->tops.failed;
    buf_free(&token);
    buf_free(&top);
}

static void fail(struct tgi_job *t, const struct api_error *e, struct buf *out)
{
    t->finished = true;
    t->error = e->status;
    gen_close(&t->job->prompts[0].gen);
    if (t->stream)
        buf_puts(out, "data:");
    tgi_error_write(e, &t->status, out);
    if (t->stream)
        buf_puts(out, "\n\n");
}

static void on_delta(struct tgi_job *t, const struct gen_event *ev, struct buf *out)
{
    struct tgi_choice *c = &t->choices[ev->choice];
    buf_append(&c->text, ev->text, ev->text_len);
    out->failed |= c->text.failed;
    if (ev->finish != ENGINE_FINISH_NONE) {
        c->ended = true;
        c->finish = ev->finish;
        c->by_stop = ev->stop_index >= 0;
    }
    if (ev->token >= 0)
        on_token(t, c, ev, out);
    if (c->ended && c->finish == ENGINE_FINISH_ABORT) {
        struct api_error e;
        api_fail_status(&e, 499, "the generation was cut off");
        fail(t, &e, out);
    }
}

static void on_done(struct tgi_job *t, struct buf *out)
{
    struct api_prompt *p = &t->job->prompts[0];
    gen_times(p->gen, &t->times);
    p->n_cached = t->times.n_cached;
    gen_close(&p->gen);
    t->finished = true;
    if (t->stream)
        return;
    begin_prefill(t);
    tgi_write_body(t, out);
}

enum api_pull tgi_job_pull(struct tgi_job *t, struct buf *out)
{
    struct api_prompt *p = &t->job->prompts[0];
    struct gen_event ev;
    while (!t->finished && (!t->stream || out->len < PULL_BYTES) && gen_next(p->gen, &ev)) {
        if (ev.type == GEN_PROMPT) {
            begin_prefill(t);
            on_prompt(t, &ev);
        } else if (ev.type == GEN_DELTA) {
            on_delta(t, &ev, out);
        } else if (ev.type == GEN_DONE) {
            on_done(t, out);
        } else {
            struct api_error e;
            api_fail_err(&e, NULL, &ev.error);
            fail(t, &e, out);
        }
        if (out->failed || t->prefill.failed) {
            struct api_error e;
            buf_clear(out);
            t->prefill.failed = false;
            api_fail(&e, ERR_NOMEM, NULL, "out of memory for the answer");
            fail(t, &e, out);
        }
    }
    return t->finished ? API_PULL_DONE : API_PULL_MORE;
}

/* ---- headers ---- */

static void add_number(void (*add)(void *ctx, const char *name, const char *value), void *ctx, const char *name, int64_t value)
{
    char text[24];
    snprintf(text, sizeof text, "%lld", (long long)(value > 0 ? value : 0));
    add(ctx, name, text);
}

void tgi_job_headers(const struct tgi_job *t, void (*add)(void *ctx, const char *name, const char *value), void *ctx)
{
    const struct engine_times *m = &t->times;
    struct api_job_stats s;
    char seconds[32];
    add(ctx, "x-compute-type", t->job->api->info->device);
    add_number(add, ctx, "x-compute-characters", t->n_chars);
    if (t->stream)
        return;
    tgi_job_stats(t, &s);
    int64_t total = clock_now_us() - t->opened_us, infer = m->last_token - m->first_scheduled, generated = s.n_completion > 0 ? s.n_completion : 1;
    snprintf(seconds, sizeof seconds, "%.6f", (double)total / 1e6);
    add(ctx, "x-compute-time", seconds);
    add_number(add, ctx, "x-total-time", total / 1000);
    add_number(add, ctx, "x-validation-time", (t->submitted_us - t->opened_us) / 1000);
    add_number(add, ctx, "x-queue-time", (m->first_scheduled - m->submitted) / 1000);
    add_number(add, ctx, "x-inference-time", infer / 1000);
    add_number(add, ctx, "x-time-per-token", infer / generated / 1000);
    add_number(add, ctx, "x-prompt-tokens", s.n_prompt);
    add_number(add, ctx, "x-generated-tokens", s.n_completion);
}
