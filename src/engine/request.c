/* The life of a request on the engine thread: admission, tokens, ends. */
#include <math.h>
#include <string.h>
#include "base/clock.h"
#include "base/hash.h"
#include "base/mem.h"
#include "engine/engine_int.h"

static bool id_in(int32_t id, const int32_t *ids, int32_t n)
{
    for (int32_t i = 0; i < n; i++)
        if (ids[i] == id)
            return true;
    return false;
}

/* ---- the list of live streams ---- */

static void list_add(struct engine *eng, struct engine_stream *st)
{
    st->prev = NULL;
    st->next = eng->streams;
    if (st->next)
        st->next->prev = st;
    eng->streams = st;
}

static void list_remove(struct engine *eng, struct engine_stream *st)
{
    if (st->prev)
        st->prev->next = st->next;
    else
        eng->streams = st->next;
    if (st->next)
        st->next->prev = st->prev;
    st->prev = st->next = NULL;
}

/* ---- ends ---- */

static void free_choice(struct engine *eng, struct choice *c)
{
    if (c->seq)
        sched_end(eng->sched, c->seq);
    c->seq = NULL;
    sample_seq_close(&c->sampling);
    guide_state_close(&c->guide);
}

/* The stream's last event was emitted: give back all it holds.  The engine's reference is dropped in stream_flush. */
static void finish_stream(struct engine *eng, struct engine_stream *st, enum engine_finish finish, bool error)
{
    beam_close(eng, st);
    for (int32_t i = 0; i < st->n_total; i++) {
        free_choice(eng, &st->choices[i]);
        evq_free(&st->choices[i].held);
    }
    if (!st->times.first_scheduled)
        atomic_fetch_sub(&eng->n_waiting, 1);
    pthread_mutex_lock(&st->lock);
    st->times.finished = clock_now_us();
    pthread_mutex_unlock(&st->lock);
    metrics_request_done(eng, st, finish, error);
    log_info(eng->opts.log, "request", "id=%s prompt=%d cached=%d generated=%d finish=%s total_ms=%.1f", st->id, st->n_tokens,
             st->times.n_cached, st->times.n_generated,
             error ? "error" : finish == ENGINE_FINISH_STOP ? "stop" : finish == ENGINE_FINISH_LENGTH ? "length" : "abort",
             (double)(st->times.finished - st->times.submitted) / 1e3);
    list_remove(eng, st);
    st->finished = true;
    atomic_fetch_sub(&eng->n_streams, 1);
    stream_touch(st);
}

void request_fail(struct engine *eng, struct engine_stream *st, enum err_code code, const char *message)
{
    if (st->finished)
        return;
    struct engine_event ev = {.type = ENGINE_EV_ERROR, .code = code, .message = message, .stop_token = -1};
    stream_emit(st, NULL, &ev);
    finish_stream(eng, st, ENGINE_FINISH_ABORT, true);
}

/* best_of: the n choices of the highest mean log-probability, renumbered, with their held events. */
static void release_best(struct engine_stream *st)
{
    const struct engine_info *info = &st->eng->info;
    for (int32_t k = 0; k < st->n; k++) {
        struct choice *best = NULL;
        for (int32_t i = 0; i < st->n_total; i++) {
            struct choice *c = &st->choices[i];
            if (!c->held.first)
                continue;
            double mean = c->cumulative / (c->n_generated ? c->n_generated : 1);
            if (!best || mean > best->cumulative / (best->n_generated ? best->n_generated : 1))
                best = c;
        }
        if (!best)
            break;
        struct engine_event ev;
        pthread_mutex_lock(&st->lock);
        st->events.failed |= best->held.failed;
        while (evq_pop(&best->held, &ev)) {
            ev.choice = k;
            evq_push(&st->events, &ev, info->vocab_size, info->hidden_size);
        }
        pthread_mutex_unlock(&st->lock);
        evq_free(&best->held);
    }
}

void request_check_done(struct engine *eng, struct engine_stream *st)
{
    if (st->finished || st->n_ended < st->n_total)
        return;
    if (st->n_total > st->n && !st->beam)
        release_best(st);
    struct engine_event ev = {.type = ENGINE_EV_DONE, .stop_token = -1};
    stream_emit(st, NULL, &ev);
    finish_stream(eng, st, st->choices[0].finish, false);
}

void request_end_choice(struct engine *eng, struct choice *c, enum engine_finish finish)
{
    if (c->state == CHOICE_ENDED)
        return;
    c->state = CHOICE_ENDED;
    c->finish = finish;
    c->stream->n_ended++;
    free_choice(eng, c);
}

void request_cancel(struct engine *eng, struct engine_stream *st, int32_t choice, enum engine_finish finish)
{
    if (st->finished)
        return;
    for (int32_t i = 0; i < st->n_total; i++) {
        struct choice *c = &st->choices[i];
        if ((choice >= 0 && choice != i) || c->state == CHOICE_ENDED)
            continue;
        /* Choice 0 carries the prompt until the fork; its siblings' cancellation waits for that. */
        if (choice == 0 && c->state == CHOICE_PENDING && st->n_total > 1) {
            c->cancelled = true;
            c->finish = finish;
            continue;
        }
        request_end_choice(eng, c, finish);
        struct engine_event ev = {.type = ENGINE_EV_FINISH, .choice = i, .token = -1, .finish = finish, .stop_token = -1,
                                  .cumulative_logprob = c->cumulative};
        stream_emit(st, c, &ev);
    }
    request_check_done(eng, st);
}

/* ---- start ---- */

static bool open_choices(struct engine *eng, struct engine_stream *st, struct sched_seq *seq, struct err *e)
{
    for (int32_t i = 0; i < st->n_total; i++)
        st->choices[i] = (struct choice){.stream = st, .index = i, .state = CHOICE_PENDING};
    st->choices[0].seq = seq;
    if (st->beam)
        return beam_open(st, seq) || err_set(e, ERR_NOMEM, "out of memory");
    if (st->kind != ENGINE_GENERATE)
        return true;
    return sample_seq_open(&st->choices[0].sampling, eng->sampler, st->params, st->seed, 0, st->tokens, st->n_tokens, e);
}

void request_admit(struct engine *eng, struct engine_stream *st)
{
    struct err e;
    struct sched_seq *seq = NULL;
    bool pools = st->kind == ENGINE_EMBED && st->pooling != ENGINE_POOL_LAST;
    bool prompt_rows = st->params->n_prompt_logprobs >= 0 || st->want_logits || pools;
    struct sched_request r = {
        .tokens = st->tokens, .n_tokens = st->n_tokens, .max_new_tokens = st->max_new, .n_choices = st->n_total,
        .priority = st->priority, .arrival_us = st->times.submitted, .deadline_us = st->deadline_us, .salt = st->salt,
        .all_rows = prompt_rows, .user = &st->choices[0],
    };
    list_add(eng, st);
    metrics_request_start(eng, st);
    if (!sched_add(eng->sched, &r, &seq, &e) || !open_choices(eng, st, seq, &e)) {
        if (seq && !st->choices[0].seq)
            sched_end(eng->sched, seq);
        request_fail(eng, st, e.code, e.msg);
    }
}

/* ---- tokens ---- */

static enum engine_finish why_ended(const struct engine *eng, const struct engine_stream *st, int32_t n_generated, int32_t token,
                                    bool *is_end_token, int32_t *stop_token)
{
    bool ignore_eos = st->params->ignore_eos && !st->guide; /* past a complete output nothing is left to draw */
    bool eos = id_in(token, eng->generation.eos_ids, eng->generation.n_eos_ids) && !ignore_eos;
    bool stop = id_in(token, st->params->stop_ids, st->params->n_stop_ids);
    *is_end_token = eos || stop;
    *stop_token = stop && !eos ? token : -1;
    if (n_generated >= st->max_new && !*is_end_token)
        return ENGINE_FINISH_LENGTH;
    return *is_end_token ? ENGINE_FINISH_STOP : ENGINE_FINISH_NONE;
}

void request_token(struct engine *eng, struct choice *c, const struct sample_result *r, int64_t now_us)
{
    struct engine_stream *st = c->stream;
    c->n_generated++;
    if (!isnan(r->logprob))
        c->cumulative += r->logprob;
    struct engine_event ev = {
        .type = ENGINE_EV_TOKEN, .choice = c->index, .token = r->token, .logprob = r->logprob, .rank = r->rank,
        .lp = {r->n_top, r->top_ids, r->top_logprobs}, .cumulative_logprob = c->cumulative,
    };
    ev.finish = why_ended(eng, st, c->n_generated, r->token, &ev.is_eos, &ev.stop_token);
    struct err e;
    if (c->guide && !ev.is_eos) {
        if (!guide_state_advance(c->guide, r->token, &e)) {
            request_fail(eng, st, e.code, e.msg);
            return;
        }
        if (guide_state_ended(c->guide)) /* complete, and nothing but an end could follow: it need not be drawn */
            ev.finish = ENGINE_FINISH_STOP;
    }
    bool stored = ev.finish != ENGINE_FINISH_NONE ||
                  (sched_append(eng->sched, c->seq, r->token) && sample_seq_push(c->sampling, r->token));
    pthread_mutex_lock(&st->lock);
    if (!st->times.first_token)
        st->times.first_token = now_us;
    st->times.last_token = now_us;
    st->times.n_generated++;
    pthread_mutex_unlock(&st->lock);
    if (c->last_token_us)
        engine_hist_observe(&eng->metrics.itl, (double)(now_us - c->last_token_us) / 1e6);
    c->last_token_us = now_us;
    eng->metrics.generation_tokens++;
    stream_emit(st, c, &ev);
    if (!stored) {
        request_fail(eng, st, ERR_NOMEM, "out of memory while generating");
        return;
    }
    if (ev.finish != ENGINE_FINISH_NONE) {
        request_end_choice(eng, c, ev.finish);
        request_check_done(eng, st);
    }
}
