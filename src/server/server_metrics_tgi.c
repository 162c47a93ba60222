/* TGI's metrics (INTERFACES 3.2): its names, its bounds, and as nearly as this engine has them its meanings, which docs/TGI.md tells. */
#include <stdio.h>
#include "server/server_int.h"
#include "server/server_page.h"

static const char P[] = "tgi_";

static void one(struct server_page *p, const char *name, const char *type, double v, const char *help) { server_page_one(p, P, name, type, v, help); }

static void seconds(struct server_page *p, const char *name, const struct engine_hist *h, const char *help)
{
    server_page_head(p, P, name, "histogram", help);
    server_page_engine_hist(p, P, name, NULL, h);
}

/* ---- requests ---- */

/* A model that has not been loaded yet has no limits, and no samples. */
static void lengths(struct server_page *p, const char *name, const struct tgi_lengths *h, const char *help)
{
    if (h->most == 0)
        return;
    server_page_head(p, P, name, "histogram", help);
    server_page_hist(p, P, name, NULL,
                     &(struct server_hist){.step = h->most / (double)TGI_LENGTHS, .n = TGI_LENGTHS, .counts = h->counts, .sum = h->sum, .total = h->total});
}

static void write_counts(struct server_page *p, const struct tgi_counts *c, uint64_t n_turned_away)
{
    one(p, "request_count", "counter", (double)(c->n_requests + n_turned_away), "Requests for text that came, by whatever route.");
    server_page_head(p, P, "request_failure", "counter", "Requests that failed, by why.");
    for (int i = 0; i < TGI_N_FAILURES; i++)
        buf_printf(p->out, "tgi_request_failure{%s,err=\"%s\"} %llu\n", p->labels, tgi_failure_names[i],
                   (unsigned long long)(c->n_failed[i] + (i == TGI_OVERLOADED ? n_turned_away : 0)));
}

void server_write_tgi_modelless(struct server_page *p, struct tgi_stats *s, uint64_t n_turned_away)
{
    struct tgi_counts c;
    tgi_stats_get(s, &c);
    write_counts(p, &c, n_turned_away);
}

static void write_requests(struct server_page *p, const struct tgi_counts *c)
{
    one(p, "request_success", "counter", (double)c->n_ok, "Requests whose output came to its end.");
    seconds(p, "request_duration", &c->duration, "From the beginning of a request's handling to the end of its output.");
    seconds(p, "request_validation_duration", &c->validation, "Parsing, checking, rendering and tokenizing a request.");
    seconds(p, "request_queue_duration", &c->queue, "From then to a request's first step.");
    seconds(p, "request_inference_duration", &c->inference, "From a request's first step to the end of its output.");
    seconds(p, "request_mean_time_per_token_duration", &c->per_token, "A request's time of inference by the tokens that it generated.");
    lengths(p, "request_input_length", &c->input, "Prompt tokens of a request.");
    lengths(p, "request_generated_tokens", &c->generated, "Tokens that a request generated.");
    lengths(p, "request_max_new_tokens", &c->max_new, "New tokens that a request may have.");
}

/* ---- batches ---- */

static const char *const methods[ENGINE_N_METHODS] = {"method=\"prefill\"", "method=\"decode\""};

static void by_method(struct server_page *p, const char *name, uint64_t prefill, uint64_t decode, const char *help)
{
    const uint64_t n[ENGINE_N_METHODS] = {prefill, decode};
    server_page_head(p, P, name, "counter", help);
    for (int i = 0; i < ENGINE_N_METHODS; i++)
        buf_printf(p->out, "tgi_%s{%s,%s} %llu\n", name, p->labels, methods[i], (unsigned long long)n[i]);
}

static void spans(struct server_page *p, const char *name, const struct engine_hist *prefill, const struct engine_hist *decode, const char *help)
{
    server_page_head(p, P, name, "histogram", help);
    server_page_engine_hist(p, P, name, methods[ENGINE_PREFILL], prefill);
    server_page_engine_hist(p, P, name, methods[ENGINE_DECODE], decode);
}

static void write_concat(struct server_page *p, const struct engine_batches *b)
{
    server_page_head(p, P, "batch_concat", "counter",
                     "Steps that added requests to running ones.  They never wait to be more, nor add them for having waited: two reasons are always 0.");
    buf_printf(p->out, "tgi_batch_concat{%s,reason=\"chunking\"} %llu\n", p->labels, (unsigned long long)b->concat.total);
    buf_printf(p->out, "tgi_batch_concat{%s,reason=\"backpressure\"} 0\ntgi_batch_concat{%s,reason=\"wait_exceeded\"} 0\n", p->labels, p->labels);
    server_page_head(p, P, "batch_concat_duration", "histogram", "Planning and building steps that added requests to running ones.");
    server_page_engine_hist(p, P, "batch_concat_duration", methods[ENGINE_DECODE], &b->concat);
}

static void write_batches(struct server_page *p, const struct engine_batches *b)
{
    const struct engine_batch *pre = &b->of[ENGINE_PREFILL], *dec = &b->of[ENGINE_DECODE];
    by_method(p, "batch_inference_count", pre->n_ok + pre->n_failed, dec->n_ok + dec->n_failed, "Steps; prefill: those with tokens of a prompt.");
    by_method(p, "batch_inference_success", pre->n_ok, dec->n_ok, "Steps that went well.");
    by_method(p, "batch_inference_failure", pre->n_failed, dec->n_failed, "Steps in which the device failed.");
    spans(p, "batch_inference_duration", &pre->inference, &dec->inference, "A step from its planning to the last token handed out.");
    spans(p, "batch_forward_duration", &pre->forward, &dec->forward, "The device's part of a step.");
    spans(p, "batch_decode_duration", &pre->decode, &dec->decode, "Drawing a step's tokens.");
    spans(p, "batch_filter_duration", &pre->filter, &dec->filter, "Handing a step's tokens out and ending what is done.");
    write_concat(p, b);
    server_page_head(p, P, "batch_next_size", "histogram", "Requests that a step admitted, if any.");
    server_page_hist(p, P, "batch_next_size", NULL,
                     &(struct server_hist){.step = 1, .n = ENGINE_BATCH_SIZES, .counts = b->next_size, .sum = b->next_size_sum, .total = b->n_next});
}

void server_write_tgi(struct server_page *p, const struct server_model_view *v, uint64_t n_turned_away)
{
    const struct engine_metrics *m = &v->metrics;
    double page_tokens = v->info ? v->info->block_tokens : 0;
    write_counts(p, v->tgi, n_turned_away);
    write_requests(p, v->tgi);
    seconds(p, "request_skipped_tokens", &m->skipped_tokens,
            "Tokens that followed a drawn one without a step of their own, because structured output left no choice.  There is no speculation.");
    one(p, "queue_size", "gauge", m->num_requests_waiting, "Requests waiting for room.");
    one(p, "batch_current_size", "gauge", m->num_requests_running, "Sequences being computed.");
    one(p, "batch_current_max_tokens", "gauge", m->blocks_held * page_tokens, "Tokens that the pages of running sequences hold.");
    one(p, "batch_max_total_tokens", "gauge", m->blocks_total * page_tokens, "Tokens that all pages hold.");
    write_batches(p, v->batches);
}
