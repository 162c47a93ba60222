/* base/mem.h - allocation.
 *
 * mem_try_* return NULL and are used wherever a file or a request decides the size;
 * mem_must_* abort and are only for sizes fixed by our own code.  All byte counts are
 * products checked for overflow.  Everything here is freed with mem_free, except mappings.
 *
 * Fault injection: after mem_fault_after(n) the n-th following mem_try_* call of this
 * thread fails (n = 1 is the next); tests run n = 1, 2, ... until the call succeeds. */
#ifndef QUIRE_BASE_MEM_H
#define QUIRE_BASE_MEM_H

#include <stdbool.h>
#include <stddef.h>

/* a * b in *out, or false when it does not fit size_t. */
bool mem_mul(size_t a, size_t b, size_t *out);
bool mem_add(size_t a, size_t b, size_t *out);

void *mem_try_alloc(size_t n, size_t elem_bytes);   /* uninitialised; n == 0 gives a valid pointer */
void *mem_try_zalloc(size_t n, size_t elem_bytes);  /* zeroed */
void *mem_try_realloc(void *p, size_t n, size_t elem_bytes); /* on NULL p is unchanged */
char *mem_try_strdup(const char *s);
char *mem_try_strndup(const char *s, size_t len);

void *mem_must_zalloc(size_t n, size_t elem_bytes);

void mem_free(void *p);  /* NULL is fine */

/* 64-byte aligned, zeroed; free with mem_free. */
void *mem_try_aligned(size_t bytes);

/* Large zeroed anonymous mapping, 2 MiB aligned with transparent huge pages advised.
 * Pages are touched first by whoever writes them.  NULL when refused. */
void *mem_try_map(size_t bytes);
void mem_unmap(void *p, size_t bytes);

void mem_fault_after(long n);  /* 0 switches it off */
bool mem_fault_fired(void);    /* whether the armed fault has happened since arming */

/* Process memory: resident now and at most so far, in bytes (0 when unknown). */
size_t mem_rss_bytes(void);
size_t mem_peak_rss_bytes(void);

#endif
