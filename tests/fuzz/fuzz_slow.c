/* Vocabularies without tokenizer.json.  The first byte: SentencePiece, tiktoken, or vocab.json, a NUL, merges.txt, a NUL, tokenizer_config.json. */
#include <stddef.h>
#include <string.h>
#include "base/file.h"
#include "tok/tok.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    static const char *const names[][3] = {{"tokenizer.model"}, {"vocab.tiktoken"}, {"vocab.json", "merges.txt", "tokenizer_config.json"}};
    struct file_blob blobs[4] = {{0}};
    struct file_set fs = {.blobs = blobs};
    struct tok *t;
    struct err e;
    if (size < 1 || size > 20000)
        return 0;
    unsigned kind = data[0] % 3;
    const unsigned char *at = data + 1, *end = data + size;
    for (int i = 0; i < (kind == 2 ? 3 : 1); i++) {
        const unsigned char *nul = kind == 2 && at < end ? memchr(at, 0, (size_t)(end - at)) : NULL;
        blobs[i] = (struct file_blob){names[kind][i], at, (size_t)((nul ? nul : end) - at)};
        at = nul ? nul + 1 : end;
    }
    if (!tok_open(&t, &fs, &e))
        return 0;
    struct tok_ids ids = {0};
    struct buf text = {0};
    if (tok_encode(t, "ab c <s>\xc3\xa9 ", 12, TOK_ENCODE_SPECIAL, &ids, &e))
        tok_decode(t, ids.ids, ids.n, TOK_DECODE_ALL, &text, &e);
    buf_free(&text);
    tok_ids_free(&ids);
    tok_close(&t);
    return 0;
}
