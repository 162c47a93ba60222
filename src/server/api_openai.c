/* The shapes of completions and chat completions: whole bodies and stream events (INTERFACES 1.5). */
#include <string.h>
#include "server/api_int.h"

static bool is_chat(const struct api_job *job) { return job->endpoint == API_CHAT; }

/* {"id":..,"object":..,"created":..,"model":.. without the closing brace */
static void write_head(const struct api_job *job, bool chunk, struct buf *out)
{
    const char *object = !is_chat(job) ? "text_completion" : chunk ? "chat.completion.chunk" : "chat.completion";
    buf_puts(out, "{\"id\":");
    api_write_text(out, job->id, strlen(job->id));
    buf_printf(out, ",\"object\":\"%s\",\"created\":%lld,\"model\":", object, (long long)job->created_s);
    api_write_text(out, job->model, strlen(job->model));
}

/* "finish_reason":..,"stop_reason":.. */
static void write_finish(const struct api_job *job, const struct api_choice *c, struct buf *out)
{
    bool called = c->n_called > 0 && c->finish == ENGINE_FINISH_STOP;
    if (c->ended)
        buf_printf(out, "\"finish_reason\":\"%s\",\"stop_reason\":", called ? "tool_calls" : gen_finish_name(c->finish));
    else
        buf_puts(out, "\"finish_reason\":null,\"stop_reason\":");
    if (c->ended && c->stop_index >= 0)
        api_write_text(out, job->stop[c->stop_index], strlen(job->stop[c->stop_index]));
    else if (c->ended && c->stop_token >= 0)
        buf_printf(out, "%d", c->stop_token);
    else
        buf_puts(out, "null");
}

/* ,"logprobs":.. */
static void write_logprobs(const struct api_job *job, const struct api_choice *c, bool chunk, struct buf *out)
{
    buf_puts(out, ",\"logprobs\":");
    if (job->f.logprobs == API_UNSET || (chunk && c->lp.n == 0)) {
        buf_puts(out, "null");
    } else if (is_chat(job)) {
        buf_puts(out, "{\"content\":[");
        buf_append(out, c->lp.tokens.data ? c->lp.tokens.data : "", c->lp.tokens.len);
        buf_puts(out, "]}");
    } else {
        api_logprobs_write(&c->lp, out);
    }
}

static void write_token_ids(const struct api_job *job, const struct api_choice *c, struct buf *out)
{
    if (!job->f.return_token_ids)
        return;
    buf_puts(out, ",\"token_ids\":[");
    buf_append(out, c->ids.data ? c->ids.data : "", c->ids.len);
    buf_putc(out, ']');
}

static void write_prompt_ids(const struct api_job *job, const struct api_prompt *p, struct buf *out)
{
    if (!job->f.return_token_ids)
        return;
    buf_puts(out, ",\"prompt_token_ids\":");
    api_write_ids(out, p->ids, p->n);
}

/* ,"prompt_logprobs":.. */
static void write_prompt_logprobs(const struct api_job *job, const struct api_prompt *p, struct buf *out)
{
    buf_puts(out, ",\"prompt_logprobs\":");
    if (job->f.prompt_logprobs == API_UNSET) {
        buf_puts(out, "null");
        return;
    }
    buf_putc(out, '[');
    if (p->prompt_logprobs.len)
        buf_append(out, p->prompt_logprobs.data, p->prompt_logprobs.len);
    else
        buf_puts(out, "null");
    buf_putc(out, ']');
}

/* ,"usage":{..} */
static void write_usage(const struct api_job *job, int64_t n_prompt, int64_t n_completion, int64_t n_cached, struct buf *out)
{
    buf_printf(out, ",\"usage\":{\"prompt_tokens\":%lld,\"total_tokens\":%lld,\"completion_tokens\":%lld,\"prompt_tokens_details\":",
               (long long)n_prompt, (long long)(n_prompt + n_completion), (long long)n_completion);
    if (job->api->opts.prompt_tokens_details)
        buf_printf(out, "{\"cached_tokens\":%lld}}", (long long)n_cached);
    else
        buf_puts(out, "null}");
}

static void write_total_usage(const struct api_job *job, struct buf *out)
{
    struct api_job_stats s;
    api_job_stats(job, &s);
    write_usage(job, s.n_prompt, s.n_completion, s.n_cached, out);
}

/* ---- whole bodies ---- */

/* The message that echo repeats before the answer, or "". */
static const char *echoed_message(const struct api_job *job)
{
    const json_t *last = json_array_get(job->f.messages, json_array_size(job->f.messages) - 1);
    const char *role = json_string_value(json_object_get(last, "role")), *content = json_string_value(json_object_get(last, "content"));
    return job->f.echo && role && content && strcmp(role, "assistant") == 0 ? content : "";
}

static void write_message(const struct api_job *job, const struct api_choice *c, struct buf *out)
{
    struct buf text;
    buf_init(&text, 0);
    buf_puts(&text, echoed_message(job));
    buf_append(&text, c->text.data ? c->text.data : "", c->text.len);
    api_reply_message(c, &text, out);
    out->failed |= text.failed;
    buf_free(&text);
}

static void write_choice(const struct api_job *job, const struct api_prompt *p, int32_t index, const struct api_choice *c, struct buf *out)
{
    buf_printf(out, "{\"index\":%d,", index);
    if (is_chat(job)) {
        write_message(job, c, out);
    } else {
        buf_puts(out, "\"text\":");
        api_write_text(out, c->text.data, c->text.len);
    }
    write_logprobs(job, c, false, out);
    buf_putc(out, ',');
    write_finish(job, c, out);
    if (!is_chat(job)) {
        write_prompt_logprobs(job, p, out);
        write_prompt_ids(job, p, out);
    }
    write_token_ids(job, c, out);
    buf_putc(out, '}');
}

void api_openai_body(struct api_job *job, struct buf *out)
{
    write_head(job, false, out);
    buf_puts(out, ",\"choices\":[");
    for (int32_t i = 0; i < job->n_prompts * job->n; i++) {
        const struct api_prompt *p = &job->prompts[i / job->n];
        if (i)
            buf_putc(out, ',');
        write_choice(job, p, i, &p->choices[i % job->n], out);
    }
    buf_puts(out, "]");
    write_total_usage(job, out);
    if (is_chat(job)) {
        write_prompt_logprobs(job, &job->prompts[0], out);
        write_prompt_ids(job, &job->prompts[0], out);
    }
    buf_puts(out, ",\"kv_transfer_params\":null}");
}

/* ---- events ---- */

static void begin_chunk(const struct api_job *job, const struct api_prompt *p, int32_t choice, struct buf *out)
{
    buf_puts(out, "data: ");
    write_head(job, true, out);
    buf_printf(out, ",\"choices\":[{\"index\":%d,", (int32_t)(p - job->prompts) * job->n + choice);
}

static void end_chunk(const struct api_job *job, const struct api_prompt *p, int32_t choice, struct buf *out)
{
    buf_puts(out, "}]");
    if (job->f.continuous_usage)
        write_usage(job, p->n, p->gen ? gen_n_completion(p->gen, choice) : p->choices[choice].n_completion, p->n_cached, out);
    else if (job->f.include_usage)
        buf_puts(out, ",\"usage\":null");
    buf_puts(out, "}\n\n");
}

void api_openai_role(struct api_job *job, struct api_prompt *p, int32_t choice, struct buf *out)
{
    const char *echo = echoed_message(job);
    begin_chunk(job, p, choice, out);
    buf_puts(out, "\"delta\":{\"role\":\"assistant\",\"content\":");
    api_write_text(out, echo, strlen(echo));
    buf_puts(out, "},\"logprobs\":null,\"finish_reason\":null");
    write_prompt_ids(job, p, out);
    end_chunk(job, p, choice, out);
}

void api_openai_chunk(struct api_job *job, struct api_prompt *p, int32_t choice, struct buf *out)
{
    struct api_choice *c = &p->choices[choice];
    begin_chunk(job, p, choice, out);
    if (is_chat(job)) {
        api_reply_delta(c, out);
    } else {
        buf_puts(out, "\"text\":");
        api_write_text(out, c->text.data, c->text.len);
    }
    write_logprobs(job, c, true, out);
    buf_putc(out, ',');
    write_finish(job, c, out);
    if (!is_chat(job) && !c->started)
        write_prompt_ids(job, p, out);
    write_token_ids(job, c, out);
    end_chunk(job, p, choice, out);
    c->started = true;
    buf_clear(&c->text);
    buf_clear(&c->ids);
    api_logprobs_clear(&c->lp);
}

void api_openai_usage_chunk(struct api_job *job, struct buf *out)
{
    buf_puts(out, "data: ");
    write_head(job, true, out);
    buf_puts(out, ",\"choices\":[]");
    write_total_usage(job, out);
    buf_puts(out, "}\n\n");
}
