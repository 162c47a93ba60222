/* tokenizer.json up to the first 0 byte, then a text: opening must refuse or succeed, and what opens must
 * encode, and decode to valid UTF-8, the same whole and streamed. */
#include <stdlib.h>
#include <string.h>
#include "base/utf8.h"
#include "tok/detok.h"
#include "tok/tok.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

enum { MAX_TEXT = 4096 };

static void check(const struct tok *t, const struct tok_ids *ids, unsigned flags)
{
    struct buf whole = {0}, streamed = {0};
    struct detok *d;
    if (tok_decode(t, ids->ids, ids->n, flags, &whole, NULL)) {
        if (whole.len && !utf8_valid(whole.data, whole.len))
            abort();
        if (!detok_open(&d, t, flags, NULL, 0, NULL))
            abort();
        for (size_t i = 0; i < ids->n; i++)
            if (!detok_push(d, ids->ids[i], &streamed, NULL))
                abort();
        if (!detok_finish(d, &streamed, NULL) || streamed.len != whole.len ||
            (whole.len && memcmp(streamed.data, whole.data, whole.len) != 0))
            abort();
        detok_close(&d);
    }
    buf_free(&whole);
    buf_free(&streamed);
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    const unsigned char *zero = size ? memchr(data, 0, size) : NULL;
    size_t json_len = zero ? (size_t)(zero - data) : size, text_len = zero ? size - json_len - 1 : 0;
    struct tok *t;
    struct err e;
    if (!tok_open_json(&t, (const char *)data, json_len, &e))
        return 0;
    if (text_len > MAX_TEXT)
        text_len = MAX_TEXT;
    struct tok_ids ids = {0};
    if (tok_encode(t, zero ? (const char *)zero + 1 : "", text_len, TOK_ENCODE_SPECIAL, &ids, &e)) {
        check(t, &ids, TOK_DECODE_ALL);
        check(t, &ids, TOK_DECODE_SKIP_SPECIAL);
    }
    tok_ids_free(&ids);
    tok_close(&t);
    return 0;
}
