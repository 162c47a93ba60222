/* SentencePiece's precompiled_charsmap: a double-array trie (darts-clone) of source strings whose values
 * are offsets into a block of NUL-terminated replacements.
 *
 *   base64( u32 trie bytes | trie units, u32 each | replacement strings )
 *   unit: bits 0..7 label, 8 has a leaf, 9 offset is scaled by 256, 10..30 offset; of a leaf: bits 0..30 value
 *
 * As in the reference a grapheme cluster shorter than 6 bytes is looked up whole, else each of its
 * characters; and of all prefixes found the shortest decides. */
#include <string.h>
#include <utf8proc.h>

#include "base/mem.h"
#include "tok/tok_int.h"

enum { WHOLE_BELOW = 6 };

static int base64_value(char c)
{
    return c >= 'A' && c <= 'Z' ? c - 'A' : c >= 'a' && c <= 'z' ? c - 'a' + 26 : c >= '0' && c <= '9' ? c - '0' + 52
         : c == '+' ? 62 : c == '/' ? 63 : -1;
}

static bool decode_base64(const char *s, size_t len, struct buf *out, struct err *e)
{
    uint32_t acc = 0;
    int bits = 0;
    while (len && s[len - 1] == '=')
        len--;
    for (size_t i = 0; i < len; i++) {
        int v = base64_value(s[i]);
        if (v < 0)
            return err_set(e, ERR_FORMAT, "precompiled_charsmap: byte %zu is not base64", i);
        acc = acc << 6 | (uint32_t)v;
        bits += 6;
        if (bits >= 8) {
            bits -= 8;
            buf_putc(out, (char)(acc >> bits & 0xff));
        }
    }
    return !out->failed || tok_nomem(e);
}

static uint32_t read_u32(const char *p)
{
    const unsigned char *b = (const unsigned char *)p;
    return (uint32_t)b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
}

bool tok_charsmap_load(struct tok_norm *n, const char *base64, size_t len, struct err *e)
{
    struct buf b = {0};
    bool ok = false;
    if (len == 0)
        return true;          /* nothing is replaced */
    if (!decode_base64(base64, len, &b, e))
        goto done;
    uint32_t bytes = b.len >= 4 ? read_u32(b.data) : 0;
    if (b.len < 4 || bytes % 4 || bytes > b.len - 4) {
        err_set(e, ERR_FORMAT, "precompiled_charsmap: %zu bytes, its trie claims %u", b.len, bytes);
        goto done;
    }
    n->trie_len = bytes / 4;
    n->trie = mem_try_alloc(n->trie_len, sizeof *n->trie);
    n->text_len = b.len - 4 - bytes;
    n->text = mem_try_alloc(n->text_len + 1, 1);
    if (!n->trie || !n->text) {
        tok_nomem(e);
        goto done;
    }
    for (size_t i = 0; i < n->trie_len; i++)
        n->trie[i] = read_u32(b.data + 4 + 4 * i);
    memcpy(n->text, b.data + 4 + bytes, n->text_len);
    n->text[n->text_len] = 0;
    ok = true;
done:
    buf_free(&b);
    return ok;
}

static uint32_t unit_offset(uint32_t unit)
{
    return (unit >> 10) << ((unit & 1u << 9) >> 6);
}

/* Replacement of the shortest prefix of s that the trie knows, or NULL. */
static const char *lookup(const struct tok_norm *n, const char *s, size_t len)
{
    if (n->trie_len == 0)
        return NULL;
    size_t node = unit_offset(n->trie[0]);
    for (size_t i = 0; i < len && s[i]; i++) {
        unsigned char c = (unsigned char)s[i];
        node ^= c;
        if (node >= n->trie_len)
            return NULL;
        uint32_t unit = n->trie[node];
        if ((unit & (1u << 31 | 0xff)) != c)
            return NULL;
        node ^= unit_offset(unit);
        if (unit >> 8 & 1) {
            size_t at = node < n->trie_len ? n->trie[node] & 0x7fffffff : n->text_len;
            return at < n->text_len ? n->text + at : NULL;
        }
    }
    return NULL;
}

/* Character by character over a cluster, or all of it at once. */
static void put_cluster(const struct tok_norm *n, const char *s, size_t len, struct buf *out)
{
    const char *to = len < WHOLE_BELOW ? lookup(n, s, len) : NULL;
    if (to) {
        buf_puts(out, to);
        return;
    }
    for (size_t i = 0, k; i < len; i += k) {
        k = (size_t)tok_cp_len(s + i);
        to = lookup(n, s + i, k);
        if (to)
            buf_puts(out, to);
        else
            buf_append(out, s + i, k);
    }
}

bool tok_charsmap_run(const struct tok_norm *n, const char *s, size_t len, uint32_t *zero_len, struct buf *out)
{
    size_t start = out->len, zero = *zero_len, from = 0;
    utf8proc_int32_t state = 0;
    uint32_t last = 0, cp;
    for (size_t i = 0, k; i < len; i += k) {
        k = (size_t)tok_cp(s + i, &cp);
        if (i > 0 && utf8proc_grapheme_break_stateful((utf8proc_int32_t)last, (utf8proc_int32_t)cp, &state)) {
            put_cluster(n, s + from, i - from, out);
            from = i;
            if (zero && i >= zero) {
                *zero_len = (uint32_t)(out->len - start);
                zero = 0;
            }
        }
        last = cp;
    }
    put_cluster(n, s + from, len - from, out);
    if (zero)
        *zero_len = (uint32_t)(out->len - start);
    return !out->failed;
}
