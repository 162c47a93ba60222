/* base/topo_int.h - what the files of this folder share about the machine. */
#ifndef QUIRE_BASE_TOPO_INT_H
#define QUIRE_BASE_TOPO_INT_H

#include <stdbool.h>
#include <stddef.h>

/* The CPUs this process may run on, one a physical core first, then their hardware-thread
 * siblings: cpus[0..n_pus), of which cpus[0..n_cores) are on different cores. */
struct topo_cpus {
    int *cpus;      /* mem_free it */
    int n_pus, n_cores;
};
/* Reads affinity and /sys; false when out of memory. */
bool topo_cpus_read(struct topo_cpus *c);

/* Lowest limit that the control groups of this process set, walking up from its own group.
 * proc_cgroup is the text of /proc/self/cgroup; fs_root is /sys/fs/cgroup, another folder in
 * tests.  Versions 1 and 2.  Memory: SIZE_MAX when there is none. */
size_t topo_cgroup_memory(const char *proc_cgroup, const char *fs_root);
/* CPU time allowed, in CPUs rounded up; 0 when there is no limit. */
int topo_cgroup_cpus(const char *proc_cgroup, const char *fs_root);
/* The same for this process. */
int topo_cpu_quota(void);

#endif
