/* Chat templates: content parts, special tokens, continued messages, and the golden conversations through chat_render. */
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
#include "tok/chat.h"

enum { NOW = 1721995200 };

static json_t *parse(const char *text)
{
    struct err e;
    json_t *j = json_parse(text, strlen(text), &e);
    if (!j)
        fail_msg("%s: %s", text, e.msg);
    return j;
}

/* Renders messages (JSON text) with a template; *code is the error's, the text is returned (mem_free) or NULL. */
static char *render(const char *source, const char *messages, struct chat_render_opts o, struct err *e)
{
    struct chat *c;
    struct buf out;
    *e = (struct err){0};
    buf_init(&out, 0);
    assert_true(chat_open(&c, NULL, source, strlen(source), "<s>", NULL, "<unk>", e));
    json_t *m = parse(messages);
    o.messages = m;
    o.now_unix = NOW;
    buf_puts(&out, "");
    bool ok = chat_render(c, &o, &out, e);
    json_decref(m);
    chat_close(&c);
    assert_null(c);
    if (ok)
        return buf_take(&out);
    assert_int_equal(out.len, 0);
    buf_free(&out);
    return NULL;
}

static void gives(const char *source, const char *messages, struct chat_render_opts o, const char *expected)
{
    struct err e;
    char *text = render(source, messages, o, &e);
    if (!text)
        fail_msg("%s: %s", source, e.msg);
    assert_string_equal(text, expected);
    mem_free(text);
}

static void fails(const char *source, const char *messages, struct chat_render_opts o, enum err_code code, const char *part)
{
    struct err e;
    char *text = render(source, messages, o, &e);
    if (text || e.code != code || !strstr(e.msg, part))
        fail_msg("%s: '%s', %s", source, text ? text : e.msg, err_code_name(e.code));
}

#define OPTS(...) ((struct chat_render_opts){__VA_ARGS__})
#define PLAIN "{{ bos_token }}{{ eos_token }}{% for m in messages %}[{{ m.role }}:{{ m.content }}]{% endfor %}{% if add_generation_prompt %}>{% endif %}"
#define LOOPS "{% for m in messages %}{% if m.content is string %}{{ m.content }}{% else %}{% for p in m['content'] %}({{ p.type }} {{ p.text }}){% endfor %}{% endif %}{% endfor %}"
#define PARTS "[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\"},{\"type\":\"input_text\",\"text\":\"b\"}]}]"

static void variables(void **state)
{
    (void)state;
    gives(PLAIN, "[{\"role\":\"user\",\"content\":\"hi\"}]", OPTS(.add_generation_prompt = true), "<s>[user:hi]>");
    gives(PLAIN, "[]", OPTS(0), "<s>");
    gives("{{ tools is none }}{{ documents is none }}{{ pad_token is defined }}{{ unk_token }}", "[]", OPTS(0), "TrueTrueFalse<unk>");
    json_t *kw = parse("{\"enable_thinking\":false,\"bos_token\":\"B\"}"), *tools = parse("[{\"name\":\"f\"}]");
    gives("{{ enable_thinking }}{{ bos_token }}{{ tools | length }}{{ tools[0].name }}", "[]", OPTS(.kwargs = kw, .tools = tools), "FalseB1f");
    json_decref(kw);
    kw = parse("{\"messages\":[]}");
    fails("x", "[]", OPTS(.kwargs = kw), ERR_INVALID, "'messages'");
    json_decref(kw);
    json_decref(tools);
    gives("{{ strftime_now('%d %b %Y') }}", "[]", OPTS(0), "26 Jul 2024");
    fails("{{ raise_exception('roles must alternate') }}", "[]", OPTS(0), ERR_INVALID, "roles must alternate");
    fails("x", "{}", OPTS(0), ERR_INVALID, "must be an array");
    fails("x", "[1]", OPTS(0), ERR_INVALID, "messages[0] must be an object");
    struct chat *c;
    struct err e;
    assert_false(chat_open(&c, NULL, NULL, 0, NULL, NULL, NULL, &e));
    assert_int_equal(e.code, ERR_NOT_FOUND);
    assert_false(chat_open(&c, NULL, "{{", 2, NULL, NULL, NULL, &e));
    assert_int_equal(e.code, ERR_INVALID);
    assert_null(c);
}

static void content_parts(void **state)
{
    (void)state;
    gives(PLAIN, PARTS, OPTS(0), "<s>[user:a\nb]");
    gives(LOOPS, PARTS, OPTS(0), "(text a)(text b)");
    gives("{% macro show(c) %}{% for p in c %}<{{ p.text }}>{% endfor %}{% endmacro %}{% for m in messages[0:] %}{{ show(m.content) }}{% endfor %}", PARTS, OPTS(0), "<a><b>");
    gives("{% set all = messages %}{% for m in all %}{% set c = m.get('content') %}{% for p in c %}<{{ p.text }}>{% endfor %}{% endfor %}", PARTS, OPTS(0), "<a><b>");
    gives("{% for m in messages %}{% for t in m.tool_calls %}{% endfor %}{{ m.content }}{% endfor %}", PARTS, OPTS(0), "a\nb");
    gives(PLAIN, "[{\"role\":\"user\",\"content\":[]}]", OPTS(0), "<s>[user:]");
    gives(PLAIN, "[{\"role\":\"user\",\"content\":[\"x\",{\"text\":\"y\"}]}]", OPTS(0), "<s>[user:x\ny]");
    fails(PLAIN, "[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\",\"image_url\":{}}]}]", OPTS(0), ERR_UNSUPPORTED, "'image_url'");
    fails(LOOPS, "[{\"role\":\"user\",\"content\":[{\"type\":\"input_audio\"}]}]", OPTS(0), ERR_UNSUPPORTED, "'input_audio'");
    fails(PLAIN, "[{\"role\":\"user\",\"content\":[{\"type\":\"text\"}]}]", OPTS(0), ERR_INVALID, "string 'text'");
}

static void continued(void **state)
{
    (void)state;
    const struct chat_render_opts go_on = {.continue_final_message = true};
    gives("{% for m in messages %}<{{ m.content }}>{% endfor %}", "[{\"content\":\"q\"},{\"content\":\"the ans\"}]", go_on, "<q><the ans");
    gives("{% for m in messages %}<{{ m.content }}>{% endfor %}", "[{\"content\":\"q\"},{\"content\":\"trail \"}]", go_on, "<q><trail ");
    gives("{% for m in messages %}<{{ m.content | trim }}>{% endfor %}", "[{\"content\":\"q\"},{\"content\":\" trail \"}]", go_on, "<q><trail");
    gives("{% for m in messages %}<{{ m.content }}>{% endfor %}", "[{\"content\":\"a\"},{\"content\":\"a\"}]", go_on, "<a><a");
    gives(LOOPS "#", "[{\"content\":[{\"type\":\"text\",\"text\":\"x\"},{\"type\":\"text\",\"text\":\"last\"}]}]", go_on, "(text x)(text last");
    fails("nothing", "[{\"content\":\"q\"}]", go_on, ERR_INVALID, "does not appear");
    fails("x", "[]", go_on, ERR_INVALID, "no text to continue");
    fails("x", "[{\"role\":\"assistant\",\"content\":null}]", go_on, ERR_INVALID, "no text to continue");
    fails("x", "[{\"content\":\"x\"}]", OPTS(.continue_final_message = true, .add_generation_prompt = true), ERR_INVALID, "exclude");
}

/* The golden conversations without content parts, through chat_open and chat_render. */
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
    size_t i, n = 0;
    assert_non_null(g);
    json_array_foreach(json_object_get(g, "cases"), i, cas) {
        const char *name = json_string_value(json_object_get(cas, "conversation"));
        const json_t *conv = json_object_get(json_object_get(g, "conversations"), name), *tools = json_object_get(conv, "tools");
        if (strcmp(name, "content_parts") == 0)
            continue;
        size_t len;
        snprintf(path, sizeof path, "%s/%s", dir, json_string_value(json_object_get(cas, "template")));
        char *source = file_read(path, 1 << 20, &len, &e);
        struct chat *c;
        struct buf out;
        buf_init(&out, 0);
        assert_true(chat_open(&c, NULL, source, len, json_string_value(json_object_get(cas, "bos_token")),
                              json_string_value(json_object_get(cas, "eos_token")), "<unk>", &e));
        bool ok = chat_render(c, &OPTS(.messages = json_object_get(conv, "messages"), .tools = json_is_null(tools) ? NULL : tools,
                                       .kwargs = json_object_get(conv, "kwargs"), .now_unix = NOW,
                                       .add_generation_prompt = json_is_true(json_object_get(conv, "add_generation_prompt"))), &out, &e);
        const char *expected = json_string_value(json_object_get(cas, "expected"));
        if (ok != (expected != NULL) || (ok && strcmp(out.data ? out.data : "", expected) != 0))
            fail_msg("%s / %s: %s", path, name, ok ? out.data : e.msg);
        buf_free(&out);
        chat_close(&c);
        mem_free(source);
        n++;
    }
    json_decref(g);
    assert_true(n > 300);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(variables), cmocka_unit_test(content_parts), cmocka_unit_test(continued),
                                       cmocka_unit_test(golden)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
