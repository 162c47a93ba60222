/* Vocabularies of GGUF files against llama.cpp's vectors, and against Hugging Face's for the same vocabularies. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <cmocka.h>
#include "base/json.h"
#include "base/mem.h"
#include "gguf_build.h"
#include "model/model.h"
#include "tok/tok.h"

#define GOLDEN QUIRE_SOURCE_DIR "/../shared/golden"

static struct tok *open_gguf(const char *path)
{
    const struct model_opts o = { .files_only = true };
    struct model *m;
    struct tok *t = NULL;
    struct err e = { 0 };
    if (!model_open(&m, path, &o, &e) || !tok_open(&t, model_files(m), &e))
        fail_msg("%s: %s", path, e.msg);
    model_close(&m);
    return t;
}

static bool same_ids(const struct tok *t, const char *text, size_t len, unsigned flags, const json_t *want)
{
    struct tok_ids got = { 0 };
    struct err e = { 0 };
    if (!tok_encode(t, text, len, flags, &got, &e))
        fail_msg("%s", e.msg);
    bool same = got.n == json_array_size(want);
    for (size_t i = 0; same && i < got.n; i++)
        same = got.ids[i] == json_integer_value(json_array_get(want, i));
    if (!same) {
        printf("'%.*s' wants", len < 60 ? (int)len : 60, text);
        for (size_t i = 0; i < json_array_size(want) && i < 20; i++)
            printf(" %d", (int)json_integer_value(json_array_get(want, i)));
        printf(", got");
        for (size_t i = 0; i < got.n && i < 20; i++)
            printf(" %d", got.ids[i]);
        printf("\n");
    }
    tok_ids_free(&got);
    return same;
}

static json_t *ids_of_line(char **line)
{
    json_t *a = json_array();
    char *end = strchr(*line, '\n');
    if (end)
        *end = 0;
    for (char *p = *line, *next; *p; p = next) {
        long v = strtol(p, &next, 10);
        if (next == p)
            break;
        json_array_append_new(a, json_integer(v));
    }
    *line = end ? end + 1 : *line + strlen(*line);
    return a;
}

static void check_vectors(const struct tok *t, const char *name)
{
    static const char mark[] = "\n__ggml_vocab_test__\n";
    char path[512];
    size_t len;
    struct err e;
    int n = 0, bad = 0;
    snprintf(path, sizeof path, GOLDEN "/llamacpp_vocab/ggml-vocab-%s.gguf.inp", name);
    char *in = file_read(path, 1 << 20, &len, &e);
    snprintf(path, sizeof path, GOLDEN "/llamacpp_vocab/ggml-vocab-%s.gguf.out", name);
    char *out = file_read(path, 1 << 20, &len, &e), *line = out;
    assert_true(in && out);
    for (char *text = in; text; n++) {
        char *next = strstr(text, mark);
        size_t text_len = next ? (size_t)(next - text) : strlen(text);
        json_t *want = ids_of_line(&line);
        bad += !same_ids(t, text, text_len, TOK_ENCODE_PLAIN, want);
        json_decref(want);
        text = next ? next + sizeof mark - 1 : NULL;
    }
    printf("%s: %d vectors, %d wrong\n", name, n, bad);
    assert_true(n > 40 && bad == 0);
    mem_free(in);
    mem_free(out);
}

static json_t *golden_json(const char *name, const char *file)
{
    char path[512];
    struct err e;
    snprintf(path, sizeof path, GOLDEN "/tokenizers/%s/%s", name, file);
    json_t *j = json_parse_file(path, 64 << 20, &e);
    if (!j)
        fail_msg("%s", e.msg);
    return j;
}

/* Cases of Hugging Face's tokenizer for the same vocabulary. */
static void check_cases(const struct tok *t, const char *name, bool with_special)
{
    json_t *j = golden_json(name, "golden.json");
    const json_t *cases = json_object_get(j, "cases");
    int bad = 0;
    for (size_t i = 0; i < json_array_size(cases); i++) {
        const json_t *c = json_array_get(cases, i), *text = json_object_get(c, "text"), *ids = json_object_get(c, "ids");
        bad += !same_ids(t, json_string_value(text), json_string_length(text), TOK_ENCODE_PLAIN, ids);
        if (with_special)
            bad += !same_ids(t, json_string_value(text), json_string_length(text), TOK_ENCODE_SPECIAL, json_object_get(c, "ids_with_special"));
        struct buf got = { 0 };
        struct err e;
        int32_t *list = mem_try_alloc(json_array_size(ids), sizeof *list);
        for (size_t k = 0; k < json_array_size(ids); k++)
            list[k] = (int32_t)json_integer_value(json_array_get(ids, k));
        const json_t *decoded = json_object_get(c, "decoded");
        assert_true(tok_decode(t, list, json_array_size(ids), TOK_DECODE_ALL, &got, &e));
        bad += got.len != json_string_length(decoded) || (got.len && memcmp(got.data, json_string_value(decoded), got.len) != 0);
        mem_free(list);
        buf_free(&got);
    }
    printf("%s: %zu cases, %d wrong\n", name, json_array_size(cases), bad);
    assert_true(json_array_size(cases) > 100 && bad == 0);
    json_decref(j);
}

static void test_vectors(void **state)
{
    (void)state;
    static const struct { const char *vocab, *golden; bool special; } files[] = {
        { "gpt-2", "gpt2", true }, { "llama-spm", "llama2", true }, { "starcoder", "starcoder", true } };
    if (!file_is_dir(GOLDEN "/llamacpp_vocab"))
        skip();
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char path[512];
        snprintf(path, sizeof path, GOLDEN "/llamacpp_vocab/ggml-vocab-%s.gguf", files[i].vocab);
        struct tok *t = open_gguf(path);
        check_vectors(t, files[i].vocab);
        check_cases(t, files[i].golden, files[i].special);
        tok_close(&t);
    }
    struct tok *t = open_gguf(GOLDEN "/stories260K/stories260K-F32.gguf");
    check_cases(t, "stories260K", true);
    tok_close(&t);
}

/* A tokenizer.json turned into a GGUF file as a converter does it, and back. */
static struct tok *through_gguf(const char *name, const char *pre, const char *bos)
{
    json_t *j = golden_json(name, "tokenizer.json");
    const json_t *model = json_object_get(j, "model"), *vocab = json_object_get(model, "vocab"), *merges = json_object_get(model, "merges");
    const json_t *added = json_object_get(j, "added_tokens");
    size_t n = 0;
    const char *key;
    json_t *v;
    static const char *text[1 << 18];
    static uint8_t type[1 << 18];
    memset(text, 0, sizeof text);
    json_object_foreach((json_t *)vocab, key, v) {
        size_t id = (size_t)json_integer_value(v);
        text[id] = key;
        type[id] = 1;
        n = id + 1 > n ? id + 1 : n;
    }
    for (size_t i = 0; i < json_array_size(added); i++) {
        const json_t *a = json_array_get(added, i);
        size_t id = (size_t)json_integer_value(json_object_get(a, "id"));
        text[id] = json_string_value(json_object_get(a, "content"));
        type[id] = json_is_true(json_object_get(a, "special")) ? 3 : 4;
        n = id + 1 > n ? id + 1 : n;
    }
    struct gguf_build g = { 0 };
    struct buf out = { 0 };
    gb_str(&g, "general.architecture", "llama");
    gb_str(&g, "tokenizer.ggml.model", "gpt2");
    gb_str(&g, "tokenizer.ggml.pre", pre);
    gb_array(&g, "tokenizer.ggml.tokens", GGUF_STRING, n);
    for (size_t i = 0; i < n; i++) {
        assert_non_null(text[i]);
        gb_text(&g.kv, text[i], strlen(text[i]));
    }
    gb_array(&g, "tokenizer.ggml.token_type", GGUF_I32, n);
    for (size_t i = 0; i < n; i++)
        gb_int(&g.kv, type[i], 4);
    gb_array(&g, "tokenizer.ggml.merges", GGUF_STRING, json_array_size(merges));
    for (size_t i = 0; i < json_array_size(merges); i++) {
        const json_t *m = json_array_get(merges, i);
        struct buf pair = { 0 };
        if (json_is_array(m))
            buf_printf(&pair, "%s %s", json_string_value(json_array_get(m, 0)), json_string_value(json_array_get(m, 1)));
        else
            buf_puts(&pair, json_string_value(m));
        gb_text(&g.kv, pair.data, pair.len);
        buf_free(&pair);
    }
    for (size_t i = 0; bos && i < n; i++)
        if (strcmp(text[i], bos) == 0)
            gb_u32(&g, "tokenizer.ggml.bos_token_id", (uint32_t)i);
    gb_finish(&g, &out);
    char path[64] = "/tmp/quire_gguf_XXXXXX";
    struct err e;
    int fd = mkstemp(path);
    assert_true(fd >= 0 && file_write_atomic(path, out.data, out.len, &e));
    struct tok *t = open_gguf(path);
    close(fd);
    unlink(path);
    buf_free(&out);
    json_decref(j);
    return t;
}

static void test_converted(void **state)
{
    (void)state;
    if (!file_is_dir(GOLDEN "/tokenizers/qwen3"))
        skip();
    struct tok *t = through_gguf("qwen3", "qwen2", NULL);
    check_vectors(t, "qwen2");
    check_cases(t, "qwen3", true);
    tok_close(&t);
    t = through_gguf("llama3_1", "llama-bpe", "<|begin_of_text|>");
    check_vectors(t, "llama-bpe");
    check_cases(t, "llama3_1", true);
    tok_close(&t);
}

/* A byte-level vocabulary of single bytes: every way of cutting gives the bytes, and the text back. */
static struct tok *open_bytes(const char *pre, const char *template)
{
    struct gguf_build g = { 0 };
    struct buf out = { 0 };
    struct err e;
    gb_str(&g, "general.architecture", "qwen2");
    gb_str(&g, "tokenizer.ggml.model", "gpt2");
    gb_str(&g, "tokenizer.ggml.pre", pre);
    gb_array(&g, "tokenizer.ggml.tokens", GGUF_STRING, 258);
    for (int b = 0, next = 256; b < 256; b++) {
        /* GPT-2's spelling: printable characters are themselves, the others follow from U+0100. */
        bool plain = (b >= '!' && b <= '~') || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
        int cp = plain ? b : next++;
        char s[2] = { (char)(cp < 128 ? cp : 0xc0 | cp >> 6), (char)(0x80 | (cp & 63)) };
        gb_text(&g.kv, s, cp < 128 ? 1 : 2);
    }
    gb_text(&g.kv, "<|im_end|>", 10);
    gb_text(&g.kv, "<tool>", 6);
    gb_array(&g, "tokenizer.ggml.token_type", GGUF_I32, 258);
    for (int i = 0; i < 258; i++)
        gb_int(&g.kv, i < 256 ? 1 : i == 256 ? 3 : 4, 4);
    gb_array(&g, "tokenizer.ggml.merges", GGUF_STRING, 0);
    gb_u32(&g, "tokenizer.ggml.eos_token_id", 256);
    gb_u32(&g, "tokenizer.ggml.padding_token_id", UINT32_MAX);
    gb_bool(&g, "tokenizer.ggml.add_eos_token", true);
    if (template) {
        gb_str(&g, "tokenizer.chat_template", template);
        gb_str(&g, "tokenizer.chat_template.tool_use", "tools \"here\"");
    }
    gb_finish(&g, &out);
    char path[64] = "/tmp/quire_gguf_XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0 && file_write_atomic(path, out.data, out.len, &e));
    struct tok *t = open_gguf(path);
    close(fd);
    unlink(path);
    buf_free(&out);
    return t;
}

static void test_cuts(void **state)
{
    (void)state;
    static const char *const pres[] = {
        "gpt-2", "phi-2", "olmo", "mpt", "roberta-bpe", "gigachat", "llama-bpe", "llama3", "llama-v3", "falcon3", "dbrx", "smaug-bpe", "chatglm-bpe", "glm4",
        "qwen2", "deepseek-r1-qwen", "megrez", "stablelm2", "starcoder", "refact", "command-r", "smollm", "codeshell", "exaone", "minerva-7b", "falcon",
        "bloom", "poro-chat", "gpt3-finnish", "deepseek-llm", "jais", "trillion", "deepseek-coder", "deepseek-v3", "deepseek-r1", "tekken", "pixtral", "gpt-4o", "llama4", "default",
    };
    static const char text[] = "Hello, World's  1234567 I'LL caf\xc3\xa9 \xe4\xbd\xa0\xe5\xa5\xbd?!\r\n\n\t x=a+b; \xf0\x9f\x98\x80 ";
    for (size_t i = 0; i < sizeof pres / sizeof *pres; i++) {
        struct tok *t = open_bytes(pres[i], NULL);
        struct tok_ids ids = { 0 };
        struct buf back = { 0 };
        struct err e;
        assert_true(tok_encode(t, text, sizeof text - 1, TOK_ENCODE_PLAIN, &ids, &e));
        assert_int_equal(ids.n, sizeof text - 1);
        assert_true(tok_decode(t, ids.ids, ids.n, TOK_DECODE_ALL, &back, &e));
        assert_true(back.len == sizeof text - 1 && memcmp(back.data, text, back.len) == 0);
        tok_ids_free(&ids);
        buf_free(&back);
        tok_close(&t);
    }
}

static void test_special(void **state)
{
    (void)state;
    struct tok *t = open_bytes("qwen2", "{{ \"plain\" }}\n");
    struct tok_ids ids = { 0 };
    struct err e;
    assert_int_equal(tok_eos_id(t), 256);
    assert_int_equal(tok_bos_id(t), -1);
    assert_int_equal(tok_pad_id(t), -1);
    assert_string_equal(tok_chat_template(t, NULL), "{{ \"plain\" }}\n");
    assert_string_equal(tok_chat_template(t, "tool_use"), "tools \"here\"");
    assert_string_equal(tok_special_text(t, "eos_token"), "<|im_end|>");
    assert_true(tok_encode(t, "a<tool>b<|im_end|>", 18, TOK_ENCODE_SPECIAL, &ids, &e));
    assert_int_equal(ids.n, 5);
    assert_true(ids.ids[1] == 257 && ids.ids[3] == 256 && ids.ids[4] == 256);
    tok_ids_free(&ids);
    tok_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cuts),
        cmocka_unit_test(test_special),
        cmocka_unit_test(test_vectors),
        cmocka_unit_test(test_converted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
