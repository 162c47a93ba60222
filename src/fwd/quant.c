/* Which kind of linear is packed in which format: --quantization. */
#include <string.h>
#include "fwd/fwd_int.h"

static const char *const kinds[FWD_KIND_COUNT] = { [FWD_KIND_ATTN] = "attn", [FWD_KIND_FFN] = "ffn", [FWD_KIND_HEAD] = "head" };

static void set(struct fwd_quant *q, enum fwd_kind kind, enum dev_format format)
{
    q->set[kind] = true;
    q->format[kind] = format;
}

static bool parse_format(const char *text, size_t len, enum dev_format *out, struct err *e)
{
    char name[24];
    if (len < sizeof name) {
        memcpy(name, text, len);
        name[len] = 0;
        if (strcmp(name, "int4") == 0)
            return *out = DEV_FMT_U4_G32, true;
        if (dev_format_parse(name, out))
            return true;
    }
    return err_set(e, ERR_INVALID, "quantization: '%.*s' is not int8, int8-g16, int8-g32, int4, int4-g32, int4-g64, int4-g128, fp8, bf16, f16 or f32",
                   (int)(len < 40 ? len : 40), text);
}

/* One format for all: the head, where errors show most, keeps 8 bits beside 4-bit layers. */
static void set_all(struct fwd_quant *q, enum dev_format f)
{
    bool four = f == DEV_FMT_U4_G32 || f == DEV_FMT_U4_G64 || f == DEV_FMT_U4_G128;
    set(q, FWD_KIND_ATTN, f);
    set(q, FWD_KIND_FFN, f);
    set(q, FWD_KIND_HEAD, four ? DEV_FMT_I8_G32 : f);
}

bool fwd_quant_parse(const char *text, struct fwd_quant *out, struct err *e)
{
    *out = (struct fwd_quant){ 0 };
    if (!text || strcmp(text, "none") == 0)
        return true;
    for (const char *p = text; *p;) {
        size_t len = strcspn(p, ","), name = strcspn(p, "=,");
        enum dev_format f;
        int kind = 0;
        if (p[name] != '=') {
            if (p != text || p[len])
                return err_set(e, ERR_INVALID, "quantization: '%s' is neither one format nor a list such as attn=bf16,ffn=int8,head=bf16", text);
            if (!parse_format(p, len, &f, e))
                return false;
            set_all(out, f);
            return true;
        }
        while (kind < FWD_KIND_COUNT && (strlen(kinds[kind]) != name || strncmp(kinds[kind], p, name) != 0))
            kind++;
        if (kind == FWD_KIND_COUNT)
            return err_set(e, ERR_INVALID, "quantization: '%.*s' is not attn, ffn or head", (int)(name < 40 ? name : 40), p);
        if (!parse_format(p + name + 1, len - name - 1, &f, e))
            return false;
        set(out, (enum fwd_kind)kind, f);
        p += len + (p[len] == ',');
    }
    return true;
}

/* False: the slot is not of a kind that may be chosen. */
static bool kind_of(const struct arch *a, enum arch_linear slot, enum fwd_kind *kind)
{
    switch (slot) {
    case ARCH_LIN_QKV: case ARCH_LIN_ATTN_OUT: case ARCH_LIN_Q_A: case ARCH_LIN_Q: case ARCH_LIN_KV_A: case ARCH_LIN_KV_B:
        return *kind = FWD_KIND_ATTN, true;
    case ARCH_LIN_GATE_UP: case ARCH_LIN_DOWN: case ARCH_LIN_EXPERT_GATE_UP: case ARCH_LIN_EXPERT_DOWN:
    case ARCH_LIN_SHARED_GATE_UP: case ARCH_LIN_SHARED_DOWN:
        return *kind = FWD_KIND_FFN, true;
    case ARCH_LIN_HEAD:
        return *kind = FWD_KIND_HEAD, true;
    case ARCH_LIN_EMBED: /* a table of its own is read by rows only: nothing is gained by rounding it */
        return *kind = FWD_KIND_HEAD, a->tied_head;
    case ARCH_LIN_POSITIONS: case ARCH_LIN_ROUTER: case ARCH_LIN_COUNT:
        break;
    }
    return false;
}

bool fwd_quant_format(const struct fwd_quant *q, const struct arch *a, enum arch_linear slot, enum dev_format *out)
{
    enum fwd_kind kind;
    if (!kind_of(a, slot, &kind) || !q->set[kind])
        return false;
    *out = q->format[kind];
    return true;
}
