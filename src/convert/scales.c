/* Moving magnitude from the inputs of linears to their weights, without changing what a layer computes: what makes the inputs is
 * divided by s, what reads them multiplied.
 *
 *   norm          -> q, k, v, and -> gate, up (and the router, which then sees the same logits)
 *   v             -> o     heads that share a key-value head share s
 *   up            -> down  of gated MLPs: the output is linear in up
 *
 * A norm's weight is rounded to its stored type after the division, and s is then what the division came to. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include "base/mem.h"
#include "convert/convert_int.h"

enum { MAX_READERS = 2 * 1024 + 8, AWQ_STEPS = 20 };

struct site {
    struct unit **readers;     /* [MAX_READERS] */
    int n_readers;
    float *s;                  /* [n] */
    int64_t n;
};

static bool weight_only(const struct unit *u)
{
    return u->format == CONVERT_INT4 || u->format == CONVERT_INT8_WEIGHT;
}

static void add_reader(struct convert *c, struct site *t, int layer, enum arch_linear slot, int index)
{
    struct unit *u = convert_unit(c, layer, slot, index);
    if (u && t->n_readers < MAX_READERS) {
        t->readers[t->n_readers++] = u;
        t->n = u->cols;
    }
}

static void add_mlp_readers(struct convert *c, struct site *t, int layer)
{
    if (!c->arch->layer_moe[layer]) {
        add_reader(c, t, layer, ARCH_LIN_GATE_UP, 0);
        return;
    }
    add_reader(c, t, layer, ARCH_LIN_ROUTER, 0);
    for (int i = 0; i < c->arch->n_experts; i++)
        add_reader(c, t, layer, ARCH_LIN_EXPERT_GATE_UP, i);
    add_reader(c, t, layer, ARCH_LIN_SHARED_GATE_UP, 0);
}

/* s into t->s; false without error in *e when there is nothing to gain. */
static bool choose(struct convert *c, struct site *t, struct quant_tie tie, bool behind_norm, bool *found, struct err *e)
{
    struct quant_reader *r = mem_try_zalloc((size_t)t->n_readers, sizeof *r);
    struct quant_grid *grids = mem_try_zalloc((size_t)t->n_readers, sizeof *grids);
    t->s = mem_try_alloc((size_t)t->n, sizeof *t->s);
    bool awq = false, smooth = false, ok = (r && grids && t->s) || err_set(e, ERR_NOMEM, "no memory for scales of %lld inputs", (long long)t->n);
    const float *h = NULL, *most = NULL;
    *found = false;
    for (int i = 0; ok && i < t->n_readers; i++) {
        struct unit *u = t->readers[i];
        grids[i] = u->grid;
        r[i] = (struct quant_reader){ .w = u->w, .rows = u->rows, .grid = weight_only(u) ? &grids[i] : NULL };
        awq |= c->o->awq && weight_only(u);
        smooth |= c->o->smooth > 0 && behind_norm && u->format == CONVERT_INT8 && u->input_max;
        /* The first sees all tokens: attention, the MLP, or the router of a mixture. */
        h = !h && u->n_inputs > 0 ? u->h : h;
        most = !most && u->n_inputs > 0 ? u->input_max : most;
    }
    if (ok && awq && h) {
        double gain;
        ok = quant_awq_scales(&c->team, r, t->n_readers, h, t->n, tie, AWQ_STEPS, t->s, &gain, e);
        *found = ok && gain < 1.0;
    } else if (ok && smooth && most) {
        quant_smooth_scales(r, t->n_readers, most, t->n, c->o->smooth, t->s);
        *found = true;
    }
    mem_free(r);
    mem_free(grids);
    return ok;
}

static void multiply_readers(struct site *t)
{
    for (int i = 0; i < t->n_readers; i++) {
        struct unit *u = t->readers[i];
        u->changed = true;
        for (int64_t r = 0; r < u->rows; r++)
            for (int64_t k = 0; k < u->cols; k++)
                u->w[r * u->cols + k] *= t->s[k];
        if (u->h)
            quant_hessian_divide(u->h, u->cols, t->s);
        for (int64_t k = 0; u->input_max && k < u->cols; k++)
            u->input_max[k] /= t->s[k];
    }
}

static bool divide_norm(struct convert *c, struct site *t, int layer, enum arch_vector slot, enum arch_vector bias_slot, struct err *e)
{
    char name[256];
    if (!model_vector_name(c->m, slot, layer, name, e))
        return false;
    const struct tensor *stored = convert_stored(c, name);
    struct changed *w = convert_change(c, name, e);
    float add = c->arch->norm_weight_add;
    if (!w || !stored || w->n != t->n)
        return w && err_set(e, ERR_FORMAT, "tensor %s has %lld values, expected %lld", name, (long long)w->n, (long long)t->n);
    for (int64_t i = 0; i < t->n; i++) {
        float was = w->values[i] + add, now = convert_round(stored->dtype, was / t->s[i] - add), s = was / (now + add);
        bool good = isfinite(s) && s > 0.0f && isfinite(now);
        t->s[i] = good ? s : 1.0f;
        w->values[i] = good ? now : w->values[i];
    }
    if (!c->arch->vector[bias_slot])
        return true;
    if (!model_vector_name(c->m, bias_slot, layer, name, e))
        return false;
    stored = convert_stored(c, name);
    struct changed *b = convert_change(c, name, e);
    for (int64_t i = 0; b && stored && i < t->n && i < b->n; i++)
        b->values[i] = convert_round(stored->dtype, b->values[i] / t->s[i]);
    return b != NULL;
}

static bool norm_site(struct convert *c, struct site *t, int layer, enum arch_vector slot, enum arch_vector bias_slot, struct err *e)
{
    bool found = false, ok = true;
    if (c->arch->vector[slot] && t->n_readers > 0) {
        ok = choose(c, t, (struct quant_tie){ 1, 1 }, true, &found, e) && (!found || divide_norm(c, t, layer, slot, bias_slot, e));
        if (ok && found)
            multiply_readers(t);
    }
    mem_free(t->s);
    t->s = NULL;
    t->n_readers = 0;
    return ok;
}

/* Rows of one part of a unit, and their biases, divided: input i of the reader comes from row source(i). */
static bool divide_rows(struct convert *c, struct unit *u, int part, int64_t n_rows, const float *by, struct err *e)
{
    u->changed = true;
    for (int64_t r = 0; r < n_rows; r++) {
        int i;
        int64_t row = model_matrix_row(c->m, u->slot, part, r, &i);
        float *w = u->w + (u->first_row[i] + row) * u->cols;
        for (int64_t k = 0; k < u->cols; k++)
            w[k] /= by[r];
        if (u->mats[i].bias) {
            char name[CONVERT_NAME + 8];
            snprintf(name, sizeof name, "%s.bias", u->mats[i].name);
            const struct tensor *stored = convert_stored(c, name);
            struct changed *b = convert_change(c, name, e);
            if (!b || !stored || row >= b->n)
                return b && err_set(e, ERR_FORMAT, "tensor %s is too short", name);
            b->values[row] = convert_round(stored->dtype, b->values[row] / by[r]);
        }
    }
    return true;
}

static bool up_down(struct convert *c, struct site *t, int layer, enum arch_linear up, enum arch_linear down, int index, struct err *e)
{
    struct unit *u = convert_unit(c, layer, up, index);
    bool found = false, ok = true;
    if (c->arch->mlp != ARCH_MLP_GATED && up == ARCH_LIN_GATE_UP)
        return true;
    add_reader(c, t, layer, down, index);
    if (u && t->n_readers == 1) {
        ok = choose(c, t, (struct quant_tie){ 1, 1 }, false, &found, e) && (!found || divide_rows(c, u, 1, t->n, t->s, e));
        if (ok && found)
            multiply_readers(t);
    }
    mem_free(t->s);
    t->s = NULL;
    t->n_readers = 0;
    return ok;
}

static bool v_out(struct convert *c, struct site *t, int layer, struct err *e)
{
    const struct arch *a = c->arch;
    struct unit *u = convert_unit(c, layer, ARCH_LIN_QKV, 0);
    struct quant_tie tie = { a->n_heads / a->n_kv_heads, a->head_dim };
    bool found = false, ok = true;
    add_reader(c, t, layer, ARCH_LIN_ATTN_OUT, 0);
    if (u && t->n_readers == 1 && !a->latent.kv_rank && t->n == (int64_t)a->n_heads * a->head_dim) {
        int64_t rows = (int64_t)a->n_kv_heads * a->head_dim;
        ok = choose(c, t, tie, false, &found, e);
        float *by = mem_try_alloc((size_t)rows, sizeof *by);
        ok = ok && (by || err_set(e, ERR_NOMEM, "no memory for %lld scales", (long long)rows));
        for (int64_t r = 0; ok && found && r < rows; r++)
            by[r] = t->s[r / tie.width * tie.repeat * tie.width + r % tie.width];
        ok = ok && (!found || divide_rows(c, u, 2, rows, by, e));
        mem_free(by);
        if (ok && found)
            multiply_readers(t);
    }
    mem_free(t->s);
    t->s = NULL;
    t->n_readers = 0;
    return ok;
}

static bool move(struct convert *c, struct site *t, int layer, struct err *e)
{
    const struct arch *a = c->arch;
    bool one_norm = a->residual == ARCH_RES_PARALLEL && !a->vector[ARCH_VEC_NORM2];
    static const enum arch_linear attention[] = { ARCH_LIN_QKV, ARCH_LIN_Q_A, ARCH_LIN_KV_A };
    for (size_t i = 0; i < sizeof attention / sizeof *attention; i++)
        add_reader(c, t, layer, attention[i], 0);
    if (a->latent.kv_rank && !a->latent.q_rank)
        add_reader(c, t, layer, ARCH_LIN_Q, 0);
    if (one_norm)
        add_mlp_readers(c, t, layer);
    if (!norm_site(c, t, layer, ARCH_VEC_NORM1, ARCH_VEC_NORM1_BIAS, e) || !v_out(c, t, layer, e))
        return false;
    if (!one_norm)
        add_mlp_readers(c, t, layer);
    if (!norm_site(c, t, layer, ARCH_VEC_NORM2, ARCH_VEC_NORM2_BIAS, e))
        return false;
    if (!a->layer_moe[layer])
        return up_down(c, t, layer, ARCH_LIN_GATE_UP, ARCH_LIN_DOWN, 0, e);
    for (int i = 0; i < a->n_experts; i++)
        if (!up_down(c, t, layer, ARCH_LIN_EXPERT_GATE_UP, ARCH_LIN_EXPERT_DOWN, i, e))
            return false;
    return !a->shared_ffn || up_down(c, t, layer, ARCH_LIN_SHARED_GATE_UP, ARCH_LIN_SHARED_DOWN, 0, e);
}

bool convert_move_scales(struct convert *c, int layer, struct err *e)
{
    struct site t = { 0 };
    if (!c->o->awq && !(c->o->smooth > 0))
        return true;
    t.readers = mem_try_zalloc(MAX_READERS, sizeof *t.readers);
    if (!t.readers)
        return err_set(e, ERR_NOMEM, "no memory to move scales");
    bool ok = move(c, &t, layer, e);
    mem_free(t.s);
    mem_free(t.readers);
    return ok;
}
