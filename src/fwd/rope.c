#include "fwd/rope.h"
#include <math.h>
#include <string.h>
#include "base/mem.h"

/* Rows kept: at most so many bytes a table. */
enum { TABLE_BYTES = 32 << 20, N_SLOTS = 8, ROWS_PER_ITEM = 16 };

static const double PI = 3.14159265358979323846;

uint64_t rope_key(const struct arch_rope *r, int32_t rope_len)
{
    if (r->scaling == ARCH_ROPE_DYNAMIC)
        return rope_len > r->original_len ? (uint64_t)rope_len : 0;
    return r->scaling == ARCH_ROPE_LONGROPE && rope_len > r->original_len;
}

/* Double arithmetic rounded to float32 where the reference holds a float32. */
static void plain(double theta, int n, float *inv)
{
    for (int i = 0; i < n; i++)
        inv[i] = 1.0f / (float)pow(theta, (float)(2 * i) / (float)(2 * n));
}

static void scale_llama3(const struct arch_rope *r, int n, float *inv)
{
    double low = r->original_len / r->low_freq_factor, high = r->original_len / r->high_freq_factor;
    for (int i = 0; i < n; i++) {
        float wavelength = (float)(2.0 * PI / inv[i]);
        if (wavelength < high)
            continue;
        float stretched = (float)(inv[i] / r->factor);
        if (wavelength > low) {
            inv[i] = stretched;
        } else {
            float smooth = (float)((r->original_len / wavelength - r->low_freq_factor) / (r->high_freq_factor - r->low_freq_factor));
            inv[i] = (1.0f - smooth) * stretched + smooth * inv[i];
        }
    }
}

/* The dim (of dim/2 pairs) that turns this many times within the original length. */
static double yarn_dim(const struct arch_rope *r, double turns)
{
    return r->dim * log(r->original_len / (turns * 2.0 * PI)) / (2.0 * log(r->theta));
}

static void scale_yarn(const struct arch_rope *r, int n, float *inv)
{
    double low = yarn_dim(r, r->beta_fast), high = yarn_dim(r, r->beta_slow);
    if (r->yarn_truncate) {
        low = floor(low);
        high = ceil(high);
    }
    low = low > 0 ? low : 0;
    high = high < r->dim - 1 ? high : r->dim - 1;
    if (low == high)
        high += 0.001;
    for (int i = 0; i < n; i++) {
        float ramp = (float)((i - low) / (high - low));
        ramp = ramp < 0 ? 0 : ramp > 1 ? 1 : ramp;
        float stretched = (float)(inv[i] / r->factor), keep = 1.0f - ramp;
        inv[i] = stretched * (1.0f - keep) + inv[i] * keep;
    }
}

void rope_frequencies(const struct arch_rope *r, int32_t rope_len, float *inv)
{
    int n = r->dim / 2;
    double theta = r->theta;
    if (r->scaling == ARCH_ROPE_DYNAMIC && rope_len > r->original_len && r->dim > 2)
        theta *= pow(r->factor * rope_len / r->original_len - (r->factor - 1.0), (double)r->dim / (r->dim - 2));
    plain(theta, n, inv);
    if (r->scaling == ARCH_ROPE_LINEAR) {
        for (int i = 0; i < n; i++)
            inv[i] = (float)(inv[i] / r->factor);
    } else if (r->scaling == ARCH_ROPE_LLAMA3) {
        scale_llama3(r, n, inv);
    } else if (r->scaling == ARCH_ROPE_YARN) {
        scale_yarn(r, n, inv);
    } else if (r->scaling == ARCH_ROPE_LONGROPE) {
        const float *by = rope_key(r, rope_len) ? r->long_factor : r->short_factor;
        for (int i = 0; i < n; i++)
            inv[i] = 1.0f / (by[i] * (float)pow(theta, (float)(2 * i) / (float)(2 * n)));
    }
}

/* One set of frequencies, and the rows computed with it so far. */
struct slot {
    uint64_t key;
    bool used;
    float inv[ARCH_MAX_ROPE_DIM / 2];
    float *rows;              /* [table_len][dim]: cos then sin; NULL: nothing kept */
    unsigned char *have;      /* [table_len] */
};

struct rope {
    struct dev *d;
    const struct arch_rope *r;
    int32_t half, max_tokens, table_len;
    size_t table_bytes;
    float *cos, *sin;         /* [max_tokens][half] */
    const struct slot **of;   /* [max_tokens]: the slot of each row of the step */
    const int32_t *positions; /* of the step */
    int32_t n_tokens;
    struct slot slots[N_SLOTS];
    int next_slot;
};

/* Scalings by length have a table for the first two keys only: short and long of longrope, or dynamic within its
 * original length. */
static int n_tables(const struct arch_rope *r)
{
    return r->scaling == ARCH_ROPE_LONGROPE ? 2 : 1;
}

static int32_t table_len(const struct arch_rope *r, int32_t max_len)
{
    int64_t fits = TABLE_BYTES / ((int64_t)r->dim * 4);
    return max_len < fits ? max_len : (int32_t)fits;
}

size_t rope_bytes(const struct arch_rope *r, int32_t max_tokens, int32_t max_len)
{
    return (size_t)max_tokens * ((size_t)r->dim * 4 + sizeof(void *))
         + (size_t)n_tables(r) * (size_t)table_len(r, max_len) * ((size_t)r->dim * 4 + 1);
}

bool rope_open(struct rope **out, struct dev *d, const struct arch_rope *r, int32_t max_tokens, int32_t max_len, struct err *e)
{
    *out = NULL;
    struct rope *p = mem_try_zalloc(1, sizeof *p);
    if (!p)
        return err_set(e, ERR_NOMEM, "no memory for rotary tables");
    p->d = d;
    p->r = r;
    p->half = r->dim / 2;
    p->max_tokens = max_tokens;
    p->table_len = table_len(r, max_len);
    p->table_bytes = (size_t)p->table_len * (size_t)r->dim * 4;
    p->cos = mem_try_alloc((size_t)max_tokens, (size_t)p->half * 4);
    p->sin = mem_try_alloc((size_t)max_tokens, (size_t)p->half * 4);
    p->of = mem_try_zalloc((size_t)max_tokens, sizeof *p->of);
    bool ok = p->cos && p->sin && p->of;
    for (int i = 0; ok && i < n_tables(r); i++) {
        p->slots[i].rows = mem_try_map(p->table_bytes);   /* touched as positions come */
        p->slots[i].have = mem_try_zalloc((size_t)p->table_len, 1);
        ok = p->slots[i].rows && p->slots[i].have;
    }
    if (!ok) {
        rope_close(&p);
        return err_set(e, ERR_NOMEM, "no memory for rotary tables of %d tokens", (int)max_tokens);
    }
    *out = p;
    return true;
}

void rope_close(struct rope **r)
{
    struct rope *p = *r;
    *r = NULL;
    if (!p)
        return;
    for (int i = 0; i < N_SLOTS; i++) {
        if (p->slots[i].rows)
            mem_unmap(p->slots[i].rows, p->table_bytes);
        mem_free(p->slots[i].have);
    }
    mem_free(p->cos);
    mem_free(p->sin);
    mem_free(p->of);
    mem_free(p);
}

/* A slot keeps its key for the whole step only if no more keys than slots come; a step with more computes in between
 * (fill_some), so that no row is left with a slot that was given away. */
static const struct slot *find_slot(struct rope *p, int32_t rope_len, bool *evicts)
{
    uint64_t key = rope_key(p->r, rope_len);
    for (int i = 0; i < N_SLOTS; i++)
        if (p->slots[i].used && p->slots[i].key == key)
            return &p->slots[i];
    int tables = n_tables(p->r);
    int at = key < (uint64_t)tables ? (int)key : tables + p->next_slot;
    if (at >= tables) {
        if (p->slots[at].used && !*evicts) {
            *evicts = true;
            return NULL;
        }
        p->next_slot = (p->next_slot + 1) % (N_SLOTS - tables);
    }
    struct slot *s = &p->slots[at];
    rope_frequencies(p->r, rope_len, s->inv);
    s->key = key;
    s->used = true;
    return s;
}

static bool kept(const struct rope *p, const struct slot *s, int32_t pos)
{
    return s->have && pos < p->table_len && s->have[pos];
}

static void fill_row(struct rope *p, int64_t t)
{
    const struct slot *s = p->of[t];
    int32_t pos = p->positions[t], half = p->half;
    float *c = p->cos + t * half, *sn = p->sin + t * half, scale = (float)p->r->attn_factor;
    if (kept(p, s, pos)) {
        const float *row = s->rows + (size_t)pos * (size_t)half * 2;
        memcpy(c, row, (size_t)half * 4);
        memcpy(sn, row + half, (size_t)half * 4);
        return;
    }
    for (int32_t i = 0; i < half; i++) {
        double angle = (float)pos * s->inv[i];
        c[i] = (float)cos(angle) * scale;
        sn[i] = (float)sin(angle) * scale;
    }
}

static void fill_item(void *ctx, int64_t item, int member)
{
    (void)member;
    struct rope *p = ctx;
    int64_t end = (item + 1) * ROWS_PER_ITEM;
    for (int64_t t = item * ROWS_PER_ITEM; t < end && t < p->n_tokens; t++)
        if (p->of[t])
            fill_row(p, t);
}

static void keep_rows(struct rope *p)
{
    for (int32_t t = 0; t < p->n_tokens; t++) {
        const struct slot *s = p->of[t];
        int32_t pos = p->positions[t];
        if (!s || !s->have || pos >= p->table_len || s->have[pos])
            continue;
        float *row = s->rows + (size_t)pos * (size_t)p->half * 2;
        memcpy(row, p->cos + (int64_t)t * p->half, (size_t)p->half * 4);
        memcpy(row + p->half, p->sin + (int64_t)t * p->half, (size_t)p->half * 4);
        s->have[pos] = 1;
    }
}

/* Compute the rows that have a slot, then take it from them. */
static void fill_some(struct rope *p)
{
    int32_t fresh = 0;
    for (int32_t t = 0; t < p->n_tokens; t++)
        fresh += p->of[t] && !kept(p, p->of[t], p->positions[t]);
    int64_t n_items = (p->n_tokens + ROWS_PER_ITEM - 1) / ROWS_PER_ITEM;
    if ((int64_t)fresh * p->half >= 4096)
        dev_for(p->d, n_items, fill_item, p);
    else
        for (int64_t i = 0; i < n_items; i++)
            fill_item(p, i, 0);
    if (fresh)
        keep_rows(p);
    memset(p->of, 0, (size_t)p->n_tokens * sizeof *p->of);
}

void rope_fill(struct rope *r, const struct dev_batch *b, const int32_t *rope_len, const float **cos, const float **sin)
{
    r->positions = b->positions;
    r->n_tokens = b->n_tokens;
    for (int32_t s = 0; s < b->n_seqs; s++) {
        bool evicts = false;
        const struct slot *slot = find_slot(r, rope_len[s], &evicts);
        if (!slot) {
            fill_some(r);
            slot = find_slot(r, rope_len[s], &evicts);
        }
        for (int32_t t = b->seq_start[s]; t < b->seq_start[s + 1]; t++)
            r->of[t] = slot;
    }
    fill_some(r);
    *cos = r->cos;
    *sin = r->sin;
}
