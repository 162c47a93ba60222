/* The safetensors reader: what the format allows, and everything hostile that a header can say. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include "model/model_files.h"
#include "model/safetensors_int.h"

static bool parse(const char *header, size_t n_data, struct safetensors *st, struct err *e)
{
    struct buf b = { 0 };
    char *data = mem_try_zalloc(n_data + 1, 1);
    st_bytes(&b, header, data, n_data);
    mem_free(data);
    /* Exact size, so that a sanitizer sees reads past the end. */
    unsigned char *exact = malloc(b.len);
    memcpy(exact, b.data, b.len);
    bool ok = safetensors_parse(st, exact, b.len, "f.safetensors", e);
    if (ok) {
        volatile unsigned char sum = 0;
        for (size_t i = 0; i < st->n_tensors; i++)
            for (size_t j = 0; j < st->tensors[i].bytes; j++)
                sum ^= ((const unsigned char *)st->tensors[i].data)[j];
    }
    free(exact);
    buf_free(&b);
    return ok;
}

static void good(const char *header, size_t n_data, size_t expected)
{
    struct safetensors st;
    struct err e = { 0 };
    if (!parse(header, n_data, &st, &e))
        fail_msg("%s: %s", header, e.msg);
    assert_int_equal(st.n_tensors, expected);
    safetensors_free(&st);
}

static void bad(const char *header, size_t n_data, const char *part)
{
    struct safetensors st;
    struct err e = { 0 };
    if (parse(header, n_data, &st, &e))
        fail_msg("accepted: %s", header);
    if (!strstr(e.msg, part) || !strstr(e.msg, "f.safetensors"))
        fail_msg("%s: message \"%s\" lacks \"%s\"", header, e.msg, part);
    assert_null(st.tensors);
}

#define T(name, shape, from, to) "\"" name "\":{\"dtype\":\"F32\",\"shape\":" shape ",\"data_offsets\":[" #from "," #to "]}"

static void test_good(void **state)
{
    (void)state;
    good("{}", 0, 0);
    good("{}    ", 0, 0);
    good("{\"__metadata__\":{\"format\":\"pt\"}," T("a", "[2,3]", 0, 24) "}", 24, 1);
    good("{" T("a", "[2]", 0, 8) "," T("b", "[]", 8, 12) "," T("c", "[0,5]", 8, 8) "}", 12, 3);
    good("{" T("a", "[1]", 8, 12) "," T("b", "[1]", 0, 4) "}", 12, 2);   /* a gap, any order */
    good("{" T("z", "[0,9223372036854775807,9223372036854775807]", 0, 0) "}", 0, 1);
}

static void test_values(void **state)
{
    (void)state;
    struct st_build b = { 0 };
    st_add(&b, "x", "F32", 4, 2, 2, 3);
    st_add(&b, "y", "BF16", 2, 1, 4, 0);
    buf_puts(&b.header, "}");
    struct buf out = { 0 };
    st_bytes(&out, b.header.data, b.data.data, b.data.len);
    struct safetensors st;
    struct err e;
    assert_true(safetensors_parse(&st, (unsigned char *)out.data, out.len, "f", &e));
    assert_int_equal(st.n_tensors, 2);
    assert_string_equal(st.tensors[0].name, "x");
    assert_int_equal(st.tensors[0].dims[1], 3);
    float v[6];
    tensor_to_f32(st.tensors[0].dtype, st.tensors[0].data, 6, v);
    assert_true(v[0] == 1.0f && v[5] == 6.0f);
    tensor_to_f32(st.tensors[1].dtype, st.tensors[1].data, 4, v);
    assert_true(v[3] == 4.0f);
    safetensors_free(&st);
    buf_free(&out);
    buf_free(&b.header);
    buf_free(&b.data);
}

static void test_hostile_tensors(void **state)
{
    (void)state;
    bad("{" T("a", "[2]", 0, 8) "," T("b", "[2]", 4, 12) "}", 12, "overlap");
    bad("{" T("a", "[2]", 0, 8) "," T("b", "[2]", 0, 8) "}", 8, "overlap");
    bad("{" T("a", "[4]", 0, 16) "," T("b", "[1]", 4, 8) "}", 16, "overlap");
    bad("{" T("a", "[2]", 0, 8) "}", 7, "cut short");
    bad("{" T("a", "[2]", 8, 0) "}", 8, "not within");
    bad("{" T("a", "[2]", -8, 0) "}", 8, "not within");
    bad("{" T("a", "[1]", 9223372036854775803, 9223372036854775807) "}", 8, "not within");
    bad("{" T("a", "[3]", 0, 8) "}", 8, "need 12 bytes");
    bad("{" T("a", "[4294967296,4294967296]", 0, 0) "}", 8, "too large");
    bad("{" T("a", "[4611686018427387904]", 0, 0) "}", 8, "too large");
    bad("{" T("a", "[-1]", 0, 4) "}", 8, "shape[0]");
    bad("{" T("a", "[1.5]", 0, 4) "}", 8, "shape[0]");
    bad("{" T("a", "[1,1,1,1,1,1,1,1,1]", 0, 4) "}", 8, "at most 8");
    bad("{" T("a", "3", 0, 4) "}", 8, "'shape'");
    bad("{" T("a", "[1]", 0, 4) "," T("a", "[1]", 4, 8) "}", 8, "duplicate");
    bad("{\"a\":{\"dtype\":\"F33\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "F33");
    bad("{\"a\":{\"dtype\":4,\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "not known");
    bad("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", 4, "two integers");
    bad("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,\"4\"]}}", 4, "two integers");
    bad("{\"a\":7}", 4, "must be described");
    bad("[]", 4, "must be a JSON object");
    bad("{", 4, "header");
    bad("", 4, "header");
}

static void test_hostile_lengths(void **state)
{
    (void)state;
    static const unsigned char huge[16] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, '{', '}' };
    struct safetensors st;
    struct err e;
    for (size_t n = 0; n < sizeof huge; n++)
        assert_false(safetensors_parse(&st, huge, n, "f", &e));
    static const unsigned char long_header[10] = { 3, 0, 0, 0, 0, 0, 0, 0, '{', '}' };
    assert_false(safetensors_parse(&st, long_header, sizeof long_header, "f", &e));
    static const unsigned char negative[10] = { 0xf8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, '{', '}' };
    assert_false(safetensors_parse(&st, negative, sizeof negative, "f", &e));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_hostile_tensors),
        cmocka_unit_test(test_hostile_lengths),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
