/* model/arch.h - an architecture is a description, not a graph.
 *
 * model/arch/<family>.c fills one struct arch from config.json; fwd/ runs any description with
 * one layer loop.  A new model is one file: how its keys map, which parts a block has, and
 * what its tensors are called and how they lie in the checkpoint.
 *
 * The block that fwd/ runs, where [..] is there only if the description names it:
 *
 *   x = embed(token) * embed_scale [+ positions] [norm: EMBED_NORM]
 *   a = attention(qkv([NORM1] x))  [a = POST_ATTN_NORM a]
 *   SEQUENTIAL: x += residual_scale * a;  m = mlp([NORM2] x)
 *   PARALLEL:   m = mlp(NORM2 x, or NORM1 x when there is no NORM2); x += a
 *   [m = POST_MLP_NORM m]          x += residual_scale * m
 *   logits = softcap(logit_scale * head(FINAL_NORM x)) */
#ifndef QUIRE_MODEL_ARCH_H
#define QUIRE_MODEL_ARCH_H

#include <stdbool.h>
#include <stdint.h>

enum arch_norm { ARCH_NORM_RMS, ARCH_NORM_LAYER };
enum arch_act { ARCH_ACT_SILU, ARCH_ACT_GELU_ERF, ARCH_ACT_GELU_TANH, ARCH_ACT_RELU, ARCH_ACT_RELU2 };
enum arch_mlp { ARCH_MLP_GATED, ARCH_MLP_PLAIN };
enum arch_residual { ARCH_RES_SEQUENTIAL, ARCH_RES_PARALLEL };
enum arch_pos { ARCH_POS_NONE, ARCH_POS_ROPE_HALF, ARCH_POS_ROPE_INTERLEAVED, ARCH_POS_ALIBI, ARCH_POS_LEARNED };
enum arch_rope_scaling { ARCH_ROPE_PLAIN, ARCH_ROPE_LINEAR, ARCH_ROPE_DYNAMIC, ARCH_ROPE_LLAMA3, ARCH_ROPE_YARN, ARCH_ROPE_LONGROPE };
/* Norms of q and k before rope. */
enum arch_qk_norm {
    ARCH_QK_NORM_NONE,
    ARCH_QK_NORM_HEAD,        /* RMS of each head, one weight [head_dim] for all heads (Qwen3, Gemma 3) */
    ARCH_QK_NORM_ROW,         /* RMS of the whole row, weight [n_heads * head_dim] (OLMo2) */
    ARCH_QK_NORM_HEAD_LAYER   /* LayerNorm of each head, weight [n_heads * head_dim], no bias (StableLM 2, Command-R+) */
};

enum { ARCH_MAX_LAYERS = 512, ARCH_MAX_ROPE_DIM = 512, ARCH_N_ROPES = 2, ARCH_NO_ROPE = 255, ARCH_MAX_EOS = 16 };

/* One rope: frequencies and how they stretch.  Formulas: fwd/rope.h. */
struct arch_rope {
    double theta;
    int32_t dim;                   /* rotated dims of a head (partial rotary), even; 0: this rope is not used */
    enum arch_rope_scaling scaling;
    double factor;
    int32_t original_len;          /* the length it was trained for: original_max_position_embeddings, or else max_len */
    double low_freq_factor, high_freq_factor;       /* llama3 */
    double beta_fast, beta_slow;                    /* yarn */
    bool yarn_truncate;
    double attn_factor;            /* multiplies cos and sin (yarn, longrope); 1 for the others */
    float short_factor[ARCH_MAX_ROPE_DIM / 2], long_factor[ARCH_MAX_ROPE_DIM / 2];  /* longrope */
};

/* Linear slots.  QKV and GATE_UP are fused here even where the checkpoint has separate tensors. */
enum arch_linear {
    ARCH_LIN_EMBED,      /* [vocab, hidden] */
    ARCH_LIN_HEAD,       /* [vocab, hidden]; not asked for when tied */
    ARCH_LIN_POSITIONS,  /* [n_positions, hidden], learned positions only */
    ARCH_LIN_QKV,        /* parts q, k, v */
    ARCH_LIN_ATTN_OUT,
    ARCH_LIN_GATE_UP,    /* parts gate, up; for a plain MLP one part: up */
    ARCH_LIN_DOWN,
    /* Latent attention, in place of QKV: q = Q (norm) Q_A x, or Q x; k, v = KV_B of the latent KV_A x. */
    ARCH_LIN_Q_A, ARCH_LIN_Q, ARCH_LIN_KV_A, ARCH_LIN_KV_B,
    ARCH_LIN_ROUTER,             /* parts: a row an expert; a row for the gate of the shared expert, if it has one */
    ARCH_LIN_EXPERT_GATE_UP, ARCH_LIN_EXPERT_DOWN,   /* one of each an expert */
    ARCH_LIN_SHARED_GATE_UP, ARCH_LIN_SHARED_DOWN,   /* the expert that all tokens use */
    ARCH_LIN_COUNT
};

/* How the parts of a slot lie in the checkpoint. */
enum arch_layout {
    ARCH_LAYOUT_SPLIT,     /* one tensor a part */
    ARCH_LAYOUT_STACKED,   /* one tensor: all rows of the first part, then of the next */
    ARCH_LAYOUT_GROUPED,   /* QKV in one tensor [n_kv_heads][n_heads/n_kv_heads + 2][head_dim]: a group's q heads, its k, its v */
    ARCH_LAYOUT_LATENT,    /* Q, KV_B and ATTN_OUT of latent attention, as DeepSeek stores them */
    ARCH_LAYOUT_LATENT_SPLIT   /* KV_B as GGUF has it: k [n_heads][kv_rank][nope_dim], turned round, and v [n_heads][v_dim][kv_rank] */
};

/* Names have no ".weight" or ".bias"; '#' stands for the layer, '%' for the expert, '@' for the head (norms of q and k that are stored head by
 * head) and '~' for the checkpoint's prefix (struct arch). */
struct arch_linear_spec {
    const char *names[3];          /* [0] alone unless SPLIT */
    enum arch_layout layout;
    bool bias;                     /* each named tensor has a bias */
    bool transposed;               /* stored [in, out] (GPT-2's Conv1D) */
};

/* Latent attention (DeepSeek-V2, 2024): k and v of all heads are made from one short row, [kv_rank] normed and [rope_dim] that all heads
 * share.  Here it is ordinary attention on heads of rope_dim + nope_dim: the rotated dims come first, the shared ones are copied into
 * each head by an identity block of KV_B, and v is padded with zeros. */
struct arch_latent {
    int32_t kv_rank;               /* 0: the architecture has no latent attention */
    int32_t q_rank;                /* 0: q comes from x directly */
    int32_t rope_dim, nope_dim, v_dim;
    float norm_eps;
};

enum arch_vector {
    ARCH_VEC_FINAL_NORM, ARCH_VEC_FINAL_NORM_BIAS,
    ARCH_VEC_NORM1, ARCH_VEC_NORM1_BIAS, ARCH_VEC_NORM2, ARCH_VEC_NORM2_BIAS,
    ARCH_VEC_POST_ATTN_NORM, ARCH_VEC_POST_MLP_NORM,
    ARCH_VEC_Q_NORM, ARCH_VEC_K_NORM,
    ARCH_VEC_Q_A_NORM, ARCH_VEC_KV_A_NORM,
    ARCH_VEC_EMBED_NORM, ARCH_VEC_EMBED_NORM_BIAS,
    ARCH_VEC_COUNT
};

struct arch {
    char architecture[64];         /* "LlamaForCausalLM" */
    char model_type[64];
    int32_t vocab_size, hidden, n_layers, n_heads, n_kv_heads, head_dim, ffn;
    int32_t max_len;               /* longest context the model was made for, rope scaling included */
    enum arch_norm norm;
    float norm_eps;
    float norm_weight_add;         /* 1 for (1 + w) norms; model_get_vector adds it */
    enum arch_act act;
    enum arch_mlp mlp;
    enum arch_residual residual;
    enum arch_qk_norm qk_norm;
    enum arch_pos pos;
    struct arch_rope rope[ARCH_N_ROPES];
    uint8_t layer_rope[ARCH_MAX_LAYERS];     /* index into rope, or ARCH_NO_ROPE */
    int32_t layer_window[ARCH_MAX_LAYERS];   /* a row at p sees positions > p - window; 0: full attention */
    int32_t n_positions, position_offset;    /* learned positions: rows of the table, and what is added to the position */
    float alibi_max_bias, alibi_scale;       /* ALiBi: slopes 2^(-max_bias*i/n), times scale */
    bool alibi_bf16;                         /* slopes are rounded to BF16 first */
    int32_t n_experts, n_experts_used, expert_ffn, shared_ffn;   /* mixture of experts; shared_ffn 0: no shared expert */
    bool shared_gated;             /* the shared expert's output is multiplied by the sigmoid of a router row of its own */
    bool experts_renormalize;      /* the weights of the experts used are made to sum to 1 */
    bool layer_moe[ARCH_MAX_LAYERS];         /* a mixture in place of the MLP */
    int32_t n_expert_groups, n_expert_groups_used;   /* experts are chosen among those of the groups with the best expert; 0: no groups */
    float experts_scale;           /* of the routed experts' weights, the shared one's not */
    struct arch_latent latent;
    float attn_scale;              /* of q.k */
    float attn_softcap, final_softcap;       /* 0: none */
    float embed_scale, residual_scale, logit_scale;   /* 1: none */
    bool tied_head;
    int32_t bos_id, eos_ids[ARCH_MAX_EOS];   /* bos_id -1: none */
    int n_eos_ids;
    char dtype[16];                /* "float32", "bfloat16", "float16": config.json's torch_dtype, or "" */

    /* The checkpoint. */
    const char *prefixes[4];       /* what '~' may be; the first for which the embedding's name exists is taken */
    struct arch_linear_spec linear[ARCH_LIN_COUNT];   /* names[0] NULL: there is no such slot */
    const char *vector[ARCH_VEC_COUNT];               /* a norm and its bias have the same name; NULL: there is none */
    const char *ignore[8];         /* tensors that are known and not needed: "*.ending" or "beginning.*" */
};

/* Rows of each part and columns of a slot; returns the number of parts, 0 when the architecture has no such slot. */
int arch_linear_shape(const struct arch *a, enum arch_linear slot, int64_t rows[3], int64_t *cols);
/* Values of a vector slot, 0 when there is none. */
int64_t arch_vector_len(const struct arch *a, enum arch_vector slot);
bool arch_linear_is_per_layer(enum arch_linear slot);
/* Matrices of a slot: in this layer (experts: one each, others 1 or 0), or in the model for slots that no layer has. */
int arch_linear_count(const struct arch *a, enum arch_linear slot, int layer);
bool arch_vector_is_per_layer(enum arch_vector slot);
/* The slopes of ALiBi (Press et al. 2022), [n_heads]. */
void arch_alibi_slopes(const struct arch *a, float *out);

#endif
