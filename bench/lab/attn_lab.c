/* Times dev_attention as it is in src/, between slices of a bandwidth probe with the same team.
 *
 *   gcc -O3 -march=native -std=gnu17 -D_GNU_SOURCE -Isrc bench/lab/attn_lab.c build/libquire.a \
 *       $(pkg-config --libs libmicrohttpd jansson libpcre2-8 libutf8proc libxxhash hwloc libcurl yaml-0.1) -lm -lpthread -o attn_lab
 *   attn_lab TYPE HEADS KV_HEADS DIM CONTEXT SEQS NEW [THREADS [REPEATS [ISA]]]
 *
 * NEW tokens of each of SEQS sequences attend to CONTEXT tokens before them.  Prints GB/s of KV bytes read once and GFLOP/s of
 * unmasked work: the tenth percentile (median) over the repeats, each one layer after a slice of the probe.
 * ATTN_LAB_ORDERED: pages in order, not permuted.  ATTN_LAB_WARM: one layer in cache, no probe.
 *
 * Zen 5, 2 cores, bf16 dot 536 and f32 268 GFLOP/s a core, pages permuted, 32/8 heads of 64, median:
 *   decode 8k x4, 2 threads   bf16 1827 us 36.7 GB/s (78 % of the probe)  i8 1078 us (67 %)  f8 943 us (71 %)
 *   decode, 1 thread          bf16 16k x1 27.8 GB/s (64 %), in order 28.7 (68 %); 32/32 heads 33.0 (78 %); f32 29.3 (70 %)
 *   prefill 64 at 8k, 2 threads  bf16 657 GFLOP/s (61 %), d128 683 (64 %), i8 514, f32 375 (70 %); 512 at 0: bf16 587
 *   one core alone reads 43 GB/s, so there its compute and its waiting add up; in cache a partition of one KV head
 *   (64 KiB, 4 rows) takes 0.9 us against 1.5 us for reading it at that rate
 * Tried, decode 8k x4, 1 thread, GB/s:
 *   head by head, the next partition's slabs fetched at the same offset     23.8
 *   touching the partition after next, for its address translations          no gain
 *   heads side by side, the next head's slabs fetched                       24.2
 *   ... the next partition's slabs in memory order, 4 heads together        24.5;  8 heads 26.5;  into L1 instead of L2 27.5
 *   8-bit: whole pages widened to scratch i8 9.8 f8 10.5;  widened in registers i8 22.7 f8 24.7
 * Tried, prefill: exp2 by addition instead of vreduceps and vscalefps, degree 3 for bf16: +4 %.  24 rows instead of 6 sharing K and
 * V from L1: -2 %, left out. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/clock.h"
#include "base/rng.h"
#include "dev/dev.h"

enum { CHUNK = 1 << 20 };

struct probe { const unsigned char *p; volatile uint64_t sink[64]; };

static void read_chunk(void *ctx, int64_t i, int member)
{
    struct probe *p = ctx;
    const uint64_t *x = (const uint64_t *)(const void *)(p->p + i * CHUNK);
    typedef uint64_t v8 __attribute__((vector_size(64)));
    v8 a = {0}, b = {0}, c = {0}, e = {0};
    for (int k = 0; k < CHUNK / 8; k += 32) {
        a += *(const v8 *)(x + k);
        b += *(const v8 *)(x + k + 8);
        c += *(const v8 *)(x + k + 16);
        e += *(const v8 *)(x + k + 24);
    }
    a += b + c + e;
    p->sink[member & 63] += a[0] + a[7];
}

static int by_value(const void *a, const void *b)
{
    return (*(const double *)a > *(const double *)b) - (*(const double *)a < *(const double *)b);
}

int main(int argc, char **argv)
{
    if (argc < 8)
        return fprintf(stderr, "see the top of the source\n"), 2;
    static const char *const types[] = {"f32", "f16", "bf16", "i8", "f8"};
    int type = 0, heads = atoi(argv[2]), kv_heads = atoi(argv[3]), dim = atoi(argv[4]), ctx = atoi(argv[5]), seqs = atoi(argv[6]), new = atoi(argv[7]);
    int threads = argc > 8 ? atoi(argv[8]) : 0, repeats = argc > 9 ? atoi(argv[9]) : 200;
    while (type < 4 && strcmp(types[type], argv[1]) != 0)
        type++;
    struct err e;
    struct dev *d;
    struct dev_opts o = {.n_threads = threads, .isa = argc > 10 ? argv[10] : NULL};
    if (!dev_open(&d, &o, &e))
        return fprintf(stderr, "%s\n", e.msg), 1;
    int per_seq = (ctx + new + 31) / 32, n_blocks = per_seq * seqs + 1;
    struct dev_kv_spec spec = {.n_layers = 1, .n_kv_heads = kv_heads, .head_dim = dim, .n_blocks = n_blocks, .type = (enum dev_kv_type)type};
    size_t page = dev_kv_block_bytes(&spec);
    /* Enough layers that one pass cannot live in the cache, unless ATTN_LAB_WARM is set. */
    bool warm = getenv("ATTN_LAB_WARM");
    spec.n_layers = warm ? 1 : (int)((size_t)256e6 / (page * (size_t)n_blocks)) + 1;
    struct dev_kv *kv;
    if (!dev_kv_open(d, &kv, &spec, &e))
        return fprintf(stderr, "%s\n", e.msg), 1;
    int32_t *tables = malloc((size_t)n_blocks * 4);
    struct rng rng = {1};
    for (int i = 0; i < n_blocks; i++)
        tables[i] = i + 1;
    for (int i = getenv("ATTN_LAB_ORDERED") ? 0 : n_blocks - 2; i > 0; i--) {
        int j = (int)rng_next_below(&rng, (uint64_t)i + 1);
        int32_t t = tables[i];
        tables[i] = tables[j];
        tables[j] = t;
    }
    int width = (heads + 2 * kv_heads) * dim, rows = seqs * new, fill = per_seq * seqs * 32;
    float *qkv = dev_alloc(d, (size_t)fill * (size_t)width * 4, &e), *out = dev_alloc(d, (size_t)rows * (size_t)(heads * dim) * 4, &e);
    if (!qkv || !out)
        return fprintf(stderr, "%s\n", e.msg), 1;
    for (size_t i = 0; i < (size_t)fill * (size_t)width; i++)
        qkv[i] = (float)((int)(rng_next(&rng) & 0xffff) - 32768) * (1.0f / 16384);
    /* Write all pages of all layers. */
    int32_t *pos = malloc((size_t)fill * 4), *start = malloc(((size_t)seqs + 1) * 4);
    for (int i = 0; i < fill; i++)
        pos[i] = i % (per_seq * 32);
    for (int s = 0; s <= seqs; s++)
        start[s] = s * per_seq * 32;
    struct dev_batch b = {.n_tokens = fill, .n_seqs = seqs, .positions = pos, .seq_start = start, .block_tables = tables, .table_stride = per_seq};
    int64_t t0 = clock_now_ns();
    dev_step_begin(d, &b);
    for (int l = 0; l < spec.n_layers; l++)
        dev_rope_kv(d, &(struct dev_rope_kv){.n_heads = heads, .n_kv_heads = kv_heads, .head_dim = dim, .layer = l}, qkv, width, kv);
    dev_step_end(d, &e);
    double write_ns = (double)(clock_now_ns() - t0) / fill / spec.n_layers;
    for (int s = 0; s < seqs; s++)
        for (int i = 0; i < new; i++)
            pos[s * new + i] = ctx + i;
    for (int s = 0; s <= seqs; s++)
        start[s] = s * new;
    b.n_tokens = rows;

    size_t probe_bytes = (size_t)256 << 20;
    struct probe pr = {.p = dev_alloc(d, probe_bytes, &e)};
    memset((void *)(uintptr_t)pr.p, 1, probe_bytes);
    double *t = malloc((size_t)repeats * 8), *g = malloc((size_t)repeats * 8);
    size_t slice = (size_t)16 << 20;
    for (int r = 0; r < repeats; r++) {
        struct probe part = {.p = pr.p + (size_t)r * slice % probe_bytes};
        t0 = clock_now_ns();
        if (!warm || r == 0)
            dev_for(d, (int64_t)(slice / CHUNK), read_chunk, &part);
        g[r] = warm && r ? g[0] : (double)(clock_now_ns() - t0);
        t0 = clock_now_ns();
        dev_step_begin(d, &b);
        dev_attention(d, &(struct dev_attention){.n_heads = heads, .n_kv_heads = kv_heads, .head_dim = dim, .scale = 1 / sqrtf((float)dim), .layer = r % spec.n_layers},
                      qkv, width, kv, out, heads * dim);
        dev_step_end(d, &e);
        t[r] = (double)(clock_now_ns() - t0);
    }
    qsort(t, (size_t)repeats, 8, by_value);
    qsort(g, (size_t)repeats, 8, by_value);
    double bytes = (double)seqs * (ctx + new) * (double)page / 32, flop = 4.0 * heads * dim * seqs * ((double)new * ctx + (double)new * (new + 1) / 2);
    double best = t[repeats / 10], med = t[repeats / 2], gb = (double)slice / g[repeats / 10], gm = (double)slice / g[repeats / 2];
    printf("%-4s %d/%d d%d ctx %d x%d new %d, %d threads %s: p10 %.1f us, median %.1f us | %.1f (%.1f) GB/s, probe %.1f (%.1f): %.0f%% (%.0f%%) | %.0f (%.0f) GFLOP/s | write %.0f ns/token\n",
           types[type], heads, kv_heads, dim, ctx, seqs, new, dev_caps(d)->n_threads, dev_caps(d)->isa, best / 1e3, med / 1e3, bytes / best, bytes / med, gb, gm,
           100 * bytes / best / gb, 100 * bytes / med / gm, flop / best, flop / med, write_ns);
    dev_kv_close(d, &kv);
    dev_close(&d);
    return 0;
}
