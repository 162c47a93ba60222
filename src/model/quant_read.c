/* The values of a quantized linear, and its codes where it has integers under scales. */
#include <string.h>
#include "base/mem.h"
#include "model/quant_int.h"

enum {
    CHUNK = 64,       /* rows that are read side by side where a stored word holds one column of many rows */
    TILE = 16         /* columns that are gathered before they are written, a cache line a row */
};

static const unsigned char *bytes_of(const struct tensor *t)
{
    return t->data;
}

static uint32_t word_at(const struct tensor *t, int64_t i)
{
    uint32_t v;
    memcpy(&v, bytes_of(t) + 4 * i, 4);
    return v;
}

static float float_at(const struct tensor *t, int64_t i)
{
    float v;
    tensor_to_f32(t->dtype, bytes_of(t) + (size_t)i * dtype_bytes(t->dtype), 1, &v);
    return v;
}

/* Value i of a stream of words that are stride apart, low bits first; a value may lie in two words. */
static uint32_t stream_at(const struct tensor *t, int64_t first, int64_t stride, int bits, int64_t i)
{
    int64_t at = i * bits;
    int shift = (int)(at % 32);
    uint64_t v = word_at(t, first + at / 32 * stride);
    if (shift + bits > 32)
        v |= (uint64_t)word_at(t, first + (at / 32 + 1) * stride) << 32;
    return (uint32_t)(v >> shift) & ((1u << bits) - 1);
}

/* In AWQ's words of eight rows, where row i lies. */
static int awq_shift(int64_t i)
{
    static const uint8_t place[8] = { 0, 4, 1, 5, 2, 6, 3, 7 };
    return 4 * place[i % 8];
}

/* ---- scales and zeros ---- */

static int64_t group_of(const struct quant_matrix *q, int64_t col)
{
    return q->g_idx ? (int64_t)word_at(q->g_idx, col) : col / q->group;
}

/* Where the scale of a row's group lies: GPTQ and AWQ keep [groups, rows], others [rows, groups]. */
static float scale_of(const struct quant_matrix *q, int64_t row, int64_t group)
{
    bool by_group = q->layout == QUANT_PACKED_COLS || q->layout == QUANT_AWQ_ROWS;
    int64_t i = by_group ? group * q->n_rows + row : row / q->rows_per_scale * q->n_groups + group;
    return float_at(q->scales, i) * q->scale_factor;
}

/* The unsigned code that means 0. */
static float zero_of(const struct quant_matrix *q, int64_t row, int64_t group)
{
    int half = 1 << (q->bits - 1), mask = (1 << q->bits) - 1;
    if (q->layout == QUANT_PACKED_COLS)
        return (float)((int)(stream_at(q->zeros, group * (q->n_rows * q->bits / 32), 1, q->bits, row) + (uint32_t)q->zero_add) & mask);
    if (q->layout == QUANT_AWQ_ROWS)
        return (float)(word_at(q->zeros, group * (q->n_rows / 8) + row / 8) >> awq_shift(row) & 15);
    if (!q->zeros)
        return (float)half;
    row /= q->rows_per_scale;
    if (!q->zeros_packed)
        return (float)(half + (int8_t)bytes_of(q->zeros)[row * q->n_groups + group]);
    int per_word = 32 / q->bits;
    return (float)(word_at(q->zeros, row / per_word * q->n_groups + group) >> (row % per_word * q->bits) & (uint32_t)mask);
}

/* ---- codes ---- */

/* Of words that hold a column of rows. */
static uint32_t code_of(const struct quant_matrix *q, int64_t row, int64_t col)
{
    if (q->layout == QUANT_AWQ_ROWS)
        return word_at(q->codes, col * (q->n_rows / 8) + row / 8) >> awq_shift(row) & 15;
    return stream_at(q->codes, row, q->n_rows, q->bits, col);
}

/* Columns [k, end) of a row whose codes lie in order. */
static void codes_of_row(const struct quant_matrix *q, int64_t row, int64_t k, int64_t end, uint8_t *out)
{
    if (q->layout == QUANT_PACKED_ROWS) {
        int per_word = 32 / q->bits;
        uint32_t mask = (1u << q->bits) - 1;
        int64_t first = row * ((q->n_cols + per_word - 1) / per_word);
        while (k < end) {
            uint32_t word = word_at(q->codes, first + k / per_word) >> (k % per_word * q->bits);
            for (int64_t stop = (k / per_word + 1) * per_word; k < stop && k < end; k++, word >>= q->bits)
                *out++ = (uint8_t)(word & mask);
        }
        return;
    }
    for (const unsigned char *p = bytes_of(q->codes) + row * q->n_cols; k < end; k++)
        *out++ = p[k] ^ 0x80;
}

/* ---- values ---- */

/* n <= CHUNK rows of integers under scales, from words that hold a column of rows: column by column, so that words are read in order. */
static void read_columns(const struct quant_matrix *q, int64_t row0, int64_t n, float *out)
{
    float scale[CHUNK], zero[CHUNK];
    float tile[CHUNK][TILE];
    uint32_t code[CHUNK];
    int64_t last = -1;
    int shift[CHUNK] = { 0 };
    bool awq = q->layout == QUANT_AWQ_ROWS;
    for (int64_t i = 0; awq && i < n; i++)
        shift[i] = awq_shift(row0 + i);
    for (int64_t k = 0; k < q->n_cols; k++) {
        int64_t g = group_of(q, k);
        for (int64_t i = 0; g != last && i < n; i++) {
            scale[i] = scale_of(q, row0 + i, g);
            zero[i] = zero_of(q, row0 + i, g);
        }
        last = g;
        if (awq) {
            for (int64_t i = 0; i < n; i++)
                code[i] = word_at(q->codes, k * (q->n_rows / 8) + (row0 + i) / 8) >> shift[i] & 15;
        } else if (32 % q->bits == 0) {
            int64_t first = k * q->bits / 32 * q->n_rows + row0;
            int by = (int)(k * q->bits % 32);
            uint32_t mask = (1u << q->bits) - 1;
            for (int64_t i = 0; i < n; i++)
                code[i] = word_at(q->codes, first + i) >> by & mask;
        } else {
            for (int64_t i = 0; i < n; i++)
                code[i] = code_of(q, row0 + i, k);
        }
        for (int64_t i = 0; i < n; i++)
            tile[i][k % TILE] = scale[i] * ((float)(int32_t)code[i] - zero[i]);
        int64_t done = k % TILE + 1;
        for (int64_t i = 0; (done == TILE || k + 1 == q->n_cols) && i < n; i++)
            memcpy(out + i * q->n_cols + k + 1 - done, tile[i], (size_t)done * sizeof *out);
    }
}

/* A row of integers under scales, from codes that lie in order. */
static void read_row_integers(const struct quant_matrix *q, int64_t row, float *out)
{
    uint8_t codes[CHUNK];
    for (int64_t k = 0; k < q->n_cols;) {
        int64_t g = group_of(q, k), end = q->g_idx ? k + 1 : (g + 1) * q->group;
        float scale = scale_of(q, row, g), zero = zero_of(q, row, g);
        if (end > q->n_cols)
            end = q->n_cols;
        for (int64_t n; k < end; k += n) {
            n = end - k < CHUNK ? end - k : CHUNK;
            codes_of_row(q, row, k, k + n, codes);
            for (int64_t i = 0; i < n; i++)
                out[k + i] = scale * ((float)codes[i] - zero);
        }
    }
}

static void read_row_float8(const struct quant_matrix *q, int64_t row, float *out)
{
    tensor_to_f32(q->codes->dtype, bytes_of(q->codes) + row * q->n_cols, (size_t)q->n_cols, out);
    for (int64_t k = 0; k < q->n_cols;) {
        int64_t g = k / q->group, end = (g + 1) * q->group;
        float scale = scale_of(q, row, g);
        for (end = end < q->n_cols ? end : q->n_cols; k < end; k++)
            out[k] *= scale;
    }
}

/* The scale of a block of values: stored, or an 8-bit code into a second table under a scale of its own. */
static float absmax_of(const struct quant_matrix *q, int64_t block)
{
    if (!q->nested_map)
        return float_at(q->absmax, block);
    return float_at(q->nested_map, bytes_of(q->absmax)[block]) * float_at(q->nested_absmax, block / q->nested_block) + q->nested_offset;
}

/* Blocks run on over the ends of rows. */
static void read_row_table(const struct quant_matrix *q, int64_t row, float *out)
{
    float map[16], scale = 0;
    tensor_to_f32(DT_F32, q->map->data, 16, map);
    for (int64_t k = 0, i = row * q->n_cols, last = -1; k < q->n_cols; k++, i++) {
        if (i / q->block != last) {
            last = i / q->block;
            scale = absmax_of(q, last);
        }
        int byte = bytes_of(q->codes)[i / 2];
        out[k] = map[i % 2 ? byte & 15 : byte >> 4] * scale;
    }
}

static void matrix_read(const struct tensor_rows *r, int64_t row0, int64_t n, float *out)
{
    const struct quant_matrix *q = r->ctx;
    row0 += r->ctx_offset;
    if (q->layout == QUANT_PACKED_COLS || q->layout == QUANT_AWQ_ROWS) {
        for (int64_t i = 0; i < n; i += CHUNK)
            read_columns(q, row0 + i, n - i < CHUNK ? n - i : CHUNK, out + i * q->n_cols);
        return;
    }
    for (int64_t i = 0; i < n; i++, out += q->n_cols) {
        if (q->layout == QUANT_FLOAT8)
            read_row_float8(q, row0 + i, out);
        else if (q->layout == QUANT_TABLE4)
            read_row_table(q, row0 + i, out);
        else
            read_row_integers(q, row0 + i, out);
    }
}

/* n <= CHUNK rows' codes, from words that hold a column of rows. */
static void read_column_codes(const struct quant_matrix *q, int64_t row0, int64_t n, uint8_t *out)
{
    uint8_t tile[CHUNK][TILE];
    bool awq = q->layout == QUANT_AWQ_ROWS, whole = 32 % q->bits == 0;
    uint32_t mask = (1u << q->bits) - 1;
    int shift[CHUNK] = { 0 };
    for (int64_t i = 0; awq && i < n; i++)
        shift[i] = awq_shift(row0 + i);
    for (int64_t k = 0; k < q->n_cols; k++) {
        int64_t first = k * q->bits / 32 * q->n_rows + row0;
        int by = (int)(k * q->bits % 32), at = (int)(k % TILE);
        for (int64_t i = 0; awq && i < n; i++)
            tile[i][at] = word_at(q->codes, k * (q->n_rows / 8) + (row0 + i) / 8) >> shift[i] & 15;
        for (int64_t i = 0; !awq && whole && i < n; i++)
            tile[i][at] = (uint8_t)(word_at(q->codes, first + i) >> by & mask);
        for (int64_t i = 0; !awq && !whole && i < n; i++)
            tile[i][at] = (uint8_t)code_of(q, row0 + i, k);
        for (int64_t i = 0; (at == TILE - 1 || k + 1 == q->n_cols) && i < n; i++)
            memcpy(out + i * q->n_cols + k - at, tile[i], (size_t)at + 1);
    }
}

static void matrix_read_quant(const struct tensor_rows *r, int64_t row0, int64_t n, uint8_t *codes, float *scales, float *zeros, float *minima)
{
    const struct quant_matrix *q = r->ctx;
    row0 += r->ctx_offset;
    for (int64_t i = 0; i < n; i++) {
        for (int64_t g = 0; g < q->n_groups; g++, scales++, zeros++, minima++) {
            *scales = scale_of(q, row0 + i, g);
            *zeros = q->layout == QUANT_FLOAT8 ? 0.0f : zero_of(q, row0 + i, g);
            *minima = -0.0f;
        }
    }
    if (q->layout == QUANT_FLOAT8) {
        memcpy(codes, bytes_of(q->codes) + row0 * q->n_cols, (size_t)(n * q->n_cols));
    } else if (q->layout == QUANT_PACKED_ROWS || q->layout == QUANT_INT8) {
        for (int64_t i = 0; i < n; i++)
            codes_of_row(q, row0 + i, 0, q->n_cols, codes + i * q->n_cols);
    } else {
        for (int64_t i = 0; i < n; i += CHUNK)
            read_column_codes(q, row0 + i, n - i < CHUNK ? n - i : CHUNK, codes + i * q->n_cols);
    }
}

void quant_matrix_rows(struct tensor_rows *r, const struct quant_matrix *q, int64_t row0, int64_t n)
{
    *r = (struct tensor_rows){ .n_rows = n, .n_cols = q->n_cols, .dtype = DT_F32, .read = matrix_read, .ctx = q, .ctx_offset = row0 };
    if (q->quant.bits)
        r->quant = &q->quant;
}

/* Whether every zero is the middle of the codes. */
static bool is_centred(const struct quant_matrix *q)
{
    if (!q->zeros || q->bits != 8)
        return !q->zeros;
    /* Eight bits: one byte each, in words or not, of which a stored one less, or a signed zero, is the middle as well. */
    uint8_t middle = q->layout == QUANT_PACKED_COLS ? (uint8_t)(128 - q->zero_add) : q->zeros_packed ? 128 : 0;
    for (size_t i = 0; i < q->zeros->bytes; i++)
        if (bytes_of(q->zeros)[i] != middle)
            return false;
    return true;
}

/* Whether every group has `group` columns, but the last. */
static bool groups_are_even(const struct quant_matrix *q)
{
    int64_t *count = mem_try_zalloc((size_t)q->n_groups, sizeof *count);
    bool even = count != NULL;
    for (int64_t k = 0; even && k < q->n_cols; k++)
        count[word_at(q->g_idx, k)]++;
    for (int64_t g = 0; even && g < q->n_groups; g++)
        even = count[g] == (g + 1 < q->n_groups ? q->group : q->n_cols - g * q->group);
    mem_free(count);
    return even;
}

void quant_matrix_split(struct quant_matrix *q)
{
    struct tensor_quant t = { .bits = q->bits, .group = q->group, .int8_inputs = q->int8_inputs, .read = matrix_read_quant };
    if (q->layout == QUANT_TABLE4 || (q->layout == QUANT_FLOAT8 && q->codes->dtype != DT_F8_E4M3) || (q->g_idx && !groups_are_even(q)))
        return;
    t.e4m3 = q->layout == QUANT_FLOAT8;
    t.fixed_zero = !t.e4m3 && is_centred(q);
    t.column_groups = q->g_idx ? q->g_idx->data : NULL;
    q->quant = t;
}
