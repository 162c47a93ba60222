/* quire devices: what was detected. */
#include <stdio.h>
#include "base/json.h"
#include "base/topo.h"
#include "bench/probe.h"
#include "cli/cli.h"
#include "dev/dev.h"
#include "kern/cpu.h"

static json_t *devices_json(const struct topo *t, const struct probe *probe)
{
    int n;
    const char *const *features = kern_cpu_features(&n);
    json_t *isa = json_array(), *numa = json_array();
    for (int i = 0; i < n; i++)
        json_array_append_new(isa, json_string(features[i]));
    for (int i = 0; i < t->n_numa; i++)
        json_array_append_new(numa, json_pack("{s:i,s:i,s:I}", "id", t->numa[i].id, "cores", t->numa[i].n_cores,
                                              "memory_bytes", (json_int_t)t->numa[i].memory_bytes));
    json_t *cpu = json_pack("{s:s,s:o,s:s,s:i,s:i,s:o,s:I,s:I,s:I,s:I,s:f,s:f,s:f,s:f}", "model", t->cpu_model, "isa", isa, "kernels",
                            kern_isa_name(kern_isa_best()), "cores", t->n_cores, "threads", t->n_pus, "numa", numa,
                            "memory_bytes", (json_int_t)t->memory_bytes, "l1d_bytes", (json_int_t)t->l1d_bytes, "l2_bytes",
                            (json_int_t)t->l2_bytes, "l3_bytes", (json_int_t)t->l3_bytes, "read_gb_s", probe_rate(probe, PROBE_READ), "f32_gflop_s", probe_rate(probe, PROBE_F32),
                            "bf16_gflop_s", probe_rate(probe, PROBE_BF16), "int8_gop_s", probe_rate(probe, PROBE_INT8));
    return json_pack("{s:o,s:[],s:[]}", "cpu", cpu, "cuda", "hpu");
}

static void devices_print(const struct topo *t, const struct probe *probe)
{
    int n;
    const char *const *features = kern_cpu_features(&n);
    printf("CPU      %s\n", t->cpu_model);
    printf("cores    %d (%d hardware threads), %d NUMA node%s\n", t->n_cores, t->n_pus, t->n_numa, t->n_numa == 1 ? "" : "s");
    printf("caches   L1d %zu KiB, L2 %zu KiB, L3 %zu KiB\n", t->l1d_bytes >> 10, t->l2_bytes >> 10, t->l3_bytes >> 10);
    printf("memory   %.1f GiB, read at %.1f GB/s\n", (double)t->memory_bytes / (1 << 30), probe_rate(probe, PROBE_READ));
    printf("compute  f32 %.0f GFLOP/s, bf16 %.0f GFLOP/s%s, int8 %.0f GOP/s\n", probe_rate(probe, PROBE_F32), probe_rate(probe, PROBE_BF16),
           probe_has_bf16(probe) ? "" : " (as f32)", probe_rate(probe, PROBE_INT8));
    printf("kernels  %s (", kern_isa_name(kern_isa_best()));
    for (int i = 0; i < n; i++)
        printf("%s%s", i ? " " : "", features[i]);
    printf(")\nGPUs     none supported by this build\n");
}

static bool print(const struct topo *t, const struct probe *probe, bool json)
{
    if (!json) {
        devices_print(t, probe);
        return true;
    }
    json_t *j = devices_json(t, probe);
    struct buf b;
    buf_init(&b, 0);
    bool ok = j && json_write(j, &b) && buf_putc(&b, '\n');
    if (ok)
        fputs(b.data, stdout);
    json_decref(j);
    buf_free(&b);
    return ok;
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
                                "Prints the CPU, its instruction sets, cores and memory, and what it can read and compute at most,\n"
                                "measured with all cores.", tables, 0, 0};
    const char *args[1];
    int n_args;
    bool done;
    int status = cli_parse(&cmd, argc, argv, args, &n_args, &done);
    if (done)
        return status;

    struct err e;
    struct topo t;
    struct dev *d = NULL;
    struct probe *probe = NULL;
    if (!topo_detect(&t, &e) || !dev_open(&d, &(struct dev_opts){0}, &e))
        return cli_error(&cmd, &e);
    if (!probe_open(&probe, d, &e)) {
        dev_close(&d);
        return cli_error(&cmd, &e);
    }
    probe_run(probe, 500);
    bool ok = print(&t, probe, json);
    probe_close(&probe);
    dev_close(&d);
    return ok ? CLI_OK : CLI_FAILED;
}
