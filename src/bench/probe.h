/* bench/probe.h - what this machine can do at most, measured now: the ceilings that kernels are
 * compared with.  Shared machines drift within minutes, so measure beside what you compare. */
#ifndef QUIRE_BENCH_PROBE_H
#define QUIRE_BENCH_PROBE_H

#include "base/err.h"
#include "base/tpool.h"

/* Reads a buffer far larger than the caches with all members of the team for about budget_ms;
 * the median pass in GB/s (10^9 bytes). */
bool probe_read_gb_s(struct tpool *tp, int budget_ms, double *gb_s, struct err *e);

#endif
