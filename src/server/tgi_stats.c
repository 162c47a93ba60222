#include "server/tgi_stats.h"

#include "base/clock.h"
#include "server/tgi.h"

const char *const tgi_failure_names[TGI_N_FAILURES] = {"overloaded", "validation", "template", "incomplete", "dropped", "generation"};

enum tgi_failure tgi_failure_of(const struct api_error *e)
{
    if (e->in_template)
        return TGI_TEMPLATE;
    switch (e->status) {
    case 429: return TGI_OVERLOADED;
    case 499: return TGI_DROPPED;
    default: return e->status < 500 ? TGI_VALIDATION : TGI_GENERATION;
    }
}

/* Of a request that had begun: cut off is not the client's doing here, whose going is told by nobody pulling any more. */
static enum tgi_failure failure_of_job(int status)
{
    return status == 499 ? TGI_INCOMPLETE : tgi_failure_of(&(struct api_error){.status = status});
}

void tgi_stats_init(struct tgi_stats *s)
{
    const struct engine_hist seconds = {.bounds = engine_tgi_seconds, .n = ENGINE_TGI_SECONDS};
    *s = (struct tgi_stats){0};
    pthread_mutex_init(&s->lock, NULL);
    s->c.duration = s->c.validation = s->c.queue = s->c.inference = s->c.per_token = seconds;
}

void tgi_stats_free(struct tgi_stats *s) { pthread_mutex_destroy(&s->lock); }

void tgi_stats_came(struct tgi_stats *s)
{
    pthread_mutex_lock(&s->lock);
    s->c.n_requests++;
    pthread_mutex_unlock(&s->lock);
}

void tgi_stats_failed(struct tgi_stats *s, enum tgi_failure why)
{
    pthread_mutex_lock(&s->lock);
    s->c.n_failed[why]++;
    pthread_mutex_unlock(&s->lock);
}

/* In the bucket whose bound, most / 100 times its number, is the first not below n. */
static void observe_length(struct tgi_lengths *h, int64_t n)
{
    int64_t i = n <= 0 ? 0 : (n * TGI_LENGTHS + h->most - 1) / h->most - 1;
    h->counts[i < TGI_LENGTHS ? i : TGI_LENGTHS]++;
    h->sum += (double)n;
    h->total++;
}

static void set_limits(struct tgi_counts *c, const struct api *a)
{
    if (c->input.most == 0) {
        c->input.most = tgi_max_input_tokens(a);
        c->generated.most = c->max_new.most = tgi_max_total_tokens(a);
    }
}

void tgi_stats_valid(struct tgi_stats *s, const struct api *a, const struct api_job_stats *job)
{
    pthread_mutex_lock(&s->lock);
    set_limits(&s->c, a);
    observe_length(&s->c.input, job->n_prompt);
    observe_length(&s->c.max_new, job->max_new);
    pthread_mutex_unlock(&s->lock);
}

static void observe_span(struct engine_hist *h, int64_t from_us, int64_t to_us) { engine_hist_observe(h, (double)(to_us - from_us) / 1e6); }

void tgi_stats_ended(struct tgi_stats *s, const struct api_job_stats *job, int64_t begun_us)
{
    int64_t now = clock_now_us();
    const struct engine_times *t = &job->times;
    struct tgi_counts *c = &s->c;
    pthread_mutex_lock(&s->lock);
    if (job->error) {
        c->n_failed[failure_of_job(job->error)]++;
    } else {
        c->n_ok++;
        observe_span(&c->duration, begun_us, now);
        if (t->submitted)
            observe_span(&c->validation, begun_us, t->submitted);
        if (t->first_scheduled) {
            observe_span(&c->queue, t->submitted, t->first_scheduled);
            observe_span(&c->inference, t->first_scheduled, now);
            if (job->n_completion > 0)
                engine_hist_observe(&c->per_token, (double)(now - t->first_scheduled) / 1e6 / job->n_completion);
        }
        observe_length(&c->generated, job->n_completion);
    }
    pthread_mutex_unlock(&s->lock);
}

void tgi_stats_get(struct tgi_stats *s, struct tgi_counts *out)
{
    pthread_mutex_lock(&s->lock);
    *out = s->c;
    pthread_mutex_unlock(&s->lock);
}
