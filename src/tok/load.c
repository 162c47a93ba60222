#include <string.h>

#include "base/json.h"
#include "base/mem.h"
#include "base/utf8.h"
#include "tok/tok_int.h"

enum { KEY_MAX = 64 };

/* Where the parts of the file lie. */
struct layout {
    struct tok_span vocab, merges, scores, unmergeable, added, normalizer, pre_tokenizer, post_processor, decoder;
    struct buf fields;           /* the model's small fields, as an object of their own */
};

bool tok_load_str(const json_t *j, const char *key, char **out, size_t *len, struct err *e)
{
    const json_t *v = json_object_get(j, key);
    *out = NULL;
    *len = 0;
    if (!v || json_is_null(v))
        return true;
    if (!json_is_string(v))
        return err_set(e, ERR_FORMAT, "%s is %s, not a string", key, json_type_name(v));
    *len = json_string_length(v);
    *out = mem_try_alloc(*len + 1, 1);
    if (!*out)
        return tok_nomem(e);
    memcpy(*out, json_string_value(v), *len);
    (*out)[*len] = 0;
    return true;
}

bool tok_load_char(const json_t *j, const char *key, const char *dflt, char out[5], struct err *e)
{
    const char *s;
    if (!json_get_str(j, key, dflt, &s, e))
        return false;
    if (!s || !*s || (size_t)tok_cp_len(s) != strlen(s))
        return err_set(e, ERR_FORMAT, "%s is not one character", key);
    memcpy(out, s, strlen(s) + 1);
    return true;
}

bool tok_load_pattern(struct tok *t, const json_t *j, struct tok_re *re, struct err *e)
{
    const json_t *p = json_object_get(j, "pattern"), *s = json_object_get(p, "String"), *r = json_object_get(p, "Regex");
    const json_t *v = r ? r : s;
    if (!json_is_string(v))
        return err_set(e, ERR_FORMAT, "pattern is neither {\"String\": ..} nor {\"Regex\": ..}");
    return tok_re_open(re, json_string_value(v), json_string_length(v), v == r, false, t->uc, e);
}

/* A key's text, cut when it is longer than any we look for. */
static bool read_key(struct tok_js *j, char key[KEY_MAX], struct err *e)
{
    struct buf b = {0};
    bool ok = tok_js_string(j, &b, e) && tok_js_expect(j, ':', e);
    if (ok) {
        size_t n = b.len < KEY_MAX - 1 ? b.len : KEY_MAX - 1;
        memcpy(key, b.data ? b.data : "", n);
        key[n] = 0;
    }
    buf_free(&b);
    return ok;
}

static bool read_model(struct tok_js *j, struct layout *l, struct err *e)
{
    bool first = true, bad = false;
    char key[KEY_MAX];
    if (!tok_js_expect(j, '{', e))
        return false;
    while (tok_js_more(j, '}', &first, &bad, e)) {
        struct tok_span v;
        if (!read_key(j, key, e) || !tok_js_skip(j, &v, e))
            return false;
        if (strcmp(key, "vocab") == 0)
            l->vocab = v;
        else if (strcmp(key, "merges") == 0)
            l->merges = v;
        else if (strcmp(key, "scores") == 0)         /* ours: what other files have instead of merges (scores.c) */
            l->scores = v;
        else if (strcmp(key, "unmergeable") == 0)
            l->unmergeable = v;
        else if (!strpbrk(key, "\"\\"))
            buf_printf(&l->fields, "%s\"%s\":%.*s", l->fields.len ? "," : "{", key, (int)(v.len < 100000 ? v.len : 0), v.p);
    }
    return !bad;
}

static bool read_layout(struct tok_js *j, struct layout *l, struct err *e)
{
    struct { const char *key; struct tok_span *span; } parts[] = {
        {"added_tokens", &l->added}, {"normalizer", &l->normalizer}, {"pre_tokenizer", &l->pre_tokenizer},
        {"post_processor", &l->post_processor}, {"decoder", &l->decoder}};
    bool first = true, bad = false;
    char key[KEY_MAX];
    if (!tok_js_expect(j, '{', e))
        return false;
    while (tok_js_more(j, '}', &first, &bad, e)) {
        struct tok_span v;
        if (!read_key(j, key, e))
            return false;
        if (strcmp(key, "model") == 0) {
            buf_clear(&l->fields);
            if (!read_model(j, l, e))
                return false;
            continue;
        }
        if (!tok_js_skip(j, &v, e))
            return false;
        for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
            if (strcmp(key, parts[i].key) == 0)
                *parts[i].span = v;
    }
    return !bad;
}

/* Parse a part and hand it to its loader. */
static bool load_part(struct tok *t, const struct tok_span *s, const char *name,
                      bool (*load)(struct tok *, const json_t *, struct err *), struct err *e)
{
    if (!s->p || (s->len == 4 && memcmp(s->p, "null", 4) == 0))
        return load(t, NULL, e);
    json_t *j = json_parse(s->p, s->len, e);
    if (!j)
        return err_prefix(e, "tokenizer.json: %s", name);
    bool ok = load(t, j, e);
    json_decref(j);
    return ok;
}

/* {"piece": id, ..} */
static bool load_vocab_object(struct tok_model *m, const struct tok_span *s, struct err *e)
{
    struct tok_js j;
    bool first = true, bad = false;
    tok_js_init(&j, s->p, s->len, "tokenizer.json: model.vocab");
    if (!tok_js_expect(&j, '{', e) || !tok_vocab_reserve(&m->vocab, s->len / 24, e))
        return false;
    while (tok_js_more(&j, '}', &first, &bad, e)) {
        double id;
        size_t at = m->vocab.text.len;
        if (!tok_js_string(&j, &m->vocab.text, e) || !tok_js_expect(&j, ':', e) || !tok_js_number(&j, &id, e))
            return false;
        if (!(id >= 0 && id < 4294967296.0) || id != (double)(int64_t)id)
            return tok_js_fail(&j, e, "an id, a whole number from 0, in the number before");
        if (!tok_vocab_add(&m->vocab, at, (int64_t)id, e))
            return false;
    }
    return !bad && tok_vocab_finish(&m->vocab, e);
}

static bool model_kind(struct tok_model *m, const json_t *f, const struct layout *l, struct err *e)
{
    static const struct { const char *name; enum tok_model_kind kind; } kinds[] = {
        {"BPE", TOK_MODEL_BPE}, {"Unigram", TOK_MODEL_UNIGRAM}, {"WordPiece", TOK_MODEL_WORDPIECE}, {"WordLevel", TOK_MODEL_WORDLEVEL}};
    const char *type;
    if (!json_get_str(f, "type", NULL, &type, e))
        return false;
    if (!type) {                 /* files of the first versions have none */
        m->kind = l->merges.p ? TOK_MODEL_BPE : *l->vocab.p == '[' ? TOK_MODEL_UNIGRAM
                : json_object_get(f, "max_input_chars_per_word") ? TOK_MODEL_WORDPIECE : TOK_MODEL_WORDLEVEL;
        return true;
    }
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (strcmp(type, kinds[i].name) == 0) {
            m->kind = kinds[i].kind;
            return true;
        }
    return err_set(e, ERR_UNSUPPORTED, "type '%.60s' is not known", type);
}

static bool load_fields(struct tok_model *m, const json_t *f, struct err *e)
{
    size_t prefix_len, suffix_len, unk_len;
    int64_t max_chars, unk_id;
    m->unk_id = -1;
    if (!tok_load_str(f, "unk_token", &m->unk, &unk_len, e) || !tok_load_str(f, "continuing_subword_prefix", &m->prefix, &prefix_len, e) ||
        !tok_load_str(f, "end_of_word_suffix", &m->suffix, &suffix_len, e) || !json_get_bool(f, "fuse_unk", false, &m->fuse_unk, e) ||
        !json_get_bool(f, "byte_fallback", false, &m->byte_fallback, e) || !json_get_bool(f, "ignore_merges", false, &m->ignore_merges, e) ||
        !json_get_i64(f, "max_input_chars_per_word", 100, &max_chars, e) || !json_get_i64(f, "unk_id", -1, &unk_id, e))
        return false;
    if (m->prefix && prefix_len == 0) {
        mem_free(m->prefix);
        m->prefix = NULL;
    }
    if (m->suffix && suffix_len == 0) {
        mem_free(m->suffix);
        m->suffix = NULL;
    }
    if (m->kind == TOK_MODEL_WORDPIECE && !json_object_get(f, "continuing_subword_prefix") && !(m->prefix = mem_try_strdup("##")))
        return tok_nomem(e);
    m->max_chars = max_chars < 0 ? 0 : (size_t)max_chars;
    m->unk_id = (int32_t)(unk_id < TOK_MAX_IDS ? unk_id : TOK_MAX_IDS);
    return true;
}

static bool load_model(struct tok *t, const struct layout *l, struct err *e)
{
    struct tok_model *m = &t->model;
    json_t *f = json_parse(l->fields.data ? l->fields.data : "{}", l->fields.data ? l->fields.len : 2, e);
    bool ok = f && model_kind(m, f, l, e) && load_fields(m, f, e);
    json_decref(f);
    if (!ok)
        return err_prefix(e, "tokenizer.json: model");
    if (m->kind == TOK_MODEL_UNIGRAM) {
        int32_t unk_id = m->unk_id;
        if (!tok_unigram_load(t, &l->vocab, e))
            return false;
        if (unk_id >= 0 && (size_t)unk_id >= m->vocab.n_strings)
            return err_set(e, ERR_FORMAT, "tokenizer.json: model.unk_id %d is outside the vocabulary of %zu", unk_id, m->vocab.n_strings);
    } else {
        if (!load_vocab_object(m, &l->vocab, e))
            return false;
        if ((m->kind == TOK_MODEL_WORDPIECE || m->kind == TOK_MODEL_WORDLEVEL) && !m->unk)
            m->unk = mem_try_strdup(m->kind == TOK_MODEL_WORDPIECE ? "[UNK]" : "<unk>");
        m->unk_id = m->unk ? tok_vocab_id(&m->vocab, m->unk, strlen(m->unk)) : -1;
    }
    for (int b = 0; b < 256; b++) {
        static const char hex[] = "0123456789ABCDEF";
        char name[6] = {'<', '0', 'x', hex[b >> 4], hex[b & 15], '>'};
        m->byte_ids[b] = tok_vocab_id(&m->vocab, name, 6);
    }
    return true;
}

static bool load_all(struct tok *t, const struct layout *l, struct err *e)
{
    if (!l->vocab.p)
        return err_set(e, ERR_FORMAT, "tokenizer.json: model.vocab is missing");
    if (!load_model(t, l, e) || !load_part(t, &l->normalizer, "normalizer", tok_norm_load, e) ||
        !load_part(t, &l->pre_tokenizer, "pre_tokenizer", tok_pre_load, e) ||
        !load_part(t, &l->added, "added_tokens", tok_added_load, e) ||
        !load_part(t, &l->post_processor, "post_processor", tok_post_load, e) ||
        !load_part(t, &l->decoder, "decoder", tok_dec_load, e))
        return false;
    if (t->model.kind == TOK_MODEL_BPE) {
        struct buf found = {0};
        struct tok_span merges = l->merges;
        if (!merges.p && !l->scores.p)
            return err_set(e, ERR_FORMAT, "tokenizer.json: model.merges is missing");
        bool ok = merges.p || tok_scores_merges(&t->model.vocab, &l->scores, &l->unmergeable, &found, e);
        if (!merges.p)
            merges = (struct tok_span){found.data, found.len};
        ok = ok && tok_bpe_load(t, &merges, e);
        buf_free(&found);
        if (!ok)
            return false;
    }
    t->n_ids = t->model.vocab.n_ids > t->added.n_ids ? t->model.vocab.n_ids : t->added.n_ids;
    return tok_bytes_build(t, e);
}

bool tok_load_json(struct tok *t, const char *text, size_t len, struct err *e)
{
    struct layout l = {0};
    struct tok_js j;
    tok_js_init(&j, text, len, "tokenizer.json");
    t->uc = tok_uc_table();
    bool ok = t->uc ? read_layout(&j, &l, e) : tok_nomem(e);
    if (ok && l.fields.len)
        buf_putc(&l.fields, '}');
    if (ok && l.fields.failed)
        ok = tok_nomem(e);
    ok = ok && load_all(t, &l, e);
    buf_free(&l.fields);
    return ok;
}
