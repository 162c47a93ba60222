#include "bench/probe.h"

#include <stdlib.h>
#include <string.h>
#include "base/clock.h"
#include "base/mem.h"
#include "kern/peak.h"

enum { KEPT = 4096, SINKS = 64, ITEMS_PER_THREAD = 8, ROUNDS = 1 << 10 };
static const size_t BUFFER_BYTES = (size_t)512 << 20, PIECE_BYTES = (size_t)1 << 20, SLICE_BYTES = (size_t)128 << 20;

/* Slices of one kind: the last KEPT. */
struct kept { double rate[KEPT]; size_t n; };

struct probe {
    struct dev *d;
    struct kern_peak peak;
    int n_threads;
    unsigned char *data;
    size_t at;                                   /* where the next slice reads */
    int64_t rounds[PROBE_COUNT];                 /* of one item of an arithmetic slice */
    const struct kern_peak_loop *loop;           /* of the slice that runs */
    int64_t loop_rounds;
    struct { uint64_t sum; float value; char pad[48]; } sinks[SINKS];   /* kept, so that no work can be dropped */
    struct kept kept[PROBE_COUNT];
};

static void touch_piece(void *ctx, int64_t i, int member)
{
    struct probe *p = ctx;
    (void)member;
    memset(p->data + (size_t)i * PIECE_BYTES, 1, PIECE_BYTES);
}

static void read_piece(void *ctx, int64_t i, int member)
{
    struct probe *p = ctx;
    p->sinks[member % SINKS].sum += p->peak.read(p->data + (p->at + (size_t)i * PIECE_BYTES) % BUFFER_BYTES, PIECE_BYTES);
}

static void run_loop(void *ctx, int64_t i, int member)
{
    struct probe *p = ctx;
    (void)i;
    p->sinks[member % SINKS].value += p->loop->run(p->loop_rounds);
}

static const struct kern_peak_loop *loop_of(const struct probe *p, enum probe_kind kind)
{
    return kind == PROBE_INT8 ? &p->peak.int8 : kind == PROBE_BF16 && p->peak.bf16.run ? &p->peak.bf16 : &p->peak.f32;
}

/* Rounds that keep one thread busy for about 100 us, so that a slice takes under a millisecond. */
static int64_t calibrate(const struct kern_peak_loop *loop)
{
    volatile float sink;
    int64_t best = INT64_MAX;
    for (int i = 0; i < 5; i++) {
        int64_t t0 = clock_now_ns();
        sink = loop->run(ROUNDS);
        int64_t t = clock_now_ns() - t0;
        best = t < best ? t : best;
    }
    (void)sink;
    int64_t rounds = 100000 * (int64_t)ROUNDS / (best > 0 ? best : 1);
    return rounds < 1 ? 1 : rounds;
}

bool probe_open(struct probe **out, struct dev *d, struct err *e)
{
    enum kern_isa isa;
    *out = NULL;
    if (!kern_isa_parse(dev_caps(d)->isa, &isa))
        return err_set(e, ERR_UNSUPPORTED, "the ceilings of device '%s' cannot be measured", dev_caps(d)->name);
    struct probe *p = mem_try_zalloc(1, sizeof *p);
    if (!p || !(p->data = mem_try_map(BUFFER_BYTES))) {
        mem_free(p);
        return err_set(e, ERR_NOMEM, "no memory for the bandwidth probe (%zu bytes)", BUFFER_BYTES);
    }
    p->d = d;
    p->peak = kern_peak_get(isa);
    p->n_threads = dev_caps(d)->n_threads;
    dev_for(d, (int64_t)(BUFFER_BYTES / PIECE_BYTES), touch_piece, p);
    for (int k = PROBE_F32; k < PROBE_COUNT; k++)
        p->rounds[k] = calibrate(loop_of(p, (enum probe_kind)k));
    *out = p;
    return true;
}

void probe_close(struct probe **pp)
{
    struct probe *p = *pp;
    if (!p)
        return;
    mem_unmap(p->data, BUFFER_BYTES);
    mem_free(p);
    *pp = NULL;
}

bool probe_has_bf16(const struct probe *p)
{
    return p->peak.bf16.run != NULL;
}

double probe_slice(struct probe *p, enum probe_kind kind)
{
    double work = (double)SLICE_BYTES;
    int64_t n = (int64_t)(SLICE_BYTES / PIECE_BYTES), t0;
    if (kind == PROBE_READ) {
        t0 = clock_now_ns();
        dev_for(p->d, n, read_piece, p);
        p->at = (p->at + SLICE_BYTES) % BUFFER_BYTES;
    } else {
        n = (int64_t)ITEMS_PER_THREAD * p->n_threads;
        p->loop = loop_of(p, kind);
        p->loop_rounds = p->rounds[kind];
        work = (double)n * (double)p->loop_rounds * p->loop->ops;
        t0 = clock_now_ns();
        dev_for(p->d, n, run_loop, p);
    }
    int64_t t = clock_now_ns() - t0;
    struct kept *k = &p->kept[kind];
    double rate = work / (double)(t > 0 ? t : 1);
    k->rate[k->n++ % KEPT] = rate;
    return rate;
}

void probe_run(struct probe *p, int budget_ms)
{
    int64_t end = clock_now_ns() + (int64_t)budget_ms * 1000000;
    for (int n = 0; n < 3 || clock_now_ns() < end; n++)
        for (int k = 0; k < PROBE_COUNT; k++)
            probe_slice(p, (enum probe_kind)k);
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double probe_rate(const struct probe *p, enum probe_kind kind)
{
    const struct kept *k = &p->kept[kind];
    double sorted[KEPT];
    size_t n = k->n < KEPT ? k->n : KEPT;
    memcpy(sorted, k->rate, n * sizeof *sorted);
    qsort(sorted, n, sizeof *sorted, compare_doubles);
    return n == 0 ? 0 : sorted[n / 2];
}
