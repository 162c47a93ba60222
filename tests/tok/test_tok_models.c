/* The four models on small vocabularies whose results follow by hand from the published algorithms, added
 * tokens, post-processors; and long words against a plain merge loop. */
#include "tok_make.h"

#include <pthread.h>

#include "base/clock.h"
#include "base/rng.h"
#include "base/utf8.h"
#include "tok/tok_int.h"

static void bpe_merges_lowest_rank_first(void **state)
{
    (void)state;
    /* ab before bc, so abc is ab|c until abc itself is merged last. */
    struct tok *t = make_parts(NULL, NULL, "{'type':'BPE','vocab':{'a':0,'b':1,'c':2,'ab':3,'bc':4,'abc':5,'aa':6},"
                                           "'merges':['a b','b c',['ab','c'],'a a']}", NULL);
    expect_tokens(t, "abc", "abc");
    expect_tokens(t, "bc", "bc");
    expect_tokens(t, "abbc", "ab|bc");
    expect_tokens(t, "aaab", "aa|ab");
    expect_tokens(t, "aaaa", "aa|aa");
    expect_tokens(t, "aaa", "aa|a");
    expect_tokens(t, "", "");
    tok_close(&t);
}

static void bpe_unknown_characters(void **state)
{
    (void)state;
    static const char *const head = "{'type':'BPE','vocab':{'<unk>':0,'a':1,'<0xC3>':2,'<0xA9>':3},'merges':[]";
    char model[300];
    snprintf(model, sizeof model, "%s}", head);
    struct tok *t = make_parts(NULL, NULL, model, NULL);
    expect_tokens(t, "axxa", "a|a");                       /* no unk_token: dropped */
    tok_close(&t);
    snprintf(model, sizeof model, "%s,'unk_token':'<unk>'}", head);
    t = make_parts(NULL, NULL, model, NULL);
    expect_tokens(t, "axxa", "a|<unk>|<unk>|a");
    tok_close(&t);
    snprintf(model, sizeof model, "%s,'unk_token':'<unk>','fuse_unk':true}", head);
    t = make_parts(NULL, NULL, model, NULL);
    expect_tokens(t, "axxa", "a|<unk>|a");
    tok_close(&t);
    snprintf(model, sizeof model, "%s,'unk_token':'<unk>','byte_fallback':true}", head);
    t = make_parts(NULL, NULL, model, NULL);
    expect_tokens(t, "a\xc3\xa9" "a", "a|<0xC3>|<0xA9>|a");
    expect_tokens(t, "\xc3\xa8", "<unk>");                 /* <0xA8> is missing: not half of it in bytes */
    tok_close(&t);
    snprintf(model, sizeof model, "%s,'unk_token':'nope'}", head);
    t = make_parts(NULL, NULL, model, NULL);
    struct tok_ids ids = {0};
    struct err e = {0};
    assert_false(tok_encode(t, "x", 1, 0, &ids, &e));
    assert_non_null(strstr(e.msg, "nope"));
    tok_close(&t);
}

static void bpe_affixes_and_whole_words(void **state)
{
    (void)state;
    struct tok *t = make_parts(NULL, "{'type':'WhitespaceSplit'}",
                               "{'type':'BPE','continuing_subword_prefix':'##','end_of_word_suffix':'</w>','vocab':{'a':0,'##b':1,'##b</w>':2,"
                               "'ab</w>':3,'a</w>':4,'ab':5,'##c</w>':6},'merges':['a ##b</w>','a ##b']}", NULL);
    expect_tokens(t, "ab a abc", "ab</w>|a</w>|ab|##c</w>");
    tok_close(&t);
    t = make_parts(NULL, NULL, "{'type':'BPE','ignore_merges':true,'vocab':{'a':0,'b':1,'c':2,'abc':3,'bc':4},'merges':['b c']}", NULL);
    expect_tokens(t, "abc", "abc");                        /* as a whole, though no merge leads there */
    expect_tokens(t, "abca", "a|bc|a");
    tok_close(&t);
}

static void unigram_best_path(void **state)
{
    (void)state;
    struct tok *t = make_parts(NULL, NULL, "{'type':'Unigram','unk_id':0,'vocab':[['<unk>',0.0],['a',0.0],['b',0.0],['c',0.0],['d',0.0],"
                                           "['cd',1.0],['ab',2.0],['abc',5.0],['abcd',10.0]]}", NULL);
    expect_tokens(t, "abcd", "abcd");
    expect_tokens(t, "abcdacd", "abcd|a|cd");
    expect_tokens(t, "abcc", "abc|c");
    expect_tokens(t, "axxb", "a|<unk>|b");                 /* unknown neighbours are one */
    tok_close(&t);
    /* Equal scores: what was found first stays, and pieces that start earlier are found first. */
    t = make_parts(NULL, NULL, "{'type':'Unigram','unk_id':0,'vocab':[['<unk>',-9],['a',-1],['b',-1],['ab',-2]]}", NULL);
    expect_tokens(t, "ab", "ab");
    tok_close(&t);
    t = make_parts(NULL, NULL, "{'type':'Unigram','unk_id':0,'byte_fallback':true,'vocab':[['<unk>',0],['a',-1],['<0xC3>',-5],['<0xA9>',-5]]}", NULL);
    expect_tokens(t, "a\xc3\xa9", "a|<0xC3>|<0xA9>");
    expect_tokens(t, "a\xc3\xa8", "a|<unk>");
    tok_close(&t);
    t = make_parts(NULL, NULL, "{'type':'Unigram','unk_id':null,'vocab':[['a',-1]]}", NULL);
    struct tok_ids ids = {0};
    assert_false(tok_encode(t, "b", 1, 0, &ids, NULL));
    tok_close(&t);
}

static void wordpiece_longest_first(void **state)
{
    (void)state;
    struct tok *t = make_parts("{'type':'BertNormalizer','clean_text':true,'handle_chinese_chars':true,'strip_accents':null,'lowercase':true}",
                               "{'type':'BertPreTokenizer'}",
                               "{'type':'WordPiece','unk_token':'[UNK]','continuing_subword_prefix':'##','max_input_chars_per_word':10,"
                               "'vocab':{'[UNK]':0,'un':1,'##aff':2,'##able':3,'##a':4,'##ble':5,'!':6,'\xe4\xb8\xad':7,'cafe':8}}",
                               "{'type':'WordPiece','prefix':'##','cleanup':true}");
    expect_tokens(t, "unaffable!", "un|##aff|##able|!");
    expect_tokens(t, "unx able", "[UNK]|[UNK]");
    expect_tokens(t, "\xe4\xb8\xad\xe4\xb8\xad Caf\xc3\xa9", "\xe4\xb8\xad|\xe4\xb8\xad|cafe");
    expect_tokens(t, "unaffableaaa", "[UNK]");             /* 12 characters, at most 10 are tried */
    int32_t ids[] = {1, 2, 3, 6, 8};
    expect_text(t, ids, 5, 0, "unaffable! cafe");
    tok_close(&t);
    t = make_parts(NULL, "{'type':'Whitespace'}", "{'type':'WordLevel','unk_token':'<unk>','vocab':{'<unk>':0,'hello':1,'!!':2}}", NULL);
    expect_tokens(t, "hello  you!!", "hello|<unk>|!!");
    tok_close(&t);
}

static void added_tokens(void **state)
{
    (void)state;
    struct tok *t = make_tok("{'added_tokens':[{'id':4,'content':'<s>','special':true,'normalized':false},"
                             "{'id':5,'content':'<s><s>','special':true,'normalized':false},"
                             "{'id':6,'content':'[M]','special':true,'normalized':false,'lstrip':true,'rstrip':true},"
                             "{'id':7,'content':'day','special':false,'normalized':true,'single_word':true},"
                             "{'id':8,'content':'A','special':false,'normalized':true}],"
                             "'normalizer':{'type':'Lowercase'},"
                             "'model':{'type':'BPE','unk_token':'?','vocab':{'?':0,'a':1,'x':2,' ':3},'merges':[]}}");
    expect_tokens(t, "x<s>x", "x|<s>|x");
    expect_tokens(t, "<s><s><s>", "<s><s>|<s>");           /* leftmost, longest */
    expect_tokens(t, "x  [M] x", "x|[M]|x");
    expect_tokens(t, "x day x", "x| |day| |x");
    expect_tokens(t, "xday", "x|?|a|?");                   /* inside a word it is no token, and is not searched again */
    expect_tokens(t, "xa", "x|A");                         /* A was added in its normalized form */
    expect_tokens(t, "DAY", "day");                        /* found in the normalized text */
    expect_tokens(t, "<S>", "?|?|?");                      /* found in the raw text only */
    struct tok_ids ids = {0};
    assert_true(tok_encode(t, "<s>A", 4, TOK_ENCODE_NO_PARSE, &ids, NULL));
    assert_int_equal(ids.n, 4);
    assert_int_equal(ids.ids[0], 0);
    assert_int_equal(ids.ids[3], 8);                       /* not special: still a token */
    tok_ids_free(&ids);
    assert_true(tok_is_special(t, 4));
    assert_false(tok_is_special(t, 8));
    assert_int_equal(tok_token_id(t, "[M]", 3), 6);
    assert_int_equal(tok_token_id(t, "x", 1), 2);
    assert_int_equal(tok_token_id(t, "zz", 2), -1);
    assert_int_equal(tok_vocab_size(t), 9);
    int32_t some[] = {4, 2, 6, 99, 8};
    expect_text(t, some, 5, TOK_DECODE_SKIP_SPECIAL, "x A");
    tok_close(&t);
}

static void ids_of_added_tokens(void **state)
{
    (void)state;
    /* The reference numbers what the vocabulary lacks from the vocabulary's size on, whatever the file says. */
    struct tok *t = make_tok("{'added_tokens':[{'id':70,'content':'<p>'},{'id':1,'content':'a'},{'id':71,'content':'<q>'}],"
                             "'model':{'type':'WordLevel','unk_token':'u','vocab':{'u':0,'a':1}}}");
    assert_int_equal(tok_token_id(t, "<p>", 3), 2);
    assert_int_equal(tok_token_id(t, "<q>", 3), 3);
    tok_close(&t);
}

static void post_processors(void **state)
{
    (void)state;
    static const char *const form = "{'post_processor':%s,'model':{'type':'WordLevel','unk_token':'u','vocab':{'u':0,'<s>':1,'</s>':2}}}";
    static const char *const template = "{'type':'TemplateProcessing','single':[{'SpecialToken':{'id':'<s>','type_id':0}},{'Sequence':{'id':'A','type_id':0}},"
        "{'SpecialToken':{'id':'</s>','type_id':0}}],'pair':[],'special_tokens':{'<s>':{'id':'<s>','ids':[1,1],'tokens':['<s>','<s>']},"
        "'</s>':{'id':'</s>','ids':[2],'tokens':['</s>']}}}";
    char text[1200], seq[900];
    snprintf(text, sizeof text, form, template);
    struct tok *t = make_tok(text);
    expect_tokens(t, "x", "<s>|<s>|u|</s>");
    expect_tokens(t, "", "<s>|<s>|</s>");
    tok_close(&t);
    snprintf(seq, sizeof seq, "{'type':'Sequence','processors':[{'type':'ByteLevel','trim_offsets':true},%s]}", template);
    snprintf(text, sizeof text, form, seq);
    t = make_tok(text);
    expect_tokens(t, "x", "<s>|<s>|u|</s>");
    struct tok_ids ids = {0};
    assert_true(tok_encode(t, "x", 1, TOK_ENCODE_PLAIN, &ids, NULL));
    assert_int_equal(ids.n, 1);
    tok_ids_free(&ids);
    tok_close(&t);
    snprintf(text, sizeof text, form, "{'type':'RobertaProcessing','sep':['</s>',2],'cls':['<s>',1],'trim_offsets':true,'add_prefix_space':true}");
    t = make_tok(text);
    expect_tokens(t, "x", "<s>|u|</s>");
    tok_close(&t);
}

/* ---- long words: the queue and the cutting against the definition */

enum { LETTERS = 4, N_MERGES = 40, MAX_WORD = 400 };

struct naive { char spelling[LETTERS + N_MERGES][64]; int n, merge_a[N_MERGES], merge_b[N_MERGES], merge_id[N_MERGES], n_merges; };

static int naive_encode(const struct naive *v, const char *s, int *ids)
{
    int n = 0;
    for (; *s; s++)
        ids[n++] = *s - 'a';
    for (;;) {
        int best = v->n_merges, at = 0;
        for (int i = 0; i + 1 < n; i++)
            for (int k = 0; k < best; k++)
                if (v->merge_a[k] == ids[i] && v->merge_b[k] == ids[i + 1]) {
                    best = k;
                    at = i;
                }
        if (best == v->n_merges)
            return n;
        ids[at] = v->merge_id[best];
        memmove(ids + at + 1, ids + at + 2, (size_t)(n - at - 2) * sizeof *ids);
        n--;
    }
}

static void random_vocabulary(struct naive *v, struct rng *r)
{
    v->n = LETTERS;
    v->n_merges = 0;
    for (int i = 0; i < LETTERS; i++)
        snprintf(v->spelling[i], 64, "%c", 'a' + i);
    for (int tries = 0; tries < 200 && v->n_merges < N_MERGES; tries++) {
        int a = (int)rng_next_below(r, (uint64_t)v->n), b = (int)rng_next_below(r, (uint64_t)v->n), id = v->n;
        char joined[140];
        snprintf(joined, sizeof joined, "%s%s", v->spelling[a], v->spelling[b]);
        bool seen = strlen(joined) > 60;
        for (int k = 0; k < v->n_merges; k++)
            seen |= v->merge_a[k] == a && v->merge_b[k] == b;
        if (seen)
            continue;
        for (int k = 0; k < v->n; k++)          /* several merges may give one token */
            if (strcmp(v->spelling[k], joined) == 0)
                id = k;
        if (id == v->n)
            memcpy(v->spelling[v->n++], joined, strlen(joined) + 1);
        v->merge_a[v->n_merges] = a;
        v->merge_b[v->n_merges] = b;
        v->merge_id[v->n_merges++] = id;
    }
}

static struct tok *tok_of(const struct naive *v)
{
    struct buf b = {0};
    buf_puts(&b, "{'model':{'type':'BPE','vocab':{");
    for (int i = 0; i < v->n; i++)
        buf_printf(&b, "%s'%s':%d", i ? "," : "", v->spelling[i], i);
    buf_puts(&b, "},'merges':[");
    for (int i = 0; i < v->n_merges; i++)
        buf_printf(&b, "%s['%s','%s']", i ? "," : "", v->spelling[v->merge_a[i]], v->spelling[v->merge_b[i]]);
    buf_puts(&b, "]}}");
    struct tok *t = make_tok(b.data);
    buf_free(&b);
    return t;
}

/* New pairs may then have lower ranks than those before them. */
static void shuffle_merges(struct naive *v, struct rng *r)
{
    for (int i = v->n_merges - 1; i > 0; i--) {
        int k = (int)rng_next_below(r, (uint64_t)i + 1);
        int a = v->merge_a[i], b = v->merge_b[i], id = v->merge_id[i];
        v->merge_a[i] = v->merge_a[k];
        v->merge_b[i] = v->merge_b[k];
        v->merge_id[i] = v->merge_id[k];
        v->merge_a[k] = a;
        v->merge_b[k] = b;
        v->merge_id[k] = id;
    }
}

static void long_words_by_definition(void **state)
{
    (void)state;
    struct rng r = {11};
    for (int round = 0; round < 60; round++) {
        struct naive v;
        random_vocabulary(&v, &r);
        if (round & 1)
            shuffle_merges(&v, &r);
        struct tok *t = tok_of(&v);
        for (int k = 0; k < 20; k++) {
            char s[MAX_WORD + 1];
            int want[MAX_WORD], n = (int)rng_next_below(&r, MAX_WORD), letters = 1 + (int)rng_next_below(&r, LETTERS);
            for (int i = 0; i < n; i++)
                s[i] = (char)('a' + rng_next_below(&r, (uint64_t)letters));
            s[n] = 0;
            struct tok_ids got = {0};
            assert_true(tok_encode(t, s, (size_t)n, 0, &got, NULL));
            n = naive_encode(&v, s, want);
            assert_int_equal(got.n, n);
            for (int i = 0; i < n; i++)
                assert_int_equal(got.ids[i], want[i]);
            tok_ids_free(&got);
        }
        tok_close(&t);
    }
}

/* A megabyte without a boundary; a quadratic merge would take hours, the limit only has to tell the two apart. */
static void a_megabyte_of_one_letter(void **state)
{
    (void)state;
    struct tok *t = make_parts(NULL, NULL, "{'type':'BPE','vocab':{'a':0,'aa':1,'aaaa':2,'aaaaaaaa':3},"
                                           "'merges':['a a','aa aa','aaaa aaaa']}", NULL);
    size_t n = 1 << 20;
    char *s = mem_try_alloc(n, 1);
    assert_non_null(s);
    memset(s, 'a', n);
    struct tok_ids ids = {0};
    int64_t start = clock_now_us();
    assert_true(tok_encode(t, s, n - 1, 0, &ids, NULL));
    assert_true(clock_now_us() - start < 20 * 1000000);
    assert_int_equal(ids.n, n / 8 + 2);                    /* .. | aaaa | aa | a */
    assert_int_equal(ids.ids[0], 3);
    assert_int_equal(ids.ids[ids.n - 1], 0);
    tok_ids_free(&ids);
    mem_free(s);
    tok_close(&t);
}

static void invalid_utf8_is_replaced(void **state)
{
    (void)state;
    struct tok *t = make_parts(NULL, NULL, "{'type':'BPE','unk_token':'?','vocab':{'?':0,'a':1,'\xef\xbf\xbd':2},'merges':[]}", NULL);
    struct tok_ids ids = {0};
    assert_true(tok_encode(t, "a\xe4\xb8" "a\xff", 5, 0, &ids, NULL));
    assert_int_equal(ids.n, 4);
    assert_int_equal(ids.ids[1], 2);
    assert_int_equal(ids.ids[3], 2);
    tok_ids_free(&ids);
    tok_close(&t);
}

/* ---- one tokenizer, many threads (of interest under the thread sanitizer) */

static const char shared_text[] = "one two  three's 123 \xc3\xa9\xe4\xb8\xad\n\n ab ab aab abababababababababababababababababababababababababababababab";

/* The character that stands for a byte in byte-level vocabularies. */
static void byte_spelling(int byte, char utf8[5])
{
    utf8[utf8_encode(tok_byte_char((uint8_t)byte), utf8)] = 0;
}

static void *encode_and_decode(void *arg)
{
    const struct tok *t = arg;
    size_t first = 0;
    for (int i = 0; i < 200; i++) {
        struct tok_ids ids = {0};
        struct buf b = {0};
        bool ok = tok_encode(t, shared_text, strlen(shared_text), TOK_ENCODE_SPECIAL, &ids, NULL) && tok_decode(t, ids.ids, ids.n, 0, &b, NULL) &&
                  b.len == strlen(shared_text) && memcmp(b.data, shared_text, b.len) == 0 && (first == 0 || ids.n == first);
        first = ids.n;
        tok_ids_free(&ids);
        buf_free(&b);
        if (!ok)
            return NULL;
    }
    return arg;
}

static void many_threads(void **state)
{
    (void)state;
    struct buf b = {0};
    buf_puts(&b, "{'pre_tokenizer':{'type':'Sequence','pretokenizers':[{'type':'Split','pattern':{'Regex':'\\\\s+|[a-z]+'},'behavior':'Isolated',"
                 "'invert':false},{'type':'ByteLevel','add_prefix_space':false,'use_regex':true}]},'decoder':{'type':'ByteLevel'},"
                 "'model':{'type':'BPE','merges':['a b','ab ab'],'vocab':{");
    for (int i = 0; i < 256; i++) {
        char utf8[5] = {0};
        byte_spelling(i, utf8);
        buf_printf(&b, "'%s%s':%d,", utf8[0] == '\'' || utf8[0] == '\\' || utf8[0] == '"' ? "\\" : "", utf8[0] == '\'' ? "u0027" : utf8[0] == '"' ? "u0022" : utf8, i);
    }
    buf_puts(&b, "'ab':256,'abab':257}}}");
    struct tok *t = make_tok(b.data);
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, encode_and_decode, t), 0);
    for (int i = 0; i < 4; i++) {
        void *result;
        assert_int_equal(pthread_join(threads[i], &result), 0);
        assert_ptr_equal(result, t);
    }
    buf_free(&b);
    tok_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bpe_merges_lowest_rank_first), cmocka_unit_test(bpe_unknown_characters),
        cmocka_unit_test(bpe_affixes_and_whole_words),  cmocka_unit_test(unigram_best_path),
        cmocka_unit_test(wordpiece_longest_first),      cmocka_unit_test(added_tokens),
        cmocka_unit_test(ids_of_added_tokens),          cmocka_unit_test(post_processors),
        cmocka_unit_test(long_words_by_definition),     cmocka_unit_test(a_megabyte_of_one_letter),
        cmocka_unit_test(invalid_utf8_is_replaced),     cmocka_unit_test(many_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
