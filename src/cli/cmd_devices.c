/* quire devices: what was detected. */
#include <stdio.h>
#include "base/json.h"
#include "base/topo.h"
#include "base/tpool.h"
#include "bench/probe.h"
#include "cli/cli.h"
#include "kern/cpu.h"

static json_t *devices_json(const struct topo *t, double read_gb_s)
{
    int n;
    const char *const *features = kern_cpu_features(&n);
    json_t *isa = json_array(), *numa = json_array();
    for (int i = 0; i < n; i++)
        json_array_append_new(isa, json_string(features[i]));
    for (int i = 0; i < t->n_numa; i++)
        json_array_append_new(numa, json_pack("{s:i,s:i,s:I}", "id", t->numa[i].id, "cores", t->numa[i].n_cores,
                                              "memory_bytes", (json_int_t)t->numa[i].memory_bytes));
    json_t *cpu = json_pack("{s:s,s:o,s:s,s:i,s:i,s:o,s:I,s:I,s:I,s:I,s:f}", "model", t->cpu_model, "isa", isa, "kernels",
                            kern_isa_name(kern_isa_best()), "cores", t->n_cores, "threads", t->n_pus, "numa", numa,
                            "memory_bytes", (json_int_t)t->memory_bytes, "l1d_bytes", (json_int_t)t->l1d_bytes, "l2_bytes",
                            (json_int_t)t->l2_bytes, "l3_bytes", (json_int_t)t->l3_bytes, "read_gb_s", read_gb_s);
    return json_pack("{s:o,s:[],s:[]}", "cpu", cpu, "cuda", "hpu");
}

static void devices_print(const struct topo *t, double read_gb_s)
{
    int n;
    const char *const *features = kern_cpu_features(&n);
    printf("CPU      %s\n", t->cpu_model);
    printf("cores    %d (%d hardware threads), %d NUMA node%s\n", t->n_cores, t->n_pus, t->n_numa, t->n_numa == 1 ? "" : "s");
    printf("caches   L1d %zu KiB, L2 %zu KiB, L3 %zu KiB\n", t->l1d_bytes >> 10, t->l2_bytes >> 10, t->l3_bytes >> 10);
    printf("memory   %.1f GiB, read at %.1f GB/s\n", (double)t->memory_bytes / (1 << 30), read_gb_s);
    printf("kernels  %s (", kern_isa_name(kern_isa_best()));
    for (int i = 0; i < n; i++)
        printf("%s%s", i ? " " : "", features[i]);
    printf(")\nGPUs     none supported by this build\n");
}

int cmd_devices(int argc, char **argv)
{
    bool json = false;
    const struct cli_opt opts[] = {
        {"json", 0, CLI_FLAG, &json, NULL, "one JSON object on stdout", 0, 0},
        {0},
    };
    const struct cli_opt *const tables[] = {opts, NULL};
    const struct cli_cmd cmd = {"devices", "quire devices [--json]",
                                "Prints the CPU, its instruction sets, cores, memory and measured read bandwidth.", tables, 0, 0};
    const char *args[1];
    int n_args;
    bool done;
    int status = cli_parse(&cmd, argc, argv, args, &n_args, &done);
    if (done)
        return status;

    struct err e;
    struct topo t;
    struct tpool *tp = NULL;
    double read_gb_s = 0;
    if (!topo_detect(&t, &e) || !tpool_open(&tp, &(struct tpool_opts){.n_threads = 0, .spin_us = -1}, &e))
        return cli_error(&cmd, &e);
    bool ok = probe_read_gb_s(tp, 500, &read_gb_s, &e);
    tpool_close(&tp);
    if (!ok)
        return cli_error(&cmd, &e);
    if (!json) {
        devices_print(&t, read_gb_s);
        return CLI_OK;
    }
    json_t *j = devices_json(&t, read_gb_s);
    struct buf b;
    buf_init(&b, 0);
    ok = j && json_write(j, &b) && buf_putc(&b, '\n');
    if (ok)
        fputs(b.data, stdout);
    json_decref(j);
    buf_free(&b);
    return ok ? CLI_OK : CLI_FAILED;
}
