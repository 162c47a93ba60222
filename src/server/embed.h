/* server/embed.h - what is made of a model's hidden states and log-probabilities rather than of its text: POST /v1/embeddings, /pooling,
 * /score, /rerank (INTERFACES 1.4), without their transport.
 *
 * Like api_job: opened from a body, pulled until DONE, closed.  The answer is one body. */
#ifndef QUIRE_SERVER_EMBED_H
#define QUIRE_SERVER_EMBED_H

#include "server/api.h"

struct embed_job;
enum embed_endpoint { EMBED_EMBEDDINGS, EMBED_POOLING, EMBED_SCORE, EMBED_RERANK };

bool embed_job_open(struct embed_job **out, const struct api *a, enum embed_endpoint endpoint, const char *body, size_t len,
                    const struct api_job_opts *o, struct api_error *e);
void embed_job_close(struct embed_job **job);
enum api_pull embed_job_pull(struct embed_job *job, struct buf *out);
int embed_job_status(const struct embed_job *job);
void embed_job_stats(const struct embed_job *job, struct api_job_stats *out);

#endif
