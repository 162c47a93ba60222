/* Which set of row functions an instruction set uses. */
#include "kern/row.h"

const struct kern_row *kern_row_table(enum kern_isa isa)
{
    switch (isa) {
    case KERN_ISA_AVX512:
    case KERN_ISA_AVX512_BF16:
        return &kern_row_avx512;
    case KERN_ISA_AVX2:
        return &kern_row_avx2;
    default:
        return &kern_row_ref;
    }
}
