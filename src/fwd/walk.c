#include "fwd/walk.h"
#include "base/mem.h"
#include "fwd/fwd_int.h"

struct fwd_walk {
    struct fwd *f;
    const struct model *m;
    struct fwd_opts o;
    int layer;                 /* loaded, or -1 */
    int32_t *ids, *positions, *table;
    int32_t table_len;
};

bool fwd_walk_open(struct fwd_walk **out, struct dev *d, const struct model *m, int32_t max_tokens, struct err *e)
{
    struct fwd_walk *w = mem_try_zalloc(1, sizeof *w);
    *out = NULL;
    if (!w)
        return err_set(e, ERR_NOMEM, "no memory for the walk over the layers");
    w->m = m;
    w->layer = -1;
    w->table_len = (max_tokens + DEV_BLOCK_TOKENS - 1) / DEV_BLOCK_TOKENS;
    w->o = (struct fwd_opts){
        .dtype = FWD_DTYPE_F32, .max_tokens = max_tokens, .max_seqs = 1, .max_logits = max_tokens, .n_blocks = w->table_len + 1,
        .max_model_len = max_tokens,
    };
    w->ids = mem_try_zalloc((size_t)max_tokens, sizeof *w->ids);
    w->positions = mem_try_zalloc((size_t)max_tokens, sizeof *w->positions);
    w->table = mem_try_zalloc((size_t)w->table_len, sizeof *w->table);
    if (!w->ids || !w->positions || !w->table) {
        err_set(e, ERR_NOMEM, "no memory for sequences of %d tokens", max_tokens);
        goto fail;
    }
    for (int32_t i = 0; i < max_tokens; i++)
        w->positions[i] = i;
    for (int32_t i = 0; i < w->table_len; i++)
        w->table[i] = i + 1;
    if (!fwd_open_bare(&w->f, d, m, &w->o, e))
        goto fail;
    *out = w;
    return true;
fail:
    fwd_walk_close(&w);
    return false;
}

void fwd_walk_close(struct fwd_walk **w)
{
    struct fwd_walk *p = *w;
    *w = NULL;
    if (!p)
        return;
    fwd_close(&p->f);
    mem_free(p->ids);
    mem_free(p->positions);
    mem_free(p->table);
    mem_free(p);
}

static bool run_piece(struct fwd_walk *w, int32_t n, enum fwd_piece piece, const struct fwd_capture *capture, struct err *e)
{
    int32_t start[2] = { 0, n };
    struct fwd_batch b = {
        .b = { .n_tokens = n, .n_seqs = 1, .token_ids = w->ids, .positions = w->positions, .seq_start = start, .block_tables = w->table,
               .table_stride = w->table_len },
        .rope_len = &n,
    };
    return fwd_run_piece(w->f, &b, piece, w->layer, capture, e);
}

static size_t row_bytes(const struct fwd_walk *w, int32_t n)
{
    return (size_t)n * (size_t)w->f->arch.hidden * sizeof(float);
}

bool fwd_walk_embed(struct fwd_walk *w, const int32_t *ids, int32_t n, float *x, struct err *e)
{
    for (int32_t i = 0; i < n; i++) {
        if (ids[i] < 0 || ids[i] >= w->f->arch.vocab_size)
            return err_set(e, ERR_INVALID, "token %d is not one of the model's %d", ids[i], w->f->arch.vocab_size);
        w->ids[i] = ids[i];
    }
    if (!run_piece(w, n, FWD_PIECE_EMBED, NULL, e))
        return false;
    dev_download(w->f->d, x, w->f->ws.x, row_bytes(w, n));
    return true;
}

bool fwd_walk_load(struct fwd_walk *w, int layer, const struct fwd_quant *q, struct err *e)
{
    if (w->layer >= 0)
        fwd_free_layer(w->f, w->layer);
    w->layer = -1;
    w->o.quant = q ? *q : (struct fwd_quant){ 0 };
    if (!fwd_load_layer(w->f, w->m, &w->o, layer, e))
        return false;
    w->layer = layer;
    return true;
}

bool fwd_walk_layer(struct fwd_walk *w, float *x, int32_t n, const struct fwd_capture *capture, struct err *e)
{
    dev_upload(w->f->d, w->f->ws.x, x, row_bytes(w, n));
    if (!run_piece(w, n, FWD_PIECE_LAYER, capture, e))
        return false;
    dev_download(w->f->d, x, w->f->ws.x, row_bytes(w, n));
    return true;
}

bool fwd_walk_head(struct fwd_walk *w, const float *x, int32_t n, const struct fwd_capture *capture, const float **logits, struct err *e)
{
    struct fwd *f = w->f;
    dev_upload(f->d, f->ws.x, x, row_bytes(w, n));
    if (!run_piece(w, n, FWD_PIECE_HEAD, capture, e))
        return false;
    if (f->host_logits != f->ws.logits)
        dev_download(f->d, f->host_logits, f->ws.logits, (size_t)n * (size_t)f->arch.vocab_size * sizeof(float));
    *logits = f->host_logits;
    return true;
}
