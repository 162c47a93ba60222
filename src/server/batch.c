#include "server/batch.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/types.h>
#include "base/clock.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/mpsc.h"
#include "base/rng.h"
#include "server/embed.h"

enum { AGAIN_US = 200000 };

struct batch;

struct slot {
    struct mpsc_node node;             /* in batch.ready */
    atomic_bool queued;
    struct batch *b;
    struct api_job *job;               /* of the two, the one that works; NULL: over */
    struct embed_job *embed;
    char *custom_id;                   /* JSON text */
    int64_t index;                     /* as next said */
    bool used, done, taken;
    const char *again; size_t again_len; int64_t again_us;   /* the engine's queue was full: the line, when to try again; NULL: it was not */
    int status;
    struct buf body;                   /* the response, or the error object */
};

struct batch {
    const struct batch_opts *o;
    struct batch_counts n;
    char *line; size_t line_cap;
    struct slot *slots; int n_slots;
    int first, n_used;                 /* ring: oldest slot, slots in use */
    struct buf text;                   /* of the answer that is written */
    struct mpsc ready;
};

static const struct url { const char *url; bool embeds; int endpoint; } urls[] = {
    {"/v1/chat/completions", false, API_CHAT}, {"/v1/completions", false, API_COMPLETIONS}, {"/v1/responses", false, API_RESPONSES},
    {"/v1/embeddings", true, EMBED_EMBEDDINGS}, {"/score", true, EMBED_SCORE}, {"/v1/score", true, EMBED_SCORE},
    {"/rerank", true, EMBED_RERANK}, {"/v1/rerank", true, EMBED_RERANK}, {"/v2/rerank", true, EMBED_RERANK},
};

static const struct url *find_url(const char *url)
{
    for (size_t i = 0; url && i < sizeof urls / sizeof urls[0]; i++)
        if (strcmp(url, urls[i].url) == 0)
            return &urls[i];
    return NULL;
}

bool batch_knows_url(const char *url) { return find_url(url) != NULL; }

/* ---- one line ---- */

/* On the engine's thread. */
static void on_news(void *ctx)
{
    struct slot *s = ctx;
    if (!atomic_exchange(&s->queued, true))
        mpsc_push(&s->b->ready, &s->node);
}

static void fail_slot(struct slot *s, const struct api_error *e)
{
    s->done = true;
    s->status = e->status;
    buf_clear(&s->body);
    api_error_write(e, &s->body);
}

/* The request of a line: {"custom_id":..,"method":"POST","url":"/v1/..","body":{..}}. */
static bool open_line(struct slot *s, const json_t *line, struct api_error *e)
{
    const json_t *id = json_object_get(line, "custom_id"), *body = json_object_get(line, "body");
    const char *method = json_string_value(json_object_get(line, "method")), *url = json_string_value(json_object_get(line, "url"));
    if (!json_is_object(line))
        return api_fail(e, ERR_INVALID, NULL, "a line must be a JSON object, found %s", json_type_name(line));
    if (!json_is_string(id))
        return api_fail(e, ERR_INVALID, "custom_id", "'custom_id': expected string, found %s", json_type_name(id));
    if (!method || strcmp(method, "POST") != 0)
        return api_fail(e, ERR_INVALID, "method", "'method' must be POST");
    if (!json_is_object(body))
        return api_fail(e, ERR_INVALID, "body", "'body': expected object, found %s", json_type_name(body));
    const struct url *u = find_url(url);
    if (!u)
        return api_fail(e, ERR_UNSUPPORTED, "url", "'url' must be /v1/chat/completions, /v1/completions, /v1/responses, /v1/embeddings, /score or /rerank, found "
                        "'%.128s'", url ? url : "");
    if (s->b->o->only_url && strcmp(url, s->b->o->only_url) != 0)
        return api_fail(e, ERR_INVALID, "url", "'url' must be this batch's %s, found '%.128s'", s->b->o->only_url, url);
    struct buf text;
    buf_init(&text, 0);
    struct api_job_opts o = {.refuse_stream = true, .notify = on_news, .notify_ctx = s};
    bool ok = json_write(body, &text) || api_fail(e, ERR_NOMEM, NULL, "out of memory for the request");
    if (ok && u->embeds)
        ok = embed_job_open(&s->embed, s->b->o->api, (enum embed_endpoint)u->endpoint, text.data, text.len, &o, e);
    else if (ok)
        ok = api_job_open(&s->job, s->b->o->api, (enum api_endpoint)u->endpoint, text.data, text.len, &o, e);
    buf_free(&text);
    return ok;
}

static void keep_custom_id(struct slot *s, const json_t *line)
{
    const json_t *id = json_object_get(line, "custom_id");
    struct buf text;
    buf_init(&text, 0);
    if (json_is_string(id) && json_write(id, &text))
        s->custom_id = buf_take(&text);
    buf_free(&text);
}

static void start_slot(struct batch *b, struct slot *s, int64_t index, const char *text, size_t len)
{
    struct err err;
    struct api_error e;
    *s = (struct slot){.b = b, .used = true, .index = index};
    atomic_init(&s->queued, false);
    buf_init(&s->body, 0);
    json_t *line = json_parse(text, len, &err);
    bool ok = line ? true : api_fail_err(&e, NULL, &err);
    if (line)
        keep_custom_id(s, line);
    ok = ok && open_line(s, line, &e);
    json_decref(line);
    if (ok) {
        on_news(s); /* pulled at least once, whether or not the engine has a part in it */
    } else if (e.status == 429 && b->o->next) {
        s->again = text;
        s->again_len = len;
        s->again_us = clock_now_us() + AGAIN_US;
    } else {
        fail_slot(s, &e);
    }
}

/* Lines that found the queue full, oldest first, until it is full again. */
static void start_again(struct batch *b)
{
    for (int i = 0; i < b->n_used; i++) {
        struct slot *s = &b->slots[(b->first + i) % b->n_slots];
        if (!s->again)
            continue;
        if (clock_now_us() < s->again_us)
            return;
        const char *text = s->again;
        mem_free(s->custom_id);
        start_slot(b, s, s->index, text, s->again_len);
        if (s->again)
            return;
    }
}

static void pull_slot(struct slot *s)
{
    if (s->done || (s->embed ? embed_job_pull(s->embed, &s->body) : api_job_pull(s->job, &s->body)) != API_PULL_DONE)
        return;
    s->done = true;
    s->status = s->embed ? embed_job_status(s->embed) : api_job_status(s->job);
    api_job_close(&s->job);
    embed_job_close(&s->embed);
}

static void write_id(struct buf *out, const char *prefix)
{
    buf_printf(out, "\"%s%016llx%016llx\"", prefix, (unsigned long long)rng_entropy(), (unsigned long long)rng_entropy());
}

/* {"id":..,"custom_id":..,"response":{"status_code":..,"request_id":..,"body":..},"error":..} */
static bool write_answer(const char *custom_id, int status, const struct buf *body, bool as_openai, struct buf *out)
{
    static const char wrap[] = "{\"error\":"; /* HTTP bodies have it around the error object; vLLM's lines have the object */
    bool apart = status != 200 && !as_openai;
    const char *error = body->len ? body->data : "null";
    size_t n = body->len ? body->len : 4;
    if (apart && n > sizeof wrap && memcmp(error, wrap, sizeof wrap - 1) == 0) {
        error += sizeof wrap - 1;
        n -= sizeof wrap;
    }
    buf_puts(out, "{\"id\":");
    write_id(out, as_openai ? "batch_req_" : "quire-");
    buf_printf(out, ",\"custom_id\":%s,\"response\":{\"status_code\":%d,\"request_id\":", custom_id ? custom_id : "null", status);
    write_id(out, as_openai ? "req_" : "quire-batch-");
    buf_puts(out, ",\"body\":");
    buf_append(out, apart ? "null" : error, apart ? 4 : n);
    buf_puts(out, "},\"error\":");
    buf_append(out, apart ? error : "null", apart ? n : 4);
    return buf_putc(out, '}');
}

static bool write_slot(struct batch *b, struct slot *s, struct err *e)
{
    buf_clear(&b->text);
    if (!write_answer(s->custom_id, s->status, &s->body, b->o->take != NULL, &b->text))
        return err_set(e, ERR_NOMEM, "out of memory for an answer");
    b->n.n_written++;
    b->n.n_failed += s->status != 200;
    s->taken = true;
    buf_free(&s->body);
    if (b->o->take)
        return b->o->take(b->o->ctx, s->index, s->status != 200, b->text.data, b->text.len, e);
    return fprintf(b->o->out, "%s\n", b->text.data) > 0 || err_set(e, ERR_IO, "%s: %s", b->o->out_name, strerror(errno));
}

bool batch_write_refusal(const char *line, size_t len, const struct api_error *e, const char *code, struct buf *out)
{
    struct err err;
    struct buf body;
    struct slot s = {0};
    json_t *doc = json_parse(line, len, &err);
    if (doc)
        keep_custom_id(&s, doc);
    json_decref(doc);
    if (code) {
        buf_puts(out, "{\"id\":");
        write_id(out, "batch_req_");
        buf_printf(out, ",\"custom_id\":%s,\"response\":null,\"error\":{\"code\":\"%s\",\"message\":", s.custom_id ? s.custom_id : "null", code);
        json_write_str(out, e->msg, strlen(e->msg));
        buf_puts(out, "}}");
    } else {
        buf_init(&body, 0);
        out->failed |= !api_error_write(e, &body) || !write_answer(s.custom_id, e->status, &body, true, out);
        buf_free(&body);
    }
    mem_free(s.custom_id);
    return !out->failed;
}

static void free_slot(struct slot *s)
{
    api_job_close(&s->job);
    embed_job_close(&s->embed);
    buf_free(&s->body);
    mem_free(s->custom_id);
    s->custom_id = NULL;
    s->used = false;
}

/* ---- the window ---- */

static bool next_line(struct batch *b, int64_t *index, const char **text, size_t *len)
{
    if (b->o->next)
        return b->o->next(b->o->ctx, index, text, len);
    for (ssize_t n; (n = getline(&b->line, &b->line_cap, b->o->in)) >= 0;) {
        while (n > 0 && strchr(" \t\r\n", b->line[n - 1]))
            n--;
        *index = b->n.n_read;
        *text = b->line;
        *len = (size_t)n;
        if (n > 0)
            return true;
    }
    return false;
}

/* Fill free slots with lines.  False at the end of them. */
static bool read_lines(struct batch *b)
{
    int64_t index;
    const char *text;
    size_t len;
    while (b->n_used < b->n_slots) {
        if (!next_line(b, &index, &text, &len))
            return false;
        b->n.n_read++;
        start_slot(b, &b->slots[(b->first + b->n_used) % b->n_slots], index, text, len);
        b->n_used++;
    }
    return true;
}

/* What is ready goes out: in order to a file, all of it to take.  A slot may be given to another line only when the engine cannot push it any
 * more and it is not in the queue. */
static bool retire(struct batch *b, struct err *e)
{
    for (int i = 0; b->o->take && i < b->n_used; i++) {
        struct slot *s = &b->slots[(b->first + i) % b->n_slots];
        if (s->done && !s->taken && !write_slot(b, s, e))
            return false;
    }
    while (b->n_used > 0 && b->slots[b->first].done && !atomic_load(&b->slots[b->first].queued)) {
        if (!b->slots[b->first].taken && !write_slot(b, &b->slots[b->first], e))
            return false;
        free_slot(&b->slots[b->first]);
        b->first = (b->first + 1) % b->n_slots;
        b->n_used--;
    }
    return true;
}

static bool run_all(struct batch *b, struct err *e)
{
    bool more = true;
    while (more || b->n_used > 0) {
        struct mpsc_node *node;
        b->n.in_at = b->o->in ? ftello(b->o->in) : 0;
        if (!b->o->go_on(b->o->ctx, &b->n))
            return err_set(e, ERR_CANCELLED, "stopped after %lld lines", (long long)b->n.n_written);
        start_again(b);
        more = more && read_lines(b);
        while ((node = mpsc_pop(&b->ready)) != NULL) {
            struct slot *s = (struct slot *)((char *)node - offsetof(struct slot, node));
            atomic_store(&s->queued, false); /* before the pull: later news must queue it again */
            pull_slot(s);
        }
        int64_t before = b->n.n_written;
        if (!retire(b, e))
            return false;
        if (b->n.n_written == before && b->n_used > 0 && (!more || b->n_used == b->n_slots))
            mpsc_wait(&b->ready, 200000);
    }
    if (b->o->in && ferror(b->o->in))
        return err_set(e, ERR_IO, "%s: %s", b->o->in_name, strerror(errno));
    return true;
}

bool batch_run(const struct batch_opts *o, struct batch_counts *counts, struct err *e)
{
    struct batch b = {.o = o};
    /* Twice the engine's sequences: whenever some end, others are tokenized and waiting. */
    b.n_slots = o->n_in_flight > 0 ? o->n_in_flight : 2 * api_max_num_seqs(o->api);
    b.slots = mem_try_zalloc((size_t)b.n_slots, sizeof *b.slots);
    mpsc_init(&b.ready);
    bool ok = b.slots ? run_all(&b, e) : err_set(e, ERR_NOMEM, "out of memory");
    for (int i = 0; b.slots && i < b.n_slots; i++)
        if (b.slots[i].used)
            free_slot(&b.slots[i]);
    mem_free(b.slots);
    mem_free(b.line);
    buf_free(&b.text);
    *counts = b.n;
    return ok;
}
