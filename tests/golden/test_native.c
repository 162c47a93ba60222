/* Quantized models carried as they are stored, against the same models dequantized to F32: how far logits move, and whether greedy
 * tokens stay.  The safetensors models of tests/data/quant, and GGUF models of random blocks of every type.  Prints the table of docs/FORMATS.md. */
#include <dirent.h>
#include "golden/golden.h"
#include "model/gguf_build.h"
#include "model/model_files.h"

#define QUANT QUIRE_SOURCE_DIR "/tests/data/quant"
#define GOLDEN QUIRE_SOURCE_DIR "/../shared/golden/quant/models"

/* Root of the mean square of logits' differences, as part of that of the logits' own deviation from their row's mean. */
struct distance { double rms, worst; int same, rows; };

static struct distance compare(const float *got, const float *want, int rows, int vocab)
{
    struct distance d = { .rows = rows };
    double err = 0, size = 0;
    for (int i = 0; i < rows; i++, got += vocab, want += vocab) {
        double mean = 0;
        for (int v = 0; v < vocab; v++)
            mean += want[v] / vocab;
        for (int v = 0; v < vocab; v++) {
            double x = (double)got[v] - want[v];
            err += x * x;
            size += (want[v] - mean) * (want[v] - mean);
            d.worst = !(fabs(x) <= d.worst) ? fabs(x) : d.worst;
        }
        d.same += golden_argmax(got, vocab) == golden_argmax(want, vocab);
    }
    d.rms = sqrt(err / size);
    return d;
}

/* The same choice wherever the margin to the other token is above six times the bound: two logits, each off by three deviations. */
static void check_greedy(const char *name, const float *got, const float *want, int rows, int vocab, double bound)
{
    for (int i = 0; i < rows; i++, got += vocab, want += vocab) {
        int32_t a = golden_argmax(got, vocab), b = golden_argmax(want, vocab);
        double mean = 0, square = 0;
        for (int v = 0; v < vocab; v++)
            mean += want[v] / vocab;
        for (int v = 0; v < vocab; v++)
            square += (want[v] - mean) * (want[v] - mean) / vocab;
        if (want[b] - want[a] > 6 * bound * sqrt(square))
            fail_msg("%s: row %d chooses %d, expected %d by a margin of %g", name, i, a, b, want[b] - want[a]);
    }
}

static float *logits_of(const char *path, enum fwd_dtype dtype, bool widen, const int32_t *ids, int n, int *vocab, char formats[200])
{
    struct runner r;
    runner_open_with(&r, path, (struct fwd_opts){ .dtype = dtype, .kv_dtype = FWD_DTYPE_F32, .quant.widen = widen }, NULL, 2);
    float *out = runner_logits(&r, ids, n, 0);
    *vocab = r.vocab;
    snprintf(formats, 200, "%s", fwd_formats(r.f));
    /* The same bits however the sequence is cut: promise 1 holds for every format. */
    for (uint64_t chunks = 1; dtype == FWD_DTYPE_AUTO && chunks < 3; chunks++) {
        float *cut = runner_logits(&r, ids, n, chunks);
        if (memcmp(cut, out, (size_t)n * (size_t)r.vocab * sizeof *out) != 0)
            fail_msg("%s: rows depend on how the sequence is cut", path);
        mem_free(cut);
    }
    runner_close(&r);
    return out;
}

/* Bounds of the relative distance: products of integers round their inputs to 8 bits, those of 8-bit floats at most to bf16. */
static double bound_of(const char *formats)
{
    return strstr(formats, "int8 ") ? 0.06 : strstr(formats, "int") ? 0.04 : strstr(formats, "fp8") ? 0.02 : 0.01;
}

static void check_model(const char *name, const char *path, const int32_t *ids, int n, const char *needed)
{
    char formats[200], other[200];
    int vocab;
    float *exact = logits_of(path, FWD_DTYPE_F32, false, ids, n, &vocab, other);
    float *wide = logits_of(path, FWD_DTYPE_AUTO, true, ids, n, &vocab, other);
    float *native = logits_of(path, FWD_DTYPE_AUTO, false, ids, n, &vocab, formats);
    struct distance w = compare(wide, exact, n, vocab), d = compare(native, exact, n, vocab);
    printf("%-20s f16 %.4f  native %.4f (most %.3f)  greedy %d/%d  %s\n", name, w.rms, d.rms, d.worst, d.same, d.rows, formats);
    if (strstr(other, "int") || strstr(other, "fp8"))
        fail_msg("%s: --quantization none carries %s", name, other);
    if (needed && !strstr(formats, needed))
        fail_msg("%s: carried as %s, expected %s", name, formats, needed);
    if (!(d.rms <= bound_of(formats)) || !(w.rms <= 0.01))
        fail_msg("%s: logits differ by %g (as F16 by %g)", name, d.rms, w.rms);
    check_greedy(name, native, exact, n, vocab, bound_of(formats));
    mem_free(exact);
    mem_free(wide);
    mem_free(native);
}

static int ids_of(const char *path, int32_t *ids)
{
    struct err e;
    json_t *j = json_parse_file(path, 1 << 22, &e);
    if (!j)
        fail_msg("%s", e.msg);
    int n = golden_ids(json_object_get(j, "input_ids"), ids);
    if (json_object_get(j, "greedy_ids"))
        n += golden_ids(json_object_get(j, "greedy_ids"), ids + n);
    json_decref(j);
    return n;
}

static void test_safetensors(void **state)
{
    (void)state;
    int n_models = 0;
    DIR *d = opendir(QUANT);
    assert_non_null(d);
    for (struct dirent *ent; (ent = readdir(d));) {
        char dir[512], json[600];
        int32_t ids[GOLDEN_MAX_IDS];
        if (ent->d_name[0] == '.')
            continue;
        snprintf(dir, sizeof dir, QUANT "/%s", ent->d_name);
        snprintf(json, sizeof json, "%s/golden.json", dir);
        check_model(ent->d_name, dir, ids, ids_of(json, ids), NULL);
        n_models++;
    }
    closedir(d);
    assert_true(n_models >= 20);
}

static void test_golden_models(void **state)
{
    (void)state;
    static const char *const names[] = { "llama-Q4_0", "llama-Q4_K_M", "llama-Q8_0" };
    int32_t ids[GOLDEN_MAX_IDS];
    if (!file_is_dir(GOLDEN))
        skip();
    int n = ids_of(GOLDEN "/golden.json", ids);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[512];
        snprintf(path, sizeof path, GOLDEN "/%s.gguf", names[i]);
        check_model(names[i], path, ids, n, NULL);
    }
}

/* What is kept in the packed-weight cache is all of a weight: orders of columns, and q, k and v of different formats. */
static void test_packed(void **state)
{
    (void)state;
    static const char *const names[] = { "gptq-4bit-actorder", "ct-int4-actorder", "ct-w8a8-tensor-asym", "fp8-block128", "awq", "bnb-int8" };
    static const char *const states[] = { "written", "mapped", "off" };
    struct folder f;
    folder_make(&f);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char dir[512], json[600];
        int32_t ids[GOLDEN_MAX_IDS];
        float *logits[3];
        size_t bytes = 0;
        snprintf(dir, sizeof dir, QUANT "/%s", names[i]);
        snprintf(json, sizeof json, "%s/golden.json", dir);
        int n = ids_of(json, ids);
        for (int k = 0; k < 3; k++) {
            struct runner r;
            runner_open_with(&r, dir, (struct fwd_opts){ .packed_dir = k < 2 ? f.dir : NULL }, NULL, 2);
            assert_string_equal(fwd_packed_state(r.f), states[k]);
            logits[k] = runner_logits(&r, ids, n, 0);
            bytes = (size_t)n * (size_t)r.vocab * sizeof(float);
            runner_close(&r);
        }
        assert_memory_equal(logits[0], logits[1], bytes);
        assert_memory_equal(logits[0], logits[2], bytes);
        for (int k = 0; k < 3; k++)
            mem_free(logits[k]);
    }
    folder_remove(&f);
}

/* ---- models of random blocks ---- */

enum { HIDDEN = 256, FFN = 512, LAYERS = 2, KV = 128, VOCAB = 96 };

/* Where a block has its F16 scale and minimum (-1: none), and the minimum for a scale of 1 that brings values near 0. */
static const struct { const char *name; int scale, minimum; float low; const char *carried; } TYPES[] = {
    { "Q4_0", 0, -1, 0, "int4-g32" }, { "Q4_1", 0, 2, -7.5f, "int4-g32" }, { "Q5_0", 0, -1, 0, "int8-g32" }, { "Q5_1", 0, 2, -15.5f, "uint8-g32" },
    { "Q8_0", 0, -1, 0, "int8-g32" }, { "Q2_K", 80, 82, 1.5f, "uint8-g16" }, { "Q3_K", 108, -1, 0, "int8-g16" }, { "Q4_K", 0, 2, 7.5f, "int4-g32" },
    { "Q5_K", 0, 2, 15.5f, "uint8-g32" }, { "Q6_K", 208, -1, 0, "int8-g16" }, { "IQ4_NL", 0, -1, 0, "int8-g32" }, { "IQ4_XS", 0, -1, 0, "int8-g32" },
    { "TQ1_0", 52, -1, 0, "int4-g128" }, { "TQ2_0", 64, -1, 0, "int4-g128" },
};

static void put_f16(unsigned char *at, float v)
{
    uint16_t h = tensor_f32_to_f16(v);
    memcpy(at, &h, 2);
}

/* n random blocks whose values have a mean square of 1 / 256. */
static void random_blocks(size_t type, const struct quant_block *q, unsigned char *out, size_t n, struct rng *g)
{
    float values[256];
    for (size_t i = 0; i < n; i++, out += q->bytes) {
        for (int b = 0; b < q->bytes; b++)
            out[b] = (unsigned char)rng_next_below(g, 256);
        double square = 0;
        for (float d = 1; d > 0; d = d == 1 ? (float)(1.0 / sqrt(256 * square / q->values)) : 0) {
            put_f16(out + TYPES[type].scale, d);
            if (TYPES[type].minimum >= 0)
                put_f16(out + TYPES[type].minimum, d * TYPES[type].low);
            if (d != 1)
                continue;
            quant_block_to_f32(q, out, 1, values);
            for (int v = 0; v < q->values; v++)
                square += (double)values[v] * values[v];
        }
    }
}

static void add_matrix(struct gguf_build *g, size_t type, const char *name, uint64_t rows, uint64_t cols, struct rng *r)
{
    const struct quant_block *q = quant_block_by_name(TYPES[type].name);
    size_t n = (size_t)(rows * cols) / (size_t)q->values;
    unsigned char *data = mem_try_alloc(n, (size_t)q->bytes);
    random_blocks(type, q, data, n, r);
    gb_tensor(g, name, 2, (uint64_t[]){ cols, rows }, (uint32_t)q->id, data, n * (size_t)q->bytes);
    mem_free(data);
}

static void add_norm(struct gguf_build *g, const char *name)
{
    float ones[HIDDEN];
    for (int i = 0; i < HIDDEN; i++)
        ones[i] = 1;
    gb_tensor(g, name, 1, (uint64_t[]){ HIDDEN }, 0, ones, sizeof ones);
}

static void add_config(struct gguf_build *g)
{
    gb_str(g, "general.architecture", "llama");
    gb_u32(g, "llama.block_count", LAYERS);
    gb_u32(g, "llama.context_length", 256);
    gb_u32(g, "llama.embedding_length", HIDDEN);
    gb_u32(g, "llama.feed_forward_length", FFN);
    gb_u32(g, "llama.attention.head_count", 4);
    gb_u32(g, "llama.attention.head_count_kv", 2);
    gb_u32(g, "llama.vocab_size", VOCAB);
    gb_f32(g, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
}

static void write_model(const struct folder *f, size_t type, size_t v_type)
{
    static const struct { const char *name; int rows, cols; } layer[] = {
        { "attn_q", HIDDEN, HIDDEN }, { "attn_k", KV, HIDDEN }, { "attn_v", KV, HIDDEN }, { "attn_output", HIDDEN, HIDDEN },
        { "ffn_gate", FFN, HIDDEN }, { "ffn_up", FFN, HIDDEN }, { "ffn_down", HIDDEN, FFN },
    };
    struct gguf_build g = { 0 };
    struct rng r = { 77 + type };
    struct buf out = { 0 };
    char name[64];
    add_config(&g);
    add_matrix(&g, type, "token_embd.weight", VOCAB, HIDDEN, &r);
    add_matrix(&g, type, "output.weight", VOCAB, HIDDEN, &r);
    add_norm(&g, "output_norm.weight");
    for (int l = 0; l < LAYERS; l++) {
        for (size_t i = 0; i < sizeof layer / sizeof *layer; i++) {
            snprintf(name, sizeof name, "blk.%d.%s.weight", l, layer[i].name);
            add_matrix(&g, i == 2 ? v_type : type, name, (uint64_t)layer[i].rows, (uint64_t)layer[i].cols, &r);
        }
        for (int i = 0; i < 2; i++) {
            snprintf(name, sizeof name, "blk.%d.%s.weight", l, i ? "ffn_norm" : "attn_norm");
            add_norm(&g, name);
        }
    }
    gb_finish(&g, &out);
    folder_write(f, "model.gguf", out.data, out.len);
    buf_free(&out);
}

static void test_blocks(void **state)
{
    (void)state;
    size_t n = sizeof TYPES / sizeof *TYPES;
    for (size_t i = 0; i < n + 2; i++) {
        struct folder f;
        char path[300], name[40];
        int32_t ids[48];
        for (int t = 0; t < 48; t++)
            ids[t] = (t * 37 + 11) % VOCAB;
        /* The last two: other types for v, as files of mixed types have them. */
        size_t type = i < n ? i : 7, v_type = i < n ? i : i == n ? 9 : 4;
        snprintf(name, sizeof name, "%s%s%s", TYPES[type].name, v_type != type ? ", v " : "", v_type != type ? TYPES[v_type].name : "");
        folder_make(&f);
        write_model(&f, type, v_type);
        snprintf(path, sizeof path, "%s/model.gguf", f.dir);
        check_model(name, path, ids, 48, TYPES[v_type].carried);
        folder_remove(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_safetensors), cmocka_unit_test(test_golden_models), cmocka_unit_test(test_packed), cmocka_unit_test(test_blocks) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
