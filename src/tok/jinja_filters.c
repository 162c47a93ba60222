/* jinja_filters.c - filters on text and numbers, and the table of all filters. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <utf8proc.h>
#include "base/utf8.h"
#include "tok/jinja_int.h"

#define FILTER(name) static bool name(struct jrender *r, struct jval self, struct jval *argv, struct jargs *args, struct jval *out)
#define UNUSED(x) ((void)(x))

static bool given(struct jval v)
{
    return v.t != JT_MISSING && v.t != JT_NONE;
}

/* ---- case, trimming, padding ---- */

static bool case_filter(struct jrender *r, struct jval self, int mode, struct jval *out)
{
    struct jval s;
    return jinja_to_str(r, self, &s) && jinja_str_case(r, s, mode, out);
}

FILTER(f_upper) { UNUSED(args); UNUSED(argv); return case_filter(r, self, 'u', out); }
FILTER(f_lower) { UNUSED(args); UNUSED(argv); return case_filter(r, self, 'l', out); }
FILTER(f_capitalize) { UNUSED(args); UNUSED(argv); return case_filter(r, self, 'c', out); }

static bool title_break(uint32_t cp)
{
    return cp == '-' || cp == '(' || cp == '{' || cp == '[' || cp == '<' || jinja_is_space(cp);
}

/* Words begin behind blanks, '-' and opening brackets only ("foo's" stays "Foo's"). */
FILTER(f_title)
{
    UNUSED(args);
    UNUSED(argv);
    struct jval s, low, piece, up;
    struct buf b;
    bool start = true, ok = true;
    if (!jinja_to_str(r, self, &s) || !jinja_str_case(r, s, 'l', &low))
        return false;
    const struct jstr *a = s.u.s;
    jinja_buf_init(r, &b);
    for (size_t i = 0, k; ok && i < a->len; i += k) {
        uint32_t cp;
        int n = utf8_decode(a->s + i, a->len - i, &cp);
        k = (size_t)(n > 0 ? n : 1);
        ok = jinja_charge(r, 1) && (title_break(cp) || (jinja_str_borrow(r, a->s + i, k, &piece) && jinja_str_case(r, piece, start ? 'u' : 'l', &up)));
        if (!ok)
            break;
        if (title_break(cp))
            buf_append(&b, a->s + i, k);
        else
            buf_append(&b, up.u.s->s, up.u.s->len);
        start = title_break(cp);
    }
    if (!ok) {
        buf_free(&b);
        return false;
    }
    return jinja_str_take(r, &b, out);
}

FILTER(f_trim)
{
    UNUSED(args);
    struct jval s;
    return jinja_to_str(r, self, &s) && jinja_str_strip(r, s, argv[0], 3, out);
}

FILTER(f_center)
{
    UNUSED(args);
    int64_t width;
    struct jval s;
    if (!jinja_to_str(r, self, &s) || !jinja_arg_int(r, argv[0], 80, &width, "width"))
        return false;
    int64_t n = (int64_t)jinja_str_chars(s.u.s), need = width > n ? width - n : 0, left = need / 2 + (need & width & 1);
    return jinja_str_pad(r, s.u.s, left, need - left, " ", 1, out);
}

FILTER(f_string) { UNUSED(args); UNUSED(argv); return jinja_to_str(r, self, out); }
FILTER(f_escape) { UNUSED(args); UNUSED(argv); return jinja_escape(r, self, out); }

FILTER(f_forceescape)
{
    UNUSED(args);
    UNUSED(argv);
    struct jval s;
    if (!jinja_to_str(r, self, &s) || !jinja_str_borrow(r, s.u.s->s, s.u.s->len, &s))
        return false;
    return jinja_escape(r, s, out);
}

FILTER(f_safe)
{
    UNUSED(args);
    UNUSED(argv);
    struct jval s;
    return jinja_to_str(r, self, &s) && jinja_str_markup(r, s, out);
}

FILTER(f_replace)
{
    UNUSED(args);
    struct jval s, old, by;
    int64_t count = -1;
    if (given(argv[2]) && !jinja_arg_int(r, argv[2], -1, &count, "count"))
        return false;
    return jinja_to_str(r, self, &s) && jinja_to_str(r, argv[0], &old) && jinja_to_str(r, argv[1], &by) &&
           jinja_str_replace(r, s, old, by, count, out);
}

FILTER(f_indent)
{
    UNUSED(args);
    struct jval lines, pad, nl, s;
    struct buf b;
    int64_t width = 4;
    bool first = jinja_arg_bool(argv[1], false), blank = jinja_arg_bool(argv[2], false);
    if (argv[0].t == JT_STR)
        pad = argv[0];
    else if (!jinja_arg_int(r, argv[0], 4, &width, "width") || !jinja_str_z(r, "", &pad) || !jinja_str_pad(r, pad.u.s, width, 0, " ", 1, &pad))
        return false;
    if (!jinja_str_z(r, "\n", &nl) || !jinja_binop(r, JOP_ADD, self, nl, &s) || s.t != JT_STR || !jinja_str_lines(r, s.u.s, false, &lines))
        return s.t == JT_STR || r->failed ? false : jinja_fail(r, "indent needs a string");
    struct jlist *l = lines.u.list;
    jinja_buf_init(r, &b);
    if (first)
        buf_append(&b, pad.u.s->s, pad.u.s->len);
    for (size_t i = 0; i < l->n && !b.failed; i++) {
        if (i > 0)
            buf_putc(&b, '\n');
        if (i > 0 && (blank || l->items[i].u.s->len > 0))
            buf_append(&b, pad.u.s->s, pad.u.s->len);
        buf_append(&b, l->items[i].u.s->s, l->items[i].u.s->len);
    }
    if (!jinja_str_take(r, &b, out))
        return false;
    out->u.s->markup = s.u.s->markup;
    return true;
}

FILTER(f_truncate)
{
    UNUSED(args);
    int64_t length, leeway = 5, n;
    struct jval end, head;
    if (!jinja_arg_int(r, argv[0], 255, &length, "length") || !jinja_arg_str(r, argv[2], "...", &end, "end") ||
        (given(argv[3]) && !jinja_arg_int(r, argv[3], 5, &leeway, "leeway")) || !jinja_len(r, self, &n))
        return false;
    int64_t end_n = (int64_t)jinja_str_chars(end.u.s);
    if (length < end_n)
        return jinja_fail(r, "expected length >= %lld, got %lld", (long long)end_n, (long long)length);
    if (leeway < 0)
        return jinja_fail(r, "expected leeway >= 0, got %lld", (long long)leeway);
    *out = self;
    if (n <= length || n - length <= leeway)
        return true;
    if (self.t != JT_STR)
        return jinja_fail(r, "truncate needs a string, not %s", jinja_type_name(self));
    if (!jinja_slice(r, self, jv_int(0), jv_int(length - end_n), jv_missing(), &head))
        return false;
    if (!jinja_arg_bool(argv[1], false)) {
        const char *sp = memrchr(head.u.s->s, ' ', head.u.s->len);
        if (sp && !jinja_str_borrow(r, head.u.s->s, (size_t)(sp - head.u.s->s), &head))
            return false;
    }
    return jinja_str_concat(r, head.u.s, end.u.s, out);
}

/* ---- words ---- */

static bool is_word(uint32_t cp)
{
    utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)cp);
    return cp == '_' || (c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_LO) || (c >= UTF8PROC_CATEGORY_ND && c <= UTF8PROC_CATEGORY_NO);
}

FILTER(f_wordcount)
{
    UNUSED(args);
    UNUSED(argv);
    struct jval s;
    int64_t n = 0;
    bool in = false;
    if (!jinja_to_str(r, self, &s) || !jinja_charge(r, s.u.s->len / 8))
        return false;
    for (size_t i = 0; i < s.u.s->len;) {
        uint32_t cp;
        int k = utf8_decode(s.u.s->s + i, s.u.s->len - i, &cp);
        bool w = k > 0 && is_word(cp);
        n += w && !in;
        in = w;
        i += (size_t)(k > 0 ? k : 1);
    }
    *out = jv_int(n);
    return true;
}

struct wrap {
    struct jrender *r;
    struct buf *b;
    const char *nl;
    size_t nl_len;
    int64_t width;
    bool break_long, hyphens;
};

static bool is_blank(char ch)
{
    return ch == ' ' || (ch >= '\t' && ch <= '\r');
}

/* The character at p (0 at the end) and its length. */
static uint32_t char_at(const char *s, size_t n, size_t p, size_t *len)
{
    uint32_t cp = 0;
    int k = p < n ? utf8_decode(s + p, n - p, &cp) : 0;
    *len = k > 0 ? (size_t)k : 1;
    return k > 0 ? cp : 0;
}

/* The character before p (0 at the start); *at is where it begins. */
static uint32_t char_before(const char *s, size_t p, size_t *at)
{
    size_t len;
    if (p == 0)
        return 0;
    do
        p--;
    while (p > 0 && ((unsigned char)s[p] & 0xC0) == 0x80);
    *at = p;
    return char_at(s, p + 4, p, &len);
}

static bool is_letter(uint32_t cp)
{
    utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)cp);
    return cp && is_word(cp) && c != UTF8PROC_CATEGORY_ND;
}

static bool is_punct_word(uint32_t cp)
{
    return cp && (is_word(cp) || (cp < 0x80 && strchr("!\"'&.,?", (int)cp)));
}

/* The length of the dashes at p when two or more stand there with a word behind them, else 0. */
static size_t em_dash(const char *s, size_t n, size_t p)
{
    size_t q = p, len;
    while (q < n && s[q] == '-')
        q++;
    uint32_t next = char_at(s, n, q, &len);
    return q - p >= 2 && next && is_word(next) ? q - p : 0;
}

/* May a line break behind the hyphen at p?  Two letters, or a letter, a hyphen and a character, stand before; letters behind. */
static bool hyphen_break(const char *s, size_t n, size_t p)
{
    size_t a = 0, b = 0, c = 0, len;
    uint32_t one = char_before(s, p, &a), two = one ? char_before(s, a, &b) : 0, three = two ? char_before(s, b, &c) : 0;
    if (!(is_letter(one) && is_letter(two)) && !(is_punct_word(one) && two == '-' && is_letter(three)))
        return false;
    size_t q = p + 1;
    uint32_t next = char_at(s, n, q, &len);
    if (!is_letter(next))
        return false;
    q += len;
    if (q < n && s[q] == '-')
        q++;
    return is_letter(char_at(s, n, q, &len));
}

/* The end of the piece of a line that starts at p: blanks, dashes between words, or a word up to a possible break. */
static size_t wrap_chunk(const struct wrap *w, const char *s, size_t n, size_t p)
{
    size_t q = p, at = 0, len;
    if (is_blank(s[p])) {
        while (q < n && is_blank(s[q]))
            q++;
        return q;
    }
    if (w->hyphens && s[p] == '-' && is_punct_word(char_before(s, p, &at)) && (len = em_dash(s, n, p)) > 0)
        return p + len;
    for (;;) {
        char_at(s, n, q, &len);
        q += len;
        if (q >= n || is_blank(s[q]))
            return q < n ? q : n;
        if (w->hyphens && s[q] == '-' && (hyphen_break(s, n, q)))
            return q + 1;
        if (w->hyphens && s[q] == '-' && is_punct_word(char_before(s, q, &at)) && em_dash(s, n, q) > 0)
            return q;
    }
}

/* Where a word too long for a line is cut: behind room characters, or the last hyphen before that. */
static size_t cut_word(const struct wrap *w, const char *s, size_t from, size_t to, int64_t room)
{
    size_t end = from, hyphen = 0, len;
    bool other = false;
    for (int64_t i = 0; i < room && end < to; i++) {
        if (s[end] == '-' && end > from && other)
            hyphen = end + 1;
        other |= s[end] != '-';
        char_at(s, to, end, &len);
        end += len;
    }
    return w->hyphens && hyphen && end < to ? hyphen : end;
}

/* One paragraph, as textwrap.wrap without replace_whitespace. */
static bool wrap_line(struct wrap *w, const char *s, size_t n)
{
    bool first = true;
    for (size_t p = 0, q; p < n && !w->b->failed;) {
        if (!first && is_blank(s[p])) {  /* blanks at the start of later lines go away */
            p = wrap_chunk(w, s, n, p);
            continue;
        }
        size_t start = p, text_end = p;
        int64_t cols = 0;
        for (; p < n; p = q) {
            q = wrap_chunk(w, s, n, p);
            int64_t len = (int64_t)utf8_length(s + p, q - p);
            if (!jinja_charge(w->r, 2 + (q - p) / 8))
                return false;
            if (cols + len > w->width && len > w->width && (w->break_long || cols == 0)) {
                q = w->break_long ? cut_word(w, s, p, q, w->width - cols) : q;
                if (q == p || !is_blank(s[p]))  /* a cut to nothing keeps the blanks before it, as textwrap does */
                    text_end = q;
                p = q;
                break;
            }
            if (cols + len > w->width)
                break;
            cols += len;
            if (!is_blank(s[p]))
                text_end = q;
        }
        if (text_end == start)  /* blanks only */
            continue;
        if (!first)
            buf_append(w->b, w->nl, w->nl_len);
        buf_append(w->b, s + start, text_end - start);
        first = false;
    }
    return true;
}

FILTER(f_wordwrap)
{
    UNUSED(args);
    struct jval lines, nl;
    struct buf b;
    struct wrap w = {.r = r, .b = &b, .break_long = jinja_arg_bool(argv[1], true), .hyphens = jinja_arg_bool(argv[3], true)};
    if (self.t != JT_STR)
        return jinja_fail(r, "wordwrap needs a string, not %s", jinja_type_name(self));
    if (!jinja_arg_int(r, argv[0], 79, &w.width, "width") || !jinja_arg_str(r, given(argv[2]) ? argv[2] : jv_missing(), "\n", &nl, "wrapstring") ||
        !jinja_str_lines(r, self.u.s, false, &lines))
        return false;
    if (w.width <= 0)
        return jinja_fail(r, "invalid width %lld (must be > 0)", (long long)w.width);
    w.nl = nl.u.s->s;
    w.nl_len = nl.u.s->len;
    jinja_buf_init(r, &b);
    bool ok = true;
    for (size_t i = 0; ok && i < lines.u.list->n; i++) {
        if (i > 0)
            buf_append(&b, w.nl, w.nl_len);
        ok = wrap_line(&w, lines.u.list->items[i].u.s->s, lines.u.list->items[i].u.s->len);
    }
    if (!ok) {
        buf_free(&b);
        return false;
    }
    return jinja_str_take(r, &b, out);
}

/* ---- markup and URLs ---- */

static void unescape_into(struct buf *b, const char *s, size_t n)
{
    static const struct { const char *name, *text; } known[] = {
        {"&amp;", "&"}, {"&lt;", "<"}, {"&gt;", ">"}, {"&quot;", "\""}, {"&#34;", "\""}, {"&#39;", "'"}, {"&nbsp;", "\xC2\xA0"}};
    for (size_t i = 0; i < n;) {
        size_t k, m = sizeof known / sizeof *known;
        for (k = 0; s[i] == '&' && k < m; k++)
            if (n - i >= strlen(known[k].name) && memcmp(s + i, known[k].name, strlen(known[k].name)) == 0)
                break;
        if (s[i] == '&' && k < m) {
            buf_puts(b, known[k].text);
            i += strlen(known[k].name);
        } else {
            buf_putc(b, s[i++]);
        }
    }
}

FILTER(f_striptags)
{
    UNUSED(args);
    UNUSED(argv);
    struct jval s, plain;
    struct buf b;
    if (!jinja_to_str(r, self, &s) || !jinja_charge(r, s.u.s->len / 4))
        return false;
    const char *p = s.u.s->s;
    size_t n = s.u.s->len;
    jinja_buf_init(r, &b);
    bool no_close = false;
    for (size_t i = 0; i < n;) {
        size_t end = SIZE_MAX;
        if (p[i] == '<' && !no_close) {
            bool comment = n - i >= 4 && memcmp(p + i, "<!--", 4) == 0;
            end = comment ? jinja_find(p + i + 4, n - i - 4, "-->", 3) : SIZE_MAX;
            if (end != SIZE_MAX)
                end += i + 7;
            else if ((end = jinja_find(p + i, n - i, ">", 1)) != SIZE_MAX)
                end += i + 1;
            else
                no_close = true;
        }
        if (end != SIZE_MAX)
            i = end;
        else
            buf_putc(&b, p[i++]);
    }
    if (!jinja_str_take(r, &b, &plain))
        return false;
    jinja_buf_init(r, &b);  /* blanks become one, ends are trimmed */
    bool gap = false;
    for (size_t i = 0; i < plain.u.s->len;) {
        uint32_t cp;
        int k = utf8_decode(plain.u.s->s + i, plain.u.s->len - i, &cp);
        if (k <= 0)
            break;
        if (jinja_is_space(cp)) {
            gap = b.len > 0;
        } else {
            if (gap)
                buf_putc(&b, ' ');
            gap = false;
            buf_append(&b, plain.u.s->s + i, (size_t)k);
        }
        i += (size_t)k;
    }
    if (!jinja_str_take(r, &b, &plain))
        return false;
    jinja_buf_init(r, &b);
    unescape_into(&b, plain.u.s->s, plain.u.s->len);
    return jinja_str_take(r, &b, out);
}

static void quote_url(struct buf *b, const struct jstr *s, bool query)
{
    for (size_t i = 0; i < s->len; i++) {
        unsigned char ch = (unsigned char)s->s[i];
        if ((ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z') || (ch >= '0' && ch <= '9') || strchr("_.-~", ch) || (!query && ch == '/')) {
            if (ch) {
                buf_putc(b, (char)ch);
                continue;
            }
        }
        if (query && ch == ' ')
            buf_putc(b, '+');
        else
            buf_printf(b, "%%%02X", ch);
    }
}

static bool urlencode_pairs(struct jrender *r, struct jval v, struct buf *b)
{
    struct jval list, pair, k, s;
    if (v.t == JT_DICT) {
        struct jview view = {.dict = v.u.dict, .kind = JVIEW_ITEMS};
        if (!jinja_to_list(r, (struct jval){.t = JT_VIEW, .u.view = &view}, &list))
            return false;
    } else if (!jinja_to_list(r, v, &list)) {
        return false;
    }
    for (size_t i = 0; i < list.u.list->n; i++) {
        if (!jinja_iterable(list.u.list->items[i]) || !jinja_to_list(r, list.u.list->items[i], &pair))
            return jinja_fail(r, "urlencode needs pairs");
        if (pair.u.list->n != 2)
            return jinja_fail(r, "urlencode needs pairs");
        if (!jinja_to_str(r, pair.u.list->items[0], &k) || !jinja_to_str(r, pair.u.list->items[1], &s))
            return false;
        if (i > 0)
            buf_putc(b, '&');
        quote_url(b, k.u.s, true);
        buf_putc(b, '=');
        quote_url(b, s.u.s, true);
    }
    return true;
}

FILTER(f_urlencode)
{
    UNUSED(args);
    UNUSED(argv);
    struct buf b;
    struct jval s;
    bool ok = true;
    jinja_buf_init(r, &b);
    if (self.t != JT_STR && jinja_iterable(self))
        ok = urlencode_pairs(r, self, &b);
    else if ((ok = jinja_to_str(r, self, &s)))
        quote_url(&b, s.u.s, false);
    if (!ok) {
        buf_free(&b);
        return false;
    }
    return jinja_str_take(r, &b, out);
}

FILTER(f_xmlattr)
{
    UNUSED(args);
    struct buf b;
    if (self.t == JT_UNDEFINED)
        return jinja_fail_undef(r, self);
    if (self.t != JT_DICT)
        return jinja_fail(r, "xmlattr needs a dict, not %s", jinja_type_name(self));
    jinja_buf_init(r, &b);
    for (size_t i = 0; i < self.u.dict->n; i++) {
        struct jval k = self.u.dict->items[i].key, v = self.u.dict->items[i].value;
        if (v.t == JT_NONE || v.t == JT_UNDEFINED)
            continue;
        bool bad = k.t != JT_STR;
        for (size_t j = 0; !bad && j < k.u.s->len; j++)
            bad = k.u.s->s[j] == 0 ? false : strchr(" \t\n\r\f\v/>=", k.u.s->s[j]) != NULL;
        if (bad || !jinja_escape(r, k, &k) || !jinja_escape(r, v, &v)) {
            buf_free(&b);
            return jinja_fail(r, "Invalid character in attribute name");
        }
        buf_printf(&b, "%s", b.len > 0 || jinja_arg_bool(argv[0], true) ? " " : "");
        buf_append(&b, k.u.s->s, k.u.s->len);
        buf_puts(&b, "=\"");
        buf_append(&b, v.u.s->s, v.u.s->len);
        buf_putc(&b, '"');
    }
    return jinja_str_take(r, &b, out);
}

/* ---- numbers ---- */

FILTER(f_abs)
{
    UNUSED(args);
    UNUSED(argv);
    if (!jv_is_num(self))
        return self.t == JT_UNDEFINED ? jinja_fail_undef(r, self) : jinja_fail(r, "bad operand type for abs(): '%s'", jinja_type_name(self));
    if (self.t == JT_FLOAT) {
        *out = jv_float(fabs(self.u.f));
        return true;
    }
    return jinja_unary(r, jv_as_int(self) < 0, self, out);
}

/* int(float(v)); *ok false where Python has a ValueError. */
static bool float_to_int(struct jrender *r, double f, int64_t *out, bool *ok)
{
    *ok = !isnan(f);
    if (isinf(f) || fabs(f) >= 9223372036854775808.0)
        return jinja_fail(r, "cannot convert the float to an integer of 64 bits");
    *out = *ok ? (int64_t)f : 0;
    return true;
}

/* Decimal digits of any script as ASCII ones, other blanks as ' ': what int() and float() read. */
static bool ascii_digits(struct jrender *r, struct jval v, struct jval *out)
{
    struct buf b;
    *out = v;
    if (jinja_str_chars(v.u.s) == v.u.s->len)
        return true;
    jinja_buf_init(r, &b);
    for (size_t i = 0; i < v.u.s->len;) {
        uint32_t cp;
        int k = utf8_decode(v.u.s->s + i, v.u.s->len - i, &cp);
        int digit = 0;  /* each script's ten digits stand together; the mathematical ones are five sets in a row */
        if (k > 1 && utf8proc_category((utf8proc_int32_t)cp) == UTF8PROC_CATEGORY_ND) {
            while (digit < 9 && utf8proc_category((utf8proc_int32_t)(cp - 1 - (uint32_t)digit)) == UTF8PROC_CATEGORY_ND)
                digit++;
            buf_putc(&b, (char)('0' + (cp >= 0x1D7CE && cp <= 0x1D7FF ? (int)((cp - 0x1D7CE) % 10) : digit)));
        } else if (k > 1 && jinja_is_space(cp)) {
            buf_putc(&b, ' ');
        } else {
            buf_append(&b, v.u.s->s + i, (size_t)(k > 0 ? k : 1));
        }
        i += (size_t)(k > 0 ? k : 1);
    }
    return jinja_charge(r, v.u.s->len) ? jinja_str_take(r, &b, out) : (buf_free(&b), false);
}

FILTER(f_int)
{
    UNUSED(args);
    int64_t base, v = 0;
    bool ok = false, overflow = false;
    double f;
    if (!jinja_arg_int(r, argv[1], 10, &base, "base"))
        return false;
    if (self.t == JT_UNDEFINED)
        return jinja_fail_undef(r, self);
    if (self.t == JT_STR) {
        if (!ascii_digits(r, self, &self))
            return false;
        const struct jstr *s = self.u.s;
        if (base >= 0 && base <= 36 && base != 1)
            ok = jinja_parse_int(s->s, s->len, (int)base, &v, &overflow);
        if (overflow)
            return jinja_fail(r, "the integer does not fit 64 bits");
        if (!ok && jinja_parse_float(s->s, s->len, &f) && !float_to_int(r, f, &v, &ok))
            return false;
    } else if (jv_is_intlike(self)) {
        v = jv_as_int(self);
        ok = true;
    } else if (self.t == JT_FLOAT && !float_to_int(r, self.u.f, &v, &ok)) {
        return false;
    }
    *out = ok ? jv_int(v) : argv[0].t == JT_MISSING ? jv_int(0) : argv[0];
    return true;
}

FILTER(f_float)
{
    UNUSED(args);
    double f;
    if (self.t == JT_UNDEFINED)
        return jinja_fail_undef(r, self);
    if (self.t == JT_STR && !ascii_digits(r, self, &self))
        return false;
    if (jv_is_num(self))
        *out = jv_float(jv_as_float(self));
    else if (self.t == JT_STR && jinja_parse_float(self.u.s->s, self.u.s->len, &f))
        *out = jv_float(f);
    else
        *out = argv[0].t == JT_MISSING ? jv_float(0) : argv[0];
    return true;
}

FILTER(f_round)
{
    UNUSED(args);
    int64_t digits;
    double v;
    if (!jinja_arg_int(r, argv[0], 0, &digits, "precision"))
        return false;
    bool common = argv[1].t == JT_MISSING || jinja_str_is(argv[1], "common");
    if (!common && !jinja_str_is(argv[1], "ceil") && !jinja_str_is(argv[1], "floor"))
        return jinja_fail(r, "method must be common, ceil or floor");
    if (!jv_is_num(self))
        return jinja_fail(r, "round needs a number, not %s", jinja_type_name(self));
    if (common && jv_is_intlike(self)) {
        int64_t i = jv_as_int(self), p = 1;
        if (digits < -18) {
            *out = jv_int(0);
            return true;
        }
        for (int64_t k = digits; k < 0; k++)
            p *= 10;
        int64_t rest = i % p;
        if (rest < 0)
            rest += p;
        __int128 low = (__int128)i - rest;
        if (rest * 2 > p || (rest * 2 == p && (low / p) % 2 != 0))
            low += p;
        if (low > INT64_MAX || low < INT64_MIN)
            return jinja_fail(r, "the integer result does not fit 64 bits");
        *out = jv_int((int64_t)low);
        return true;
    }
    if (common) {
        if (!jinja_round_float(jv_as_float(self), digits, &v))
            return jinja_fail(r, "the rounded value is out of range");
        *out = jv_float(v);
        return true;
    }
    if (digits > 300 || digits < -300)
        return jinja_fail(r, "a precision of %lld is out of range", (long long)digits);
    double p = pow(10, (double)digits), x = jv_as_float(self) * p;
    if (!isfinite(x))
        return jinja_fail(r, "the rounded value is out of range");
    *out = jv_float(((jinja_str_is(argv[1], "ceil") ? ceil(x) : floor(x)) + 0.0) / p);  /* + 0.0: never -0 */
    return true;
}

FILTER(f_filesizeformat)
{
    UNUSED(args);
    static const char *const names[2][8] = {{"kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"},
                                            {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"}};
    bool binary = jinja_arg_bool(argv[0], false);
    double n, base = binary ? 1024 : 1000, unit = base;
    char text[400];
    if (jv_is_num(self))
        n = jv_as_float(self);
    else if (self.t != JT_STR || !jinja_parse_float(self.u.s->s, self.u.s->len, &n))
        return self.t == JT_UNDEFINED ? jinja_fail_undef(r, self) : jinja_fail(r, "filesizeformat needs a number, not %s", jinja_type_name(self));
    if (n == 1) {
        strcpy(text, "1 Byte");
    } else if (n < base) {
        snprintf(text, sizeof text, "%.0f Bytes", trunc(n));
    } else {
        int i = 0;
        for (unit = base * base; i < 7 && !(n < unit); i++)
            unit *= base;
        snprintf(text, sizeof text, "%.1f %s", base * n / unit, names[binary][i]);
    }
    return jinja_str_new(r, text, strlen(text), out);
}

/* ---- the rest ---- */

FILTER(f_default)
{
    UNUSED(args);
    if (self.t == JT_UNDEFINED || (jinja_arg_bool(argv[1], false) && !jinja_truth(self)))
        return argv[0].t == JT_MISSING ? jinja_str_z(r, "", out) : (*out = argv[0], true);
    *out = self;
    return true;
}

FILTER(f_format)
{
    UNUSED(argv);
    struct jval s, arg;
    if (args->n_pos > 0 && args->n_kw > 0)
        return jinja_fail(r, "can't handle positional and keyword arguments at the same time");
    if (!jinja_to_str(r, self, &s))
        return false;
    if (args->n_kw > 0) {
        if (!jinja_dict_new(r, &arg))
            return false;
        for (size_t i = 0; i < args->n_kw; i++) {
            struct jval k;
            if (!jinja_str_borrow(r, args->kw[i].name, args->kw[i].len, &k) || !jinja_dict_put(r, arg.u.dict, k, args->kw[i].v))
                return false;
        }
    } else {
        if (!jinja_list_new(r, JT_TUPLE, args->n_pos, &arg))
            return false;
        for (size_t i = 0; i < args->n_pos; i++)
            if (!jinja_list_push(r, arg.u.list, args->pos[i]))
                return false;
    }
    return jinja_percent(r, s, arg, out);
}

FILTER(f_tojson) { UNUSED(args); return jinja_tojson(r, self, argv, out); }

/* repr with dict keys in order; what would need more than one line of 80 is refused. */
static bool sort_keys(struct jrender *r, struct jval v, struct jval *out)
{
    *out = v;
    if (v.t != JT_LIST && v.t != JT_TUPLE && v.t != JT_DICT)
        return true;
    if (!jinja_enter(r))
        return false;
    bool ok;
    if (v.t == JT_DICT) {
        struct jval keys, items;
        struct jview kv = {.dict = v.u.dict, .kind = JVIEW_KEYS}, iv = {.dict = v.u.dict, .kind = JVIEW_ITEMS};
        ok = jinja_to_list(r, (struct jval){.t = JT_VIEW, .u.view = &kv}, &keys) && jinja_to_list(r, (struct jval){.t = JT_VIEW, .u.view = &iv}, &items) &&
             jinja_sort(r, items.u.list->items, keys.u.list->items, v.u.dict->n, false) && jinja_dict_new(r, out);
        for (size_t i = 0; ok && i < v.u.dict->n; i++) {
            struct jval x, *pair = items.u.list->items[i].u.list->items;
            ok = sort_keys(r, pair[1], &x) && jinja_dict_put(r, out->u.dict, pair[0], x);
        }
    } else {
        ok = jinja_list_new(r, v.t, v.u.list->n, out);
        for (size_t i = 0; ok && i < v.u.list->n; i++) {
            struct jval x;
            ok = sort_keys(r, v.u.list->items[i], &x) && jinja_list_push(r, out->u.list, x);
        }
    }
    jinja_leave(r);
    return ok;
}

FILTER(f_pprint)
{
    UNUSED(args);
    UNUSED(argv);
    struct buf b;
    struct jval v;
    if (!sort_keys(r, self, &v))
        return false;
    jinja_buf_init(r, &b);
    if (!jinja_repr(r, v, &b) || (b.len > 80 && v.t != JT_INT && v.t != JT_FLOAT)) {
        buf_free(&b);
        return jinja_fail_code(r, ERR_UNSUPPORTED, "pprint of a value that needs more than one line is not supported; use tojson(indent=2)");
    }
    return jinja_str_take(r, &b, out);
}

FILTER(f_unsupported)
{
    UNUSED(args);
    UNUSED(argv);
    UNUSED(self);
    UNUSED(out);
    return jinja_fail_code(r, ERR_UNSUPPORTED, "the filters random and urlize are not supported");
}

static const struct jfunc_spec FILTERS[] = {
    {"abs", "", f_abs}, {"capitalize", "", f_capitalize}, {"center", "width", f_center}, {"d", "default_value boolean", f_default},
    {"default", "default_value boolean", f_default}, {"e", "", f_escape}, {"escape", "", f_escape},
    {"filesizeformat", "binary", f_filesizeformat}, {"float", "default", f_float}, {"forceescape", "", f_forceescape},
    {"format", NULL, f_format}, {"indent", "width first blank", f_indent}, {"int", "default base", f_int}, {"lower", "", f_lower},
    {"pprint", "", f_pprint}, {"random", "", f_unsupported}, {"replace", "old! new! count", f_replace},
    {"round", "precision method", f_round}, {"safe", "", f_safe}, {"string", "", f_string}, {"striptags", "", f_striptags},
    {"title", "", f_title}, {"tojson", "ensure_ascii indent separators sort_keys", f_tojson}, {"trim", "chars", f_trim},
    {"truncate", "length killwords end leeway", f_truncate}, {"upper", "", f_upper}, {"urlencode", "", f_urlencode},
    {"urlize", NULL, f_unsupported}, {"wordcount", "", f_wordcount},
    {"wordwrap", "width break_long_words wrapstring break_on_hyphens", f_wordwrap}, {"xmlattr", "autospace", f_xmlattr},
    {NULL, NULL, NULL},
};

const struct jfunc_spec *jinja_filter_find(const char *name, size_t len)
{
    const struct jfunc_spec *s = jinja_spec_find(FILTERS, name, len);
    return s ? s : jinja_filter_seq_find(name, len);
}
