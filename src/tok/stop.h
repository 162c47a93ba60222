/* tok/stop.h - stop strings over streamed text.
 *
 * Text goes in piece by piece; what can no longer be part of a stop string comes out.  A match
 * may span any number of pieces.  The earliest-ending match wins; among those that end at the
 * same byte, the longest (earliest-starting).  Aho-Corasick; cost O(text). */
#ifndef QUIRE_TOK_STOP_H
#define QUIRE_TOK_STOP_H

#include <stdbool.h>
#include <stddef.h>
#include "base/buf.h"
#include "base/err.h"

struct stop;

/* Strings are copied; none may be empty (ERR_INVALID).  n == 0 is fine: nothing ever matches. */
bool stop_open(struct stop **out, const char *const *strings, const size_t *lens, size_t n, struct err *e);
void stop_close(struct stop **s);

/* Feed text; append what is safe to show to out.  Returns the index of the stop string that
 * matched, or -1.  After a match: out ends just before the stop string (or after it, when
 * include_match), and further calls are ignored and return the same index. */
int stop_feed(struct stop *s, const char *text, size_t len, bool include_match, struct buf *out);
/* End of text without a match: append what was held back. */
void stop_finish(struct stop *s, struct buf *out);
/* Bytes held back now. */
size_t stop_held(const struct stop *s);

#endif
