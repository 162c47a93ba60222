/* guide/schema_int.h - what the JSON Schema compiler's files share.
 *
 * A schema is first flattened: references are followed, allOf is merged, draft differences are levelled, so that what is left is one object of
 * plain keywords and a list of alternatives ("$groups": anyOf, oneOf, if/then/else, dependencies), which are then multiplied out.  Where a keyword would
 * have to be ignored and outputs could then be invalid, compiling fails and names it. */
#ifndef QUIRE_GUIDE_SCHEMA_INT_H
#define QUIRE_GUIDE_SCHEMA_INT_H

#include "base/hash.h"
#include "guide/guide_int.h"

enum schema_type {
    TYPE_NULL = 1, TYPE_BOOLEAN = 2, TYPE_INTEGER = 4, TYPE_NUMBER = 8, TYPE_STRING = 16, TYPE_ARRAY = 32, TYPE_OBJECT = 64, TYPE_ALL = 127
};

struct schema {
    struct guide_builder *b;
    const json_t *root;
    json_t *keep;                 /* array: owns what flattening makes */
    struct hash_u64 *by_node;     /* source node -> its rule */
    struct hash_map *by_text;     /* flattened schema as text -> its rule */
    struct buf path;              /* where we are, for messages */
    int depth, n_branches, in_not;
    int32_t space, colon_space;   /* expressions: between tokens, after a colon */
    int32_t rule_string, rule_integer, rule_number, rule_any, rule_key;   /* shared, -1: not yet made */
};

/* Fails with the place: "schema at #/properties/a: ...". */
int32_t schema_fail(struct schema *s, enum err_code code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* json_t that lives as long as s; NULL: failed. */
json_t *schema_keep(struct schema *s, json_t *j);

/* schema.c */
int32_t schema_value(struct schema *s, const json_t *schema);                 /* a JSON value of it */
int32_t schema_rule_of(struct schema *s, int32_t body, const char *name);     /* a call of a new rule with that body */
int32_t schema_any(struct schema *s);

/* schema_merge.c */
const json_t *schema_flatten(struct schema *s, const json_t *schema);         /* NULL: failed */
const json_t *schema_merge(struct schema *s, const json_t *x, const json_t *y);
const json_t *schema_resolve(struct schema *s, const char *ref);
unsigned schema_types(const json_t *flat);          /* what it says, or all */
bool schema_never(const json_t *flat);

/* schema_exclude.c */
/* Narrows flat so that nothing of it is valid under other (also flat).  NULL: cannot be done (no failure), or failed. */
const json_t *schema_exclude(struct schema *s, const json_t *flat, const json_t *other);
/* Whether value is valid.  False also after a failure. */
bool schema_accepts(struct schema *s, const json_t *flat, const json_t *value);

/* schema_string.c: the language of the text itself, or -1 */
int32_t schema_string_language(struct schema *s, const json_t *flat);
int32_t schema_string(struct schema *s, const json_t *flat);
int32_t schema_format(struct schema *s, const char *name);                    /* -2: not one that restricts */
int32_t schema_quoted(struct schema *s, int32_t language);                    /* as a JSON string */
int32_t schema_literal(struct schema *s, const json_t *value);                /* exactly this value */

/* schema_number.c */
int32_t schema_number(struct schema *s, const json_t *flat, bool integer);

/* schema_object.c, schema_array.c */
int32_t schema_object(struct schema *s, const json_t *flat);
int32_t schema_array(struct schema *s, const json_t *flat);

#endif
