/* GGUF files: what the format allows, everything hostile that one can say, split files, and errors that name what is wrong. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include "gguf_build.h"
#include "model/model.h"
#include "model_files.h"
#include "tensor/quant.h"

static bool parse(const struct buf *b, size_t n, struct gguf *g, struct err *e)
{
    /* Exact size, so that a sanitizer sees reads past the end. */
    unsigned char *exact = malloc(n ? n : 1);
    memcpy(exact, b->data, n);
    bool ok = gguf_parse(g, exact, n, "f.gguf", e);
    volatile unsigned char sum = 0;
    for (size_t i = 0; ok && i < g->n_tensors; i++)
        for (size_t j = 0; j < g->tensors[i].bytes; j++)
            sum ^= ((const unsigned char *)g->tensors[i].data)[j];
    if (ok)
        gguf_free(g);
    free(exact);
    return ok;
}

static void bad(struct gguf_build *build, const char *part)
{
    struct buf b = { 0 };
    struct gguf g;
    struct err e = { 0 };
    gb_finish(build, &b);
    if (parse(&b, b.len, &g, &e))
        fail_msg("accepted, expected \"%s\"", part);
    if (!strstr(e.msg, part) || !strstr(e.msg, "f.gguf") || strchr(e.msg, '\n'))
        fail_msg("message \"%s\" lacks \"%s\"", e.msg, part);
    assert_null(g.tensors);
    buf_free(&b);
}

static const float ONES[256] = { 1, 2, 3, 4, 5, 6 };
static const uint64_t D32[1] = { 32 }, D3x2[2] = { 3, 2 };

static void some_values(struct gguf_build *g)
{
    gb_u32(g, "a.u32", 7);
    gb_f32(g, "a.f32", 1.5f);
    gb_bool(g, "a.bool", true);
    gb_str(g, "a.str", "text");
    gb_key(g, "a.i8", GGUF_I8);
    gb_int(&g->kv, 0xfe, 1);
    gb_key(g, "a.u64", GGUF_U64);
    gb_int(&g->kv, UINT64_MAX, 8);
    gb_array(g, "a.list", GGUF_I16, 3);
    for (int i = -1; i < 2; i++)
        gb_int(&g->kv, (uint64_t)(int64_t)i, 2);
    gb_array(g, "a.names", GGUF_STRING, 2);
    gb_text(&g->kv, "x", 1);
    gb_text(&g->kv, "", 0);
    gb_tensor(g, "t", 2, D3x2, 0, ONES, 24);
    gb_tensor(g, "q", 1, D32, 8, ONES, 34);
}

static void test_values(void **state)
{
    (void)state;
    for (uint32_t version = 2; version <= 3; version++) {
        struct gguf_build build = { .version = version };
        struct buf b = { 0 };
        struct gguf g;
        struct err e = { 0 };
        int64_t i = -1;
        double d = -1;
        bool flag = false;
        const char *s = "";
        some_values(&build);
        gb_finish(&build, &b);
        if (!gguf_parse(&g, (const unsigned char *)b.data, b.len, "f.gguf", &e))
            fail_msg("%s", e.msg);
        assert_true(gguf_get_i64(&g, "a.u32", &i, &e) && i == 7);
        assert_true(gguf_get_i64(&g, "a.i8", &i, &e) && i == -2);
        assert_true(gguf_get_i64(&g, "not there", &i, &e) && i == -2);
        assert_true(gguf_get_f64(&g, "a.f32", &d, &e) && d == 1.5);
        assert_true(gguf_get_f64(&g, "a.u32", &d, &e) && d == 7);
        assert_true(gguf_get_bool(&g, "a.bool", &flag, &e) && flag);
        assert_true(gguf_get_str(&g, "a.str", &s, &e) && strcmp(s, "text") == 0);
        assert_false(gguf_get_i64(&g, "a.u64", &i, &e));
        assert_false(gguf_get_i64(&g, "a.list", &i, &e));
        assert_non_null(strstr(e.msg, "a.list must be a whole number, found an array of i16"));
        assert_false(gguf_get_str(&g, "a.u32", &s, &e));
        assert_false(gguf_get_f64(&g, "a.str", &d, &e));
        assert_false(gguf_get_bool(&g, "a.u32", &flag, &e));
        const struct gguf_kv *kv = gguf_find(&g, "a.list");
        assert_true(kv && kv->n == 3 && gguf_number_at(kv, 0, &d) && d == -1);
        assert_false(gguf_number_at(gguf_find(&g, "a.names"), 0, &d));
        assert_int_equal(g.n_tensors, 2);
        assert_true(g.tensors[0].n_dims == 2 && g.tensors[0].dims[0] == 2 && g.tensors[0].dims[1] == 3 && g.tensors[0].bytes == 24);
        assert_true(memcmp(g.tensors[0].data, ONES, 24) == 0);
        assert_string_equal(g.tensors[1].block->name, "Q8_0");
        gguf_free(&g);
        buf_free(&b);
    }
}

static void test_experts_one_by_one(void **state)
{
    (void)state;
    struct gguf_build build = { 0 };
    struct buf b = { 0 };
    struct gguf g;
    struct err e = { 0 };
    const uint64_t dims[3] = { 2, 1, 3 };
    gb_tensor(&build, "blk.0.ffn_up_exps.weight", 3, dims, 0, ONES, 24);
    gb_finish(&build, &b);
    assert_true(gguf_parse(&g, (const unsigned char *)b.data, b.len, "f.gguf", &e));
    assert_int_equal(g.n_tensors, 3);
    assert_string_equal(g.tensors[2].name, "blk.0.ffn_up_exps.2.weight");
    assert_true(g.tensors[2].n_dims == 2 && g.tensors[2].dims[0] == 1 && g.tensors[2].dims[1] == 2 && ((const float *)g.tensors[2].data)[0] == 5);
    gguf_free(&g);
    buf_free(&b);
}

static void test_every_length(void **state)
{
    (void)state;
    struct gguf_build build = { 0 };
    struct buf b = { 0 };
    struct gguf g;
    some_values(&build);
    gb_finish(&build, &b);
    for (size_t n = 0; n < b.len; n++) {
        struct err e = { 0 };
        assert_false(parse(&b, n, &g, &e));
        assert_true(e.msg[0]);
    }
    /* Every byte changed, to a few others: an error or a file, never a fault. */
    for (size_t at = 0; at < b.len; at++) {
        static const char others[] = { 0, 1, 9, 127, -1 };
        for (size_t k = 0; k < sizeof others; k++) {
            struct err e = { 0 };
            char was = b.data[at];
            b.data[at] = others[k];
            parse(&b, b.len, &g, &e);
            b.data[at] = was;
        }
    }
    buf_free(&b);
}

static void test_no_memory(void **state)
{
    (void)state;
    struct gguf_build build = { 0 };
    struct buf b = { 0 };
    struct gguf g;
    some_values(&build);
    gb_finish(&build, &b);
    for (long n = 1;; n++) {
        struct err e = { 0 };
        mem_fault_after(n);
        bool ok = gguf_parse(&g, (const unsigned char *)b.data, b.len, "f.gguf", &e), fired = mem_fault_fired();
        mem_fault_after(0);
        if (ok)
            gguf_free(&g);
        if (!fired)
            break;
        assert_true(ok || e.code == ERR_NOMEM);
    }
    buf_free(&b);
}

static void test_hostile_metadata(void **state)
{
    (void)state;
    struct gguf_build g = { 0 };
    gb_u32(&g, "k", 1);
    gb_u32(&g, "k", 2);
    bad(&g, "key k comes twice");
    g.n_kv = UINT64_MAX;
    bad(&g, "ends within the metadata");
    gb_key(&g, "k", (enum gguf_type)13);
    bad(&g, "value type 13");
    gb_array(&g, "k", GGUF_U64, (uint64_t)1 << 61);
    bad(&g, "ends within k");
    gb_array(&g, "k", GGUF_STRING, (uint64_t)1 << 40);
    bad(&g, "ends within k");
    gb_array(&g, "k", GGUF_ARRAY, 1);
    bad(&g, "array of arrays");
    gb_key(&g, "k", GGUF_STRING);
    gb_int(&g.kv, UINT64_MAX, 8);
    bad(&g, "ends within k");
    gb_int(&g.kv, UINT64_MAX - 8, 8);
    g.n_kv = 1;
    buf_append(&g.kv, ONES, 64);
    bad(&g, "ends within a key");
    gb_u32(&g, "", 1);
    bad(&g, "not a name");
    gb_text(&g.kv, "a\0b", 3);
    gb_int(&g.kv, GGUF_U32, 4);
    gb_int(&g.kv, 1, 4);
    g.n_kv = 1;
    bad(&g, "not a name");
    for (uint32_t a = 0; a < 4; a++) {
        static const uint32_t alignments[] = { 0, 3, 1u << 30, 33 };
        gb_u32(&g, "general.alignment", alignments[a]);
        bad(&g, "power of two");
    }
    gb_str(&g, "general.alignment", "32");
    bad(&g, "must be a whole number");
    for (uint32_t v = 1; v < 5; v += 3) {
        g.version = v;
        bad(&g, "GGUF version");
    }
    g.version = 3u << 24;
    bad(&g, "big-endian");
    struct buf b = { 0 };
    struct gguf out;
    struct err e = { 0 };
    buf_puts(&b, "GGML\3\0\0\0 and more bytes than a header has");
    assert_false(parse(&b, b.len, &out, &e));
    assert_non_null(strstr(e.msg, "not a GGUF file"));
    buf_free(&b);
}

static void test_hostile_tensors(void **state)
{
    (void)state;
    const uint64_t huge[2] = { (uint64_t)1 << 40, (uint64_t)1 << 40 }, negative[1] = { UINT64_MAX }, five[5] = { 1, 1, 1, 1, 1 }, d31[1] = { 31 };
    const uint64_t experts[3] = { 1, 0, 5000 };
    struct gguf_build g = { 0 };
    g.n_tensors = UINT64_MAX;
    bad(&g, "ends within the list of tensors");
    gb_tensor(&g, "a", 5, five, 0, ONES, 4);
    bad(&g, "tensor a has 5 dimensions");
    gb_tensor(&g, "a", 2, huge, 0, ONES, 4);
    bad(&g, "product of its shape is too large");
    gb_tensor(&g, "a", 1, negative, 0, ONES, 4);
    bad(&g, "not plausible");
    gb_tensor(&g, "a", 1, d31, 8, ONES, 34);
    bad(&g, "not whole blocks of 32 (Q8_0)");
    gb_tensor(&g, "a", 1, D32, 16, ONES, 66);
    bad(&g, "type IQ2_XXS (16), which is not supported");
    gb_tensor(&g, "a", 1, D32, 999, ONES, 66);
    bad(&g, "type ? (999)");
    gb_tensor(&g, "a", 1, D32, UINT32_MAX, ONES, 66);
    bad(&g, "which is not supported");
    gb_info(&g, "a", 1, D32, 0, 8);
    buf_append(&g.data, ONES, 512);
    bad(&g, "not a multiple of 32");
    gb_info(&g, "a", 1, D32, 0, UINT64_MAX - 31);
    bad(&g, "not within the 0 bytes");
    gb_info(&g, "a", 1, D32, 0, 32);
    buf_append(&g.data, ONES, 128);
    bad(&g, "cut short");
    gb_info(&g, "a", 1, D32, 0, 0);
    gb_info(&g, "b", 1, D32, 0, 64);
    buf_append(&g.data, ONES, 256);
    bad(&g, "tensors a and b overlap");
    gb_info(&g, "x_exps.weight", 3, experts, 0, 0);
    bad(&g, "5000 experts");
}

/* ---- models ---- */

enum { HIDDEN = 32, FFN = 32, VOCAB = 8 };

struct change {
    const char *skip, *misshapen, *extra, *type_of;   /* tensors by name */
    uint32_t type;
    bool untied, vocabulary;
    int part, parts;        /* of a split file: this part of so many */
};

static void add_matrix(struct gguf_build *g, const struct change *c, const char *name, uint64_t rows, uint64_t cols, int n_dims)
{
    float data[64 * 40];
    uint64_t dims[2] = { cols, rows + (c->misshapen && strcmp(c->misshapen, name) == 0) };
    bool typed = c->type_of && strcmp(c->type_of, name) == 0;
    if (n_dims == 1)
        dims[0] = cols + (c->misshapen && strcmp(c->misshapen, name) == 0);
    if (c->skip && strcmp(c->skip, name) == 0)
        return;
    for (size_t i = 0; i < sizeof data / sizeof *data; i++)
        data[i] = (float)(i % 7) * 0.01f;
    uint64_t n = dims[0] * (n_dims == 2 ? dims[1] : 1);
    gb_tensor(g, name, n_dims, dims, typed ? c->type : 0, data, typed ? n / 32 * 34 : n * 4);
}

static void write_model(const struct folder *f, const char *file, const struct change *c)
{
    struct gguf_build g = { 0 };
    struct buf b = { 0 };
    if (c->part == 0) {
        gb_str(&g, "general.architecture", "llama");
        gb_u32(&g, "llama.block_count", 1);
        gb_u32(&g, "llama.context_length", 64);
        gb_u32(&g, "llama.embedding_length", HIDDEN);
        gb_u32(&g, "llama.feed_forward_length", FFN);
        gb_u32(&g, "llama.attention.head_count", 2);
        gb_f32(&g, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
    }
    if (c->vocabulary) {
        static const char *const tokens[VOCAB] = { "<unk>", "<s>", "</s>", "<0x41>", "\xe2\x96\x81", "a", "b", "ab" };
        static const int types[VOCAB] = { 2, 3, 3, 6, 1, 1, 1, 1 };
        gb_str(&g, "tokenizer.ggml.model", "llama");
        gb_str(&g, "tokenizer.chat_template", "{{ bos_token }}");
        gb_array(&g, "tokenizer.ggml.tokens", GGUF_STRING, VOCAB);
        for (int i = 0; i < VOCAB; i++)
            gb_text(&g.kv, tokens[i], strlen(tokens[i]));
        gb_array(&g, "tokenizer.ggml.token_type", GGUF_I32, VOCAB);
        for (int i = 0; i < VOCAB; i++)
            gb_int(&g.kv, (uint64_t)types[i], 4);
    }
    if (c->parts) {
        gb_u32(&g, "split.no", (uint32_t)c->part);
        gb_u32(&g, "split.count", (uint32_t)c->parts);
    }
    if (c->part == 0) {
        add_matrix(&g, c, "token_embd.weight", VOCAB, HIDDEN, 2);
        add_matrix(&g, c, "output_norm.weight", 1, HIDDEN, 1);
        if (c->untied)
            add_matrix(&g, c, "output.weight", VOCAB, HIDDEN, 2);
    }
    if (c->part == c->parts - 1 || !c->parts) {
        static const char *const square[] = { "blk.0.attn_q.weight", "blk.0.attn_k.weight", "blk.0.attn_v.weight", "blk.0.attn_output.weight",
                                              "blk.0.ffn_gate.weight", "blk.0.ffn_up.weight", "blk.0.ffn_down.weight" };
        for (size_t i = 0; i < sizeof square / sizeof *square; i++)
            add_matrix(&g, c, square[i], 32, 32, 2);
        add_matrix(&g, c, "blk.0.attn_norm.weight", 1, HIDDEN, 1);
        add_matrix(&g, c, "blk.0.ffn_norm.weight", 1, HIDDEN, 1);
    }
    if (c->extra)
        add_matrix(&g, c, c->extra, 1, 4, 1);
    gb_finish(&g, &b);
    folder_write(f, file, b.data, b.len);
    buf_free(&b);
}

static bool take_all(const struct model *m, struct err *e)
{
    for (int s = 0; s < ARCH_LIN_COUNT; s++) {
        struct model_linear l;
        if (arch_linear_count(model_arch(m), (enum arch_linear)s, 0) == 0)
            continue;
        if (!model_get_linear(m, (enum arch_linear)s, 0, 0, &l, e))
            return false;
        model_linear_free(&l);
    }
    for (int s = 0; s < ARCH_VEC_COUNT; s++) {
        float *v;
        int64_t n;
        if (!model_get_vector(m, (enum arch_vector)s, 0, &v, &n, e))
            return false;
        mem_free(v);
    }
    return model_check_all_used(m, e);
}

static bool open_all(const struct folder *f, const char *file, const struct model_opts *o, struct err *e)
{
    struct model *m;
    char *path = file_join(f->dir, file);
    bool ok = model_open(&m, path, o, e) && ((o && (o->config_only || o->files_only)) || take_all(m, e));
    if (ok && !(o && o->files_only)) {
        assert_int_equal(model_arch(m)->hidden, HIDDEN);
        assert_int_equal(model_arch(m)->vocab_size, VOCAB);
        assert_int_equal(model_arch(m)->pos, ARCH_POS_ROPE_INTERLEAVED);
        assert_true(model_identity(m) != 0);
        assert_string_equal(model_path(m), path);
    }
    model_close(&m);
    mem_free(path);
    return ok;
}

static void expect(const struct change *c, const char *part)
{
    struct folder f;
    struct err e = { 0 };
    folder_make(&f);
    write_model(&f, "m.gguf", c);
    bool ok = open_all(&f, "m.gguf", NULL, &e);
    folder_remove(&f);
    if (ok != !part)
        fail_msg("%s", ok ? "accepted" : e.msg);
    if (part && (!strstr(e.msg, part) || strchr(e.msg, '\n')))
        fail_msg("message \"%s\" lacks \"%s\"", e.msg, part);
}

static void test_models(void **state)
{
    (void)state;
    expect(&(struct change){ 0 }, NULL);
    expect(&(struct change){ .untied = true }, NULL);
    expect(&(struct change){ .type_of = "blk.0.ffn_up.weight", .type = 8 }, NULL);
    expect(&(struct change){ .extra = "rope_freqs.unused" }, NULL);
    expect(&(struct change){ .skip = "blk.0.attn_k.weight" }, "tensor blk.0.attn_k.weight is missing");
    expect(&(struct change){ .skip = "token_embd.weight" }, "vocab_size");
    expect(&(struct change){ .skip = "output_norm.weight" }, "tensor output_norm.weight is missing");
    expect(&(struct change){ .misshapen = "blk.0.ffn_down.weight" }, "m.gguf: tensor blk.0.ffn_down.weight has shape [33, 32], expected [32, 32]");
    expect(&(struct change){ .misshapen = "blk.0.attn_norm.weight" }, "has shape [33], expected [32]");
    expect(&(struct change){ .extra = "blk.0.something.weight" }, "tensor blk.0.something.weight is not part of architecture");
    expect(&(struct change){ .type_of = "blk.0.attn_norm.weight", .type = 8 }, "tensor blk.0.attn_norm.weight is of type Q8_0");
}

/* Each allocation in turn fails, once. */
static void test_open_no_memory(void **state)
{
    (void)state;
    struct folder f;
    folder_make(&f);
    write_model(&f, "m.gguf", &(struct change){ .vocabulary = true });
    char *path = file_join(f.dir, "m.gguf");
    for (long n = 1;; n++) {
        struct model *m;
        struct err e = { 0 };
        mem_fault_after(n);
        bool ok = model_open(&m, path, NULL, &e) && take_all(m, &e), fired = mem_fault_fired();
        mem_fault_after(0);
        model_close(&m);
        if (!ok && (e.code != ERR_NOMEM || !fired))
            fail_msg("allocation %ld: %s", n, e.msg);
        if (!fired)
            break;
    }
    mem_free(path);
    folder_remove(&f);
}

/* A folder with a GGUF model and no config.json. */
static void expect_folder(const struct folder *f, const char *part)
{
    struct model *m;
    struct err e = { 0 };
    bool ok = model_open(&m, f->dir, NULL, &e) && take_all(m, &e);
    model_close(&m);
    if (ok != !part || (part && !strstr(e.msg, part)))
        fail_msg("%s", ok ? "accepted" : e.msg);
}

static void test_split(void **state)
{
    (void)state;
    const struct model_opts config = { .config_only = true }, files = { .files_only = true };
    struct folder f;
    struct err e = { 0 };
    folder_make(&f);
    write_model(&f, "m-00001-of-00002.gguf", &(struct change){ .part = 0, .parts = 2 });
    assert_true(open_all(&f, "m-00001-of-00002.gguf", &files, &e));
    assert_false(open_all(&f, "m-00001-of-00002.gguf", NULL, &e));
    assert_non_null(strstr(e.msg, "m-00002-of-00002.gguf"));
    write_model(&f, "m-00002-of-00002.gguf", &(struct change){ .part = 1, .parts = 2 });
    assert_true(open_all(&f, "m-00001-of-00002.gguf", &config, &e));
    if (!open_all(&f, "m-00001-of-00002.gguf", NULL, &e) || !open_all(&f, "m-00002-of-00002.gguf", NULL, &e))
        fail_msg("%s", e.msg);
    write_model(&f, "m-00002-of-00002.gguf", &(struct change){ .part = 1, .parts = 2, .extra = "token_embd.weight" });
    assert_false(open_all(&f, "m-00001-of-00002.gguf", NULL, &e));
    assert_non_null(strstr(e.msg, "tensor token_embd.weight is both in m-00001-of-00002.gguf and in m-00002-of-00002.gguf"));
    write_model(&f, "m-00002-of-00002.gguf", &(struct change){ .part = 2, .parts = 3 });
    assert_false(open_all(&f, "m-00001-of-00002.gguf", NULL, &e));
    assert_non_null(strstr(e.msg, "part 2 of 3"));
    write_model(&f, "m-00002-of-00002.gguf", &(struct change){ .part = 1, .parts = 2 });
    expect_folder(&f, NULL);
    write_model(&f, "mmproj-of-it.gguf", &(struct change){ 0 });
    expect_folder(&f, NULL);
    write_model(&f, "other.gguf", &(struct change){ 0 });
    expect_folder(&f, "has several .gguf files");
    write_model(&f, "renamed.gguf", &(struct change){ .part = 0, .parts = 2 });
    assert_false(open_all(&f, "renamed.gguf", NULL, &e));
    assert_non_null(strstr(e.msg, "does not end in -00001-of-00002.gguf"));
    folder_remove(&f);
}

static void expect_metadata(struct gguf_build *build, const char *part)
{
    struct folder f;
    struct buf b = { 0 };
    struct err e = { 0 };
    folder_make(&f);
    gb_finish(build, &b);
    folder_write(&f, "m.gguf", b.data, b.len);
    bool ok = open_all(&f, "m.gguf", &(struct model_opts){ .config_only = true }, &e);
    folder_remove(&f);
    buf_free(&b);
    if (ok || !strstr(e.msg, part))
        fail_msg("%s: message \"%s\" lacks \"%s\"", ok ? "accepted" : "refused", e.msg, part);
}

static void test_metadata(void **state)
{
    (void)state;
    struct gguf_build g = { 0 };
    expect_metadata(&g, "general.architecture is missing");
    gb_str(&g, "general.architecture", "bert");
    expect_metadata(&g, "architecture \"bert\" is not supported; supported are llama, ");
    gb_str(&g, "general.architecture", "llama");
    expect_metadata(&g, "metadata llama.embedding_length is missing");
    gb_str(&g, "general.architecture", "llama");
    gb_u32(&g, "llama.embedding_length", 64);
    gb_str(&g, "llama.block_count", "1");
    gb_u32(&g, "llama.attention.head_count", 4);
    expect_metadata(&g, "llama.block_count must be a whole number, found string");
    gb_str(&g, "general.architecture", "llama");
    gb_u32(&g, "llama.embedding_length", 64);
    gb_u32(&g, "llama.block_count", 2);
    gb_array(&g, "llama.attention.head_count", GGUF_U32, 2);
    gb_int(&g.kv, 4, 4);
    gb_int(&g.kv, 8, 4);
    expect_metadata(&g, "llama.attention.head_count differs between layers");
    gb_str(&g, "general.architecture", "llama");
    gb_u32(&g, "llama.embedding_length", 64);
    gb_u32(&g, "llama.block_count", 0);
    gb_u32(&g, "llama.attention.head_count", 4);
    expect_metadata(&g, "m.gguf: metadata, in the words of a config.json: 'num_hidden_layers' must be from 1");
    gb_str(&g, "general.architecture", "llama");
    gb_str(&g, "tokenizer.ggml.model", "bert");
    expect_metadata(&g, "tokenizer.ggml.model \"bert\" is not supported");
    gb_str(&g, "general.architecture", "llama");
    gb_str(&g, "tokenizer.ggml.model", "gpt2");
    gb_str(&g, "tokenizer.ggml.pre", "of-next-year");
    gb_array(&g, "tokenizer.ggml.tokens", GGUF_STRING, 1);
    gb_text(&g.kv, "a", 1);
    expect_metadata(&g, "tokenizer.ggml.pre \"of-next-year\" is not known");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_experts_one_by_one),
        cmocka_unit_test(test_every_length),
        cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_hostile_metadata),
        cmocka_unit_test(test_hostile_tensors),
        cmocka_unit_test(test_models),
        cmocka_unit_test(test_split),
        cmocka_unit_test(test_open_no_memory),
        cmocka_unit_test(test_metadata),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
