#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/file.h"
#include "base/mem.h"
#include "base/topo.h"
#include "base/topo_int.h"

static void this_machine(void **state)
{
    (void)state;
    struct topo t;
    struct err e = {0};
    if (!topo_detect(&t, &e))
        fail_msg("%s", e.msg);
    cpu_set_t set;
    sched_getaffinity(0, sizeof set, &set);
    assert_int_equal(t.n_pus, CPU_COUNT(&set));
    assert_true(t.n_cores >= 1 && t.n_cores <= t.n_pus);
    assert_true(t.n_numa >= 1 && t.n_numa <= TOPO_MAX_NUMA);
    assert_true(t.memory_bytes > (size_t)64 << 20);
    assert_true(strlen(t.cpu_model) > 0 && strlen(t.cpu_model) < sizeof t.cpu_model);
    int cores = 0;
    for (int i = 0; i < t.n_numa; i++)
        cores += t.numa[i].n_cores;
    assert_int_equal(cores, t.n_cores);
    struct topo_cpus c;
    assert_true(topo_cpus_read(&c));
    assert_int_equal(c.n_pus, t.n_pus);
    assert_int_equal(c.n_cores, t.n_cores);
    for (int i = 0; i < c.n_pus; i++) {
        assert_true(CPU_ISSET((size_t)c.cpus[i], &set));
        CPU_CLR((size_t)c.cpus[i], &set); /* each once */
    }
    mem_free(c.cpus);
}

static void follows_affinity(void **state)
{
    (void)state;
    cpu_set_t all, one;
    struct topo t;
    sched_getaffinity(0, sizeof all, &all);
    int cpu = 0;
    while (!CPU_ISSET((size_t)cpu, &all))
        cpu++;
    CPU_ZERO(&one);
    CPU_SET((size_t)cpu, &one);
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
    bool ok = topo_detect(&t, NULL);
    struct topo_cpus c;
    bool ok2 = topo_cpus_read(&c);
    sched_setaffinity(0, sizeof all, &all);
    assert_true(ok && ok2);
    assert_int_equal(t.n_pus, 1);
    assert_int_equal(t.n_cores, 1);
    assert_int_equal(c.n_pus, 1);
    assert_int_equal(c.n_cores, 1);
    assert_int_equal(c.cpus[0], cpu);
    mem_free(c.cpus);
}

static char root[64];

static void put(const char *folder, const char *name, const char *text)
{
    char path[256];
    snprintf(path, sizeof path, "%s%s", root, folder);
    for (char *slash = path + strlen(root); (slash = strchr(slash + 1, '/'));) {
        *slash = 0;
        mkdir(path, 0700);
        *slash = '/';
    }
    mkdir(path, 0700);
    char *file = file_join(path, name);
    assert_true(file_write_atomic(file, text, strlen(text), NULL));
    mem_free(file);
}

static void cgroups(void **state)
{
    (void)state;
    strcpy(root, "/tmp/quire-topo-XXXXXX");
    assert_non_null(mkdtemp(root));
    const char *v2 = "0::/a/b\n";
    assert_true(topo_cgroup_memory(v2, root) == SIZE_MAX && topo_cgroup_cpus(v2, root) == 0);
    put("/a/b", "memory.max", "max\n");
    assert_true(topo_cgroup_memory(v2, root) == SIZE_MAX);
    put("/a", "memory.max", "1000000\n");
    assert_int_equal(topo_cgroup_memory(v2, root), 1000000);
    put("/a/b", "memory.max", "2000000\n");
    assert_int_equal(topo_cgroup_memory(v2, root), 1000000); /* the parent's is lower */
    put("/a/b", "memory.max", "0\n");
    assert_int_equal(topo_cgroup_memory(v2, root), 0);
    put("/a/b", "memory.max", "junk\n");
    assert_int_equal(topo_cgroup_memory(v2, root), 1000000);
    /* A group outside of our namespace, or one we cannot see: the root still counts. */
    put("", "memory.max", "5000000\n");
    assert_int_equal(topo_cgroup_memory("0::/../..\n", root), 5000000);
    assert_int_equal(topo_cgroup_memory("0::/docker/0123\n", root), 5000000);
    assert_int_equal(topo_cgroup_memory("0::/", root), 5000000);
    char inner[80];
    snprintf(inner, sizeof inner, "%s/a/b/c", root);
    mkdir(inner, 0700);
    put("/a", "memory.max", "7\n"); /* above the root it was given: not ours to read */
    assert_true(topo_cgroup_memory("0::/../..\n", inner) == SIZE_MAX);
    put("/a/b", "cpu.max", "max 100000\n");
    assert_int_equal(topo_cgroup_cpus(v2, root), 0);
    put("/a", "cpu.max", "250000 100000\n");
    assert_int_equal(topo_cgroup_cpus(v2, root), 3);
    put("/a/b", "cpu.max", "50000 100000\n");
    assert_int_equal(topo_cgroup_cpus(v2, root), 1);
    const char *v1 = "12:cpuset:/a\n5:cpu,cpuacct:/j\n4:memory:/j/k\n1:name=systemd:/x\n";
    assert_true(topo_cgroup_memory(v1, root) == SIZE_MAX && topo_cgroup_cpus(v1, root) == 0);
    put("/memory/j/k", "memory.limit_in_bytes", "9223372036854771712\n");
    assert_true(topo_cgroup_memory(v1, root) == SIZE_MAX);
    put("/memory/j", "memory.limit_in_bytes", "3000000\n");
    assert_int_equal(topo_cgroup_memory(v1, root), 3000000);
    put("/cpu/j", "cpu.cfs_quota_us", "-1\n");
    put("/cpu/j", "cpu.cfs_period_us", "100000\n");
    assert_int_equal(topo_cgroup_cpus(v1, root), 0);
    put("/cpu/j", "cpu.cfs_quota_us", "400000\n");
    assert_int_equal(topo_cgroup_cpus(v1, root), 4);
    const char *odd[] = {"", "\n\n", "x", "0:", "0::", ":::", "0::relative", "5:cpu", "::::\n4:memory\n"};
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
        (void)topo_cgroup_memory(odd[i], root);
        (void)topo_cgroup_cpus(odd[i], root);
    }
    char command[128];
    snprintf(command, sizeof command, "rm -r '%s'", root);
    assert_int_equal(system(command), 0);
}

static void out_of_memory(void **state)
{
    (void)state;
    long n = 1;
    for (bool fired = true; fired; n++) {
        struct topo_cpus c;
        mem_fault_after(n);
        bool ok = topo_cpus_read(&c);
        fired = mem_fault_fired();
        mem_fault_after(0);
        assert_true(ok || (fired && !c.cpus && c.n_pus == 0));
        mem_free(c.cpus);
    }
    assert_true(n > 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(this_machine), cmocka_unit_test(follows_affinity),
                                       cmocka_unit_test(cgroups), cmocka_unit_test(out_of_memory)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
