/* Which CPUs this process may use: affinity mask, core siblings and control-group limits,
 * read directly because the compute team needs them without the cost of a full discovery. */
#include <limits.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/mem.h"
#include "base/topo_int.h"

enum { MAX_CPUS = 8192 }; /* the largest kernel mask on x86-64 */

/* The lowest-numbered hardware thread of cpu's core: names the core. */
static int core_of(int cpu)
{
    char path[96];
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", cpu);
    char *text = file_read(path, 4096, NULL, NULL);
    char *end = text;
    long first = text ? strtol(text, &end, 10) : cpu;
    if (end == text || first < 0 || first > cpu)
        first = cpu;
    mem_free(text);
    return (int)first;
}

bool topo_cpus_read(struct topo_cpus *c)
{
    *c = (struct topo_cpus){0};
    size_t set_bytes = CPU_ALLOC_SIZE(MAX_CPUS);
    cpu_set_t *set = mem_try_zalloc(1, set_bytes);
    struct hash_u64 *seen = hash_u64_open(64);
    int *siblings = NULL, n_siblings = 0, n_max = 0;
    if (!set || !seen)
        goto fail;
    if (sched_getaffinity(0, set_bytes, set) != 0)
        CPU_SET_S(0, set_bytes, set);
    n_max = CPU_COUNT_S(set_bytes, set);
    c->cpus = mem_try_alloc((size_t)n_max, sizeof *c->cpus);
    siblings = mem_try_alloc((size_t)n_max, sizeof *siblings);
    if (!c->cpus || !siblings)
        goto fail;
    for (int cpu = 0; cpu < MAX_CPUS; cpu++) {
        if (!CPU_ISSET_S((size_t)cpu, set_bytes, set))
            continue;
        uint64_t core = (uint64_t)core_of(cpu);
        if (hash_u64_get(seen, core, NULL))
            siblings[n_siblings++] = cpu;
        else if (hash_u64_put(seen, core, cpu))
            c->cpus[c->n_cores++] = cpu;
        else
            goto fail;
    }
    memcpy(c->cpus + c->n_cores, siblings, (size_t)n_siblings * sizeof *siblings);
    c->n_pus = c->n_cores + n_siblings;
    mem_free(siblings);
    hash_u64_close(&seen);
    mem_free(set);
    return true;
fail:
    mem_free(c->cpus);
    *c = (struct topo_cpus){0};
    mem_free(siblings);
    hash_u64_close(&seen);
    mem_free(set);
    return false;
}

/* Whether the comma list of v1 controllers list[0..n) names this one. */
static bool lists(const char *list, size_t n, const char *name)
{
    size_t len = strlen(name);
    for (size_t i = 0; i + len <= n; i++)
        if (memcmp(list + i, name, len) == 0 && (i == 0 || list[i - 1] == ',') && (i + len == n || list[i + len] == ','))
            return true;
    return false;
}

typedef void group_fn(const char *folder, bool v2, void *arg);

/* Calls fn for root + group and every folder above it up to root. */
static void walk_up(const char *root, const char *group, size_t n, bool v2, group_fn *fn, void *arg)
{
    char path[PATH_MAX];
    size_t n_root = strlen(root);
    if (n_root + n >= sizeof path)
        return;
    memcpy(path, root, n_root);
    memcpy(path + n_root, group, n);
    path[n_root + n] = '\0';
    if (strstr(path + n_root, "..")) /* outside of our namespace: only its root is visible */
        path[n_root] = '\0';
    for (;;) {
        size_t len = strlen(path);
        while (len > n_root && path[len - 1] == '/')
            path[--len] = '\0';
        fn(path, v2, arg);
        if (len <= n_root)
            return;
        while (len > n_root && path[len - 1] != '/')
            path[--len] = '\0';
    }
}

/* Lines are "0::/group" (version 2) and "N:controller,controller:/group" (version 1, where
 * each controller has a folder of its own under the root). */
static void each_group(const char *proc_cgroup, const char *fs_root, const char *controller, group_fn *fn, void *arg)
{
    char v1_root[PATH_MAX];
    int printed = snprintf(v1_root, sizeof v1_root, "%s/%s", fs_root, controller);
    for (const char *line = proc_cgroup; *line;) {
        size_t len = strcspn(line, "\n");
        const char *list = memchr(line, ':', len);
        const char *group = list ? memchr(list + 1, ':', len - (size_t)(list + 1 - line)) : NULL;
        if (group) {
            size_t n_list = (size_t)(group - ++list), n_group = len - (size_t)(++group - line);
            if (n_list == 0)
                walk_up(fs_root, group, n_group, true, fn, arg);
            else if (lists(list, n_list, controller) && printed > 0 && (size_t)printed < sizeof v1_root)
                walk_up(v1_root, group, n_group, false, fn, arg);
        }
        line += len + (line[len] == '\n');
    }
}

/* Up to two numbers of a file such as "max 100000"; "max" is -1, as version 1 writes it. */
static int read_numbers(const char *folder, const char *name, long long out[2])
{
    char *path = file_join(folder, name);
    char *text = path ? file_read(path, 4096, NULL, NULL) : NULL;
    int n = 0;
    for (char *at = text; at && n < 2; n++) {
        at += strspn(at, " \t\n");
        if (strncmp(at, "max", 3) == 0) {
            out[n] = -1;
            at += 3;
            continue;
        }
        char *end;
        out[n] = strtoll(at, &end, 10);
        if (end == at)
            break;
        at = end;
    }
    mem_free(text);
    mem_free(path);
    return n;
}

static void visit_memory(const char *folder, bool v2, void *arg)
{
    size_t *limit = arg;
    long long v[2];
    if (read_numbers(folder, v2 ? "memory.max" : "memory.limit_in_bytes", v) < 1 || v[0] < 0)
        return;
    /* Version 1 says "none" with the largest number of whole pages. */
    if (v[0] < LLONG_MAX - (1 << 20) && (size_t)v[0] < *limit)
        *limit = (size_t)v[0];
}

size_t topo_cgroup_memory(const char *proc_cgroup, const char *fs_root)
{
    size_t limit = SIZE_MAX;
    each_group(proc_cgroup, fs_root, "memory", visit_memory, &limit);
    return limit;
}

static void visit_cpu(const char *folder, bool v2, void *arg)
{
    int *cpus = arg;
    long long v[2], period[2];
    if (v2) {
        if (read_numbers(folder, "cpu.max", v) < 2)
            return;
    } else {
        if (read_numbers(folder, "cpu.cfs_quota_us", v) < 1 || read_numbers(folder, "cpu.cfs_period_us", period) < 1)
            return;
        v[1] = period[0];
    }
    if (v[0] <= 0 || v[1] <= 0)
        return;
    long long n = v[0] / v[1] + (v[0] % v[1] != 0);
    if (n <= INT_MAX && (*cpus == 0 || n < *cpus))
        *cpus = (int)n;
}

int topo_cgroup_cpus(const char *proc_cgroup, const char *fs_root)
{
    int cpus = 0;
    each_group(proc_cgroup, fs_root, "cpu", visit_cpu, &cpus);
    return cpus;
}

int topo_cpu_quota(void)
{
    char *text = file_read("/proc/self/cgroup", 1 << 16, NULL, NULL);
    int cpus = text ? topo_cgroup_cpus(text, "/sys/fs/cgroup") : 0;
    mem_free(text);
    return cpus;
}
