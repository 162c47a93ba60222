/* Vocabularies in other files than tokenizer.json: the same ids as from the file that Hugging Face makes of them, where that is at hand;
 * small models with answers worked out by hand; files cut and broken anywhere. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/rng.h"
#include "model/gguf_int.h"
#include "tok/tok.h"

#define GOLDEN QUIRE_SOURCE_DIR "/../shared/golden"

struct set { struct file_blob blobs[6]; struct file_set fs; int n; };

static void add(struct set *s, const char *name, const struct buf *b)
{
    assert_false(b->failed);
    s->blobs[s->n++] = (struct file_blob){name, (const unsigned char *)b->data, b->len};
    s->fs = (struct file_set){.blobs = s->blobs};
}

static struct tok *open_set(const struct set *s)
{
    struct tok *t;
    struct err e = {0};
    if (!tok_open(&t, &s->fs, &e))
        fail_msg("%s", e.msg);
    return t;
}

static json_t *golden_json(const char *name, const char *file)
{
    char path[512];
    struct err e = {0};
    snprintf(path, sizeof path, GOLDEN "/tokenizers/%s/%s", name, file);
    if (!file_exists(path))
        skip();
    json_t *j = json_parse_file(path, (size_t)1 << 28, &e);
    if (!j)
        fail_msg("%s", e.msg);
    return j;
}

static int same_ids(const struct tok *t, const json_t *text, const json_t *want, unsigned how)
{
    struct tok_ids got = {0};
    struct err e = {0};
    assert_true(tok_encode(t, json_string_value(text), json_string_length(text), how, &got, &e));
    bool same = json_array_size(want) == got.n;
    for (size_t i = 0; same && i < got.n; i++)
        same = json_integer_value(json_array_get(want, i)) == got.ids[i];
    for (size_t i = 0; !same && i < got.n && i < json_array_size(want); i++)
        if (json_integer_value(json_array_get(want, i)) != got.ids[i]) {
            fprintf(stderr, "'%.80s': id %zu is %d, not %lld\n", json_string_value(text), i, got.ids[i], (long long)json_integer_value(json_array_get(want, i)));
            break;
        }
    tok_ids_free(&got);
    return !same;
}

/* Every recorded text; returns how many differ. */
static int compare(const struct tok *t, const char *name, bool special)
{
    json_t *golden = golden_json(name, "golden.json"), *cases = json_object_get(golden, "cases"), *c;
    size_t i;
    int bad = 0;
    assert_true(json_array_size(cases) > 100);
    json_array_foreach(cases, i, c)
        bad += same_ids(t, json_object_get(c, "text"), json_object_get(c, special ? "ids_with_special" : "ids"), special ? TOK_ENCODE_SPECIAL : TOK_ENCODE_PLAIN);
    json_decref(golden);
    return bad;
}

/* ---- GPT-2's files ---- */

static void gpt2_files(const char *name)
{
    json_t *j = golden_json(name, "tokenizer.json"), *model = json_object_get(j, "model"), *m;
    struct buf vocab = {0}, merges = {0}, config = {0};
    struct set s = {0};
    size_t i;
    json_write(json_object_get(model, "vocab"), &vocab);
    buf_puts(&merges, "#version: 0.2\n");
    json_array_foreach(json_object_get(model, "merges"), i, m) {
        if (json_is_string(m))
            buf_printf(&merges, "%s\n", json_string_value(m));
        else
            buf_printf(&merges, "%s %s\r\n", json_string_value(json_array_get(m, 0)), json_string_value(json_array_get(m, 1)));
    }
    buf_puts(&config, "{\"tokenizer_class\":\"GPT2Tokenizer\",\"added_tokens_decoder\":{");
    json_array_foreach(json_object_get(j, "added_tokens"), i, m) {
        buf_printf(&config, "%s\"%lld\":", i ? "," : "", (long long)json_integer_value(json_object_get(m, "id")));
        json_write(m, &config);
    }
    buf_puts(&config, "}}");
    add(&s, "vocab.json", &vocab);
    add(&s, "merges.txt", &merges);
    add(&s, "tokenizer_config.json", &config);
    struct tok *t = open_set(&s);
    assert_int_equal(compare(t, name, false), 0);
    tok_close(&t);
    buf_free(&vocab), buf_free(&merges), buf_free(&config);
    json_decref(j);
}

static void test_gpt2(void **state) { (void)state; gpt2_files("gpt2"); }

/* ---- tiktoken ---- */

static size_t bytes_of(const char *spelling, unsigned char *out)
{
    size_t n = 0;
    for (const unsigned char *p = (const unsigned char *)spelling; *p;) {
        unsigned u = *p < 0x80 ? *p++ : 0;
        if (!u) {
            u = (unsigned)(p[0] & 31) << 6 | (p[1] & 63);
            p += 2;
        }
        out[n++] = (unsigned char)(u < 256 ? u : u - 256 < 33 ? u - 256 : u - 256 < 67 ? u - 256 - 33 + 0x7f : 0xad);
    }
    return n;
}

static void base64(struct buf *b, const unsigned char *p, size_t n)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < n; i += 3) {
        unsigned v = (unsigned)p[i] << 16 | (i + 1 < n ? (unsigned)p[i + 1] << 8 : 0) | (i + 2 < n ? p[i + 2] : 0);
        buf_putc(b, digits[v >> 18]);
        buf_putc(b, digits[v >> 12 & 63]);
        buf_putc(b, i + 1 < n ? digits[v >> 6 & 63] : '=');
        buf_putc(b, i + 2 < n ? digits[v & 63] : '=');
    }
}

static void tiktoken_file(const char *name, const char *file, int64_t n_ranks, bool special)
{
    json_t *j = golden_json(name, "tokenizer.json"), *vocab = json_object_get(json_object_get(j, "model"), "vocab"), *v;
    const char *key;
    unsigned char bytes[4096];
    struct buf ranks = {0};
    struct set s = {0};
    json_object_foreach(vocab, key, v) {
        if (json_integer_value(v) >= n_ranks)
            continue;
        size_t n = bytes_of(key, bytes);
        base64(&ranks, bytes, n);
        buf_printf(&ranks, " %lld\n", (long long)json_integer_value(v));
    }
    add(&s, file, &ranks);
    struct tok *t = open_set(&s);
    int bad = compare(t, name, special);
    /* Qwen 3's file composes characters first, which tiktoken does not, and has other special tokens. */
    assert_true(strcmp(name, "qwen3") == 0 ? bad < 40 : bad == 0);
    tok_close(&t);
    buf_free(&ranks);
    json_decref(j);
}

static void test_llama3(void **state) { (void)state; tiktoken_file("llama3_1", "tokenizer.model", 128000, true); }
static void test_qwen(void **state) { (void)state; tiktoken_file("qwen3", "qwen.tiktoken", 151643, false); }

/* ---- SentencePiece ---- */

static void varint(struct buf *b, uint64_t v)
{
    for (; v >= 128; v >>= 7)
        buf_putc(b, (char)((v & 127) | 128));
    buf_putc(b, (char)v);
}

static void bytes_field(struct buf *b, int number, const void *p, size_t n)
{
    varint(b, (uint64_t)number << 3 | 2);
    varint(b, n);
    buf_append(b, p, n);
}

static void int_field(struct buf *b, int number, uint64_t v)
{
    varint(b, (uint64_t)number << 3);
    varint(b, v);
}

static void piece(struct buf *b, const char *text, float score, int type)
{
    struct buf p = {0};
    bytes_field(&p, 1, text, strlen(text));
    varint(&p, 2 << 3 | 5);
    buf_append(&p, &score, 4);
    if (type != 1)
        int_field(&p, 3, (uint64_t)type);
    bytes_field(b, 1, p.data, p.len);
    buf_free(&p);
}

static void specs(struct buf *b, int model, bool byte_fallback, bool dummy, bool strip)
{
    struct buf t = {0}, n = {0};
    int_field(&t, 3, (uint64_t)model);
    int_field(&t, 35, byte_fallback);
    int_field(&t, 40, 0);
    int_field(&t, 41, 1);
    int_field(&t, 42, 2);
    bytes_field(b, 2, t.data, t.len);
    bytes_field(&n, 1, "identity", 8);
    int_field(&n, 3, dummy);
    int_field(&n, 4, strip);
    bytes_field(b, 3, n.data, n.len);
    buf_free(&t);
    buf_free(&n);
}

/* Llama 2's own pieces, scores and types, as another converter kept them. */
static void test_llama2(void **state)
{
    (void)state;
    struct gguf_files *f;
    struct err e = {0};
    struct buf b = {0};
    struct set s = {0};
    if (!file_exists(GOLDEN "/llamacpp_vocab/ggml-vocab-llama-spm.gguf"))
        skip();
    if (!gguf_files_open(&f, GOLDEN "/llamacpp_vocab/ggml-vocab-llama-spm.gguf", true, &e))
        fail_msg("%s", e.msg);
    const struct gguf *g = &f->files[0].g;
    const struct gguf_kv *tokens = gguf_find(g, "tokenizer.ggml.tokens"), *scores = gguf_find(g, "tokenizer.ggml.scores"), *types = gguf_find(g, "tokenizer.ggml.token_type");
    const unsigned char *at = tokens->data;
    for (uint64_t i = 0; i < tokens->n; i++) {
        const char *text;
        size_t len;
        double score, type;
        char copy[256];
        gguf_next_string(&at, &text, &len);
        assert_true(len < sizeof copy && gguf_number_at(scores, i, &score) && gguf_number_at(types, i, &type));
        memcpy(copy, text, len);
        copy[len] = 0;
        piece(&b, copy, (float)score, (int)type);
    }
    specs(&b, 2, true, true, false);
    add(&s, "tokenizer.model", &b);
    struct tok *t = open_set(&s);
    assert_int_equal(compare(t, "llama2", false), 0);
    assert_int_equal(compare(t, "llama2", true), 0);
    tok_close(&t);
    buf_free(&b);
    gguf_files_close(&f);
}

static void expect(const struct tok *t, const char *text, unsigned how, const char *want)
{
    struct tok_ids ids = {0};
    struct buf got = {0};
    struct err e = {0};
    assert_true(tok_encode(t, text, strlen(text), how, &ids, &e));
    for (size_t i = 0; i < ids.n; i++)
        buf_printf(&got, i ? " %d" : "%d", ids.ids[i]);
    if (strcmp(got.data ? got.data : "", want) != 0)
        fail_msg("'%s' is %s, not %s", text, got.data ? got.data : "", want);
    tok_ids_free(&ids);
    buf_free(&got);
}

static void unigram_model(struct buf *b)
{
    piece(b, "<unk>", 0, 2);
    piece(b, "<s>", 0, 3);
    piece(b, "</s>", 0, 3);
    piece(b, "▁", -3, 1);
    piece(b, "▁ab", -2, 1);
    piece(b, "a", -2.5f, 1);
    piece(b, "b", -2.5f, 1);
    piece(b, "c", -4, 1);
    piece(b, "bc", -3, 1);
    piece(b, "<sep>", 0, 4);
    specs(b, 1, false, true, true);
}

static void test_unigram(void **state)
{
    (void)state;
    struct buf b = {0}, config = {0};
    struct set s = {0};
    unigram_model(&b);
    add(&s, "spiece.model", &b);
    struct tok *t = open_set(&s);
    expect(t, "ab", TOK_ENCODE_PLAIN, "4");
    expect(t, "abc", TOK_ENCODE_PLAIN, "4 7");            /* ab c: -6; the blank, a, bc: -8.5 */
    expect(t, "bc", TOK_ENCODE_PLAIN, "3 8");
    expect(t, "  ab   ab ", TOK_ENCODE_PLAIN, "4 4");      /* blanks are made one, and go at the ends */
    expect(t, "ab", TOK_ENCODE_SPECIAL, "4 2");            /* T5 ends a text */
    expect(t, "ab<sep>ab", TOK_ENCODE_PLAIN, "4 9 4");
    expect(t, "azb", TOK_ENCODE_PLAIN, "3 5 0 6");
    tok_close(&t);
    buf_puts(&config, "{\"tokenizer_class\":\"XLMRobertaTokenizer\",\"added_tokens_decoder\":{\"10\":{\"content\":\"<mask>\",\"special\":true}}}");
    add(&s, "tokenizer_config.json", &config);
    t = open_set(&s);
    expect(t, "ab<mask>", TOK_ENCODE_SPECIAL, "1 4 10 2");
    tok_close(&t);
    buf_free(&b);
    buf_free(&config);
}

static void test_bpe(void **state)
{
    (void)state;
    struct buf b = {0};
    struct set s = {0};
    piece(&b, "<unk>", 0, 2);
    piece(&b, "<s>", 0, 3);
    piece(&b, "</s>", 0, 3);
    for (int i = 0; i < 256; i++) {
        char name[8];
        snprintf(name, sizeof name, "<0x%02X>", i);
        piece(&b, name, 0, 6);
    }
    static const char *const pieces[] = {"ab", "▁a", "abc", "bc", "▁abc", "▁", "a", "b", "c"};
    for (int i = 0; i < 9; i++)
        piece(&b, pieces[i], (float)-i, 1);
    specs(&b, 2, true, true, false);
    add(&s, "tokenizer.model", &b);
    struct tok *t = open_set(&s);
    expect(t, "abc", TOK_ENCODE_PLAIN, "263");             /* ab, then abc, then with the blank */
    expect(t, "a", TOK_ENCODE_SPECIAL, "1 260");
    expect(t, "bc", TOK_ENCODE_PLAIN, "264 262");
    expect(t, "é", TOK_ENCODE_PLAIN, "264 198 172");       /* its bytes */
    struct buf text = {0};
    struct err e = {0};
    assert_true(tok_decode(t, (int32_t[]){263, 260}, 2, TOK_DECODE_ALL, &text, &e));
    assert_string_equal(text.data, "abc a");
    tok_close(&t);
    buf_free(&text);
    buf_free(&b);
}

/* ---- broken files ---- */

static void try_set(const char *name, const struct buf *b)
{
    struct set s = {0};
    struct tok *t = NULL;
    struct err e = {0};
    add(&s, name, b);
    if (tok_open(&t, &s.fs, &e)) {
        struct tok_ids ids = {0};
        tok_encode(t, "ab c", 4, TOK_ENCODE_SPECIAL, &ids, &e);
        tok_ids_free(&ids);
        tok_close(&t);
    } else {
        assert_true(e.code != ERR_OK && e.msg[0]);
    }
}

static void test_broken(void **state)
{
    (void)state;
    struct rng r = {.state = 9};
    struct buf whole = {0}, ranks = {0};
    unigram_model(&whole);
    for (int i = 0; i < 256; i++) {
        base64(&ranks, &(unsigned char){(unsigned char)i}, 1);
        buf_printf(&ranks, " %d\n", i);
    }
    buf_puts(&ranks, "YWI= 256\nYWJj 257\n");
    for (size_t n = 0; n <= whole.len; n++)
        try_set("tokenizer.model", &(struct buf){.data = whole.data, .len = n});
    for (int k = 0; k < 4000; k++) {
        struct buf *from = k % 2 ? &whole : &ranks, b = {0};
        buf_append(&b, from->data, from->len);
        for (uint64_t i = 0; i <= rng_next_below(&r, 3); i++)
            b.data[rng_next_below(&r, b.len)] = (char)rng_next_below(&r, 256);
        try_set(k % 2 ? "tokenizer.model" : "vocab.tiktoken", &b);
        buf_free(&b);
    }
    struct set s = {0};
    struct tok *t;
    struct err e = {0};
    add(&s, "vocab.tiktoken", &(struct buf){.data = (char *)"YQ== 0\nYg== 0\n", .len = 14});
    assert_false(tok_open(&t, &s.fs, &e));
    assert_non_null(strstr(e.msg, "vocab.tiktoken: has rank 0 twice"));
    buf_free(&whole);
    buf_free(&ranks);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gpt2), cmocka_unit_test(test_llama3), cmocka_unit_test(test_qwen), cmocka_unit_test(test_llama2), cmocka_unit_test(test_unigram),
        cmocka_unit_test(test_bpe), cmocka_unit_test(test_broken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
