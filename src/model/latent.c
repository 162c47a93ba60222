/* Latent attention's tensors as those of ordinary attention (see struct arch_latent). */
#include <string.h>
#include "model/weights_int.h"

/* The first n_cols floats of out: one stored row, which may be shorter than that. */
static void stored(const struct tensor_rows *t, int64_t row, float *out)
{
    t->read(t, row, 1, out);
}

/* Head h's rope dims, which are stored behind the others, come first. */
static void q_row(const struct arch_latent *l, const struct tensor_rows *t, int64_t h, int64_t j, float *out)
{
    int64_t row = j < l->rope_dim ? l->nope_dim + j : j - l->rope_dim;
    stored(t, h * (l->rope_dim + l->nope_dim) + row, out);
}

static void k_row(const struct arch_latent *l, const struct tensor_rows *t, int64_t h, int64_t j, int64_t n_cols, float *out)
{
    memset(out, 0, (size_t)n_cols * sizeof *out);
    if (j < l->rope_dim)
        out[l->kv_rank + j] = 1.0f;
    else
        stored(t, h * (l->nope_dim + l->v_dim) + j - l->rope_dim, out);
}

static void v_row(const struct arch_latent *l, const struct tensor_rows *t, int64_t h, int64_t j, int64_t n_cols, float *out)
{
    memset(out, 0, (size_t)n_cols * sizeof *out);
    if (j < l->v_dim)
        stored(t, h * (l->nope_dim + l->v_dim) + l->nope_dim + j, out);
}

/* Heads of v_dim are moved apart, the last first. */
static void out_row(const struct arch *a, const struct tensor_rows *t, int64_t row, float *out)
{
    int64_t v = a->latent.v_dim;
    stored(t, row, out);
    for (int64_t h = a->n_heads - 1; h >= 0; h--) {
        memmove(out + h * a->head_dim, out + h * v, (size_t)v * sizeof *out);
        memset(out + h * a->head_dim + v, 0, (size_t)(a->head_dim - v) * sizeof *out);
    }
}

static void read_latent(const struct tensor_rows *r, int64_t row0, int64_t n, float *out)
{
    const struct latent_view *v = r->ctx;
    const struct arch_latent *l = &v->arch->latent;
    for (int64_t i = 0; i < n; i++, out += r->n_cols) {
        int64_t h = (row0 + i) / v->arch->head_dim, j = (row0 + i) % v->arch->head_dim;
        switch (v->what) {
        case LATENT_Q: q_row(l, v->stored, h, j, out); break;
        case LATENT_K: k_row(l, v->stored, h, j, r->n_cols, out); break;
        case LATENT_V: v_row(l, v->stored, h, j, r->n_cols, out); break;
        case LATENT_OUT: out_row(v->arch, v->stored, row0 + i, out); break;
        }
    }
}

void model_latent_shape(const struct arch *a, enum arch_linear slot, int64_t *rows, int64_t *cols)
{
    const struct arch_latent *l = &a->latent;
    if (slot == ARCH_LIN_KV_B) {
        *rows = (int64_t)a->n_heads * (l->nope_dim + l->v_dim);
        *cols = l->kv_rank;
    } else if (slot == ARCH_LIN_ATTN_OUT) {
        *cols = (int64_t)a->n_heads * l->v_dim;
    }
}

void model_latent_rows(struct tensor_rows *r, struct latent_view *v, const struct arch *a, const struct tensor_rows *stored_rows, enum arch_linear slot, int part,
                       int64_t n_rows, int64_t n_cols)
{
    *v = (struct latent_view){ a, stored_rows, slot == ARCH_LIN_Q ? LATENT_Q : slot == ARCH_LIN_ATTN_OUT ? LATENT_OUT : part == 0 ? LATENT_K : LATENT_V };
    *r = (struct tensor_rows){ .n_rows = n_rows, .n_cols = n_cols, .dtype = stored_rows->dtype, .read = read_latent, .ctx = v };
}
