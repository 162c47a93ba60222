/* The built-in model's files, linked into the program when they are there at build time. */
    .section .note.GNU-stack, "", @progbits
    .section .rodata

#define BLOB(symbol, file) \
    .balign 64; .globl model_builtin_##symbol; model_builtin_##symbol: .incbin file; \
    .globl model_builtin_##symbol##_end; model_builtin_##symbol##_end: .byte 0
#define NOTHING(symbol) \
    .balign 64; .globl model_builtin_##symbol; model_builtin_##symbol: \
    .globl model_builtin_##symbol##_end; model_builtin_##symbol##_end: .byte 0

#if __has_include("model.safetensors")
BLOB(config, "config.json")
BLOB(generation_config, "generation_config.json")
BLOB(tokenizer, "tokenizer.json")
BLOB(tokenizer_config, "tokenizer_config.json")
BLOB(weights, "model.safetensors")
#else
NOTHING(config)
NOTHING(generation_config)
NOTHING(tokenizer)
NOTHING(tokenizer_config)
NOTHING(weights)
#endif
