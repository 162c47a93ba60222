/* The answers of embeddings, pooling, score and rerank. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/json.h"
#include "base/mem.h"
#include "server/embed_int.h"

/* The bytes of little-endian f32. */
static void write_base64(const float *x, int32_t n, struct buf *out)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const unsigned char *b = (const unsigned char *)x;
    size_t bytes = (size_t)n * sizeof *x;
    buf_putc(out, '"');
    if (!buf_reserve(out, (bytes + 2) / 3 * 4 + 1))
        return;
    for (size_t i = 0; i < bytes; i += 3) {
        size_t left = bytes - i;
        uint32_t v = (uint32_t)b[i] << 16 | (left > 1 ? (uint32_t)b[i + 1] << 8 : 0) | (left > 2 ? b[i + 2] : 0);
        const char four[] = {digits[v >> 18], digits[v >> 12 & 63], left > 1 ? digits[v >> 6 & 63] : '=', left > 2 ? digits[v & 63] : '='};
        buf_append(out, four, sizeof four);
    }
    buf_putc(out, '"');
}

static void write_state(const struct embed_job *job, const float *x, struct buf *out)
{
    if (job->base64) {
        write_base64(x, job->dim, out);
        return;
    }
    buf_putc(out, '[');
    for (int32_t i = 0; i < job->dim; i++)
        buf_printf(out, i ? ",%.9g" : "%.9g", isfinite(x[i]) ? (double)x[i] : 0.0);
    buf_putc(out, ']');
}

static void write_head(const struct embed_job *job, struct buf *out)
{
    buf_puts(out, "{\"id\":");
    api_write_text(out, job->id, strlen(job->id));
    if (job->endpoint != EMBED_RERANK)
        buf_printf(out, ",\"object\":\"list\",\"created\":%lld", (long long)job->created_s);
    buf_puts(out, ",\"model\":");
    api_write_text(out, job->model, strlen(job->model));
}

static void write_usage(const struct embed_job *job, struct buf *out)
{
    struct api_job_stats s;
    embed_job_stats(job, &s);
    buf_printf(out, ",\"usage\":{\"prompt_tokens\":%d,\"total_tokens\":%d,\"completion_tokens\":0,\"prompt_tokens_details\":", s.n_prompt, s.n_prompt);
    if (job->api->opts.prompt_tokens_details)
        buf_printf(out, "{\"cached_tokens\":%d}}", s.n_cached);
    else
        buf_puts(out, "null}");
}

static void write_states(const struct embed_job *job, struct buf *out)
{
    bool pooling = job->endpoint == EMBED_POOLING;
    buf_puts(out, ",\"data\":[");
    for (int32_t i = 0; i < job->n_items; i++) {
        buf_printf(out, "%s{\"index\":%d,\"object\":\"%s\",\"%s\":", i ? "," : "", i, pooling ? "pooling" : "embedding", pooling ? "data" : "embedding");
        write_state(job, job->items[i].state, out);
        buf_putc(out, '}');
    }
    buf_putc(out, ']');
}

/* The cosine, or the geometric mean of the probabilities of the second text's tokens after the first. */
static double score_of(const struct embed_job *job, int32_t pair)
{
    if (job->by_logprob)
        return exp(job->items[pair].logprob / (job->items[pair].n - job->items[pair].n_given));
    const float *a = job->items[job->n_first == 1 ? 0 : pair].state, *b = job->items[job->n_first + pair].state;
    double sum = 0;
    for (int32_t i = 0; i < job->dim; i++)
        sum += (double)a[i] * (double)b[i];
    return isfinite(sum) ? sum : 0;
}

static void write_scores(const struct embed_job *job, struct buf *out)
{
    buf_puts(out, ",\"data\":[");
    for (int32_t i = 0; i < job->n_pairs; i++)
        buf_printf(out, "%s{\"index\":%d,\"object\":\"score\",\"score\":%.9g}", i ? "," : "", i, score_of(job, i));
    buf_putc(out, ']');
}

struct ranked { int32_t index; double score; };

static int by_score(const void *x, const void *y)
{
    const struct ranked *a = x, *b = y;
    return a->score != b->score ? (a->score < b->score ? 1 : -1) : (a->index > b->index) - (a->index < b->index);
}

static void write_ranks(const struct embed_job *job, struct buf *out)
{
    struct ranked *r = mem_try_zalloc((size_t)job->n_pairs, sizeof *r);
    int32_t n = job->f.top_n > 0 && job->f.top_n < job->n_pairs ? (int32_t)job->f.top_n : job->n_pairs;
    if (!r) {
        out->failed = true;
        return;
    }
    for (int32_t i = 0; i < job->n_pairs; i++)
        r[i] = (struct ranked){i, score_of(job, i)};
    qsort(r, (size_t)job->n_pairs, sizeof *r, by_score);
    buf_puts(out, ",\"results\":[");
    for (int32_t i = 0; i < n; i++) {
        const json_t *d = json_array_get(job->f.documents, (size_t)r[i].index), *text = json_is_object(d) ? json_object_get(d, "text") : d;
        buf_printf(out, "%s{\"index\":%d", i ? "," : "", r[i].index);
        if (job->f.return_documents && json_is_string(text)) {
            buf_puts(out, ",\"document\":{\"text\":");
            api_write_text(out, json_string_value(text), json_string_length(text));
            buf_putc(out, '}');
        }
        buf_printf(out, ",\"relevance_score\":%.9g}", r[i].score);
    }
    buf_putc(out, ']');
    mem_free(r);
}

void embed_write_body(const struct embed_job *job, struct buf *out)
{
    write_head(job, out);
    if (job->endpoint == EMBED_RERANK)
        write_ranks(job, out);
    else if (job->endpoint == EMBED_SCORE)
        write_scores(job, out);
    else
        write_states(job, out);
    write_usage(job, out);
    buf_putc(out, '}');
}
