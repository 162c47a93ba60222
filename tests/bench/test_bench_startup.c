/* The start of a server as a client sees it: against a scripted one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "base/clock.h"
#include "bench/standin.h"
#include "bench/startup.h"

static bool ask(struct standin *s, int64_t earlier_us, struct bench_startup_times *t, struct err *e)
{
    standin_open(s);
    bool ok = bench_startup_ask(s->url, clock_now_us() - earlier_us, 3, 256, 1, 20, t, e);
    standin_close(s);
    return ok;
}

static void test_times(void **state)
{
    (void)state;
    struct standin s = {.first_ms = 60};
    struct bench_startup_times t = {0};
    struct err e;
    if (!ask(&s, 500000, &t, &e))
        fail_msg("%s", e.msg);
    assert_true(t.health_s >= 0.5);
    assert_true(t.ttft_s >= 0.055);
    assert_true(t.first_token_s >= t.health_s + t.ttft_s - 1e-6);
    assert_non_null(strstr(s.last_body, "\"max_tokens\":1"));
}

static void test_failures(void **state)
{
    (void)state;
    static const enum standin_mode modes[] = {STANDIN_400, STANDIN_500, STANDIN_NO_DONE, STANDIN_CLOSE};
    for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++) {
        struct standin s = {.mode = modes[i]};
        struct bench_startup_times t = {0};
        struct err e;
        if (ask(&s, 0, &t, &e))
            fail_msg("mode %d was taken for an answer", (int)modes[i]);
        assert_true(e.msg[0] != '\0');
    }
    struct err e;
    assert_false(bench_startup_ask("http://127.0.0.1:1", 0, 1, 256, 1, 5, &(struct bench_startup_times){0}, &e));
}

static double number(const json_t *o, const char *key)
{
    assert_true(json_is_real(json_object_get(o, key)));
    return json_real_value(json_object_get(o, key));
}

static void test_medians(void **state)
{
    (void)state;
    const struct bench_startup_times t[] = {{3, 30, 0.25}, {1, 10, 0.5}, {2, 40, 0.75}};
    json_t *j = bench_startup_json(t, 3);
    assert_true(number(j, "health_s") > 1.99 && number(j, "health_s") < 2.01);
    assert_true(number(j, "first_token_s") > 29.9 && number(j, "first_token_s") < 30.1);
    assert_int_equal(json_array_size(json_object_get(j, "runs")), 3);
    json_decref(j);
    j = bench_startup_json(t, 2);
    assert_true(number(j, "ttft_s") > 0.374 && number(j, "ttft_s") < 0.376);
    json_decref(j);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_times), cmocka_unit_test(test_failures), cmocka_unit_test(test_medians)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
