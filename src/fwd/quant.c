/* Which kind of linear is packed in which format: --quantization. */
#include <stdio.h>
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
        if (dev_format_parse(name, out))
            return true;
    }
    return err_set(e, ERR_INVALID, "quantization: '%.*s' is not auto, none, int8, int8-g16, int8-g32, int4, int4-g32, int4-g64, int4-g128, uint8-g16, uint8-g32, fp8, fp8-g128, bf16, f16 or f32",
                   (int)(len < 40 ? len : 40), text);
}

/* One format for all: the head, where errors show most, keeps 8 bits beside 4-bit layers. */
static void set_all(struct fwd_quant *q, enum dev_format f)
{
    bool four = f == DEV_FMT_I4 || f == DEV_FMT_U4_G32 || f == DEV_FMT_U4_G64 || f == DEV_FMT_U4_G128;
    set(q, FWD_KIND_ATTN, f);
    set(q, FWD_KIND_FFN, f);
    set(q, FWD_KIND_HEAD, four ? DEV_FMT_I8_G32 : f);
}

bool fwd_quant_parse(const char *text, struct fwd_quant *out, struct err *e)
{
    *out = (struct fwd_quant){ 0 };
    if (!text || strcmp(text, "auto") == 0)
        return true;
    if (strcmp(text, "none") == 0)
        return out->widen = true;
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

int fwd_carry_kind(const struct arch *a, enum arch_linear slot)
{
    enum fwd_kind kind;
    if (slot == ARCH_LIN_EMBED && !a->tied_head)
        return FWD_CARRY_EMBED;
    return kind_of(a, slot, &kind) ? (int)kind : -1;
}

void fwd_carried_text(const uint32_t carried[FWD_CARRY_COUNT], char *out, size_t size)
{
    size_t at = 0;
    *out = 0;
    for (int k = 0; k < FWD_CARRY_COUNT; k++) {
        const char *before = k < FWD_KIND_COUNT ? kinds[k] : "embed";
        for (int f = 0; f < DEV_FMT_COUNT; f++) {
            if (!(carried[k] >> f & 1) || at >= size)
                continue;
            int n = snprintf(out + at, size - at, "%s%s%s%s", before ? (at ? " " : "") : "+", before ? before : "", before ? "=" : "",
                             dev_format_name((enum dev_format)f));
            at += n > 0 ? (size_t)n : 0;
            before = NULL;
        }
    }
}

/* ---- integers as they are stored ---- */

static enum dev_format format_of_dtype(enum dtype t)
{
    return t == DT_F16 ? DEV_FMT_F16 : t == DT_BF16 ? DEV_FMT_BF16 : DEV_FMT_F32;
}

static bool same_order(const struct model_part *a, const struct model_part *b)
{
    const void *x = a->quant.column_groups, *y = b->quant.column_groups;
    return a->quant.group == b->quant.group && (x == y || (x && y && memcmp(x, y, (size_t)a->n_cols * 4) == 0));
}

/* What is stored in a few bits, and cannot be carried so, would take F32 to be held exactly.  F16 rounds it by a fraction of the steps it was
 * made in. */
static void choose_part(const struct model_part *p, bool codes, struct fwd_choice *c, int i)
{
    c->codes[i] = codes && dev_format_of_codes(&p->quant, p->n_cols, &c->format[i]);
    c->ordered[i] = c->codes[i] && p->quant.column_groups;
    if (!c->codes[i])
        c->format[i] = p->is_quantized ? DEV_FMT_F16 : format_of_dtype(p->dtype);
}

void fwd_choose(const struct model *m, const struct fwd_opts *o, enum arch_linear slot, int layer, int index, struct fwd_choice *out)
{
    struct model_part part[3];
    *out = (struct fwd_choice){ .n = 1 };
    /* A rounded router would send tokens to other experts; it is small. */
    if (slot == ARCH_LIN_ROUTER || slot == ARCH_LIN_POSITIONS || fwd_quant_format(&o->quant, model_arch(m), slot, &out->format[0]))
        return;
    if (o->dtype == FWD_DTYPE_F32 || o->dtype == FWD_DTYPE_F16 || o->dtype == FWD_DTYPE_BF16) {
        out->format[0] = o->dtype == FWD_DTYPE_F32 ? DEV_FMT_F32 : o->dtype == FWD_DTYPE_F16 ? DEV_FMT_F16 : DEV_FMT_BF16;
        return;
    }
    if (!model_linear_is_quantized(m, slot, layer, index)) {
        out->format[0] = format_of_dtype(model_linear_dtype(m, slot, layer, index));
        return;
    }
    int n = o->quant.widen ? 0 : model_linear_parts(m, slot, layer, index, part);
    bool together = n > 0;
    for (int i = 0; i < n; i++) {
        /* Rows of a table are taken by themselves: their columns must lie as they are. */
        choose_part(&part[i], slot != ARCH_LIN_EMBED || !part[i].quant.column_groups, out, i);
        together &= out->format[i] == out->format[0] && out->codes[i] == out->codes[0] && (!out->codes[0] || same_order(&part[i], &part[0]));
    }
    if (!together && n > 1 && slot == ARCH_LIN_QKV)
        out->n = n;
    else if (!together)
        *out = (struct fwd_choice){ .n = 1, .format[0] = DEV_FMT_F16 };
}
