/* bench/probe.h - what this machine can do at most, measured now: the ceilings that kernels are
 * compared with.
 *
 * Shared machines drift within minutes, so a probe measures in slices of a millisecond or two that are taken between
 * those of what is compared, on the same threads.  Reading goes round a buffer far larger than the caches, in huge pages, one
 * piece after the other given to whichever thread is free. */
#ifndef QUIRE_BENCH_PROBE_H
#define QUIRE_BENCH_PROBE_H

#include "base/err.h"
#include "dev/dev.h"

enum probe_kind { PROBE_READ, PROBE_F32, PROBE_BF16, PROBE_INT8, PROBE_COUNT };

struct probe;

/* Ceilings of the CPU device's own threads and instruction set.  Close before the device. */
bool probe_open(struct probe **out, struct dev *d, struct err *e);
void probe_close(struct probe **p);

/* Without bf16 dot products kernels widen to f32: then BF16's rate is that of F32.  INT8's is that of the integer kernels' way. */
bool probe_has_bf16(const struct probe *p);
/* One slice of all threads: 10^9 bytes or operations a second (a multiplication and an addition are two).  It is also kept. */
double probe_slice(struct probe *p, enum probe_kind kind);
/* Slices of all kinds for about budget_ms. */
void probe_run(struct probe *p, int budget_ms);
/* The median of the slices kept so far; 0 without any. */
double probe_rate(const struct probe *p, enum probe_kind kind);

#endif
