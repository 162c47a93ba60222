/* Merges of a BPE that has scores instead: every way to put a piece together from two others is one, the best score first, which is
 * what SentencePiece does. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/json.h"
#include "base/mem.h"
#include "base/vec.h"
#include "tok/tok_int.h"

enum { MAX_PIECE = 512 };

struct merge { float score; int32_t whole, left, right; };

struct scores {
    const struct tok_vocab *v;
    float *score;              /* [n_ids] */
    bool *fixed;               /* [n_ids] takes no part */
    struct merge *merges; size_t n, cap;
};

static int by_score(const void *a, const void *b)
{
    const struct merge *x = a, *y = b;
    if (x->score != y->score)
        return x->score > y->score ? -1 : 1;
    if (x->whole != y->whole)
        return x->whole < y->whole ? -1 : 1;
    if (x->left != y->left)
        return x->left < y->left ? -1 : 1;
    return x->right < y->right ? -1 : x->right > y->right;
}

static bool find(const struct scores *s, const char *p, size_t len, int32_t *id)
{
    *id = tok_vocab_id(s->v, p, len);
    return *id >= 0 && !s->fixed[*id];
}

static bool splits_of(struct scores *s, int32_t whole, struct err *e)
{
    size_t len;
    const char *p = tok_vocab_spelling(s->v, whole, &len);
    if (!p || s->fixed[whole] || len > MAX_PIECE || tok_vocab_id(s->v, p, len) != whole)
        return true;
    for (size_t i = 1; i < len; i++) {
        int32_t left, right;
        if (((unsigned char)p[i] & 0xc0) == 0x80 || !find(s, p, i, &left) || !find(s, p + i, len - i, &right))
            continue;
        if (!vec_reserve((void **)&s->merges, &s->cap, s->n + 1, sizeof *s->merges))
            return tok_nomem(e);
        s->merges[s->n++] = (struct merge){s->score[whole], whole, left, right};
    }
    return true;
}

/* A number for each id; what is missing is 0. */
static bool read_scores(struct scores *s, const struct tok_span *span, struct err *e)
{
    struct tok_js j;
    bool first = true, bad = false;
    int32_t i = 0;
    tok_js_init(&j, span->p, span->len, "model.scores");
    if (!tok_js_expect(&j, '[', e))
        return false;
    while (tok_js_more(&j, ']', &first, &bad, e)) {
        double x;
        if (!tok_js_number(&j, &x, e))
            return false;
        if (i < s->v->n_ids)
            s->score[i++] = isfinite(x) ? (float)x : 0.0f;
    }
    return !bad;
}

static bool read_fixed(struct scores *s, const struct tok_span *span, struct err *e)
{
    struct tok_js j;
    bool first = true, bad = false;
    if (!span->p)
        return true;
    tok_js_init(&j, span->p, span->len, "model.unmergeable");
    if (!tok_js_expect(&j, '[', e))
        return false;
    while (tok_js_more(&j, ']', &first, &bad, e)) {
        double x;
        if (!tok_js_number(&j, &x, e))
            return false;
        if (x >= 0 && x < s->v->n_ids)
            s->fixed[(int32_t)x] = true;
    }
    return !bad;
}

static void write_piece(struct buf *b, const struct tok_vocab *v, int32_t id)
{
    size_t len;
    const char *p = tok_vocab_spelling(v, id, &len);
    json_write_str(b, p, len);
}

bool tok_scores_merges(const struct tok_vocab *v, const struct tok_span *scores, const struct tok_span *unmergeable, struct buf *out, struct err *e)
{
    struct scores s = {.v = v, .score = mem_try_zalloc((size_t)v->n_ids, sizeof(float)), .fixed = mem_try_zalloc((size_t)v->n_ids, 1)};
    bool ok = (s.score && s.fixed) || tok_nomem(e);
    ok = ok && read_scores(&s, scores, e) && read_fixed(&s, unmergeable, e);
    for (int32_t i = 0; ok && i < v->n_ids; i++)
        ok = splits_of(&s, i, e);
    if (ok && s.n)
        qsort(s.merges, s.n, sizeof *s.merges, by_score);
    buf_putc(out, '[');
    for (size_t i = 0; ok && i < s.n; i++) {
        buf_puts(out, i ? ",[" : "[");
        write_piece(out, v, s.merges[i].left);
        buf_putc(out, ',');
        write_piece(out, v, s.merges[i].right);
        buf_putc(out, ']');
    }
    buf_putc(out, ']');
    mem_free(s.score);
    mem_free(s.fixed);
    mem_free(s.merges);
    return ok && (!out->failed || tok_nomem(e));
}
