/* Regular expressions: the common part of ECMAScript, Python and Rust syntax.
 *
 * Where dialects differ, the narrower meaning is taken, so that any of them accepts what is produced: \d and \w are ASCII, \s is ASCII white space while
 * \S is not any Unicode white space, "." is not any line terminator.  Anchors, and look-aheads at the start, are understood at the edges of the
 * expression, also inside groups there; word boundaries, other look-arounds, back references and possessive quantifiers are refused. */
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>
#include "base/mem.h"
#include "base/utf8.h"
#include "base/vec.h"
#include "guide/guide_int.h"

enum { MAX_NESTING = 200, MAX_COUNT = 100000 };

struct parser {
    struct guide_builder *b;
    const char *s; size_t n, at;
    bool search;                 /* not anchored: text may come before and after */
    bool fold;                   /* ASCII letters match both cases */
    bool dot_all;
    bool wide;                   /* inside a negated class: what is left out must be the wider meaning */
    int depth;
};

struct ranges { struct expr_range *r; size_t n, cap; };

static int32_t bad(struct parser *p, const char *what)
{
    return expr_fail(p->b, ERR_INVALID, "regular expression, position %zu: %s", p->at, what);
}

static int32_t refused(struct parser *p, const char *what)
{
    return expr_fail(p->b, ERR_UNSUPPORTED, "regular expression, position %zu: %s", p->at, what);
}

static bool more(const struct parser *p) { return p->at < p->n; }
static char peek(const struct parser *p) { return p->at < p->n ? p->s[p->at] : 0; }
static bool looking_at(const struct parser *p, const char *s)
{
    size_t n = strlen(s);
    return p->n - p->at >= n && memcmp(p->s + p->at, s, n) == 0;
}
static bool take(struct parser *p, const char *s)
{
    if (!looking_at(p, s))
        return false;
    p->at += strlen(s);
    return true;
}

/* ---- sets of characters ---- */

static bool push(struct parser *p, struct ranges *v, uint32_t lo, uint32_t hi)
{
    if (!vec_reserve((void **)&v->r, &v->cap, v->n + 1, sizeof *v->r))
        return expr_fail(p->b, ERR_NOMEM, "out of memory for the guide"), false;
    v->r[v->n++] = (struct expr_range){lo, hi};
    return true;
}

static bool push_folded(struct parser *p, struct ranges *v, uint32_t lo, uint32_t hi)
{
    if (!push(p, v, lo, hi))
        return false;
    for (uint32_t c = 'a'; p->fold && c <= 'z'; c++)
        if ((c >= lo && c <= hi) || (c - 32 >= lo && c - 32 <= hi))
            if (!push(p, v, c, c) || !push(p, v, c - 32, c - 32))
                return false;
    return true;
}

/* The complement of r is added to v. */
static bool push_not(struct parser *p, struct ranges *v, const struct expr_range *r, size_t n)
{
    uint32_t next = 0;
    for (size_t i = 0; i < n; i++) {
        if (r[i].lo > next && !push(p, v, next, r[i].lo - 1))
            return false;
        next = r[i].hi + 1;
    }
    return push(p, v, next, 0x10FFFF);
}

static const struct expr_range digits[] = {{'0', '9'}}, words[] = {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}},
                               spaces[] = {{9, 13}, {' ', ' '}},
                               all_spaces[] = {{9, 13}, {0x1c, 0x20}, {0x85, 0x85}, {0xa0, 0xa0}, {0x1680, 0x1680}, {0x2000, 0x200a},
                                               {0x2028, 0x2029}, {0x202f, 0x202f}, {0x205f, 0x205f}, {0x3000, 0x3000}, {0xfeff, 0xfeff}},
                               line_ends[] = {{'\n', '\n'}, {'\r', '\r'}, {0x2028, 0x2029}};

static bool push_all(struct parser *p, struct ranges *v, const struct expr_range *r, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!push(p, v, r[i].lo, r[i].hi))
            return false;
    return true;
}

/* \d and its like after the backslash; 0: not one of them, -1: failure. */
static int class_escape(struct parser *p, struct ranges *v)
{
    bool ok;
    switch (peek(p)) {
    case 'd': ok = push_all(p, v, digits, 1); break;
    case 'w': ok = push_all(p, v, words, 4); break;
    case 's': ok = p->wide ? push_all(p, v, all_spaces, sizeof all_spaces / sizeof all_spaces[0]) : push_all(p, v, spaces, 2); break;
    case 'D': ok = push_not(p, v, digits, 1); break;
    case 'W': ok = push_not(p, v, words, 4); break;
    case 'S': ok = p->wide ? push_not(p, v, spaces, 2) : push_not(p, v, all_spaces, sizeof all_spaces / sizeof all_spaces[0]); break;
    default: return 0;
    }
    p->at++;
    return ok ? 1 : -1;
}

static bool in_category(uint32_t c, const char *name, size_t len)
{
    const char *cat = utf8proc_category_string((utf8proc_int32_t)c);
    return len == 1 ? cat[0] == name[0] : len == 2 && cat[0] == name[0] && cat[1] == name[1];
}

/* \p{L}, \p{Lu}, \P{..}: general categories, by a walk over Unicode. */
static int property_escape(struct parser *p, struct ranges *v)
{
    static const struct { const char *name, *cat; } names[] = {
        {"Letter", "L"}, {"Alphabetic", "L"}, {"Lowercase_Letter", "Ll"}, {"Uppercase_Letter", "Lu"}, {"Number", "N"}, {"Decimal_Number", "Nd"},
        {"Punctuation", "P"}, {"Symbol", "S"}, {"Separator", "Z"}, {"Mark", "M"}, {"Other", "C"},
    };
    bool negate = peek(p) == 'P';
    if (peek(p) != 'p' && !negate)
        return 0;
    p->at++;
    const char *name = p->s + p->at;
    size_t len = 1;
    if (take(p, "{")) {
        name = p->s + p->at;
        const char *end = memchr(name, '}', p->n - p->at);
        len = end ? (size_t)(end - name) : 0;
        p->at += len + 1;
    } else {
        p->at++;
    }
    if (p->at > p->n || len == 0)
        return bad(p, "\\p needs a category in braces");
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strlen(names[i].name) == len && memcmp(names[i].name, name, len) == 0) {
            name = names[i].cat;
            len = strlen(name);
            break;
        }
    if (len > 2 || !strchr("LMNPSZC", name[0]) || !expr_spend(p->b, 1 << 20))
        return refused(p, "only general categories such as \\p{L} and \\p{Lu} are supported");
    for (uint32_t c = 0, start = 0; c <= 0x110000; c++) {
        bool in = c < 0x110000 && !(c >= 0xD800 && c <= 0xDFFF) && in_category(c, name, len) != negate;
        if (in && start == 0)
            start = c + 1;
        if (!in && start) {
            if (!push(p, v, start - 1, c - 1))
                return -1;
            start = 0;
        }
    }
    return 1;
}

static int hex_value(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static bool take_hex(struct parser *p, int min, int max, uint32_t *out)
{
    int n = 0;
    *out = 0;
    for (; n < max && more(p) && hex_value(peek(p)) >= 0; n++, p->at++)
        *out = *out * 16 + (uint32_t)hex_value(peek(p));
    return n >= min && *out <= 0x10FFFF;
}

/* One character after the backslash. */
static bool char_escape(struct parser *p, bool in_class, uint32_t *out)
{
    static const char from[] = "nrtfvae", to[] = "\n\r\t\f\v\a\x1b";
    char c = peek(p);
    const char *k = c ? strchr(from, c) : NULL;
    if (!more(p))
        return bad(p, "nothing follows the backslash"), false;
    p->at++;
    if (k) {
        *out = (unsigned char)to[k - from];
    } else if (c == 'b' && in_class) {
        *out = 8;
    } else if (c == '0' && !(peek(p) >= '0' && peek(p) <= '9')) {
        *out = 0;
    } else if (c == 'c' && ((peek(p) | 32) >= 'a' && (peek(p) | 32) <= 'z')) {
        *out = (uint32_t)(p->s[p->at++] & 31);
    } else if (c == 'x' || c == 'u' || c == 'U') {
        bool braces = take(p, "{");
        int n = c == 'x' ? 2 : c == 'u' ? 4 : 8;
        if (!take_hex(p, braces ? 1 : n, braces ? 8 : n, out) || (braces && !take(p, "}")))
            return bad(p, "not a character code"), false;
        uint32_t low;
        size_t was = p->at;
        if (*out >= 0xD800 && *out < 0xDC00 && take(p, "\\u")) {
            if (take_hex(p, 4, 4, &low) && low >= 0xDC00 && low <= 0xDFFF)
                *out = 0x10000 + ((*out - 0xD800) << 10) + (low - 0xDC00);
            else
                p->at = was;
        }
    } else if ((c >= '1' && c <= '9') || c == 'k') {
        return refused(p, "back references are not regular"), false;
    } else if ((c | 32) >= 'a' && (c | 32) <= 'z') {
        return refused(p, c == 'b' || c == 'B' ? "word boundaries are not supported" : "unknown escape"), false;
    } else {
        p->at--;
        int n = utf8_decode(p->s + p->at, p->n - p->at, out);
        if (!n)
            return bad(p, "not UTF-8"), false;
        p->at += (size_t)n;
    }
    return true;
}

static bool take_char(struct parser *p, uint32_t *out)
{
    int n = utf8_decode(p->s + p->at, p->n - p->at, out);
    if (!n)
        return bad(p, "not UTF-8"), false;
    p->at += (size_t)n;
    return true;
}

static bool posix_class(struct parser *p, struct ranges *v)
{
    static const struct { const char *name; struct expr_range r[4]; size_t n; } classes[] = {
        {"[:alpha:]", {{'A', 'Z'}, {'a', 'z'}}, 2}, {"[:digit:]", {{'0', '9'}}, 1}, {"[:alnum:]", {{'0', '9'}, {'A', 'Z'}, {'a', 'z'}}, 3},
        {"[:upper:]", {{'A', 'Z'}}, 1}, {"[:lower:]", {{'a', 'z'}}, 1}, {"[:space:]", {{9, 13}, {' ', ' '}}, 2},
        {"[:xdigit:]", {{'0', '9'}, {'A', 'F'}, {'a', 'f'}}, 3}, {"[:punct:]", {{'!', '/'}, {':', '@'}, {'[', '`'}, {'{', '~'}}, 4},
    };
    for (size_t i = 0; i < sizeof classes / sizeof classes[0]; i++)
        if (take(p, classes[i].name))
            return push_all(p, v, classes[i].r, classes[i].n);
    return false;
}

/* One member of a class: a character (returns 0 with *c), or a set already added (1), or a failure (-1). */
static int class_member(struct parser *p, struct ranges *v, uint32_t *c)
{
    if (looking_at(p, "[:") && posix_class(p, v))
        return 1;
    if (!take(p, "\\"))
        return take_char(p, c) ? 0 : -1;
    int k = class_escape(p, v);
    k = k ? k : property_escape(p, v);
    return k ? k : char_escape(p, true, c) ? 0 : -1;
}

/* After "[". */
static int32_t parse_class(struct parser *p)
{
    struct ranges v = {0};
    bool negate = take(p, "^"), ok = true, space = false, not_space = false;
    p->wide = negate;
    while (ok && more(p) && peek(p) != ']') {
        uint32_t lo = 0, hi;
        space |= looking_at(p, "\\s");
        not_space |= looking_at(p, "\\S");
        int k = class_member(p, &v, &lo);
        if (k) {
            ok = k > 0;
            continue;
        }
        hi = lo;
        if (looking_at(p, "-") && p->at + 1 < p->n && p->s[p->at + 1] != ']') {
            p->at++;
            k = class_member(p, &v, &hi);
            ok = k == 0 ? hi >= lo || bad(p, "the range is reversed") >= 0 : k > 0 && push(p, &v, '-', '-');
            hi = k == 0 ? hi : lo;
        }
        ok = ok && push_folded(p, &v, lo, hi);
    }
    if (ok && !take(p, "]"))
        ok = bad(p, "'[' without ']'") >= 0;
    p->wide = false;
    if (ok && space && not_space) /* [\s\S]: everything, in any dialect */
        ok = push(p, &v, 0, 0x10FFFF);
    int32_t id = !ok ? -1 : negate ? expr_not_set(p->b, v.r, v.n) : expr_set(p->b, v.r, v.n);
    mem_free(v.r);
    return id;
}

/* ---- structure ---- */

static int32_t parse_alt(struct parser *p, bool start, bool end);

/* Where the group that begins at p->at - 1 ends: the index after its ")"; n + 1 when it does not. */
static size_t group_end(const struct parser *p)
{
    int depth = 1;
    bool in_class = false;
    for (size_t i = p->at; i < p->n; i++) {
        char c = p->s[i];
        if (c == '\\')
            i++;
        else if (in_class)
            in_class = c != ']';
        else if (c == '[')
            in_class = true;
        else if (c == '(')
            depth++;
        else if (c == ')' && --depth == 0)
            return i + 1;
    }
    return p->n + 1;
}

/* "(?:" and its like; false when the group is something else (or an error). */
static bool group_head(struct parser *p)
{
    if (!take(p, "?"))
        return true;
    if (take(p, ":"))
        return true;
    if (looking_at(p, "<=") || looking_at(p, "<!") || looking_at(p, "=") || looking_at(p, "!"))
        return refused(p, "look-around is supported only at the start of the expression (look-ahead)"), false;
    if (take(p, "P<") || take(p, "<")) {
        while (more(p) && peek(p) != '>')
            p->at++;
        return take(p, ">") || bad(p, "a group's name has no end") >= 0;
    }
    if (take(p, "i:"))
        return p->fold = true;
    return refused(p, "this kind of group is not supported"), false;
}

/* After "(". */
static int32_t parse_group(struct parser *p, bool start, bool end)
{
    bool fold = p->fold;
    if (++p->depth > MAX_NESTING)
        return expr_fail(p->b, ERR_TOO_LARGE, "regular expression: groups nested deeper than %d", MAX_NESTING);
    if (!group_head(p))
        return -1;
    int32_t id = parse_alt(p, start, end);
    p->fold = fold;
    p->depth--;
    if (id >= 0 && !take(p, ")"))
        return bad(p, "'(' without ')'");
    return id;
}

static bool quantifier_at(const struct parser *p, size_t at)
{
    if (at >= p->n)
        return false;
    char c = p->s[at];
    return c == '*' || c == '+' || c == '?' || (c == '{' && at + 1 < p->n && ((p->s[at + 1] >= '0' && p->s[at + 1] <= '9') || p->s[at + 1] == ','));
}

static bool take_count(struct parser *p, int32_t *out)
{
    int64_t v = 0;
    size_t was = p->at;
    for (; more(p) && peek(p) >= '0' && peek(p) <= '9'; p->at++)
        if ((v = v * 10 + (peek(p) - '0')) > MAX_COUNT)
            return expr_fail(p->b, ERR_TOO_LARGE, "regular expression: a repetition of more than %d times", MAX_COUNT), false;
    *out = (int32_t)v;
    return p->at > was;
}

static int32_t quantify(struct parser *p, int32_t x)
{
    while (x >= 0 && quantifier_at(p, p->at)) {
        int32_t min = 0, max = -1;
        size_t was = p->at;
        if (take(p, "*")) {
        } else if (take(p, "+")) {
            min = 1;
        } else if (take(p, "?")) {
            max = 1;
        } else {
            p->at++;
            bool low = take_count(p, &min);
            if (p->b->failed)
                return -1;
            if (take(p, ","))
                max = take_count(p, &max) ? max : -1;
            else
                max = min;
            if (p->b->failed)
                return -1;
            if (!take(p, "}") || (!low && max < 0)) { /* "{" that is none */
                p->at = was;
                return x;
            }
        }
        if (peek(p) == '+')
            return refused(p, "possessive quantifiers are not supported");
        take(p, "?"); /* laziness chooses among matches, not what matches */
        x = expr_repeat(p->b, x, min, max);
        if (quantifier_at(p, p->at))
            return bad(p, "a quantifier follows a quantifier");
    }
    return x;
}

static int32_t one_char(struct parser *p, uint32_t c)
{
    struct ranges v = {0};
    int32_t id = push_folded(p, &v, c, c) ? expr_set(p->b, v.r, v.n) : -1;
    mem_free(v.r);
    return id;
}

static int32_t parse_atom(struct parser *p)
{
    uint32_t c;
    struct ranges v = {0};
    if (take(p, "["))
        return parse_class(p);
    if (take(p, ".")) {
        return p->dot_all ? expr_any(p->b) : expr_not_set(p->b, line_ends, 3);
    }
    if (peek(p) == '*' || peek(p) == '+' || peek(p) == '?')
        return bad(p, "nothing to repeat");
    if (peek(p) == '^' || peek(p) == '$')
        return refused(p, "an anchor is supported only at the edges of the expression");
    if (!take(p, "\\"))
        return take_char(p, &c) ? one_char(p, c) : -1;
    int k = class_escape(p, &v);
    k = k ? k : property_escape(p, &v);
    int32_t id = k > 0 ? expr_set(p->b, v.r, v.n) : k < 0 ? -1 : char_escape(p, false, &c) ? one_char(p, c) : -1;
    mem_free(v.r);
    return id;
}

static bool at_start_anchor(struct parser *p) { return take(p, "^") || take(p, "\\A"); }
static bool at_end_anchor(struct parser *p) { return take(p, "$") || take(p, "\\Z") || take(p, "\\z"); }

struct list { int32_t *ids; size_t n, cap; };

static bool list_push(struct parser *p, struct list *l, int32_t id)
{
    if (id < 0)
        return false;
    if (!vec_reserve((void **)&l->ids, &l->cap, l->n + 1, sizeof *l->ids))
        return expr_fail(p->b, ERR_NOMEM, "out of memory for the guide"), false;
    l->ids[l->n++] = id;
    return true;
}

static int32_t anything(struct parser *p) { return expr_repeat(p->b, expr_any(p->b), 0, -1); }

/* (?=x) and (?!x) at the start: x and whatever follows it, as a language of whole texts. */
static bool parse_looks(struct parser *p, struct list *looks, struct list *nots)
{
    while (looking_at(p, "(?=") || looking_at(p, "(?!")) {
        struct list *to = looking_at(p, "(?=") ? looks : nots;
        bool search = p->search;
        p->at += 3;
        p->search = true;
        if (++p->depth > MAX_NESTING)
            return expr_fail(p->b, ERR_TOO_LARGE, "regular expression: groups nested deeper than %d", MAX_NESTING), false;
        int32_t id = parse_alt(p, false, true);
        p->depth--;
        p->search = search;
        if (id >= 0 && !take(p, ")"))
            return bad(p, "'(' without ')'"), false;
        if (!list_push(p, to, id))
            return false;
        at_start_anchor(p);
    }
    return true;
}

/* One alternative.  start, end: it lies at the edge of the expression, so anchors are understood and, when searching, other text may
 * surround it. */
static int32_t parse_seq(struct parser *p, bool start, bool end)
{
    struct list items = {0}, looks = {0}, nots = {0};
    bool anchored = start && at_start_anchor(p), ended = false, ok = true;
    bool open = start && p->search && !anchored, first = true;
    if (start)
        ok = parse_looks(p, &looks, &nots);
    while (ok && more(p) && peek(p) != '|' && peek(p) != ')' && !p->b->failed) {
        if (end && at_end_anchor(p)) {
            ended = true;
            if (more(p) && peek(p) != '|' && peek(p) != ')')
                ok = refused(p, "an anchor is supported only at the edges of the expression") >= 0;
            break;
        }
        int32_t id;
        if (take(p, "(")) {
            size_t after = group_end(p);
            bool quantified = quantifier_at(p, after), last = after >= p->n || p->s[after] == '|' || p->s[after] == ')';
            bool inner_start = first && open && !quantified && looks.n + nots.n == 0, inner_end = last && end && !quantified && p->search;
            bool plain_start = first && start && !quantified && !p->search, plain_end = last && end && !quantified && !p->search;
            id = parse_group(p, inner_start || plain_start, inner_end || plain_end);
            if (inner_start)
                open = false;
            if (inner_end)
                ended = true;
        } else {
            id = parse_atom(p);
        }
        ok = list_push(p, &items, id >= 0 ? quantify(p, id) : -1);
        first = false;
    }
    int32_t id = ok ? expr_seq(p->b, items.ids, items.n) : -1;
    if (ok && open)
        id = expr_seq2(p->b, anything(p), id);
    if (ok && end && p->search && !ended)
        id = expr_seq2(p->b, id, anything(p));
    if (ok && looks.n + nots.n && (open || !(end && start)))
        id = refused(p, "look-ahead is supported only after the start of the whole expression, written ^");
    for (size_t i = 0; i < looks.n; i++)
        id = expr_combine(p->b, id, looks.ids[i], DFA_AND);
    for (size_t i = 0; i < nots.n; i++)
        id = expr_combine(p->b, id, nots.ids[i], DFA_AND_NOT);
    mem_free(items.ids);
    mem_free(looks.ids);
    mem_free(nots.ids);
    return id;
}

static int32_t parse_alt(struct parser *p, bool start, bool end)
{
    struct list alts = {0};
    bool ok;
    do
        ok = list_push(p, &alts, parse_seq(p, start, end));
    while (ok && take(p, "|"));
    int32_t id = ok ? expr_alt(p->b, alts.ids, alts.n) : -1;
    mem_free(alts.ids);
    return id;
}

static int32_t parse(struct guide_builder *b, const char *s, size_t n, bool search)
{
    struct parser p = {.b = b, .s = s, .n = n, .search = search};
    while (!b->failed && looking_at(&p, "(?") && p.at + 3 < n) { /* (?i), (?s), (?m), (?u) at the very start */
        size_t was = p.at;
        p.at += 2;
        bool fold = false, dot = false;
        while (more(&p) && strchr("ismu", peek(&p))) {
            fold |= peek(&p) == 'i';
            dot |= peek(&p) == 's';
            p.at++;
        }
        if (!take(&p, ")")) {
            p.at = was;
            break;
        }
        p.fold |= fold;
        p.dot_all |= dot;
    }
    int32_t id = parse_alt(&p, true, true);
    if (id >= 0 && more(&p))
        return bad(&p, "')' without '('");
    return id;
}

int32_t regex_parse(struct guide_builder *b, const char *s, size_t n) { return parse(b, s, n, false); }
int32_t regex_parse_search(struct guide_builder *b, const char *s, size_t n) { return parse(b, s, n, true); }
