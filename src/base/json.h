/* base/json.h - typed, checked access to JSON (jansson behind it).
 *
 * Jansson's json_t is used as it is; these helpers add what each caller would repeat:
 * limits, errors that name the field, and defaults.  "Wrong type" is always an error
 * (ERR_INVALID); a missing or null key gives the default. */
#ifndef QUIRE_BASE_JSON_H
#define QUIRE_BASE_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/err.h"

struct buf;

/* Parse text of len bytes; nothing may follow the value.  Duplicate keys: the last wins.  NULL on error,
 * with line and column in e.  Depth is bounded by jansson (2048).  An integer beyond int64 becomes a real
 * (tokenizer_config.json files have model_max_length 1000000000000000019884624838656).  Strings may hold \u0000,
 * keys may not. */
json_t *json_parse(const char *text, size_t len, struct err *e);
json_t *json_parse_file(const char *path, size_t max_bytes, struct err *e);

/* Compact serialisation appended to b; ASCII is not forced; false when out of memory.
 * Invalid numbers cannot occur: write NaN and infinities as null before building. */
bool json_write(const json_t *j, struct buf *b);
/* One string with its quotes, escaped; invalid UTF-8 becomes U+FFFD. */
bool json_write_str(struct buf *b, const char *s, size_t len);

/* obj[key] with a default; obj NULL is an empty object.  1.0 is an integer, as in JSON Schema. */
bool json_get_i64(const json_t *obj, const char *key, int64_t dflt, int64_t *out, struct err *e);
bool json_get_f64(const json_t *obj, const char *key, double dflt, double *out, struct err *e); /* ints too */
bool json_get_bool(const json_t *obj, const char *key, bool dflt, bool *out, struct err *e);
/* Borrowed string valid as long as obj; dflt may be NULL.  Strings with an embedded NUL are
 * an error here: use json_string_length for those. */
bool json_get_str(const json_t *obj, const char *key, const char *dflt, const char **out, struct err *e);
/* The value itself or NULL when missing or null; false when of another type. */
bool json_get_obj(const json_t *obj, const char *key, const json_t **out, struct err *e);
bool json_get_arr(const json_t *obj, const char *key, const json_t **out, struct err *e);

/* "string", "integer", ... as JSON Schema names them. */
const char *json_type_name(const json_t *j);

#endif
