/* What all requests share, and the answers that need no engine step. */
#include "server/api.h"

#include <string.h>
#include "base/clock.h"
#include "base/json.h"
#include "base/mem.h"
#include "server/api_int.h"

/* ---- opening ---- */

static bool copy_names(struct api *a, struct err *e)
{
    const struct api_opts *o = &a->opts;
    int n = o->n_served_names > 0 ? o->n_served_names : 1;
    a->names = mem_try_zalloc((size_t)n, sizeof *a->names);
    for (int i = 0; a->names && i < n; i++) {
        a->names[i] = mem_try_strdup(o->n_served_names > 0 ? o->served_names[i] : a->info->model_name);
        if (!a->names[i])
            return err_set(e, ERR_NOMEM, "out of memory");
        a->n_names++;
    }
    return a->names || err_set(e, ERR_NOMEM, "out of memory");
}

static size_t longest_token(const struct tok *t)
{
    size_t longest = 1, len;
    for (int32_t i = 0; t && i < tok_vocab_size(t); i++) {
        tok_token_bytes(t, i, &len);
        longest = len > longest ? len : longest;
    }
    return longest;
}

static bool open_chat(struct api *a, struct err *e)
{
    const struct api_opts *o = &a->opts;
    if (chat_open(&a->chat, a->tok, o->chat_template, o->chat_template_len, NULL, NULL, NULL, e))
        return true;
    if (!o->chat_template && e->code == ERR_NOT_FOUND) {
        log_info(o->log, "api", "no chat template: /v1/chat/completions needs one in the request");
        return true;
    }
    return false;
}

bool api_open(struct api **out, const struct api_opts *o, struct err *e)
{
    struct err local;
    e = e ? e : &local;
    *out = NULL;
    struct api *a = mem_try_zalloc(1, sizeof *a);
    if (!a)
        return err_set(e, ERR_NOMEM, "out of memory");
    a->opts = *o;
    if (a->opts.watermark.gamma == 0)
        sample_watermark_default(&a->opts.watermark);
    if (!sample_watermark_check(&a->opts.watermark, e)) {
        mem_free(a);
        return false;
    }
    a->eng = o->engine;
    a->info = engine_info(a->eng);
    a->tok = engine_tok(a->eng);
    a->created_s = clock_unix_s();
    a->longest_token_bytes = longest_token(a->tok);
    gen_default_params(a->eng, o->use_generation_config, &a->defaults);
    if (!copy_names(a, e) || !open_chat(a, e) || !api_reply_setup(a, e)) {
        api_close(&a);
        return false;
    }
    *out = a;
    return true;
}

void api_close(struct api **pa)
{
    struct api *a = *pa;
    if (!a)
        return;
    *pa = NULL;
    chat_close(&a->chat);
    for (int i = 0; i < a->n_names; i++)
        mem_free(a->names[i]);
    mem_free(a->names);
    mem_free(a);
}

int32_t api_max_num_seqs(const struct api *a) { return a->info->max_num_seqs; }
const char *api_model_name(const struct api *a) { return a->names[0]; }

/* ---- /v1/models ---- */

void api_write_card(const char *id, const char *root, int32_t max_model_len, int64_t created_s, const char *state, struct buf *out)
{
    buf_puts(out, "{\"id\":");
    api_write_text(out, id, strlen(id));
    buf_printf(out, ",\"object\":\"model\",\"created\":%lld,\"owned_by\":\"quire\",\"root\":", (long long)created_s);
    api_write_text(out, root, strlen(root));
    buf_puts(out, ",\"parent\":null,\"max_model_len\":");
    if (max_model_len > 0)
        buf_printf(out, "%d", max_model_len);
    else
        buf_puts(out, "null");
    if (state)
        buf_printf(out, ",\"state\":\"%s\"", state);
    buf_printf(out,
               ",\"permission\":[{\"id\":\"modelperm-%s\",\"object\":\"model_permission\",\"created\":%lld,"
               "\"allow_create_engine\":false,\"allow_sampling\":true,\"allow_logprobs\":true,\"allow_search_indices\":false,"
               "\"allow_view\":true,\"allow_fine_tuning\":false,\"organization\":\"*\",\"group\":null,\"is_blocking\":false}]}",
               "quire", (long long)created_s);
}

static void write_model(const struct api *a, int i, struct buf *out)
{
    api_write_card(a->names[i], a->info->model_name, a->info->max_model_len, a->created_s, NULL, out);
}

bool api_write_models(const struct api *a, struct buf *out)
{
    buf_puts(out, "{\"object\":\"list\",\"data\":[");
    for (int i = 0; i < a->n_names; i++) {
        if (i)
            buf_putc(out, ',');
        write_model(a, i, out);
    }
    return buf_puts(out, "]}");
}

bool api_write_model(const struct api *a, const char *id, struct buf *out, struct api_error *e)
{
    for (int i = 0; i < a->n_names; i++)
        if (strcmp(a->names[i], id) == 0) {
            write_model(a, i, out);
            return true;
        }
    return api_fail(e, ERR_NOT_FOUND, "model", "The model `%.256s` does not exist.", id);
}

/* ---- /tokenize, /detokenize ---- */

struct tokenize_fields {
    struct api_fields chat;       /* first: the chat members of the table below are its own */
    const json_t *prompt, *tokens;
    bool return_token_strs;
};

#define AT(member) offsetof(struct tokenize_fields, member)

static const struct api_field tokenize_table[] = {
    {"model", API_STR, AT(chat.model), 0, 0},
    {"prompt", API_ANY, AT(prompt), 0, 0},
    {"messages", API_ARR, AT(chat.messages), 0, 0},
    {"add_special_tokens", API_BOOL, AT(chat.add_special_tokens), 0, 0},
    {"return_token_strs", API_BOOL, AT(return_token_strs), 0, 0},
    {"add_generation_prompt", API_BOOL, AT(chat.add_generation_prompt), 0, 0},
    {"continue_final_message", API_BOOL, AT(chat.continue_final_message), 0, 0},
    {"chat_template", API_STR, AT(chat.chat_template), 0, 0},
    {"chat_template_kwargs", API_OBJ, AT(chat.chat_template_kwargs), 0, 0},
    {"tools", API_ARR, AT(chat.tools), 0, 0},
    {0},
};

static const struct api_field detokenize_table[] = {
    {"model", API_STR, AT(chat.model), 0, 0},
    {"tokens", API_ARR, AT(tokens), 0, 0},
    {0},
};

static json_t *parse(const struct api *a, const char *body, size_t len, const struct api_field *table, struct tokenize_fields *f,
                     struct api_error *e)
{
    struct err err;
    const struct api_field *const tables[] = {table, NULL};
    *f = (struct tokenize_fields){.return_token_strs = false};
    api_fields_default(&f->chat);
    json_t *doc = json_parse(body, len, &err);
    if (!doc) {
        api_fail_err(e, NULL, &err);
        return NULL;
    }
    f->chat.add_special_tokens = json_is_null(json_object_get(doc, "messages")) || !json_object_get(doc, "messages");
    bool ok = api_fields_read(doc, tables, f, a->opts.log, e) && api_check_model(a, f->chat.model, e);
    if (ok && !a->tok)
        ok = api_fail(e, ERR_UNSUPPORTED, NULL, "this model has no tokenizer");
    if (ok)
        return doc;
    json_decref(doc);
    return NULL;
}

static bool encode_request(const struct api *a, struct tokenize_fields *f, struct tok_ids *ids, struct api_error *e)
{
    struct err err;
    struct buf text;
    buf_init(&text, 0);
    bool ok = true;
    if (f->chat.messages) {
        if (f->chat.continue_final_message)
            f->chat.add_generation_prompt = false;
        ok = api_prompt_render(a, &f->chat, &text, e);
    } else if (json_is_string(f->prompt)) {
        buf_append(&text, json_string_value(f->prompt), json_string_length(f->prompt));
    } else {
        ok = api_fail(e, ERR_INVALID, "prompt", "'prompt': expected string, found %s", json_type_name(f->prompt));
    }
    unsigned flags = f->chat.add_special_tokens ? TOK_ENCODE_SPECIAL : TOK_ENCODE_PLAIN;
    ok = ok && (tok_encode(a->tok, text.data ? text.data : "", text.len, flags, ids, &err) || api_fail_err(e, "prompt", &err));
    buf_free(&text);
    return ok;
}

static void write_tokens(const struct api *a, const struct tokenize_fields *f, const struct tok_ids *ids, struct buf *out)
{
    buf_printf(out, "{\"count\":%zu,\"max_model_len\":%d,\"tokens\":", ids->n, a->info->max_model_len);
    api_write_ids(out, ids->ids, (int32_t)ids->n);
    buf_puts(out, ",\"token_strs\":");
    if (!f->return_token_strs) {
        buf_puts(out, "null}");
        return;
    }
    for (size_t i = 0; i < ids->n; i++) {
        size_t len = 0;
        const char *spelling = tok_token_spelling(a->tok, ids->ids[i], &len);
        buf_putc(out, i ? ',' : '[');
        api_write_text(out, spelling, len);
    }
    buf_puts(out, ids->n ? "]}" : "[]}");
}

bool api_tokenize(const struct api *a, const char *body, size_t len, struct buf *out, struct api_error *e)
{
    struct tokenize_fields f;
    struct tok_ids ids = {0};
    json_t *doc = parse(a, body, len, tokenize_table, &f, e);
    bool ok = doc && encode_request(a, &f, &ids, e);
    if (ok)
        write_tokens(a, &f, &ids, out);
    tok_ids_free(&ids);
    json_decref(doc);
    return ok;
}

bool api_detokenize(const struct api *a, const char *body, size_t len, struct buf *out, struct api_error *e)
{
    struct tokenize_fields f;
    struct err err;
    struct buf text;
    int32_t *ids = NULL, n = 0;
    json_t *doc = parse(a, body, len, detokenize_table, &f, e);
    struct arena *arena = doc ? arena_open(0) : NULL;
    buf_init(&text, 0);
    bool ok = doc && (arena || api_fail(e, ERR_NOMEM, NULL, "out of memory"));
    if (ok && !f.tokens)
        ok = api_fail(e, ERR_INVALID, "tokens", "'tokens' is required");
    ok = ok && api_read_ids(arena, f.tokens, "tokens", tok_vocab_size(a->tok), &ids, &n, e);
    ok = ok && (tok_decode(a->tok, ids, (size_t)n, TOK_DECODE_ALL, &text, &err) || api_fail_err(e, "tokens", &err));
    if (ok) {
        buf_puts(out, "{\"prompt\":");
        api_write_text(out, text.data, text.len);
        buf_putc(out, '}');
    }
    buf_free(&text);
    arena_close(&arena);
    json_decref(doc);
    return ok;
}
