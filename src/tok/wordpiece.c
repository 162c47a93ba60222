/* WordPiece (longest match first) and WordLevel. */
#include <string.h>

#include "base/utf8.h"
#include "tok/tok_int.h"

static bool push_unk(struct tok_work *w, struct err *e)
{
    const struct tok_model *m = &w->t->model;
    if (m->unk_id < 0)
        return err_set(e, ERR_INVALID, "the text has a word that is not in the vocabulary, and unk_token '%.60s' is not either",
                       m->unk ? m->unk : "");
    return tok_ids_push(&w->ids, m->unk_id) || tok_nomem(e);
}

/* Longest vocabulary entry at s[0..len), prefixed unless first; *n is its length in s.  -1: none. */
static int32_t longest(struct tok_work *w, const char *s, size_t len, bool first, size_t *n)
{
    const struct tok_model *m = &w->t->model;
    struct buf *b = &w->scratch[0];
    size_t prefix = first || !m->prefix ? 0 : strlen(m->prefix);
    if (prefix + len > m->vocab.max_len)
        len = m->vocab.max_len > prefix ? m->vocab.max_len - prefix : 0;
    buf_clear(b);
    if (!buf_append(b, m->prefix ? m->prefix : "", prefix) || !buf_append(b, s, len))
        return -1;
    /* A cut-off character at the end is harmless: no entry ends with one. */
    for (; len > 0; len = tok_cp_before(s, len)) {
        int32_t id = tok_vocab_id(&m->vocab, b->data, prefix + len);
        if (id >= 0) {
            *n = len;
            return id;
        }
    }
    return -1;
}

bool tok_wordpiece_encode(struct tok_work *w, const char *s, size_t len, struct err *e)
{
    const struct tok_model *m = &w->t->model;
    size_t from = w->ids.n;
    if (utf8_length(s, len) > m->max_chars)
        return push_unk(w, e);
    for (size_t i = 0, n; i < len; i += n) {
        int32_t id = longest(w, s + i, len - i, i == 0, &n);
        if (id < 0) {
            w->ids.n = from;
            return w->scratch[0].failed ? tok_nomem(e) : push_unk(w, e);
        }
        if (!tok_ids_push(&w->ids, id))
            return tok_nomem(e);
    }
    return true;
}

bool tok_wordlevel_encode(struct tok_work *w, const char *s, size_t len, struct err *e)
{
    int32_t id = tok_vocab_id(&w->t->model.vocab, s, len);
    return id < 0 ? push_unk(w, e) : tok_ids_push(&w->ids, id) || tok_nomem(e);
}
