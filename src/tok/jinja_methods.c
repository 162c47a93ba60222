/* jinja_methods.c - the methods of str, list, dict, loop and cycler that templates may call. */
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>
#include "base/utf8.h"
#include "tok/jinja_int.h"

#define METHOD(name) static bool name(struct jrender *r, struct jval self, struct jval *argv, struct jargs *args, struct jval *out)
#define UNUSED(x) ((void)(x))

static bool need_str(struct jrender *r, struct jval v, const char *what)
{
    return v.t == JT_STR || jinja_fail(r, "%s must be str, not %s", what, jinja_type_name(v));
}

bool jinja_arg_int(struct jrender *r, struct jval v, int64_t dflt, int64_t *out, const char *what)
{
    if (v.t == JT_MISSING) {
        *out = dflt;
        return true;
    }
    if (!jv_is_intlike(v))
        return jinja_fail(r, "%s must be an integer, not %s", what, jinja_type_name(v));
    *out = jv_as_int(v);
    return true;
}

bool jinja_arg_str(struct jrender *r, struct jval v, const char *dflt, struct jval *out, const char *what)
{
    if (v.t == JT_MISSING)
        return jinja_str_z(r, dflt, out);
    *out = v;
    return need_str(r, v, what);
}

METHOD(m_strip) { UNUSED(args); return jinja_str_strip(r, self, argv[0], 3, out); }
METHOD(m_lstrip) { UNUSED(args); return jinja_str_strip(r, self, argv[0], 1, out); }
METHOD(m_rstrip) { UNUSED(args); return jinja_str_strip(r, self, argv[0], 2, out); }
METHOD(m_upper) { UNUSED(args); UNUSED(argv); return jinja_str_case(r, self, 'u', out); }
METHOD(m_lower) { UNUSED(args); UNUSED(argv); return jinja_str_case(r, self, 'l', out); }
METHOD(m_title) { UNUSED(args); UNUSED(argv); return jinja_str_case(r, self, 't', out); }
METHOD(m_capitalize) { UNUSED(args); UNUSED(argv); return jinja_str_case(r, self, 'c', out); }
METHOD(m_swapcase) { UNUSED(args); UNUSED(argv); return jinja_str_case(r, self, 's', out); }

METHOD(m_casefold)
{
    UNUSED(args);
    UNUSED(argv);
    const struct jstr *s = self.u.s;
    utf8proc_uint8_t *folded = NULL;
    if (!jinja_charge(r, s->len / 2))
        return false;
    utf8proc_ssize_t n = utf8proc_map((const utf8proc_uint8_t *)s->s, (utf8proc_ssize_t)s->len, &folded, UTF8PROC_CASEFOLD);
    bool ok = n >= 0 ? jinja_str_new(r, (const char *)folded, (size_t)n, out) : jinja_fail(r, "casefold failed");
    free(folded);
    return ok;
}

/* ---- splitting ---- */

static bool push_piece(struct jrender *r, struct jval list, struct jval self, size_t from, size_t to)
{
    struct jval v;
    if (!jinja_str_borrow(r, self.u.s->s + from, to - from, &v))
        return false;
    v.u.s->markup = self.u.s->markup;
    return jinja_list_push(r, list.u.list, v);
}

static size_t space_at(const struct jstr *s, size_t i)
{
    uint32_t cp;
    int k = utf8_decode(s->s + i, s->len - i, &cp);
    return k > 0 && jinja_is_space(cp) ? (size_t)k : 0;
}

static bool split_space(struct jrender *r, struct jval self, int64_t max, struct jval *out)
{
    const struct jstr *s = self.u.s;
    for (size_t i = 0, k; i < s->len;) {
        if ((k = space_at(s, i)) > 0) {
            i += k;
            continue;
        }
        size_t from = i;
        if (max-- == 0) {
            return push_piece(r, *out, self, from, s->len);
        }
        while (i < s->len && !space_at(s, i))
            i++;
        if (!push_piece(r, *out, self, from, i))
            return false;
    }
    return true;
}

/* Last place of t in s, *at = SIZE_MAX when there is none.  Candidates are charged: this is not linear. */
static bool rfind(struct jrender *r, const char *s, size_t n, const char *t, size_t m, size_t *at)
{
    *at = SIZE_MAX;
    if (m == 0)
        *at = n;
    while (m > 0 && n >= m) {
        const char *p = memrchr(s + m - 1, t[m - 1], n - m + 1);
        if (!p)
            return true;
        n = (size_t)(p - s) + 1;
        if (!jinja_charge(r, 1 + m / 16))
            return false;
        if (memcmp(s + n - m, t, m) == 0) {
            *at = n - m;
            return true;
        }
        n--;
    }
    return true;
}

/* rsplit: pieces are found from the right and turned round at the end. */
static bool rsplit(struct jrender *r, struct jval self, const struct jstr *sep, int64_t max, struct jval *out)
{
    const struct jstr *s = self.u.s;
    size_t end = s->len;
    if (sep) {
        for (size_t at; max != 0; max--) {
            if (!rfind(r, s->s, end, sep->s, sep->len, &at))
                return false;
            if (at == SIZE_MAX)
                break;
            if (!push_piece(r, *out, self, at + sep->len, end))
                return false;
            end = at;
        }
        if (!push_piece(r, *out, self, 0, end))
            return false;
    } else {
        for (;;) {
            struct jval rest;
            if (!jinja_str_borrow(r, s->s, end, &rest) || !jinja_str_strip(r, rest, jv_missing(), 2, &rest))
                return false;
            end = rest.u.s->len;
            if (end == 0)
                break;
            size_t from = end;
            while (from > 0) {  /* back to the blank before this word */
                size_t b = from - 1;
                while (b > 0 && ((unsigned char)s->s[b] & 0xC0) == 0x80)
                    b--;
                if (space_at(s, b))
                    break;
                from = b;
            }
            if (max-- == 0) {
                if (!jinja_list_push(r, out->u.list, rest))
                    return false;
                break;
            }
            if (!push_piece(r, *out, self, from, end))
                return false;
            end = from;
        }
    }
    struct jlist *l = out->u.list;
    for (size_t i = 0; i < l->n / 2; i++) {
        struct jval t = l->items[i];
        l->items[i] = l->items[l->n - 1 - i];
        l->items[l->n - 1 - i] = t;
    }
    return true;
}

static bool split_args(struct jrender *r, struct jval self, struct jval *argv, const struct jstr **sep, int64_t *max, struct jval *out)
{
    *sep = NULL;
    if (argv[0].t != JT_MISSING && argv[0].t != JT_NONE) {
        if (!need_str(r, argv[0], "the separator"))
            return false;
        *sep = argv[0].u.s;
        if ((*sep)->len == 0)
            return jinja_fail(r, "empty separator");
    }
    return jinja_arg_int(r, argv[1], -1, max, "maxsplit") && jinja_charge(r, self.u.s->len / 8) && jinja_list_new(r, JT_LIST, 4, out);
}

METHOD(m_split)
{
    UNUSED(args);
    const struct jstr *sep, *s = self.u.s;
    int64_t max;
    if (!split_args(r, self, argv, &sep, &max, out))
        return false;
    if (!sep)
        return split_space(r, self, max, out);
    size_t from = 0;
    while (max != 0) {
        size_t p = jinja_find(s->s + from, s->len - from, sep->s, sep->len);
        if (p == SIZE_MAX)
            break;
        if (!push_piece(r, *out, self, from, from + p))
            return false;
        from += p + sep->len;
        max--;
    }
    return push_piece(r, *out, self, from, s->len);
}

METHOD(m_rsplit)
{
    UNUSED(args);
    const struct jstr *sep;
    int64_t max;
    return split_args(r, self, argv, &sep, &max, out) && rsplit(r, self, sep, max, out);
}

METHOD(m_splitlines)
{
    UNUSED(args);
    return jinja_str_lines(r, self.u.s, jinja_arg_bool(argv[0], false), out);
}

static bool partition(struct jrender *r, struct jval self, struct jval sep, bool right, struct jval *out)
{
    const struct jstr *s = self.u.s;
    if (!need_str(r, sep, "the separator") || !jinja_list_new(r, JT_TUPLE, 3, out) || !jinja_charge(r, s->len / 8))
        return false;
    const struct jstr *t = sep.u.s;
    if (t->len == 0)
        return jinja_fail(r, "empty separator");
    size_t p = jinja_find(s->s, s->len, t->s, t->len);
    if (right && !rfind(r, s->s, s->len, t->s, t->len, &p))
        return false;
    if (p == SIZE_MAX) {
        size_t head = right ? 0 : s->len;
        return push_piece(r, *out, self, 0, head) && push_piece(r, *out, self, 0, 0) && push_piece(r, *out, self, head, s->len);
    }
    return push_piece(r, *out, self, 0, p) && push_piece(r, *out, self, p, p + t->len) && push_piece(r, *out, self, p + t->len, s->len);
}

METHOD(m_partition) { UNUSED(args); return partition(r, self, argv[0], false, out); }
METHOD(m_rpartition) { UNUSED(args); return partition(r, self, argv[0], true, out); }

/* ---- searching ---- */

/* self[start:end] as bytes; *base is the code point index it starts at.  *none: the range is outside. */
static bool window(struct jrender *r, struct jval self, struct jval start, struct jval end, const char **s, size_t *n, int64_t *base, bool *none)
{
    int64_t len = (int64_t)jinja_str_chars(self.u.s), a = 0, b = len;
    if ((start.t != JT_MISSING && start.t != JT_NONE && !jinja_arg_int(r, start, 0, &a, "start")) ||
        (end.t != JT_MISSING && end.t != JT_NONE && !jinja_arg_int(r, end, 0, &b, "end")))
        return false;
    if (a < 0)
        a = a < -len ? 0 : a + len;
    if (b < 0)
        b = b < -len ? 0 : b + len;
    if (b > len)
        b = len;
    *none = a > b;
    if (*none)
        a = b;
    size_t from = jinja_str_offset(self.u.s, (size_t)a), to = b == len ? self.u.s->len : jinja_str_offset(self.u.s, (size_t)b);
    *s = self.u.s->s + from;
    *n = to - from;
    *base = a;
    return jinja_charge(r, self.u.s->len / 16);
}

static bool find(struct jrender *r, struct jval self, struct jval *argv, bool right, bool must, struct jval *out)
{
    const char *s;
    size_t n, p;
    int64_t base;
    bool none;
    if (!need_str(r, argv[0], "the text to find") || !window(r, self, argv[1], argv[2], &s, &n, &base, &none))
        return false;
    const struct jstr *t = argv[0].u.s;
    if (right && !none) {
        if (!rfind(r, s, n, t->s, t->len, &p))
            return false;
    } else {
        p = none ? SIZE_MAX : jinja_find(s, n, t->s, t->len);
    }
    if (p == SIZE_MAX && must)
        return jinja_fail(r, "substring not found");
    *out = jv_int(p == SIZE_MAX ? -1 : base + (int64_t)utf8_length(s, p));
    return true;
}

METHOD(m_find) { UNUSED(args); return find(r, self, argv, false, false, out); }
METHOD(m_rfind) { UNUSED(args); return find(r, self, argv, true, false, out); }
METHOD(m_index) { UNUSED(args); return find(r, self, argv, false, true, out); }
METHOD(m_rindex) { UNUSED(args); return find(r, self, argv, true, true, out); }

METHOD(m_count)
{
    UNUSED(args);
    const char *s;
    size_t n, p;
    int64_t base, count = 0;
    bool none;
    if (!need_str(r, argv[0], "the text to count") || !window(r, self, argv[1], argv[2], &s, &n, &base, &none))
        return false;
    const struct jstr *t = argv[0].u.s;
    if (t->len == 0)
        count = none ? 0 : (int64_t)utf8_length(s, n) + 1;
    while (t->len > 0 && (p = jinja_find(s, n, t->s, t->len)) != SIZE_MAX) {
        count++;
        s += p + t->len;
        n -= p + t->len;
    }
    *out = jv_int(count);
    return true;
}

static bool affix(struct jrender *r, struct jval self, struct jval *argv, bool end, struct jval *out)
{
    const char *s;
    size_t n;
    int64_t base;
    bool none, hit = false;
    if (!window(r, self, argv[1], argv[2], &s, &n, &base, &none))
        return false;
    struct jval one = argv[0], *items = &one;
    size_t count = 1;
    if (argv[0].t == JT_TUPLE) {
        items = argv[0].u.list->items;
        count = argv[0].u.list->n;
    }
    for (size_t i = 0; i < count; i++) {
        if (items[i].t != JT_STR)
            return jinja_fail(r, "%s first arg must be str or a tuple of str, not %s", end ? "endswith" : "startswith", jinja_type_name(items[i]));
        const struct jstr *t = items[i].u.s;
        hit |= !none && t->len <= n && memcmp(end ? s + n - t->len : s, t->s, t->len) == 0;
    }
    *out = jv_bool(hit);
    return true;
}

METHOD(m_startswith) { UNUSED(args); return affix(r, self, argv, false, out); }
METHOD(m_endswith) { UNUSED(args); return affix(r, self, argv, true, out); }

METHOD(m_removeprefix)
{
    UNUSED(args);
    if (!need_str(r, argv[0], "the prefix"))
        return false;
    const struct jstr *s = self.u.s, *t = argv[0].u.s;
    *out = self;
    return t->len > s->len || memcmp(s->s, t->s, t->len) != 0 || jinja_str_borrow(r, s->s + t->len, s->len - t->len, out);
}

METHOD(m_removesuffix)
{
    UNUSED(args);
    if (!need_str(r, argv[0], "the suffix"))
        return false;
    const struct jstr *s = self.u.s, *t = argv[0].u.s;
    *out = self;
    return t->len > s->len || memcmp(s->s + s->len - t->len, t->s, t->len) != 0 || jinja_str_borrow(r, s->s, s->len - t->len, out);
}

METHOD(m_replace)
{
    UNUSED(args);
    int64_t count;
    return need_str(r, argv[0], "replace's first argument") && need_str(r, argv[1], "replace's second argument") &&
           jinja_arg_int(r, argv[2], -1, &count, "count") && jinja_str_replace(r, self, argv[0], argv[1], count, out);
}

METHOD(m_join)
{
    UNUSED(args);
    struct jval list;
    struct buf b;
    if (!jinja_to_list(r, argv[0], &list))
        return false;
    jinja_buf_init(r, &b);
    for (size_t i = 0; i < list.u.list->n; i++) {
        struct jval v = list.u.list->items[i];
        if (v.t != JT_STR) {
            buf_free(&b);
            return jinja_fail(r, "sequence item %zu: expected str instance, %s found", i, jinja_type_name(v));
        }
        if (i > 0)
            buf_append(&b, self.u.s->s, self.u.s->len);
        buf_append(&b, v.u.s->s, v.u.s->len);
    }
    return jinja_str_take(r, &b, out);
}

/* ---- padding ---- */

static bool pad_args(struct jrender *r, struct jval self, struct jval *argv, int64_t *need, struct jval *fill)
{
    int64_t width;
    if (!jinja_arg_int(r, argv[0], 0, &width, "width") || !jinja_arg_str(r, argv[1], " ", fill, "the fill character"))
        return false;
    if (jinja_str_chars(fill->u.s) != 1)
        return jinja_fail(r, "The fill character must be exactly one character long");
    int64_t n = (int64_t)jinja_str_chars(self.u.s);
    *need = width > n ? width - n : 0;
    return true;
}

METHOD(m_ljust)
{
    UNUSED(args);
    int64_t need;
    struct jval f;
    return pad_args(r, self, argv, &need, &f) && jinja_str_pad(r, self.u.s, 0, need, f.u.s->s, f.u.s->len, out);
}

METHOD(m_rjust)
{
    UNUSED(args);
    int64_t need;
    struct jval f;
    return pad_args(r, self, argv, &need, &f) && jinja_str_pad(r, self.u.s, need, 0, f.u.s->s, f.u.s->len, out);
}

METHOD(m_center)
{
    UNUSED(args);
    int64_t need;
    struct jval f;
    if (!pad_args(r, self, argv, &need, &f))
        return false;
    int64_t left = need / 2 + (need & 1 & (need + (int64_t)jinja_str_chars(self.u.s)));  /* an odd width leans left, as CPython */
    return jinja_str_pad(r, self.u.s, left, need - left, f.u.s->s, f.u.s->len, out);
}

METHOD(m_zfill)
{
    UNUSED(args);
    int64_t width, n = (int64_t)jinja_str_chars(self.u.s);
    struct jval digits = self, sign;
    if (!jinja_arg_int(r, argv[0], 0, &width, "width"))
        return false;
    bool has_sign = self.u.s->len > 0 && (self.u.s->s[0] == '-' || self.u.s->s[0] == '+');
    if (!has_sign || width <= n)
        return jinja_str_pad(r, self.u.s, width - n, 0, "0", 1, out);
    return jinja_str_borrow(r, self.u.s->s + 1, self.u.s->len - 1, &digits) && jinja_str_pad(r, digits.u.s, width - n, 0, "0", 1, &digits) &&
           jinja_str_borrow(r, self.u.s->s, 1, &sign) && jinja_str_concat(r, sign.u.s, digits.u.s, out);
}

METHOD(m_expandtabs)
{
    UNUSED(args);
    int64_t size, col = 0;
    struct buf b;
    const struct jstr *s = self.u.s;
    if (!jinja_arg_int(r, argv[0], 8, &size, "tabsize"))
        return false;
    jinja_buf_init(r, &b);
    for (size_t i = 0; i < s->len && !b.failed; i++) {
        if (s->s[i] == '\t') {
            int64_t n = size > 0 ? size - col % size : 0;
            if (n > (int64_t)r->lim.max_memory)
                b.failed = true;
            col += n;
            for (; n > 0 && !b.failed; n--)
                buf_putc(&b, ' ');
            continue;
        }
        buf_putc(&b, s->s[i]);
        if (s->s[i] == '\n' || s->s[i] == '\r')
            col = 0;
        else if (((unsigned char)s->s[i] & 0xC0) != 0x80)
            col++;
    }
    return jinja_charge(r, b.len / 8) ? jinja_str_take(r, &b, out) : (buf_free(&b), false);
}

METHOD(m_format)
{
    UNUSED(argv);
    return jinja_format(r, self, args, out);
}

METHOD(m_format_map)
{
    UNUSED(args);
    struct jargs a = {0};
    if (argv[0].t != JT_DICT)
        return jinja_fail(r, "format_map() needs a dict");
    struct jdict *d = argv[0].u.dict;
    if (!(a.kw = jinja_alloc(r, d->n, sizeof *a.kw)))
        return false;
    for (size_t i = 0; i < d->n; i++)
        if (d->items[i].key.t == JT_STR)
            a.kw[a.n_kw++] = (struct jkw){.name = d->items[i].key.u.s->s, .len = d->items[i].key.u.s->len, .v = d->items[i].value};
    return jinja_format(r, self, &a, out);
}

METHOD(m_encode)
{
    UNUSED(self);
    UNUSED(argv);
    UNUSED(args);
    UNUSED(out);
    return jinja_fail(r, "encode() is not supported: templates have no bytes");
}

/* ---- is... ---- */

enum { IS_ALPHA = 1, IS_DECIMAL = 2, IS_DIGIT = 4, IS_NUMERIC = 8, IS_SPACE = 16, IS_PRINT = 32, IS_ASCII = 64 };

static unsigned classes(uint32_t cp)
{
    utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)cp);
    unsigned f = cp < 0x80 ? IS_ASCII : 0;
    if (c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_LO)
        f |= IS_ALPHA;
    if (c == UTF8PROC_CATEGORY_ND)
        f |= IS_DECIMAL | IS_DIGIT | IS_NUMERIC;
    if (c == UTF8PROC_CATEGORY_NL || c == UTF8PROC_CATEGORY_NO)
        f |= IS_NUMERIC;
    if (cp == 0xB2 || cp == 0xB3 || cp == 0xB9 || cp == 0x2070 || (cp >= 0x2074 && cp <= 0x2079) || (cp >= 0x2080 && cp <= 0x2089) ||
        (cp >= 0x2460 && cp <= 0x2468))
        f |= IS_DIGIT;
    if (jinja_is_space(cp))
        f |= IS_SPACE;
    if (cp == ' ' || !(c == UTF8PROC_CATEGORY_CN || c >= UTF8PROC_CATEGORY_ZS))
        f |= IS_PRINT;
    return f;
}

/* Every character is of one of these classes; an empty text gives empty. */
static bool all_of(struct jrender *r, struct jval self, unsigned mask, bool empty, struct jval *out)
{
    const struct jstr *s = self.u.s;
    bool ok = s->len > 0 || empty;
    for (size_t i = 0; ok && i < s->len;) {
        uint32_t cp;
        int k = utf8_decode(s->s + i, s->len - i, &cp);
        ok = k > 0 && (classes(cp) & mask) != 0;
        i += (size_t)(k > 0 ? k : 1);
    }
    *out = jv_bool(ok);
    return jinja_charge(r, s->len / 8);
}

METHOD(m_isalpha) { UNUSED(args); UNUSED(argv); return all_of(r, self, IS_ALPHA, false, out); }
METHOD(m_isdigit) { UNUSED(args); UNUSED(argv); return all_of(r, self, IS_DIGIT, false, out); }
METHOD(m_isdecimal) { UNUSED(args); UNUSED(argv); return all_of(r, self, IS_DECIMAL, false, out); }
METHOD(m_isnumeric) { UNUSED(args); UNUSED(argv); return all_of(r, self, IS_NUMERIC, false, out); }
METHOD(m_isalnum) { UNUSED(args); UNUSED(argv); return all_of(r, self, IS_ALPHA | IS_DIGIT | IS_NUMERIC, false, out); }
METHOD(m_isspace) { UNUSED(args); UNUSED(argv); return all_of(r, self, IS_SPACE, false, out); }
METHOD(m_isprintable) { UNUSED(args); UNUSED(argv); return all_of(r, self, IS_PRINT, true, out); }
METHOD(m_isascii) { UNUSED(args); UNUSED(argv); return all_of(r, self, IS_ASCII, true, out); }

METHOD(m_islower)
{
    UNUSED(args);
    UNUSED(argv);
    *out = jv_bool(jinja_str_islower(self.u.s));
    return jinja_charge(r, self.u.s->len / 8);
}

METHOD(m_isupper)
{
    UNUSED(args);
    UNUSED(argv);
    *out = jv_bool(jinja_str_isupper(self.u.s));
    return jinja_charge(r, self.u.s->len / 8);
}

METHOD(m_istitle)
{
    UNUSED(args);
    UNUSED(argv);
    const struct jstr *s = self.u.s;
    bool ok = true, any = false, in_word = false;
    for (size_t i = 0; ok && i < s->len;) {
        uint32_t cp;
        int k = utf8_decode(s->s + i, s->len - i, &cp);
        utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)cp);
        if (k <= 0)
            break;
        if (c == UTF8PROC_CATEGORY_LU || c == UTF8PROC_CATEGORY_LT) {
            ok = !in_word;
            in_word = any = true;
        } else if (c == UTF8PROC_CATEGORY_LL) {
            ok = in_word;
            any = true;
        } else {
            in_word = false;
        }
        i += (size_t)k;
    }
    *out = jv_bool(ok && any);
    return jinja_charge(r, s->len / 8);
}

METHOD(m_isidentifier)
{
    UNUSED(args);
    UNUSED(argv);
    const struct jstr *s = self.u.s;
    bool ok = s->len > 0;
    for (size_t i = 0; ok && i < s->len;) {
        uint32_t cp;
        int k = utf8_decode(s->s + i, s->len - i, &cp);
        ok = k > 0 && (cp == '_' || (classes(cp) & (i > 0 ? IS_ALPHA | IS_DECIMAL : IS_ALPHA)));
        i += (size_t)(k > 0 ? k : 1);
    }
    *out = jv_bool(ok);
    return jinja_charge(r, s->len / 8);
}

static const struct jfunc_spec STR_METHODS[] = {
    {"strip", "chars", m_strip}, {"lstrip", "chars", m_lstrip}, {"rstrip", "chars", m_rstrip}, {"split", "sep maxsplit", m_split},
    {"rsplit", "sep maxsplit", m_rsplit}, {"splitlines", "keepends", m_splitlines}, {"startswith", "prefix! start end", m_startswith},
    {"endswith", "suffix! start end", m_endswith}, {"replace", "old! new! count", m_replace}, {"upper", "", m_upper},
    {"lower", "", m_lower}, {"title", "", m_title}, {"capitalize", "", m_capitalize}, {"swapcase", "", m_swapcase},
    {"casefold", "", m_casefold}, {"join", "iterable!", m_join}, {"find", "sub! start end", m_find}, {"rfind", "sub! start end", m_rfind},
    {"index", "sub! start end", m_index}, {"rindex", "sub! start end", m_rindex}, {"count", "sub! start end", m_count},
    {"format", NULL, m_format}, {"format_map", "mapping!", m_format_map}, {"removeprefix", "prefix!", m_removeprefix},
    {"removesuffix", "suffix!", m_removesuffix}, {"zfill", "width!", m_zfill}, {"ljust", "width! fillchar", m_ljust},
    {"rjust", "width! fillchar", m_rjust}, {"center", "width! fillchar", m_center}, {"partition", "sep!", m_partition},
    {"rpartition", "sep!", m_rpartition}, {"expandtabs", "tabsize", m_expandtabs}, {"encode", "encoding errors", m_encode},
    {"isalpha", "", m_isalpha}, {"isdigit", "", m_isdigit}, {"isdecimal", "", m_isdecimal}, {"isnumeric", "", m_isnumeric},
    {"isalnum", "", m_isalnum}, {"isspace", "", m_isspace}, {"isprintable", "", m_isprintable}, {"isascii", "", m_isascii},
    {"islower", "", m_islower}, {"isupper", "", m_isupper}, {"istitle", "", m_istitle}, {"isidentifier", "", m_isidentifier},
    {NULL, NULL, NULL},
};

/* ---- list, tuple, dict ---- */

METHOD(m_list_index)
{
    UNUSED(args);
    int64_t n = (int64_t)self.u.list->n, a, b;
    if (!jinja_arg_int(r, argv[1], 0, &a, "start") || !jinja_arg_int(r, argv[2], n, &b, "end"))
        return false;
    a = a < 0 ? (a + n < 0 ? 0 : a + n) : a;
    b = b < 0 ? b + n : b > n ? n : b;
    for (; a < b; a++) {
        bool same = jinja_identical(self.u.list->items[a], argv[0]);
        if (!same && !jinja_eq(r, self.u.list->items[a], argv[0], &same))
            return false;
        if (same) {
            *out = jv_int(a);
            return true;
        }
    }
    return jinja_fail(r, "the value is not in the %s", jinja_type_name(self));
}

METHOD(m_list_count)
{
    UNUSED(args);
    int64_t n = 0;
    for (size_t i = 0; i < self.u.list->n; i++) {
        bool same = jinja_identical(self.u.list->items[i], argv[0]);
        if (!same && !jinja_eq(r, self.u.list->items[i], argv[0], &same))
            return false;
        n += same;
    }
    *out = jv_int(n);
    return true;
}

METHOD(m_range_index)
{
    UNUSED(args);
    bool in;
    if (!jinja_contains(r, self, argv[0], &in))
        return false;
    if (!in)
        return jinja_fail(r, "the value is not in range");
    int64_t v = argv[0].t == JT_FLOAT ? (int64_t)argv[0].u.f : jv_as_int(argv[0]);
    *out = jv_int((int64_t)(((__int128)v - self.u.range->start) / self.u.range->step));
    return true;
}

METHOD(m_range_count)
{
    UNUSED(args);
    bool in;
    if (!jinja_contains(r, self, argv[0], &in))
        return false;
    *out = jv_int(in);
    return true;
}

METHOD(m_list_copy) { UNUSED(args); UNUSED(argv); return jinja_to_list(r, self, out); }

static bool make_view(struct jrender *r, struct jval self, enum jview_kind kind, struct jval *out)
{
    struct jview *v = jinja_alloc(r, 1, sizeof *v);
    if (!v)
        return false;
    *v = (struct jview){.dict = self.u.dict, .kind = kind};
    *out = (struct jval){.t = JT_VIEW, .u.view = v};
    return true;
}

METHOD(m_keys) { UNUSED(args); UNUSED(argv); return make_view(r, self, JVIEW_KEYS, out); }
METHOD(m_values) { UNUSED(args); UNUSED(argv); return make_view(r, self, JVIEW_VALUES, out); }
METHOD(m_items) { UNUSED(args); UNUSED(argv); return make_view(r, self, JVIEW_ITEMS, out); }

METHOD(m_get)
{
    UNUSED(args);
    bool found;
    if (!jinja_dict_get(r, self.u.dict, argv[0], out, &found))
        return false;
    if (!found)
        *out = argv[1].t == JT_MISSING ? jv_none() : argv[1];
    return true;
}

METHOD(m_dict_copy)
{
    UNUSED(args);
    UNUSED(argv);
    if (!jinja_dict_new(r, out))
        return false;
    for (size_t i = 0; i < self.u.dict->n; i++)
        if (!jinja_charge(r, 1) || !jinja_dict_put(r, out->u.dict, self.u.dict->items[i].key, self.u.dict->items[i].value))
            return false;
    return true;
}

static const struct jfunc_spec LIST_METHODS[] = {{"index", "value! start end", m_list_index}, {"count", "value!", m_list_count},
                                                 {"copy", "", m_list_copy}, {NULL, NULL, NULL}};
static const struct jfunc_spec TUPLE_METHODS[] = {{"index", "value! start end", m_list_index}, {"count", "value!", m_list_count}, {NULL, NULL, NULL}};
static const struct jfunc_spec RANGE_METHODS[] = {{"index", "value!", m_range_index}, {"count", "value!", m_range_count}, {NULL, NULL, NULL}};
static const struct jfunc_spec DICT_METHODS[] = {{"keys", "", m_keys}, {"values", "", m_values}, {"items", "", m_items},
                                                 {"get", "key! default", m_get}, {"copy", "", m_dict_copy}, {NULL, NULL, NULL}};

/* ---- loop, cycler ---- */

METHOD(m_loop_cycle)
{
    UNUSED(argv);
    if (args->n_pos == 0)
        return jinja_fail(r, "no items for cycling given");
    *out = args->pos[(size_t)self.u.loop->index0 % args->n_pos];
    return true;
}

METHOD(m_loop_changed)
{
    UNUSED(argv);
    struct jval now;
    bool same = false;
    if (!jinja_list_new(r, JT_TUPLE, args->n_pos, &now))
        return false;
    for (size_t i = 0; i < args->n_pos; i++)
        if (!jinja_list_push(r, now.u.list, args->pos[i]))
            return false;
    if (self.u.loop->changed.t != JT_MISSING && !jinja_eq(r, self.u.loop->changed, now, &same))
        return false;
    self.u.loop->changed = now;
    *out = jv_bool(!same);
    return true;
}

METHOD(m_cycler_next)
{
    UNUSED(r);
    UNUSED(argv);
    UNUSED(args);
    struct jcycler *c = self.u.cycler;
    *out = c->items[c->pos];
    c->pos = (c->pos + 1) % c->n;
    return true;
}

METHOD(m_cycler_reset)
{
    UNUSED(r);
    UNUSED(argv);
    UNUSED(args);
    self.u.cycler->pos = 0;
    *out = jv_none();
    return true;
}

static const struct jfunc_spec LOOP_METHODS[] = {{"cycle", NULL, m_loop_cycle}, {"changed", NULL, m_loop_changed}, {NULL, NULL, NULL}};
static const struct jfunc_spec CYCLER_METHODS[] = {{"next", "", m_cycler_next}, {"reset", "", m_cycler_reset}, {NULL, NULL, NULL}};

const struct jfunc_spec *jinja_spec_find(const struct jfunc_spec *table, const char *name, size_t len)
{
    for (; table && table->name; table++)
        if (strlen(table->name) == len && memcmp(table->name, name, len) == 0)
            return table;
    return NULL;
}

const struct jfunc_spec *jinja_str_method(const char *name, size_t len)
{
    return jinja_spec_find(STR_METHODS, name, len);
}

const struct jfunc_spec *jinja_obj_method(enum jtype t, const char *name, size_t len)
{
    switch (t) {
    case JT_LIST: return jinja_spec_find(LIST_METHODS, name, len);
    case JT_TUPLE: return jinja_spec_find(TUPLE_METHODS, name, len);
    case JT_RANGE: return jinja_spec_find(RANGE_METHODS, name, len);
    case JT_DICT: return jinja_spec_find(DICT_METHODS, name, len);
    case JT_LOOP: return jinja_spec_find(LOOP_METHODS, name, len);
    case JT_CYCLER: return jinja_spec_find(CYCLER_METHODS, name, len);
    default: return NULL;
    }
}
