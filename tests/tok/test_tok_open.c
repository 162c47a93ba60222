/* Opening: the files beside tokenizer.json, what is said about broken ones, and running out of memory. */
#include "tok_make.h"

#include "base/file.h"
#include "tok/detok.h"

static const char small[] =
    "{'added_tokens':[{'id':3,'content':'<s>','special':true},{'id':4,'content':'</s>','special':true}],"
    "'normalizer':{'type':'Sequence','normalizers':[{'type':'NFC'},{'type':'Replace','pattern':{'Regex':'x+'},'content':'b'}]},"
    "'pre_tokenizer':{'type':'Sequence','pretokenizers':[{'type':'Split','pattern':{'Regex':'\\\\s+'},'behavior':'Isolated','invert':false},"
    "{'type':'ByteLevel','add_prefix_space':true,'use_regex':true}]},"
    "'post_processor':{'type':'BertProcessing','sep':['</s>',4],'cls':['<s>',3]},"
    "'decoder':{'type':'ByteLevel'},'model':{'type':'BPE','vocab':{'a':0,'b':1,'ab':2},'merges':['a b']}}";

/* A file set in memory; quotes as in make_json. */
struct files { struct file_blob blobs[8]; char *texts[8]; int n; };

static void add_file(struct files *f, const char *name, const char *text)
{
    f->texts[f->n] = make_json(text);
    f->blobs[f->n] = (struct file_blob){name, (unsigned char *)f->texts[f->n], strlen(text)};
    f->n++;
}

static void drop_files(struct files *f)
{
    for (int i = 0; i < f->n; i++)
        mem_free(f->texts[i]);
    *f = (struct files){0};
}

static struct tok *open_files(struct files *f)
{
    struct file_set fs = {.blobs = f->blobs};
    struct err e = {0};
    struct tok *t;
    if (!tok_open(&t, &fs, &e))
        fail_msg("%s", e.msg);
    return t;
}

static void expect_refusal(struct files *f, const char *part_of_message)
{
    struct file_set fs = {.blobs = f->blobs};
    struct err e = {0};
    struct tok *t;
    assert_false(tok_open(&t, &fs, &e));
    assert_null(t);
    if (!strstr(e.msg, part_of_message))
        fail_msg("'%s' does not say '%s'", e.msg, part_of_message);
}

static void tokenizer_alone(void **state)
{
    (void)state;
    struct files f = {0};
    add_file(&f, "tokenizer.json", small);
    struct tok *t = open_files(&f);
    assert_int_equal(tok_bos_id(t), -1);
    assert_int_equal(tok_eos_id(t), -1);
    assert_null(tok_chat_template(t, NULL));
    assert_string_equal(tok_special_text(t, "bos_token"), "");
    expect_tokens(t, "<s>ab", "<s>|<s>|ab|</s>");
    tok_close(&t);
    drop_files(&f);
}

static void roles_and_templates(void **state)
{
    (void)state;
    struct files f = {0};
    add_file(&f, "tokenizer.json", small);
    add_file(&f, "tokenizer_config.json", "{'bos_token':{'content':'<s>','lstrip':false},'unk_token':null,'pad_token':'gone',"
             "'add_bos_token':true,'chat_template':[{'name':'default','template':'A'},{'name':'tool_use','template':'B'}]}");
    add_file(&f, "special_tokens_map.json", "{'bos_token':'</s>','eos_token':'</s>','additional_special_tokens':['x']}");
    add_file(&f, "generation_config.json", "{'eos_token_id':[1,2],'pad_token_id':[2,1]}");
    add_file(&f, "config.json", "{'bos_token_id':0,'pad_token_id':0}");
    struct tok *t = open_files(&f);
    assert_int_equal(tok_bos_id(t), 3);                    /* the first file that names it decides */
    assert_int_equal(tok_eos_id(t), 4);
    assert_int_equal(tok_pad_id(t), 2);                    /* its text is no token: by id then */
    assert_int_equal(tok_unk_id(t), -1);
    assert_string_equal(tok_special_text(t, "bos_token"), "<s>");
    assert_string_equal(tok_special_text(t, "pad_token"), "gone");
    assert_string_equal(tok_special_text(t, "add_bos_token"), "");
    assert_string_equal(tok_chat_template(t, NULL), "A");
    assert_string_equal(tok_chat_template(t, "tool_use"), "B");
    assert_null(tok_chat_template(t, "rag"));
    tok_close(&t);
    add_file(&f, "chat_template.jinja", "J");
    t = open_files(&f);
    assert_string_equal(tok_chat_template(t, NULL), "J");
    tok_close(&t);
    drop_files(&f);
    add_file(&f, "tokenizer.json", small);
    add_file(&f, "chat_template.json", "{'chat_template':'C'}");
    add_file(&f, "config.json", "{'text_config':{'eos_token_id':1}}");
    t = open_files(&f);
    assert_string_equal(tok_chat_template(t, NULL), "C");
    assert_int_equal(tok_eos_id(t), 1);
    tok_close(&t);
    drop_files(&f);
}

static void broken_neighbours(void **state)
{
    (void)state;
    static const char *const cases[][3] = {
        {"tokenizer_config.json", "{", "tokenizer_config.json"},
        {"tokenizer_config.json", "[]", "tokenizer_config.json"},
        {"tokenizer_config.json", "{'bos_token':7}", "bos_token"},
        {"tokenizer_config.json", "{'chat_template':7}", "chat_template"},
        {"tokenizer_config.json", "{'chat_template':[{'name':'x'}]}", "chat_template[0]"},
        {"special_tokens_map.json", "nonsense", "special_tokens_map.json"},
        {"generation_config.json", "{'a':}", "generation_config.json"},
        {"config.json", "\x01", "config.json"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct files f = {0};
        add_file(&f, "tokenizer.json", small);
        add_file(&f, cases[i][0], cases[i][1]);
        expect_refusal(&f, cases[i][2]);
        drop_files(&f);
    }
    struct files f = {0};
    add_file(&f, "config.json", "{}");
    expect_refusal(&f, "tokenizer.json is missing");
    drop_files(&f);
}

static void broken_tokenizers(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"", "tokenizer.json"},
        {"[]", "'{'"},
        {"{}", "model.vocab is missing"},
        {"{'model':{'type':'BPE','vocab':{'a':0}}}", "model.merges is missing"},
        {"{'model':{'type':'BPE','vocab':{'a':0},'merges':['a b']}}", "'b' is not in the vocabulary"},
        {"{'model':{'type':'BPE','vocab':{'a':0,'b':1},'merges':['a b']}}", "merges[0]: 'ab' is the result"},
        {"{'model':{'type':'BPE','vocab':{'a':0},'merges':['aa']}}", "merges[0]"},
        {"{'model':{'type':'BPE','vocab':{'a':0},'merges':[5]}}", "merges"},
        {"{'model':{'type':'BPE','vocab':{'a':-1},'merges':[]}}", "an id"},
        {"{'model':{'type':'BPE','vocab':{'a':1.5},'merges':[]}}", "an id"},
        {"{'model':{'type':'BPE','vocab':{'a':99999999},'merges':[]}}", "99999999"},
        {"{'model':{'type':'BPE','vocab':{'a':0,},'merges':[]}}", "a string"},
        {"{'model':{'type':'BPE','vocab':{'\\ud800':0},'merges':[]}}", "surrogate"},
        {"{'model':{'type':'XYZ','vocab':{}}}", "XYZ"},
        {"{'model':{'type':'Unigram','vocab':[['a']]}}", "vocab"},
        {"{'model':{'type':'Unigram','unk_id':5,'vocab':[['a',0]]}}", "unk_id"},
        {"{'model':{'type':'WordLevel','vocab':{'a':0}},'normalizer':{'type':'What'}}", "normalizer: type 'What'"},
        {"{'model':{'type':'WordLevel','vocab':{'a':0}},'normalizer':{'type':'Precompiled','precompiled_charsmap':'!!'}}", "base64"},
        {"{'model':{'type':'WordLevel','vocab':{'a':0}},'pre_tokenizer':{'type':'What'}}", "pre_tokenizer: type 'What'"},
        {"{'model':{'type':'WordLevel','vocab':{'a':0}},'pre_tokenizer':{'type':'Split','pattern':{'Regex':'('},'behavior':'Removed'}}", "regular expression"},
        {"{'model':{'type':'WordLevel','vocab':{'a':0}},'pre_tokenizer':{'type':'Split','pattern':{'String':'x'},'behavior':'Gone'}}", "Gone"},
        {"{'model':{'type':'WordLevel','vocab':{'a':0}},'post_processor':{'type':'What'}}", "post_processor: type 'What'"},
        {"{'model':{'type':'WordLevel','vocab':{'a':0}},'post_processor':{'type':'TemplateProcessing','single':[{'SpecialToken':{'id':'q'}}],"
         "'special_tokens':{}}}", "'q'"},
        {"{'model':{'type':'WordLevel','vocab':{'a':0}},'decoder':{'type':'What'}}", "decoder: type 'What'"},
        {"{'model':{'type':'WordLevel','vocab':{'a':0}},'added_tokens':[5]}", "added_tokens[0]"},
        {"{'model':{'type':'WordLevel','vocab':{'a':0}},'added_tokens':{}}", "added_tokens"},
        {"{'model':{'type':'WordLevel','vocab':{'a':0}}", "'}'"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct files f = {0};
        add_file(&f, "tokenizer.json", cases[i][0]);
        expect_refusal(&f, cases[i][1]);
        drop_files(&f);
    }
}

static void escapes_in_the_vocabulary(void **state)
{
    (void)state;
    struct tok *t = make_tok("{'model':{'type':'WordLevel','vocab':{'\\u00e9\\n\\t\\/':0,'\\ud83d\\ude00':1,'a\\u0000b':2}}}");
    assert_int_equal(tok_token_id(t, "\xc3\xa9\n\t/", 5), 0);
    assert_int_equal(tok_token_id(t, "\xf0\x9f\x98\x80", 4), 1);
    assert_int_equal(tok_token_id(t, "a\0b", 3), 2);
    tok_close(&t);
}

/* The n-th allocation fails, for n = 1, 2, .. until opening and using the tokenizer succeeds. */
static void out_of_memory_anywhere(void **state)
{
    (void)state;
    char *text = make_json(small);
    static const char input[] = "<s>ab xx e\xcc\x81 abababababababababababababababababababababababababababababab";
    for (long n = 1; n < 20000; n++) {
        struct tok *t = NULL;
        struct tok_ids ids = {0};
        struct buf out = {0};
        struct detok *d = NULL;
        struct err e = {0};
        mem_fault_after(n);
        bool ok = tok_open_json(&t, text, strlen(text), &e) && tok_encode(t, input, strlen(input), TOK_ENCODE_SPECIAL, &ids, &e) &&
                  tok_decode(t, ids.ids, ids.n, 0, &out, &e) && detok_open(&d, t, 0, ids.ids, 2, &e) && detok_push(d, 2, &out, &e) &&
                  detok_finish(d, &out, &e);
        bool fired = mem_fault_fired();
        mem_fault_after(0);
        if (!ok)
            assert_int_equal(e.code, ERR_NOMEM);
        detok_close(&d);
        buf_free(&out);
        tok_ids_free(&ids);
        tok_close(&t);
        if (!fired) {
            assert_true(ok);
            assert_true(n > 50);
            mem_free(text);
            return;
        }
    }
    fail_msg("never ran through");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tokenizer_alone),   cmocka_unit_test(roles_and_templates),        cmocka_unit_test(broken_neighbours),
        cmocka_unit_test(broken_tokenizers), cmocka_unit_test(escapes_in_the_vocabulary), cmocka_unit_test(out_of_memory_anywhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
