/* A GGUF vocabulary as the tokenizer.json and tokenizer_config.json that it was made from.
 *
 * "gpt2": byte-level BPE with its merges; how text is cut beforehand has only a name (tokenizer.ggml.pre).
 * "llama": SentencePiece BPE.  Its merges are not stored; they follow from the scores. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/json.h"
#include "base/mem.h"
#include "base/utf8.h"
#include "model/gguf_int.h"

enum { TYPE_NORMAL = 1, TYPE_UNKNOWN, TYPE_CONTROL, TYPE_USER, TYPE_UNUSED, TYPE_BYTE };
enum { MAX_TOKENS = 1 << 22 };

struct piece { const char *s; size_t len; };

struct vocab {
    struct gguf *g;
    struct piece *pieces;
    uint8_t *types;
    size_t n;
    int64_t bos, eos, unk, pad;    /* -1: none */
    bool add_bos, add_eos, space_prefix;
    const char *model, *pre, *arch;
    struct err *e;
};

/* ---- reading ---- */

static bool no_memory(const struct vocab *v)
{
    return err_set(v->e, ERR_NOMEM, "%s: no memory for its vocabulary", v->g->file);
}

static bool read_types(struct vocab *v)
{
    const struct gguf_kv *kv = gguf_find(v->g, "tokenizer.ggml.token_type");
    memset(v->types, TYPE_NORMAL, v->n);
    if (!kv)
        return true;
    if (!kv->is_array || kv->n != v->n)
        return err_set(v->e, ERR_FORMAT, "%s: tokenizer.ggml.token_type must be %zu numbers, one a token", v->g->file, v->n);
    for (size_t i = 0; i < v->n; i++) {
        double x;
        if (!gguf_number_at(kv, i, &x))
            return err_set(v->e, ERR_FORMAT, "%s: tokenizer.ggml.token_type must be %zu numbers, one a token", v->g->file, v->n);
        v->types[i] = x >= 1 && x <= 6 ? (uint8_t)x : TYPE_NORMAL;
    }
    return true;
}

static bool read_pieces(struct vocab *v)
{
    const struct gguf_kv *kv = gguf_find(v->g, "tokenizer.ggml.tokens");
    if (!kv || !kv->is_array || kv->type != GGUF_STRING || kv->n < 1 || kv->n > MAX_TOKENS)
        return err_set(v->e, ERR_FORMAT, "%s: tokenizer.ggml.tokens must be 1 to %d strings", v->g->file, MAX_TOKENS);
    v->n = (size_t)kv->n;
    v->pieces = mem_try_alloc(v->n, sizeof *v->pieces);
    v->types = mem_try_alloc(v->n, 1);
    if (!v->pieces || !v->types)
        return no_memory(v);
    const unsigned char *at = kv->data;
    for (size_t i = 0; i < v->n; i++)
        gguf_next_string(&at, &v->pieces[i].s, &v->pieces[i].len);
    return read_types(v);
}

static bool read_id(struct vocab *v, const char *key, int64_t *id)
{
    if (!gguf_get_i64(v->g, key, id, v->e))
        return false;
    if (*id < 0 || *id >= (int64_t)v->n)
        *id = -1;       /* some writers say "none" by a number outside the vocabulary */
    return true;
}

static bool read_special(struct vocab *v)
{
    bool spm = strcmp(v->model, "llama") == 0;
    v->bos = spm ? 1 : -1;
    v->eos = spm ? 2 : -1;
    v->unk = spm ? 0 : -1;
    v->pad = -1;
    v->add_bos = spm || (v->pre && (strcmp(v->pre, "llama-bpe") == 0 || strcmp(v->pre, "tekken") == 0));
    v->space_prefix = spm;
    return read_id(v, "tokenizer.ggml.bos_token_id", &v->bos) && read_id(v, "tokenizer.ggml.eos_token_id", &v->eos)
        && read_id(v, "tokenizer.ggml.unknown_token_id", &v->unk) && read_id(v, "tokenizer.ggml.padding_token_id", &v->pad)
        && gguf_get_bool(v->g, "tokenizer.ggml.add_bos_token", &v->add_bos, v->e) && gguf_get_bool(v->g, "tokenizer.ggml.add_eos_token", &v->add_eos, v->e)
        && gguf_get_bool(v->g, "tokenizer.ggml.add_space_prefix", &v->space_prefix, v->e);
}

/* ---- how text is cut before a byte-level BPE ---- */

#define CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define TAIL " ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+"
#define CL100K(digits) CONTRACTIONS "|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|" digits "|" TAIL
#define UPPER "[\\\\p{Lu}\\\\p{Lt}\\\\p{Lm}\\\\p{Lo}\\\\p{M}]"
#define LOWER "[\\\\p{Ll}\\\\p{Lm}\\\\p{Lo}\\\\p{M}]"
#define CASED(contractions, digits) \
    "[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?" UPPER "*" LOWER "+" contractions "|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?" UPPER "+" LOWER "*" contractions "|" digits \
    "| ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n/]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+"
#define SPLIT(regex) "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"" regex "\"},\"behavior\":\"Isolated\",\"invert\":false}"
#define DIGITS(each) "{\"type\":\"Digits\",\"individual_digits\":" each "}"
#define BYTES(regex) "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":" regex "}"

static const char GPT2[] = BYTES("true");
static const char LLAMA3[] = SPLIT(CL100K("\\\\p{N}{1,3}")) "," BYTES("false");
static const char QWEN2[] = SPLIT(CL100K("\\\\p{N}")) "," BYTES("false");
static const char DIGITS1[] = DIGITS("true") "," BYTES("true");
static const char TEKKEN[] = SPLIT(CASED("", "\\\\p{N}")) "," BYTES("false");
static const char O200K[] = SPLIT(CASED(CONTRACTIONS "?", "\\\\p{N}{1,3}")) "," BYTES("false");
static const char FALCON[] = "{\"type\":\"Punctuation\",\"behavior\":\"Contiguous\"}," BYTES("true") "," DIGITS("false") "," SPLIT("[0-9][0-9][0-9]");
static const char BLOOM[] = SPLIT(" ?[^(\\\\s|[.,!?…。，、।۔،])]+") "," BYTES("false");
static const char DEEPSEEK[] = SPLIT("[\\r\\n]") "," SPLIT("\\\\s?\\\\p{L}+") "," SPLIT("\\\\s?\\\\p{P}+") "," SPLIT("[一-龥ࠀ-一가-\uD7FF]+") ","
    DIGITS("true") "," BYTES("false");
static const char DEEPSEEK_LLM[] = SPLIT("[\\r\\n]") "," SPLIT("\\\\s?[\\\\p{Lu}\\\\p{Ll}\\\\p{Lt}]+") "," SPLIT("\\\\s?[!-/:-~！-／：-～‘-‟　-。]+") ","
    SPLIT("\\\\s+$") "," SPLIT("[一-龥ࠀ-一가-\uD7FF]+") "," DIGITS("true") "," BYTES("false");
static const char DEEPSEEK3[] = SPLIT("\\\\p{N}{1,3}") "," SPLIT("[一-龥\u3040-ゟ゠-ヿ]+") ","
    SPLIT("[!\\\"#$%&'()*+,\\\\-./:;<=>?@\\\\[\\\\\\\\\\\\]^_`{|}~][A-Za-z]+|[^\\\\r\\\\n\\\\p{L}\\\\p{P}\\\\p{S}]?[\\\\p{L}\\\\p{M}]+| ?[\\\\p{P}\\\\p{S}]+[\\\\r\\\\n]*"
          "|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+") "," BYTES("false");

static const struct pre { const char *name, *json; bool nfc, ignore_merges; } pres[] = {
    { "gpt-2", GPT2, false, false }, { "phi-2", GPT2, false, false }, { "olmo", GPT2, true, false }, { "mpt", GPT2, true, false },
    { "roberta-bpe", GPT2, false, false }, { "gigachat", GPT2, false, false }, { "jais", GPT2, false, false },
    { "trillion", GPT2, false, false },
    { "llama-bpe", LLAMA3, false, true }, { "llama3", LLAMA3, false, true }, { "llama-v3", LLAMA3, false, true }, { "falcon3", LLAMA3, false, true },
    { "dbrx", LLAMA3, false, false }, { "smaug-bpe", LLAMA3, false, false }, { "chatglm-bpe", LLAMA3, false, false }, { "glm4", LLAMA3, false, false },
    { "qwen2", QWEN2, true, false }, { "deepseek-r1-qwen", QWEN2, true, false }, { "megrez", QWEN2, true, false }, { "stablelm2", QWEN2, false, false },
    { "starcoder", DIGITS1, false, false }, { "refact", DIGITS1, false, false }, { "command-r", DIGITS1, true, false }, { "smollm", DIGITS1, false, false },
    { "codeshell", DIGITS1, false, false }, { "exaone", DIGITS1, false, false }, { "minerva-7b", DIGITS1, false, false },
    { "falcon", FALCON, false, false }, { "bloom", BLOOM, false, false }, { "poro-chat", BLOOM, false, false }, { "gpt3-finnish", BLOOM, false, false },
    { "deepseek-llm", DEEPSEEK_LLM, false, false }, { "deepseek-coder", DEEPSEEK, false, false },
    { "deepseek-v3", DEEPSEEK3, false, false }, { "deepseek-r1", DEEPSEEK3, false, false },
    { "tekken", TEKKEN, false, true }, { "pixtral", TEKKEN, false, true }, { "gpt-4o", O200K, false, false }, { "llama4", O200K, false, false },
};

static const struct pre *find_pre(const char *name)
{
    for (size_t i = 0; i < sizeof pres / sizeof *pres; i++)
        if (strcmp(pres[i].name, name) == 0)
            return &pres[i];
    return NULL;
}

/* Files from before the key say nothing: then what the architecture's own vocabulary needs. */
static const struct pre *choose_pre(const struct vocab *v)
{
    static const struct { const char *arch, *pre; } own[] = {
        { "llama", "llama-bpe" }, { "qwen2", "qwen2" }, { "qwen2moe", "qwen2" }, { "qwen3", "qwen2" }, { "qwen3moe", "qwen2" }, { "falcon", "falcon" },
        { "bloom", "bloom" }, { "starcoder", "starcoder" }, { "starcoder2", "starcoder" }, { "command-r", "command-r" }, { "cohere2", "command-r" },
        { "mpt", "mpt" }, { "stablelm", "stablelm2" }, { "granite", "starcoder" }, { "gptneox", "olmo" },
    };
    if (v->pre && strcmp(v->pre, "default") != 0) {
        const struct pre *p = find_pre(v->pre);
        if (!p)
            err_set(v->e, ERR_UNSUPPORTED, "%s: tokenizer.ggml.pre \"%.40s\" is not known: text would be cut wrongly", v->g->file, v->pre);
        return p;
    }
    for (size_t i = 0; v->arch && i < sizeof own / sizeof *own; i++)
        if (strcmp(own[i].arch, v->arch) == 0)
            return find_pre(own[i].pre);
    return find_pre("gpt-2");
}

/* ---- writing ---- */

static void write_piece(struct buf *b, const struct vocab *v, int64_t id)
{
    json_write_str(b, v->pieces[id].s, v->pieces[id].len);
}

static void write_vocab(struct buf *b, const struct vocab *v)
{
    buf_puts(b, "\"vocab\":{");
    for (size_t i = 0; i < v->n; i++) {
        write_piece(b, v, (int64_t)i);
        buf_printf(b, ":%zu%s", i, i + 1 < v->n ? "," : "");
    }
    buf_putc(b, '}');
}

static void write_added(struct buf *b, const struct vocab *v)
{
    bool first = true;
    buf_puts(b, "\"added_tokens\":[");
    for (size_t i = 0; i < v->n; i++) {
        bool special = v->types[i] == TYPE_CONTROL || v->types[i] == TYPE_UNKNOWN;
        if ((!special && v->types[i] != TYPE_USER) || v->pieces[i].len == 0)
            continue;
        buf_printf(b, "%s{\"id\":%zu,\"content\":", first ? "" : ",", i);
        write_piece(b, v, (int64_t)i);
        buf_printf(b, ",\"single_word\":false,\"lstrip\":false,\"rstrip\":false,\"normalized\":false,\"special\":%s}", special ? "true" : "false");
        first = false;
    }
    buf_puts(b, "],");
}

static void write_template_token(struct buf *b, const struct vocab *v, int64_t id, int type)
{
    buf_puts(b, "{\"SpecialToken\":{\"id\":");
    write_piece(b, v, id);
    buf_printf(b, ",\"type_id\":%d}}", type);
}

static void write_template(struct buf *b, const struct vocab *v, const char *name, const char *sequences)
{
    bool bos = v->add_bos && v->bos >= 0, eos = v->add_eos && v->eos >= 0;
    buf_printf(b, "\"%s\":[", name);
    for (int type = 0; sequences[type]; type++) {
        if (type > 0)
            buf_putc(b, ',');
        if (bos) {
            write_template_token(b, v, v->bos, type);
            buf_putc(b, ',');
        }
        buf_printf(b, "{\"Sequence\":{\"id\":\"%c\",\"type_id\":%d}}", sequences[type], type);
        if (eos) {
            buf_putc(b, ',');
            write_template_token(b, v, v->eos, type);
        }
    }
    buf_puts(b, "],");
}

static void write_post(struct buf *b, const struct vocab *v)
{
    int64_t ids[2] = { v->add_bos ? v->bos : -1, v->add_eos ? v->eos : -1 };
    bool first = true;
    if (ids[0] < 0 && ids[1] < 0) {
        buf_puts(b, "\"post_processor\":null,");
        return;
    }
    buf_puts(b, "\"post_processor\":{\"type\":\"TemplateProcessing\",");
    write_template(b, v, "single", "A");
    write_template(b, v, "pair", "AB");
    buf_puts(b, "\"special_tokens\":{");
    for (int i = 0; i < 2; i++) {
        if (ids[i] < 0 || (i == 1 && ids[1] == ids[0]))
            continue;
        buf_puts(b, first ? "" : ",");
        write_piece(b, v, ids[i]);
        buf_puts(b, ":{\"id\":");
        write_piece(b, v, ids[i]);
        buf_printf(b, ",\"ids\":[%lld],\"tokens\":[", (long long)ids[i]);
        write_piece(b, v, ids[i]);
        buf_puts(b, "]}");
        first = false;
    }
    buf_puts(b, "}},");
}

/* ---- byte-level BPE ---- */

/* "left right": the space that parts them is the first one that is not at the start (a byte-level piece has no spaces, others may). */
static bool write_merges_stored(struct buf *b, const struct vocab *v)
{
    const struct gguf_kv *kv = gguf_find(v->g, "tokenizer.ggml.merges");
    if (!kv || !kv->is_array || kv->type != GGUF_STRING)
        return err_set(v->e, ERR_FORMAT, "%s: tokenizer.ggml.merges must be strings", v->g->file);
    const unsigned char *at = kv->data;
    buf_puts(b, "\"merges\":[");
    for (uint64_t i = 0; i < kv->n; i++) {
        const char *s;
        size_t len;
        gguf_next_string(&at, &s, &len);
        const char *space = len > 1 ? memchr(s + 1, ' ', len - 1) : NULL;
        if (!space)
            return err_set(v->e, ERR_FORMAT, "%s: tokenizer.ggml.merges[%llu] is not two pieces with a space between", v->g->file, (unsigned long long)i);
        buf_puts(b, i ? ",[" : "[");
        json_write_str(b, s, (size_t)(space - s));
        buf_putc(b, ',');
        json_write_str(b, space + 1, len - (size_t)(space - s) - 1);
        buf_putc(b, ']');
    }
    buf_putc(b, ']');
    return true;
}

static bool write_gpt2(struct buf *b, const struct vocab *v)
{
    const struct pre *pre = choose_pre(v);
    if (!pre)
        return false;
    buf_puts(b, "{\"version\":\"1.0\",");
    write_added(b, v);
    buf_printf(b, "\"normalizer\":%s,\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[%s]},", pre->nfc ? "{\"type\":\"NFC\"}" : "null", pre->json);
    write_post(b, v);
    buf_printf(b, "\"decoder\":%s,\"model\":{\"type\":\"BPE\",\"unk_token\":null,\"fuse_unk\":false,\"byte_fallback\":false,\"ignore_merges\":%s,",
               BYTES("true"), pre->ignore_merges ? "true" : "false");
    write_vocab(b, v);
    buf_putc(b, ',');
    if (!write_merges_stored(b, v))
        return false;
    buf_puts(b, "}}");
    return true;
}

/* ---- SentencePiece BPE ---- */

/* A number a token, and the tokens that no merge makes: the tokenizer finds the merges. */
static bool write_scores(struct buf *b, const struct vocab *v)
{
    const struct gguf_kv *kv = gguf_find(v->g, "tokenizer.ggml.scores");
    double score = 0;
    bool first = true;
    if (kv && (!kv->is_array || kv->n != v->n))
        return err_set(v->e, ERR_FORMAT, "%s: tokenizer.ggml.scores must be %zu numbers, one a token", v->g->file, v->n);
    buf_puts(b, "\"scores\":[");
    for (size_t i = 0; i < v->n; i++) {
        if (kv && !gguf_number_at(kv, i, &score))
            return err_set(v->e, ERR_FORMAT, "%s: tokenizer.ggml.scores must be %zu numbers, one a token", v->g->file, v->n);
        buf_printf(b, "%s%.9g", i ? "," : "", isfinite(score) ? score : 0.0);
    }
    buf_puts(b, "],\"unmergeable\":[");
    for (size_t i = 0; i < v->n; i++)
        if (v->types[i] == TYPE_CONTROL || v->types[i] == TYPE_UNKNOWN || v->types[i] == TYPE_BYTE) {
            buf_printf(b, first ? "%zu" : ",%zu", i);
            first = false;
        }
    buf_putc(b, ']');
    return true;
}

static bool write_llama(struct buf *b, const struct vocab *v)
{
    static const char replace[] = "{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"▁\"}";
    buf_puts(b, "{\"version\":\"1.0\",");
    write_added(b, v);
    if (v->space_prefix)
        buf_printf(b, "\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Prepend\",\"prepend\":\"▁\"},%s]},", replace);
    else
        buf_printf(b, "\"normalizer\":%s,", replace);
    buf_puts(b, "\"pre_tokenizer\":null,");
    write_post(b, v);
    buf_printf(b, "\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\",\"pattern\":{\"String\":\"▁\"},\"content\":\" \"},"
               "{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"}%s]},\"model\":{\"type\":\"BPE\",\"unk_token\":",
               v->space_prefix ? ",{\"type\":\"Strip\",\"content\":\" \",\"start\":1,\"stop\":0}" : "");
    if (v->unk >= 0)
        write_piece(b, v, v->unk);
    else
        buf_puts(b, "null");
    buf_puts(b, ",\"fuse_unk\":true,\"byte_fallback\":true,\"ignore_merges\":false,");
    write_vocab(b, v);
    buf_putc(b, ',');
    if (!write_scores(b, v))
        return false;
    buf_puts(b, "}}");
    return true;
}

/* ---- tokenizer_config.json ---- */

static bool write_chat_templates(struct buf *b, const struct vocab *v)
{
    static const char prefix[] = "tokenizer.chat_template.";
    const char *plain = NULL;
    bool named = false;
    if (!gguf_get_str(v->g, "tokenizer.chat_template", &plain, v->e))
        return false;
    for (size_t i = 0; i < v->g->n_kv; i++)
        named |= strncmp(v->g->kv[i].key, prefix, sizeof prefix - 1) == 0;
    if (!named) {
        if (plain) {
            buf_puts(b, ",\"chat_template\":");
            json_write_str(b, plain, strlen(plain));
        }
        return true;
    }
    buf_puts(b, ",\"chat_template\":[");
    for (size_t i = 0; i <= v->g->n_kv; i++) {
        const char *key = i < v->g->n_kv ? v->g->kv[i].key : "", *text = plain, *name = "default";
        if (i < v->g->n_kv) {
            if (strncmp(key, prefix, sizeof prefix - 1) != 0)
                continue;
            name = key + sizeof prefix - 1;
            if (!gguf_get_str(v->g, key, &text, v->e))
                return false;
        }
        if (!text)
            continue;
        buf_puts(b, b->data[b->len - 1] == '[' ? "{\"name\":" : ",{\"name\":");
        json_write_str(b, name, strlen(name));
        buf_puts(b, ",\"template\":");
        json_write_str(b, text, strlen(text));
        buf_putc(b, '}');
    }
    buf_putc(b, ']');
    return true;
}

static bool write_config(struct buf *b, const struct vocab *v)
{
    const struct { const char *name; int64_t id; } tokens[] = {
        { "bos_token", v->bos }, { "eos_token", v->eos }, { "unk_token", v->unk }, { "pad_token", v->pad } };
    buf_printf(b, "{\"add_bos_token\":%s,\"add_eos_token\":%s", v->add_bos ? "true" : "false", v->add_eos ? "true" : "false");
    for (size_t i = 0; i < sizeof tokens / sizeof *tokens; i++) {
        if (tokens[i].id < 0)
            continue;
        buf_printf(b, ",\"%s\":", tokens[i].name);
        write_piece(b, v, tokens[i].id);
    }
    if (!write_chat_templates(b, v))
        return false;
    buf_putc(b, '}');
    return true;
}

bool gguf_tokenizer(struct gguf_files *f, struct buf *tokenizer, struct buf *config, struct err *e)
{
    struct vocab v = { .g = &f->files[0].g, .e = e };
    if (!gguf_get_str(v.g, "tokenizer.ggml.model", &v.model, e) || !gguf_get_str(v.g, "tokenizer.ggml.pre", &v.pre, e) ||
        !gguf_get_str(v.g, "general.architecture", &v.arch, e))
        return false;
    if (!v.model || strcmp(v.model, "none") == 0 || strcmp(v.model, "no_vocab") == 0)
        return true;
    bool bpe = strcmp(v.model, "gpt2") == 0;
    if (!bpe && strcmp(v.model, "llama") != 0)
        return err_set(e, ERR_UNSUPPORTED, "%s: tokenizer.ggml.model \"%.40s\" is not supported; supported are llama and gpt2", v.g->file, v.model);
    bool ok = read_pieces(&v) && read_special(&v) && (bpe ? write_gpt2(tokenizer, &v) : write_llama(tokenizer, &v)) && write_config(config, &v);
    mem_free(v.pieces);
    mem_free(v.types);
    return ok;
}
