/* Finding and checking the tensors of a quantized linear. */
#include "model/quant_int.h"
#include <math.h>
#include <stdio.h>
#include <string.h>
#include "base/mem.h"

enum { MAX_NAME = 280 };

struct binder {
    struct quant_matrix *q;
    const struct quant_config *c;
    const struct checkpoint *ck;
    const char *module;
    struct err *e;
};

/* ---- tensors by name ---- */

static const struct tensor *find(const struct binder *b, const char *suffix)
{
    char name[MAX_NAME];
    int n = snprintf(name, sizeof name, "%s.%s", b->module, suffix);
    return n < MAX_NAME ? checkpoint_find(b->ck, name) : NULL;
}

/* Found and marked as used, or NULL. */
static const struct tensor *use(const struct binder *b, const char *suffix)
{
    const struct tensor *t = find(b, suffix);
    return t ? checkpoint_take(b->ck, t->name) : NULL;
}

static bool missing(const struct binder *b, const char *suffix)
{
    return err_set(b->e, ERR_FORMAT, "tensor %.200s.%s is missing: the weight is quantized and needs it", b->module, suffix);
}

static bool bad_shape(const struct binder *b, const struct tensor *t, const char *expected)
{
    char found[96] = "";
    for (int i = 0; i < t->n_dims && i < 4; i++) {
        size_t at = strlen(found);
        snprintf(found + at, sizeof found - at, "%s%lld", i ? ", " : "", (long long)t->dims[i]);
    }
    return err_set(b->e, ERR_FORMAT, "%s: tensor %.180s is %s [%s], expected %s", checkpoint_file_of(b->ck, t), t->name, dtype_name(t->dtype), found, expected);
}

static bool is_float(const struct tensor *t)
{
    return t->dtype == DT_F32 || t->dtype == DT_F16 || t->dtype == DT_BF16;
}

static bool is_2d(const struct tensor *t, int64_t d0, int64_t d1)
{
    return t->n_dims == 2 && t->dims[0] == d0 && t->dims[1] == d1;
}

static bool expect_2d(const struct binder *b, const struct tensor *t, bool type_ok, const char *type, int64_t d0, int64_t d1)
{
    char expected[96];
    if (type_ok && is_2d(t, d0, d1))
        return true;
    snprintf(expected, sizeof expected, "%s [%lld, %lld]", type, (long long)d0, (long long)d1);
    return bad_shape(b, t, expected);
}

static int64_t count_of(const struct tensor *t)
{
    size_t n;
    return tensor_count(t, &n) && n < INT64_MAX ? (int64_t)n : -1;
}

static int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

static int32_t int32_at(const struct tensor *t, int64_t i)
{
    int32_t v;
    memcpy(&v, (const unsigned char *)t->data + 4 * i, 4);
    return v;
}

/* ---- groups ---- */

/* Columns under one scale, when there are n groups. */
static bool set_groups(const struct binder *b, const struct tensor *scales, int64_t n)
{
    struct quant_matrix *q = b->q;
    int64_t said = b->c->group_size;
    q->n_groups = n;
    q->rows_per_scale = 1;
    if (n == 1)
        q->group = q->n_cols;
    else if (said > 0 && ceil_div(q->n_cols, said) == n)
        q->group = said;
    else if (n > 1 && q->n_cols % n == 0)
        q->group = q->n_cols / n;
    else
        return err_set(b->e, ERR_FORMAT, "%s: tensor %.180s: %lld groups do not cut %lld columns evenly (group_size is %lld)",
                       checkpoint_file_of(b->ck, scales), scales->name, (long long)n, (long long)q->n_cols, (long long)said);
    return true;
}

/* Which group each column has, where neighbours need not share one. */
static bool set_order(const struct binder *b, const struct tensor *g_idx)
{
    struct quant_matrix *q = b->q;
    bool plain = true;
    if (!g_idx)
        return true;
    if (g_idx->dtype != DT_I32 || g_idx->n_dims != 1 || g_idx->dims[0] != q->n_cols)
        return bad_shape(b, g_idx, "a group (I32) for each column");
    for (int64_t k = 0; k < q->n_cols; k++) {
        int32_t g = int32_at(g_idx, k);
        if (g < 0 || g >= q->n_groups)
            return err_set(b->e, ERR_FORMAT, "%s: tensor %.180s: group %d of column %lld is not one of %lld", checkpoint_file_of(b->ck, g_idx), g_idx->name,
                           g, (long long)k, (long long)q->n_groups);
        plain &= g == k / q->group;
    }
    q->g_idx = plain ? NULL : g_idx;
    return true;
}

/* ---- GPTQ and AWQ ---- */

/* A bias of zeros where the architecture has none: some writers add it to every linear. */
static bool check_bias(const struct binder *b, bool has_bias)
{
    const struct tensor *t = has_bias ? NULL : use(b, "bias");
    for (size_t i = 0; t && i < t->bytes; i++)
        if (((const unsigned char *)t->data)[i])
            return err_set(b->e, ERR_FORMAT, "%s: tensor %.180s is not zero, but the architecture has no bias there", checkpoint_file_of(b->ck, t), t->name);
    return true;
}

static bool bind_packed(const struct binder *b)
{
    struct quant_matrix *q = b->q;
    bool awq = b->c->method == QUANT_AWQ;
    q->codes = use(b, "qweight");
    q->scales = use(b, "scales");
    q->zeros = use(b, "qzeros");
    if (!q->scales || !q->zeros)
        return missing(b, q->scales ? "qzeros" : "scales");
    if (b->c->method != QUANT_GPTQ && !awq)
        return err_set(b->e, ERR_FORMAT, "tensor %.200s.qweight: packed as by GPTQ or AWQ, but no quantization_config says by which", b->module);
    q->layout = awq ? QUANT_AWQ_ROWS : QUANT_PACKED_COLS;
    q->bits = 4;
    if (!awq && q->codes->n_dims == 2 && q->codes->dims[0] > 0 && q->codes->dims[0] <= q->n_cols)
        q->bits = (int)(q->codes->dims[0] * 32 / q->n_cols);
    if (!awq && q->bits != 2 && q->bits != 3 && q->bits != 4 && q->bits != 8)
        return bad_shape(b, q->codes, "2, 3, 4 or 8 bits for each column");
    if ((awq ? q->n_rows : q->n_cols) * q->bits % 32 || q->n_rows * q->bits % 32)
        return err_set(b->e, ERR_UNSUPPORTED, "tensor %.200s.qweight: %d bits of %lld x %lld values do not fill words of 32 bits", b->module, q->bits,
                       (long long)q->n_rows, (long long)q->n_cols);
    int64_t words = q->n_rows * q->bits / 32, groups = q->scales->n_dims == 2 ? q->scales->dims[0] : 0;
    q->zero_add = awq || b->c->zeros_exact ? 0 : 1;
    return expect_2d(b, q->codes, q->codes->dtype == DT_I32, "I32", awq ? q->n_cols : q->n_cols * q->bits / 32, awq ? words : q->n_rows)
        && expect_2d(b, q->scales, is_float(q->scales), "floats", groups, q->n_rows) && set_groups(b, q->scales, groups)
        && expect_2d(b, q->zeros, q->zeros->dtype == DT_I32, "I32", groups, words) && set_order(b, awq ? NULL : use(b, "g_idx"));
}

/* ---- compressed-tensors ---- */

/* The narrowest width of the config (or any) that packs n_cols values into this many words. */
static int packed_bits(const struct binder *b, int64_t words)
{
    for (int i = 0; i < b->c->n_bits; i++)
        if (ceil_div(b->q->n_cols, 32 / b->c->bits[i]) == words)
            return b->c->bits[i];
    return 0;
}

/* weight_zero_point: I32, packed along rows like the weight's columns, or I8 as it is. */
static bool bind_zero_points(const struct binder *b)
{
    struct quant_matrix *q = b->q;
    int64_t rows = q->rows_per_scale == 1 ? q->n_rows : 1;
    q->zeros = use(b, "weight_zero_point");
    if (!q->zeros)
        return true;
    q->zeros_packed = q->zeros->dtype == DT_I32;
    if (q->zeros_packed)
        return expect_2d(b, q->zeros, true, "I32", ceil_div(rows, 32 / q->bits), q->n_groups);
    if (q->zeros->dtype != DT_I8 || count_of(q->zeros) != rows * q->n_groups)
        return bad_shape(b, q->zeros, "I8, one for each scale");
    return true;
}

static bool bind_weight_packed(const struct binder *b)
{
    struct quant_matrix *q = b->q;
    const struct tensor *shape = use(b, "weight_shape");
    q->codes = use(b, "weight_packed");
    q->scales = use(b, "weight_scale");
    if (!q->scales)
        return missing(b, "weight_scale");
    if (find(b, "weight_global_scale"))
        return err_set(b->e, ERR_UNSUPPORTED, "tensor %.200s.weight_packed: weights of 4-bit floats are not supported", b->module);
    if (shape && (shape->dtype != DT_I64 || count_of(shape) != 2))
        return bad_shape(b, shape, "two I64");
    int64_t dims[2] = { q->n_rows, q->n_cols };
    if (shape)
        memcpy(dims, shape->data, sizeof dims);
    if (dims[0] != q->n_rows || dims[1] != q->n_cols)
        return err_set(b->e, ERR_FORMAT, "tensor %.180s.weight_shape says [%lld, %lld], expected [%lld, %lld]", b->module, (long long)dims[0],
                       (long long)dims[1], (long long)q->n_rows, (long long)q->n_cols);
    q->layout = QUANT_PACKED_ROWS;
    q->bits = q->codes->n_dims == 2 ? packed_bits(b, q->codes->dims[1]) : 0;
    if (!q->bits)
        return bad_shape(b, q->codes, "I32, with columns packed as the config's num_bits says");
    if (q->scales->n_dims != 2 || !expect_2d(b, q->scales, is_float(q->scales), "floats", q->scales->dims[0] == 1 && q->scales->dims[1] == 1 ? 1 : q->n_rows,
                                             q->scales->dims[1]))
        return q->scales->n_dims == 2 ? false : bad_shape(b, q->scales, "floats [rows, groups]");
    if (!expect_2d(b, q->codes, q->codes->dtype == DT_I32, "I32", q->n_rows, ceil_div(q->n_cols, 32 / q->bits)) || !set_groups(b, q->scales, q->scales->dims[1]))
        return false;
    if (q->scales->dims[0] == 1)
        q->rows_per_scale = q->n_rows;
    return bind_zero_points(b) && set_order(b, use(b, "weight_g_idx"));
}

/* ---- bytes under scales: int8 and fp8 ---- */

/* One scale, or one a row, or [rows, groups], or [row blocks, column blocks]. */
static bool set_scales(const struct binder *b, const struct tensor *t)
{
    struct quant_matrix *q = b->q;
    int64_t n = count_of(t), br = b->c->block_rows, bc = b->c->block_cols;
    q->scales = t;
    if (!is_float(t) || n < 1)
        return bad_shape(b, t, "floats");
    if (br && is_2d(t, ceil_div(q->n_rows, br), ceil_div(q->n_cols, bc))) {
        q->rows_per_scale = br;
        q->group = bc;
        q->n_groups = t->dims[1];
        return true;
    }
    if (n == 1) {
        q->rows_per_scale = q->n_rows;
        q->group = q->n_cols;
        q->n_groups = 1;
        return true;
    }
    if (n == q->n_rows && (t->n_dims == 1 || is_2d(t, q->n_rows, 1)))
        return set_groups(b, t, 1);
    if (t->n_dims == 2 && t->dims[0] == q->n_rows)
        return set_groups(b, t, t->dims[1]);
    return bad_shape(b, t, "one scale for the tensor, for each row, for each group of columns or for each block");
}

static bool bind_bytes(const struct binder *b, const struct tensor *weight)
{
    struct quant_matrix *q = b->q;
    const struct tensor *inverse = find(b, "weight_scale_inv"), *scb = find(b, "SCB");
    bool int8 = weight->dtype == DT_I8;
    const char *name = int8 && scb ? "SCB" : inverse ? "weight_scale_inv" : "weight_scale";
    const struct tensor *scale = use(b, name);
    q->layout = int8 ? QUANT_INT8 : QUANT_FLOAT8;
    q->bits = 8;
    q->codes = checkpoint_take(b->ck, weight->name);
    q->int8_inputs = int8 && b->c->int8_inputs;
    if (!scale)
        return missing(b, name);
    if (int8 && scb)
        q->scale_factor = 1.0f / 127.0f;
    return expect_2d(b, weight, true, dtype_name(weight->dtype), q->n_rows, q->n_cols) && set_scales(b, scale)
        && (!int8 || scb || bind_zero_points(b));
}

/* ---- bitsandbytes, four bits ---- */

static const struct tensor *use_state(const struct binder *b)
{
    const struct tensor *t = use(b, "weight.quant_state.bitsandbytes__nf4");
    return t ? t : use(b, "weight.quant_state.bitsandbytes__fp4");
}

static bool read_state(const struct binder *b, const struct tensor *state)
{
    struct quant_matrix *q = b->q;
    double offset;
    json_t *j = json_parse(state->data, state->bytes, b->e);
    const json_t *shape;
    bool ok = j && json_get_i64(j, "blocksize", 64, &q->block, b->e) && json_get_i64(j, "nested_blocksize", 256, &q->nested_block, b->e)
        && json_get_f64(j, "nested_offset", 0.0, &offset, b->e) && json_get_arr(j, "shape", &shape, b->e);
    if (ok && (json_array_size(shape) != 2 || json_integer_value(json_array_get(shape, 0)) != q->n_rows ||
               json_integer_value(json_array_get(shape, 1)) != q->n_cols))
        ok = err_set(b->e, ERR_FORMAT, "'shape' is not [%lld, %lld]", (long long)q->n_rows, (long long)q->n_cols);
    if (ok && (q->block < 1 || q->block > 1 << 20 || q->nested_block < 1 || q->nested_block > 1 << 20))
        ok = err_set(b->e, ERR_FORMAT, "blocks of %lld and %lld are not plausible", (long long)q->block, (long long)q->nested_block);
    if (ok)
        q->nested_offset = (float)offset;
    json_decref(j);
    return ok || err_prefix(b->e, "%s: tensor %.180s", checkpoint_file_of(b->ck, state), state->name);
}

static bool bind_table(const struct binder *b, const struct tensor *weight)
{
    struct quant_matrix *q = b->q;
    const struct tensor *state = use_state(b);
    int64_t n = q->n_rows * q->n_cols;
    q->layout = QUANT_TABLE4;
    q->bits = 4;
    q->codes = checkpoint_take(b->ck, weight->name);
    q->absmax = use(b, "weight.absmax");
    q->map = use(b, "weight.quant_map");
    q->nested_absmax = use(b, "weight.nested_absmax");
    q->nested_map = use(b, "weight.nested_quant_map");
    if (!state || !q->absmax || !q->map)
        return missing(b, !state ? "weight.quant_state.bitsandbytes__nf4" : !q->absmax ? "weight.absmax" : "weight.quant_map");
    if (!read_state(b, state))
        return false;
    /* Any type: some writers store the bytes as BF16, two at a time. */
    if ((int64_t)weight->bytes != (n + 1) / 2)
        return bad_shape(b, weight, "half a byte for each value");
    if (q->map->dtype != DT_F32 || count_of(q->map) != 16)
        return bad_shape(b, q->map, "16 F32");
    int64_t blocks = ceil_div(n, q->block);
    if (count_of(q->absmax) != blocks || (q->absmax->dtype != DT_F32 && q->absmax->dtype != DT_U8))
        return bad_shape(b, q->absmax, "F32 or U8, one for each block");
    if (q->absmax->dtype == DT_F32) {
        q->nested_absmax = q->nested_map = NULL;
        return true;
    }
    if (!q->nested_absmax || !q->nested_map)
        return missing(b, q->nested_map ? "weight.nested_absmax" : "weight.nested_quant_map");
    if (q->nested_map->dtype != DT_F32 || count_of(q->nested_map) != 256)
        return bad_shape(b, q->nested_map, "256 F32");
    if (q->nested_absmax->dtype != DT_F32 || count_of(q->nested_absmax) != ceil_div(blocks, q->nested_block))
        return bad_shape(b, q->nested_absmax, "F32, one for each block of blocks");
    return true;
}

/* ---- any ---- */

static enum quant_found bind_any(const struct binder *b, bool has_bias)
{
    const struct tensor *weight = find(b, "weight");
    bool ok;
    if (find(b, "qweight"))
        ok = bind_packed(b) && check_bias(b, has_bias);
    else if (find(b, "weight_packed"))
        ok = bind_weight_packed(b);
    else if (weight && (weight->dtype == DT_I8 || weight->dtype == DT_F8_E4M3 || weight->dtype == DT_F8_E5M2))
        ok = bind_bytes(b, weight);
    else if (weight && ((weight->dtype == DT_U8 && !weight->block) || find(b, "weight.absmax")))
        ok = bind_table(b, weight);
    else
        return QUANT_IS_NOT;
    if (ok)
        quant_matrix_split(b->q);
    return ok ? QUANT_IS : QUANT_IS_BAD;
}

enum quant_found quant_matrix_bind(struct quant_matrix *q, const struct quant_config *c, const struct checkpoint *ck, const char *module,
                                   int64_t rows, int64_t cols, bool has_bias, struct err *e)
{
    struct binder b = { .q = q, .c = c, .ck = ck, .module = module, .e = e };
    *q = (struct quant_matrix){ .n_rows = rows, .n_cols = cols, .scale_factor = 1.0f };
    return bind_any(&b, has_bias);
}

bool quant_is_unused(const char *name)
{
    static const char *const endings[] = {
        ".input_scale", ".input_zero_point", ".output_scale", ".output_zero_point", ".k_scale", ".v_scale", ".kv_scale", ".q_scale", ".k_zero_point",
        ".v_zero_point", ".weight_format", ".input_scale_ub", ".activation_scale_ub",
    };
    size_t n = strlen(name);
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
        size_t k = strlen(endings[i]);
        if (n > k && strcmp(name + n - k, endings[i]) == 0)
            return true;
    }
    return false;
}
