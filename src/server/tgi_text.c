/* TGI's tokenizer service and its /info. */
#include <string.h>
#include "base/json.h"
#include "base/utf8.h"
#include "server/tgi_int.h"

/* Where a token stands in the text: its bytes if they come next, with or without the space that some vocabularies put before the first
 * word; else nowhere wider than what is left. */
static size_t span_of(const struct api *a, int32_t id, const char *text, size_t len, size_t at)
{
    size_t n = 0;
    const char *bytes = tok_token_bytes(a->tok, id, &n);
    if (!bytes || !n)
        return 0;
    if (n <= len - at && memcmp(text + at, bytes, n) == 0)
        return n;
    if (at == 0 && bytes[0] == ' ' && n - 1 <= len && memcmp(text, bytes + 1, n - 1) == 0)
        return n - 1;
    if (tok_is_special(a->tok, id))
        return 0;
    return n < len - at ? n : len - at;   /* a normalizer has changed the text: as long as the token is */
}

/* A token that is part of a character has the whole character's offsets, as Hugging Face's tokenizers give them. */
static void write_span(struct buf *out, const char *text, size_t len, size_t from, size_t to)
{
    while (from > 0 && from < len && ((unsigned char)text[from] & 0xc0) == 0x80)
        from--;
    while (to > 0 && to < len && ((unsigned char)text[to] & 0xc0) == 0x80)
        to++;
    size_t start = utf8_length(text, from), n = utf8_length(text + from, to - from);
    buf_puts(out, ",\"text\":");
    api_write_text(out, text + from, to - from);
    buf_printf(out, ",\"start\":%zu,\"stop\":%zu}", start, start + n);
}

static bool write_tokens(const struct api *a, const char *text, size_t len, bool special, struct buf *out, struct api_error *e)
{
    struct tok_ids ids = {0};
    struct err err;
    if (!a->tok)
        return api_fail(e, ERR_UNSUPPORTED, "inputs", "this model has no tokenizer");
    if (!tok_encode(a->tok, text, len, special ? TOK_ENCODE_SPECIAL : TOK_ENCODE_PLAIN, &ids, &err))
        return api_fail_err(e, "inputs", &err);
    size_t at = 0;
    buf_putc(out, '[');
    for (size_t i = 0; i < ids.n; i++) {
        size_t n = span_of(a, ids.ids[i], text, len, at);
        buf_printf(out, "%s{\"id\":%d", i ? "," : "", ids.ids[i]);
        if (n == 0) {
            buf_puts(out, ",\"text\":\"\",\"start\":0,\"stop\":0}");
            continue;
        }
        write_span(out, text, len, at, at + n);
        at += n;
    }
    buf_putc(out, ']');
    tok_ids_free(&ids);
    return true;
}

bool tgi_tokenize(const struct api *a, const char *body, size_t len, struct buf *out, struct api_error *e)
{
    struct err err;
    json_t *doc = json_parse(body, len, &err);
    if (!doc)
        return api_fail_err(e, NULL, &err);
    const json_t *inputs = json_object_get(doc, "inputs"), *special = json_object_get(doc, "add_special_tokens");
    bool ok = true;
    if (!json_is_string(inputs))
        ok = api_fail(e, ERR_INVALID, "inputs", "`inputs` must be a string, found %s", json_type_name(inputs));
    else if (special && !json_is_boolean(special) && !json_is_null(special))
        ok = api_fail(e, ERR_INVALID, "add_special_tokens", "`add_special_tokens` must be a boolean, found %s", json_type_name(special));
    ok = ok && write_tokens(a, json_string_value(inputs), json_string_length(inputs), !json_is_false(special), out, e);
    json_decref(doc);
    return ok;
}

bool tgi_chat_tokenize(const struct api *a, const char *body, size_t len, struct buf *out, struct api_error *e)
{
    struct err err;
    struct api_fields f;
    struct buf text;
    json_t *doc = json_parse(body, len, &err);
    if (!doc)
        return api_fail_err(e, NULL, &err);
    api_fields_default(&f);
    buf_init(&text, 0);
    bool ok = api_fields_read(doc, api_chat_tables, &f, a->opts.log, e);
    if (ok && f.continue_final_message)
        f.add_generation_prompt = false;
    ok = ok && api_prompt_render(a, &f, &text, e);
    if (ok) {
        buf_puts(out, "{\"tokenize_response\":");
        ok = write_tokens(a, text.data ? text.data : "", text.len, false, out, e);
        buf_puts(out, ",\"templated_text\":");
        api_write_text(out, text.data, text.len);
        buf_putc(out, '}');
    }
    buf_free(&text);
    json_decref(doc);
    return ok;
}

int32_t tgi_max_total_tokens(const struct api *a) { return a->info->max_model_len; }

int32_t tgi_max_input_tokens(const struct api *a)
{
    int32_t most = a->info->max_model_len - 1, limit = a->opts.limits.input_tokens;
    return limit > 0 && limit < most ? limit : most;
}

bool tgi_info(const struct api *a, int max_concurrent, struct buf *out)
{
    const struct api_limits *l = &a->opts.limits;
    int32_t total = tgi_max_total_tokens(a), input = tgi_max_input_tokens(a);
    buf_puts(out, "{\"model_id\":");
    api_write_text(out, a->names[0], strlen(a->names[0]));
    buf_printf(out, ",\"model_sha\":null,\"model_dtype\":\"%s\",\"model_device_type\":\"%s\",\"model_pipeline_tag\":\"text-generation\"", a->info->dtype,
               a->info->device);
    if (max_concurrent > 0)
        buf_printf(out, ",\"max_concurrent_requests\":%d", max_concurrent);
    else
        buf_puts(out, ",\"max_concurrent_requests\":null");
    buf_printf(out, ",\"max_best_of\":%d,\"max_stop_sequences\":%d,\"max_input_tokens\":%d,\"max_total_tokens\":%d,\"max_top_n_tokens\":%d",
               l->best_of > 0 ? l->best_of : a->info->max_num_seqs, l->stop_sequences > 0 ? l->stop_sequences : 64, input, total,
               a->info->max_logprobs);
    return buf_printf(out, ",\"validation_workers\":2,\"max_client_batch_size\":1,\"router\":\"quire\",\"version\":\"%s\",\"sha\":null,\"docker_label\":null}",
                      QUIRE_VERSION);
}
