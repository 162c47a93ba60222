/* One step: plan, run, sample, hand out. */
#include <math.h>
#include <string.h>
#include "base/clock.h"
#include "base/mem.h"
#include "engine/engine_int.h"

/* What a row of logits is for. */
enum row_use { ROW_SAMPLE, ROW_BEAM, ROW_PROMPT, ROW_HIDDEN, ROW_END };
struct row {
    enum row_use use;
    struct engine_stream *stream;
    struct choice *choice;       /* SAMPLE */
    struct sched_seq *seq;       /* BEAM */
    int32_t logit;               /* index of its logits; END has none */
    int32_t pos;                 /* PROMPT: of the predicted token; HIDDEN: of its own */
    int32_t work;                /* index among the sampler's rows or look-ups; -1: failed (the stream's why) */
};

/* Everything a step needs, sized once: no allocation per step. */
struct step_space {
    int32_t max_tokens, max_seqs, max_rows, stride, top_cap;
    int32_t *token_ids, *positions, *seq_start, *tables, *rope_len, *logit_rows;
    struct row *rows;            /* [max_rows + 2 max_seqs]: a group's fork draws several tokens from one row, ends need none */
    int32_t n_rows, cap_rows;
    struct sample_row *sample; int32_t n_sample;
    struct sample_lookup *lookup; int32_t n_lookup;
    int32_t *top_ids; float *top_logprobs;   /* [cap_rows][top_cap] */
    int32_t *copy_src, *copy_dst;
};

static void *space_array(size_t n, size_t elem, bool *ok)
{
    void *p = mem_try_zalloc(n, elem);
    *ok = *ok && p;
    return p;
}

struct step_space *step_space_open(struct engine *eng, struct err *e)
{
    struct step_space *sp = mem_try_zalloc(1, sizeof *sp);
    if (!sp)
        goto nomem;
    const struct engine_info *info = &eng->info;
    size_t tokens = (size_t)info->max_num_batched_tokens, seqs = (size_t)info->max_num_seqs;
    sp->max_tokens = info->max_num_batched_tokens;
    sp->max_seqs = info->max_num_seqs;
    sp->max_rows = eng->max_logits;
    sp->stride = (info->max_model_len + info->block_tokens - 1) / info->block_tokens + 1;
    sp->top_cap = info->max_logprobs * 2 + 2; /* beams ask for twice their width */
    sp->cap_rows = sp->max_rows + 2 * sp->max_seqs;
    size_t rows = (size_t)sp->cap_rows, tops;
    bool ok = mem_mul(rows, (size_t)sp->top_cap, &tops);
    sp->token_ids = space_array(tokens, sizeof(int32_t), &ok);
    sp->positions = space_array(tokens, sizeof(int32_t), &ok);
    sp->seq_start = space_array(seqs + 1, sizeof(int32_t), &ok);
    sp->tables = space_array(seqs * (size_t)sp->stride, sizeof(int32_t), &ok);
    sp->rope_len = space_array(seqs, sizeof(int32_t), &ok);
    sp->logit_rows = space_array((size_t)sp->max_rows, sizeof(int32_t), &ok);
    sp->rows = space_array(rows, sizeof *sp->rows, &ok);
    sp->sample = space_array(rows, sizeof *sp->sample, &ok);
    sp->lookup = space_array(rows, sizeof *sp->lookup, &ok);
    sp->top_ids = space_array(ok ? tops : 0, sizeof(int32_t), &ok);
    sp->top_logprobs = space_array(ok ? tops : 0, sizeof(float), &ok);
    sp->copy_src = space_array(seqs, sizeof(int32_t), &ok);
    sp->copy_dst = space_array(seqs, sizeof(int32_t), &ok);
    if (ok)
        return sp;
    step_space_close(&sp);
nomem:
    err_set(e, ERR_NOMEM, "out of memory for the step's arrays");
    return NULL;
}

void step_space_close(struct step_space **psp)
{
    struct step_space *sp = *psp;
    if (!sp)
        return;
    *psp = NULL;
    void *all[] = {sp->token_ids, sp->positions, sp->seq_start, sp->tables, sp->rope_len, sp->logit_rows, sp->rows,
                   sp->sample, sp->lookup, sp->top_ids, sp->top_logprobs, sp->copy_src, sp->copy_dst};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        mem_free(all[i]);
    mem_free(sp);
}

/* ---- building the batch ---- */

static struct engine_stream *stream_of(const struct sched_item *it)
{
    return ((struct choice *)sched_user(it->seq))->stream;
}

static void add_row(struct step_space *sp, struct fwd_batch *b, struct row r, int32_t token_row)
{
    if (b->n_logits == 0 || sp->logit_rows[b->n_logits - 1] != token_row)
        sp->logit_rows[b->n_logits++] = token_row;
    r.logit = b->n_logits - 1;
    sp->rows[sp->n_rows++] = r;
}

/* The hidden states that are pooled: once each, however often the prompt is computed again. */
static void add_hidden(struct step_space *sp, struct fwd_batch *b, const struct sched_item *it, struct engine_stream *st, int32_t first_row)
{
    for (int32_t i = 0; i < it->n_new; i++) {
        int32_t pos = it->start + i;
        bool wanted = st->pooling == ENGINE_POOL_MEAN || pos == (st->pooling == ENGINE_POOL_FIRST ? 0 : st->n_tokens - 1);
        if (wanted && pos >= st->prompt_done && pos < st->n_tokens) {
            add_row(sp, b, (struct row){.use = ROW_HIDDEN, .stream = st, .pos = pos}, first_row + i);
            st->prompt_done = pos + 1;
        }
    }
}

/* Which rows of this item's tokens have a use. */
static void add_rows(struct step_space *sp, struct fwd_batch *b, const struct sched_item *it, int32_t first_row)
{
    struct choice *c = sched_user(it->seq);
    struct engine_stream *st = c->stream;
    bool prompt_rows = st->params->n_prompt_logprobs >= 0 || st->want_logits;
    for (int32_t i = 0; prompt_rows && i < it->n_new; i++) {
        int32_t pos = it->start + i + 1;
        bool wanted = pos < st->n_tokens || (st->want_logits && pos == st->n_tokens);
        if (wanted && pos > st->prompt_done) {
            add_row(sp, b, (struct row){.use = ROW_PROMPT, .stream = st, .pos = pos}, first_row + i);
            st->prompt_done = pos;
        }
    }
    if (st->kind == ENGINE_EMBED)
        add_hidden(sp, b, it, st, first_row);
    if (!it->last)
        return;
    int32_t last = first_row + it->n_new - 1;
    if (st->kind != ENGINE_GENERATE)
        sp->rows[sp->n_rows++] = (struct row){.use = ROW_END, .stream = st};
    else if (st->beam)
        add_row(sp, b, (struct row){.use = ROW_BEAM, .stream = st, .seq = it->seq}, last);
    else if (c->state == CHOICE_LIVE)
        add_row(sp, b, (struct row){.use = ROW_SAMPLE, .stream = st, .choice = c}, last);
    else
        for (int32_t k = 0; k < st->n_total; k++) /* the prompt is done: every choice draws its first token here */
            if (st->choices[k].state == CHOICE_PENDING)
                add_row(sp, b, (struct row){.use = ROW_SAMPLE, .stream = st, .choice = &st->choices[k]}, last);
}

static void add_item(struct step_space *sp, struct fwd_batch *b, const struct sched_item *it)
{
    int32_t s = b->b.n_seqs++, row = b->b.n_tokens, n, n_table;
    const int32_t *tokens = sched_tokens(it->seq, &n);
    const int32_t *table = sched_block_table(it->seq, &n_table);
    for (int32_t i = 0; i < it->n_new; i++) {
        sp->token_ids[row + i] = tokens[it->start + i];
        sp->positions[row + i] = it->start + i;
    }
    if (n_table > sp->stride)
        n_table = sp->stride;
    memcpy(sp->tables + (size_t)s * (size_t)sp->stride, table, (size_t)n_table * sizeof *table);
    sp->rope_len[s] = stream_of(it)->rope_len;
    sp->seq_start[s] = row;
    b->b.n_tokens += it->n_new;
    sp->seq_start[s + 1] = b->b.n_tokens;
    add_rows(sp, b, it, row);
}

static void build_batch(struct step_space *sp, const struct sched_plan *plan, struct fwd_batch *b)
{
    sp->n_rows = sp->n_sample = sp->n_lookup = 0;
    *b = (struct fwd_batch){
        .b = {.token_ids = sp->token_ids, .positions = sp->positions, .seq_start = sp->seq_start, .block_tables = sp->tables,
              .table_stride = sp->stride},
        .rope_len = sp->rope_len, .logit_rows = sp->logit_rows,
    };
    for (int32_t i = 0; i < plan->n_items; i++)
        add_item(sp, b, &plan->items[i]);
}

/* ---- sampling ---- */

static void give_room(struct step_space *sp, int32_t row, struct sample_result *out)
{
    out->top_cap = sp->top_cap;
    out->top_ids = sp->top_ids + (size_t)row * (size_t)sp->top_cap;
    out->top_logprobs = sp->top_logprobs + (size_t)row * (size_t)sp->top_cap;
}

/* Choices beyond the first get their sampling state when the prompt is done. */
static bool open_sampling(struct choice *c, struct err *e)
{
    if (!c->sampling && c->index > 0)
        c->sampling = sample_seq_fork(c->stream->choices[0].sampling, c->index);
    if (!c->sampling)
        return err_set(e, ERR_NOMEM, "out of memory while generating");
    return c->guide || !c->stream->guide || guide_state_open(&c->guide, c->stream->guide, e);
}

/* Its token's row; false when the choice cannot go on (the stream's why). */
static bool add_sample(struct row *r, const float *logits, struct sample_row *out)
{
    struct choice *c = r->choice;
    if (!open_sampling(c, &r->stream->why))
        return false;
    *out = (struct sample_row){
        .logits = logits, .seq = c->sampling, .position = r->stream->n_tokens + c->n_generated, .n_generated = c->n_generated,
        .want_logprob = r->stream->want_logprob, .allowed = c->guide ? guide_state_mask(c->guide, &r->stream->why) : NULL,
    };
    return !c->guide || out->allowed;
}

static void sample_step(struct engine *eng, struct step_space *sp, float *logits)
{
    size_t vocab = (size_t)eng->info.vocab_size;
    for (int32_t i = 0; i < sp->n_rows; i++) {
        struct row *r = &sp->rows[i];
        const float *row = logits + (size_t)r->logit * vocab;
        if (r->use == ROW_SAMPLE) {
            r->work = sp->n_sample;
            if (!add_sample(r, row, &sp->sample[r->work])) {
                r->work = -1;
                continue;
            }
            sp->n_sample++;
            give_room(sp, i, &sp->sample[r->work].out);
        } else if (r->use == ROW_BEAM || r->use == ROW_PROMPT) {
            r->work = sp->n_lookup++;
            bool beam = r->use == ROW_BEAM;
            int32_t token = beam || r->pos >= r->stream->n_tokens ? -1 : r->stream->tokens[r->pos];
            int32_t n_top = beam ? beam_n_candidates(r->stream) : r->stream->params->n_prompt_logprobs;
            sp->lookup[r->work] = (struct sample_lookup){.logits = row, .token = token, .n_top = n_top > 0 ? n_top : 0};
            give_room(sp, i, &sp->lookup[r->work].out);
        }
    }
    if (sp->n_sample)
        sample_rows(eng->sampler, sp->sample, sp->n_sample);
    if (sp->n_lookup)
        sample_lookups(eng->sampler, sp->lookup, sp->n_lookup);
}

/* ---- handing out ---- */

static void emit_prompt(struct engine_stream *st, const struct row *r, const struct sample_result *res, const float *logits)
{
    bool has_token = r->pos < st->n_tokens, want = st->params->n_prompt_logprobs >= 0;
    struct engine_event ev = {
        .type = ENGINE_EV_PROMPT, .pos = r->pos, .token = has_token ? st->tokens[r->pos] : -1, .stop_token = -1,
        .logprob = has_token ? res->logprob : NAN, .rank = has_token ? res->rank : 0,
        .logits = st->want_logits ? logits : NULL,
    };
    if (want && has_token)
        ev.lp = (struct engine_logprobs){res->n_top, res->top_ids, res->top_logprobs};
    stream_emit(st, NULL, &ev);
}

/* The group's prompt is computed: each choice gets a sequence of its own before any token is appended. */
static bool fork_group(struct engine *eng, struct engine_stream *st)
{
    struct sched_seq *parent = st->choices[0].seq;
    for (int32_t k = 1; k < st->n_total; k++) {
        struct choice *c = &st->choices[k];
        if (c->state == CHOICE_ENDED) {
            sched_release_slots(eng->sched, parent, 1);
            continue;
        }
        c->seq = sched_fork(eng->sched, parent);
        if (!c->seq)
            return false;
        sched_set_user(c->seq, c);
        c->state = CHOICE_LIVE;
    }
    st->choices[0].state = CHOICE_LIVE;
    return true;
}

/* The only token that a mask allows, or -1. */
static int32_t only_token(const uint32_t *mask, int32_t vocab)
{
    int32_t found = -1;
    for (int32_t i = 0; i < (vocab + 31) / 32; i++) {
        if (!mask[i])
            continue;
        if (found >= 0 || (mask[i] & (mask[i] - 1)))
            return -1;
        found = i * 32 + __builtin_ctz(mask[i]);
    }
    return found < vocab ? found : -1;
}

/* Tokens that a guide leaves no choice about need no logits of their own: they follow at once, and the next step computes them
 * together.  Draws are numbered by position, so what comes after them is what would have come anyway.  Not where the sampler might
 * rule such a token out, nor where its probability is asked for.  How many. */
static int32_t jump_ahead(struct engine *eng, struct choice *c, int64_t now_us)
{
    int32_t n = 0;
    const struct engine_stream *st = c->stream;
    const struct sample_params *p = st->params;
    bool plain = !st->want_logprob && p->n_allowed == 0 && p->n_bad_words == 0 && p->n_bias == 0 && p->n_stop_ids == 0;
    while (plain && c->guide && c->state == CHOICE_LIVE && !st->finished && !c->cancelled && c->n_generated >= p->min_tokens) {
        struct err later;          /* the next step tells it */
        const uint32_t *mask = guide_state_mask(c->guide, &later);
        int32_t token = mask ? only_token(mask, eng->info.vocab_size) : -1;
        if (token < 0)
            break;
        n++;
        request_token(eng, c, &(struct sample_result){.token = token, .logprob = NAN}, now_us);
    }
    return n;
}

static void hand_out_sample(struct engine *eng, const struct step_space *sp, const struct row *r, int64_t now_us)
{
    struct engine_stream *st = r->stream;
    struct choice *c = r->choice;
    if (st->finished)
        return;
    if (r->work < 0) {
        request_fail(eng, st, st->why.code, st->why.msg);
        return;
    }
    if (st->choices[0].state == CHOICE_PENDING && !fork_group(eng, st)) {
        request_fail(eng, st, ERR_NOMEM, "out of memory while generating");
        return;
    }
    if (c->cancelled)
        request_cancel(eng, st, c->index, c->finish);
    else if (c->state == CHOICE_LIVE) {
        request_token(eng, c, &sp->sample[r->work].out, now_us);
        int32_t n = jump_ahead(eng, c, now_us);
        eng->metrics.forced_tokens += (uint64_t)n;
        engine_hist_observe(&eng->metrics.skipped_tokens, n);
    }
}

/* Prompt rows or the hidden state are all the request wanted: it is over when they are out. */
static void end_without_tokens(struct engine *eng, struct engine_stream *st)
{
    if (st->finished)
        return;
    request_end_choice(eng, &st->choices[0], ENGINE_FINISH_LENGTH);
    struct engine_event ev = {.type = ENGINE_EV_FINISH, .token = -1, .finish = ENGINE_FINISH_LENGTH, .stop_token = -1};
    stream_emit(st, NULL, &ev);
    request_check_done(eng, st);
}

/* One state, or the mean when the last one is there. */
static void hand_out_hidden(struct engine_stream *st, const struct row *r, const float *hidden)
{
    int32_t n = st->eng->info.hidden_size;
    struct engine_event ev = {.type = ENGINE_EV_HIDDEN, .token = -1, .stop_token = -1, .hidden = hidden};
    if (st->finished)
        return;
    if (!st->pooled) {
        stream_emit(st, NULL, &ev);
        return;
    }
    for (int32_t i = 0; i < n; i++)
        st->pooled[i] += (double)hidden[i];
    if (r->pos < st->n_tokens - 1)
        return;
    for (int32_t i = 0; i < n; i++)
        st->mean[i] = (float)(st->pooled[i] / st->n_tokens);
    ev.hidden = st->mean;
    stream_emit(st, NULL, &ev);
}

static void hand_out(struct engine *eng, struct step_space *sp, const float *logits, int64_t now_us)
{
    const float *hidden = fwd_hidden(eng->fwd);
    for (int32_t i = 0; i < sp->n_rows; i++) {
        const struct row *r = &sp->rows[i];
        struct engine_stream *st = r->stream;
        switch (r->use) {
        case ROW_PROMPT:
            emit_prompt(st, r, &sp->lookup[r->work].out, logits + (size_t)r->logit * (size_t)eng->info.vocab_size);
            break;
        case ROW_SAMPLE:
            hand_out_sample(eng, sp, r, now_us);
            break;
        case ROW_BEAM:
            if (!st->finished)
                beam_ready(eng, st, r->seq, &sp->lookup[r->work].out, now_us);
            break;
        case ROW_END:
            end_without_tokens(eng, st);
            break;
        case ROW_HIDDEN:
            hand_out_hidden(st, r, hidden + (size_t)r->logit * (size_t)eng->info.hidden_size);
            break;
        }
    }
}

/* First schedulings and cache hits, for times and metrics; before anything can end. */
static void note_scheduled(struct engine *eng, const struct sched_plan *plan, int64_t now_us)
{
    for (int32_t i = 0; i < plan->n_items; i++) {
        struct engine_stream *st = stream_of(&plan->items[i]);
        if (st->times.first_scheduled)
            continue;
        pthread_mutex_lock(&st->lock);
        st->times.first_scheduled = now_us;
        st->times.n_cached = sched_n_cached(plan->items[i].seq);
        pthread_mutex_unlock(&st->lock);
        atomic_fetch_sub(&eng->n_waiting, 1);
        engine_hist_observe(&eng->metrics.queue_time, (double)(now_us - st->times.submitted) / 1e6);
    }
}

static void copy_pages(struct engine *eng, struct step_space *sp, const struct sched_plan *plan)
{
    for (int32_t done = 0; done < plan->n_copies;) {
        int32_t n = 0;
        for (; n < sp->max_seqs && done < plan->n_copies; n++, done++) {
            sp->copy_src[n] = plan->copies[done].src;
            sp->copy_dst[n] = plan->copies[done].dst;
        }
        fwd_copy_blocks(eng->fwd, sp->copy_src, sp->copy_dst, n);
    }
}

/* Ending one sequence of a group ends its siblings, which the plan lists as well: streams first. */
static void expire(struct engine *eng, const struct sched_plan *plan)
{
    struct engine_stream *list = NULL;
    for (int32_t i = 0; i < plan->n_expired; i++) {
        struct engine_stream *st = ((struct choice *)sched_user(plan->expired[i]))->stream;
        if (!st->expired) {
            st->expired = true;
            st->next_expired = list;
            list = st;
        }
    }
    for (; list; list = list->next_expired)
        request_fail(eng, list, ERR_TIMEOUT, "the request's deadline passed");
}

static void fail_all(struct engine *eng, const struct err *e)
{
    eng->lost = true;
    log_error(eng->opts.log, "engine", "the device failed: %s", e->msg);
    while (eng->streams)
        request_fail(eng, eng->streams, ERR_INTERNAL, e->msg);
}

/* For engine_view and the pace.  t: begin, batch built, computed, sampled, handed out. */
static void note_step(struct engine *eng, const struct sched_plan *plan, const int64_t t[5])
{
    struct engine_step *st = &eng->steps[eng->metrics.n_steps % ENGINE_STEPS_KEPT];
    *st = (struct engine_step){
        .start_us = t[0] / 1000, .schedule_us = (int32_t)((t[1] - t[0]) / 1000), .forward_us = (int32_t)((t[2] - t[1]) / 1000),
        .sample_us = (int32_t)((t[3] - t[2]) / 1000), .emit_us = (int32_t)((t[4] - t[3]) / 1000),
        .n_tokens = plan->n_tokens, .n_seqs = plan->n_items,
    };
    for (int32_t i = 0; i < plan->n_items; i++)
        st->n_prefill += plan->items[i].n_new > 1 ? plan->items[i].n_new : 0;
    pace_note(&eng->pace, t[4] - t[0], st->n_prefill, st->n_tokens - st->n_prefill);
}

/* Whether the step computes tokens of any prompt. */
static bool prefills(const struct sched_plan *plan)
{
    for (int32_t i = 0; i < plan->n_items; i++)
        if (plan->items[i].start < stream_of(&plan->items[i])->n_tokens)
            return true;
    return false;
}

bool step_run(struct engine *eng)
{
    struct step_space *sp = eng->space;
    struct engine_metrics *m = &eng->metrics;
    struct sched_plan plan;
    struct fwd_batch batch;
    struct err e;
    float *logits;
    int64_t t0 = clock_now_ns(), now_us = t0 / 1000;
    sched_set_mixed_tokens(eng->sched, pace_tokens(&eng->pace));
    sched_plan(eng->sched, now_us, &plan);
    expire(eng, &plan);
    if (plan.n_items == 0)
        return plan.n_expired > 0;
    note_scheduled(eng, &plan, now_us);
    copy_pages(eng, sp, &plan);
    build_batch(sp, &plan, &batch);
    int64_t t1 = clock_now_ns();
    struct metrics_step counted = {.prefill = prefills(&plan), .n_seqs = plan.n_items, .n_admitted = plan.n_admitted};
    if (!fwd_run(eng->fwd, &batch, &logits, &e)) {
        counted.failed = true;
        metrics_step(eng, &counted);
        fail_all(eng, &e);
        return true;
    }
    int64_t t2 = clock_now_ns();
    sched_commit(eng->sched, &plan);
    sample_step(eng, sp, logits);
    int64_t t3 = clock_now_ns();
    hand_out(eng, sp, logits, t3 / 1000);
    int64_t t4 = clock_now_ns();
    const int64_t t[] = {t0, t1, t2, t3, t4};
    note_step(eng, &plan, t);
    counted.t_ns = t;
    metrics_step(eng, &counted);
    m->n_steps++;
    m->step_seconds += (double)(t4 - t0) / 1e9;
    m->forward_seconds += (double)(t2 - t1) / 1e9;
    m->sample_seconds += (double)(t3 - t2) / 1e9;
    m->schedule_seconds += (double)(t1 - t0 + t4 - t3) / 1e9;
    engine_hist_observe(&m->iteration_tokens, plan.n_tokens);
    if (eng->trace) {
        trace_step(eng->trace, "schedule", t0, t1, plan.n_tokens, plan.n_items);
        trace_step(eng->trace, "forward", t1, t2, plan.n_tokens, plan.n_items);
        trace_step(eng->trace, "sample", t2, t3, plan.n_tokens, plan.n_items);
        trace_step(eng->trace, "emit", t3, t4, plan.n_tokens, plan.n_items);
    }
    return true;
}
