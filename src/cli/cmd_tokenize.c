/* quire tokenize: text to token ids and back. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/json.h"
#include "base/mem.h"
#include "cli/cli.h"
#include "model/model.h"
#include "tok/tok.h"

struct tokenize {
    const char *text, *decode;
    bool jsonl, special, json;
    struct cli_hub_flags hub;
    struct tok *tok;
};

static bool open_tok(struct tokenize *t, const char *model, struct err *e)
{
    const struct model_opts opts = {.files_only = true};
    struct model *m = NULL;
    bool ok = cli_model_path(&t->hub, model, true, NULL, &model, e) && model_open(&m, model, &opts, e) && tok_open(&t->tok, model_files(m), e);
    model_close(&m);
    return ok;
}

static bool encode(const struct tokenize *t, const char *text, size_t len, struct tok_ids *ids, struct err *e)
{
    return tok_encode(t->tok, text, len, t->special ? TOK_ENCODE_SPECIAL : TOK_ENCODE_PLAIN, ids, e);
}

static bool decode(const struct tokenize *t, const int32_t *ids, size_t n, struct buf *text, struct err *e)
{
    return tok_decode(t->tok, ids, n, t->special ? TOK_DECODE_ALL : TOK_DECODE_SKIP_SPECIAL, text, e);
}

static json_t *string_of(const char *s, size_t len)
{
    return json_stringn_nocheck(s && len ? s : "", len);
}

static json_t *ids_json(const struct tok_ids *ids)
{
    json_t *a = json_array();
    for (size_t i = 0; i < ids->n; i++)
        json_array_append_new(a, json_integer(ids->ids[i]));
    return a;
}

static json_t *spellings_json(const struct tokenize *t, const struct tok_ids *ids)
{
    json_t *a = json_array();
    for (size_t i = 0; i < ids->n; i++) {
        size_t len;
        const char *s = tok_token_spelling(t->tok, ids->ids[i], &len);
        json_array_append_new(a, string_of(s, len));
    }
    return a;
}

/* Takes over j. */
static bool print_line(json_t *j, struct err *e)
{
    struct buf b = {0};
    bool ok = j && json_write(j, &b) && buf_putc(&b, '\n');
    ok = ok ? fwrite(b.data, 1, b.len, stdout) == b.len || err_set(e, ERR_IO, "cannot write to stdout: %s", strerror(errno))
            : err_set(e, ERR_NOMEM, "out of memory");
    buf_free(&b);
    json_decref(j);
    return ok;
}

static bool run_encode(const struct tokenize *t, struct err *e)
{
    struct tok_ids ids = {0};
    bool ok = encode(t, t->text, strlen(t->text), &ids, e);
    if (ok && t->json)
        ok = print_line(json_pack("{s:o,s:o}", "ids", ids_json(&ids), "tokens", spellings_json(t, &ids)), e);
    for (size_t i = 0; ok && !t->json && i < ids.n; i++)
        printf("%d%c", ids.ids[i], i + 1 < ids.n ? ' ' : '\n');
    tok_ids_free(&ids);
    return ok;
}

static bool run_decode(const struct tokenize *t, struct err *e)
{
    struct buf text = {0};
    int32_t *ids = NULL, n = 0;
    bool ok = (!*t->decode || cli_parse_ids(t->decode, &ids, &n, e)) && decode(t, ids, (size_t)n, &text, e);
    if (ok && t->json)
        ok = print_line(json_pack("{s:o}", "text", string_of(text.data, text.len)), e);
    else if (ok)
        printf("%.*s\n", (int)text.len, text.data ? text.data : "");
    mem_free(ids);
    buf_free(&text);
    return ok;
}

/* {"ids": [..]} */
static bool line_decode(const struct tokenize *t, const json_t *list, struct err *e)
{
    struct tok_ids ids = {0};
    struct buf text = {0};
    const json_t *v;
    size_t i;
    bool ok = json_is_array(list) || err_set(e, ERR_INVALID, "ids is not an array");
    json_array_foreach(list, i, v) {
        if (!json_is_integer(v) || json_integer_value(v) < 0 || json_integer_value(v) > INT32_MAX)
            ok = err_set(e, ERR_INVALID, "ids[%zu] is not a token id", i);
        else if (!tok_ids_push(&ids, (int32_t)json_integer_value(v)))
            ok = err_set(e, ERR_NOMEM, "out of memory");
        if (!ok)
            break;
    }
    ok = ok && decode(t, ids.ids, ids.n, &text, e) && print_line(json_pack("{s:o}", "text", string_of(text.data, text.len)), e);
    tok_ids_free(&ids);
    buf_free(&text);
    return ok;
}

static bool run_line(const struct tokenize *t, const char *line, size_t len, struct err *e)
{
    json_t *j = json_parse(line, len, e);
    const json_t *text = json_object_get(j, "text"), *list = json_object_get(j, "ids");
    struct tok_ids ids = {0};
    bool ok;
    if (!j)
        return false;
    if (list)
        ok = line_decode(t, list, e);
    else if (json_is_string(text))
        ok = encode(t, json_string_value(text), json_string_length(text), &ids, e) && print_line(json_pack("{s:o}", "ids", ids_json(&ids)), e);
    else
        ok = err_set(e, ERR_INVALID, "neither \"text\" (a string) nor \"ids\" (an array)");
    tok_ids_free(&ids);
    json_decref(j);
    return ok;
}

static bool run_lines(const struct tokenize *t, struct err *e)
{
    char *line = NULL;
    size_t cap = 0;
    ssize_t len;
    bool ok = true;
    for (long number = 1; ok && (len = getline(&line, &cap, stdin)) >= 0; number++) {
        if (line[strspn(line, " \t\r\n")] == 0)
            continue;
        ok = run_line(t, line, (size_t)len, e) || err_prefix(e, "line %ld", number);
    }
    free(line);
    return ok && (!ferror(stdin) || err_set(e, ERR_IO, "cannot read stdin: %s", strerror(errno)));
}

int cmd_tokenize(int argc, char **argv)
{
    struct tokenize t = {.special = true};
    const struct cli_opt own[] = {
        {"text", 't', CLI_STR, &t.text, "TEXT", "text to tokenize", 0, 0},
        {"decode", 'd', CLI_STR, &t.decode, "IDS", "token ids to turn into text, such as 1,2,3", 0, 0},
        {"jsonl", 0, CLI_FLAG, &t.jsonl, NULL, "read objects with \"text\" or \"ids\" from stdin, one a line, and answer each with a line", 0, 0},
        {"special", 0, CLI_FLAG, &t.special, NULL, "add the special tokens the model wants (BOS, ..); when decoding, show special tokens", 0, 0},
        {"json", 0, CLI_FLAG, &t.json, NULL, "one JSON object on stdout: ids and tokens, or text", 0, 0},
        {NULL, 0, CLI_FLAG, NULL, NULL, NULL, 0, 0}};
    struct cli_opt hub_table[CLI_HUB_OPTS];
    cli_hub_table(&t.hub, hub_table);
    const struct cli_opt *const tables[] = {own, hub_table, NULL};
    const struct cli_cmd cmd = {.name = "tokenize", .usage = "quire tokenize [MODEL] (--text TEXT | --decode IDS | --jsonl) [options]",
                                .summary = "Text to token ids and back.  Only the tokenizer's files of MODEL are needed.",
                                .tables = tables, .max_args = 1};
    const char *args[1] = {NULL};
    int n_args;
    bool done = false, ok;
    struct err e = {0};
    int rc = cli_parse(&cmd, argc, argv, args, &n_args, &done);
    if (done)
        return rc;
    if ((t.text != NULL) + (t.decode != NULL) + t.jsonl != 1)
        return cli_usage_error(&cmd, "give one of --text, --decode and --jsonl");
    ok = open_tok(&t, n_args ? args[0] : NULL, &e) && (t.text ? run_encode(&t, &e) : t.decode ? run_decode(&t, &e) : run_lines(&t, &e));
    if (ok && fflush(stdout) != 0)
        ok = err_set(&e, ERR_IO, "cannot write to stdout: %s", strerror(errno));
    tok_close(&t.tok);
    return ok ? CLI_OK : cli_error(&cmd, &e);
}
