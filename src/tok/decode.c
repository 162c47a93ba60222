/* Decoders as stages.  A stage receives the text of tokens (in one or more chunks each), the end of each
 * token and the end of everything, and passes the same three on.  Decoding a whole sequence
 * and decoding it token by token run the same code, so their results cannot differ: a stage
 * passes on what is certain and holds what a later token could still change. */
#include <string.h>

#include "base/json.h"
#include "base/mem.h"
#include "base/utf8.h"
#include "tok/tok_int.h"

enum { MAX_DEPTH = 16 };

struct stage {
    struct buf token;            /* the token so far, where a stage needs it whole */
    struct buf held;             /* bytes that wait: a cut-off character, a run of byte tokens, the last token */
    size_t n_tokens;             /* ended so far */
    size_t n_cut;                /* STRIP: characters cut from this token's start */
    bool open;                   /* STRIP: the start is done; CTC, BPE: held is a token */
};

struct tok_flow {
    const struct tok_dec *decs;
    size_t n;
    struct stage *stages;
    struct buf *out;
    struct err *e;
};

static bool push_text(struct tok_flow *f, size_t i, const char *s, size_t len);
static bool push_end(struct tok_flow *f, size_t i);

/* ---- helpers */

static bool add(struct tok_flow *f, struct buf *b, const char *s, size_t len)
{
    return buf_append(b, s, len) || tok_nomem(f->e);
}

/* A whole token to the next stage. */
static bool pass(struct tok_flow *f, size_t i, const char *s, size_t len)
{
    return push_text(f, i + 1, s, len) && push_end(f, i + 1);
}

/* b with every `from` replaced, left to right. */
static bool replace_all(struct buf *b, const char *from, size_t from_len, const char *to, size_t to_len)
{
    struct buf out = {0};
    if (from_len == 0 || b->len < from_len || !memmem(b->data, b->len, from, from_len))
        return true;
    const char *s = b->data, *end = b->data + b->len, *hit;
    while ((hit = memmem(s, (size_t)(end - s), from, from_len))) {
        buf_append(&out, s, (size_t)(hit - s));
        buf_append(&out, to, to_len);
        s = hit + from_len;
    }
    buf_append(&out, s, (size_t)(end - s));
    bool ok = !out.failed;
    buf_clear(b);
    ok = ok && buf_append(b, out.data, out.len);
    buf_free(&out);
    return ok;
}

static bool cleanup(struct buf *b)
{
    static const char *const pairs[][2] = {{" .", "."}, {" ?", "?"}, {" !", "!"}, {" ,", ","}, {" ' ", "'"}, {" n't", "n't"},
        {" 'm", "'m"}, {" do not", " don't"}, {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
        if (!replace_all(b, pairs[i][0], strlen(pairs[i][0]), pairs[i][1], strlen(pairs[i][1])))
            return false;
    return true;
}

/* Byte value of "<0x41>", or -1. */
static int byte_token(const char *s, size_t len)
{
    if (len != 6 || memcmp(s, "<0x", 3) != 0 || s[5] != '>')
        return -1;
    int v = 0;
    for (int i = 3; i < 5; i++) {
        char c = s[i];
        int d = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
        if (d < 0 && !(i == 3 && c == '+'))   /* the reference's number parser takes a sign */
            return -1;
        v = d < 0 ? 0 : v * 16 + d;
    }
    return v;
}

/* ---- ByteLevel */

/* The bytes of a token in the byte alphabet appended to b; as they are when a character is not of it. */
static bool unmap(const char *s, size_t len, struct buf *b)
{
    size_t at = b->len;
    for (size_t i = 0; i < len;) {
        uint32_t cp;
        i += (size_t)tok_cp(s + i, &cp);
        int byte = tok_char_byte(cp);
        if (byte < 0) {
            b->len = at;
            return buf_append(b, s, len);
        }
        buf_putc(b, (char)byte);
    }
    return !b->failed;
}

static bool flush_lossy(struct tok_flow *f, size_t i, size_t n)
{
    struct stage *st = &f->stages[i];
    if (n == 0)
        return true;
    if (utf8_valid(st->held.data, n)) {
        bool ok = push_text(f, i + 1, st->held.data, n);
        buf_consume(&st->held, n);
        return ok;
    }
    char *text = mem_try_alloc(n, 3);
    if (!text)
        return tok_nomem(f->e);
    size_t len = utf8_lossy(st->held.data, n, text);
    buf_consume(&st->held, n);
    bool ok = push_text(f, i + 1, text, len);
    mem_free(text);
    return ok;
}

static bool byte_level_end(struct tok_flow *f, size_t i)
{
    struct stage *st = &f->stages[i];
    if (!unmap(st->token.data, st->token.len, &st->held))
        return tok_nomem(f->e);
    buf_clear(&st->token);
    return st->held.len == 0 || flush_lossy(f, i, utf8_complete_prefix(st->held.data, st->held.len));
}

/* ---- ByteFallback */

/* A run of byte tokens is one text when it is valid as a whole, else one U+FFFD a byte. */
static bool flush_run(struct tok_flow *f, size_t i)
{
    struct stage *st = &f->stages[i];
    bool ok = true;
    if (st->held.len == 0)
        return true;
    if (utf8_valid(st->held.data, st->held.len))
        ok = pass(f, i, st->held.data, st->held.len);
    else
        for (size_t k = 0; ok && k < st->held.len; k++)
            ok = pass(f, i, "\xef\xbf\xbd", 3);
    buf_clear(&st->held);
    return ok;
}

static bool byte_fallback_end(struct tok_flow *f, size_t i)
{
    struct stage *st = &f->stages[i];
    int byte = byte_token(st->token.data, st->token.len);
    bool ok;
    if (byte >= 0)
        ok = buf_putc(&st->held, (char)byte) || tok_nomem(f->e);
    else
        ok = flush_run(f, i) && pass(f, i, st->token.data, st->token.len);
    buf_clear(&st->token);
    return ok;
}

/* ---- Replace */

/* Replace what is certain in a literal search: all but an end that could begin the pattern. */
static bool replace_literal(struct tok_flow *f, size_t i, bool end)
{
    struct stage *st = &f->stages[i];
    const struct tok_dec *d = &f->decs[i];
    if (st->token.len == 0)
        return true;
    const char *s = st->token.data, *stop = s + st->token.len, *hit;
    size_t n = d->re.literal_len;
    while (s < stop && (hit = memmem(s, (size_t)(stop - s), d->re.literal, n))) {
        if (!push_text(f, i + 1, s, (size_t)(hit - s)) || !push_text(f, i + 1, d->text ? d->text : "", d->text_len))
            return false;
        s = hit + n;
    }
    size_t left = (size_t)(stop - s), keep = end ? 0 : left < n - 1 ? left : n - 1;
    while (keep && memcmp(stop - keep, d->re.literal, keep) != 0)
        keep--;
    if (!push_text(f, i + 1, s, left - keep))
        return false;
    buf_consume(&st->token, st->token.len - keep);
    return true;
}

static bool replace_whole(struct tok_flow *f, size_t i)
{
    struct stage *st = &f->stages[i];
    const struct tok_dec *d = &f->decs[i];
    struct tok_re_iter it;
    size_t done = 0, from, to;
    int rc = 0;
    if (st->token.len == 0)
        return true;
    if (!tok_re_begin(&it, &d->re, st->token.data, st->token.len, f->e))
        return false;
    while ((rc = tok_re_next(&it, &from, &to, f->e)) > 0) {
        if (!push_text(f, i + 1, st->token.data + done, from - done) || !push_text(f, i + 1, d->text ? d->text : "", d->text_len)) {
            rc = -1;
            break;
        }
        done = to;
    }
    tok_re_end(&it);
    return rc == 0 && push_text(f, i + 1, st->token.data + done, st->token.len - done);
}

static bool streams(const struct tok_dec *d)
{
    return d->re.kind == TOK_RE_LITERAL && d->re.literal_len > 0;
}

/* ---- Strip */

static bool strip_text(struct tok_flow *f, size_t i, const char *s, size_t len)
{
    struct stage *st = &f->stages[i];
    const struct tok_dec *d = &f->decs[i];
    size_t n = strlen(d->mark);
    while (!st->open && len >= n && st->n_cut < d->start && memcmp(s, d->mark, n) == 0) {
        s += n;
        len -= n;
        st->n_cut++;
    }
    st->open |= len > 0;
    if (d->stop == 0)
        return push_text(f, i + 1, s, len);
    if (!add(f, &st->token, s, len))
        return false;
    size_t keep = 0;
    while (keep / n < d->stop && st->token.len - keep >= n && memcmp(st->token.data + st->token.len - keep - n, d->mark, n) == 0)
        keep += n;
    size_t give = st->token.len - keep;
    if (give && !push_text(f, i + 1, st->token.data, give))
        return false;
    buf_consume(&st->token, give);
    return true;
}

/* ---- Metaspace */

static bool metaspace_text(struct tok_flow *f, size_t i, const char *s, size_t len)
{
    const struct tok_dec *d = &f->decs[i];
    size_t n = strlen(d->mark);
    const char *end = s + len, *hit;
    bool drop = f->stages[i].n_tokens == 0 && !d->never;
    while ((hit = memmem(s, (size_t)(end - s), d->mark, n))) {
        if (!push_text(f, i + 1, s, (size_t)(hit - s)) || (!drop && !push_text(f, i + 1, " ", 1)))
            return false;
        s = hit + n;
    }
    return push_text(f, i + 1, s, (size_t)(end - s));
}

/* ---- WordPiece, BPE, CTC, and no decoder at all */

static bool wordpiece_end(struct tok_flow *f, size_t i)
{
    struct stage *st = &f->stages[i];
    const struct tok_dec *d = &f->decs[i];
    bool more = d->text_len && st->token.len >= d->text_len && memcmp(st->token.data, d->text, d->text_len) == 0;
    buf_clear(&st->held);
    if (st->n_tokens > 0 && !more && d->text_len)
        buf_putc(&st->held, ' ');
    size_t skip = st->n_tokens > 0 && more ? d->text_len : 0;
    buf_append(&st->held, st->token.data + skip, st->token.len - skip);
    buf_clear(&st->token);
    if (st->held.failed || (d->cleanup && !cleanup(&st->held)))
        return tok_nomem(f->e);
    return pass(f, i, st->held.data, st->held.len);
}

/* A suffix is a space, but at the very end nothing: the last token is held. */
static bool bpe_flush(struct tok_flow *f, size_t i, const char *to)
{
    struct stage *st = &f->stages[i];
    const struct tok_dec *d = &f->decs[i];
    if (!st->open)
        return true;
    if (d->text && !replace_all(&st->held, d->text, d->text_len, to, strlen(to)))
        return tok_nomem(f->e);
    return pass(f, i, st->held.data, st->held.len);
}

static bool ctc_end(struct tok_flow *f, size_t i)
{
    struct stage *st = &f->stages[i];
    const struct tok_dec *d = &f->decs[i];
    bool same = st->open && st->held.len == st->token.len && (st->token.len == 0 || memcmp(st->held.data, st->token.data, st->token.len) == 0);
    buf_clear(&st->held);
    if (!add(f, &st->held, st->token.data, st->token.len))
        return false;
    st->open = true;
    bool ok = same || !d->text || replace_all(&st->token, d->text, d->text_len, "", 0);
    if (ok && !same && d->cleanup)
        ok = cleanup(&st->token) && (!d->delimiter || replace_all(&st->token, d->delimiter, d->delimiter_len, " ", 1));
    if (!ok)
        return tok_nomem(f->e);
    ok = same || st->token.len == 0 || pass(f, i, st->token.data, st->token.len);
    buf_clear(&st->token);
    return ok;
}

/* ---- the three events */

static bool push_text(struct tok_flow *f, size_t i, const char *s, size_t len)
{
    if (len == 0)
        return true;
    if (i == f->n)
        return add(f, f->out, s, len);
    struct stage *st = &f->stages[i];
    switch (f->decs[i].kind) {
    case TOK_DEC_FUSE:
        return push_text(f, i + 1, s, len);
    case TOK_DEC_STRIP:
        return strip_text(f, i, s, len);
    case TOK_DEC_METASPACE:
        return metaspace_text(f, i, s, len);
    case TOK_DEC_REPLACE:
        return add(f, &st->token, s, len) && (!streams(&f->decs[i]) || replace_literal(f, i, false));
    default:
        return add(f, &st->token, s, len);
    }
}

static bool end_of(struct tok_flow *f, size_t i)
{
    struct stage *st = &f->stages[i];
    switch (f->decs[i].kind) {
    case TOK_DEC_BYTE_LEVEL:
        return byte_level_end(f, i);
    case TOK_DEC_BYTE_FALLBACK:
        return byte_fallback_end(f, i);
    case TOK_DEC_FUSE:
        return true;
    case TOK_DEC_REPLACE:
        if (!(streams(&f->decs[i]) ? replace_literal(f, i, true) : replace_whole(f, i)))
            return false;
        buf_clear(&st->token);
        return push_end(f, i + 1);
    case TOK_DEC_STRIP:
        buf_clear(&st->token);
        st->n_cut = 0;
        st->open = false;
        return push_end(f, i + 1);
    case TOK_DEC_METASPACE:
        return push_end(f, i + 1);
    case TOK_DEC_WORDPIECE:
        return wordpiece_end(f, i);
    case TOK_DEC_CTC:
        return ctc_end(f, i);
    case TOK_DEC_BPE: {
        if (!bpe_flush(f, i, " "))
            return false;
        struct buf held = st->held;
        st->held = st->token;
        st->token = held;
        buf_clear(&st->token);
        st->open = true;
        return true;
    }
    default: {                   /* TOK_DEC_JOIN */
        bool ok = (st->n_tokens == 0 || push_text(f, i + 1, " ", 1)) && pass(f, i, st->token.data, st->token.len);
        buf_clear(&st->token);
        return ok;
    }
    }
}

static bool push_end(struct tok_flow *f, size_t i)
{
    if (i == f->n)
        return true;
    if (!end_of(f, i))
        return false;
    f->stages[i].n_tokens++;
    return true;
}

static bool push_finish(struct tok_flow *f)
{
    for (size_t i = 0; i < f->n; i++) {
        bool ok = true;
        if (f->decs[i].kind == TOK_DEC_BYTE_LEVEL)
            ok = flush_lossy(f, i, f->stages[i].held.len) && push_end(f, i + 1);
        else if (f->decs[i].kind == TOK_DEC_BYTE_FALLBACK)
            ok = flush_run(f, i);
        else if (f->decs[i].kind == TOK_DEC_FUSE)
            ok = push_end(f, i + 1);
        else if (f->decs[i].kind == TOK_DEC_BPE)
            ok = bpe_flush(f, i, "");
        if (!ok)
            return false;
    }
    return true;
}

static const struct tok_dec no_decoder[1] = {{.kind = TOK_DEC_JOIN}};

struct tok_flow *tok_flow_open(const struct tok *t)
{
    struct tok_flow *f = mem_try_zalloc(1, sizeof *f);
    if (!f)
        return NULL;
    f->decs = t->n_decs ? t->decs : no_decoder;
    f->n = t->n_decs ? t->n_decs : 1;
    if (t->decs && t->n_decs == 0)
        f->n = 0;                /* an empty Sequence: tokens are joined without a space */
    f->stages = mem_try_zalloc(f->n, sizeof *f->stages);
    if (!f->stages)
        tok_flow_close(&f);
    return f;
}

void tok_flow_close(struct tok_flow **f)
{
    if (!*f)
        return;
    for (size_t i = 0; (*f)->stages && i < (*f)->n; i++) {
        buf_free(&(*f)->stages[i].token);
        buf_free(&(*f)->stages[i].held);
    }
    mem_free((*f)->stages);
    mem_free(*f);
    *f = NULL;
}

bool tok_flow_push(struct tok_flow *f, const char *s, size_t len, struct buf *out, struct err *e)
{
    f->out = out;
    f->e = e;
    return push_text(f, 0, s, len) && push_end(f, 0);
}

bool tok_flow_finish(struct tok_flow *f, struct buf *out, struct err *e)
{
    f->out = out;
    f->e = e;
    return push_finish(f);
}

const char *tok_decode_spelling(const struct tok *t, int32_t id, unsigned flags, size_t *len)
{
    const struct tok_added_token *x = tok_added_find(&t->added, id);
    if (!x)
        return tok_vocab_spelling(&t->model.vocab, id, len);
    *len = x->len;
    return (flags & TOK_DECODE_SKIP_SPECIAL) && x->special ? NULL : x->content;
}

bool tok_decode(const struct tok *t, const int32_t *ids, size_t n, unsigned flags, struct buf *out, struct err *e)
{
    struct tok_flow *f = tok_flow_open(t);
    bool ok = f || tok_nomem(e);
    for (size_t i = 0; ok && i < n; i++) {
        size_t len;
        const char *s = tok_decode_spelling(t, ids[i], flags, &len);
        ok = !s || tok_flow_push(f, s, len, out, e);
    }
    ok = ok && tok_flow_finish(f, out, e);
    tok_flow_close(&f);
    return ok;
}

/* ---- what a token stands for by itself */

static bool one_token(const struct tok_dec *d, struct buf *b, struct buf *tmp)
{
    size_t skip;
    int byte;
    switch (d->kind) {
    case TOK_DEC_BYTE_LEVEL:
        buf_clear(tmp);
        if (!unmap(b->data, b->len, tmp))
            return false;
        buf_clear(b);
        return buf_append(b, tmp->data, tmp->len);
    case TOK_DEC_BYTE_FALLBACK:
        byte = byte_token(b->data, b->len);
        if (byte >= 0)
            buf_clear(b);
        return byte < 0 || buf_putc(b, (char)byte);
    case TOK_DEC_REPLACE:
        return !streams(d) || replace_all(b, d->re.literal, d->re.literal_len, d->text ? d->text : "", d->text_len);
    case TOK_DEC_METASPACE:
        return replace_all(b, d->mark, strlen(d->mark), " ", 1);
    case TOK_DEC_WORDPIECE:
        skip = d->text_len && b->len >= d->text_len && memcmp(b->data, d->text, d->text_len) == 0 ? d->text_len : 0;
        buf_clear(tmp);
        if ((!skip && d->text_len && !buf_putc(tmp, ' ')) || !buf_append(tmp, b->data + skip, b->len - skip))
            return false;
        buf_clear(b);
        return buf_append(b, tmp->data, tmp->len);
    case TOK_DEC_BPE:
        return !d->text || replace_all(b, d->text, d->text_len, " ", 1);
    case TOK_DEC_CTC:
        return (!d->text || replace_all(b, d->text, d->text_len, "", 0)) &&
               (!d->delimiter || replace_all(b, d->delimiter, d->delimiter_len, " ", 1));
    default:
        return true;
    }
}

bool tok_bytes_build(struct tok *t, struct err *e)
{
    struct buf b = {0}, tmp = {0};
    bool ok = true;
    t->bytes_at = mem_try_alloc((size_t)t->n_ids + 1, sizeof *t->bytes_at);
    if (!t->bytes_at)
        return tok_nomem(e);
    for (int32_t id = 0; ok && id < t->n_ids; id++) {
        size_t len;
        const char *s = tok_decode_spelling(t, id, TOK_DECODE_ALL, &len);
        t->bytes_at[id] = (uint32_t)t->bytes.len;
        if (!s)
            continue;
        buf_clear(&b);
        ok = buf_append(&b, s, len);
        for (size_t i = 0; ok && i < t->n_decs && !tok_is_special(t, id); i++)
            ok = one_token(&t->decs[i], &b, &tmp);
        ok = ok && buf_append(&t->bytes, b.data, b.len) && t->bytes.len < UINT32_MAX;
    }
    t->bytes_at[t->n_ids] = (uint32_t)t->bytes.len;
    buf_free(&b);
    buf_free(&tmp);
    return (ok && buf_reserve(&t->bytes, 1)) || tok_nomem(e);
}

/* ---- opening */

static bool load_one(struct tok *t, struct tok_dec *d, const json_t *j, const char *type, struct err *e)
{
    int64_t start, stop;
    const char *scheme;
    bool prefix;
    if (strcmp(type, "ByteLevel") == 0 || strcmp(type, "ByteFallback") == 0 || strcmp(type, "Fuse") == 0) {
        d->kind = type[0] == 'F' ? TOK_DEC_FUSE : type[4] == 'L' ? TOK_DEC_BYTE_LEVEL : TOK_DEC_BYTE_FALLBACK;
        return true;
    }
    if (strcmp(type, "Replace") == 0) {
        d->kind = TOK_DEC_REPLACE;
        return tok_load_pattern(t, j, &d->re, e) && tok_load_str(j, "content", &d->text, &d->text_len, e);
    }
    if (strcmp(type, "Strip") == 0) {
        d->kind = TOK_DEC_STRIP;
        if (!tok_load_char(j, "content", " ", d->mark, e) || !json_get_i64(j, "start", 0, &start, e) || !json_get_i64(j, "stop", 0, &stop, e))
            return false;
        d->start = start < 0 ? 0 : (size_t)start;
        d->stop = stop < 0 ? 0 : (size_t)stop;
        return true;
    }
    if (strcmp(type, "Metaspace") == 0) {
        d->kind = TOK_DEC_METASPACE;
        if (!tok_load_char(j, "replacement", "\xe2\x96\x81", d->mark, e) || !json_get_str(j, "prepend_scheme", "always", &scheme, e) ||
            !json_get_bool(j, "add_prefix_space", true, &prefix, e))
            return false;
        d->never = strcmp(scheme, "never") == 0 || !prefix;
        return true;
    }
    if (strcmp(type, "WordPiece") == 0) {
        d->kind = TOK_DEC_WORDPIECE;
        return json_get_bool(j, "cleanup", true, &d->cleanup, e) && tok_load_str(j, "prefix", &d->text, &d->text_len, e);
    }
    if (strcmp(type, "BPEDecoder") == 0) {
        d->kind = TOK_DEC_BPE;
        return tok_load_str(j, "suffix", &d->text, &d->text_len, e);
    }
    if (strcmp(type, "CTC") == 0) {
        d->kind = TOK_DEC_CTC;
        return json_get_bool(j, "cleanup", true, &d->cleanup, e) && tok_load_str(j, "pad_token", &d->text, &d->text_len, e) &&
               tok_load_str(j, "word_delimiter_token", &d->delimiter, &d->delimiter_len, e);
    }
    return err_set(e, ERR_UNSUPPORTED, "type '%.60s' is not known", type);
}

static bool load_tree(struct tok *t, const json_t *j, int depth, struct err *e)
{
    const char *type;
    const json_t *list, *item;
    size_t i;
    if (!json_is_object(j) || depth > MAX_DEPTH)
        return err_set(e, ERR_FORMAT, "expected an object, or nested too deeply");
    if (!json_get_str(j, "type", "", &type, e))
        return false;
    if (strcmp(type, "Sequence") != 0) {
        if (t->n_decs == TOK_MAX_STAGES)
            return err_set(e, ERR_TOO_LARGE, "more than %d steps", TOK_MAX_STAGES);
        return load_one(t, &t->decs[t->n_decs++], j, type, e);
    }
    if (!json_get_arr(j, "decoders", &list, e))
        return false;
    json_array_foreach(list, i, item)
        if (!load_tree(t, item, depth + 1, e))
            return false;
    return true;
}

bool tok_dec_load(struct tok *t, const json_t *j, struct err *e)
{
    if (!j || json_is_null(j))
        return true;
    t->decs = mem_try_zalloc(TOK_MAX_STAGES, sizeof *t->decs);
    if (!t->decs)
        return tok_nomem(e);
    return load_tree(t, j, 0, e) || err_prefix(e, "tokenizer.json: decoder");
}

void tok_dec_free(struct tok_dec *d)
{
    mem_free(d->text);
    mem_free(d->delimiter);
    tok_re_close(&d->re);
}
