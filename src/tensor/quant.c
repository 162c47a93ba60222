#include "tensor/quant.h"
#include <assert.h>
#include <string.h>

enum { MAX_BLOCK = 256, MAX_GROUPS = 16 };

static float f16_at(const unsigned char *p)
{
    uint16_t h;
    memcpy(&h, p, 2);
    return tensor_f16_to_f32(h);
}

/* ---- 32 values under one scale ---- */

/* f16 d; i8 q[32] */
static void q8_0_split(const unsigned char *b, uint8_t *codes, float *scales, float *zeros, float *minima)
{
    scales[0] = f16_at(b);
    zeros[0] = 128.0f;
    minima[0] = -0.0f;
    for (int i = 0; i < 32; i++)
        codes[i] = b[2 + i] ^ 0x80;
}

/* u8 qs[16]: low nibbles are values 0..15, high ones 16..31. */
static void nibbles(const unsigned char *qs, uint8_t *codes)
{
    for (int i = 0; i < 16; i++) {
        codes[i] = qs[i] & 15;
        codes[16 + i] = qs[i] >> 4;
    }
}

/* u8 qh[4]: the fifth bits. */
static void fifth_bits(const unsigned char *qh, uint8_t *codes)
{
    for (int i = 0; i < 32; i++)
        codes[i] = (uint8_t)(codes[i] | (qh[i / 8] >> (i % 8) & 1) << 4);
}

/* f16 d; qs */
static void q4_0_split(const unsigned char *b, uint8_t *codes, float *scales, float *zeros, float *minima)
{
    scales[0] = f16_at(b);
    zeros[0] = 8.0f;
    minima[0] = -0.0f;
    nibbles(b + 2, codes);
}

/* f16 d, m; qs */
static void q4_1_split(const unsigned char *b, uint8_t *codes, float *scales, float *zeros, float *minima)
{
    scales[0] = f16_at(b);
    zeros[0] = 0.0f;
    minima[0] = f16_at(b + 2);
    nibbles(b + 4, codes);
}

/* f16 d; qh; qs */
static void q5_0_split(const unsigned char *b, uint8_t *codes, float *scales, float *zeros, float *minima)
{
    scales[0] = f16_at(b);
    zeros[0] = 16.0f;
    minima[0] = -0.0f;
    nibbles(b + 6, codes);
    fifth_bits(b + 2, codes);
}

/* f16 d, m; qh; qs */
static void q5_1_split(const unsigned char *b, uint8_t *codes, float *scales, float *zeros, float *minima)
{
    scales[0] = f16_at(b);
    zeros[0] = 0.0f;
    minima[0] = f16_at(b + 2);
    nibbles(b + 8, codes);
    fifth_bits(b + 4, codes);
}

/* f16 d; f16 s (of the values, not needed); i8 q[32] */
static void q8_1_split(const unsigned char *b, uint8_t *codes, float *scales, float *zeros, float *minima)
{
    scales[0] = f16_at(b);
    zeros[0] = 128.0f;
    minima[0] = -0.0f;
    for (int i = 0; i < 32; i++)
        codes[i] = b[4 + i] ^ 0x80;
}

/* ---- super-blocks of 256 ---- */

/* u8 scales[16] (low nibble: scale, high: minimum); u8 qs[64]; f16 d, dmin.  Of each half's 32 bytes, bits 2s and 2s+1
 * are the values of sub-blocks 2s and 2s+1. */
static void q2_k_split(const unsigned char *b, uint8_t *codes, float *scales, float *zeros, float *minima)
{
    float d = f16_at(b + 80), dmin = f16_at(b + 82);
    for (int g = 0; g < 16; g++) {
        scales[g] = d * (float)(b[g] & 15);
        zeros[g] = 0.0f;
        minima[g] = -(dmin * (float)(b[g] >> 4));
    }
    for (int i = 0; i < 256; i++)
        codes[i] = b[16 + i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3;
}

/* u8 hmask[32]; u8 qs[64]; u8 scales[12]; f16 d.  Values as Q2_K, bit i/32 of hmask is the third; scales have six bits: four
 * in the nibbles of the first 8 bytes, two in the last four bytes. */
static void q3_k_split(const unsigned char *b, uint8_t *codes, float *scales, float *zeros, float *minima)
{
    const unsigned char *qs = b + 32, *s = b + 96;
    float d = f16_at(b + 108);
    for (int g = 0; g < 16; g++) {
        int low = g < 8 ? s[g] & 15 : s[g - 8] >> 4, high = s[8 + g % 4] >> (g / 4 * 2) & 3;
        scales[g] = d * (float)((low | high << 4) - 32);
        zeros[g] = 4.0f;
        minima[g] = -0.0f;
    }
    for (int s32 = 0; s32 < 8; s32++)
        for (int l = 0; l < 32; l++)
            codes[32 * s32 + l] = (uint8_t)((qs[s32 / 4 * 32 + l] >> (s32 % 4 * 2) & 3) | (b[l] >> s32 & 1) << 2);
}

/* Eight scales and eight minima of six bits in 12 bytes: those of 0..3 whole in the low bits of bytes 0..3 and 4..7; those of 4..7 in
 * the nibbles of bytes 8..11 and the high bits of the first eight. */
static void k_scales(const unsigned char *b, float *scales, float *zeros, float *minima)
{
    const unsigned char *s = b + 4;
    float d = f16_at(b), dmin = f16_at(b + 2);
    for (int g = 0; g < 8; g++) {
        int sc = g < 4 ? s[g] & 63 : (s[g + 4] & 15) | s[g - 4] >> 6 << 4;
        int m = g < 4 ? s[g + 4] & 63 : s[g + 4] >> 4 | s[g] >> 6 << 4;
        scales[g] = d * (float)sc;
        zeros[g] = 0.0f;
        minima[g] = -(dmin * (float)m);
    }
}

/* f16 d, dmin; u8 scales[12]; u8 qs[128]: each 32 bytes are a sub-block in the low nibbles, the next in the high. */
static void q4_k_split(const unsigned char *b, uint8_t *codes, float *scales, float *zeros, float *minima)
{
    k_scales(b, scales, zeros, minima);
    for (int i = 0; i < 256; i++)
        codes[i] = b[16 + i / 64 * 32 + i % 32] >> (i % 64 / 32 * 4) & 15;
}

/* f16 d, dmin; u8 scales[12]; u8 qh[32]; u8 qs[128]: as Q4_K, bit i/32 of qh is the fifth. */
static void q5_k_split(const unsigned char *b, uint8_t *codes, float *scales, float *zeros, float *minima)
{
    k_scales(b, scales, zeros, minima);
    for (int s32 = 0; s32 < 8; s32++)
        for (int l = 0; l < 32; l++)
            codes[32 * s32 + l] = (uint8_t)((b[48 + s32 / 2 * 32 + l] >> (s32 % 2 * 4) & 15) | (b[16 + l] >> s32 & 1) << 4);
}

/* u8 ql[128]; u8 qh[64]; i8 scales[16]; f16 d.  Of a half of 128, value 32t + l has the nibble t/2 of ql[32 (t%2) + l] and the bits
 * 2t, 2t+1 of qh[l]. */
static void q6_k_split(const unsigned char *b, uint8_t *codes, float *scales, float *zeros, float *minima)
{
    float d = f16_at(b + 208);
    for (int g = 0; g < 16; g++) {
        scales[g] = d * (float)(int8_t)b[192 + g];
        zeros[g] = 32.0f;
        minima[g] = -0.0f;
    }
    for (int s32 = 0; s32 < 8; s32++) {
        int half = s32 / 4, t = s32 % 4;
        for (int l = 0; l < 32; l++) {
            int low = b[64 * half + 32 * (t % 2) + l] >> (t / 2 * 4) & 15, high = b[128 + 32 * half + l] >> (2 * t) & 3;
            codes[32 * s32 + l] = (uint8_t)(low | high << 4);
        }
    }
}

/* f32 d; i8 q[256]; i16 sums[16] (not needed) */
static void q8_k_split(const unsigned char *b, uint8_t *codes, float *scales, float *zeros, float *minima)
{
    memcpy(scales, b, 4);
    zeros[0] = 128.0f;
    minima[0] = -0.0f;
    for (int i = 0; i < 256; i++)
        codes[i] = b[4 + i] ^ 0x80;
}

/* ---- values from a table of 16: codes are the table's, above -128 ---- */

static const int8_t iq4_table[16] = { -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113 };
/* E2M1, doubled: 0, .5, 1, 1.5, 2, 3, 4, 6 and their negatives. */
static const int8_t fp4_table[16] = { 0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12 };

static void from_table(const int8_t table[16], uint8_t *codes, int n)
{
    for (int i = 0; i < n; i++)
        codes[i] = (uint8_t)(table[codes[i]] + 128);
}

/* f16 d; qs */
static void iq4_nl_split(const unsigned char *b, uint8_t *codes, float *scales, float *zeros, float *minima)
{
    scales[0] = f16_at(b);
    zeros[0] = 128.0f;
    minima[0] = -0.0f;
    nibbles(b + 2, codes);
    from_table(iq4_table, codes, 32);
}

/* f16 d; u16 scales_h; u8 scales_l[4]; u8 qs[128]: eight sub-blocks of 32, each as IQ4_NL's, scales of six bits. */
static void iq4_xs_split(const unsigned char *b, uint8_t *codes, float *scales, float *zeros, float *minima)
{
    float d = f16_at(b);
    int high = b[2] | b[3] << 8;
    for (int g = 0; g < 8; g++) {
        int s = (b[4 + g / 2] >> (g % 2 * 4) & 15) | (high >> (2 * g) & 3) << 4;
        scales[g] = d * (float)(s - 32);
        zeros[g] = 128.0f;
        minima[g] = -0.0f;
        nibbles(b + 8 + 16 * g, codes + 32 * g);
    }
    from_table(iq4_table, codes, 256);
}

/* u8 e: the scale is 2^(e - 127), halved for the doubled table; qs */
static void mxfp4_split(const unsigned char *b, uint8_t *codes, float *scales, float *zeros, float *minima)
{
    uint32_t u = b[0] < 2 ? 0x00200000u << b[0] : (uint32_t)(b[0] - 1) << 23;
    memcpy(scales, &u, 4);
    zeros[0] = 128.0f;
    minima[0] = -0.0f;
    nibbles(b + 1, codes);
    from_table(fp4_table, codes, 32);
}

/* ---- three values ---- */

/* u8 qs[64]; f16 d: two bits a value, order as Q2_K; 0, 1, 2 are -1, 0, 1. */
static void tq2_0_split(const unsigned char *b, uint8_t *codes, float *scales, float *zeros, float *minima)
{
    scales[0] = f16_at(b + 64);
    zeros[0] = 1.0f;
    minima[0] = -0.0f;
    for (int i = 0; i < 256; i++)
        codes[i] = b[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3;
}

/* The n-th base-3 digit of a byte that holds a fraction of 243 scaled to 256. */
static uint8_t trit(uint8_t byte, int n)
{
    static const uint8_t pow3[5] = { 1, 3, 9, 27, 81 };
    uint8_t q = (uint8_t)(byte * pow3[n]);
    return (uint8_t)(q * 3u >> 8);
}

/* u8 qs[48] of five digits, u8 qh[4] of four; f16 d.  Digit n of the first 32 bytes are values 32n.., of the next 16 160 + 16n.., of
 * qh 240 + 4n... */
static void tq1_0_split(const unsigned char *b, uint8_t *codes, float *scales, float *zeros, float *minima)
{
    scales[0] = f16_at(b + 52);
    zeros[0] = 1.0f;
    minima[0] = -0.0f;
    for (int i = 0; i < 160; i++)
        codes[i] = trit(b[i % 32], i / 32);
    for (int i = 0; i < 80; i++)
        codes[160 + i] = trit(b[32 + i % 16], i / 16);
    for (int i = 0; i < 16; i++)
        codes[240 + i] = trit(b[48 + i % 4], i / 4);
}

/* ---- all of them ---- */

static const struct quant_block *block_of(const struct tensor_rows *r)
{
    return ((const struct tensor *)r->ctx)->block;
}

static const unsigned char *row_at(const struct tensor_rows *r, int64_t row)
{
    const struct tensor *t = r->ctx;
    const struct quant_block *q = t->block;
    return (const unsigned char *)t->data + (size_t)(r->ctx_offset + row) * (size_t)(r->n_cols / q->values) * (size_t)q->bytes;
}

/* Rows follow each other in the file as they do in the arrays. */
static void blocks_read_quant(const struct tensor_rows *r, int64_t row0, int64_t n, uint8_t *codes, float *scales, float *zeros, float *minima)
{
    const struct quant_block *q = block_of(r);
    const unsigned char *b = row_at(r, row0);
    int64_t groups = q->values / q->quant.group;
    for (int64_t c = 0, g = 0; c < n * r->n_cols; c += q->values, g += groups, b += q->bytes)
        q->split(b, codes + c, scales + g, zeros + g, minima + g);
}

#define BLOCK(name, id, values, bytes, split, bits, group, min, fixed) \
    { name, id, values, bytes, split, { bits, group, min, fixed, false, false, NULL, blocks_read_quant } }
static const struct quant_block blocks[] = {
    BLOCK("Q4_0", 2, 32, 18, q4_0_split, 4, 32, false, true),
    BLOCK("Q4_1", 3, 32, 20, q4_1_split, 4, 32, true, true),
    BLOCK("Q5_0", 6, 32, 22, q5_0_split, 5, 32, false, true),
    BLOCK("Q5_1", 7, 32, 24, q5_1_split, 5, 32, true, true),
    BLOCK("Q8_0", 8, 32, 34, q8_0_split, 8, 32, false, true),
    BLOCK("Q8_1", 9, 32, 36, q8_1_split, 8, 32, false, true),
    BLOCK("Q2_K", 10, 256, 84, q2_k_split, 2, 16, true, true),
    BLOCK("Q3_K", 11, 256, 110, q3_k_split, 3, 16, false, true),
    BLOCK("Q4_K", 12, 256, 144, q4_k_split, 4, 32, true, true),
    BLOCK("Q5_K", 13, 256, 176, q5_k_split, 5, 32, true, true),
    BLOCK("Q6_K", 14, 256, 210, q6_k_split, 6, 16, false, true),
    BLOCK("Q8_K", 15, 256, 292, q8_k_split, 8, 256, false, true),
    BLOCK("IQ4_NL", 20, 32, 18, iq4_nl_split, 8, 32, false, true),
    BLOCK("IQ4_XS", 23, 256, 136, iq4_xs_split, 8, 32, false, true),
    BLOCK("TQ1_0", 34, 256, 54, tq1_0_split, 2, 256, false, false),
    BLOCK("TQ2_0", 35, 256, 66, tq2_0_split, 2, 256, false, false),
    BLOCK("MXFP4", 39, 32, 17, mxfp4_split, 8, 32, false, true),
};
#undef BLOCK

const struct quant_block *quant_block_by_id(int id)
{
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
        if (blocks[i].id == id)
            return &blocks[i];
    return NULL;
}

const struct quant_block *quant_block_by_name(const char *name)
{
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
        if (strcmp(blocks[i].name, name) == 0)
            return &blocks[i];
    return NULL;
}

const char *quant_block_type_name(int id)
{
    static const char *const others[] = {
        [0] = "F32", [1] = "F16", [4] = "Q4_2", [5] = "Q4_3", [16] = "IQ2_XXS", [17] = "IQ2_XS", [18] = "IQ3_XXS", [19] = "IQ1_S", [21] = "IQ3_S",
        [22] = "IQ2_S", [24] = "I8", [25] = "I16", [26] = "I32", [27] = "I64", [28] = "F64", [29] = "IQ1_M", [30] = "BF16", [31] = "Q4_0_4_4",
        [32] = "Q4_0_4_8", [33] = "Q4_0_8_8", [36] = "IQ4_NL_4_4", [37] = "IQ4_NL_4_8", [38] = "IQ4_NL_8_8",
    };
    const struct quant_block *b = quant_block_by_id(id);
    if (b)
        return b->name;
    return id >= 0 && (size_t)id < sizeof others / sizeof *others && others[id] ? others[id] : "?";
}

static void blocks_read(const struct tensor_rows *r, int64_t row0, int64_t n, float *out)
{
    const struct quant_block *q = block_of(r);
    for (int64_t i = 0; i < n; i++)
        quant_block_to_f32(q, row_at(r, row0 + i), (size_t)(r->n_cols / q->values), out + i * r->n_cols);
}

void quant_block_to_f32(const struct quant_block *q, const unsigned char *src, size_t n, float *out)
{
    uint8_t codes[MAX_BLOCK];
    float scales[MAX_GROUPS], zeros[MAX_GROUPS], minima[MAX_GROUPS];
    int group = (int)q->quant.group;
    for (size_t b = 0; b < n; b++, src += q->bytes, out += q->values) {
        q->split(src, codes, scales, zeros, minima);
        for (int g = 0; g < q->values / group; g++)
            for (int i = g * group; i < (g + 1) * group; i++)
                out[i] = scales[g] * ((float)codes[i] - zeros[g]) + minima[g];
    }
}

void quant_block_rows_of(struct tensor_rows *r, const struct tensor *t, int64_t row0, int64_t n_rows)
{
    assert(t->block && t->dims[t->n_dims - 1] % t->block->values == 0);
    assert(row0 >= 0 && n_rows >= 0 && row0 <= (t->n_dims == 2 ? t->dims[0] : 1) - n_rows);
    *r = (struct tensor_rows){
        .n_rows = n_rows, .n_cols = t->dims[t->n_dims - 1], .dtype = DT_F32, .read = blocks_read, .ctx = t, .ctx_offset = row0,
        .quant = &t->block->quant,
    };
}
