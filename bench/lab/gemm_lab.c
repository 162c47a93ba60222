/* Times products of 1B-model shapes: GB/s of weights and GFLOP/s, against ceilings measured between them.
 *   bench/lab/build.sh /tmp/lab && /tmp/lab/gemm_lab avx512_bf16 bf16 2 1 4 16 32 512
 * usage: gemm_lab ISA FORMAT THREADS M... */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <immintrin.h>
#include "base/clock.h"
#include "base/mem.h"
#include "kern/gemm.h"

static double now(void) { return clock_now_ns() * 1e-9; }

/* The matrices of one layer of a 1B Llama, and how many layers' copies we go round (to defeat the caches). */
static const struct { const char *name; int n, k; } shapes[] = {{"qkv", 3072, 2048}, {"o", 2048, 2048}, {"gateup", 16384, 2048}, {"down", 2048, 8192}};
enum { N_SHAPES = 4, MAX_THREADS = 8 };

struct team { int n; pthread_barrier_t go; atomic_long next; };
struct op { struct gemm_job job; long n_items; int panels_per_item; int tiles_per_item; const float *x; int64_t m; void *a; };
struct worker { struct team *t; struct op *ops; int n_ops; int member; void *scratch; };

static void run_ops(struct worker *w, struct op *ops, int n_ops)
{
    for (int o = 0; o < n_ops; o++) {
        struct op *op = &ops[o];
        const struct gemm_job *j = &op->job;
        size_t act = gemm_act_bytes(j->kern, j->k);
        if (w->member == 0) {
            for (int t = 0; t < j->rows.n_tiles; t++) {
                int64_t r0 = gemm_rows_first(&j->rows, t), r1 = gemm_rows_first(&j->rows, t + 1);
                gemm_prepare(j->kern, op->x + r0 * j->k, j->k, (int)(r1 - r0), j->k, (char *)op->a + r0 * act);
            }
            atomic_store(&w->t->next, 0);
        }
        pthread_barrier_wait(&w->t->go);
        long i = atomic_fetch_add(&w->t->next, 1);
        while (i < op->n_items) {
            long ni = atomic_fetch_add(&w->t->next, 1);
            int64_t p0 = i * op->panels_per_item, p1 = p0 + op->panels_per_item;
            if (p1 > j->n_panels) p1 = j->n_panels;
            const char *next = ni < op->n_items ? (const char *)j->panels + ni * op->panels_per_item * gemm_panel_bytes(j->kern->format, j->k) : NULL;
            gemm_run(j, p0, p1, 0, j->rows.n_tiles, next, w->scratch);
            i = ni;
        }
        pthread_barrier_wait(&w->t->go);
    }
}

static void *member(void *p) { struct worker *w = p; run_ops(w, w->ops, w->n_ops); return NULL; }

static double run_team(struct team *t, struct op *ops, int n_ops, void **scratch)
{
    struct worker w[MAX_THREADS];
    pthread_t th[MAX_THREADS];
    double t0 = now();
    for (int i = 1; i < t->n; i++) {
        w[i] = (struct worker){t, ops, n_ops, i, scratch[i]};
        pthread_create(&th[i], NULL, member, &w[i]);
    }
    w[0] = (struct worker){t, ops, n_ops, 0, scratch[0]};
    run_ops(&w[0], ops, n_ops);
    for (int i = 1; i < t->n; i++) pthread_join(th[i], NULL);
    return now() - t0;
}

/* ---- ceilings ---- */
struct probe { const char *mem; size_t bytes; int kind; int64_t sink; double ops; };
static void *probe_run(void *p)
{
    struct probe *q = p;
    __m512i v[14];
    for (int i = 0; i < 14; i++) v[i] = _mm512_setzero_si512();
    if (q->kind == 0) {
        for (size_t o = 0; o + 512 <= q->bytes; o += 512)
            for (int i = 0; i < 8; i++) {
                _mm_prefetch(q->mem + o + 64 * i + 4096, _MM_HINT_T0);
                v[i] = _mm512_xor_si512(v[i], _mm512_load_si512(q->mem + o + 64 * i));
            }
        q->ops = q->bytes;
    } else {
        __m512i x = _mm512_set1_epi8(1); __m512 f = _mm512_set1_ps(1e-9f);
        long n = 1000000;
        for (long l = 0; l < n; l++) {
#pragma GCC unroll 14
            for (int i = 0; i < 14; i++)
                v[i] = q->kind == 1 ? (__m512i)_mm512_dpbf16_ps((__m512)v[i], (__m512bh)x, (__m512bh)x)
                     : q->kind == 2 ? _mm512_dpbusd_epi32(v[i], x, x) : (__m512i)_mm512_fmadd_ps(f, f, (__m512)v[i]);
        }
        q->ops = 14.0 * n * (q->kind == 1 ? 64 : q->kind == 2 ? 128 : 32);
    }
    for (int i = 1; i < 14; i++) v[0] = _mm512_xor_si512(v[0], v[i]);
    q->sink = _mm512_reduce_add_epi32(v[0]);
    return NULL;
}
static double probe(const char *mem, size_t bytes, int kind, int n)
{
    struct probe p[MAX_THREADS]; pthread_t th[MAX_THREADS];
    double t0 = now(), ops = 0;
    for (int i = 0; i < n; i++) {
        p[i] = (struct probe){mem + bytes / n / 4096 * 4096 * i, bytes / n, kind, 0, 0};
        pthread_create(&th[i], NULL, probe_run, &p[i]);
    }
    for (int i = 0; i < n; i++) { pthread_join(th[i], NULL); ops += p[i].ops; }
    return ops / (now() - t0) * 1e-9;
}

static int cmp(const void *a, const void *b) { double x = *(const double *)a, y = *(const double *)b; return x < y ? -1 : x > y; }

int main(int argc, char **argv)
{
    if (argc < 5) return 2;
    enum kern_isa isa; enum gemm_format f = GEMM_FORMAT_COUNT;
    if (!kern_isa_parse(argv[1], &isa)) return 2;
    static const char *fn[] = {"f32", "f16", "bf16", "i8", "i8g16", "i8g32", "u4g32", "u4g64", "u4g128", "f8"};
    for (int i = 0; i < GEMM_FORMAT_COUNT; i++) if (!strcmp(argv[2], fn[i])) f = i;
    struct team team = {.n = atoi(argv[3])};
    pthread_barrier_init(&team.go, NULL, team.n);
    int layers = getenv("LAYERS") ? atoi(getenv("LAYERS")) : 4, reps = getenv("REPS") ? atoi(getenv("REPS")) : 7;
    int item_kb = getenv("ITEM_KB") ? atoi(getenv("ITEM_KB")) : 128;
    const struct gemm_kern *kern = gemm_kern_get(isa, f, GEMM_INPUTS_AUTO);
    enum { MAX_M = 2048 };
    char *w[8][N_SHAPES]; size_t layer_bytes = 0; double layer_mac = 0;
    for (int s = 0; s < N_SHAPES; s++) { layer_bytes += gemm_panel_bytes(f, shapes[s].k) * (shapes[s].n / 32); layer_mac += (double)shapes[s].n * shapes[s].k; }
    char *mem = mem_try_map(layer_bytes * layers + (1 << 20)), *at = mem;
    float *rowbuf = malloc(32 * 8192 * 4);
    unsigned seed = 1;
    for (int l = 0; l < layers; l++) for (int s = 0; s < N_SHAPES; s++) {
        w[l][s] = at;
        size_t pb = gemm_panel_bytes(f, shapes[s].k);
        for (int p = 0; p < shapes[s].n / 32; p++, at += pb) {
            if (p == 0) {
                for (int i = 0; i < 32 * shapes[s].k; i++) { seed = seed * 1664525u + 1013904223u; rowbuf[i] = (float)(int)seed * 1e-11f; }
                gemm_pack(f, at, 0, 32, shapes[s].k, rowbuf, shapes[s].k, NULL);
            } else memcpy(at, w[l][s], pb);
        }
    }
    float *x = mem_try_map((size_t)MAX_M * 8192 * 4), *out = mem_try_map((size_t)MAX_M * 16384 * 4);
    for (size_t i = 0; i < (size_t)MAX_M * 8192; i++) { seed = seed * 1664525u + 1013904223u; x[i] = (float)(int)seed * 5e-10f; }
    void *a = mem_try_map((size_t)MAX_M * 8192 * 8);
    void *scratch[MAX_THREADS];
    for (int i = 0; i < team.n; i++) scratch[i] = mem_try_map(gemm_scratch_bytes());
    int kind = kern->operand == GEMM_OPERAND_BF16 ? 1 : kern->operand == GEMM_OPERAND_F32 ? 3 : 2;
    for (int mi = 4; mi < argc; mi++) {
        int m = atoi(argv[mi]);
        struct op ops[8 * N_SHAPES];
        for (int l = 0; l < layers; l++) for (int s = 0; s < N_SHAPES; s++) {
            struct op *o = &ops[l * N_SHAPES + s];
            int per = (int)(item_kb * 1024 / gemm_panel_bytes(f, shapes[s].k)); if (per < 1) per = 1;
            if (m > 224) per = 4;
            bool glu = s == 2;
            *o = (struct op){.job = {.kern = kern, .epilogue = gemm_epilogue_get(isa), .epi = {glu ? GEMM_GLU : GEMM_STORE, glu ? GEMM_ACT_SILU : GEMM_ACT_NONE, 1, 0},
                .panels = w[l][s], .k = shapes[s].k, .n_panels = shapes[s].n / 32, .n_out = glu ? shapes[s].n / 2 : shapes[s].n, .a = a,
                .rows = gemm_rows_split(m, kern->rows_max), .out = out, .ldo = 16384}, .panels_per_item = per, .x = x, .m = m, .a = a};
            o->n_items = (o->job.n_panels + per - 1) / per;
        }
        double t[64], bw[64], fl[64];
        int r = reps;
        for (int i = 0; i < r; i++) {
            bw[i] = probe(mem, layer_bytes * layers, 0, team.n);
            fl[i] = probe(mem, 0, kind, team.n);
            t[i] = run_team(&team, ops, layers * N_SHAPES, scratch);
        }
        qsort(t, r, sizeof *t, cmp); qsort(bw, r, sizeof *bw, cmp); qsort(fl, r, sizeof *fl, cmp);
        double bytes = (double)layer_bytes * layers, flop = 2 * layer_mac * layers * m;
        double lim = bytes / bw[r / 2] > flop / fl[r / 2] ? bytes / bw[r / 2] : flop / fl[r / 2];
        printf("%s %s M=%d: %.2f ms (best %.2f)  %.1f GB/s of %.1f, %.0f Gop/s of %.0f: %.0f%% of limit\n", kern->name, argv[2], m, t[r / 2] * 1e3, t[0] * 1e3,
               bytes / t[r / 2] * 1e-9, bw[r / 2], flop / t[r / 2] * 1e-9, fl[r / 2], 100 * lim * 1e-9 / t[r / 2]);
    }
    return 0;
}
