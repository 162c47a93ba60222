/* Small tokenizers from JSON text for the tests of tok/.  In the JSON a single quote stands for a double one. */
#ifndef QUIRE_TESTS_TOK_MAKE_H
#define QUIRE_TESTS_TOK_MAKE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/buf.h"
#include "base/mem.h"
#include "tok/tok.h"

/* text with ' as ": mem_free it. */
static inline char *make_json(const char *text)
{
    char *s = mem_try_strdup(text);
    for (char *p = s; *p; p++)
        *p = *p == '\'' ? '"' : *p;
    return s;
}

static inline struct tok *make_tok(const char *text)
{
    struct tok *t;
    struct err e = {0};
    char *s = make_json(text);
    if (!tok_open_json(&t, s, strlen(s), &e))
        fail_msg("%s\n%s", e.msg, text);
    mem_free(s);
    return t;
}

/* A tokenizer from its parts; NULL leaves a part out. */
static inline struct tok *make_parts(const char *normalizer, const char *pre_tokenizer, const char *model, const char *decoder)
{
    struct buf b = {0};
    buf_printf(&b, "{'model':%s", model);
    if (normalizer)
        buf_printf(&b, ",'normalizer':%s", normalizer);
    if (pre_tokenizer)
        buf_printf(&b, ",'pre_tokenizer':%s", pre_tokenizer);
    if (decoder)
        buf_printf(&b, ",'decoder':%s", decoder);
    buf_putc(&b, '}');
    struct tok *t = make_tok(b.data);
    buf_free(&b);
    return t;
}

/* The spellings of the tokens of text, joined by '|'. */
static inline void expect_tokens(const struct tok *t, const char *text, const char *want)
{
    struct tok_ids ids = {0};
    struct buf b = {0};
    struct err e = {0};
    if (!tok_encode(t, text, strlen(text), TOK_ENCODE_SPECIAL, &ids, &e))
        fail_msg("%s: %s", text, e.msg);
    for (size_t i = 0; i < ids.n; i++) {
        size_t len;
        const char *s = tok_token_spelling(t, ids.ids[i], &len);
        buf_printf(&b, "%s%.*s", i ? "|" : "", (int)len, s ? s : "");
    }
    if (strcmp(b.data ? b.data : "", want) != 0)
        fail_msg("'%s': want %s, got %s", text, want, b.data ? b.data : "");
    buf_free(&b);
    tok_ids_free(&ids);
}

static inline void expect_text(const struct tok *t, const int32_t *ids, size_t n, unsigned flags, const char *want)
{
    struct buf b = {0};
    struct err e = {0};
    if (!tok_decode(t, ids, n, flags, &b, &e))
        fail_msg("%s", e.msg);
    if (strcmp(b.data ? b.data : "", want) != 0)
        fail_msg("want '%s', got '%s'", want, b.data ? b.data : "");
    buf_free(&b);
}

#endif
