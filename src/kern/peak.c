/* kern/peak.c - which loops an instruction set has. */
#include "kern/peak.h"

#include <string.h>

static bool has(const char *feature)
{
    int n;
    const char *const *have = kern_cpu_features(&n);
    for (int i = 0; i < n; i++)
        if (strcmp(have[i], feature) == 0)
            return true;
    return false;
}

struct kern_peak kern_peak_get(enum kern_isa isa)
{
    struct kern_peak p = {
        .read = kern_peak_read_ref,
        .f32 = {kern_peak_f32_ref, 2 * 32},
        .int8 = {kern_peak_int8_ref, 2 * 32},
    };
    if (isa >= KERN_ISA_AVX2) {
        p.read = kern_peak_read_avx2;
        p.f32 = (struct kern_peak_loop){kern_peak_f32_avx2, 2 * 12 * 8};
        p.int8 = (struct kern_peak_loop){kern_peak_int8_avx2, 2 * 12 * 16};
        if (has("avx_vnni"))
            p.int8 = (struct kern_peak_loop){kern_peak_int8_avxvnni, 2 * 12 * 32};
    }
    if (isa >= KERN_ISA_AVX512) {
        p.read = kern_peak_read_avx512;
        p.f32 = (struct kern_peak_loop){kern_peak_f32_avx512, 2 * 16 * 16};
        if (has("avx512vnni"))
            p.int8 = (struct kern_peak_loop){kern_peak_int8_avx512vnni, 2 * 16 * 64};
    }
    if (isa >= KERN_ISA_AVX512_BF16)
        p.bf16 = (struct kern_peak_loop){kern_peak_bf16_avx512bf16, 2 * 16 * 32};
    return p;
}
