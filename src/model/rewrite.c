/* The checkpoint's own tensors, and others in their place: for writing a model anew. */
#include <stdio.h>
#include <string.h>
#include "base/mem.h"
#include "base/vec.h"
#include "model/weights_int.h"
#include "tensor/quant.h"

size_t model_tensor_count(const struct model *m)
{
    return m->ck ? checkpoint_count(m->ck) : 0;
}

const struct tensor *model_tensor_at(const struct model *m, size_t i, const char **file)
{
    return checkpoint_at(m->ck, i, file, NULL);
}

bool model_is_gguf(const struct model *m)
{
    return m->gguf != NULL;
}

const char *model_quantized_by(const struct model *m)
{
    static const char *const names[] = {
        [QUANT_NONE] = NULL, [QUANT_GPTQ] = "gptq", [QUANT_AWQ] = "awq", [QUANT_COMPRESSED] = "compressed-tensors", [QUANT_FP8] = "fp8",
        [QUANT_BNB] = "bitsandbytes",
    };
    for (size_t i = 0; i < model_tensor_count(m); i++)
        if (model_tensor_at(m, i, NULL)->block)
            return model_tensor_at(m, i, NULL)->block->name;
    return names[m->quant.method];
}

/* ---- matrices ---- */

int model_matrix_count(const struct model *m, enum arch_linear slot)
{
    const struct arch_linear_spec *s = &m->arch.linear[slot];
    int n = 0;
    if (!s->names[0] || s->layout != ARCH_LAYOUT_SPLIT)
        return s->names[0] != NULL;
    while (n < 3 && s->names[n])
        n++;
    return n;
}

bool model_matrix_at(const struct model *m, enum arch_linear slot, int layer, int index, int i, struct model_matrix *out, struct err *e)
{
    const struct arch_linear_spec *s = &m->arch.linear[slot];
    int64_t rows[3];
    char name[MODEL_MAX_NAME];
    *out = (struct model_matrix){ .transposed = s->transposed, .bias = s->bias };
    arch_linear_shape(&m->arch, slot, rows, &out->cols);
    out->rows = s->layout == ARCH_LAYOUT_SPLIT ? rows[i] : rows[0] + rows[1] + rows[2];
    if (s->layout == ARCH_LAYOUT_LATENT)
        model_latent_shape(&m->arch, slot, i, &out->rows, &out->cols);
    if (!model_make_name(m, s->names[i], "", layer, index, out->name, e) || !model_make_name(m, s->names[i], ".weight", layer, index, name, e))
        return false;
    const struct tensor *t = m->ck ? checkpoint_find(m->ck, name) : NULL;
    if (!t)
        return err_set(e, ERR_FORMAT, "tensor %s is missing", name);
    int64_t d0 = s->transposed ? out->cols : out->rows, d1 = s->transposed ? out->rows : out->cols;
    if (t->block || (t->dtype != DT_F32 && t->dtype != DT_F16 && t->dtype != DT_BF16))
        return err_set(e, ERR_UNSUPPORTED, "%s: tensor %s is of type %s; expected F32, F16 or BF16", checkpoint_file_of(m->ck, t), name,
                       t->block ? t->block->name : dtype_name(t->dtype));
    if (!(t->n_dims == 2 && t->dims[0] == d0 && t->dims[1] == d1) && !(d0 == 1 && t->n_dims == 1 && t->dims[0] == d1))
        return err_set(e, ERR_FORMAT, "%s: tensor %s is not [%lld, %lld]", checkpoint_file_of(m->ck, t), name, (long long)d0, (long long)d1);
    out->dtype = t->dtype;
    return true;
}

bool model_matrix_read(const struct model *m, const struct model_matrix *x, float *out, struct err *e)
{
    char name[MODEL_MAX_NAME + 8];
    snprintf(name, sizeof name, "%s.weight", x->name);
    const struct tensor *t = checkpoint_take(m->ck, name);
    if (!t)
        return err_set(e, ERR_FORMAT, "tensor %s is missing", name);
    if (!x->transposed) {
        tensor_to_f32(t->dtype, t->data, (size_t)(x->rows * x->cols), out);
        return true;
    }
    for (int64_t c = 0; c < x->cols; c++)
        for (int64_t r = 0; r < x->rows; r++)
            tensor_to_f32(t->dtype, (const unsigned char *)t->data + (size_t)(c * x->rows + r) * dtype_bytes(t->dtype), 1, out + r * x->cols + c);
    return true;
}

int64_t model_matrix_row(const struct model *m, enum arch_linear slot, int part, int64_t r, int *i)
{
    *i = m->arch.linear[slot].layout == ARCH_LAYOUT_SPLIT ? part : 0;
    return model_stored_row(m, slot, part, r);
}

bool model_vector_name(const struct model *m, enum arch_vector slot, int layer, char out[256], struct err *e)
{
    bool bias = slot == ARCH_VEC_FINAL_NORM_BIAS || slot == ARCH_VEC_NORM1_BIAS || slot == ARCH_VEC_NORM2_BIAS || slot == ARCH_VEC_EMBED_NORM_BIAS;
    return model_make_name(m, m->arch.vector[slot], bias ? ".bias" : ".weight", layer, 0, out, e);
}

/* ---- other values ---- */

const struct tensor *model_replaced(const struct model *m, const char *name)
{
    for (size_t i = 0; i < m->n_replaced; i++)
        if (strcmp(m->replaced[i].name, name) == 0)
            return &m->replaced[i].t;
    return NULL;
}

bool model_replace(struct model *m, const char *name, int64_t rows, int64_t cols, const float *values, struct err *e)
{
    char *copy = mem_try_strdup(name);
    if (!copy || !vec_reserve((void **)&m->replaced, &m->cap_replaced, m->n_replaced + 1, sizeof *m->replaced)) {
        mem_free(copy);
        return err_set(e, ERR_NOMEM, "no memory to replace %s", name);
    }
    struct tensor t = { .name = copy, .dtype = DT_F32, .n_dims = rows ? 2 : 1, .dims = { rows ? rows : cols, cols }, .data = values,
                        .bytes = (size_t)((rows ? rows : 1) * cols) * sizeof(float) };
    m->replaced[m->n_replaced++] = (struct replaced){ copy, t };
    return true;
}

void model_replace_none(struct model *m)
{
    for (size_t i = 0; i < m->n_replaced; i++)
        mem_free(m->replaced[i].name);
    m->n_replaced = 0;
}
