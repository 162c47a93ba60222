/* tok/unicode.h - classes of code points, fixed to one Unicode version so that ids do not
 * depend on the system's libraries.  Tables are made by tools/gen_unicode.mjs. */
#ifndef QUIRE_TOK_UNICODE_H
#define QUIRE_TOK_UNICODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* General categories, in the order of the table. */
enum tok_gc {
    TOK_GC_LU, TOK_GC_LL, TOK_GC_LT, TOK_GC_LM, TOK_GC_LO, TOK_GC_MN, TOK_GC_MC, TOK_GC_ME, TOK_GC_ND, TOK_GC_NL,
    TOK_GC_NO, TOK_GC_PC, TOK_GC_PD, TOK_GC_PS, TOK_GC_PE, TOK_GC_PI, TOK_GC_PF, TOK_GC_PO, TOK_GC_SM, TOK_GC_SC,
    TOK_GC_SK, TOK_GC_SO, TOK_GC_ZS, TOK_GC_ZL, TOK_GC_ZP, TOK_GC_CC, TOK_GC_CF, TOK_GC_CS, TOK_GC_CO, TOK_GC_CN,
};

/* Runs: first code point << 8 | class, ascending; the first starts at 0. */
extern const uint32_t tok_gc_runs[];
extern const size_t tok_n_gc_runs;
/* Scripts: 0 none, 1 Han, Hiragana and Katakana, others by number. */
extern const uint32_t tok_script_runs[];
extern const size_t tok_n_script_runs;

enum { TOK_CP_END = 0x110000, TOK_UC_SPACE = 0x20, TOK_UC_GC = 0x1f };

/* One byte a code point: general category | TOK_UC_SPACE for White_Space.  NULL: no memory; mem_free it. */
uint8_t *tok_uc_table(void);
/* Script number of a code point, by binary search. */
int tok_uc_script(uint32_t cp);

static inline bool tok_uc_is_letter(uint8_t c) { return (c & TOK_UC_GC) <= TOK_GC_LO; }
static inline bool tok_uc_is_mark(uint8_t c)
{
    return (c & TOK_UC_GC) >= TOK_GC_MN && (c & TOK_UC_GC) <= TOK_GC_ME;
}
static inline bool tok_uc_is_number(uint8_t c)
{
    return (c & TOK_UC_GC) >= TOK_GC_ND && (c & TOK_UC_GC) <= TOK_GC_NO;
}
static inline bool tok_uc_is_punct(uint8_t c)
{
    return (c & TOK_UC_GC) >= TOK_GC_PC && (c & TOK_UC_GC) <= TOK_GC_PO;
}
static inline bool tok_uc_is_space(uint8_t c) { return c & TOK_UC_SPACE; }

/* \w of Rust's regex crate (UTS #18): alphabetic, marks, decimal digits, connectors, joiners. */
bool tok_uc_is_word(const uint8_t *uc, uint32_t cp);

/* Decode one code point of text known to be valid UTF-8; returns its length. */
static inline int tok_cp(const char *text, uint32_t *cp)
{
    const unsigned char *s = (const unsigned char *)text;
    if (s[0] < 0x80) {
        *cp = s[0];
        return 1;
    }
    if (s[0] < 0xe0) {
        *cp = (uint32_t)(s[0] & 0x1f) << 6 | (s[1] & 0x3f);
        return 2;
    }
    if (s[0] < 0xf0) {
        *cp = (uint32_t)(s[0] & 0x0f) << 12 | (uint32_t)(s[1] & 0x3f) << 6 | (s[2] & 0x3f);
        return 3;
    }
    *cp = (uint32_t)(s[0] & 0x07) << 18 | (uint32_t)(s[1] & 0x3f) << 12 | (uint32_t)(s[2] & 0x3f) << 6 | (s[3] & 0x3f);
    return 4;
}
/* Length in bytes of the character that starts at valid text. */
static inline int tok_cp_len(const char *text)
{
    unsigned char c = (unsigned char)*text;
    return c < 0x80 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
}
/* Start of the character before position at > 0 of valid text. */
static inline size_t tok_cp_before(const char *text, size_t at)
{
    do
        at--;
    while (at > 0 && ((unsigned char)text[at] & 0xc0) == 0x80);
    return at;
}

#endif
