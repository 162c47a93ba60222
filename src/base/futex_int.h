/* base/futex_int.h - sleeping on a 32-bit word, for this folder only.
 *
 * The word is read and written with C11 atomics; the kernel only compares and sleeps, so all
 * ordering is in the program and a race checker sees it. */
#ifndef QUIRE_BASE_FUTEX_INT_H
#define QUIRE_BASE_FUTEX_INT_H

#include <limits.h>
#include <linux/futex.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* Sleep while *word == expected, at most timeout_us (< 0: no limit).  May return early. */
static inline void futex_wait(_Atomic(uint32_t) *word, uint32_t expected, int64_t timeout_us)
{
    struct timespec ts = {timeout_us / 1000000, timeout_us % 1000000 * 1000};
    (void)syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, expected, timeout_us < 0 ? NULL : &ts, NULL, 0);
}

static inline void futex_wake_all(_Atomic(uint32_t) *word)
{
    (void)syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

#endif
