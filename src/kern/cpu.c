/* kern/cpu.c - CPU features from CPUID, checked against the register state the OS saves. */
#include "kern/cpu.h"

#include <stddef.h>
#include <pthread.h>
#include <stdint.h>
#include <string.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

static const char *const isa_names[KERN_ISA_COUNT] = {
    [KERN_ISA_SCALAR] = "scalar",
    [KERN_ISA_AVX2] = "avx2",
    [KERN_ISA_AVX512] = "avx512",
    [KERN_ISA_AVX512_BF16] = "avx512_bf16",
};

const char *kern_isa_name(enum kern_isa isa)
{
    return (unsigned)isa < KERN_ISA_COUNT ? isa_names[isa] : "unknown";
}

bool kern_isa_parse(const char *name, enum kern_isa *out)
{
    for (int i = 0; i < KERN_ISA_COUNT; i++) {
        if (strcmp(name, isa_names[i]) == 0) {
            *out = (enum kern_isa)i;
            return true;
        }
    }
    return false;
}

/* What the OS saves at a context switch decides: 128/256-bit needs XCR0 bits 1-2, 512-bit bits 5-7. */
enum state { STATE_NONE, STATE_YMM, STATE_ZMM };

/* Where CPUID tells of a feature: register r (0..3 = a b c d) of leaf, subleaf. */
static const struct feature {
    const char *name;
    uint32_t leaf, sub;
    uint8_t reg, bit;
    enum state state;
} features[] = {
    {"sse4_2", 1, 0, 2, 20, STATE_NONE},     {"avx", 1, 0, 2, 28, STATE_YMM},
    {"fma", 1, 0, 2, 12, STATE_YMM},         {"f16c", 1, 0, 2, 29, STATE_YMM},
    {"avx2", 7, 0, 1, 5, STATE_YMM},         {"avx_vnni", 7, 1, 0, 4, STATE_YMM},
    {"avx512f", 7, 0, 1, 16, STATE_ZMM},     {"avx512dq", 7, 0, 1, 17, STATE_ZMM},
    {"avx512bw", 7, 0, 1, 30, STATE_ZMM},    {"avx512vl", 7, 0, 1, 31, STATE_ZMM},
    {"avx512vbmi", 7, 0, 2, 1, STATE_ZMM},   {"avx512vnni", 7, 0, 2, 11, STATE_ZMM},
    {"avx512bf16", 7, 1, 0, 5, STATE_ZMM},   {"avx512fp16", 7, 0, 3, 23, STATE_ZMM},
    {"amx_tile", 7, 0, 3, 24, STATE_NONE},   {"amx_bf16", 7, 0, 3, 22, STATE_NONE},
    {"amx_int8", 7, 0, 3, 25, STATE_NONE},
};
enum { N_FEATURES = sizeof features / sizeof features[0] };

/* The CPU flags are the program's one global; written once, before the first read returns. */
static pthread_once_t once = PTHREAD_ONCE_INIT;
static const char *found[N_FEATURES];
static int n_found;

static bool has(const char *name)
{
    for (int i = 0; i < n_found; i++) {
        if (strcmp(found[i], name) == 0)
            return true;
    }
    return false;
}

#if defined(__x86_64__)
static enum state saved_state(void)
{
    uint32_t a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & (1u << 27)))   /* OSXSAVE */
        return STATE_NONE;
    uint32_t lo, hi;
    __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    if ((lo & 0xe6u) == 0xe6u)
        return STATE_ZMM;
    return (lo & 6u) == 6u ? STATE_YMM : STATE_NONE;
}

static void detect(void)
{
    enum state state = saved_state();
    for (int i = 0; i < N_FEATURES; i++) {
        const struct feature *f = &features[i];
        uint32_t r[4];
        if (f->state > state || !__get_cpuid_count(f->leaf, f->sub, &r[0], &r[1], &r[2], &r[3]))
            continue;
        if (r[f->reg] >> f->bit & 1u)
            found[n_found++] = f->name;
    }
}
#else
static void detect(void) {}
#endif

const char *const *kern_cpu_features(int *n)
{
    pthread_once(&once, detect);
    *n = n_found;
    return found;
}

enum kern_isa kern_isa_best(void)
{
    pthread_once(&once, detect);
    if (!has("avx2") || !has("fma") || !has("f16c"))
        return KERN_ISA_SCALAR;
    if (!has("avx512f") || !has("avx512bw") || !has("avx512vl") || !has("avx512dq"))
        return KERN_ISA_AVX2;
    if (!has("avx512vnni") || !has("avx512bf16") || !has("avx512vbmi"))
        return KERN_ISA_AVX512;
    return KERN_ISA_AVX512_BF16;
}
