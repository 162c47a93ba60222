/* The sampler: logits processors, truncation, one draw a row. */
#include "sample/sample.h"

#include <math.h>
#include <string.h>
#include "base/hash.h"
#include "base/mem.h"
#include "base/rng.h"
#include "base/vec.h"
#include "sample/sample_int.h"

/* ---- the sampler ---- */

bool sampler_open(struct sampler **out, struct dev *d, const struct sample_env *env, struct err *e)
{
    struct sampler *s = mem_try_zalloc(1, sizeof *s);
    *out = NULL;
    if (!s)
        return err_set(e, ERR_NOMEM, "out of memory");
    s->dev = d;
    s->math = dev_math(d);
    s->vocab = env->vocab_size;
    s->seed = env->seed;
    s->n_members = dev_caps(d)->n_threads;
    s->eos_ids = mem_try_zalloc((size_t)env->n_eos, sizeof *s->eos_ids);
    s->scratch = mem_try_zalloc((size_t)s->n_members, sizeof *s->scratch);
    bool ok = s->eos_ids && s->scratch;
    for (int i = 0; ok && i < s->n_members; i++) {
        struct scratch *sc = &s->scratch[i];
        sc->row = mem_try_alloc((size_t)s->vocab, sizeof *sc->row);
        sc->weights = mem_try_alloc((size_t)s->vocab, sizeof *sc->weights);
        sc->keys = mem_try_alloc((size_t)s->vocab, sizeof *sc->keys);
        sc->near_weights = mem_try_alloc((size_t)s->vocab, sizeof *sc->near_weights);
        sc->ids = mem_try_alloc((size_t)s->vocab, sizeof *sc->ids);
        sc->cut_keys = mem_try_alloc((size_t)s->vocab, sizeof *sc->cut_keys);
        sc->cut_weights = mem_try_alloc((size_t)s->vocab, sizeof *sc->cut_weights);
        sc->from = mem_try_alloc((size_t)(s->vocab / SAMPLE_CUT_BLOCK + 2), sizeof *sc->from);
        sc->blocks = mem_try_alloc((size_t)(s->vocab / SAMPLE_CUT_BLOCK + 1), sizeof *sc->blocks);
        sc->cands = mem_try_alloc((size_t)s->vocab, sizeof *sc->cands);
        ok = sc->row && sc->weights && sc->keys && sc->near_weights && sc->ids && sc->cut_keys && sc->cut_weights && sc->from && sc->blocks &&
             sc->cands;
    }
    if (!ok) {
        sampler_close(&s);
        return err_set(e, ERR_NOMEM, "out of memory for the sampler");
    }
    s->n_eos = env->n_eos;
    if (env->n_eos)
        memcpy(s->eos_ids, env->eos_ids, (size_t)env->n_eos * sizeof *s->eos_ids);
    *out = s;
    return true;
}

void sampler_close(struct sampler **ps)
{
    struct sampler *s = *ps;
    if (!s)
        return;
    *ps = NULL;
    for (int i = 0; s->scratch && i < s->n_members; i++) {
        struct scratch *sc = &s->scratch[i];
        void *all[] = {sc->row, sc->weights, sc->keys, sc->near_weights, sc->ids, sc->cut_keys, sc->cut_weights, sc->from, sc->blocks, sc->cands};
        for (size_t k = 0; k < sizeof all / sizeof all[0]; k++)
            mem_free(all[k]);
    }
    mem_free(s->scratch);
    mem_free(s->eos_ids);
    mem_free(s);
}

/* ---- a sequence's memory ---- */

static bool has_penalties(const struct sample_params *p)
{
    return p->repetition_penalty != 1 || p->frequency_penalty != 0 || p->presence_penalty != 0;
}

static bool see(struct sample_seq *q, int32_t id, int32_t n_output)
{
    int64_t at;
    if (hash_u64_get(q->seen_at, (uint64_t)id, &at)) {
        q->seen[at].n_output += n_output;
        return true;
    }
    if (!vec_reserve((void **)&q->seen, &q->cap_seen, q->n_seen + 1, sizeof *q->seen) ||
        !hash_u64_put(q->seen_at, (uint64_t)id, (int64_t)q->n_seen))
        return false;
    q->seen[q->n_seen++] = (struct seen){id, n_output};
    return true;
}

bool sample_seq_open(struct sample_seq **out, const struct sampler *s, const struct sample_params *params, uint64_t fallback_seed,
                     int32_t choice, const int32_t *prompt, int32_t n_prompt, struct err *e)
{
    struct sample_seq *q = mem_try_zalloc(1, sizeof *q);
    *out = NULL;
    if (!q)
        return err_set(e, ERR_NOMEM, "out of memory");
    q->sampler = s;
    q->params = params;
    q->seed = params->has_seed ? params->seed : fallback_seed;
    q->choice = choice;
    q->last = n_prompt > 0 ? prompt[n_prompt - 1] : -1;
    bool ok = true;
    if (has_penalties(params)) {
        q->seen_at = hash_u64_open((size_t)n_prompt);
        ok = q->seen_at != NULL;
        /* Only repetition_penalty looks at the prompt. */
        for (int32_t i = 0; ok && params->repetition_penalty != 1 && i < n_prompt; i++)
            ok = see(q, prompt[i], 0);
    }
    if (!ok) {
        sample_seq_close(&q);
        return err_set(e, ERR_NOMEM, "out of memory");
    }
    *out = q;
    return true;
}

struct sample_seq *sample_seq_fork(const struct sample_seq *from, int32_t choice)
{
    struct sample_seq *q = mem_try_zalloc(1, sizeof *q);
    if (!q)
        return NULL;
    *q = (struct sample_seq){.sampler = from->sampler, .params = from->params, .seed = from->seed, .choice = choice, .last = from->last};
    bool ok = !from->seen_at || (q->seen_at = hash_u64_open(from->n_seen));
    for (size_t i = 0; ok && i < from->n_seen; i++)
        ok = see(q, from->seen[i].id, from->seen[i].n_output);
    ok = ok && vec_reserve((void **)&q->output, &q->cap_output, from->n_output, sizeof *q->output);
    if (!ok) {
        sample_seq_close(&q);
        return NULL;
    }
    if (from->n_output)
        memcpy(q->output, from->output, from->n_output * sizeof *q->output);
    q->n_output = from->n_output;
    return q;
}

bool sample_seq_push(struct sample_seq *q, int32_t token)
{
    q->last = token;
    if (q->seen_at && !see(q, token, 1))
        return false;
    if (q->params->n_bad_words == 0)
        return true;
    if (!vec_reserve((void **)&q->output, &q->cap_output, q->n_output + 1, sizeof *q->output))
        return false;
    q->output[q->n_output++] = token;
    return true;
}

void sample_seq_close(struct sample_seq **pq)
{
    struct sample_seq *q = *pq;
    if (!q)
        return;
    *pq = NULL;
    hash_u64_close(&q->seen_at);
    mem_free(q->seen);
    mem_free(q->output);
    mem_free(q);
}

/* ---- logits processors, in the documented order ---- */

static void mask_bad_words(const struct sample_seq *q, float *x)
{
    const struct sample_params *p = q->params;
    for (int32_t i = 0; i < p->n_bad_words; i++) {
        const struct sample_word *w = &p->bad_words[i];
        size_t prefix = (size_t)w->n - 1;
        if (prefix <= q->n_output &&
            (prefix == 0 || memcmp(q->output + q->n_output - prefix, w->ids, prefix * sizeof *w->ids) == 0))
            x[w->ids[prefix]] = -INFINITY;
    }
}

static void mask_ends(const struct sampler *s, const struct sample_params *p, float *x)
{
    for (int32_t i = 0; i < s->n_eos; i++)
        if (s->eos_ids[i] >= 0 && s->eos_ids[i] < s->vocab)
            x[s->eos_ids[i]] = -INFINITY;
    for (int32_t i = 0; i < p->n_stop_ids; i++)
        x[p->stop_ids[i]] = -INFINITY;
}

static void add_penalties(const struct sample_seq *q, float *x)
{
    const struct sample_params *p = q->params;
    for (size_t i = 0; i < q->n_seen; i++) {
        float *v = &x[q->seen[i].id];
        int32_t n = q->seen[i].n_output;
        if (p->repetition_penalty != 1)
            *v = *v > 0 ? *v / p->repetition_penalty : *v * p->repetition_penalty;
        *v -= p->frequency_penalty * (float)n;
        *v -= n > 0 ? p->presence_penalty : 0;
    }
}

static bool row_allows(const struct sample_row *r, int32_t id)
{
    return !r->allowed || (r->allowed[id / 32] >> (id % 32) & 1);
}

static bool needs_processing(const struct sample_row *r)
{
    const struct sample_params *p = r->seq->params;
    return r->allowed || p->n_allowed || p->n_bad_words || p->n_bias || r->n_generated < p->min_tokens || has_penalties(p) || p->watermarked;
}

/* The row after all processors: in scratch, or the logits themselves when there is nothing to do. */
static const float *process(const struct sampler *s, struct scratch *sc, const struct sample_row *r)
{
    const struct sample_params *p = r->seq->params;
    float *x = sc->row;
    if (!needs_processing(r))
        return r->logits;
    if (p->n_allowed) {
        for (int32_t i = 0; i < s->vocab; i++)
            x[i] = -INFINITY;
        for (int32_t i = 0; i < p->n_allowed; i++)
            if (row_allows(r, p->allowed_ids[i]))
                x[p->allowed_ids[i]] = r->logits[p->allowed_ids[i]];
    } else if (r->allowed) {
        s->math->mask(x, r->logits, r->allowed, s->vocab);
    } else {
        memcpy(x, r->logits, (size_t)s->vocab * sizeof *x);
    }
    if (p->watermarked && r->seq->last >= 0)
        sample_watermark_add(&p->watermark, r->seq->last, x, s->vocab);
    mask_bad_words(r->seq, x);
    for (int32_t i = 0; i < p->n_bias; i++)
        x[p->bias[i].id] += fminf(fmaxf(p->bias[i].bias, -100), 100);
    if (r->n_generated < p->min_tokens)
        mask_ends(s, p, x);
    add_penalties(r->seq, x);
    return x;
}

/* ---- the draw ---- */

static double uniform(const struct sample_row *r)
{
    struct rng_block b = rng_philox(r->seq->seed, (uint64_t)(uint32_t)r->seq->choice, (uint64_t)(uint32_t)r->position);
    return rng_unit_f64((uint64_t)b.v[0] << 32 | b.v[1]);
}

/* What a row's tokens are drawn from. */
struct drawn {
    float max, scale;          /* of the weights exp((x - max) * scale) */
    struct sample_cut cut;
    double total;              /* weight of what it keeps */
};

/* Leaves a weight to what the cut of x keeps only. */
static void weigh_kept(const struct sampler *s, struct scratch *sc, const float *x, const struct drawn *d)
{
    const struct dev_math *m = s->math;
    const struct sample_cut *c = &d->cut;
    m->weights(sc->weights, x, d->max, d->scale, c->floor, s->vocab);
    int32_t n = m->between(x, s->vocab, c->floor, nextafterf(c->floor, INFINITY), sc->ids, s->vocab);
    for (int32_t i = 0; i < n; i++)
        if (sc->ids[i] > c->last)
            sc->weights[sc->ids[i]] = 0;
}

/* Locally typical sampling (Meister et al., 2022): those whose surprise is closest to the entropy, up to mass.
 * A token's surprise is log(total) - (x - max) * scale and the entropy is the mean of it: their distance is |x - mean(x)| * scale.
 * moment is the sum of weight * (x - max), deepest the difference to max where weights end. */
static void keep_typical(const struct sampler *s, struct scratch *sc, const float *x, float mass, double moment, float deepest, struct drawn *d)
{
    float mean = (float)((double)d->max + moment / d->total);
    struct sample_keys keys = {x, sc->weights, &mean, true};
    d->cut = sample_cut_mass(s, sc, &keys, 0, deepest, d->total, (double)mass, &d->total);
}

/* Weighs the row and finds what min_p, top_k, top_p and typical_p leave of it. */
static void truncate_row(const struct sampler *s, struct scratch *sc, const struct sample_params *p, const float *x, float max,
                         struct drawn *d)
{
    const struct dev_math *m = s->math;
    float deepest = -88 * p->temperature;   /* from max on there is no weight below */
    double moment = 0;
    *d = (struct drawn){.max = max, .scale = 1 / p->temperature, .cut = {.floor = -INFINITY, .last = INT32_MAX}};
    if (p->min_p > 0)
        d->cut.floor = d->max + logf(p->min_p) * p->temperature;
    if (p->top_k > 0 && p->top_k < s->vocab)
        d->cut.floor = fmaxf(d->cut.floor, sample_cut_count(s, sc, x, d->max, p->top_k));
    d->total = sample_cut_weigh(s, sc, x, d->max, d->scale, d->cut.floor, p->typical_p < 1 ? &moment : NULL);
    if (p->top_p < 1) {
        struct sample_keys keys = {.x = x, .w = sc->weights};
        d->cut = sample_cut_mass(s, sc, &keys, max, fmaxf(d->cut.floor, max + deepest), d->total, (double)p->top_p, &d->total);
        if (p->typical_p < 1) {
            weigh_kept(s, sc, x, d);
            moment = m->moment(x, sc->weights, d->max, s->vocab);
        }
    }
    if (p->typical_p < 1)
        keep_typical(s, sc, x, p->typical_p, moment, deepest, d);
}

/* Log-probabilities of the distribution that the token was drawn from. */
static void drawn_logprobs(const struct sampler *s, struct scratch *sc, struct sample_row *r, const float *x, const struct drawn *d)
{
    const struct sample_params *p = r->seq->params;
    struct sample_law law = {sc->row, d->max, d->scale, d->total};
    for (int32_t i = 0; i < s->vocab; i++)
        sc->row[i] = sc->weights[i] > 0 && sample_cut_keeps(&d->cut, x, i) ? x[i] : -INFINITY;
    law.max = s->math->max(sc->row, s->vocab);     /* typical_p may have dropped the largest */
    law.total *= exp(((double)d->max - (double)law.max) * (double)d->scale);
    sample_logprobs_of(s, sc, &law, r->out.token, p->n_logprobs, p->ties_included, &r->out);
}

/* For a row that leaves nothing: the lowest id that row and request allow, else that the row allows, else that the request does. */
static int32_t lowest_allowed(const struct sampler *s, const struct sample_row *r)
{
    const struct sample_params *p = r->seq->params;
    int32_t both = -1, request = -1;
    for (int32_t i = 0; i < p->n_allowed; i++) {
        int32_t id = p->allowed_ids[i];
        request = request < 0 || id < request ? id : request;
        if (row_allows(r, id))
            both = both < 0 || id < both ? id : both;
    }
    if (both >= 0)
        return both;
    for (int32_t i = 0; r->allowed && i < s->vocab; i++)
        if (row_allows(r, i))
            return i;
    return request < 0 ? 0 : request;
}

static void sample_one(const struct sampler *s, struct scratch *sc, struct sample_row *r)
{
    const struct sample_params *p = r->seq->params;
    bool lps = p->n_logprobs >= 0 || r->want_logprob, processed = lps && p->logprobs_mode == SAMPLE_LOGPROBS_PROCESSED;
    const float *x = process(s, sc, r);
    struct drawn d = {.total = 0};
    bool greedy = sample_params_greedy(p);
    int32_t token = greedy ? s->math->argmax(x, s->vocab) : -1;
    float max = greedy ? x[token] : s->math->max(x, s->vocab);
    r->out.logprob = NAN;
    r->out.rank = 0;
    r->out.n_top = 0;
    if (!(max > -INFINITY))
        token = lowest_allowed(s, r);
    else if (!greedy) {
        truncate_row(s, sc, p, x, max, &d);
        token = sample_cut_draw(s, sc, x, sc->weights, &d.cut, uniform(r) * d.total);
    }
    r->out.token = token;
    if (processed && d.total > 0)
        drawn_logprobs(s, sc, r, x, &d);
    else if (lps)
        sample_logprobs_fill(s, sc, processed ? x : r->logits, token, p->n_logprobs, p->ties_included, &r->out);
}

struct rows_job { const struct sampler *s; struct sample_row *rows; struct sample_lookup *lookups; };

static void sample_job(void *ctx, int64_t i, int member)
{
    struct rows_job *j = ctx;
    sample_one(j->s, &j->s->scratch[member], &j->rows[i]);
}

void sample_rows(struct sampler *s, struct sample_row *rows, int32_t n)
{
    dev_for(s->dev, n, sample_job, &(struct rows_job){.s = s, .rows = rows});
}

static void lookup_job(void *ctx, int64_t i, int member)
{
    struct rows_job *j = ctx;
    struct sample_lookup *l = &j->lookups[i];
    sample_logprobs_fill(j->s, &j->s->scratch[member], l->logits, l->token, l->n_top, false, &l->out);
}

void sample_lookups(struct sampler *s, struct sample_lookup *l, int32_t n)
{
    dev_for(s->dev, n, lookup_job, &(struct rows_job){.s = s, .lookups = l});
}
