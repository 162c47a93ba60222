/* Templates of any kind, rendered with small limits: template text, then optionally a NUL and a JSON object of variables. */
#include <stddef.h>
#include <string.h>
#include "base/json.h"
#include "tok/jinja.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

static const char VARS[] = "{\"i\":7,\"f\":2.5,\"s\":\"Hello \\u65e5\",\"l\":[3,1,2],\"d\":{\"a\":1,\"b\":[true,null]},\"add_generation_prompt\":true,"
                           "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"},{\"role\":\"assistant\",\"content\":\"yo\"}]}";

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    const char *text = (const char *)data, *nul = size ? memchr(text, 0, size) : NULL;
    size_t len = nul ? (size_t)(nul - text) : size;
    struct err e;
    struct jinja *j;
    if (!jinja_compile(&j, text, len, &e))
        return 0;
    const struct jinja_limits limits = {.max_steps = 50000, .max_output = 1 << 20, .max_memory = 16 << 20, .max_depth = 40};
    json_t *vars = nul ? json_parse(nul + 1, size - len - 1, NULL) : NULL;
    if (!vars)
        vars = json_parse(VARS, sizeof VARS - 1, NULL);
    struct buf out;
    buf_init(&out, 0);
    jinja_render(j, vars, 1721995200, &limits, &out, &e);
    buf_free(&out);
    json_decref(vars);
    jinja_free(&j);
    return 0;
}
