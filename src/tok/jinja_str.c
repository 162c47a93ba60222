/* jinja_str.c - text operations that methods and filters share. */
#include <string.h>
#include <utf8proc.h>
#include "base/utf8.h"
#include "tok/jinja_int.h"

/* First place of t in s, or SIZE_MAX.  Looks in windows that grow: the sanitizers' memmem touches all it is given, which would make
 * a loop over many matches quadratic in their builds. */
size_t jinja_find(const char *s, size_t n, const char *t, size_t m)
{
    size_t at = 0, window = 256;
    if (m == 0)
        return 0;
    while (m <= n - at) {
        size_t len = n - at - m < window ? n - at : window + m;
        const char *p = memmem(s + at, len, t, m);
        if (p)
            return (size_t)(p - s);
        at += len - m + 1;
        window *= 2;
    }
    return SIZE_MAX;
}

bool jinja_str_replace(struct jrender *r, struct jval s, struct jval old, struct jval by, int64_t count, struct jval *out)
{
    const struct jstr *a = s.u.s, *o = old.u.s, *b = by.u.s;
    struct buf buf;
    size_t at = 0;
    if (!jinja_charge(r, a->len / 8))
        return false;
    if (count == 0 || (o->len > 0 && jinja_find(a->s, a->len, o->s, o->len) == SIZE_MAX)) {
        *out = s;
        return true;
    }
    jinja_buf_init(r, &buf);
    while (count != 0 && !buf.failed) {
        size_t p;
        if (o->len > 0) {
            p = jinja_find(a->s + at, a->len - at, o->s, o->len);
            if (p == SIZE_MAX)
                break;
            buf_append(&buf, a->s + at, p);
            buf_append(&buf, b->s, b->len);
            at += p + o->len;
        } else {  /* an empty old: before every character and at the end */
            buf_append(&buf, b->s, b->len);
            if (at == a->len)
                break;
            size_t from = at++;
            while (at < a->len && ((unsigned char)a->s[at] & 0xC0) == 0x80)
                at++;
            buf_append(&buf, a->s + from, at - from);
        }
        count -= count > 0;
    }
    if (at < a->len)
        buf_append(&buf, a->s + at, a->len - at);
    return jinja_str_take(r, &buf, out);
}

static bool in_set(const struct jstr *set, uint32_t cp)
{
    for (size_t i = 0; i < set->len;) {
        uint32_t c;
        int k = utf8_decode(set->s + i, set->len - i, &c);
        if (k <= 0)
            return false;
        if (c == cp)
            return true;
        i += (size_t)k;
    }
    return false;
}

bool jinja_str_strip(struct jrender *r, struct jval s, struct jval chars, int sides, struct jval *out)
{
    const struct jstr *a = s.u.s;
    size_t from = 0, to = a->len;
    if (chars.t != JT_MISSING && chars.t != JT_NONE && chars.t != JT_STR)
        return jinja_fail(r, "strip needs a string or None, not %s", jinja_type_name(chars));
    const struct jstr *set = chars.t == JT_STR ? chars.u.s : NULL;
    while ((sides & 1) && from < to) {
        uint32_t cp;
        int k = utf8_decode(a->s + from, to - from, &cp);
        if (k <= 0 || !(set ? in_set(set, cp) : jinja_is_space(cp)))
            break;
        from += (size_t)k;
    }
    while ((sides & 2) && to > from) {
        size_t b = to - 1;
        while (b > from && ((unsigned char)a->s[b] & 0xC0) == 0x80)
            b--;
        uint32_t cp;
        if (utf8_decode(a->s + b, to - b, &cp) <= 0 || !(set ? in_set(set, cp) : jinja_is_space(cp)))
            break;
        to = b;
    }
    if (!jinja_charge(r, (from + a->len - to) / 8 * (set ? set->len + 1 : 1)))
        return false;
    if (from == 0 && to == a->len) {
        *out = s;
        return true;
    }
    if (!jinja_str_borrow(r, a->s + from, to - from, out))
        return false;
    out->u.s->markup = a->markup;
    return true;
}

/* ---- case ---- */

static bool is_cased(uint32_t cp)
{
    utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)cp);
    return c == UTF8PROC_CATEGORY_LU || c == UTF8PROC_CATEGORY_LL || c == UTF8PROC_CATEGORY_LT;
}

/* Characters whose upper (and title) case is more than one character. */
static const struct { uint32_t cp; const char *upper, *title; } SPECIAL[] = {
    {0xDF, "SS", "Ss"}, {0x149, "\xCA\xBCN", "\xCA\xBCN"}, {0x1F0, "J\xCC\x8C", "J\xCC\x8C"},
    {0x390, "\xCE\x99\xCC\x88\xCC\x81", "\xCE\x99\xCC\x88\xCC\x81"}, {0x3B0, "\xCE\xA5\xCC\x88\xCC\x81", "\xCE\xA5\xCC\x88\xCC\x81"},
    {0x587, "\xD4\xB5\xD5\x92", "\xD4\xB5\xD6\x82"}, {0x1E96, "H\xCC\xB1", "H\xCC\xB1"}, {0x1E97, "T\xCC\x88", "T\xCC\x88"},
    {0x1E98, "W\xCC\x8A", "W\xCC\x8A"}, {0x1E99, "Y\xCC\x8A", "Y\xCC\x8A"}, {0x1E9A, "A\xCA\xBE", "A\xCA\xBE"},
    {0xFB00, "FF", "Ff"}, {0xFB01, "FI", "Fi"}, {0xFB02, "FL", "Fl"}, {0xFB03, "FFI", "Ffi"}, {0xFB04, "FFL", "Ffl"},
    {0xFB05, "ST", "St"}, {0xFB06, "ST", "St"},
};

static void put_cp(struct buf *b, uint32_t cp)
{
    char utf8[4];
    buf_append(b, utf8, (size_t)utf8_encode(cp, utf8));
}

static void put_upper(struct buf *b, uint32_t cp, bool title)
{
    for (size_t i = 0; cp >= 0x80 && i < sizeof SPECIAL / sizeof *SPECIAL; i++)
        if (SPECIAL[i].cp == cp) {
            buf_puts(b, title ? SPECIAL[i].title : SPECIAL[i].upper);
            return;
        }
    put_cp(b, (uint32_t)(title ? utf8proc_totitle((utf8proc_int32_t)cp) : utf8proc_toupper((utf8proc_int32_t)cp)));
}

/* Unicode's Case_Ignorable, as far as it matters beside a sigma. */
static bool is_case_ignorable(uint32_t cp)
{
    utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)cp);
    return cp == '\'' || cp == '.' || cp == ':' || cp == '^' || cp == '`' || cp == 0xB7 || cp == 0x2018 || cp == 0x2019 || cp == 0x2024 || cp == 0x2027 ||
           c == UTF8PROC_CATEGORY_MN || c == UTF8PROC_CATEGORY_ME || c == UTF8PROC_CATEGORY_CF || c == UTF8PROC_CATEGORY_LM || c == UTF8PROC_CATEGORY_SK;
}

enum { SIGMA_LOOK = 64 };  /* characters looked at on each side */

/* A capital sigma at a word's end becomes the final form: a cased character before, none behind. */
static bool final_sigma(const struct jstr *s, size_t at)
{
    uint32_t cp = 0;
    size_t b = at;
    bool before = false;
    for (int i = 0; b > 0 && i < SIGMA_LOOK; i++) {
        do
            b--;
        while (b > 0 && ((unsigned char)s->s[b] & 0xC0) == 0x80);
        if (utf8_decode(s->s + b, s->len - b, &cp) <= 0)
            return false;
        if (!is_case_ignorable(cp)) {
            before = is_cased(cp);
            break;
        }
    }
    if (!before)
        return false;
    b = at + 2;
    for (int i = 0, k; b < s->len && i < SIGMA_LOOK; i++, b += (size_t)k) {
        k = utf8_decode(s->s + b, s->len - b, &cp);
        if (k <= 0)
            return true;
        if (!is_case_ignorable(cp))
            return !is_cased(cp);
    }
    return true;
}

static void put_lower(struct buf *b, const struct jstr *s, size_t at, uint32_t cp)
{
    if (cp == 0x3A3 && final_sigma(s, at))
        put_cp(b, 0x3C2);
    else if (cp == 0x130)
        buf_puts(b, "i\xCC\x87");
    else
        put_cp(b, (uint32_t)utf8proc_tolower((utf8proc_int32_t)cp));
}

bool jinja_str_case(struct jrender *r, struct jval s, int mode, struct jval *out)
{
    const struct jstr *a = s.u.s;
    struct buf b;
    bool in_word = false;
    if (!jinja_charge(r, a->len / 4))
        return false;
    jinja_buf_init(r, &b);
    for (size_t i = 0; i < a->len && !b.failed;) {
        uint32_t cp;
        int k = utf8_decode(a->s + i, a->len - i, &cp);
        if (k <= 0)
            break;
        utf8proc_category_t cat = utf8proc_category((utf8proc_int32_t)cp);
        if (mode == 'u' || (mode == 's' && cat == UTF8PROC_CATEGORY_LL))
            put_upper(&b, cp, false);
        else if ((mode == 'c' && i == 0) || (mode == 't' && !in_word))
            put_upper(&b, cp, true);
        else
            put_lower(&b, a, i, cp);
        in_word = is_cased(cp);
        i += (size_t)k;
    }
    if (!jinja_str_take(r, &b, out))
        return false;
    out->u.s->markup = a->markup;
    return true;
}

static bool all_case(const struct jstr *s, utf8proc_category_t want)
{
    bool any = false;
    for (size_t i = 0; i < s->len;) {
        uint32_t cp;
        int k = utf8_decode(s->s + i, s->len - i, &cp);
        if (k <= 0)
            return false;
        utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)cp);
        if (c == want)
            any = true;
        else if (c == UTF8PROC_CATEGORY_LU || c == UTF8PROC_CATEGORY_LL || c == UTF8PROC_CATEGORY_LT)
            return false;
        i += (size_t)k;
    }
    return any;
}

bool jinja_str_islower(const struct jstr *s)
{
    return all_case(s, UTF8PROC_CATEGORY_LL);
}

bool jinja_str_isupper(const struct jstr *s)
{
    return all_case(s, UTF8PROC_CATEGORY_LU);
}

/* ---- lines and padding ---- */

static bool is_line_end(uint32_t cp)
{
    return (cp >= 10 && cp <= 13) || (cp >= 0x1C && cp <= 0x1E) || cp == 0x85 || cp == 0x2028 || cp == 0x2029;
}

bool jinja_str_lines(struct jrender *r, struct jstr *s, bool keep, struct jval *out)
{
    if (!jinja_charge(r, s->len / 8) || !jinja_list_new(r, JT_LIST, 8, out))
        return false;
    for (size_t i = 0, from = 0; i < s->len;) {
        uint32_t cp;
        int k = utf8_decode(s->s + i, s->len - i, &cp);
        size_t end = i + (size_t)(k > 0 ? k : 1);
        if (!is_line_end(cp) && end < s->len) {
            i = end;
            continue;
        }
        size_t text = is_line_end(cp) ? i : end;
        if (cp == '\r' && end < s->len && s->s[end] == '\n')
            end++;
        struct jval line;
        if (!jinja_str_borrow(r, s->s + from, (keep ? end : text) - from, &line) || !jinja_list_push(r, out->u.list, line))
            return false;
        line.u.s->markup = s->markup;
        i = from = end;
    }
    return true;
}

bool jinja_str_pad(struct jrender *r, struct jstr *s, int64_t left, int64_t right, const char *fill, size_t fill_len, struct jval *out)
{
    if (left < 0)
        left = 0;
    if (right < 0)
        right = 0;
    if (left > (int64_t)r->lim.max_memory || right > (int64_t)r->lim.max_memory)
        return jinja_fail_code(r, ERR_TOO_LARGE, "a text padded to more than %zu characters", r->lim.max_memory);
    size_t total = s->len + (size_t)(left + right) * fill_len, at = 0;
    char *p = jinja_alloc(r, total + 1, 1);
    if (!p || !jinja_charge(r, total / 16))
        return false;
    for (; left > 0; left--, at += fill_len)
        memcpy(p + at, fill, fill_len);
    if (s->len)
        memcpy(p + at, s->s, s->len);
    for (at += s->len; right > 0; right--, at += fill_len)
        memcpy(p + at, fill, fill_len);
    if (!jinja_str_borrow(r, p, total, out))
        return false;
    out->u.s->markup = s->markup;
    return true;
}
