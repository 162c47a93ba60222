#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/buf.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/rng.h"
#include "base/utf8.h"

static json_t *parse(const char *text)
{
    struct err e = {0};
    json_t *j = json_parse(text, strlen(text), &e);
    if (!j)
        fail_msg("%s: %s", text, e.msg);
    return j;
}

static void check_write(const char *text, const char *want)
{
    json_t *j = parse(text);
    struct buf b;
    buf_init(&b, 0);
    assert_true(json_write(j, &b));
    assert_string_equal(b.data, want);
    buf_free(&b);
    json_decref(j);
}

static void parses_and_writes(void **state)
{
    (void)state;
    check_write(" { \"b\" : [ 1 , -2.5 , true,false, null ] , \"a\":{} }\n", "{\"b\":[1,-2.5,true,false,null],\"a\":{}}");
    check_write("[]", "[]");
    check_write("7", "7");
    check_write("\"x\"", "\"x\"");
    check_write("null", "null");
    check_write("{\"a\":1,\"b\":3,\"a\":2}", "{\"a\":2,\"b\":3}");
    check_write("\"\\u0000\\u0001\\b\\f\\n\\r\\t\\\"\\\\\\/\\u007f\\u00e9\\ud83d\\ude00\"",
                "\"\\u0000\\u0001\\b\\f\\n\\r\\t\\\"\\\\/\x7f\xc3\xa9\xf0\x9f\x98\x80\"");
    check_write("{\"k\":\"a\\u0000b\"}", "{\"k\":\"a\\u0000b\"}");
}

static void numbers(void **state)
{
    (void)state;
    check_write("[0.1,0.7,1.0,1e100,1e-7,-0.0,123456789.25,3.4028234663852886e38,5e-324]",
                "[0.1,0.7,1.0,1e+100,1e-07,-0.0,123456789.25,3.4028234663852886e+38,4.94065645841247e-324]");
    check_write("[9223372036854775807,-9223372036854775808]", "[9223372036854775807,-9223372036854775808]");
    /* Beyond int64: reals, and nothing else in the text is touched. */
    check_write("{\"m\":1000000000000000019884624838656,\"n\":9223372036854775807,\"s\":\"99999999999999999999 \\\" 99999999999999999999\"}",
                "{\"m\":1e+30,\"n\":9223372036854775807,\"s\":\"99999999999999999999 \\\" 99999999999999999999\"}");
    check_write("[9223372036854775808,-9223372036854775809,18446744073709551615,1.99999999999999999999,123e2]",
                "[9.223372036854776e+18,-9.223372036854776e+18,1.8446744073709552e+19,2.0,12300.0]");
    struct rng r = {12};
    for (int i = 0; i < 20000; i++) {
        uint64_t bits = rng_next(&r);
        double x;
        memcpy(&x, &bits, 8);
        if (!isfinite(x))
            continue;
        json_t *j = json_real(x);
        struct buf b;
        buf_init(&b, 0);
        assert_true(json_write(j, &b));
        struct err e;
        json_t *back = json_parse(b.data, b.len, &e);
        assert_true(json_is_real(back) && json_real_value(back) == x);
        json_decref(back);
        json_decref(j);
        buf_free(&b);
    }
}

static void rejects(void **state)
{
    (void)state;
    static const char *const bad[] = {"", " ", "{", "{\"a\":1} x", "1 2", "[1,]", "{'a':1}", "nul", "\"\xff\"", "\"\\ud800\"",
                                      "1e999", "\"a\nb\"", "[1}", "01", "+1", ".5", "NaN",
                                      "9999999999999999999999}", "[99999999999999999999 1]"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct err e = {0};
        if (json_parse(bad[i], strlen(bad[i]), &e))
            fail_msg("taken: %s", bad[i]);
        assert_int_equal(e.code, ERR_INVALID);
        assert_non_null(strstr(e.msg, "line "));
    }
    struct err e;
    assert_null(json_parse("{\n  \"a\": x\n}", 12, &e));
    assert_non_null(strstr(e.msg, "line 2 column"));
    assert_null(json_parse("1\0", 2, &e)); /* a zero byte is a byte that follows */
    assert_non_null(strstr(e.msg, "line 1 column 2"));
    assert_null(json_parse("[\n1, \0]", 7, &e));
    assert_non_null(strstr(e.msg, "line 2 column 4"));
    assert_null(json_parse("{\"\\u0000\":1}", 12, &e));
    assert_null(json_parse(NULL, 0, NULL));
}

static void depth(void **state)
{
    (void)state;
    char text[8001];
    struct err e;
    memset(text, '[', 4000);
    memset(text + 4000, ']', 4000);
    text[8000] = 0;
    assert_null(json_parse(text, 8000, &e));
    json_t *j = json_parse(text + 3000, 2000, &e);
    assert_non_null(j);
    struct buf b;
    buf_init(&b, 0);
    assert_true(json_write(j, &b));
    assert_int_equal(b.len, 2000);
    buf_free(&b);
    json_decref(j);
}

static void getters(void **state)
{
    (void)state;
    json_t *o = parse("{\"i\":5,\"r\":2.5,\"w\":3.0,\"h\":1e300,\"t\":true,\"f\":false,\"s\":\"str\",\"z\":\"a\\u0000b\",\"n\":null,\"o\":{\"x\":1},\"a\":[1]}");
    struct err e;
    int64_t i;
    double d;
    bool t;
    const char *s;
    const json_t *j;
    assert_true(json_get_i64(o, "i", -1, &i, &e) && i == 5);
    assert_true(json_get_i64(o, "w", -1, &i, &e) && i == 3);
    assert_true(json_get_i64(o, "n", -1, &i, &e) && i == -1);
    assert_true(json_get_i64(o, "missing", -2, &i, &e) && i == -2);
    assert_true(json_get_i64(NULL, "i", -3, &i, &e) && i == -3);
    assert_false(json_get_i64(o, "r", 0, &i, &e));
    assert_string_equal(e.msg, "'r': expected integer, found number");
    assert_false(json_get_i64(o, "h", 0, &i, &e));
    assert_false(json_get_i64(o, "t", 0, &i, &e));
    assert_int_equal(e.code, ERR_INVALID);
    assert_false(json_get_i64(o, "s", 0, &i, NULL));
    assert_true(json_get_f64(o, "i", 0, &d, &e) && d == 5.0);
    assert_true(json_get_f64(o, "r", 0, &d, &e) && d == 2.5);
    assert_true(json_get_f64(o, "n", 9.5, &d, &e) && d == 9.5);
    assert_false(json_get_f64(o, "s", 0, &d, &e));
    assert_true(json_get_bool(o, "t", false, &t, &e) && t);
    assert_true(json_get_bool(o, "f", true, &t, &e) && !t);
    assert_true(json_get_bool(o, "n", true, &t, &e) && t);
    assert_false(json_get_bool(o, "i", true, &t, &e));
    assert_true(json_get_str(o, "s", NULL, &s, &e));
    assert_string_equal(s, "str");
    assert_true(json_get_str(o, "n", NULL, &s, &e) && s == NULL);
    assert_true(json_get_str(o, "q", "dflt", &s, &e));
    assert_string_equal(s, "dflt");
    assert_false(json_get_str(o, "z", NULL, &s, &e));
    assert_false(json_get_str(o, "i", NULL, &s, &e));
    assert_true(json_get_obj(o, "o", &j, &e) && json_is_object(j));
    assert_true(json_get_obj(o, "n", &j, &e) && !j);
    assert_false(json_get_obj(o, "a", &j, &e));
    assert_true(json_get_arr(o, "a", &j, &e) && json_array_size(j) == 1);
    assert_true(json_get_arr(o, "q", &j, &e) && !j);
    assert_false(json_get_arr(o, "o", &j, &e));
    assert_string_equal(e.msg, "'o': expected array, found object");
    assert_false(json_get_i64(json_object_get(o, "a"), "k", 0, &i, &e)); /* not an object at all */
    json_decref(o);
}

static void type_names(void **state)
{
    (void)state;
    json_t *a = parse("[{},[],\"\",1,1.5,true,false,null]");
    static const char *const want[] = {"object", "array", "string", "integer", "number", "boolean", "boolean", "null"};
    for (size_t i = 0; i < 8; i++)
        assert_string_equal(json_type_name(json_array_get(a, i)), want[i]);
    assert_string_equal(json_type_name(NULL), "missing");
    json_decref(a);
}

/* Any bytes become a string that the parser takes and that is the lossy form of the bytes. */
static void strings_of_any_bytes(void **state)
{
    (void)state;
    struct rng r = {13};
    for (int i = 0; i < 20000; i++) {
        char s[24], want[72];
        size_t n = rng_next_below(&r, sizeof s);
        for (size_t k = 0; k < n; k++)
            s[k] = (char)(rng_next_below(&r, 2) ? 0x80 + rng_next_below(&r, 128) : rng_next_below(&r, 128));
        struct buf b;
        buf_init(&b, 0);
        assert_true(json_write_str(&b, s, n));
        struct err e = {0};
        json_t *j = json_parse(b.data, b.len, &e);
        if (!j)
            fail_msg("%s", e.msg);
        size_t m = utf8_lossy(s, n, want);
        assert_int_equal(json_string_length(j), m);
        assert_memory_equal(json_string_value(j), want, m);
        for (size_t k = 0; k < b.len; k++)
            assert_true((unsigned char)b.data[k] >= 0x20);
        json_decref(j);
        buf_free(&b);
    }
}

static void files(void **state)
{
    (void)state;
    char path[] = "/tmp/quire-json-XXXXXX";
    int fd = mkstemp(path);
    assert_int_equal(write(fd, "{\"a\":1} ", 8), 8);
    struct err e;
    json_t *j = json_parse_file(path, 100, &e);
    assert_non_null(j);
    json_decref(j);
    assert_null(json_parse_file(path, 7, &e));
    assert_int_equal(e.code, ERR_TOO_LARGE);
    assert_int_equal(write(fd, "}", 1), 1);
    assert_null(json_parse_file(path, 100, &e));
    assert_int_equal(e.code, ERR_INVALID);
    assert_int_equal(strncmp(e.msg, path, strlen(path)), 0);
    close(fd);
    unlink(path);
    assert_null(json_parse_file(path, 100, &e));
    assert_int_equal(e.code, ERR_NOT_FOUND);
}

static void out_of_memory(void **state)
{
    (void)state;
    json_t *j = json_array();
    for (int i = 0; i < 200; i++)
        json_array_append_new(j, json_string("some text\n"));
    long n = 1;
    for (bool fired = true; fired; n++) {
        struct buf b;
        buf_init(&b, 0);
        mem_fault_after(n);
        bool ok = json_write(j, &b);
        fired = mem_fault_fired();
        mem_fault_after(0);
        assert_int_equal(ok, !fired);
        buf_free(&b);
    }
    assert_true(n > 3);
    json_decref(j);
    struct buf small;
    buf_init(&small, 5);
    json_t *text = json_string("longer than five");
    assert_false(json_write(text, &small));
    json_decref(text);
    buf_free(&small);
}

/* In a process of little memory a long string is an error, at once, and never a shorter string. */
static void a_string_that_does_not_fit(void **state)
{
    (void)state;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    skip(); /* they take address space without end */
#endif
    enum { N = 32 << 20 };
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        char *text = malloc(N + 3);
        FILE *f = fopen("/proc/self/statm", "r");
        long pages = 0;
        struct err e = {0};
        if (!text || !f || fscanf(f, "%ld", &pages) != 1)
            _exit(2);
        fclose(f);
        memset(text, 'a', N + 2);
        text[0] = text[N + 1] = '"';
        rlim_t most = (rlim_t)pages * (rlim_t)sysconf(_SC_PAGESIZE) + (20 << 20);
        struct rlimit rl = {most, most};
        alarm(20);
        if (setrlimit(RLIMIT_AS, &rl) != 0)
            _exit(2);
        json_t *j = json_parse(text, N + 2, &e);
        _exit(j ? 3 : e.code == ERR_NOMEM ? 0 : 4);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parses_and_writes), cmocka_unit_test(numbers), cmocka_unit_test(rejects),
        cmocka_unit_test(depth), cmocka_unit_test(getters), cmocka_unit_test(type_names),
        cmocka_unit_test(strings_of_any_bytes), cmocka_unit_test(files), cmocka_unit_test(out_of_memory), cmocka_unit_test(a_string_that_does_not_fit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
