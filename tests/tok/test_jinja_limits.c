/* No template may run for ever, eat memory or overflow the stack; every refusal is an error that names the line. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>
#include "base/buf.h"
#include "base/clock.h"
#include "base/mem.h"
#include "tok/jinja.h"

static const struct jinja_limits SMALL = {.max_steps = 500000, .max_output = 1 << 20, .max_memory = 16 << 20, .max_depth = 50};

/* Compiles and renders; the error's code, or ERR_OK. */
static enum err_code try_template(const char *source, size_t len, const struct jinja_limits *limits, char *msg, size_t cap, struct buf *out)
{
    struct err e = {0};
    struct jinja *j;
    bool ok = jinja_compile(&j, source, len, &e);
    if (ok) {
        size_t before = out->len;
        ok = jinja_render(j, NULL, 0, limits, out, &e);
        if (!ok)
            assert_int_equal(out->len, before);
        jinja_free(&j);
    }
    snprintf(msg, cap, "%s", ok ? "" : e.msg);
    return ok ? ERR_OK : e.code;
}

static void refused(const char *source, enum err_code code, const char *part)
{
    char msg[600];
    struct buf out;
    buf_init(&out, 0);
    int64_t start = clock_now_us();
    enum err_code got = try_template(source, strlen(source), &SMALL, msg, sizeof msg, &out);
    if (got != code || !strstr(msg, part))
        fail_msg("%.100s: code %s, message '%s'", source, err_code_name(got), msg);
    if (!strstr(msg, "line "))
        fail_msg("%.100s: no line in '%s'", source, msg);
    assert_true(clock_now_us() - start < 60 * 1000000);
    buf_free(&out);
}

static void hostile_templates(void **state)
{
    (void)state;
    static const char *const large[] = {
        "{{ range(10**12) | list }}",
        "{{ 'a' * 10**9 }}",
        "{{ 'ab' * 10**18 }}",
        "{{ [1] * 10**9 }}",
        "{{ [[1] * 1000] * 100000 }}{{ 1 }}",
        "{% set ns = namespace(l=[1]) %}{% for i in range(60) %}{% set ns.l = ns.l + ns.l %}{% endfor %}",
        "{% set ns = namespace(s='ab') %}{% for i in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
        "{% set ns = namespace(s='ab') %}{% for i in range(60) %}{% set ns.s = ns.s.replace('a', 'aaaaaaaa') %}{% endfor %}",
        "{% for a in range(100000) %}{% for b in range(100000) %}{% for c in range(100000) %}{% endfor %}{% endfor %}{% endfor %}",
        "{% for a in range(100000) %}xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx{% endfor %}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}{% if true %}{{ a() }}{% endif %}{% endmacro %}{{ a() }}",
        "{% for x in [[]] recursive %}{{ loop([[1]]) }}{% endfor %}",
        "{{ '%99999999999d' % 1 }}",
        "{{ '%*d' % (1000000000, 1) }}",
        "{{ '%.99999999f' % 1.5 }}",
        "{{ '{:999999999}'.format(1) }}",
        "{{ '{:.99999999f}'.format(1.5) }}",
        "{{ 'a'.ljust(10**10) }}",
        "{{ 'a'.center(10**15) }}",
        "{{ 'a' | center(10**10) }}",
        "{{ '1'.zfill(10**12) }}",
        "{{ 'a\\nb' | indent(10**10) }}",
        "{{ '\\t'.expandtabs(10**12) }}",
        "{{ [1] | batch(10**9, 0) | list }}",
        "{{ [1] | slice(10**9) | list }}",
        "{{ {'a': [1]} | tojson(indent=10**9) }}",
        "{% set ns = namespace() %}{% set ns.n = ns %}{{ ns }}",
        "{% set ns = namespace(l=[]) %}{% for i in range(3000) %}{% set ns.l = [ns.l] %}{% endfor %}{{ ns.l }}",
        "{% set ns = namespace(l=[]) %}{% for i in range(3000) %}{% set ns.l = [ns.l] %}{% endfor %}{{ ns.l | tojson }}",
        "{% set ns = namespace(a=[], b=[]) %}{% for i in range(3000) %}{% set ns.a = [ns.a] %}{% set ns.b = [ns.b] %}{% endfor %}{{ ns.a == ns.b }}",
        "{% set ns = namespace(g=[1, 2]) %}{% for i in range(3000) %}{% set ns.g = ns.g | map('string') %}{% endfor %}{{ ns.g | list }}",
        "{% set s = 'a' * 100000 %}{% for i in range(100000) %}{{ 'b' in s and 1 }}{% endfor %}",
        "{% set s = 'a' * 100000 %}{% for i in range(100000) %}{{ s.rfind('ba') and '' }}{{ s.split('a') and '' }}{% endfor %}",
        "{% set s = 'é' * 100000 %}{% for i in range(100000) %}{{ s[99999] and '' }}{% endfor %}",
        "{% set l = range(5000) | list %}{% for i in l %}{{ '' if l == l + [i] }}{{ -1 in l and '' }}{% endfor %}",
        "{% set a = 'x' * 10000 %}{% for i in range(100000) %}{% set b = a ~ 'y' %}{% endfor %}",
    };
    for (size_t i = 0; i < sizeof large / sizeof *large; i++)
        refused(large[i], ERR_TOO_LARGE, "");
    refused("a\n\n{{ 9223372036854775807 + 1 }}", ERR_INVALID, "line 3: the integer result does not fit 64 bits");
    refused("{{ 2 ** 64 }}", ERR_INVALID, "64 bits");
    refused("{{ -9223372036854775807 - 2 }}", ERR_INVALID, "64 bits");
    refused("{{ (-9223372036854775807 - 1) // -1 }}", ERR_INVALID, "64 bits");
    refused("{{ ((-9223372036854775807 - 1) | abs) }}", ERR_INVALID, "64 bits");
    refused("{{ 99999999999999999999 }}", ERR_INVALID, "64 bits");
    refused("x\n{% for x in y.z.w %}\n{% endfor %}", ERR_INVALID, "line 2: 'y' is undefined");
    refused("x\n\n{{ 'a' + \n 1 }}", ERR_INVALID, "can only concatenate str");
    refused("\n{% include 'x' %}", ERR_INVALID, "line 2: 'include' is not supported");
    refused("{% if true %}\n{% for x in [] %}\n", ERR_INVALID, "line 2: the block that starts here has no end: 'endfor'");
}

/* prefix, n times unit, middle, n times closing unit. */
static enum err_code nested(const char *head, const char *unit, const char *mid, const char *close, const char *tail, size_t n)
{
    struct buf b, out;
    char msg[600];
    buf_init(&b, 0);
    buf_init(&out, 0);
    buf_puts(&b, head);
    for (size_t i = 0; i < n; i++)
        buf_puts(&b, unit);
    buf_puts(&b, mid);
    for (size_t i = 0; i < n; i++)
        buf_puts(&b, close);
    buf_puts(&b, tail);
    enum err_code code = try_template(b.data, b.len, NULL, msg, sizeof msg, &out);
    buf_free(&b);
    buf_free(&out);
    return code;
}

static void deep_nesting(void **state)
{
    (void)state;
    static const struct { const char *head, *unit, *mid, *close, *tail; } shapes[] = {
        {"{{ ", "(", "1", ")", " }}"}, {"{{ ", "[", "1", "]", " }}"}, {"{{ ", "{1:", "1", "}", " }}"}, {"{{ ", "not ", "1", "", " }}"},
        {"{{ ", "-", "1", "", " }}"}, {"{{ ", "l[", "1", "]", " }}"}, {"{{ ", "f(", "1", ")", " }}"}, {"{{ ", "1 if 1 else ", "1", "", " }}"},
        {"{{ 1", "|default(1", "", ")", " }}"}, {"", "{% if 1 %}", "x", "{% endif %}", ""}, {"", "{% for x in [1] %}", "x", "{% endfor %}", ""},
        {"", "{% macro m() %}", "x", "{% endmacro %}", ""}, {"", "{% set x %}", "x", "{% endset %}", ""}, {"", "{% filter upper %}", "x", "{% endfilter %}", ""},
        {"{{ 1", " + 1", "", "", " }}"}, {"{{ x", ".a", "", "", " }}"}, {"{{ 1", " | string", "", "", " }}"}, {"{{ 1", " and 1", "", "", " }}"},
        {"{% if 0 %}", "{% elif 0 %}", "", "", "{% endif %}"}, {"{{ 1", " ~ 1", "", "", " }}"}, {"{{ 1", " < 2", "", "", " }}"},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (size_t n = 50; n <= 50000; n *= 10) {
            enum err_code code = nested(shapes[i].head, shapes[i].unit, shapes[i].mid, shapes[i].close, shapes[i].tail, n);
            assert_true(code == ERR_OK || code == ERR_INVALID || code == ERR_TOO_LARGE);
        }
    assert_int_equal(nested("{{ ", "(", "1", ")", " }}", 60), ERR_OK);
    assert_int_equal(nested("", "{% if 1 %}", "x", "{% endif %}", "", 60), ERR_OK);
    assert_int_equal(nested("{{ 1", " + 1", "", "", " }}", 300), ERR_OK);
    assert_int_equal(nested("{{ ", "(", "1", ")", " }}", 50000), ERR_INVALID);
}

/* Real work well inside the default limits must pass: long conversations, texts grown step by step. */
static void large_but_fair(void **state)
{
    (void)state;
    static const char source[] =
        "{% set ns = namespace(s='') %}{% for m in range(20000) %}{% set ns.s = ns.s + 'a line of text that is added\\n' %}{% endfor %}"
        "{% for line in ns.s.split('\\n') %}{{ line | trim | replace('a', 'b') }}{% endfor %}{{ ns.s | length }}";
    char msg[600];
    struct buf out;
    buf_init(&out, 0);
    enum err_code code = try_template(source, strlen(source), NULL, msg, sizeof msg, &out);
    if (code != ERR_OK)
        fail_msg("%s", msg);
    assert_true(out.len > 500000);
    assert_memory_equal(out.data + out.len - 6, "580000", 6);
    buf_free(&out);
}

/* Every allocation of compiling and rendering may fail; nothing leaks and nothing but an error comes of it. */
static void no_memory(void **state)
{
    (void)state;
    static const char source[] = "{% macro m(a, b=2) %}{{ a }}{{ caller() }}{% endmacro %}{% for x in [3, 1, 2] | sort if x > 1 %}{% call m(x) %}{{ loop.index }}"
                                 "{% endcall %}{% endfor %}{% set y %}{{ {'a': [1.5, none]} | tojson }}{% endset %}{{ y | upper }}{% if y %}{% set z = 1 %}{% endif %}";
    bool done = false;
    for (long n = 1; !done; n++) {
        struct err e = {0};
        struct jinja *j = NULL;
        struct buf out;
        buf_init(&out, 0);
        mem_fault_after(n);
        bool ok = jinja_compile(&j, source, strlen(source), &e) && jinja_render(j, NULL, 0, NULL, &out, &e);
        done = !mem_fault_fired();
        mem_fault_after(0);
        assert_true(ok || !done);
        assert_true(ok || e.code != ERR_OK);
        if (ok && !done)
            assert_true(out.len > 0);  /* a failure that was made good */
        jinja_free(&j);
        buf_free(&out);
        assert_true(n < 100000);
    }
}

static void bad_text(void **state)
{
    (void)state;
    struct err e;
    struct jinja *j;
    assert_false(jinja_compile(&j, "a\xFF", 2, &e));
    assert_int_equal(e.code, ERR_INVALID);
    assert_null(j);
    assert_true(jinja_compile(&j, "a\0b", 3, &e));  /* a NUL is text like any other */
    struct buf out;
    buf_init(&out, 0);
    assert_true(jinja_render(j, NULL, 0, NULL, &out, &e));
    assert_int_equal(out.len, 3);
    buf_free(&out);
    jinja_free(&j);
    jinja_free(&j);
}

/* One compiled template, many threads. */
struct shared { const struct jinja *j; bool ok; };

static void *render_often(void *arg)
{
    struct shared *s = arg;
    s->ok = true;
    for (int i = 0; i < 20; i++) {
        struct buf out;
        struct err e;
        buf_init(&out, 0);
        s->ok &= jinja_render(s->j, NULL, 0, NULL, &out, &e) && out.len == 34 && memcmp(out.data, "né:1:3|né:2:3|né:3:3|'é' [1.5]", 34) == 0;
        buf_free(&out);
    }
    return NULL;
}

static void threads(void **state)
{
    (void)state;
    static const char source[] = "{% macro m(a, b='né') %}{{ b[:2] }}:{{ a }}:{{ caller() }}{% endmacro %}{% for x in [1, 2, 3] %}{% call m(x) %}{{ loop.length }}"
                                 "{% endcall %}|{% endfor %}{{ '%r' | format('é') }} {{ [1.5] }}";
    struct shared s[4];
    pthread_t t[4];
    struct jinja *j;
    struct err e;
    assert_true(jinja_compile(&j, source, strlen(source), &e));
    for (int i = 0; i < 4; i++) {
        s[i].j = j;
        assert_int_equal(pthread_create(&t[i], NULL, render_often, &s[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(t[i], NULL);
        assert_true(s[i].ok);
    }
    jinja_free(&j);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(hostile_templates), cmocka_unit_test(deep_nesting), cmocka_unit_test(large_but_fair),
                                       cmocka_unit_test(no_memory), cmocka_unit_test(bad_text), cmocka_unit_test(threads)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
