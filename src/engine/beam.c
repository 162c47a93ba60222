/* Beam search: hypotheses are sequences that fork and end; pages are shared as with n > 1.
 *
 * Each live beam's row gives its 2 * width most likely next tokens.  When all live beams have theirs, the
 * best width candidates over all beams go on; those that end with an end-of-sequence token are set aside.  Score at the end:
 * sum of log-probabilities / length^length_penalty, length counting prompt and output without a final
 * end-of-sequence token (vLLM's definition). */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/mem.h"
#include "base/vec.h"
#include "engine/engine_int.h"

struct beam {
    struct sched_seq *seq;       /* NULL once complete */
    int32_t *tokens;             /* generated so far */
    float *logprobs;             /* of tokens */
    int32_t n, cap;
    double cumulative;
    bool ready;
    bool ended_eos;
    int32_t n_cand;
    int32_t *cand_ids;           /* [2 * width] */
    float *cand_logprobs;
};

struct candidate { int32_t beam, token; float logprob; double cumulative; };

struct beam_state {
    int32_t width, n_cand;
    struct beam **live; int32_t n_live;
    struct beam **complete; size_t n_complete, cap_complete;
    struct candidate *cands;     /* [width * n_cand] */
    struct beam **next;          /* [width], scratch */
};

static void beam_free(struct beam **pb)
{
    struct beam *b = *pb;
    if (!b)
        return;
    *pb = NULL;
    mem_free(b->tokens);
    mem_free(b->logprobs);
    mem_free(b->cand_ids);
    mem_free(b->cand_logprobs);
    mem_free(b);
}

static bool beam_reserve(struct beam *b, int32_t n)
{
    size_t cap = (size_t)b->cap;
    if (n <= b->cap)
        return true;
    cap = cap * 2 > (size_t)n ? cap * 2 : (size_t)n + 16;
    int32_t *t = mem_try_realloc(b->tokens, cap, sizeof *t);
    if (t)
        b->tokens = t;
    float *l = mem_try_realloc(b->logprobs, cap, sizeof *l);
    if (l)
        b->logprobs = l;
    if (!t || !l)
        return false;
    b->cap = (int32_t)cap;
    return true;
}

/* A new hypothesis: parent's tokens plus one. */
static struct beam *beam_extend(const struct beam_state *bs, const struct beam *parent, const struct candidate *c)
{
    struct beam *b = mem_try_zalloc(1, sizeof *b);
    int32_t n = parent ? parent->n : 0;
    if (!b)
        return NULL;
    b->cand_ids = mem_try_zalloc((size_t)bs->n_cand, sizeof *b->cand_ids);
    b->cand_logprobs = mem_try_zalloc((size_t)bs->n_cand, sizeof *b->cand_logprobs);
    if (!b->cand_ids || !b->cand_logprobs || !beam_reserve(b, n + 1)) {
        beam_free(&b);
        return NULL;
    }
    if (n) {
        memcpy(b->tokens, parent->tokens, (size_t)n * sizeof *b->tokens);
        memcpy(b->logprobs, parent->logprobs, (size_t)n * sizeof *b->logprobs);
    }
    if (c) {
        b->tokens[n] = c->token;
        b->logprobs[n] = c->logprob;
        b->n = n + 1;
        b->cumulative = c->cumulative;
    }
    return b;
}

bool beam_open(struct engine_stream *st, struct sched_seq *seq)
{
    struct beam_state *bs = mem_try_zalloc(1, sizeof *bs);
    if (!bs)
        return false;
    st->beams = bs;
    bs->width = st->n_total;
    bs->n_cand = 2 * bs->width;
    if (bs->n_cand > st->eng->info.vocab_size)
        bs->n_cand = st->eng->info.vocab_size;
    bs->live = mem_try_zalloc((size_t)bs->width, sizeof *bs->live);
    bs->next = mem_try_zalloc((size_t)bs->width, sizeof *bs->next);
    bs->cands = mem_try_zalloc((size_t)bs->width * (size_t)bs->n_cand, sizeof *bs->cands);
    if (!bs->live || !bs->next || !bs->cands || !(bs->live[0] = beam_extend(bs, NULL, NULL)))
        return false; /* beam_close cleans up */
    bs->live[0]->seq = seq;
    bs->n_live = 1;
    st->choices[0].seq = NULL; /* sequences belong to beams from here on */
    return true;
}

void beam_close(struct engine *eng, struct engine_stream *st)
{
    struct beam_state *bs = st->beams;
    if (!bs)
        return;
    st->beams = NULL;
    for (int32_t i = 0; i < bs->n_live; i++) {
        if (bs->live[i]->seq)
            sched_end(eng->sched, bs->live[i]->seq);
        beam_free(&bs->live[i]);
    }
    for (size_t i = 0; i < bs->n_complete; i++)
        beam_free(&bs->complete[i]);
    mem_free(bs->live);
    mem_free(bs->next);
    mem_free(bs->complete);
    mem_free(bs->cands);
    mem_free(bs);
}

int32_t beam_n_candidates(const struct engine_stream *st) { return st->beams->n_cand; }

/* Higher score first; ties by older beam, then lower id, so that results never depend on sorting. */
static int compare_candidates(const void *a, const void *b)
{
    const struct candidate *x = a, *y = b;
    if (x->cumulative != y->cumulative)
        return x->cumulative < y->cumulative ? 1 : -1;
    if (x->beam != y->beam)
        return x->beam - y->beam;
    return (x->token > y->token) - (x->token < y->token);
}

static bool is_eos(const struct engine *eng, const struct engine_stream *st, int32_t token)
{
    for (int i = 0; !st->params->ignore_eos && i < eng->generation.n_eos_ids; i++)
        if (eng->generation.eos_ids[i] == token)
            return true;
    for (int32_t i = 0; i < st->params->n_stop_ids; i++)
        if (st->params->stop_ids[i] == token)
            return true;
    return false;
}

static bool add_complete(struct beam_state *bs, struct beam *b)
{
    if (!b || !vec_reserve((void **)&bs->complete, &bs->cap_complete, bs->n_complete + 1, sizeof *bs->complete)) {
        beam_free(&b);
        return false;
    }
    bs->complete[bs->n_complete++] = b;
    return true;
}

/* Choose who goes on.  False: out of memory. */
static bool select_next(struct engine *eng, struct engine_stream *st, int32_t *n_next, struct candidate *chosen)
{
    struct beam_state *bs = st->beams;
    int32_t n = 0;
    for (int32_t i = 0; i < bs->n_live; i++)
        for (int32_t k = 0; k < bs->live[i]->n_cand; k++)
            bs->cands[n++] = (struct candidate){i, bs->live[i]->cand_ids[k], bs->live[i]->cand_logprobs[k],
                                                bs->live[i]->cumulative + bs->live[i]->cand_logprobs[k]};
    qsort(bs->cands, (size_t)n, sizeof *bs->cands, compare_candidates);
    *n_next = 0;
    for (int32_t i = 0; i < n && *n_next < bs->width; i++) {
        const struct candidate *c = &bs->cands[i];
        if (is_eos(eng, st, c->token)) {
            struct beam *b = beam_extend(bs, bs->live[c->beam], c);
            if (b)
                b->ended_eos = true;
            if (!add_complete(bs, b))
                return false;
        } else {
            chosen[(*n_next)++] = *c;
        }
    }
    return true;
}

/* Turn the chosen candidates into sequences: the first child of a beam keeps its sequence, others fork; childless
 * beams end first, so that the group never holds more than width slots. */
static bool advance(struct engine *eng, struct engine_stream *st, const struct candidate *chosen, int32_t n_next)
{
    struct beam_state *bs = st->beams;
    bool ok = true;
    for (int32_t i = 0; i < bs->n_live; i++) {
        bool has_child = false;
        for (int32_t k = 0; k < n_next; k++)
            has_child |= chosen[k].beam == i;
        if (!has_child) {
            sched_end(eng->sched, bs->live[i]->seq);
            bs->live[i]->seq = NULL;
        }
    }
    for (int32_t k = 0; k < n_next; k++) {
        struct beam *parent = bs->live[chosen[k].beam], *b = beam_extend(bs, parent, &chosen[k]);
        bs->next[k] = b;
        bool later_sibling = false;
        for (int32_t j = k + 1; j < n_next; j++)
            later_sibling |= chosen[j].beam == chosen[k].beam;
        if (!b)
            ok = false;
        else if (later_sibling)
            b->seq = sched_fork(eng->sched, parent->seq);
        else
            b->seq = parent->seq, parent->seq = NULL;
        ok = ok && b->seq;
    }
    for (int32_t i = 0; i < bs->n_live; i++) {
        if (bs->live[i]->seq)
            sched_end(eng->sched, bs->live[i]->seq);
        beam_free(&bs->live[i]);
    }
    bs->n_live = 0;
    for (int32_t k = 0; k < n_next; k++) {
        if (bs->next[k])
            bs->live[bs->n_live++] = bs->next[k];
        ok = ok && sched_append(eng->sched, bs->next[k]->seq, chosen[k].token);
    }
    return ok;
}

static double score(const struct engine_stream *st, const struct beam *b)
{
    double len = st->n_tokens + b->n - (b->ended_eos ? 1 : 0);
    return b->cumulative / pow(len > 0 ? len : 1, st->length_penalty);
}

static void emit_beam(struct engine_stream *st, int32_t choice, const struct beam *b)
{
    double cumulative = 0;
    struct choice *c = &st->choices[choice];
    for (int32_t i = 0; i < b->n; i++) {
        bool last = i + 1 == b->n;
        cumulative += b->logprobs[i];
        struct engine_event ev = {
            .type = ENGINE_EV_TOKEN, .choice = choice, .token = b->tokens[i], .logprob = b->logprobs[i], .stop_token = -1,
            .is_eos = last && b->ended_eos, .cumulative_logprob = cumulative,
            .finish = !last ? ENGINE_FINISH_NONE : b->ended_eos ? ENGINE_FINISH_STOP : ENGINE_FINISH_LENGTH,
        };
        stream_emit(st, c, &ev);
    }
    c->n_generated = b->n;
    c->cumulative = cumulative;
    c->finish = b->ended_eos ? ENGINE_FINISH_STOP : ENGINE_FINISH_LENGTH;
}

/* The best n of complete and live hypotheses become the choices. */
static void finish(struct engine *eng, struct engine_stream *st, int64_t now_us)
{
    struct beam_state *bs = st->beams;
    for (int32_t k = 0; k < st->n; k++) {
        struct beam **best = NULL;
        for (size_t i = 0; i < bs->n_complete + (size_t)bs->n_live; i++) {
            struct beam **b = i < bs->n_complete ? &bs->complete[i] : &bs->live[i - bs->n_complete];
            if ((*b)->n > 0 && !(*b)->ready && (!best || score(st, *b) > score(st, *best)))
                best = b;
        }
        if (!best)
            break;
        emit_beam(st, k, *best);
        (*best)->ready = true; /* taken */
        eng->metrics.generation_tokens += (uint64_t)(*best)->n;
    }
    pthread_mutex_lock(&st->lock);
    st->times.last_token = now_us;
    for (int32_t k = 0; k < st->n; k++)
        st->times.n_generated += st->choices[k].n_generated;
    pthread_mutex_unlock(&st->lock);
    for (int32_t i = 0; i < st->n_total; i++)
        st->choices[i].state = CHOICE_ENDED;
    st->n_ended = st->n_total;
    request_check_done(eng, st);
}

static bool all_ready(const struct beam_state *bs)
{
    for (int32_t i = 0; i < bs->n_live; i++)
        if (!bs->live[i]->ready)
            return false;
    return true;
}

void beam_ready(struct engine *eng, struct engine_stream *st, struct sched_seq *seq, const struct sample_result *r, int64_t now_us)
{
    struct beam_state *bs = st->beams;
    for (int32_t i = 0; i < bs->n_live; i++) {
        struct beam *b = bs->live[i];
        if (b->seq != seq)
            continue;
        b->n_cand = r->n_top < bs->n_cand ? r->n_top : bs->n_cand;
        memcpy(b->cand_ids, r->top_ids, (size_t)b->n_cand * sizeof *b->cand_ids);
        memcpy(b->cand_logprobs, r->top_logprobs, (size_t)b->n_cand * sizeof *b->cand_logprobs);
        b->ready = true;
    }
    if (!all_ready(bs))
        return;
    pthread_mutex_lock(&st->lock);
    if (!st->times.first_token)
        st->times.first_token = now_us;
    pthread_mutex_unlock(&st->lock);
    int32_t n_next = 0, length = bs->live[0]->n + 1;
    struct candidate *chosen = mem_try_zalloc((size_t)bs->width, sizeof *chosen);
    bool ok = chosen && select_next(eng, st, &n_next, chosen);
    if (ok && n_next > 0 && length >= st->max_new) {
        /* The last step: extend without computing further. */
        for (int32_t k = 0; ok && k < n_next; k++)
            ok = add_complete(bs, beam_extend(bs, bs->live[chosen[k].beam], &chosen[k]));
        n_next = 0;
    }
    if (ok && n_next > 0)
        ok = advance(eng, st, chosen, n_next);
    else if (ok) {
        for (int32_t i = 0; i < bs->n_live; i++)
            bs->live[i]->ready = true; /* superseded by their extensions */
        finish(eng, st, now_us);
    }
    mem_free(chosen);
    if (!ok)
        request_fail(eng, st, ERR_NOMEM, "out of memory in beam search");
}
