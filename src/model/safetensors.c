#include "model/safetensors_int.h"
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include "base/json.h"
#include "base/mem.h"

enum { MAX_HEADER = 100000000 };   /* the limit of the format's own library */

static uint64_t read_u64(const unsigned char *p)
{
    uint64_t v = 0;
    for (int i = 7; i >= 0; i--)
        v = v << 8 | p[i];
    return v;
}

static bool read_shape(struct tensor *t, const json_t *shape, const char *file, struct err *e)
{
    size_t n = json_array_size(shape);
    if (!json_is_array(shape) || n > TENSOR_MAX_DIMS)
        return err_set(e, ERR_FORMAT, "%s: tensor %.200s: 'shape' must be a list of at most %d sizes", file, t->name, TENSOR_MAX_DIMS);
    t->n_dims = (int)n;
    for (size_t i = 0; i < n; i++) {
        const json_t *d = json_array_get(shape, i);
        if (!json_is_integer(d) || json_integer_value(d) < 0)
            return err_set(e, ERR_FORMAT, "%s: tensor %.200s: shape[%zu] must be a size, found %s", file, t->name, i, json_type_name(d));
        t->dims[i] = (int64_t)json_integer_value(d);
    }
    return true;
}

static bool read_tensor(struct tensor *t, const json_t *info, const unsigned char *data, size_t data_bytes, const char *file, struct err *e)
{
    const char *type = json_string_value(json_object_get(info, "dtype"));
    const json_t *offsets = json_object_get(info, "data_offsets");
    const json_t *from = json_array_get(offsets, 0), *to = json_array_get(offsets, 1);
    if (!json_is_object(info))
        return err_set(e, ERR_FORMAT, "%s: tensor %.200s: must be described by an object, found %s", file, t->name, json_type_name(info));
    if (!type || !dtype_parse(type, &t->dtype))
        return err_set(e, ERR_UNSUPPORTED, "%s: tensor %.200s: element type \"%.30s\" is not known", file, t->name, type ? type : "(none)");
    if (!read_shape(t, json_object_get(info, "shape"), file, e))
        return false;
    if (json_array_size(offsets) != 2 || !json_is_integer(from) || !json_is_integer(to))
        return err_set(e, ERR_FORMAT, "%s: tensor %.200s: 'data_offsets' must be two integers", file, t->name);
    int64_t begin = (int64_t)json_integer_value(from), end = (int64_t)json_integer_value(to);
    if (begin < 0 || end < begin || (uint64_t)end > data_bytes)
        return err_set(e, ERR_FORMAT, "%s: tensor %.200s: bytes %lld to %lld are not within the %zu bytes of data (is the file cut short?)",
                       file, t->name, (long long)begin, (long long)end, data_bytes);
    size_t count, bytes;
    if (!tensor_count(t, &count) || !mem_mul(count, dtype_bytes(t->dtype), &bytes))
        return err_set(e, ERR_FORMAT, "%s: tensor %.200s: the product of its shape is too large", file, t->name);
    if (bytes != (size_t)(end - begin))
        return err_set(e, ERR_FORMAT, "%s: tensor %.200s: its shape and type need %zu bytes, but it has %zu", file, t->name, bytes,
                       (size_t)(end - begin));
    t->data = data + begin;
    t->bytes = bytes;
    return true;
}

static int by_place(const void *a, const void *b)
{
    const struct tensor *x = a, *y = b;
    if (x->data != y->data)
        return (const unsigned char *)x->data < (const unsigned char *)y->data ? -1 : 1;
    return x->bytes < y->bytes ? -1 : x->bytes > y->bytes;
}

static bool check_overlap(struct safetensors *st, const char *file, struct err *e)
{
    qsort(st->tensors, st->n_tensors, sizeof *st->tensors, by_place);
    for (size_t i = 1; i < st->n_tensors; i++) {
        const struct tensor *a = &st->tensors[i - 1], *b = &st->tensors[i];
        if ((const unsigned char *)a->data + a->bytes > (const unsigned char *)b->data)
            return err_set(e, ERR_FORMAT, "%s: tensors %.150s and %.150s overlap", file, a->name, b->name);
    }
    return true;
}

/* Names live as long as the parsed header. */
static bool read_header(struct safetensors *st, json_t *header, const unsigned char *data, size_t data_bytes, const char *file, struct err *e)
{
    st->names = header;
    if (!json_is_object(header))
        return err_set(e, ERR_FORMAT, "%s: the header must be a JSON object, found %s", file, json_type_name(header));
    st->tensors = mem_try_zalloc(json_object_size(header), sizeof *st->tensors);
    if (!st->tensors)
        return err_set(e, ERR_NOMEM, "%s: no memory for %zu tensors", file, json_object_size(header));
    const char *name;
    json_t *info;
    json_object_foreach(header, name, info) {
        if (strcmp(name, "__metadata__") == 0)
            continue;
        struct tensor *t = &st->tensors[st->n_tensors++];
        t->name = name;
        if (!read_tensor(t, info, data, data_bytes, file, e))
            return false;
    }
    return check_overlap(st, file, e);
}

bool safetensors_parse(struct safetensors *st, const unsigned char *data, size_t size, const char *file, struct err *e)
{
    *st = (struct safetensors){ 0 };
    if (size < 8)
        return err_set(e, ERR_FORMAT, "%s: %zu bytes are too few for a safetensors file", file, size);
    uint64_t header_bytes = read_u64(data);
    if (header_bytes > MAX_HEADER || header_bytes > size - 8)
        return err_set(e, ERR_FORMAT, "%s: a header of %llu bytes does not fit the file of %zu bytes (not a safetensors file, or cut short)",
                       file, (unsigned long long)header_bytes, size);
    json_error_t je;
    json_t *header = json_loadb((const char *)data + 8, (size_t)header_bytes, JSON_REJECT_DUPLICATES, &je);
    if (!header)
        return err_set(e, ERR_FORMAT, "%s: header at byte %d: %.300s", file, je.position, je.text);
    if (read_header(st, header, data + 8 + header_bytes, size - 8 - (size_t)header_bytes, file, e))
        return true;
    safetensors_free(st);
    return false;
}

void safetensors_free(struct safetensors *st)
{
    mem_free(st->tensors);
    json_decref(st->names);
    *st = (struct safetensors){ 0 };
}
