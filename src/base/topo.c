#include "base/topo.h"

#include <hwloc.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/topo_int.h"

/* Only what we report: the discovery is much cheaper without devices and groups. */
static bool load(hwloc_topology_t *out, struct err *e)
{
    static const hwloc_obj_type_t wanted[] = {HWLOC_OBJ_PACKAGE, HWLOC_OBJ_CORE, HWLOC_OBJ_L1CACHE,
                                              HWLOC_OBJ_L2CACHE, HWLOC_OBJ_L3CACHE};
    hwloc_topology_t t;
    if (hwloc_topology_init(&t) != 0)
        return err_set(e, ERR_NOMEM, "cannot start reading the machine's topology");
    hwloc_topology_set_all_types_filter(t, HWLOC_TYPE_FILTER_KEEP_NONE);
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
        hwloc_topology_set_type_filter(t, wanted[i], HWLOC_TYPE_FILTER_KEEP_ALL);
    if (hwloc_topology_load(t) != 0) {
        hwloc_topology_destroy(t);
        return err_set(e, ERR_IO, "cannot read the machine's topology from the system");
    }
    *out = t;
    return true;
}

/* What affinity forbids disappears from the tree. */
static void restrict_to_affinity(hwloc_topology_t t)
{
    hwloc_bitmap_t allowed = hwloc_bitmap_alloc();
    if (allowed && hwloc_get_cpubind(t, allowed, HWLOC_CPUBIND_THREAD) == 0)
        (void)hwloc_topology_restrict(t, allowed, 0); /* refused when nothing would be left */
    hwloc_bitmap_free(allowed);
}

static int count(hwloc_topology_t t, hwloc_obj_type_t type)
{
    int n = hwloc_get_nbobjs_by_type(t, type);
    return n > 0 ? n : 0;
}

static size_t cache_bytes(hwloc_topology_t t, hwloc_obj_type_t type)
{
    hwloc_obj_t o = hwloc_get_obj_by_type(t, type, 0);
    return o ? (size_t)o->attr->cache.size : 0;
}

static void read_model(struct topo *t, hwloc_topology_t h)
{
    hwloc_obj_t package = hwloc_get_obj_by_type(h, HWLOC_OBJ_PACKAGE, 0);
    const char *model = package ? hwloc_obj_get_info_by_name(package, "CPUModel") : NULL;
    if (!model)
        model = hwloc_obj_get_info_by_name(hwloc_get_root_obj(h), "CPUModel");
    snprintf(t->cpu_model, sizeof t->cpu_model, "%s", model ? model : "unknown");
}

static void read_numa(struct topo *t, hwloc_topology_t h)
{
    for (hwloc_obj_t o = NULL; (o = hwloc_get_next_obj_by_type(h, HWLOC_OBJ_NUMANODE, o)) && t->n_numa < TOPO_MAX_NUMA;) {
        int n = hwloc_get_nbobjs_inside_cpuset_by_type(h, o->cpuset, HWLOC_OBJ_CORE);
        if (n <= 0)
            n = hwloc_get_nbobjs_inside_cpuset_by_type(h, o->cpuset, HWLOC_OBJ_PU);
        t->numa[t->n_numa].id = (int)o->os_index;
        t->numa[t->n_numa].n_cores = n > 0 ? n : 0;
        t->numa[t->n_numa].memory_bytes = (size_t)o->attr->numanode.local_memory;
        t->n_numa++;
    }
}

static size_t memory_allowed(hwloc_topology_t h)
{
    /* The kernel's total, not the sum over NUMA nodes: virtual machines that are given memory on demand show there only
     * what they have been given so far. */
    size_t machine = (size_t)sysconf(_SC_PHYS_PAGES) * (size_t)sysconf(_SC_PAGESIZE);
    if (machine == 0)
        machine = (size_t)hwloc_get_root_obj(h)->total_memory;
    char *text = file_read("/proc/self/cgroup", 1 << 16, NULL, NULL);
    size_t limit = text ? topo_cgroup_memory(text, "/sys/fs/cgroup") : machine;
    mem_free(text);
    return limit < machine ? limit : machine;
}

bool topo_detect(struct topo *t, struct err *e)
{
    hwloc_topology_t h = NULL;
    memset(t, 0, sizeof *t);
    if (!load(&h, e))
        return false;
    restrict_to_affinity(h);
    t->n_pus = count(h, HWLOC_OBJ_PU);
    t->n_cores = count(h, HWLOC_OBJ_CORE);
    if (t->n_cores == 0) /* some virtual machines do not tell */
        t->n_cores = t->n_pus;
    read_model(t, h);
    read_numa(t, h);
    t->memory_bytes = memory_allowed(h);
    t->l1d_bytes = cache_bytes(h, HWLOC_OBJ_L1CACHE);
    t->l2_bytes = cache_bytes(h, HWLOC_OBJ_L2CACHE);
    t->l3_bytes = cache_bytes(h, HWLOC_OBJ_L3CACHE);
    hwloc_topology_destroy(h);
    return true;
}
