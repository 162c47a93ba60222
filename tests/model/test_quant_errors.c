/* Quantized checkpoints with something wrong: one clear error that names the tensor or key, never a fault. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include "base/json.h"
#include "model/model.h"
#include "model_files.h"

#define QUANT QUIRE_SOURCE_DIR "/tests/data/quant"
#define P "model.layers.0.self_attn.q_proj."

/* What is changed in a copy of a checkpoint. */
struct change {
    const char *drop;              /* a tensor */
    const char *tensor, *as;       /* fields of a tensor's header, as JSON: {"shape":[..]} or {"dtype":".."} */
    const char *poke;              /* a tensor whose first bytes become the text of */
    const char *with;
    size_t n_with;
    const char *config;            /* keys of quantization_config; null removes them */
    bool no_config;                /* no quantization_config at all */
};

static char *read_file(const char *model, const char *name, size_t *len)
{
    char path[600];
    struct err e;
    snprintf(path, sizeof path, QUANT "/%s/%s", model, name);
    return file_read(path, 1 << 24, len, &e);
}

static void edit_weights(const struct folder *f, const char *model, const struct change *c)
{
    size_t len;
    char *bytes = read_file(model, "model.safetensors", &len);
    struct err e;
    struct buf out = { 0 }, text = { 0 };
    uint64_t head;
    assert_non_null(bytes);
    memcpy(&head, bytes, 8);
    json_t *j = json_parse(bytes + 8, (size_t)head, &e);
    assert_non_null(j);
    if (c->poke) {
        const json_t *at = json_object_get(json_object_get(j, c->poke), "data_offsets");
        assert_non_null(at);
        memcpy(bytes + 8 + head + json_integer_value(json_array_get(at, 0)), c->with, c->n_with);
    }
    if (c->drop)
        assert_int_equal(json_object_del(j, c->drop), 0);
    if (c->tensor) {
        json_t *as = json_parse(c->as, strlen(c->as), &e);
        assert_non_null(json_object_get(j, c->tensor));
        json_object_update(json_object_get(j, c->tensor), as);
        json_decref(as);
    }
    assert_true(json_write(j, &text));
    st_bytes(&out, text.data, bytes + 8 + head, len - 8 - (size_t)head);
    folder_write(f, "model.safetensors", out.data, out.len);
    buf_free(&out);
    buf_free(&text);
    json_decref(j);
    mem_free(bytes);
}

static void edit_config(const struct folder *f, const char *model, const struct change *c)
{
    size_t len;
    char *bytes = read_file(model, "config.json", &len);
    struct err e;
    struct buf text = { 0 };
    json_t *j = json_parse(bytes, len, &e), *change = c->config ? json_parse(c->config, strlen(c->config), &e) : NULL;
    if (c->no_config)
        json_object_del(j, "quantization_config");
    else
        json_object_update(json_object_get(j, "quantization_config"), change);
    assert_true(json_write(j, &text));
    folder_write(f, "config.json", text.data, text.len);
    buf_free(&text);
    json_decref(change);
    json_decref(j);
    mem_free(bytes);
}

static bool take_all(const struct model *m, struct err *e)
{
    for (int s = 0; s < ARCH_LIN_COUNT; s++) {
        struct model_linear l;
        if (arch_linear_count(model_arch(m), (enum arch_linear)s, 0) == 0)
            continue;
        if (!model_get_linear(m, (enum arch_linear)s, 0, 0, &l, e))
            return false;
        for (int p = 0; p < l.n_parts; p++) {
            float *v = mem_try_alloc((size_t)(l.parts[p].n_rows * l.parts[p].n_cols), sizeof *v);
            l.parts[p].read(&l.parts[p], 0, l.parts[p].n_rows, v);
            mem_free(v);
        }
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

/* part NULL: it is accepted. */
static void expect(const char *model, const struct change *c, const char *part)
{
    struct folder f;
    struct model *m = NULL;
    struct err e = { 0 };
    folder_make(&f);
    edit_weights(&f, model, c);
    edit_config(&f, model, c);
    bool ok = model_open(&m, f.dir, NULL, &e) && take_all(m, &e);
    model_close(&m);
    folder_remove(&f);
    if (ok != !part)
        fail_msg("%s: %s", model, ok ? "accepted" : e.msg);
    if (part && (!strstr(e.msg, part) || strchr(e.msg, '\n')))
        fail_msg("%s: message \"%s\" lacks \"%s\"", model, e.msg, part);
}

#define DROP(t) &(struct change){ .drop = t }
#define AS(t, fields) &(struct change){ .tensor = t, .as = fields }
#define CONFIG(text) &(struct change){ .config = text }
#define POKE(t, text) &(struct change){ .poke = t, .with = text, .n_with = sizeof text - 1 }

static void test_gptq(void **state)
{
    (void)state;
    expect("gptq-4bit", DROP(P "qzeros"), "tensor " P "qzeros is missing");
    expect("gptq-4bit", DROP(P "scales"), "tensor " P "scales is missing");
    expect("gptq-4bit", DROP(P "qweight"), "tensor " P "weight is missing");
    expect("gptq-4bit", DROP(P "g_idx"), NULL);
    expect("gptq-4bit", DROP(P "bias"), NULL);
    expect("gptq-4bit", AS(P "scales", "{\"shape\":[4,32]}"), "tensor " P "scales is F16 [4, 32], expected floats [4, 64]");
    expect("gptq-4bit", AS(P "scales", "{\"dtype\":\"I16\"}"), "tensor " P "scales is I16");
    expect("gptq-4bit", AS(P "scales", "{\"shape\":[2,2,32]}"), "tensor " P "scales is F16 [2, 2, 32]");
    expect("gptq-4bit", AS(P "qweight", "{\"shape\":[16,32]}"), "tensor " P "qweight is I32 [16, 32]");
    expect("gptq-4bit", AS(P "qweight", "{\"shape\":[512,1]}"), "tensor " P "qweight is I32 [512, 1], expected I32 [8, 64]");
    expect("gptq-4bit", AS(P "qweight", "{\"shape\":[64,8]}"), "expected 2, 3, 4 or 8 bits for each column");
    expect("gptq-4bit", AS(P "qweight", "{\"dtype\":\"F32\"}"), "tensor " P "qweight is F32");
    expect("gptq-4bit", AS(P "qzeros", "{\"shape\":[1,16]}"), "tensor " P "qzeros is I32 [1, 16], expected I32 [2, 8]");
    expect("gptq-4bit", AS(P "g_idx", "{\"shape\":[8,8]}"), "expected a group (I32) for each column");
    expect("gptq-4bit-actorder", POKE(P "g_idx", "\x02\0\0\0"), "tensor " P "g_idx: group 2 of column 0 is not one of 2");
    expect("gptq-4bit-actorder", POKE(P "g_idx", "\xff\xff\xff\xff"), "group -1 of column 0");
    expect("gptq-4bit", POKE(P "bias", "\x01\x3c"), "tensor " P "bias is not zero");
    expect("gptq-4bit", &(struct change){ .no_config = true }, "no quantization_config says by which");
    expect("gptq-4bit", CONFIG("{\"quant_method\":\"aqlm\"}"), "config.json: quantization_config: quant_method \"aqlm\" is not supported; supported are gptq");
    expect("gptq-4bit", CONFIG("{\"quant_method\":4}"), "quant_method");
    expect("gptq-4bit", CONFIG("{\"quant_method\":null}"), "(none given)");
    expect("gptq-4bit", CONFIG("{\"checkpoint_format\":\"marlin\"}"), "checkpoint_format \"marlin\" is not supported");
    expect("gptq-4bit", CONFIG("{\"group_size\":\"32\"}"), "group_size");
}

static void test_awq(void **state)
{
    (void)state;
    expect("awq", CONFIG("{\"version\":\"gemv\"}"), "version \"gemv\" is not supported; supported are gemm");
    expect("awq", CONFIG("{\"bits\":3}"), "AWQ with 3 bits");
    expect("awq", AS(P "qweight", "{\"shape\":[8,64]}"), "tensor " P "qweight is I32 [8, 64], expected I32 [64, 8]");
    expect("awq", DROP(P "qzeros"), "tensor " P "qzeros is missing");
}

static void test_compressed(void **state)
{
    (void)state;
    expect("ct-int4-group", DROP(P "weight_scale"), "tensor " P "weight_scale is missing");
    expect("ct-int4-group", DROP(P "weight_shape"), NULL);
    expect("ct-int4-group", POKE(P "weight_shape", "\x07"), "weight_shape says [7, 64], expected [64, 64]");
    expect("ct-int4-group", AS(P "weight_shape", "{\"dtype\":\"F64\"}"), "expected two I64");
    expect("ct-int4-group", AS(P "weight_packed", "{\"shape\":[32,16]}"), "tensor " P "weight_packed is I32 [32, 16]");
    expect("ct-int4-group", AS(P "weight_packed", "{\"shape\":[512]}"), "expected I32, with columns packed");
    expect("ct-int4-group", AS(P "weight_scale", "{\"shape\":[32,4]}"), "tensor " P "weight_scale is BF16 [32, 4], expected floats [64, 4]");
    expect("ct-int4-group", AS(P "weight_zero_point", "{\"shape\":[2,8]}"), "tensor " P "weight_zero_point is I32 [2, 8], expected I32 [8, 2]");
    expect("ct-int4-group", CONFIG("{\"format\":\"nvfp4-pack-quantized\"}"), "format \"nvfp4-pack-quantized\" is not supported");
    expect("ct-int4-group", CONFIG("{\"sparsity_config\":{\"format\":\"sparse-bitmask\"}}"), "sparsity_config.format \"sparse-bitmask\"");
    expect("ct-int4-group", CONFIG("{\"config_groups\":{\"g\":{\"weights\":{\"num_bits\":16}}}}"), "weights of 16 bits");
    expect("ct-int4-group", CONFIG("{\"config_groups\":{\"g\":{\"weights\":{\"num_bits\":4,\"strategy\":\"tensor_group\"}}}}"), "strategy \"tensor_group\"");
    expect("ct-int4-actorder", POKE(P "weight_g_idx", "\x63\0\0\0"), "group 99 of column 0");
    expect("ct-w8a8", DROP(P "weight_scale"), "tensor " P "weight_scale is missing");
    expect("ct-w8a8", AS(P "weight_scale", "{\"shape\":[8,8]}"), "expected one scale for the tensor, for each row");
    expect("ct-w8a8", AS(P "weight", "{\"shape\":[32,128]}"), "tensor " P "weight is I8 [32, 128], expected I8 [64, 64]");
    expect("ct-w8a8-tensor-asym", AS(P "weight_zero_point", "{\"dtype\":\"U8\"}"), "expected I8, one for each scale");
}

static void test_fp8(void **state)
{
    (void)state;
    expect("fp8", DROP(P "weight_scale"), "tensor " P "weight_scale is missing");
    expect("fp8-block", DROP(P "weight_scale_inv"), "tensor " P "weight_scale is missing");
    expect("fp8-block", CONFIG("{\"weight_block_size\":[32]}"), "'weight_block_size' must be two sizes");
    expect("fp8-block", CONFIG("{\"weight_block_size\":[32,0]}"), "'weight_block_size' must be two sizes");
    expect("fp8-block", CONFIG("{\"weight_block_size\":[16,16]}"), "expected one scale");
    expect("fp8", CONFIG("{\"quant_method\":\"modelopt\",\"quant_algo\":\"FP8\"}"), NULL);
    expect("fp8", CONFIG("{\"quant_method\":\"modelopt\",\"quant_algo\":\"NVFP4\"}"), "quant_algo \"NVFP4\" is not supported");
    expect("fp8", AS(P "weight_scale", "{\"dtype\":\"U32\"}"), "tensor " P "weight_scale is U32");
}

static void test_bitsandbytes(void **state)
{
    (void)state;
    expect("bnb-nf4", DROP(P "weight.absmax"), "tensor " P "weight.absmax is missing");
    expect("bnb-nf4", DROP(P "weight.quant_map"), "tensor " P "weight.quant_map is missing");
    expect("bnb-nf4", DROP(P "weight.quant_state.bitsandbytes__nf4"), "quant_state.bitsandbytes__nf4 is missing");
    expect("bnb-nf4", POKE(P "weight.quant_state.bitsandbytes__nf4", "["), "tensor " P "weight.quant_state.bitsandbytes__nf4");
    expect("bnb-nf4", AS(P "weight", "{\"shape\":[1,1,2048]}"), NULL);
    expect("bnb-nf4", AS(P "weight", "{\"shape\":[1024],\"dtype\":\"BF16\"}"), NULL);
    expect("bnb-nf4", AS(P "weight.absmax", "{\"dtype\":\"I32\"}"), "expected F32 or U8, one for each block");
    expect("bnb-nf4", AS(P "weight.quant_map", "{\"shape\":[8,2]}"), NULL);
    expect("bnb-nf4-double", DROP(P "weight.nested_absmax"), "tensor " P "weight.nested_absmax is missing");
    expect("bnb-nf4-double", DROP(P "weight.nested_quant_map"), "tensor " P "weight.nested_quant_map is missing");
    expect("bnb-nf4-double", AS(P "weight.nested_absmax", "{\"dtype\":\"I32\"}"), "expected F32, one for each block of blocks");
    expect("bnb-int8", DROP(P "SCB"), "tensor " P "weight_scale is missing");
    expect("bnb-int8", AS(P "SCB", "{\"shape\":[8,8]}"), "expected one scale");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gptq), cmocka_unit_test(test_awq), cmocka_unit_test(test_compressed), cmocka_unit_test(test_fp8),
        cmocka_unit_test(test_bitsandbytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
