/* kern/gemm.c - kernel tables, panel layouts and the blocked loop over one thread's piece of a product. */
#include "kern/gemm.h"

#include <assert.h>
#include <string.h>
#include "kern/gemm_int.h"

/* ---- tables ---- */

static gemm_prepare_fn gemm_prepare_wide;

#define WIDE_KERNEL(name, format, suffix, isa, operand, rows) \
    {#name "_wide_" #suffix, isa, NULL, format, operand, rows, gemm_wide_##name##_##suffix, gemm_prepare_wide, 0, gemm_widen_##name##_##suffix},
#define WIDE_KERNELS(suffix, isa, operand, rows) \
    WIDE_KERNEL(i8, GEMM_I8, suffix, isa, operand, rows) \
    WIDE_KERNEL(i8_g16, GEMM_I8_G16, suffix, isa, operand, rows) \
    WIDE_KERNEL(i8_g32, GEMM_I8_G32, suffix, isa, operand, rows) \
    WIDE_KERNEL(i4, GEMM_I4, suffix, isa, operand, rows) \
    WIDE_KERNEL(u4_g32, GEMM_U4_G32, suffix, isa, operand, rows) \
    WIDE_KERNEL(u4_g64, GEMM_U4_G64, suffix, isa, operand, rows) \
    WIDE_KERNEL(u4_g128, GEMM_U4_G128, suffix, isa, operand, rows) \
    WIDE_KERNEL(u8_g16, GEMM_U8_G16, suffix, isa, operand, rows) \
    WIDE_KERNEL(u8_g32, GEMM_U8_G32, suffix, isa, operand, rows)

/* Of one format and kind of inputs, later ones are better. */
static const struct gemm_kern kernels[] = {
    {"f32_ref", KERN_ISA_SCALAR, NULL, GEMM_F32, GEMM_OPERAND_F32, 8, gemm_tile_f32_ref, gemm_prepare_f32_ref, 0, NULL},
    {"f16_ref", KERN_ISA_SCALAR, NULL, GEMM_F16, GEMM_OPERAND_F32, 8, gemm_tile_f16_ref, gemm_prepare_f32_ref, 0, NULL},
    {"bf16_ref", KERN_ISA_SCALAR, NULL, GEMM_BF16, GEMM_OPERAND_F32, 8, gemm_tile_bf16_ref, gemm_prepare_f32_ref, 0, NULL},
    {"f8_ref", KERN_ISA_SCALAR, NULL, GEMM_F8, GEMM_OPERAND_F32, 8, gemm_tile_f8_ref, gemm_prepare_f32_ref, 0, NULL},
    {"f8_g128_ref", KERN_ISA_SCALAR, NULL, GEMM_F8_G128, GEMM_OPERAND_F32, 8, gemm_tile_f8_g128_ref, gemm_prepare_f32_ref, 0, NULL},
    {"i8_ref", KERN_ISA_SCALAR, NULL, GEMM_I8, GEMM_OPERAND_S8, 8, gemm_tile_i8_ref, gemm_prepare_int_ref, 0, NULL},
    {"i8_g16_ref", KERN_ISA_SCALAR, NULL, GEMM_I8_G16, GEMM_OPERAND_S8, 8, gemm_tile_i8_g16_ref, gemm_prepare_int_ref, 0, NULL},
    {"i8_g32_ref", KERN_ISA_SCALAR, NULL, GEMM_I8_G32, GEMM_OPERAND_S8, 8, gemm_tile_i8_g32_ref, gemm_prepare_int_ref, 0, NULL},
    {"i4_ref", KERN_ISA_SCALAR, NULL, GEMM_I4, GEMM_OPERAND_S8, 8, gemm_tile_i4_ref, gemm_prepare_int_ref, 0, NULL},
    {"u4_g32_ref", KERN_ISA_SCALAR, NULL, GEMM_U4_G32, GEMM_OPERAND_S8, 8, gemm_tile_u4_g32_ref, gemm_prepare_int_ref, 0, NULL},
    {"u4_g64_ref", KERN_ISA_SCALAR, NULL, GEMM_U4_G64, GEMM_OPERAND_S8, 8, gemm_tile_u4_g64_ref, gemm_prepare_int_ref, 0, NULL},
    {"u4_g128_ref", KERN_ISA_SCALAR, NULL, GEMM_U4_G128, GEMM_OPERAND_S8, 8, gemm_tile_u4_g128_ref, gemm_prepare_int_ref, 0, NULL},
    {"u8_g16_ref", KERN_ISA_SCALAR, NULL, GEMM_U8_G16, GEMM_OPERAND_S8, 8, gemm_tile_u8_g16_ref, gemm_prepare_int_ref, 0, NULL},
    {"u8_g32_ref", KERN_ISA_SCALAR, NULL, GEMM_U8_G32, GEMM_OPERAND_S8, 8, gemm_tile_u8_g32_ref, gemm_prepare_int_ref, 0, NULL},
    {"f32_avx2", KERN_ISA_AVX2, NULL, GEMM_F32, GEMM_OPERAND_F32, 6, gemm_tile_f32_avx2, gemm_prepare_f32_ref, 0, NULL},
    {"f16_avx2", KERN_ISA_AVX2, NULL, GEMM_F16, GEMM_OPERAND_F32, 6, gemm_tile_f16_avx2, gemm_prepare_f32_ref, 0, NULL},
    {"bf16_avx2", KERN_ISA_AVX2, NULL, GEMM_BF16, GEMM_OPERAND_F32, 6, gemm_tile_bf16_avx2, gemm_prepare_f32_ref, 0, NULL},
    {"f8_avx2", KERN_ISA_AVX2, NULL, GEMM_F8, GEMM_OPERAND_F32, 6, gemm_tile_f8_avx2, gemm_prepare_f32_ref, 0, NULL},
    {"f8_g128_avx2", KERN_ISA_AVX2, NULL, GEMM_F8_G128, GEMM_OPERAND_F32, 6, gemm_tile_f8_g128_avx2, gemm_prepare_f32_ref, 0, NULL},
    {"i8_avx2", KERN_ISA_AVX2, NULL, GEMM_I8, GEMM_OPERAND_S16, 6, gemm_tile_i8_avx2, gemm_prepare_int_avx2, 0, NULL},
    {"i8_g16_avx2", KERN_ISA_AVX2, NULL, GEMM_I8_G16, GEMM_OPERAND_S16, 3, gemm_tile_i8_g16_avx2, gemm_prepare_int_avx2, 0, NULL},
    {"i8_g32_avx2", KERN_ISA_AVX2, NULL, GEMM_I8_G32, GEMM_OPERAND_S16, 3, gemm_tile_i8_g32_avx2, gemm_prepare_int_avx2, 0, NULL},
    {"i4_avx2", KERN_ISA_AVX2, NULL, GEMM_I4, GEMM_OPERAND_S16, 3, gemm_tile_i4_avx2, gemm_prepare_int_avx2, 0, NULL},
    {"u4_g32_avx2", KERN_ISA_AVX2, NULL, GEMM_U4_G32, GEMM_OPERAND_S16, 3, gemm_tile_u4_g32_avx2, gemm_prepare_int_avx2, 0, NULL},
    {"u4_g64_avx2", KERN_ISA_AVX2, NULL, GEMM_U4_G64, GEMM_OPERAND_S16, 3, gemm_tile_u4_g64_avx2, gemm_prepare_int_avx2, 0, NULL},
    {"u4_g128_avx2", KERN_ISA_AVX2, NULL, GEMM_U4_G128, GEMM_OPERAND_S16, 3, gemm_tile_u4_g128_avx2, gemm_prepare_int_avx2, 0, NULL},
    {"u8_g16_avx2", KERN_ISA_AVX2, NULL, GEMM_U8_G16, GEMM_OPERAND_S16, 3, gemm_tile_u8_g16_avx2, gemm_prepare_int_avx2, 0, NULL},
    {"u8_g32_avx2", KERN_ISA_AVX2, NULL, GEMM_U8_G32, GEMM_OPERAND_S16, 3, gemm_tile_u8_g32_avx2, gemm_prepare_int_avx2, 0, NULL},
    {"i8_avxvnni", KERN_ISA_AVX2, "avx_vnni", GEMM_I8, GEMM_OPERAND_S8, 6, gemm_tile_i8_avxvnni, gemm_prepare_int_avx2, 0, NULL},
    {"i8_g16_avxvnni", KERN_ISA_AVX2, "avx_vnni", GEMM_I8_G16, GEMM_OPERAND_S8, 3, gemm_tile_i8_g16_avxvnni, gemm_prepare_int_avx2, 0, NULL},
    {"i8_g32_avxvnni", KERN_ISA_AVX2, "avx_vnni", GEMM_I8_G32, GEMM_OPERAND_S8, 3, gemm_tile_i8_g32_avxvnni, gemm_prepare_int_avx2, 0, NULL},
    {"i4_avxvnni", KERN_ISA_AVX2, "avx_vnni", GEMM_I4, GEMM_OPERAND_S8, 3, gemm_tile_i4_avxvnni, gemm_prepare_int_avx2, 0, NULL},
    {"u4_g32_avxvnni", KERN_ISA_AVX2, "avx_vnni", GEMM_U4_G32, GEMM_OPERAND_S8, 3, gemm_tile_u4_g32_avxvnni, gemm_prepare_int_avx2, 0, NULL},
    {"u4_g64_avxvnni", KERN_ISA_AVX2, "avx_vnni", GEMM_U4_G64, GEMM_OPERAND_S8, 3, gemm_tile_u4_g64_avxvnni, gemm_prepare_int_avx2, 0, NULL},
    {"u4_g128_avxvnni", KERN_ISA_AVX2, "avx_vnni", GEMM_U4_G128, GEMM_OPERAND_S8, 3, gemm_tile_u4_g128_avxvnni, gemm_prepare_int_avx2, 0, NULL},
    {"u8_g16_avxvnni", KERN_ISA_AVX2, "avx_vnni", GEMM_U8_G16, GEMM_OPERAND_S8, 3, gemm_tile_u8_g16_avxvnni, gemm_prepare_int_avx2, 0, NULL},
    {"u8_g32_avxvnni", KERN_ISA_AVX2, "avx_vnni", GEMM_U8_G32, GEMM_OPERAND_S8, 3, gemm_tile_u8_g32_avxvnni, gemm_prepare_int_avx2, 0, NULL},
    {"f32_avx512", KERN_ISA_AVX512, NULL, GEMM_F32, GEMM_OPERAND_F32, 14, gemm_tile_f32_avx512, gemm_prepare_f32_avx512, 0, NULL},
    {"f16_avx512", KERN_ISA_AVX512, NULL, GEMM_F16, GEMM_OPERAND_F32, 14, gemm_tile_f16_avx512, gemm_prepare_f32_avx512, 0, NULL},
    {"bf16_avx512", KERN_ISA_AVX512, NULL, GEMM_BF16, GEMM_OPERAND_F32, 14, gemm_tile_bf16_avx512, gemm_prepare_f32_avx512, 0, NULL},
    {"f8_avx512", KERN_ISA_AVX512, NULL, GEMM_F8, GEMM_OPERAND_F32, 14, gemm_tile_f8_avx512, gemm_prepare_f32_avx512, 0, NULL},
    {"f8_g128_avx512", KERN_ISA_AVX512, NULL, GEMM_F8_G128, GEMM_OPERAND_F32, 14, gemm_tile_f8_g128_avx512, gemm_prepare_f32_avx512, 0, NULL},
    {"i8_avx512vnni", KERN_ISA_AVX512, "avx512vnni", GEMM_I8, GEMM_OPERAND_S8, 14, gemm_tile_i8_avx512vnni, gemm_prepare_s8_avx512, 0, NULL},
    {"i8_g16_avx512vnni", KERN_ISA_AVX512, "avx512vnni", GEMM_I8_G16, GEMM_OPERAND_S8, 8, gemm_tile_i8_g16_avx512vnni, gemm_prepare_s8_avx512, 6, NULL},
    {"i8_g32_avx512vnni", KERN_ISA_AVX512, "avx512vnni", GEMM_I8_G32, GEMM_OPERAND_S8, 8, gemm_tile_i8_g32_avx512vnni, gemm_prepare_s8_avx512, 6, NULL},
    {"i4_avx512vnni", KERN_ISA_AVX512, "avx512vnni", GEMM_I4, GEMM_OPERAND_S8, 8, gemm_tile_i4_avx512vnni, gemm_prepare_s8_avx512, 6, NULL},
    {"u4_g32_avx512vnni", KERN_ISA_AVX512, "avx512vnni", GEMM_U4_G32, GEMM_OPERAND_S8, 8, gemm_tile_u4_g32_avx512vnni, gemm_prepare_s8_avx512, 6, NULL},
    {"u4_g64_avx512vnni", KERN_ISA_AVX512, "avx512vnni", GEMM_U4_G64, GEMM_OPERAND_S8, 8, gemm_tile_u4_g64_avx512vnni, gemm_prepare_s8_avx512, 6, NULL},
    {"u4_g128_avx512vnni", KERN_ISA_AVX512, "avx512vnni", GEMM_U4_G128, GEMM_OPERAND_S8, 8, gemm_tile_u4_g128_avx512vnni, gemm_prepare_s8_avx512, 6, NULL},
    {"u8_g16_avx512vnni", KERN_ISA_AVX512, "avx512vnni", GEMM_U8_G16, GEMM_OPERAND_S8, 8, gemm_tile_u8_g16_avx512vnni, gemm_prepare_s8_avx512, 6, NULL},
    {"u8_g32_avx512vnni", KERN_ISA_AVX512, "avx512vnni", GEMM_U8_G32, GEMM_OPERAND_S8, 8, gemm_tile_u8_g32_avx512vnni, gemm_prepare_s8_avx512, 6, NULL},
    {"bf16_avx512bf16", KERN_ISA_AVX512_BF16, NULL, GEMM_BF16, GEMM_OPERAND_BF16, 14, gemm_tile_bf16_avx512bf16, gemm_prepare_bf16_avx512bf16, 0, NULL},
    {"f8_avx512bf16", KERN_ISA_AVX512_BF16, NULL, GEMM_F8, GEMM_OPERAND_BF16, 11, gemm_tile_f8_avx512bf16, gemm_prepare_bf16_avx512bf16, 0, NULL},
    {"f8_g128_avx512bf16", KERN_ISA_AVX512_BF16, NULL, GEMM_F8_G128, GEMM_OPERAND_BF16, 11, gemm_tile_f8_g128_avx512bf16, gemm_prepare_bf16_avx512bf16, 0, NULL},
    /* Integer weights, inputs that stay floats. */
    WIDE_KERNELS(ref, KERN_ISA_SCALAR, GEMM_OPERAND_F32, 8)
    WIDE_KERNELS(avx2, KERN_ISA_AVX2, GEMM_OPERAND_F32, 6)
    WIDE_KERNELS(avx512, KERN_ISA_AVX512, GEMM_OPERAND_F32, 14)
    WIDE_KERNELS(avx512bf16, KERN_ISA_AVX512_BF16, GEMM_OPERAND_BF16, 14)
};
enum { N_KERNELS = sizeof kernels / sizeof kernels[0] };

static bool kernel_runs(const struct gemm_kern *kern, enum kern_isa isa)
{
    if (kern->isa > isa)
        return false;
    int n;
    const char *const *have = kern_cpu_features(&n);
    for (int i = 0; kern->feature && i < n; i++) {
        if (strcmp(have[i], kern->feature) == 0)
            return true;
    }
    return !kern->feature;
}

static bool float_operand(const struct gemm_kern *kern)
{
    return kern->operand == GEMM_OPERAND_F32 || kern->operand == GEMM_OPERAND_BF16;
}

/* Weights that are integers, inputs that are not. */
static bool is_wide(const struct gemm_kern *kern)
{
    return kern->format >= GEMM_I8 && kern->format <= GEMM_U8_G32 && float_operand(kern);
}

const struct gemm_kern *gemm_kern_get(enum kern_isa isa, enum gemm_format f, enum gemm_inputs inputs)
{
    assert((unsigned)isa < KERN_ISA_COUNT && (unsigned)f < GEMM_FORMAT_COUNT);
    int i = N_KERNELS - 1;
    bool wide = inputs == GEMM_INPUTS_FLOAT && f >= GEMM_I8 && f <= GEMM_U8_G32;
    while (i > 0 && !(kernels[i].format == f && is_wide(&kernels[i]) == wide && kernel_runs(&kernels[i], isa)))
        i--;
    return &kernels[i];
}

const struct gemm_kern *gemm_kern_at(int i)
{
    for (int j = 0; j < N_KERNELS; j++) {
        if (kernel_runs(&kernels[j], kern_isa_best()) && i-- == 0)
            return &kernels[j];
    }
    return NULL;
}

void gemm_prepare(const struct gemm_kern *kern, const float *x, int64_t ldx, int rows, int64_t k, void *a)
{
    kern->prepare(kern, x, ldx, rows, k, a);
}

/* The float kernel that multiplies what a wide one has widened. */
static const struct gemm_kern *plain_of(const struct gemm_kern *wide)
{
    return gemm_kern_get(wide->isa, wide->operand == GEMM_OPERAND_BF16 ? GEMM_BF16 : GEMM_F32, GEMM_INPUTS_AUTO);
}

/* Floats up to the end of the panel's last unit: zeros behind K. */
static void gemm_prepare_wide(const struct gemm_kern *kern, const float *x, int64_t ldx, int rows, int64_t k, void *a)
{
    const struct gemm_kern *plain = plain_of(kern);
    size_t whole = gemm_act_bytes(kern, k) * (size_t)rows, done = gemm_act_bytes(plain, k) * (size_t)rows;
    gemm_prepare(plain, x, ldx, rows, k, a);
    memset((char *)a + done, 0, whole - done);
}

int64_t gemm_prepare_step(const struct gemm_kern *kern)
{
    return float_operand(kern) && !is_wide(kern) ? 2 : 0;
}

/* Whatever the words of a tile mean, those of its rows alternate. */
void gemm_prepare_join(const struct gemm_kern *kern, const void *const *rows, int n, int64_t k, void *a)
{
    size_t words = gemm_act_bytes(kern, k) / 4;
    if (kern->isa >= KERN_ISA_AVX512 && n > 2) {
        gemm_join_avx512(rows, n, words, a);
        return;
    }
    for (int r = 0; r < n; r++) {
        const uint32_t *src = rows[r];
        uint32_t *dst = (uint32_t *)a + r;
        for (size_t i = 0; i < words; i++, dst += n)
            *dst = src[i];
    }
}

gemm_epilogue_fn *gemm_epilogue_get(enum kern_isa isa)
{
    static gemm_epilogue_fn *const epilogues[KERN_ISA_COUNT] = {
        [KERN_ISA_SCALAR] = gemm_epilogue_ref,
        [KERN_ISA_AVX2] = gemm_epilogue_avx2,
        [KERN_ISA_AVX512] = gemm_epilogue_avx512,
        [KERN_ISA_AVX512_BF16] = gemm_epilogue_avx512,
    };
    assert((unsigned)isa < KERN_ISA_COUNT);
    return epilogues[isa];
}

/* ---- layouts ---- */

static const struct gemm_layout layouts[GEMM_FORMAT_COUNT] = {
    [GEMM_F32] = {.unit_k = 1, .unit_bytes = 128},
    [GEMM_F16] = {.unit_k = 1, .unit_bytes = 64},
    [GEMM_BF16] = {.unit_k = 2, .unit_bytes = 128},
    [GEMM_I8] = {.unit_k = 4, .unit_bytes = 128, .tail_bytes = 128},
    [GEMM_I8_G16] = {.unit_k = 4, .unit_bytes = 128, .group_units = 4, .head_bytes = 64},
    [GEMM_I8_G32] = {.unit_k = 4, .unit_bytes = 128, .group_units = 8, .head_bytes = 64},
    [GEMM_I4] = {.unit_k = 4, .unit_bytes = 64, .group_units = GEMM_I4_UNITS, .head_bytes = GEMM_I4_HEAD, .tail_bytes = 128},
    [GEMM_U4_G32] = {.unit_k = 4, .unit_bytes = 64, .group_units = 8, .head_bytes = 128},
    [GEMM_U4_G64] = {.unit_k = 4, .unit_bytes = 64, .group_units = 16, .head_bytes = 128},
    [GEMM_U4_G128] = {.unit_k = 4, .unit_bytes = 64, .group_units = 32, .head_bytes = 128},
    [GEMM_U8_G16] = {.unit_k = 4, .unit_bytes = 128, .group_units = 4, .head_bytes = 128},
    [GEMM_U8_G32] = {.unit_k = 4, .unit_bytes = 128, .group_units = 8, .head_bytes = 128},
    [GEMM_F8] = {.unit_k = 2, .unit_bytes = 64, .tail_bytes = 128},
    [GEMM_F8_G128] = {.unit_k = 2, .unit_bytes = 64, .group_units = 64, .head_bytes = 128},
};

const struct gemm_layout *gemm_layout_of(enum gemm_format f)
{
    return &layouts[f];
}

int64_t gemm_units(enum gemm_format f, int64_t k)
{
    const struct gemm_layout *l = &layouts[f];
    /* Activations that are floats are not padded to groups. */
    int64_t whole = l->unit_k * (l->group_units && f != GEMM_F8_G128 ? l->group_units : 1);
    return (k + whole - 1) / whole * whole / l->unit_k;
}

/* Bytes of a panel before unit u, which begins a group. */
static size_t units_bytes(enum gemm_format f, int64_t u)
{
    const struct gemm_layout *l = &layouts[f];
    return (size_t)u * l->unit_bytes + (l->group_units ? (size_t)(u / l->group_units) * l->head_bytes : 0);
}

size_t gemm_panel_bytes(enum gemm_format f, int64_t k)
{
    int64_t units = gemm_units(f, k), group = layouts[f].group_units;
    bool rest = group && units % group;
    return units_bytes(f, units) + (rest ? layouts[f].head_bytes : 0) + layouts[f].tail_bytes;
}

size_t gemm_act_bytes(const struct gemm_kern *kern, int64_t k)
{
    const struct gemm_layout *l = &layouts[kern->format];
    size_t units = (size_t)gemm_units(kern->format, k), groups = l->group_units ? units / l->group_units : 1;
    if (is_wide(kern))
        return units * (kern->operand == GEMM_OPERAND_BF16 ? 8 : 16);
    size_t aux = kern->format == GEMM_I4 ? GEMM_I4_AUX * 4 : 8;
    switch (kern->operand) {
    case GEMM_OPERAND_BF16: return (size_t)(k + 1) / 2 * 4;
    case GEMM_OPERAND_S8: return units * 4 + groups * aux;
    case GEMM_OPERAND_S16: return units * 8 + groups * aux;
    default: return (size_t)(k + 1) / 2 * 8;
    }
}

void gemm_pack(enum gemm_format f, void *panel, int col0, int n, int64_t k, const float *rows, int64_t ld, const float *importance)
{
    for (int j = 0; j < n; j++) {
        const float *x = rows + j * ld;
        uint32_t *w = (uint32_t *)panel + col0 + j;
        uint16_t *h = (uint16_t *)panel + (f == GEMM_F16 ? 1 : 2) * (col0 + j);
        if (f == GEMM_F32) {
            for (int64_t u = 0; u < k; u++)
                memcpy(w + u * GEMM_COLS, x + u, 4);
        } else if (f == GEMM_F16) {
            for (int64_t u = 0; u < k; u++)
                h[u * GEMM_COLS] = tensor_f32_to_f16(x[u]);
        } else if (f == GEMM_BF16) {
            for (int64_t u = 0; u < k; u++)
                h[u / 2 * 2 * GEMM_COLS + u % 2] = tensor_f32_to_bf16(x[u]);
        } else {
            gemm_quant_pack(f, panel, col0 + j, k, x, importance);
        }
    }
}

/* Blocks of K, so that the lines written stay in L1 while the columns go by. */
void gemm_pack_raw(enum gemm_format f, void *panel, int col0, int n, int64_t k, const void *rows, size_t stride)
{
    enum { BLOCK = 128 };
    size_t unit = layouts[f].unit_bytes / GEMM_COLS;
    int64_t whole = k / layouts[f].unit_k;
    assert(f <= GEMM_BF16);
    for (int64_t u0 = 0; u0 < whole; u0 += BLOCK) {
        int64_t u1 = u0 + BLOCK < whole ? u0 + BLOCK : whole;
        for (int j = 0; j < n; j++) {
            const char *src = (const char *)rows + (size_t)j * stride;
            char *dst = (char *)panel + (size_t)(col0 + j) * unit;
            if (unit == 4) {
                for (int64_t u = u0; u < u1; u++)
                    memcpy(dst + (size_t)u * GEMM_COLS * 4, src + (size_t)u * 4, 4);
            } else {
                for (int64_t u = u0; u < u1; u++)
                    memcpy(dst + (size_t)u * GEMM_COLS * 2, src + (size_t)u * 2, 2);
            }
        }
    }
    /* Odd K of a pair format: the second half stays zero. */
    for (int j = 0; whole * layouts[f].unit_k < k && j < n; j++)
        memcpy((char *)panel + ((size_t)whole * GEMM_COLS + (size_t)(col0 + j)) * unit,
               (const char *)rows + (size_t)j * stride + (size_t)whole * unit, 2);
}

void gemm_unpack(enum gemm_format f, const void *panel, int col, int64_t k, float *out)
{
    const uint16_t *h = (const uint16_t *)panel + (f == GEMM_F16 ? 1 : 2) * col;
    if (f == GEMM_F32) {
        for (int64_t u = 0; u < k; u++)
            out[u] = ((const float *)panel)[u * GEMM_COLS + col];
    } else if (f == GEMM_F16) {
        for (int64_t u = 0; u < k; u++)
            out[u] = tensor_f16_to_f32(h[u * GEMM_COLS]);
    } else if (f != GEMM_BF16) {
        gemm_quant_unpack(f, panel, col, k, out);
    } else {
        for (int64_t u = 0; u < k; u++)
            out[u] = tensor_bf16_to_f32(h[u / 2 * 2 * GEMM_COLS + u % 2]);
    }
}

/* ---- rows ---- */

struct gemm_rows gemm_rows_split(int64_t m, int rows_max)
{
    int n = (int)((m + rows_max - 1) / rows_max);
    if (n == 0)
        return (struct gemm_rows){0, 0, 0};
    return (struct gemm_rows){n, (int)(m / n), (int)(m % n)};
}

struct gemm_rows gemm_rows_of(const struct gemm_kern *kern, int64_t m)
{
    return gemm_rows_split(m, m > kern->rows_max && kern->rows_many ? kern->rows_many : kern->rows_max);
}

int64_t gemm_rows_first(const struct gemm_rows *r, int tile)
{
    return (int64_t)tile * r->low + (tile < r->n_high ? tile : r->n_high);
}

/* ---- the blocked loop ---- */

enum { TILE_FLOATS = 16 * GEMM_COLS };   /* room for GEMM_ROWS_MAX rows */
enum { SUM_FLOATS = GEMM_BLOCK_PANELS * GEMM_BLOCK_TILES * TILE_FLOATS, WIDE_FLOATS = GEMM_WIDE_UNITS * 4 * GEMM_COLS };

size_t gemm_scratch_bytes(void)
{
    return (SUM_FLOATS + WIDE_FLOATS) * sizeof(float);
}

static const char *panel_at(const struct gemm_job *j, int64_t p)
{
    return (const char *)j->panels + (size_t)p * gemm_panel_bytes(j->kern->format, j->k);
}

static void store_tile(const struct gemm_job *j, int64_t p, int tile, int rows, const float *c)
{
    int width = j->epi.store == GEMM_GLU ? GEMM_COLS / 2 : GEMM_COLS;
    int64_t col = p * width;
    int n = j->n_out - col < width ? (int)(j->n_out - col) : width;
    j->epilogue(&j->epi, c, rows, j->bias ? j->bias + p * GEMM_COLS : NULL,
                j->out + gemm_rows_first(&j->rows, tile) * j->ldo + col, j->ldo, n);
}

/* Cache lines of four units, scales included. */
static int lines_of_four(enum gemm_format f)
{
    const struct gemm_layout *l = &layouts[f];
    return (int)((4 * l->unit_bytes + (l->group_units ? 4 * l->head_bytes / l->group_units : 0) + 63) / 64);
}

/* run_piece for tiles that share one widened piece, which `plain` multiplies.  wide: room for it; scratch: of the panel. */
static void run_widened(const struct gemm_job *j, const struct gemm_kern *plain, int64_t p, int64_t u0, int64_t u1, int t0, int t1, const char *ahead,
                        float *scratch, char *wide)
{
    int64_t units = gemm_units(j->kern->format, j->k), each = plain->format == GEMM_BF16 ? 2 : 4;
    size_t act = gemm_act_bytes(j->kern, j->k), unit_act = act / (size_t)units;
    struct gemm_tile piece = {.b = panel_at(j, p), .u0 = u0, .u1 = u1, .units = units,
                              .prefetch = ahead, .prefetch_lines = ahead ? lines_of_four(j->kern->format) : 0};
    j->kern->widen(&piece, wide);
    for (int t = t0; t < t1; t++) {
        int64_t row = gemm_rows_first(&j->rows, t);
        int rows = (int)(gemm_rows_first(&j->rows, t + 1) - row);
        struct gemm_tile tile = {
            .a = (const char *)j->a + (size_t)row * act + (size_t)u0 * unit_act * (size_t)rows, .b = wide, .c = scratch + (size_t)(t - t0) * TILE_FLOATS,
            .rows = rows, .first = u0 == 0, .u1 = (u1 - u0) * each, .units = units * each,
        };
        plain->tile(&tile);
        if (u1 == units)
            store_tile(j, p, t, rows, tile.c);
    }
}

/* Units [u0, u1) of one panel for tiles [t0, t1).  `ahead` is the memory to be asked for meanwhile, spread over the tiles. */
static void run_piece(const struct gemm_job *j, int64_t p, int64_t u0, int64_t u1, int t0, int t1, const char *ahead, float *scratch)
{
    enum gemm_format f = j->kern->format;
    size_t act = gemm_act_bytes(j->kern, j->k);
    int64_t units = gemm_units(f, j->k);
    int lines = lines_of_four(f), share = (lines + t1 - t0 - 1) / (t1 - t0);
    struct gemm_tile tile = {
        .b = panel_at(j, p), .first = u0 == 0, .u0 = u0, .u1 = u1, .units = units,
        .prefetch = ahead, .prefetch_lines = ahead ? share : 0,
    };
    for (int t = t0; t < t1; t++) {
        int64_t row = gemm_rows_first(&j->rows, t);
        tile.rows = (int)(gemm_rows_first(&j->rows, t + 1) - row);
        tile.a = (const char *)j->a + (size_t)row * act;
        tile.c = scratch + (size_t)(t - t0) * TILE_FLOATS;
        j->kern->tile(&tile);
        if (u1 == units)
            store_tile(j, p, t, tile.rows, tile.c);
        if (ahead)
            tile.prefetch += (size_t)share * 64 * (size_t)((u1 - u0) / 4);
    }
}

/* One tile of rows: panels stream by; what is read next is asked for a fixed distance ahead, over the border of the panel
 * to wherever the next one lies. */
static void run_stream(const struct gemm_job *j, int64_t p, int t0, const char *next, float *scratch)
{
    enum { AHEAD = 4096 };
    enum gemm_format f = j->kern->format;
    const char *panel = panel_at(j, p);
    int64_t units = gemm_units(f, j->k), whole = layouts[f].group_units > 4 ? layouts[f].group_units : 4;
    int64_t tail = (AHEAD / layouts[f].unit_bytes + whole - 1) / whole * whole, cut = units > tail ? (units - tail) / whole * whole : 0;
    if (cut == 0 || next == panel + gemm_panel_bytes(f, j->k)) {
        run_piece(j, p, 0, units, t0, t0 + 1, panel + AHEAD, scratch);
        return;
    }
    run_piece(j, p, 0, cut, t0, t0 + 1, panel + (units_bytes(f, units) - units_bytes(f, cut)), scratch);
    run_piece(j, p, cut, units, t0, t0 + 1, next, scratch);
}

/* More tiles: each piece of a panel is read from memory once, and while it is used the next one comes in.  A piece of the
 * activations serves all panels before the next piece's turn. */
static void run_pieces(const struct gemm_job *j, int64_t p0, int64_t p1, int t0, int t1, const char *next, float *scratch)
{
    enum gemm_format f = j->kern->format;
    const struct gemm_kern *plain = j->kern->widen ? plain_of(j->kern) : NULL;
    int64_t units = gemm_units(f, j->k), block = plain ? GEMM_WIDE_UNITS : GEMM_BLOCK_UNITS;
    for (int64_t u = 0; u < units; u += block) {
        int64_t end = u + block < units ? u + block : units;
        for (int64_t p = p0; p < p1; p++) {
            const char *ahead = p + 1 < p1 ? panel_at(j, p + 1) + units_bytes(f, u)
                              : end < units ? panel_at(j, p0) + units_bytes(f, end) : next;
            float *sums = scratch + (size_t)(p - p0) * GEMM_BLOCK_TILES * TILE_FLOATS;
            if (plain)
                run_widened(j, plain, p, u, end, t0, t1, ahead, sums, (char *)(scratch + SUM_FLOATS));
            else
                run_piece(j, p, u, end, t0, t1, ahead, sums);
        }
    }
}

void gemm_run(const struct gemm_job *j, int64_t p0, int64_t p1, int t0, int t1, const void *next, void *scratch)
{
    for (int t = t0; t < t1; t += GEMM_BLOCK_TILES) {
        int end = t + GEMM_BLOCK_TILES < t1 ? t + GEMM_BLOCK_TILES : t1;
        int64_t step = end - t == 1 ? 1 : GEMM_BLOCK_PANELS;
        for (int64_t p = p0; p < p1; p += step) {
            int64_t stop = p + step < p1 ? p + step : p1;
            const char *ahead = stop < p1 ? panel_at(j, stop) : end < t1 ? panel_at(j, p0) : next;
            if (step == 1)
                run_stream(j, p, t, ahead, scratch);
            else
                run_pieces(j, p, stop, t, end, ahead, scratch);
        }
    }
}
