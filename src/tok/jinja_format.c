/* jinja_format.c - "%d items" % n and "{:>5}".format(x), as Python has them. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include "base/utf8.h"
#include "tok/jinja_int.h"

enum { WIDTH_MAX = 1 << 20, PRECISION_MAX = 1000 };

/* One conversion, of either kind. */
struct spec {
    const char *fill;
    size_t fill_len;
    char align;          /* '<' '>' '^' '=' or 0 */
    char sign;           /* '+' ' ' or '-' */
    bool alt, zero, percent;
    char group;          /* ',' '_' or 0 */
    int64_t width, precision;  /* precision -1: none */
    char type;
};

static bool read_number(struct jrender *r, const char **p, const char *end, int64_t *out)
{
    int64_t v = 0;
    while (*p < end && **p >= '0' && **p <= '9') {
        v = v * 10 + (*(*p)++ - '0');
        if (v > WIDTH_MAX)
            return jinja_fail_code(r, ERR_TOO_LARGE, "a width or precision in a format is larger than %d", WIDTH_MAX);
    }
    *out = v;
    return true;
}

/* text with sign and prefix in its first lead bytes, padded to the width. */
static bool put_padded(struct jrender *r, const struct spec *sp, const char *text, size_t len, size_t lead, char dflt_align, struct buf *b)
{
    int64_t pad = sp->width - (int64_t)utf8_length(text, len), left = 0;
    char align = sp->align ? sp->align : sp->zero ? '=' : dflt_align;
    const char *fill = sp->fill ? sp->fill : sp->zero ? "0" : " ";
    size_t fill_len = sp->fill ? sp->fill_len : 1;
    if (pad < 0)
        pad = 0;
    if (!jinja_charge(r, (uint64_t)pad / 8 + len / 16))
        return false;
    left = align == '>' || align == '=' ? pad : align == '^' ? pad / 2 : 0;
    if (align == '=')
        buf_append(b, text, lead);
    for (int64_t i = 0; i < left && !b->failed; i++)
        buf_append(b, fill, fill_len);
    buf_append(b, align == '=' ? text + lead : text, align == '=' ? len - lead : len);
    for (int64_t i = left; i < pad && !b->failed; i++)
        buf_append(b, fill, fill_len);
    return true;
}

/* Puts ',' or '_' into digits[0..n), every size digits from the right. */
static size_t group_digits(const char *digits, size_t n, char sep, size_t size, char *out)
{
    size_t k = 0;
    for (size_t i = 0; i < n; i++) {
        if (i > 0 && (n - i) % size == 0)
            out[k++] = sep;
        out[k++] = digits[i];
    }
    return k;
}

static bool put_int(struct jrender *r, const struct spec *sp, int64_t v, struct buf *b)
{
    char digits[72], text[PRECISION_MAX + 200];
    size_t n = 0, k = 0;
    uint64_t u = v < 0 ? 0 - (uint64_t)v : (uint64_t)v;
    unsigned base = sp->type == 'x' || sp->type == 'X' ? 16 : sp->type == 'o' ? 8 : sp->type == 'b' ? 2 : 10;
    do {
        digits[sizeof digits - 1 - n++] = (sp->type == 'X' ? "0123456789ABCDEF" : "0123456789abcdef")[u % base];
        u /= base;
    } while (u);
    if (v < 0)
        text[k++] = '-';
    else if (sp->sign == '+' || sp->sign == ' ')
        text[k++] = sp->sign;
    if (sp->alt && base != 10) {
        text[k++] = '0';
        text[k++] = sp->type;
    }
    size_t lead = k;
    for (int64_t i = (int64_t)n; sp->percent && i < sp->precision && i < PRECISION_MAX; i++)
        text[k++] = '0';
    const char *d = digits + sizeof digits - n;
    if (sp->group)
        k += group_digits(d, n, sp->group, base == 10 ? 3 : 4, text + k);
    else {
        memcpy(text + k, d, n);
        k += n;
    }
    return put_padded(r, sp, text, k, lead, '>', b);
}

static bool put_float(struct jrender *r, const struct spec *sp, double f, struct buf *b)
{
    char body[PRECISION_MAX + 400], text[2 * PRECISION_MAX + 900];
    char type = sp->type ? sp->type : 'r';
    int prec = sp->precision < 0 ? 6 : (int)sp->precision;
    size_t k = 0;
    if (prec > PRECISION_MAX)
        return jinja_fail_code(r, ERR_TOO_LARGE, "a precision in a format is larger than %d", PRECISION_MAX);
    if (signbit(f) && !isnan(f))
        text[k++] = '-';
    else if (sp->sign == '+' || sp->sign == ' ')
        text[k++] = sp->sign;
    f = fabs(f);
    if (!isfinite(f)) {
        snprintf(body, sizeof body, "%s", isnan(f) ? "nan" : "inf");
        if (type == 'F' || type == 'E' || type == 'G')
            for (char *p = body; *p; p++)
                *p = (char)(*p - 32);
    } else if (type == 'r' && sp->precision < 0) {
        char num[40];
        jinja_fmt_float(f, num);
        snprintf(body, sizeof body, "%s", num);
    } else if (type == '%') {
        snprintf(body, sizeof body, sp->alt ? "%#.*f" : "%.*f", prec, f * 100);
    } else {
        char fmt[12] = "%", t = type == 'r' || type == 'n' ? 'g' : type;
        snprintf(fmt, sizeof fmt, "%%%s.*%c", sp->alt ? "#" : "", t);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        snprintf(body, sizeof body, fmt, t == 'g' && prec == 0 ? 1 : prec, f);
#pragma GCC diagnostic pop
        if (type == 'r' && !strpbrk(body, ".en"))
            strcat(body, ".0");
    }
    if (type == '%')
        strcat(body, "%");
    size_t lead = k, whole = strspn(body, "0123456789");
    if (sp->group && whole > 0)
        k += group_digits(body, whole, sp->group, 3, text + k);
    else {
        memcpy(text + k, body, whole);
        k += whole;
    }
    size_t rest = strlen(body + whole);
    memcpy(text + k, body + whole, rest);
    return put_padded(r, sp, text, k + rest, lead, '>', b);
}

static bool put_str(struct jrender *r, const struct spec *sp, struct jstr *s, char align, struct buf *b)
{
    size_t len = s->len;
    if (sp->precision >= 0 && (size_t)sp->precision < jinja_str_chars(s))
        len = jinja_str_offset(s, (size_t)sp->precision);
    return put_padded(r, sp, s->s, len, 0, align, b);
}

/* ---- % ---- */

struct percent {
    struct jrender *r;
    const char *p, *end;
    struct jval arg;
    size_t next;          /* of a tuple */
    bool tuple, used, markup;   /* markup: the format is Markup, what goes in is escaped */
    struct buf *b;
};

static bool next_arg(struct percent *c, struct jval *out)
{
    if (c->tuple) {
        if (c->next >= c->arg.u.list->n)
            return jinja_fail(c->r, "not enough arguments for format string");
        *out = c->arg.u.list->items[c->next++];
        return true;
    }
    if (c->used)
        return jinja_fail(c->r, "not enough arguments for format string");
    c->used = true;
    *out = c->arg;
    return true;
}

static bool star_or_number(struct percent *c, int64_t *out)
{
    struct jval v;
    if (c->p >= c->end || *c->p != '*')
        return read_number(c->r, &c->p, c->end, out);
    c->p++;
    if (!next_arg(c, &v))
        return false;
    if (!jv_is_intlike(v))
        return jinja_fail(c->r, "* wants int");
    *out = jv_as_int(v);
    if (*out > WIDTH_MAX || *out < -WIDTH_MAX)
        return jinja_fail_code(c->r, ERR_TOO_LARGE, "a width or precision in a format is larger than %d", WIDTH_MAX);
    return true;
}

/* %(name)s picks from a dict. */
static bool mapping_key(struct percent *c, struct jval *out)
{
    struct jval key;
    bool found;
    int depth = 1;
    const char *from = ++c->p;
    for (; c->p < c->end && depth > 0; c->p++)
        depth += *c->p == '(' ? 1 : *c->p == ')' ? -1 : 0;
    if (depth > 0)
        return jinja_fail(c->r, "incomplete format key");
    if (c->arg.t != JT_DICT)
        return jinja_fail(c->r, "format requires a mapping");
    if (!jinja_str_borrow(c->r, from, (size_t)(c->p - 1 - from), &key) || !jinja_dict_get(c->r, c->arg.u.dict, key, out, &found))
        return false;
    c->used = true;
    return found || jinja_fail(c->r, "the format needs the key '%.*s'", (int)key.u.s->len, key.u.s->s);
}

/* The escapes of ascii(). */
static bool ascii_only(struct jrender *r, struct jval v, struct jval *out)
{
    struct buf b;
    jinja_buf_init(r, &b);
    for (size_t i = 0; i < v.u.s->len;) {
        uint32_t cp;
        int k = utf8_decode(v.u.s->s + i, v.u.s->len - i, &cp);
        if (k <= 1)
            buf_putc(&b, v.u.s->s[i]);
        else
            buf_printf(&b, cp < 0x100 ? "\\x%02x" : cp < 0x10000 ? "\\u%04x" : "\\U%08x", (unsigned)cp);
        i += (size_t)(k > 0 ? k : 1);
    }
    return jinja_str_take(r, &b, out);
}

static bool percent_value(struct percent *c, struct spec *sp, struct jval v)
{
    struct jrender *r = c->r;
    struct jval s;
    switch (sp->type) {
    case 's':
        return (c->markup ? jinja_escape(r, v, &s) : jinja_to_str(r, v, &s)) && put_str(r, sp, s.u.s, '>', c->b);
    case 'r':
    case 'a': {
        struct buf b;
        jinja_buf_init(r, &b);
        if (!jinja_repr(r, v, &b)) {
            buf_free(&b);
            return false;
        }
        return jinja_str_take(r, &b, &s) && (sp->type == 'r' || ascii_only(r, s, &s)) && (!c->markup || jinja_escape(r, s, &s)) && put_str(r, sp, s.u.s, '>', c->b);
    }
    case 'c':
        if (v.t == JT_STR && jinja_str_chars(v.u.s) == 1)
            return put_str(r, sp, v.u.s, '>', c->b);
        if (jv_is_intlike(v) && jv_as_int(v) >= 0 && jv_as_int(v) <= 0x10FFFF && !(jv_as_int(v) >= 0xD800 && jv_as_int(v) <= 0xDFFF)) {
            char utf8[4];
            int n = utf8_encode((uint32_t)jv_as_int(v), utf8);
            return put_padded(r, sp, utf8, (size_t)n, 0, '>', c->b);
        }
        return jinja_fail(r, "%%c requires int or char");
    case 'd': case 'i': case 'u':
        if (v.t == JT_FLOAT && fabs(v.u.f) < 9e18)
            v = jv_int((int64_t)v.u.f);
        /* fall through */
    case 'x': case 'X': case 'o':
        if (!jv_is_intlike(v))
            return v.t == JT_UNDEFINED ? jinja_fail_undef(r, v) : jinja_fail(r, "%%%c format: an integer is required, not %s", sp->type, jinja_type_name(v));
        return put_int(r, sp, jv_as_int(v), c->b);
    case 'e': case 'E': case 'f': case 'F': case 'g': case 'G':
        if (!jv_is_num(v))
            return v.t == JT_UNDEFINED ? jinja_fail_undef(r, v) : jinja_fail(r, "must be real number, not %s", jinja_type_name(v));
        return put_float(r, sp, jv_as_float(v), c->b);
    default: return jinja_fail(r, "unsupported format character '%c'", sp->type);
    }
}

static bool percent_one(struct percent *c)
{
    struct spec sp = {.precision = -1, .percent = true};
    struct jval v = jv_missing();
    if (c->p < c->end && *c->p == '(' && !mapping_key(c, &v))
        return false;
    for (; c->p < c->end && strchr("-+ #0", *c->p) && *c->p; c->p++) {
        switch (*c->p) {
        case '-': sp.align = '<'; break;
        case '+': sp.sign = '+'; break;
        case ' ': sp.sign = sp.sign ? sp.sign : ' '; break;
        case '#': sp.alt = true; break;
        default: sp.zero = true;
        }
    }
    if (!star_or_number(c, &sp.width))
        return false;
    if (sp.width < 0) {
        sp.align = '<';
        sp.width = -sp.width;
    }
    if (c->p < c->end && *c->p == '.') {
        c->p++;
        if (!star_or_number(c, &sp.precision))
            return false;
        if (sp.precision < 0)
            sp.precision = 0;
    }
    while (c->p < c->end && (*c->p == 'h' || *c->p == 'l' || *c->p == 'L'))
        c->p++;
    if (c->p >= c->end)
        return jinja_fail(c->r, "incomplete format");
    sp.type = *c->p++;
    if (sp.type == '%') {
        buf_putc(c->b, '%');
        return true;
    }
    if (sp.align == '<')
        sp.zero = false;
    if (strchr("sracC", sp.type))
        sp.zero = false;
    if (v.t == JT_MISSING && !next_arg(c, &v))
        return false;
    return percent_value(c, &sp, v);
}

bool jinja_percent(struct jrender *r, struct jval fmt, struct jval arg, struct jval *out)
{
    struct buf b;
    const struct jstr *s = fmt.u.s;
    struct percent c = {.r = r, .p = s->s, .end = s->s + s->len, .arg = arg, .tuple = arg.t == JT_TUPLE, .markup = s->markup, .b = &b};
    bool ok = true;
    jinja_buf_init(r, &b);
    while (ok && c.p < c.end && !b.failed) {
        const char *q = memchr(c.p, '%', (size_t)(c.end - c.p));
        if (!q)
            q = c.end;
        buf_append(&b, c.p, (size_t)(q - c.p));
        c.p = q;
        if (q < c.end) {
            c.p++;
            ok = percent_one(&c);
        }
    }
    /* Arguments left over are an error, except a dict or list, which only serves lookups. */
    if (ok && !b.failed && (c.tuple ? c.next < arg.u.list->n : !c.used && arg.t != JT_DICT && arg.t != JT_LIST && arg.t != JT_UNDEFINED && arg.t != JT_RANGE))
        ok = jinja_fail(r, "not all arguments converted during string formatting");
    if (!ok) {
        buf_free(&b);
        return false;
    }
    if (!jinja_str_take(r, &b, out))
        return false;
    out->u.s->markup = s->markup;
    return true;
}

/* ---- str.format ---- */

struct braces {
    struct jrender *r;
    const struct jargs *args;
    size_t next;
    bool automatic, manual, markup;
    struct buf *b;
};

static bool expand(struct braces *c, const char *p, const char *end, int depth, struct buf *b);

static bool field_start(struct braces *c, const char *s, size_t n, struct jval *out)
{
    int64_t i;
    bool overflow;
    if (n == 0) {
        if (c->manual)
            return jinja_fail(c->r, "cannot switch from manual field specification to automatic field numbering");
        c->automatic = true;
        i = (int64_t)c->next++;
    } else if (strspn(s, "0123456789") >= n || (s[0] >= '0' && s[0] <= '9' && jinja_parse_int(s, n, 10, &i, &overflow))) {
        if (!jinja_parse_int(s, n, 10, &i, &overflow))
            return jinja_fail(c->r, "a field number in a format is too large");
        if (c->automatic)
            return jinja_fail(c->r, "cannot switch from automatic field numbering to manual field specification");
        c->manual = true;
    } else {
        for (size_t k = 0; k < c->args->n_kw; k++)
            if (c->args->kw[k].len == n && memcmp(c->args->kw[k].name, s, n) == 0) {
                *out = c->args->kw[k].v;
                return true;
            }
        return jinja_fail(c->r, "the format has no value for '%.*s'", (int)(n < 60 ? n : 60), s);
    }
    if (i < 0 || (size_t)i >= c->args->n_pos)
        return jinja_fail(c->r, "Replacement index %lld out of range for positional args tuple", (long long)i);
    *out = c->args->pos[i];
    return true;
}

/* name(.attr | [index])* */
static bool field_value(struct braces *c, const char *s, const char *end, struct jval *out)
{
    const char *p = s;
    while (p < end && *p != '.' && *p != '[')
        p++;
    if (!field_start(c, s, (size_t)(p - s), out))
        return false;
    while (p < end) {
        const char *from = p + 1, *to = from;
        struct jval key;
        bool attr = *p == '.', overflow;
        int64_t i;
        while (to < end && (attr ? *to != '.' && *to != '[' : *to != ']'))
            to++;
        if ((!attr && to >= end) || to == from)
            return jinja_fail(c->r, "a malformed field in a format string");
        if (!jinja_str_borrow(c->r, from, (size_t)(to - from), &key))
            return false;
        if (!attr && from[0] >= '0' && from[0] <= '9' && jinja_parse_int(from, (size_t)(to - from), 10, &i, &overflow))
            key = jv_int(i);
        if (!(attr ? jinja_getattr(c->r, *out, key, out) : jinja_getitem(c->r, *out, key, out)))
            return false;
        p = attr ? to : to + 1;
        if (p < end && *p != '.' && *p != '[')
            return jinja_fail(c->r, "Only '.' or '[' may follow ']' in format field specifier");
    }
    return true;
}

static bool parse_spec(struct jrender *r, const char *p, const char *end, struct spec *sp)
{
    uint32_t cp;
    *sp = (struct spec){.precision = -1};
    int k = p < end ? utf8_decode(p, (size_t)(end - p), &cp) : 0;
    if (k > 0 && p + k < end && strchr("<>^=", p[k]) && p[k]) {
        sp->fill = p;
        sp->fill_len = (size_t)k;
        sp->align = p[k];
        p += k + 1;
    } else if (p < end && strchr("<>^=", *p) && *p) {
        sp->align = *p++;
    }
    if (p < end && (*p == '+' || *p == '-' || *p == ' '))
        sp->sign = *p++;
    if (p < end && *p == '#') {
        sp->alt = true;
        p++;
    }
    if (p < end && *p == '0') {
        sp->zero = true;
        p++;
    }
    if (!read_number(r, &p, end, &sp->width))
        return false;
    if (p < end && (*p == ',' || *p == '_'))
        sp->group = *p++;
    if (p < end && *p == '.') {
        p++;
        if (p >= end || *p < '0' || *p > '9')
            return jinja_fail(r, "Format specifier missing precision");
        if (!read_number(r, &p, end, &sp->precision))
            return false;
    }
    if (p < end)
        sp->type = *p++;
    return p == end || jinja_fail(r, "Invalid format specifier");
}

static bool put_value(struct jrender *r, struct jval v, const char *p, const char *end, struct buf *b)
{
    struct spec sp;
    struct jval s;
    if (p == end)
        return jinja_print(r, v, b);
    if (!parse_spec(r, p, end, &sp))
        return false;
    if (v.t == JT_STR) {
        if ((sp.type && sp.type != 's') || sp.sign || sp.group || sp.alt || sp.align == '=')
            return jinja_fail(r, "this format code is not for strings");
        if (sp.zero && !sp.align) {
            sp.align = '<';
            sp.fill = sp.fill ? sp.fill : "0";
            sp.fill_len = sp.fill_len ? sp.fill_len : 1;
        }
        return put_str(r, &sp, v.u.s, '<', b);
    }
    if (sp.group && sp.type && strchr(sp.group == ',' ? "nxXobc" : "nc", sp.type))
        return jinja_fail(r, "Cannot specify '%c' with '%c'.", sp.group, sp.type);
    if (v.t == JT_BOOL && !sp.type && !sp.group)
        return jinja_to_str(r, jv_int(v.u.b), &s) && put_int(r, &sp, v.u.b, b);
    if (jv_is_intlike(v) && (!sp.type || strchr("dnxXob", sp.type))) {
        if (sp.precision >= 0)
            return jinja_fail(r, "Precision not allowed in integer format specifier");
        return put_int(r, &sp, jv_as_int(v), b);
    }
    if (jv_is_intlike(v) && sp.type == 'c' && jv_as_int(v) >= 0 && jv_as_int(v) < 0xD800) {
        char utf8[4];
        return put_padded(r, &sp, utf8, (size_t)utf8_encode((uint32_t)jv_as_int(v), utf8), 0, '<', b);
    }
    if (jv_is_num(v) && (!sp.type || strchr("eEfFgGn%", sp.type)))
        return put_float(r, &sp, jv_as_float(v), b);
    if (jv_is_num(v))
        return jinja_fail(r, "Unknown format code '%c' for object of type '%s'", sp.type, jinja_type_name(v));
    return jinja_fail(r, "unsupported format string for a value of type %s", jinja_type_name(v));
}

/* {field!conversion:spec} between the braces. */
static bool replacement(struct braces *c, const char *p, const char *end, int depth, struct buf *b)
{
    const char *name_end = p, *spec = end;
    struct jval v;
    struct buf nested;
    bool in_index = false;
    for (; name_end < end && (in_index || (*name_end != '!' && *name_end != ':')); name_end++)
        in_index = *name_end == '[' || (in_index && *name_end != ']');
    if (!field_value(c, p, name_end, &v))
        return false;
    if (name_end < end && *name_end == '!') {
        char conv = name_end + 1 < end ? name_end[1] : 0;
        if ((conv != 's' && conv != 'r' && conv != 'a') || (name_end + 2 < end && name_end[2] != ':'))
            return jinja_fail(c->r, "a conversion in a format must be !s, !r or !a");
        jinja_buf_init(c->r, &nested);
        bool ok = conv == 's' ? jinja_print(c->r, v, &nested) : jinja_repr(c->r, v, &nested);
        if (!ok) {
            buf_free(&nested);
            return false;
        }
        if (!jinja_str_take(c->r, &nested, &v) || (conv == 'a' && !ascii_only(c->r, v, &v)))
            return false;
        name_end += 2;
    }
    if (name_end < end)
        spec = name_end + 1;
    if (c->markup && (v.t == JT_STR || spec == end) && !jinja_escape(c->r, v, &v))
        return false;
    jinja_buf_init(c->r, &nested);
    bool ok = expand(c, spec, end, depth + 1, &nested) && put_value(c->r, v, nested.data ? nested.data : "", (nested.data ? nested.data : "") + nested.len, b);
    buf_free(&nested);
    return ok;
}

static bool expand(struct braces *c, const char *p, const char *end, int depth, struct buf *b)
{
    if (depth > 2)
        return jinja_fail(c->r, "Max string recursion exceeded");
    while (p < end && !b->failed) {
        if ((*p == '{' || *p == '}') && p + 1 < end && p[1] == *p && depth == 0) {
            buf_putc(b, *p);
            p += 2;
        } else if (*p == '}') {
            return jinja_fail(c->r, "Single '}' encountered in format string");
        } else if (*p == '{') {
            const char *q = p + 1;
            int open = 1;
            for (; q < end && open > 0; q++)
                open += *q == '{' ? 1 : *q == '}' ? -1 : 0;
            if (open > 0)
                return jinja_fail(c->r, p + 1 == end ? "Single '{' encountered in format string" : "expected '}' before end of string");
            if (!replacement(c, p + 1, q - 1, depth, b))
                return false;
            p = q;
        } else {
            const char *q = p;
            while (q < end && *q != '{' && *q != '}')
                q++;
            buf_append(b, p, (size_t)(q - p));
            p = q;
        }
    }
    return true;
}

bool jinja_format(struct jrender *r, struct jval fmt, const struct jargs *args, struct jval *out)
{
    struct buf b;
    struct braces c = {.r = r, .args = args, .markup = fmt.u.s->markup, .b = &b};
    jinja_buf_init(r, &b);
    if (!jinja_charge(r, fmt.u.s->len / 4) || !expand(&c, fmt.u.s->s, fmt.u.s->s + fmt.u.s->len, 0, &b)) {
        buf_free(&b);
        return false;
    }
    if (!jinja_str_take(r, &b, out))
        return false;
    out->u.s->markup = fmt.u.s->markup;
    return true;
}
