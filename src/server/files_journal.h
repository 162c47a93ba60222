/* server/files_journal.h - the answers of a batch that runs, appended to one file as they come:
 *
 *   O 12 345 0123456789abcdef {...}\n     kind, index of the request's line, bytes of the text, XXH3 of all before it and the text
 *   E 13 98 fedcba9876543210 {...}\n      O: an answer, E: an error
 *
 * Opening it tells what it holds, and cuts off what begins with a record that is not whole: a crash loses what was not yet on the disk, from
 * some record on, never one in the middle. */
#ifndef QUIRE_SERVER_FILES_JOURNAL_H
#define QUIRE_SERVER_FILES_JOURNAL_H

#include <stdint.h>
#include "base/buf.h"
#include "base/err.h"

struct files_journal { int fd; int64_t end; struct buf record; };     /* end: bytes of whole records */
struct files_record { bool failed; int64_t index, at; size_t len; };  /* where its text lies */

/* Made if it is not there.  visit is told of every record, in their order. */
bool files_journal_open(struct files_journal *j, const char *path, void (*visit)(void *ctx, const struct files_record *r), void *ctx, struct err *e);
void files_journal_close(struct files_journal *j);
/* Appends text[r->len] and sets r->at.  Once it returns, the end of this process cannot lose it. */
bool files_journal_add(struct files_journal *j, struct files_record *r, const char *text, struct err *e);
/* From then on the machine's cannot either. */
bool files_journal_sync(struct files_journal *j, struct err *e);
/* The record's text, appended to out. */
bool files_journal_read(const struct files_journal *j, const struct files_record *r, struct buf *out, struct err *e);

#endif
