/* kv/prefix.h - which cached pages hold the beginning of a given token sequence.
 *
 * Pages form a forest: the page of tokens [0, b) is a root, the page of [b, 2b) its child, and
 * so on (b = block_tokens).  The identity of a page's content is therefore
 *
 *     (identity of its parent page, its own b tokens)     for a root: (salt, its b tokens)
 *
 * Every publication gets a serial number that is never used again.  A child remembers its
 * parent by that number, so a parent page that was evicted and filled anew is another parent.
 *
 * A hash table finds a candidate by XXH3 over the identity, seeded per process.  The hash decides
 * nothing: a hit is a page whose parent serial (or salt) and tokens are compared and equal.  By
 * induction over the depth a match has exactly the asked tokens from position 0 under the
 * asked salt, so no crafted collision can hand out another's pages.
 *
 * Invariants, all verified by kv_prefix_check():
 *   X1  a page is in the table exactly when the pool has it published.
 *   X2  it is on the chain of its hash's bucket, with the hash of its stored identity.
 *   X3  no two pages in the table have the same identity.
 *
 * A page whose parent was evicted first (possible when a window gave the parent up, or when its
 * holder used another copy) can not be reached; it stays until it is evicted itself.
 *
 * Thread: the engine's only.  Cost: O(block_tokens) a page; no allocation after open. */
#ifndef QUIRE_KV_PREFIX_H
#define QUIRE_KV_PREFIX_H

#include <stdbool.h>
#include <stdint.h>
#include "base/err.h"
#include "kv/pool.h"

struct kv_prefix;

struct kv_prefix_opts {
    int32_t block_tokens;
    /* NULL: seeded XXH3.  Tests pass weak ones to prove that the hash decides nothing. */
    uint64_t (*hash)(const int32_t *tokens, int32_t n, uint64_t seed);
};

/* Registers itself as the pool's evict listener; the pool must outlive it. */
bool kv_prefix_open(struct kv_prefix **out, struct kv_pool *pool, const struct kv_prefix_opts *opts, struct err *e);
void kv_prefix_close(struct kv_prefix **x);     /* NULL is fine */

/* How far a sequence has come in the forest: its last page there, or the root of its salt. */
struct kv_chain {
    uint64_t parent;        /* depth 0: the salt; else the serial of `page` */
    int32_t depth;          /* pages passed */
    kv_block page;
};
struct kv_chain kv_chain_root(uint64_t salt);

/* Follow chain through the pages of tokens[0 .. max_pages * block_tokens) as far as they are
 * cached; tokens[0] is the first behind the chain.  Each page found gets one reference and goes
 * to ids[].  Returns how many.  Choose max_pages so that one token stays to be computed. */
int32_t kv_prefix_match(struct kv_prefix *x, struct kv_chain *chain, const int32_t *tokens, int32_t max_pages,
                        kv_block *ids);

/* The caller's HELD page id now holds the block_tokens tokens behind chain, computed and final.
 * Publishes it and moves chain onto it.  When that content is already known from another page, which
 * somebody holds, the table stays as it is and the caller keeps its copy, unpublished; if nobody
 * holds the other, the caller's page takes its place and the other becomes FREE.
 * False, with nothing changed, when chain's page has been evicted meanwhile: begin again at
 * the root with the sequence's own pages, or leave it. */
bool kv_prefix_publish(struct kv_prefix *x, struct kv_chain *chain, kv_block id, const int32_t *tokens);

/* False and a message naming the broken invariant and the page.  O(n_blocks) with a sound hash. */
bool kv_prefix_check(const struct kv_prefix *x, struct err *e);

#endif
