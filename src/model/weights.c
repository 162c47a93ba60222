#include <stdio.h>
#include <string.h>
#include "base/mem.h"
#include "model/weights_int.h"
#include "tensor/quant.h"

enum { MAX_NAME = MODEL_MAX_NAME };

bool model_make_name(const struct model *m, const char *pattern, const char *suffix, int layer, int index, char out[MAX_NAME], struct err *e)
{
    size_t n = 0;
    for (const char *p = pattern; *p && n < MAX_NAME; p++) {
        int left = (int)(MAX_NAME - n), wrote = 1;
        if (*p == '~')
            wrote = snprintf(out + n, (size_t)left, "%s", m->prefix);
        else if (*p == '#' || *p == '%' || *p == '@')
            wrote = snprintf(out + n, (size_t)left, "%d", *p == '#' ? layer : index);
        else
            out[n] = *p;
        n += (size_t)wrote;
    }
    if (n + strlen(suffix) >= MAX_NAME)
        return err_set(e, ERR_INTERNAL, "tensor name %s is too long", pattern);
    strcpy(out + n, suffix);
    return true;
}

static const struct tensor *take_name(const struct model *m, const char *name, bool blocks, struct err *e)
{
    const struct tensor *t = model_replaced(m, name);
    if (t)
        return t;
    t = checkpoint_take(m->ck, name);
    if (!t) {
        err_set(e, ERR_FORMAT, "tensor %s is missing%s", name,
                strcmp(name, "lm_head.weight") == 0 ? " and config.json does not set tie_word_embeddings" : "");
        return NULL;
    }
    if (t->block ? !blocks : t->dtype != DT_F32 && t->dtype != DT_F16 && t->dtype != DT_BF16) {
        err_set(e, ERR_UNSUPPORTED, "%s: tensor %s is of type %s; supported are F32, F16 and BF16", checkpoint_file_of(m->ck, t),
                name, t->block ? t->block->name : dtype_name(t->dtype));
        return NULL;
    }
    return t;
}

/* A float tensor; with blocks, also one in a block format. */
static const struct tensor *take(const struct model *m, const char *pattern, const char *suffix, int layer, int index, bool blocks, struct err *e)
{
    char name[MAX_NAME];
    return model_make_name(m, pattern, suffix, layer, index, name, e) ? take_name(m, name, blocks, e) : NULL;
}

/* dims[0..n) or one error that shows both shapes. */
static bool check_shape(const struct model *m, const struct tensor *t, int n, int64_t d0, int64_t d1, struct err *e)
{
    bool ok = t->n_dims == n && t->dims[0] == d0 && (n < 2 || t->dims[1] == d1);
    ok = ok || (n == 2 && d0 == 1 && t->n_dims == 1 && t->dims[0] == d1);
    if (ok)
        return true;
    char found[128] = "", expected[64];
    for (int i = 0; i < t->n_dims; i++) {
        size_t at = strlen(found);
        snprintf(found + at, sizeof found - at, "%s%lld", i ? ", " : "", (long long)t->dims[i]);
    }
    if (n == 1)
        snprintf(expected, sizeof expected, "%lld", (long long)d0);
    else
        snprintf(expected, sizeof expected, "%lld, %lld", (long long)d0, (long long)d1);
    return err_set(e, ERR_FORMAT, "%s: tensor %.200s has shape [%s], expected [%s]", checkpoint_file_of(m->ck, t), t->name, found, expected);
}

/* ---- rows of a part that are not one block of the tensor ---- */

/* Row r of the part is row offset + (r / per_group) * stride + r % per_group of the tensor. */
struct part_view {
    struct latent_view latent;
    struct quant_matrix q;     /* when t is NULL */
    struct tensor_rows all;    /* of the tensor, or of q */
    struct tensor_quant quant; /* of the part, where its rows are not neighbours in all */
    const struct tensor *t;
    int64_t offset, per_group, stride;
    bool transposed;           /* the tensor is [cols, rows] */
};

static int64_t view_row(const struct part_view *v, int64_t r)
{
    return v->offset + r / v->per_group * v->stride + r % v->per_group;
}

static const unsigned char *element(const struct tensor *t, int64_t i)
{
    return (const unsigned char *)t->data + (size_t)i * dtype_bytes(t->dtype);
}

static void read_view(const struct tensor_rows *r, int64_t row0, int64_t n, float *out)
{
    const struct part_view *v = r->ctx;
    if (!v->transposed) {
        for (int64_t i = 0; i < n; i++)
            v->all.read(&v->all, view_row(v, row0 + i), 1, out + i * r->n_cols);
        return;
    }
    /* A stored row holds one column of many of our rows: walk it once for all of them. */
    int64_t stored_cols = v->t->dims[1];
    for (int64_t c = 0; c < r->n_cols; c++)
        for (int64_t i = 0; i < n; i++)
            tensor_to_f32(v->t->dtype, element(v->t, c * stored_cols + view_row(v, row0 + i)), 1, out + i * r->n_cols + c);
}

static void read_view_quant(const struct tensor_rows *r, int64_t row0, int64_t n, uint8_t *codes, float *scales, float *zeros, float *minima)
{
    const struct part_view *v = r->ctx;
    int64_t groups = tensor_quant_groups(&v->quant, r->n_cols);
    for (int64_t i = 0; i < n; i++)
        v->all.quant->read(&v->all, view_row(v, row0 + i), 1, codes + i * r->n_cols, scales + i * groups, zeros + i * groups, minima + i * groups);
}

static struct part_view part_view_of(const struct model *m, const struct arch_linear_spec *s, enum arch_linear slot, int part,
                                     const int64_t rows[3])
{
    struct part_view v = { .per_group = rows[part] ? rows[part] : 1, .transposed = s->transposed };
    if (s->layout == ARCH_LAYOUT_STACKED) {
        for (int i = 0; i < part; i++)
            v.offset += rows[i];
    } else if (s->layout == ARCH_LAYOUT_GROUPED && slot == ARCH_LIN_QKV) {
        const struct arch *a = &m->arch;
        int64_t group = a->n_heads / a->n_kv_heads, hd = a->head_dim;
        v.per_group = part == 0 ? group * hd : hd;
        v.offset = part == 0 ? 0 : (group + part - 1) * hd;
        v.stride = (group + 2) * hd;
    }
    return v;
}

int64_t model_stored_row(const struct model *m, enum arch_linear slot, int part, int64_t r)
{
    int64_t rows[3], cols;
    const struct arch_linear_spec *s = &m->arch.linear[slot];
    arch_linear_shape(&m->arch, slot, rows, &cols);
    struct part_view v = part_view_of(m, s, slot, part, rows);
    return view_row(&v, r);
}

/* ---- linears ---- */

static int64_t sum(const int64_t rows[3])
{
    return rows[0] + rows[1] + rows[2];
}

static bool read_bias(const struct model *m, const struct arch_linear_spec *s, int layer, int index, const char *name, int64_t stored_rows,
                      const struct part_view *view, int64_t n, float *out, struct err *e)
{
    const struct tensor *t = take(m, name, ".bias", layer, index, false, e);
    if (!t || !check_shape(m, t, 1, stored_rows, 0, e))
        return false;
    for (int64_t i = 0; i < n; i++)
        tensor_to_f32(t->dtype, element(t, s->layout == ARCH_LAYOUT_SPLIT ? i : view_row(view, i)), 1, out + i);
    return true;
}

/* The stored matrix of a part: an ordinary tensor, or a quantized linear. */
static bool bind_stored(const struct model *m, const struct arch_linear_spec *s, const char *name, int layer, int index, int64_t rows, int64_t cols,
                        struct part_view *v, const char **label, struct err *e)
{
    char module[MAX_NAME];
    if (!model_make_name(m, name, "", layer, index, module, e))
        return false;
    char weight[MAX_NAME];
    const struct tensor *r = m->n_replaced && model_make_name(m, name, ".weight", layer, index, weight, NULL) ? model_replaced(m, weight) : NULL;
    if (r) {
        if (!check_shape(m, r, 2, rows, cols, e))
            return false;
        v->t = r;
        v->transposed = false;
        tensor_rows_of(&v->all, r, 0, rows);
        *label = r->name;
        return true;
    }
    enum quant_found found = quant_matrix_bind(&v->q, &m->quant, m->ck, module, rows, cols, s->bias, e);
    if (found == QUANT_IS_BAD)
        return false;
    if (found == QUANT_IS) {
        v->transposed = false;
        quant_matrix_rows(&v->all, &v->q, 0, rows);
        *label = v->q.codes->name;
        return true;
    }
    const struct tensor *t = take(m, name, ".weight", layer, index, !s->transposed, e);
    if (!t || !check_shape(m, t, 2, s->transposed ? cols : rows, s->transposed ? rows : cols, e))
        return false;
    v->t = t;
    tensor_rows_of(&v->all, t, 0, t->n_dims == 2 ? t->dims[0] : 1);
    *label = t->name;
    return true;
}

static bool bind_part(const struct model *m, enum arch_linear slot, int layer, int index, int part, const int64_t rows[3], int64_t cols,
                      struct model_linear *out, float *bias, struct err *e)
{
    const struct arch_linear_spec *s = &m->arch.linear[slot];
    bool split = s->layout == ARCH_LAYOUT_LATENT_SPLIT, latent = split || s->layout == ARCH_LAYOUT_LATENT;
    const char *name = s->names[split || s->layout == ARCH_LAYOUT_SPLIT ? part : 0], *label;
    struct part_view *v = (struct part_view *)out->owned + part;
    struct tensor_rows *r = &out->parts[part];
    int64_t stored_rows = s->layout == ARCH_LAYOUT_SPLIT ? rows[part] : sum(rows);
    int64_t stored_cols = cols;
    if (latent)
        model_latent_shape(&m->arch, slot, part, &stored_rows, &stored_cols);
    *v = part_view_of(m, s, slot, part, rows);
    if (!bind_stored(m, s, name, layer, index, stored_rows, stored_cols, v, &label, e))
        return false;
    if (part == 0)
        out->name = label;
    if (bias && !read_bias(m, s, layer, index, name, stored_rows, v, rows[part], bias, e))
        return false;
    if (latent) {
        model_latent_rows(r, &v->latent, &m->arch, &v->all, slot, part, rows[part], cols);
    } else if (v->transposed || s->layout == ARCH_LAYOUT_GROUPED) {
        *r = (struct tensor_rows){ .n_rows = rows[part], .n_cols = cols, .dtype = v->all.dtype, .read = read_view, .ctx = v };
        if (v->all.quant) {
            v->quant = *v->all.quant;
            v->quant.read = read_view_quant;
            r->quant = &v->quant;
        }
    } else if (v->t) {
        tensor_rows_of(r, v->t, v->offset, rows[part]);
    } else {
        quant_matrix_rows(r, &v->q, v->offset, rows[part]);
    }
    return true;
}

static void bind_dummy(const struct model *m, enum arch_linear slot, int layer, int index, const int64_t rows[3], int64_t cols,
                       struct model_linear *out)
{
    for (int p = 0; p < out->n_parts; p++)
        model_dummy_rows(&out->parts[p], m->dtype, rows[p], cols, model_dummy_seed(m->dummy_seed, 0, slot, layer, 4 * index + p));
    if (out->bias) {
        struct tensor_rows r;
        model_dummy_rows(&r, DT_F32, 1, sum(rows), model_dummy_seed(m->dummy_seed, 1, slot, layer, index));
        r.read(&r, 0, 1, out->bias);
    }
    out->name = m->arch.linear[slot].names[0];
}

static bool has_weights(const struct model *m, struct err *e)
{
    return m->dummy || m->ck || err_set(e, ERR_INTERNAL, "the model was opened for its configuration only");
}

bool model_get_linear(const struct model *m, enum arch_linear slot, int layer, int index, struct model_linear *out, struct err *e)
{
    int64_t rows[3], cols;
    *out = (struct model_linear){ .n_parts = arch_linear_shape(&m->arch, slot, rows, &cols) };
    if (index < 0 || index >= arch_linear_count(&m->arch, slot, layer))
        return err_set(e, ERR_INTERNAL, "architecture %s has no linear slot %d, %d in layer %d", m->arch.architecture, (int)slot, index, layer);
    if (!has_weights(m, e))
        return false;
    out->owned = mem_try_zalloc(3, sizeof(struct part_view));
    if (m->arch.linear[slot].bias)
        out->bias = mem_try_zalloc((size_t)sum(rows), sizeof(float));
    if (!out->owned || (m->arch.linear[slot].bias && !out->bias)) {
        err_set(e, ERR_NOMEM, "no memory for the bias of %s", m->arch.linear[slot].names[0]);
        goto fail;
    }
    if (m->dummy) {
        bind_dummy(m, slot, layer, index, rows, cols, out);
        return true;
    }
    int64_t done = 0;
    for (int p = 0; p < out->n_parts; done += rows[p], p++)
        if (!bind_part(m, slot, layer, index, p, rows, cols, out, out->bias ? out->bias + done : NULL, e))
            goto fail;
    return true;
fail:
    model_linear_free(out);
    return false;
}

void model_linear_free(struct model_linear *l)
{
    mem_free(l->bias);
    mem_free(l->owned);
    *l = (struct model_linear){ 0 };
}

enum dtype model_linear_dtype(const struct model *m, enum arch_linear slot, int layer, int index)
{
    if (!m->ck)
        return m->dtype;
    const struct arch_linear_spec *s = &m->arch.linear[slot];
    enum dtype all = DT_COUNT;
    for (int i = 0; i < 3 && s->names[i]; i++) {
        char name[MAX_NAME];
        const struct tensor *t = model_make_name(m, s->names[i], ".weight", layer, index, name, NULL) ? checkpoint_find(m->ck, name) : NULL;
        enum dtype d = t && (t->dtype == DT_F16 || t->dtype == DT_BF16) ? t->dtype : DT_F32;
        all = all == DT_COUNT || all == d ? d : DT_F32;
    }
    return all == DT_COUNT ? m->dtype : all;
}

bool model_linear_is_quantized(const struct model *m, enum arch_linear slot, int layer, int index)
{
    const struct arch_linear_spec *s = &m->arch.linear[slot];
    for (int i = 0; m->ck && i < 3 && s->names[i]; i++) {
        char name[MAX_NAME];
        const struct tensor *t = model_make_name(m, s->names[i], ".weight", layer, index, name, NULL) ? checkpoint_find(m->ck, name) : NULL;
        if (!t || t->block || (t->dtype != DT_F32 && t->dtype != DT_F16 && t->dtype != DT_BF16))
            return true;
    }
    return false;
}

int model_linear_parts(const struct model *m, enum arch_linear slot, int layer, int index, struct model_part out[3])
{
    struct model_linear l;
    if (!m->ck || !model_get_linear(m, slot, layer, index, &l, NULL))
        return 0;
    int n = l.n_parts;
    for (int p = 0; p < n; p++) {
        const struct tensor_rows *r = &l.parts[p];
        out[p] = (struct model_part){ .n_rows = r->n_rows, .n_cols = r->n_cols, .dtype = r->dtype, .is_quantized = r->quant != NULL };
        if (r->quant)
            out[p].quant = *r->quant;
        else if (model_linear_is_quantized(m, slot, layer, index))
            out[p].is_quantized = !r->raw;
    }
    model_linear_free(&l);
    return n;
}

/* ---- vectors ---- */

static bool is_bias(enum arch_vector slot)
{
    return slot == ARCH_VEC_FINAL_NORM_BIAS || slot == ARCH_VEC_NORM1_BIAS || slot == ARCH_VEC_NORM2_BIAS || slot == ARCH_VEC_EMBED_NORM_BIAS;
}

/* n values of one tensor, or of one a head. */
static bool read_vector(const struct model *m, enum arch_vector slot, int layer, int64_t n, float *out, struct err *e)
{
    const char *pattern = m->arch.vector[slot];
    int64_t hd = m->arch.head_dim;
    bool by_head = strchr(pattern, '@') != NULL;
    int64_t each = by_head ? hd : n;
    for (int64_t done = 0; done < n; done += each) {
        char name[MAX_NAME];
        if (!model_make_name(m, pattern, is_bias(slot) ? ".bias" : ".weight", layer, (int)(done / each), name, e))
            return false;
        const struct tensor *t = take_name(m, name, false, e);
        size_t count;
        /* Norms of all heads come flat or as [heads, head_dim]. */
        bool heads = t && t->n_dims == 2 && t->dims[1] == hd && tensor_count(t, &count) && (int64_t)count == each;
        if (!t || (!heads && !check_shape(m, t, 1, each, 0, e)))
            return false;
        tensor_to_f32(t->dtype, t->data, (size_t)each, out + done);
    }
    return true;
}

bool model_get_vector(const struct model *m, enum arch_vector slot, int layer, float **out, int64_t *n, struct err *e)
{
    *out = NULL;
    *n = arch_vector_len(&m->arch, slot);
    if (*n == 0)
        return true;
    if (!has_weights(m, e))
        return false;
    float *v = mem_try_alloc((size_t)*n, sizeof *v);
    if (!v)
        return err_set(e, ERR_NOMEM, "no memory for %s", m->arch.vector[slot]);
    if (m->dummy) {
        for (int64_t i = 0; i < *n; i++)
            v[i] = is_bias(slot) ? 0.0f : 1.0f;
    } else {
        if (!read_vector(m, slot, layer, *n, v, e)) {
            mem_free(v);
            return false;
        }
        for (int64_t i = 0; !is_bias(slot) && i < *n; i++)
            v[i] += m->arch.norm_weight_add;
    }
    *out = v;
    return true;
}

/* ---- the checkpoint as a whole ---- */

/* "*.ending" or "beginning.*" */
static bool matches(const char *name, const char *pattern)
{
    size_t n = strlen(name), k = strlen(pattern) - 1;
    if (pattern[0] == '*')
        return n >= k && strcmp(name + n - k, pattern + 1) == 0;
    return strncmp(name, pattern, k) == 0;
}

bool model_tensor_is_ignored(const struct model *m, const char *name)
{
    const char *head = m->arch.linear[ARCH_LIN_HEAD].names[0];
    size_t n = head ? strlen(head) : 0;
    if (m->quant.method != QUANT_NONE && quant_is_unused(name))
        return true;
    if (m->arch.tied_head && head && strncmp(name, head, n) == 0 && name[n] == '.')
        return true;
    for (size_t i = 0; i < sizeof m->arch.ignore / sizeof *m->arch.ignore && m->arch.ignore[i]; i++)
        if (matches(name, m->arch.ignore[i]))
            return true;
    return false;
}

bool model_check_all_used(const struct model *m, struct err *e)
{
    for (size_t i = 0; m->ck && i < checkpoint_count(m->ck); i++) {
        const char *file;
        bool used;
        const struct tensor *t = checkpoint_at(m->ck, i, &file, &used);
        if (!used && !model_tensor_is_ignored(m, t->name))
            return err_set(e, ERR_FORMAT, "%s: tensor %.200s is not part of architecture %s as config.json describes it", file, t->name,
                           m->arch.architecture);
    }
    return true;
}

static void choose_prefix(struct model *m)
{
    const char *pattern = m->arch.linear[ARCH_LIN_EMBED].names[0];
    m->prefix = m->arch.prefixes[0];
    for (size_t i = 0; i < sizeof m->arch.prefixes / sizeof *m->arch.prefixes && m->arch.prefixes[i]; i++) {
        char name[MAX_NAME];
        const char *before = m->prefix;
        m->prefix = m->arch.prefixes[i];
        if (model_make_name(m, pattern, ".weight", 0, 0, name, NULL) && checkpoint_find(m->ck, name))
            return;
        m->prefix = before;
    }
}

void model_weights_bind(struct model *m)
{
    static const enum dtype types[] = { DT_F32, DT_F16, DT_BF16 };
    size_t bytes[DT_COUNT] = { 0 }, in_blocks = 0, count;
    choose_prefix(m);
    for (size_t i = 0; i < checkpoint_count(m->ck); i++) {
        const struct tensor *t = checkpoint_at(m->ck, i, NULL, NULL);
        if (t->n_dims < 2 || model_tensor_is_ignored(m, t->name))
            continue;
        if (t->block && tensor_count(t, &count))
            in_blocks += count;
        else
            bytes[t->dtype] += t->bytes / dtype_bytes(t->dtype);
    }
    size_t most = 0;
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        if (bytes[types[i]] > most) {
            most = bytes[types[i]];
            m->dtype = types[i];
        }
    }
    /* The scales of blocks are F16, and that is what such models are made to run in. */
    if (in_blocks > most)
        m->dtype = DT_F16;
}
