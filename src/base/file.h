/* base/file.h - files and the places models come from. */
#ifndef QUIRE_BASE_FILE_H
#define QUIRE_BASE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include "base/err.h"

/* A read-only view of a whole file: mapped, or bytes linked into the program. */
struct file_view {
    const unsigned char *data;  /* NULL when size is 0 */
    size_t size;
    bool mapped;                /* file_view_close unmaps */
};

/* Map path read only.  A file that shrinks later would fault: callers copy small files with
 * file_read instead. */
bool file_view_open(struct file_view *v, const char *path, struct err *e);
void file_view_close(struct file_view *v);   /* leaves an empty view; fine on an empty one */

/* Whole content, NUL-terminated (not counted in *len), mem_free it.  Larger than max_bytes is ERR_TOO_LARGE. */
char *file_read(const char *path, size_t max_bytes, size_t *len, struct err *e);
/* All n bytes to fd, however the system cuts them; false: errno says why. */
bool file_write_all(int fd, const void *data, size_t n);
/* Write to a temporary beside path, fsync, rename: the old or the new content, never half. */
bool file_write_atomic(const char *path, const void *data, size_t n, struct err *e);

bool file_exists(const char *path);
bool file_is_dir(const char *path);
/* dir + "/" + name, mem_free it; NULL when out of memory. */
char *file_join(const char *dir, const char *name);

/* A named set of files: a folder on disk, or a table linked into the program.  Names are
 * plain file names; one with '/' or ".." is refused (ERR_INVALID). */
struct file_blob { const char *name; const unsigned char *data; size_t size; };
struct file_set {
    const char *dir;                /* folder, or NULL */
    const struct file_blob *blobs;  /* table ended by a NULL name, used when dir is NULL */
};
bool file_set_has(const struct file_set *fs, const char *name);
bool file_set_open(const struct file_set *fs, const char *name, struct file_view *v, struct err *e);
/* As file_read, for either kind. */
char *file_set_read(const struct file_set *fs, const char *name, size_t max_bytes, size_t *len, struct err *e);

#endif
