#include <string.h>
#include <utf8proc.h>

#include "base/mem.h"
#include "base/json.h"
#include "base/utf8.h"
#include "base/vec.h"
#include "tok/tok_int.h"

enum { MAX_DEPTH = 16 };

/* ---- normal forms (Unicode Standard Annex 15) */

/* The reference's normal forms are those of Unicode 9.  Characters that came later and have a decomposition or a
 * combining class since are plain starters to it: runs end at them. */
static const uint32_t young[][2] = {
    {0x7fd, 0x7fd}, {0x897, 0x89f}, {0x8ca, 0x8d3}, {0x9fe, 0x9fe}, {0xc3c, 0xc3c}, {0xd3b, 0xd3c}, {0xeba, 0xeba},
    {0x1715, 0x1715}, {0x1abf, 0x1add}, {0x1ae0, 0x1aeb}, {0x1df6, 0x1dfa}, {0x32ff, 0x32ff}, {0xa7f1, 0xa7f4},
    {0xa82c, 0xa82c}, {0xab69, 0xab69}, {0x105c9, 0x105c9}, {0x105e4, 0x105e4}, {0x10781, 0x10785},
    {0x10787, 0x107b0}, {0x107b2, 0x107ba}, {0x10d24, 0x10d27}, {0x10d69, 0x10d6d}, {0x10eab, 0x10eac},
    {0x10efa, 0x10efb}, {0x10efd, 0x10eff}, {0x10f46, 0x10f50}, {0x10f82, 0x10f85}, {0x11070, 0x11070},
    {0x1133b, 0x1133b}, {0x11383, 0x11383}, {0x11385, 0x11385}, {0x1138e, 0x1138e}, {0x11391, 0x11391},
    {0x113c5, 0x113c5}, {0x113c7, 0x113c8}, {0x113ce, 0x113d0}, {0x1145e, 0x1145e}, {0x11839, 0x1183a},
    {0x11938, 0x11938}, {0x1193d, 0x1193e}, {0x11943, 0x11943}, {0x119e0, 0x119e0}, {0x11a34, 0x11a34},
    {0x11a47, 0x11a47}, {0x11a99, 0x11a99}, {0x11d42, 0x11d42}, {0x11d44, 0x11d45}, {0x11d97, 0x11d97},
    {0x11f41, 0x11f42}, {0x16121, 0x16128}, {0x1612f, 0x1612f}, {0x16d68, 0x16d6a}, {0x16ff0, 0x16ff1},
    {0x1ccd6, 0x1ccf9}, {0x1e030, 0x1e06d}, {0x1e08f, 0x1e08f}, {0x1e130, 0x1e136}, {0x1e2ae, 0x1e2ae},
    {0x1e2ec, 0x1e2ef}, {0x1e4ec, 0x1e4ef}, {0x1e5ee, 0x1e5ef}, {0x1e6e3, 0x1e6e3}, {0x1e6e6, 0x1e6e6},
    {0x1e6ee, 0x1e6ef}, {0x1e6f5, 0x1e6f5}, {0x1f16c, 0x1f16c}, {0x1fbf0, 0x1fbf9},
};

static bool is_young(uint32_t cp)
{
    size_t lo = 0, hi = sizeof young / sizeof *young;
    if (cp < young[0][0])
        return false;
    while (hi - lo > 1) {
        size_t mid = lo + (hi - lo) / 2;
        if (young[mid][0] <= cp)
            lo = mid;
        else
            hi = mid;
    }
    return cp <= young[lo][1];
}

/* Canonical ordering: stable sort by combining class of each run of marks.  Long runs are sorted by
 * counting, because a text of a million marks must not cost their square. */
static bool order_marks(struct tok_work *w, size_t n)
{
    if (!vec_reserve((void **)&w->cps.items, &w->cps.cap, 2 * n, sizeof *w->cps.items))
        return false;
    uint32_t *cps = w->cps.items, *tmp = cps + n;
    for (size_t i = 0; i < n;) {
        size_t end = i, count[257] = {0};
        int cc;
        while (end < n && (cc = utf8proc_get_property((utf8proc_int32_t)cps[end])->combining_class)) {
            count[(cc & 0xff) + 1]++;
            end++;
        }
        if (end - i > 1) {
            for (int k = 1; k < 257; k++)
                count[k] += count[k - 1];
            for (size_t k = i; k < end; k++)
                tmp[count[utf8proc_get_property((utf8proc_int32_t)cps[k])->combining_class & 0xff]++] = cps[k];
            memcpy(cps + i, tmp, (end - i) * sizeof *cps);
        }
        i = end + 1;
    }
    return true;
}

/* Normal form of a run that no neighbour can influence. */
static bool form_run(struct tok_work *w, enum tok_norm_kind kind, const char *s, size_t len, struct buf *out)
{
    bool compat = kind == TOK_NORM_NFKC || kind == TOK_NORM_NFKD, compose = kind == TOK_NORM_NFC || kind == TOK_NORM_NFKC;
    int options = UTF8PROC_DECOMPOSE | UTF8PROC_STABLE | (compat ? UTF8PROC_COMPAT : 0);
    size_t n = 0;
    for (size_t i = 0; i < len;) {
        uint32_t cp;
        int last = 0;
        utf8proc_int32_t parts[32];
        i += (size_t)tok_cp(s + i, &cp);
        utf8proc_ssize_t k = utf8proc_decompose_char((utf8proc_int32_t)cp, parts, 32, options, &last);
        if (k < 1 || k > 32) {
            parts[0] = (utf8proc_int32_t)cp;
            k = 1;
        }
        if (!vec_reserve((void **)&w->cps.items, &w->cps.cap, n + (size_t)k, sizeof *w->cps.items))
            return false;
        memcpy(w->cps.items + n, parts, (size_t)k * sizeof *parts);
        n += (size_t)k;
    }
    if (n == 0)
        return true;
    if (!order_marks(w, n))
        return false;
    if (compose) {
        utf8proc_ssize_t m = utf8proc_normalize_utf32((utf8proc_int32_t *)w->cps.items, (utf8proc_ssize_t)n,
                                                      UTF8PROC_COMPOSE | UTF8PROC_STABLE);
        n = m < 0 ? n : (size_t)m;
    }
    for (size_t i = 0; i < n; i++) {
        char utf8[4];
        buf_append(out, utf8, (size_t)utf8_encode(w->cps.items[i], utf8));
    }
    return true;
}

static bool form_runs(struct tok_work *w, enum tok_norm_kind kind, const char *s, size_t len, struct buf *out)
{
    size_t start = 0;
    for (size_t i = 0, n; i < len; i += n) {
        uint32_t cp;
        n = (size_t)tok_cp(s + i, &cp);
        if (!is_young(cp))
            continue;
        if (!form_run(w, kind, s + start, i - start, out))
            return false;
        buf_append(out, s + i, n);
        start = i + n;
    }
    return form_run(w, kind, s + start, len - start, out);
}

/* Bytes of the first n characters of s. */
static uint32_t chars_bytes(const char *s, size_t len, size_t n)
{
    size_t i = 0;
    while (n-- && i < len)
        i += (size_t)tok_cp_len(s + i);
    return (uint32_t)i;
}

bool tok_norm_form(struct tok_work *w, enum tok_norm_kind kind, const char *s, size_t len, uint32_t *zero_len, struct buf *out)
{
    size_t zero_chars = utf8_length(s, *zero_len), start = out->len;
    for (size_t i = 0; i < len;) {
        size_t run = i, end;
        while (run < len && (unsigned char)s[run] < 0x80)
            run++;
        if (run == len) {
            buf_append(out, s + i, len - i);
            break;
        }
        run -= run > i;      /* the ASCII character before marks may compose with them */
        buf_append(out, s + i, run - i);
        for (end = run + 1; end < len && (unsigned char)s[end] >= 0x80;)
            end++;
        if (!form_runs(w, kind, s + run, end - run, out))
            return false;
        i = end;
    }
    if (zero_chars)
        *zero_len = chars_bytes(out->data + start, out->len - start, zero_chars);
    return !out->failed;
}

/* ---- one character at a time */

static void put_cp(struct buf *out, uint32_t cp)
{
    char utf8[4];
    buf_append(out, utf8, (size_t)utf8_encode(cp, utf8));
}

static bool is_chinese(uint32_t c)
{
    return (c >= 0x4e00 && c <= 0x9fff) || (c >= 0x3400 && c <= 0x4dbf) || (c >= 0x20000 && c <= 0x2a6df) ||
           (c >= 0x2a700 && c <= 0x2b73f) || (c >= 0x2b740 && c <= 0x2b81f) || (c >= 0x2b920 && c <= 0x2ceaf) ||
           (c >= 0xf900 && c <= 0xfaff) || (c >= 0x2f800 && c <= 0x2fa1f);
}

static void bert_char(unsigned flags, const uint8_t *uc, uint32_t cp, struct buf *out)
{
    int gc = uc[cp] & TOK_UC_GC;
    bool white = cp == '\t' || cp == '\n' || cp == '\r';
    if (flags & TOK_BERT_CLEAN) {
        if (cp == 0 || cp == 0xfffd || (!white && gc >= TOK_GC_CC && gc <= TOK_GC_CO))
            return;
        cp = white || tok_uc_is_space(uc[cp]) ? ' ' : cp;
    }
    if ((flags & TOK_BERT_ACCENTS) && gc == TOK_GC_MN)
        return;
    bool pad = (flags & TOK_BERT_CHINESE) && is_chinese(cp);
    if (pad)
        buf_putc(out, ' ');
    put_cp(out, cp);
    if (pad)
        buf_putc(out, ' ');
}

/* SentencePiece's nmt rules. */
static void nmt_char(uint32_t c, struct buf *out)
{
    if ((c >= 1 && c <= 8) || c == 0xb || (c >= 0xe && c <= 0x1f) || c == 0x7f || c == 0x8f || c == 0x9f)
        return;
    bool space = c == 9 || c == 0xa || c == 0xc || c == 0xd || c == 0x1680 || (c >= 0x200b && c <= 0x200f) ||
                 c == 0x2028 || c == 0x2029 || c == 0x2581 || c == 0xfeff || c == 0xfffd;
    put_cp(out, space ? ' ' : c);
}

static void map_char(const struct tok_norm *n, const uint8_t *uc, const char *s, size_t len, uint32_t cp, struct buf *out)
{
    switch (n->kind) {
    case TOK_NORM_LOWERCASE:
        if (cp == 0x130)
            buf_puts(out, "i\xcc\x87");      /* the one lower case of two characters */
        else
            put_cp(out, cp < 0x80 ? cp + (cp >= 'A' && cp <= 'Z' ? 32 : 0) : (uint32_t)utf8proc_tolower((utf8proc_int32_t)cp));
        break;
    case TOK_NORM_STRIP_ACCENTS:
        if (!tok_uc_is_mark(uc[cp]))
            buf_append(out, s, len);
        break;
    case TOK_NORM_BERT:
        bert_char(n->flags, uc, cp, out);
        break;
    case TOK_NORM_NMT:
        nmt_char(cp, out);
        break;
    default:                                 /* TOK_NORM_BYTE_LEVEL */
        for (size_t i = 0; i < len; i++)
            put_cp(out, tok_byte_char((uint8_t)s[i]));
        break;
    }
}

static void map_all(const struct tok_norm *n, const uint8_t *uc, const char *s, size_t len, uint32_t *zero_len, struct buf *out)
{
    size_t start = out->len, zero = *zero_len;
    for (size_t i = 0; i < len;) {
        uint32_t cp;
        size_t k = (size_t)tok_cp(s + i, &cp);
        map_char(n, uc, s + i, k, cp, out);
        i += k;
        if (i == zero)
            *zero_len = (uint32_t)(out->len - start);
    }
}

/* ---- strings */

static void strip(const struct tok_norm *n, const uint8_t *uc, const char *s, size_t len, uint32_t *zero_len, struct buf *out)
{
    size_t start = 0;
    uint32_t cp;
    while ((n->flags & TOK_STRIP_LEFT) && start < len) {
        size_t k = (size_t)tok_cp(s + start, &cp);
        if (!tok_uc_is_space(uc[cp]))
            break;
        start += k;
    }
    while ((n->flags & TOK_STRIP_RIGHT) && len > start) {
        size_t at = tok_cp_before(s, len);
        tok_cp(s + at, &cp);
        if (!tok_uc_is_space(uc[cp]))
            break;
        len = at;
    }
    *zero_len = *zero_len > start ? *zero_len - (uint32_t)start : 0;
    buf_append(out, s + start, len - start);
    if (*zero_len > len - start)
        *zero_len = (uint32_t)(len - start);
}

static bool replace(const struct tok_norm *n, const char *s, size_t len, uint32_t *zero_len, struct buf *out, struct err *e)
{
    struct tok_re_iter it;
    size_t done = 0, from, to, start = out->len, zero = *zero_len;
    int rc;
    if (len == 0)
        return true;
    if (!tok_re_begin(&it, &n->re, s, len, e))
        return false;
    while ((rc = tok_re_next(&it, &from, &to, e)) > 0) {
        if (zero > done && zero <= from)
            *zero_len = (uint32_t)(out->len - start + zero - done);
        buf_append(out, s + done, from - done);
        buf_append(out, n->text, n->text_len);
        if (zero > from && zero <= to)
            *zero_len = (uint32_t)(out->len - start);
        done = to;
    }
    tok_re_end(&it);
    if (zero > done)
        *zero_len = (uint32_t)(out->len - start + zero - done);
    buf_append(out, s + done, len - done);
    return rc == 0 && (!out->failed || tok_nomem(e));
}

static bool run_one(struct tok_work *w, const struct tok_norm *n, const char *s, size_t len, uint32_t *zero_len,
                    struct buf *out, struct err *e)
{
    switch (n->kind) {
    case TOK_NORM_NFC: case TOK_NORM_NFD: case TOK_NORM_NFKC: case TOK_NORM_NFKD:
        return tok_norm_form(w, n->kind, s, len, zero_len, out) || tok_nomem(e);
    case TOK_NORM_PREPEND:
        if (len == 0)
            return true;
        buf_append(out, n->text, n->text_len);
        buf_append(out, s, len);
        *zero_len += *zero_len ? (uint32_t)n->text_len : 0;
        break;
    case TOK_NORM_REPLACE:
        return replace(n, s, len, zero_len, out, e);
    case TOK_NORM_STRIP:
        strip(n, w->t->uc, s, len, zero_len, out);
        break;
    case TOK_NORM_CHARSMAP:
        return tok_charsmap_run(n, s, len, zero_len, out) || tok_nomem(e);
    default:
        map_all(n, w->t->uc, s, len, zero_len, out);
        break;
    }
    return !out->failed || tok_nomem(e);
}

bool tok_norm_run(struct tok_work *w, const char *s, size_t len, uint32_t *zero_len, int *which, struct err *e)
{
    *which = 0;
    for (size_t i = 0; i < w->t->n_norms; i++) {
        struct buf *out = &w->scratch[i & 1];
        buf_clear(out);
        if (!buf_reserve(out, len) || !run_one(w, &w->t->norms[i], s, len, zero_len, out, e))
            return out->failed ? tok_nomem(e) : false;
        s = out->data;
        len = out->len;
        *which = (int)(i & 1);
    }
    return true;
}

/* ---- opening */

static struct tok_norm *add(struct tok *t, enum tok_norm_kind kind, unsigned flags, struct err *e)
{
    if (t->n_norms == TOK_MAX_STAGES) {
        err_set(e, ERR_TOO_LARGE, "tokenizer.json: normalizer: more than %d steps", TOK_MAX_STAGES);
        return NULL;
    }
    t->norms[t->n_norms] = (struct tok_norm){.kind = kind, .flags = flags};
    return &t->norms[t->n_norms++];
}

static bool load_bert(struct tok *t, const json_t *j, struct err *e)
{
    bool clean, chinese, lower, accents;
    if (!json_get_bool(j, "clean_text", true, &clean, e) || !json_get_bool(j, "handle_chinese_chars", true, &chinese, e) ||
        !json_get_bool(j, "lowercase", true, &lower, e) || !json_get_bool(j, "strip_accents", lower, &accents, e))
        return false;
    return (!clean || add(t, TOK_NORM_BERT, TOK_BERT_CLEAN, e)) && (!chinese || add(t, TOK_NORM_BERT, TOK_BERT_CHINESE, e)) &&
           (!accents || (add(t, TOK_NORM_NFD, 0, e) && add(t, TOK_NORM_BERT, TOK_BERT_ACCENTS, e))) &&
           (!lower || add(t, TOK_NORM_LOWERCASE, 0, e));
}

static bool load_one(struct tok *t, const json_t *j, const char *type, struct err *e)
{
    static const struct { const char *name; enum tok_norm_kind kind; } plain[] = {
        {"NFC", TOK_NORM_NFC}, {"NFD", TOK_NORM_NFD}, {"NFKC", TOK_NORM_NFKC}, {"NFKD", TOK_NORM_NFKD},
        {"Lowercase", TOK_NORM_LOWERCASE}, {"StripAccents", TOK_NORM_STRIP_ACCENTS}, {"Nmt", TOK_NORM_NMT},
        {"ByteLevel", TOK_NORM_BYTE_LEVEL}};
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++)
        if (strcmp(type, plain[i].name) == 0)
            return add(t, plain[i].kind, 0, e) != NULL;
    if (strcmp(type, "BertNormalizer") == 0)
        return load_bert(t, j, e);
    struct tok_norm *n = add(t, TOK_NORM_PREPEND, 0, e);
    if (!n)
        return false;
    if (strcmp(type, "Prepend") == 0)
        return tok_load_str(j, "prepend", &n->text, &n->text_len, e);
    if (strcmp(type, "Strip") == 0) {
        bool left, right;
        n->kind = TOK_NORM_STRIP;
        if (!json_get_bool(j, "strip_left", true, &left, e) || !json_get_bool(j, "strip_right", true, &right, e))
            return false;
        n->flags = (left ? TOK_STRIP_LEFT : 0u) | (right ? TOK_STRIP_RIGHT : 0u);
        return true;
    }
    if (strcmp(type, "Replace") == 0) {
        n->kind = TOK_NORM_REPLACE;
        return tok_load_pattern(t, j, &n->re, e) && tok_load_str(j, "content", &n->text, &n->text_len, e);
    }
    if (strcmp(type, "Precompiled") == 0) {
        const json_t *map = json_object_get(j, "precompiled_charsmap");
        n->kind = TOK_NORM_CHARSMAP;
        if (map && !json_is_string(map) && !json_is_null(map))
            return err_set(e, ERR_FORMAT, "precompiled_charsmap is not a string");
        return tok_charsmap_load(n, json_is_string(map) ? json_string_value(map) : "", map ? json_string_length(map) : 0, e);
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
    if (!json_get_arr(j, "normalizers", &list, e))
        return false;
    json_array_foreach(list, i, item)
        if (!load_tree(t, item, depth + 1, e))
            return false;
    return true;
}

bool tok_norm_load(struct tok *t, const json_t *j, struct err *e)
{
    if (!j || json_is_null(j))
        return true;
    t->norms = mem_try_zalloc(TOK_MAX_STAGES, sizeof *t->norms);
    if (!t->norms)
        return tok_nomem(e);
    return load_tree(t, j, 0, e) || err_prefix(e, "tokenizer.json: normalizer");
}

void tok_norm_free(struct tok_norm *n)
{
    mem_free(n->text);
    mem_free(n->trie);
    tok_re_close(&n->re);
}
