/* The load generator against a scripted server: what it measures, and that no failure of the server crashes or hangs it. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "bench/load.c"
#include "bench/standin.h"

static void usual_opts(struct bench_load_opts *o)
{
    bench_load_opts_default(o);
    o->target.model = "m";
    o->num_prompts = 6;
    o->input_len = 10;
    o->output_len = 4;
    o->vocab = 100;
    o->seed = 7;
}

static json_t *run_load(struct standin *s, const struct bench_load_opts *o, double timeout_s, struct err *e)
{
    struct bench_http *c;
    json_t *result = NULL;
    struct bench_http_opts h = {.base_url = s->url, .timeout_s = timeout_s, .api_key = "key"};
    if (bench_http_open(&c, &h, e))
        bench_load_run(c, o, NULL, NULL, &result, e);
    bench_http_close(&c);
    return result;
}

static json_t *must_run(struct standin *s, const struct bench_load_opts *o)
{
    struct err e = {0};
    json_t *result = run_load(s, o, 5, &e);
    if (!result)
        fail_msg("%s", e.msg);
    return result;
}

/* In doubles: cmocka compares floats, whose steps are larger than the differences that matter here. */
static bool close_to(double a, double b)
{
    return fabs(a - b) <= 1e-9 * (fabs(a) + fabs(b));
}

static double number(const json_t *j, const char *key)
{
    const json_t *v = json_object_get(j, key);
    if (!json_is_number(v))
        fail_msg("%s is no number", key);
    return json_number_value(v);
}

/* ---- what is measured ---- */

static void test_measures(void **state)
{
    (void)state;
    struct standin s = {.first_ms = 60, .gap_ms = 10};
    struct bench_load_opts o;
    struct err e;
    usual_opts(&o);
    o.selected[BENCH_E2EL] = true;
    o.detailed = true;
    assert_true(bench_load_parse_percentiles(&o, "50,99.9", &e) && bench_load_parse_goodput(&o, "ttft:3000", &e));
    standin_open(&s);
    json_t *r = must_run(&s, &o);
    standin_close(&s);
    assert_int_equal(number(r, "completed"), 6);
    assert_int_equal(number(r, "failed"), 0);
    assert_int_equal(number(r, "total_input_tokens"), 60);
    assert_int_equal(number(r, "total_output_tokens"), 24);
    assert_int_equal(s.n_requests, 7);       /* one is the test request */
    double d = number(r, "duration");
    assert_true(d >= 0.09);
    assert_true(close_to(number(r, "output_throughput"), 24 / d));
    assert_true(close_to(number(r, "total_token_throughput"), 84 / d));
    assert_true(close_to(number(r, "request_throughput"), 6 / d));
    assert_true(close_to(number(r, "request_goodput"), 6 / d));
    /* Lower bounds are what the server sleeps.  A busy machine may see the first chunk late and the next ones at once, so
     * of the gaps only the sum is certain: three a request. */
    assert_true(number(r, "median_ttft_ms") >= 59 && number(r, "median_ttft_ms") < 4000);
    assert_true(number(r, "mean_e2el_ms") >= 89);
    assert_true(number(r, "mean_itl_ms") >= 0);
    assert_true(close_to(number(r, "mean_itl_ms"), number(r, "mean_tpot_ms")));
    assert_true(close_to(number(r, "mean_e2el_ms"), number(r, "mean_ttft_ms") + 3 * number(r, "mean_tpot_ms")));
    assert_true(close_to(number(r, "p50_ttft_ms"), number(r, "median_ttft_ms")));
    assert_true(number(r, "p99.9_itl_ms") >= number(r, "median_itl_ms"));
    assert_true(number(r, "std_tpot_ms") >= 0);
    assert_int_equal(json_array_size(json_object_get(r, "ttfts")), 6);
    assert_int_equal(json_array_size(json_array_get(json_object_get(r, "itls"), 5)), 3);
    assert_string_equal(json_string_value(json_array_get(json_object_get(r, "generated_texts"), 0)), "abababab");
    struct buf text;
    buf_init(&text, 0);
    assert_true(bench_load_report(r, &o, &text));
    assert_non_null(strstr(text.data, "============ Serving Benchmark Result ============\nSuccessful requests:                     6         \n"));
    assert_non_null(strstr(text.data, "---------------Time to First Token----------------\nMean TTFT (ms):  "));
    assert_non_null(strstr(text.data, "P99.9 ITL (ms):  "));
    assert_null(strstr(text.data, "Failed"));
    buf_free(&text);
    json_decref(r);
}

/* Without usage, tokens are the ids sent and the chunks that came. */
static void test_no_usage(void **state)
{
    (void)state;
    struct standin s = {.mode = STANDIN_NO_USAGE};
    struct bench_load_opts o;
    usual_opts(&o);
    o.prefix_len = 5;
    standin_open(&s);
    json_t *r = must_run(&s, &o);
    standin_close(&s);
    assert_int_equal(number(r, "completed"), 6);
    assert_int_equal(number(r, "total_input_tokens"), 6 * 15);
    assert_int_equal(number(r, "total_output_tokens"), 24);
    assert_null(json_object_get(r, "mean_e2el_ms"));   /* not selected */
    assert_true(json_is_null(json_object_get(r, "request_goodput")));
    json_decref(r);
}

static void test_small_pieces(void **state)
{
    (void)state;
    struct standin s = {.mode = STANDIN_BYTES};
    struct bench_load_opts o;
    usual_opts(&o);
    standin_open(&s);
    json_t *r = must_run(&s, &o);
    standin_close(&s);
    assert_int_equal(number(r, "completed"), 6);
    assert_int_equal(number(r, "total_output_tokens"), 12);
    json_decref(r);
}

static void test_chat_body(void **state)
{
    (void)state;
    struct standin s = {.first_ms = 20};
    struct bench_load_opts o;
    usual_opts(&o);
    o.target.endpoint = "/v1/chat/completions";
    o.target.ignore_eos = true;
    o.num_prompts = 1;
    standin_open(&s);
    json_t *r = must_run(&s, &o);
    standin_close(&s);
    assert_int_equal(number(r, "total_input_tokens"), 7);
    assert_true(number(r, "mean_ttft_ms") >= 19);   /* the chunk with the role, sent at once, is no token */
    json_t *body = json_parse(s.last_body, strlen(s.last_body), NULL);
    assert_non_null(body);
    const char *content = json_string_value(json_object_get(json_array_get(json_object_get(body, "messages"), 0), "content"));
    int words_seen = 1;
    for (const char *p = content; *p; p++)
        words_seen += *p == ' ';
    assert_int_equal(words_seen, 10);
    assert_true(json_is_true(json_object_get(body, "stream")) && json_is_true(json_object_get(body, "ignore_eos")));
    assert_true(json_is_true(json_object_get(json_object_get(body, "stream_options"), "include_usage")));
    assert_int_equal(json_integer_value(json_object_get(body, "max_tokens")), 4);
    assert_string_equal(json_string_value(json_object_get(body, "model")), "m");
    json_decref(body);
    json_decref(r);
}

static void test_concurrency(void **state)
{
    (void)state;
    struct standin s = {.first_ms = 20};
    struct bench_load_opts o;
    usual_opts(&o);
    o.num_prompts = 8;
    o.max_concurrency = 2;
    standin_open(&s);
    json_t *r = must_run(&s, &o);
    standin_close(&s);
    assert_int_equal(number(r, "completed"), 8);
    assert_true(s.n_peak <= 2);
    assert_true(number(r, "duration") >= 4 * 0.019);
    json_decref(r);
}

static void test_rate(void **state)
{
    (void)state;
    struct standin s = {0};
    struct bench_load_opts o;
    usual_opts(&o);
    o.num_prompts = 11;
    o.request_rate = 50;
    o.burstiness = 1e6;   /* as good as even: ten gaps of 20 ms */
    standin_open(&s);
    json_t *r = must_run(&s, &o);
    standin_close(&s);
    assert_true(number(r, "duration") >= 0.195);
    json_decref(r);
}

/* ---- random numbers ---- */

static void test_gamma(void **state)
{
    (void)state;
    static const double shapes[] = {0.3, 1, 4};
    for (size_t k = 0; k < 3; k++) {
        struct rng r = {11};
        double sum = 0, squares = 0;
        int n = 200000;
        for (int i = 0; i < n; i++) {
            double x = gamma_unit(&r, shapes[k]);
            assert_true(x >= 0);
            sum += x;
            squares += x * x;
        }
        double mean = sum / n, variance = squares / n - mean * mean;
        assert_true(fabs(mean - 1) < 0.02);
        assert_true(fabs(variance * shapes[k] - 1) < 0.05);   /* 1 / shape */
    }
}

static void test_lengths(void **state)
{
    (void)state;
    struct rng r = {3};
    int32_t low = INT32_MAX, high = 0;
    for (int i = 0; i < 1000; i++) {
        int32_t n = draw_len(&r, 10, 0.5);
        low = n < low ? n : low;
        high = n > high ? n : high;
    }
    assert_int_equal(low, 5);
    assert_int_equal(high, 15);
    assert_int_equal(draw_len(&r, 10, 0), 10);
    assert_int_equal(draw_len(&r, 1, 0.9), 1);
}

/* A request is the same whenever it is sent; others differ, but for the shared prefix. */
static void test_bodies(void **state)
{
    (void)state;
    struct load l = {0};
    struct buf a, b, other;
    int32_t len;
    usual_opts(&l.o);
    l.o.prefix_len = 3;
    buf_init(&a, 0);
    buf_init(&b, 0);
    buf_init(&other, 0);
    assert_true(write_body(&l, stream(7, SEED_REQUEST, 5), 5, &a, &len));
    assert_int_equal(len, 13);
    assert_true(write_body(&l, stream(7, SEED_REQUEST, 6), 6, &other, &len));
    assert_true(write_body(&l, stream(7, SEED_REQUEST, 5), 5, &b, &len));
    assert_string_equal(a.data, b.data);
    assert_string_not_equal(a.data, other.data);
    json_t *x = json_parse(a.data, a.len, NULL), *y = json_parse(other.data, other.len, NULL);
    for (size_t i = 0; i < 3; i++)
        assert_true(json_equal(json_array_get(json_object_get(x, "prompt"), i), json_array_get(json_object_get(y, "prompt"), i)));
    json_decref(x);
    json_decref(y);
    buf_free(&a);
    buf_free(&b);
    buf_free(&other);
}

/* ---- data sets ---- */

static json_t *read_text(const char *text, bool chat, struct err *e)
{
    char path[] = "/tmp/quire-test-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    close(fd);
    json_t *j = bench_load_read_dataset(path, chat, e);
    unlink(path);
    return j;
}

static void test_dataset(void **state)
{
    (void)state;
    struct err e = {0};
    json_t *p = read_text("{\"prompt\":\"one \\\"x\\\"\"}\n\n  \r\n{\"prompt\":[1,2,3],\"more\":0}", false, &e);
    assert_non_null(p);
    assert_int_equal(json_array_size(p), 2);
    struct standin s = {.mode = STANDIN_NO_USAGE};
    struct bench_load_opts o;
    usual_opts(&o);
    o.prompts = p;
    o.num_prompts = 4;
    standin_open(&s);
    json_t *r = must_run(&s, &o);
    standin_close(&s);
    assert_int_equal(number(r, "total_input_tokens"), 6);   /* twice three ids; of text the length is not known */
    json_decref(r);
    json_decref(p);
    assert_null(read_text("{\"prompt\":\"a\"}\n{\"text\":\"b\"}\n", false, &e));
    assert_non_null(strstr(e.msg, ":2: expected"));
    assert_null(read_text("{\"prompt\":\"a\"}\nnope\n", false, &e));
    assert_non_null(strstr(e.msg, ":2"));
    assert_null(read_text("{\"prompt\":[1]}\n", true, &e));
    assert_null(read_text("\n", false, &e));
    assert_non_null(strstr(e.msg, "no prompt"));
    assert_null(bench_load_read_dataset("/nonexistent/file", false, &e));
}

/* ---- failures ---- */

static void test_failures_are_counted(void **state)
{
    (void)state;
    static const struct { enum standin_mode mode; const char *error; } cases[] = {
        {STANDIN_400, "HTTP 400: too long"}, {STANDIN_429, "HTTP 429: busy"}, {STANDIN_500, "HTTP 500"}, {STANDIN_CUT, ""},
        {STANDIN_CLOSE, ""}, {STANDIN_NO_DONE, "before [DONE]"}, {STANDIN_BAD_JSON, "not a JSON object"},
        {STANDIN_ERROR_EVENT, "error in the stream: out of pages"}, {STANDIN_PLAIN, "no events"}, {STANDIN_HANG, "tim"}, {STANDIN_STALL, "tim"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        bool slow = cases[i].mode == STANDIN_HANG || cases[i].mode == STANDIN_STALL;
        struct standin s = {.mode = cases[i].mode, .n_good = 1, .alternate = !slow};
        struct bench_load_opts o;
        struct err e = {0};
        usual_opts(&o);
        o.max_concurrency = slow ? 0 : 1;   /* in order, so that every other request fails */
        o.detailed = true;
        standin_open(&s);
        json_t *r = run_load(&s, &o, slow ? 0.8 : 5, &e);
        standin_close(&s);
        if (!r)
            fail_msg("case %zu: %s", i, e.msg);
        assert_int_equal(number(r, "failed"), slow ? 6 : 3);
        assert_int_equal(number(r, "completed"), slow ? 0 : 3);
        assert_int_equal(number(r, "total_output_tokens"), slow ? 0 : 12);
        const char *error = json_string_value(json_object_get(r, "first_error"));
        if (!error || !strstr(error, cases[i].error))
            fail_msg("case %zu: '%s' does not hold '%s'", i, error ? error : "null", cases[i].error);
        assert_true(number(r, "mean_ttft_ms") >= 0);
        assert_string_equal(json_string_value(json_array_get(json_object_get(r, "errors"), 0)), error);
        json_decref(r);
    }
}

static void test_nothing_to_measure(void **state)
{
    (void)state;
    struct standin s = {.mode = STANDIN_500};
    struct bench_load_opts o;
    struct bench_http *c;
    struct err e = {0};
    usual_opts(&o);
    standin_open(&s);
    assert_null(run_load(&s, &o, 5, &e));
    assert_non_null(strstr(e.msg, "test request"));
    o.range_ratio = 1;
    assert_null(run_load(&s, &o, 5, &e));
    standin_close(&s);
    usual_opts(&o);
    assert_null(run_load(&s, &o, 5, &e));   /* nobody listens any more */
    assert_false(bench_http_open(&c, &(struct bench_http_opts){.base_url = "localhost:8000"}, &e));
    assert_null(c);
    assert_false(bench_http_open(&c, &(struct bench_http_opts){.base_url = "http://x", .api_key = "a\r\nb"}, &e));
}

static void test_models_and_vocab(void **state)
{
    (void)state;
    struct standin s = {0};
    struct bench_http *c;
    struct err e = {0};
    struct buf reply;
    int status;
    int32_t vocab = 0;
    const struct bench_target t = {.endpoint = "/v1/completions", .model = "m"};
    standin_open(&s);
    assert_true(bench_http_open(&c, &(struct bench_http_opts){.base_url = s.url, .timeout_s = 5}, &e));
    char *name = bench_http_first_model(c, &e);
    assert_string_equal(name, "stand-in");
    mem_free(name);
    buf_init(&reply, 0);
    assert_true(bench_http_request(c, "/nope", "{}", &status, &reply, &e));
    assert_int_equal(status, 404);
    assert_non_null(strstr(reply.data, "no such route"));
    buf_free(&reply);
    assert_true(bench_vocab_probe(c, &t, &vocab, &e));
    assert_int_equal(vocab, 10000);
    s.mode = STANDIN_400;
    assert_false(bench_vocab_probe(c, &t, &vocab, &e));
    assert_non_null(strstr(e.msg, "too long"));
    bench_http_close(&c);
    standin_close(&s);
}

/* Closing while requests are under way must free them all (the sanitizer sees). */
static void test_close_early(void **state)
{
    (void)state;
    struct standin s = {.mode = STANDIN_HANG};
    struct bench_http *c;
    struct bench_call calls[3] = {0};
    struct err e = {0};
    standin_open(&s);
    assert_true(bench_http_open(&c, &(struct bench_http_opts){.base_url = s.url, .timeout_s = 5}, &e));
    for (int i = 0; i < 3; i++) {
        struct buf body;
        buf_init(&body, 0);
        buf_puts(&body, "{}");
        assert_true(bench_http_start(c, "/v1/completions", &body, &calls[i], &e));
    }
    assert_null(bench_http_next(c, 30000));
    bench_http_close(&c);
    standin_close(&s);
}

static void test_no_memory(void **state)
{
    (void)state;
    struct standin s = {0};
    struct bench_load_opts o;
    usual_opts(&o);
    o.num_prompts = 2;
    o.detailed = true;
    standin_open(&s);
    bool fired = true;
    for (long n = 1; fired; n++) {
        struct err e = {0};
        assert_true(n < 150);
        mem_fault_after(n);
        json_t *r = run_load(&s, &o, 5, &e);
        fired = mem_fault_fired();
        mem_fault_after(0);
        assert_true(r || e.msg[0]);
        json_decref(r);
    }
    standin_close(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_measures), cmocka_unit_test(test_no_usage), cmocka_unit_test(test_small_pieces), cmocka_unit_test(test_chat_body),
        cmocka_unit_test(test_concurrency), cmocka_unit_test(test_rate), cmocka_unit_test(test_gamma), cmocka_unit_test(test_lengths),
        cmocka_unit_test(test_bodies), cmocka_unit_test(test_dataset), cmocka_unit_test(test_failures_are_counted),
        cmocka_unit_test(test_nothing_to_measure), cmocka_unit_test(test_models_and_vocab), cmocka_unit_test(test_close_early),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
