/* The quantized models of tests/data/quant (tools/quantmodels.py): every linear dequantizes bit for bit to what the tool says, its
 * codes and scales say the same, and the logits are those of the dequantized model. */
#include <dirent.h>
#include "golden/golden.h"
#include "tensor/quant.h"

#define QUANT QUIRE_SOURCE_DIR "/tests/data/quant"
enum { MAX_MODELS = 256, MAX_COLS = 1024 };

/* CRC-32 of IEEE 802.3, as zlib has it. */
static uint32_t crc32_of(uint32_t crc, const void *data, size_t n)
{
    const unsigned char *p = data;
    crc = ~crc;
    for (size_t i = 0; i < n; i++) {
        crc ^= p[i];
        for (int b = 0; b < 8; b++)
            crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
    }
    return ~crc;
}

static int64_t group_of(const struct tensor_quant *q, int64_t k)
{
    int32_t g;
    if (!q->column_groups)
        return k / q->group;
    memcpy(&g, (const char *)q->column_groups + 4 * k, 4);
    return g;
}

/* Codes, scales and zeros give the values that read gives. */
static void check_split(const struct tensor_rows *r, const float *values)
{
    uint8_t codes[MAX_COLS];
    float scales[MAX_COLS], zeros[MAX_COLS], minima[MAX_COLS];
    assert_true(r->n_cols <= MAX_COLS);
    for (int64_t i = 0; i < r->n_rows; i++) {
        r->quant->read(r, i, 1, codes, scales, zeros, minima);
        for (int64_t k = 0; k < r->n_cols; k++) {
            int64_t g = group_of(r->quant, k);
            float v = scales[g] * ((float)codes[k] - zeros[g]) + minima[g];
            assert_true(codes[k] < 1 << r->quant->bits);
            if (r->quant->e4m3) {
                tensor_to_f32(DT_F8_E4M3, &codes[k], 1, &v);
                v *= scales[g];
            }
            assert_memory_equal(&v, &values[i * r->n_cols + k], sizeof v);
        }
    }
}

static void check_part(const char *model, const struct tensor_rows *r, const json_t *crc, const char *name)
{
    const json_t *want = json_object_get(crc, name);
    size_t n = (size_t)(r->n_rows * r->n_cols);
    float *all = mem_try_alloc(n, sizeof *all), *some = mem_try_alloc(n, sizeof *some);
    if (!want) {
        mem_free(all);
        mem_free(some);
        return;
    }
    r->read(r, 0, r->n_rows, all);
    if (crc32_of(0, all, n * sizeof *all) != (uint32_t)json_integer_value(want))
        fail_msg("%s: %s dequantizes to other values", model, name);
    /* Any rows, any number of them. */
    for (int64_t at = 0, step = 1; at < r->n_rows; at += step, step = step % 5 + 1) {
        int64_t rows = step < r->n_rows - at ? step : r->n_rows - at;
        r->read(r, at, rows, some);
        assert_memory_equal(some, all + at * r->n_cols, (size_t)(rows * r->n_cols) * sizeof *all);
    }
    if (r->quant)
        check_split(r, all);
    mem_free(all);
    mem_free(some);
}

static void check_values(const char *dir, const char *model)
{
    static const struct { enum arch_linear slot; const char *parts[3]; } slots[] = {
        { ARCH_LIN_QKV, { "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj" } }, { ARCH_LIN_ATTN_OUT, { "self_attn.o_proj" } },
        { ARCH_LIN_GATE_UP, { "mlp.gate_proj", "mlp.up_proj" } }, { ARCH_LIN_DOWN, { "mlp.down_proj" } },
    };
    char path[600];
    struct err e = { 0 };
    struct model *m;
    snprintf(path, sizeof path, "%s/dequantized.json", dir);
    json_t *crc = json_parse_file(path, 1 << 20, &e);
    assert_non_null(crc);
    if (!model_open(&m, dir, NULL, &e))
        fail_msg("%s", e.msg);
    assert_true(json_object_size(crc) >= 6);
    bool rotated = strstr(model, "actorder"), table = strstr(model, "nf4");
    for (size_t s = 0; s < sizeof slots / sizeof *slots; s++) {
        struct model_linear l;
        if (!model_get_linear(m, slots[s].slot, 0, 0, &l, &e))
            fail_msg("%s", e.msg);
        for (int p = 0; p < l.n_parts; p++) {
            char name[128];
            snprintf(name, sizeof name, "model.layers.0.%s", slots[s].parts[p]);
            check_part(model, &l.parts[p], crc, name);
            if (json_object_get(crc, name)) {
                struct model_part parts[3];
                assert_int_equal(model_linear_parts(m, slots[s].slot, 0, 0, parts), l.n_parts);
                assert_int_equal(l.parts[p].quant == NULL, table);
                assert_int_equal(l.parts[p].quant && l.parts[p].quant->column_groups, rotated);
                assert_int_equal(model_linear_dtype(m, slots[s].slot, 0, 0), DT_F32);
                assert_true(model_linear_is_quantized(m, slots[s].slot, 0, 0) && parts[p].is_quantized);
                assert_true(parts[p].n_rows == l.parts[p].n_rows && parts[p].n_cols == l.parts[p].n_cols);
                assert_int_equal(parts[p].quant.bits, table ? 0 : l.parts[p].quant->bits);
            }
        }
        model_linear_free(&l);
    }
    assert_false(model_linear_is_quantized(m, ARCH_LIN_EMBED, 0, 0));
    model_close(&m);
    json_decref(crc);
}

static void test_all(void **state)
{
    (void)state;
    int n = 0;
    DIR *d = opendir(QUANT);
    assert_non_null(d);
    for (struct dirent *ent; (ent = readdir(d));) {
        char dir[512];
        if (ent->d_name[0] == '.')
            continue;
        snprintf(dir, sizeof dir, QUANT "/%s", ent->d_name);
        check_values(dir, ent->d_name);
        double f32 = golden_check(dir, FWD_DTYPE_F32, NULL, 2e-5), bf16 = golden_check(dir, FWD_DTYPE_BF16, NULL, 0.5);
        double best = golden_check(dir, FWD_DTYPE_AUTO, NULL, 0.5);
        printf("%-22s f32 %.1e  bf16 %.1e  auto %.1e\n", ent->d_name, f32, bf16, best);
        n++;
    }
    closedir(d);
    assert_true(n >= 19);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_all) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
