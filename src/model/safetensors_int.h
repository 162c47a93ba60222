/* model/safetensors_int.h - one safetensors file: 8 bytes little-endian header length, a JSON header
 * {"name": {"dtype", "shape", "data_offsets": [begin, end]}, "__metadata__": {..}}, then the data.
 * https://github.com/huggingface/safetensors#format
 *
 * Checked here, once: every tensor lies inside the data, has exactly the bytes its shape and type need, shares no byte with
 * another, and no name comes twice.  Gaps between tensors are allowed. */
#ifndef QUIRE_MODEL_SAFETENSORS_INT_H
#define QUIRE_MODEL_SAFETENSORS_INT_H

#include <stddef.h>
#include "base/err.h"
#include "tensor/tensor.h"

struct safetensors {
    struct tensor *tensors;    /* in file order; names owned here, data borrowed from the bytes */
    size_t n_tensors;
    void *names;
};

/* The bytes must outlive the result.  file names it in messages. */
bool safetensors_parse(struct safetensors *st, const unsigned char *data, size_t size, const char *file, struct err *e);
void safetensors_free(struct safetensors *st);

#endif
