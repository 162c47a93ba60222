/* How long what took, for a request that asks: its time in the queue, on the prompt, on the answer. */
#include <string.h>
#include "server/api_int.h"

static int64_t first_of(int64_t a, int64_t b) { return a == 0 || (b != 0 && b < a) ? b : a; }

void api_timings_add(struct api_job *job, const struct engine_times *t)
{
    struct engine_times *all = &job->times;
    all->submitted = first_of(all->submitted, t->submitted);
    all->first_scheduled = first_of(all->first_scheduled, t->first_scheduled);
    all->first_token = first_of(all->first_token, t->first_token);
    all->last_token = t->last_token > all->last_token ? t->last_token : all->last_token;
    all->finished = t->finished > all->finished ? t->finished : all->finished;
    all->n_prompt += t->n_prompt;
    all->n_cached += t->n_cached;
    all->n_generated += t->n_generated;
    all->n_preempted += t->n_preempted;
}

/* "name":milliseconds; null when one end of it did not happen. */
static void write_span(struct buf *out, const char *name, int64_t from, int64_t to)
{
    if (from && to)
        buf_printf(out, "\"%s\":%.3f,", name, (double)(to - from) / 1e3);
    else
        buf_printf(out, "\"%s\":null,", name);
}

void api_timings_write(const struct api_job *job, struct buf *out)
{
    const struct engine_times *t = &job->times;
    static const char end[] = "}\n\n";
    bool event = out->len >= 3 && memcmp(out->data + out->len - 3, end, 3) == 0;
    if (!job->timings || out->failed || out->len < 3)
        return;
    out->len -= event ? 3 : 1;
    buf_puts(out, ",\"timings\":{");
    write_span(out, "queue_ms", t->submitted, t->first_scheduled);
    write_span(out, "prefill_ms", t->first_scheduled, t->first_token);
    write_span(out, "decode_ms", t->first_token, t->last_token);
    write_span(out, "total_ms", t->submitted, t->finished);
    buf_printf(out, "\"prompt_tokens\":%d,\"cached_tokens\":%d,\"generated_tokens\":%d,\"preemptions\":%d}", t->n_prompt, t->n_cached, t->n_generated,
               t->n_preempted);
    buf_puts(out, event ? end : "}");
}
