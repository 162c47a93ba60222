/* Measured ceilings: read bandwidth, bf16 dot, int8 dot, f32 FMA, one thread and two.
 *   gcc -O3 -march=native -std=gnu17 bench/lab/peak.c -o /tmp/peak -lpthread && /tmp/peak */
#include <immintrin.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + 1e-9 * t.tv_nsec;
}

enum { READ, BF16, INT8, F32, KINDS };
static char *mem;
static const size_t mem_bytes = 512u << 20;
struct job { int kind, member, n; double ops; float sink; };

static void *work(void *p)
{
    struct job *j = p;
    __m512i v[16];
    for (int i = 0; i < 16; i++) v[i] = _mm512_setzero_si512();
    if (j->kind == READ) {
        size_t part = mem_bytes / j->n;
        const char *b = mem + part * j->member;
        for (size_t o = 0; o < part; o += 512)
            for (int i = 0; i < 8; i++) {
                _mm_prefetch(b + o + 64 * i + 4096, _MM_HINT_T0);
                v[i] = _mm512_xor_si512(v[i], _mm512_load_si512(b + o + 64 * i));
            }
        j->ops = part;
    } else {
        __m512i x = _mm512_set1_epi8(1);
        __m512bh bx = (__m512bh)x;
        __m512 fx = _mm512_set1_ps(1e-9f);
        long n = 4000000;
        for (long l = 0; l < n; l++) {
#pragma GCC unroll 16
            for (int i = 0; i < 16; i++) {
                if (j->kind == BF16) v[i] = (__m512i)_mm512_dpbf16_ps((__m512)v[i], bx, bx);
                else if (j->kind == INT8) v[i] = _mm512_dpbusd_epi32(v[i], x, x);
                else v[i] = (__m512i)_mm512_fmadd_ps(fx, fx, (__m512)v[i]);
            }
        }
        j->ops = 16.0 * n * (j->kind == BF16 ? 64 : j->kind == INT8 ? 128 : 32);
    }
    for (int i = 1; i < 16; i++) v[0] = _mm512_xor_si512(v[0], v[i]);
    j->sink = _mm512_reduce_add_epi32(v[0]);
    return NULL;
}

int main(void)
{
    mem = mmap(NULL, mem_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    madvise(mem, mem_bytes, MADV_HUGEPAGE);
    memset(mem, 1, mem_bytes);
    static const char *names[] = {"read", "bf16", "int8", "f32"};
    for (int kind = 0; kind < KINDS; kind++)
        for (int n = 1; n <= 2; n++) {
            double best = 0;
            for (int rep = 0; rep < 5; rep++) {
                struct job j[2];
                pthread_t t[2];
                double t0 = now(), ops = 0;
                for (int i = 0; i < n; i++) {
                    j[i] = (struct job){.kind = kind, .member = i, .n = n};
                    pthread_create(&t[i], NULL, work, &j[i]);
                }
                for (int i = 0; i < n; i++) { pthread_join(t[i], NULL); ops += j[i].ops; }
                double r = ops / (now() - t0) * 1e-9;
                if (r > best) best = r;
            }
            printf("%s %d threads: %.1f G/s\n", names[kind], n, best);
        }
}
