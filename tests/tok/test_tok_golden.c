/* Golden vectors of Hugging Face tokenizers: ids, spelled tokens and decoded text of every string, and the
 * streaming detokenizer on each result; llama.cpp's vectors where the vocabulary is the same. */
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
#include "base/utf8.h"
#include "tok/detok.h"
#include "tok/tok.h"

#define GOLDEN QUIRE_SOURCE_DIR "/../shared/golden"

static struct tok *open_golden(const char *name)
{
    char dir[512];
    struct err e = {0};
    struct tok *t;
    snprintf(dir, sizeof dir, GOLDEN "/tokenizers/%s", name);
    if (!file_is_dir(dir))
        skip();
    struct file_set fs = {.dir = dir};
    if (!tok_open(&t, &fs, &e))
        fail_msg("%s: %s", name, e.msg);
    return t;
}

static int compare_ids(const char *what, const char *id, const json_t *want, const struct tok_ids *got)
{
    bool same = json_array_size(want) == got->n;
    for (size_t i = 0; same && i < got->n; i++)
        same = json_integer_value(json_array_get(want, i)) == got->ids[i];
    if (same)
        return 0;
    fprintf(stderr, "%s %s: want", id, what);
    for (size_t i = 0; i < json_array_size(want) && i < 40; i++)
        fprintf(stderr, " %lld", (long long)json_integer_value(json_array_get(want, i)));
    fprintf(stderr, "\n   got");
    for (size_t i = 0; i < got->n && i < 40; i++)
        fprintf(stderr, " %d", got->ids[i]);
    fprintf(stderr, "\n");
    return 1;
}

static int compare_text(const char *what, const char *id, const json_t *want, const struct buf *got)
{
    if (json_string_length(want) == got->len && memcmp(json_string_value(want), got->data ? got->data : "", got->len) == 0)
        return 0;
    fprintf(stderr, "%s %s: want '%s' got '%.*s'\n", id, what, json_string_value(want), (int)got->len, got->data ? got->data : "");
    return 1;
}

/* The streamed text equals the whole, and every piece of it is whole characters. */
static int check_stream(const struct tok *t, const char *id, const int32_t *ids, size_t n, unsigned flags, const struct buf *want)
{
    struct detok *d;
    struct buf all = {0}, piece = {0};
    struct err e = {0};
    int bad = 0;
    assert_true(detok_open(&d, t, flags, NULL, 0, &e));
    for (size_t i = 0; i <= n; i++) {
        buf_clear(&piece);
        assert_true(i < n ? detok_push(d, ids[i], &piece, &e) : detok_finish(d, &piece, &e));
        bad |= piece.len && !utf8_valid(piece.data, piece.len);
        buf_append(&all, piece.data ? piece.data : "", piece.len);
    }
    bad |= all.len != want->len || (all.len && memcmp(all.data, want->data, all.len) != 0);
    if (bad)
        fprintf(stderr, "%s: streamed '%.*s', whole '%.*s'\n", id, (int)all.len, all.data ? all.data : "", (int)want->len,
                want->data ? want->data : "");
    buf_free(&all);
    buf_free(&piece);
    detok_close(&d);
    return bad;
}

static int check_case(const struct tok *t, const json_t *c)
{
    const char *id = json_string_value(json_object_get(c, "id"));
    const json_t *text = json_object_get(c, "text"), *tokens = json_object_get(c, "tokens");
    struct tok_ids plain = {0}, special = {0};
    struct buf all = {0}, skip_special = {0};
    struct err e = {0};
    int bad = 0;
    assert_true(tok_encode(t, json_string_value(text), json_string_length(text), TOK_ENCODE_PLAIN, &plain, &e));
    assert_true(tok_encode(t, json_string_value(text), json_string_length(text), TOK_ENCODE_SPECIAL, &special, &e));
    bad += compare_ids("ids", id, json_object_get(c, "ids"), &plain);
    bad += compare_ids("ids_with_special", id, json_object_get(c, "ids_with_special"), &special);
    for (size_t i = 0; tokens && !bad && i < plain.n; i++) {   /* the longest texts have no tokens */
        size_t len;
        const char *s = tok_token_spelling(t, plain.ids[i], &len);
        const json_t *want = json_array_get(tokens, i);
        if (!s || json_string_length(want) != len || memcmp(json_string_value(want), s, len) != 0) {
            /* An added token with lstrip or rstrip is spelled here as it is in the vocabulary. */
            fprintf(stderr, "%s token %zu: want '%s' got '%s'\n", id, i, json_string_value(want), s ? s : "(none)");
            bad++;
        }
    }
    assert_true(tok_decode(t, special.ids, special.n, TOK_DECODE_ALL, &all, &e));
    assert_true(tok_decode(t, special.ids, special.n, TOK_DECODE_SKIP_SPECIAL, &skip_special, &e));
    bad += check_stream(t, id, special.ids, special.n, TOK_DECODE_ALL, &all);
    bad += check_stream(t, id, special.ids, special.n, TOK_DECODE_SKIP_SPECIAL, &skip_special);
    struct buf plain_all = {0}, plain_skip = {0};
    assert_true(tok_decode(t, plain.ids, plain.n, TOK_DECODE_ALL, &plain_all, &e));
    assert_true(tok_decode(t, special.ids, special.n, TOK_DECODE_SKIP_SPECIAL, &plain_skip, &e));
    bad += compare_text("decoded", id, json_object_get(c, "decoded"), &plain_all);
    bad += compare_text("decoded_skip_special", id, json_object_get(c, "decoded_skip_special"), &plain_skip);
    buf_free(&plain_all);
    buf_free(&plain_skip);
    buf_free(&all);
    buf_free(&skip_special);
    tok_ids_free(&plain);
    tok_ids_free(&special);
    return bad;
}

/* Random ids, most of them never neighbours in real text: cut-off characters, byte runs, special tokens. */
static int check_random_streams(const struct tok *t)
{
    struct rng r = {7};
    int bad = 0;
    for (int round = 0; round < 300; round++) {
        int32_t ids[40];
        size_t n = 1 + rng_next_below(&r, 40);
        bool low = round % 3 == 0;      /* byte tokens have low ids */
        for (size_t i = 0; i < n; i++)
            ids[i] = (int32_t)rng_next_below(&r, low ? 300 : (uint64_t)tok_vocab_size(t) + 2);
        unsigned flags = round & 1 ? TOK_DECODE_SKIP_SPECIAL : TOK_DECODE_ALL;
        struct buf whole = {0};
        assert_true(tok_decode(t, ids, n, flags, &whole, NULL));
        assert_true(whole.len == 0 || utf8_valid(whole.data, whole.len));
        bad += check_stream(t, "random", ids, n, flags, &whole);
        /* The same after a prompt: what comes out is what the prompt's own text lacks. */
        size_t cut = rng_next_below(&r, n + 1);
        struct buf head = {0}, tail = {0};
        struct detok *d;
        assert_true(tok_decode(t, ids, cut, flags, &head, NULL));
        assert_true(detok_open(&d, t, flags, ids, cut, NULL));
        for (size_t i = cut; i < n; i++)
            assert_true(detok_push(d, ids[i], &tail, NULL));
        assert_true(detok_finish(d, &tail, NULL));
        bool prefix = head.len <= whole.len && (head.len == 0 || memcmp(head.data, whole.data, head.len) == 0);
        if (prefix && (tail.len != whole.len - head.len || (tail.len && memcmp(tail.data, whole.data + head.len, tail.len) != 0))) {
            fprintf(stderr, "after a prompt: '%.*s' + '%.*s' is not '%.*s'\n", (int)head.len, head.data ? head.data : "", (int)tail.len,
                    tail.data ? tail.data : "", (int)whole.len, whole.data ? whole.data : "");
            bad++;
        }
        assert_true(tail.len == 0 || utf8_valid(tail.data, tail.len));
        detok_close(&d);
        buf_free(&head);
        buf_free(&tail);
        buf_free(&whole);
    }
    return bad;
}

static void golden(void **state)
{
    const char *name = *state;
    struct tok *t = open_golden(name);
    char path[512];
    struct err e = {0};
    int bad = 0, n = 0;
    snprintf(path, sizeof path, GOLDEN "/tokenizers/%s/golden.json", name);
    json_t *g = json_parse_file(path, (size_t)64 << 20, &e), *c;
    assert_non_null(g);
    size_t i;
    json_array_foreach(json_object_get(g, "cases"), i, c) {
        n++;
        bad += check_case(t, c) != 0;
    }
    json_decref(g);
    bad += check_random_streams(t);
    tok_close(&t);
    printf("%s: %d cases\n", name, n);
    assert_true(n > 200);
    assert_int_equal(bad, 0);
}

/* One llama.cpp pair of files: texts between separators, a line of ids each. */
static int llamacpp(const char *tokenizer, const char *file)
{
    static const char sep[] = "\n__ggml_vocab_test__\n";
    char path[512];
    size_t in_len, out_len;
    int bad = 0, n = 0;
    struct tok *t = open_golden(tokenizer);
    snprintf(path, sizeof path, GOLDEN "/llamacpp_vocab/%s.inp", file);
    char *in = file_read(path, 1 << 20, &in_len, NULL);
    snprintf(path, sizeof path, GOLDEN "/llamacpp_vocab/%s.out", file);
    char *out = file_read(path, 1 << 20, &out_len, NULL);
    assert_non_null(in);
    assert_non_null(out);
    char *ids = out;
    for (char *s = in, *end; s && ids && *ids; s = end ? end + strlen(sep) : NULL) {
        end = strstr(s, sep);
        struct tok_ids got = {0};
        assert_true(tok_encode(t, s, end ? (size_t)(end - s) : strlen(s), TOK_ENCODE_PLAIN, &got, NULL));
        char *line_end = strchr(ids, '\n');
        if (line_end)
            *line_end = 0;
        size_t k = 0;
        bool same = true;
        for (char *p = ids, *q; same; p = q, k++) {
            long v = strtol(p, &q, 10);
            if (p == q)
                break;
            same = k < got.n && got.ids[k] == v;
        }
        if (!same || k != got.n) {
            fprintf(stderr, "%s text %d: want %s\n", file, n, ids);
            bad++;
        }
        tok_ids_free(&got);
        ids = line_end ? line_end + 1 : NULL;
        n++;
    }
    mem_free(in);
    mem_free(out);
    tok_close(&t);
    assert_true(n > 40);
    return bad;
}

static void llamacpp_vectors(void **state)
{
    (void)state;
    assert_int_equal(llamacpp("gpt2", "ggml-vocab-gpt-2.gguf"), 0);
    assert_int_equal(llamacpp("llama2", "ggml-vocab-llama-spm.gguf"), 0);
    assert_int_equal(llamacpp("llama3_1", "ggml-vocab-llama-bpe.gguf"), 0);
    assert_int_equal(llamacpp("starcoder", "ggml-vocab-starcoder.gguf"), 0);
    assert_int_equal(llamacpp("qwen3", "ggml-vocab-qwen2.gguf"), 0);
}

int main(void)
{
    static char *const names[] = {"gpt2", "llama2", "llama3_1", "mistral-v1", "qwen3", "starcoder", "stories260K"};
    struct CMUnitTest tests[8];
    for (int i = 0; i < 7; i++)
        tests[i] = (struct CMUnitTest){names[i], golden, NULL, NULL, names[i]};
    tests[7] = (struct CMUnitTest)cmocka_unit_test(llamacpp_vectors);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
