/* tok/jinja.h - the Jinja2 template language, as far as chat templates use it.
 *
 * Rendering follows Python's Jinja2 with trim_blocks and lstrip_blocks on, the loopcontrols extension,
 * and the globals that Hugging Face transformers adds (raise_exception, strftime_now, tojson
 * with ensure_ascii off, generation blocks).  Values are a small typed model (none, undefined, bool, int, float, string,
 * list, dict in insertion order, macro, namespace, ...) built from JSON.
 *
 * A template is untrusted: parse depth, render steps, output size, memory and call depth are
 * bounded; passing a bound is an error like any other (ERR_TOO_LARGE).  A compiled template
 * is immutable and may be rendered by many threads at once.  With the default depth a render stays within 1 MiB of stack.
 *
 * Not there, each a clear error: other templates (include, import, extends), integers past 64 bits, complex numbers, bytes,
 * autoescape, the filters random and urlize, lipsum(). */
#ifndef QUIRE_TOK_JINJA_H
#define QUIRE_TOK_JINJA_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/buf.h"
#include "base/err.h"

struct jinja;

struct jinja_limits {      /* 0 = default */
    uint64_t max_steps;    /* evaluated nodes: 50 million */
    size_t max_output;     /* bytes: 64 MiB */
    size_t max_memory;     /* bytes of values: 256 MiB */
    int max_depth;         /* nesting of expressions, blocks and macro calls: 200 */
};

/* Messages say line and what was expected.  source is copied. */
bool jinja_compile(struct jinja **out, const char *source, size_t len, struct err *e);
void jinja_free(struct jinja **j);

/* Appends the rendering to out.  globals is a JSON object of the template's variables.
 * now_unix is what strftime_now sees (broken down as UTC).  raise_exception gives ERR_INVALID with the
 * template's own message; errors in the template's execution give ERR_INVALID with the line. */
bool jinja_render(const struct jinja *j, const json_t *globals, int64_t now_unix, const struct jinja_limits *limits,
                  struct buf *out, struct err *e);

#endif
