/* What a server streams to the load generator: any bytes, in any pieces, give the same result and no crash. */
#include <stdlib.h>
#include <string.h>
#include "bench/http_call.h"
#include "bench/http_sse.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

static bool on_event(void *ctx, const char *data, size_t len)
{
    struct bench_call *c = ctx;
    return bench_call_event(c, data, len, c->start_us + 1000 * (c->n_chunks + 1));
}

static void run(struct bench_call *c, const char *p, size_t size, size_t piece)
{
    struct bench_sse s;
    c->keep_text = true;
    bench_call_reset(c);
    c->start_us = 1;
    bench_sse_init(&s, 1 << 16);
    for (size_t i = 0; i < size; i += piece)
        if (!bench_sse_feed(&s, p + i, size - i < piece ? size - i : piece, on_event, c))
            break;
    bench_sse_free(&s);
    bench_call_end(c, 200, NULL, NULL);
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    struct bench_call a = {0}, b = {0};
    run(&a, (const char *)data, size, size ? size : 1);
    run(&b, (const char *)data, size, 3);
    if (a.ok != b.ok || a.n_chunks != b.n_chunks || a.n_gaps != b.n_gaps || a.text.len != b.text.len || strcmp(a.error, b.error) != 0)
        abort();
    bench_call_free(&a);
    bench_call_free(&b);
    return 0;
}
