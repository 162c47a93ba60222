/* Gemma: Llama's block with (1 + w) norms, GeGLU and scaled embeddings.
 * Gemma 2: norms after each sub-layer too, soft caps, a window on every other layer.
 * Gemma 3: norms on q and k instead of the soft caps, five windowed layers with a rope of their own for each full one. */
#include <math.h>
#include <string.h>
#include "model/arch_int.h"

static void read_gemma(struct arch_cfg *c, struct arch *a)
{
    arch_read_sizes(c, a);
    arch_names_llama(a);
    a->ffn = (int32_t)arch_cfg_int(c, "intermediate_size", ARCH_CFG_REQUIRED, 1, 1 << 20);
    a->norm_eps = (float)arch_cfg_num(c, "rms_norm_eps", 1e-6, 0.0, 1.0);
    a->norm_weight_add = 1.0f;
    a->embed_scale = (float)sqrt(a->hidden);
    /* The first release says hidden_act "gelu" and means the tanh form; hidden_activation tells the truth. */
    a->act = arch_cfg_act(c, "hidden_activation", "gelu_pytorch_tanh");
    a->tied_head = arch_cfg_bool(c, "tie_word_embeddings", true);
    bool bias = arch_cfg_bool(c, "attention_bias", false);
    arch_set_attention_bias(a, bias, bias);
}

void arch_fill_gemma(struct arch_cfg *c, struct arch *a)
{
    arch_cfg_defaults(c, "{\"head_dim\":256}");
    read_gemma(c, a);
    arch_read_rope(c, a, a->head_dim, 10000.0);
}

static void read_gemma2(struct arch_cfg *c, struct arch *a)
{
    read_gemma(c, a);
    a->attn_scale = (float)(1.0 / sqrt(arch_cfg_num(c, "query_pre_attn_scalar", 256.0, 1e-6, 1e9)));
    a->vector[ARCH_VEC_NORM2] = "~layers.#.pre_feedforward_layernorm";
    a->vector[ARCH_VEC_POST_ATTN_NORM] = "~layers.#.post_attention_layernorm";
    a->vector[ARCH_VEC_POST_MLP_NORM] = "~layers.#.post_feedforward_layernorm";
    a->attn_softcap = (float)arch_cfg_num(c, "attn_logit_softcapping", 0.0, 0.0, 1e6);
    a->final_softcap = (float)arch_cfg_num(c, "final_logit_softcapping", 0.0, 0.0, 1e6);
}

/* Of every pattern layers the last is full, unless layer_types says which. */
static void read_pattern(struct arch_cfg *c, struct arch *a, int32_t pattern)
{
    int32_t window = (int32_t)arch_cfg_int(c, "sliding_window", 4096, 1, 1 << 27);
    arch_read_windows(c, a, window, 0);
    for (int i = 0; !arch_cfg_get(c, "layer_types") && i < a->n_layers; i++)
        if ((i + 1) % pattern == 0)
            a->layer_window[i] = 0;
}

void arch_fill_gemma2(struct arch_cfg *c, struct arch *a)
{
    arch_cfg_defaults(c, "{\"head_dim\":256,\"attn_logit_softcapping\":50.0,\"final_logit_softcapping\":30.0}");
    read_gemma2(c, a);
    read_pattern(c, a, 2);
    arch_read_rope(c, a, a->head_dim, 10000.0);
}

void arch_fill_gemma3(struct arch_cfg *c, struct arch *a)
{
    /* Published files of the larger models leave out what equals these. */
    arch_cfg_defaults(c, "{\"head_dim\":256,\"num_attention_heads\":8,\"num_key_value_heads\":4,\"vocab_size\":262208,\"hidden_size\":2304,"
                         "\"intermediate_size\":9216,\"num_hidden_layers\":26,\"max_position_embeddings\":131072,\"bos_token_id\":2,\"eos_token_id\":1}");
    read_gemma2(c, a);
    a->qk_norm = ARCH_QK_NORM_HEAD;
    a->vector[ARCH_VEC_Q_NORM] = "~layers.#.self_attn.q_norm";
    a->vector[ARCH_VEC_K_NORM] = "~layers.#.self_attn.k_norm";
    read_pattern(c, a, (int32_t)arch_cfg_int(c, "sliding_window_pattern|_sliding_window_pattern", 6, 1, 1 << 20));
    arch_read_rope(c, a, a->head_dim, 1000000.0);
    /* The windowed layers' rope is never stretched by rope_scaling; rope_parameters describes both. */
    const json_t *local = json_object_get(arch_cfg_get(c, "rope_parameters"), "sliding_attention");
    int32_t max_len = a->max_len;
    arch_read_rope_object(c, a, &a->rope[1], local, a->head_dim, arch_cfg_num(c, "rope_local_base_freq", 10000.0, 1e-3, 1e15));
    a->max_len = max_len;
    for (int i = 0; i < a->n_layers; i++)
        a->layer_rope[i] = a->layer_window[i] ? 1 : 0;
}

/* The text half of a checkpoint that can also see. */
void arch_fill_gemma3_text_of(struct arch_cfg *c, struct arch *a)
{
    const json_t *text = arch_cfg_get(c, "text_config");
    if (!text || !json_is_object(text)) {
        arch_cfg_fail(c, ERR_FORMAT, "config.json: 'text_config' must be an object");
        return;
    }
    struct arch_cfg inner = { .json = text, .e = c->e };
    arch_fill_gemma3(&inner, a);
    json_decref(inner.defaults);
    c->failed |= inner.failed;
    if (!a->dtype[0])
        strncpy(a->dtype, arch_cfg_str(c, "torch_dtype|dtype", ""), sizeof a->dtype - 1);
    a->prefixes[0] = "language_model.model.";
    a->prefixes[1] = "model.language_model.";
    a->prefixes[2] = "model.";
    static const char *const ignore[] = { "vision_tower.*", "multi_modal_projector.*", "model.vision_tower.*", "model.multi_modal_projector.*", "*lm_head.weight" };
    memcpy(a->ignore + 1, ignore, sizeof ignore);
}
