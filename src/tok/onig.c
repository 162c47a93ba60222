/* Regular expressions of tokenizer.json are Oniguruma's (Ruby syntax); this rewrites them for PCRE2.
 *
 * What differs and is rewritten: \s \d \w \h \b and POSIX brackets (Unicode sets of Oniguruma),
 * \v (one character), \u, long property names, (?m) which is PCRE2's (?s), options that
 * reach to the end of the group over '|', classes inside classes, && in classes, {,n}, and
 * quantifiers on quantifiers, among them {n,m}+ which is not possessive in Ruby.
 * What PCRE2 has no equal for (absent operators, conditions on calls) is refused. */
#include <string.h>

#include "base/utf8.h"
#include "tok/tok_int.h"

enum { MAX_DEPTH = 50 };

#define SET_SPACE "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}"
#define SET_WORD "\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}\\x{24b6}-\\x{24e9}" \
    "\\x{1f130}-\\x{1f149}\\x{1f150}-\\x{1f169}\\x{1f170}-\\x{1f189}"
#define SET_HEX "0-9A-Fa-f"
#define NO_ATOM SIZE_MAX

struct onig {
    const char *start, *p, *end;
    int depth;
    struct err *e;
};

/* A class being read: a plain list of items, and what cannot be an item, each as an expression for one
 * character, joined by '|'. */
struct set { struct buf items, alts; };

static bool refuse(struct onig *o, const char *what)
{
    return err_set(o->e, ERR_UNSUPPORTED, "tokenizer.json: regular expression '%.200s': %s at byte %zu", o->start, what,
                   (size_t)(o->p - o->start));
}

static bool enter(struct onig *o)
{
    return ++o->depth <= MAX_DEPTH || refuse(o, "too deeply nested");
}

/* ---- properties and escapes that name sets */

static const char *const prop_names[][2] = {
    {"letter", "\\p{L}"}, {"uppercaseletter", "\\p{Lu}"}, {"lowercaseletter", "\\p{Ll}"}, {"titlecaseletter", "\\p{Lt}"},
    {"modifierletter", "\\p{Lm}"}, {"otherletter", "\\p{Lo}"}, {"mark", "\\p{M}"}, {"nonspacingmark", "\\p{Mn}"},
    {"spacingmark", "\\p{Mc}"}, {"enclosingmark", "\\p{Me}"}, {"number", "\\p{N}"}, {"decimalnumber", "\\p{Nd}"},
    {"letternumber", "\\p{Nl}"}, {"othernumber", "\\p{No}"}, {"punctuation", "\\p{P}"}, {"connectorpunctuation", "\\p{Pc}"},
    {"dashpunctuation", "\\p{Pd}"}, {"openpunctuation", "\\p{Ps}"}, {"closepunctuation", "\\p{Pe}"},
    {"initialpunctuation", "\\p{Pi}"}, {"finalpunctuation", "\\p{Pf}"}, {"otherpunctuation", "\\p{Po}"},
    {"symbol", "\\p{S}"}, {"mathsymbol", "\\p{Sm}"}, {"currencysymbol", "\\p{Sc}"}, {"modifiersymbol", "\\p{Sk}"},
    {"othersymbol", "\\p{So}"}, {"separator", "\\p{Z}"}, {"spaceseparator", "\\p{Zs}"}, {"lineseparator", "\\p{Zl}"},
    {"paragraphseparator", "\\p{Zp}"}, {"other", "\\p{C}"}, {"control", "\\p{Cc}"}, {"format", "\\p{Cf}"},
    {"privateuse", "\\p{Co}"}, {"unassigned", "\\p{Cn}"}, {"alpha", "\\p{Alphabetic}"}, {"digit", "\\p{Nd}"},
    {"alnum", "\\p{Alphabetic}\\p{Nd}"}, {"upper", "\\p{Uppercase}"}, {"lower", "\\p{Lowercase}"}, {"punct", "\\p{P}"},
    {"space", SET_SPACE}, {"whitespace", SET_SPACE}, {"word", SET_WORD}, {"cntrl", "\\p{Cc}"}, {"xdigit", SET_HEX},
    {"blank", "\\p{Zs}\\x{9}"}, {"ascii", "\\x{0}-\\x{7f}"}, {"any", "\\x{0}-\\x{10ffff}"}, {"assigned", "\\P{Cn}"},
};

/* Class items of the property or POSIX bracket name, or NULL when the name is not one of ours. */
static const char *named_set(const char *name, size_t len, bool bracket)
{
    char key[32];
    size_t n = 0;
    for (size_t i = 0; i < len; i++) {
        char c = name[i];
        if (c == '_' || c == '-' || c == ' ')
            continue;
        if (n + 1 == sizeof key)
            return NULL;
        key[n++] = c >= 'A' && c <= 'Z' ? (char)(c + 32) : c;
    }
    key[n] = 0;
    if (bracket && strcmp(key, "punct") == 0)
        return "\\p{P}\\p{S}";
    for (size_t i = 0; i < sizeof prop_names / sizeof *prop_names; i++)
        if (strcmp(prop_names[i][0], key) == 0)
            return prop_names[i][1];
    return NULL;
}

/* At "\p{..}" or "\P{..}": items for a class in b and whether they are negated.  p moves behind. */
static bool read_property(struct onig *o, struct buf *b, bool *negated)
{
    const char *close = memchr(o->p, '}', (size_t)(o->end - o->p));
    *negated = o->p[1] == 'P';
    if (o->end - o->p < 4 || o->p[2] != '{' || !close)
        return refuse(o, "a property without braces");
    const char *name = o->p + 3;
    if (*name == '^') {
        *negated = !*negated;
        name++;
    }
    const char *items = named_set(name, (size_t)(close - name), false);
    if (items)
        buf_puts(b, items);
    else
        buf_printf(b, "\\p{%.*s}", (int)(close - name), name);
    o->p = close + 1;
    return !b->failed || tok_nomem(o->e);
}

/* Items of \s \w \d \h (or upper case: negated), or NULL. */
static const char *letter_set(char c, bool *negated)
{
    *negated = c >= 'A' && c <= 'Z';
    switch (c) {
    case 's': case 'S': return SET_SPACE;
    case 'w': case 'W': return SET_WORD;
    case 'd': case 'D': return "\\p{Nd}";
    case 'h': case 'H': return SET_HEX;
    default: return NULL;
    }
}

static int hex_value(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* Up to max hex digits at p, moving p; false when there is none. */
static bool read_hex(struct onig *o, int max, uint32_t *v)
{
    int n = 0;
    for (*v = 0; n < max && o->p < o->end && hex_value(*o->p) >= 0; n++)
        *v = *v * 16 + (uint32_t)hex_value(*o->p++);
    return n > 0;
}

/* The code point that "\x41", "\x{41}", "\u0041", "\n" or "\." at p stands for; p moves behind. */
static bool read_escaped_cp(struct onig *o, uint32_t *cp)
{
    static const char from[] = "tnrfaev", to[] = "\t\n\r\f\a\x1b\v";
    char c = o->p[1];
    o->p += 2;
    if (c == 'x' && o->p < o->end && *o->p == '{') {
        o->p++;
        if (!read_hex(o, 8, cp) || o->p == o->end || *o->p != '}' || *cp > 0x10ffff)
            return refuse(o, "a broken \\x{..}");
        o->p++;
        return true;
    }
    if (c == 'x' || c == 'u')
        return read_hex(o, c == 'x' ? 2 : 4, cp) || refuse(o, "hex digits missing");
    if (c == '0') {
        for (*cp = 0; o->p < o->end && *o->p >= '0' && *o->p <= '7' && *cp < 32; o->p++)
            *cp = *cp * 8 + (uint32_t)(*o->p - '0');
        return true;
    }
    const char *k = c ? strchr(from, c) : NULL;
    if (k) {
        *cp = (unsigned char)to[k - from];
        return true;
    }
    o->p--;   /* any other character stands for itself */
    o->p += tok_cp(o->p, cp);
    return true;
}

/* ---- classes */

static void add_alt(struct set *s, const char *text)
{
    if (s->alts.len)
        buf_putc(&s->alts, '|');
    buf_puts(&s->alts, text);
}

/* The expression for one character of the set; everything when it is empty and negated. */
static void write_set(const struct set *s, bool negated, struct buf *out)
{
    const char *items = s->items.len ? s->items.data : NULL;
    if (!s->alts.len) {
        if (items)
            buf_printf(out, negated ? "[^%s]" : "[%s]", items);
        else
            buf_puts(out, negated ? "(?s:.)" : "(?!)");
        return;
    }
    buf_puts(out, negated ? "(?:(?!" : "(?:");
    if (items)
        buf_printf(out, "[%s]|", items);
    buf_puts(out, s->alts.data);
    buf_puts(out, negated ? ")(?s:.))" : ")");
}

static void free_set(struct set *s)
{
    buf_free(&s->items);
    buf_free(&s->alts);
}

/* Add items, or their complement, to a set. */
static void add_items(struct set *s, const char *items, bool negated)
{
    if (!negated) {
        buf_puts(&s->items, items);
    } else {
        if (s->alts.len)
            buf_putc(&s->alts, '|');
        buf_printf(&s->alts, "[^%s]", items);
    }
}

/* "[:name:]" at p, or false without moving. */
static bool read_bracket_name(struct onig *o, struct set *s)
{
    const char *q = o->p + 2;
    if (o->end - o->p < 5 || o->p[1] != ':')
        return false;
    bool negated = *q == '^';
    const char *name = q + negated, *stop = name;
    while (stop < o->end && ((*stop >= 'a' && *stop <= 'z') || (*stop >= 'A' && *stop <= 'Z')))
        stop++;
    if (o->end - stop < 2 || stop[0] != ':' || stop[1] != ']')
        return false;
    const char *items = named_set(name, (size_t)(stop - name), true);
    if (!items)
        return false;
    add_items(s, items, negated);
    o->p = stop + 2;
    return true;
}

static bool read_class(struct onig *o, struct buf *out, struct set *plain);

/* A class inside a class. */
static bool read_inner(struct onig *o, struct set *s)
{
    struct buf text = {0};
    struct set plain = {0};
    bool ok = read_class(o, &text, &plain);
    if (ok && plain.items.len && !text.len)
        buf_puts(&s->items, plain.items.data);
    else if (ok)
        add_alt(s, text.data ? text.data : "(?!)");
    free_set(&plain);
    buf_free(&text);
    return ok;
}

/* A single code point of a class. */
static bool read_class_cp(struct onig *o, uint32_t *cp)
{
    if (*o->p == '\\' && o->end - o->p >= 2) {
        if (o->p[1] == 'b') {
            *cp = 8;
            o->p += 2;
            return true;
        }
        return read_escaped_cp(o, cp);
    }
    o->p += tok_cp(o->p, cp);
    return true;
}

static bool read_class_escape(struct onig *o, struct set *s, bool *done)
{
    bool negated;
    *done = true;
    if (o->end - o->p < 2)
        return refuse(o, "a lone backslash");
    const char *items = letter_set(o->p[1], &negated);
    if (items) {
        add_items(s, items, negated);
        o->p += 2;
        return true;
    }
    if (o->p[1] == 'p' || o->p[1] == 'P') {
        struct buf b = {0};
        bool ok = read_property(o, &b, &negated);
        if (ok)
            add_items(s, b.data, negated);
        buf_free(&b);
        return ok;
    }
    *done = false;
    return true;
}

/* One item: a set, a class, a character or a range. */
static bool read_item(struct onig *o, struct set *s)
{
    bool done;
    uint32_t lo, hi;
    if (*o->p == '[')
        return read_bracket_name(o, s) || read_inner(o, s);
    if (*o->p == '\\') {
        if (!read_class_escape(o, s, &done))
            return false;
        if (done)
            return true;
    }
    if (!read_class_cp(o, &lo))
        return false;
    hi = lo;
    if (o->end - o->p >= 2 && o->p[0] == '-' && o->p[1] != ']' && o->p[1] != '[') {
        const char *dash = o->p++;
        bool negated;
        if (*o->p == '\\' && o->end - o->p >= 2 && (letter_set(o->p[1], &negated) || o->p[1] == 'p' || o->p[1] == 'P'))
            o->p = dash;      /* "a-\d": the dash is a character */
        else if (!read_class_cp(o, &hi))
            return false;
    }
    if (hi < lo)
        return refuse(o, "an empty range");
    buf_printf(&s->items, lo == hi ? "\\x{%x}" : "\\x{%x}-\\x{%x}", lo, hi);
    return true;
}

/* A class whose '[' is at p.  Its expression goes to out; but a plain list that is not negated goes
 * to plain (when given) and out stays empty. */
static bool read_class(struct onig *o, struct buf *out, struct set *plain)
{
    struct set s = {0};
    struct buf and = {0};       /* lookaheads of the parts before && */
    bool ok = enter(o), first = true;
    o->p++;
    bool negated = o->p < o->end && *o->p == '^';
    o->p += negated;
    for (; ok && o->p < o->end && (first || *o->p != ']'); first = false) {
        if (o->end - o->p >= 2 && o->p[0] == '&' && o->p[1] == '&') {
            o->p += 2;
            buf_puts(&and, "(?=");
            write_set(&s, false, &and);
            buf_putc(&and, ')');
            buf_clear(&s.items);
            buf_clear(&s.alts);
        } else {
            ok = read_item(o, &s);
        }
    }
    if (ok && o->p == o->end)
        ok = refuse(o, "a class without ']'");
    o->p++;
    if (ok && and.len) {
        buf_puts(out, negated ? "(?:(?!" : "(?:");
        buf_puts(out, and.data);
        write_set(&s, false, out);
        buf_puts(out, negated ? ")(?s:.))" : ")");
    } else if (ok && plain && !negated && !s.alts.len && s.items.len) {
        buf_puts(&plain->items, s.items.data);
    } else if (ok) {
        write_set(&s, negated, out);
    }
    ok = ok && (!(s.items.failed || s.alts.failed || and.failed || out->failed) || tok_nomem(o->e));
    free_set(&s);
    buf_free(&and);
    o->depth--;
    return ok;
}

/* ---- everything else */

static bool read_alternatives(struct onig *o, struct buf *out);

/* "\.." outside a class. */
static bool read_escape(struct onig *o, struct buf *out)
{
    bool negated;
    uint32_t cp;
    if (o->end - o->p < 2)
        return refuse(o, "a lone backslash");
    char c = o->p[1];
    const char *items = letter_set(c, &negated);
    if (items || c == 'p' || c == 'P') {
        struct buf b = {0};
        bool ok = true;
        if (items) {
            buf_puts(&b, items);
            o->p += 2;
        } else {
            ok = read_property(o, &b, &negated);
        }
        if (ok)
            buf_printf(out, negated ? "[^%s]" : "[%s]", b.data);
        buf_free(&b);
        return ok;
    }
    if (c == 'b' || c == 'B') {
        o->p += 2;
        buf_puts(out, c == 'b' ? "(?:(?<=[" SET_WORD "])(?![" SET_WORD "])|(?<![" SET_WORD "])(?=[" SET_WORD "]))"
                               : "(?:(?<=[" SET_WORD "])(?=[" SET_WORD "])|(?<![" SET_WORD "])(?![" SET_WORD "]))");
        return true;
    }
    if (strchr("AzZGRXKkg123456789", c)) {
        buf_append(out, o->p, 2);
        o->p += 2;
        return true;
    }
    if (!read_escaped_cp(o, &cp))
        return false;
    buf_printf(out, "\\x{%x}", cp);
    return true;
}

/* "(?" and options: maps them and leaves p at ':' or ')'. */
static bool read_options(struct onig *o, struct buf *out)
{
    buf_puts(out, "(?");
    for (; o->p < o->end && strchr("imx-", *o->p) && *o->p; o->p++)
        buf_putc(out, *o->p == 'm' ? 's' : *o->p);
    return o->p < o->end && (*o->p == ':' || *o->p == ')') ? true : refuse(o, "an unknown group");
}

/* A group whose '(' is at p. */
static bool read_group(struct onig *o, struct buf *out)
{
    static const char *const heads[] = {"(?:", "(?=", "(?!", "(?>", "(?<=", "(?<!"};
    bool ok = true;
    if (!enter(o))
        return false;
    size_t left = (size_t)(o->end - o->p), skip = 0;
    for (size_t i = 0; i < 6; i++)
        if (left >= strlen(heads[i]) && memcmp(o->p, heads[i], strlen(heads[i])) == 0)
            skip = strlen(heads[i]);
    if (!skip && left >= 3 && memcmp(o->p, "(?<", 3) == 0) {
        const char *close = memchr(o->p, '>', left);
        if (!close)
            return refuse(o, "a name without '>'");
        skip = (size_t)(close + 1 - o->p);
    }
    if (left >= 3 && memcmp(o->p, "(?#", 3) == 0) {
        const char *close = memchr(o->p, ')', left);
        o->p = close ? close + 1 : o->end;
        o->depth--;
        return close ? true : refuse(o, "a comment without ')'");
    }
    if (skip || left < 2 || o->p[1] != '?') {
        skip = skip ? skip : 1;
        buf_append(out, o->p, skip);
        o->p += skip;
        ok = read_alternatives(o, out);
    } else {
        o->p += 2;
        ok = read_options(o, out);
        if (ok) {
            bool whole = *o->p == ')';       /* (?i) reaches over '|' to the end of the enclosing group */
            o->p++;
            buf_putc(out, ':');
            ok = read_alternatives(o, out);
            if (ok && whole) {
                buf_putc(out, ')');
                o->depth--;
                return true;
            }
        }
    }
    if (ok && (o->p == o->end || *o->p != ')'))
        ok = refuse(o, "a group without ')'");
    o->p++;
    buf_putc(out, ')');
    o->depth--;
    return ok;
}

/* Put "(?:" before the atom at `at` and ")" behind it. */
static void wrap(struct buf *out, size_t at)
{
    if (!buf_puts(out, "(?:)"))
        return;
    memmove(out->data + at + 3, out->data + at, out->len - 4 - at);
    memcpy(out->data + at, "(?:", 3);
    out->data[out->len - 1] = ')';
}

/* "{n}", "{n,}", "{,m}", "{n,m}" at p: its length, 0 when it is none. */
static size_t interval_len(const struct onig *o)
{
    const char *q = o->p + 1;
    bool digits = false;
    while (q < o->end && ((*q >= '0' && *q <= '9') || *q == ','))
        digits |= *q++ != ',';
    return q < o->end && *q == '}' && digits ? (size_t)(q + 1 - o->p) : 0;
}

/* Quantifiers behind the atom at `at`. */
static void read_quantifiers(struct onig *o, struct buf *out, size_t at)
{
    for (int n = 0; o->p < o->end; n++) {
        size_t len = *o->p == '{' ? interval_len(o) : strchr("*+?", *o->p) && *o->p ? 1 : 0;
        if (len == 0)
            return;
        if (n > 0)
            wrap(out, at);
        bool interval = *o->p == '{', exact = interval && !memchr(o->p, ',', len);
        if (interval && o->p[1] == ',')
            buf_puts(out, "{0");
        else
            buf_putc(out, *o->p);
        buf_append(out, o->p + 1, len - 1);
        o->p += len;
        /* Lazy and possessive signs belong to the quantifier, except on intervals: {n,m}+ and {n}? repeat again. */
        if (o->p < o->end && ((*o->p == '?' && !exact) || (*o->p == '+' && !interval)))
            buf_putc(out, *o->p++);
    }
}

static bool read_alternatives(struct onig *o, struct buf *out)
{
    while (o->p < o->end && *o->p != ')') {
        size_t at = out->len;
        bool ok = true, atom = true;
        if (*o->p == '[') {
            ok = read_class(o, out, NULL);
        } else if (*o->p == '(') {
            ok = read_group(o, out);
        } else if (*o->p == '\\') {
            ok = read_escape(o, out);
        } else if (*o->p == '{') {
            buf_puts(out, "\\{");
            o->p++;
        } else {
            size_t n = (size_t)tok_cp_len(o->p);
            atom = *o->p != '|';
            buf_append(out, o->p, n);
            o->p += n;
        }
        if (!ok)
            return false;
        if (out->failed)
            return tok_nomem(o->e);
        if (atom)
            read_quantifiers(o, out, at);
    }
    return true;
}

bool tok_onig_to_pcre(const char *pattern, size_t len, struct buf *out, struct err *e)
{
    struct err local = {0};
    struct onig o = {.start = pattern, .p = pattern, .end = pattern + len, .e = &local};
    bool ok = utf8_valid(pattern, len) || refuse(&o, "invalid UTF-8");
    ok = ok && read_alternatives(&o, out);
    if (ok && o.p < o.end)
        ok = refuse(&o, "an unmatched ')'");
    if (ok && (out->failed || !buf_reserve(out, 1)))
        ok = tok_nomem(&local);
    if (!ok && e)
        *e = local;
    return ok;
}
