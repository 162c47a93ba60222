/* SmolLM3: Llama with every fourth layer free of rope. */
#include "model/arch_int.h"

void arch_fill_smollm3(struct arch_cfg *c, struct arch *a)
{
    arch_cfg_defaults(c, "{\"rope_theta\":2000000.0,\"tie_word_embeddings\":true}");
    arch_fill_llama(c, a);
    int64_t interval = arch_cfg_int(c, "no_rope_layer_interval", 4, 1, 1 << 20);
    const json_t *rope = arch_cfg_get(c, "no_rope_layers");   /* despite its name: 1 where there is rope */
    if (rope && json_array_size(rope) < (size_t)a->n_layers)
        arch_cfg_fail(c, ERR_FORMAT, "config.json: 'no_rope_layers' must be a list of at least %d numbers", a->n_layers);
    int32_t window = 0;
    if (arch_cfg_bool(c, "use_sliding_window", false))
        window = (int32_t)arch_cfg_int(c, "sliding_window", 0, 1, 1 << 27);
    arch_read_windows(c, a, window, a->n_layers);
    for (int i = 0; !c->failed && i < a->n_layers; i++) {
        bool has = rope ? json_integer_value(json_array_get(rope, (size_t)i)) != 0 : (i + 1) % interval != 0;
        a->layer_rope[i] = has ? 0 : ARCH_NO_ROPE;
        if (!arch_cfg_get(c, "layer_types") && !has)
            a->layer_window[i] = window;
    }
}
