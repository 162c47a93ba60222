/* TGI's shapes: bodies, events, errors. */
#include <math.h>
#include <string.h>
#include "base/json.h"
#include "server/tgi_int.h"

void tgi_write_text_of(struct buf *out, const struct api *a, int32_t id)
{
    struct buf text;
    size_t len = 0;
    buf_init(&text, 0);
    if (tok_is_special(a->tok, id)) {
        const char *spelling = tok_token_spelling(a->tok, id, &len);
        api_write_text(out, spelling, len);
    } else {
        out->failed |= !gen_token_text(a->tok, id, &text);
        api_write_text(out, text.data, text.len);
    }
    buf_free(&text);
}

static void write_logprob(struct buf *out, float x)
{
    if (isnan(x))
        buf_puts(out, "null");
    else
        api_write_logprob(out, x);
}

/* text NULL: the token's own. */
void tgi_write_token(struct buf *out, const struct api *a, int32_t id, const char *text, size_t len, float logprob, bool generated)
{
    buf_printf(out, "{\"id\":%d,\"text\":", id);
    if (text)
        api_write_text(out, text, len);
    else
        tgi_write_text_of(out, a, id);
    buf_puts(out, ",\"logprob\":");
    write_logprob(out, logprob);
    if (generated)
        buf_printf(out, ",\"special\":%s", tok_is_special(a->tok, id) ? "true" : "false");
    buf_putc(out, '}');
}

static void write_array(struct buf *out, const char *key, const struct buf *elements)
{
    buf_printf(out, ",\"%s\":[", key);
    buf_append(out, elements->len ? elements->data : "", elements->len);
    buf_putc(out, ']');
}

static const char *finish_of(const struct tgi_choice *c)
{
    return c->finish == ENGINE_FINISH_LENGTH ? "length" : c->by_stop ? "stop_sequence" : "eos_token";
}

static void write_generated(const struct tgi_job *t, const struct tgi_choice *c, struct buf *out)
{
    struct buf text;
    buf_init(&text, 0);
    if (t->p.return_full_text)
        buf_append(&text, t->inputs, t->inputs_len);
    buf_append(&text, c->text.len ? c->text.data : "", c->text.len);
    api_write_text(out, text.data, text.len);
    out->failed |= text.failed;
    buf_free(&text);
}

static void write_seed(const struct tgi_job *t, struct buf *out)
{
    if (t->sampling)
        buf_printf(out, ",\"seed\":%llu", (unsigned long long)t->job->params.seed);
    else
        buf_puts(out, ",\"seed\":null");
}

/* The members of details, which those of best_of_sequences have as well. */
static void write_details(const struct tgi_job *t, const struct tgi_choice *c, struct buf *out)
{
    buf_printf(out, "\"finish_reason\":\"%s\",\"generated_tokens\":%d", finish_of(c), c->n_tokens);
    write_seed(t, out);
    write_array(out, "prefill", &t->prefill);
    write_array(out, "tokens", &c->tokens);
    if (c->tops.len)
        write_array(out, "top_tokens", &c->tops);
}

const struct tgi_choice *tgi_best(const struct tgi_job *t)
{
    const struct tgi_choice *best = &t->choices[0];
    for (int32_t i = 1; i < t->n; i++) {
        const struct tgi_choice *c = &t->choices[i];
        if (c->logprobs / (c->n_tokens ? c->n_tokens : 1) > best->logprobs / (best->n_tokens ? best->n_tokens : 1))
            best = c;
    }
    return best;
}

static void write_others(const struct tgi_job *t, const struct tgi_choice *best, struct buf *out)
{
    const char *comma = "";
    buf_puts(out, ",\"best_of_sequences\":[");
    for (int32_t i = 0; i < t->n; i++) {
        if (&t->choices[i] == best)
            continue;
        buf_printf(out, "%s{\"generated_text\":", comma);
        write_generated(t, &t->choices[i], out);
        buf_putc(out, ',');
        write_details(t, &t->choices[i], out);
        buf_putc(out, '}');
        comma = ",";
    }
    buf_putc(out, ']');
}

void tgi_write_body(const struct tgi_job *t, struct buf *out)
{
    const struct tgi_choice *best = tgi_best(t);
    buf_puts(out, t->route == TGI_COMPAT ? "[{\"generated_text\":" : "{\"generated_text\":");
    write_generated(t, best, out);
    if (t->p.details || t->p.decoder_input_details) {
        buf_puts(out, ",\"details\":{");
        write_details(t, best, out);
        if (t->n > 1)
            write_others(t, best, out);
        buf_putc(out, '}');
    }
    buf_puts(out, t->route == TGI_COMPAT ? "}]" : "}");
}

void tgi_write_event(const struct tgi_job *t, const struct buf *token, const struct buf *top, struct buf *out)
{
    const struct tgi_choice *c = &t->choices[0];
    buf_printf(out, "data:{\"index\":%d,\"token\":", c->n_tokens);
    buf_append(out, token->data ? token->data : "null", token->data ? token->len : 4);
    if (top->len) {
        buf_puts(out, ",\"top_tokens\":");
        buf_append(out, top->data, top->len);
    }
    buf_puts(out, ",\"generated_text\":");
    if (c->ended)
        write_generated(t, c, out);
    else
        buf_puts(out, "null");
    buf_puts(out, ",\"details\":");
    if (c->ended && t->p.details) {
        buf_printf(out, "{\"finish_reason\":\"%s\",\"generated_tokens\":%d", finish_of(c), c->n_tokens);
        write_seed(t, out);
        buf_printf(out, ",\"input_length\":%d}", t->job->prompts[0].n);
    } else {
        buf_puts(out, "null");
    }
    buf_puts(out, "}\n\n");
    out->failed |= token->failed || top->failed;
}

/* ---- errors ---- */

static const struct { int from, to; const char *prefix, *type; } kinds[] = {
    {400, 422, "Input validation error: ", "validation"},
    {404, 422, "Input validation error: ", "validation"},
    {413, 413, "Input validation error: ", "validation"},
    {415, 415, "Input validation error: ", "validation"},
    {422, 422, "Input validation error: ", "validation"},
    {424, 424, "Request failed during generation: ", "generation"},
    {429, 429, "Model is overloaded", "overloaded"},
    {499, 500, "Incomplete generation", "incomplete_generation"},
    {500, 424, "Request failed during generation: ", "generation"},
    {503, 503, "unhealthy: ", "healthcheck"},
    {504, 504, "Request failed during generation: ", "generation"},
};

bool tgi_error_write(const struct api_error *e, int *status, struct buf *out)
{
    size_t i = 0, n = sizeof kinds / sizeof kinds[0];
    while (i < n && kinds[i].from != e->status)
        i++;
    const char *prefix = i < n ? kinds[i].prefix : "", *type = i < n ? kinds[i].type : e->status < 500 ? "validation" : "generation", *msg = e->msg;
    if (e->status == 400 && strcmp(e->param, "messages") == 0) {
        prefix = "Template error: ";
        type = "template_error";
    }
    *status = i < n ? kinds[i].to : e->status;
    struct buf text;
    buf_init(&text, 0);
    buf_puts(&text, prefix);
    /* These two say it all in TGI's clients, which compare them. */
    if (e->status != 429 && e->status != 499)
        buf_puts(&text, msg);
    buf_puts(out, "{\"error\":");
    json_write_str(out, text.data ? text.data : "", text.len);
    buf_printf(out, ",\"error_type\":\"%s\"}", type);
    out->failed |= text.failed;
    buf_free(&text);
    return !out->failed;
}
