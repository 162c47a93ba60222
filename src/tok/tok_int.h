/* tok/tok_int.h - what the files of tok/ share: the parts a tokenizer.json is made of.
 *
 *   text --added tokens--> pieces --normalizer--> pieces --pre-tokenizer--> words --model--> ids --post--> ids
 *   ids --spellings--> tokens --decoder stages--> text
 *
 * Everything below is immutable once open, so any number of threads may encode at once; the
 * working memory of a call is a struct tok_work on that call's stack. */
#ifndef QUIRE_TOK_TOK_INT_H
#define QUIRE_TOK_TOK_INT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/hash.h"
#include "tok/tok.h"
#include "tok/unicode.h"

enum {
    TOK_MAX_IDS = 1 << 22,          /* ids a vocabulary may use; the largest known uses about 2^18 */
    TOK_MAX_STAGES = 64,            /* normalizers, pre-tokenizers or decoders in a row */
};
/* Longest text of one tok_encode call. */
#define TOK_MAX_TEXT_BYTES ((size_t)1 << 28)
/* What normalization and byte mapping may make of it; symbols are counted in int32_t. */
#define TOK_MAX_WORK_BYTES ((size_t)1 << 30)

/* ---- json_read.c: one pass over the JSON text, for the parts that are too large for a tree */

struct tok_js {
    const char *start, *p, *end;
    const char *what;      /* file name for messages */
};
struct tok_span { const char *p; size_t len; };   /* p NULL: absent */

void tok_js_init(struct tok_js *j, const char *text, size_t len, const char *what);
bool tok_js_fail(const struct tok_js *j, struct err *e, const char *expected);
/* Skip white space; true and consume when the next byte is c. */
bool tok_js_eat(struct tok_js *j, char c);
bool tok_js_expect(struct tok_js *j, char c, struct err *e);
/* Unescaped text of the string here, appended to b (no terminator): valid UTF-8 or an error. */
bool tok_js_string(struct tok_js *j, struct buf *b, struct err *e);
bool tok_js_number(struct tok_js *j, double *v, struct err *e);
/* Step over any value; *span is its text.  Nesting of brackets is not checked here: spans are parsed later. */
bool tok_js_skip(struct tok_js *j, struct tok_span *span, struct err *e);
/* After '{' or '[' and after each value: true when another element follows, having eaten a comma.
 * *first starts true.  On a broken list e is set and *bad becomes true. */
bool tok_js_more(struct tok_js *j, char close, bool *first, bool *bad, struct err *e);

/* ---- vocab.c: spelling to id and back */

struct tok_entry { uint32_t at, len; int32_t id; };   /* at: into text; id -1: replaced */

struct tok_vocab {
    struct buf text;             /* all spellings, each followed by a 0 byte */
    struct tok_entry *entries;
    size_t n, cap;
    struct { uint32_t tag; uint32_t entry; } *slots;  /* entry + 1; 0 = empty */
    size_t mask;                 /* slots - 1 */
    int32_t *by_id;              /* entry of an id or -1, n_ids of them, built by finish */
    int32_t n_ids;               /* largest id + 1 */
    size_t n_strings;            /* distinct spellings: the reference's vocabulary size */
    size_t max_len;              /* longest spelling in bytes */
};

bool tok_vocab_reserve(struct tok_vocab *v, size_t n, struct err *e);
/* Adds the spelling that was appended to v->text at `at` (to its end); a known spelling gets the new id. */
bool tok_vocab_add(struct tok_vocab *v, size_t at, int64_t id, struct err *e);
bool tok_vocab_finish(struct tok_vocab *v, struct err *e);
void tok_vocab_free(struct tok_vocab *v);
/* Many lookups at once, so that their cache misses overlap: sets id of each key, -1 for unknown. */
struct tok_key { const char *s; size_t len, slot; uint32_t tag; int32_t id; };
void tok_vocab_find(const struct tok_vocab *v, struct tok_key *keys, size_t n);
int32_t tok_vocab_id(const struct tok_vocab *v, const char *s, size_t len);   /* -1: unknown */
const char *tok_vocab_spelling(const struct tok_vocab *v, int32_t id, size_t *len);  /* NULL: hole */

/* ---- regex.c, onig.c, scan.c: what splits and replaces */

enum tok_re_kind { TOK_RE_LITERAL, TOK_RE_GPT2, TOK_RE_LLAMA3, TOK_RE_QWEN, TOK_RE_PCRE };

struct tok_re {
    enum tok_re_kind kind;
    char *literal;               /* TOK_RE_LITERAL */
    size_t literal_len;
    void *code;                  /* pcre2_code */
    const uint8_t *uc;           /* the tokenizer's table, for the scanners */
};
/* State of one left-to-right search; open once a text, close after. */
struct tok_re_iter {
    const struct tok_re *re;
    const char *text;
    size_t len, at, last_end;    /* last_end SIZE_MAX: no match yet */
    void *match, *context, *stack;
};

/* is_regex false: pattern is literal text.  The known pre-tokenizer patterns get a scanner unless no_scan. */
bool tok_re_open(struct tok_re *re, const char *pattern, size_t len, bool is_regex, bool no_scan, const uint8_t *uc,
                 struct err *e);
void tok_re_close(struct tok_re *re);
bool tok_re_begin(struct tok_re_iter *it, const struct tok_re *re, const char *text, size_t len, struct err *e);
void tok_re_end(struct tok_re_iter *it);
/* Start over on another text with the same expression. */
void tok_re_restart(struct tok_re_iter *it, const char *text, size_t len);
/* Next match into [*s, *t).  1: found, 0: no more, -1: failed, e is set. */
int tok_re_next(struct tok_re_iter *it, size_t *s, size_t *t, struct err *e);
/* Oniguruma (Ruby syntax) pattern to the equal PCRE2 pattern. */
bool tok_onig_to_pcre(const char *pattern, size_t len, struct buf *out, struct err *e);
/* End of the pre-token that starts at text[at], at < len. */
size_t tok_scan_gpt2(const uint8_t *uc, const char *text, size_t len, size_t at);
size_t tok_scan_llama3(const uint8_t *uc, const char *text, size_t len, size_t at, int max_digits);

/* ---- working memory of a call */

/* A run of text, or an added token cut out of it. */
struct tok_piece {
    size_t at, len;              /* into the current text */
    int32_t id;                  /* of an added token; -1: text */
    uint32_t zero_len;           /* leading bytes that stem from the very first character of the input */
};
struct tok_pieces { struct tok_piece *items; size_t n, cap; };
struct tok_match { size_t start, end; bool hit; };

/* A symbol of a word, linked; rank is that of the merge with the next one, UINT32_MAX when there is none. */
struct tok_sym { int32_t id, prev, next; uint32_t rank; };
/* Candidate merges: for each rank a list of positions, and a heap of the ranks that have one. */
struct tok_node { uint32_t at, next; };
struct tok_bucket { uint32_t first, last; bool unsorted; };
struct tok_queue {
    struct tok_bucket *buckets;  /* by rank; all empty between words */
    struct { struct tok_node *items; size_t n, cap; } nodes;
    struct { uint32_t *items; size_t n, cap; } heap;
};
struct tok_best { double score; int32_t start, id; };  /* best way to reach a byte; start -1: none */

struct tok_work {
    const struct tok *t;
    struct buf text, next;       /* current text and the one being built */
    struct buf scratch[2];       /* inside one stage */
    struct tok_pieces pieces, out;
    struct { struct tok_match *items; size_t n, cap; } matches;
    struct { struct tok_sym *items; size_t n, cap; } syms;
    struct tok_queue queue;      /* BPE, long words */
    struct { struct tok_best *items; size_t n, cap; } best;  /* unigram */
    struct { uint32_t *items; size_t n, cap; } cps;      /* normal forms */
    struct tok_ids ids;          /* of the whole text, before the post-processor */
    struct tok_cache *cache;
};
bool tok_piece_push(struct tok_pieces *v, size_t at, size_t len, int32_t id, uint32_t zero_len);

/* ---- norm.c, charsmap.c */

enum tok_norm_kind {
    TOK_NORM_NFC, TOK_NORM_NFD, TOK_NORM_NFKC, TOK_NORM_NFKD, TOK_NORM_LOWERCASE, TOK_NORM_PREPEND, TOK_NORM_REPLACE,
    TOK_NORM_STRIP, TOK_NORM_STRIP_ACCENTS, TOK_NORM_BERT, TOK_NORM_NMT, TOK_NORM_CHARSMAP, TOK_NORM_BYTE_LEVEL,
};
enum tok_norm_flags {
    TOK_STRIP_LEFT = 1, TOK_STRIP_RIGHT = 2,
    TOK_BERT_CLEAN = 1, TOK_BERT_CHINESE = 2, TOK_BERT_ACCENTS = 4, TOK_BERT_LOWERCASE = 8,
};
struct tok_norm {
    enum tok_norm_kind kind;
    unsigned flags;
    char *text;                  /* PREPEND: what; REPLACE: content; CHARSMAP: normalized strings */
    size_t text_len;
    struct tok_re re;            /* REPLACE */
    uint32_t *trie;              /* CHARSMAP: darts-clone double array */
    size_t trie_len;
};
bool tok_norm_load(struct tok *t, const json_t *j, struct err *e);
void tok_norm_free(struct tok_norm *n);
/* One string through the whole normalizer.  Result in w->scratch[*which]; zero_len is carried along. */
bool tok_norm_run(struct tok_work *w, const char *s, size_t len, uint32_t *zero_len, int *which, struct err *e);
bool tok_charsmap_load(struct tok_norm *n, const char *base64, size_t len, struct err *e);
bool tok_charsmap_run(const struct tok_norm *n, const char *s, size_t len, uint32_t *zero_len, struct buf *out);
/* Unicode normal form of s appended to out. */
bool tok_norm_form(struct tok_work *w, enum tok_norm_kind kind, const char *s, size_t len, uint32_t *zero_len,
                   struct buf *out);

/* ---- pretok.c */

enum tok_pre_kind {
    TOK_PRE_BYTE_LEVEL, TOK_PRE_SPLIT, TOK_PRE_METASPACE, TOK_PRE_WHITESPACE, TOK_PRE_WHITESPACE_SPLIT,
    TOK_PRE_PUNCTUATION, TOK_PRE_DIGITS, TOK_PRE_BERT, TOK_PRE_DELIMITER, TOK_PRE_SCRIPTS, TOK_PRE_FIXED_LENGTH,
};
enum tok_behavior {
    TOK_REMOVED, TOK_ISOLATED, TOK_MERGED_WITH_PREVIOUS, TOK_MERGED_WITH_NEXT, TOK_CONTIGUOUS,
};
enum tok_scheme { TOK_PREPEND_ALWAYS, TOK_PREPEND_FIRST, TOK_PREPEND_NEVER };
struct tok_pre {
    enum tok_pre_kind kind;
    enum tok_behavior behavior;
    bool invert;                 /* SPLIT */
    bool add_prefix_space, use_regex;   /* BYTE_LEVEL */
    bool split;                  /* METASPACE */
    enum tok_scheme scheme;      /* METASPACE */
    bool individual;             /* DIGITS */
    char mark[5];                /* METASPACE replacement or DELIMITER, UTF-8 */
    size_t length;               /* FIXED_LENGTH, characters */
    struct tok_re re;
};
bool tok_pre_load(struct tok *t, const json_t *j, struct err *e);
/* Cuts and rewrites w->pieces over w->text. */
bool tok_pre_run(struct tok_work *w, struct err *e);
/* The GPT-2 alphabet: each byte as a printable character below U+0144 (a two-byte UTF-8 string at most). */
uint32_t tok_byte_char(uint8_t byte);
int tok_char_byte(uint32_t cp);  /* -1: not of the alphabet */

/* ---- models */

enum tok_model_kind { TOK_MODEL_BPE, TOK_MODEL_UNIGRAM, TOK_MODEL_WORDPIECE, TOK_MODEL_WORDLEVEL };

struct tok_trie_node { uint32_t child; uint16_t n_children; int32_t id; };   /* id -1: no piece ends here */

struct tok_model {
    enum tok_model_kind kind;
    struct tok_vocab vocab;
    char *unk;                   /* unk_token or NULL */
    int32_t unk_id;              /* -1: none */
    char *prefix, *suffix;       /* continuing_subword_prefix, end_of_word_suffix; NULL when empty */
    bool fuse_unk, byte_fallback, ignore_merges;
    int32_t byte_ids[256];       /* "<0x00>".. or -1 */
    /* BPE */
    uint64_t *merges;            /* open addressing by pair, see bpe.c */
    size_t merge_mask, n_merges;
    int32_t *rank_id;            /* what a merge of this rank gives */
    int32_t *char_id;            /* id of each BMP character as a token, or -1 */
    uint64_t *bigrams;           /* bit set: two characters that some merge may join; NULL: never cut */
    /* Unigram */
    double *score_of;            /* by id */
    double min_score;
    struct tok_trie_node *nodes;
    uint8_t *labels;             /* of node i: the byte that leads to it */
    size_t n_nodes;
    /* WordPiece */
    size_t max_chars;
};
bool tok_bpe_load(struct tok *t, const struct tok_span *merges, struct err *e);
bool tok_bpe_encode(struct tok_work *w, const char *s, size_t len, struct err *e);
bool tok_unigram_load(struct tok *t, const struct tok_span *vocab, struct err *e);
bool tok_unigram_encode(struct tok_work *w, const char *s, size_t len, struct err *e);
bool tok_wordpiece_encode(struct tok_work *w, const char *s, size_t len, struct err *e);
bool tok_wordlevel_encode(struct tok_work *w, const char *s, size_t len, struct err *e);
void tok_model_free(struct tok_model *m);

/* ---- cache.c: ids of the words already seen in this call */

struct tok_cache;
struct tok_cache *tok_cache_open(size_t text_len);   /* sized for a text of that length; NULL: no memory */
void tok_cache_close(struct tok_cache **c);
/* True when word is known: its ids are appended to out (*ok false when that lacked memory). */
bool tok_cache_get(struct tok_cache *c, const char *word, size_t len, struct tok_ids *out, bool *ok);
/* Remember out->ids[from..n) for the word last looked up.  Forgetting is always allowed. */
void tok_cache_put(struct tok_cache *c, const char *word, size_t len, const struct tok_ids *out, size_t from);

/* ---- added.c: added tokens, cut out of the text before anything else */

struct tok_added_token {
    char *content;
    size_t len;
    int32_t id;
    bool single_word, lstrip, rstrip, normalized, special;
};
struct tok_pattern { char *text; size_t len; int32_t token; };   /* token: index into tokens */
struct tok_pattern_set {
    struct tok_pattern *items;   /* sorted by text */
    size_t n;
    bool first[256];             /* bytes that start a pattern */
};
struct tok_added {
    struct tok_added_token *tokens;
    size_t n, cap;
    struct tok_pattern_set raw, normalized;
    struct hash_map *by_text;    /* spelling to index into tokens */
    int32_t *by_id;              /* index into tokens or -1, n_ids of them */
    int32_t n_ids;
};
/* From the added_tokens array; ids are given as the reference gives them. */
bool tok_added_load(struct tok *t, const json_t *arr, struct err *e);
void tok_added_free(struct tok_added *a);
const struct tok_added_token *tok_added_find(const struct tok_added *a, int32_t id);
/* Cut s, which lies at offset base of the text being built, into w->out. */
bool tok_added_split(struct tok_work *w, const struct tok_pattern_set *set, const char *s, size_t len, size_t base,
                     uint32_t zero_len, unsigned flags);

/* ---- post.c */

struct tok_post { int32_t *items; size_t n, cap; bool present; };    /* ids; -1 stands for the text's ids */
bool tok_post_load(struct tok *t, const json_t *j, struct err *e);

/* ---- decode.c: decoders as stages that text flows through, so that streaming and whole are the same code */

enum tok_dec_kind {
    TOK_DEC_BYTE_LEVEL, TOK_DEC_BYTE_FALLBACK, TOK_DEC_FUSE, TOK_DEC_REPLACE, TOK_DEC_STRIP, TOK_DEC_METASPACE,
    TOK_DEC_WORDPIECE, TOK_DEC_BPE, TOK_DEC_CTC, TOK_DEC_JOIN,
};
struct tok_dec {
    enum tok_dec_kind kind;
    char *text;                  /* REPLACE content, WORDPIECE prefix, BPE suffix, CTC pad token */
    size_t text_len;
    char *delimiter;             /* CTC */
    size_t delimiter_len;
    char mark[5];                /* STRIP content, METASPACE replacement */
    bool cleanup;                /* WORDPIECE, CTC */
    bool never;                  /* METASPACE: prepend_scheme never */
    size_t start, stop;          /* STRIP */
    struct tok_re re;            /* REPLACE */
};
bool tok_dec_load(struct tok *t, const json_t *j, struct err *e);
void tok_dec_free(struct tok_dec *d);

struct tok_flow;                 /* one text on its way through the stages */
struct tok_flow *tok_flow_open(const struct tok *t);   /* NULL: no memory */
void tok_flow_close(struct tok_flow **f);
/* Push one token's spelling; what is certain is appended to out. */
bool tok_flow_push(struct tok_flow *f, const char *s, size_t len, struct buf *out, struct err *e);
bool tok_flow_finish(struct tok_flow *f, struct buf *out, struct err *e);
/* Spelling a token has in decoding, or NULL when it is skipped. */
const char *tok_decode_spelling(const struct tok *t, int32_t id, unsigned flags, size_t *len);
/* The bytes each token stands for, into t->bytes. */
bool tok_bytes_build(struct tok *t, struct err *e);

/* ---- roles.c: tokenizer_config.json and its neighbours */

struct tok_text { char *name, *value; };     /* "eos_token" -> "</s>"; chat templates by name */
struct tok_texts { struct tok_text *items; size_t n, cap; };
bool tok_roles_load(struct tok *t, const struct file_set *fs, struct err *e);
void tok_texts_free(struct tok_texts *v);

struct tok {
    uint8_t *uc;
    struct tok_model model;
    struct tok_added added;
    struct tok_norm *norms;
    size_t n_norms;
    struct tok_pre *pres;
    size_t n_pres;
    struct tok_post post;
    struct tok_dec *decs;
    size_t n_decs;
    int32_t n_ids;               /* model and added tokens */
    struct buf bytes;            /* what each token stands for */
    uint32_t *bytes_at;          /* n_ids + 1 offsets into bytes */
    int32_t bos, eos, unk, pad;
    struct tok_texts special, templates;
};

/* ---- load.c */
bool tok_load_json(struct tok *t, const char *text, size_t len, struct err *e);

/* A string field copied out; missing or null gives NULL. */
bool tok_load_str(const json_t *j, const char *key, char **out, size_t *len, struct err *e);
/* A field that must be one character, as UTF-8. */
bool tok_load_char(const json_t *j, const char *key, const char *dflt, char out[5], struct err *e);
bool tok_load_pattern(struct tok *t, const json_t *j, struct tok_re *re, struct err *e);
bool tok_nomem(struct err *e);

/* ---- slow.c, spm.c, tiktoken.c, scores.c: vocabularies in other files, written as a tokenizer.json */

struct tok_slow {
    json_t *config;              /* tokenizer_config.json or NULL */
    json_t *given;               /* ids that it or added_tokens.json names */
    struct buf added, model;     /* JSON: elements of added_tokens; the model */
    int64_t n_added;
    const char *bos, *eos;       /* what a prompt gets; NULL: nothing */
    int64_t bos_id, eos_id;
};
bool tok_slow_has(const struct file_set *fs);
bool tok_slow_read(const struct file_set *fs, struct buf *out, struct err *e);
void tok_slow_add(struct tok_slow *s, int64_t id, const char *text, size_t len, bool special);
void tok_slow_finish(struct tok_slow *s, const char *normalizer, const char *pre_tokenizer, const char *decoder, struct buf *out);
bool tok_spm_read(struct tok_slow *s, const unsigned char *data, size_t len, struct buf *out, struct err *e);
bool tok_tiktoken_is(const unsigned char *data, size_t len);
bool tok_tiktoken_read(struct tok_slow *s, const unsigned char *data, size_t len, struct buf *out, struct err *e);
/* "merges" for a vocabulary with "scores", ids in "unmergeable" left out. */
bool tok_scores_merges(const struct tok_vocab *v, const struct tok_span *scores, const struct tok_span *unmergeable, struct buf *out, struct err *e);

/* How text is cut before byte-level BPE, as JSON. */
#define TOK_BYTES(space, regex) "{\"type\":\"ByteLevel\",\"add_prefix_space\":" space ",\"trim_offsets\":true,\"use_regex\":" regex "}"
#define TOK_SPLIT(regex) "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"" regex "\"},\"behavior\":\"Isolated\",\"invert\":false}"
#define TOK_CL100K(digits) "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|" digits \
    "| ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+"
#define TOK_SPLIT_QWEN TOK_SPLIT(TOK_CL100K("\\\\p{N}"))
#define TOK_SPLIT_LLAMA3 TOK_SPLIT(TOK_CL100K("\\\\p{N}{1,3}"))
#define TOK_SPLIT_O200K TOK_SPLIT("[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?[\\\\p{Lu}\\\\p{Lt}\\\\p{Lm}\\\\p{Lo}\\\\p{M}]*[\\\\p{Ll}\\\\p{Lm}\\\\p{Lo}\\\\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?" \
    "|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?[\\\\p{Lu}\\\\p{Lt}\\\\p{Lm}\\\\p{Lo}\\\\p{M}]+[\\\\p{Ll}\\\\p{Lm}\\\\p{Lo}\\\\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\\\\p{N}{1,3}" \
    "| ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n/]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+")

#endif
