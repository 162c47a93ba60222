#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <string.h>

#include "base/mem.h"
#include "tok/tok_int.h"

/* Bounds of one match: a pattern comes with the model file and is not trusted. */
enum { RE_MATCH_LIMIT = 10 * 1000 * 1000, RE_HEAP_KIB = 64 * 1024, RE_STACK_FIRST = 32 * 1024, RE_STACK_MAX = 1 << 20 };

static const struct { const char *pattern; enum tok_re_kind kind; } known[] = {
    {"'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+", TOK_RE_GPT2},
    {"'(?:[sdmt]|ll|ve|re)| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+", TOK_RE_GPT2},
    {"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
     TOK_RE_LLAMA3},
    {"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
     TOK_RE_QWEN},
};

static bool open_pcre(struct tok_re *re, const char *pattern, size_t len, struct err *e)
{
    struct buf b = {0};
    int code;
    PCRE2_SIZE at;
    if (!tok_onig_to_pcre(pattern, len, &b, e)) {
        buf_free(&b);
        return false;
    }
    pcre2_compile_context *cc = pcre2_compile_context_create(NULL);
    if (cc) {
        pcre2_set_newline(cc, PCRE2_NEWLINE_LF);
        pcre2_set_parens_nest_limit(cc, 100);
        re->code = pcre2_compile((PCRE2_SPTR)b.data, b.len, PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C,
                                 &code, &at, cc);
    }
    bool ok = cc != NULL || tok_nomem(e);
    if (cc && !re->code) {
        PCRE2_UCHAR why[128];
        pcre2_get_error_message(code, why, sizeof why);
        ok = err_set(e, ERR_UNSUPPORTED, "tokenizer.json: regular expression '%.200s': %s", pattern, (char *)why);
    }
    if (re->code)
        pcre2_jit_compile(re->code, PCRE2_JIT_COMPLETE);   /* without JIT it is slower, not wrong */
    pcre2_compile_context_free(cc);
    buf_free(&b);
    return ok;
}

bool tok_re_open(struct tok_re *re, const char *pattern, size_t len, bool is_regex, bool no_scan, const uint8_t *uc,
                 struct err *e)
{
    *re = (struct tok_re){.kind = is_regex ? TOK_RE_PCRE : TOK_RE_LITERAL, .uc = uc};
    if (!is_regex) {
        re->literal = mem_try_strndup(pattern, len);
        re->literal_len = len;
        return re->literal || tok_nomem(e);
    }
    for (size_t i = 0; !no_scan && i < sizeof known / sizeof *known; i++)
        if (strlen(known[i].pattern) == len && memcmp(known[i].pattern, pattern, len) == 0) {
            re->kind = known[i].kind;
            return true;
        }
    return open_pcre(re, pattern, len, e);
}

void tok_re_close(struct tok_re *re)
{
    mem_free(re->literal);
    pcre2_code_free(re->code);
    *re = (struct tok_re){0};
}

bool tok_re_begin(struct tok_re_iter *it, const struct tok_re *re, const char *text, size_t len, struct err *e)
{
    *it = (struct tok_re_iter){.re = re};
    tok_re_restart(it, text, len);
    if (re->kind != TOK_RE_PCRE)
        return true;
    it->match = pcre2_match_data_create_from_pattern(re->code, NULL);
    pcre2_match_context *mc = pcre2_match_context_create(NULL);
    it->context = mc;
    if (!it->match || !mc) {
        tok_re_end(it);
        return tok_nomem(e);
    }
    pcre2_set_match_limit(mc, RE_MATCH_LIMIT);
    pcre2_set_heap_limit(mc, RE_HEAP_KIB);
    it->stack = pcre2_jit_stack_create(RE_STACK_FIRST, RE_STACK_MAX, NULL);
    if (it->stack)
        pcre2_jit_stack_assign(mc, NULL, it->stack);
    return true;
}

void tok_re_end(struct tok_re_iter *it)
{
    pcre2_match_data_free(it->match);
    pcre2_match_context_free(it->context);
    pcre2_jit_stack_free(it->stack);
    it->match = it->context = it->stack = NULL;
}

void tok_re_restart(struct tok_re_iter *it, const char *text, size_t len)
{
    it->text = text;
    it->len = len;
    it->at = 0;
    it->last_end = SIZE_MAX;
}

static int search_pcre(struct tok_re_iter *it, size_t *s, size_t *t, struct err *e)
{
    PCRE2_SPTR text = (PCRE2_SPTR)it->text;
    int rc = pcre2_match(it->re->code, text, it->len, it->at, PCRE2_NO_UTF_CHECK, it->match, it->context);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT)   /* the interpreter keeps its state on the heap */
        rc = pcre2_match(it->re->code, text, it->len, it->at, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, it->match, it->context);
    if (rc == PCRE2_ERROR_NOMATCH)
        return 0;
    if (rc < 0) {
        err_set(e, ERR_TOO_LARGE, "tokenizer.json: a regular expression gave up at byte %zu of a text of %zu (PCRE2 error %d)",
                it->at, it->len, rc);
        return -1;
    }
    PCRE2_SIZE *o = pcre2_get_ovector_pointer(it->match);
    *s = o[0];
    *t = o[1] < o[0] ? o[0] : o[1];   /* \K in a lookahead could turn them round */
    return 1;
}

static int search_literal(struct tok_re_iter *it, size_t *s, size_t *t)
{
    const struct tok_re *re = it->re;
    const char *from = it->text + it->at;
    size_t rest = it->len - it->at;
    const char *hit = re->literal_len == 0 ? from
                    : re->literal_len == 1 ? memchr(from, re->literal[0], rest)
                                           : memmem(from, rest, re->literal, re->literal_len);
    if (!hit)
        return 0;
    *s = (size_t)(hit - it->text);
    *t = *s + re->literal_len;
    return 1;
}

static int search_known(struct tok_re_iter *it, size_t *s, size_t *t)
{
    if (it->at >= it->len)
        return 0;
    *s = it->at;
    *t = it->re->kind == TOK_RE_GPT2 ? tok_scan_gpt2(it->re->uc, it->text, it->len, it->at)
                                     : tok_scan_llama3(it->re->uc, it->text, it->len, it->at, it->re->kind == TOK_RE_QWEN ? 1 : 3);
    return 1;
}

int tok_re_next(struct tok_re_iter *it, size_t *s, size_t *t, struct err *e)
{
    while (it->at <= it->len) {
        int rc = it->re->kind == TOK_RE_PCRE      ? search_pcre(it, s, t, e)
                 : it->re->kind == TOK_RE_LITERAL ? search_literal(it, s, t)
                                                  : search_known(it, s, t);
        if (rc <= 0) {
            it->at = it->len + 1;
            return rc;
        }
        if (*s == *t && it->last_end == *t) {
            /* An empty match right after a match is none: look one character further. */
            it->at += it->at < it->len ? (size_t)tok_cp_len(it->text + it->at) : 1;
            continue;
        }
        it->at = it->last_end = *t;
        return 1;
    }
    return 0;
}
