/* Texts of request headers.  The first byte picks the header. */
#include <stdlib.h>
#include <string.h>
#include "base/mem.h"
#include "server/http_header.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

static void traceparent(const char *s)
{
    char trace[33], span[17];
    memset(trace, 'x', sizeof trace);
    memset(span, 'x', sizeof span);
    if (!http_header_traceparent(s, trace, span))
        return;
    if (strlen(trace) != 32 || strlen(span) != 16 || strncmp(s + 3, trace, 32) != 0 || strncmp(s + 36, span, 16) != 0 ||
        strspn(trace, "0123456789abcdef") != 32 || strspn(trace, "0") == 32)
        abort();
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    int64_t us = -1;
    if (size < 1)
        return 0;
    char *s = mem_try_strndup((const char *)data + 1, size - 1);
    if (!s)
        return 0;
    switch (data[0] % 5) {
    case 0: traceparent(s); break;
    case 1:
        if (http_header_seconds(s, &us) && (us < 1 || us > 1000000000LL * 1000000))
            abort();
        break;
    case 2:
        if (http_header_is_id(s) && (strlen(s) < 1 || strlen(s) > 128))
            abort();
        break;
    case 3:
        if (http_header_wants_openmetrics(s) && !strchr(s, '/'))
            abort();
        break;
    default: (void)http_header_is_true(s);
    }
    mem_free(s);
    return 0;
}
