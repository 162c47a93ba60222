/* POST /v1/responses, its stateless core: a request becomes the chat request that it is, and the reply is written as items. */
#include <stdio.h>
#include <string.h>
#include "base/json.h"
#include "base/mem.h"
#include "base/rng.h"
#include "base/vec.h"
#include "server/api_int.h"

enum item_kind { ITEM_REASONING, ITEM_MESSAGE, ITEM_CALL };
static const char *const kind_names[] = {"reasoning", "message", "function_call"};
static const char *const id_prefixes[] = {"rs", "msg", "fc"};

struct item {
    enum item_kind kind;
    char id[48];
    int call;                  /* of CALL: which of the choice's */
    struct buf text, logprobs;
};

struct api_responses {
    json_t *request;           /* as it came */
    struct item *items; size_t n_items, cap_items;
    int64_t sequence;          /* of events */
    bool open;                 /* the last item goes on */
};

/* ---- the request ---- */

static bool refuse(struct api_error *e, const char *param, const char *what)
{
    return api_fail(e, ERR_UNSUPPORTED, param, "'%s' is not supported: %s", param, what);
}

static bool no_memory(struct api_error *e) { return api_fail(e, ERR_NOMEM, NULL, "out of memory for the request"); }

/* Parts of input and output are text to a chat. */
static json_t *content_of(const json_t *content)
{
    if (!json_is_array(content))
        return json_incref((json_t *)content);
    json_t *parts = json_array();
    for (size_t i = 0; i < json_array_size(content); i++) {
        const json_t *part = json_array_get(content, i);
        const char *type = json_string_value(json_object_get(part, "type"));
        bool text = type && (strcmp(type, "input_text") == 0 || strcmp(type, "output_text") == 0 || strcmp(type, "text") == 0);
        json_array_append_new(parts, text ? json_pack("{s:s,s:O?}", "type", "text", "text", json_object_get(part, "text")) : json_incref((json_t *)part));
    }
    return parts;
}

static bool add_message(json_t *messages, const json_t *item, size_t i, struct api_error *e)
{
    const char *role = json_string_value(json_object_get(item, "role"));
    const json_t *content = json_object_get(item, "content");
    if (!role || !content)
        return api_fail(e, ERR_INVALID, "input", "'input[%zu]': a message needs 'role' and 'content'", i);
    /* Templates know the older word. */
    json_t *m = json_pack("{s:s,s:o}", "role", strcmp(role, "developer") == 0 ? "system" : role, "content", content_of(content));
    return json_array_append_new(messages, m) == 0 || no_memory(e);
}

/* Calls that follow each other are one turn. */
static bool add_call(json_t *messages, const json_t *item, size_t i, struct api_error *e)
{
    const json_t *id = json_object_get(item, "call_id"), *name = json_object_get(item, "name"), *args = json_object_get(item, "arguments");
    json_t *last = json_array_get(messages, json_array_size(messages) - 1);
    if (!json_is_string(id) || !json_is_string(name) || !json_is_string(args))
        return api_fail(e, ERR_INVALID, "input", "'input[%zu]': a function_call needs strings 'call_id', 'name' and 'arguments'", i);
    const char *role = json_string_value(json_object_get(last, "role"));
    if (!role || strcmp(role, "assistant") != 0) {
        last = json_pack("{s:s,s:n}", "role", "assistant", "content");
        if (json_array_append_new(messages, last) != 0)
            return no_memory(e);
    }
    if (!json_object_get(last, "tool_calls"))
        json_object_set_new(last, "tool_calls", json_array());
    json_t *call = json_pack("{s:O,s:s,s:{s:O,s:O}}", "id", id, "type", "function", "function", "name", name, "arguments", args);
    return json_array_append_new(json_object_get(last, "tool_calls"), call) == 0 || no_memory(e);
}

static bool add_result(json_t *messages, const json_t *item, size_t i, struct api_error *e)
{
    const json_t *id = json_object_get(item, "call_id"), *output = json_object_get(item, "output");
    if (!json_is_string(id) || (!json_is_string(output) && !json_is_array(output)))
        return api_fail(e, ERR_INVALID, "input", "'input[%zu]': a function_call_output needs a string 'call_id' and 'output'", i);
    return json_array_append_new(messages, json_pack("{s:s,s:O,s:o}", "role", "tool", "tool_call_id", id, "content", content_of(output))) == 0 || no_memory(e);
}

static bool add_item(json_t *messages, const json_t *item, size_t i, struct api_error *e)
{
    const char *type = json_string_value(json_object_get(item, "type"));
    if (!json_is_object(item))
        return api_fail(e, ERR_INVALID, "input", "'input[%zu]': expected object, found %s", i, json_type_name(item));
    if (!type || strcmp(type, "message") == 0)
        return add_message(messages, item, i, e);
    if (strcmp(type, "function_call") == 0)
        return add_call(messages, item, i, e);
    if (strcmp(type, "function_call_output") == 0)
        return add_result(messages, item, i, e);
    /* What was thought in earlier turns is no part of the next prompt. */
    return strcmp(type, "reasoning") == 0 ||
           api_fail(e, ERR_UNSUPPORTED, "input", "'input[%zu]': items of type '%.64s' are not supported", i, type);
}

static bool make_messages(const json_t *doc, json_t *chat, struct api_error *e)
{
    const json_t *input = json_object_get(doc, "input"), *instructions = json_object_get(doc, "instructions");
    json_t *messages = json_array();
    if (!messages || json_object_set_new(chat, "messages", messages) != 0)
        return no_memory(e);
    if (instructions && !json_is_null(instructions)) {
        if (!json_is_string(instructions))
            return api_fail(e, ERR_INVALID, "instructions", "'instructions': expected string, found %s", json_type_name(instructions));
        json_array_append_new(messages, json_pack("{s:s,s:O}", "role", "system", "content", instructions));
    }
    if (json_is_string(input))
        return json_array_append_new(messages, json_pack("{s:s,s:O}", "role", "user", "content", input)) == 0 || no_memory(e);
    if (!json_is_array(input) || json_array_size(input) == 0)
        return api_fail(e, ERR_INVALID, "input", input ? "'input': expected string or a list of items that is not empty" : "'input' is required");
    for (size_t i = 0; i < json_array_size(input); i++)
        if (!add_item(messages, json_array_get(input, i), i, e))
            return false;
    return true;
}

/* {"type":"function","name":..} to {"type":"function","function":{"name":..}} */
static bool make_tools(const json_t *doc, json_t *chat, struct api_error *e)
{
    const json_t *tools = json_object_get(doc, "tools"), *choice = json_object_get(doc, "tool_choice");
    if (tools && !json_is_null(tools)) {
        json_t *list = json_array();
        if (!list || json_object_set_new(chat, "tools", list) != 0)
            return no_memory(e);
        if (!json_is_array(tools))
            return api_fail(e, ERR_INVALID, "tools", "'tools': expected array, found %s", json_type_name(tools));
        for (size_t i = 0; i < json_array_size(tools); i++) {
            json_t *fn = json_copy(json_array_get(tools, i));
            const char *type = json_string_value(json_object_get(fn, "type"));
            if (!type || strcmp(type, "function") != 0) {
                json_decref(fn);
                return api_fail(e, ERR_UNSUPPORTED, "tools", "'tools[%zu]': only functions are supported", i);
            }
            json_object_del(fn, "type");
            if (json_array_append_new(list, json_pack("{s:s,s:o}", "type", "function", "function", fn)) != 0)
                return no_memory(e);
        }
    }
    if (!json_is_object(choice))
        return !choice || json_object_set(chat, "tool_choice", (json_t *)choice) == 0 || no_memory(e);
    const char *type = json_string_value(json_object_get(choice, "type"));
    if (!type || strcmp(type, "function") != 0)
        return refuse(e, "tool_choice", "it must be none, auto, required or {\"type\":\"function\",\"name\":...}");
    return json_object_set_new(chat, "tool_choice", json_pack("{s:s,s:{s:O?}}", "type", "function", "function", "name", json_object_get(choice, "name"))) == 0 || no_memory(e);
}

/* text.format, reasoning.effort, truncation, include, top_logprobs. */
static bool make_options(const json_t *doc, json_t *chat, struct api_error *e)
{
    const json_t *text = json_object_get(doc, "text"), *format = json_object_get(text, "format"), *top = json_object_get(doc, "top_logprobs");
    const json_t *effort = json_object_get(json_object_get(doc, "reasoning"), "effort"), *include = json_object_get(doc, "include");
    const char *truncation = json_string_value(json_object_get(doc, "truncation")), *type = json_string_value(json_object_get(format, "type"));
    if (text && !json_is_null(text) && !json_is_object(text))
        return api_fail(e, ERR_INVALID, "text", "'text': expected object, found %s", json_type_name(text));
    if (type && strcmp(type, "json_schema") == 0)
        json_object_set_new(chat, "response_format", json_pack("{s:s,s:O}", "type", "json_schema", "json_schema", format));
    else if (format && !json_is_null(format))
        json_object_set(chat, "response_format", (json_t *)format);
    if (json_is_string(effort))
        json_object_set(chat, "reasoning_effort", (json_t *)effort);
    if (truncation && strcmp(truncation, "auto") == 0)
        json_object_set_new(chat, "truncate_prompt_tokens", json_integer(-1));
    else if (truncation && strcmp(truncation, "disabled") != 0)
        return api_fail(e, ERR_INVALID, "truncation", "'truncation' must be auto or disabled, found '%.64s'", truncation);
    bool logprobs = json_is_integer(top) && json_integer_value(top) > 0;
    for (size_t i = 0; i < json_array_size(include); i++) {
        const char *what = json_string_value(json_array_get(include, i));
        if (what && strcmp(what, "message.output_text.logprobs") == 0)
            logprobs = true;
        else if (!what || strcmp(what, "reasoning.encrypted_content") != 0)
            return refuse(e, "include", "only message.output_text.logprobs and reasoning.encrypted_content (which is left out) are known");
    }
    if (logprobs)
        json_object_set_new(chat, "logprobs", json_true());
    return true;
}

static bool check_state(const json_t *doc, struct api_error *e)
{
    static const struct { const char *field, *why; } rows[] = {
        {"previous_response_id", "this server keeps no responses; send the earlier items in 'input'"},
        {"conversation", "this server keeps no conversations; send the earlier items in 'input'"},
        {"background", "this server keeps no responses"}, {"prompt", "this server keeps no prompts"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const json_t *v = json_object_get(doc, rows[i].field);
        if (v && !json_is_null(v) && !json_is_false(v))
            return refuse(e, rows[i].field, rows[i].why);
    }
    return true;
}

bool api_responses_open(struct api_job *job, struct api_error *e)
{
    static const char *const same[] = {
        "model", "stream", "temperature", "top_p", "top_logprobs", "parallel_tool_calls", "top_k", "min_p", "seed", "stop", "repetition_penalty", "presence_penalty",
        "frequency_penalty", "logit_bias", "priority", "cache_salt", "skip_special_tokens", "request_id", "chat_template_kwargs", "structured_outputs", "ignore_eos",
        "min_tokens", "timeout", "return_timings", "stream_interval",
    };
    if (!json_is_object(job->doc))
        return api_fail(e, ERR_INVALID, NULL, "the body must be a JSON object, found %s", json_type_name(job->doc));
    struct api_responses *r = mem_try_zalloc(1, sizeof *r);
    json_t *chat = json_object();
    if (!r || !chat) {
        mem_free(r);
        json_decref(chat);
        return no_memory(e);
    }
    r->request = job->doc;
    job->responses = r;
    job->doc = chat;
    for (size_t i = 0; i < sizeof same / sizeof same[0]; i++) {
        json_t *v = json_object_get(r->request, same[i]);
        if (v)
            json_object_set(chat, same[i], v);
    }
    json_t *most = json_object_get(r->request, "max_output_tokens");
    if (most)
        json_object_set(chat, "max_completion_tokens", most);
    return check_state(r->request, e) && make_messages(r->request, chat, e) && make_tools(r->request, chat, e) && make_options(r->request, chat, e);
}

/* The chat's names of fields to those that the client knows. */
void api_responses_name_fault(struct api_error *e)
{
    static const char *const names[][2] = {{"max_completion_tokens", "max_output_tokens"}, {"max_tokens", "max_output_tokens"}, {"messages", "input"}, {"response_format", "text"}};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strcmp(e->param, names[i][0]) == 0)
            snprintf(e->param, sizeof e->param, "%s", names[i][1]);
}

void api_responses_close(struct api_responses **pr)
{
    struct api_responses *r = *pr;
    if (!r)
        return;
    *pr = NULL;
    for (size_t i = 0; i < r->n_items; i++) {
        buf_free(&r->items[i].text);
        buf_free(&r->items[i].logprobs);
    }
    mem_free(r->items);
    json_decref(r->request);
    mem_free(r);
}

/* ---- items as JSON ---- */

static json_t *text_of(const struct buf *b)
{
    struct buf quoted;
    buf_init(&quoted, 0);
    api_write_text(&quoted, b->data, b->len);
    json_t *v = quoted.data ? json_loadb(quoted.data, quoted.len, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL) : NULL;
    buf_free(&quoted);
    return v ? v : json_string("");
}

static json_t *logprobs_of(const struct buf *b)
{
    struct buf list;
    buf_init(&list, 0);
    buf_putc(&list, '[');
    buf_append(&list, b->data ? b->data : "", b->len);
    buf_putc(&list, ']');
    json_t *v = list.data ? json_loadb(list.data, list.len, JSON_ALLOW_NUL, NULL) : NULL;
    buf_free(&list);
    return v ? v : json_array();
}

static json_t *text_part(const struct item *it)
{
    return json_pack("{s:s,s:o,s:[],s:o}", "type", "output_text", "text", text_of(&it->text), "annotations", "logprobs", logprobs_of(&it->logprobs));
}

static json_t *item_json(const struct api_choice *c, const struct item *it, bool done)
{
    const char *status = done ? "completed" : "in_progress";
    json_t *content = json_array();
    switch (it->kind) {
    case ITEM_REASONING:
        if (done)
            json_array_append_new(content, json_pack("{s:s,s:o}", "type", "reasoning_text", "text", text_of(&it->text)));
        return json_pack("{s:s,s:s,s:[],s:o,s:n,s:s}", "id", it->id, "type", kind_names[it->kind], "summary", "content", content, "encrypted_content", "status", status);
    case ITEM_MESSAGE:
        if (done)
            json_array_append_new(content, text_part(it));
        return json_pack("{s:s,s:s,s:s,s:s,s:o}", "id", it->id, "type", kind_names[it->kind], "status", status, "role", "assistant", "content", content);
    case ITEM_CALL:
        break;
    }
    json_decref(content);
    const struct api_call *call = &c->called[it->call];
    return json_pack("{s:s,s:s,s:s,s:s,s:o,s:o}", "id", it->id, "type", kind_names[it->kind], "status", status, "call_id", call->id, "name", text_of(&call->name),
                     "arguments", done ? text_of(&call->arguments) : json_string(""));
}

/* ---- the response ---- */

static json_t *given(const json_t *request, const char *key, json_t *otherwise)
{
    json_t *v = json_object_get(request, key);
    if (!v)
        return otherwise;
    json_decref(otherwise);
    return json_incref(v);
}

static json_t *usage_json(const struct api_job *job)
{
    struct api_job_stats s;
    api_job_stats(job, &s);
    return json_pack("{s:i,s:{s:i},s:i,s:{s:i},s:i}", "input_tokens", s.n_prompt, "input_tokens_details", "cached_tokens", s.n_cached, "output_tokens", s.n_completion,
                     "output_tokens_details", "reasoning_tokens", 0, "total_tokens", s.n_prompt + s.n_completion);
}

/* status NULL: by how the reply ended. */
static json_t *response_json(const struct api_job *job, const char *status, const char *error)
{
    const struct api_responses *r = job->responses;
    const struct api_choice *c = &job->prompts[0].choices[0];
    bool cut = c->ended && c->finish == ENGINE_FINISH_LENGTH, over = !status;
    json_t *output = json_array(), *q = r->request;
    status = status ? status : cut ? "incomplete" : "completed";
    for (size_t i = 0; over && i < r->n_items; i++)
        json_array_append_new(output, item_json(c, &r->items[i], true));
    json_t *v = json_pack("{s:s,s:s,s:I,s:s,s:b,s:o,s:o,s:s,s:o,s:o,s:b,s:n}", "id", job->id, "object", "response", "created_at", (json_int_t)job->created_s, "status", status,
                          "background", 0, "error", error ? json_pack("{s:s,s:s}", "code", "server_error", "message", error) : json_null(), "incomplete_details",
                          over && cut ? json_pack("{s:s}", "reason", "max_output_tokens") : json_null(), "model", job->model, "output", output, "usage",
                          over ? usage_json(job) : json_null(), "store", 0, "previous_response_id");
    json_object_set_new(v, "instructions", given(q, "instructions", json_null()));
    json_object_set_new(v, "max_output_tokens", given(q, "max_output_tokens", json_null()));
    json_object_set_new(v, "temperature", json_real((double)job->params.temperature));
    json_object_set_new(v, "top_p", json_real((double)job->params.top_p));
    json_object_set_new(v, "top_logprobs", given(q, "top_logprobs", json_integer(0)));
    json_object_set_new(v, "parallel_tool_calls", json_boolean(job->f.parallel_tool_calls));
    json_object_set_new(v, "tools", given(q, "tools", json_array()));
    json_object_set_new(v, "tool_choice", given(q, "tool_choice", json_string("auto")));
    json_object_set_new(v, "text", given(q, "text", json_pack("{s:{s:s}}", "format", "type", "text")));
    json_object_set_new(v, "reasoning", given(q, "reasoning", json_pack("{s:n,s:n}", "effort", "summary")));
    json_object_set_new(v, "truncation", given(q, "truncation", json_string("disabled")));
    json_object_set_new(v, "metadata", given(q, "metadata", json_object()));
    json_object_set_new(v, "service_tier", json_string("default"));
    json_object_set_new(v, "user", given(q, "user", json_null()));
    return v;
}

/* ---- events ---- */

/* Takes payload, NULL for want of memory. */
static void emit(struct api_job *job, const char *type, json_t *payload, struct buf *out)
{
    json_object_set_new(payload, "type", json_string(type));
    json_object_set_new(payload, "sequence_number", json_integer(job->responses->sequence++));
    buf_printf(out, "event: %s\ndata: ", type);
    if (!payload || !json_write(payload, out))
        out->failed = true;
    buf_puts(out, "\n\n");
    json_decref(payload);
}

void api_responses_begin(struct api_job *job, struct buf *out)
{
    emit(job, "response.created", json_pack("{s:o}", "response", response_json(job, "in_progress", NULL)), out);
    emit(job, "response.in_progress", json_pack("{s:o}", "response", response_json(job, "in_progress", NULL)), out);
}

static json_t *at_item(const struct api_responses *r, const struct item *it)
{
    return json_pack("{s:s,s:I}", "item_id", it->id, "output_index", (json_int_t)(it - r->items));
}

static json_t *at_content(const struct api_responses *r, const struct item *it)
{
    json_t *v = at_item(r, it);
    json_object_set_new(v, "content_index", json_integer(0));
    return v;
}

static void end_item(struct api_job *job, struct api_choice *c, struct buf *out)
{
    struct api_responses *r = job->responses;
    if (!r->open)
        return;
    r->open = false;
    if (!out)
        return;
    const struct item *it = &r->items[r->n_items - 1];
    json_t *v = it->kind == ITEM_CALL ? at_item(r, it) : at_content(r, it);
    if (it->kind == ITEM_CALL) {
        json_object_set_new(v, "name", text_of(&c->called[it->call].name));
        json_object_set_new(v, "arguments", text_of(&c->called[it->call].arguments));
        emit(job, "response.function_call_arguments.done", v, out);
    } else {
        json_object_set_new(v, "text", text_of(&it->text));
        if (it->kind == ITEM_MESSAGE)
            json_object_set_new(v, "logprobs", logprobs_of(&it->logprobs));
        emit(job, it->kind == ITEM_MESSAGE ? "response.output_text.done" : "response.reasoning_text.done", v, out);
    }
    if (it->kind == ITEM_MESSAGE) {
        v = at_content(r, it);
        json_object_set_new(v, "part", text_part(it));
        emit(job, "response.content_part.done", v, out);
    }
    emit(job, "response.output_item.done", json_pack("{s:I,s:o}", "output_index", (json_int_t)(it - r->items), "item", item_json(c, it, true)), out);
}

/* The last item if it is of this kind and goes on, else a new one; NULL: no memory. */
static struct item *item_of(struct api_job *job, struct api_choice *c, enum item_kind kind, int call, struct buf *out)
{
    struct api_responses *r = job->responses;
    struct item *it = r->n_items ? &r->items[r->n_items - 1] : NULL;
    if (r->open && it->kind == kind && (kind != ITEM_CALL || it->call == call))
        return it;
    end_item(job, c, out);
    if (!vec_reserve((void **)&r->items, &r->cap_items, r->n_items + 1, sizeof *r->items)) {
        c->text.failed = true;
        return NULL;
    }
    it = &r->items[r->n_items++];
    *it = (struct item){.kind = kind, .call = call};
    snprintf(it->id, sizeof it->id, "%s_%016llx%016llx", id_prefixes[kind], (unsigned long long)rng_entropy(), (unsigned long long)rng_entropy());
    buf_init(&it->text, 0);
    buf_init(&it->logprobs, 0);
    r->open = true;
    if (!out)
        return it;
    emit(job, "response.output_item.added", json_pack("{s:I,s:o}", "output_index", (json_int_t)(it - r->items), "item", item_json(c, it, false)), out);
    if (kind == ITEM_MESSAGE) {
        json_t *v = at_content(r, it);
        json_object_set_new(v, "part", json_pack("{s:s,s:s,s:[],s:[]}", "type", "output_text", "text", "", "annotations", "logprobs"));
        emit(job, "response.content_part.added", v, out);
    }
    return it;
}

static void take_text(struct api_job *job, struct api_choice *c, enum item_kind kind, struct buf *text, struct buf *out)
{
    struct item *it = text->len > 0 ? item_of(job, c, kind, 0, out) : NULL;
    if (!it)
        return;
    if (out) {
        json_t *v = at_content(job->responses, it);
        json_object_set_new(v, "delta", text_of(text));
        if (kind == ITEM_MESSAGE)
            json_object_set_new(v, "logprobs", logprobs_of(&c->lp.tokens));
        emit(job, kind == ITEM_MESSAGE ? "response.output_text.delta" : "response.reasoning_text.delta", v, out);
    }
    buf_append(&it->text, text->data, text->len);
    if (kind == ITEM_MESSAGE && c->lp.n > 0) {
        buf_puts(&it->logprobs, it->logprobs.len ? "," : "");
        buf_append(&it->logprobs, c->lp.tokens.data, c->lp.tokens.len);
        api_logprobs_clear(&c->lp);
    }
    c->text.failed |= it->text.failed || it->logprobs.failed;
    if (!c->text.failed)
        buf_clear(text);
}

void api_responses_take(struct api_job *job, struct buf *out)
{
    struct api_choice *c = &job->prompts[0].choices[0];
    take_text(job, c, ITEM_REASONING, &c->thought, out);
    take_text(job, c, ITEM_MESSAGE, &c->text, out);
    for (int i = 0; i < c->n_called; i++) {
        struct api_call *call = &c->called[i];
        if (i < c->n_told && call->told == call->arguments.len)
            continue;
        struct item *it = item_of(job, c, ITEM_CALL, i, out);
        if (!it)
            return;
        if (out && call->told < call->arguments.len) {
            struct buf rest = {.data = call->arguments.data + call->told, .len = call->arguments.len - call->told};
            json_t *v = at_item(job->responses, it);
            json_object_set_new(v, "delta", text_of(&rest));
            emit(job, "response.function_call_arguments.delta", v, out);
        }
        call->told = call->arguments.len;
    }
    c->n_told = c->n_called;
}

void api_responses_end(struct api_job *job, struct buf *out)
{
    struct api_choice *c = &job->prompts[0].choices[0];
    bool stream = job->f.stream, cut = c->finish == ENGINE_FINISH_LENGTH;
    api_responses_take(job, stream ? out : NULL);
    /* A reply without a word is a message all the same. */
    if (job->responses->n_items == 0)
        item_of(job, c, ITEM_MESSAGE, 0, stream ? out : NULL);
    end_item(job, c, stream ? out : NULL);
    json_t *response = response_json(job, NULL, NULL);
    if (stream) {
        emit(job, cut ? "response.incomplete" : "response.completed", json_pack("{s:o}", "response", response), out);
        return;
    }
    out->failed |= !response || !json_write(response, out);
    json_decref(response);
}

void api_responses_fail(struct api_job *job, const struct api_error *e, struct buf *out)
{
    emit(job, "response.failed", json_pack("{s:o}", "response", response_json(job, "failed", e->msg)), out);
}
