/* quire bench startup: a server of our own, started again and again, with an empty and with a filled packed-weight cache. */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "bench/context.h"
#include "bench/startup.h"
#include "cli/cli.h"

enum { MAX_RUNS = 100 };

struct startup {
    struct cli_engine_flags flags;
    int32_t input_len, vocab, n_runs;
    double timeout;
    bool json, cold;
    char dir[4096];      /* of the packed weights, made here; empty: none */
};

static bool run_once(struct startup *s, const char *model, struct bench_startup_times *t, uint64_t seed, struct err *e)
{
    struct bench_server server = {.fd = -1};
    int64_t start = clock_now_us();
    bool ok = cli_child_serve(&server, &s->flags, model, NULL, s->timeout, e) &&
              bench_startup_ask(server.url, start, s->input_len, s->vocab, seed, s->timeout, t, e);
    bench_server_stop(&server);
    return ok;
}

/* Only what the server wrote: plain files of a folder that nobody else knows. */
static void empty_dir(const char *dir)
{
    DIR *d = opendir(dir);
    struct dirent *entry;
    while (d && (entry = readdir(d))) {
        char *path = entry->d_name[0] == '.' ? NULL : file_join(dir, entry->d_name);
        if (path)
            unlink(path);
        mem_free(path);
    }
    if (d)
        closedir(d);
}

static bool make_dir(struct startup *s, struct err *e)
{
    const char *base = s->flags.packed_cache ? s->flags.packed_cache : getenv("TMPDIR");
    if (s->flags.packed_cache && strcmp(s->flags.packed_cache, "off") == 0)
        return true;
    int n = snprintf(s->dir, sizeof s->dir, "%s/quire-startup-XXXXXX", base && *base ? base : "/tmp");
    if (n >= (int)sizeof s->dir || !mkdtemp(s->dir)) {
        err_set(e, ERR_IO, "%s: %s", s->dir, n >= (int)sizeof s->dir ? "too long" : strerror(errno));
        s->dir[0] = '\0';
        return false;
    }
    s->flags.packed_cache = s->dir;
    return true;
}

static void print_times(const char *name, const json_t *t)
{
    printf("%-6s /health after %8.1f ms, first token after %8.1f ms (%.1f ms of them the request)\n", name,
           1e3 * json_number_value(json_object_get(t, "health_s")), 1e3 * json_number_value(json_object_get(t, "first_token_s")),
           1e3 * json_number_value(json_object_get(t, "ttft_s")));
}

/* n_runs servers; a cold one finds no packed weights. */
static json_t *measure(struct startup *s, const char *model, bool cold, struct err *e)
{
    struct bench_startup_times t[MAX_RUNS];
    for (int i = 0; i < s->n_runs; i++) {
        if (cold && s->dir[0])
            empty_dir(s->dir);
        if (!run_once(s, model, &t[i], (uint64_t)s->flags.seed + (uint64_t)i, e))
            return NULL;
    }
    json_t *j = bench_startup_json(t, s->n_runs);
    if (!j)
        err_set(e, ERR_NOMEM, "out of memory");
    else if (!s->json)
        print_times(cold ? "cold" : "warm", j);
    return j;
}

static bool run(struct startup *s, const char *model, struct err *e)
{
    json_t *cold = NULL, *warm = NULL;
    if (!make_dir(s, e))
        return false;
    bool ok = (!s->cold || (cold = measure(s, model, true, e)));
    /* Without cold runs the first one fills the cache and is not counted. */
    ok = ok && (s->cold || run_once(s, model, &(struct bench_startup_times){0}, (uint64_t)s->flags.seed, e));
    ok = ok && (warm = measure(s, model, false, e));
    if (ok && s->json) {
        json_t *all = json_pack("{s:O?,s:O,s:i}", "cold", cold, "warm", warm, "input_len", (int)s->input_len);
        ok = all && json_dumpf(all, stdout, JSON_COMPACT | JSON_REAL_PRECISION(7)) == 0 && putchar('\n') != EOF && fflush(stdout) == 0;
        if (!ok)
            err_set(e, ERR_IO, "the result could not be written");
        json_decref(all);
    }
    json_decref(cold);
    json_decref(warm);
    if (s->dir[0]) {
        empty_dir(s->dir);
        rmdir(s->dir);
    }
    return ok;
}

int cmd_bench_startup(int argc, char **argv)
{
    struct startup s = {.input_len = 1, .vocab = 256, .n_runs = 3, .timeout = 600, .cold = true};
    struct cli_opt engine_table[CLI_ENGINE_OPTS];
    cli_engine_flags_default(&s.flags);
    cli_engine_table(&s.flags, engine_table);
    const struct cli_opt opts[] = {
        {"num-iters", 0, CLI_INT, &s.n_runs, "N", "servers started, cold and warm each", 1, MAX_RUNS},
        {"input-len", 0, CLI_INT, &s.input_len, "N", "prompt tokens of the first request", 1, 1 << 24},
        {"random-vocab", 0, CLI_INT, &s.vocab, "N", "token ids are below it", 1, INT32_MAX},
        {"cold", 0, CLI_FLAG, &s.cold, NULL, "also measure without packed weights", 0, 0},
        {"timeout", 0, CLI_F64, &s.timeout, "S", "seconds until a server must listen and answer", 1, 1e6},
        {"json", 0, CLI_FLAG, &s.json, NULL, "one JSON object on stdout", 0, 0},
        {0},
    };
    const struct cli_opt *const tables[] = {opts, engine_table, NULL};
    const struct cli_cmd cmd = {"bench startup", "quire bench startup [MODEL] [options]",
                                "Starts `quire serve` with these engine options again and again and reports the time until /health is answered and until\n"
                                "the first token of a first request: cold (weights are packed) and warm (packed weights are mapped).  They are kept in a\n"
                                "temporary folder, in --packed-cache DIR if given.  The checkpoint's files are as the system caches them.", tables, 0, 1};
    const char *args[1];
    int n_args;
    bool done;
    int status = cli_parse(&cmd, argc, argv, args, &n_args, &done);
    if (!done) {
        struct err e;
        status = run(&s, n_args ? args[0] : NULL, &e) ? CLI_OK : cli_error(&cmd, &e);
    }
    return status;
}
