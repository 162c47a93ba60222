/* A reply in pieces gives what it gives whole, whatever it says.  The first byte chooses the forms. */
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include "server/reply.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

static void put(void *ctx, const char *text, size_t len) { buf_append(ctx, text, len); }

static void put_call(void *ctx, int index, const char *text, size_t len)
{
    buf_printf(ctx, "\1%d", index);
    buf_append(ctx, text, len);
    buf_putc(ctx, '\2');
}

static void put_arguments(void *ctx, int index, const char *text, size_t len)
{
    (void)index;
    buf_append(ctx, text, len);
}

static void run(const unsigned char *data, size_t size, unsigned how, size_t piece, struct buf *out)
{
    struct reply_sink sink = {out, put, put, put_call, put_arguments};
    struct reply *r = reply_open((enum reply_calls)(how % REPLY_CALLS_COUNT), (enum reply_thoughts)(how / 8 % REPLY_THOUGHTS_COUNT),
                                 (enum reply_start)(how / 32 % 3), how & 128, &sink);
    buf_init(out, 0);
    for (size_t at = 0; r && at < size; at += piece)
        reply_feed(r, (const char *)data + at, size - at < piece ? size - at : piece, false);
    if (r)
        reply_feed(r, "", 0, true);
    reply_close(&r);
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    struct buf whole, pieces;
    if (size < 2 || size > 4000)
        return 0;
    run(data + 1, size - 1, data[0], size, &whole);
    run(data + 1, size - 1, data[0], 1 + data[1] % 7, &pieces);
    if (whole.len != pieces.len || (whole.len && memcmp(whole.data, pieces.data, whole.len) != 0))
        abort();
    buf_free(&whole);
    buf_free(&pieces);
    return 0;
}
