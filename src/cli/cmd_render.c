/* quire render: messages through a chat template, as the model would be given them. */
#include <stdio.h>
#include <string.h>
#include <time.h>
#include "base/clock.h"
#include "base/json.h"
#include "base/mem.h"
#include "cli/cli.h"
#include "model/model.h"
#include "tok/chat.h"

enum { MAX_INPUT = 64 << 20, MAX_TEMPLATE = 8 << 20 };

struct render_args {
    const char *model, *template, *messages, *tools, *kwargs, *bos, *eos, *unk, *now;
    bool add_generation_prompt, continue_final_message;
    struct cli_hub_flags hub;
};

static json_t *read_json(const char *path, struct err *e)
{
    size_t len;
    char *text = cli_read(path, &len, e);
    json_t *j = text && len <= MAX_INPUT ? json_parse(text, len, e) : NULL;
    if (text && len > MAX_INPUT)
        err_set(e, ERR_TOO_LARGE, "more than %d bytes", MAX_INPUT);
    if (!j)
        err_prefix(e, "%s", path);
    mem_free(text);
    return j;
}

/* "2024-07-26T12:00:00" (UTC), with a blank for the T, or the date alone. */
static bool parse_now(const char *text, int64_t *out, struct err *e)
{
    struct tm tm = {0};
    const char *end = strptime(text, "%Y-%m-%d", &tm);
    if (end && (*end == 'T' || *end == ' '))
        end = strptime(end + 1, "%H:%M:%S", &tm);
    if (!end || (*end != 0 && strcmp(end, "Z") != 0))
        return err_set(e, ERR_INVALID, "--now '%s': a time as 2024-07-26T12:00:00 is expected", text);
    *out = (int64_t)timegm(&tm);
    return true;
}

/* The tokenizer of a model, or of the built-in one. */
static bool open_tok(struct render_args *a, struct tok **t, struct err *e)
{
    struct model *m = NULL;
    const struct model_opts opts = {.files_only = true};
    const char *path;
    bool ok = cli_model_path(&a->hub, a->model, true, NULL, &path, e) && model_open(&m, path, &opts, e) && tok_open(t, model_files(m), e);
    model_close(&m);
    return ok;
}

static bool open_chat(struct render_args *a, struct tok **t, struct chat **c, struct err *e)
{
    char *source = NULL;
    size_t len = 0;
    if (a->template && !(source = file_read(a->template, MAX_TEMPLATE, &len, e)))
        return false;
    bool ok = (source && !a->model) || open_tok(a, t, e);
    ok = ok && chat_open(c, *t, source, len, a->bos, a->eos, a->unk, e);
    if (!ok && source)
        err_prefix(e, "%s", a->template);
    mem_free(source);
    return ok;
}

/* The messages file: an array, or an object with messages and, if it has them, tools, documents and kwargs. */
static bool read_inputs(const struct render_args *a, json_t **messages, json_t **tools, json_t **documents, json_t **kwargs, struct err *e)
{
    json_t *j = read_json(a->messages, e);
    if (!j)
        return false;
    if (json_is_object(j)) {
        *messages = json_incref(json_object_get(j, "messages"));
        *tools = json_incref(json_object_get(j, "tools"));
        *documents = json_incref(json_object_get(j, "documents"));
        *kwargs = json_incref(json_object_get(j, "chat_template_kwargs"));
        json_decref(j);
        if (!*messages)
            return err_set(e, ERR_INVALID, "%s: an array of messages, or an object with 'messages', is expected", a->messages);
    } else {
        *messages = j;
    }
    if (a->tools) {
        json_decref(*tools);
        if (!(*tools = read_json(a->tools, e)))
            return false;
    }
    if (a->kwargs) {
        json_decref(*kwargs);
        if (!(*kwargs = json_parse(a->kwargs, strlen(a->kwargs), e)))
            return err_prefix(e, "--kwargs");
    }
    return true;
}

static const json_t *unless_null(const json_t *j)
{
    return json_is_null(j) ? NULL : j;
}

static bool run(struct render_args *a, struct buf *out, struct err *e)
{
    struct tok *t = NULL;
    struct chat *c = NULL;
    json_t *messages = NULL, *tools = NULL, *documents = NULL, *kwargs = NULL;
    int64_t now = clock_unix_s();
    bool ok = (!a->now || parse_now(a->now, &now, e)) && read_inputs(a, &messages, &tools, &documents, &kwargs, e) && open_chat(a, &t, &c, e);
    if (ok) {
        const struct chat_render_opts o = {
            .messages = messages, .tools = unless_null(tools), .documents = unless_null(documents), .kwargs = unless_null(kwargs),
            .add_generation_prompt = a->add_generation_prompt, .continue_final_message = a->continue_final_message, .now_unix = now};
        ok = chat_render(c, &o, out, e);
    }
    chat_close(&c);
    tok_close(&t);
    json_decref(messages);
    json_decref(tools);
    json_decref(documents);
    json_decref(kwargs);
    return ok;
}

int cmd_render(int argc, char **argv)
{
    struct render_args a = {.add_generation_prompt = true};
    const struct cli_opt opts[] = {
        {"template", 0, CLI_STR, &a.template, "FILE", "this chat template instead of the model's own", 0, 0},
        {"messages", 'm', CLI_STR, &a.messages, "FILE", "JSON array of messages, or an object with 'messages' (and tools ...); - is stdin", 0, 0},
        {"tools", 0, CLI_STR, &a.tools, "FILE", "JSON array of tools", 0, 0},
        {"kwargs", 0, CLI_STR, &a.kwargs, "JSON", "object of more variables for the template", 0, 0},
        {"add-generation-prompt", 0, CLI_FLAG, &a.add_generation_prompt, NULL, "end with the start of an answer (on unless switched off)", 0, 0},
        {"continue-final-message", 0, CLI_FLAG, &a.continue_final_message, NULL, "stop behind the last message's text, for the model to go on", 0, 0},
        {"bos-token", 0, CLI_STR, &a.bos, "S", "what bos_token stands for", 0, 0},
        {"eos-token", 0, CLI_STR, &a.eos, "S", "what eos_token stands for", 0, 0},
        {"unk-token", 0, CLI_STR, &a.unk, "S", "what unk_token stands for", 0, 0},
        {"now", 0, CLI_STR, &a.now, "TIME", "what strftime_now sees, as 2024-07-26T12:00:00 (UTC)", 0, 0},
        {0},
    };
    struct cli_opt hub_table[CLI_HUB_OPTS];
    cli_hub_table(&a.hub, hub_table);
    const struct cli_opt *const tables[] = {opts, hub_table, NULL};
    const struct cli_cmd cmd = {"render", "quire render (MODEL | --template FILE) --messages FILE [options]",
                                "Prints the prompt that a chat template makes of messages, and nothing else.", tables, 0, 1};
    const char *args[1];
    int n_args;
    bool done;
    int status = cli_parse(&cmd, argc, argv, args, &n_args, &done);
    if (done)
        return status;
    a.model = n_args ? args[0] : NULL;
    if (!a.messages)
        return cli_usage_error(&cmd, "--messages FILE is needed");
    if (a.continue_final_message)
        a.add_generation_prompt = false;

    struct err e = {0};
    struct buf out;
    buf_init(&out, 0);
    if (!run(&a, &out, &e)) {
        buf_free(&out);
        return cli_error(&cmd, &e);
    }
    bool ok = fwrite(out.data ? out.data : "", 1, out.len, stdout) == out.len && fflush(stdout) == 0;
    buf_free(&out);
    if (ok)
        return CLI_OK;
    err_set(&e, ERR_IO, "cannot write the prompt to stdout");
    return cli_error(&cmd, &e);
}
