/* kern/cpu.h - which instructions this CPU has, and which set the kernels use. */
#ifndef QUIRE_KERN_CPU_H
#define QUIRE_KERN_CPU_H

#include <stdbool.h>
#include "base/err.h"

/* In ascending order of preference; each includes those before it. */
enum kern_isa {
    KERN_ISA_SCALAR,
    KERN_ISA_AVX2,         /* AVX2, FMA, F16C */
    KERN_ISA_AVX512,       /* F BW VL DQ */
    KERN_ISA_AVX512_BF16,  /* + VNNI, BF16, VBMI */
    KERN_ISA_COUNT
};

const char *kern_isa_name(enum kern_isa isa);           /* "scalar", "avx2", "avx512", "avx512_bf16" */
bool kern_isa_parse(const char *name, enum kern_isa *out);
enum kern_isa kern_isa_best(void);                      /* from CPUID and the OS's saved state */
/* Space-separated list of the features found, for `quire devices` ("avx2 fma avx512f ..."). */
const char *const *kern_cpu_features(int *n);

#endif
