/* Block formats: values equal the reference's bit for bit, and the split into codes and scales says the same. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <cmocka.h>
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/rng.h"
#include "tensor/quant.h"

#define BLOCKS QUIRE_SOURCE_DIR "/../shared/golden/quant/blocks"

static void check_rows(const struct quant_block *q, const unsigned char *data, int64_t rows, int64_t cols, const float *want)
{
    struct tensor t = { .name = "t", .dtype = DT_U8, .block = q, .n_dims = 2, .dims = { rows, cols }, .data = data };
    struct tensor_rows r;
    float *out = mem_try_alloc((size_t)(rows * cols), sizeof *out), *scales = mem_try_alloc((size_t)cols, sizeof *scales * 3);
    uint8_t *codes = mem_try_alloc((size_t)cols, 1);
    float *zeros = scales + cols, *minima = zeros + cols;
    tensor_rows_of(&r, &t, 1, rows - 1);
    r.read(&r, 0, rows - 1, out);
    assert_non_null(r.quant);
    assert_null(r.raw);
    if (want)
        assert_memory_equal(out, want + cols, (size_t)((rows - 1) * cols) * sizeof *out);
    for (int64_t i = 0; i < rows - 1; i++) {
        r.quant->read(&r, i, 1, codes, scales, zeros, minima);
        for (int64_t c = 0; c < cols; c++) {
            int64_t g = c / r.quant->group;
            float v = scales[g] * ((float)codes[c] - zeros[g]) + minima[g];
            assert_true(codes[c] < 1 << r.quant->bits);
            assert_memory_equal(&v, &out[i * cols + c], sizeof v);
            assert_true(r.quant->has_minimum || minima[g] == 0);
            if (r.quant->fixed_zero)
                assert_true(zeros[g] == (r.quant->has_minimum ? 0 : 1 << (r.quant->bits - 1)));
        }
    }
    mem_free(out);
    mem_free(scales);
    mem_free(codes);
}

static void test_golden(void **state)
{
    (void)state;
    struct err e;
    if (!file_is_dir(BLOCKS))
        skip();
    json_t *index = json_parse_file(BLOCKS "/index.json", 1 << 20, &e);
    assert_non_null(index);
    const json_t *types = json_object_get(index, "types");
    int checked = 0;
    for (size_t i = 0; i < json_array_size(types); i++) {
        const json_t *t = json_array_get(types, i);
        const struct quant_block *q = quant_block_by_id((int)json_integer_value(json_object_get(t, "ggml_type_id")));
        char path[512];
        size_t n_bin, n_f32;
        if (!q)
            fail_msg("no block format %s", json_string_value(json_object_get(t, "type")));
        assert_int_equal(q->values, json_integer_value(json_object_get(t, "block_size")));
        assert_int_equal(q->bytes, json_integer_value(json_object_get(t, "block_bytes")));
        snprintf(path, sizeof path, BLOCKS "/%s", json_string_value(json_object_get(t, "quantized")));
        char *bin = file_read(path, 1 << 20, &n_bin, &e);
        snprintf(path, sizeof path, BLOCKS "/%s", json_string_value(json_object_get(t, "dequantized")));
        char *f32 = file_read(path, 1 << 20, &n_f32, &e);
        assert_true(bin && f32 && n_f32 == 6 * 512 * 4 && n_bin == (size_t)(6 * 512 / q->values * q->bytes));
        check_rows(q, (const unsigned char *)bin, 6, 512, (const float *)(const void *)f32);
        mem_free(bin);
        mem_free(f32);
        checked++;
    }
    assert_true(checked >= 12);
    json_decref(index);
}

/* Any bytes are a block. */
static void test_random_blocks(void **state)
{
    (void)state;
    struct rng g = { .state = 7 };
    for (int id = 0; id < 64; id++) {
        const struct quant_block *q = quant_block_by_id(id);
        if (!q)
            continue;
        unsigned char data[3 * 2 * 300];
        for (size_t i = 0; i < sizeof data; i++)
            data[i] = (unsigned char)rng_next_below(&g, 256);
        /* No NaN or infinity: those have no equal bits to compare. */
        for (int b = 0; b < 6; b++)
            for (int i = 0; i < q->bytes; i++)
                if ((data[b * q->bytes + i] & 0x7c) == 0x7c)
                    data[b * q->bytes + i] ^= 0x40;
        check_rows(q, data, 3, 2 * q->values, NULL);
        assert_ptr_equal(quant_block_by_name(q->name), q);
        assert_string_equal(quant_block_type_name(id), q->name);
    }
    assert_string_equal(quant_block_type_name(16), "IQ2_XXS");
    assert_string_equal(quant_block_type_name(-1), "?");
    assert_string_equal(quant_block_type_name(1000), "?");
    assert_null(quant_block_by_name("F32"));
}

/* The formats without golden data, from their definitions. */
static void test_small_formats(void **state)
{
    (void)state;
    float out[256];
    unsigned char mx[17] = { 128 };          /* scale 2 */
    for (int i = 0; i < 16; i++)
        mx[1 + i] = (unsigned char)(i | (15 - i) << 4);
    static const float e2m1[16] = { 0, .5f, 1, 1.5f, 2, 3, 4, 6, 0, -.5f, -1, -1.5f, -2, -3, -4, -6 };
    quant_block_to_f32(quant_block_by_name("MXFP4"), mx, 1, out);
    for (int i = 0; i < 16; i++)
        assert_true(out[i] == 2 * e2m1[i] && out[16 + i] == 2 * e2m1[15 - i]);
    for (int exponent = 0; exponent < 3; exponent++) {
        mx[0] = (unsigned char)exponent;
        quant_block_to_f32(quant_block_by_name("MXFP4"), mx, 1, out);
        assert_true(out[7] == ldexpf(6.0f, exponent - 127));
    }
    unsigned char t2[66] = { 0 }, t1[54] = { 0 };
    uint16_t one = tensor_f32_to_f16(1.0f);
    memcpy(t2 + 64, &one, 2);
    memcpy(t1 + 52, &one, 2);
    t2[5] = 2 | 1 << 2 | 0 << 4 | 2 << 6;
    quant_block_to_f32(quant_block_by_name("TQ2_0"), t2, 1, out);
    assert_true(out[5] == 1 && out[37] == 0 && out[69] == -1 && out[101] == 1 && out[0] == -1);
    /* Digits 2,1,0,2,1: 2*81+27+0+2*3+1 = 196 of 243, rounded up to a byte's 256. */
    t1[3] = (196 * 256 + 242) / 243;
    quant_block_to_f32(quant_block_by_name("TQ1_0"), t1, 1, out);
    assert_true(out[3] == 1 && out[35] == 0 && out[67] == -1 && out[99] == 1 && out[131] == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),
        cmocka_unit_test(test_random_blocks),
        cmocka_unit_test(test_small_formats),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
