/* fwd/fwd_int.h - what the files of fwd share. */
#ifndef QUIRE_FWD_INT_H
#define QUIRE_FWD_INT_H

#include "fwd/fwd.h"
#include "fwd/rope.h"
#include "fwd/walk.h"

/* Linears as the user thinks of them: the three kinds that may be chosen, then tables of embeddings that are not the head as well. */
enum { FWD_CARRY_EMBED = FWD_KIND_COUNT, FWD_CARRY_COUNT };

struct fwd_layer {
    struct dev_weight *lin[ARCH_LIN_COUNT];   /* per-layer slots only */
    struct dev_weight *qkv[3];                /* q, k and v each by itself, where they are not packed together in lin */
    float *vec[ARCH_VEC_COUNT];               /* device memory */
    /* [experts, the shared one last]; NULL without a mixture */
    struct dev_weight **expert_up, **expert_down;
};

/* Activations, in floats.  Rows are tokens of the step, except in the last four: rows whose logits are wanted. */
struct fwd_space {
    float *x;        /* [tokens][hidden] residual stream */
    float *h;        /* [tokens][hidden] normed input of a sub-layer */
    float *h2;       /* [tokens][hidden] second normed input (parallel blocks with two norms), or output of a sub-layer that is normed again */
    float *qkv;      /* [tokens][(n_heads + 2 n_kv_heads) * head_dim] */
    float *latent;   /* [tokens][the wider of q_rank and kv_rank + rope_dim] */
    float *attn;     /* [tokens][n_heads * head_dim] */
    float *mlp;      /* [tokens][ffn] */
    float *router;   /* [tokens][n_experts, + 1 for the gate of a shared one] */
    float *last_x;   /* [logits][hidden] */
    float *last_h;   /* [logits][hidden] */
    float *last_attn;/* [logits][n_heads * head_dim] */
    float *logits;   /* [logits][vocab] */
};

struct fwd {
    struct dev *d;
    struct arch arch;
    int32_t max_tokens, max_logits;
    struct dev_weight *lin[ARCH_LIN_COUNT];   /* whole-model slots */
    float *vec[ARCH_VEC_COUNT];
    struct fwd_layer *layers;
    float *positions;              /* [n_positions][hidden], device memory */
    float *alibi;                  /* [n_heads], device memory */
    struct dev_kv *kv;
    struct rope *rope[ARCH_N_ROPES];
    void *workspace;
    struct fwd_space ws;
    bool one_kv_layer;             /* all layers use the pages of one: they run one at a time, each from a sequence's begin (walk.h) */
    struct packed *packed;         /* mapped weights, or NULL */
    char packed_state[200];
    uint32_t carried[FWD_CARRY_COUNT];   /* of the linears of each kind: a bit for each dev_format */
    char formats[400];
    float *host_logits, *host_hidden;   /* where the device's memory is not the host's */
};

/* How a linear is packed.  Its parts together, or (q, k and v that are stored in different ways) each by itself. */
struct fwd_choice {
    int n;                       /* weights: 1, or 3 */
    enum dev_format format[3];
    bool codes[3];               /* stored integers go as they are; else values are rounded to the format */
    bool ordered[3];             /* with columns in the order of their groups */
};
void fwd_choose(const struct model *m, const struct fwd_opts *o, enum arch_linear slot, int layer, int index, struct fwd_choice *out);
/* The kind of a slot, or -1: one that is not worth telling (routers, positions). */
int fwd_carry_kind(const struct arch *a, enum arch_linear slot);
/* "attn=int4-g32+int8-g16 ffn=int4-g32 head=int8-g16 embed=f16" */
void fwd_carried_text(const uint32_t carried[FWD_CARRY_COUNT], char *out, size_t size);

/* The rows being computed.  pending is a sub-layer's output that was normed and still has to be added to x. */
struct flow {
    struct fwd *f;
    float *x, *attn;
    const float *pending;
    int32_t n;
    const float *cos[ARCH_N_ROPES], *sin[ARCH_N_ROPES];
    /* One piece at a time: */
    bool alone;                    /* no layer is the last */
    const struct fwd_capture *capture;   /* NULL: nobody looks */
    const struct fwd_batch *batch;
    struct err *e;
    bool failed;
};

/* x is ws.x before and after a layer; the head takes it there and leaves ws.last_h and ws.logits. */
enum fwd_piece { FWD_PIECE_EMBED, FWD_PIECE_LAYER, FWD_PIECE_HEAD };
bool fwd_run_piece(struct fwd *f, const struct fwd_batch *b, enum fwd_piece piece, int layer, const struct fwd_capture *capture, struct err *e);

/* Everything but the layers' weights; those of one layer in, and out again. */
bool fwd_open_bare(struct fwd **out, struct dev *d, const struct model *m, const struct fwd_opts *o, struct err *e);
bool fwd_load_layer(struct fwd *f, const struct model *m, const struct fwd_opts *o, int layer, struct err *e);
void fwd_free_layer(struct fwd *f, int layer);

/* The format that q chooses for a slot; false: none. */
bool fwd_quant_format(const struct fwd_quant *q, const struct arch *a, enum arch_linear slot, enum dev_format *out);
enum dev_kv_type fwd_kv_type(const struct model *m, const struct fwd_opts *o);
/* Sets the pointers of ws into base (NULL: counts only) and returns the bytes; 0 when they cannot be counted. */
/* Experts of a mixture, the shared one included. */
int fwd_n_experts(const struct arch *a);
/* Rows that go through a mixture at once, so that what the device needs for them stays small. */
int32_t fwd_moe_rows(const struct arch *a);
size_t fwd_space_lay(struct fwd_space *ws, void *base, const struct arch *a, int32_t max_tokens, int32_t max_logits);

#endif
