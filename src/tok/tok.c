#include "tok/tok.h"

#include <string.h>

#include "base/mem.h"
#include "base/vec.h"
#include "tok/tok_int.h"

/* Tokenizer files larger than this are refused before they are read. */
#define MAX_FILE_BYTES ((size_t)1 << 29)

void tok_ids_free(struct tok_ids *v)
{
    mem_free(v->ids);
    *v = (struct tok_ids){0};
}

bool tok_ids_push(struct tok_ids *v, int32_t id)
{
    if (!vec_reserve((void **)&v->ids, &v->cap, v->n + 1, sizeof *v->ids))
        return false;
    v->ids[v->n++] = id;
    return true;
}

void tok_model_free(struct tok_model *m)
{
    tok_vocab_free(&m->vocab);
    mem_free(m->unk);
    mem_free(m->prefix);
    mem_free(m->suffix);
    mem_free(m->merges);
    mem_free(m->rank_id);
    mem_free(m->char_id);
    mem_free(m->bigrams);
    mem_free(m->score_of);
    mem_free(m->nodes);
    mem_free(m->labels);
}

void tok_close(struct tok **tp)
{
    struct tok *t = *tp;
    if (!t)
        return;
    tok_model_free(&t->model);
    tok_added_free(&t->added);
    for (size_t i = 0; i < t->n_norms; i++)
        tok_norm_free(&t->norms[i]);
    for (size_t i = 0; i < t->n_pres; i++)
        tok_re_close(&t->pres[i].re);
    for (size_t i = 0; i < t->n_decs; i++)
        tok_dec_free(&t->decs[i]);
    mem_free(t->norms);
    mem_free(t->pres);
    mem_free(t->decs);
    mem_free(t->post.items);
    mem_free(t->uc);
    buf_free(&t->bytes);
    mem_free(t->bytes_at);
    tok_texts_free(&t->special);
    tok_texts_free(&t->templates);
    mem_free(t);
    *tp = NULL;
}

static struct tok *new_tok(struct err *e)
{
    struct tok *t = mem_try_zalloc(1, sizeof *t);
    if (!t) {
        tok_nomem(e);
        return NULL;
    }
    t->bos = t->eos = t->pad = t->unk = -1;
    return t;
}

bool tok_open_json(struct tok **out, const char *text, size_t len, struct err *e)
{
    *out = NULL;
    struct tok *t = new_tok(e);
    if (!t)
        return false;
    if (!tok_load_json(t, text, len, e)) {
        tok_close(&t);
        return false;
    }
    t->unk = t->model.unk_id;
    *out = t;
    return true;
}

bool tok_has(const struct file_set *fs) { return file_set_has(fs, "tokenizer.json") || tok_slow_has(fs); }

static bool open_slow(struct tok **out, const struct file_set *fs, struct err *e)
{
    struct buf text = {0};
    if (!tok_slow_has(fs))
        return err_set(e, ERR_NOT_FOUND, "tokenizer.json is missing%s%s, and so are tokenizer.model, *.tiktoken, and vocab.json with merges.txt",
                       fs->dir ? " in " : "", fs->dir ? fs->dir : "");
    bool ok = tok_slow_read(fs, &text, e) && tok_open_json(out, text.data, text.len, e);
    buf_free(&text);
    if (ok && !tok_roles_load(*out, fs, e)) {
        tok_close(out);
        return false;
    }
    return ok;
}

bool tok_open(struct tok **out, const struct file_set *fs, struct err *e)
{
    struct file_view v = {0};
    *out = NULL;
    if (!file_set_has(fs, "tokenizer.json"))
        return open_slow(out, fs, e);
    if (!file_set_open(fs, "tokenizer.json", &v, e))
        return false;
    bool ok = v.size <= MAX_FILE_BYTES || err_set(e, ERR_TOO_LARGE, "tokenizer.json has %zu bytes, at most %zu are read", v.size, MAX_FILE_BYTES);
    ok = ok && tok_open_json(out, v.data ? (const char *)v.data : "", v.size, e);
    file_view_close(&v);
    if (ok && !tok_roles_load(*out, fs, e)) {
        tok_close(out);
        return false;
    }
    return ok;
}

/* ---- looking at the vocabulary */

int32_t tok_vocab_size(const struct tok *t)
{
    return t->n_ids;
}

const char *tok_token_spelling(const struct tok *t, int32_t id, size_t *len)
{
    return tok_decode_spelling(t, id, TOK_DECODE_ALL, len);
}

const char *tok_token_bytes(const struct tok *t, int32_t id, size_t *len)
{
    *len = 0;
    if (id < 0 || id >= t->n_ids)
        return "";
    *len = t->bytes_at[id + 1] - t->bytes_at[id];
    return t->bytes.data + t->bytes_at[id];
}

int32_t tok_token_id(const struct tok *t, const char *spelling, size_t len)
{
    int32_t id = tok_vocab_id(&t->model.vocab, spelling, len);
    int64_t at;
    if (id < 0 && hash_map_get(t->added.by_text, spelling, len, &at))
        id = t->added.tokens[at].id;
    return id;
}

bool tok_is_special(const struct tok *t, int32_t id)
{
    const struct tok_added_token *x = tok_added_find(&t->added, id);
    return x && x->special;
}

int32_t tok_bos_id(const struct tok *t) { return t->bos; }
int32_t tok_eos_id(const struct tok *t) { return t->eos; }
int32_t tok_unk_id(const struct tok *t) { return t->unk; }
int32_t tok_pad_id(const struct tok *t) { return t->pad; }

static const char *find_text(const struct tok_texts *v, const char *name)
{
    for (size_t i = 0; i < v->n; i++)
        if (strcmp(v->items[i].name, name) == 0)
            return v->items[i].value;
    return NULL;
}

const char *tok_chat_template(const struct tok *t, const char *name)
{
    return find_text(&t->templates, name ? name : "default");
}

const char *tok_special_text(const struct tok *t, const char *name)
{
    const char *s = find_text(&t->special, name);
    return s ? s : "";
}
