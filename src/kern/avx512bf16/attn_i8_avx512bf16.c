/* Attention with i8 KV for AVX-512 with BF16: widened to bf16. */
#include "kern/avx512bf16/attn_ops_avx512bf16.h"
#include "kern/avx512bf16/attn_widen_avx512bf16.h"
#include "kern/attn.h"

enum { DIRECT = 1, SCALED = 1 };

static inline struct widener widener_open(void)
{
    return widener_of(kern_attn_i8_bf16);
}

#include "kern/attn_8bit.inc"
#include "kern/attn_body.inc"

const struct kern_attn kern_attn_i8_avx512bf16 = {2, pack_q, write, part, merge, finish};
