/* The built-in model as a set of files; builtin.S holds their bytes. */
#include "model/weights_int.h"

extern const unsigned char model_builtin_config[], model_builtin_config_end[];
extern const unsigned char model_builtin_generation_config[], model_builtin_generation_config_end[];
extern const unsigned char model_builtin_tokenizer[], model_builtin_tokenizer_end[];
extern const unsigned char model_builtin_tokenizer_config[], model_builtin_tokenizer_config_end[];
extern const unsigned char model_builtin_weights[], model_builtin_weights_end[];

bool model_builtin_files(struct file_blob out[BUILTIN_MAX_FILES])
{
    static const struct { const char *name; const unsigned char *from, *to; } files[] = {
        { "config.json", model_builtin_config, model_builtin_config_end },
        { "generation_config.json", model_builtin_generation_config, model_builtin_generation_config_end },
        { "tokenizer.json", model_builtin_tokenizer, model_builtin_tokenizer_end },
        { "tokenizer_config.json", model_builtin_tokenizer_config, model_builtin_tokenizer_config_end },
        { "model.safetensors", model_builtin_weights, model_builtin_weights_end },
    };
    size_t n = sizeof files / sizeof *files;
    for (size_t i = 0; i < n; i++)
        out[i] = (struct file_blob){ files[i].name, files[i].from, (size_t)(files[i].to - files[i].from) };
    out[n] = (struct file_blob){ 0 };
    return out[0].size > 0;
}
