/* jinja_lex.c - template source to tokens: text, tags, and whitespace control.
 *
 * The rules are those of the reference's regular expressions with trim_blocks and lstrip_blocks on:
 * one newline after a block or comment goes away, blanks between a line's start and a block or comment go
 * away, "-" eats all white space on its side, "+" switches both off. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>
#include "base/utf8.h"
#include "tok/jinja_int.h"
#include "base/vec.h"
#include "base/mem.h"

struct lexer {
    struct jcomp *c;
    const char *s;
    size_t n, pos;
    int line;
    bool line_starting;      /* the last match ended a line */
    char *balance;           /* closing brackets expected */
    size_t n_balance, cap_balance;
};

bool jinja_is_space(uint32_t cp)
{
    return (cp >= 9 && cp <= 13) || (cp >= 28 && cp <= 32) || cp == 0x85 || cp == 0xA0 || cp == 0x1680 ||
           (cp >= 0x2000 && cp <= 0x200A) || cp == 0x2028 || cp == 0x2029 || cp == 0x202F || cp == 0x205F || cp == 0x3000;
}

static size_t skip_space(const char *s, size_t n, size_t pos)
{
    while (pos < n) {
        uint32_t cp;
        int k = utf8_decode(s + pos, n - pos, &cp);
        if (k <= 0 || !jinja_is_space(cp))
            break;
        pos += (size_t)k;
    }
    return pos;
}

/* Where the white space at the end of s[0..n) begins. */
static size_t rstrip_len(const char *s, size_t n)
{
    while (n > 0) {
        size_t b = n - 1;
        while (b > 0 && ((unsigned char)s[b] & 0xC0) == 0x80)
            b--;
        uint32_t cp;
        if (utf8_decode(s + b, n - b, &cp) <= 0 || !jinja_is_space(cp))
            break;
        n = b;
    }
    return n;
}

static int count_lines(const char *s, size_t n)
{
    int lines = 0;
    for (const char *p = s; n > 0 && (p = memchr(p, '\n', n - (size_t)(p - s))) != NULL; p++)
        lines++;
    return lines;
}

static bool starts(const struct lexer *l, size_t pos, const char *z)
{
    size_t n = strlen(z);
    return l->n - pos >= n && memcmp(l->s + pos, z, n) == 0;
}

static bool push(struct lexer *l, struct jtoken t)
{
    struct jcomp *c = l->c;
    if (!vec_reserve((void **)&c->toks, &c->cap_toks, c->n_toks + 1, sizeof *c->toks))
        return err_set(c->e, ERR_NOMEM, "template: out of memory for %zu tokens", c->n_toks + 1);
    t.line = l->line;
    c->toks[c->n_toks++] = t;
    return true;
}

/* Text before a tag whose sign is '-', '+' or 0; strip: the tag is a block or comment (lstrip_blocks). */
static bool push_text(struct lexer *l, size_t from, size_t to, char sign, bool strip)
{
    size_t end = to;
    if (sign == '-') {
        end = from + rstrip_len(l->s + from, to - from);
    } else if (sign != '+' && strip) {
        size_t bol = to;
        while (bol > from && l->s[bol - 1] != '\n')
            bol--;
        if ((bol > from || l->line_starting) && skip_space(l->s, to, bol) == to)
            end = bol;
    }
    if (end > from && !push(l, (struct jtoken){.type = JTOK_DATA, .s = l->s + from, .len = end - from}))
        return false;
    l->line += count_lines(l->s + from, to - from);
    return true;
}

static void advance(struct lexer *l, size_t to)
{
    l->line += count_lines(l->s + l->pos, to - l->pos);
    l->line_starting = to > 0 && l->s[to - 1] == '\n';
    l->pos = to;
}

/* The end of a block or comment tag at pos, close being "%}" or "#}": the position behind it, or 0. */
static size_t tag_end(const struct lexer *l, size_t pos, const char *close, bool plus)
{
    if (plus && l->s[pos] == '+' && starts(l, pos + 1, close))
        return pos + 3;
    if (l->s[pos] == '-' && starts(l, pos + 1, close))
        return skip_space(l->s, l->n, pos + 3);
    if (starts(l, pos, close)) {
        pos += 2;
        return pos < l->n && l->s[pos] == '\n' ? pos + 1 : pos;
    }
    return 0;
}

static char sign_at(const struct lexer *l, size_t pos)
{
    return pos < l->n && (l->s[pos] == '-' || l->s[pos] == '+') ? l->s[pos] : 0;
}

static bool lex_comment(struct lexer *l)
{
    for (size_t p = l->pos; p < l->n; p++) {
        size_t end = tag_end(l, p, "#}", true);
        if (end) {
            advance(l, end);
            return true;
        }
    }
    return jinja_comp_fail(l->c, l->line, "the comment that starts here has no end '#}'");
}

/* `{%- raw -%}` at pos?  Returns the position behind it, or 0. */
static size_t raw_begin(const struct lexer *l, size_t pos)
{
    if (!starts(l, pos, "{%"))
        return 0;
    pos += 2;
    if (sign_at(l, pos))
        pos++;
    pos = skip_space(l->s, l->n, pos);
    if (!starts(l, pos, "raw"))
        return 0;
    pos = skip_space(l->s, l->n, pos + 3);
    if (starts(l, pos, "-%}"))
        return skip_space(l->s, l->n, pos + 3);
    return starts(l, pos, "%}") ? pos + 2 : 0;
}

static bool lex_raw(struct lexer *l)
{
    for (size_t p = l->pos; p + 1 < l->n; p++) {
        if (!starts(l, p, "{%"))
            continue;
        char sign = sign_at(l, p + 2);
        size_t q = skip_space(l->s, l->n, p + 2 + (sign != 0));
        if (!starts(l, q, "endraw"))
            continue;
        q = skip_space(l->s, l->n, q + 6);
        size_t end = q < l->n ? tag_end(l, q, "%}", true) : 0;
        if (!end)
            continue;
        if (!push_text(l, l->pos, p, sign, true))
            return false;
        l->pos = p;
        advance(l, end);
        return true;
    }
    return jinja_comp_fail(l->c, l->line, "the raw block that starts here has no {%% endraw %%}");
}

static int hex_digits(const char *s, size_t n, size_t want, uint32_t *out)
{
    uint32_t v = 0;
    if (n < want)
        return 0;
    for (size_t i = 0; i < want; i++) {
        char ch = s[i];
        int d = ch >= '0' && ch <= '9' ? ch - '0' : ch >= 'a' && ch <= 'f' ? ch - 'a' + 10
              : ch >= 'A' && ch <= 'F' ? ch - 'A' + 10 : -1;
        if (d < 0)
            return 0;
        v = v << 4 | (uint32_t)d;
    }
    *out = v;
    return 1;
}

/* One escape at s[0..n) behind the backslash; returns bytes read, 0 when it is not an escape (the backslash
 * stays), -1 on an error.  Writes at most 4 bytes. */
static int unescape_one(struct lexer *l, const char *s, size_t n, char *out, size_t *n_out)
{
    static const char from[] = "\\'\"abfnrtv", to[] = "\\'\"\a\b\f\n\r\t\v";
    const char *p = memchr(from, s[0], sizeof from - 1);
    *n_out = 1;
    if (p) {
        out[0] = to[p - from];
        return 1;
    }
    uint32_t cp = 0;
    int used;
    if (s[0] == '\n') {
        *n_out = 0;
        return 1;
    }
    if (s[0] >= '0' && s[0] <= '7') {
        for (used = 0; used < 3 && (size_t)used < n && s[used] >= '0' && s[used] <= '7'; used++)
            cp = cp * 8 + (uint32_t)(s[used] - '0');
    } else if (s[0] == 'x' || s[0] == 'u' || s[0] == 'U') {
        size_t want = s[0] == 'x' ? 2 : s[0] == 'u' ? 4 : 8;
        if (!hex_digits(s + 1, n - 1, want, &cp)) {
            jinja_comp_fail(l->c, l->line, "the escape \\%c in a string needs %zu hexadecimal digits", s[0], want);
            return -1;
        }
        used = (int)want + 1;
    } else if (s[0] == 'N') {
        jinja_comp_fail(l->c, l->line, "the escape \\N{name} in a string is not supported; write \\uXXXX");
        return -1;
    } else {
        return 0;
    }
    if (cp > 0x10FFFF || (cp >= 0xD800 && cp <= 0xDFFF)) {
        jinja_comp_fail(l->c, l->line, "the escape for U+%04X in a string is not a character", (unsigned)cp);
        return -1;
    }
    *n_out = (size_t)utf8_encode(cp, out);
    return used;
}

static bool lex_string(struct lexer *l, size_t end)
{
    size_t from = l->pos + 1, n = end - from;
    const char *s = l->s + from;
    struct jtoken t = {.type = JTOK_STRING, .s = s, .len = n};
    if (memchr(s, '\\', n)) {
        char *out = jinja_comp_alloc(l->c, n + 1, 1);  /* an escape is never shorter than what it stands for */
        if (!out)
            return false;
        size_t k = 0;
        for (size_t i = 0; i < n; i++) {
            if (s[i] != '\\' || i + 1 >= n) {
                out[k++] = s[i];
                continue;
            }
            size_t made;
            int used = unescape_one(l, s + i + 1, n - i - 1, out + k, &made);
            if (used < 0)
                return false;
            if (used == 0)
                out[k] = '\\';
            k += made;
            i += (size_t)used;
        }
        t.s = out;
        t.len = k;
    }
    if (!push(l, t))
        return false;
    advance(l, end + 1);
    return true;
}

/* Digits with single '_' between them, from pos; the position behind, or pos when there are none. */
static size_t digits(const struct lexer *l, size_t pos)
{
    size_t p = pos;
    while (p < l->n && ((l->s[p] >= '0' && l->s[p] <= '9') ||
                        (l->s[p] == '_' && p > pos && p + 1 < l->n && l->s[p + 1] >= '0' && l->s[p + 1] <= '9')))
        p++;
    return p;
}

static bool number_text(struct lexer *l, size_t end, char *text, size_t cap)
{
    size_t k = 0;
    for (size_t i = l->pos; i < end; i++) {
        if (l->s[i] == '_')
            continue;
        if (k + 1 >= cap)
            return jinja_comp_fail(l->c, l->line, "the number is too long");
        text[k++] = l->s[i];
    }
    text[k] = 0;
    return true;
}

static size_t float_end(const struct lexer *l)
{
    if (l->pos > 0 && l->s[l->pos - 1] == '.')
        return 0;
    size_t a = digits(l, l->pos), b = a;
    if (b + 1 < l->n && l->s[b] == '.') {
        size_t f = digits(l, b + 1);
        if (f > b + 1)
            b = f;
    }
    if (b < l->n && (l->s[b] == 'e' || l->s[b] == 'E')) {
        size_t p = b + 1;
        if (p < l->n && (l->s[p] == '+' || l->s[p] == '-'))
            p++;
        size_t f = digits(l, p);
        if (f > p)
            return f;
    }
    return b > a ? b : 0;
}

static bool is_base_digit(char ch, int base)
{
    if (base == 2)
        return ch == '0' || ch == '1';
    if (base == 8)
        return ch >= '0' && ch <= '7';
    return (ch >= '0' && ch <= '9') || (ch >= 'a' && ch <= 'f') || (ch >= 'A' && ch <= 'F');
}

static bool lex_number(struct lexer *l)
{
    char text[512];
    size_t end = float_end(l);
    struct jtoken t = {.type = JTOK_FLOAT};
    if (end) {
        if (!number_text(l, end, text, sizeof text))
            return false;
        t.f = strtod(text, NULL);
    } else {
        int base = 10;
        size_t p = l->pos;
        if (l->s[p] == '0' && p + 1 < l->n) {
            char x = (char)(l->s[p + 1] | 32);
            base = x == 'b' ? 2 : x == 'o' ? 8 : x == 'x' ? 16 : 10;
        }
        end = p + 2;
        while (base != 10 && end < l->n && (is_base_digit(l->s[end], base) ||
               (l->s[end] == '_' && end + 1 < l->n && is_base_digit(l->s[end + 1], base))))
            end++;
        if (base == 10 || end == p + 2) {
            base = 10;
            end = digits(l, p);
            if (l->s[p] == '0')  /* 0 is only followed by more zeros */
                for (end = p + 1; end < l->n && (l->s[end] == '0' || (l->s[end] == '_' && end + 1 < l->n && l->s[end + 1] == '0'));)
                    end++;
        }
        if (!number_text(l, end, text, sizeof text))
            return false;
        bool overflow = false;
        t.type = JTOK_INT;
        if (!jinja_parse_int(base == 10 ? text : text + 2, strlen(base == 10 ? text : text + 2), base, &t.i, &overflow))
            return jinja_comp_fail(l->c, l->line, "the integer %.40s does not fit 64 bits", text);
    }
    if (!push(l, t))
        return false;
    advance(l, end);
    return true;
}

static size_t name_end(const struct lexer *l, size_t pos)
{
    while (pos < l->n) {
        unsigned char ch = (unsigned char)l->s[pos];
        if (ch < 0x80) {
            if (!((ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z') || ch == '_' || (ch >= '0' && ch <= '9')))
                break;
            pos++;
            continue;
        }
        uint32_t cp;
        int k = utf8_decode(l->s + pos, l->n - pos, &cp);
        utf8proc_category_t cat = k > 0 ? utf8proc_category((utf8proc_int32_t)cp) : UTF8PROC_CATEGORY_CN;
        if (!(cat >= UTF8PROC_CATEGORY_LU && cat <= UTF8PROC_CATEGORY_NL))
            break;
        pos += (size_t)k;
    }
    return pos;
}

static const struct { const char *text; enum jtok type; } OPERATORS[] = {
    {"//", JTOK_FLOORDIV}, {"**", JTOK_POW}, {"==", JTOK_EQ}, {"!=", JTOK_NE}, {">=", JTOK_GE}, {"<=", JTOK_LE},
    {"+", JTOK_ADD}, {"-", JTOK_SUB}, {"/", JTOK_DIV}, {"*", JTOK_MUL}, {"%", JTOK_MOD}, {"~", JTOK_TILDE},
    {"[", JTOK_LBRACKET}, {"]", JTOK_RBRACKET}, {"(", JTOK_LPAREN}, {")", JTOK_RPAREN}, {"{", JTOK_LBRACE},
    {"}", JTOK_RBRACE}, {">", JTOK_GT}, {"<", JTOK_LT}, {"=", JTOK_ASSIGN}, {".", JTOK_DOT}, {":", JTOK_COLON},
    {"|", JTOK_PIPE}, {",", JTOK_COMMA}, {";", JTOK_SEMICOLON},
};

static const char *const TOK_NAMES[] = {
    "end of template", "text", "'{%'", "end of block '%}'", "'{{'", "end of print statement '}}'", "a name", "a string",
    "an integer", "a float", "'+'", "'-'", "'/'", "'//'", "'*'", "'%'", "'**'", "'~'", "'['", "']'", "'('", "')'", "'{'", "'}'",
    "'=='", "'!='", "'>'", "'>='", "'<'", "'<='", "'='", "'.'", "':'", "'|'", "','", "';'",
};

const char *jinja_tok_name(enum jtok t)
{
    return TOK_NAMES[t];
}

static bool balance(struct lexer *l, char ch)
{
    if (ch == '{' || ch == '(' || ch == '[') {
        if (!vec_reserve((void **)&l->balance, &l->cap_balance, l->n_balance + 1, 1))
            return err_set(l->c->e, ERR_NOMEM, "template: out of memory");
        l->balance[l->n_balance++] = ch == '{' ? '}' : ch == '(' ? ')' : ']';
    } else if (ch == '}' || ch == ')' || ch == ']') {
        if (l->n_balance == 0)
            return jinja_comp_fail(l->c, l->line, "unexpected '%c'", ch);
        if (l->balance[--l->n_balance] != ch)
            return jinja_comp_fail(l->c, l->line, "unexpected '%c', expected '%c'", ch, l->balance[l->n_balance]);
    }
    return true;
}

static bool lex_operator(struct lexer *l)
{
    for (size_t i = 0; i < sizeof OPERATORS / sizeof *OPERATORS; i++) {
        if (!starts(l, l->pos, OPERATORS[i].text))
            continue;
        if (!balance(l, OPERATORS[i].text[0]) ||
            !push(l, (struct jtoken){.type = OPERATORS[i].type, .s = OPERATORS[i].text, .len = strlen(OPERATORS[i].text)}))
            return false;
        advance(l, l->pos + strlen(OPERATORS[i].text));
        return true;
    }
    uint32_t cp;
    int k = utf8_decode(l->s + l->pos, l->n - l->pos, &cp);
    return jinja_comp_fail(l->c, l->line, "unexpected character '%.*s' in a tag", k > 0 ? k : 1, l->s + l->pos);
}

/* Inside {% %} or {{ }} until its end. */
static bool lex_tag(struct lexer *l, bool block)
{
    while (l->pos < l->n) {
        if (l->n_balance == 0) {
            size_t end = block ? tag_end(l, l->pos, "%}", true)
                       : starts(l, l->pos, "-}}") ? skip_space(l->s, l->n, l->pos + 3)
                       : starts(l, l->pos, "}}") ? l->pos + 2 : 0;
            if (end) {
                if (!push(l, (struct jtoken){.type = block ? JTOK_BLOCK_END : JTOK_VAR_END}))
                    return false;
                advance(l, end);
                return true;
            }
        }
        char ch = l->s[l->pos];
        size_t end = skip_space(l->s, l->n, l->pos);
        bool ok = true;
        if (end > l->pos) {
            advance(l, end);
        } else if (ch >= '0' && ch <= '9') {
            ok = lex_number(l);
        } else if ((end = name_end(l, l->pos)) > l->pos) {
            ok = push(l, (struct jtoken){.type = JTOK_NAME, .s = l->s + l->pos, .len = end - l->pos});
            advance(l, end);
        } else if (ch == '\'' || ch == '"') {
            for (end = l->pos + 1; end < l->n && l->s[end] != ch; end++)
                if (l->s[end] == '\\')
                    end++;
            ok = end < l->n ? lex_string(l, end) : jinja_comp_fail(l->c, l->line, "the string that starts here has no end");
        } else {
            ok = lex_operator(l);
        }
        if (!ok)
            return false;
    }
    return true;  /* the parser reports the missing end */
}

static bool lex_root(struct lexer *l)
{
    while (l->pos < l->n) {
        size_t p = l->pos;
        while (p + 1 < l->n && !(l->s[p] == '{' && (l->s[p + 1] == '%' || l->s[p + 1] == '{' || l->s[p + 1] == '#'))) {
            const char *q = memchr(l->s + p + 1, '{', l->n - p - 1);
            p = q ? (size_t)(q - l->s) : l->n;
        }
        if (p + 1 >= l->n)
            return push_text(l, l->pos, l->n, '+', false);
        char kind = l->s[p + 1], sign = sign_at(l, p + 2);
        if (!push_text(l, l->pos, p, sign, kind != '{'))
            return false;
        l->pos = p;
        size_t raw = raw_begin(l, p);
        if (raw) {
            advance(l, raw);
            if (!lex_raw(l))
                return false;
            continue;
        }
        if (kind != '#' && !push(l, (struct jtoken){.type = kind == '%' ? JTOK_BLOCK_BEGIN : JTOK_VAR_BEGIN}))
            return false;
        advance(l, p + 2 + (sign != 0));
        if (!(kind == '#' ? lex_comment(l) : lex_tag(l, kind == '%')))
            return false;
    }
    return true;
}

bool jinja_lex(struct jcomp *c)
{
    struct lexer l = {.c = c, .s = c->source, .n = c->len, .line = 1, .line_starting = true};
    bool ok = lex_root(&l) && push(&l, (struct jtoken){.type = JTOK_EOF});
    mem_free(l.balance);
    return ok;
}
