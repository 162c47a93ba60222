/* model/checkpoint_int.h - all tensors of a checkpoint by name: model.safetensors alone, the shards that
 * model.safetensors.index.json lists, or GGUF files. */
#ifndef QUIRE_MODEL_CHECKPOINT_INT_H
#define QUIRE_MODEL_CHECKPOINT_INT_H

#include "base/err.h"
#include "base/file.h"
#include "tensor/tensor.h"

struct gguf_files;

struct checkpoint;

bool checkpoint_open(struct checkpoint **out, const struct file_set *files, struct err *e);
/* Of GGUF files, which must outlive it. */
bool checkpoint_open_gguf(struct checkpoint **out, const struct gguf_files *f, struct err *e);
void checkpoint_close(struct checkpoint **ck);
/* NULL when there is none; marks it as used.  Borrowed. */
const struct tensor *checkpoint_take(const struct checkpoint *ck, const char *name);
/* As take, but does not mark. */
const struct tensor *checkpoint_find(const struct checkpoint *ck, const char *name);
size_t checkpoint_count(const struct checkpoint *ck);
/* i < checkpoint_count.  *file names the shard, *used whether it was taken. */
const struct tensor *checkpoint_at(const struct checkpoint *ck, size_t i, const char **file, bool *used);
/* The shard that holds t, for messages. */
const char *checkpoint_file_of(const struct checkpoint *ck, const struct tensor *t);

#endif
