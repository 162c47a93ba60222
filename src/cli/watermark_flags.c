/* The options of the watermark, the same wherever text is marked or looked at. */
#include <string.h>
#include "base/mem.h"
#include "cli/cli.h"
#include "sample/watermark.h"

void cli_watermark_flags_default(struct cli_watermark_flags *f)
{
    *f = (struct cli_watermark_flags){.gamma = 0.5, .delta = 2};
}

bool cli_watermark(const struct cli_watermark_flags *f, struct sample_watermark *out, struct err *e)
{
    sample_watermark_default(out);
    out->gamma = (float)f->gamma;
    out->delta = (float)f->delta;
    if (f->key_file) {
        size_t n;
        char *secret = cli_read(f->key_file, &n, e);
        if (!secret)
            return false;
        bool blank = strspn(secret, " \t\r\n") == n;
        out->key = sample_watermark_key(secret, n);
        mem_free(secret);
        if (blank)
            return err_set(e, ERR_INVALID, "--watermark-key: %s has no key in it", f->key_file);
    }
    return sample_watermark_check(out, e);
}
