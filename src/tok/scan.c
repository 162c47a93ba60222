/* The pre-tokenizer patterns that nearly all byte-level models share, by hand.  Each function is
 * the leftmost match of its pattern at a position; in both patterns every character starts some
 * alternative, so matches follow each other without gaps.
 *
 * GPT-2:   's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
 * Llama 3: (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|
 *          \s*[\r\n]+|\s+(?!\S)|\s+
 * Qwen:    as Llama 3 with \p{N} alone. */
#include "tok/tok_int.h"

enum scan_class { SCAN_LETTER, SCAN_NUMBER, SCAN_SPACE, SCAN_OTHER, SCAN_END };

/* Class of the character at text[at]; *n is its length (0 at the end). */
static enum scan_class class_at(const uint8_t *uc, const char *text, size_t len, size_t at, size_t *n)
{
    uint32_t cp;
    if (at >= len) {
        *n = 0;
        return SCAN_END;
    }
    *n = (size_t)tok_cp(text + at, &cp);
    uint8_t c = uc[cp];
    return tok_uc_is_letter(c) ? SCAN_LETTER : tok_uc_is_number(c) ? SCAN_NUMBER : tok_uc_is_space(c) ? SCAN_SPACE : SCAN_OTHER;
}

/* End of the run of one class that goes on at text[at]. */
static size_t run_end(const uint8_t *uc, const char *text, size_t len, size_t at, enum scan_class k)
{
    size_t n;
    while (class_at(uc, text, len, at, &n) == k)
        at += n;
    return at;
}

/* End of the contraction ('s 't 're 've 'm 'll 'd) that starts at the apostrophe at text[at], or 0.
 * Without case, U+017F (long s) is an s too. */
static size_t contraction(const char *text, size_t len, size_t at, bool fold)
{
    if (len - at < 2)
        return 0;
    unsigned char a = (unsigned char)text[at + 1], b = len - at > 2 ? (unsigned char)text[at + 2] : 0;
    if (fold && a == 0xc5 && b == 0xbf)
        return at + 3;
    if (fold) {
        a = a >= 'A' && a <= 'Z' ? a + 32 : a;
        b = b >= 'A' && b <= 'Z' ? b + 32 : b;
    }
    if (a == 's' || a == 't' || a == 'm' || a == 'd')
        return at + 2;
    if ((a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l'))
        return at + 3;
    return 0;
}

/* \s+(?!\S)|\s+ at a space: all of the run at the end of the text, else all but its last character. */
static size_t space_end(const uint8_t *uc, const char *text, size_t len, size_t at)
{
    size_t end = run_end(uc, text, len, at, SCAN_SPACE);
    if (end == len)
        return end;
    size_t last = tok_cp_before(text, end);
    return last > at ? last : end;
}

size_t tok_scan_gpt2(const uint8_t *uc, const char *text, size_t len, size_t at)
{
    size_t n, end;
    if (text[at] == '\'' && (end = contraction(text, len, at, false)))
        return end;
    enum scan_class k = class_at(uc, text, len, at, &n);
    if (text[at] == ' ') {
        size_t n2;
        enum scan_class k2 = class_at(uc, text, len, at + 1, &n2);
        if (k2 != SCAN_SPACE && k2 != SCAN_END)
            return run_end(uc, text, len, at + 1 + n2, k2);
    }
    return k == SCAN_SPACE ? space_end(uc, text, len, at) : run_end(uc, text, len, at + n, k);
}

/* Byte after the last line end in the white space at text[at], or 0 when there is none. */
static size_t after_last_newline(const char *text, size_t at, size_t end)
{
    while (end > at && text[end - 1] != '\n' && text[end - 1] != '\r')
        end--;
    return end > at ? end : 0;
}

/* [^\s\p{L}\p{N}]+[\r\n]* */
static size_t other_end(const uint8_t *uc, const char *text, size_t len, size_t at)
{
    size_t end = run_end(uc, text, len, at, SCAN_OTHER);
    while (end < len && (text[end] == '\r' || text[end] == '\n'))
        end++;
    return end;
}

size_t tok_scan_llama3(const uint8_t *uc, const char *text, size_t len, size_t at, int max_digits)
{
    size_t n, n2, end;
    if (text[at] == '\'' && (end = contraction(text, len, at, true)))
        return end;
    enum scan_class k = class_at(uc, text, len, at, &n), k2;
    if (k == SCAN_LETTER)
        return run_end(uc, text, len, at + n, SCAN_LETTER);
    if (k == SCAN_NUMBER) {
        for (end = at + n; --max_digits > 0 && class_at(uc, text, len, end, &n2) == SCAN_NUMBER;)
            end += n2;
        return end;
    }
    k2 = class_at(uc, text, len, at + n, &n2);
    if (k2 == SCAN_LETTER && text[at] != '\r' && text[at] != '\n')
        return run_end(uc, text, len, at + n + n2, SCAN_LETTER);
    if (k == SCAN_OTHER)
        return other_end(uc, text, len, at);
    if (text[at] == ' ' && k2 == SCAN_OTHER)
        return other_end(uc, text, len, at + 1);
    end = after_last_newline(text, at, run_end(uc, text, len, at, SCAN_SPACE));
    return end ? end : space_end(uc, text, len, at);
}
