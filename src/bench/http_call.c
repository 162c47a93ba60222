#include "bench/http_call.h"

#include <stdio.h>
#include <string.h>
#include "base/json.h"
#include "base/mem.h"
#include "base/utf8.h"
#include "base/vec.h"

enum { MAX_TOKENS = 1 << 30 };

void bench_call_reset(struct bench_call *c)
{
    *c = (struct bench_call){.keep_text = c->keep_text, .prompt_tokens = -1, .completion_tokens = -1};
    buf_init(&c->text, 0);
}

void bench_call_free(struct bench_call *c)
{
    mem_free(c->gaps);
    c->gaps = NULL;
    c->n_gaps = c->cap_gaps = 0;
    buf_free(&c->text);
}

/* One line of UTF-8: servers put newlines and worse into their messages. */
static void fail(struct bench_call *c, const char *what, const char *detail)
{
    if (c->error[0])
        return;
    snprintf(c->error, sizeof c->error, "%s%s%s", what, detail && *detail ? ": " : "", detail ? detail : "");
    c->error[utf8_complete_prefix(c->error, strlen(c->error))] = 0;
    bool valid = utf8_valid(c->error, strlen(c->error));
    for (char *p = c->error; *p; p++)
        if ((unsigned char)*p < ' ' || (!valid && (unsigned char)*p >= 127))
            *p = ' ';
}

/* The message of {"error":{"message":..}}, {"error":".."}, {"message":..} or {"detail":..}; NULL when there is none. */
static const char *error_message(const json_t *doc)
{
    const json_t *error = json_object_get(doc, "error");
    const json_t *const places[] = {json_object_get(error, "message"), error, json_object_get(doc, "message"), json_object_get(doc, "detail")};
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++)
        if (json_is_string(places[i]))
            return json_string_value(places[i]);
    return NULL;
}

static bool has_text(const json_t *j)
{
    return json_string_length(j) > 0;
}

static bool add_token(struct bench_call *c, int64_t now_us)
{
    c->n_chunks++;
    if (c->first_us == 0) {
        c->first_us = c->last_us = now_us;
        return true;
    }
    if (!vec_reserve((void **)&c->gaps, &c->cap_gaps, c->n_gaps + 1, sizeof *c->gaps))
        return false;
    c->gaps[c->n_gaps++] = (double)(now_us - c->last_us) / 1e6;
    c->last_us = now_us;
    return true;
}

static bool take_choice(struct bench_call *c, const json_t *choice, int64_t now_us)
{
    const json_t *delta = json_object_get(choice, "delta");
    const json_t *texts[] = {json_object_get(choice, "text"), json_object_get(delta, "content"), json_object_get(delta, "reasoning_content"),
                             json_object_get(delta, "reasoning")};
    bool finish = json_is_string(json_object_get(choice, "finish_reason")), text = json_array_size(json_object_get(delta, "tool_calls")) > 0;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        text = text || has_text(texts[i]);
    if (c->any_us == 0)
        c->any_us = now_us;
    c->finished = c->finished || finish;
    if (!text && (finish || json_object_get(delta, "role")))
        return true;
    if (c->keep_text && has_text(texts[0]))
        buf_append(&c->text, json_string_value(texts[0]), json_string_length(texts[0]));
    if (c->keep_text && has_text(texts[1]))
        buf_append(&c->text, json_string_value(texts[1]), json_string_length(texts[1]));
    return add_token(c, now_us) && !c->text.failed;
}

static void take_usage(const json_t *usage, const char *key, int64_t *out)
{
    int64_t n;
    if (json_is_object(usage) && json_get_i64(usage, key, -1, &n, NULL) && n >= 0 && n <= MAX_TOKENS)
        *out = n;
}

bool bench_call_event(struct bench_call *c, const char *data, size_t len, int64_t now_us)
{
    struct err e;
    if (len == 6 && memcmp(data, "[DONE]", 6) == 0)
        return c->done = true;
    json_t *doc = json_parse(data, len, &e);
    if (!json_is_object(doc)) {
        fail(c, "an event of the stream is not a JSON object", doc ? NULL : e.msg);
        json_decref(doc);
        return false;
    }
    const json_t *error = json_object_get(doc, "error"), *choices = json_object_get(doc, "choices");
    bool ok = true;
    if (error && !json_is_null(error)) {
        const char *message = error_message(doc);
        fail(c, "error in the stream", message);
        ok = false;
    }
    take_usage(json_object_get(doc, "usage"), "prompt_tokens", &c->prompt_tokens);
    take_usage(json_object_get(doc, "usage"), "completion_tokens", &c->completion_tokens);
    if (ok && json_array_size(choices) > 0 && !take_choice(c, json_array_get(choices, 0), now_us)) {
        fail(c, "out of memory", NULL);
        ok = false;
    }
    json_decref(doc);
    return ok;
}

static void fail_status(struct bench_call *c, const struct buf *reply)
{
    char what[32];
    struct err e;
    snprintf(what, sizeof what, "HTTP %d", c->status);
    json_t *doc = reply && reply->len ? json_parse(reply->data, reply->len, &e) : NULL;
    const char *message = error_message(doc);
    fail(c, what, message ? message : reply ? reply->data : NULL);
    json_decref(doc);
}

void bench_call_end(struct bench_call *c, int status, const char *transport, const struct buf *reply)
{
    c->status = status;
    if (status != 0 && status != 200)
        fail_status(c, reply);
    else if (transport && !c->done)
        fail(c, transport, NULL);
    else if (!c->done && !c->finished)
        fail(c, c->any_us ? "the stream ended before [DONE]" : "the answer holds no events of a stream", NULL);
    else if (c->any_us == 0)
        fail(c, "the stream held no token", NULL);
    if (c->first_us == 0)
        c->first_us = c->last_us = c->any_us;
    c->ok = c->error[0] == 0;
}

int64_t bench_call_out_len(const struct bench_call *c)
{
    return c->completion_tokens >= 0 ? c->completion_tokens : c->n_chunks;
}

double bench_call_ttft(const struct bench_call *c)
{
    return (double)(c->first_us - c->start_us) / 1e6;
}

double bench_call_latency(const struct bench_call *c)
{
    return (double)(c->last_us - c->start_us) / 1e6;
}
