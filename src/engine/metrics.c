/* The engine's numbers: kept by its thread, copied out under a lock once a step. */
#include <string.h>
#include "engine/engine_int.h"

static const double ttft_bounds[] = {.001, .005, .01, .02, .04, .06, .08, .1, .25, .5, .75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640, 2560};
static const double itl_bounds[] = {.001, .0025, .005, .01, .025, .05, .075, .1, .15, .2, .3, .4, .5, .75, 1, 2.5, 5, 7.5, 10, 20, 40, 80};
static const double tpot_bounds[] = {.01, .025, .05, .075, .1, .15, .2, .3, .4, .5, .75, 1, 2.5, 5, 7.5, 10, 20, 40, 80};
static const double request_bounds[] = {.3, .5, .8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680};
static const double count_bounds[] = {1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000, 200000, 500000, 1000000};
static const double n_bounds[] = {1, 2, 5, 10, 20};
static const double iteration_bounds[] = {1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384};

static const double skipped_bounds[] = {0, 1, 2, 3, 4, 5, 6, 8, 12, 16, 24, 32, 64, 128};

/* Five steps of 1.5 from x on; 1.5^5 is 7.59375. */
#define FIVE(x) (x), (x)*1.5, (x)*2.25, (x)*3.375, (x)*5.0625
#define K 7.59375
const double engine_tgi_seconds[ENGINE_TGI_SECONDS] = {
    FIVE(.00015), FIVE(.00015 * K), FIVE(.00015 * K * K), FIVE(.00015 * K * K * K), FIVE(.00015 * K * K * K * K),
    FIVE(.00015 * K * K * K * K * K), FIVE(.00015 * K * K * K * K * K * K),
};

#define HIST(b) ((struct engine_hist){.bounds = (b), .n = (int)(sizeof(b) / sizeof(b)[0])})

void metrics_init(struct engine *eng)
{
    struct engine_metrics *m = &eng->metrics;
    memset(m, 0, sizeof *m);
    m->ttft = HIST(ttft_bounds);
    m->itl = HIST(itl_bounds);
    m->time_per_output_token = HIST(tpot_bounds);
    m->e2e = m->queue_time = m->inference_time = m->prefill_time = m->decode_time = HIST(request_bounds);
    m->prompt_len = m->prefill_computed = m->generation_len = m->max_generation_len = m->params_max_tokens = HIST(count_bounds);
    m->params_n = HIST(n_bounds);
    m->iteration_tokens = HIST(iteration_bounds);
    m->skipped_tokens = HIST(skipped_bounds);
    memset(&eng->batches, 0, sizeof eng->batches);
    eng->batches.concat = HIST(engine_tgi_seconds);
    for (int i = 0; i < ENGINE_N_METHODS; i++) {
        struct engine_batch *b = &eng->batches.of[i];
        b->inference = b->forward = b->decode = b->filter = HIST(engine_tgi_seconds);
    }
}

void engine_hist_observe(struct engine_hist *h, double value)
{
    int i = 0;
    while (i < h->n && value > h->bounds[i])
        i++;
    h->counts[i]++;
    h->sum += value;
    h->total++;
}

static void observe_span(struct engine_hist *h, int64_t from_ns, int64_t to_ns) { engine_hist_observe(h, (double)(to_ns - from_ns) / 1e9); }

void metrics_step(struct engine *eng, const struct metrics_step *s)
{
    struct engine_batches *all = &eng->batches;
    struct engine_batch *b = &all->of[s->prefill ? ENGINE_PREFILL : ENGINE_DECODE];
    const int64_t *t = s->t_ns;
    pthread_mutex_lock(&eng->metrics_lock);
    if (s->n_admitted > 0) {
        all->next_size[s->n_admitted <= ENGINE_BATCH_SIZES ? s->n_admitted - 1 : ENGINE_BATCH_SIZES]++;
        all->next_size_sum += s->n_admitted;
        all->n_next++;
    }
    b->n_failed += s->failed;
    b->n_ok += !s->failed;
    if (!s->failed) {
        observe_span(&b->inference, t[0], t[4]);
        observe_span(&b->forward, t[1], t[2]);
        observe_span(&b->decode, t[2], t[3]);
        observe_span(&b->filter, t[3], t[4]);
        if (s->n_admitted > 0 && s->n_admitted < s->n_seqs)
            observe_span(&all->concat, t[0], t[1]);
    }
    pthread_mutex_unlock(&eng->metrics_lock);
}

void metrics_request_start(struct engine *eng, const struct engine_stream *st)
{
    struct engine_metrics *m = &eng->metrics;
    engine_hist_observe(&m->params_n, st->n);
    engine_hist_observe(&m->params_max_tokens, st->max_new);
}

void metrics_request_done(struct engine *eng, const struct engine_stream *st, enum engine_finish finish, bool error)
{
    struct engine_metrics *m = &eng->metrics;
    const struct engine_times *t = &st->times;
    if (error)
        m->requests_error++;
    else if (finish == ENGINE_FINISH_STOP)
        m->success_stop++;
    else if (finish == ENGINE_FINISH_LENGTH)
        m->success_length++;
    else
        m->success_abort++;
    if (t->first_scheduled)
        m->prompt_tokens += (uint64_t)st->n_tokens;
    if (error || !t->first_token)
        return;
    int32_t longest = 0;
    for (int32_t i = 0; i < st->n_total; i++)
        longest = st->choices[i].n_generated > longest ? st->choices[i].n_generated : longest;
    engine_hist_observe(&m->ttft, (double)(t->first_token - t->submitted) / 1e6);
    engine_hist_observe(&m->e2e, (double)(t->finished - t->submitted) / 1e6);
    engine_hist_observe(&m->inference_time, (double)(t->last_token - t->first_scheduled) / 1e6);
    engine_hist_observe(&m->prefill_time, (double)(t->first_token - t->first_scheduled) / 1e6);
    engine_hist_observe(&m->decode_time, (double)(t->last_token - t->first_token) / 1e6);
    engine_hist_observe(&m->prompt_len, st->n_tokens);
    engine_hist_observe(&m->prefill_computed, st->n_tokens - t->n_cached);
    engine_hist_observe(&m->generation_len, t->n_generated);
    engine_hist_observe(&m->max_generation_len, longest);
    if (longest > 1)
        engine_hist_observe(&m->time_per_output_token, (double)(t->last_token - t->first_token) / 1e6 / (longest - 1));
}

void metrics_publish(struct engine *eng)
{
    struct engine_metrics *m = &eng->metrics;
    struct sched_stats s;
    sched_stats(eng->sched, &s);
    m->num_requests_running = s.n_running;
    m->num_requests_waiting = s.n_waiting;
    m->blocks_total = s.blocks_total;
    m->blocks_free = s.blocks_free;
    m->blocks_cached = s.blocks_cached;
    m->blocks_held = s.blocks_held;
    m->kv_cache_usage = s.blocks_total ? (double)s.blocks_held / s.blocks_total : 0;
    m->prefix_cache_queries = s.prefix_query_tokens;
    m->prefix_cache_hits = s.prefix_hit_tokens;
    m->num_preemptions = s.n_preemptions;
    pthread_mutex_lock(&eng->metrics_lock);
    eng->published = *m;
    pthread_mutex_unlock(&eng->metrics_lock);
}

static void hist_add(struct engine_hist *to, const struct engine_hist *past)
{
    if (to->n == 0)
        *to = (struct engine_hist){.bounds = past->bounds, .n = past->n};
    for (int i = 0; i <= past->n && past->n > 0; i++)
        to->counts[i] += past->counts[i];
    to->sum += past->sum;
    to->total += past->total;
}

void engine_metrics_add(struct engine_metrics *to, const struct engine_metrics *past)
{
    to->prefix_cache_queries += past->prefix_cache_queries;
    to->prefix_cache_hits += past->prefix_cache_hits;
    to->num_preemptions += past->num_preemptions;
    to->prompt_tokens += past->prompt_tokens;
    to->generation_tokens += past->generation_tokens;
    to->forced_tokens += past->forced_tokens;
    to->success_stop += past->success_stop;
    to->success_length += past->success_length;
    to->success_abort += past->success_abort;
    to->requests_error += past->requests_error;
    to->n_steps += past->n_steps;
    to->step_seconds += past->step_seconds;
    to->forward_seconds += past->forward_seconds;
    to->sample_seconds += past->sample_seconds;
    to->schedule_seconds += past->schedule_seconds;
    hist_add(&to->ttft, &past->ttft);
    hist_add(&to->itl, &past->itl);
    hist_add(&to->e2e, &past->e2e);
    hist_add(&to->queue_time, &past->queue_time);
    hist_add(&to->inference_time, &past->inference_time);
    hist_add(&to->prefill_time, &past->prefill_time);
    hist_add(&to->decode_time, &past->decode_time);
    hist_add(&to->time_per_output_token, &past->time_per_output_token);
    hist_add(&to->prompt_len, &past->prompt_len);
    hist_add(&to->prefill_computed, &past->prefill_computed);
    hist_add(&to->generation_len, &past->generation_len);
    hist_add(&to->max_generation_len, &past->max_generation_len);
    hist_add(&to->params_n, &past->params_n);
    hist_add(&to->params_max_tokens, &past->params_max_tokens);
    hist_add(&to->iteration_tokens, &past->iteration_tokens);
    hist_add(&to->skipped_tokens, &past->skipped_tokens);
}

void engine_batches_add(struct engine_batches *to, const struct engine_batches *past)
{
    for (int i = 0; i < ENGINE_N_METHODS; i++) {
        struct engine_batch *b = &to->of[i];
        const struct engine_batch *p = &past->of[i];
        b->n_ok += p->n_ok;
        b->n_failed += p->n_failed;
        hist_add(&b->inference, &p->inference);
        hist_add(&b->forward, &p->forward);
        hist_add(&b->decode, &p->decode);
        hist_add(&b->filter, &p->filter);
    }
    hist_add(&to->concat, &past->concat);
    for (int i = 0; i <= ENGINE_BATCH_SIZES; i++)
        to->next_size[i] += past->next_size[i];
    to->next_size_sum += past->next_size_sum;
    to->n_next += past->n_next;
}

void engine_metrics(const struct engine *ceng, struct engine_metrics *out)
{
    struct engine *eng = (struct engine *)ceng; /* the lock is not part of what const promises */
    pthread_mutex_lock(&eng->metrics_lock);
    *out = eng->published;
    pthread_mutex_unlock(&eng->metrics_lock);
}

void engine_batches(const struct engine *ceng, struct engine_batches *out)
{
    struct engine *eng = (struct engine *)ceng; /* as above */
    pthread_mutex_lock(&eng->metrics_lock);
    *out = eng->batches;
    pthread_mutex_unlock(&eng->metrics_lock);
}
