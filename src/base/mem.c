#include "base/mem.h"

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

enum { CACHE_LINE = 64 };
static const size_t HUGE_PAGE = (size_t)2 << 20;

/* Armed only by tests, per thread. */
static _Thread_local long fault_countdown;
static _Thread_local bool fault_happened;

void mem_fault_after(long n)
{
    fault_countdown = n > 0 ? n : 0;
    fault_happened = false;
}

bool mem_fault_fired(void)
{
    return fault_happened;
}

static bool fault_now(void)
{
    if (fault_countdown == 0 || --fault_countdown > 0)
        return false;
    fault_happened = true;
    return true;
}

bool mem_mul(size_t a, size_t b, size_t *out)
{
    return !__builtin_mul_overflow(a, b, out);
}

bool mem_add(size_t a, size_t b, size_t *out)
{
    return !__builtin_add_overflow(a, b, out);
}

/* n * elem_bytes, never 0, refused above PTRDIFF_MAX (no object may be larger). */
static bool object_bytes(size_t n, size_t elem_bytes, size_t *out)
{
    if (!mem_mul(n, elem_bytes, out) || *out > PTRDIFF_MAX)
        return false;
    if (*out == 0)
        *out = 1;
    return true;
}

void *mem_try_alloc(size_t n, size_t elem_bytes)
{
    size_t bytes;
    if (fault_now() || !object_bytes(n, elem_bytes, &bytes))
        return NULL;
    return malloc(bytes);
}

void *mem_try_zalloc(size_t n, size_t elem_bytes)
{
    size_t bytes;
    if (fault_now() || !object_bytes(n, elem_bytes, &bytes))
        return NULL;
    return calloc(1, bytes);
}

void *mem_try_realloc(void *p, size_t n, size_t elem_bytes)
{
    size_t bytes;
    if (fault_now() || !object_bytes(n, elem_bytes, &bytes))
        return NULL;
    return realloc(p, bytes);
}

char *mem_try_strdup(const char *s)
{
    return mem_try_strndup(s, strlen(s));
}

char *mem_try_strndup(const char *s, size_t len)
{
    size_t bytes;
    if (!mem_add(len, 1, &bytes))
        return NULL;
    char *copy = mem_try_alloc(bytes, 1);
    if (!copy)
        return NULL;
    if (len)
        memcpy(copy, s, len);
    copy[len] = '\0';
    return copy;
}

void *mem_must_zalloc(size_t n, size_t elem_bytes)
{
    size_t bytes;
    void *p = object_bytes(n, elem_bytes, &bytes) ? calloc(1, bytes) : NULL;
    if (!p)
        abort();
    return p;
}

void mem_free(void *p)
{
    free(p);
}

void *mem_try_aligned(size_t bytes)
{
    size_t rounded;
    if (fault_now() || !mem_add(bytes ? bytes : 1, CACHE_LINE - 1, &rounded) || rounded > PTRDIFF_MAX)
        return NULL;
    rounded &= ~(size_t)(CACHE_LINE - 1);
    void *p = aligned_alloc(CACHE_LINE, rounded);
    if (p)
        memset(p, 0, rounded);
    return p;
}

/* Whole pages that a mapping of `bytes` takes; at least one. */
static bool map_bytes(size_t bytes, size_t *out)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    if (!mem_add(bytes ? bytes : 1, page - 1, out) || *out > PTRDIFF_MAX)
        return false;
    *out &= ~(page - 1);
    return true;
}

void *mem_try_map(size_t bytes)
{
    size_t len, all;
    if (fault_now() || !map_bytes(bytes, &len) || !mem_add(len, HUGE_PAGE, &all))
        return NULL;
    char *base = mmap(NULL, all, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED)
        return NULL;
    /* Cut off what lies before the aligned start and behind the end. */
    size_t before = (HUGE_PAGE - ((uintptr_t)base & (HUGE_PAGE - 1))) & (HUGE_PAGE - 1);
    size_t behind = all - before - len;
    if (before)
        munmap(base, before);
    if (behind)
        munmap(base + before + len, behind);
    (void)madvise(base + before, len, MADV_HUGEPAGE); /* advice: a kernel without them is fine */
    return base + before;
}

void mem_unmap(void *p, size_t bytes)
{
    size_t len;
    if (p && map_bytes(bytes, &len))
        munmap(p, len);
}

/* A small file of /proc into buf, NUL-terminated; false when it cannot be read. */
static bool read_proc(const char *path, char *buf, size_t cap)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    size_t len = 0;
    while (len < cap - 1) {
        ssize_t got = read(fd, buf + len, cap - 1 - len);
        if (got <= 0)
            break;
        len += (size_t)got;
    }
    close(fd);
    buf[len] = '\0';
    return len > 0;
}

size_t mem_rss_bytes(void)
{
    char text[256];
    unsigned long total, resident;
    if (!read_proc("/proc/self/statm", text, sizeof text) ||
        sscanf(text, "%lu %lu", &total, &resident) != 2)
        return 0;
    return (size_t)resident * (size_t)sysconf(_SC_PAGESIZE);
}

size_t mem_peak_rss_bytes(void)
{
    /* VmHWM rather than getrusage: ru_maxrss survives exec and counts the parent's peak. */
    char text[4096];
    size_t peak = 0;
    unsigned long kib;
    const char *at = read_proc("/proc/self/status", text, sizeof text) ? strstr(text, "VmHWM:") : NULL;
    if (at && sscanf(at, "VmHWM: %lu", &kib) == 1) {
        peak = (size_t)kib * 1024;
    } else {
        struct rusage ru;
        if (getrusage(RUSAGE_SELF, &ru) == 0)
            peak = (size_t)ru.ru_maxrss * 1024;
    }
    /* The kernel folds its per-CPU counts in lazily, so the peak may lag behind. */
    size_t now = mem_rss_bytes();
    return peak > now ? peak : now;
}
