/* Log-probabilities in the shapes of INTERFACES 1.5. */
#include <math.h>
#include <string.h>
#include "base/utf8.h"
#include "server/api_int.h"

void api_logprobs_free(struct api_logprobs *lp)
{
    buf_free(&lp->tokens);
    buf_free(&lp->values);
    buf_free(&lp->tops);
    buf_free(&lp->offsets);
    lp->n = 0;
}

void api_logprobs_clear(struct api_logprobs *lp)
{
    buf_clear(&lp->tokens);
    buf_clear(&lp->values);
    buf_clear(&lp->tops);
    buf_clear(&lp->offsets);
    lp->n = 0;
}

static void join(struct buf *to, const struct buf *from)
{
    if (to->len && from->len)
        buf_putc(to, ',');
    buf_append(to, from->data ? from->data : "", from->len);
}

void api_logprobs_append(struct api_logprobs *to, const struct api_logprobs *from)
{
    join(&to->tokens, &from->tokens);
    join(&to->values, &from->values);
    join(&to->tops, &from->tops);
    join(&to->offsets, &from->offsets);
    to->n += from->n;
}

static void next(struct buf *b)
{
    if (b->len)
        buf_putc(b, ',');
}

/* A token as clients see it, appended without quotes. */
static void token_text(const struct api_job *job, int32_t token, struct buf *out)
{
    if (job->f.token_ids_as_text || !job->api->tok)
        buf_printf(out, "token_id:%d", token);
    else if (!gen_token_text(job->api->tok, token, out))
        out->failed = true;
}

/* Quoted; returns its length in characters. */
static int64_t write_token(struct buf *out, const struct api_job *job, int32_t token)
{
    struct buf text;
    buf_init(&text, 0);
    token_text(job, token, &text);
    api_write_text(out, text.data, text.len);
    int64_t n = text.len ? (int64_t)utf8_length(text.data, text.len) : 0;
    out->failed |= text.failed;
    buf_free(&text);
    return n;
}

/* ---- completions ---- */

/* Parts of characters all become U+FFFD, but a JSON object has each key once: the first, which is the likelier, stays.
 * Tokens spelled without U+FFFD are distinct as a rule and are not compared. */
static bool spelled_before(const struct api_job *job, int32_t token, const int32_t *ids, int32_t n, int32_t id)
{
    struct buf a, b;
    bool found = false;
    buf_init(&a, 0);
    buf_init(&b, 0);
    token_text(job, id, &a);
    for (int32_t i = -1; a.len && strstr(a.data, "\xef\xbf\xbd") && i < n && !found; i++) {
        buf_clear(&b);
        token_text(job, i < 0 ? token : ids[i], &b);
        found = a.len == b.len && memcmp(a.data, b.data, a.len) == 0;
    }
    buf_free(&a);
    buf_free(&b);
    return found;
}

/* {"text": logprob, ..}: the token itself, then the most likely others. */
static void write_tops(struct buf *out, const struct api_job *job, int32_t token, float logprob, const struct engine_logprobs *top, int32_t n_top)
{
    buf_putc(out, '{');
    write_token(out, job, token);
    buf_putc(out, ':');
    api_write_logprob(out, logprob);
    for (int32_t i = 0; i < top->n && i < n_top; i++) {
        if (top->ids[i] == token || spelled_before(job, token, top->ids, i, top->ids[i]))
            continue;
        buf_putc(out, ',');
        write_token(out, job, top->ids[i]);
        buf_putc(out, ':');
        api_write_logprob(out, top->logprobs[i]);
    }
    buf_putc(out, '}');
}

void api_logprobs_completion(struct api_logprobs *lp, const struct api_job *job, int32_t token, float logprob, const struct engine_logprobs *top,
                             int32_t n_top, int64_t *n_chars)
{
    next(&lp->tokens);
    next(&lp->values);
    next(&lp->tops);
    next(&lp->offsets);
    buf_printf(&lp->offsets, "%lld", (long long)*n_chars);
    *n_chars += write_token(&lp->tokens, job, token);
    if (isnan(logprob)) { /* the first token of an echoed prompt */
        buf_puts(&lp->values, "null");
        buf_puts(&lp->tops, "null");
    } else {
        api_write_logprob(&lp->values, logprob);
        write_tops(&lp->tops, job, token, logprob, top, n_top);
    }
    lp->n++;
}

void api_logprobs_write(const struct api_logprobs *lp, struct buf *out)
{
    const struct { const char *key; const struct buf *items; } parts[] = {
        {"{\"text_offset\":[", &lp->offsets}, {"],\"token_logprobs\":[", &lp->values}, {"],\"tokens\":[", &lp->tokens},
        {"],\"top_logprobs\":[", &lp->tops},
    };
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        buf_puts(out, parts[i].key);
        buf_append(out, parts[i].items->data ? parts[i].items->data : "", parts[i].items->len);
    }
    buf_puts(out, "]}");
}

/* ---- chat ---- */

/* "token":..,"logprob":..,"bytes":[..] */
static void write_chat_token(struct buf *out, const struct api_job *job, int32_t token, float logprob)
{
    size_t len = 0;
    const char *bytes = job->api->tok ? tok_token_bytes(job->api->tok, token, &len) : NULL;
    buf_puts(out, "\"token\":");
    write_token(out, job, token);
    buf_puts(out, ",\"logprob\":");
    api_write_logprob(out, logprob);
    buf_puts(out, ",\"bytes\":[");
    for (size_t i = 0; bytes && i < len; i++)
        buf_printf(out, i ? ",%u" : "%u", (unsigned)(unsigned char)bytes[i]);
    buf_putc(out, ']');
}

void api_logprobs_chat(struct api_logprobs *lp, const struct api_job *job, int32_t token, float logprob, const struct engine_logprobs *top,
                       int32_t n_top)
{
    struct buf *out = &lp->tokens;
    next(out);
    buf_putc(out, '{');
    write_chat_token(out, job, token, logprob);
    buf_puts(out, ",\"top_logprobs\":[");
    for (int32_t i = 0; i < top->n && i < n_top; i++) {
        buf_puts(out, i ? ",{" : "{");
        write_chat_token(out, job, top->ids[i], top->logprobs[i]);
        buf_putc(out, '}');
    }
    buf_puts(out, "]}");
    lp->n++;
}

/* ---- prompt_logprobs ---- */

static void write_ranked(struct buf *out, const struct api_job *job, int32_t token, float logprob, int32_t rank)
{
    buf_printf(out, "\"%d\":{\"logprob\":", token);
    api_write_logprob(out, logprob);
    buf_printf(out, ",\"rank\":%d,\"decoded_token\":", rank);
    write_token(out, job, token);
    buf_putc(out, '}');
}

void api_logprobs_prompt(struct buf *out, const struct api_job *job, int32_t token, float logprob, int32_t rank,
                         const struct engine_logprobs *top)
{
    buf_puts(out, out->len ? ",{" : "null,{"); /* the first prompt token has no prediction */
    write_ranked(out, job, token, logprob, rank);
    for (int32_t i = 0; i < top->n; i++) {
        if (top->ids[i] == token)
            continue;
        buf_putc(out, ',');
        write_ranked(out, job, top->ids[i], top->logprobs[i], i + 1);
    }
    buf_putc(out, '}');
}
