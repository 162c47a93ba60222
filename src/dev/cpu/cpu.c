/* The CPU device: opening, memory, and the list of operations that is a step. */
#include "dev/cpu/cpu_int.h"

#include <assert.h>
#include <string.h>
#include "base/clock.h"
#include "base/mem.h"
#include "base/topo.h"
#include "base/vec.h"

/* Blocks of at least this many bytes are mapped with huge pages, smaller ones come from the heap. */
enum { CPU_MAP_BYTES = 1 << 20 };
/* Steps that one core does in less time than this do not wake the team. */
enum { CPU_SOLO_NS = 12000 };

static bool choose_isa(struct dev *d, const char *name, struct err *e)
{
    enum kern_isa best = kern_isa_best();
    d->isa = best;
    if (!name)
        return true;
    if (!kern_isa_parse(name, &d->isa))
        return err_set(e, ERR_INVALID, "instruction set \"%s\" is unknown: use scalar, avx2, avx512 or avx512_bf16", name);
    if (d->isa > best)
        return err_set(e, ERR_UNSUPPORTED, "this CPU has no %s: its best instruction set is %s", name, kern_isa_name(best));
    return true;
}

bool dev_open(struct dev **out, const struct dev_opts *opts, struct err *e)
{
    *out = NULL;
    if (opts->name && strcmp(opts->name, "cpu") != 0)
        return err_set(e, ERR_UNSUPPORTED, "device \"%s\" is unknown: this build has cpu", opts->name);
    if (opts->n_threads < 0)
        return err_set(e, ERR_INVALID, "%d threads: use 1 or more, or 0 for all cores", opts->n_threads);
    struct dev *d = mem_try_zalloc(1, sizeof *d);
    if (!d)
        return err_set(e, ERR_NOMEM, "no memory for the CPU device");
    struct topo topo;
    struct tpool_opts team = {.n_threads = opts->n_threads, .pin = opts->pin_threads, .spin_us = -1};
    if (!choose_isa(d, opts->isa, e) || !topo_detect(&topo, e) || !tpool_open(&d->team, &team, e))
        goto fail;
    d->inputs = opts->float_inputs ? GEMM_INPUTS_FLOAT : GEMM_INPUTS_AUTO;
    d->n_members = tpool_size(d->team);
    d->row = kern_row_table(d->isa);
    d->math = (struct dev_math){.argmax = d->row->argmax, .max = d->row->max, .above = d->row->above, .between = d->row->between,
                                .weights = d->row->weights, .sum_above = d->row->sum_above, .moment = d->row->moment,
                                .nearness = d->row->nearness, .split = d->row->split, .mask = d->row->mask};
    d->caps = (struct dev_caps){
        .name = "cpu",
        .isa = kern_isa_name(d->isa),
        .n_threads = d->n_members,
        .memory_bytes = topo.memory_bytes,
        .block_tokens = DEV_BLOCK_TOKENS,
        .has_bf16_dot = d->isa >= KERN_ISA_AVX512_BF16,
        .float_inputs = opts->float_inputs,
        .host_memory = true,
    };
    *out = d;
    return true;
fail:
    dev_close(&d);
    return false;
}

static void scratch_free(unsigned char *p, size_t bytes)
{
    if (bytes < CPU_MAP_BYTES)
        mem_free(p);
    else
        mem_unmap(p, bytes);
}

void dev_close(struct dev **dp)
{
    struct dev *d = *dp;
    if (!d)
        return;
    size_t n_members = d->team ? (size_t)tpool_size(d->team) : 0;
    tpool_close(&d->team);
    for (size_t i = 0; i < d->n_maps; i++)
        mem_unmap(d->maps[i].p, d->maps[i].bytes);
    mem_free(d->maps);
    mem_free(d->ops);
    mem_free(d->segments);
    mem_free(d->attn_plans);
    mem_free(d->attn_blocks);
    mem_free(d->events);
    scratch_free(d->scratch, d->scratch_bytes);
    scratch_free(d->member_scratch, d->member_bytes * n_members);
    mem_free(d);
    *dp = NULL;
}

const struct dev_caps *dev_caps(const struct dev *d)
{
    return &d->caps;
}

const struct dev_math *dev_math(const struct dev *d)
{
    return &d->math;
}

/* ---- memory ---- */

void *dev_alloc(struct dev *d, size_t bytes, struct err *e)
{
    void *p = NULL;
    if (bytes < CPU_MAP_BYTES) {
        p = mem_try_aligned(bytes);
    } else if (vec_reserve((void **)&d->maps, &d->cap_maps, d->n_maps + 1, sizeof *d->maps)) {
        p = mem_try_map(bytes);
        if (p)
            d->maps[d->n_maps++] = (struct cpu_map){p, bytes};
    }
    if (!p)
        err_set(e, ERR_NOMEM, "the CPU device cannot allocate %zu bytes", bytes);
    return p;
}

void dev_free(struct dev *d, void *p)
{
    for (size_t i = 0; i < d->n_maps; i++) {
        if (d->maps[i].p != p)
            continue;
        mem_unmap(p, d->maps[i].bytes);
        d->maps[i] = d->maps[--d->n_maps];
        return;
    }
    mem_free(p);
}

void dev_upload(struct dev *d, void *dst, const void *src, size_t bytes)
{
    assert(!d->in_step);
    (void)d;
    memcpy(dst, src, bytes);
}

void dev_download(struct dev *d, void *dst, const void *src, size_t bytes)
{
    assert(!d->in_step);
    (void)d;
    memcpy(dst, src, bytes);
}

/* ---- the step ---- */

void dev_step_begin(struct dev *d, const struct dev_batch *b)
{
    assert(!d->in_step);
    assert(b->n_tokens >= 0 && b->n_seqs >= 0);
    assert(b->n_seqs == 0 || (b->seq_start[0] == 0 && b->seq_start[b->n_seqs] == b->n_tokens));
    d->in_step = true;
    d->failed = false;
    d->batch = *b;
    d->n_ops = 0;
    d->n_segments = 0;
    d->n_attn_plans = 0;
    d->n_attn_blocks = 0;
    d->cost_ns = 0;
    d->need_shared = 0;
    d->need_member = 0;
}

void *cpu_op_add(struct dev *d, const char *name, int layer, int n_phases, cpu_op_fn *run, size_t args_bytes, int64_t cost_ns)
{
    assert(d->in_step && n_phases >= 1 && args_bytes <= CPU_OP_ARGS_BYTES);
    struct cpu_op *op = &d->spill;
    if (vec_reserve((void **)&d->ops, &d->cap_ops, d->n_ops + 1, sizeof *d->ops))
        op = &d->ops[d->n_ops++];
    else
        d->failed = true;
    op->name = name;
    op->run = run;
    op->layer = layer;
    op->n_phases = n_phases;
    memset(op->args, 0, args_bytes);
    d->cost_ns += cost_ns;
    return op->args;
}

void cpu_need(struct dev *d, size_t shared_bytes, size_t member_bytes)
{
    d->need_shared = shared_bytes > d->need_shared ? shared_bytes : d->need_shared;
    d->need_member = member_bytes > d->need_member ? member_bytes : d->need_member;
}

/* Grow one scratch block to n pieces of need bytes; half as much again, so that growth ends soon. */
static bool grow(unsigned char **p, size_t *have, size_t need, size_t n)
{
    if (need <= *have)
        return true;
    size_t bytes, total;
    if (!mem_add(need, need / 2 + 4095, &bytes) || !mem_mul(bytes & ~(size_t)4095, n, &total))
        return false;
    unsigned char *q = total < CPU_MAP_BYTES ? mem_try_aligned(total) : mem_try_map(total);
    if (!q)
        return false;
    scratch_free(*p, *have * n);
    *p = q;
    *have = bytes & ~(size_t)4095;
    return true;
}

static bool prepare(struct dev *d)
{
    size_t n = (size_t)tpool_size(d->team);
    if (d->failed || !grow(&d->scratch, &d->scratch_bytes, d->need_shared, 1) ||
        !grow(&d->member_scratch, &d->member_bytes, d->need_member, n))
        return false;
    if (d->trace && !vec_reserve((void **)&d->events, &d->cap_events, n * d->n_ops, sizeof *d->events))
        return false;
    return true;
}

static void meet(struct dev *d, int member)
{
    if (d->n_members == 1)
        d->solo_next = 0;
    else
        tpool_barrier_reset(d->team, member);
}

static void run_ops(void *arg, int member, int n_members)
{
    struct dev *d = arg;
    (void)n_members;
    struct dev_trace_event *ev = d->trace ? d->events + (size_t)member * d->n_ops : NULL;
    for (size_t i = 0; i < d->n_ops; i++) {
        const struct cpu_op *op = &d->ops[i];
        if (ev)
            ev[i] = (struct dev_trace_event){op->name, op->layer, member, clock_now_ns(), 0};
        for (int phase = 0; phase < op->n_phases; phase++) {
            if (phase > 0)
                meet(d, member);
            op->run(d, op, phase, member);
        }
        if (ev)
            ev[i].end_ns = clock_now_ns();
        if (i + 1 < d->n_ops)
            meet(d, member);
    }
}

bool dev_step_end(struct dev *d, struct err *e)
{
    assert(d->in_step);
    d->in_step = false;
    if (!prepare(d))
        return err_set(e, ERR_NOMEM, "no memory for the scratch space of a step of %d tokens (%zu bytes shared, %zu for each of %d threads)",
                       (int)d->batch.n_tokens, d->need_shared, d->need_member, tpool_size(d->team));
    if (d->cost_ns < CPU_SOLO_NS) {
        d->n_members = 1;
        d->solo_next = 0;
        run_ops(d, 0, 1);
    } else {
        d->n_members = tpool_size(d->team);
        d->solo_next = 0;
        tpool_run(d->team, run_ops, d);
    }
    if (d->trace)
        d->trace(d->trace_ctx, d->events, (int)((size_t)d->n_members * d->n_ops));
    return true;
}

/* ---- outside steps ---- */

struct for_job {
    struct dev *d;
    int64_t n;
    void (*fn)(void *ctx, int64_t i, int member);
    void *ctx;
};

static void run_for(void *arg, int member, int n_members)
{
    struct for_job *j = arg;
    (void)n_members;
    for (int64_t i; (i = tpool_next(j->d->team)) < j->n;)
        j->fn(j->ctx, i, member);
}

void dev_for(struct dev *d, int64_t n, void (*fn)(void *ctx, int64_t i, int member), void *ctx)
{
    assert(!d->in_step);
    struct for_job j = {d, n, fn, ctx};
    if (n == 1)
        fn(ctx, 0, 0);
    else if (n > 1)
        tpool_run(d->team, run_for, &j);
}

void dev_set_trace(struct dev *d, void (*fn)(void *ctx, const struct dev_trace_event *ev, int n), void *ctx)
{
    assert(!d->in_step);
    d->trace = fn;
    d->trace_ctx = ctx;
}
