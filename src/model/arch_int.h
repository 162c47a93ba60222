/* model/arch_int.h - what the description files under arch/ are written with: a reader of
 * config.json that remembers its first error, so that a description is straight-line code, and
 * the names that many families share. */
#ifndef QUIRE_MODEL_ARCH_INT_H
#define QUIRE_MODEL_ARCH_INT_H

#include "base/err.h"
#include "base/json.h"
#include "model/arch.h"

/* Keys are alternatives, "n_embd|hidden_size": the first that is there and not null counts.  After the first error
 * every read returns its default and changes nothing. */
struct arch_cfg {
    const json_t *json;
    json_t *defaults;          /* what keys that are missing mean; owned by arch_from_config */
    struct err *e;
    bool failed;
};
#define ARCH_CFG_REQUIRED INT64_MIN

int64_t arch_cfg_int(struct arch_cfg *c, const char *keys, int64_t dflt, int64_t min, int64_t max);
double arch_cfg_num(struct arch_cfg *c, const char *keys, double dflt, double min, double max);
bool arch_cfg_bool(struct arch_cfg *c, const char *keys, bool dflt);
const char *arch_cfg_str(struct arch_cfg *c, const char *keys, const char *dflt);
const json_t *arch_cfg_get(struct arch_cfg *c, const char *keys);   /* NULL: none */
bool arch_cfg_has(const struct arch_cfg *c, const char *key);       /* there, even if null */
/* Values, as JSON text, for keys that are missing (null is not missing). */
void arch_cfg_defaults(struct arch_cfg *c, const char *text);
/* A feature that this program lacks is asked for: key is set to something other than its harmless value. */
void arch_cfg_refuse(struct arch_cfg *c, bool asked, const char *key);
bool arch_cfg_fail(struct arch_cfg *c, enum err_code code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

enum arch_act arch_cfg_act(struct arch_cfg *c, const char *keys, const char *dflt);

/* Defaults of every field, then the sizes that nearly all configs have: hidden, layers, heads, kv heads, head_dim, vocabulary,
 * length, token ids.  ffn is left to the family.  Keys of Llama and of GPT-2 both work. */
void arch_read_sizes(struct arch_cfg *c, struct arch *a);
/* Rope 0 from rope_theta, rope_scaling or rope_parameters, on dim rotated dims; all layers use it. */
void arch_read_rope(struct arch_cfg *c, struct arch *a, int32_t dim, double default_theta);
/* One rope from a rope_scaling or rope_parameters object (NULL: plain). */
void arch_read_rope_object(struct arch_cfg *c, struct arch *a, struct arch_rope *r, const json_t *scaling, int32_t dim, double theta);
/* int(head_dim * partial_rotary_factor), also looking into rope_parameters. */
int32_t arch_read_rotary_dim(struct arch_cfg *c, const struct arch *a, const char *keys, double dflt);
/* The window of layers from layer_types if that is there; otherwise of layers >= first.  window 0: none. */
void arch_read_windows(struct arch_cfg *c, struct arch *a, int32_t window, int32_t first);

/* Fields as in Llama: split q,k,v,o and gate,up,down under "~layers.#.", RMS norms, SwiGLU, half rotation. */
void arch_names_llama(struct arch *a);
/* A LayerNorm: weight slot and bias slot under one name. */
void arch_set_layer_norm(struct arch *a, enum arch_vector slot, const char *name);
void arch_set_attention_bias(struct arch *a, bool qkv, bool out);
void arch_set_mlp_bias(struct arch *a, bool up, bool down);

typedef void arch_fill_fn(struct arch_cfg *c, struct arch *a);
struct arch_family {
    const char *architecture;      /* in config.json's "architectures" */
    const char *model_type;        /* used when "architectures" is missing; NULL: not */
    arch_fill_fn *fill;
};
/* Ends with a NULL architecture. */
const struct arch_family *arch_families(void);

/* The families' functions, one file each or near kin together. */
arch_fill_fn arch_fill_llama, arch_fill_mistral, arch_fill_qwen2, arch_fill_qwen3, arch_fill_gemma, arch_fill_gemma2, arch_fill_gemma3,
    arch_fill_gemma3_text_of, arch_fill_phi, arch_fill_phi3, arch_fill_gpt2, arch_fill_gpt_bigcode, arch_fill_starcoder2, arch_fill_gpt_neox,
    arch_fill_gptj, arch_fill_falcon, arch_fill_bloom, arch_fill_mpt, arch_fill_olmo2, arch_fill_granite, arch_fill_cohere,
    arch_fill_cohere2, arch_fill_stablelm, arch_fill_smollm3,
    arch_fill_deepseek_v2, arch_fill_mixtral, arch_fill_qwen2_moe, arch_fill_qwen3_moe;

/* The whole way: choose the family, fill, check. */
bool arch_from_config(struct arch *a, const json_t *config, struct err *e);

#endif
