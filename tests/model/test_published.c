/* config.json of published models: they are understood, and their weights are as many as their makers say. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include "model/model.h"
#include "model/model_files.h"

/* Single quotes for double ones.  Keys that say nothing about the architecture are left out. */
static const struct { const char *name; int64_t n_params; const char *config; } MODELS[] = {
    { "Llama 3.2 1B", 1235814400,
      "{'architectures':['LlamaForCausalLM'],'attention_bias':false,'bos_token_id':128000,'eos_token_id':128001,'head_dim':64,'hidden_act':'silu',"
      "'hidden_size':2048,'initializer_range':0.02,'intermediate_size':8192,'max_position_embeddings':131072,'mlp_bias':false,'model_type':'llama',"
      "'num_attention_heads':32,'num_hidden_layers':16,'num_key_value_heads':8,'pretraining_tp':1,'rms_norm_eps':1e-05,"
      "'rope_scaling':{'factor':32.0,'high_freq_factor':4.0,'low_freq_factor':1.0,'original_max_position_embeddings':8192,'rope_type':'llama3'},"
      "'rope_theta':500000.0,'tie_word_embeddings':true,'torch_dtype':'bfloat16','use_cache':true,'vocab_size':128256}" },
    { "Mistral 7B v0.1", 7241732096,
      "{'architectures':['MistralForCausalLM'],'bos_token_id':1,'eos_token_id':2,'hidden_act':'silu','hidden_size':4096,'intermediate_size':14336,"
      "'max_position_embeddings':32768,'model_type':'mistral','num_attention_heads':32,'num_hidden_layers':32,'num_key_value_heads':8,"
      "'rms_norm_eps':1e-05,'rope_theta':10000.0,'sliding_window':4096,'tie_word_embeddings':false,'vocab_size':32000}" },
    { "Mixtral 8x7B", 46702792704,
      "{'architectures':['MixtralForCausalLM'],'hidden_act':'silu','hidden_size':4096,'intermediate_size':14336,'max_position_embeddings':32768,"
      "'model_type':'mixtral','num_attention_heads':32,'num_experts_per_tok':2,'num_hidden_layers':32,'num_key_value_heads':8,'num_local_experts':8,"
      "'output_router_logits':false,'rms_norm_eps':1e-05,'rope_theta':1000000.0,'sliding_window':null,'tie_word_embeddings':false,'vocab_size':32000}" },
    { "Qwen2.5 7B", 7615616512,
      "{'architectures':['Qwen2ForCausalLM'],'hidden_act':'silu','hidden_size':3584,'intermediate_size':18944,'max_position_embeddings':131072,"
      "'max_window_layers':28,'model_type':'qwen2','num_attention_heads':28,'num_hidden_layers':28,'num_key_value_heads':4,'rms_norm_eps':1e-06,"
      "'rope_theta':1000000.0,'sliding_window':131072,'tie_word_embeddings':false,'use_mrope':false,'use_sliding_window':false,'vocab_size':152064}" },
    { "Qwen3 8B", 8190735360,
      "{'architectures':['Qwen3ForCausalLM'],'attention_bias':false,'head_dim':128,'hidden_act':'silu','hidden_size':4096,'intermediate_size':12288,"
      "'max_position_embeddings':40960,'max_window_layers':36,'model_type':'qwen3','num_attention_heads':32,'num_hidden_layers':36,"
      "'num_key_value_heads':8,'rms_norm_eps':1e-06,'rope_scaling':null,'rope_theta':1000000,'sliding_window':null,'tie_word_embeddings':false,"
      "'use_sliding_window':false,'vocab_size':151936}" },
    { "Qwen1.5 MoE A2.7B", 14315784192,
      "{'architectures':['Qwen2MoeForCausalLM'],'decoder_sparse_step':1,'hidden_act':'silu','hidden_size':2048,'intermediate_size':5632,"
      "'max_position_embeddings':8192,'max_window_layers':21,'model_type':'qwen2_moe','moe_intermediate_size':1408,'norm_topk_prob':false,"
      "'num_attention_heads':16,'num_experts':60,'num_experts_per_tok':4,'num_hidden_layers':24,'num_key_value_heads':16,'rms_norm_eps':1e-06,"
      "'rope_theta':1000000.0,'shared_expert_intermediate_size':5632,'sliding_window':32768,'tie_word_embeddings':false,'use_sliding_window':false,'vocab_size':151936}" },
    { "Qwen3 30B A3B", 30532122624,
      "{'architectures':['Qwen3MoeForCausalLM'],'attention_bias':false,'decoder_sparse_step':1,'head_dim':128,'hidden_act':'silu','hidden_size':2048,"
      "'intermediate_size':6144,'max_position_embeddings':40960,'max_window_layers':48,'mlp_only_layers':[],'model_type':'qwen3_moe',"
      "'moe_intermediate_size':768,'norm_topk_prob':true,'num_attention_heads':32,'num_experts':128,'num_experts_per_tok':8,'num_hidden_layers':48,"
      "'num_key_value_heads':4,'rms_norm_eps':1e-06,'rope_scaling':null,'rope_theta':1000000.0,'sliding_window':null,'tie_word_embeddings':false,'vocab_size':151936}" },
    { "Gemma 2B", 2506172416,
      "{'architectures':['GemmaForCausalLM'],'attention_bias':false,'head_dim':256,'hidden_act':'gelu','hidden_size':2048,'intermediate_size':16384,"
      "'max_position_embeddings':8192,'model_type':'gemma','num_attention_heads':8,'num_hidden_layers':18,'num_key_value_heads':1,'rms_norm_eps':1e-06,"
      "'rope_scaling':null,'rope_theta':10000.0,'vocab_size':256000}" },
    { "Gemma 2 2B", 2614341888,
      "{'architectures':['Gemma2ForCausalLM'],'attn_logit_softcapping':50.0,'final_logit_softcapping':30.0,'head_dim':256,'hidden_act':'gelu_pytorch_tanh',"
      "'hidden_activation':'gelu_pytorch_tanh','hidden_size':2304,'intermediate_size':9216,'max_position_embeddings':8192,'model_type':'gemma2',"
      "'num_attention_heads':8,'num_hidden_layers':26,'num_key_value_heads':4,'query_pre_attn_scalar':256,'rms_norm_eps':1e-06,'rope_theta':10000.0,"
      "'sliding_window':4096,'vocab_size':256000}" },
    { "Gemma 3 1B", 999885952,
      "{'architectures':['Gemma3ForCausalLM'],'attention_bias':false,'attn_logit_softcapping':null,'cache_implementation':'hybrid','eos_token_id':[1,106],"
      "'final_logit_softcapping':null,'head_dim':256,'hidden_activation':'gelu_pytorch_tanh','hidden_size':1152,'intermediate_size':6912,"
      "'max_position_embeddings':32768,'model_type':'gemma3_text','num_attention_heads':4,'num_hidden_layers':26,'num_key_value_heads':1,"
      "'query_pre_attn_scalar':256,'rms_norm_eps':1e-06,'rope_local_base_freq':10000,'rope_scaling':null,'rope_theta':1000000,'sliding_window':512,"
      "'sliding_window_pattern':6,'vocab_size':262144}" },
    { "Gemma 3 4B, its text", 3880263168,
      "{'architectures':['Gemma3ForConditionalGeneration'],'boi_token_index':255999,'eos_token_id':[1,106],'image_token_index':262144,'mm_tokens_per_image':256,"
      "'model_type':'gemma3','text_config':{'hidden_size':2560,'intermediate_size':10240,'model_type':'gemma3_text','num_hidden_layers':34,"
      "'rope_scaling':{'factor':8.0,'rope_type':'linear'},'sliding_window':1024},'torch_dtype':'bfloat16','vision_config':{'hidden_size':1152}}" },
    { "Phi 2", 2779683840,
      "{'architectures':['PhiForCausalLM'],'embd_pdrop':0.0,'hidden_act':'gelu_new','hidden_size':2560,'intermediate_size':10240,'layer_norm_eps':1e-05,"
      "'max_position_embeddings':2048,'model_type':'phi','num_attention_heads':32,'num_hidden_layers':32,'num_key_value_heads':32,"
      "'partial_rotary_factor':0.4,'qk_layernorm':false,'rope_scaling':null,'rope_theta':10000.0,'tie_word_embeddings':false,'vocab_size':51200}" },
    { "Phi 3 mini", 3821079552,
      "{'architectures':['Phi3ForCausalLM'],'attention_bias':false,'hidden_act':'silu','hidden_size':3072,'intermediate_size':8192,'max_position_embeddings':4096,"
      "'model_type':'phi3','num_attention_heads':32,'num_hidden_layers':32,'num_key_value_heads':32,'original_max_position_embeddings':4096,"
      "'rms_norm_eps':1e-05,'rope_scaling':null,'rope_theta':10000.0,'sliding_window':2047,'tie_word_embeddings':false,'vocab_size':32064}" },
    { "GPT-2", 124439808,
      "{'activation_function':'gelu_new','architectures':['GPT2LMHeadModel'],'bos_token_id':50256,'eos_token_id':50256,'layer_norm_epsilon':1e-05,"
      "'model_type':'gpt2','n_ctx':1024,'n_embd':768,'n_head':12,'n_layer':12,'n_positions':1024,'summary_type':'cls_index','vocab_size':50257}" },
    { "StarCoder", 15517456384,
      "{'activation_function':'gelu','architectures':['GPTBigCodeForCausalLM'],'attention_softmax_in_fp32':true,'layer_norm_epsilon':1e-05,"
      "'model_type':'gpt_bigcode','multi_query':true,'n_embd':6144,'n_head':48,'n_inner':24576,'n_layer':40,'n_positions':8192,"
      "'scale_attention_softmax_in_fp32':true,'scale_attn_weights':true,'vocab_size':49152}" },
    { "StarCoder2 3B", 3030371328,
      "{'architectures':['Starcoder2ForCausalLM'],'hidden_act':'gelu_pytorch_tanh','hidden_size':3072,'intermediate_size':12288,'layer_norm_epsilon':1e-05,"
      "'max_position_embeddings':16384,'mlp_type':'default','model_type':'starcoder2','norm_epsilon':1e-05,'norm_type':'layer_norm',"
      "'num_attention_heads':24,'num_hidden_layers':30,'num_key_value_heads':2,'rope_theta':999999.4420358813,'sliding_window':4096,'use_bias':true,'vocab_size':49152}" },
    { "Pythia 1B", 1011781632,
      "{'architectures':['GPTNeoXForCausalLM'],'bos_token_id':0,'eos_token_id':0,'hidden_act':'gelu','hidden_size':2048,'intermediate_size':8192,"
      "'layer_norm_eps':1e-05,'max_position_embeddings':2048,'model_type':'gpt_neox','num_attention_heads':8,'num_hidden_layers':16,'rotary_emb_base':10000,"
      "'rotary_pct':0.25,'tie_word_embeddings':false,'torch_dtype':'float16','use_parallel_residual':true,'vocab_size':50304}" },
    { "GPT-J 6B", 6050882784,
      "{'activation_function':'gelu_new','architectures':['GPTJForCausalLM'],'layer_norm_epsilon':1e-05,'model_type':'gptj','n_embd':4096,'n_head':16,"
      "'n_inner':null,'n_layer':28,'n_positions':2048,'rotary':true,'rotary_dim':64,'scale_attn_weights':true,'tie_word_embeddings':false,'vocab_size':50400}" },
    { "Falcon 7B", 6921720704,
      "{'alibi':false,'apply_residual_connection_post_layernorm':false,'architectures':['FalconForCausalLM'],'bias':false,'hidden_size':4544,"
      "'layer_norm_epsilon':1e-05,'model_type':'falcon','multi_query':true,'new_decoder_architecture':false,'num_attention_heads':71,"
      "'num_hidden_layers':32,'parallel_attn':true,'vocab_size':65024}" },
    { "Falcon RW 1B", 1311625216,
      "{'alibi':true,'apply_residual_connection_post_layernorm':false,'architectures':['FalconForCausalLM'],'bias':true,'hidden_size':2048,"
      "'layer_norm_epsilon':1e-05,'model_type':'falcon','multi_query':false,'new_decoder_architecture':false,'num_attention_heads':32,"
      "'num_hidden_layers':24,'parallel_attn':false,'vocab_size':50304}" },
    { "BLOOM 560M", 559214592,
      "{'apply_residual_connection_post_layernorm':false,'architectures':['BloomForCausalLM'],'bias_dropout_fusion':true,'layer_norm_epsilon':1e-05,"
      "'masked_softmax_fusion':true,'model_type':'bloom','n_embed':1024,'n_inner':null,'n_layer':24,'num_attention_heads':16,'offset_alibi':100,"
      "'pretraining_tp':1,'unk_token_id':0,'vocab_size':250880}" },
    { "MPT 7B", 6649286656,
      "{'architectures':['MPTForCausalLM'],'attn_config':{'alibi':true,'alibi_bias_max':8,'attn_impl':'torch','attn_pdrop':0,'attn_type':'multihead_attention',"
      "'attn_uses_sequence_id':false,'clip_qkv':null,'prefix_lm':false,'qk_ln':false,'softmax_scale':null},'d_model':4096,'emb_pdrop':0,'expansion_ratio':4,"
      "'learned_pos_emb':true,'logit_scale':null,'max_seq_len':2048,'model_type':'mpt','n_heads':32,'n_layers':32,'no_bias':true,'norm_type':'low_precision_layernorm',"
      "'vocab_size':50432}" },
    { "OLMo 2 7B", 7298617344,
      "{'architectures':['Olmo2ForCausalLM'],'attention_bias':false,'hidden_act':'silu','hidden_size':4096,'intermediate_size':11008,'max_position_embeddings':4096,"
      "'model_type':'olmo2','num_attention_heads':32,'num_hidden_layers':32,'num_key_value_heads':32,'rms_norm_eps':1e-06,'rope_scaling':null,'rope_theta':500000,"
      "'tie_word_embeddings':false,'vocab_size':100352}" },
    { "Command-R 35B", 34980831232,
      "{'architectures':['CohereForCausalLM'],'attention_bias':false,'hidden_act':'silu','hidden_size':8192,'intermediate_size':22528,'layer_norm_eps':1e-05,"
      "'logit_scale':0.0625,'max_position_embeddings':8192,'model_max_length':131072,'model_type':'cohere','num_attention_heads':64,'num_hidden_layers':40,"
      "'num_key_value_heads':64,'rope_theta':8000000.0,'use_qk_norm':false,'vocab_size':256000}" },
    { "StableLM 2 1.6B", 1644515328,
      "{'architectures':['StableLmForCausalLM'],'hidden_act':'silu','hidden_size':2048,'intermediate_size':5632,'layer_norm_eps':1e-05,'max_position_embeddings':4096,"
      "'model_type':'stablelm','num_attention_heads':32,'num_hidden_layers':24,'num_key_value_heads':32,'partial_rotary_factor':0.25,'rope_theta':10000,"
      "'tie_word_embeddings':false,'use_qkv_bias':true,'vocab_size':100352}" },
    { "SmolLM3 3B", 3075098624,
      "{'architectures':['SmolLM3ForCausalLM'],'attention_bias':false,'hidden_act':'silu','hidden_size':2048,'intermediate_size':11008,'max_position_embeddings':65536,"
      "'mlp_bias':false,'model_type':'smollm3','no_rope_layer_interval':4,'num_attention_heads':16,'num_hidden_layers':36,'num_key_value_heads':4,"
      "'rms_norm_eps':1e-06,'rope_scaling':null,'rope_theta':5000000.0,'use_sliding_window':false,'vocab_size':128256}" },
    { "DeepSeek V2 Lite", 15706484224,
      "{'architectures':['DeepseekV2ForCausalLM'],'attention_bias':false,'first_k_dense_replace':1,'hidden_act':'silu','hidden_size':2048,'intermediate_size':10944,"
      "'kv_lora_rank':512,'max_position_embeddings':163840,'model_type':'deepseek_v2','moe_intermediate_size':1408,'moe_layer_freq':1,'n_group':1,"
      "'n_routed_experts':64,'n_shared_experts':2,'norm_topk_prob':false,'num_attention_heads':16,'num_experts_per_tok':6,'num_hidden_layers':27,"
      "'num_key_value_heads':16,'q_lora_rank':null,'qk_nope_head_dim':128,'qk_rope_head_dim':64,'rms_norm_eps':1e-06,"
      "'rope_scaling':{'beta_fast':32,'beta_slow':1,'factor':40,'mscale':0.707,'mscale_all_dim':0.707,'original_max_position_embeddings':4096,'type':'yarn'},"
      "'rope_theta':10000,'routed_scaling_factor':1.0,'scoring_func':'softmax','tie_word_embeddings':false,'topk_group':1,'topk_method':'greedy',"
      "'v_head_dim':128,'vocab_size':102400}" },
};

static void test_published(void **state)
{
    (void)state;
    struct folder f;
    folder_make(&f);
    int bad = 0;
    for (size_t i = 0; i < sizeof MODELS / sizeof *MODELS; i++) {
        char *text = mem_try_strdup(MODELS[i].config);
        for (char *p = text; *p; p++)
            if (*p == '\'')
                *p = '"';
        folder_text(&f, "config.json", text);
        mem_free(text);
        struct model *m;
        struct err e = { 0 };
        struct model_opts o = { .config_only = true };
        if (!model_open(&m, f.dir, &o, &e)) {
            printf("%s: %s\n", MODELS[i].name, e.msg);
            bad++;
            continue;
        }
        if (model_n_params(m) != MODELS[i].n_params) {
            printf("%s: %lld weights, expected %lld\n", MODELS[i].name, (long long)model_n_params(m), (long long)MODELS[i].n_params);
            bad++;
        }
        model_close(&m);
    }
    folder_remove(&f);
    assert_int_equal(bad, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_published) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
