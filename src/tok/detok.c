#include "tok/detok.h"

#include <string.h>

#include "base/mem.h"
#include "tok/tok_int.h"

struct detok {
    const struct tok *t;
    unsigned flags;
    struct tok_flow *flow;
    struct buf text;             /* what the last push gave */
    struct buf owed;             /* text of the prompt that is still to come out and is not to be shown */
};

static bool push(struct detok *d, int32_t id, struct buf *out, struct err *e)
{
    size_t len;
    const char *s = tok_decode_spelling(d->t, id, d->flags, &len);
    return !s || tok_flow_push(d->flow, s, len, out, e);
}

/* What the stages still hold after the prompt belongs to the prompt: find out what it is by decoding
 * the prompt to its end with other stages. */
static bool read_prompt(struct detok *d, const int32_t *prompt, size_t n, struct err *e)
{
    if (n == 0)
        return true;
    for (size_t i = 0; i < n; i++)
        if (!push(d, prompt[i], &d->text, e))
            return false;
    size_t seen = d->text.len;
    if (!tok_decode(d->t, prompt, n, d->flags, &d->owed, e))
        return false;
    buf_consume(&d->owed, seen < d->owed.len ? seen : d->owed.len);
    buf_clear(&d->text);
    return true;
}

bool detok_open(struct detok **out, const struct tok *t, unsigned flags, const int32_t *prompt, size_t n, struct err *e)
{
    struct detok *d = mem_try_zalloc(1, sizeof *d);
    *out = NULL;
    if (!d)
        return tok_nomem(e);
    d->t = t;
    d->flags = flags;
    d->flow = tok_flow_open(t);
    if (!d->flow || !read_prompt(d, prompt, n, e)) {
        if (!d->flow)
            tok_nomem(e);
        detok_close(&d);
        return false;
    }
    *out = d;
    return true;
}

void detok_close(struct detok **dp)
{
    struct detok *d = *dp;
    if (!d)
        return;
    tok_flow_close(&d->flow);
    buf_free(&d->text);
    buf_free(&d->owed);
    mem_free(d);
    *dp = NULL;
}

/* Give d->text to out, without the prompt's share.  Where the prompt's end came out differently than it would
 * have alone (its last character was cut off and is whole now) the rest is new text. */
static bool give(struct detok *d, struct buf *out, struct err *e)
{
    size_t at = 0;
    while (d->owed.len && at < d->text.len) {
        size_t n = (size_t)tok_cp_len(d->text.data + at);
        if (n > d->owed.len || memcmp(d->text.data + at, d->owed.data, n) != 0) {
            buf_clear(&d->owed);
            break;
        }
        buf_consume(&d->owed, n);
        at += n;
    }
    bool ok = buf_append(out, d->text.data ? d->text.data + at : "", d->text.len - at);
    buf_clear(&d->text);
    return ok || tok_nomem(e);
}

bool detok_push(struct detok *d, int32_t id, struct buf *out, struct err *e)
{
    return push(d, id, &d->text, e) && give(d, out, e);
}

bool detok_finish(struct detok *d, struct buf *out, struct err *e)
{
    return tok_flow_finish(d->flow, &d->text, e) && give(d, out, e);
}
