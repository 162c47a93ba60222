/* Which attention an instruction set and KV type use. */
#include "kern/attn.h"

size_t kern_attn_slab_bytes(enum kern_kv type, int head_dim)
{
    size_t e = type == KERN_KV_F32 ? 4 : 2;
    return 2 * KERN_ATTN_PAGE * (size_t)kern_attn_dim(head_dim) * e;
}

const struct kern_attn *kern_attn_table(enum kern_isa isa, enum kern_kv type)
{
    static const struct kern_attn *const table[KERN_ISA_COUNT][KERN_KV_COUNT] = {
        {&kern_attn_f32_ref, &kern_attn_f16_ref, &kern_attn_bf16_ref},
        {&kern_attn_f32_avx2, &kern_attn_f16_avx2, &kern_attn_bf16_avx2},
        {&kern_attn_f32_avx512, &kern_attn_f16_avx512, &kern_attn_bf16_avx512},
        {&kern_attn_f32_avx512, &kern_attn_f16_avx512, &kern_attn_bf16_avx512bf16},
    };
    return table[isa][type];
}
