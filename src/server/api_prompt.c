/* Prompts: from strings, token ids or messages to ids that fit the context. */
#include <string.h>
#include "base/clock.h"
#include "base/json.h"
#include "base/mem.h"
#include "server/api_int.h"

enum { MAX_PROMPTS = 4096, MAX_CHOICES = 65536 };

static bool no_memory(struct api_error *e) { return api_fail(e, ERR_NOMEM, NULL, "out of memory for the request"); }

static const char *field_of(const struct api_job *job) { return job->endpoint == API_CHAT ? "messages" : "prompt"; }

/* ---- the context ---- */

/* P + M > N: the documented message (INTERFACES 0.1), before anything is submitted. */
static bool check_context(struct api_job *job, struct api_prompt *p, struct api_error *e)
{
    int64_t limit = job->api->info->max_model_len, n = p->n, want = job->max_tokens;
    const char *field = field_of(job);
    int32_t most = job->api->opts.limits.input_tokens;
    if (most > 0 && n > most)
        return api_fail(e, ERR_TOO_LARGE, field, "your prompt has %lld tokens, and this server takes at most %d", (long long)n, most);
    if (n == 0)
        return api_fail(e, ERR_INVALID, field, "the prompt has no tokens");
    if (!job->max_tokens_given || want == 0) {
        if (n < limit || (want == 0 && job->score_only && n <= limit))
            return true;
        return api_fail(e, ERR_TOO_LARGE, field,
                        "This model's maximum context length is %lld tokens. However, your prompt has %lld tokens. Please reduce its length.",
                        (long long)limit, (long long)n);
    }
    if (n + want <= limit)
        return true;
    bool chat = job->endpoint == API_CHAT;
    return api_fail(e, ERR_TOO_LARGE, field,
                    "This model's maximum context length is %lld tokens. However, you requested %lld tokens (%lld %s, %lld in the "
                    "completion). Please reduce the length of the %s or completion.",
                    (long long)limit, (long long)(n + want), (long long)n, chat ? "in the messages" : "tokens in the prompt",
                    (long long)want, chat ? "messages" : "prompt");
}

/* A text of so many bytes cannot be fewer tokens than this: refused before the work of tokenizing it. */
static bool check_bytes(const struct api_job *job, size_t len, struct api_error *e)
{
    size_t limit = (size_t)job->api->info->max_model_len, least = len / job->api->longest_token_bytes;
    if (least <= limit || job->f.truncate_prompt_tokens != API_UNSET)
        return true;
    return api_fail(e, ERR_TOO_LARGE, field_of(job),
                    "This model's maximum context length is %zu tokens. However, your prompt has at least %zu tokens. Please reduce its "
                    "length.", limit, least);
}

/* truncate_prompt_tokens: the last N, or the first (truncation_side right); -1: as many as leave room for the answer. */
static bool truncate_prompt(const struct api_job *job, struct api_prompt *p, struct api_error *e)
{
    int64_t keep = job->f.truncate_prompt_tokens, limit = job->api->info->max_model_len;
    if (keep == API_UNSET)
        return true;
    if (keep == 0 || keep > limit)
        return api_fail(e, ERR_INVALID, "truncate_prompt_tokens", "'truncate_prompt_tokens' must be -1 or between 1 and %lld, found %lld",
                        (long long)limit, (long long)keep);
    if (keep == -1)
        keep = limit - (job->max_tokens > 1 ? job->max_tokens : 1);
    if (keep < 1 || p->n <= keep)
        return true;
    if (!job->f.truncation_side || strcmp(job->f.truncation_side, "left") == 0)
        p->ids += p->n - keep;
    p->n = (int32_t)keep;
    p->text = NULL; /* an echo shows what the model saw */
    return true;
}

static bool take_ids(struct api_job *job, struct api_prompt *p, struct tok_ids *ids, struct api_error *e)
{
    if (ids->n > INT32_MAX)
        return api_fail(e, ERR_TOO_LARGE, field_of(job), "the prompt has too many tokens");
    p->ids = arena_try_alloc(job->arena, ids->n + 1, sizeof *p->ids);
    if (!p->ids)
        return no_memory(e);
    if (ids->n)
        memcpy(p->ids, ids->ids, ids->n * sizeof *p->ids);
    p->n = (int32_t)ids->n;
    return true;
}

static bool encode(struct api_job *job, struct api_prompt *p, const char *text, size_t len, struct api_error *e)
{
    struct err err;
    struct tok_ids ids = {0};
    if (!job->api->tok)
        return api_fail(e, ERR_UNSUPPORTED, field_of(job), "this model has no tokenizer; send token ids");
    if (!check_bytes(job, len, e))
        return false;
    bool ok = tok_encode(job->api->tok, text, len, job->f.add_special_tokens ? TOK_ENCODE_SPECIAL : TOK_ENCODE_PLAIN, &ids, &err) ||
              api_fail_err(e, field_of(job), &err);
    ok = ok && take_ids(job, p, &ids, e);
    tok_ids_free(&ids);
    return ok;
}

static bool finish_prompt(struct api_job *job, struct api_prompt *p, struct api_error *e)
{
    return truncate_prompt(job, p, e) && check_context(job, p, e);
}

/* ---- completions ---- */

static bool alloc_prompts(struct api_job *job, size_t n, struct api_error *e)
{
    if (n > MAX_PROMPTS || n * (size_t)job->f.n > MAX_CHOICES)
        return api_fail(e, ERR_INVALID, "prompt", "%zu prompts of %lld choices are more than the %d prompts or %d choices of one request", n,
                        (long long)job->f.n, MAX_PROMPTS, MAX_CHOICES);
    job->prompts = mem_try_zalloc(n, sizeof *job->prompts);
    job->n_prompts = job->prompts ? (int32_t)n : 0;
    return job->prompts || no_memory(e);
}

/* A string, or an array of token ids. */
static bool read_prompt(struct api_job *job, struct api_prompt *p, const json_t *v, struct api_error *e)
{
    if (json_is_string(v)) {
        p->text = json_string_value(v);
        p->text_len = json_string_length(v);
        return encode(job, p, p->text, p->text_len, e) && finish_prompt(job, p, e);
    }
    if (!json_is_array(v))
        return api_fail(e, ERR_INVALID, "prompt", "'prompt': expected string, array of strings, or array of token ids, found %s",
                        json_type_name(v));
    return api_read_ids(job->arena, v, "prompt", job->api->info->vocab_size, &p->ids, &p->n, e) && finish_prompt(job, p, e);
}

bool api_prompt_completions(struct api_job *job, struct api_error *e)
{
    const json_t *v = job->f.prompt;
    if (!v)
        return api_fail(e, ERR_INVALID, "prompt", "'prompt' is required");
    if (json_is_array(v) && json_array_size(v) == 0)
        return api_fail(e, ERR_INVALID, "prompt", "'prompt' must not be empty");
    const json_t *first = json_array_get(v, 0);
    bool many = json_is_string(first) || json_is_array(first);
    size_t n = many ? json_array_size(v) : 1;
    if (!alloc_prompts(job, n, e))
        return false;
    for (size_t i = 0; i < n; i++) {
        const json_t *one = many ? json_array_get(v, i) : v;
        if (many && json_typeof(one) != json_typeof(first))
            return api_fail(e, ERR_INVALID, "prompt", "'prompt[%zu]': expected %s as in 'prompt[0]', found %s", i, json_type_name(first),
                            json_type_name(one));
        if (!read_prompt(job, &job->prompts[i], one, e))
            return false;
    }
    return true;
}

/* ---- chat ---- */

/* The text of a member of a content list, as vLLM takes them: a string, or a part of one of these types.  NULL: neither. */
static const json_t *part_text(const json_t *part)
{
    static const char *const kinds[][2] = {{"text", "text"}, {"input_text", "text"}, {"output_text", "text"}, {"refusal", "refusal"}, {"thinking", "thinking"}};
    const char *type = json_string_value(json_object_get(part, "type"));
    if (json_is_string(part))
        return part;
    for (size_t i = 0; type && i < sizeof kinds / sizeof *kinds; i++)
        if (strcmp(type, kinds[i][0]) == 0)
            return json_object_get(part, kinds[i][1]);
    return NULL;
}

static bool check_part(const json_t *part, size_t i, struct api_error *e)
{
    const char *type = json_string_value(json_object_get(part, "type"));
    const json_t *text = part_text(part);
    if (json_is_string(text))
        return true;
    if (!type)
        return api_fail(e, ERR_INVALID, "messages", "'messages[%zu].content' has a part that is neither a string nor an object with a string 'type'", i);
    if (text || strcmp(type, "text") == 0 || strcmp(type, "input_text") == 0 || strcmp(type, "output_text") == 0)
        return api_fail(e, ERR_INVALID, "messages", "'messages[%zu].content' has a text part without a string 'text'", i);
    return api_fail(e, ERR_UNSUPPORTED, "messages", "'messages[%zu].content': parts of type '%.64s' are not supported, only text", i, type);
}

static bool check_messages(const json_t *messages, struct api_error *e)
{
    if (!messages)
        return api_fail(e, ERR_INVALID, "messages", "'messages' is required");
    if (json_array_size(messages) == 0)
        return api_fail(e, ERR_INVALID, "messages", "'messages' must not be empty");
    for (size_t i = 0; i < json_array_size(messages); i++) {
        const json_t *m = json_array_get(messages, i), *content = json_object_get(m, "content");
        if (!json_is_object(m) || !json_is_string(json_object_get(m, "role")))
            return api_fail(e, ERR_INVALID, "messages", "'messages[%zu]' must be an object with a string 'role'", i);
        if (content && !json_is_null(content) && !json_is_string(content) && !json_is_array(content))
            return api_fail(e, ERR_INVALID, "messages", "'messages[%zu].content': expected string or array, found %s", i,
                            json_type_name(content));
        for (size_t k = 0; json_is_array(content) && k < json_array_size(content); k++)
            if (!check_part(json_array_get(content, k), i, e))
                return false;
    }
    return true;
}

/* kwargs with reasoning_effort added, a new reference; NULL when there are none (or no memory, which the render reports). */
static json_t *make_kwargs(const struct api_fields *f)
{
    if (!f->chat_template_kwargs && !f->reasoning_effort)
        return NULL;
    json_t *kwargs = f->chat_template_kwargs ? json_copy((json_t *)f->chat_template_kwargs) : json_object();
    if (f->reasoning_effort)
        json_object_set_new(kwargs, "reasoning_effort", json_string(f->reasoning_effort));
    return kwargs;
}

/* Templates see the arguments of earlier calls as objects; clients send them as text. */
static void parse_calls(const json_t *message)
{
    const json_t *calls = json_object_get(message, "tool_calls");
    for (size_t k = 0; k < json_array_size(calls); k++) {
        struct err ignored;
        json_t *fn = json_object_get(json_array_get(calls, k), "function");
        const json_t *args = json_object_get(fn, "arguments");
        json_t *parsed = json_is_string(args) ? json_parse(json_string_value(args), json_string_length(args), &ignored) : NULL;
        if (json_is_object(parsed))
            json_object_set(fn, "arguments", parsed);
        json_decref(parsed);
    }
}

/* And parts of content lists as {"type":"text","text":..}. */
static bool plain_parts(json_t *content)
{
    for (size_t k = 0; k < json_array_size(content); k++) {
        const json_t *text = part_text(json_array_get(content, k));
        json_t *part = json_pack("{s:s,s:O}", "type", "text", "text", text);
        if (!part || json_array_set_new(content, k, part) != 0)
            return false;
    }
    return true;
}

/* The messages (checked) as templates want them, a new reference; NULL: no memory. */
static json_t *for_template(const json_t *messages)
{
    bool as_is = true;
    for (size_t i = 0; i < json_array_size(messages); i++) {
        const json_t *m = json_array_get(messages, i);
        as_is &= json_array_size(json_object_get(m, "tool_calls")) == 0 && !json_is_array(json_object_get(m, "content"));
    }
    if (as_is)
        return json_incref((json_t *)messages);
    json_t *out = json_deep_copy(messages);
    for (size_t i = 0; i < json_array_size(out); i++) {
        parse_calls(json_array_get(out, i));
        if (!plain_parts(json_object_get(json_array_get(out, i), "content"))) {
            json_decref(out);
            return NULL;
        }
    }
    return out;
}

static bool fail_template(struct api_error *e, enum err_code code, const char *msg)
{
    api_fail(e, code, "messages", "%s", msg);
    e->in_template = true;
    return false;
}

bool api_prompt_render(const struct api *a, const struct api_fields *f, struct buf *out, struct api_error *e)
{
    struct err err;
    struct chat *own = NULL;
    if (!check_messages(f->messages, e))
        return false;
    if (f->chat_template && !chat_open(&own, a->tok, f->chat_template, strlen(f->chat_template), NULL, NULL, NULL, &err))
        return api_fail_err(e, "chat_template", &err);
    if (!own && !a->chat)
        return fail_template(e, ERR_UNSUPPORTED, "this model has no chat template: start the server with --chat-template FILE, or send 'chat_template'");
    const char *choice = json_string_value(f->tool_choice);
    bool tools = json_array_size(f->tools) > 0 && !(choice && strcmp(choice, "none") == 0);
    json_t *kwargs = make_kwargs(f), *messages = for_template(f->messages);
    struct chat_render_opts o = {
        .messages = messages, .tools = tools ? f->tools : NULL, .documents = f->documents, .kwargs = kwargs,
        .add_generation_prompt = f->add_generation_prompt, .continue_final_message = f->continue_final_message, .now_unix = clock_unix_s(),
    };
    bool ok = messages ? chat_render(own ? own : a->chat, &o, out, &err) : err_set(&err, ERR_NOMEM, "out of memory for the request");
    json_decref(messages);
    json_decref(kwargs);
    chat_close(&own);
    return ok || (err.code == ERR_NOMEM ? api_fail_err(e, "messages", &err) : fail_template(e, ERR_INVALID, err.msg));
}

bool api_prompt_chat(struct api_job *job, struct api_error *e)
{
    struct buf text;
    buf_init(&text, 0);
    bool ok = alloc_prompts(job, 1, e) && api_prompt_render(job->api, &job->f, &text, e);
    if (ok)
        api_reply_begin(job, text.data ? text.data : "", text.len);
    ok = ok &&
              encode(job, &job->prompts[0], text.data ? text.data : "", text.len, e) && finish_prompt(job, &job->prompts[0], e);
    buf_free(&text);
    return ok;
}
