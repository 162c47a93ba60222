/* The pieces of the load generator that read bytes: server-sent events, and what their JSON means. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "bench/http_call.h"
#include "bench/http_sse.h"
#include "bench/load.h"

/* ---- events ---- */

static bool collect(void *ctx, const char *data, size_t len)
{
    struct buf *b = ctx;
    return buf_append(b, data, len) && buf_putc(b, '|');
}

/* Fed whole, byte by byte, and in two pieces at every place. */
static void check_events(const char *text, const char *expected)
{
    size_t n = strlen(text);
    for (size_t cut = 0; cut <= n + 1; cut++) {
        struct bench_sse s;
        struct buf got;
        bench_sse_init(&s, 100);
        buf_init(&got, 0);
        if (cut <= n) {
            assert_true(bench_sse_feed(&s, text, cut, collect, &got));
            assert_true(bench_sse_feed(&s, text + cut, n - cut, collect, &got));
        } else {
            for (size_t i = 0; i < n; i++)
                assert_true(bench_sse_feed(&s, text + i, 1, collect, &got));
        }
        assert_string_equal(got.data ? got.data : "", expected);
        bench_sse_free(&s);
        buf_free(&got);
    }
}

static void test_events(void **state)
{
    (void)state;
    check_events("data: a\n\ndata:b\n\n", "a|b|");
    check_events("data: a\r\n\r\ndata: b\r\n\r\n", "a|b|");
    check_events("data: a\r\rdata: b\r\r", "a|b|");
    check_events("data: a\ndata: b\n\n", "a\nb|");
    check_events("data:  a\n\n", " a|");
    check_events(": note\nevent: x\nid: 1\ndatum: no\ndata: a\n\n", "a|");
    check_events("\n\n\ndata\n\n", "|");
    check_events("data: a\n\ndata: cut off", "a|");
}

static bool refuse(void *ctx, const char *data, size_t len)
{
    (void)data, (void)len;
    ++*(int *)ctx;
    return false;
}

static void test_events_stop(void **state)
{
    (void)state;
    struct bench_sse s;
    struct buf got;
    int n = 0;
    char line[300];
    bench_sse_init(&s, 100);
    assert_false(bench_sse_feed(&s, "data: a\n\ndata: b\n\n", 18, refuse, &n));
    assert_int_equal(n, 1);
    bench_sse_free(&s);
    bench_sse_init(&s, 100);
    buf_init(&got, 0);
    memset(line, 'x', sizeof line);
    assert_false(bench_sse_feed(&s, line, sizeof line, collect, &got));
    bench_sse_free(&s);
}

/* ---- calls ---- */

static bool event(struct bench_call *c, const char *text, int64_t now)
{
    return bench_call_event(c, text, strlen(text), now);
}

static void test_tokens(void **state)
{
    (void)state;
    struct bench_call c = {.keep_text = true};
    bench_call_reset(&c);
    c.start_us = 1000000;
    assert_true(event(&c, "{\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}", 1100000));      /* no token */
    assert_true(event(&c, "{\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"a\"}}]}", 1200000));     /* a token */
    assert_true(event(&c, "{\"choices\":[{\"delta\":{\"content\":\"\"}}]}", 1250000));                             /* held back */
    assert_true(event(&c, "{\"choices\":[{\"delta\":{\"reasoning_content\":\"hm\"}}]}", 1300000));
    assert_true(event(&c, "{\"choices\":[{\"delta\":{\"content\":\"b\"},\"finish_reason\":\"stop\"}]}", 1500000)); /* both */
    assert_true(event(&c, "{\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}", 1600000));                  /* no token */
    assert_true(event(&c, "{\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":9}}", 1700000));
    assert_true(event(&c, "[DONE]", 1700000));
    bench_call_end(&c, 200, "cut, but all was there", NULL);
    assert_true(c.ok);
    assert_int_equal(c.n_chunks, 4);
    assert_int_equal(c.n_gaps, 3);
    assert_true(c.gaps[0] > 0.0499 && c.gaps[0] < 0.0501 && c.gaps[2] > 0.1999 && c.gaps[2] < 0.2001);
    assert_int_equal(c.prompt_tokens, 5);
    assert_int_equal(bench_call_out_len(&c), 9);
    assert_true(bench_call_ttft(&c) > 0.1999 && bench_call_ttft(&c) < 0.2001);
    assert_true(bench_call_latency(&c) > 0.4999 && bench_call_latency(&c) < 0.5001);
    assert_string_equal(c.text.data, "ab");
    bench_call_free(&c);
}

static void test_usage_of_the_wrong_type(void **state)
{
    (void)state;
    struct bench_call c = {0};
    bench_call_reset(&c);
    c.start_us = 1;
    assert_true(event(&c, "{\"choices\":[{\"text\":\"a\"}],\"usage\":{\"prompt_tokens\":\"5\",\"completion_tokens\":-3}}", 2));
    assert_true(event(&c, "{\"choices\":[{\"text\":\"\"}],\"usage\":[1]}", 3));
    assert_true(event(&c, "{\"choices\":{\"0\":1},\"usage\":null,\"error\":null}", 4));
    assert_true(event(&c, "{\"choices\":[7]}", 5));
    assert_true(event(&c, "[DONE]", 5));
    bench_call_end(&c, 200, NULL, NULL);
    assert_true(c.ok);
    assert_int_equal(c.prompt_tokens, -1);
    assert_int_equal(c.completion_tokens, -1);
    assert_int_equal(bench_call_out_len(&c), 3);   /* chunks; of a choice that is no object nothing is known */
    bench_call_free(&c);
}

/* Tokens whose text is never shown: the finish is all there is. */
static void test_no_text(void **state)
{
    (void)state;
    struct bench_call c = {0};
    bench_call_reset(&c);
    c.start_us = 1000000;
    assert_true(event(&c, "{\"choices\":[{\"text\":\"\",\"finish_reason\":\"length\"}],\"usage\":{\"completion_tokens\":4}}", 1500000));
    bench_call_end(&c, 200, NULL, NULL);
    assert_true(c.ok);
    assert_int_equal(bench_call_out_len(&c), 4);
    assert_true(bench_call_ttft(&c) > 0.4999 && bench_call_ttft(&c) < 0.5001);
    bench_call_free(&c);
}

static void check_end(const char *first, int status, const char *transport, const char *reply, const char *expected)
{
    struct bench_call c = {0};
    struct buf b;
    bench_call_reset(&c);
    buf_init(&b, 0);
    if (first)
        event(&c, first, 5);
    if (reply)
        buf_puts(&b, reply);
    bench_call_end(&c, status, transport, &b);
    assert_false(c.ok);
    if (!strstr(c.error, expected))
        fail_msg("'%s' does not hold '%s'", c.error, expected);
    bench_call_free(&c);
    buf_free(&b);
}

static void test_failures(void **state)
{
    (void)state;
    char wide[1000];
    check_end(NULL, 0, "Couldn't connect", NULL, "Couldn't connect");
    check_end(NULL, 200, NULL, NULL, "no events");
    check_end("{\"choices\":[{\"text\":\"a\"}]}", 200, NULL, NULL, "before [DONE]");
    check_end("{\"choices\":[{\"text\":\"a\"}]}", 200, "transfer closed", NULL, "transfer closed");
    check_end("[DONE]", 200, NULL, NULL, "no token");
    check_end("{\"choices\":", 200, "aborted", NULL, "not a JSON object");
    check_end("[1]", 200, "aborted", NULL, "not a JSON object");
    check_end("{\"error\":\"boom\"}", 200, "aborted", NULL, "error in the stream: boom");
    check_end("{\"error\":{\"code\":1}}", 200, "aborted", NULL, "error in the stream");
    check_end(NULL, 400, NULL, "{\"error\":{\"message\":\"too long\"}}", "HTTP 400: too long");
    check_end(NULL, 503, "closed", "{\"message\":\"later\"}", "HTTP 503: later");
    check_end(NULL, 500, NULL, "<html>\n</html>", "HTTP 500: <html> </html>");
    check_end(NULL, 502, NULL, NULL, "HTTP 502");
    /* A message longer than its place ends at a whole character. */
    for (size_t i = 0; i + 1 < sizeof wide; i += 2)
        memcpy(wide + i, "\xc3\xa4", 2);
    wide[sizeof wide - 1] = 0;
    wide[sizeof wide - 2] = 0;
    check_end(NULL, 500, NULL, wide, "HTTP 500: \xc3\xa4");
}

/* ---- options ---- */

static void test_lists(void **state)
{
    (void)state;
    struct bench_load_opts o;
    struct err e;
    bench_load_opts_default(&o);
    assert_true(bench_load_parse_metrics(&o, "e2el,ttft", &e));
    assert_true(o.selected[BENCH_TTFT] && o.selected[BENCH_E2EL] && !o.selected[BENCH_ITL] && !o.selected[BENCH_TPOT]);
    assert_false(bench_load_parse_metrics(&o, "ttft,ttf", &e));
    assert_true(bench_load_parse_percentiles(&o, "50,99.9", &e));
    assert_int_equal(o.n_percentiles, 2);
    assert_true(o.percentiles[1] == 99.9);
    assert_false(bench_load_parse_percentiles(&o, "101", &e));
    assert_false(bench_load_parse_percentiles(&o, "5x", &e));
    assert_false(bench_load_parse_percentiles(&o, "nan", &e));
    assert_false(bench_load_parse_percentiles(&o, "1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17", &e));
    assert_true(bench_load_parse_goodput(&o, "ttft:500 tpot:2.5", &e));
    assert_true(o.goodput_ms[BENCH_TTFT] == 500 && o.goodput_ms[BENCH_TPOT] == 2.5 && o.goodput_ms[BENCH_E2EL] != o.goodput_ms[BENCH_E2EL]);
    assert_false(bench_load_parse_goodput(&o, "ttft", &e));
    assert_false(bench_load_parse_goodput(&o, "itl:5", &e));
    assert_false(bench_load_parse_goodput(&o, "ttft:x", &e));
    assert_false(bench_load_parse_goodput(&o, "ttft:-1", &e));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_events), cmocka_unit_test(test_events_stop), cmocka_unit_test(test_tokens),
        cmocka_unit_test(test_usage_of_the_wrong_type), cmocka_unit_test(test_no_text), cmocka_unit_test(test_failures),
        cmocka_unit_test(test_lists),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
