/* The families that quire runs. */
#include "model/arch_int.h"

static const struct arch_family families[] = {
    { "LlamaForCausalLM", "llama", arch_fill_llama },
    { "LLaMAForCausalLM", NULL, arch_fill_llama },
    { "MistralForCausalLM", "mistral", arch_fill_mistral },
    { "Qwen2ForCausalLM", "qwen2", arch_fill_qwen2 },
    { "Qwen3ForCausalLM", "qwen3", arch_fill_qwen3 },
    { "MixtralForCausalLM", "mixtral", arch_fill_mixtral },
    { "Qwen2MoeForCausalLM", "qwen2_moe", arch_fill_qwen2_moe },
    { "Qwen3MoeForCausalLM", "qwen3_moe", arch_fill_qwen3_moe },
    { "DeepseekV2ForCausalLM", "deepseek_v2", arch_fill_deepseek_v2 },
    { "GemmaForCausalLM", "gemma", arch_fill_gemma },
    { "Gemma2ForCausalLM", "gemma2", arch_fill_gemma2 },
    { "Gemma3ForCausalLM", "gemma3_text", arch_fill_gemma3 },
    { "Gemma3ForConditionalGeneration", NULL, arch_fill_gemma3_text_of },
    { "PhiForCausalLM", "phi", arch_fill_phi },
    { "Phi3ForCausalLM", "phi3", arch_fill_phi3 },
    { "GPT2LMHeadModel", "gpt2", arch_fill_gpt2 },
    { "GPTBigCodeForCausalLM", "gpt_bigcode", arch_fill_gpt_bigcode },
    { "Starcoder2ForCausalLM", "starcoder2", arch_fill_starcoder2 },
    { "GPTNeoXForCausalLM", "gpt_neox", arch_fill_gpt_neox },
    { "GPTJForCausalLM", "gptj", arch_fill_gptj },
    { "FalconForCausalLM", "falcon", arch_fill_falcon },
    { "RWForCausalLM", NULL, arch_fill_falcon },
    { "BloomForCausalLM", "bloom", arch_fill_bloom },
    { "MptForCausalLM", "mpt", arch_fill_mpt },
    { "MPTForCausalLM", NULL, arch_fill_mpt },
    { "Olmo2ForCausalLM", "olmo2", arch_fill_olmo2 },
    { "GraniteForCausalLM", "granite", arch_fill_granite },
    { "CohereForCausalLM", "cohere", arch_fill_cohere },
    { "Cohere2ForCausalLM", "cohere2", arch_fill_cohere2 },
    { "StableLmForCausalLM", "stablelm", arch_fill_stablelm },
    { "StableLMEpochForCausalLM", NULL, arch_fill_stablelm },
    { "SmolLM3ForCausalLM", "smollm3", arch_fill_smollm3 },
    { 0 },
};

const struct arch_family *arch_families(void)
{
    return families;
}
