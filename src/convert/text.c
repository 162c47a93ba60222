/* Texts to sequences of tokens. */
#include <string.h>
#include "base/mem.h"
#include "base/vec.h"
#include "convert/convert_int.h"
#include "tok/tok.h"

/* The texts linked into the program (texts.S): made by tools/builtin/calibration.py. */
extern const char convert_text_calibration[], convert_text_calibration_end[], convert_text_heldout[], convert_text_heldout_end[];

/* What the model wants to see first, or -1. */
static int32_t first_token(const struct tok *t)
{
    struct tok_ids ids = { 0 };
    int32_t bos = tok_bos_id(t), first = -1;
    if (bos >= 0 && tok_encode(t, "a", 1, TOK_ENCODE_SPECIAL, &ids, NULL) && ids.n > 1 && ids.ids[0] == bos)
        first = bos;
    tok_ids_free(&ids);
    return first;
}

static bool grow(struct sequences *s, size_t *cap_ids, size_t *cap_starts, size_t n_ids, struct err *e)
{
    return (vec_reserve((void **)&s->ids, cap_ids, n_ids, sizeof *s->ids) && vec_reserve((void **)&s->start, cap_starts, (size_t)s->n + 2, sizeof *s->start))
        || err_set(e, ERR_NOMEM, "no memory for %zu tokens", n_ids);
}

struct cutter { size_t cap_ids, cap_starts; int32_t len, first, left; };

/* Pieces of one document, each behind the model's first token. */
static bool cut(struct sequences *s, struct cutter *k, const struct tok_ids *ids, struct err *e)
{
    size_t own = k->first >= 0 ? 1 : 0, each = (size_t)k->len - own;
    for (size_t from = 0; from < ids->n && k->left > 0; from += each) {
        size_t n = ids->n - from < each ? ids->n - from : each, at = s->n ? (size_t)s->start[s->n] : 0;
        n = n < (size_t)k->left ? n : (size_t)k->left;
        /* A token alone tells nothing. */
        if (n + own < 2)
            break;
        if (!grow(s, &k->cap_ids, &k->cap_starts, at + n + own, e))
            return false;
        s->start[0] = 0;
        if (own)
            s->ids[at] = k->first;
        memcpy(s->ids + at + own, ids->ids + from, n * sizeof *s->ids);
        s->start[++s->n] = (int32_t)(at + own + n);
        s->longest = (int32_t)(own + n) > s->longest ? (int32_t)(own + n) : s->longest;
        k->left -= (int32_t)n;
    }
    return true;
}

static int32_t sequence_length(const struct convert *c)
{
    int32_t len = c->o->sequence < c->arch->max_len ? c->o->sequence : c->arch->max_len;
    if (c->arch->pos == ARCH_POS_LEARNED && len > c->arch->n_positions - c->arch->position_offset)
        len = c->arch->n_positions - c->arch->position_offset;
    return len;
}

/* Documents lie between form feeds. */
static bool read_text(const struct convert *c, const struct tok *t, struct sequences *s, const char *text, size_t len, int32_t most, struct err *e)
{
    struct cutter k = { .len = sequence_length(c), .first = first_token(t), .left = most };
    struct tok_ids ids = { 0 };
    bool ok = k.len >= 2 || err_set(e, ERR_INVALID, "sequences of %d tokens are too short", k.len);
    for (const char *at = text, *end = text + len; ok && at < end && k.left > 0;) {
        const char *feed = memchr(at, '\f', (size_t)(end - at)), *to = feed ? feed : end;
        ids.n = 0;
        ok = tok_encode(t, at, (size_t)(to - at), TOK_ENCODE_PLAIN, &ids, e);
        /* Ids that the model has no row for cannot be run. */
        for (size_t i = 0; ok && i < ids.n; i++)
            if (ids.ids[i] >= c->arch->vocab_size)
                ok = err_set(e, ERR_INVALID, "the tokenizer makes token %d, but the model has only %d", ids.ids[i], c->arch->vocab_size);
        ok = ok && cut(s, &k, &ids, e);
        at = feed ? feed + 1 : end;
    }
    tok_ids_free(&ids);
    return ok && (s->n > 0 || err_set(e, ERR_INVALID, "the text has fewer than two tokens"));
}

bool convert_texts(struct convert *c, struct err *e)
{
    const struct convert_opts *o = c->o;
    struct tok *t = NULL;
    bool inputs = convert_needs_inputs(c), own = o->calibration != NULL;
    if (!inputs && !o->perplexity)
        return true;
    if (!tok_open(&t, model_files(c->m), e))
        return err_prefix(e, "calibration and perplexity need the model's tokenizer");
    const char *text = own ? o->calibration : convert_text_calibration, *heldout = o->heldout ? o->heldout : convert_text_heldout;
    size_t len = own ? o->calibration_len : (size_t)(convert_text_calibration_end - convert_text_calibration);
    size_t heldout_len = o->heldout ? o->heldout_len : (size_t)(convert_text_heldout_end - convert_text_heldout);
    bool ok = (!inputs || read_text(c, t, &c->calibration, text, len, o->max_tokens, e) || err_prefix(e, "calibration"))
        && (!o->perplexity || read_text(c, t, &c->heldout, heldout, heldout_len, o->max_heldout_tokens, e) || err_prefix(e, "held-out text"));
    tok_close(&t);
    return ok;
}
