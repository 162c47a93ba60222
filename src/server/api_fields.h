/* server/api_fields.h - reading a JSON object by a table of its known fields.
 *
 * Types are strict: a known field of the wrong type, or a number outside its range, is an error that names
 * the field; null is the same as absent.  Fields that no table knows are ignored, and said so in the
 * debug log, because clients send what other servers understand. */
#ifndef QUIRE_SERVER_API_FIELDS_H
#define QUIRE_SERVER_API_FIELDS_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>
#include "base/log.h"
#include "server/api_error.h"

enum api_field_type {
    API_BOOL,      /* bool */
    API_INT,       /* int64_t in [min, max]; 3.0 is an integer */
    API_NUM,       /* double in [min, max] */
    API_STR,       /* const char *, borrowed from the document, without \u0000 */
    API_OBJ,       /* const json_t *, borrowed, an object */
    API_ARR,       /* const json_t *, borrowed, an array */
    API_ANY,       /* const json_t *, borrowed */
    API_NOTED,     /* known, without effect here (user, metadata, ...): any value */
    API_REFUSED    /* known, but not supported: any value but null, false, [] and {} is an error */
};

struct api_field {
    const char *name;            /* NULL ends a table */
    enum api_field_type type;
    size_t offset;               /* of the member in the struct that is filled */
    double min, max;             /* of numbers, both included; min == max: no range */
};

/* Fills the members of *out whose fields are present; the others keep what they hold.  tables is NULL-ended. */
bool api_fields_read(const json_t *obj, const struct api_field *const *tables, void *out, struct log *log, struct api_error *e);

/* As the last step of checks made elsewhere: the first known field name that msg begins with, or NULL.
 * Finds `param` for messages like "top_p must be ...". */
const char *api_fields_find(const struct api_field *const *tables, const char *msg);

#endif
