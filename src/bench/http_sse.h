/* bench/http_sse.h - server-sent events, read as the bytes come (WHATWG HTML, section 9.2.6).
 *
 * Lines end in LF, CR LF or CR; an empty line ends an event; of the fields only `data` matters here, its lines joined
 * by LF.  An event cut off by the end of the stream is dropped, as the standard says. */
#ifndef QUIRE_BENCH_HTTP_SSE_H
#define QUIRE_BENCH_HTTP_SSE_H

#include <stdbool.h>
#include <stddef.h>
#include "base/buf.h"

struct bench_sse {
    struct buf line, data;
    bool after_cr, has_data;
};

/* An event longer than limit bytes fails bench_sse_feed. */
void bench_sse_init(struct bench_sse *s, size_t limit);
void bench_sse_free(struct bench_sse *s);

/* Takes n more bytes and calls event for each event they complete.  False when the limit or memory ran out, or as soon
 * as event returned false. */
bool bench_sse_feed(struct bench_sse *s, const char *p, size_t n, bool (*event)(void *ctx, const char *data, size_t len), void *ctx);

#endif
