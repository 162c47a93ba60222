/* Attention with bf16 KV for AVX-512 with BF16. */
#include "kern/avx512bf16/attn_ops_avx512bf16.h"

#define ELEM_MAX 3.38953139e38f

static inline void narrow(void *dst, const float *x, int n)
{
    pack(dst, x, n);
}

#include "kern/attn_plain.inc"
#include "kern/attn_body.inc"

const struct kern_attn kern_attn_bf16_avx512bf16 = {2, pack_q, write, part, merge, finish};
