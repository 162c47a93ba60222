/* Small pieces of JSON. */
#include <math.h>
#include "base/json.h"
#include "server/api_int.h"

void api_write_text(struct buf *out, const char *s, size_t len) { json_write_str(out, s ? s : "", s ? len : 0); }

void api_write_ids(struct buf *out, const int32_t *ids, int32_t n)
{
    buf_putc(out, '[');
    for (int32_t i = 0; i < n; i++)
        buf_printf(out, i ? ",%d" : "%d", ids[i]);
    buf_putc(out, ']');
}

void api_write_logprob(struct buf *out, float x)
{
    if (isfinite(x) && x > -9999.0f)
        buf_printf(out, "%.9g", (double)x);
    else
        buf_puts(out, "-9999.0");
}
