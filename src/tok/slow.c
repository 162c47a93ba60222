/* A folder without tokenizer.json: its vocabulary written as one.
 *
 *   tokenizer.model (and other names)   SentencePiece (spm.c), or ranks of tiktoken (tiktoken.c), as Llama 3 has it
 *   *.tiktoken               ranks
 *   vocab.json, merges.txt   byte-level BPE of GPT-2 and its kin
 *
 * What the tokenizer's class knows and no file says (how text is cut, which token begins a prompt) is told by tokenizer_config.json
 * or the size of the vocabulary. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/json.h"
#include "base/mem.h"
#include "tok/tok_int.h"

enum { MAX_BYTES = 256 << 20 };

static const char *const rank_files[] = {"qwen.tiktoken", "tokenizer.tiktoken", "vocab.tiktoken", "cl100k_base.tiktoken", "o200k_base.tiktoken", "hy.tiktoken"};

static const char *first_of(const struct file_set *fs, const char *const *names, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (file_set_has(fs, names[i]))
            return names[i];
    return NULL;
}

static const char *const model_files[] = {"tokenizer.model", "spiece.model", "sentencepiece.bpe.model"};

static const char *model_file(const struct file_set *fs) { return first_of(fs, model_files, sizeof model_files / sizeof model_files[0]); }

static const char *rank_file(const struct file_set *fs)
{
    return first_of(fs, rank_files, sizeof rank_files / sizeof rank_files[0]);
}

static bool has_gpt2(const struct file_set *fs) { return file_set_has(fs, "vocab.json") && file_set_has(fs, "merges.txt"); }

bool tok_slow_has(const struct file_set *fs)
{
    return model_file(fs) || rank_file(fs) || has_gpt2(fs);
}

/* ---- tokens beside the vocabulary ---- */

static void write_added(struct buf *b, int64_t id, const char *text, size_t len, bool special)
{
    buf_printf(b, "%s{\"id\":%lld,\"content\":", b->len ? "," : "", (long long)id);
    json_write_str(b, text, len);
    buf_printf(b, ",\"single_word\":false,\"lstrip\":false,\"rstrip\":false,\"normalized\":false,\"special\":%s}", special ? "true" : "false");
}

void tok_slow_add(struct tok_slow *s, int64_t id, const char *text, size_t len, bool special)
{
    char key[32];
    snprintf(key, sizeof key, "%lld", (long long)id);
    if (s->n_added++ < TOK_MAX_IDS && !json_object_get(s->given, key))
        write_added(&s->added, id, text, len, special);
}

/* added_tokens_decoder of tokenizer_config.json, then added_tokens.json: {"<x>": id}. */
static bool read_given(struct tok_slow *s, const struct file_set *fs, struct err *e)
{
    const char *key;
    json_t *v, *given = json_object_get(s->config, "added_tokens_decoder");
    s->given = json_object();
    if (!s->given)
        return tok_nomem(e);
    json_object_foreach(given, key, v) {
        const json_t *text = json_object_get(v, "content");
        char *end;
        long long id = strtoll(key, &end, 10);
        if (*end || end == key || id < 0 || id >= TOK_MAX_IDS || !json_is_string(text))
            return err_set(e, ERR_FORMAT, "tokenizer_config.json: added_tokens_decoder has '%.40s' without an id or content", key);
        write_added(&s->added, id, json_string_value(text), json_string_length(text), !json_is_false(json_object_get(v, "special")));
        json_object_set(s->given, key, v);
    }
    if (!file_set_has(fs, "added_tokens.json"))
        return true;
    size_t len;
    char *text = file_set_read(fs, "added_tokens.json", MAX_BYTES, &len, e);
    json_t *list = text ? json_parse(text, len, e) : NULL;
    bool ok = list != NULL;
    mem_free(text);
    json_object_foreach(list, key, v) {
        ok = ok && json_is_integer(v) && json_integer_value(v) >= 0 && json_integer_value(v) < TOK_MAX_IDS;
        if (ok)
            tok_slow_add(s, json_integer_value(v), key, strlen(key), true);
    }
    json_decref(list);
    return ok || err_prefix(e, "added_tokens.json");
}

/* ---- pieces of the file ---- */

static void write_template(struct buf *b, const char *name, const char *sequences, const struct tok_slow *s)
{
    buf_printf(b, "\"%s\":[", name);
    for (int i = 0; sequences[i]; i++) {
        for (int side = 0; side < 3; side++) {
            const char *text = side == 0 ? s->bos : side == 2 ? s->eos : NULL;
            if (side != 1 && !text)
                continue;
            if (b->data && b->data[b->len - 1] != '[')
                buf_putc(b, ',');
            if (side == 1) {
                buf_printf(b, "{\"Sequence\":{\"id\":\"%c\",\"type_id\":%d}}", sequences[i], i);
                continue;
            }
            buf_puts(b, "{\"SpecialToken\":{\"id\":");
            json_write_str(b, text, strlen(text));
            buf_printf(b, ",\"type_id\":%d}}", i);
        }
    }
    buf_puts(b, "],");
}

static void write_post(struct buf *b, const struct tok_slow *s)
{
    const struct { const char *text; int64_t id; } tokens[] = {{s->bos, s->bos_id}, {s->eos, s->eos_id}};
    bool first = true;
    if (!s->bos && !s->eos)
        return;
    buf_puts(b, ",\"post_processor\":{\"type\":\"TemplateProcessing\",");
    write_template(b, "single", "A", s);
    write_template(b, "pair", "AB", s);
    buf_puts(b, "\"special_tokens\":{");
    for (int i = 0; i < 2; i++) {
        if (!tokens[i].text || (i && s->bos && strcmp(s->bos, s->eos) == 0))
            continue;
        buf_puts(b, first ? "" : ",");
        json_write_str(b, tokens[i].text, strlen(tokens[i].text));
        buf_puts(b, ":{\"id\":");
        json_write_str(b, tokens[i].text, strlen(tokens[i].text));
        buf_printf(b, ",\"ids\":[%lld],\"tokens\":[", (long long)tokens[i].id);
        json_write_str(b, tokens[i].text, strlen(tokens[i].text));
        buf_puts(b, "]}");
        first = false;
    }
    buf_puts(b, "}}");
}

void tok_slow_finish(struct tok_slow *s, const char *normalizer, const char *pre_tokenizer, const char *decoder, struct buf *out)
{
    buf_puts(out, "{\"version\":\"1.0\",\"added_tokens\":[");
    buf_append(out, s->added.data ? s->added.data : "", s->added.len);
    buf_printf(out, "],\"normalizer\":%s,\"pre_tokenizer\":%s,\"decoder\":%s", normalizer, pre_tokenizer, decoder);
    write_post(out, s);
    buf_puts(out, ",\"model\":");
    buf_append(out, s->model.data ? s->model.data : "", s->model.len);
    buf_putc(out, '}');
    out->failed |= s->added.failed || s->model.failed;
}

/* ---- vocab.json and merges.txt ---- */

static void write_merges(struct buf *b, const char *text, size_t len)
{
    const char *end = text + len;
    bool first = true;
    buf_puts(b, "\"merges\":[");
    for (const char *at = text, *line; at < end; at = line + 1) {
        line = memchr(at, '\n', (size_t)(end - at));
        line = line ? line : end;
        size_t n = (size_t)(line - at);
        while (n > 0 && at[n - 1] == '\r')
            n--;
        const char *space = n > 2 ? memchr(at + 1, ' ', n - 1) : NULL;
        if (!space || (at == text && n > 8 && memcmp(at, "#version", 8) == 0))
            continue;
        buf_puts(b, first ? "[" : ",[");
        json_write_str(b, at, (size_t)(space - at));
        buf_putc(b, ',');
        json_write_str(b, space + 1, n - (size_t)(space - at) - 1);
        buf_putc(b, ']');
        first = false;
    }
    buf_putc(b, ']');
}

static bool is_class(const struct tok_slow *s, const char *part)
{
    const char *name = json_string_value(json_object_get(s->config, "tokenizer_class"));
    return name && strstr(name, part);
}

static bool read_gpt2(struct tok_slow *s, const struct file_set *fs, struct buf *out, struct err *e)
{
    size_t vocab_len, merges_len = 0;
    char *vocab = file_set_read(fs, "vocab.json", MAX_BYTES, &vocab_len, e), *merges = vocab ? file_set_read(fs, "merges.txt", MAX_BYTES, &merges_len, e) : NULL;
    bool ok = merges != NULL;
    if (ok) {
        const char *space = json_is_true(json_object_get(s->config, "add_prefix_space")) ? "true" : "false";
        char pre[1200];
        buf_printf(&s->model, "{\"type\":\"BPE\",\"unk_token\":null,\"fuse_unk\":false,\"byte_fallback\":false,\"ignore_merges\":false,\"vocab\":%.*s,",
                   (int)vocab_len, vocab);
        write_merges(&s->model, merges, merges_len);
        buf_putc(&s->model, '}');
        /* Qwen cuts in its own way; its kin by class.  StarCoder's digits stand alone. */
        if (is_class(s, "Qwen"))
            snprintf(pre, sizeof pre, "{\"type\":\"Sequence\",\"pretokenizers\":[%s,%s]}", TOK_SPLIT_QWEN, TOK_BYTES("false", "false"));
        else
            snprintf(pre, sizeof pre, "{\"type\":\"ByteLevel\",\"add_prefix_space\":%s,\"trim_offsets\":true,\"use_regex\":true}", space);
        tok_slow_finish(s, is_class(s, "Qwen") ? "{\"type\":\"NFC\"}" : "null", pre, TOK_BYTES("false", "true"), out);
    }
    mem_free(vocab);
    mem_free(merges);
    return ok;
}

/* ---- choosing ---- */

static bool read_config(struct tok_slow *s, const struct file_set *fs, struct err *e)
{
    size_t len;
    if (!file_set_has(fs, "tokenizer_config.json"))
        return true;
    char *text = file_set_read(fs, "tokenizer_config.json", MAX_BYTES, &len, e);
    s->config = text ? json_parse(text, len, e) : NULL;
    mem_free(text);
    return s->config || err_prefix(e, "tokenizer_config.json");
}

bool tok_slow_read(const struct file_set *fs, struct buf *out, struct err *e)
{
    struct tok_slow s = {.bos_id = -1, .eos_id = -1};
    struct file_view v = {0};
    const char *ranks = rank_file(fs), *model = model_file(fs);
    bool ok = read_config(&s, fs, e) && read_given(&s, fs, e);
    if (ok && model) {
        ok = file_set_open(fs, model, &v, e) &&
             ((v.size <= MAX_BYTES || err_set(e, ERR_TOO_LARGE, "has %zu bytes, at most %d are read", v.size, MAX_BYTES)) &&
              (v.size > 0 || err_set(e, ERR_FORMAT, "is empty")) &&
              (tok_tiktoken_is(v.data, v.size) ? tok_tiktoken_read(&s, v.data, v.size, out, e) : tok_spm_read(&s, v.data, v.size, out, e)));
        ok = ok || err_prefix(e, "%s", model);
    } else if (ok && ranks) {
        ok = (file_set_open(fs, ranks, &v, e) && (v.size > 0 || err_set(e, ERR_FORMAT, "is empty")) && tok_tiktoken_read(&s, v.data, v.size, out, e)) || err_prefix(e, "%s", ranks);
    } else if (ok) {
        ok = read_gpt2(&s, fs, out, e);
    }
    file_view_close(&v);
    if (ok && out->failed)
        ok = tok_nomem(e);
    buf_free(&s.added);
    buf_free(&s.model);
    json_decref(s.given);
    json_decref(s.config);
    return ok;
}
