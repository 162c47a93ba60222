/* tensor/tensor.c - exact conversions and plain row views. */
#include "tensor/tensor.h"

#include <assert.h>
#include "base/mem.h"
#include "tensor/quant.h"

static const struct {
    const char *name;
    uint8_t bytes;
    bool is_float;
} dtypes[DT_COUNT] = {
    [DT_F32] = {"F32", 4, true},         [DT_F16] = {"F16", 2, true},         [DT_BF16] = {"BF16", 2, true},
    [DT_F64] = {"F64", 8, true},         [DT_F8_E4M3] = {"F8_E4M3", 1, true}, [DT_F8_E5M2] = {"F8_E5M2", 1, true},
    [DT_I8] = {"I8", 1, false},          [DT_U8] = {"U8", 1, false},          [DT_I16] = {"I16", 2, false},
    [DT_U16] = {"U16", 2, false},        [DT_I32] = {"I32", 4, false},        [DT_U32] = {"U32", 4, false},
    [DT_I64] = {"I64", 8, false},        [DT_U64] = {"U64", 8, false},        [DT_BOOL] = {"BOOL", 1, false},
};

const char *dtype_name(enum dtype t)
{
    return (unsigned)t < DT_COUNT ? dtypes[t].name : "unknown";
}

bool dtype_parse(const char *name, enum dtype *out)
{
    for (int i = 0; i < DT_COUNT; i++) {
        if (strcmp(name, dtypes[i].name) == 0) {
            *out = (enum dtype)i;
            return true;
        }
    }
    return false;
}

size_t dtype_bytes(enum dtype t)
{
    return (unsigned)t < DT_COUNT ? dtypes[t].bytes : 0;
}

bool dtype_is_float(enum dtype t)
{
    return (unsigned)t < DT_COUNT && dtypes[t].is_float;
}

bool tensor_count(const struct tensor *t, size_t *out)
{
    size_t n = 1;
    bool empty = false;
    /* A zero anywhere makes the count 0, even when the other dims alone would overflow. */
    for (int i = 0; i < t->n_dims; i++) {
        if (t->dims[i] < 0)
            return false;
        empty |= t->dims[i] == 0;
    }
    for (int i = 0; !empty && i < t->n_dims; i++) {
        if ((uint64_t)t->dims[i] > SIZE_MAX || !mem_mul(n, (size_t)t->dims[i], &n))
            return false;
    }
    *out = empty ? 0 : n;
    return true;
}

static float bits_f32(uint32_t u)
{
    float f;
    memcpy(&f, &u, 4);
    return f;
}

/* A finite small float given as sign, biased exponent and mantissa. */
static float small_to_f32(uint32_t sign, uint32_t exp, uint32_t man, int man_bits, int bias)
{
    if (exp == 0) {
        /* man * 2^(1 - bias - man_bits): both factors and the product are exact. */
        float f = (float)man * bits_f32((uint32_t)(127 + 1 - bias - man_bits) << 23);
        return sign ? -f : f;
    }
    return bits_f32(sign << 31 | (exp + 127u - (uint32_t)bias) << 23 | man << (23 - man_bits));
}

float tensor_f16_to_f32(uint16_t h)
{
    uint32_t sign = h >> 15, exp = h >> 10 & 0x1fu, man = h & 0x3ffu;
    if (exp == 0x1f) {
        /* A signalling NaN comes out quiet, as the hardware's conversion does. */
        return bits_f32(sign << 31 | 0x7f800000u | man << 13 | (man ? 0x400000u : 0));
    }
    return small_to_f32(sign, exp, man, 10, 15);
}

uint16_t tensor_f32_to_f16(float f)
{
    uint32_t u;
    memcpy(&u, &f, 4);
    uint16_t sign = (uint16_t)(u >> 16 & 0x8000u);
    u &= 0x7fffffffu;
    if (u > 0x7f800000u)
        return (uint16_t)(sign | 0x7e00u | (u >> 13 & 0x1ffu));
    if (u >= 0x477ff000u)                     /* 65520 and up round to infinity */
        return (uint16_t)(sign | 0x7c00u);
    if (u < 0x33000001u)                      /* at most 2^-25: rounds to zero */
        return sign;
    uint32_t man = u & 0x7fffffu, shift = 13, out;
    int exp = (int)(u >> 23) - 112;
    if (exp <= 0) {                           /* subnormal: the implicit bit joins, shifted further */
        man |= 0x800000u;
        shift += (uint32_t)(1 - exp);
        exp = 0;
    }
    out = (uint32_t)exp << 10 | man >> shift;
    uint32_t rest = man & ((1u << shift) - 1), half = 1u << (shift - 1);
    out += rest > half || (rest == half && (out & 1u));   /* a carry into the exponent is right */
    return (uint16_t)(sign | out);
}

/* OCP 8-bit floats: E4M3 has no infinity and one NaN pattern; E5M2 is the upper byte of an f16. */
static float f8_e4m3_to_f32(uint8_t b)
{
    if ((b & 0x7fu) == 0x7fu)
        return bits_f32((uint32_t)(b >> 7) << 31 | 0x7fc00000u);
    return small_to_f32(b >> 7, b >> 3 & 0xfu, b & 7u, 3, 7);
}

static void f16_row(const unsigned char *src, size_t n, float *out)
{
    for (size_t i = 0; i < n; i++) {
        uint16_t h;
        memcpy(&h, src + 2 * i, 2);
        out[i] = tensor_f16_to_f32(h);
    }
}

static void bf16_row(const unsigned char *src, size_t n, float *out)
{
    for (size_t i = 0; i < n; i++) {
        uint16_t h;
        memcpy(&h, src + 2 * i, 2);
        out[i] = tensor_bf16_to_f32(h);
    }
}

static void f64_row(const unsigned char *src, size_t n, float *out)
{
    for (size_t i = 0; i < n; i++) {
        double d;
        memcpy(&d, src + 8 * i, 8);
        out[i] = (float)d;
    }
}

void tensor_to_f32(enum dtype t, const void *src, size_t n, float *out)
{
    const unsigned char *s = src;
    switch (t) {
    case DT_F32:
        if (n > 0)
            memcpy(out, s, n * sizeof *out);
        break;
    case DT_F16:
        f16_row(s, n, out);
        break;
    case DT_BF16:
        bf16_row(s, n, out);
        break;
    case DT_F64:
        f64_row(s, n, out);
        break;
    case DT_F8_E4M3:
        for (size_t i = 0; i < n; i++)
            out[i] = f8_e4m3_to_f32(s[i]);
        break;
    case DT_F8_E5M2:
        for (size_t i = 0; i < n; i++)
            out[i] = tensor_f16_to_f32((uint16_t)(s[i] << 8));
        break;
    default:
        assert(!"tensor_to_f32: not a float type");
        break;
    }
}

static void plain_read(const struct tensor_rows *r, int64_t row0, int64_t n, float *out)
{
    const struct tensor *t = r->ctx;
    size_t k = (size_t)r->n_cols, first = (size_t)(r->ctx_offset + row0) * k;
    const unsigned char *src = t->data;
    tensor_to_f32(t->dtype, src + first * dtype_bytes(t->dtype), (size_t)n * k, out);
}

void tensor_rows_of(struct tensor_rows *r, const struct tensor *t, int64_t row0, int64_t n_rows)
{
    assert(t->n_dims == 1 || t->n_dims == 2);
    if (t->block) {
        quant_block_rows_of(r, t, row0, n_rows);
        return;
    }
    assert(dtype_is_float(t->dtype));
    int64_t rows = t->n_dims == 2 ? t->dims[0] : 1;
    assert(row0 >= 0 && n_rows >= 0 && row0 <= rows - n_rows);
    (void)rows;
    memset(r, 0, sizeof *r);
    r->n_rows = n_rows;
    r->n_cols = t->dims[t->n_dims - 1];
    r->read = plain_read;
    r->ctx = t;
    r->ctx_offset = row0;
    switch (t->dtype) {
    case DT_F16:
    case DT_BF16:
        r->dtype = t->dtype;
        break;
    case DT_F8_E4M3:
    case DT_F8_E5M2:
        r->dtype = DT_BF16;
        break;
    default:
        r->dtype = DT_F32;
        break;
    }
    if (t->dtype == r->dtype) {
        r->raw_stride_bytes = (size_t)r->n_cols * dtype_bytes(t->dtype);
        r->raw = (const unsigned char *)t->data + (size_t)row0 * r->raw_stride_bytes;
    }
}
