/* dev/cpu/cpu_int.h - what the files of the CPU device share.
 *
 * A step is a list of operations.  The dev_* functions append to it (cpu_op_add); dev_step_end
 * runs the whole list inside one run of the team:
 *
 *     for each op:  for phase = 0 .. n_phases-1:  op->run(d, op, phase, member)  on every member
 *                   then all members meet, and the item counter starts again at 0
 *
 * so whatever one phase wrote, the next one (and the next op) may read.  Inside run, work is taken
 * item by item from cpu_next until it returns n or more, so that a member that lost its core delays one
 * item only.  An item must be large enough (some microseconds) to pay for one shared counter increment,
 * and what it computes must not depend on which member computes it, nor on how many there are.
 *
 * A step whose operations cost very little in sum runs on the leader alone, without waking
 * the team; run then sees member 0 of 1.  Therefore: always cpu_next, never tpool_next. */
#ifndef QUIRE_DEV_CPU_INT_H
#define QUIRE_DEV_CPU_INT_H

#include <stdalign.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/err.h"
#include "base/tpool.h"
#include "dev/dev.h"
#include "kern/attn.h"
#include "kern/cpu.h"
#include "kern/gemm.h"
#include "kern/row.h"

enum { CPU_OP_ARGS_BYTES = 384 };

struct cpu_op;
typedef void cpu_op_fn(struct dev *d, const struct cpu_op *op, int phase, int member);

struct cpu_op {
    const char *name;      /* static text, for traces */
    cpu_op_fn *run;
    int layer;             /* -1: none; for traces */
    int n_phases;
    alignas(16) unsigned char args[CPU_OP_ARGS_BYTES];   /* the op's own struct */
};

struct cpu_map { void *p; size_t bytes; };

/* Rows of one sequence that lie in one KV page. */
struct cpu_segment { int32_t row, n_rows, page, slot; };

/* A block of query tokens of one sequence, and the partitions of its context that it sees. */
struct cpu_attn_block {
    int32_t seq, row, n_tokens;
    int32_t part, end;             /* partitions [part, end) */
    int32_t run;                   /* 0: one item does them all; else partitions an item, joined in a second phase */
    int32_t heads;                 /* KV heads an item */
    int64_t item;                  /* its first item */
    size_t partial;                /* run > 0: offset of its partial results in the shared scratch, in floats */
    int64_t cost;
};

/* How the attention of a step is cut into items; the same for all layers of equal shape. */
struct cpu_attn_plan {
    int32_t window, n_kv_heads, group, dim;
    size_t first, n_blocks;        /* in attn_blocks */
    size_t n_split;                /* the first of them have run > 0 */
    int64_t n_items;
    size_t partial_floats;
    int32_t max_rows;
    int64_t cost_ns;
};

/* KV pages: [layer][page][head] slabs (kern/attn.h). */
struct dev_kv {
    struct dev_kv_spec spec;
    const struct kern_attn *kern;
    unsigned char *base;
    size_t total_bytes, layer_bytes, page_bytes, slab_bytes;
};

struct dev {
    struct dev_caps caps;
    enum kern_isa isa;
    enum gemm_inputs inputs;
    struct tpool *team;
    int n_members;                 /* of the running step: team size, or 1 */
    int64_t solo_next;             /* item counter of a step run by the leader alone */
    const struct kern_row *row;
    struct dev_math math;

    /* The step under construction. */
    bool in_step;
    bool failed;                   /* an allocation for this step failed; dev_step_end says so */
    struct dev_batch batch;
    struct cpu_op *ops;
    size_t n_ops, cap_ops;
    struct cpu_op spill;           /* what cpu_op_add returns when the list cannot grow */
    int64_t cost_ns;
    size_t need_shared, need_member;
    struct cpu_segment *segments;  /* of this step's rows, by row; empty until asked for */
    size_t n_segments, cap_segments;
    struct cpu_attn_plan *attn_plans;
    size_t n_attn_plans, cap_attn_plans;
    struct cpu_attn_block *attn_blocks;
    size_t n_attn_blocks, cap_attn_blocks;

    /* Scratch, valid while a step runs; contents last for one op (all of its phases). */
    unsigned char *scratch;        /* 64-byte aligned, at least the cpu_need bytes of the op */
    size_t scratch_bytes;
    unsigned char *member_scratch; /* see cpu_member_scratch */
    size_t member_bytes;

    struct cpu_map *maps;          /* large dev_alloc blocks */
    size_t n_maps, cap_maps;

    void (*trace)(void *ctx, const struct dev_trace_event *ev, int n);
    void *trace_ctx;
    struct dev_trace_event *events;
    size_t cap_events;
};

/* Append an operation to the step and return its args, zeroed, to be filled before the next call.  Never NULL.
 * args_bytes <= CPU_OP_ARGS_BYTES.  cost_ns: rough time of the whole op on one core (bytes read / 20 or so);
 * it only decides whether a step is worth waking the team for. */
void *cpu_op_add(struct dev *d, const char *name, int layer, int n_phases, cpu_op_fn *run, size_t args_bytes, int64_t cost_ns);
/* Scratch that the op just added needs: shared by all members, and for each member. */
void cpu_need(struct dev *d, size_t shared_bytes, size_t member_bytes);

/* Inside run: the next item of this phase, ascending, each given out once; n or more: none is left. */
static inline int64_t cpu_next(struct dev *d)
{
    return d->n_members == 1 ? d->solo_next++ : tpool_next(d->team);
}

/* Rows to hand out at once when there are n of them, none dear. */
static inline int32_t cpu_chunk(const struct dev *d, int32_t n)
{
    int32_t c = n / (8 * d->caps.n_threads);
    return c < 1 ? 1 : c > 16 ? 16 : c;
}

/* Inside run: this member's own scratch, 64-byte aligned. */
static inline void *cpu_member_scratch(const struct dev *d, int member)
{
    return d->member_scratch + (size_t)member * d->member_bytes;
}

#endif
