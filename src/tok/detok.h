/* tok/detok.h - incremental detokenization of one sequence.
 *
 * Tokens go in one at a time, text comes out that equals tok_decode of the whole sequence when
 * concatenated, and never ends inside a character.  What could still change (a cut-off UTF-8
 * sequence, a byte-fallback run, a decoder that looks back) is held until it is certain. */
#ifndef QUIRE_TOK_DETOK_H
#define QUIRE_TOK_DETOK_H

#include "tok/tok.h"

struct detok;

/* flags as tok_decode.  prompt[0..n) gives the left context, so that the first new token keeps or loses
 * its leading space as it would inside the whole text; no text is emitted for it.  The tokenizer is borrowed. */
bool detok_open(struct detok **out, const struct tok *t, unsigned flags, const int32_t *prompt, size_t n, struct err *e);
void detok_close(struct detok **d);
/* Append to out the text that became certain with this token. */
bool detok_push(struct detok *d, int32_t id, struct buf *out, struct err *e);
/* End of sequence: append what was held (cut-off bytes become U+FFFD). */
bool detok_finish(struct detok *d, struct buf *out, struct err *e);

#endif
