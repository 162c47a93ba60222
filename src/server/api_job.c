/* A request from its body to its output. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include "base/clock.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/rng.h"
#include "server/api_int.h"

enum { ARENA_LIMIT = 1 << 30, PULL_BYTES = 64 << 10 };

/* ---- opening ---- */

/* "cmpl-" and the caller's id, or 32 hex digits. */
static void make_id(struct api_job *job, const char *given)
{
    const char *prefix = job->responses ? "resp_" : job->endpoint == API_CHAT ? "chatcmpl-" : "cmpl-";
    if (job->f.request_id)
        given = job->f.request_id;
    if (given)
        snprintf(job->id, sizeof job->id, "%s%s", prefix, given);
    else
        snprintf(job->id, sizeof job->id, "%s%016llx%016llx", prefix, (unsigned long long)rng_entropy(), (unsigned long long)rng_entropy());
}

static bool alloc_choices(struct api_job *job, struct api_error *e)
{
    for (int32_t i = 0; i < job->n_prompts; i++) {
        struct api_prompt *p = &job->prompts[i];
        p->choices = mem_try_zalloc((size_t)job->n, sizeof *p->choices);
        if (!p->choices)
            return api_fail(e, ERR_NOMEM, NULL, "out of memory for the request");
        for (int32_t k = 0; k < job->n; k++)
            p->choices[k].stop_index = p->choices[k].stop_token = -1;
    }
    return true;
}

bool api_job_needs_engine(const struct api_job *job)
{
    return !job->score_only || job->params.n_prompt_logprobs >= 0;
}

static bool submit(struct api_job *job, const struct api_job_opts *o, struct api_error *e)
{
    struct err err;
    for (int32_t i = 0; i < job->n_prompts && api_job_needs_engine(job); i++) {
        struct api_prompt *p = &job->prompts[i];
        struct gen_request r = job->request;
        int64_t room = (int64_t)job->api->info->max_model_len - p->n;
        r.engine.tokens = p->ids;
        r.engine.n_tokens = p->n;
        r.engine.max_tokens = job->score_only ? 0 : job->max_tokens < room ? job->max_tokens : (int32_t)room;
        job->max_new = r.engine.max_tokens > job->max_new ? r.engine.max_tokens : job->max_new;
        if (!gen_open(&p->gen, job->api->eng, &r, o->notify, o->notify_ctx, &err)) {
            const struct api_field *const *tables = job->endpoint == API_CHAT ? api_chat_tables : api_completion_tables;
            return api_fail_err(e, api_fields_find(tables, err.msg), &err);
        }
    }
    return true;
}

static bool read_body(struct api_job *job, const char *body, size_t len, const struct api_job_opts *o, struct api_error *e)
{
    struct err err;
    job->doc = json_parse(body, len, &err);
    if (!job->doc)
        return api_fail_err(e, NULL, &err);
    if (job->endpoint == API_RESPONSES) {
        job->endpoint = API_CHAT;
        if (!api_responses_open(job, e))
            return false;
    }
    if (!api_params_read(job, e))
        return false;
    job->timings |= job->f.return_timings;
    if (o->refuse_stream && job->f.stream)
        return api_fail(e, ERR_INVALID, "stream", "Request must not be sent in stream mode");
    make_id(job, o->request_id);
    job->model = api_model_called(job->api, job->f.model);
    if (!(job->endpoint == API_CHAT ? api_prompt_chat(job, e) : api_prompt_completions(job, e)))
        return false;
    return api_params_build(job, e) && alloc_choices(job, e);
}

bool api_job_parse(struct api_job **out, const struct api *a, enum api_endpoint endpoint, const char *body, size_t len,
                   const struct api_job_opts *o, struct api_error *e)
{
    *out = NULL;
    struct api_job *job = mem_try_zalloc(1, sizeof *job);
    if (!job)
        return api_fail(e, ERR_NOMEM, NULL, "out of memory for the request");
    job->api = a;
    job->endpoint = endpoint;
    job->waited_us = o->waited_us;
    job->timeout_us = o->timeout_us;
    job->timings = o->timings;
    job->status = 200;
    job->created_s = clock_unix_s();
    job->arena = arena_open(ARENA_LIMIT);
    bool ok = job->arena || api_fail(e, ERR_NOMEM, NULL, "out of memory for the request");
    if (ok && read_body(job, body, len, o, e)) {
        *out = job;
        return true;
    }
    if (job->responses)
        api_responses_name_fault(e);
    api_job_close(&job);
    return false;
}

bool api_job_open(struct api_job **out, const struct api *a, enum api_endpoint endpoint, const char *body, size_t len,
                  const struct api_job_opts *o, struct api_error *e)
{
    if (!api_job_parse(out, a, endpoint, body, len, o, e))
        return false;
    if (!submit(*out, o, e)) {
        api_job_close(out);
        return false;
    }
    return true;
}

void api_job_close(struct api_job **pjob)
{
    struct api_job *job = *pjob;
    if (!job)
        return;
    *pjob = NULL;
    for (int32_t i = 0; i < job->n_prompts; i++) {
        struct api_prompt *p = &job->prompts[i];
        gen_close(&p->gen);
        for (int32_t k = 0; p->choices && k < job->n; k++) {
            api_reply_close(&p->choices[k]);
            buf_free(&p->choices[k].text);
            buf_free(&p->choices[k].ids);
            api_logprobs_free(&p->choices[k].lp);
        }
        mem_free(p->choices);
        api_logprobs_free(&p->lp);
        buf_free(&p->prompt_logprobs);
    }
    mem_free(job->prompts);
    api_responses_close(&job->responses);
    guide_unref(&job->guide);
    arena_close(&job->arena);
    json_decref(job->doc);
    mem_free(job);
}

bool api_job_streams(const struct api_job *job) { return job->f.stream; }
int api_job_status(const struct api_job *job) { return job->status; }

void api_job_stats(const struct api_job *job, struct api_job_stats *out)
{
    *out = (struct api_job_stats){.max_new = job->max_new, .times = job->times, .error = job->status >= 400 ? job->status : 0};
    for (int32_t i = 0; i < job->n_prompts; i++) {
        const struct api_prompt *p = &job->prompts[i];
        out->n_prompt += p->n;
        out->n_cached += p->n_cached;
        for (int32_t k = 0; p->choices && k < job->n && !out->error; k++)
            out->error = p->choices[k].ended && p->choices[k].finish == ENGINE_FINISH_ABORT ? 499 : 0;
        for (int32_t k = 0; p->choices && k < job->n; k++)
            out->n_completion += p->gen && k < job->request.engine.n ? gen_n_completion(p->gen, k) : p->choices[k].n_completion;
    }
}

/* ---- events ---- */

/* Whether each event is written as it comes. */
static bool is_live(const struct api_job *job) { return job->f.stream && !job->fake_stream; }

/* The first token of an echoed prompt has no prediction.  A BOS that the tokenizer added is not part of the text, so it
 * does not move the offsets of what follows. */
static void echo_first_token(struct api_job *job, struct api_prompt *p)
{
    size_t len = 0;
    const char *bytes = job->api->tok ? tok_token_bytes(job->api->tok, p->ids[0], &len) : NULL;
    api_logprobs_completion(&p->lp, job, p->ids[0], NAN, &(struct engine_logprobs){0}, 0, &p->n_chars);
    if (p->text && bytes && tok_is_special(job->api->tok, p->ids[0]) && (len > p->text_len || memcmp(bytes, p->text, len) != 0))
        p->n_chars = 0;
}

/* What comes before a choice's first token: the role, or the echoed prompt. */
static void begin_choice(struct api_job *job, struct api_prompt *p, int32_t choice, struct buf *out)
{
    struct api_choice *c = &p->choices[choice];
    if (job->endpoint == API_CHAT) {
        if (is_live(job) && job->responses)
            api_responses_begin(job, out);
        else if (is_live(job))
            api_openai_role(job, p, choice, out);
        c->started = true;
        return;
    }
    if (!job->f.echo)
        return;
    struct err err;
    if (p->text)
        buf_append(&c->text, p->text, p->text_len);
    else if (job->api->tok)
        c->text.failed |= !tok_decode(job->api->tok, p->ids, (size_t)p->n, TOK_DECODE_ALL, &c->text, &err);
    if (job->f.logprobs != API_UNSET) {
        if (p->lp.n == 0) /* a prompt of one token has no event of its own */
            echo_first_token(job, p);
        api_logprobs_append(&c->lp, &p->lp);
        c->n_chars = p->n_chars;
    }
}

static void add_prompt_logprobs(struct api_job *job, struct api_prompt *p, const struct gen_event *ev)
{
    if (job->f.prompt_logprobs != API_UNSET)
        api_logprobs_prompt(&p->prompt_logprobs, job, ev->token, ev->logprob, ev->rank, &ev->lp);
    if (!job->f.echo || job->endpoint == API_CHAT || job->f.logprobs == API_UNSET)
        return;
    if (p->lp.n == 0)
        echo_first_token(job, p);
    api_logprobs_completion(&p->lp, job, ev->token, ev->logprob, &ev->lp, (int32_t)job->f.logprobs, &p->n_chars);
}

static void add_token(struct api_job *job, struct api_choice *c, const struct gen_event *ev)
{
    if (job->f.return_token_ids)
        buf_printf(&c->ids, c->ids.len ? ",%d" : "%d", ev->token);
    if (job->f.logprobs == API_UNSET)
        return;
    if (job->endpoint == API_CHAT)
        api_logprobs_chat(&c->lp, job, ev->token, ev->logprob, &ev->lp, (int32_t)job->f.logprobs);
    else
        api_logprobs_completion(&c->lp, job, ev->token, ev->logprob, &ev->lp, (int32_t)job->f.logprobs, &c->n_chars);
}

/* Tokens whose text is held back make no event of their own, unless something else of theirs was asked for. */
static bool has_news(const struct api_job *job, const struct api_choice *c)
{
    return c->text.len > 0 || api_reply_has_news(c) || c->ended || c->lp.n > 0 || c->ids.len > 0 || job->f.continuous_usage;
}

static void on_delta(struct api_job *job, struct api_prompt *p, int32_t choice, const struct gen_event *ev, bool first, struct buf *out)
{
    struct api_choice *c = &p->choices[choice];
    if (first)
        begin_choice(job, p, choice, out);
    if (first && !api_reply_open(job, c))
        c->text.failed = true;
    api_reply_text(c, ev->text, ev->text_len, ev->finish != ENGINE_FINISH_NONE);
    if (ev->token >= 0)
        add_token(job, c, ev);
    if (ev->finish != ENGINE_FINISH_NONE) {
        c->ended = true;
        c->finish = ev->finish;
        c->stop_index = ev->stop_index;
        c->stop_token = ev->stop_token;
    }
    c->n_unsent += ev->token >= 0;
    if (job->responses) {
        /* A call that begins ends the text before it. */
        if (!is_live(job) || c->ended || c->n_unsent >= job->f.stream_interval || c->n_called > c->n_told) {
            api_responses_take(job, is_live(job) ? out : NULL);
            c->n_unsent = 0;
        }
    } else if (is_live(job) && has_news(job, c) && (first || c->ended || c->n_unsent >= job->f.stream_interval)) {
        api_openai_chunk(job, p, choice, out);
        c->n_unsent = 0;
    }
    out->failed |= c->text.failed;
}

/* ---- the end ---- */

static void prompt_done(struct api_job *job, struct api_prompt *p)
{
    struct engine_times t;
    p->done = true;
    job->n_done++;
    if (!p->gen)
        return;
    gen_times(p->gen, &t);
    p->n_cached = t.n_cached;
    api_timings_add(job, &t);
    for (int32_t k = 0; k < job->request.engine.n && !job->score_only; k++)
        p->choices[k].n_completion = gen_n_completion(p->gen, k);
    gen_close(&p->gen);
}

static void write_end(struct api_job *job, struct buf *out)
{
    job->finished = true;
    if (job->responses) {
        api_responses_end(job, out);
        if (!job->f.stream)
            api_timings_write(job, out);
        return;
    }
    if (!job->f.stream) {
        api_openai_body(job, out);
        api_timings_write(job, out);
        return;
    }
    if (job->fake_stream) {
        buf_puts(out, "data: ");
        api_openai_body(job, out);
        buf_puts(out, "\n\n");
    } else if (job->f.include_usage || job->timings) {
        api_openai_usage_chunk(job, out);
    }
    if (job->fake_stream || job->f.include_usage || job->timings)
        api_timings_write(job, out);
    buf_puts(out, "data: [DONE]\n\n");
}

static void write_error(struct api_job *job, const struct err *err, struct buf *out)
{
    struct api_error e;
    api_fail_err(&e, NULL, err);
    job->finished = true;
    job->status = e.status;
    for (int32_t i = 0; i < job->n_prompts; i++)
        gen_close(&job->prompts[i].gen);
    if (!job->f.stream) {
        api_error_write(&e, out);
        return;
    }
    if (job->responses) {
        api_responses_fail(job, &e, out);
        return;
    }
    buf_puts(out, "data: ");
    api_error_write(&e, out);
    buf_puts(out, "\n\ndata: [DONE]\n\n");
}

/* ---- pulling ---- */

/* The end of a prompt that was only echoed tells all choices at once. */
static void echo_only(struct api_job *job, struct api_prompt *p, struct buf *out)
{
    const struct gen_event end = {.type = GEN_DELTA, .token = -1, .finish = ENGINE_FINISH_LENGTH, .stop_index = -1, .stop_token = -1, .text = ""};
    for (int32_t k = 0; k < job->n; k++)
        on_delta(job, p, k, &end, true, out);
    prompt_done(job, p);
}

/* False: the request failed and the error was written. */
static bool pull_prompt(struct api_job *job, struct api_prompt *p, struct buf *out)
{
    struct gen_event ev;
    if (job->score_only && !p->gen) {
        echo_only(job, p, out);
        return true;
    }
    while (!p->done && (!is_live(job) || out->len < PULL_BYTES) && gen_next(p->gen, &ev)) {
        switch (ev.type) {
        case GEN_PROMPT:
            add_prompt_logprobs(job, p, &ev);
            break;
        case GEN_DELTA:
            if (!job->score_only)
                on_delta(job, p, ev.choice, &ev, !p->choices[ev.choice].begun, out);
            p->choices[ev.choice].begun = true;
            break;
        case GEN_DONE:
            if (job->score_only)
                echo_only(job, p, out);
            else
                prompt_done(job, p);
            break;
        case GEN_ERROR:
            write_error(job, &ev.error, out);
            return false;
        }
    }
    return true;
}

enum api_pull api_job_pull(struct api_job *job, struct buf *out)
{
    if (job->finished)
        return API_PULL_DONE;
    for (int32_t i = 0; i < job->n_prompts; i++)
        if (!job->prompts[i].done && !pull_prompt(job, &job->prompts[i], out))
            return API_PULL_DONE;
    if (out->failed) {
        buf_clear(out);
        write_error(job, &(struct err){.code = ERR_NOMEM, .msg = "out of memory for the answer"}, out);
    } else if (job->n_done == job->n_prompts) {
        write_end(job, out);
    }
    return job->finished ? API_PULL_DONE : API_PULL_MORE;
}
