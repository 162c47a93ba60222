#include "fwd/fwd.h"
#include <assert.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include "base/hash.h"
#include "base/mem.h"
#include "fwd/fwd_int.h"
#include "model/packed.h"

struct progress {
    const struct fwd_opts *o;
    int64_t done, total;
    struct packed_writer *writer;   /* keeps what is packed, or NULL */
};

/* Weights as they are called in the packed-weight cache. */
static void packed_name(char name[48], enum arch_linear slot, int layer, int index, int part)
{
    snprintf(name, 48, part ? "%d.%d.%d.%d" : "%d.%d.%d", layer, (int)slot, index, part);
}

static struct dev_weight_shape shape_of(const struct dev_weight_spec *spec, bool ordered)
{
    struct dev_weight_shape shape = {
        .format = spec->format, .k = spec->parts[0].n_cols, .bias = spec->bias != NULL, .gated = spec->gated, .ordered = ordered,
    };
    for (int p = 0; p < spec->n_parts; p++)
        shape.n_out += spec->parts[p].n_rows;
    return shape;
}

/* The weight out of the cache.  False: it is not there, or does not fit, and must be packed. */
static bool map_linear(struct fwd *f, const struct dev_weight_shape *shape, const char *name, struct dev_weight **out)
{
    int64_t i = f->packed ? packed_find(f->packed, name) : -1;
    size_t bytes;
    if (i < 0)
        return false;
    const void *image = packed_entry(f->packed, i, NULL, &bytes);
    return dev_weight_from_image(f->d, out, shape, image, bytes, NULL);
}

/* A cache that cannot be written (a full disk, say) is given up, not the start. */
static void keep_linear(struct fwd *f, struct progress *p, const char *name, const struct dev_weight *w)
{
    struct err e;
    size_t bytes;
    if (!p->writer)
        return;
    const void *image = dev_weight_image(w, &bytes);
    if (packed_writer_add(p->writer, name, image, bytes, &e))
        return;
    snprintf(f->packed_state, sizeof f->packed_state, "%.199s", e.msg);
    packed_writer_close(&p->writer, false, NULL);
}

static void report(struct progress *p, int64_t bytes)
{
    p->done += bytes;
    if (p->o->progress)
        p->o->progress(p->o->progress_ctx, p->done < p->total ? p->done : p->total, p->total);
}

/* What is known of the inputs of a product without running the model: a norm before it leaves their squares near those of its
 * weights.  *out NULL without error where nothing is known.  mem_free it. */
static bool input_importance(struct fwd *f, const struct model *m, enum arch_linear slot, int layer, float **out, struct err *e)
{
    enum arch_vector norm;
    int64_t n = 0;
    *out = NULL;
    if (slot == ARCH_LIN_QKV)
        norm = ARCH_VEC_NORM1;
    else if (slot == ARCH_LIN_GATE_UP || slot == ARCH_LIN_EXPERT_GATE_UP || slot == ARCH_LIN_SHARED_GATE_UP)
        norm = f->arch.vector[ARCH_VEC_NORM2] ? ARCH_VEC_NORM2 : ARCH_VEC_NORM1;
    else if (slot == ARCH_LIN_HEAD || (slot == ARCH_LIN_EMBED && f->arch.tied_head))
        norm = ARCH_VEC_FINAL_NORM;
    else
        return true;
    if (f->arch.vector[norm] && !model_get_vector(m, norm, norm == ARCH_VEC_FINAL_NORM ? 0 : layer, out, &n, e))
        return false;
    for (int64_t i = 0; *out && i < n; i++)
        (*out)[i] *= (*out)[i];
    return true;
}

/* One weight of a slot: what the spec says, out of the cache or packed. */
static bool pack_weight(struct fwd *f, const struct model *m, enum arch_linear slot, int layer, struct dev_weight_spec *spec, bool ordered,
                        const char *key, const char *name, struct dev_weight **out, struct progress *p, struct err *e)
{
    struct dev_weight_shape shape = shape_of(spec, ordered);
    bool ok = map_linear(f, &shape, key, out);
    if (!ok) {
        float *importance = NULL;
        ok = spec->codes || !dev_format_searches(spec->format) || input_importance(f, m, slot, layer, &importance, e);
        spec->importance = importance;
        ok = ok && dev_weight_pack(f->d, out, spec, name, e);
        mem_free(importance);
        if (ok)
            keep_linear(f, p, key, *out);
    }
    int kind = fwd_carry_kind(&f->arch, slot);
    if (ok && kind >= 0)
        f->carried[kind] |= 1u << spec->format;
    if (ok)
        report(p, (int64_t)dev_weight_shape_bytes(&shape));
    return ok;
}

/* out: one weight, or three (q, k, v) into split. */
static bool pack_linear(struct fwd *f, const struct model *m, enum arch_linear slot, int layer, int index, struct dev_weight **out,
                        struct dev_weight *split[3], struct progress *p, struct err *e)
{
    struct model_linear l;
    struct fwd_choice c;
    bool plain = slot == ARCH_LIN_GATE_UP && f->arch.mlp == ARCH_MLP_PLAIN, ok = true;
    bool gate_up = slot == ARCH_LIN_GATE_UP || slot == ARCH_LIN_EXPERT_GATE_UP || slot == ARCH_LIN_SHARED_GATE_UP;
    if (!model_get_linear(m, slot, layer, index, &l, e))
        return false;
    fwd_choose(m, p->o, slot, layer, index, &c);
    int64_t row = 0;
    for (int w = 0; ok && w < c.n; row += l.parts[w].n_rows, w++) {
        char key[48];
        packed_name(key, slot, layer, index, w);
        struct dev_weight_spec spec = {
            .format = c.format[w], .codes = c.codes[w], .parts = l.parts + w, .n_parts = c.n > 1 ? 1 : l.n_parts,
            .bias = l.bias ? l.bias + row : NULL, .gated = gate_up && !plain,
        };
        ok = pack_weight(f, m, slot, layer, &spec, c.ordered[w], key, l.name, c.n > 1 ? &split[w] : out, p, e);
    }
    model_linear_free(&l);
    return ok;
}

/* n floats on the device, from host memory. */
static float *upload(struct fwd *f, const float *src, size_t n, struct err *e)
{
    float *p = dev_alloc(f->d, n * sizeof *p, e);
    if (p)
        dev_upload(f->d, p, src, n * sizeof *p);
    return p;
}

static bool load_vector(struct fwd *f, const struct model *m, enum arch_vector slot, int layer, float **out, struct err *e)
{
    float *v;
    int64_t n;
    if (!model_get_vector(m, slot, layer, &v, &n, e))
        return false;
    if (!v)
        return true;
    *out = upload(f, v, (size_t)n, e);
    mem_free(v);
    return *out != NULL;
}

/* Where the packed weight of a slot is kept: in lin, or with the experts of the layer. */
static struct dev_weight **weight_place(struct fwd *f, enum arch_linear slot, int layer, int index)
{
    if (!arch_linear_is_per_layer(slot))
        return &f->lin[slot];
    struct fwd_layer *l = &f->layers[layer];
    switch (slot) {
    case ARCH_LIN_EXPERT_GATE_UP: return &l->expert_up[index];
    case ARCH_LIN_EXPERT_DOWN: return &l->expert_down[index];
    case ARCH_LIN_SHARED_GATE_UP: return &l->expert_up[f->arch.n_experts];
    case ARCH_LIN_SHARED_DOWN: return &l->expert_down[f->arch.n_experts];
    default: return &l->lin[slot];
    }
}

static bool open_experts(struct fwd *f, struct fwd_layer *l, struct err *e)
{
    size_t n = (size_t)fwd_n_experts(&f->arch);
    l->expert_up = mem_try_zalloc(n, sizeof(struct dev_weight *));
    l->expert_down = mem_try_zalloc(n, sizeof(struct dev_weight *));
    return (l->expert_up && l->expert_down) || err_set(e, ERR_NOMEM, "no memory for %zu experts", n);
}

/* The slots of one layer, or of the model as a whole (per_layer false). */
static bool load_slots(struct fwd *f, const struct model *m, bool per_layer, int layer, struct progress *p, struct err *e)
{
    float **vec = per_layer ? f->layers[layer].vec : f->vec;
    if (per_layer && f->arch.layer_moe[layer] && !open_experts(f, &f->layers[layer], e))
        return false;
    for (int s = 0; s < ARCH_LIN_COUNT; s++) {
        enum arch_linear slot = (enum arch_linear)s;
        if (arch_linear_is_per_layer(slot) != per_layer || slot == ARCH_LIN_POSITIONS)
            continue;
        for (int i = 0; i < arch_linear_count(&f->arch, slot, layer); i++)
            if (!pack_linear(f, m, slot, layer, i, weight_place(f, slot, layer, i), per_layer ? f->layers[layer].qkv : NULL, p, e))
                return false;
    }
    for (int s = 0; s < ARCH_VEC_COUNT; s++)
        if (arch_vector_is_per_layer((enum arch_vector)s) == per_layer && !load_vector(f, m, (enum arch_vector)s, layer, &vec[s], e))
            return false;
    return true;
}

static bool load_positions(struct fwd *f, const struct model *m, struct err *e)
{
    struct model_linear l;
    if (f->arch.pos != ARCH_POS_LEARNED)
        return true;
    if (!model_get_linear(m, ARCH_LIN_POSITIONS, 0, 0, &l, e))
        return false;
    const struct tensor_rows *r = &l.parts[0];
    size_t n = (size_t)(r->n_rows * r->n_cols);
    float *rows = mem_try_alloc(n, sizeof *rows);
    if (rows) {
        r->read(r, 0, r->n_rows, rows);
        f->positions = upload(f, rows, n, e);
    } else {
        err_set(e, ERR_NOMEM, "no memory for %s", l.name);
    }
    mem_free(rows);
    model_linear_free(&l);
    return f->positions != NULL;
}

static bool load_alibi(struct fwd *f, struct err *e)
{
    float slopes[4096];
    if (f->arch.pos != ARCH_POS_ALIBI)
        return true;
    assert(f->arch.n_heads <= 4096);
    arch_alibi_slopes(&f->arch, slopes);
    f->alibi = upload(f, slopes, (size_t)f->arch.n_heads, e);
    return f->alibi != NULL;
}

/* ---- the packed-weight cache ---- */

struct verify { const struct packed *packed; atomic_bool bad; };

static void verify_entry(void *ctx, int64_t i, int member)
{
    struct verify *v = ctx;
    (void)member;
    if (!packed_verify(v->packed, i))
        atomic_store(&v->bad, true);
}

static uint64_t choice_key(const struct model *m, const struct fwd_opts *o, enum arch_linear slot, int layer, int index)
{
    struct fwd_choice c;
    uint64_t key = 0;
    fwd_choose(m, o, slot, layer, index, &c);
    for (int w = 0; w < c.n; w++)
        key = key << 8 | (uint64_t)c.format[w] << 2 | (uint64_t)c.codes[w] << 1 | (uint64_t)c.ordered[w];
    return key;
}

/* The formats of all slots in one number. */
static uint64_t formats_key(const struct fwd *f, const struct model *m, const struct fwd_opts *o)
{
    uint64_t key = 0;
    for (int l = 0; l < f->arch.n_layers; l++)
        for (int s = 0; s < ARCH_LIN_COUNT; s++)
            for (int i = 0; i < arch_linear_count(&f->arch, (enum arch_linear)s, l); i++)
                key = hash_mix(key, choice_key(m, o, (enum arch_linear)s, l, i));
    return key;
}

/* Maps the cached file when it is good; else begins to write one.  Neither is ever an error. */
static void open_packed(struct fwd *f, const struct model *m, const struct fwd_opts *o, struct progress *p)
{
    struct err e;
    snprintf(f->packed_state, sizeof f->packed_state, "off");
    if (!o->packed_dir || p->total < (int64_t)o->packed_min_bytes || !dev_caps(f->d)->host_memory || model_identity(m) == 0)
        return;
    /* The file's name says model, layout and formats; its key also which state of the checkpoint it was made from. */
    uint64_t formats = formats_key(f, m, o), key = hash_mix(model_identity(m), formats);
    char layout[80];
    snprintf(layout, sizeof layout, "%.48s %016llx", dev_weight_layout(f->d), (unsigned long long)formats);
    char *path = packed_path(o->packed_dir, model_path(m), layout);
    if (path && packed_open(&f->packed, path, key, &e)) {
        struct verify v = { .packed = f->packed };
        dev_for(f->d, packed_count(f->packed), verify_entry, &v);
        if (!atomic_load(&v.bad)) {
            snprintf(f->packed_state, sizeof f->packed_state, "mapped");
            packed_move_to_huge_pages(f->packed);
        }
        else
            packed_close(&f->packed);
    }
    if (path && !f->packed) {
        snprintf(f->packed_state, sizeof f->packed_state, "written");
        if (!packed_writer_open(&p->writer, path, key, (int64_t)(f->arch.n_layers + 1) * (ARCH_LIN_COUNT + 2 + 2 * f->arch.n_experts), &e))
            snprintf(f->packed_state, sizeof f->packed_state, "%.199s", e.msg);
    }
    mem_free(path);
}

static bool load_all(struct fwd *f, const struct model *m, struct progress *p, struct err *e)
{
    f->layers = mem_try_zalloc((size_t)f->arch.n_layers, sizeof *f->layers);
    if (!f->layers)
        return err_set(e, ERR_NOMEM, "no memory for %d layers", f->arch.n_layers);
    if (!load_slots(f, m, false, 0, p, e) || !load_positions(f, m, e) || !load_alibi(f, e))
        return false;
    for (int l = 0; l < f->arch.n_layers; l++)
        if (!load_slots(f, m, true, l, p, e))
            return false;
    if (!model_check_all_used(m, e))
        return false;
    report(p, p->total - p->done);
    return true;
}

static bool load_weights(struct fwd *f, const struct model *m, const struct fwd_opts *o, int64_t total, struct err *e)
{
    struct progress p = { .o = o, .total = total };
    struct err keep;
    open_packed(f, m, o, &p);
    bool ok = load_all(f, m, &p, e);
    fwd_carried_text(f->carried, f->formats, sizeof f->formats);
    if (!packed_writer_close(&p.writer, ok, &keep))
        snprintf(f->packed_state, sizeof f->packed_state, "%.199s", keep.msg);
    return ok;
}

static bool open_space(struct fwd *f, const struct model *m, const struct fwd_opts *o, struct err *e)
{
    const struct arch *a = &f->arch;
    size_t bytes = fwd_space_lay(&f->ws, NULL, a, o->max_tokens, o->max_logits);
    f->workspace = dev_alloc(f->d, bytes, e);
    if (!f->workspace)
        return err_prefix(e, "workspace for %d tokens a step", o->max_tokens);
    fwd_space_lay(&f->ws, f->workspace, a, o->max_tokens, o->max_logits);
    f->host_logits = f->ws.logits;
    f->host_hidden = f->ws.last_h;
    if (!dev_caps(f->d)->host_memory) {
        f->host_logits = mem_try_alloc((size_t)o->max_logits, (size_t)a->vocab_size * sizeof(float));
        f->host_hidden = mem_try_alloc((size_t)o->max_logits, (size_t)a->hidden * sizeof(float));
        if (!f->host_logits || !f->host_hidden)
            return err_set(e, ERR_NOMEM, "no memory for %d rows of logits", o->max_logits);
    }
    for (int i = 0; i < ARCH_N_ROPES; i++)
        if (a->rope[i].dim && !rope_open(&f->rope[i], f->d, &a->rope[i], o->max_tokens, o->max_model_len, e))
            return false;
    struct dev_kv_spec kv = {
        .n_layers = f->one_kv_layer ? 1 : a->n_layers, .n_kv_heads = a->n_kv_heads, .head_dim = a->head_dim, .n_blocks = o->n_blocks,
        .type = fwd_kv_type(m, o),
    };
    return dev_kv_open(f->d, &f->kv, &kv, e);
}

static bool check_opts(const struct arch *a, const struct fwd_opts *o, struct err *e)
{
    if (o->max_tokens < 1 || o->max_logits < 1 || o->n_blocks < 2 || o->max_model_len < 1)
        return err_set(e, ERR_INVALID, "forward pass: need at least 1 token and 1 row of logits a step, 2 pages and a length of 1; found %d, %d, %d, %d",
                       o->max_tokens, o->max_logits, o->n_blocks, o->max_model_len);
    if (a->pos == ARCH_POS_LEARNED && o->max_model_len > a->n_positions - a->position_offset)
        return err_set(e, ERR_INVALID, "a length of %d is beyond the %d positions that the model has learned", o->max_model_len,
                       a->n_positions - a->position_offset);
    return true;
}

bool fwd_open(struct fwd **out, struct dev *d, const struct model *m, const struct fwd_opts *o, struct err *e)
{
    *out = NULL;
    struct fwd_plan plan;
    if (!check_opts(model_arch(m), o, e) || !fwd_plan_bytes(&plan, m, o, e))
        return false;
    struct fwd *f = mem_try_zalloc(1, sizeof *f);
    if (!f)
        return err_set(e, ERR_NOMEM, "no memory for the forward pass");
    f->d = d;
    f->arch = *model_arch(m);
    f->max_tokens = o->max_tokens;
    f->max_logits = o->max_logits;
    /* What may be refused comes before what takes long. */
    if (!open_space(f, m, o, e) || !load_weights(f, m, o, (int64_t)plan.weight_bytes, e)) {
        fwd_close(&f);
        return false;
    }
    *out = f;
    return true;
}

static void free_slots(struct fwd *f, struct dev_weight **lin, float **vec)
{
    for (int s = 0; s < ARCH_LIN_COUNT; s++)
        dev_weight_free(f->d, &lin[s]);
    for (int s = 0; s < ARCH_VEC_COUNT; s++)
        dev_free(f->d, vec[s]);
}

static void free_layer(struct fwd *f, struct fwd_layer *l)
{
    free_slots(f, l->lin, l->vec);
    for (int i = 0; i < 3; i++)
        dev_weight_free(f->d, &l->qkv[i]);
    for (int i = 0; i < fwd_n_experts(&f->arch); i++) {
        if (l->expert_up)
            dev_weight_free(f->d, &l->expert_up[i]);
        if (l->expert_down)
            dev_weight_free(f->d, &l->expert_down[i]);
    }
    mem_free(l->expert_up);
    mem_free(l->expert_down);
}

void fwd_close(struct fwd **f)
{
    struct fwd *p = *f;
    *f = NULL;
    if (!p)
        return;
    free_slots(p, p->lin, p->vec);
    for (int l = 0; p->layers && l < p->arch.n_layers; l++)
        free_layer(p, &p->layers[l]);
    mem_free(p->layers);
    packed_close(&p->packed);
    dev_free(p->d, p->positions);
    dev_free(p->d, p->alibi);
    dev_kv_close(p->d, &p->kv);
    for (int i = 0; i < ARCH_N_ROPES; i++)
        rope_close(&p->rope[i]);
    if (p->host_logits != p->ws.logits)
        mem_free(p->host_logits);
    if (p->host_hidden != p->ws.last_h)
        mem_free(p->host_hidden);
    dev_free(p->d, p->workspace);
    mem_free(p);
}

bool fwd_open_bare(struct fwd **out, struct dev *d, const struct model *m, const struct fwd_opts *o, struct err *e)
{
    struct progress p = { .o = o };
    *out = NULL;
    if (!check_opts(model_arch(m), o, e))
        return false;
    struct fwd *f = mem_try_zalloc(1, sizeof *f);
    if (!f)
        return err_set(e, ERR_NOMEM, "no memory for the forward pass");
    f->d = d;
    f->arch = *model_arch(m);
    f->max_tokens = o->max_tokens;
    f->max_logits = o->max_logits;
    f->one_kv_layer = true;
    f->layers = mem_try_zalloc((size_t)f->arch.n_layers, sizeof *f->layers);
    bool ok = f->layers || err_set(e, ERR_NOMEM, "no memory for %d layers", f->arch.n_layers);
    if (!ok || !open_space(f, m, o, e) || !load_slots(f, m, false, 0, &p, e) || !load_positions(f, m, e) || !load_alibi(f, e)) {
        fwd_close(&f);
        return false;
    }
    *out = f;
    return true;
}

bool fwd_load_layer(struct fwd *f, const struct model *m, const struct fwd_opts *o, int layer, struct err *e)
{
    struct progress p = { .o = o };
    fwd_free_layer(f, layer);
    return load_slots(f, m, true, layer, &p, e);
}

void fwd_free_layer(struct fwd *f, int layer)
{
    free_layer(f, &f->layers[layer]);
    f->layers[layer] = (struct fwd_layer){ 0 };
}

const char *fwd_packed_state(const struct fwd *f)
{
    return f->packed_state;
}

const char *fwd_formats(const struct fwd *f)
{
    return f->formats;
}

int32_t fwd_vocab_size(const struct fwd *f)
{
    return f->arch.vocab_size;
}

int32_t fwd_hidden_size(const struct fwd *f)
{
    return f->arch.hidden;
}

uint64_t fwd_rope_key(const struct fwd *f, int32_t rope_len)
{
    uint64_t key = 0;
    for (int i = 0; i < ARCH_N_ROPES; i++)
        if (f->rope[i])
            key = hash_mix(key, rope_key(&f->arch.rope[i], rope_len));
    return key;
}

const float *fwd_hidden(const struct fwd *f)
{
    return f->host_hidden;
}

void fwd_copy_blocks(struct fwd *f, const int32_t *src, const int32_t *dst, int n)
{
    if (n > 0)
        dev_kv_copy(f->d, f->kv, src, dst, n);
}
