/* tok/tok.h - tokenizers: text to token ids and back.
 *
 * A tokenizer is what tokenizer.json describes, run as Hugging Face's `tokenizers` defines it:
 * added tokens are cut out of the text first, then normalizer -> pre-tokenizer -> model (BPE, byte
 * level or with byte fallback; Unigram; WordPiece; WordLevel) -> post-processor; decoding goes through the decoder.
 * Not taken from the file: truncation, padding, dropout.
 * Exactness is the contract: the same ids as the reference for any input, valid UTF-8 or not
 * (invalid bytes are first replaced by U+FFFD).
 *
 * An open tokenizer is immutable: any number of threads may use it at once.  Cost: near linear
 * in the text whatever it is (BPE merges with a priority queue); a text has at most 256 MiB.
 *
 * Formats: tokenizer.json, tokenizer_config.json, special_tokens_map.json (see INTERFACES 0.3). */
#ifndef QUIRE_TOK_TOK_H
#define QUIRE_TOK_TOK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/buf.h"
#include "base/err.h"
#include "base/file.h"

struct tok;

struct tok_ids {
    int32_t *ids;
    size_t n, cap;
};
void tok_ids_free(struct tok_ids *v);
bool tok_ids_push(struct tok_ids *v, int32_t id);  /* false: no memory */

/* Opens from a model folder (or linked-in set): tokenizer.json, or else a SentencePiece or tiktoken file or vocab.json with merges.txt; reads
 * tokenizer_config.json, special_tokens_map.json and generation_config.json/config.json for special token ids if there. */
bool tok_has(const struct file_set *fs);    /* whether there is anything to open */
bool tok_open(struct tok **out, const struct file_set *fs, struct err *e);
/* From the text of a tokenizer.json alone. */
bool tok_open_json(struct tok **out, const char *text, size_t len, struct err *e);
void tok_close(struct tok **t);

enum tok_encode_flags {
    TOK_ENCODE_PLAIN = 0,
    TOK_ENCODE_SPECIAL = 1,     /* run the post-processor's template: add BOS/EOS as the model wants */
    TOK_ENCODE_NO_PARSE = 2,    /* text that spells a special added token stays ordinary text */
};
/* Appends the ids of text[0..len) to out.  On false out is as before. */
bool tok_encode(const struct tok *t, const char *text, size_t len, unsigned flags, struct tok_ids *out, struct err *e);

enum tok_decode_flags { TOK_DECODE_ALL = 0, TOK_DECODE_SKIP_SPECIAL = 1 };
/* Appends the text of ids to out, as the reference's decode().  Unknown ids are skipped.  Always valid UTF-8. */
bool tok_decode(const struct tok *t, const int32_t *ids, size_t n, unsigned flags, struct buf *out, struct err *e);

/* Ids are 0 .. tok_vocab_size-1 (largest id + 1; holes are possible). */
int32_t tok_vocab_size(const struct tok *t);
/* The vocabulary's own spelling ("Ġthe", "▁the", "<0x0A>"); NULL for a hole.  Borrowed. */
const char *tok_token_spelling(const struct tok *t, int32_t id, size_t *len);
/* The bytes this token stands for inside text ("Ġthe" -> " the", "<0x0A>" -> "\n", special tokens as spelled).
 * May be part of a character.  Borrowed, valid as long as t; *len 0 for a hole. */
const char *tok_token_bytes(const struct tok *t, int32_t id, size_t *len);
/* id of an exact vocabulary spelling or added token, or -1. */
int32_t tok_token_id(const struct tok *t, const char *spelling, size_t len);
bool tok_is_special(const struct tok *t, int32_t id);

/* Special tokens by role; -1 when the model has none. */
int32_t tok_bos_id(const struct tok *t);
int32_t tok_eos_id(const struct tok *t);
int32_t tok_unk_id(const struct tok *t);
int32_t tok_pad_id(const struct tok *t);

/* The files' chat template(s) as text, or NULL: tokenizer_config.json's chat_template (string, or a
 * list of {name, template}: name NULL takes "default"), or the file chat_template.jinja / chat_template.json. Borrowed. */
const char *tok_chat_template(const struct tok *t, const char *name);
/* bos_token, eos_token, ... spelled as tokenizer_config.json has them ("" when absent); name is the key. Borrowed. */
const char *tok_special_text(const struct tok *t, const char *name);

#endif
