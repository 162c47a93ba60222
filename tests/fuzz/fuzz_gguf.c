/* GGUF bytes from anywhere: parse, read every value and row, and turn the metadata into a description and a tokenizer. */
#include <stdlib.h>
#include <string.h>
#include "base/json.h"
#include "model/arch_int.h"
#include "model/gguf_int.h"
#include "tensor/quant.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

static void read_values(const struct gguf *g)
{
    volatile double sum = 0;
    (void)sum;
    for (size_t i = 0; i < g->n_kv; i++) {
        const struct gguf_kv *kv = &g->kv[i];
        const unsigned char *at = kv->data;
        for (uint64_t k = 0; k < kv->n; k++) {
            double x = 0;
            const char *s;
            size_t len;
            if (kv->type == GGUF_STRING) {
                gguf_next_string(&at, &s, &len);
                sum += len ? s[0] + s[len - 1] : 0;
            } else if (gguf_number_at(kv, k, &x)) {
                sum += x;
            }
        }
    }
}

static void read_rows(const struct gguf *g)
{
    float row[1024], scales[64], zeros[64], minima[64];
    uint8_t codes[1024];
    for (size_t i = 0; i < g->n_tensors; i++) {
        const struct tensor *t = &g->tensors[i];
        struct tensor_rows r;
        if (t->n_dims != 2 || t->dims[0] < 1 || t->dims[1] < 1 || t->dims[1] > 1024 || (!t->block && !dtype_is_float(t->dtype)))
            continue;
        tensor_rows_of(&r, t, 0, t->dims[0]);
        r.read(&r, 0, 1, row);
        r.read(&r, t->dims[0] - 1, 1, row);
        if (r.quant)
            r.quant->read(&r, t->dims[0] - 1, 1, codes, scales, zeros, minima);
    }
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    struct gguf_file file = { .name = "fuzz" };
    struct gguf_files files = { .files = &file, .n_files = 1 };
    static struct arch a;
    struct err e = { 0 };
    if (!gguf_parse(&file.g, data, size, "fuzz", &e)) {
        if (!e.msg[0] || strchr(e.msg, '\n'))
            abort();
        return 0;
    }
    read_values(&file.g);
    read_rows(&file.g);
    json_t *config = gguf_config(&files, &e);
    if (config && arch_from_config(&a, config, &e) && gguf_adapt_arch(&files, &a, &e) && (a.ffn < 1 || a.hidden < 1 || a.vocab_size < 1))
        abort();
    json_decref(config);
    struct buf tokenizer = { 0 }, text = { 0 };
    if (gguf_tokenizer(&files, &tokenizer, &text, &e) && tokenizer.len && !tokenizer.failed && !text.failed) {
        json_t *j = json_parse(tokenizer.data, tokenizer.len, &e), *k = json_parse(text.data, text.len, &e);
        /* A token with a NUL is a key that this parser refuses; tok/ reads vocabularies with its own. */
        if ((!j || !k) && !strstr(e.msg, "NUL byte"))
            abort();
        json_decref(j);
        json_decref(k);
    }
    buf_free(&tokenizer);
    buf_free(&text);
    gguf_free(&file.g);
    return 0;
}
