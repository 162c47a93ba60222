/* A quantized linear from anywhere: four bytes choose the method and the shape, the rest is a safetensors file whose tensors are called
 * "m.*".  Bind it, and read every value and code. */
#include <stdlib.h>
#include <string.h>
#include "base/mem.h"
#include "model/quant_int.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

static void read_all(const struct quant_matrix *q)
{
    struct tensor_rows r;
    float *out = mem_try_alloc((size_t)(q->n_rows * q->n_cols), sizeof *out);
    quant_matrix_rows(&r, q, 0, q->n_rows);
    r.read(&r, 0, q->n_rows, out);
    if (r.quant) {
        int64_t groups = tensor_quant_groups(r.quant, q->n_cols);
        uint8_t *codes = mem_try_alloc((size_t)q->n_cols, 1);
        float *scales = mem_try_alloc((size_t)groups, 3 * sizeof *scales);
        r.quant->read(&r, q->n_rows - 1, 1, codes, scales, scales + groups, scales + 2 * groups);
        for (int64_t k = 0; k < q->n_cols; k++)
            if (codes[k] >> r.quant->bits)
                abort();
        mem_free(codes);
        mem_free(scales);
    }
    mem_free(out);
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    if (size < 4)
        return 0;
    struct quant_config c = { .method = (enum quant_method)(data[0] % 6), .zeros_exact = data[0] & 8, .bits = { 4, 8, 3, 2 }, .n_bits = 4 };
    int64_t rows = 1 + data[1], cols = 1 + data[2];
    static const int64_t groups[] = { 0, -1, 16, 32, 64, 128 };
    c.group_size = groups[data[3] % 6];
    if (data[3] & 0x80)
        c.block_rows = c.block_cols = 16 << (data[3] >> 4 & 3);
    struct file_blob blobs[2] = { { "model.safetensors", data + 4, size - 4 }, { 0 } };
    struct file_set files = { .blobs = blobs };
    struct checkpoint *ck;
    struct quant_matrix q;
    struct err e = { 0 };
    if (!checkpoint_open(&ck, &files, &e))
        return 0;
    enum quant_found found = quant_matrix_bind(&q, &c, ck, "m", rows, cols, false, &e);
    if (found == QUANT_IS)
        read_all(&q);
    else if (found == QUANT_IS_BAD && (!e.msg[0] || strchr(e.msg, '\n')))
        abort();
    checkpoint_close(&ck);
    return 0;
}
