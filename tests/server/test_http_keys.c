/* API keys: the file's format, who is found, what limits do over time, reloading. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "base/mem.h"
#include "server/http_keys.h"

static char path[] = "/tmp/quire-test-keys-XXXXXX";

static void write_file(const char *text)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static int make_file(void **state)
{
    (void)state;
    int fd = mkstemp(path);
    return fd < 0 ? -1 : close(fd);
}

static int remove_file(void **state)
{
    (void)state;
    return unlink(path);
}

static struct http_key *find(struct http_keys *k, const char *text) { return http_keys_find(k, text, strlen(text)); }

static void format(void **state)
{
    (void)state;
    static const char text[] = "# all of them\n\n  sk-one-12345 name=one rpm=60\ttpm=1000 concurrent=4 # trailing\r\nsk-two-12345\nsk-tre-12345 concurrent=0";
    char copy[sizeof text];
    struct http_key_line *l;
    struct err e;
    int n;
    memcpy(copy, text, sizeof text);
    assert_true(http_keys_parse(copy, sizeof text - 1, &l, &n, &e));
    assert_int_equal(n, 3);
    assert_string_equal(l[0].key, "sk-one-12345");
    assert_string_equal(l[0].name, "one");
    assert_int_equal(l[0].limits.requests_per_min, 60);
    assert_int_equal(l[0].limits.tokens_per_min, 1000);
    assert_int_equal(l[0].limits.concurrent, 4);
    assert_int_equal(l[0].line, 3);
    assert_string_equal(l[1].name, "");
    assert_int_equal(l[2].line, 5);
    mem_free(l);
}

static void bad_files(void **state)
{
    (void)state;
    static const struct { const char *text, *says; } cases[] = {
        {"short\n", "line 1: a key has 8"},
        {"# x\nsk-one-12345 one\n", "line 2: what follows the key"},
        {"sk-one-12345 rps=3\n", "line 1: what follows the key"},
        {"sk-one-12345 rpm=3.5\n", "rpm= must be a whole number"},
        {"sk-one-12345 rpm=-1\n", "rpm= must be a whole number"},
        {"sk-one-12345 tpm=\n", "tpm= must be"},
        {"sk-one-12345 tpm=99999999999\n", "tpm= must be"},
        {"sk-one-12345 name=a/b\n", "a name has"},
        {"sk-one-12345 name=\n", "a name has"},
        {"sk-\303\251ne-12345\n", "printable ASCII"},
        {"\n# nothing\n", "there is no key in it"},
        {"sk-one-12345 name=a\nsk-one-12345 name=b\n", "the keys of a and b are the same"},
        {"sk-one-12345 name=a\nsk-two-12345 name=a\n", "two keys are called a"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct http_keys *k = NULL;
        struct err e = {0};
        write_file(cases[i].text);
        if (http_keys_open(&k, NULL, 0, path, &e) || !strstr(e.msg, cases[i].says) || strstr(e.msg, "12345"))
            fail_msg("%s: '%s'", cases[i].text, e.msg);
        assert_null(k);
    }
    struct http_keys *k = NULL;
    struct err e;
    assert_false(http_keys_open(&k, NULL, 0, "/nowhere/keys", &e));
    assert_non_null(strstr(e.msg, "/nowhere/keys"));
}

static void who_is_found(void **state)
{
    (void)state;
    static const char *const given[] = {"x", "another"};
    struct http_keys *k;
    struct err e;
    write_file("sk-one-12345 name=one\nsk-two-12345\n");
    assert_true(http_keys_open(&k, given, 2, path, &e));
    assert_string_equal(http_key_name(find(k, "x")), "key-1");
    assert_string_equal(http_key_name(find(k, "another")), "key-2");
    assert_string_equal(http_key_name(find(k, "sk-one-12345")), "one");
    assert_string_equal(http_key_name(find(k, "sk-two-12345")), "line-2");
    static const char *const wrong[] = {"", "sk-one-1234", "sk-one-123456", "SK-ONE-12345", "sk-one-12345 ", "xx", "sk-one-12345 name=one"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        assert_null(find(k, wrong[i]));
    http_keys_close(&k);
}

static void requests_a_minute(void **state)
{
    (void)state;
    struct http_keys *k;
    struct api_error e;
    int64_t now = 1000000, minute = 60000000;
    write_file("sk-one-12345 name=one rpm=3\n");
    assert_true(http_keys_open(&k, NULL, 0, path, NULL));
    struct http_key *key = find(k, "sk-one-12345");
    for (int i = 0; i < 3; i++)
        assert_true(http_key_enter(key, now, &e));
    assert_false(http_key_enter(key, now, &e));
    assert_int_equal(e.status, 429);
    assert_non_null(strstr(e.msg, "3 requests a minute"));
    assert_in_range(e.retry_after_s, 20, 21);
    now += minute / 3 - 1000;
    assert_false(http_key_enter(key, now, &e));
    assert_int_equal(e.retry_after_s, 1);
    now += 2000;
    assert_true(http_key_enter(key, now, &e));
    assert_false(http_key_enter(key, now, &e));
    now += 10 * minute; /* an unused hour is no credit for more than a minute's worth */
    for (int i = 0; i < 3; i++)
        assert_true(http_key_enter(key, now, &e));
    assert_false(http_key_enter(key, now, &e));
    http_keys_close(&k);
}

static void tokens_a_minute(void **state)
{
    (void)state;
    struct http_keys *k;
    struct api_error e;
    int64_t now = 5, second = 1000000;
    write_file("sk-one-12345 name=one tpm=600\n");
    assert_true(http_keys_open(&k, NULL, 0, path, NULL));
    struct http_key *key = find(k, "sk-one-12345");
    assert_true(http_key_enter(key, now, &e));
    assert_true(http_key_enter(key, now, &e));
    http_key_charge(key, 500, 200, now);  /* 100 more than there were */
    assert_false(http_key_enter(key, now, &e));
    assert_in_range(e.retry_after_s, 10, 11);
    assert_false(http_key_enter(key, now + 9 * second, &e));
    assert_true(http_key_enter(key, now + 11 * second, &e));
    http_keys_close(&k);
}

static void concurrent(void **state)
{
    (void)state;
    struct http_keys *k;
    struct api_error e;
    write_file("sk-one-12345 name=one concurrent=2 rpm=100\n");
    assert_true(http_keys_open(&k, NULL, 0, path, NULL));
    struct http_key *key = find(k, "sk-one-12345");
    assert_true(http_key_enter(key, 1, &e) && http_key_enter(key, 1, &e));
    assert_false(http_key_enter(key, 1, &e));
    assert_non_null(strstr(e.msg, "2 requests in progress"));
    http_key_leave(key);
    assert_true(http_key_enter(key, 1, &e));
    http_keys_close(&k);
}

struct seen { int n; char names[8][65]; struct http_key_view views[8]; };

static void note(void *ctx, const struct http_key_view *v)
{
    struct seen *s = ctx;
    snprintf(s->names[s->n], sizeof s->names[0], "%s", v->name);
    s->views[s->n++] = *v;
}

static void reload(void **state)
{
    (void)state;
    struct http_keys *k;
    struct api_error ae;
    struct err e;
    write_file("sk-one-12345 name=one rpm=1\nsk-two-12345 name=two\nsk-tre-12345 name=three\n");
    assert_true(http_keys_open(&k, NULL, 0, path, &e));
    assert_false(http_keys_changed(k));
    struct http_key *one = find(k, "sk-one-12345"), *two = find(k, "sk-two-12345");
    assert_true(http_key_enter(one, 1, &ae) && http_key_enter(two, 1, &ae));
    http_key_charge(two, 7, 5, 1);
    write_file("sk-new-12345 name=one rpm=1\nsk-for-12345 name=four\n");
    assert_true(http_keys_changed(k));
    assert_true(http_keys_reload(k, &e));
    assert_false(http_keys_changed(k));
    assert_null(find(k, "sk-one-12345"));
    assert_null(find(k, "sk-two-12345"));
    assert_ptr_equal(find(k, "sk-new-12345"), one);       /* the same holder: */
    assert_false(http_key_enter(one, 1, &ae));            /* its limit goes on */
    http_key_leave(two);                                  /* what runs ends as ever */
    struct seen s = {0};
    http_keys_visit(k, note, &s);
    assert_int_equal(s.n, 3);                             /* three has used nothing */
    assert_string_equal(s.names[0], "one");
    assert_int_equal(s.views[0].n_refused, 1);
    assert_string_equal(s.names[1], "four");
    assert_string_equal(s.names[2], "two");
    assert_int_equal(s.views[2].prompt_tokens, 7);
    assert_int_equal(s.views[2].generated_tokens, 5);
    assert_int_equal(s.views[2].n_active, 0);

    write_file("sk-five-1234 rpm=x\n");
    assert_false(http_keys_reload(k, &e));
    assert_non_null(find(k, "sk-new-12345"));
    assert_false(http_keys_changed(k));                   /* told of once */
    write_file("sk-new-12345 name=one rpm=2\n");          /* new limits, full buckets */
    assert_true(http_keys_reload(k, &e));
    assert_true(http_key_enter(one, 2, &ae) && http_key_enter(one, 2, &ae));
    assert_false(http_key_enter(one, 2, &ae));
    http_keys_close(&k);
}

static void out_of_memory(void **state)
{
    (void)state;
    static const char *const given[] = {"abc"};
    write_file("sk-one-12345 name=one\nsk-two-12345 name=two\n");
    for (long n = 1;; n++) {
        struct http_keys *k = NULL;
        struct err e = {0};
        mem_fault_after(n);
        bool ok = http_keys_open(&k, given, 1, path, &e);
        bool fired = mem_fault_fired();
        mem_fault_after(0);
        if (ok && !fired) {
            http_keys_close(&k);
            return;
        }
        assert_false(ok);
        assert_int_equal(e.code, ERR_NOMEM);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(format), cmocka_unit_test(bad_files), cmocka_unit_test(who_is_found), cmocka_unit_test(requests_a_minute),
        cmocka_unit_test(tokens_a_minute), cmocka_unit_test(concurrent), cmocka_unit_test(reload), cmocka_unit_test(out_of_memory),
    };
    return cmocka_run_group_tests(tests, make_file, remove_file);
}
