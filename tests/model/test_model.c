/* Opening model folders: weights by slot, shards, dummies, and what is said when something is wrong. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include "model/model.h"
#include "model/model_files.h"

static const char CONFIG[] =
    "{\"architectures\":[\"LlamaForCausalLM\"],\"vocab_size\":10,\"hidden_size\":8,\"intermediate_size\":6,\"num_hidden_layers\":1,"
    "\"num_attention_heads\":2,\"num_key_value_heads\":1,\"tie_word_embeddings\":%s,\"attention_bias\":%s,\"eos_token_id\":2}";

#define L "model.layers.0."
static const struct { const char *name; int n_dims; int64_t d0, d1; } TENSORS[] = {
    { "model.embed_tokens.weight", 2, 10, 8 }, { "model.norm.weight", 1, 8, 0 },
    { L "input_layernorm.weight", 1, 8, 0 }, { L "post_attention_layernorm.weight", 1, 8, 0 },
    { L "self_attn.q_proj.weight", 2, 8, 8 }, { L "self_attn.k_proj.weight", 2, 4, 8 }, { L "self_attn.v_proj.weight", 2, 4, 8 },
    { L "self_attn.o_proj.weight", 2, 8, 8 }, { L "mlp.gate_proj.weight", 2, 6, 8 }, { L "mlp.up_proj.weight", 2, 6, 8 },
    { L "mlp.down_proj.weight", 2, 8, 6 }, { "lm_head.weight", 2, 10, 8 },
};
enum { N_TENSORS = sizeof TENSORS / sizeof *TENSORS };

static void write_config(const struct folder *f, bool tied, bool bias)
{
    char text[512];
    snprintf(text, sizeof text, CONFIG, tied ? "true" : "false", bias ? "true" : "false");
    folder_text(f, "config.json", text);
}

/* All but tensor skip; a misshapen one if there is a name for it. */
static void write_weights(const struct folder *f, int skip, const char *misshapen, const char *extra)
{
    struct st_build b = { 0 };
    for (int i = 0; i < N_TENSORS; i++) {
        int64_t d0 = TENSORS[i].d0 + (misshapen && strcmp(misshapen, TENSORS[i].name) == 0);
        if (i != skip)
            st_add(&b, TENSORS[i].name, i % 3 ? "F32" : "BF16", i % 3 ? 4 : 2, TENSORS[i].n_dims, d0, TENSORS[i].d1);
    }
    if (extra)
        st_add(&b, extra, "F32", 4, 1, 3, 0);
    st_write(&b, f, "model.safetensors");
}

/* Everything fwd would take. */
static bool take_all(const struct model *m, struct err *e)
{
    for (int s = 0; s < ARCH_LIN_COUNT; s++) {
        struct model_linear l;
        int64_t rows[3], cols;
        if (!arch_linear_shape(model_arch(m), (enum arch_linear)s, rows, &cols) || (s == ARCH_LIN_HEAD && model_arch(m)->tied_head))
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

static void expect_error(const char *dir, const struct model_opts *o, const char *part, const char *part2)
{
    struct model *m = NULL;
    struct err e = { 0 };
    bool ok = model_open(&m, dir, o, &e) && take_all(m, &e);
    model_close(&m);
    if (ok)
        fail_msg("accepted, expected \"%s\"", part);
    if (!strstr(e.msg, part) || !strstr(e.msg, part2))
        fail_msg("message \"%s\" lacks \"%s\" or \"%s\"", e.msg, part, part2);
    assert_null(strchr(e.msg, '\n'));
}

static void test_open(void **state)
{
    (void)state;
    struct folder f;
    folder_make(&f);
    write_config(&f, false, false);
    write_weights(&f, -1, NULL, L "self_attn.rotary_emb.inv_freq");
    folder_text(&f, "generation_config.json", "{\"temperature\":0.6,\"top_k\":20,\"eos_token_id\":[3,4,99]}");
    struct model *m = NULL;
    struct err e = { 0 };
    if (!model_open(&m, f.dir, NULL, &e) || !take_all(m, &e))
        fail_msg("%s", e.msg);
    assert_string_equal(model_name(m), f.dir + 5);
    assert_int_equal(model_dtype(m), DT_F32);
    assert_int_equal(model_n_params(m), 80 + 8 + 8 + 8 + 64 + 32 + 32 + 64 + 48 + 48 + 48 + 80);
    const struct model_generation *g = model_generation(m);
    assert_true(g->has_temperature && g->temperature == 0.6 && g->has_top_k && g->top_k == 20 && !g->has_top_p);
    assert_int_equal(g->n_eos_ids, 3);
    assert_int_equal(g->eos_ids[0], 3);
    assert_int_equal(g->eos_ids[2], 2);
    struct model_linear l;
    assert_true(model_get_linear(m, ARCH_LIN_QKV, 0, 0, &l, &e));
    assert_int_equal(l.n_parts, 3);
    assert_int_equal(l.parts[1].n_rows, 4);
    assert_int_equal(l.parts[0].n_cols, 8);
    float row[16];
    l.parts[0].read(&l.parts[0], 2, 2, row);
    assert_true(row[0] == 17.0f && row[15] == 32.0f);
    assert_null(l.bias);
    model_linear_free(&l);
    assert_int_equal(model_linear_dtype(m, ARCH_LIN_EMBED, 0, 0), DT_BF16);
    assert_int_equal(model_linear_dtype(m, ARCH_LIN_QKV, 0, 0), DT_F32);   /* F32, F32, BF16 */
    model_close(&m);
    model_close(&m);
    folder_remove(&f);
}

static void test_missing_extra_misshapen(void **state)
{
    (void)state;
    struct folder f;
    folder_make(&f);
    write_config(&f, false, false);
    for (int i = 0; i < N_TENSORS; i++) {
        write_weights(&f, i, NULL, NULL);
        expect_error(f.dir, NULL, TENSORS[i].name, "missing");
        write_weights(&f, -1, TENSORS[i].name, NULL);
        expect_error(f.dir, NULL, TENSORS[i].name, "expected [");
    }
    write_weights(&f, -1, NULL, "model.layers.1.mlp.up_proj.weight");
    expect_error(f.dir, NULL, "model.layers.1.mlp.up_proj.weight", "model.safetensors");
    write_weights(&f, -1, NULL, NULL);
    write_config(&f, false, true);
    expect_error(f.dir, NULL, "q_proj.bias", "missing");
    folder_remove(&f);
}

/* Tied: a stored head, equal or not, is not looked at. */
static void test_tied(void **state)
{
    (void)state;
    struct folder f;
    struct model *m = NULL;
    struct err e = { 0 };
    folder_make(&f);
    write_config(&f, true, false);
    for (int skip = -1; skip < N_TENSORS; skip += N_TENSORS) {
        write_weights(&f, skip, NULL, NULL);
        if (!model_open(&m, f.dir, NULL, &e) || !take_all(m, &e))
            fail_msg("%s", e.msg);
        model_close(&m);
    }
    folder_remove(&f);
}

static void write_shards(const struct folder *f, const char *second_in_index, const char *duplicate)
{
    struct st_build a = { 0 }, b = { 0 };
    struct buf index = { 0 };
    buf_puts(&index, "{\"metadata\":{},\"weight_map\":{");
    for (int i = 0; i < N_TENSORS; i++) {
        st_add(i % 2 ? &a : &b, TENSORS[i].name, "F32", 4, TENSORS[i].n_dims, TENSORS[i].d0, TENSORS[i].d1);
        buf_printf(&index, "%s\"%s\":\"%s\"", i ? "," : "", TENSORS[i].name, i % 2 ? "m-1-of-2.safetensors" : second_in_index);
    }
    if (duplicate)
        st_add(&a, duplicate, "F32", 4, 1, 8, 0);
    buf_puts(&index, "}}");
    st_write(&a, f, "m-1-of-2.safetensors");
    st_write(&b, f, "m-2-of-2.safetensors");
    folder_write(f, "model.safetensors.index.json", index.data, index.len);
    buf_free(&index);
}

static void test_shards(void **state)
{
    (void)state;
    struct folder f;
    struct model *m = NULL;
    struct err e = { 0 };
    folder_make(&f);
    write_config(&f, false, false);
    expect_error(f.dir, NULL, "no weights", "model.safetensors.index.json");
    write_shards(&f, "m-2-of-2.safetensors", NULL);
    if (!model_open(&m, f.dir, NULL, &e) || !take_all(m, &e))
        fail_msg("%s", e.msg);
    model_close(&m);
    write_shards(&f, "../m-2-of-2.safetensors", NULL);
    expect_error(f.dir, NULL, "../m-2-of-2.safetensors", "index.json");
    write_shards(&f, "/etc/passwd", NULL);
    expect_error(f.dir, NULL, "/etc/passwd", "index.json");
    write_shards(&f, "m-1-of-2.safetensors", NULL);
    expect_error(f.dir, NULL, "model.embed_tokens.weight", "is not in m-1-of-2");
    write_shards(&f, "gone.safetensors", NULL);
    expect_error(f.dir, NULL, "gone.safetensors", "index.json");
    write_shards(&f, "m-2-of-2.safetensors", "model.embed_tokens.weight");
    expect_error(f.dir, NULL, "model.embed_tokens.weight", "both");
    folder_text(&f, "model.safetensors.index.json", "{\"weight_map\":[]}");
    expect_error(f.dir, NULL, "weight_map", "index.json");
    folder_text(&f, "model.safetensors.index.json", "{\"weight_map\":{\"a\":5}}");
    expect_error(f.dir, NULL, "must be a string", "index.json");
    folder_remove(&f);
}

static void test_no_model(void **state)
{
    (void)state;
    struct folder f;
    folder_make(&f);
    expect_error("/nonexistent/model", NULL, "no such folder", "/nonexistent/model");
    expect_error(f.dir, NULL, "config.json", f.dir);
    expect_error("/dev/null", NULL, "not a folder", "/dev/null");
    folder_text(&f, "config.json", "{\"architectures\":[\"LlamaForCausalLM\"");
    expect_error(f.dir, NULL, "config.json", f.dir);
    write_config(&f, false, false);
    folder_text(&f, "generation_config.json", "{\"top_p\":7}");
    expect_error(f.dir, NULL, "top_p", "generation_config.json");
    folder_remove(&f);
}

static void test_dummy(void **state)
{
    (void)state;
    struct folder f;
    struct err e = { 0 };
    struct model *m[3] = { 0 };
    folder_make(&f);
    write_config(&f, false, true);
    for (int i = 0; i < 3; i++) {
        struct model_opts o = { .load_format = MODEL_LOAD_DUMMY, .dummy_seed = i == 2 ? 8 : 7 };
        if (!model_open(&m[i], f.dir, &o, &e) || !take_all(m[i], &e))
            fail_msg("%s", e.msg);
    }
    float all[3][80], some[16];
    double square = 0;
    for (int i = 0; i < 3; i++) {
        struct model_linear l;
        assert_true(model_get_linear(m[i], ARCH_LIN_EMBED, 0, 0, &l, &e));
        l.parts[0].read(&l.parts[0], 0, 10, all[i]);
        l.parts[0].read(&l.parts[0], 6, 2, some);
        assert_memory_equal(some, all[i] + 48, sizeof some);
        model_linear_free(&l);
    }
    assert_memory_equal(all[0], all[1], sizeof all[0]);
    assert_memory_not_equal(all[0], all[2], sizeof all[0]);
    for (int i = 0; i < 80; i++) {
        square += all[0][i] * all[0][i];
        assert_true(tensor_bf16_to_f32(tensor_f32_to_bf16(all[0][i])) == all[0][i]);
        assert_true(tensor_f16_to_f32(tensor_f32_to_f16(all[0][i])) == all[0][i]);
    }
    /* Variance 1/8 within a factor of two (a power of two is chosen) and chance. */
    assert_true(square / 80 > 0.05 && square / 80 < 0.3);
    struct model_linear k, v;
    assert_true(model_get_linear(m[0], ARCH_LIN_QKV, 0, 0, &k, &e) && model_get_linear(m[0], ARCH_LIN_QKV, 1, 0, &v, &e));
    assert_non_null(k.bias);
    k.parts[1].read(&k.parts[1], 0, 1, all[0]);
    k.parts[2].read(&k.parts[2], 0, 1, all[1]);
    v.parts[1].read(&v.parts[1], 0, 1, all[2]);
    assert_memory_not_equal(all[0], all[1], 32);
    assert_memory_not_equal(all[0], all[2], 32);
    model_linear_free(&k);
    model_linear_free(&v);
    for (int i = 0; i < 3; i++)
        model_close(&m[i]);
    folder_remove(&f);
}

/* Every allocation fails once; nothing leaks, and there is a message (file_set_has says "not there" when it cannot look). */
static void test_no_memory(void **state)
{
    (void)state;
    struct folder f;
    folder_make(&f);
    write_config(&f, false, false);
    write_shards(&f, "m-2-of-2.safetensors", NULL);
    for (long n = 1;; n++) {
        struct model *m = NULL;
        struct err e = { 0 };
        mem_fault_after(n);
        bool ok = model_open(&m, f.dir, NULL, &e) && take_all(m, &e);
        bool fired = mem_fault_fired();
        mem_fault_after(0);
        model_close(&m);
        if (!fired) {
            assert_true(ok);
            break;
        }
        assert_true(ok || (e.code == ERR_NOMEM || e.code == ERR_NOT_FOUND));
        assert_true(ok || e.msg[0]);
    }
    folder_remove(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_open),
        cmocka_unit_test(test_missing_extra_misshapen),
        cmocka_unit_test(test_tied),
        cmocka_unit_test(test_shards),
        cmocka_unit_test(test_no_model),
        cmocka_unit_test(test_dummy),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
