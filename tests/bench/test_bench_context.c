/* bench context against a scripted server, and the server it starts itself. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <signal.h>
#include "base/clock.h"
#include "base/json.h"
#include "bench/context.h"
#include "bench/standin.h"

struct rows { int n; struct bench_context_row v[16]; int refuse_at; };

static bool on_row(void *ctx, const struct bench_context_row *r)
{
    struct rows *rows = ctx;
    assert_true(rows->n < 16);
    rows->v[rows->n++] = *r;
    return rows->n != rows->refuse_at;
}

static bool run_context(struct standin *s, struct bench_context_opts o, struct rows *rows, json_t **out, struct err *e)
{
    struct bench_http *c;
    o.target.endpoint = "/v1/completions";
    o.target.model = "m";
    o.vocab = 100;
    standin_open(s);
    assert_true(bench_http_open(&c, &(struct bench_http_opts){.base_url = s->url, .timeout_s = 5}, e));
    bool ok = bench_context_run(c, &o, on_row, rows, out, e);
    bench_http_close(&c);
    standin_close(s);
    return ok;
}

static const struct bench_context_opts usual = {.step = 10, .output_len = 3, .max_prompt = 1000};

static void test_grows_until_400(void **state)
{
    (void)state;
    for (int reuse = 0; reuse < 2; reuse++) {
        struct standin s = {.limit = 45, .first_ms = 20, .gap_ms = 5};
        struct bench_context_opts o = usual;
        struct rows rows = {0};
        struct err e = {0};
        json_t *out;
        o.reuse_prefix = reuse;
        if (!run_context(&s, o, &rows, &out, &e))
            fail_msg("%s", e.msg);
        assert_int_equal(rows.n, 4);
        for (int i = 0; i < 4; i++) {
            const struct bench_context_row *r = &rows.v[i];
            assert_int_equal(r->n_prompt, 10 * (i + 1));
            assert_int_equal(r->n_generated, 3);
            assert_true(r->ttft_s >= 0.019 && r->itl_s >= 0 && r->time_s >= 0.029);
            /* cmocka compares floats, whose own steps are larger than these differences may be */
            assert_true(fabs(r->itl_s * 2 - (r->time_s - r->ttft_s)) < 1e-9);
            assert_true(fabs(r->tokens_per_s - 3 / r->time_s) < 1e-9);
        }
        const json_t *limit = json_object_get(out, "limit");
        assert_int_equal(json_integer_value(json_object_get(limit, "prompt_tokens")), 50);
        assert_int_equal(json_integer_value(json_object_get(limit, "status")), 400);
        assert_string_equal(json_string_value(json_object_get(limit, "message")), "HTTP 400: too long");
        assert_true(json_is_true(json_object_get(out, "alive")));
        assert_int_equal(json_array_size(json_object_get(out, "rows")), 4);
        struct buf script;
        buf_init(&script, 0);
        assert_true(bench_context_plot(out, "/tmp/x.png", &script, &e));
        assert_non_null(strstr(script.data, "set output '/tmp/x.png'"));
        assert_non_null(strstr(script.data, "\n40 "));
        assert_false(bench_context_plot(out, "a'b", &script, &e));
        buf_free(&script);
        json_decref(out);
    }
}

static void test_server_dies(void **state)
{
    (void)state;
    struct standin s = {.limit = 25, .dead_after_400 = true};
    struct rows rows = {0};
    struct err e = {0};
    json_t *out;
    assert_false(run_context(&s, usual, &rows, &out, &e));
    assert_non_null(strstr(e.msg, "after the 400"));
    assert_true(json_is_false(json_object_get(out, "alive")));
    assert_true(json_is_object(json_object_get(out, "limit")));
    json_decref(out);
}

static void test_other_failures(void **state)
{
    (void)state;
    static const struct { enum standin_mode mode; int limit, n_good, n_rows; const char *error; } cases[] = {
        {STANDIN_500, 0, 3, 2, "HTTP 500"}, {STANDIN_CUT, 0, 3, 2, "instead of answering 400"}, {STANDIN_STREAM, 0, 0, 10, "no 400"},
        {STANDIN_STREAM, 5, 0, 0, "refused already"}, {STANDIN_CLOSE, 0, 0, 0, "failed"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct standin s = {.mode = cases[i].mode, .limit = cases[i].limit, .n_good = cases[i].n_good};
        struct bench_context_opts o = usual;
        struct rows rows = {0};
        struct err e = {0};
        json_t *out;
        o.max_prompt = 100;
        assert_false(run_context(&s, o, &rows, &out, &e));
        if (!strstr(e.msg, cases[i].error))
            fail_msg("case %zu: '%s' does not hold '%s'", i, e.msg, cases[i].error);
        assert_int_equal(rows.n, cases[i].n_rows);
        json_decref(out);
    }
    struct standin s = {0};
    struct rows rows = {.refuse_at = 2};
    struct err e = {0};
    json_t *out;
    assert_false(run_context(&s, usual, &rows, &out, &e));
    assert_int_equal(rows.n, 2);
    json_decref(out);
}

/* ---- a server of our own ---- */

static bool start_shell(struct bench_server *s, const char *script, double timeout_s, struct err *e)
{
    char shell[] = "/bin/sh", dash_c[] = "-c", text[256];
    snprintf(text, sizeof text, "%s", script);
    char *argv[] = {shell, dash_c, text, NULL};
    return bench_server_start(s, argv, timeout_s, e);
}

static void test_server(void **state)
{
    (void)state;
    struct bench_server s;
    struct err e = {0};
    int64_t start = clock_now_us();
    if (!start_shell(&s, "echo loading; echo 'serves x at http://127.0.0.1:1234'; exec sleep 60", 5, &e))
        fail_msg("%s", e.msg);
    assert_string_equal(s.url, "http://127.0.0.1:1234");
    pid_t pid = s.pid;
    bench_server_stop(&s);
    assert_int_equal(kill(pid, 0), -1);
    assert_int_equal(errno, ESRCH);
    bench_server_stop(&s);   /* a second time does nothing */
    assert_false(start_shell(&s, "echo no; exit 3", 5, &e));
    assert_non_null(strstr(e.msg, "ended before"));
    assert_false(start_shell(&s, "exec sleep 60", 0.2, &e));
    assert_int_equal(e.code, ERR_TIMEOUT);
    char missing[] = "/nonexistent/program";
    char *argv[] = {missing, NULL};
    assert_false(bench_server_start(&s, argv, 5, &e));
    assert_true(clock_now_us() - start < 9000000);
    bench_server_stop(&(struct bench_server){.fd = -1});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_grows_until_400), cmocka_unit_test(test_server_dies), cmocka_unit_test(test_other_failures),
        cmocka_unit_test(test_server),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
