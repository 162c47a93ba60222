/* model/packed.h - the packed-weight cache: weights as a device packed them, kept in one file a model, mapped at the
 * next start instead of packed again (promise 5).
 *
 * File (little endian): header, table of entries, then each entry's bytes at a multiple of 4096.
 *     header  "QUIREPK1", u64 key, u64 n_entries, u64 file_bytes, u64 table_hash
 *     entry   char name[64], u64 offset, u64 bytes, u64 hash
 * The key covers what the bytes depend on: the checkpoint's identity, the packed layout and its version.  Names follow the weights' slots.
 * All hashes are XXH3-64.  A file that is stale, cut off, altered or not ours is no error: it is rebuilt.
 *
 * A writer builds beside the file and renames at the end, so readers see the old or the new one, never half. */
#ifndef QUIRE_MODEL_PACKED_H
#define QUIRE_MODEL_PACKED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/err.h"

enum { PACKED_NAME_MAX = 63 };

struct packed;          /* a mapped file */
struct packed_writer;

/* The folder used when none is named: $XDG_CACHE_HOME/quire/packed or ~/.cache/quire/packed; mem_free it.
 * NULL when neither variable is set. */
char *packed_default_dir(void);
/* The file of a model in dir; mem_free it.  One file for each (model path, layout), so that a changed checkpoint replaces its old file. */
char *packed_path(const char *dir, const char *model_path, const char *layout);

/* Maps a file and checks its header, table and bounds.  False with ERR_NOT_FOUND when there is none or ERR_FORMAT when
 * it is stale or damaged: both mean "pack again". */
bool packed_open(struct packed **out, const char *path, uint64_t key, struct err *e);
void packed_close(struct packed **p);
int64_t packed_count(const struct packed *p);
/* The i-th entry's bytes; verified only by packed_verify. */
const void *packed_entry(const struct packed *p, int64_t i, const char **name, size_t *bytes);
/* Whether the i-th entry's bytes have their hash.  Thread safe: verify entries in parallel. */
bool packed_verify(const struct packed *p, int64_t i);
/* Decoding streams all weights, and spends less on translating addresses where they lie in huge pages.  Files are written so that file systems
 * with large folios (ext4 since Linux 6.16, xfs and btrfs before) map them so.  What is not mapped so, a thread moves from now on from the file's small
 * pages to huge ones of memory, at the same addresses, while it is being read; where that cannot be done it stays where it is. */
void packed_move_to_huge_pages(struct packed *p);
/* Index of a name, or -1. */
int64_t packed_find(const struct packed *p, const char *name);

/* Begins a file of at most max_entries.  Creates the folder (mode 0700) when it is missing. */
bool packed_writer_open(struct packed_writer **out, const char *path, uint64_t key, int64_t max_entries, struct err *e);
bool packed_writer_add(struct packed_writer *w, const char *name, const void *data, size_t bytes, struct err *e);
/* Finishes and renames (commit), or removes what was written.  Always frees and NULLs *w. */
bool packed_writer_close(struct packed_writer **w, bool commit, struct err *e);

#endif
