/* Read bandwidth: streams a thread, prefetch distance and level, size of pieces handed out; interleaved, 512 MiB in huge pages.
 *   gcc -O3 -march=native -std=gnu17 bench/lab/read_lab.c -o /tmp/read_lab -lpthread && /tmp/read_lab [THREADS [ROUNDS]]
 *
 * Zen 5, 2 cores, median GB/s of 9 rounds with 2 threads (of 5 with 1):
 *   1 stream    no prefetch 48.9 (39.3)   T0 1K 50.0 (38.8)  2K 50.3 (40.6)  4K 49.2 (40.4)  8K 49.0 (40.1)   T1 4K 49.2 (40.6)   NTA 4K 49.3 (40.3)
 *               T0 4K in pieces of 128 KiB 47.3 (40.4), in halves 49.5 (40.2)
 *   2 streams   no prefetch 48.4 (40.0)   T0 2K 49.3 (38.3)    4 streams 46.9 (37.7)    8 streams 38.7 (30.3)
 * So one stream of 64-byte loads with the next 2 KiB asked for is the wall; more streams a thread only lose pages of DRAM. */
#include <immintrin.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

struct variant { const char *name; int streams, distance, hint; size_t piece; };
static const struct variant variants[] = {
    {"1 stream, no prefetch", 1, 0, 0, 1 << 20},
    {"1 stream, T0 1K", 1, 1024, 0, 1 << 20},
    {"1 stream, T0 2K", 1, 2048, 0, 1 << 20},
    {"1 stream, T0 4K", 1, 4096, 0, 1 << 20},
    {"1 stream, T0 8K", 1, 8192, 0, 1 << 20},
    {"1 stream, T1 4K", 1, 4096, 1, 1 << 20},
    {"1 stream, T1 8K", 1, 8192, 1, 1 << 20},
    {"1 stream, T1 16K", 1, 16384, 1, 1 << 20},
    {"1 stream, NTA 4K", 1, 4096, 2, 1 << 20},
    {"1 stream, T0 4K, 128K pieces", 1, 4096, 0, 128 << 10},
    {"1 stream, T0 4K, halves", 1, 4096, 0, 0},
    {"2 streams, no prefetch", 2, 0, 0, 1 << 20},
    {"2 streams, T0 2K", 2, 2048, 0, 1 << 20},
    {"2 streams, T0 4K", 2, 4096, 0, 1 << 20},
    {"2 streams, T1 4K", 2, 4096, 1, 1 << 20},
    {"4 streams, no prefetch", 4, 0, 0, 1 << 20},
    {"4 streams, T0 1K", 4, 1024, 0, 1 << 20},
    {"4 streams, T0 2K", 4, 2048, 0, 1 << 20},
    {"4 streams, T1 2K", 4, 2048, 1, 1 << 20},
    {"8 streams, T0 1K", 8, 1024, 0, 1 << 20},
};
enum { N = sizeof variants / sizeof variants[0], MAX = 8 };
static char *mem;
static const size_t bytes = 512u << 20;
static atomic_size_t next;
static const struct variant *v;
static pthread_barrier_t bar;
static int n_threads = 2, rounds = 9;
static double sink[MAX];

#define LOOP(STREAMS, PF) \
    for (size_t o = 0; o < part; o += 512) \
        for (int s = 0; s < STREAMS; s++) { \
            const char *q = p + s * part + o; \
            _Pragma("GCC unroll 8") for (int i = 0; i < 8; i++) { PF; a[i] = _mm512_add_epi64(a[i], _mm512_load_si512(q + 64 * i)); } \
        }
#define STREAM(S) case S: \
    if (!d) { LOOP(S, (void)0) } else if (v->hint == 0) { LOOP(S, _mm_prefetch(q + 64 * i + d, _MM_HINT_T0)) } \
    else if (v->hint == 1) { LOOP(S, _mm_prefetch(q + 64 * i + d, _MM_HINT_T1)) } else { LOOP(S, _mm_prefetch(q + 64 * i + d, _MM_HINT_NTA)) } break

static void read_piece(const char *p, size_t n, __m512i a[8])
{
    size_t part = n / (size_t)v->streams;
    int d = v->distance;
    switch (v->streams) { STREAM(1); STREAM(2); STREAM(4); STREAM(8); }
}
static void pass(int member)
{
    __m512i a[8] = {0};
    size_t piece = v->piece ? v->piece : bytes / (size_t)n_threads, i;
    if (!v->piece)
        read_piece(mem + piece * (size_t)member, piece, a);
    else
        while ((i = atomic_fetch_add(&next, 1)) < bytes / piece)
            read_piece(mem + i * piece, piece, a);
    for (int k = 1; k < 8; k++) a[0] = _mm512_add_epi64(a[0], a[k]);
    sink[member] += (double)_mm512_reduce_add_epi64(a[0]);
}
static void *work(void *arg)
{
    int me = (int)(size_t)arg;
    for (int k = 0; k < rounds * N; k++) { pthread_barrier_wait(&bar); pass(me); pthread_barrier_wait(&bar); }
    return NULL;
}
static int cmp(const void *a, const void *b) { double x = *(const double *)a, y = *(const double *)b; return (x > y) - (x < y); }
int main(int argc, char **argv)
{
    if (argc > 1) n_threads = atoi(argv[1]);
    if (argc > 2) rounds = atoi(argv[2]);
    mem = mmap(NULL, bytes + (2 << 20), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mem = (char *)(((size_t)mem + (2 << 20) - 1) & ~(size_t)((2 << 20) - 1));
    madvise(mem, bytes, MADV_HUGEPAGE);
    memset(mem, 1, bytes);
    pthread_barrier_init(&bar, NULL, (unsigned)n_threads);
    v = variants;
    static double t[N][64];
    pthread_t th[MAX];
    for (int i = 1; i < n_threads; i++) pthread_create(&th[i], NULL, work, (void *)(size_t)i);
    for (int r = 0; r < rounds; r++)
        for (int k = 0; k < N; k++) {
            v = &variants[k];
            atomic_store(&next, 0);
            double t0 = now();
            pthread_barrier_wait(&bar); pass(0); pthread_barrier_wait(&bar);
            t[k][r] = (double)bytes / (now() - t0) * 1e-9;
        }
    for (int i = 1; i < n_threads; i++) pthread_join(th[i], NULL);
    for (int k = 0; k < N; k++) { qsort(t[k], (size_t)rounds, 8, cmp); printf("%-32s median %5.1f  best %5.1f GB/s\n", variants[k].name, t[k][rounds / 2], t[k][rounds - 1]); }
}
