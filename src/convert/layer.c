/* One layer: what its linears are given, and what they become. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include "base/mem.h"
#include "base/vec.h"
#include "convert/convert_int.h"

/* ---- floats as they are stored ---- */

float convert_round(enum dtype t, float x)
{
    return t == DT_BF16 ? tensor_bf16_to_f32(tensor_f32_to_bf16(x)) : t == DT_F16 ? tensor_f16_to_f32(tensor_f32_to_f16(x)) : x;
}

void convert_from_f32(enum dtype t, const float *x, size_t n, void *out)
{
    uint16_t *h = out;
    if (t == DT_F32)
        memcpy(out, x, n * sizeof *x);
    else
        for (size_t i = 0; i < n; i++)
            h[i] = t == DT_BF16 ? tensor_f32_to_bf16(x[i]) : tensor_f32_to_f16(x[i]);
}

const struct tensor *convert_stored(const struct convert *c, const char *name)
{
    for (size_t i = 0; i < model_tensor_count(c->m); i++)
        if (strcmp(model_tensor_at(c->m, i, NULL)->name, name) == 0)
            return model_tensor_at(c->m, i, NULL);
    return NULL;
}

struct changed *convert_change(struct convert *c, const char *name, struct err *e)
{
    for (size_t i = 0; i < c->n_changed; i++)
        if (strcmp(c->changed[i].name, name) == 0)
            return &c->changed[i];
    const struct tensor *t = convert_stored(c, name);
    size_t n;
    if (!t || !tensor_count(t, &n)) {
        err_set(e, ERR_FORMAT, "tensor %s is missing", name);
        return NULL;
    }
    float *values = mem_try_alloc(n, sizeof *values);
    if (!values || !vec_reserve((void **)&c->changed, &c->cap_changed, c->n_changed + 1, sizeof *c->changed)) {
        mem_free(values);
        err_set(e, ERR_NOMEM, "no memory for %s", name);
        return NULL;
    }
    tensor_to_f32(t->dtype, t->data, n, values);
    struct changed *x = &c->changed[c->n_changed++];
    *x = (struct changed){ .values = values, .n = (int64_t)n };
    snprintf(x->name, sizeof x->name, "%s", name);
    return x;
}

/* ---- opening ---- */

static struct quant_grid grid_of(const struct convert *c, const struct unit *u)
{
    const struct convert_opts *o = c->o;
    enum dtype t = u->mats[0].dtype;
    switch (u->format) {
    case CONVERT_FP8: return (struct quant_grid){ .fp8 = true };
    case CONVERT_INT8: return (struct quant_grid){ .bits = 8, .symmetric = true, .search = o->search };
    case CONVERT_INT4: case CONVERT_INT8_WEIGHT:
        return (struct quant_grid){ .bits = u->format == CONVERT_INT4 ? 4 : 8, .symmetric = o->symmetric, .group = u->group,
                                    .scale_type = t == DT_BF16 ? QUANT_SCALE_BF16 : QUANT_SCALE_F16, .search = o->search };
    case CONVERT_NONE: case CONVERT_FORMAT_COUNT: break;
    }
    return (struct quant_grid){ 0 };
}

static bool is_weight_only(const struct unit *u)
{
    return u->format == CONVERT_INT4 || u->format == CONVERT_INT8_WEIGHT;
}

static bool is_behind_norm(const struct unit *u)
{
    switch (u->slot) {
    case ARCH_LIN_QKV: case ARCH_LIN_Q_A: case ARCH_LIN_Q: case ARCH_LIN_KV_A: case ARCH_LIN_GATE_UP: case ARCH_LIN_ROUTER:
    case ARCH_LIN_EXPERT_GATE_UP: case ARCH_LIN_SHARED_GATE_UP:
        return true;
    default:
        return false;
    }
}

static bool open_unit(const struct convert *c, struct unit *u, struct err *e)
{
    const struct convert_opts *o = c->o;
    size_t n = (size_t)u->cols, values;
    bool router = u->slot == ARCH_LIN_ROUTER && c->o->awq;
    bool h = u->layer != CONVERT_HEAD ? (o->gptq && u->format != CONVERT_NONE) || (o->awq && is_weight_only(u)) || router
                                      : o->gptq && u->format != CONVERT_NONE;
    u->grid = grid_of(c, u);
    u->n_inputs = 0;
    u->changed = false;
    if (!mem_mul((size_t)u->rows, n, &values))
        return err_set(e, ERR_TOO_LARGE, "%s is too large", u->mats[0].name);
    u->w = mem_try_alloc(values, sizeof *u->w);
    u->h = h ? mem_try_zalloc(n, n * sizeof *u->h) : NULL;
    u->input_max = o->smooth > 0 && is_behind_norm(u) ? mem_try_zalloc(n, sizeof *u->input_max) : NULL;
    if (!u->w || (h && !u->h) || (o->smooth > 0 && is_behind_norm(u) && !u->input_max))
        return err_set(e, ERR_NOMEM, "no memory for %s", u->mats[0].name);
    for (int i = 0; i < u->n_mats; i++)
        if (!model_matrix_read(c->m, &u->mats[i], u->w + u->first_row[i] * u->cols, e))
            return false;
    for (size_t i = 0; i < values; i++)
        if (!isfinite(u->w[i]))
            return err_set(e, ERR_INVALID, "%s.weight: value %zu of it is not finite", u->mats[0].name, i);
    return true;
}

bool convert_layer_open(struct convert *c, int layer, struct err *e)
{
    size_t first, n = convert_layer_units(c, layer, &first);
    c->layer = layer;
    c->failed = false;
    for (size_t i = first; i < first + n; i++)
        if (!open_unit(c, &c->units[i], e))
            return false;
    return true;
}

void convert_layer_close(struct convert *c, int layer)
{
    size_t first, n = convert_layer_units(c, layer, &first);
    model_replace_none(c->m);
    for (size_t i = first; i < first + n; i++) {
        struct unit *u = &c->units[i];
        mem_free(u->w);
        mem_free(u->h);
        mem_free(u->input_max);
        quant_codes_close(&u->codes);
        u->w = u->h = u->input_max = NULL;
    }
    for (size_t i = 0; i < c->n_changed; i++)
        mem_free(c->changed[i].values);
    c->n_changed = 0;
}

/* ---- gathering ---- */

/* Latent attention's heads are padded here and not where they are stored. */
static float *stored_columns(const struct convert *c, const struct unit *u, const float *x, int64_t ld, int32_t n)
{
    int64_t v = c->arch->latent.v_dim, hd = c->arch->head_dim;
    float *out = mem_try_alloc((size_t)n, (size_t)u->cols * sizeof *out);
    for (int64_t i = 0; out && i < n; i++)
        for (int64_t h = 0; h < c->arch->n_heads; h++)
            memcpy(out + i * u->cols + h * v, x + i * ld + h * hd, (size_t)v * sizeof *out);
    return out;
}

static void gather(void *ctx, enum arch_linear slot, int index, const float *x, int64_t ld, int32_t n)
{
    struct convert *c = ctx;
    struct unit *u = convert_unit(c, c->layer, slot, index);
    float *own = NULL;
    if (!u || c->failed || (!u->h && !u->input_max))
        return;
    if (slot == ARCH_LIN_ATTN_OUT && c->arch->latent.kv_rank) {
        own = stored_columns(c, u, x, ld, n);
        x = own;
        ld = u->cols;
    }
    if (!x)
        c->failed = true, err_set(&c->why, ERR_NOMEM, "no memory for the inputs of %s", u->mats[0].name);
    else if (u->h && !quant_hessian_add(&c->team, u->h, x, ld, n, u->cols, &c->why))
        c->failed = true;
    for (int64_t i = 0; x && u->input_max && i < n; i++)
        for (int64_t k = 0; k < u->cols; k++)
            u->input_max[k] = fabsf(x[i * ld + k]) > u->input_max[k] ? fabsf(x[i * ld + k]) : u->input_max[k];
    u->n_inputs += n;
    mem_free(own);
}

struct fwd_capture convert_layer_capture(struct convert *c)
{
    return (struct fwd_capture){ gather, c };
}

bool convert_layer_captured(const struct convert *c, struct err *e)
{
    return !c->failed || err_set(e, c->why.code, "%s", c->why.msg);
}

/* ---- rounding ---- */

static double squares(const float *x, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)x[i] * (double)x[i];
    return sum;
}

/* Errors of each matrix, by its outputs over calibration, or by its weights. */
static bool measure(struct convert *c, struct unit *u, const float *before, const float *h, struct err *e)
{
    for (int i = 0; i < u->n_mats; i++) {
        size_t at = (size_t)(u->first_row[i] * u->cols), n = (size_t)(u->mats[i].rows * u->cols);
        double of = 0, lost = 0;
        float *d = mem_try_alloc(n, sizeof *d);
        if (!d)
            return err_set(e, ERR_NOMEM, "no memory to measure %s", u->mats[i].name);
        for (size_t k = 0; k < n; k++)
            d[k] = u->w[at + k] - before[at + k];
        bool ok = true;
        if (h && u->n_inputs) {
            ok = quant_error(&c->team, before + at, h, u->mats[i].rows, u->cols, &of, e)
                && quant_error(&c->team, d, h, u->mats[i].rows, u->cols, &lost, e);
        } else {
            of = squares(before + at, n);
            lost = squares(d, n);
        }
        mem_free(d);
        if (!ok)
            return false;
        c->r->linears[u->linear + (size_t)i].error = of > 0 && lost > 0 ? lost / of : 0.0;
    }
    return true;
}

static bool round_unit(struct convert *c, struct unit *u, struct err *e)
{
    size_t n = (size_t)u->cols, values = (size_t)u->rows * n;
    const struct convert_opts *o = c->o;
    bool gptq = o->gptq && u->h && u->n_inputs > 0;
    float *before = mem_try_alloc(values, sizeof *before), *h = gptq ? mem_try_alloc(n, n * sizeof *h) : NULL;
    float *importance = u->h && u->n_inputs > 0 ? mem_try_alloc(n, sizeof *importance) : NULL;
    bool ok = (before && (h || !gptq) && quant_codes_open(&u->codes, &u->grid, u->rows, u->cols, e)) ||
        err_set(e, ERR_NOMEM, "no memory to round %s", u->mats[0].name);
    for (size_t i = 0; ok && importance && i < n; i++)
        importance[i] = u->h[i * n + i];
    if (ok) {
        memcpy(before, u->w, values * sizeof *before);
        if (gptq) {
            struct quant_gptq p = { .damp = o->damp, .act_order = o->act_order };
            memcpy(h, u->h, n * n * sizeof *h);
            ok = quant_gptq(&c->team, &u->grid, &p, u->w, h, &u->codes, e) || err_prefix(e, "%s", u->mats[0].name);
        } else {
            quant_rtn(&c->team, &u->grid, u->w, importance, &u->codes);
        }
    }
    ok = ok && measure(c, u, before, u->h, e);
    mem_free(before);
    mem_free(h);
    mem_free(importance);
    return ok;
}

/* What the next load gets: rounded weights, and whatever else has changed. */
static bool give_back(struct convert *c, const struct unit *u, struct err *e)
{
    for (int i = 0; i < u->n_mats; i++) {
        char name[CONVERT_NAME + 8];
        float *w = u->w + u->first_row[i] * u->cols;
        snprintf(name, sizeof name, "%s.weight", u->mats[i].name);
        for (int64_t k = 0; u->format == CONVERT_NONE && k < u->mats[i].rows * u->cols; k++)
            w[k] = convert_round(u->mats[i].dtype, w[k]);
        if (!model_replace(c->m, name, u->mats[i].rows, u->cols, w, e))
            return false;
    }
    return true;
}

bool convert_layer_quantize(struct convert *c, int layer, struct err *e)
{
    size_t first, n = convert_layer_units(c, layer, &first);
    for (size_t i = first; i < first + n; i++)
        if (c->units[i].h)
            quant_hessian_mirror(c->units[i].h, c->units[i].cols);
    if (layer != CONVERT_HEAD && !convert_move_scales(c, layer, e))
        return false;
    for (size_t i = first; i < first + n; i++) {
        struct unit *u = &c->units[i];
        bool rounds = u->format != CONVERT_NONE;
        if ((rounds && !round_unit(c, u, e)) || ((rounds || u->changed) && !give_back(c, u, e)))
            return false;
        convert_step(c, 1);
    }
    for (size_t i = 0; i < c->n_changed; i++)
        if (!model_replace(c->m, c->changed[i].name, 0, c->changed[i].n, c->changed[i].values, e))
            return false;
    return true;
}

/* Of linears whose activations are rounded too: so that the perplexity is that of W8A8. */
struct fwd_quant convert_layer_formats(const struct convert *c, int layer)
{
    struct fwd_quant q = { 0 };
    size_t first, n = convert_layer_units(c, layer, &first);
    bool all[FWD_KIND_COUNT] = { true, true, true };
    for (size_t i = first; i < first + n; i++) {
        const struct unit *u = &c->units[i];
        bool attn = u->slot == ARCH_LIN_QKV || u->slot == ARCH_LIN_ATTN_OUT || u->slot == ARCH_LIN_Q_A || u->slot == ARCH_LIN_Q ||
            u->slot == ARCH_LIN_KV_A || u->slot == ARCH_LIN_KV_B;
        if (u->slot != ARCH_LIN_ROUTER)
            all[attn ? FWD_KIND_ATTN : FWD_KIND_FFN] &= u->format == CONVERT_INT8;
    }
    for (int k = 0; k < FWD_KIND_HEAD; k++)
        if (all[k] && n > 0) {
            q.set[k] = true;
            q.format[k] = DEV_FMT_I8;
        }
    return q;
}
