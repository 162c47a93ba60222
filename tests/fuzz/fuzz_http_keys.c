/* The file of API keys: any text is taken or refused with a line that says why, and never shows a key. */
#include <stdlib.h>
#include <string.h>
#include "base/mem.h"
#include "server/http_keys.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

static void check_line(const struct http_key_line *l, const char *text, size_t size)
{
    size_t n = strlen(l->key);
    if (n < 8 || n > 512 || strlen(l->name) > 64 || l->line < 1 || l->limits.requests_per_min < 0 || l->limits.tokens_per_min < 0 ||
        l->limits.concurrent < 0 || l->key < text || l->key + n > text + size)
        abort();
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    struct http_key_line *lines = NULL;
    struct err e = {0};
    int n = 0;
    char *copy = mem_try_alloc(size + 1, 1);
    if (copy) {
        memcpy(copy, data, size);
        copy[size] = 0;
        bool ok = http_keys_parse(copy, size, &lines, &n, &e);
        if (!ok && (!e.msg[0] || n || lines))
            abort();
        for (int i = 0; i < n; i++)
            check_line(&lines[i], copy, size);
    }
    mem_free(lines);
    mem_free(copy);
    return 0;
}
