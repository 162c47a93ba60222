/* kv/pool.h - the pool of KV cache pages: ids, reference counts, reuse, eviction.
 *
 * A page (block) holds the same number of consecutive positions of one sequence, all layers.
 * This module hands out ids and never touches K or V bytes; dev/ owns those.  So it is plain
 * host code: its tests need neither a model nor a device.
 *
 *   FREE -- take --> HELD -- last drop, unpublished --> FREE
 *                    HELD -- last drop, published ----> IDLE   (cached: content still valid)
 *   IDLE -- ref ---> HELD       IDLE -- take, least recent first --> HELD   (content lost)
 *
 * Invariants, all verified by kv_pool_check():
 *   P1  n_free + n_idle + n_held == n_blocks - 1; page 0 is never handed out.
 *   P2  refs > 0 exactly when the page is HELD.
 *   P3  an IDLE page is published, a FREE one is not.
 *   P4  the list of FREE pages holds each of them once; so does the list of IDLE ones, which
 *       runs from the least to the most recently dropped.
 *
 * A published page is full and is never written again; that is the holders' duty, as the pool
 * sees no writes.  Which content a published page has is known to kv/prefix.h alone.
 *
 * Thread: the engine's only.  Cost: O(1) a page; no allocation after open.
 * Prior art: PagedAttention (Kwon et al., SOSP 2023). */
#ifndef QUIRE_KV_POOL_H
#define QUIRE_KV_POOL_H

#include <stdbool.h>
#include <stdint.h>
#include "base/err.h"

typedef int32_t kv_block;       /* index into the device's KV area, in pages */
enum { KV_BLOCK_NULL = 0 };     /* padding rows of a batch may write here */

struct kv_pool;
struct kv_pool_opts { int32_t n_blocks; };      /* at least 2; includes page 0 */

/* On failure *out is NULL and e says why. */
bool kv_pool_open(struct kv_pool **out, const struct kv_pool_opts *opts, struct err *e);
/* Sets *pool to NULL; NULL is fine. */
void kv_pool_close(struct kv_pool **pool);

/* Told of each published page whose content is about to be lost: IDLE and taken, or forgotten.
 * The page is unpublished by the pool itself; fn must not call back.  One listener. */
typedef void kv_pool_evict_fn(void *ctx, kv_block id);
void kv_pool_on_evict(struct kv_pool *pool, kv_pool_evict_fn *fn, void *ctx);

/* Pages that kv_pool_take could hand out now: FREE and IDLE ones. */
int32_t kv_pool_available(const struct kv_pool *pool);

/* Take n pages, one reference each, evicting IDLE ones once FREE runs out.
 * All or nothing: on false neither the pool nor ids[] has changed. */
bool kv_pool_take(struct kv_pool *pool, int32_t n, kv_block *ids);

/* One more reference to a HELD or IDLE page. */
void kv_pool_ref(struct kv_pool *pool, kv_block id);
int32_t kv_pool_refs(const struct kv_pool *pool, kv_block id);

/* Give up one reference to each, ids in sequence order: the tail is released first, so evicted
 * first, because a head is useful to more requests.  Entries of KV_BLOCK_NULL are skipped. */
void kv_pool_drop(struct kv_pool *pool, const kv_block *ids, int32_t n);

/* Declare a HELD page full and worth keeping: its last drop makes it IDLE, not FREE. */
void kv_pool_publish(struct kv_pool *pool, kv_block id);
/* Take that back: an IDLE page becomes FREE, a HELD one stays HELD.  The listener is not told. */
void kv_pool_unpublish(struct kv_pool *pool, kv_block id);
bool kv_pool_is_published(const struct kv_pool *pool, kv_block id);

/* Make every IDLE page FREE.  O(n_idle). */
void kv_pool_forget_idle(struct kv_pool *pool);

struct kv_pool_stats { int32_t n_blocks, n_free, n_idle, n_held; uint64_t n_evictions; };
struct kv_pool_stats kv_pool_stats(const struct kv_pool *pool);

/* False and a message naming the broken invariant and the page.  O(n_blocks). */
bool kv_pool_check(const struct kv_pool *pool, struct err *e);

#endif
