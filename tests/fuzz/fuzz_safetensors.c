/* safetensors bytes from anywhere: parse, and read every byte a tensor claims. */
#include "model/safetensors_int.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    struct safetensors st;
    struct err e;
    if (!safetensors_parse(&st, data, size, "fuzz", &e))
        return 0;
    volatile unsigned char sum = 0;
    (void)sum;
    for (size_t i = 0; i < st.n_tensors; i++) {
        const struct tensor *t = &st.tensors[i];
        struct tensor_rows r;
        for (size_t j = 0; j < t->bytes; j++)
            sum ^= ((const unsigned char *)t->data)[j];
        float row[64];
        if (t->n_dims == 2 && t->dims[0] > 0 && t->dims[1] <= 64 && dtype_is_float(t->dtype) && t->dtype != DT_F64) {
            tensor_rows_of(&r, t, 0, t->dims[0]);
            r.read(&r, t->dims[0] - 1, 1, row);
        }
    }
    safetensors_free(&st);
    return 0;
}
