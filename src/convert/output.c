/* The shards: every tensor's place is known before the first is written. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/buf.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/vec.h"
#include "convert/convert_int.h"

enum { NO_LAYER = -2 };

/* ---- what there is ---- */

static struct out_tensor *add(struct convert *c, const char *name, const char *suffix, struct err *e)
{
    if (!vec_reserve((void **)&c->out.tensors, &c->out.cap_tensors, c->out.n_tensors + 1, sizeof *c->out.tensors)) {
        err_set(e, ERR_NOMEM, "no memory for the list of tensors");
        return NULL;
    }
    struct out_tensor *t = &c->out.tensors[c->out.n_tensors++];
    *t = (struct out_tensor){ .unit = -1, .layer = NO_LAYER };
    snprintf(t->name, sizeof t->name, "%s%s", name, suffix);
    return t;
}

static bool add_part(struct convert *c, size_t unit, int mat, const char *suffix, int what, enum dtype type, int64_t d0, int64_t d1, struct err *e)
{
    const struct unit *u = &c->units[unit];
    struct out_tensor *t = add(c, u->mats[mat].name, suffix, e);
    if (!t)
        return false;
    t->dtype = type;
    t->n_dims = d1 ? 2 : 1;
    t->dims[0] = d0;
    t->dims[1] = d1;
    t->bytes = (size_t)(d0 * (d1 ? d1 : 1)) * dtype_bytes(type);
    t->unit = (int64_t)unit;
    t->mat = mat;
    t->what = what;
    t->layer = u->layer;
    return true;
}

/* The tensors that a rounded matrix is stored in. */
static bool add_matrix(struct convert *c, size_t unit, int mat, struct err *e)
{
    const struct unit *u = &c->units[unit];
    int64_t rows = u->mats[mat].rows, cols = u->cols;
    if (u->format == CONVERT_INT8 || u->format == CONVERT_FP8)
        return add_part(c, unit, mat, ".weight", OUT_CODES, u->format == CONVERT_INT8 ? DT_I8 : DT_F8_E4M3, rows, cols, e)
            && add_part(c, unit, mat, ".weight_scale", OUT_SCALE, DT_F32, rows, 1, e);
    int64_t each = u->format == CONVERT_INT4 ? 8 : 4, groups = u->group > 0 ? cols / u->group : 1;
    enum dtype scale = u->mats[0].dtype == DT_BF16 ? DT_BF16 : DT_F16;
    return add_part(c, unit, mat, ".weight_packed", OUT_CODES, DT_I32, rows, (cols + each - 1) / each, e)
        && add_part(c, unit, mat, ".weight_scale", OUT_SCALE, scale, rows, groups, e)
        && add_part(c, unit, mat, ".weight_shape", OUT_SHAPE, DT_I64, 2, 0, e)
        && (c->o->symmetric || add_part(c, unit, mat, ".weight_zero_point", OUT_ZERO, DT_I32, (rows + each - 1) / each, groups, e));
}

static bool put(struct hash_map *map, const char *name, const char *suffix, int64_t value)
{
    char full[CONVERT_NAME + 16];
    int n = snprintf(full, sizeof full, "%s%s", name, suffix);
    return hash_map_put(map, full, (size_t)n, value);
}

/* Stored names: weights of linears as 4 * unit + matrix; what a layer may change as -layer - 10. */
static bool map_names(const struct convert *c, struct hash_map *map, struct err *e)
{
    bool ok = true;
    for (size_t i = 0; i < c->n_units; i++)
        for (int j = 0; j < c->units[i].n_mats; j++) {
            ok = ok && put(map, c->units[i].mats[j].name, ".weight", (int64_t)i * 4 + j);
            ok = ok && (c->units[i].layer == CONVERT_HEAD || put(map, c->units[i].mats[j].name, ".bias", -c->units[i].layer - 10));
        }
    static const enum arch_vector norms[] = { ARCH_VEC_NORM1, ARCH_VEC_NORM1_BIAS, ARCH_VEC_NORM2, ARCH_VEC_NORM2_BIAS };
    for (int l = 0; l < c->arch->n_layers; l++)
        for (size_t v = 0; v < sizeof norms / sizeof *norms; v++) {
            char name[256];
            if (c->arch->vector[norms[v]] && model_vector_name(c->m, norms[v], l, name, NULL))
                ok = ok && put(map, name, "", -l - 10);
        }
    return ok || err_set(e, ERR_NOMEM, "no memory for the names of tensors");
}

static bool add_stored(struct convert *c, const struct tensor *t, const struct hash_map *map, struct err *e)
{
    int64_t v = INT64_MIN;
    hash_map_get(map, t->name, strlen(t->name), &v);
    c->r->bytes_before += (int64_t)t->bytes;
    if (v >= 0 && c->units[v / 4].format != CONVERT_NONE)
        return add_matrix(c, (size_t)(v / 4), (int)(v % 4), e);
    struct out_tensor *out = add(c, t->name, "", e);
    if (!out)
        return false;
    out->raw = t;
    out->dtype = t->dtype;
    out->n_dims = t->n_dims;
    memcpy(out->dims, t->dims, sizeof out->dims);
    out->bytes = t->bytes;
    if (v >= 0) {
        out->unit = v / 4;
        out->mat = (int)(v % 4);
        out->layer = c->units[v / 4].layer;
        out->transposed = c->units[v / 4].mats[v % 4].transposed;
    } else if (v != INT64_MIN) {
        out->layer = (int)(-v - 10);
    }
    return true;
}

/* ---- where it goes ---- */

static bool cut_shards(struct convert *c, struct err *e)
{
    struct output *o = &c->out;
    int64_t in_shard = 0;
    o->n_shards = 1;
    for (size_t i = 0; i < o->n_tensors; i++) {
        if (in_shard > 0 && in_shard + (int64_t)o->tensors[i].bytes > c->o->max_shard_bytes) {
            o->n_shards++;
            in_shard = 0;
        }
        in_shard += (int64_t)o->tensors[i].bytes;
        o->tensors[i].shard = o->n_shards - 1;
        c->r->bytes_after += (int64_t)o->tensors[i].bytes;
    }
    c->r->n_shards = o->n_shards;
    o->shards = mem_try_zalloc((size_t)o->n_shards, sizeof *o->shards);
    if (!o->shards || o->n_shards > 4096)
        return err_set(e, ERR_INVALID, "%d shards are too many: raise the size of one", o->n_shards);
    for (int s = 0; s < o->n_shards; s++) {
        o->shards[s].fd = -1;
        if (o->n_shards == 1)
            snprintf(o->shards[s].name, sizeof o->shards[s].name, "model.safetensors");
        else
            snprintf(o->shards[s].name, sizeof o->shards[s].name, "model-%05d-of-%05d.safetensors", s + 1, o->n_shards);
        snprintf(o->shards[s].part, sizeof o->shards[s].part, "%s.part", o->shards[s].name);
    }
    return true;
}

/* Wider types first, so that each tensor is aligned to its type: readers that map files ask for it. */
static bool lay_shard(struct convert *c, int s, struct err *e)
{
    struct shard *shard = &c->out.shards[s];
    struct buf b;
    buf_init(&b, 0);
    buf_puts(&b, "{\"__metadata__\":{\"format\":\"pt\"}");
    for (size_t width = 8; width > 0; width /= 2) {
        for (size_t i = 0; i < c->out.n_tensors; i++) {
            struct out_tensor *t = &c->out.tensors[i];
            if (t->shard != s || dtype_bytes(t->dtype) != width)
                continue;
            t->offset = shard->data_bytes;
            shard->data_bytes += t->bytes;
            buf_putc(&b, ',');
            json_write_str(&b, t->name, strlen(t->name));
            buf_printf(&b, ":{\"dtype\":\"%s\",\"shape\":[", dtype_name(t->dtype));
            for (int d = 0; d < t->n_dims; d++)
                buf_printf(&b, "%s%lld", d ? "," : "", (long long)t->dims[d]);
            buf_printf(&b, "],\"data_offsets\":[%zu,%zu]}", t->offset, shard->data_bytes);
        }
    }
    buf_putc(&b, '}');
    while (!b.failed && b.len % 8)
        buf_putc(&b, ' ');
    shard->header_bytes = b.len;
    shard->header = buf_take(&b);
    return shard->header || err_set(e, ERR_NOMEM, "no memory for the header of %s", shard->name);
}

bool convert_output_lay(struct convert *c, struct err *e)
{
    struct hash_map *map = hash_map_open(1024, HASH_MAP_COPY_KEYS);
    bool ok = map ? map_names(c, map, e) : err_set(e, ERR_NOMEM, "no memory for the names of tensors");
    c->out.dst = c->o->dst;
    for (size_t i = 0; ok && i < model_tensor_count(c->m); i++)
        ok = add_stored(c, model_tensor_at(c->m, i, NULL), map, e);
    hash_map_close(&map);
    ok = ok && cut_shards(c, e);
    for (int s = 0; ok && s < c->out.n_shards; s++)
        ok = lay_shard(c, s, e);
    return ok;
}

/* ---- writing ---- */

static bool io_error(const char *dir, const char *name, const char *what, struct err *e)
{
    return err_set(e, ERR_IO, "%s/%s: cannot %s: %s", dir, name, what, strerror(errno));
}

static bool write_at(const struct output *o, const struct shard *s, const void *data, size_t n, size_t at, struct err *e)
{
    const char *p = data;
    while (n > 0) {
        ssize_t put_bytes = pwrite(s->fd, p, n, (off_t)at);
        if (put_bytes < 0 && errno == EINTR)
            continue;
        if (put_bytes <= 0)
            return io_error(o->dst, s->part, "write", e);
        p += put_bytes;
        at += (size_t)put_bytes;
        n -= (size_t)put_bytes;
    }
    return true;
}

static bool open_shard(const struct output *o, struct shard *s, bool resume, struct err *e)
{
    unsigned char len[8];
    char *path = file_join(o->dst, s->part);
    if (!path)
        return err_set(e, ERR_NOMEM, "no memory for a path");
    char *finished = file_join(o->dst, s->name);
    /* The run was stopped among its last steps. */
    if (resume && finished && !file_exists(path) && file_exists(finished) && rename(finished, path) != 0)
        errno = ENOENT;
    mem_free(finished);
    s->fd = open(path, O_RDWR | O_CLOEXEC | (resume ? 0 : O_CREAT | O_TRUNC), 0666);
    mem_free(path);
    if (s->fd < 0)
        return io_error(o->dst, s->part, resume ? "open it to go on" : "create it", e);
    for (int i = 0; i < 8; i++)
        len[i] = (unsigned char)(s->header_bytes >> (8 * i));
    if (ftruncate(s->fd, (off_t)(8 + s->header_bytes + s->data_bytes)) != 0)
        return io_error(o->dst, s->part, "make room in it", e);
    return write_at(o, s, len, 8, 0, e) && write_at(o, s, s->header, s->header_bytes, 8, e);
}

bool convert_output_open(struct convert *c, bool resume, struct err *e)
{
    /* Of a run that was stopped at its very end: without it nothing takes the folder for a model. */
    char *config = file_join(c->out.dst, "config.json");
    if (!config)
        return err_set(e, ERR_NOMEM, "no memory for a path");
    int gone = unlink(config);
    mem_free(config);
    if (gone != 0 && errno != ENOENT)
        return io_error(c->out.dst, "config.json", "remove it", e);
    for (int s = 0; s < c->out.n_shards; s++)
        if (!open_shard(&c->out, &c->out.shards[s], resume, e))
            return false;
    return true;
}

/* Codes of one matrix, packed into words along columns: the lowest bits first, each code plus half its range. */
static void pack_codes(const struct unit *u, int mat, int bits, int64_t words, uint32_t *out)
{
    int64_t each = 32 / bits;
    memset(out, 0, (size_t)(u->mats[mat].rows * words) * sizeof *out);
    for (int64_t r = 0; r < u->mats[mat].rows; r++) {
        const int8_t *codes = u->codes.codes + (u->first_row[mat] + r) * u->cols;
        for (int64_t k = 0; k < u->cols; k++)
            out[r * words + k / each] |= (uint32_t)(codes[k] + (1 << (bits - 1))) << (k % each * bits);
    }
}

/* Zeros likewise, but along rows. */
static void pack_zeros(const struct unit *u, int mat, int bits, uint32_t *out)
{
    int64_t each = 32 / bits, groups = u->codes.n_groups, rows = u->mats[mat].rows;
    memset(out, 0, (size_t)((rows + each - 1) / each * groups) * sizeof *out);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t g = 0; g < groups; g++) {
            int zero = u->codes.zeros[(u->first_row[mat] + r) * groups + g];
            out[r / each * groups + g] |= (uint32_t)(zero + (1 << (bits - 1))) << (r % each * bits);
        }
}

static void fill(const struct out_tensor *t, const struct unit *u, void *out)
{
    int bits = u->format == CONVERT_INT4 ? 4 : 8;
    int64_t row = u->first_row[t->mat], rows = u->mats[t->mat].rows, groups = u->codes.n_groups;
    bool packed = t->dtype == DT_I32;
    switch (t->what) {
    case OUT_CODES:
        if (packed)
            pack_codes(u, t->mat, bits, t->dims[1], out);
        else
            memcpy(out, u->codes.codes + row * u->cols, t->bytes);
        break;
    case OUT_SCALE: convert_from_f32(t->dtype, u->codes.scales + row * groups, (size_t)(rows * groups), out); break;
    case OUT_ZERO: pack_zeros(u, t->mat, bits, out); break;
    case OUT_SHAPE: memcpy(out, (int64_t[2]){ rows, u->cols }, 2 * sizeof(int64_t)); break;
    }
}

/* A linear that is stored as it was, but whose columns or rows were scaled. */
static void fill_changed(const struct out_tensor *t, const struct unit *u, void *out)
{
    const float *w = u->w + u->first_row[t->mat] * u->cols;
    int64_t rows = u->mats[t->mat].rows;
    if (!t->transposed) {
        convert_from_f32(t->dtype, w, (size_t)(rows * u->cols), out);
        return;
    }
    for (int64_t k = 0; k < u->cols; k++)
        for (int64_t r = 0; r < rows; r++)
            convert_from_f32(t->dtype, w + r * u->cols + k, 1, (char *)out + (size_t)(k * rows + r) * dtype_bytes(t->dtype));
}

static bool write_tensor(struct convert *c, const struct out_tensor *t, struct err *e)
{
    const struct shard *s = &c->out.shards[t->shard];
    const struct unit *u = t->unit >= 0 ? &c->units[t->unit] : NULL;
    const struct changed *other = NULL;
    size_t at = 8 + s->header_bytes + t->offset;
    for (size_t i = 0; i < c->n_changed && !u; i++)
        if (strcmp(c->changed[i].name, t->name) == 0)
            other = &c->changed[i];
    if (t->raw && !other && !(u && u->changed))
        return write_at(&c->out, s, t->raw->data, t->bytes, at, e);
    void *out = mem_try_alloc(t->bytes ? t->bytes : 1, 1);
    if (!out)
        return err_set(e, ERR_NOMEM, "no memory for tensor %s", t->name);
    if (other)
        convert_from_f32(t->dtype, other->values, (size_t)other->n, out);
    else if (t->raw)
        fill_changed(t, u, out);
    else
        fill(t, u, out);
    bool ok = write_at(&c->out, s, out, t->bytes, at, e);
    mem_free(out);
    return ok;
}

bool convert_output_write(struct convert *c, int layer, struct err *e)
{
    for (size_t i = 0; i < c->out.n_tensors; i++)
        if (c->out.tensors[i].layer == layer && !write_tensor(c, &c->out.tensors[i], e))
            return false;
    return true;
}

bool convert_output_sync(struct convert *c, struct err *e)
{
    for (int s = 0; s < c->out.n_shards; s++)
        if (fsync(c->out.shards[s].fd) != 0)
            return io_error(c->out.dst, c->out.shards[s].part, "write", e);
    return true;
}

/* ---- the end ---- */

static bool write_index(struct convert *c, struct err *e)
{
    const struct output *o = &c->out;
    struct buf b;
    if (o->n_shards == 1)
        return true;
    buf_init(&b, 0);
    buf_printf(&b, "{\"metadata\":{\"total_size\":%lld},\"weight_map\":{", (long long)c->r->bytes_after);
    for (size_t i = 0; i < o->n_tensors; i++) {
        buf_puts(&b, i ? ",\n" : "\n");
        json_write_str(&b, o->tensors[i].name, strlen(o->tensors[i].name));
        buf_printf(&b, ":\"%s\"", o->shards[o->tensors[i].shard].name);
    }
    buf_puts(&b, "\n}}\n");
    char *path = file_join(o->dst, "model.safetensors.index.json");
    bool ok = path && !b.failed ? file_write_atomic(path, b.data, b.len, e) : err_set(e, ERR_NOMEM, "no memory for the index of tensors");
    mem_free(path);
    buf_free(&b);
    return ok;
}

static bool rename_shard(const struct output *o, const struct shard *s, struct err *e)
{
    char *from = file_join(o->dst, s->part), *to = file_join(o->dst, s->name);
    bool ok = from && to ? rename(from, to) == 0 || io_error(o->dst, s->part, "rename", e) : err_set(e, ERR_NOMEM, "no memory for a path");
    mem_free(from);
    mem_free(to);
    return ok;
}

bool convert_output_finish(struct convert *c, struct err *e)
{
    if (!convert_output_sync(c, e))
        return false;
    for (int s = 0; s < c->out.n_shards; s++)
        if (!rename_shard(&c->out, &c->out.shards[s], e))
            return false;
    /* config.json last: with it the folder is a model. */
    if (!write_index(c, e) || !convert_copy_files(c, e) || !convert_write_config(c, e))
        return false;
    convert_state_remove(c->out.dst);
    return true;
}

void convert_output_close(struct convert *c)
{
    for (int s = 0; c->out.shards && s < c->out.n_shards; s++) {
        if (c->out.shards[s].fd >= 0)
            close(c->out.shards[s].fd);
        mem_free(c->out.shards[s].header);
    }
    mem_free(c->out.shards);
    mem_free(c->out.tensors);
    c->out = (struct output){ 0 };
}
