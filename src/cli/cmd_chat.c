/* quire chat: a conversation in the terminal. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/json.h"
#include "base/mem.h"
#include "cli/cli.h"
#include "engine/gen.h"
#include "tok/chat.h"

struct chat_ui {
    struct cli_engine_flags engine_flags;
    struct cli_sample_flags sample_flags;
    const char *system, *quick, *template_file;

    struct log *log;
    struct engine *eng;
    struct chat *chat;
    json_t *messages;
    bool tty;
};

static volatile sig_atomic_t interrupted;
static void on_interrupt(int sig) { (void)sig; interrupted = 1; }

static bool add_message(struct chat_ui *u, const char *role, const char *text, size_t len, struct err *e)
{
    json_t *content = json_stringn(text, len); /* NULL when it is not UTF-8 */
    if (!content)
        return err_set(e, ERR_INVALID, "the message is not valid UTF-8");
    json_array_append_new(u->messages, json_pack("{s:s,s:o}", "role", role, "content", content));
    return true;
}

static bool encode(struct chat_ui *u, struct tok_ids *ids, struct err *e)
{
    struct buf b;
    buf_init(&b, 0);
    struct chat_render_opts o = {.messages = u->messages, .add_generation_prompt = true, .now_unix = clock_unix_s()};
    bool ok = chat_render(u->chat, &o, &b, e) && tok_encode(engine_tok(u->eng), b.data ? b.data : "", b.len, TOK_ENCODE_PLAIN, ids, e);
    buf_free(&b);
    return ok;
}

/* One turn: the answer is printed as it comes and remembered.  Ctrl-C ends the answer, not the chat. */
static bool answer(struct chat_ui *u, struct err *e)
{
    struct tok_ids ids = {0};
    struct sample_params params;
    struct gen_request q;
    struct gen *g = NULL;
    struct buf text;
    buf_init(&text, 0);
    gen_request_default(&q);
    bool ok = encode(u, &ids, e) && cli_sample_request(&u->sample_flags, u->eng, &params, &q, e);
    q.engine.tokens = ids.ids;
    q.engine.n_tokens = (int32_t)ids.n;
    ok = ok && gen_open(&g, u->eng, &q, NULL, NULL, e);
    interrupted = 0;
    for (bool done = false; ok && !done;) {
        struct gen_event ev;
        if (interrupted == 1) {
            gen_cancel(g);
            interrupted = 2;
        }
        if (!gen_next(g, &ev)) {
            gen_wait(g, 200000);
            continue;
        }
        if (ev.type == GEN_DELTA && ev.text_len) {
            fwrite(ev.text, 1, ev.text_len, stdout);
            fflush(stdout);
            buf_append(&text, ev.text, ev.text_len);
        } else if (ev.type == GEN_ERROR) {
            *e = ev.error;
            ok = false;
        }
        done = ev.type == GEN_DONE;
    }
    putchar('\n');
    gen_close(&g);
    tok_ids_free(&ids);
    ok = ok && add_message(u, "assistant", text.data ? text.data : "", text.len, e);
    buf_free(&text);
    return ok;
}

/* Lines from the user until end of file.  /reset forgets the conversation, /exit leaves. */
static bool converse(struct chat_ui *u, struct err *e)
{
    char *line = NULL;
    size_t cap = 0;
    ssize_t n;
    bool ok = true;
    if (u->tty)
        fprintf(stderr, "%s: type a message; /reset starts over, /exit or Ctrl-D leaves, Ctrl-C stops an answer.\n",
                engine_info(u->eng)->model_name);
    for (;;) {
        if (u->tty) {
            printf("> ");
            fflush(stdout);
        }
        n = getline(&line, &cap, stdin);
        if (n < 0 || strcmp(line, "/exit\n") == 0)
            break;
        while (n > 0 && (line[n - 1] == '\n' || line[n - 1] == '\r'))
            line[--n] = 0;
        if (n == 0)
            continue;
        if (strcmp(line, "/reset") == 0) {
            while (json_array_size(u->messages) > (u->system ? 1 : 0))
                json_array_remove(u->messages, json_array_size(u->messages) - 1);
            continue;
        }
        ok = add_message(u, "user", line, (size_t)n, e) && answer(u, e);
        if (!ok && u->tty) { /* a conversation that no longer fits, say: tell and go on */
            fprintf(stderr, "%s\n", e->msg);
            json_array_remove(u->messages, json_array_size(u->messages) - 1);
            ok = true;
        }
        if (!ok)
            break;
    }
    free(line);
    return ok;
}

static bool chat_main(struct chat_ui *u, const char *model, struct err *e)
{
    struct engine_opts o;
    struct cli_progress bar;
    if (!cli_engine_opts(&u->engine_flags, model, &o, &u->log, e))
        return false;
    if (!u->engine_flags.max_num_seqs)
        o.max_num_seqs = 8;
    cli_progress_begin(&bar, "loading");
    o.progress = cli_progress_update;
    o.progress_ctx = &bar;
    bool ok = engine_open(&u->eng, &o, e);
    cli_progress_end(&bar);
    if (!ok)
        return false;
    if (!engine_tok(u->eng))
        return err_set(e, ERR_UNSUPPORTED, "the model has no tokenizer.json");
    size_t len = 0;
    char *source = u->template_file ? cli_read(u->template_file, &len, e) : NULL;
    ok = (!u->template_file || source) && chat_open(&u->chat, engine_tok(u->eng), source, len, NULL, NULL, NULL, e);
    mem_free(source);
    u->messages = json_array();
    if (!ok || (u->system && !add_message(u, "system", u->system, strlen(u->system), e)))
        return false;
    if (u->quick)
        return add_message(u, "user", u->quick, strlen(u->quick), e) && answer(u, e);
    return converse(u, e);
}

int cmd_chat(int argc, char **argv)
{
    struct chat_ui u = {.tty = isatty(STDIN_FILENO)};
    struct cli_opt engine_table[CLI_ENGINE_OPTS], sample_table[CLI_SAMPLE_OPTS];
    cli_engine_flags_default(&u.engine_flags);
    cli_sample_flags_default(&u.sample_flags);
    cli_engine_table(&u.engine_flags, engine_table);
    cli_sample_table(&u.sample_flags, sample_table);
    const struct cli_opt opts[] = {
        {"system-prompt", 0, CLI_STR, &u.system, "TEXT", "a system message to begin with", 0, 0},
        {"quick", 'q', CLI_STR, &u.quick, "TEXT", "send one message, print the answer, leave", 0, 0},
        {"chat-template", 0, CLI_STR, &u.template_file, "FILE", "a Jinja template instead of the model's", 0, 0},
        {0},
    };
    const struct cli_opt *const tables[] = {opts, sample_table, engine_table, NULL};
    const struct cli_cmd cmd = {"chat", "quire chat [MODEL] [options]",
                                "Chats in the terminal with the model's chat template.", tables, 0, 1};
    const char *args[1];
    int n_args;
    bool done;
    int status = cli_parse(&cmd, argc, argv, args, &n_args, &done);
    if (!done) {
        struct err e;
        u.sample_flags.n = 1;
        signal(SIGINT, on_interrupt);
        status = chat_main(&u, n_args ? args[0] : NULL, &e) ? CLI_OK : cli_error(&cmd, &e);
    }
    chat_close(&u.chat);
    json_decref(u.messages);
    engine_close(&u.eng);
    log_close(&u.log);
    cli_sample_flags_free(&u.sample_flags);
    return status;
}
