#include <string.h>

#include "base/mem.h"
#include "base/utf8.h"
#include "base/vec.h"
#include "tok/tok_int.h"

static void work_free(struct tok_work *w)
{
    buf_free(&w->text);
    buf_free(&w->next);
    buf_free(&w->scratch[0]);
    buf_free(&w->scratch[1]);
    mem_free(w->pieces.items);
    mem_free(w->out.items);
    mem_free(w->matches.items);
    mem_free(w->syms.items);
    mem_free(w->queue.buckets);
    mem_free(w->queue.nodes.items);
    mem_free(w->queue.heap.items);
    mem_free(w->best.items);
    mem_free(w->cps.items);
    tok_ids_free(&w->ids);
    tok_cache_close(&w->cache);
}

/* The input as valid UTF-8 in w->text. */
static bool take_text(struct tok_work *w, const char *text, size_t len, struct err *e)
{
    if (len > TOK_MAX_TEXT_BYTES)
        return err_set(e, ERR_TOO_LARGE, "a text of %zu bytes exceeds the tokenizer's limit of %zu", len, TOK_MAX_TEXT_BYTES);
    if (utf8_valid(text, len))
        return buf_append(&w->text, text, len) || tok_nomem(e);
    if (!buf_reserve(&w->text, 3 * len))
        return tok_nomem(e);
    w->text.len = utf8_lossy(text, len, w->text.data);
    w->text.data[w->text.len] = 0;
    return true;
}

static void swap_pieces(struct tok_work *w)
{
    struct tok_pieces p = w->pieces;
    w->pieces = w->out;
    w->out = p;
    w->out.n = 0;
}

/* One stretch of raw text through the normalizer, into w->next and w->out. */
static bool normalize_piece(struct tok_work *w, const struct tok_piece *x, unsigned flags, struct err *e)
{
    const char *s = w->text.data + x->at;
    size_t len = x->len, base = w->next.len;
    uint32_t zero = x->zero_len;
    int which;
    if (w->t->n_norms) {
        if (!tok_norm_run(w, s, len, &zero, &which, e))
            return false;
        s = w->scratch[which].data;
        len = w->scratch[which].len;
    }
    if (!buf_append(&w->next, s, len))
        return tok_nomem(e);
    return tok_added_split(w, &w->t->added.normalized, w->next.data + base, len, base, zero, flags) || tok_nomem(e);
}

/* Cut out added tokens and normalize the rest. */
static bool cut_and_normalize(struct tok_work *w, unsigned flags, struct err *e)
{
    const struct tok *t = w->t;
    if (w->text.len == 0)
        return true;
    uint32_t zero = (uint32_t)tok_cp_len(w->text.data);
    if (!tok_added_split(w, &t->added.raw, w->text.data, w->text.len, 0, zero, flags))
        return tok_nomem(e);
    swap_pieces(w);
    if (t->n_norms == 0 && t->added.normalized.n == 0)
        return true;
    for (size_t i = 0; i < w->pieces.n; i++) {
        const struct tok_piece *x = &w->pieces.items[i];
        bool ok = x->id >= 0 ? tok_piece_push(&w->out, x->at, x->len, x->id, 0) || tok_nomem(e) : normalize_piece(w, x, flags, e);
        if (!ok)
            return false;
    }
    swap_pieces(w);
    struct buf text = w->text;
    w->text = w->next;
    w->next = text;
    return true;
}

static bool run_model(struct tok_work *w, struct err *e)
{
    static bool (*const models[])(struct tok_work *, const char *, size_t, struct err *) = {
        [TOK_MODEL_BPE] = tok_bpe_encode, [TOK_MODEL_UNIGRAM] = tok_unigram_encode,
        [TOK_MODEL_WORDPIECE] = tok_wordpiece_encode, [TOK_MODEL_WORDLEVEL] = tok_wordlevel_encode};
    for (size_t i = 0; i < w->pieces.n; i++) {
        const struct tok_piece *x = &w->pieces.items[i];
        bool ok = x->id >= 0 ? tok_ids_push(&w->ids, x->id) || tok_nomem(e)
                             : models[w->t->model.kind](w, w->text.data + x->at, x->len, e);
        if (!ok)
            return false;
    }
    return true;
}

/* The post-processor's frame around the ids of the text. */
static bool frame(const struct tok_work *w, unsigned flags, struct tok_ids *out, struct err *e)
{
    const struct tok_post *p = &w->t->post;
    size_t was = out->n;
    for (size_t i = 0; i < p->n; i++) {
        bool ok = true;
        if (p->items[i] >= 0) {
            ok = !(flags & TOK_ENCODE_SPECIAL) || tok_ids_push(out, p->items[i]);
        } else if (w->ids.n) {
            ok = vec_reserve((void **)&out->ids, &out->cap, out->n + w->ids.n, sizeof *out->ids);
            if (ok) {
                memcpy(out->ids + out->n, w->ids.ids, w->ids.n * sizeof *out->ids);
                out->n += w->ids.n;
            }
        }
        if (!ok) {
            out->n = was;
            return tok_nomem(e);
        }
    }
    return true;
}

bool tok_encode(const struct tok *t, const char *text, size_t len, unsigned flags, struct tok_ids *out, struct err *e)
{
    struct tok_work w = {.t = t, .cache = tok_cache_open(len)};
    buf_init(&w.text, TOK_MAX_WORK_BYTES);
    buf_init(&w.next, TOK_MAX_WORK_BYTES);
    buf_init(&w.scratch[0], TOK_MAX_WORK_BYTES);
    buf_init(&w.scratch[1], TOK_MAX_WORK_BYTES);
    bool ok = (w.cache || tok_nomem(e)) && take_text(&w, text, len, e) && cut_and_normalize(&w, flags, e) && tok_pre_run(&w, e) &&
              run_model(&w, e) && frame(&w, flags, out, e);
    work_free(&w);
    return ok;
}
