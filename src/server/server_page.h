/* server/server_page.h - a page of metrics as it is written: Prometheus text 0.0.4, a family at a time. */
#ifndef QUIRE_SERVER_SERVER_PAGE_H
#define QUIRE_SERVER_SERVER_PAGE_H

#include "base/buf.h"
#include "engine/engine.h"

/* labels: what every sample of a model carries, at least one.  vllm: also under vLLM's names. */
struct server_page { struct buf *out; const char *labels; bool vllm; };

/* A label's value: backslash, quote and newline escaped. */
void server_page_label(struct buf *out, const char *s);
/* A number and the end of its line. */
void server_page_number(struct buf *out, double x);
/* The head of a family; prefix and name make its name. */
void server_page_head(struct server_page *p, const char *prefix, const char *name, const char *type, const char *help);
/* A family of one sample. */
void server_page_one(struct server_page *p, const char *prefix, const char *name, const char *type, double value, const char *help);

/* counts[n + 1], the last without a bound.  bounds NULL: that of [i] is step * (i + 1). */
struct server_hist { const double *bounds; double step; int n; const uint64_t *counts; double sum; uint64_t total; };
/* The samples of one histogram; extra: NULL, or a further label. */
void server_page_hist(struct server_page *p, const char *prefix, const char *name, const char *extra, const struct server_hist *h);
void server_page_engine_hist(struct server_page *p, const char *prefix, const char *name, const char *extra, const struct engine_hist *h);

#endif
