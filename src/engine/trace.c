/* Chrome trace of steps and kernels (chrome://tracing, Perfetto): the trace event format's "X" events. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "base/clock.h"
#include "base/mem.h"
#include "engine/engine_int.h"

struct trace {
    FILE *file;
    struct dev *dev;
    int64_t start_ns;
    bool first;
};

static void put(struct trace *t, const char *name, int tid, int64_t start_ns, int64_t end_ns, const char *args)
{
    fprintf(t->file, "%s{\"name\":\"%s\",\"ph\":\"X\",\"pid\":1,\"tid\":%d,\"ts\":%.3f,\"dur\":%.3f,\"args\":{%s}}", t->first ? "" : ",\n",
            name, tid, (double)(start_ns - t->start_ns) / 1e3, (double)(end_ns - start_ns) / 1e3, args);
    t->first = false;
}

static void on_kernels(void *ctx, const struct dev_trace_event *ev, int n)
{
    struct trace *t = ctx;
    for (int i = 0; i < n; i++) {
        char args[48];
        snprintf(args, sizeof args, "\"layer\":%d", ev[i].layer);
        put(t, ev[i].op, ev[i].member + 1, ev[i].start_ns, ev[i].end_ns, args);
    }
}

bool trace_open(struct trace **out, const char *path, struct dev *d, struct err *e)
{
    struct trace *t = mem_try_zalloc(1, sizeof *t);
    *out = NULL;
    if (!t)
        return err_set(e, ERR_NOMEM, "out of memory");
    t->file = fopen(path, "w");
    if (!t->file) {
        mem_free(t);
        return err_set(e, ERR_IO, "cannot write the profile %s: %s", path, strerror(errno));
    }
    t->dev = d;
    t->start_ns = clock_now_ns();
    t->first = true;
    fputs("[\n", t->file);
    dev_set_trace(d, on_kernels, t);
    *out = t;
    return true;
}

void trace_close(struct trace **pt)
{
    struct trace *t = *pt;
    if (!t)
        return;
    *pt = NULL;
    dev_set_trace(t->dev, NULL, NULL);
    fputs("\n]\n", t->file);
    fclose(t->file);
    mem_free(t);
}

void trace_step(struct trace *t, const char *what, int64_t start_ns, int64_t end_ns, int32_t n_tokens, int32_t n_seqs)
{
    char args[64];
    snprintf(args, sizeof args, "\"tokens\":%d,\"sequences\":%d", n_tokens, n_seqs);
    put(t, what, 0, start_ns, end_ns, args);
}
