/* JSON text: what parses must be written as text that parses again to an equal value. */
#include <stdlib.h>
#include "base/buf.h"
#include "base/json.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    struct err e;
    json_t *j = json_parse((const char *)data, size, &e);
    if (!j)
        return 0;
    struct buf b;
    buf_init(&b, 0);
    if (!json_write(j, &b))
        abort();
    json_t *again = json_parse(b.data, b.len, &e);
    if (!again || !json_equal(j, again))
        abort();
    json_decref(again);
    json_decref(j);
    buf_free(&b);

    /* The same bytes as one string. */
    buf_init(&b, 0);
    if (!json_write_str(&b, (const char *)data, size) || !(j = json_parse(b.data, b.len, &e)))
        abort();
    json_decref(j);
    buf_free(&b);
    return 0;
}
