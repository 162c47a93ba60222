/* Decoders, and the streaming detokenizer against whole decoding. */
#include "tok_make.h"

#include "base/rng.h"
#include "base/utf8.h"
#include "tok/detok.h"

static const char *const vocab = "{'type':'WordLevel','unk_token':'u','vocab':{'u':0,'\xe2\x96\x81" "a':1,'b':2,'<0xC3>':3,'<0xA9>':4,'<0x0A>':5,"
                                 "'##c':6,'d</w>':7,'<pad>':8,'|':9,'\xc4\xa0x':10,'\xc3\x83':11,'\xc2\xa9':12,'\xe2\x96\x81':13,'.':14,"
                                 "'\xc3\x83\xc2\xa9':15,'\xe4\xb8\xad':16,'ab':17}}";

static void decoders(void **state)
{
    (void)state;
    static const struct { const char *decoder; int32_t ids[8]; const char *want; } cases[] = {
        {NULL, {1, 2, 2, -1}, "\xe2\x96\x81" "a b b"},
        {"{'type':'Fuse'}", {2, 2, -1}, "bb"},
        {"{'type':'ByteLevel'}", {10, 11, 12, 2, -1}, " x\xc3\xa9" "b"},
        {"{'type':'ByteLevel'}", {11, 2, 16, -1}, "\xef\xbf\xbd" "b\xe4\xb8\xad"},   /* a cut-off character; a token that is no byte text */
        {"{'type':'ByteFallback'}", {3, 4, 5, 2, -1}, "\xc3\xa9\nb"},
        {"{'type':'ByteFallback'}", {3, 5, 2, 3, -1}, "\xef\xbf\xbd\xef\xbf\xbd" "b\xef\xbf\xbd"},  /* all bytes of a bad run */
        {"{'type':'Sequence','decoders':[{'type':'Replace','pattern':{'String':'\xe2\x96\x81'},'content':' '},{'type':'ByteFallback'},"
         "{'type':'Fuse'},{'type':'Strip','content':' ','start':1,'stop':0}]}", {1, 2, 1, 13, 3, 4, -1}, "ab a \xc3\xa9"},
        {"{'type':'Metaspace','replacement':'\xe2\x96\x81','prepend_scheme':'always'}", {1, 1, -1}, "a a"},
        {"{'type':'Metaspace','replacement':'\xe2\x96\x81','prepend_scheme':'never'}", {1, 1, -1}, " a a"},
        {"{'type':'WordPiece','prefix':'##','cleanup':true}", {2, 6, 14, 2, -1}, "bc. b"},
        {"{'type':'WordPiece','prefix':'##','cleanup':false}", {2, 6, 14, -1}, "bc ."},
        {"{'type':'BPEDecoder','suffix':'</w>'}", {2, 7, 2, 7, -1}, "bd bd"},
        {"{'type':'CTC','pad_token':'<pad>','word_delimiter_token':'|','cleanup':true}", {2, 2, 8, 2, 9, 9, 2, -1}, "bb b"},
        {"{'type':'Strip','content':'b','start':1,'stop':1}", {17, 2, 17, 1, -1}, "aa\xe2\x96\x81" "a"},
        {"{'type':'Replace','pattern':{'Regex':'[ab]'},'content':'z'}", {17, 2, -1}, "zzz"},
        {"{'type':'Sequence','decoders':[{'type':'Fuse'},{'type':'Replace','pattern':{'String':'bb'},'content':'-'}]}", {2, 2, 17, 2, 2, -1}, "-a-b"},
        {"{'type':'Sequence','decoders':[]}", {2, 2, -1}, "bb"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct tok *t = make_parts(NULL, NULL, vocab, cases[i].decoder);
        size_t n = 0;
        while (cases[i].ids[n] >= 0)
            n++;
        expect_text(t, cases[i].ids, n, 0, cases[i].want);
        expect_text(t, cases[i].ids, 0, 0, "");
        tok_close(&t);
    }
}

static const char *const chains[] = {
    NULL,
    "{'type':'ByteLevel'}",
    "{'type':'Sequence','decoders':[{'type':'Replace','pattern':{'String':'\xe2\x96\x81'},'content':' '},{'type':'ByteFallback'},"
    "{'type':'Fuse'},{'type':'Strip','content':' ','start':1,'stop':0}]}",
    "{'type':'Metaspace','replacement':'\xe2\x96\x81'}",
    "{'type':'WordPiece','prefix':'##','cleanup':true}",
    "{'type':'BPEDecoder','suffix':'</w>'}",
    "{'type':'CTC','pad_token':'<pad>','word_delimiter_token':'|','cleanup':true}",
    "{'type':'Sequence','decoders':[{'type':'Fuse'},{'type':'Replace','pattern':{'String':'bb'},'content':'-'},{'type':'Strip','content':'b','start':1,'stop':2}]}",
    "{'type':'Sequence','decoders':[{'type':'ByteFallback'},{'type':'Fuse'},{'type':'Replace','pattern':{'Regex':'b+'},'content':'-'}]}",
    "{'type':'Sequence','decoders':[{'type':'ByteLevel'},{'type':'Strip','content':' ','start':1,'stop':0}]}",
};

static void streaming_equals_whole(void **state)
{
    (void)state;
    struct rng r = {5};
    for (size_t c = 0; c < sizeof chains / sizeof *chains; c++) {
        struct tok *t = make_parts(NULL, NULL, vocab, chains[c]);
        for (int round = 0; round < 2000; round++) {
            int32_t ids[16];
            size_t n = rng_next_below(&r, 16);
            struct buf whole = {0}, all = {0};
            struct detok *d;
            for (size_t i = 0; i < n; i++)
                ids[i] = (int32_t)rng_next_below(&r, 19);       /* 18 is unknown: skipped */
            assert_true(tok_decode(t, ids, n, 0, &whole, NULL));
            assert_true(detok_open(&d, t, 0, NULL, 0, NULL));
            for (size_t i = 0; i < n; i++) {
                assert_true(detok_push(d, ids[i], &all, NULL));
                assert_true(all.len == 0 || utf8_valid(all.data, all.len));
                assert_true(all.len <= whole.len && (all.len == 0 || memcmp(all.data, whole.data, all.len) == 0));
            }
            assert_true(detok_finish(d, &all, NULL));
            if (all.len != whole.len || (all.len && memcmp(all.data, whole.data, all.len) != 0))
                fail_msg("chain %zu: streamed '%s', whole '%s'", c, all.data ? all.data : "", whole.data ? whole.data : "");
            detok_close(&d);
            buf_free(&whole);
            buf_free(&all);
        }
        tok_close(&t);
    }
}

/* The usual chains do not sit on text: plain tokens come out as they come in. */
static void text_is_not_held_back(void **state)
{
    (void)state;
    for (size_t c = 1; c <= 3; c++) {
        struct tok *t = make_parts(NULL, NULL, vocab, chains[c]);
        struct detok *d;
        struct buf out = {0};
        assert_true(detok_open(&d, t, 0, NULL, 0, NULL));
        for (size_t i = 1; i <= 5; i++) {
            assert_true(detok_push(d, 2, &out, NULL));
            assert_int_equal(out.len, i);
        }
        detok_close(&d);
        buf_free(&out);
        tok_close(&t);
    }
}

static void expect_after(const struct tok *t, const int32_t *prompt, size_t n, const int32_t *ids, size_t n_ids, const char *want)
{
    struct detok *d;
    struct buf out = {0};
    assert_true(detok_open(&d, t, 0, prompt, n, NULL));
    for (size_t i = 0; i < n_ids; i++)
        assert_true(detok_push(d, ids[i], &out, NULL));
    assert_true(detok_finish(d, &out, NULL));
    assert_string_equal(out.data ? out.data : "", want);
    buf_free(&out);
    detok_close(&d);
}

static void after_a_prompt(void **state)
{
    (void)state;
    struct tok *t = make_parts(NULL, NULL, vocab, chains[2]);
    expect_after(t, NULL, 0, (int32_t[]){1}, 1, "a");                  /* first of all: no space */
    expect_after(t, (int32_t[]){2}, 1, (int32_t[]){1}, 1, " a");       /* inside a text: with its space */
    expect_after(t, (int32_t[]){2, 5}, 2, (int32_t[]){2}, 1, "b");     /* the prompt's line end is the prompt's */
    expect_after(t, (int32_t[]){2, 3}, 2, (int32_t[]){4, 2}, 2, "\xc3\xa9" "b");   /* a character begun in the prompt */
    expect_after(t, (int32_t[]){2, 3}, 2, NULL, 0, "");
    tok_close(&t);
    t = make_parts(NULL, NULL, vocab, chains[1]);
    expect_after(t, (int32_t[]){11}, 1, (int32_t[]){12, 2}, 2, "\xc3\xa9" "b");
    expect_after(t, (int32_t[]){11}, 1, (int32_t[]){2}, 1, "b");
    tok_close(&t);
}

static void bytes_of_tokens(void **state)
{
    (void)state;
    static const struct { size_t chain; int32_t id; const char *want; } cases[] = {
        {1, 10, " x"}, {1, 11, "\xc3"}, {1, 16, "\xe4\xb8\xad"}, {2, 1, " a"}, {2, 3, "\xc3"}, {2, 5, "\n"}, {3, 1, " a"}, {4, 6, "c"}, {5, 7, "d "}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct tok *t = make_parts(NULL, NULL, vocab, chains[cases[i].chain]);
        size_t len;
        const char *s = tok_token_bytes(t, cases[i].id, &len);
        assert_int_equal(len, strlen(cases[i].want));
        assert_memory_equal(s, cases[i].want, len);
        tok_token_bytes(t, 1000, &len);
        assert_int_equal(len, 0);
        tok_close(&t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(decoders), cmocka_unit_test(streaming_equals_whole),
                                       cmocka_unit_test(text_is_not_held_back), cmocka_unit_test(after_a_prompt),
                                       cmocka_unit_test(bytes_of_tokens)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
