/* config.json from anywhere: a description, or an error; its sizes can be multiplied safely. */
#include <stdlib.h>
#include "base/json.h"
#include "model/arch_int.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    static struct arch a;
    struct err e;
    json_t *j = json_parse((const char *)data, size, &e);
    if (!j)
        return 0;
    if (arch_from_config(&a, j, &e)) {
        int64_t total = 0;
        for (int s = 0; s < ARCH_LIN_COUNT; s++) {
            int64_t rows[3], cols;
            int n = arch_linear_shape(&a, (enum arch_linear)s, rows, &cols);
            for (int p = 0; p < n; p++) {
                if (rows[p] < 1 || cols < 1)
                    abort();
                total += rows[p] * cols * a.n_layers * (arch_linear_count(&a, (enum arch_linear)s, 0) + 1);
            }
        }
        if (total < 1 || a.n_heads % a.n_kv_heads || a.max_len < 1 || !(a.norm_eps >= 0))
            abort();
        for (int i = 0; i < ARCH_N_ROPES; i++)
            if (a.rope[i].dim % 2 || a.rope[i].dim > a.head_dim)
                abort();
    } else if (!e.msg[0]) {
        abort();
    }
    json_decref(j);
    return 0;
}
