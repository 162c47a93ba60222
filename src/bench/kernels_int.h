/* bench/kernels_int.h - shared by the kinds of kernels that are timed. */
#ifndef QUIRE_BENCH_KERNELS_INT_H
#define QUIRE_BENCH_KERNELS_INT_H

#include "bench/kernels.h"
#include "bench/probe.h"

struct kernel_run {
    struct dev *d;
    const struct bench_kernels_opts *o;
    struct probe *probe;
    size_t cold_bytes;               /* going round so many defeats the caches */
    size_t memory_bytes;             /* larger things are left out */
    json_t *rows;
    bool (*on_row)(void *, const struct bench_kernel_row *);
    void *ctx;
};

/* One row to be measured. */
struct kernel_case {
    const char *name, *format;
    int32_t m;
    char shape[64];
    double bytes, ops;               /* of one operation */
    enum probe_kind rate;
    int max_ops;                     /* operations that run may be asked for at once */
    /* Runs n operations on cold memory. */
    bool (*run)(void *ctx, int n, struct err *e);
    void *run_ctx;
};

/* Whether the filters want it. */
bool bench_kernel_wanted(const struct kernel_run *r, const char *name, const char *format);
bool bench_kernel_measure(struct kernel_run *r, const struct kernel_case *c, struct err *e);

/* Memory for packed weights of one format and K, all panels alike (values do not change the time). */
struct bench_arena { unsigned char *p; size_t bytes; };
bool bench_arena_open(struct bench_arena *a, struct dev *d, enum dev_format f, int64_t k, size_t bytes, struct err *e);
void bench_arena_close(struct bench_arena *a);
/* The dot product that a format's kernels use on this device. */
enum probe_kind bench_rate_of(const struct dev *d, enum dev_format f);

bool bench_kernels_linear(struct kernel_run *r, struct err *e);
bool bench_kernels_moe(struct kernel_run *r, struct err *e);
bool bench_kernels_attention(struct kernel_run *r, struct err *e);
bool bench_kernels_rows(struct kernel_run *r, struct err *e);
bool bench_kernels_sample(struct kernel_run *r, struct err *e);

/* "f32", "f16", "bf16", "int8", "fp8" */
extern const char *const bench_kv_names[DEV_KV_COUNT];
/* Fills n floats from a seed, magnitudes about 1. */
void bench_kernel_fill(float *x, size_t n, uint64_t seed);

#endif
