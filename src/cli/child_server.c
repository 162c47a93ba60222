/* A `quire serve` of this program as a child process, for commands that measure it from outside. */
#include <stdio.h>
#include <stdlib.h>
#include "base/buf.h"
#include "base/mem.h"
#include "bench/context.h"
#include "cli/cli.h"

enum { MAX_SERVER_ARGS = CLI_ENGINE_OPTS + 8 };

static bool write_flag(const struct cli_opt *o, struct buf *text)
{
    buf_printf(text, "--%s=", o->name);
    switch (o->type) {
    case CLI_FLAG: return buf_puts(text, *(const bool *)o->out ? "true" : "false");
    case CLI_STR: return buf_puts(text, *(const char *const *)o->out);
    case CLI_INT: return buf_printf(text, "%d", (int)*(const int32_t *)o->out);
    case CLI_I64: return buf_printf(text, "%lld", (long long)*(const int64_t *)o->out);
    case CLI_F64: return buf_printf(text, "%.17g", *(const double *)o->out);
    case CLI_LIST: break;   /* the engine has no lists */
    }
    return false;
}

/* This program's own `serve`, with all engine options as they were read here: the child's environment says the same or
 * is overruled. */
bool cli_child_serve(struct bench_server *server, const struct cli_engine_flags *flags, const char *model, const char *api_key,
                     double timeout_s, struct err *e)
{
    struct cli_opt table[CLI_ENGINE_OPTS];
    char exe[] = "/proc/self/exe", serve[] = "serve", host[] = "--host=127.0.0.1", port[] = "--port=0", separator[] = "--";
    char *argv[MAX_SERVER_ARGS] = {exe, serve, host, port}, *name = NULL;
    int n = 4, n_fixed = n;
    bool ok = true;
    struct cli_engine_flags copy = *flags;
    cli_engine_table(&copy, table);
    for (const struct cli_opt *o = table; ok && o->name; o++) {
        struct buf text;
        if (o->type == CLI_STR && !*(const char *const *)o->out)
            continue;
        buf_init(&text, 0);
        ok = write_flag(o, &text) && (argv[n] = buf_take(&text)) && ++n;
        if (!ok)
            buf_free(&text);
    }
    int n_flags = n;
    if (model && (name = mem_try_strdup(model))) {
        argv[n++] = separator;
        argv[n++] = name;
    }
    if (!ok || (model && !name))
        ok = err_set(e, ERR_NOMEM, "out of memory");
    unsetenv("QUIRE_CONFIG");   /* it is this command's, and has been read into the options */
    ok = ok && (!api_key || setenv("QUIRE_API_KEY", api_key, 1) == 0 || err_set(e, ERR_NOMEM, "out of memory"));
    ok = ok && bench_server_start(server, argv, timeout_s, e);
    for (int i = n_fixed; i < n_flags; i++)
        mem_free(argv[i]);
    mem_free(name);
    return ok;
}
