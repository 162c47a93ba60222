/* guide/guide.h - structured output: which tokens may come next.
 *
 * A guide is a language over bytes, compiled once: from a regular expression, a list of choices, a JSON Schema, a
 * context-free grammar, or any composition of these.  A guide_state is one sequence's place in it.  Its mask tells the
 * tokens that keep the output completable, so that whatever is drawn, a finished output is in the language; the
 * end-of-sequence ids are in the mask exactly where the output is complete.
 *
 *   vocabulary --guide_vocab_open--> trie over all tokens' bytes, built once for a tokenizer
 *   text ------guide_compile-------> expressions -> one byte NFA per rule -> subset automaton with a stack, built as it is used
 *   state -----guide_state_mask----> walk of the trie with the automaton, remembered by state
 *
 * Tokens may cross the borders of terminals and end inside a UTF-8 character: everything below is bytes.  Special tokens have
 * no text and are never allowed, but for the end ids.
 *
 * Composition.  A builder makes expressions out of expressions; negative ids are failures that stick, so calls may be
 * nested and checked once in guide_build_finish:
 *
 *   struct guide_builder *b = guide_build_open(NULL);
 *   int32_t call[] = {guide_build_text(b, "<tool_call>\n{\"name\": \"f\", \"arguments\": ", -1),
 *                     guide_build_schema(b, parameters, NULL),
 *                     guide_build_text(b, "}\n</tool_call>", -1)};
 *   int32_t calls = guide_build_repeat(b, guide_build_seq(b, call, 3), 1, -1);
 *   ok = guide_build_finish(&b, calls, vocab, NULL, &guide, &e);
 *
 * Threads: a vocabulary and a guide may be used by any number of threads (a guide's memory of states has a lock); a builder and
 * a state by one at a time.  Compile off the engine's thread.  Cost: usual schemas compile in a few ms; the first mask of a
 * state costs up to a few ms with a vocabulary of 128k, a remembered one about a copy of the mask.  All is bounded by guide_limits.
 *
 * Method: graph-structured stacks (Tomita 1985) over lazily determinized NFAs; the part of a mask that does not depend on the stack
 * is kept per state set, as in XGrammar (Dong et al. 2024). */
#ifndef QUIRE_GUIDE_GUIDE_H
#define QUIRE_GUIDE_GUIDE_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/err.h"

struct tok;
struct guide_vocab;
struct guide;
struct guide_state;
struct guide_builder;

/* ---- the vocabulary ---- */

/* Masks have ceil(vocab_size / 32) words; vocab_size is the model's and may be past the tokenizer's.  eos_ids end an output.
 * tok is only read during the call.  Also keeps the last compiled guides by their text, so that equal requests share one. */
bool guide_vocab_open(struct guide_vocab **out, const struct tok *tok, int32_t vocab_size, const int32_t *eos_ids, int32_t n_eos,
                      struct err *e);
/* As above from plain strings, for tests and benchmarks: tokens[i] == NULL has no text. */
bool guide_vocab_open_bytes(struct guide_vocab **out, const char *const *tokens, const size_t *lens, int32_t vocab_size,
                            const int32_t *eos_ids, int32_t n_eos, struct err *e);
/* Guides hold a reference of their own: closing while some are in use is fine. */
void guide_vocab_close(struct guide_vocab **v);
size_t guide_vocab_bytes(const struct guide_vocab *v);   /* memory held by the trie */

/* ---- compiling ---- */

enum guide_kind {
    GUIDE_REGEX,        /* text is a regular expression that the whole output matches */
    GUIDE_CHOICE,       /* text is a JSON array of strings */
    GUIDE_JSON_SCHEMA,  /* text is a JSON Schema */
    GUIDE_JSON_OBJECT,  /* any JSON object; text is ignored */
    GUIDE_GRAMMAR       /* text is GBNF or Lark (docs/STRUCTURED.md) */
};

struct guide_limits {
    size_t max_text_bytes;       /* of one input */
    int32_t max_states;          /* of all NFAs together */
    int32_t max_dfa_states;      /* where languages are intersected */
    size_t max_bytes;            /* of remembered states and masks; past it they are forgotten */
    int64_t max_work;            /* elementary steps for one mask or one compilation (about 5 ns each) */
};
void guide_limits_default(struct guide_limits *l);

struct guide_spec {
    enum guide_kind kind;
    const char *text; size_t len;
    const char *whitespace;      /* regular expression for what may stand between JSON's tokens; NULL: a space, or one line break and
                                    up to 20 blanks; "" : nothing */
};

/* ERR_INVALID: the text is not what kind says, or matches nothing; ERR_UNSUPPORTED: valid, but not supported here (the message names the
 * keyword and where); ERR_TOO_LARGE: past limits (NULL: the defaults). */
bool guide_compile(struct guide **out, struct guide_vocab *v, const struct guide_spec *spec, const struct guide_limits *l, struct err *e);
struct guide *guide_ref(struct guide *g);      /* returns g */
void guide_unref(struct guide **g);            /* sets *g to NULL; NULL is fine */
size_t guide_bytes(struct guide *g);           /* memory held now */

/* ---- composing ---- */

struct guide_builder *guide_build_open(const struct guide_limits *l);   /* NULL: no memory */
void guide_build_close(struct guide_builder **b);
int32_t guide_build_text(struct guide_builder *b, const char *text, ptrdiff_t len);      /* exactly this; len < 0: strlen */
int32_t guide_build_regex(struct guide_builder *b, const char *text, size_t len);
/* A JSON value of this schema; the document stays the caller's.  whitespace as in guide_spec. */
int32_t guide_build_schema(struct guide_builder *b, const json_t *schema, const char *whitespace);
int32_t guide_build_grammar(struct guide_builder *b, const char *text, size_t len);
int32_t guide_build_seq(struct guide_builder *b, const int32_t *parts, size_t n);
int32_t guide_build_alt(struct guide_builder *b, const int32_t *parts, size_t n);
int32_t guide_build_repeat(struct guide_builder *b, int32_t part, int32_t min, int32_t max);   /* max < 0: no end */
/* Any text (also none) that does not contain any of stops, none of them empty: what a model may say before a tool call. */
int32_t guide_build_until(struct guide_builder *b, const char *const *stops, size_t n);
/* Closes the builder in any case. */
bool guide_build_finish(struct guide_builder **b, int32_t root, struct guide_vocab *v, struct guide **out, struct err *e);

/* ---- a sequence's place ---- */

bool guide_state_open(struct guide_state **out, struct guide *g, struct err *e);     /* takes a reference of g */
struct guide_state *guide_state_fork(const struct guide_state *s);                   /* NULL: no memory */
void guide_state_close(struct guide_state **s);

/* Bit t % 32 of word t / 32: token t may come next.  Valid until the next call with this state.  NULL: out of memory, or
 * past max_work (ERR_TOO_LARGE), or the vocabulary cannot spell what the guide needs next (ERR_INVALID). */
const uint32_t *guide_state_mask(struct guide_state *s, struct err *e);
/* token was drawn.  False and nothing changed when the mask does not have it. */
bool guide_state_advance(struct guide_state *s, int32_t token, struct err *e);
/* The output so far is complete: an end id may come. */
bool guide_state_accepts(const struct guide_state *s);
/* An end id came, or nothing but one can come. */
bool guide_state_ended(struct guide_state *s);
/* Bytes that must come next whatever is drawn, at most cap of them into out; returns how many (0: there is a choice). */
size_t guide_state_forced(struct guide_state *s, char *out, size_t cap);

/* Whether bytes as a whole are in the language (tests, tools). */
bool guide_matches(struct guide *g, const char *bytes, size_t n);

#endif
