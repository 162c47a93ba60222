/* Replies taken apart: what each form of call and thought comes to, in pieces of any size. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "base/rng.h"
#include "server/reply.h"

/* All that came out: "thought" | content | f(arguments) | ... */
struct seen { struct buf thought, content, calls; int last; };

static void on_content(void *ctx, const char *t, size_t n) { buf_append(&((struct seen *)ctx)->content, t, n); }
static void on_thought(void *ctx, const char *t, size_t n) { buf_append(&((struct seen *)ctx)->thought, t, n); }

static void on_call(void *ctx, int index, const char *t, size_t n)
{
    struct seen *s = ctx;
    assert_int_equal(index, s->last + 1);
    s->last = index;
    buf_puts(&s->calls, " ");
    buf_append(&s->calls, t, n);
    buf_puts(&s->calls, "=");
}

static void on_arguments(void *ctx, int index, const char *t, size_t n)
{
    struct seen *s = ctx;
    assert_int_equal(index, s->last);
    buf_append(&s->calls, t, n);
}

/* cut: 0 whole, 1 bytewise, else pieces of random size. */
static char *run(enum reply_calls calls, enum reply_thoughts thoughts, enum reply_start start, bool one, const char *text, size_t len, uint64_t cut)
{
    struct seen s = {.last = -1};
    struct rng r = {.state = cut};
    struct buf all;
    buf_init(&s.thought, 0), buf_init(&s.content, 0), buf_init(&s.calls, 0), buf_init(&all, 0);
    struct reply_sink sink = {&s, on_content, on_thought, on_call, on_arguments};
    struct reply *p = reply_open(calls, thoughts, start, one, &sink);
    assert_non_null(p);
    for (size_t at = 0; at < len;) {
        size_t n = cut == 0 ? len : cut == 1 ? 1 : 1 + rng_next_below(&r, 7);
        n = n < len - at ? n : len - at;
        assert_true(reply_feed(p, text + at, n, false));
        at += n;
    }
    assert_true(reply_feed(p, "", 0, true));
    reply_close(&p);
    buf_printf(&all, "%s|%s|%s", s.thought.data ? s.thought.data : "", s.content.data ? s.content.data : "", s.calls.data ? s.calls.data : "");
    buf_free(&s.thought), buf_free(&s.content), buf_free(&s.calls);
    return buf_take(&all);
}

static void check(enum reply_calls calls, enum reply_thoughts thoughts, enum reply_start start, const char *text, const char *want)
{
    for (uint64_t cut = 0; cut < 12; cut++) {
        char *got = run(calls, thoughts, start, false, text, strlen(text), cut);
        if (strcmp(got, want) != 0)
            fail_msg("%s, cut %d: '%s'\n  gave '%s'\n  want '%s'", reply_calls_name(calls), (int)cut, text, got, want);
        free(got);
    }
}

#define H REPLY_CALLS_HERMES
#define L REPLY_CALLS_LLAMA3
#define M REPLY_CALLS_MISTRAL
#define P REPLY_CALLS_PYTHONIC

static void test_calls(void **state)
{
    (void)state;
    const struct { enum reply_calls calls; const char *text, *want; } rows[] = {
        {H, "Hello there.", "|Hello there.|"},
        {H, "  keep \n", "|  keep \n|"},
        {H, "a < b <tool", "|a < b <tool|"},
        {H, "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": \"}{\\\"\"}}\n</tool_call>", "|| f={\"a\": \"}{\\\"\"}"},
        {H, "Let me see.\n<tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n</tool_call>\n<tool_call>{\"name\":\"g\",\"arguments\":{\"x\":[1,{\"y\":2}]}}</tool_call>\n", "|Let me see.| f={} g={\"x\":[1,{\"y\":2}]}"},
        {H, "<tool_call>{\"arguments\": {\"a\": 1}, \"name\": \"f\"}</tool_call>", "|| f={\"a\": 1}"},
        {H, "<tool_call>{\"name\": \"f\", \"arguments\": \"{\\\"a\\\":1}\"}</tool_call>", "|| f={\"a\":1}"},
        {H, "<tool_call>{\"name\": \"f\"}</tool_call>", "|| f={}"},
        {H, "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": 1}, \"id\": \"{\"}</tool_call> Done.", "| Done.| f={\"a\": 1}"},
        {H, "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": 1}}<tool_call>{\"name\": \"g\", \"arguments\": {}}", "|| f={\"a\": 1} g={}"},
        {H, "x <tool_call>{\"nome\": 3}</tool_call> y", "|x <tool_call>{\"nome\": 3}</tool_call> y|"},
        {H, "<tool_call>no</tool_call>", "|<tool_call>no</tool_call>|"},
        {H, "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": 1", "|| f={\"a\": 1"},
        {H, "<tool_call>{\"name\": \"f\", \"argu", "|<tool_call>{\"name\": \"f\", \"argu|"},
        {H, "<tool_call>", "|<tool_call>|"},
        {L, "{\"name\": \"f\", \"parameters\": {\"a\": 1}}", "|| f={\"a\": 1}"},
        {L, "<|python_tag|>{\"name\": \"f\", \"parameters\": {\"a\": 1}}; {\"name\": \"g\", \"parameters\": {}}", "|| f={\"a\": 1} g={}"},
        {L, "\n {\"type\": \"function\", \"name\": \"f\", \"parameters\": {\"a\": 1}}", "|| f={\"a\": 1}"},
        {L, "{\"city\": \"Oslo\"} is JSON", "|{\"city\": \"Oslo\"} is JSON|"},
        {L, "Use {\"name\": \"f\", \"parameters\": {}}", "|Use {\"name\": \"f\", \"parameters\": {}}|"},
        {L, "<|python_tag|>print(1)", "|<|python_tag|>print(1)|"},
        {M, "[TOOL_CALLS] [{\"name\": \"f\", \"arguments\": {\"a\": 1}}, {\"name\": \"g\", \"arguments\": {}}]", "|| f={\"a\": 1} g={}"},
        {M, "Sure[TOOL_CALLS][{\"name\": \"f\", \"arguments\": {\"a\": 1}}]", "|Sure| f={\"a\": 1}"},
        {M, "[TOOL_CALLS]f{\"a\": 1}[TOOL_CALLS]g_2[ARGS]{\"b\": \"[TOOL_CALLS]\"}", "|| f={\"a\": 1} g_2={\"b\": \"[TOOL_CALLS]\"}"},
        {M, "[TOOL_CALLS]f[CALL_ID]abc123[ARGS]{\"a\": 1}", "|| f={\"a\": 1}"},
        {M, "[TOOL_CALLS] nothing here", "|[TOOL_CALLS] nothing here|"},
        {M, "an [array]", "|an [array]|"},
        {P, "[f(a=1, b=\"x y\"), g()]", "|| f={\"a\":1,\"b\":\"x y\"} g={}"},
        {P, "[f(a=[1, 2.5, -3e2], b={'k': None, \"t\": (True, False)}, c='it\\'s \\u00e9)')]", "|| f={\"a\":[1,2.5,-3e2],\"b\":{\"k\":null,\"t\":[true,false]},\"c\":\"it's é)\"}"},
        {P, "[1, 2, 3]", "|[1, 2, 3]|"},
        {P, "[f(a=b)]", "|[f(a=b)]|"},
        {P, "f(a=1)", "|f(a=1)|"},
        {P, "[weather.get(city='Oslo')]", "|| weather.get={\"city\":\"Oslo\"}"},
        {P, "[f(a=1", "|[f(a=1|"},
        {REPLY_CALLS_NONE, "<tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call> ", "|<tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call> |"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        check(rows[i].calls, REPLY_THOUGHTS_NONE, REPLY_START_OPEN, rows[i].text, rows[i].want);
}

static void test_thoughts(void **state)
{
    (void)state;
    const enum reply_thoughts r1 = REPLY_THOUGHTS_DEEPSEEK_R1, qwen = REPLY_THOUGHTS_QWEN3;
    const enum reply_start open = REPLY_START_OPEN, in = REPLY_START_THINKING, out = REPLY_START_TALKING;
    check(H, qwen, open, "<think>\nHm, 1 < 2.\n</think>\n\nTwo.", "Hm, 1 < 2.|Two.|");
    check(H, qwen, open, "Two.", "|Two.|");
    check(H, qwen, in, "Hm.\n</think>\n\nTwo.\n", "Hm.|Two.\n|");
    check(H, qwen, out, "Two </think>.", "|Two </think>.|");
    check(H, r1, open, "Hm.</think>Two.", "Hm.|Two.|");
    check(H, r1, open, "<think>Hm.</think>Two.", "Hm.|Two.|");
    check(H, r1, in, "only thinking </thi", "only thinking </thi||");
    check(H, qwen, open, " \n", "||");
    check(H, qwen, open, "<think></think>\n\n<tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call>", "|| f={}");
    check(L, r1, in, "Call it.</think>\n{\"name\":\"f\",\"parameters\":{\"a\":2}}", "Call it.|| f={\"a\":2}");
    check(P, qwen, in, "x</think>[f(a=1)]", "x|| f={\"a\":1}");
}

static void test_one(void **state)
{
    (void)state;
    static const char text[] = "[f(a=1), g(b=2)]", hermes[] = "<tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call><tool_call>{\"name\":\"g\",\"arguments\":{\"a\":1}}</tool_call>";
    for (uint64_t cut = 0; cut < 6; cut++) {
        char *a = run(P, REPLY_THOUGHTS_NONE, REPLY_START_OPEN, true, text, strlen(text), cut), *b = run(H, REPLY_THOUGHTS_NONE, REPLY_START_OPEN, true, hermes, strlen(hermes), cut);
        assert_string_equal(a, "|| f={\"a\":1}");
        assert_string_equal(b, "|| f={}");
        free(a), free(b);
    }
}

/* Any text in any pieces gives the same, and nothing of it is lost but marks, blanks and what calls are made of. */
static void test_cuts(void **state)
{
    (void)state;
    static const char *const parts[] = {"<tool_call>", "</tool_call>", "{\"name\": \"f\", \"arguments\": {", "{\"name\": \"f\", \"parameters\": {\"a\": [1]}}", "\"k\": 1", "}", "{", "[", "]", ",", ";",
                                        "[TOOL_CALLS]", "[ARGS]", "f(", "a=1", ")", "'", "\"", "\\", " ", "\n", "<think>", "</think>", "text", "<|python_tag|>", "name", "f", "(", "<", "[TOOL", "\xc3\xa9"};
    struct rng r = {.state = 77};
    for (int k = 0; k < 30000; k++) {
        char text[400] = "";
        int n = (int)rng_next_below(&r, 14);
        for (int i = 0; i < n; i++)
            strcat(text, parts[rng_next_below(&r, sizeof parts / sizeof parts[0])]);
        enum reply_calls calls = (enum reply_calls)rng_next_below(&r, REPLY_CALLS_COUNT);
        enum reply_thoughts thoughts = (enum reply_thoughts)rng_next_below(&r, REPLY_THOUGHTS_COUNT);
        enum reply_start start = (enum reply_start)rng_next_below(&r, 3);
        char *whole = run(calls, thoughts, start, false, text, strlen(text), 0);
        for (uint64_t cut = 1; cut < 4; cut++) {
            char *got = run(calls, thoughts, start, false, text, strlen(text), cut == 1 ? 1 : 1000 * (uint64_t)k + cut);
            if (strcmp(got, whole) != 0)
                fail_msg("%s, %s, start %d: '%s'\n  whole '%s'\n  in pieces '%s'", reply_calls_name(calls), reply_thoughts_name(thoughts), start, text, whole, got);
            free(got);
        }
        free(whole);
    }
}

static void test_names(void **state)
{
    (void)state;
    enum reply_calls c;
    enum reply_thoughts t;
    assert_true(reply_calls_parse("llama3_json", &c) && c == L);
    assert_true(reply_calls_parse("hermes", &c) && c == H);
    assert_false(reply_calls_parse("granite", &c));
    assert_true(reply_thoughts_parse("qwen3", &t) && t == REPLY_THOUGHTS_QWEN3);
    assert_false(reply_thoughts_parse("", &t));
    assert_int_equal(reply_calls_detect("{% if tools %}<tool_call>"), H);
    assert_int_equal(reply_calls_detect("{% for m in messages %}"), REPLY_CALLS_NONE);
    assert_int_equal(reply_calls_detect("{% if tools %}[AVAILABLE_TOOLS] [TOOL_CALLS]"), M);
    assert_int_equal(reply_thoughts_detect("{% if enable_thinking %}<think></think>"), REPLY_THOUGHTS_QWEN3);
    assert_int_equal(reply_start_of("x<think>\n", 9), REPLY_START_THINKING);
    assert_int_equal(reply_start_of("x<think>\n\n</think>\n\n", 20), REPLY_START_TALKING);
    assert_int_equal(reply_start_of("", 0), REPLY_START_OPEN);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_calls), cmocka_unit_test(test_thoughts), cmocka_unit_test(test_one), cmocka_unit_test(test_cuts), cmocka_unit_test(test_names)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
