/* Chat answers taken apart: thoughts, content, calls; and what makes a model call when it must. */
#include <stdio.h>
#include <string.h>
#include "base/json.h"
#include "base/mem.h"
#include "base/rng.h"
#include "base/vec.h"
#include "server/api_int.h"

/* ---- what a server reads out of replies ---- */

bool api_reply_setup(struct api *a, struct err *e)
{
    const struct api_opts *o = &a->opts;
    const char *template = o->chat_template ? o->chat_template : a->tok ? tok_chat_template(a->tok, NULL) : NULL;
    const char *calls = o->tool_parser ? o->tool_parser : "auto", *thoughts = o->reasoning_parser ? o->reasoning_parser : "auto";
    a->calls = template ? reply_calls_detect(template) : REPLY_CALLS_NONE;
    a->thoughts = template ? reply_thoughts_detect(template) : REPLY_THOUGHTS_NONE;
    if (strcmp(calls, "auto") != 0 && !reply_calls_parse(calls, &a->calls))
        return err_set(e, ERR_INVALID, "tool call parser '%.64s' is none of auto, none, hermes, llama3, mistral, pythonic", calls);
    if (strcmp(thoughts, "auto") != 0 && !reply_thoughts_parse(thoughts, &a->thoughts))
        return err_set(e, ERR_INVALID, "reasoning parser '%.64s' is none of auto, none, deepseek_r1, qwen3", thoughts);
    if (a->calls || a->thoughts)
        log_info(o->log, "api", "tool calls are read as %s, reasoning as %s", reply_calls_name(a->calls), reply_thoughts_name(a->thoughts));
    return true;
}

/* ---- what a request asks for ---- */

/* What kind of choice a string makes; any other is the name of a function, as TGI's clients write it. */
static bool is_mode(const char *choice) { return strcmp(choice, "none") == 0 || strcmp(choice, "auto") == 0 || strcmp(choice, "required") == 0; }

static const char *named_function(const struct api_fields *f)
{
    const char *choice = json_string_value(f->tool_choice);
    if (choice)
        return is_mode(choice) ? NULL : choice;
    return json_string_value(json_object_get(json_object_get(f->tool_choice, "function"), "name"));
}

static const char *tool_name(const struct api_fields *f, size_t i)
{
    return json_string_value(json_object_get(json_object_get(json_array_get(f->tools, i), "function"), "name"));
}

static bool check_choice(const struct api_fields *f, struct api_error *e)
{
    const char *choice = json_string_value(f->tool_choice), *name = named_function(f);
    size_t n = json_array_size(f->tools);
    if (!f->tool_choice || (choice && (strcmp(choice, "none") == 0 || strcmp(choice, "auto") == 0)))
        return true;
    if (!choice && !name)
        return api_fail(e, ERR_INVALID, "tool_choice", "'tool_choice' must be a string or {\"type\":\"function\",\"function\":{\"name\":...}}");
    bool found = name == NULL;
    for (size_t i = 0; i < n; i++)
        found |= name && strcmp(tool_name(f, i), name) == 0;
    if (!found && choice)
        return api_fail(e, ERR_INVALID, "tool_choice", "'tool_choice' must be none, auto, required or a function of 'tools', found '%.64s'", choice);
    if (n == 0)
        return api_fail(e, ERR_INVALID, "tool_choice", "'tool_choice' needs 'tools'");
    return found || api_fail(e, ERR_INVALID, "tool_choice", "'tool_choice' names the function '%.64s', which is none of 'tools'", name);
}

bool api_reply_check(const struct api_fields *f, struct api_error *e)
{
    for (size_t i = 0; i < json_array_size(f->tools); i++) {
        const json_t *tool = json_array_get(f->tools, i), *parameters = json_object_get(json_object_get(tool, "function"), "parameters");
        const char *type = json_string_value(json_object_get(tool, "type")), *name = tool_name(f, i);
        if (!name || !*name || (type && strcmp(type, "function") != 0))
            return api_fail(e, ERR_INVALID, "tools", "'tools[%zu]' must be {\"type\":\"function\",\"function\":{\"name\":...}}", i);
        if (parameters && !json_is_null(parameters) && !json_is_object(parameters))
            return api_fail(e, ERR_INVALID, "tools", "'tools[%zu].function.parameters': expected a JSON Schema, found %s", i, json_type_name(parameters));
    }
    return check_choice(f, e);
}

static bool must_call(const struct api_fields *f)
{
    const char *choice = json_string_value(f->tool_choice);
    return f->tool_choice && (!choice || (strcmp(choice, "none") != 0 && strcmp(choice, "auto") != 0));
}

static bool is_special(const struct api *a, const char *mark)
{
    int32_t id = a->tok ? tok_token_id(a->tok, mark, strlen(mark)) : -1;
    return id >= 0 && tok_is_special(a->tok, id);
}

/* After the prompt is rendered. */
void api_reply_begin(struct api_job *job, const char *prompt, size_t len)
{
    const struct api *a = job->api;
    const char *choice = json_string_value(job->f.tool_choice);
    bool none = choice && strcmp(choice, "none") == 0;
    job->start = reply_start_of(prompt, len);
    job->thoughts = a->thoughts;
    if (json_array_size(job->f.tools) == 0 || none)
        return;
    job->calls = a->opts.no_auto_tools && !must_call(&job->f) ? REPLY_CALLS_NONE : a->calls;
    /* What a guide can spell and any model can be led to. */
    if (must_call(&job->f) && (job->calls == REPLY_CALLS_NONE || job->calls == REPLY_CALLS_PYTHONIC))
        job->calls = REPLY_CALLS_LLAMA3;
    job->show_special = (job->calls == REPLY_CALLS_MISTRAL && is_special(a, "[TOOL_CALLS]")) || (job->calls == REPLY_CALLS_LLAMA3 && is_special(a, "<|python_tag|>"));
}

/* ---- calls that must come ---- */

static const struct { const char *open, *key, *close, *between, *end; } forms[REPLY_CALLS_COUNT] = {
    [REPLY_CALLS_HERMES] = {"<tool_call>\n", "arguments", "}\n</tool_call>", "\n<tool_call>\n", ""},
    [REPLY_CALLS_LLAMA3] = {"", "parameters", "}", "; ", ""},
    [REPLY_CALLS_MISTRAL] = {"[TOOL_CALLS] [", "arguments", "}", ", ", "]"},
};

/* {"name": "f", "arguments": SCHEMA} and what the form closes with. */
static int32_t one_call(struct api_job *job, struct guide_builder *b, size_t i)
{
    const json_t *fn = json_object_get(json_array_get(job->f.tools, i), "function"), *parameters = json_object_get(fn, "parameters");
    const char *name = tool_name(&job->f, i);
    json_t *any = json_pack("{s:s}", "type", "object");
    struct buf head;
    buf_init(&head, 0);
    buf_puts(&head, "{\"name\": ");
    json_write_str(&head, name, strlen(name));
    buf_printf(&head, ", \"%s\": ", forms[job->calls].key);
    int32_t part[3] = {-1, -1, -1};
    if (any && !head.failed) {
        part[0] = guide_build_text(b, head.data, (ptrdiff_t)head.len);
        part[1] = guide_build_schema(b, json_object_size(parameters) > 0 ? parameters : any, NULL);
        part[2] = guide_build_text(b, forms[job->calls].close, -1);
    }
    buf_free(&head);
    json_decref(any);
    return guide_build_seq(b, part, 3);
}

int32_t api_reply_behind_thoughts(const struct api_job *job, struct guide_builder *b, int32_t form)
{
    static const char *const stop[] = {"</think>"};
    if (job->endpoint != API_CHAT || job->thoughts == REPLY_THOUGHTS_NONE || job->start == REPLY_START_TALKING)
        return form;
    int32_t rest[] = {guide_build_until(b, stop, 1), guide_build_text(b, stop[0], -1), guide_build_regex(b, "\\n{0,2}", 7), form};
    int32_t thinks = guide_build_seq(b, rest, 4);
    if (job->start == REPLY_START_THINKING)
        return thinks;
    int32_t opened[] = {guide_build_text(b, "<think>", -1), thinks}, either[] = {guide_build_seq(b, opened, 2), form};
    return guide_build_alt(b, either, 2);
}

static bool build(struct api_job *job, struct guide_vocab *v, struct err *err)
{
    size_t n = json_array_size(job->f.tools), k = 0;
    const char *name = named_function(&job->f);
    int32_t *alts = arena_try_alloc(job->arena, n, sizeof *alts);
    struct guide_builder *b = alts ? guide_build_open(NULL) : NULL;
    if (!b)
        return err_set(err, ERR_NOMEM, "out of memory for the request");
    for (size_t i = 0; i < n; i++)
        if (!name || strcmp(tool_name(&job->f, i), name) == 0)
            alts[k++] = one_call(job, b, i);
    int32_t any = guide_build_alt(b, alts, k), more[] = {guide_build_text(b, forms[job->calls].between, -1), any};
    bool many = !name && job->f.parallel_tool_calls;
    int32_t part[] = {guide_build_text(b, forms[job->calls].open, -1), any, guide_build_repeat(b, guide_build_seq(b, more, 2), 0, many ? -1 : 0),
                      guide_build_text(b, forms[job->calls].end, -1)};
    int32_t root = api_reply_behind_thoughts(job, b, guide_build_seq(b, part, 4));
    return guide_build_finish(&b, root, v, &job->guide, err);
}

bool api_reply_guide(struct api_job *job, struct api_error *e)
{
    struct err err;
    if (job->endpoint != API_CHAT || !must_call(&job->f))
        return true;
    if (job->guide)
        return api_fail(e, ERR_INVALID, "tool_choice", "'tool_choice' that makes the model call a function leaves no room for another constraint of the output");
    struct guide_vocab *v = api_guide_vocab(job, &err);
    if (!v || !build(job, v, &err)) {
        err_prefix(&err, "'tools'");
        return api_fail_err(e, "tools", &err);
    }
    job->request.engine.guide = job->guide;
    return true;
}

/* ---- one choice ---- */

static void on_content(void *ctx, const char *text, size_t len) { buf_append(&((struct api_choice *)ctx)->text, text, len); }

static void on_thought(void *ctx, const char *text, size_t len)
{
    struct api_choice *c = ctx;
    if (c->show_thoughts)
        buf_append(&c->thought, text, len);
}

static void on_call(void *ctx, int index, const char *name, size_t len)
{
    struct api_choice *c = ctx;
    if (!vec_reserve((void **)&c->called, &c->cap_called, (size_t)index + 1, sizeof *c->called)) {
        c->text.failed = true;
        return;
    }
    struct api_call *call = &c->called[index];
    *call = (struct api_call){.id = ""};
    c->n_called = index + 1;
    snprintf(call->id, sizeof call->id, "chatcmpl-tool-%016llx%016llx", (unsigned long long)rng_entropy(), (unsigned long long)rng_entropy());
    buf_init(&call->name, 0);
    buf_init(&call->arguments, 0);
    buf_append(&call->name, name, len);
}

static void on_arguments(void *ctx, int index, const char *text, size_t len)
{
    struct api_choice *c = ctx;
    if (index < c->n_called)
        buf_append(&c->called[index].arguments, text, len);
}

bool api_reply_open(const struct api_job *job, struct api_choice *c)
{
    if (job->endpoint != API_CHAT || (job->calls == REPLY_CALLS_NONE && job->thoughts == REPLY_THOUGHTS_NONE))
        return true;
    struct reply_sink sink = {c, on_content, on_thought, on_call, on_arguments};
    c->show_thoughts = job->f.include_reasoning;
    c->reply = reply_open(job->calls, job->thoughts, job->start, !job->f.parallel_tool_calls, &sink);
    return c->reply != NULL;
}

void api_reply_text(struct api_choice *c, const char *text, size_t len, bool end)
{
    if (!c->reply)
        buf_append(&c->text, text, len);
    else if (!reply_feed(c->reply, text, len, end))
        c->text.failed = true;
    for (int i = 0; i < c->n_called; i++)
        c->text.failed |= c->called[i].name.failed || c->called[i].arguments.failed;
    c->text.failed |= c->thought.failed;
}

void api_reply_close(struct api_choice *c)
{
    reply_close(&c->reply);
    buf_free(&c->thought);
    for (int i = 0; i < c->n_called; i++) {
        buf_free(&c->called[i].name);
        buf_free(&c->called[i].arguments);
    }
    mem_free(c->called);
}

bool api_reply_has_news(const struct api_choice *c)
{
    const struct api_call *last = c->n_called > 0 ? &c->called[c->n_called - 1] : NULL;
    return c->thought.len > 0 || c->n_told < c->n_called || (last && last->told < last->arguments.len);
}

/* ---- shapes ---- */

static void write_thought(const struct api_choice *c, struct buf *out)
{
    static const char *const names[] = {"reasoning_content", "reasoning"};
    for (int i = 0; i < 2; i++) {
        buf_printf(out, ",\"%s\":", names[i]);
        api_write_text(out, c->thought.data, c->thought.len);
    }
}

void api_reply_message(const struct api_choice *c, const struct buf *text, struct buf *out)
{
    buf_puts(out, "\"message\":{\"role\":\"assistant\"");
    if (c->thought.len > 0)
        write_thought(c, out);
    else
        buf_puts(out, ",\"reasoning_content\":null,\"reasoning\":null");
    buf_puts(out, ",\"content\":");
    if (c->n_called > 0 && text->len == 0)
        buf_puts(out, "null");
    else
        api_write_text(out, text->data, text->len);
    buf_puts(out, ",\"tool_calls\":[");
    for (int i = 0; i < c->n_called; i++) {
        const struct api_call *call = &c->called[i];
        buf_printf(out, "%s{\"id\":\"%s\",\"type\":\"function\",\"function\":{\"name\":", i ? "," : "", call->id);
        api_write_text(out, call->name.data, call->name.len);
        buf_puts(out, ",\"arguments\":");
        api_write_text(out, call->arguments.data, call->arguments.len);
        buf_puts(out, "}}");
    }
    buf_puts(out, "],\"refusal\":null,\"annotations\":null,\"audio\":null,\"function_call\":null}");
}

/* An element for each call with something new. */
static void write_call_deltas(struct api_choice *c, struct buf *out)
{
    bool any = false;
    for (int i = 0; i < c->n_called; i++) {
        struct api_call *call = &c->called[i];
        bool begins = i >= c->n_told;
        if (!begins && call->told == call->arguments.len)
            continue;
        buf_printf(out, "%s{\"index\":%d", any ? "," : "", i);
        any = true;
        if (begins) {
            buf_printf(out, ",\"id\":\"%s\",\"type\":\"function\",\"function\":{\"name\":", call->id);
            api_write_text(out, call->name.data, call->name.len);
            buf_putc(out, ',');
        } else {
            buf_puts(out, ",\"function\":{");
        }
        buf_puts(out, "\"arguments\":");
        api_write_text(out, call->arguments.data + call->told, call->arguments.len - call->told);
        buf_puts(out, "}}");
        call->told = call->arguments.len;
    }
    c->n_told = c->n_called;
}

void api_reply_delta(struct api_choice *c, struct buf *out)
{
    bool calls = api_reply_has_news(c) && c->n_called > 0, thought = c->thought.len > 0;
    buf_puts(out, "\"delta\":{");
    if (c->text.len > 0 || (!c->ended && !calls && !thought)) {
        buf_puts(out, "\"content\":");
        api_write_text(out, c->text.data, c->text.len);
        buf_puts(out, thought || calls ? "," : "");
    }
    if (thought) {
        struct buf t;
        buf_init(&t, 0);
        write_thought(c, &t);
        buf_append(out, t.data ? t.data + 1 : "", t.len ? t.len - 1 : 0);
        out->failed |= t.failed;
        buf_free(&t);
        buf_puts(out, calls ? "," : "");
    }
    if (calls) {
        buf_puts(out, "\"tool_calls\":[");
        write_call_deltas(c, out);
        buf_putc(out, ']');
    }
    buf_putc(out, '}');
    buf_clear(&c->thought);
}
