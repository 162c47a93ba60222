#include <string.h>

#include "base/json.h"
#include "base/mem.h"
#include "base/utf8.h"
#include "base/vec.h"
#include "tok/tok_int.h"

enum { MAX_DEPTH = 16 };

bool tok_piece_push(struct tok_pieces *v, size_t at, size_t len, int32_t id, uint32_t zero_len)
{
    if (len == 0 && id < 0)
        return true;
    if (!vec_reserve((void **)&v->items, &v->cap, v->n + 1, sizeof *v->items))
        return false;
    v->items[v->n++] = (struct tok_piece){at, len, id, zero_len};
    return true;
}

uint32_t tok_byte_char(uint8_t b)
{
    if ((b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || b >= 0xae)
        return b;
    /* The other 68 bytes, in order, are U+0100 on. */
    return 0x100 + (b <= 0x20 ? b : b <= 0xa0 ? (uint32_t)b - 0x7f + 33 : 67);
}

int tok_char_byte(uint32_t cp)
{
    if (cp >= 0x100 && cp < 0x144) {
        uint32_t k = cp - 0x100;
        return (int)(k <= 32 ? k : k < 67 ? k - 33 + 0x7f : 0xad);
    }
    return cp < 0x100 && tok_byte_char((uint8_t)cp) == cp ? (int)cp : -1;
}

/* ---- matches of a piece, then what the behavior makes of them */

static bool add_match(struct tok_work *w, size_t start, size_t end, bool hit)
{
    if (!vec_reserve((void **)&w->matches.items, &w->matches.cap, w->matches.n + 1, sizeof *w->matches.items))
        return false;
    w->matches.items[w->matches.n++] = (struct tok_match){start, end, hit};
    return true;
}

/* Punctuation that came after Unicode 8: the reference's table does not have it. */
static const uint32_t late_punct[][2] = {
    {0x61d, 0x61d}, {0x9fd, 0x9fd}, {0xa76, 0xa76}, {0xc77, 0xc77}, {0xc84, 0xc84}, {0x1b4e, 0x1b4f},
    {0x1b7d, 0x1b7f}, {0x2e43, 0x2e4f}, {0x2e52, 0x2e5d}, {0x10d6e, 0x10d6e}, {0x10ead, 0x10ead}, {0x10ed0, 0x10ed0},
    {0x10f55, 0x10f59}, {0x10f86, 0x10f89}, {0x113d4, 0x113d5}, {0x113d7, 0x113d8}, {0x1144b, 0x1144f},
    {0x1145a, 0x1145b}, {0x1145d, 0x1145d}, {0x11660, 0x1166c}, {0x116b9, 0x116b9}, {0x1183b, 0x1183b},
    {0x11944, 0x11946}, {0x119e2, 0x119e2}, {0x11a3f, 0x11a46}, {0x11a9a, 0x11a9c}, {0x11a9e, 0x11aa2},
    {0x11b00, 0x11b09}, {0x11be1, 0x11be1}, {0x11c41, 0x11c45}, {0x11c70, 0x11c71}, {0x11ef7, 0x11ef8},
    {0x11f43, 0x11f4f}, {0x11fff, 0x11fff}, {0x12ff1, 0x12ff2}, {0x16d6d, 0x16d6f}, {0x16e97, 0x16e9a},
    {0x16fe2, 0x16fe2}, {0x1e5ff, 0x1e5ff}, {0x1e95e, 0x1e95f},
};

static bool is_punct(const uint8_t *uc, uint32_t cp)
{
    if (cp < 0x80)
        return (cp > 0x20 && cp < 0x30) || (cp > 0x39 && cp < 0x41) || (cp > 0x5a && cp < 0x61) || (cp > 0x7a && cp < 0x7f);
    if (!tok_uc_is_punct(uc[cp]))
        return cp == 0x166d || cp == 0x111c9;      /* punctuation then, a symbol and a mark now */
    for (size_t i = 0; i < sizeof late_punct / sizeof *late_punct && late_punct[i][0] <= cp; i++)
        if (cp <= late_punct[i][1])
            return false;
    return true;
}

/* Whether a stage that works by single characters splits at cp. */
static bool splits_at(const struct tok_pre *p, const uint8_t *uc, uint32_t cp, const char *s, size_t n)
{
    switch (p->kind) {
    case TOK_PRE_WHITESPACE_SPLIT:
        return tok_uc_is_space(uc[cp]);
    case TOK_PRE_PUNCTUATION:
        return is_punct(uc, cp);
    case TOK_PRE_DIGITS:
        return tok_uc_is_number(uc[cp]);
    default:                     /* TOK_PRE_DELIMITER, TOK_PRE_METASPACE */
        return strlen(p->mark) == n && memcmp(p->mark, s, n) == 0;
    }
}

static bool match_chars(struct tok_work *w, const struct tok_pre *p, const char *s, size_t len)
{
    size_t done = 0;
    for (size_t i = 0; i < len;) {
        uint32_t cp;
        size_t n = (size_t)tok_cp(s + i, &cp);
        if (splits_at(p, w->t->uc, cp, s + i, n)) {
            if ((done < i && !add_match(w, done, i, false)) || !add_match(w, i, i + n, true))
                return false;
            done = i + n;
        }
        i += n;
    }
    return done >= len || add_match(w, done, len, false);
}

static bool match_regex(struct tok_work *w, struct tok_re_iter *it, const char *s, size_t len, bool invert, struct err *e)
{
    size_t done = 0, from, to;
    int rc;
    tok_re_restart(it, s, len);
    while ((rc = tok_re_next(it, &from, &to, e)) > 0) {
        if ((done != from && !add_match(w, done, from, invert)) || !add_match(w, from, to, !invert))
            return tok_nomem(e);
        done = to;
    }
    if (rc < 0)
        return false;
    return done >= len || add_match(w, done, len, invert) || tok_nomem(e);
}

/* Forward merging of neighbours: CONTIGUOUS joins equals, MERGED_WITH_PREVIOUS a match to what is before it. */
static size_t fold_forward(struct tok_match *m, size_t n, enum tok_behavior behavior)
{
    size_t k = 0;
    bool last = false;
    for (size_t i = 0; i < n; i++) {
        struct tok_match x = m[i];
        bool join = behavior == TOK_CONTIGUOUS ? x.hit == last : x.hit && !last;
        if (join && k > 0)
            m[k - 1].end = x.end;
        else
            m[k++] = x;
        last = x.hit;
    }
    return k;
}

/* A match joins what follows it.  Returns where the result starts in m[0..n). */
static size_t fold_backward(struct tok_match *m, size_t n)
{
    size_t k = n;
    bool last = false;
    for (size_t i = n; i-- > 0;) {
        struct tok_match x = m[i];
        if (x.hit && !last && k < n)
            m[k].start = x.start;
        else
            m[--k] = x;
        last = x.hit;
    }
    return k;
}

/* Push the pieces of w->matches, which lie at offset base of the text. */
static bool push_matches(struct tok_work *w, enum tok_behavior behavior, size_t base, uint32_t zero_len)
{
    struct tok_match *m = w->matches.items;
    size_t n = w->matches.n, k = 0;
    if (behavior == TOK_CONTIGUOUS || behavior == TOK_MERGED_WITH_PREVIOUS)
        n = fold_forward(m, n, behavior);
    else if (behavior == TOK_MERGED_WITH_NEXT)
        k = fold_backward(m, n);
    for (; k < n; k++) {
        if (behavior == TOK_REMOVED && m[k].hit)
            continue;
        size_t len = m[k].end - m[k].start;
        uint32_t zero = m[k].start >= zero_len ? 0 : zero_len - (uint32_t)m[k].start;
        if (!tok_piece_push(&w->out, base + m[k].start, len, -1, zero > len ? (uint32_t)len : zero))
            return false;
    }
    return true;
}

/* ---- stages that only cut */

static bool cut_whitespace(struct tok_work *w, const char *s, const struct tok_piece *x)
{
    enum { SPACE, WORD, OTHER } last = SPACE, kind;
    size_t start = 0;
    for (size_t i = 0; i < x->len;) {
        uint32_t cp;
        size_t n = (size_t)tok_cp(s + i, &cp);
        kind = tok_uc_is_word(w->t->uc, cp) ? WORD : tok_uc_is_space(w->t->uc[cp]) ? SPACE : OTHER;
        if (i > 0 && kind != last) {
            if (last != SPACE && !tok_piece_push(&w->out, x->at + start, i - start, -1, start == 0 ? x->zero_len : 0))
                return false;
            start = i;
        }
        last = kind;
        i += n;
    }
    return last == SPACE || tok_piece_push(&w->out, x->at + start, x->len - start, -1, start == 0 ? x->zero_len : 0);
}

/* As the reference, what comes before the first character that has a script is dropped. */
static bool cut_scripts(struct tok_work *w, const char *s, const struct tok_piece *x)
{
    int last = 0;
    size_t start = x->len;
    for (size_t i = 0; i < x->len;) {
        uint32_t cp;
        size_t n = (size_t)tok_cp(s + i, &cp);
        int script = cp == 0x30fc ? 1 : cp == ' ' ? 0 : tok_uc_script(cp);
        if (script && script != last) {
            if (last && !tok_piece_push(&w->out, x->at + start, i - start, -1, start == 0 ? x->zero_len : 0))
                return false;
            start = i;
            last = script;
        }
        i += n;
    }
    return tok_piece_push(&w->out, x->at + start, x->len - start, -1, start == 0 ? x->zero_len : 0);
}

static bool cut_fixed(struct tok_work *w, const struct tok_pre *p, const char *s, const struct tok_piece *x)
{
    for (size_t i = 0, start = 0; i < x->len; start = i) {
        for (size_t k = 0; k < p->length && i < x->len; k++)
            i += (size_t)tok_cp_len(s + i);
        if (!tok_piece_push(&w->out, x->at + start, i - start, -1, start == 0 ? x->zero_len : 0))
            return false;
    }
    return true;
}

/* The usual case: every match and every gap is a piece of its own. */
static bool cut_isolated(struct tok_work *w, struct tok_re_iter *it, const char *s, const struct tok_piece *x, struct err *e)
{
    size_t done = 0, from, to;
    int rc;
    tok_re_restart(it, s, x->len);
    while ((rc = tok_re_next(it, &from, &to, e)) > 0) {
        if (!tok_piece_push(&w->out, x->at + done, from - done, -1, done == 0 ? x->zero_len : 0) ||
            !tok_piece_push(&w->out, x->at + from, to - from, -1, from == 0 ? x->zero_len : 0))
            return tok_nomem(e);
        done = to;
    }
    if (rc < 0)
        return false;
    return tok_piece_push(&w->out, x->at + done, x->len - done, -1, done == 0 ? x->zero_len : 0) || tok_nomem(e);
}

static bool cut_piece(struct tok_work *w, const struct tok_pre *p, struct tok_re_iter *it, const struct tok_piece *x, struct err *e)
{
    const char *s = w->text.data + x->at;
    switch (p->kind) {
    case TOK_PRE_WHITESPACE:
        return cut_whitespace(w, s, x) || tok_nomem(e);
    case TOK_PRE_SCRIPTS:
        return cut_scripts(w, s, x) || tok_nomem(e);
    case TOK_PRE_FIXED_LENGTH:
        return cut_fixed(w, p, s, x) || tok_nomem(e);
    case TOK_PRE_SPLIT:
        if (p->behavior == TOK_ISOLATED && x->zero_len <= 4)
            return cut_isolated(w, it, s, x, e);
        w->matches.n = 0;
        return match_regex(w, it, s, x->len, p->invert, e) && (push_matches(w, p->behavior, x->at, x->zero_len) || tok_nomem(e));
    default:
        w->matches.n = 0;
        return (match_chars(w, p, s, x->len) && push_matches(w, p->behavior, x->at, x->zero_len)) || tok_nomem(e);
    }
}

/* ---- stages that rewrite the text as well */

/* Length of the first n bytes of s in the byte alphabet. */
static uint32_t mapped_len(const char *s, size_t n)
{
    uint32_t k = 0;
    for (size_t i = 0; i < n; i++)
        k += tok_byte_char((uint8_t)s[i]) < 0x80 ? 1 : 2;
    return k;
}

static bool push_mapped(struct tok_work *w, const char *s, size_t len, uint32_t zero)
{
    size_t at = w->next.len;
    if (!buf_reserve(&w->next, 2 * len))
        return false;
    char *o = w->next.data + at;
    for (size_t i = 0; i < len; i++) {
        uint32_t cp = tok_byte_char((uint8_t)s[i]);
        if (cp < 0x80) {
            *o++ = (char)cp;
        } else {
            *o++ = (char)(0xc0 | cp >> 6);
            *o++ = (char)(0x80 | (cp & 0x3f));
        }
    }
    w->next.len = (size_t)(o - w->next.data);
    *o = 0;
    return tok_piece_push(&w->out, at, w->next.len - at, -1, zero ? mapped_len(s, zero < len ? zero : len) : 0);
}

static bool byte_level_piece(struct tok_work *w, const struct tok_pre *p, const struct tok_piece *x)
{
    const char *s = w->text.data + x->at;
    size_t len = x->len;
    uint32_t zero = x->zero_len;
    if (p->add_prefix_space && s[0] != ' ') {
        buf_clear(&w->scratch[0]);
        if (!buf_putc(&w->scratch[0], ' ') || !buf_append(&w->scratch[0], s, len))
            return false;
        s = w->scratch[0].data;
        len++;
        zero += zero > 0;
    }
    for (size_t i = 0, end; i < len; i = end) {
        end = p->use_regex ? tok_scan_gpt2(w->t->uc, s, len, i) : len;
        if (!push_mapped(w, s + i, end - i, i < zero ? zero - (uint32_t)i : 0))
            return false;
    }
    return true;
}

static bool metaspace_piece(struct tok_work *w, const struct tok_pre *p, const struct tok_piece *x)
{
    const char *s = w->text.data + x->at;
    size_t at = w->next.len, mark = strlen(p->mark);
    bool starts = s[0] == ' ' || (x->len >= mark && memcmp(s, p->mark, mark) == 0);
    bool prepend = !starts && (p->scheme == TOK_PREPEND_ALWAYS || (p->scheme == TOK_PREPEND_FIRST && x->zero_len));
    uint32_t zero = prepend && x->zero_len ? (uint32_t)mark : 0;
    if (prepend)
        buf_append(&w->next, p->mark, mark);
    for (size_t i = 0; i < x->len;) {
        const char *space = memchr(s + i, ' ', x->len - i);
        size_t n = space ? (size_t)(space - s) - i : x->len - i;
        buf_append(&w->next, s + i, n);
        i += n;
        if (space) {
            buf_append(&w->next, p->mark, mark);
            i++;
        }
        if (i <= x->zero_len)
            zero = (uint32_t)(w->next.len - at);
    }
    if (x->zero_len && zero <= mark)
        zero += x->zero_len;     /* at least the first character itself */
    if (w->next.failed)
        return false;
    size_t len = w->next.len - at;
    if (!p->split)
        return tok_piece_push(&w->out, at, len, -1, zero > len ? (uint32_t)len : zero);
    w->matches.n = 0;
    return match_chars(w, p, w->next.data + at, len) && push_matches(w, TOK_MERGED_WITH_NEXT, at, zero);
}

static bool run_stage(struct tok_work *w, const struct tok_pre *p, struct err *e)
{
    struct tok_re_iter it = {0};
    bool rewrite = p->kind == TOK_PRE_BYTE_LEVEL || p->kind == TOK_PRE_METASPACE, ok = true;
    w->out.n = 0;
    buf_clear(&w->next);
    if (p->kind == TOK_PRE_SPLIT && !tok_re_begin(&it, &p->re, "", 0, e))
        return false;
    for (size_t i = 0; ok && i < w->pieces.n; i++) {
        const struct tok_piece *x = &w->pieces.items[i];
        if (x->id >= 0)
            ok = tok_piece_push(&w->out, x->at, x->len, x->id, 0) || tok_nomem(e);
        else if (p->kind == TOK_PRE_BYTE_LEVEL)
            ok = byte_level_piece(w, p, x) || tok_nomem(e);
        else if (p->kind == TOK_PRE_METASPACE)
            ok = metaspace_piece(w, p, x) || tok_nomem(e);
        else
            ok = cut_piece(w, p, &it, x, e);
    }
    tok_re_end(&it);
    struct tok_pieces pieces = w->pieces;
    w->pieces = w->out;
    w->out = pieces;
    if (rewrite) {
        struct buf text = w->text;
        w->text = w->next;
        w->next = text;
    }
    return ok;
}

bool tok_pre_run(struct tok_work *w, struct err *e)
{
    for (size_t i = 0; i < w->t->n_pres; i++)
        if (!run_stage(w, &w->t->pres[i], e))
            return false;
    return true;
}

/* ---- opening */

static struct tok_pre *add(struct tok *t, enum tok_pre_kind kind, enum tok_behavior behavior, struct err *e)
{
    if (t->n_pres == TOK_MAX_STAGES) {
        err_set(e, ERR_TOO_LARGE, "more than %d steps", TOK_MAX_STAGES);
        return NULL;
    }
    t->pres[t->n_pres] = (struct tok_pre){.kind = kind, .behavior = behavior};
    return &t->pres[t->n_pres++];
}

static bool load_behavior(const json_t *j, const char *dflt, enum tok_behavior *out, struct err *e)
{
    static const char *const names[] = {"Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"};
    const char *name;
    if (!json_get_str(j, "behavior", dflt, &name, e))
        return false;
    for (int i = 0; i < 5; i++)
        if (strcmp(name, names[i]) == 0) {
            *out = (enum tok_behavior)i;
            return true;
        }
    return err_set(e, ERR_FORMAT, "behavior '%.60s' is not known", name);
}

static bool load_metaspace(struct tok_pre *p, const json_t *j, struct err *e)
{
    const char *scheme;
    bool prefix;
    if (!tok_load_char(j, "replacement", "\xe2\x96\x81", p->mark, e) || !json_get_str(j, "prepend_scheme", "always", &scheme, e) ||
        !json_get_bool(j, "split", true, &p->split, e) || !json_get_bool(j, "add_prefix_space", true, &prefix, e))
        return false;
    if (strcmp(scheme, "always") != 0 && strcmp(scheme, "first") != 0 && strcmp(scheme, "never") != 0)
        return err_set(e, ERR_FORMAT, "prepend_scheme '%.60s' is not known", scheme);
    p->scheme = scheme[0] == 'a' ? TOK_PREPEND_ALWAYS : scheme[0] == 'f' ? TOK_PREPEND_FIRST : TOK_PREPEND_NEVER;
    if (!prefix)
        p->scheme = TOK_PREPEND_NEVER;
    return true;
}

static bool load_one(struct tok *t, const json_t *j, const char *type, struct err *e)
{
    struct tok_pre *p;
    if (strcmp(type, "BertPreTokenizer") == 0)
        return add(t, TOK_PRE_WHITESPACE_SPLIT, TOK_REMOVED, e) && add(t, TOK_PRE_PUNCTUATION, TOK_ISOLATED, e);
    if (strcmp(type, "Whitespace") == 0)
        return add(t, TOK_PRE_WHITESPACE, TOK_REMOVED, e) != NULL;
    if (strcmp(type, "WhitespaceSplit") == 0)
        return add(t, TOK_PRE_WHITESPACE_SPLIT, TOK_REMOVED, e) != NULL;
    if (strcmp(type, "UnicodeScripts") == 0)
        return add(t, TOK_PRE_SCRIPTS, TOK_ISOLATED, e) != NULL;
    if (strcmp(type, "ByteLevel") == 0)
        return (p = add(t, TOK_PRE_BYTE_LEVEL, TOK_ISOLATED, e)) && json_get_bool(j, "add_prefix_space", true, &p->add_prefix_space, e) &&
               json_get_bool(j, "use_regex", true, &p->use_regex, e);
    if (strcmp(type, "Split") == 0)
        return (p = add(t, TOK_PRE_SPLIT, TOK_ISOLATED, e)) && load_behavior(j, "", &p->behavior, e) &&
               json_get_bool(j, "invert", false, &p->invert, e) && tok_load_pattern(t, j, &p->re, e);
    if (strcmp(type, "Metaspace") == 0)
        return (p = add(t, TOK_PRE_METASPACE, TOK_MERGED_WITH_NEXT, e)) && load_metaspace(p, j, e);
    if (strcmp(type, "Punctuation") == 0)
        return (p = add(t, TOK_PRE_PUNCTUATION, TOK_ISOLATED, e)) && load_behavior(j, "Isolated", &p->behavior, e);
    if (strcmp(type, "Digits") == 0) {
        if (!(p = add(t, TOK_PRE_DIGITS, TOK_ISOLATED, e)) || !json_get_bool(j, "individual_digits", false, &p->individual, e))
            return false;
        p->behavior = p->individual ? TOK_ISOLATED : TOK_CONTIGUOUS;
        return true;
    }
    if (strcmp(type, "CharDelimiterSplit") == 0)
        return (p = add(t, TOK_PRE_DELIMITER, TOK_REMOVED, e)) && tok_load_char(j, "delimiter", NULL, p->mark, e);
    if (strcmp(type, "FixedLength") == 0) {
        int64_t n;
        if (!(p = add(t, TOK_PRE_FIXED_LENGTH, TOK_ISOLATED, e)) || !json_get_i64(j, "length", 5, &n, e))
            return false;
        p->length = (size_t)n;
        return n > 0 || err_set(e, ERR_FORMAT, "length must be at least 1");
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
    if (strcmp(type, "Sequence") != 0)
        return load_one(t, j, type, e);
    if (!json_get_arr(j, "pretokenizers", &list, e))
        return false;
    json_array_foreach(list, i, item)
        if (!load_tree(t, item, depth + 1, e))
            return false;
    return true;
}

bool tok_pre_load(struct tok *t, const json_t *j, struct err *e)
{
    if (!j || json_is_null(j))
        return true;
    t->pres = mem_try_zalloc(TOK_MAX_STAGES, sizeof *t->pres);
    if (!t->pres)
        return tok_nomem(e);
    return load_tree(t, j, 0, e) || err_prefix(e, "tokenizer.json: pre_tokenizer");
}
