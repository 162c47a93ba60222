/* guide/guide_int.h - what the guide's files share: expressions, NFAs, the machine, the trie. */
#ifndef QUIRE_GUIDE_GUIDE_INT_H
#define QUIRE_GUIDE_GUIDE_INT_H

#include <pthread.h>
#include <stdatomic.h>
#include "base/buf.h"
#include "guide/guide.h"

/* ---- expressions (expr.c): what all front ends produce ---- */

enum expr_kind {
    EXPR_NEVER,     /* no string at all */
    EXPR_EMPTY,     /* the empty string */
    EXPR_TEXT,      /* bytes: text[a, a + n) */
    EXPR_SET,       /* one code point of ranges[a, a + n) */
    EXPR_SEQ,       /* kids[a, a + n) */
    EXPR_ALT,       /* kids[a, a + n) */
    EXPR_REPEAT,    /* a, min to max times (max < 0: no end) */
    EXPR_RULE,      /* a call of rule a */
    EXPR_DFA,       /* dfas[a] */
    EXPR_GRAPH,     /* moves[a, a + n) between min places, from place 0 to place min - 1 */
    EXPR_STRING     /* the regular expression a, each of its characters as a JSON string spells it (no quotes around) */
};
struct expr { enum expr_kind kind; int32_t a, n, min, max; };
struct expr_range { uint32_t lo, hi; };
struct expr_move { int32_t from, to, label; };    /* label: an expression, or -1: nothing */
struct expr_rule { char *name; int32_t body; };   /* body -1: not yet defined */

/* A complete automaton over bytes; trans[256 * state + byte], -1: none. */
struct dfa { int32_t n, cap; int32_t *trans; bool *accept; };

struct guide_builder {
    struct guide_limits limits;
    struct expr *nodes; size_t n_nodes, cap_nodes;
    int32_t *kids; size_t n_kids, cap_kids;
    struct expr_range *ranges; size_t n_ranges, cap_ranges;
    struct expr_rule *rules; size_t n_rules, cap_rules;
    struct expr_move *moves; size_t n_moves, cap_moves;
    struct dfa *dfas; size_t n_dfas, cap_dfas;
    struct buf text;
    int64_t work;                 /* spent so far */
    bool unique;                  /* arrays of strings that must differ: states keep count (unique.c) */
    bool free_text;               /* the output is not JSON from its start */
    bool failed;
    struct err err;               /* the first failure */
};

/* All return a node, or -1 after a failure (which sticks); -1 among the arguments gives -1. */
int32_t expr_fail(struct guide_builder *b, enum err_code code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
int32_t expr_never(struct guide_builder *b);
int32_t expr_empty(struct guide_builder *b);
int32_t expr_text(struct guide_builder *b, const char *s, size_t n);
int32_t expr_set(struct guide_builder *b, const struct expr_range *r, size_t n);   /* sorts, merges, drops surrogates */
int32_t expr_not_set(struct guide_builder *b, const struct expr_range *r, size_t n);
int32_t expr_seq(struct guide_builder *b, const int32_t *kids, size_t n);
int32_t expr_seq2(struct guide_builder *b, int32_t x, int32_t y);
int32_t expr_alt(struct guide_builder *b, const int32_t *kids, size_t n);
int32_t expr_alt2(struct guide_builder *b, int32_t x, int32_t y);
int32_t expr_repeat(struct guide_builder *b, int32_t x, int32_t min, int32_t max);
int32_t expr_string(struct guide_builder *b, int32_t x);
int32_t expr_call(struct guide_builder *b, int32_t rule);
/* From place 0 to place n_places - 1. */
int32_t expr_graph(struct guide_builder *b, const struct expr_move *moves, size_t n, int32_t n_places);
int32_t expr_dfa(struct guide_builder *b, int32_t dfa);
int32_t expr_rule_new(struct guide_builder *b, const char *name);                    /* a rule's index; -1 */
/* Any code point but surrogates. */
int32_t expr_any(struct guide_builder *b);
bool expr_spend(struct guide_builder *b, int64_t work);

/* ---- regular languages as DFAs (dfa.c) ---- */

enum dfa_op { DFA_AND, DFA_AND_NOT };
/* Both must be without rules.  The language x op y. */
int32_t expr_combine(struct guide_builder *b, int32_t x, int32_t y, enum dfa_op op);
/* Whether the language has no string / contains s.  False also after a failure. */
bool expr_is_void(struct guide_builder *b, int32_t x);
bool expr_contains(struct guide_builder *b, int32_t x, const char *s, size_t n);
void dfa_free(struct dfa *d);
/* Takes the automaton over (also on failure). */
int32_t expr_from_dfa(struct guide_builder *b, struct dfa *d);
int32_t dfa_add(struct guide_builder *b, struct dfa *d);   /* a state without moves; -1 on failure */

/* ---- front ends ---- */

int32_t regex_parse(struct guide_builder *b, const char *s, size_t n);
/* As regex_parse, for JSON Schema's pattern: not anchored, a language of whole strings. */
int32_t regex_parse_search(struct guide_builder *b, const char *s, size_t n);
int32_t schema_parse(struct guide_builder *b, const json_t *schema, const char *whitespace);
int32_t grammar_parse(struct guide_builder *b, const char *s, size_t n);

/* ---- NFAs of rules (nfa.c) ---- */

struct nfa_edge { uint16_t lo, hi; int32_t to; };     /* classes, both included */
struct nfa_call { int32_t rule, to; };
/* A counted loop over single characters: states of its body carry how many were read. */
struct nfa_loop { int32_t head, body, exit, end, min, max; };   /* its body's states: body, and exit + 1 up to end */

enum { NFA_FINAL = 1, NFA_KEEP = 2 };                 /* KEEP: has edges or calls, is final, or heads a loop */
struct nfa {
    int32_t n_states, n_rules, n_classes, n_loops;
    uint8_t class_of[256];
    uint8_t *flags;               /* [n_states] */
    int32_t *edge_at, *eps_at, *call_at;   /* [n_states + 1] */
    struct nfa_edge *edges;
    int32_t *eps;
    struct nfa_call *calls;
    int32_t *loop_head, *loop_next, *loop_body;   /* [n_states]: the loop this state heads, counts one more of, is in; or -1 */
    bool is_void;
    struct nfa_loop *loops;
    int32_t *start;               /* [n_rules] */
    int32_t *order;               /* [n_rules]: callers before those they call first */
    int32_t *by_order;            /* [n_rules] */
};
/* Rule 0 is root; rule i + 1 the builder's rule i.  Without rules: root must not call any, and may be void. */
bool nfa_build(struct nfa *out, struct guide_builder *b, int32_t root, bool with_rules, struct err *e);
void nfa_free(struct nfa *n);

/* ---- the machine (machine.c) ---- */

/* An element of a state set: NFA state, and in the upper half the count of the loop it is in.  SYMBOLIC counts from the mask's
 * start, without the loop's bounds. */
#define MACHINE_SYMBOLIC ((uint64_t)1 << 63)
static inline int32_t machine_state(uint64_t x) { return (int32_t)(uint32_t)x; }
static inline int64_t machine_count(uint64_t x) { return (int64_t)((x & ~MACHINE_SYMBOLIC) >> 32); }

enum { MACHINE_ROOT = 0, MACHINE_HOLE = 1 };          /* the configurations that end all stacks */
enum { CFG_ACCEPT = 1, CFG_HOLE = 2, CFG_EXPANDED = 4, CFG_DEAD_TRANS = 8 };

/* A frame: a state set, and the configuration that goes on when it is left. */
struct frame { int32_t set, parent; };
struct cfg {
    int32_t frames, n_kernel, n_frames;    /* frames[frames, + n_frames); beyond the kernel: rules entered here */
    int32_t kernel;                        /* where the kernel lies in frames[] */
    int32_t trans;                         /* index in trans[], -1: none yet */
    int32_t mask;                          /* remembered mask, -1 */
    uint8_t flags;
};
struct set { int32_t at, n; int32_t local; };          /* elems[at, + n); local: its mask without its stack, -1 */

struct table { uint32_t *slots; size_t n, cap; };     /* open addressing over ids + 1 */

struct local;
struct machine {
    const struct nfa *nfa;
    struct set *sets; size_t n_sets, cap_sets;
    uint64_t *elems; size_t n_elems, cap_elems;
    struct cfg *cfgs; size_t n_cfgs, cap_cfgs;
    struct frame *frames; size_t n_frames, cap_frames;
    int32_t *trans; size_t n_trans, cap_trans;
    struct local **locals; size_t n_locals, cap_locals;
    uint32_t **masks; size_t n_masks, cap_masks;
    struct table set_table, cfg_table;
    int32_t *start_set;           /* [n_rules], -1: not yet */
    size_t local_bytes, compact_at;   /* compact_at: when to forget next */
    int64_t work, max_work;       /* max_work: where this call's budget ends */
    bool failed;                  /* memory or budget ran out during this call; why in over_budget */
    bool over_budget;
    /* scratch */
    struct seed { int32_t parent; uint64_t x; } *seeds; size_t n_seeds, cap_seeds;
    struct pend { int32_t next, parent; uint64_t ret; } *pends; size_t n_pends, cap_pends;
    int32_t *pend_head; uint64_t *pend_bits;
    uint64_t *stamp_x; uint32_t *stamp; uint32_t generation;
    uint64_t *tmp; size_t cap_tmp;
};
bool machine_open(struct machine *m, const struct nfa *n);
void machine_close(struct machine *m);
size_t machine_bytes(const struct machine *m);
/* The configuration before any byte; -1 on failure. */
int32_t machine_start(struct machine *m);
/* {elems} on top of parent, closed. */
int32_t machine_cfg(struct machine *m, const uint64_t *elems, size_t n, int32_t parent);
/* After one more byte: -1 when nothing goes on, or on failure (m->failed). */
int32_t machine_step(struct machine *m, int32_t cfg, uint8_t byte);
/* As machine_step, but rules that begin at cfg itself are left out, and the result is not remembered. */
int32_t machine_step_kernel(struct machine *m, int32_t cfg, uint8_t byte);
bool machine_expand(struct machine *m, int32_t cfg);
/* A fresh machine that holds only what cfgs[0..n) need; they are renumbered. */
bool machine_compact(struct machine *m, int32_t *const *roots, size_t n);

/* ---- the trie (vocab.c) ---- */

/* Nodes in preorder; node 0 is the root.  Tokens in the same order: a node's own are tokens[first[i], first[i] + own[i]). */
struct trie {
    int32_t n;
    uint8_t *byte; uint16_t *depth;
    int32_t *skip;                /* the node after the subtree */
    int32_t *first;               /* [n + 1]: index in tokens where this node's begin; the subtree's end at first[skip] */
    int32_t *tokens; int32_t n_tokens;
    int32_t max_depth;
};
/* Own tokens of i: first[i] up to first[i + 1]. */

struct guide_vocab {
    atomic_int refs;
    int32_t vocab_size, n_words, n_eos;
    int32_t *eos_ids;
    struct trie trie;
    int32_t *quoted; int32_t n_quoted;   /* tokens with a quotation mark */
    int32_t *text_at;             /* [vocab_size + 1] into text */
    char *text;
    pthread_mutex_t lock;
    struct cached { struct guide *guide; uint64_t hash; char *key; size_t key_len; uint64_t used; } *cache;
    uint64_t clock;
    bool closed;
};
void guide_vocab_unref(struct guide_vocab *v);

/* ---- masks (mask.c) ---- */

struct escape { int32_t node, count; };
struct counted { int32_t token, count; };
/* What a state set allows whatever lies below it on the stack, and the trie nodes where it may be left for that. */
struct local {
    bool symbolic;
    uint32_t *bits;               /* or ids when few */
    int32_t *ids; int32_t n_ids;
    struct escape *escapes; size_t n_escapes, cap_escapes;
    /* symbolic: tokens that stay in the loop, by how many more characters they need; those that leave it */
    struct counted *stay; size_t n_stay, cap_stay;
    struct counted *leave; size_t n_leave, cap_leave;
    size_t bytes;
};
void local_free(struct local *l);

struct guide {
    atomic_int refs;
    struct guide_vocab *vocab;
    struct guide_limits limits;
    struct nfa nfa;
    pthread_mutex_t lock;
    struct machine m;
    int32_t start;
    bool unique;
    struct guide_state *states;   /* list, for compaction */
    int32_t mask_ring[64], n_ring;   /* configurations with a remembered mask */
};
struct guide_state {
    struct guide *guide;
    struct guide_state *prev, *next;
    int32_t cfg;
    int32_t mask_cfg;             /* what mask shows, -1: nothing yet */
    bool eos;
    struct unique *unique;        /* of guides that need it */
    uint32_t *mask;
};

/* ---- strings that an array may have but once (unique.c) ---- */

struct unique *unique_open(void);                          /* NULL: no memory */
struct unique *unique_fork(const struct unique *from);
void unique_close(struct unique *u);
/* More of the output.  False: no memory. */
bool unique_feed(struct unique *u, const char *s, size_t n);
/* Takes out of cfg's mask what would repeat a string.  The guide's lock is held.  False: no memory, or past the budget. */
bool unique_filter(struct unique *u, struct guide *g, int32_t cfg, uint32_t *mask);

/* Fills bits for cfg.  The guide's lock is held. */
bool mask_fill(struct guide *g, int32_t cfg, uint32_t *bits);

#endif
