/* Normalizers, pre-tokenizers and their regular expressions: what each does to a text, seen through a model that
 * names its words; and the hand-written scanners against PCRE2 on random text. */
#include "tok_make.h"

#include "base/rng.h"
#include "base/utf8.h"
#include "tok/tok_int.h"

/* The text after normalization and cutting: words joined by '|'. */
static void expect_words(const char *normalizer, const char *pre_tokenizer, const char *text, const char *want)
{
    struct tok *t = make_parts(normalizer, pre_tokenizer, "{'type':'WordLevel','unk_token':'u','vocab':{'u':0}}", NULL);
    struct tok_work w = {.t = t};
    struct buf b = {0};
    struct err e = {0};
    uint32_t zero = (uint32_t)tok_cp_len(text);
    int which = 0;
    const char *s = text;
    size_t len = strlen(text);
    if (t->n_norms) {
        assert_true(tok_norm_run(&w, text, len, &zero, &which, &e));
        s = w.scratch[which].data;
        len = w.scratch[which].len;
    }
    assert_true(buf_append(&w.text, s, len));
    assert_true(tok_piece_push(&w.pieces, 0, len, -1, zero));
    if (!tok_pre_run(&w, &e))
        fail_msg("%s", e.msg);
    for (size_t i = 0; i < w.pieces.n; i++)
        buf_printf(&b, "%s%.*s", i ? "|" : "", (int)w.pieces.items[i].len, w.text.data + w.pieces.items[i].at);
    if (strcmp(b.data ? b.data : "", want) != 0)
        fail_msg("%s %s '%s': want '%s', got '%s'", normalizer ? normalizer : "", pre_tokenizer ? pre_tokenizer : "", text, want,
                 b.data ? b.data : "");
    buf_free(&b);
    buf_free(&w.text);
    buf_free(&w.next);
    buf_free(&w.scratch[0]);
    buf_free(&w.scratch[1]);
    mem_free(w.pieces.items);
    mem_free(w.out.items);
    mem_free(w.matches.items);
    mem_free(w.cps.items);
    tok_close(&t);
}

static void normalizers(void **state)
{
    (void)state;
    static const char *const cases[][3] = {
        {"{'type':'NFC'}", "e\xcc\x81 \xe2\x84\xab", "\xc3\xa9 \xc3\x85"},
        {"{'type':'NFC'}", "a\xcc\x95\xcc\x80\xcc\x96", "\xc3\xa0\xcc\x96\xcc\x95"},   /* marks sorted by class, then composed */
        {"{'type':'NFD'}", "\xc3\xa9\xed\x95\x9c", "e\xcc\x81\xe1\x84\x92\xe1\x85\xa1\xe1\x86\xab"},
        {"{'type':'NFKC'}", "\xef\xac\x81\xe2\x91\xa0\xe3\x8e\x8f", "fi1kg"},
        {"{'type':'NFKD'}", "\xc2\xbd\xc3\xa9", "1\xe2\x81\x84" "2e\xcc\x81"},
        {"{'type':'Lowercase'}", "AB\xc3\x84\xc4\xb0\xce\xa3", "ab\xc3\xa4i\xcc\x87\xcf\x83"},
        {"{'type':'StripAccents'}", "e\xcc\x81\xe0\xa4\x95\xe0\xa4\xbe", "e\xe0\xa4\x95"},
        {"{'type':'Strip','strip_left':true,'strip_right':false}", "\xe3\x80\x80 a ", "a "},
        {"{'type':'Strip','strip_left':true,'strip_right':true}", " \t ", ""},
        {"{'type':'Prepend','prepend':'\xe2\x96\x81'}", "a", "\xe2\x96\x81" "a"},
        {"{'type':'Prepend','prepend':'\xe2\x96\x81'}", "", ""},
        {"{'type':'Replace','pattern':{'String':'aa'},'content':'b'}", "aaaac", "bbc"},
        {"{'type':'Replace','pattern':{'Regex':'[ab]+'},'content':'-'}", "xabay", "x-y"},
        {"{'type':'Nmt'}", "a\x01\tb\xe2\x80\x8b" "c", "a b c"},
        {"{'type':'BertNormalizer','clean_text':true,'handle_chinese_chars':true,'strip_accents':null,'lowercase':true}",
         "\xc3\x89\x02\t\xe4\xb8\xad", "e  \xe4\xb8\xad "},
        {"{'type':'ByteLevel'}", "a \xc3\xa9", "a\xc4\xa0\xc3\x83\xc2\xa9"},
        {"{'type':'Sequence','normalizers':[{'type':'NFKC'},{'type':'Lowercase'},{'type':'Prepend','prepend':'x'}]}", "\xef\xbc\xa1", "xa"},
        /* A character that Unicode 11 brought keeps its place: the reference's tables end at Unicode 9. */
        {"{'type':'NFC'}", "a\xdf\xbd\xcc\x81", "a\xdf\xbd\xcc\x81"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        expect_words(cases[i][0], NULL, cases[i][1], cases[i][2]);
}

/* A million marks of alternating classes: sorting them must not be quadratic. */
static void many_marks(void **state)
{
    (void)state;
    struct tok *t = make_parts("{'type':'NFC'}", NULL, "{'type':'BPE','vocab':{'a':0},'merges':[]}", NULL);
    size_t n = 1 << 20;
    char *s = mem_try_alloc(n, 1);
    assert_non_null(s);
    for (size_t i = 0; i + 4 <= n; i += 4)
        memcpy(s + i, "\xcc\x80\xcc\x96", 4);
    struct tok_ids ids = {0};
    assert_true(tok_encode(t, s, n, 0, &ids, NULL));
    tok_ids_free(&ids);
    mem_free(s);
    tok_close(&t);
}

/* A trie by hand: 'a' -> "x", U+00E9 -> "e", and "bc" is unknown although 'b' leads on. */
static void charsmap(void **state)
{
    (void)state;
    /* units: node = offset ^ label; a leaf's value unit is at node ^ offset.  base64 of the 1 KiB array is built here. */
    enum { UNITS = 1024 };
    uint32_t trie[UNITS] = {0};
    static const char strings[] = "x\0e";
    static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const uint32_t leaf = 1u << 8;
    trie[0] = 256u << 10;                                  /* root: children at 256 ^ byte */
    trie[256 ^ 'a'] = 'a' | leaf | (512u << 10);
    trie[(256 ^ 'a') ^ 512] = 0;                           /* value: offset of "x" */
    trie[256 ^ 0xc3] = 0xc3 | ((uint32_t)((256 ^ 0xc3) ^ 768) << 10);
    trie[768 ^ 0xa9] = 0xa9 | leaf | ((uint32_t)((768 ^ 0xa9) ^ 900) << 10);
    trie[900] = 2;                                         /* "e" */
    unsigned char blob[4 + UNITS * 4 + sizeof strings];
    uint32_t bytes = UNITS * 4;
    memcpy(blob, &bytes, 4);
    memcpy(blob + 4, trie, sizeof trie);
    memcpy(blob + 4 + sizeof trie, strings, sizeof strings);
    struct buf b = {0};
    buf_puts(&b, "{'type':'Precompiled','precompiled_charsmap':'");
    for (size_t i = 0; i < sizeof blob; i += 3) {
        uint32_t v = 0;
        for (size_t k = 0; k < 3; k++)
            v = v << 8 | (i + k < sizeof blob ? blob[i + k] : 0);
        for (size_t k = 0; k < 4; k++)
            buf_putc(&b, i + k <= sizeof blob ? alphabet[v >> (18 - 6 * k) & 63] : '=');
    }
    buf_puts(&b, "'}");
    expect_words(b.data, NULL, "a\xc3\xa9" "b\xc3\xa8" "a", "xeb\xc3\xa8x");
    /* A short cluster is looked up whole and the shortest prefix decides: the mark goes with its letter. */
    expect_words(b.data, NULL, "a\xcc\x81", "x");
    buf_free(&b);
}

static void pre_tokenizers(void **state)
{
    (void)state;
    static const char *const cases[][3] = {
        {"{'type':'Whitespace'}", "Hi, you_2!! \xc3\xa9" "a", "Hi|,|you_2|!!|\xc3\xa9" "a"},
        {"{'type':'WhitespaceSplit'}", " a  b,\tc", "a|b,|c"},
        {"{'type':'BertPreTokenizer'}", "a,b c!", "a|,|b|c|!"},
        {"{'type':'Punctuation'}", "a,,b", "a|,|,|b"},
        {"{'type':'Punctuation','behavior':'Contiguous'}", "a,,b", "a|,,|b"},
        {"{'type':'Punctuation','behavior':'MergedWithPrevious'}", "a,,b", "a,|,|b"},
        {"{'type':'Punctuation','behavior':'MergedWithNext'}", "a,,b", "a|,|,b"},
        {"{'type':'Punctuation','behavior':'Removed'}", "a,,b", "a|b"},
        {"{'type':'Digits','individual_digits':true}", "ab12c", "ab|1|2|c"},
        {"{'type':'Digits','individual_digits':false}", "ab12c", "ab|12|c"},
        {"{'type':'CharDelimiterSplit','delimiter':'-'}", "a--b-c", "a|b|c"},
        {"{'type':'Split','pattern':{'String':'ab'},'behavior':'Isolated','invert':false}", "xabab", "x|ab|ab"},
        {"{'type':'Split','pattern':{'Regex':'[a-c]+'},'behavior':'Removed','invert':true}", "xabyc", "ab|c"},
        {"{'type':'Split','pattern':{'Regex':''},'behavior':'Isolated','invert':false}", "abc", "a|b|c"},
        {"{'type':'Metaspace','replacement':'_','prepend_scheme':'always','split':true}", "a  b", "_a|_|_b"},
        {"{'type':'Metaspace','replacement':'_','prepend_scheme':'never','split':true}", "a b", "a|_b"},
        {"{'type':'Metaspace','replacement':'_','add_prefix_space':false,'split':false}", "a b", "a_b"},
        {"{'type':'Metaspace','replacement':'_','prepend_scheme':'always'}", " a", "_a"},
        {"{'type':'Sequence','pretokenizers':[{'type':'Split','pattern':{'String':'-'},'behavior':'Removed','invert':false},"
         "{'type':'Metaspace','replacement':'_','prepend_scheme':'first'}]}", "a-b", "_a|b"},
        {"{'type':'ByteLevel','add_prefix_space':true,'use_regex':true}", "I've 12", "\xc4\xa0I|'ve|\xc4\xa0" "12"},
        {"{'type':'ByteLevel','add_prefix_space':false,'use_regex':true}", "a   b", "a|\xc4\xa0\xc4\xa0|\xc4\xa0" "b"},
        {"{'type':'ByteLevel','add_prefix_space':false,'use_regex':false}", "a b\n", "a\xc4\xa0" "b\xc4\x8a"},
        {"{'type':'UnicodeScripts'}", "ab\xe3\x81\x8b\xe4\xb8\xad\xd0\xb6", "ab|\xe3\x81\x8b\xe4\xb8\xad|\xd0\xb6"},
        {"{'type':'FixedLength','length':2}", "abcde", "ab|cd|e"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        expect_words(NULL, cases[i][0], cases[i][1], cases[i][2]);
}

/* What a pattern cuts, isolated. */
static void expect_cuts(const char *regex, const char *text, const char *want)
{
    struct tok_re re;
    struct tok_re_iter it;
    struct err e = {0};
    struct buf b = {0};
    size_t from, to, done = 0;
    if (!tok_re_open(&re, regex, strlen(regex), true, true, NULL, &e))
        fail_msg("%s", e.msg);
    assert_true(tok_re_begin(&it, &re, text, strlen(text), &e));
    while (tok_re_next(&it, &from, &to, &e) > 0) {
        buf_printf(&b, "%.*s[%.*s]", (int)(from - done), text + done, (int)(to - from), text + from);
        done = to;
    }
    buf_puts(&b, text + done);
    if (strcmp(b.data, want) != 0)
        fail_msg("%s on '%s': want %s, got %s", regex, text, want, b.data);
    buf_free(&b);
    tok_re_end(&it);
    tok_re_close(&re);
}

/* Where Oniguruma's Ruby syntax and PCRE2 differ. */
static void oniguruma_patterns(void **state)
{
    (void)state;
    expect_cuts("\\s", "a\xe1\xa0\x8e\xc2\xa0", "a\xe1\xa0\x8e[\xc2\xa0]");        /* U+180E is no space */
    expect_cuts("\\w+", "a\xcc\x81\xe2\x82\xac_", "[a\xcc\x81]\xe2\x82\xac[_]");   /* marks are word characters */
    expect_cuts("\\h+", "xAFg", "x[AF]g");                                         /* hex digits, not blanks */
    expect_cuts("^b", "ab\nb", "ab\n[b]");                                         /* always by line */
    expect_cuts("(?m:a.b)", "a\nb", "[a\nb]");                                     /* m: dot takes line ends */
    expect_cuts("a.b", "a\nb", "a\nb");
    expect_cuts("a{1,2}+", "aaaaab", "[aaaaa]b");                                  /* repeated, not possessive */
    expect_cuts("a{,2}b", "aaab", "a[aab]");
    expect_cuts("a++b?", "aab", "[aab]");
    expect_cuts("[^(\\s|[.,!?])]+", "a(b. c|]", "[a]([b]. [c]|[]]");               /* a class in a class: the BLOOM pattern */
    expect_cuts("[a-d&&[^b]]+", "abcd", "[a]b[cd]");
    expect_cuts("[^a[^b]]", "abc", "a[b]c");
    expect_cuts("[\\W]", "a-b", "a[-]b");
    expect_cuts("[^\\S\\n]+", "a \n\t", "a[ ]\n[\t]");
    expect_cuts("[[:alpha:]]+|[[:^alpha:]]", "ab1", "[ab][1]");
    expect_cuts("[]a]", "]a", "[]][a]");
    expect_cuts("\\u4e2d|\\x{6587}|\\x41", "\xe4\xb8\xad\xe6\x96\x87" "A", "[\xe4\xb8\xad][\xe6\x96\x87][A]");
    expect_cuts("\\p{Letter}|\\p{^L}", "a1", "[a][1]");
    expect_cuts("a(?i)b|c", "aB C ac", "[aB] C [ac]");                             /* (?i) takes the alternatives with it */
    expect_cuts("(?i:s)", "sS\xc5\xbf", "[s][S][\xc5\xbf]");
    expect_cuts("\\b", "ab c", "[]ab[] []c[]");
    expect_cuts("x*", "axxb", "[]a[xx]b[]");
    expect_cuts("(?<!a)b", "ab b", "ab [b]");
    struct tok_re re;
    struct err e = {0};
    assert_false(tok_re_open(&re, "(?~a)", 5, true, false, NULL, &e));
    assert_int_equal(e.code, ERR_UNSUPPORTED);
    assert_false(tok_re_open(&re, "(a", 2, true, false, NULL, &e));
    assert_false(tok_re_open(&re, "[a", 2, true, false, NULL, &e));
}

static const char *const scanned[] = {
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+",
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
};

static size_t random_text(struct rng *r, char *s)
{
    static const char *const parts[] = {" ", "  ", "\n", "\r\n", "\t", "a", "B", "ll", "'s", "'S", "'ll", "'LL", "'re", "'Ve", "'d", "'x", "'",
        "1", "23", "\xc2\xbd", "\xd9\xa3", "\xe2\x85\xa7", ".", "!?", "-", "\xe4\xb8\xad", "\xc3\xa9", "e\xcc\x81", "\xe2\x80\x8b", "\xc2\xa0",
        "\xe3\x80\x80", "\xe1\xa0\x8e", "\xf0\x9f\x98\x80", "'\xc5\xbf", "\xc2\x85", "\xe2\x80\xa8", "$", "_", "\x01", "\x1c"};
    size_t n = 0;
    for (uint64_t k = rng_next_below(r, 24); k > 0; k--) {
        const char *p = parts[rng_next_below(r, sizeof parts / sizeof *parts)];
        memcpy(s + n, p, strlen(p));
        n += strlen(p);
    }
    return n;
}

static void scanners_equal_pcre2(void **state)
{
    (void)state;
    uint8_t *uc = tok_uc_table();
    struct rng r = {3};
    assert_non_null(uc);
    for (size_t p = 0; p < 3; p++) {
        struct tok_re fast, slow;
        struct tok_re_iter a, b;
        struct err e = {0};
        assert_true(tok_re_open(&fast, scanned[p], strlen(scanned[p]), true, false, uc, &e));
        assert_true(tok_re_open(&slow, scanned[p], strlen(scanned[p]), true, true, uc, &e));
        assert_true(fast.kind != TOK_RE_PCRE && slow.kind == TOK_RE_PCRE);
        assert_true(tok_re_begin(&a, &fast, "", 0, &e) && tok_re_begin(&b, &slow, "", 0, &e));
        for (int round = 0; round < 40000; round++) {
            char s[256];
            size_t n = random_text(&r, s), from[2], to[2];
            int rc[2];
            tok_re_restart(&a, s, n);
            tok_re_restart(&b, s, n);
            do {
                rc[0] = tok_re_next(&a, &from[0], &to[0], &e);
                rc[1] = tok_re_next(&b, &from[1], &to[1], &e);
                if (rc[0] != rc[1] || (rc[0] > 0 && (from[0] != from[1] || to[0] != to[1])))
                    fail_msg("pattern %zu, '%.*s': %d [%zu,%zu), PCRE2 %d [%zu,%zu)", p, (int)n, s, rc[0], from[0], to[0], rc[1], from[1], to[1]);
            } while (rc[0] > 0);
        }
        tok_re_end(&a);
        tok_re_end(&b);
        tok_re_close(&fast);
        tok_re_close(&slow);
    }
    mem_free(uc);
}

static void byte_alphabet(void **state)
{
    (void)state;
    bool seen[0x150] = {0};
    for (int b = 0; b < 256; b++) {
        uint32_t cp = tok_byte_char((uint8_t)b);
        assert_true(cp < 0x144 && !seen[cp]);
        seen[cp] = true;
        assert_int_equal(tok_char_byte(cp), b);
    }
    assert_int_equal(tok_byte_char(' '), 0x120);
    assert_int_equal(tok_byte_char('\n'), 0x10a);
    assert_int_equal(tok_byte_char(0xad), 0x143);
    assert_int_equal(tok_char_byte(' '), -1);
    assert_int_equal(tok_char_byte(0x144), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(normalizers),         cmocka_unit_test(many_marks),           cmocka_unit_test(charsmap),
        cmocka_unit_test(pre_tokenizers),      cmocka_unit_test(oniguruma_patterns),   cmocka_unit_test(scanners_equal_pcre2),
        cmocka_unit_test(byte_alphabet),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
