/* Templates against recorded renderings: the shared golden set (real chat templates) and tests/data/jinja_cases.json
 * (snippets), both made by Python's Jinja2. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "tok/jinja.h"

enum { NOW = 1721995200 };  /* 2024-07-26 12:00:00 UTC, when the references' clocks stood */

static bool render(const char *source, size_t len, const json_t *vars, struct buf *out, struct err *e)
{
    struct jinja *j;
    if (!jinja_compile(&j, source, len, e))
        return false;
    bool ok = jinja_render(j, vars, NOW, NULL, out, e);
    jinja_free(&j);
    return ok;
}

static void show_diff(const char *what, const char *expected, const char *got, size_t got_len)
{
    size_t i = 0;
    while (i < got_len && expected[i] && expected[i] == got[i])
        i++;
    size_t from = i > 60 ? i - 60 : 0;
    print_message("%s: differs at byte %zu\n  expected ...%.160s\n  got      ...%.*s\n", what, i, expected + from,
                  (int)(got_len - from < 160 ? got_len - from : 160), got ? got + from : "");
}

/* One case; true when it is as expected. */
static bool check(const char *what, const char *source, size_t len, const json_t *vars, const json_t *cas)
{
    struct err e = {0};
    struct buf out;
    buf_init(&out, 0);
    bool ok = render(source, len, vars, &out, &e), good;
    const json_t *expected = json_object_get(cas, "expected");
    if (!expected) {
        good = !ok;
        if (ok)
            print_message("%s: an error is expected (%s), but it rendered: %.200s\n", what, json_string_value(json_object_get(cas, "error")), out.data ? out.data : "");
    } else if (!ok) {
        good = false;
        print_message("%s: %s\n", what, e.msg);
    } else {
        good = out.len == json_string_length(expected) && (out.len == 0 || memcmp(out.data, json_string_value(expected), out.len) == 0);
        if (!good)
            show_diff(what, json_string_value(expected), out.data, out.len);
    }
    buf_free(&out);
    return good;
}

static json_t *golden_vars(const json_t *cas, const json_t *conv)
{
    json_t *vars = json_object();
    const json_t *tools = json_object_get(conv, "tools");
    json_object_set(vars, "messages", json_object_get(conv, "messages"));
    json_object_set(vars, "tools", (json_t *)tools);
    json_object_set_new(vars, "documents", json_null());
    json_object_set(vars, "add_generation_prompt", json_object_get(conv, "add_generation_prompt"));
    json_object_set(vars, "bos_token", json_object_get(cas, "bos_token"));
    json_object_set(vars, "eos_token", json_object_get(cas, "eos_token"));
    json_object_set_new(vars, "unk_token", json_string("<unk>"));
    json_object_update(vars, json_object_get(conv, "kwargs"));
    return vars;
}

static void golden(void **state)
{
    (void)state;
    const char *dir = QUIRE_SOURCE_DIR "/../shared/golden/chat_templates";
    char path[1024];
    struct err e = {0};
    snprintf(path, sizeof path, "%s/golden.json", dir);
    if (!file_exists(path))
        skip();
    json_t *g = json_parse_file(path, 64 << 20, &e), *cas;
    assert_non_null(g);
    size_t i, bad = 0, n = 0;
    json_array_foreach(json_object_get(g, "cases"), i, cas) {
        const char *name = json_string_value(json_object_get(cas, "template")), *conv = json_string_value(json_object_get(cas, "conversation"));
        char what[300];
        size_t len;
        snprintf(path, sizeof path, "%s/%s", dir, name);
        char *source = file_read(path, 1 << 20, &len, &e);
        assert_non_null(source);
        json_t *vars = golden_vars(cas, json_object_get(json_object_get(g, "conversations"), conv));
        snprintf(what, sizeof what, "%s / %s", name, conv);
        bad += !check(what, source, len, vars, cas);
        n++;
        json_decref(vars);
        mem_free(source);
    }
    json_decref(g);
    print_message("%zu of %zu golden renderings differ\n", bad, n);
    assert_true(n > 0);
    assert_int_equal(bad, 0);
}

static void snippets(void **state)
{
    (void)state;
    struct err e = {0};
    json_t *g = json_parse_file(QUIRE_SOURCE_DIR "/tests/data/jinja_cases.json", 16 << 20, &e), *cas;
    if (!g)
        print_message("%s\n", e.msg);
    assert_non_null(g);
    size_t i, bad = 0;
    json_array_foreach(json_object_get(g, "cases"), i, cas) {
        const json_t *src = json_object_get(cas, "source");
        json_t *vars = json_object_get(cas, "vars") ? json_object_get(cas, "vars") : json_object_get(g, "vars");
        bad += !check(json_string_value(src), json_string_value(src), json_string_length(src), vars, cas);
    }
    size_t n = json_array_size(json_object_get(g, "cases"));
    json_decref(g);
    print_message("%zu of %zu snippets differ\n", bad, n);
    assert_true(n > 300);
    assert_int_equal(bad, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(golden), cmocka_unit_test(snippets)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
