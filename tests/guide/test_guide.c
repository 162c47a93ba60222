/* Guides against independent judges: PCRE2 for regular expressions, a naive recursive matcher for grammars, and for masks their definition:
 * a token is allowed exactly when some word of the language begins with the output and the token. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <pthread.h>
#include <stdio.h>
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include "base/buf.h"
#include "base/clock.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/rng.h"
#include "guide/guide.h"

enum { EXTRA = 40, EOS = 256 + EXTRA, VOCAB = EOS + 1 };

/* All bytes, some longer tokens, one end id. */
static struct guide_vocab *make_vocab(const char *const *extra, size_t n)
{
    static char bytes[256];
    const char *tokens[VOCAB] = {0};
    size_t lens[VOCAB] = {0};
    struct guide_vocab *v;
    struct err e;
    for (int i = 0; i < 256; i++) {
        bytes[i] = (char)i;
        tokens[i] = &bytes[i];
        lens[i] = 1;
    }
    for (size_t i = 0; i < n; i++) {
        tokens[256 + i] = extra[i];
        lens[256 + i] = strlen(extra[i]);
    }
    assert_true(guide_vocab_open_bytes(&v, tokens, lens, VOCAB, &(int32_t){EOS}, 1, &e));
    return v;
}

static const char *const json_tokens[] = {"\"", "\",", "\", \"", "\":", "\": \"", "{\"", "\"}", "\"]", "}}", "],", "[{", "true", "null", "12", "0.5", " \"", "\n  ",
                                          "name", "ab", "abc", "\xc3\xa9", "\xe2\x82", "\xac", "\"\"", "[]", "{}", "\\n", "\\\"", "-1", "e", "2024-", ":00"};

static struct guide *compile(struct guide_vocab *v, enum guide_kind kind, const char *text)
{
    struct guide *g;
    struct err e;
    struct guide_spec spec = {.kind = kind, .text = text, .len = strlen(text)};
    if (!guide_compile(&g, v, &spec, NULL, &e))
        fail_msg("%s: %s", text, e.msg);
    return g;
}

static void refuse(struct guide_vocab *v, enum guide_kind kind, const char *text, enum err_code code, const char *message)
{
    struct guide *g;
    struct err e;
    struct guide_spec spec = {.kind = kind, .text = text, .len = strlen(text)};
    if (guide_compile(&g, v, &spec, NULL, &e))
        fail_msg("accepted: %s", text);
    if (e.code != code || !strstr(e.msg, message))
        fail_msg("%s: %s (%s), expected \"%s\"", text, e.msg, err_code_name(e.code), message);
    assert_null(g);
}

static bool has(const uint32_t *mask, int32_t token) { return mask[token / 32] >> (token % 32) & 1; }

/* ---- regular expressions against PCRE2 ---- */

static void random_regex(struct rng *r, struct buf *out, int depth)
{
    static const char *const atoms[] = {"a", "b", "c", ".", "[ab]", "[^a]", "\\w", "(?:ab|c)", "[a-c]", "ca"};
    int n = 1 + (int)rng_next_below(r, 3);
    for (int i = 0; i < n; i++) {
        if (depth > 0 && rng_next_below(r, 3) == 0) {
            buf_putc(out, '(');
            random_regex(r, out, depth - 1);
            if (rng_next_below(r, 2)) {
                buf_putc(out, '|');
                random_regex(r, out, depth - 1);
            }
            buf_putc(out, ')');
        } else {
            buf_puts(out, atoms[rng_next_below(r, 10)]);
        }
        switch (rng_next_below(r, 9)) {
        case 0: buf_putc(out, '*'); break;
        case 1: buf_putc(out, '+'); break;
        case 2: buf_putc(out, '?'); break;
        case 3: buf_puts(out, "{2}"); break;
        case 4: buf_puts(out, "{1,3}"); break;
        case 5: buf_puts(out, "{2,}?"); break;
        default: break;
        }
    }
}

/* The k-th string over abc. */
static size_t nth_string(uint64_t k, char *out)
{
    size_t n = 0;
    for (; k > 0; k = (k - 1) / 3)
        out[n++] = (char)('a' + (k - 1) % 3);
    return n;
}

static bool pcre_matches(const pcre2_code *code, pcre2_match_data *data, const char *s, size_t n)
{
    return pcre2_match(code, (PCRE2_SPTR)s, n, 0, PCRE2_ANCHORED | PCRE2_ENDANCHORED, data, NULL) > 0;
}

static void regexes_match_as_pcre2(void **state)
{
    (void)state;
    struct guide_vocab *v = make_vocab(NULL, 0);
    struct rng r = {1};
    for (int k = 0; k < 600; k++) {
        struct buf text;
        int error;
        PCRE2_SIZE at;
        buf_init(&text, 0);
        random_regex(&r, &text, 3);
        pcre2_code *code = pcre2_compile((PCRE2_SPTR)text.data, text.len, PCRE2_UTF, &error, &at, NULL);
        assert_non_null(code);
        pcre2_match_data *data = pcre2_match_data_create_from_pattern(code, NULL);
        struct guide *g = compile(v, GUIDE_REGEX, text.data);
        for (uint64_t i = 0; i < 1093; i++) { /* all strings of up to six letters */
            char s[8];
            size_t n = nth_string(i, s);
            if (guide_matches(g, s, n) != pcre_matches(code, data, s, n))
                fail_msg("%s on %.*s: %d", text.data, (int)n, s, guide_matches(g, s, n));
        }
        guide_unref(&g);
        pcre2_match_data_free(data);
        pcre2_code_free(code);
        buf_free(&text);
    }
    guide_vocab_close(&v);
}

static void regex_syntax(void **state)
{
    (void)state;
    static const struct { const char *regex, *yes, *no; } cases[] = {
        {"\\d{3}-\\d{4}", "555-1234", "555-12345"}, {"(?i)abc", "AbC", "abd"}, {"[\\w.-]+@\\w+", "a.b-c@d", "a b@c"},
        {"\\x41\\u00e9\\u{1F600}", "A\xc3\xa9\xf0\x9f\x98\x80", "A"}, {"[^\\n]+", "\xe2\x82\xac", "\n"}, {"a{,3}b", "aab", "aaaab"},
        {"^(a|b)$", "b", "ab"}, {"(?:^a|b$)", "a", "c"}, {"(?P<x>a)(?<y>b)", "ab", "a"}, {"[]a]*b|x", "x", "]b"}, {"a\\.b", "a.b", "axb"},
        {"\\p{Lu}\\p{Ll}+", "\xc3\x89t\xc3\xa9", "\xc3\xa9t"}, {"[[:digit:]x]+", "1x2", "a"}, {"(?=.*[0-9])(?!0)[a-f0-9]{3}", "a1b", "0aa"}, {"a|", "", "b"},
        {"\\S+\\s\\S+", "x y", "x\xc2\xa0y"}, {"[a\\-z]+", "a-z", "b"}, {"x{2}{", "xx{", "xx"}, {"\\cJ", "\n", "j"}, {".*", "\xf4\x8f\xbf\xbf", "\xed\xa0\x80"},
        {"(a{2,3}){2}", "aaaaa", "aaaaaaa"},
    };
    struct guide_vocab *v = make_vocab(NULL, 0);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct guide *g = compile(v, GUIDE_REGEX, cases[i].regex);
        if (!guide_matches(g, cases[i].yes, strlen(cases[i].yes)))
            fail_msg("%s does not match %s", cases[i].regex, cases[i].yes);
        if (guide_matches(g, cases[i].no, strlen(cases[i].no)))
            fail_msg("%s matches %s", cases[i].regex, cases[i].no);
        guide_unref(&g);
    }
    refuse(v, GUIDE_REGEX, "(a", ERR_INVALID, "'(' without ')'");
    refuse(v, GUIDE_REGEX, "a)", ERR_INVALID, "')' without '('");
    refuse(v, GUIDE_REGEX, "[a", ERR_INVALID, "'[' without ']'");
    refuse(v, GUIDE_REGEX, "*a", ERR_INVALID, "nothing to repeat");
    refuse(v, GUIDE_REGEX, "a**", ERR_INVALID, "quantifier follows");
    refuse(v, GUIDE_REGEX, "[z-a]", ERR_INVALID, "reversed");
    refuse(v, GUIDE_REGEX, "a{3,2}", ERR_INVALID, "empty");
    refuse(v, GUIDE_REGEX, "(a)\\1", ERR_UNSUPPORTED, "back reference");
    refuse(v, GUIDE_REGEX, "a\\b", ERR_UNSUPPORTED, "word boundar");
    refuse(v, GUIDE_REGEX, "a(?=b)", ERR_UNSUPPORTED, "look-a");
    refuse(v, GUIDE_REGEX, "a(?<=b)", ERR_UNSUPPORTED, "look-around");
    refuse(v, GUIDE_REGEX, "a^b", ERR_UNSUPPORTED, "anchor");
    refuse(v, GUIDE_REGEX, "a++", ERR_UNSUPPORTED, "possessive");
    refuse(v, GUIDE_REGEX, "[^\\s\\S]", ERR_INVALID, "nothing matches");
    refuse(v, GUIDE_REGEX, "a{1000000}", ERR_TOO_LARGE, "repetition");
    refuse(v, GUIDE_REGEX, "((a{1000}){1000}){1000}", ERR_TOO_LARGE, "states");
    guide_vocab_close(&v);
}

/* ---- masks by definition ---- */

/* Words of a random finite language, in a plain list: alternatives of a random tree. */
struct words { char *w[4096]; size_t n; };

static void add_word(struct words *ws, const char *s, size_t n)
{
    for (size_t i = 0; i < ws->n; i++)
        if (strlen(ws->w[i]) == n && memcmp(ws->w[i], s, n) == 0)
            return;
    if (ws->n < 4096)
        ws->w[ws->n++] = mem_try_strndup(s, n);
}

/* Writes a regular expression for a finite language and lists its words. */
static void random_finite(struct rng *r, struct buf *regex, struct words *ws, int depth)
{
    static const char *const pieces[] = {"a", "b", "ab", "\xc3\xa9", "ba", "\xe2\x82\xac", "aa", "\"a"};
    int n_parts = 1 + (int)rng_next_below(r, 3);
    add_word(ws, "", 0);
    for (int p = 0; p < n_parts; p++) {
        struct words part = {.n = 0}, joined = {.n = 0};
        if (depth > 0 && rng_next_below(r, 2)) {
            bool optional = rng_next_below(r, 3) == 0;
            buf_putc(regex, '(');
            random_finite(r, regex, &part, depth - 1);
            buf_putc(regex, '|');
            struct words other = {.n = 0};
            random_finite(r, regex, &other, depth - 1);
            buf_puts(regex, optional ? ")?" : ")");
            for (size_t i = 0; i < other.n; i++) {
                add_word(&part, other.w[i], strlen(other.w[i]));
                mem_free(other.w[i]);
            }
            if (optional)
                add_word(&part, "", 0);
        } else {
            const char *s = pieces[rng_next_below(r, 8)];
            buf_puts(regex, s);
            add_word(&part, s, strlen(s));
        }
        for (size_t i = 0; i < ws->n; i++)
            for (size_t k = 0; k < part.n; k++) {
                char both[256];
                int n = snprintf(both, sizeof both, "%s%s", ws->w[i], part.w[k]);
                add_word(&joined, both, (size_t)n);
            }
        for (size_t i = 0; i < ws->n; i++)
            mem_free(ws->w[i]);
        for (size_t i = 0; i < part.n; i++)
            mem_free(part.w[i]);
        *ws = joined;
    }
}

static bool begins_a_word(const struct words *ws, const char *s, size_t n)
{
    for (size_t i = 0; i < ws->n; i++)
        if (strlen(ws->w[i]) >= n && memcmp(ws->w[i], s, n) == 0)
            return true;
    return false;
}

static bool is_word(const struct words *ws, const char *s, size_t n)
{
    for (size_t i = 0; i < ws->n; i++)
        if (strlen(ws->w[i]) == n && memcmp(ws->w[i], s, n) == 0)
            return true;
    return false;
}

static const char *const short_tokens[] = {"ab", "ba", "aa", "aab", "\xc3\xa9", "a\xc3", "\xa9" "b", "\xe2\x82", "\x82\xac" "a", "\"a", "a\"", "bab", "abab", "aaa",
                                           "\xc3\xa9\xe2"};

static void check_mask(const struct words *ws, const uint32_t *mask, const char *out, size_t n, const char *what)
{
    char next[512];
    memcpy(next, out, n);
    for (int32_t t = 0; t < EOS; t++) {
        const char *extra = t < 256 ? NULL : (size_t)(t - 256) < sizeof short_tokens / sizeof short_tokens[0] ? short_tokens[t - 256] : "";
        size_t len = t < 256 ? 1 : strlen(extra);
        if (t < 256)
            next[n] = (char)t;
        else
            memcpy(next + n, extra, len);
        bool want = len && !memchr(next, 0, n + len) && begins_a_word(ws, next, n + len);
        if (has(mask, t) != want)
            fail_msg("%s after '%.*s', token %d: %d", what, (int)n, out, t, has(mask, t));
    }
    if (has(mask, EOS) != is_word(ws, out, n))
        fail_msg("%s after '%.*s': the end is wrong", what, (int)n, out);
}

static void masks_are_what_can_go_on(void **state)
{
    (void)state;
    struct guide_vocab *v = make_vocab(short_tokens, sizeof short_tokens / sizeof short_tokens[0]);
    struct rng r = {7};
    for (int k = 0; k < 120; k++) {
        struct buf regex;
        struct words *ws = mem_must_zalloc(1, sizeof *ws);
        struct err e;
        buf_init(&regex, 0);
        random_finite(&r, &regex, ws, 2);
        struct guide *g = compile(v, GUIDE_REGEX, regex.data);
        for (int walk = 0; walk < 3 && ws->n < 4096; walk++) {
            struct guide_state *s;
            char out[512];
            size_t n = 0;
            assert_true(guide_state_open(&s, g, &e));
            for (;;) {
                const uint32_t *mask = guide_state_mask(s, &e);
                int32_t allowed[VOCAB], n_allowed = 0;
                assert_non_null(mask);
                check_mask(ws, mask, out, n, regex.data);
                assert_int_equal(guide_state_accepts(s), is_word(ws, out, n));
                for (int32_t t = 0; t < VOCAB; t++)
                    if (has(mask, t))
                        allowed[n_allowed++] = t;
                    else
                        assert_false(guide_state_advance(s, t, &e));
                assert_true(n_allowed > 0);
                int32_t t = allowed[rng_next_below(&r, (uint64_t)n_allowed)];
                struct guide_state *fork = guide_state_fork(s);
                assert_true(guide_state_advance(s, t, &e) && guide_state_advance(fork, t, &e));
                guide_state_close(&fork);
                if (t == EOS)
                    break;
                const char *text = t < 256 ? (char[]){(char)t, 0} : short_tokens[t - 256];
                memcpy(out + n, text, strlen(text));
                n += strlen(text);
            }
            assert_true(is_word(ws, out, n));
            assert_true(guide_state_ended(s));
            guide_state_close(&s);
        }
        guide_unref(&g);
        for (size_t i = 0; i < ws->n; i++)
            mem_free(ws->w[i]);
        mem_free(ws);
        buf_free(&regex);
    }
    guide_vocab_close(&v);
}

/* ---- the same language written in two ways gives the same masks: counted loops against written-out ones ---- */

static int32_t pick(const uint32_t *mask, struct rng *r)
{
    int32_t allowed[VOCAB], n = 0;
    for (int32_t t = 0; t < VOCAB; t++)
        if (has(mask, t))
            allowed[n++] = t;
    return n ? allowed[rng_next_below(r, (uint64_t)n)] : -1;
}

static void same_masks(struct guide *a, struct guide *b, uint64_t seed, int n_walks, int n_tokens)
{
    struct rng r = {seed};
    struct err e;
    for (int walk = 0; walk < n_walks; walk++) {
        struct guide_state *x, *y;
        assert_true(guide_state_open(&x, a, &e) && guide_state_open(&y, b, &e));
        for (int i = 0; i < n_tokens; i++) {
            const uint32_t *m = guide_state_mask(x, &e), *o = guide_state_mask(y, &e);
            assert_non_null(m);
            assert_non_null(o);
            assert_memory_equal(m, o, (VOCAB + 31) / 32 * 4);
            int32_t t = pick(m, &r);
            assert_true(guide_state_advance(x, t, &e) && guide_state_advance(y, t, &e));
            if (t == EOS)
                break;
        }
        guide_state_close(&x);
        guide_state_close(&y);
    }
}

static void counted_loops_equal_written_ones(void **state)
{
    (void)state;
    /* A group is never counted, a class of more than sixteen repetitions is. */
    static const char *const pairs[][2] = {
        {"[ab]{0,20}", "(?:[ab]){0,9}(?:a|b){0,11}"}, {"[ab]{18,20}", "(?:a|b){18,20}"}, {"x[ab]{3,17}\"", "x(?:a|b){3,17}\""},
        {"[ab]{17,}\"a", "(?:a|b){17,}\"a"}, {"(?:x[ab]{2,18}y){2}", "(?:x(?:a|b){2,18}y){2}"}, {"[ab]{17}x?[ab]{0,17}\"", "(?:a|b){17}x?(?:a|b){0,17}\""},
        {"(x|xa)[ab]{1,17}\"", "(x|xa)(?:a|b){1,17}\""}, {"([^\"]{0,30}\",)*", "((?:[^\"]|[^\"]){0,30}\",)*"},
        {"[ab]{0,17}x|[a-c]{3,18}y", "(?:a|b){0,17}x|(?:[ac]|b){3,18}y"},
    };
    struct guide_vocab *v = make_vocab(json_tokens, sizeof json_tokens / sizeof json_tokens[0]);
    struct guide_vocab *w = make_vocab(short_tokens, sizeof short_tokens / sizeof short_tokens[0]);
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++)
        for (int k = 0; k < 2; k++) {
            struct guide *a = compile(k ? w : v, GUIDE_REGEX, pairs[i][0]), *b = compile(k ? w : v, GUIDE_REGEX, pairs[i][1]);
            same_masks(a, b, i, 12, 60);
            guide_unref(&a);
            guide_unref(&b);
        }
    guide_vocab_close(&v);
    guide_vocab_close(&w);
}

/* A guide that must forget all the time gives the same masks. */
static void forgetting_changes_nothing(void **state)
{
    (void)state;
    static const char schema[] = "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"string\",\"maxLength\":30},\"b\":{\"type\":\"array\",\"items\":{\"$ref\":\"#\"}},"
                                 "\"c\":{\"type\":\"number\"},\"d\":{}},\"additionalProperties\":{\"type\":\"integer\",\"minimum\":3,\"maximum\":77}}";
    struct guide_vocab *v = make_vocab(json_tokens, sizeof json_tokens / sizeof json_tokens[0]);
    struct guide_limits l;
    struct err e;
    struct guide *a = compile(v, GUIDE_JSON_SCHEMA, schema), *b;
    guide_limits_default(&l);
    l.max_bytes = 1;
    assert_true(guide_compile(&b, v, &(struct guide_spec){.kind = GUIDE_JSON_SCHEMA, .text = schema, .len = strlen(schema)}, &l, &e));
    same_masks(a, b, 3, 10, 200);
    assert_true(guide_bytes(b) < guide_bytes(a));
    guide_unref(&a);
    guide_unref(&b);
    guide_vocab_close(&v);
}

/* ---- grammars against a naive matcher ---- */

enum { N_RULES = 4, N_ALTS = 3, N_SYMBOLS = 3, MAX_LEN = 7 };
/* Symbols: 'a'..'c' terminals, 0..N_RULES-1 rules, -1 none. */
struct cfg { int sym[N_RULES][N_ALTS][N_SYMBOLS]; int n_alts[N_RULES]; };

static void random_cfg(struct rng *r, struct cfg *c, struct buf *gbnf)
{
    for (int i = 0; i < N_RULES; i++) {
        c->n_alts[i] = 1 + (int)rng_next_below(r, N_ALTS);
        buf_printf(gbnf, i ? "\nr%d ::= " : "root ::= r0\nr%d ::= ", i);
        for (int k = 0; k < c->n_alts[i]; k++) {
            buf_puts(gbnf, k ? " | " : "");
            for (int j = 0; j < N_SYMBOLS; j++) {
                uint64_t x = rng_next_below(r, 10);
                /* A rule never comes first: no left recursion. */
                c->sym[i][k][j] = x < 5 || (j == 0 && x < 8) ? 'a' + (int)rng_next_below(r, 3) : x < 8 ? (int)rng_next_below(r, N_RULES) : -1;
                if (j > 0 && c->sym[i][k][0] == -1 && c->sym[i][k][j] >= 0 && c->sym[i][k][j] < 'a')
                    c->sym[i][k][j] = -1;
                if (c->sym[i][k][j] >= 'a')
                    buf_printf(gbnf, "\"%c\" ", c->sym[i][k][j]);
                else if (c->sym[i][k][j] >= 0)
                    buf_printf(gbnf, "r%d ", c->sym[i][k][j]);
            }
            buf_puts(gbnf, "\"\"");
        }
    }
}

/* Bit j of the result: symbols from p on can produce s[i..j). */
static uint32_t ends(const struct cfg *c, int rule, int alt, int p, const char *s, int n, int i, uint32_t memo[N_RULES][MAX_LEN + 1], bool known[N_RULES][MAX_LEN + 1])
{
    if (p == N_SYMBOLS)
        return 1u << i;
    int sym = c->sym[rule][alt][p];
    if (sym == -1)
        return ends(c, rule, alt, p + 1, s, n, i, memo, known);
    if (sym >= 'a')
        return i < n && s[i] == sym ? ends(c, rule, alt, p + 1, s, n, i + 1, memo, known) : 0;
    if (!known[sym][i]) {
        uint32_t all = 0;
        for (int k = 0; k < c->n_alts[sym]; k++)
            all |= ends(c, sym, k, 0, s, n, i, memo, known);
        memo[sym][i] = all;
        known[sym][i] = true;
    }
    uint32_t out = 0;
    for (int j = i; j <= n; j++)
        if (memo[sym][i] >> j & 1)
            out |= ends(c, rule, alt, p + 1, s, n, j, memo, known);
    return out;
}

static bool cfg_matches(const struct cfg *c, const char *s, int n)
{
    uint32_t memo[N_RULES][MAX_LEN + 1], all = 0;
    bool known[N_RULES][MAX_LEN + 1] = {{false}};
    for (int k = 0; k < c->n_alts[0]; k++)
        all |= ends(c, 0, k, 0, s, n, 0, memo, known);
    return all >> n & 1;
}

static void grammars_match_as_a_naive_parser(void **state)
{
    (void)state;
    struct guide_vocab *v = make_vocab(NULL, 0);
    struct rng r = {11};
    int n_matches = 0, n_void = 0;
    for (int k = 0; k < 300; k++) {
        struct cfg c;
        struct buf text;
        struct guide *g;
        struct err e;
        buf_init(&text, 0);
        random_cfg(&r, &c, &text);
        bool ok = guide_compile(&g, v, &(struct guide_spec){.kind = GUIDE_GRAMMAR, .text = text.data, .len = text.len}, NULL, &e);
        if (!ok && !strstr(e.msg, "nothing matches"))
            fail_msg("%s: %s", text.data, e.msg);
        n_void += !ok;
        for (uint64_t i = 0; i < 3280; i++) { /* all strings of up to seven letters */
            char s[8];
            size_t n = nth_string(i, s);
            bool want = cfg_matches(&c, s, (int)n);
            n_matches += want;
            if (want != (ok && guide_matches(g, s, n)))
                fail_msg("%s\non %.*s: not %d", text.data, (int)n, s, want);
        }
        guide_unref(&g);
        buf_free(&text);
    }
    assert_true(n_matches > 1000 && n_void < 150);
    guide_vocab_close(&v);
}

static void grammar_syntax(void **state)
{
    (void)state;
    static const char arithmetic[] = "?start: sum\n?sum: product | sum \"+\" product -> add\n  | sum \"-\" product\n?product: atom | product \"*\" atom\n"
                                     "?atom: NUMBER | \"-\" atom | \"(\" sum \")\"\n%import common.NUMBER\n%ignore \" \" // spaces\n";
    static const struct { const char *grammar, *yes, *no; } cases[] = {
        {"root ::= [a-z]+ (\",\" [a-z]+)* # list\n", "ab,c", "ab,"}, {"root ::= \"a\"{2,3} . [^x-z\\n]\n", "aa?b", "aaay"},
        {"root ::= \"\\x41\\u00e9\\\"\"", "A\xc3\xa9\"", "A"}, {"x ::= \"a\" |\n \"b\"\n  y ::= x", "b", "c"}, {arithmetic, "1 + 2*(3 - -4)", "1 +"},
        {"start: WORD (\",\" WORD)*\n%import common (WORD, DIGIT)\n", "ab,cd", "ab,1"}, {"start: \"a\"~2..3 \"b\"i [\"c\"] /d+/ \"0\"..\"9\"\n", "aaBdd7", "abd1"},
        {"start: A\nA.2: \"x\" | /[y]/i\n", "Y", "z"}, {"!start: a | start \"x\"\na: \"q\"\n", "qxx", "xq"}, {"root ::= root \"x\" | \"y\"", "yxx", "xy"},
        {"root ::= \"(\" root \")\" | \"\"", "((()))", "(()"},
    };
    struct guide_vocab *v = make_vocab(NULL, 0);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct guide *g = compile(v, GUIDE_GRAMMAR, cases[i].grammar);
        if (!guide_matches(g, cases[i].yes, strlen(cases[i].yes)))
            fail_msg("%s does not match %s", cases[i].grammar, cases[i].yes);
        if (guide_matches(g, cases[i].no, strlen(cases[i].no)))
            fail_msg("%s matches %s", cases[i].grammar, cases[i].no);
        guide_unref(&g);
    }
    refuse(v, GUIDE_GRAMMAR, "root ::= nope", ERR_INVALID, "'nope' is used but not defined");
    refuse(v, GUIDE_GRAMMAR, "root ::= \"a", ERR_INVALID, "line 1: a literal has no closing quote");
    refuse(v, GUIDE_GRAMMAR, "root ::= \"a\"\n\nroot ::= \"b\"", ERR_INVALID, "defined twice");
    refuse(v, GUIDE_GRAMMAR, "root ::= a \"x\" | \"y\"\na ::= root \"z\"", ERR_UNSUPPORTED, "left recursion");
    refuse(v, GUIDE_GRAMMAR, "root ::= \"x\" root", ERR_INVALID, "nothing matches");
    refuse(v, GUIDE_GRAMMAR, "root ::= (\"x\"", ERR_INVALID, "'(' without ')'");
    refuse(v, GUIDE_GRAMMAR, "", ERR_INVALID, "no rule");
    refuse(v, GUIDE_GRAMMAR, "start: X\n%import other.X\n", ERR_UNSUPPORTED, "common");
    refuse(v, GUIDE_GRAMMAR, "start: a{b}\n", ERR_INVALID, "templates");
    guide_vocab_close(&v);
}

/* ---- choices, composition, forced bytes, limits ---- */

static void choices(void **state)
{
    (void)state;
    struct guide_vocab *v = make_vocab(json_tokens, sizeof json_tokens / sizeof json_tokens[0]);
    struct guide *g = compile(v, GUIDE_CHOICE, "[\"yes\",\"no\",\"no way\",\"\\u00e9\"]");
    struct guide_state *s;
    struct err e;
    char forced[16];
    assert_true(guide_matches(g, "no way", 6) && guide_matches(g, "\xc3\xa9", 2) && !guide_matches(g, "no w", 4));
    assert_true(guide_state_open(&s, g, &e));
    assert_int_equal(guide_state_forced(s, forced, sizeof forced), 0);
    assert_true(guide_state_advance(s, 'y', &e));
    assert_int_equal(guide_state_forced(s, forced, sizeof forced), 2);
    assert_memory_equal(forced, "es", 2);
    assert_false(guide_state_ended(s) || guide_state_accepts(s));
    assert_true(guide_state_advance(s, 'e', &e) && guide_state_advance(s, 's', &e));
    assert_true(guide_state_ended(s) && guide_state_accepts(s));
    guide_state_close(&s);
    guide_unref(&g);
    refuse(v, GUIDE_CHOICE, "[]", ERR_INVALID, "not empty");
    refuse(v, GUIDE_CHOICE, "[1]", ERR_INVALID, "choice 0");
    refuse(v, GUIDE_CHOICE, "{}", ERR_INVALID, "array");
    guide_vocab_close(&v);
}

static void compositions(void **state)
{
    (void)state;
    struct guide_vocab *v = make_vocab(json_tokens, sizeof json_tokens / sizeof json_tokens[0]);
    struct guide_builder *b = guide_build_open(NULL);
    struct guide *g;
    struct err e;
    json_t *schema = json_pack("{s:s,s:{s:{s:s}},s:[s]}", "type", "object", "properties", "x", "type", "integer", "required", "x");
    int32_t free_text = guide_build_until(b, (const char *const[]){"<call>", "<think>"}, 2);
    int32_t call[] = {guide_build_text(b, "<call>", -1), guide_build_schema(b, schema, ""), guide_build_text(b, "</call>", -1), free_text};
    int32_t all[] = {free_text, guide_build_repeat(b, guide_build_seq(b, call, 4), 0, 2)};
    assert_true(guide_build_finish(&b, guide_build_seq(b, all, 2), v, &g, &e));
    json_decref(schema);
    assert_null(b);
    static const char *const yes[] = {"", "hello <cal", "hi<call>{\"x\":1}</call>", "<call>{\"x\":1}</call>a<call>{\"x\":2}</call>\n"},
                             *const no[] = {"<call>", "<think>", "<call>{\"x\": 1}</call>", "<call>{}</call>", "<call>{\"x\":1}</call><call>{\"x\":1}</call><call>{\"x\":1}</call>"};
    for (size_t i = 0; i < sizeof yes / sizeof yes[0]; i++)
        assert_true(guide_matches(g, yes[i], strlen(yes[i])));
    for (size_t i = 0; i < sizeof no / sizeof no[0]; i++)
        assert_false(guide_matches(g, no[i], strlen(no[i])));
    guide_unref(&g);
    /* The first failure sticks and is the one that is told. */
    b = guide_build_open(NULL);
    int32_t broken[] = {guide_build_regex(b, "(", 1), guide_build_text(b, "x", 1), guide_build_regex(b, ")", 1)};
    assert_false(guide_build_finish(&b, guide_build_seq(b, broken, 3), v, &g, &e));
    assert_non_null(strstr(e.msg, "'(' without ')'"));
    guide_vocab_close(&v);
}

static void equal_texts_share_a_guide(void **state)
{
    (void)state;
    struct guide_vocab *v = make_vocab(NULL, 0);
    struct guide *a = compile(v, GUIDE_REGEX, "a+"), *b = compile(v, GUIDE_REGEX, "a+"), *c = compile(v, GUIDE_REGEX, "b+");
    assert_ptr_equal(a, b);
    assert_ptr_not_equal(a, c);
    for (int i = 0; i < 200; i++) { /* more than are kept */
        char text[16];
        snprintf(text, sizeof text, "x{%d}", i + 1);
        struct guide *g = compile(v, GUIDE_REGEX, text);
        guide_unref(&g);
    }
    guide_vocab_close(&v); /* the guides live on */
    assert_true(guide_matches(a, "aaa", 3) && guide_matches(c, "b", 1));
    guide_unref(&a);
    guide_unref(&b);
    guide_unref(&c);
}

/* Hostile inputs end soon, with an error or a guide whose masks end soon. */
static void hostile_inputs_are_bounded(void **state)
{
    (void)state;
    struct guide_vocab *v = make_vocab(json_tokens, sizeof json_tokens / sizeof json_tokens[0]);
    struct buf deep, wide;
    buf_init(&deep, 0);
    buf_init(&wide, 0);
    for (int i = 0; i < 3000; i++)
        buf_puts(&deep, "{\"items\":");
    buf_puts(&deep, "{}");
    for (int i = 0; i < 3000; i++)
        buf_putc(&deep, '}');
    buf_puts(&wide, "{\"allOf\":[");
    for (int i = 0; i < 12; i++)
        buf_printf(&wide, "%s{\"anyOf\":[{\"required\":[\"a%d\"]},{\"required\":[\"b%d\"]},{\"required\":[\"c%d\"]}]}", i ? "," : "", i, i, i);
    buf_puts(&wide, "]}");
    static const char *const regexes[] = {"(a|aa)*(a|aa)*(a|aa)*b{500}", "(.*a.{300}){20}", "((((a?){100}){100}){10})", "(?=.*a.{14})(?=.*b.{14})(?=.*c.{14}).*",
                                          "(x+x+)+y", "[\\p{L}]{0,5000}[\\p{N}]{0,5000}a"};
    static const char *const grammars[] = {"root ::= root2 root2 root2 root2\nroot2 ::= \"a\" root2 root2 | \"a\" | \"\"", "root ::= ([a-z]* [a-z]*)* \"x\""};
    static const char *const schemas[] = {"{\"allOf\":[{\"$ref\":\"#\"}]}", "{\"$ref\":\"#/$defs/a\",\"$defs\":{\"a\":{\"$ref\":\"#/$defs/b\"},\"b\":{\"$ref\":\"#/$defs/a\"}}}",
                                          "{\"type\":\"string\",\"minLength\":90000,\"pattern\":\"a.*b.*c\"}", "{\"type\":\"array\",\"minItems\":1000000000}",
                                          "{\"type\":\"integer\",\"multipleOf\":999999937}"};
    const char *texts[16];
    enum guide_kind kinds[16];
    int n = 0;
    for (int i = 0; i < 6; i++, n++)
        texts[n] = regexes[i], kinds[n] = GUIDE_REGEX;
    for (int i = 0; i < 2; i++, n++)
        texts[n] = grammars[i], kinds[n] = GUIDE_GRAMMAR;
    for (int i = 0; i < 5; i++, n++)
        texts[n] = schemas[i], kinds[n] = GUIDE_JSON_SCHEMA;
    texts[n] = deep.data, kinds[n++] = GUIDE_JSON_SCHEMA;
    texts[n] = wide.data, kinds[n++] = GUIDE_JSON_SCHEMA;
    for (int i = 0; i < n; i++) {
        struct guide *g;
        struct guide_state *s = NULL;
        struct err e;
        struct rng r = {5};
        int64_t t0 = clock_now_us();
        if (guide_compile(&g, v, &(struct guide_spec){.kind = kinds[i], .text = texts[i], .len = strlen(texts[i])}, NULL, &e)) {
            assert_true(guide_state_open(&s, g, &e));
            for (int k = 0; k < 20; k++) {
                const uint32_t *mask = guide_state_mask(s, &e);
                if (!mask)
                    assert_int_equal(e.code, ERR_TOO_LARGE);
                int32_t t = mask ? pick(mask, &r) : EOS;
                if (t == EOS)
                    break;
                assert_true(guide_state_advance(s, t, &e));
            }
            guide_state_close(&s);
            guide_unref(&g);
        }
        if (clock_now_us() - t0 > 20000000) /* generous: sanitizers on a busy machine */
            fail_msg("%.60s took %.1f s", texts[i], (double)(clock_now_us() - t0) / 1e6);
    }
    buf_free(&deep);
    buf_free(&wide);
    guide_vocab_close(&v);
}

/* Every allocation fails once: an error, no leak, and afterwards all works. */
static void allocations_may_fail(void **state)
{
    (void)state;
    static const char schema[] = "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"string\",\"maxLength\":30,\"pattern\":\"^x\"},\"b\":{\"oneOf\":[{\"$ref\":\"#\"},"
                                 "{\"type\":\"integer\",\"minimum\":7,\"multipleOf\":3}]}},\"required\":[\"a\"]}";
    struct guide_vocab *v = make_vocab(json_tokens, sizeof json_tokens / sizeof json_tokens[0]);
    struct guide_limits l;
    guide_limits_default(&l);
    int n_failed = 0;
    for (long n = 1; n < 4000; n += 1 + n / 40) {
        struct guide *g = NULL;
        struct guide_state *s = NULL;
        struct err e;
        l.max_dfa_states = 5000 + (int32_t)n; /* another key: not the remembered guide */
        mem_fault_after(n);
        bool ok = guide_compile(&g, v, &(struct guide_spec){.kind = GUIDE_JSON_SCHEMA, .text = schema, .len = strlen(schema)}, &l, &e) && guide_state_open(&s, g, &e);
        for (int32_t t = '{'; ok && t >= 0; t = t == '{' ? '"' : -1)
            ok = guide_state_mask(s, &e) && guide_state_advance(s, t, &e);
        bool fired = mem_fault_fired();
        mem_fault_after(0);
        if (!ok) {
            n_failed++;
            if (e.code != ERR_NOMEM)
                fail_msg("allocation %ld: %s", n, e.msg);
        }
        if (s)
            assert_non_null(guide_state_mask(s, &e));
        guide_state_close(&s);
        guide_unref(&g);
        if (!fired)
            break;
    }
    assert_true(n_failed > 20);
    guide_vocab_close(&v);
}

/* Strings of an array that must differ do, and nothing else is forbidden. */
static void unique_strings_differ(void **state)
{
    (void)state;
    static const char schema[] = "{\"type\":\"object\",\"properties\":{\"x\":{\"type\":\"array\",\"items\":{\"type\":\"string\",\"pattern\":\"^[abe]*$\",\"maxLength\":3},%s"
                                 "\"minItems\":4,\"maxItems\":6},\"y\":{\"type\":\"string\"}},\"required\":[\"x\"]}";
    struct guide_vocab *v = make_vocab(json_tokens, sizeof json_tokens / sizeof json_tokens[0]);
    struct guide *g[2];
    struct rng r = {3};
    struct err e;
    int n_differ = 0, n_ended = 0;
    for (int i = 0; i < 2; i++) {
        char text[512];
        snprintf(text, sizeof text, schema, i ? "\"uniqueItems\":true," : "");
        g[i] = compile(v, GUIDE_JSON_SCHEMA, text);
    }
    for (int k = 0; k < 300; k++) {
        struct guide_state *plain, *unique;
        char out[2048];
        size_t n = 0;
        bool ended = false;
        assert_true(guide_state_open(&plain, g[0], &e) && guide_state_open(&unique, g[1], &e));
        for (int i = 0; i < 120 && !ended; i++) {
            const uint32_t *p = guide_state_mask(plain, &e), *u = guide_state_mask(unique, &e);
            assert_non_null(p);
            if (!u)
                fail_msg("%s after %.*s", e.msg, (int)n, out);
            for (int32_t t = 0; t < EOS; t++)
                if (has(u, t))
                    assert_true(has(p, t));
                else if (has(p, t)) {
                    n_differ++;
                    assert_true(t >= 256 || strchr("\"abe", t)); /* an end, or a letter after which only an end could come */
                }
            int32_t t = pick(u, &r);
            assert_true(guide_state_advance(plain, t, &e) && guide_state_advance(unique, t, &e));
            if (i % 7 == 3) {
                struct guide_state *fork = guide_state_fork(unique);
                guide_state_close(&unique);
                unique = fork;
            }
            ended = t == EOS;
            const char *s = t < 256 ? (char[]){(char)t, 0} : ended ? "" : json_tokens[t - 256];
            n += (size_t)snprintf(out + n, sizeof out - n, "%s", s);
        }
        guide_state_close(&plain);
        guide_state_close(&unique);
        if (!ended)
            continue;
        json_t *j = json_parse(out, n, &e), *x = json_object_get(j, "x");
        assert_true(json_array_size(x) >= 4);
        for (size_t a = 0; a < json_array_size(x); a++)
            for (size_t b = 0; b < a; b++)
                assert_false(json_equal(json_array_get(x, a), json_array_get(x, b)));
        json_decref(j);
        n_ended++;
    }
    assert_true(n_differ > 100 && n_ended > 50);
    guide_unref(&g[0]);
    guide_unref(&g[1]);
    guide_vocab_close(&v);
}

/* Many threads in one guide that forgets often: each sees the masks that it would see alone. */
struct walker { struct guide *shared, *own; uint64_t seed; bool ok; };

static void *walk(void *arg)
{
    struct walker *w = arg;
    struct rng r = {w->seed};
    struct err e;
    w->ok = true;
    for (int k = 0; k < 6 && w->ok; k++) {
        struct guide_state *x, *y;
        w->ok = guide_state_open(&x, w->shared, &e) && guide_state_open(&y, w->own, &e);
        for (int i = 0; w->ok && i < 80; i++) {
            const uint32_t *m = guide_state_mask(x, &e), *o = guide_state_mask(y, &e);
            w->ok = m && o && memcmp(m, o, (VOCAB + 31) / 32 * 4) == 0;
            int32_t t = w->ok ? pick(m, &r) : EOS;
            w->ok = w->ok && guide_state_advance(x, t, &e) && guide_state_advance(y, t, &e);
            if (t == EOS)
                break;
        }
        guide_state_close(&x);
        guide_state_close(&y);
    }
    return NULL;
}

static void threads_share_a_guide(void **state)
{
    (void)state;
    enum { N = 4 };
    static const char schema[] = "{\"type\":\"array\",\"items\":{\"anyOf\":[{\"type\":\"string\",\"maxLength\":40},{\"$ref\":\"#\"},{\"type\":\"number\"}]}}";
    struct guide_vocab *v = make_vocab(json_tokens, sizeof json_tokens / sizeof json_tokens[0]);
    struct guide_limits l;
    struct guide *shared;
    struct err e;
    struct guide_spec spec = {.kind = GUIDE_JSON_SCHEMA, .text = schema, .len = strlen(schema)};
    struct walker w[N];
    pthread_t threads[N];
    guide_limits_default(&l);
    l.max_bytes = 60000;
    assert_true(guide_compile(&shared, v, &spec, &l, &e));
    for (int i = 0; i < N; i++) {
        l.max_bytes = (size_t)(1 << 20) + (size_t)i; /* one for each */
        w[i] = (struct walker){.shared = shared, .seed = (uint64_t)i};
        assert_true(guide_compile(&w[i].own, v, &spec, &l, &e));
        assert_int_equal(pthread_create(&threads[i], NULL, walk, &w[i]), 0);
    }
    for (int i = 0; i < N; i++) {
        pthread_join(threads[i], NULL);
        assert_true(w[i].ok);
        guide_unref(&w[i].own);
    }
    guide_unref(&shared);
    guide_vocab_close(&v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(regexes_match_as_pcre2), cmocka_unit_test(regex_syntax), cmocka_unit_test(masks_are_what_can_go_on),
        cmocka_unit_test(counted_loops_equal_written_ones), cmocka_unit_test(forgetting_changes_nothing),
        cmocka_unit_test(grammars_match_as_a_naive_parser), cmocka_unit_test(grammar_syntax), cmocka_unit_test(choices),
        cmocka_unit_test(compositions), cmocka_unit_test(equal_texts_share_a_guide), cmocka_unit_test(unique_strings_differ), cmocka_unit_test(threads_share_a_guide), cmocka_unit_test(hostile_inputs_are_bounded),
        cmocka_unit_test(allocations_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
