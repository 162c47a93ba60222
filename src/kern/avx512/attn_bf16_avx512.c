/* Attention with bf16 KV for AVX-512 without BF16. */
#include "kern/avx512/attn_ops_avx512.h"
#include "tensor/tensor.h"

#define ELEM_MAX 3.38953139e38f

static inline void narrow(void *dst, const float *x, int n)
{
    uint16_t *h = dst;
    for (int i = 0; i < n; i++)
        h[i] = tensor_f32_to_bf16(x[i]);
}

#include "kern/attn_plain.inc"
#include "kern/attn_body.inc"

const struct kern_attn kern_attn_bf16_avx512 = {4, pack_q, write, part, merge, finish};
