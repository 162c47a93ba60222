/* base/topo.h - what machine this is (hwloc behind it). */
#ifndef QUIRE_BASE_TOPO_H
#define QUIRE_BASE_TOPO_H

#include <stdbool.h>
#include <stddef.h>
#include "base/err.h"

enum { TOPO_MAX_NUMA = 16 };

struct topo {
    char cpu_model[96];
    int n_cores;             /* physical cores this process may use */
    int n_pus;               /* hardware threads it may use */
    int n_numa;
    struct { int id, n_cores; size_t memory_bytes; } numa[TOPO_MAX_NUMA];
    size_t memory_bytes;     /* of the machine, or the cgroup limit when lower */
    size_t l1d_bytes, l2_bytes, l3_bytes;  /* per instance; 0 when unknown */
};

bool topo_detect(struct topo *t, struct err *e);

#endif
