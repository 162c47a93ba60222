/* Attention with i8 KV for AVX2: widened to bf16. */
#include "kern/avx2/attn_ops_avx2.h"
#include "kern/avx2/attn_widen_avx2.h"
#include "kern/attn.h"

enum { DIRECT = 0, SCALED = 1 };

struct widener { char unused; };

static inline struct widener widener_open(void)
{
    return (struct widener){0};
}
static inline void widen(const struct widener *w, const unsigned char *in, unsigned char *a, unsigned char *b)
{
    (void)w;
    for (int i = 0; i < 4; i++) {
        widen8_i8(in + i * 16, a + i * 16);
        widen8_i8(in + i * 16 + 8, b + i * 16);
    }
}

/* Named by attn_8bit.inc, but never called, as DIRECT is 0. */
static inline void widen_ops(const struct widener *w, const unsigned char *in, struct kv_op *out)
{
    (void)w;
    out[0] = kv_load(in);
    out[1] = out[0];
}

#include "kern/attn_8bit.inc"
#include "kern/attn_body.inc"

const struct kern_attn kern_attn_i8_avx2 = {4, pack_q, write, part, merge, finish};
