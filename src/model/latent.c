/* Latent attention's tensors as those of ordinary attention (see struct arch_latent). */
#include <string.h>
#include "model/weights_int.h"

enum { LATENT_MAX_DIM = 512 };   /* arch/deepseek.c allows no wider heads */

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

/* Rows of k that are columns of the stored: those of one head at a time, each stored row read once for all of them. */
static void k_turned_rows(const struct arch *a, const struct tensor_rows *t, int64_t row0, int64_t n, int64_t n_cols, float *out)
{
    const struct arch_latent *l = &a->latent;
    float column[LATENT_MAX_DIM];
    memset(out, 0, (size_t)(n * n_cols) * sizeof *out);
    for (int64_t i = 0, end; i < n; i = end) {
        int64_t h = (row0 + i) / a->head_dim, first = (row0 + i) % a->head_dim;
        end = i + a->head_dim - first < n ? i + a->head_dim - first : n;
        for (int64_t r = i; r < end; r++)
            if (first + r - i < l->rope_dim)
                out[r * n_cols + l->kv_rank + first + r - i] = 1.0f;
        for (int64_t c = 0; c < l->kv_rank; c++) {
            stored(t, h * l->kv_rank + c, column);
            for (int64_t r = i; r < end; r++)
                if (first + r - i >= l->rope_dim)
                    out[r * n_cols + c] = column[first + r - i - l->rope_dim];
        }
    }
}

static void v_alone_row(const struct arch_latent *l, const struct tensor_rows *t, int64_t h, int64_t j, int64_t n_cols, float *out)
{
    memset(out, 0, (size_t)n_cols * sizeof *out);
    if (j < l->v_dim)
        stored(t, h * l->v_dim + j, out);
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
    if (v->what == LATENT_K_TURNED) {
        k_turned_rows(v->arch, v->stored, row0, n, r->n_cols, out);
        return;
    }
    for (int64_t i = 0; i < n; i++, out += r->n_cols) {
        int64_t h = (row0 + i) / v->arch->head_dim, j = (row0 + i) % v->arch->head_dim;
        switch (v->what) {
        case LATENT_Q: q_row(l, v->stored, h, j, out); break;
        case LATENT_K: k_row(l, v->stored, h, j, r->n_cols, out); break;
        case LATENT_V: v_row(l, v->stored, h, j, r->n_cols, out); break;
        case LATENT_OUT: out_row(v->arch, v->stored, row0 + i, out); break;
        case LATENT_V_ALONE: v_alone_row(l, v->stored, h, j, r->n_cols, out); break;
        case LATENT_K_TURNED: break;
        }
    }
}

void model_latent_shape(const struct arch *a, enum arch_linear slot, int part, int64_t *rows, int64_t *cols)
{
    const struct arch_latent *l = &a->latent;
    if (a->linear[slot].layout == ARCH_LAYOUT_LATENT_SPLIT) {
        *rows = (int64_t)a->n_heads * (part == 0 ? l->kv_rank : l->v_dim);
        *cols = part == 0 ? l->nope_dim : l->kv_rank;
    } else if (slot == ARCH_LIN_KV_B) {
        *rows = (int64_t)a->n_heads * (l->nope_dim + l->v_dim);
        *cols = l->kv_rank;
    } else if (slot == ARCH_LIN_ATTN_OUT) {
        *cols = (int64_t)a->n_heads * l->v_dim;
    }
}

void model_latent_rows(struct tensor_rows *r, struct latent_view *v, const struct arch *a, const struct tensor_rows *stored_rows, enum arch_linear slot, int part,
                       int64_t n_rows, int64_t n_cols)
{
    bool split = a->linear[slot].layout == ARCH_LAYOUT_LATENT_SPLIT;
    enum latent_what k = split ? LATENT_K_TURNED : LATENT_K, values = split ? LATENT_V_ALONE : LATENT_V;
    *v = (struct latent_view){ a, stored_rows, slot == ARCH_LIN_Q ? LATENT_Q : slot == ARCH_LIN_ATTN_OUT ? LATENT_OUT : part == 0 ? k : values };
    *r = (struct tensor_rows){ .n_rows = n_rows, .n_cols = n_cols, .dtype = stored_rows->dtype, .read = read_latent, .ctx = v };
}
