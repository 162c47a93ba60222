/* base/clock.h - time.  Modules that decide by time take it as a parameter; only the edges
 * (engine loop, server, cli) read the clock. */
#ifndef QUIRE_BASE_CLOCK_H
#define QUIRE_BASE_CLOCK_H

#include <stddef.h>
#include <stdint.h>

int64_t clock_now_us(void);       /* monotonic, microseconds */
int64_t clock_now_ns(void);       /* monotonic, nanoseconds */
int64_t clock_unix_s(void);       /* wall clock, seconds since 1970 */
/* "2026-01-31T12:00:00.123Z" into out (at least 32 bytes). */
void clock_format_utc(char *out, size_t cap);

#endif
