/* base/utf8.h - UTF-8 as bytes: decoding, encoding, validity, boundaries.  Unicode
 * properties and normal forms come from libutf8proc where they are needed. */
#ifndef QUIRE_BASE_UTF8_H
#define QUIRE_BASE_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Decode one code point at s[0..n), n >= 1.  Returns its length in bytes 1..4 and *cp, or 0
 * when the bytes are not (yet) a valid sequence: overlong, surrogate, > U+10FFFF, cut off. */
int utf8_decode(const char *s, size_t n, uint32_t *cp);
/* Writes 1..4 bytes, returns how many; cp must be a Unicode scalar value. */
int utf8_encode(uint32_t cp, char out[4]);
bool utf8_valid(const char *s, size_t n);
/* Length of the longest prefix that does not end inside a character that more bytes could
 * still complete.  Bytes that can never become valid count as complete. */
size_t utf8_complete_prefix(const char *s, size_t n);
/* Replace each maximal invalid subsequence by U+FFFD (as Rust's from_utf8_lossy and the
 * Unicode standard's "maximal subpart").  out must hold 3*n bytes; returns bytes written. */
size_t utf8_lossy(const char *s, size_t n, char *out);
/* Number of code points in valid UTF-8. */
size_t utf8_length(const char *s, size_t n);

#endif
