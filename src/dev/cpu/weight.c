/* dev/cpu/weight.c - packing matrices into panels. */
#include "dev/cpu/weight_int.h"

#include <assert.h>
#include <stdatomic.h>
#include <string.h>
#include "base/mem.h"
#include "dev/cpu/cpu_int.h"

enum { WEIGHT_MAP_BYTES = 1 << 20 };   /* from here on its own mapping with huge pages */

static const struct { const char *name; enum gemm_format gemm; enum dtype raw; } formats[DEV_FMT_COUNT] = {
    [DEV_FMT_F32] = {"f32", GEMM_F32, DT_F32},
    [DEV_FMT_F16] = {"f16", GEMM_F16, DT_F16},
    [DEV_FMT_BF16] = {"bf16", GEMM_BF16, DT_BF16},
    /* No stored type is packed as it is. */
    [DEV_FMT_I8] = {"int8", GEMM_I8, DT_COUNT},
    [DEV_FMT_I8_G16] = {"int8-g16", GEMM_I8_G16, DT_COUNT},
    [DEV_FMT_I8_G32] = {"int8-g32", GEMM_I8_G32, DT_COUNT},
    [DEV_FMT_I4] = {"int4", GEMM_I4, DT_COUNT},
    [DEV_FMT_U4_G32] = {"int4-g32", GEMM_U4_G32, DT_COUNT},
    [DEV_FMT_U4_G64] = {"int4-g64", GEMM_U4_G64, DT_COUNT},
    [DEV_FMT_U4_G128] = {"int4-g128", GEMM_U4_G128, DT_COUNT},
    [DEV_FMT_U8_G16] = {"uint8-g16", GEMM_U8_G16, DT_COUNT},
    [DEV_FMT_U8_G32] = {"uint8-g32", GEMM_U8_G32, DT_COUNT},
    [DEV_FMT_F8] = {"fp8", GEMM_F8, DT_COUNT},
    [DEV_FMT_F8_G128] = {"fp8-g128", GEMM_F8_G128, DT_COUNT},
};

const char *dev_format_name(enum dev_format f)
{
    return (unsigned)f < DEV_FMT_COUNT ? formats[f].name : "unknown";
}

bool dev_format_parse(const char *name, enum dev_format *out)
{
    for (int i = 0; i < DEV_FMT_COUNT; i++) {
        if (strcmp(name, formats[i].name) == 0) {
            *out = (enum dev_format)i;
            return true;
        }
    }
    return false;
}

bool dev_format_searches(enum dev_format f)
{
    return f == DEV_FMT_I4 || f == DEV_FMT_U4_G32 || f == DEV_FMT_U4_G64 || f == DEV_FMT_U4_G128;
}

/* Whole panels; a gated pair of h rows each takes as many as 2h plain rows do. */
static bool panel_sizes(const struct dev_weight_shape *s, int64_t *n_panels, size_t *bytes)
{
    size_t panels, bias_bytes = 0;
    if (s->n_out < 1 || s->k < 1 || s->n_out > INT64_MAX / 2 || s->k > INT32_MAX)
        return false;
    *n_panels = (s->n_out + GEMM_COLS - 1) / GEMM_COLS;
    if (!mem_mul((size_t)*n_panels, gemm_panel_bytes(formats[s->format].gemm, s->k), &panels))
        return false;
    if (s->bias && !mem_mul((size_t)*n_panels, GEMM_COLS * sizeof(float), &bias_bytes))
        return false;
    return mem_add(panels, bias_bytes, bytes) && (!s->ordered || mem_add(*bytes, (size_t)s->k * sizeof(int32_t), bytes));
}

size_t dev_weight_shape_bytes(const struct dev_weight_shape *s)
{
    int64_t n_panels;
    size_t bytes;
    assert((unsigned)s->format < DEV_FMT_COUNT);
    return panel_sizes(s, &n_panels, &bytes) ? bytes : 0;
}

size_t dev_weight_bytes(enum dev_format format, int64_t n_out, int64_t k, bool bias)
{
    return dev_weight_shape_bytes(&(struct dev_weight_shape){ .format = format, .n_out = n_out, .k = k, .bias = bias });
}

/* Where bias and order lie behind the panels. */
static void set_places(struct dev_weight *w, const struct dev_weight_shape *s)
{
    unsigned char *at = w->panels + (size_t)w->n_panels * w->panel_bytes;
    w->bias = s->bias ? (float *)(void *)at : NULL;
    at += s->bias ? (size_t)w->n_panels * GEMM_COLS * sizeof(float) : 0;
    w->order = s->ordered ? (int32_t *)(void *)at : NULL;
}

int64_t dev_weight_rows(const struct dev_weight *w)
{
    return w->n_out;
}

int64_t dev_weight_cols(const struct dev_weight *w)
{
    return w->k;
}

void dev_weight_free(struct dev *d, struct dev_weight **wp)
{
    struct dev_weight *w = *wp;
    (void)d;
    if (!w)
        return;
    if (w->mapped)
        mem_unmap(w->panels, w->bytes);
    else if (!w->borrowed)
        mem_free(w->panels);
    mem_free(w);
    *wp = NULL;
}

struct pack_job {
    struct dev_weight *w;
    const struct dev_weight_spec *spec;
    enum dtype raw;
    unsigned char *rows;     /* [member][member_bytes]: values [GEMM_COLS][k], or codes */
    size_t member_bytes;
    atomic_bool overflow;    /* a scale is beyond the format's type */
};

/* n stored rows from row0 of one part into columns from col0. */
static void pack_part(struct pack_job *j, const struct tensor_rows *part, int64_t row0, int n, void *panel, int col0, void *work)
{
    const struct dev_weight *w = j->w;
    float *rows = work;
    if (j->spec->codes) {
        if (!dev_cpu_pack_codes(w, part, row0, n, panel, col0, work))
            atomic_store(&j->overflow, true);
        return;
    }
    if (part->raw && part->dtype == j->raw) {
        const char *raw = (const char *)part->raw + (size_t)row0 * part->raw_stride_bytes;
        gemm_pack_raw(w->format, panel, col0, n, w->k, raw, part->raw_stride_bytes);
        return;
    }
    part->read(part, row0, n, rows);
    gemm_pack(w->format, panel, col0, n, w->k, rows, w->k, j->spec->importance);
}

/* The rows [first, first + n) of the stacked matrix into columns from col0: one or more parts. */
static void pack_rows(struct pack_job *j, int64_t first, int n, void *panel, int col0, void *rows)
{
    for (int i = 0; i < j->spec->n_parts && n > 0; i++) {
        const struct tensor_rows *part = &j->spec->parts[i];
        if (first >= part->n_rows) {
            first -= part->n_rows;
            continue;
        }
        int take = part->n_rows - first < n ? (int)(part->n_rows - first) : n;
        pack_part(j, part, first, take, panel, col0, rows);
        col0 += take;
        n -= take;
        first = 0;
    }
}

/* Bias of the same rows as pack_rows. */
static void pack_bias(const struct pack_job *j, int64_t panel, int64_t first, int n, int col0)
{
    if (j->w->bias)
        memcpy(j->w->bias + panel * GEMM_COLS + col0, j->spec->bias + first, (size_t)n * sizeof(float));
}

static void pack_panel(void *ctx, int64_t p, int member)
{
    struct pack_job *j = ctx;
    const struct dev_weight *w = j->w;
    void *panel = w->panels + (size_t)p * w->panel_bytes;
    void *rows = j->rows + (size_t)member * j->member_bytes;
    int halves = w->gated ? 2 : 1, width = GEMM_COLS / halves;
    int64_t part_rows = w->n_out / halves, first = p * width;
    int n = part_rows - first < width ? (int)(part_rows - first) : width;
    for (int h = 0; h < halves; h++) {
        pack_rows(j, h * part_rows + first, n, panel, h * width, rows);
        pack_bias(j, p, h * part_rows + first, n, h * width);
    }
}

static bool check_spec(const struct dev_weight_spec *s, const char *name, int64_t *n_out, int64_t *k, struct err *e)
{
    if ((unsigned)s->format >= DEV_FMT_COUNT)
        return err_set(e, ERR_INVALID, "weight %s: format %d is unknown", name, (int)s->format);
    if (s->n_parts < 1)
        return err_set(e, ERR_INVALID, "weight %s: it has no parts", name);
    *n_out = 0;
    *k = s->parts[0].n_cols;
    for (int i = 0; i < s->n_parts; i++) {
        const struct tensor_rows *part = &s->parts[i];
        if (part->n_rows < 1 || part->n_cols < 1 || part->n_rows > INT32_MAX || part->n_cols > INT32_MAX)
            return err_set(e, ERR_INVALID, "weight %s: part %d has %lld rows and %lld columns; both must be 1 to %d", name, i,
                           (long long)part->n_rows, (long long)part->n_cols, INT32_MAX);
        if (part->n_cols != *k)
            return err_set(e, ERR_INVALID, "weight %s: part %d has %lld columns, the first one %lld", name, i,
                           (long long)part->n_cols, (long long)*k);
        *n_out += part->n_rows;
    }
    if (s->gated && (s->n_parts != 2 || s->parts[0].n_rows != s->parts[1].n_rows))
        return err_set(e, ERR_INVALID, "weight %s: a gated pair needs two parts of as many rows", name);
    return true;
}

/* Memory for the panels and, zeroed with them, their padding. */
static bool weight_alloc(struct dev_weight *w)
{
    w->mapped = w->bytes >= WEIGHT_MAP_BYTES;
    w->panels = w->mapped ? mem_try_map(w->bytes) : mem_try_aligned(w->bytes);
    return w->panels != NULL;
}

/* Bytes that a member needs to pack a panel. */
static bool member_bytes(const struct dev_weight_spec *s, int64_t k, size_t *bytes)
{
    if (!mem_mul((size_t)k * sizeof(float), GEMM_COLS, bytes))
        return false;
    for (int i = 0; s->codes && i < s->n_parts; i++) {
        size_t part = dev_cpu_codes_bytes(s->parts[i].quant, k, GEMM_COLS);
        *bytes = part > *bytes ? part : *bytes;
    }
    *bytes = (*bytes + 63) & ~(size_t)63;
    return true;
}

static bool weight_fill(struct dev *d, struct dev_weight *w, const struct dev_weight_spec *s, const char *name, struct err *e)
{
    struct pack_job job = { .w = w, .spec = s, .raw = formats[s->format].raw };
    if (w->order && !dev_cpu_codes_order(s->parts[0].quant, w->k, w->order))
        return err_set(e, ERR_INTERNAL, "weight %s: its groups of columns differ in size", name);
    if (!member_bytes(s, w->k, &job.member_bytes) || !(job.rows = mem_try_alloc((size_t)dev_caps(d)->n_threads, job.member_bytes)))
        return err_set(e, ERR_NOMEM, "weight %s: no memory to pack %lld x %lld as %s", name, (long long)w->n_out, (long long)w->k,
                       dev_format_name(s->format));
    dev_for(d, w->n_panels, pack_panel, &job);
    mem_free(job.rows);
    if (atomic_load(&job.overflow))
        return err_set(e, ERR_UNSUPPORTED, "weight %s: it has scales beyond F16, in which %s keeps them; load it with --quantization none", name,
                       dev_format_name(s->format));
    return true;
}

bool dev_weight_pack(struct dev *d, struct dev_weight **out, const struct dev_weight_spec *s, const char *name, struct err *e)
{
    *out = NULL;
    int64_t n_out = 0, k = 0;
    if (!check_spec(s, name, &n_out, &k, e))
        return false;
    struct dev_weight_shape shape = {
        .format = s->format, .n_out = n_out, .k = k, .bias = s->bias != NULL, .ordered = s->codes && s->parts[0].quant->column_groups,
    };
    struct dev_weight *w = mem_try_zalloc(1, sizeof *w);
    if (!w)
        return err_set(e, ERR_NOMEM, "out of memory");
    w->format = formats[s->format].gemm;
    w->gated = s->gated;
    w->n_out = n_out;
    w->k = k;
    w->panel_bytes = gemm_panel_bytes(w->format, k);
    if (!panel_sizes(&shape, &w->n_panels, &w->bytes) || !weight_alloc(w)) {
        err_set(e, ERR_NOMEM, "weight %s: no memory to pack %lld x %lld as %s", name, (long long)n_out, (long long)k, dev_format_name(s->format));
        mem_free(w);
        return false;
    }
    set_places(w, &shape);
    if (!weight_fill(d, w, s, name, e)) {
        dev_weight_free(d, &w);
        return false;
    }
    *out = w;
    return true;
}

/* ---- images ---- */

const void *dev_weight_image(const struct dev_weight *w, size_t *bytes)
{
    *bytes = w->bytes;
    return w->panels;
}

/* Raise the number whenever panels change their layout. */
const char *dev_weight_layout(const struct dev *d)
{
    (void)d;
    return "cpu panels of 32, layout 7";
}

bool dev_weight_from_image(struct dev *d, struct dev_weight **out, const struct dev_weight_shape *s, const void *image, size_t bytes, struct err *e)
{
    (void)d;
    *out = NULL;
    struct dev_weight *w = mem_try_zalloc(1, sizeof *w);
    if (!w)
        return err_set(e, ERR_NOMEM, "out of memory");
    w->format = formats[s->format].gemm;
    w->gated = s->gated;
    w->n_out = s->n_out;
    w->k = s->k;
    w->panel_bytes = gemm_panel_bytes(w->format, s->k);
    w->borrowed = true;
    if (!panel_sizes(s, &w->n_panels, &w->bytes) || w->bytes != bytes || (uintptr_t)image % GEMM_ALIGN) {
        mem_free(w);
        return err_set(e, ERR_FORMAT, "an image of %zu bytes is not %lld x %lld in %s", bytes, (long long)s->n_out, (long long)s->k,
                       dev_format_name(s->format));
    }
    w->panels = (unsigned char *)(uintptr_t)image; /* read only from here on */
    set_places(w, s);
    *out = w;
    return true;
}
