/* bench/kernels.h - every kernel at a model's shapes, as percent of what bounds it on this machine now.
 *
 * Kernels run through the device interface, as the engine runs them: the same packed weights, work sharing, fused prologues
 * and epilogues, on all threads.  What they read is cold: weights, pages and rows go round more memory than the last cache
 * holds.  Before every repetition the ceilings are measured for about a millisecond each (bench/probe.h), so that
 * a machine whose speed drifts is compared with itself.
 *
 *     percent_of_limit = max(bytes / read rate, operations / arithmetic rate) / time, all three medians
 *
 * bytes are those that must come from memory: of a product its packed weights, of a mixture the weights of the experts that some row uses,
 * of attention the K and V of all tokens seen, once, of the embedding the rows looked up and written, of the sampler its rows of logits once,
 * of row functions everything read and written (writing has wires of its own, so that more than 100 % of the read rate is possible).  A multiplication and an addition are two operations. */
#ifndef QUIRE_BENCH_KERNELS_H
#define QUIRE_BENCH_KERNELS_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include "base/err.h"
#include "dev/dev.h"

/* What of a model decides the sizes of its kernels. */
struct bench_shape {
    const char *name;
    int32_t hidden, n_heads, n_kv_heads, head_dim, ffn, vocab;
    int32_t n_experts, n_used, expert_ffn;   /* 0: dense */
};
/* "llama-3.2-1b", "llama-3.1-8b", ...: NULL when there is none of this name.  i-th for listing, NULL past the end. */
const struct bench_shape *bench_shape_find(const char *name);
const struct bench_shape *bench_shape_at(int i);

struct bench_kernels_opts {
    struct bench_shape shape;
    const char *const *kernels;    /* only rows whose name contains one of these; n 0: all */
    int n_kernels;
    const char *const *formats;    /* names of dev_format_name and of KV types; n 0: all */
    int n_formats;
    const int32_t *rows;           /* M of products; n 0: 1, 2, 4, 8, 16, 32, 64, 128, 512 */
    int n_rows;
    const int32_t *contexts;       /* of attention; n 0: 1024, 8192, 16384 */
    int n_contexts;
    bool quick;                    /* where nothing was chosen: few formats, M 1, 8, 32, 512, context 8192, own head size */
    int budget_ms;                 /* of each row, about; at least three repetitions */
    size_t cold_bytes;             /* what is gone round; 0: eight times the last cache, 256 MiB to 2 GiB (with three times, a third of
                                    * the reads of a panel stream still came out of a 32 MiB cache) */
};

struct bench_kernel_row {
    char name[48], shape[64];
    const char *format;
    int32_t m;
    double ns, gb_s, gop_s;              /* one operation; what it reached */
    double limit_gb_s, limit_gop_s;      /* the ceilings beside it */
    bool memory_bound;                   /* which of them binds */
    double percent_of_limit;
};

/* on_row is called as rows come (may be NULL); false from it stops.  *out: {"machine":{"cpu","isa","threads","read_gb_s",
 * "f32_gflop_s","bf16_gflop_s","int8_gop_s"},"model":{..},"kernels":[{"name","shape","format","m","ns","gb_s","gop_s","limit",
 * "percent_of_limit","limit_gb_s","limit_gop_s"}..]}.  An unknown format or a filter that leaves nothing is ERR_INVALID. */
bool bench_kernels(struct dev *d, const struct bench_kernels_opts *o, bool (*on_row)(void *, const struct bench_kernel_row *), void *ctx,
                   json_t **out, struct err *e);

#endif
