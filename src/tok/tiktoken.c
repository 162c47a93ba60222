/* Ranks of tiktoken: lines of "base64 rank".  A token's rank is its id and its place among the merges: which two pieces make it is
 * found by merging its bytes with the ranks below its own. */
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include "base/hash.h"
#include "base/json.h"
#include "base/mem.h"
#include "tok/tok_int.h"

enum { MAX_TOKEN = 1024 };

static int digit(unsigned char c)
{
    return c >= 'A' && c <= 'Z' ? c - 'A' : c >= 'a' && c <= 'z' ? c - 'a' + 26 : c >= '0' && c <= '9' ? c - '0' + 52 : c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* The first line is such a line. */
bool tok_tiktoken_is(const unsigned char *data, size_t len)
{
    size_t i = 0;
    while (i < len && i < MAX_TOKEN && (digit(data[i]) >= 0 || data[i] == '='))
        i++;
    return i >= 4 && i % 4 == 0 && i + 1 < len && data[i] == ' ' && data[i + 1] >= '0' && data[i + 1] <= '9';
}

struct token { size_t at, len; int64_t rank; };
struct ranks { struct buf bytes; struct token *tokens; size_t n, cap; struct hash_map *ids; int64_t most; };

static size_t decode(const unsigned char *p, size_t n, unsigned char out[MAX_TOKEN])
{
    size_t k = 0;
    uint32_t v = 0;
    for (size_t i = 0; i < n && p[i] != '='; i++) {
        v = v << 6 | (uint32_t)digit(p[i]);
        if (i % 4 != 0)
            out[k++] = (unsigned char)(v >> (6 - 2 * (i % 4)));
    }
    return k;
}

static bool read_line(struct ranks *r, const unsigned char *p, size_t n, size_t line, struct err *e)
{
    unsigned char bytes[MAX_TOKEN];
    size_t b = 0;
    while (b < n && (digit(p[b]) >= 0 || p[b] == '='))
        b++;
    size_t at = b + 1;
    int64_t rank = 0;
    while (at < n && p[at] >= '0' && p[at] <= '9' && rank < TOK_MAX_IDS)
        rank = rank * 10 + (p[at++] - '0');
    if (b == 0 || b % 4 || b >= MAX_TOKEN || at == b + 1 || at != n || p[b] != ' ' || rank >= TOK_MAX_IDS)
        return err_set(e, ERR_FORMAT, "line %zu is not a token in base64 and its rank", line);
    if (r->n == r->cap) {
        size_t cap = r->cap ? 2 * r->cap : 4096;
        struct token *grown = mem_try_realloc(r->tokens, cap, sizeof *grown);
        if (!grown)
            return tok_nomem(e);
        r->tokens = grown;
        r->cap = cap;
    }
    size_t len = decode(p, b, bytes);
    if (len == 0)
        return err_set(e, ERR_FORMAT, "line %zu is a token without bytes", line);
    r->tokens[r->n++] = (struct token){r->bytes.len, len, rank};
    r->most = rank > r->most ? rank : r->most;
    return buf_append(&r->bytes, bytes, len) || tok_nomem(e);
}

static int by_rank(const void *a, const void *b)
{
    const struct token *x = a, *y = b;
    return x->rank < y->rank ? -1 : x->rank > y->rank;
}

static bool read_lines(struct ranks *r, const unsigned char *data, size_t len, struct err *e)
{
    const unsigned char *end = data + len, *eol;
    size_t line = 1;
    for (const unsigned char *at = data; at < end; at = eol + 1, line++) {
        eol = memchr(at, '\n', (size_t)(end - at));
        eol = eol ? eol : end;
        size_t n = (size_t)(eol - at);
        while (n > 0 && (at[n - 1] == '\r' || at[n - 1] == ' '))
            n--;
        if (n > 0 && !read_line(r, at, n, line, e))
            return false;
    }
    if (r->n == 0)
        return err_set(e, ERR_FORMAT, "has no tokens");
    qsort(r->tokens, r->n, sizeof *r->tokens, by_rank);
    r->ids = hash_map_open(r->n, HASH_MAP_BORROW_KEYS);
    for (size_t i = 0; r->ids && i < r->n; i++) {
        if (i > 0 && r->tokens[i].rank == r->tokens[i - 1].rank)
            return err_set(e, ERR_FORMAT, "has rank %lld twice", (long long)r->tokens[i].rank);
        if (!hash_map_put(r->ids, r->bytes.data + r->tokens[i].at, r->tokens[i].len, r->tokens[i].rank))
            return tok_nomem(e);
    }
    return r->ids || tok_nomem(e);
}

/* ---- merges ---- */

/* Where the last merge joins: the token's bytes merged, lowest rank first, by ranks below its own, down to two parts; 0: not so. */
static size_t last_cut(const struct ranks *r, const struct token *t)
{
    size_t cuts[MAX_TOKEN + 1], n = t->len;     /* part i is [cuts[i], cuts[i + 1]) */
    const char *p = r->bytes.data + t->at;
    for (size_t i = 0; i <= n; i++)
        cuts[i] = i;
    while (n > 2) {
        int64_t best = t->rank, rank;
        size_t at = 0;
        for (size_t i = 0; i + 1 < n; i++)
            if (hash_map_get(r->ids, p + cuts[i], cuts[i + 2] - cuts[i], &rank) && rank < best) {
                best = rank;
                at = i;
            }
        if (best == t->rank)
            return 0;
        memmove(cuts + at + 1, cuts + at + 2, (n - at - 1) * sizeof *cuts);
        n--;
    }
    return n == 2 ? cuts[1] : 0;
}

/* Bytes in the alphabet of byte-level BPE. */
static void write_bytes(struct buf *b, const char *p, size_t n)
{
    buf_putc(b, '"');
    for (size_t i = 0; i < n; i++) {
        unsigned c = (unsigned char)p[i];
        bool plain = (c >= '!' && c <= '~') || (c >= 0xa1 && c <= 0xac) || c >= 0xae;
        unsigned u = plain ? c : 256 + (c <= 32 ? c : c < 0xa1 ? c - 0x7f + 33 : 67);
        if (c == '"' || c == '\\')
            buf_putc(b, '\\');
        if (u < 0x80) {
            buf_putc(b, (char)u);
        } else {
            buf_putc(b, (char)(0xc0 | u >> 6));
            buf_putc(b, (char)(0x80 | (u & 63)));
        }
    }
    buf_putc(b, '"');
}

static void write_model(struct tok_slow *s, const struct ranks *r)
{
    struct buf *b = &s->model;
    bool first = true;
    buf_puts(b, "{\"type\":\"BPE\",\"unk_token\":null,\"fuse_unk\":false,\"byte_fallback\":false,\"ignore_merges\":true,\"vocab\":{");
    for (size_t i = 0; i < r->n; i++) {
        buf_puts(b, i ? "," : "");
        write_bytes(b, r->bytes.data + r->tokens[i].at, r->tokens[i].len);
        buf_printf(b, ":%lld", (long long)r->tokens[i].rank);
    }
    buf_puts(b, "},\"merges\":[");
    for (size_t i = 0; i < r->n; i++) {
        const struct token *t = &r->tokens[i];
        size_t cut = t->len > 1 && t->len <= MAX_TOKEN ? last_cut(r, t) : 0;
        if (!cut)
            continue;
        buf_puts(b, first ? "[" : ",[");
        write_bytes(b, r->bytes.data + t->at, cut);
        buf_putc(b, ',');
        write_bytes(b, r->bytes.data + t->at + cut, t->len - cut);
        buf_putc(b, ']');
        first = false;
    }
    buf_puts(b, "]}");
}

/* ---- special tokens, which no file lists ---- */

static void add_text(struct tok_slow *s, int64_t id, const char *text) { tok_slow_add(s, id, text, strlen(text), true); }

static void add_llama3(struct tok_slow *s)
{
    static const char *const names[] = {"<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>", "<|reserved_special_token_1|>", "<|finetune_right_pad_id|>",
                                        "<|reserved_special_token_2|>", "<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>", "<|eot_id|>", "<|python_tag|>"};
    char text[64];
    for (int i = 0; i < 256; i++) {
        snprintf(text, sizeof text, "<|reserved_special_token_%d|>", i - 8);
        add_text(s, 128000 + i, i < 11 ? names[i] : text);
    }
    s->bos = "<|begin_of_text|>";
    s->bos_id = 128000;
}

static void add_qwen(struct tok_slow *s)
{
    char text[64];
    add_text(s, 151643, "<|endoftext|>");
    add_text(s, 151644, "<|im_start|>");
    add_text(s, 151645, "<|im_end|>");
    for (int i = 0; i < 205; i++) {
        snprintf(text, sizeof text, "<|extra_%d|>", i);
        add_text(s, 151646 + i, text);
    }
}

static void add_openai(struct tok_slow *s, int64_t n)
{
    if (n >= 199998) {
        add_text(s, 199999, "<|endoftext|>");
        add_text(s, 200018, "<|endofprompt|>");
        return;
    }
    static const char *const names[] = {"<|endoftext|>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>"};
    for (int i = 0; i < 4; i++)
        add_text(s, 100257 + i, names[i]);
    add_text(s, 100276, "<|endofprompt|>");
}

bool tok_tiktoken_read(struct tok_slow *s, const unsigned char *data, size_t len, struct buf *out, struct err *e)
{
    struct ranks r = {0};
    bool ok = read_lines(&r, data, len, e);
    if (ok) {
        char pre[1600];
        const char *split = TOK_SPLIT_LLAMA3;
        write_model(s, &r);
        if (r.most == 127999)
            add_llama3(s);
        else if (r.most == 151642)
            add_qwen(s), split = TOK_SPLIT_QWEN;
        else if (r.most == 100255 || r.most == 199997)
            add_openai(s, r.most + 1), split = r.most == 199997 ? TOK_SPLIT_O200K : TOK_SPLIT_LLAMA3;
        snprintf(pre, sizeof pre, "{\"type\":\"Sequence\",\"pretokenizers\":[%s,%s]}", split, TOK_BYTES("false", "false"));
        tok_slow_finish(s, "null", pre, TOK_BYTES("false", "true"), out);
    }
    buf_free(&r.bytes);
    mem_free(r.tokens);
    hash_map_close(&r.ids);
    return ok;
}
