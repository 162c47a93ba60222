/* jinja_print.c - values as text: str(), repr(), HTML escaping, JSON. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>
#include "base/utf8.h"
#include "tok/jinja_int.h"

/* The shortest digits that give f back, laid out as Python's repr does. */
void jinja_fmt_float(double f, char out[40])
{
    char e[40];
    if (!isfinite(f)) {
        strcpy(out, isnan(f) ? "nan" : f < 0 ? "-inf" : "inf");
        return;
    }
    for (int prec = 0; prec <= 17; prec++) {
        snprintf(e, sizeof e, "%.*e", prec, f);
        if (strtod(e, NULL) == f)
            break;
    }
    char digits[24], *p = e, *o = out;
    size_t n = 0;
    if (*p == '-')
        *o++ = *p++;
    for (; *p && *p != 'e'; p++)
        if (*p != '.' && n < sizeof digits - 1)
            digits[n++] = *p;
    while (n > 1 && digits[n - 1] == '0')
        n--;
    int exp10 = *p == 'e' ? atoi(p + 1) : 0;
    if (exp10 < -4 || exp10 >= 16) {
        *o++ = digits[0];
        if (n > 1) {
            *o++ = '.';
            memcpy(o, digits + 1, n - 1);
            o += n - 1;
        }
        snprintf(o, 16, "e%c%02d", exp10 < 0 ? '-' : '+', abs(exp10));
        return;
    }
    if (exp10 < 0) {
        *o++ = '0';
        *o++ = '.';
        for (int i = -1; i > exp10; i--)
            *o++ = '0';
        memcpy(o, digits, n);
        o += n;
    } else {
        for (int i = 0; i <= exp10; i++)
            *o++ = (size_t)i < n ? digits[i] : '0';
        *o++ = '.';
        if (n > (size_t)exp10 + 1) {
            memcpy(o, digits + exp10 + 1, n - (size_t)exp10 - 1);
            o += n - (size_t)exp10 - 1;
        } else {
            *o++ = '0';
        }
    }
    *o = 0;
}

/* str.isprintable of one character. */
static bool printable(uint32_t cp)
{
    utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)cp);
    return cp == ' ' || !(c == UTF8PROC_CATEGORY_CN || c >= UTF8PROC_CATEGORY_ZS);
}

static void repr_str(const struct jstr *s, struct buf *b)
{
    char quote = memchr(s->s, '\'', s->len) && !memchr(s->s, '"', s->len) ? '"' : '\'';
    if (s->markup)
        buf_puts(b, "Markup(");
    buf_putc(b, quote);
    for (size_t i = 0; i < s->len;) {
        uint32_t cp;
        int k = utf8_decode(s->s + i, s->len - i, &cp);
        if (k <= 0) {
            k = 1;
            cp = 0xFFFD;
        }
        if (cp == (uint32_t)quote || cp == '\\')
            buf_printf(b, "\\%c", (int)cp);
        else if (cp == '\n')
            buf_puts(b, "\\n");
        else if (cp == '\r')
            buf_puts(b, "\\r");
        else if (cp == '\t')
            buf_puts(b, "\\t");
        else if (cp < 0x20 || cp == 0x7F || (cp > 0x7F && !printable(cp)))
            buf_printf(b, cp < 0x100 ? "\\x%02x" : cp < 0x10000 ? "\\u%04x" : "\\U%08x", (unsigned)cp);
        else
            buf_append(b, s->s + i, (size_t)k);
        i += (size_t)k;
    }
    buf_putc(b, quote);
    if (s->markup)
        buf_putc(b, ')');
}

static bool repr_list(struct jrender *r, const struct jlist *l, const char *open, const char *close, struct buf *b)
{
    buf_puts(b, open);
    for (size_t i = 0; i < l->n; i++) {
        if (i > 0)
            buf_puts(b, ", ");
        if (!jinja_repr(r, l->items[i], b))
            return false;
    }
    buf_puts(b, close);
    return true;
}

static bool repr_dict(struct jrender *r, const struct jdict *d, struct buf *b)
{
    buf_putc(b, '{');
    for (size_t i = 0; i < d->n; i++) {
        if (i > 0)
            buf_puts(b, ", ");
        if (!jinja_repr(r, d->items[i].key, b))
            return false;
        buf_puts(b, ": ");
        if (!jinja_repr(r, d->items[i].value, b))
            return false;
    }
    buf_putc(b, '}');
    return true;
}

static bool repr_view(struct jrender *r, const struct jview *v, struct buf *b)
{
    const struct jdict *d = v->dict;
    buf_puts(b, v->kind == JVIEW_KEYS ? "dict_keys([" : v->kind == JVIEW_VALUES ? "dict_values([" : "dict_items([");
    for (size_t i = 0; i < d->n; i++) {
        buf_puts(b, i > 0 ? ", " : "");
        if (v->kind == JVIEW_ITEMS)
            buf_putc(b, '(');
        if (v->kind != JVIEW_VALUES && !jinja_repr(r, d->items[i].key, b))
            return false;
        if (v->kind == JVIEW_ITEMS)
            buf_puts(b, ", ");
        if (v->kind != JVIEW_KEYS && !jinja_repr(r, d->items[i].value, b))
            return false;
        if (v->kind == JVIEW_ITEMS)
            buf_putc(b, ')');
    }
    buf_puts(b, "])");
    return true;
}

/* The kinds whose repr in the reference has an address or is of no use: a fixed text. */
static bool repr_object(struct jrender *r, struct jval v, struct buf *b)
{
    int64_t n;
    switch (v.t) {
    case JT_MACRO:
        if (v.u.macro->node->kind == JN_MACRO)
            buf_printf(b, "<Macro '%.*s'>", (int)v.u.macro->node->name_len, v.u.macro->node->name);
        else
            buf_puts(b, "<Macro anonymous>");
        return true;
    case JT_LOOP:
        if (!jinja_loop_length(r, v.u.loop, &n))
            return false;
        buf_printf(b, "<LoopContext %lld/%lld>", (long long)v.u.loop->index0 + 1, (long long)n);
        return true;
    case JT_FUNC:
        buf_printf(b, "<function %s>", v.u.func->name);
        return true;
    case JT_METHOD:
        buf_printf(b, "<built-in method %s of %s object>", v.u.method->spec->name, jinja_type_name(v.u.method->self));
        return true;
    default:
        buf_printf(b, "<%s object>", jinja_type_name(v));
        return true;
    }
}

static bool repr_deep(struct jrender *r, struct jval v, struct buf *b)
{
    switch (v.t) {
    case JT_LIST: return repr_list(r, v.u.list, "[", "]", b);
    case JT_TUPLE: return repr_list(r, v.u.list, "(", v.u.list->n == 1 ? ",)" : ")", b);
    case JT_DICT: return repr_dict(r, v.u.dict, b);
    case JT_VIEW: return repr_view(r, v.u.view, b);
    case JT_NAMESPACE:
        buf_puts(b, "<Namespace ");
        if (!repr_dict(r, v.u.dict, b))
            return false;
        buf_putc(b, '>');
        return true;
    case JT_RANGE:
        buf_printf(b, "range(%lld, %lld", (long long)v.u.range->start, (long long)v.u.range->stop);
        if (v.u.range->step != 1)
            buf_printf(b, ", %lld", (long long)v.u.range->step);
        buf_putc(b, ')');
        return true;
    default: return repr_object(r, v, b);
    }
}

bool jinja_repr(struct jrender *r, struct jval v, struct buf *b)
{
    char num[40];
    if (!jinja_charge(r, 1) || b->failed)
        return jinja_fail_code(r, ERR_TOO_LARGE, "the text is larger than allowed (%zu bytes)", b->limit);
    switch (v.t) {
    case JT_MISSING:
    case JT_UNDEFINED: buf_puts(b, "Undefined"); return true;
    case JT_NONE: buf_puts(b, "None"); return true;
    case JT_BOOL: buf_puts(b, v.u.b ? "True" : "False"); return true;
    case JT_INT: buf_printf(b, "%lld", (long long)v.u.i); return true;
    case JT_FLOAT:
        jinja_fmt_float(v.u.f, num);
        buf_puts(b, num);
        return true;
    case JT_STR:
        repr_str(v.u.s, b);
        return jinja_charge(r, v.u.s->len / 16);
    default:
        if (!jinja_enter(r))
            return false;
        bool ok = repr_deep(r, v, b);
        jinja_leave(r);
        return ok;
    }
}

bool jinja_print(struct jrender *r, struct jval v, struct buf *b)
{
    if (v.t == JT_STR) {
        buf_append(b, v.u.s->s, v.u.s->len);
        return jinja_charge(r, v.u.s->len / 64);
    }
    return v.t == JT_UNDEFINED || jinja_repr(r, v, b);
}

bool jinja_to_str(struct jrender *r, struct jval v, struct jval *out)
{
    if (v.t == JT_STR) {
        *out = v;
        return true;
    }
    struct buf b;
    jinja_buf_init(r, &b);
    if (!jinja_print(r, v, &b)) {
        buf_free(&b);
        return false;
    }
    return jinja_str_take(r, &b, out);
}

bool jinja_escape(struct jrender *r, struct jval v, struct jval *out)
{
    if (!jinja_to_str(r, v, &v))
        return false;
    const struct jstr *s = v.u.s;
    if (s->markup) {
        *out = v;
        return true;
    }
    struct buf b;
    jinja_buf_init(r, &b);
    for (size_t i = 0, from = 0; i <= s->len; i++) {
        const char *rep = i == s->len ? "" : s->s[i] == '&' ? "&amp;" : s->s[i] == '<' ? "&lt;" : s->s[i] == '>' ? "&gt;"
                        : s->s[i] == '"' ? "&#34;" : s->s[i] == '\'' ? "&#39;" : NULL;
        if (rep) {
            buf_append(&b, s->s + from, i - from);
            buf_puts(&b, rep);
            from = i + 1;
        }
    }
    if (!jinja_str_take(r, &b, out))
        return false;
    out->u.s->markup = true;
    return true;
}

/* ---- JSON, as json.dumps ---- */

struct dumper {
    struct jrender *r;
    struct buf *b;
    bool ascii, sort;
    const char *indent;         /* NULL: one line */
    size_t indent_len;
    int64_t indent_n;           /* spaces, when indent is NULL and >= 0 */
    bool pretty;
    struct jstr item_sep, key_sep;
};

static void json_str(struct dumper *d, const struct jstr *s)
{
    struct buf *b = d->b;
    buf_putc(b, '"');
    for (size_t i = 0, from = 0; i <= s->len;) {
        unsigned char ch = i < s->len ? (unsigned char)s->s[i] : 0;
        if (i < s->len && ch >= 0x20 && ch != '"' && ch != '\\' && (!d->ascii || ch < 0x7F)) {
            i++;
            continue;
        }
        buf_append(b, s->s + from, i - from);
        if (i == s->len)
            break;
        uint32_t cp = ch;
        int k = ch < 0x80 ? 1 : utf8_decode(s->s + i, s->len - i, &cp);
        const char *p = strchr("\"\\\n\r\t\b\f", (int)cp);
        if (cp && cp < 0x80 && p)
            buf_printf(b, "\\%c", "\"\\nrtbf"[p - "\"\\\n\r\t\b\f"]);
        else if (cp >= 0x10000)
            buf_printf(b, "\\u%04x\\u%04x", 0xD800 + (unsigned)((cp - 0x10000) >> 10), 0xDC00 + (unsigned)((cp - 0x10000) & 0x3FF));
        else
            buf_printf(b, "\\u%04x", (unsigned)cp);
        i += (size_t)(k > 0 ? k : 1);
        from = i;
    }
    buf_putc(b, '"');
}

static void json_newline(struct dumper *d, int depth)
{
    if (!d->pretty)
        return;
    buf_putc(d->b, '\n');
    for (int i = 0; i < depth && !d->b->failed; i++) {
        if (d->indent)
            buf_append(d->b, d->indent, d->indent_len);
        for (int64_t k = 0; !d->indent && k < d->indent_n && !d->b->failed; k++)
            buf_putc(d->b, ' ');
    }
}

static void json_float(struct dumper *d, double f)
{
    char num[40];
    if (isfinite(f))
        jinja_fmt_float(f, num);
    else
        strcpy(num, isnan(f) ? "NaN" : f < 0 ? "-Infinity" : "Infinity");
    buf_puts(d->b, num);
}

static bool json_key(struct dumper *d, struct jval k)
{
    if (k.t == JT_STR) {
        json_str(d, k.u.s);
        return true;
    }
    buf_putc(d->b, '"');
    switch (k.t) {
    case JT_NONE: buf_puts(d->b, "null"); break;
    case JT_BOOL: buf_puts(d->b, k.u.b ? "true" : "false"); break;
    case JT_INT: buf_printf(d->b, "%lld", (long long)k.u.i); break;
    case JT_FLOAT: json_float(d, k.u.f); break;
    default: return jinja_fail(d->r, "tojson: keys must be str, int, float, bool or None, not %s", jinja_type_name(k));
    }
    buf_putc(d->b, '"');
    return true;
}

static bool json_value(struct dumper *d, struct jval v, int depth);

static bool json_list(struct dumper *d, const struct jlist *l, int depth)
{
    buf_putc(d->b, '[');
    for (size_t i = 0; i < l->n; i++) {
        if (i > 0)
            buf_append(d->b, d->item_sep.s, d->item_sep.len);
        json_newline(d, depth + 1);
        if (!json_value(d, l->items[i], depth + 1))
            return false;
    }
    if (l->n > 0)
        json_newline(d, depth);
    buf_putc(d->b, ']');
    return true;
}

static bool json_dict(struct dumper *d, const struct jdict *dict, int depth)
{
    struct jpair *items = dict->items;
    if (d->sort && dict->n > 1) {
        struct jval *order = jinja_alloc(d->r, dict->n, sizeof *order), *keys = jinja_alloc(d->r, dict->n, sizeof *keys);
        items = jinja_alloc(d->r, dict->n, sizeof *items);
        if (!order || !keys || !items)
            return false;
        for (size_t i = 0; i < dict->n; i++) {
            keys[i] = dict->items[i].key;
            order[i] = jv_int((int64_t)i);
        }
        if (!jinja_sort(d->r, order, keys, dict->n, false))
            return false;
        for (size_t i = 0; i < dict->n; i++)
            items[i] = dict->items[order[i].u.i];
    }
    buf_putc(d->b, '{');
    for (size_t i = 0; i < dict->n; i++) {
        if (i > 0)
            buf_append(d->b, d->item_sep.s, d->item_sep.len);
        json_newline(d, depth + 1);
        if (!json_key(d, items[i].key))
            return false;
        buf_append(d->b, d->key_sep.s, d->key_sep.len);
        if (!json_value(d, items[i].value, depth + 1))
            return false;
    }
    if (dict->n > 0)
        json_newline(d, depth);
    buf_putc(d->b, '}');
    return true;
}

static bool json_value(struct dumper *d, struct jval v, int depth)
{
    if (!jinja_charge(d->r, 1) || d->b->failed)
        return jinja_fail_code(d->r, ERR_TOO_LARGE, "tojson: the text is larger than allowed (%zu bytes)", d->b->limit);
    switch (v.t) {
    case JT_NONE: buf_puts(d->b, "null"); return true;
    case JT_BOOL: buf_puts(d->b, v.u.b ? "true" : "false"); return true;
    case JT_INT: buf_printf(d->b, "%lld", (long long)v.u.i); return true;
    case JT_FLOAT: json_float(d, v.u.f); return true;
    case JT_STR:
        json_str(d, v.u.s);
        return jinja_charge(d->r, v.u.s->len / 16);
    case JT_LIST:
    case JT_TUPLE:
    case JT_DICT:
        if (!jinja_enter(d->r))
            return false;
        bool ok = v.t == JT_DICT ? json_dict(d, v.u.dict, depth) : json_list(d, v.u.list, depth);
        jinja_leave(d->r);
        return ok;
    default: return jinja_fail(d->r, "Object of type %s is not JSON serializable", jinja_type_name(v));
    }
}

static bool separators(struct jrender *r, struct jval v, struct dumper *d)
{
    if (v.t == JT_MISSING || v.t == JT_NONE)
        return true;
    if ((v.t != JT_TUPLE && v.t != JT_LIST) || v.u.list->n != 2 || v.u.list->items[0].t != JT_STR || v.u.list->items[1].t != JT_STR)
        return jinja_fail(r, "tojson: separators must be two strings");
    d->item_sep = *v.u.list->items[0].u.s;
    d->key_sep = *v.u.list->items[1].u.s;
    return true;
}

/* argv: ensure_ascii, indent, separators, sort_keys. */
bool jinja_tojson(struct jrender *r, struct jval v, struct jval *argv, struct jval *out)
{
    struct buf b;
    struct dumper d = {.r = r, .b = &b, .ascii = jinja_arg_bool(argv[0], false), .sort = jinja_arg_bool(argv[3], false)};
    d.key_sep = (struct jstr){.s = ": ", .len = 2};
    d.item_sep = (struct jstr){.s = ", ", .len = 2};
    if (argv[1].t == JT_STR) {
        d.pretty = true;
        d.indent = argv[1].u.s->s;
        d.indent_len = argv[1].u.s->len;
    } else if (jv_is_intlike(argv[1])) {
        d.pretty = true;
        d.indent_n = jv_as_int(argv[1]);
    } else if (argv[1].t != JT_MISSING && argv[1].t != JT_NONE) {
        return jinja_fail(r, "tojson: indent must be an integer or a string, not %s", jinja_type_name(argv[1]));
    }
    if (d.pretty)
        d.item_sep.len = 1;
    if (!separators(r, argv[2], &d))
        return false;
    jinja_buf_init(r, &b);
    if (!json_value(&d, v, 0)) {
        buf_free(&b);
        return false;
    }
    return jinja_str_take(r, &b, out);
}
