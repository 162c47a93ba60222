/* model/arch.h - an architecture is a description, not a graph.
 *
 * model/arch/<family>.c fills one struct arch from config.json; fwd/ runs any description with
 * one layer loop.  A new model is one file: how its keys map, which shape each slot has, and
 * what its tensors are called. */
#ifndef QUIRE_MODEL_ARCH_H
#define QUIRE_MODEL_ARCH_H

#include <stdbool.h>
#include <stdint.h>

enum arch_norm { ARCH_NORM_RMS, ARCH_NORM_LAYER };
enum arch_act { ARCH_ACT_SILU, ARCH_ACT_GELU_ERF, ARCH_ACT_GELU_TANH, ARCH_ACT_RELU, ARCH_ACT_RELU2 };
enum arch_mlp { ARCH_MLP_GATED, ARCH_MLP_PLAIN };
enum arch_residual {
    ARCH_RES_SEQUENTIAL,   /* x += attn(norm1 x); x += mlp(norm2 x) */
    ARCH_RES_PARALLEL      /* x += attn(norm1 x) + mlp(norm2 or the same norm1 x) */
};
enum arch_pos { ARCH_POS_NONE, ARCH_POS_ROPE_HALF, ARCH_POS_ROPE_INTERLEAVED, ARCH_POS_ALIBI, ARCH_POS_LEARNED };
enum arch_rope_scaling { ARCH_ROPE_PLAIN, ARCH_ROPE_LINEAR, ARCH_ROPE_DYNAMIC, ARCH_ROPE_LLAMA3, ARCH_ROPE_YARN, ARCH_ROPE_LONGROPE };

enum { ARCH_MAX_LAYERS = 512, ARCH_MAX_ROPE_DIM = 512 };

/* One rope: frequencies and how they stretch.  Formulas: INTERFACES section 8. */
struct arch_rope {
    double theta;
    int32_t dim;                   /* rotated dims of a head (partial rotary), even */
    enum arch_rope_scaling scaling;
    double factor;
    int32_t original_len;          /* original_max_position_embeddings */
    double low_freq_factor, high_freq_factor;       /* llama3 */
    double beta_fast, beta_slow, attn_factor, mscale, mscale_all_dim;  /* yarn; attn_factor <= 0: derived */
    bool yarn_truncate;
    float short_factor[ARCH_MAX_ROPE_DIM / 2], long_factor[ARCH_MAX_ROPE_DIM / 2];  /* longrope */
    int32_t max_len;               /* max_position_embeddings, for dynamic and longrope */
};

struct arch {
    char architecture[64];         /* "LlamaForCausalLM" */
    char model_type[64];
    int32_t vocab_size, hidden, n_layers, n_heads, n_kv_heads, head_dim, ffn, max_len;
    enum arch_norm norm;
    float norm_eps;
    float norm_weight_add;         /* 1 for (1 + w) norms */
    enum arch_act act;
    enum arch_mlp mlp;
    enum arch_residual residual;
    bool post_norms;               /* norm on a sub-layer's output before the residual add */
    bool qk_norm;                  /* RMS norm of each q and k head before rope */
    enum arch_pos pos;
    struct arch_rope rope[2];      /* [1] is used by layers with layer_rope 1 (local rope) */
    uint8_t layer_rope[ARCH_MAX_LAYERS];
    int32_t layer_window[ARCH_MAX_LAYERS];   /* 0: full attention */
    float attn_scale;              /* of q.k */
    float attn_softcap, final_softcap;       /* 0: none */
    float embed_scale, residual_scale, logit_scale;   /* 1: none */
    bool tied_head;
    int32_t bos_id, eos_ids[16];
    int n_eos_ids;
};

/* Linear slots.  QKV and GATE_UP are fused here even where the checkpoint has separate tensors. */
enum arch_linear {
    ARCH_LIN_EMBED,      /* [vocab, hidden] */
    ARCH_LIN_HEAD,       /* [vocab, hidden]; not asked for when tied */
    ARCH_LIN_QKV,        /* parts q, k, v */
    ARCH_LIN_ATTN_OUT,
    ARCH_LIN_GATE_UP,    /* parts gate, up; for a plain MLP one part: up */
    ARCH_LIN_DOWN,
    ARCH_LIN_COUNT
};

enum arch_vector {
    ARCH_VEC_FINAL_NORM, ARCH_VEC_FINAL_NORM_BIAS,
    ARCH_VEC_NORM1, ARCH_VEC_NORM1_BIAS, ARCH_VEC_NORM2, ARCH_VEC_NORM2_BIAS,
    ARCH_VEC_POST_ATTN_NORM, ARCH_VEC_POST_MLP_NORM,
    ARCH_VEC_Q_NORM, ARCH_VEC_K_NORM,
    ARCH_VEC_EMBED_NORM, ARCH_VEC_EMBED_NORM_BIAS,
    ARCH_VEC_COUNT
};

#endif
