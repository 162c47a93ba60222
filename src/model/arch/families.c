/* The families that quire runs. */
#include "model/arch_int.h"

static const struct arch_family families[] = {
    { "LlamaForCausalLM", "llama", arch_fill_llama },
    { "LLaMAForCausalLM", NULL, arch_fill_llama },
    { "MistralForCausalLM", "mistral", arch_fill_mistral },
    { "Qwen2ForCausalLM", "qwen2", arch_fill_qwen2 },
    { "Qwen3ForCausalLM", "qwen3", arch_fill_qwen3 },
    { 0 },
};

const struct arch_family *arch_families(void)
{
    return families;
}
