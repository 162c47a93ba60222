/* fwd/fwd.h - the forward pass: one layer loop that runs every architecture's description.
 *
 * fwd owns the packed weights, the KV pages and the activation workspace on a device.  It sees only
 * integer arrays: which token at which position of which sequence, and its page table; not requests. */
#ifndef QUIRE_FWD_FWD_H
#define QUIRE_FWD_FWD_H

#include <stdbool.h>
#include <stdint.h>
#include "base/err.h"
#include "dev/dev.h"
#include "model/model.h"

struct fwd;

enum fwd_dtype {
    FWD_DTYPE_AUTO, FWD_DTYPE_F32, FWD_DTYPE_F16, FWD_DTYPE_BF16,
    FWD_DTYPE_INT8, FWD_DTYPE_FP8      /* of KV pages only */
};

/* Formats of weights by kind of linear; kinds that are not set follow dtype.  The head's goes for a tied embedding too. */
enum fwd_kind { FWD_KIND_ATTN, FWD_KIND_FFN, FWD_KIND_HEAD, FWD_KIND_COUNT };
struct fwd_quant {
    bool set[FWD_KIND_COUNT];
    enum dev_format format[FWD_KIND_COUNT];
    bool widen;              /* what is stored quantized becomes F16, where dtype is AUTO */
};
/* NULL or "auto": what is stored quantized is carried so, where the device has a format for it; "none": widened; one format for all ("int8", "int4-g128", ...; with 4 bits the head gets int8-g32); or a list of kinds as
 * "attn=bf16,ffn=int8,head=bf16".  ERR_INVALID names what is not known. */
bool fwd_quant_parse(const char *text, struct fwd_quant *out, struct err *e);

struct fwd_opts {
    enum fwd_dtype dtype;          /* AUTO: as stored, integers included */
    enum fwd_dtype kv_dtype;       /* AUTO: as dtype */
    struct fwd_quant quant;
    int32_t max_tokens;            /* rows of the largest step */
    int32_t max_seqs;
    int32_t max_logits;            /* rows of logits of the largest step */
    int32_t n_blocks;              /* KV pages, page 0 included */
    int32_t max_model_len;
    /* Folder of the packed-weight cache, or NULL: none.  Used when the weights take at least packed_min_bytes. */
    const char *packed_dir;
    size_t packed_min_bytes;
    /* Called while weights are packed: done of total bytes.  May be NULL. */
    void (*progress)(void *ctx, int64_t done, int64_t total);
    void *progress_ctx;
};

/* The batch as the engine gives it: dev_batch plus what the model's positions and logits need. */
struct fwd_batch {
    struct dev_batch b;
    /* [n_seqs]: the length by which this sequence chooses its rope scaling (dynamic NTK, longrope): fixed for the
     * sequence's life, so that results never depend on neighbours or on chunking. */
    const int32_t *rope_len;
    const int32_t *logit_rows;     /* [n_logits] rows whose logits are wanted, ascending */
    int32_t n_logits;
};

/* Bytes for planning, before anything is loaded. */
struct fwd_plan {
    int64_t n_params;
    size_t weight_bytes, kv_block_bytes, workspace_bytes;
};
bool fwd_plan_bytes(struct fwd_plan *out, const struct model *m, const struct fwd_opts *o, struct err *e);

/* d and m are borrowed; m's weights may be closed after this returns (arch must stay). */
bool fwd_open(struct fwd **out, struct dev *d, const struct model *m, const struct fwd_opts *o, struct err *e);
void fwd_close(struct fwd **f);

/* What became of the packed-weight cache, for logs: "off", "mapped", "written", or why it could not be used or written. */
const char *fwd_packed_state(const struct fwd *f);

/* The formats that weights are carried in, by kind of linear, for logs and reports: "attn=int4-g128 ffn=int4-g128 head=f16 embed=f16". */
const char *fwd_formats(const struct fwd *f);

int32_t fwd_vocab_size(const struct fwd *f);       /* columns of the logits */
/* Equal keys: sequences with these rope_len compute identical K for identical prefixes, so they may share pages. */
uint64_t fwd_rope_key(const struct fwd *f, int32_t rope_len);

/* Runs one step.  *logits then points to [n_logits][vocab] f32 in host memory, row i for logit_rows[i]; valid until
 * the next call, and the caller may change it in place.  False only when the device is lost. */
bool fwd_run(struct fwd *f, const struct fwd_batch *b, float **logits, struct err *e);
/* The final-norm hidden states of the same rows, [n_logits][hidden]: for embeddings.  Valid until the next fwd_run. */
const float *fwd_hidden(const struct fwd *f);
int32_t fwd_hidden_size(const struct fwd *f);

/* Copy KV pages src[i] -> dst[i], all layers (copy on write). */
void fwd_copy_blocks(struct fwd *f, const int32_t *src, const int32_t *dst, int n);

#endif
