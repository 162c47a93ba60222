#include "bench/probe.h"

#include <stdint.h>
#include <stdlib.h>
#include "base/clock.h"
#include "base/mem.h"

enum { PASSES_MAX = 64, SUMS = 256 };
static const size_t BUFFER_BYTES = (size_t)512 << 20, CHUNK_BYTES = (size_t)1 << 20;

struct read_job {
    struct tpool *team;
    uint64_t *data;
    uint64_t sums[SUMS];    /* kept, so that the loads cannot be dropped */
};

static void touch_chunks(void *arg, int member, int n_members)
{
    struct read_job *job = arg;
    (void)member, (void)n_members;
    size_t words = CHUNK_BYTES / sizeof *job->data;
    for (int64_t c; (size_t)(c = tpool_next(job->team)) < BUFFER_BYTES / CHUNK_BYTES;)
        for (size_t i = 0; i < words; i++)
            job->data[(size_t)c * words + i] = i;
}

static void read_chunks(void *arg, int member, int n_members)
{
    struct read_job *job = arg;
    (void)n_members;
    size_t words = CHUNK_BYTES / sizeof *job->data;
    uint64_t sum[16] = {0};
    for (int64_t c; (size_t)(c = tpool_next(job->team)) < BUFFER_BYTES / CHUNK_BYTES;) {
        const uint64_t *p = job->data + (size_t)c * words;
        for (size_t i = 0; i < words; i += 16) {
            __builtin_prefetch(p + i + 256);
            for (int k = 0; k < 16; k++)
                sum[k] += p[i + (size_t)k];
        }
    }
    for (int k = 0; k < 16; k++)
        job->sums[member % SUMS] += sum[k];
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

bool probe_read_gb_s(struct tpool *tp, int budget_ms, double *gb_s, struct err *e)
{
    struct read_job job = {.team = tp, .data = mem_try_map(BUFFER_BYTES)};
    if (!job.data)
        return err_set(e, ERR_NOMEM, "no memory for the bandwidth probe (%zu bytes)", BUFFER_BYTES);
    tpool_run(tp, touch_chunks, &job);
    double rate[PASSES_MAX];
    int n = 0;
    int64_t end = clock_now_ns() + (int64_t)budget_ms * 1000000;
    do {
        int64_t t0 = clock_now_ns();
        tpool_run(tp, read_chunks, &job);
        rate[n++] = (double)BUFFER_BYTES / (double)(clock_now_ns() - t0);
    } while (n < PASSES_MAX && (n < 3 || clock_now_ns() < end));
    mem_unmap(job.data, BUFFER_BYTES);
    qsort(rate, (size_t)n, sizeof rate[0], compare_doubles);
    *gb_s = rate[n / 2];
    return true;
}
