/* server/embed_int.h - what the embed*.c files share. */
#ifndef QUIRE_SERVER_EMBED_INT_H
#define QUIRE_SERVER_EMBED_INT_H

#include "server/api_int.h"
#include "server/embed.h"

/* A text whose state is wanted, or a pair of them whose log-probability is. */
struct embed_item {
    int32_t *ids; int32_t n;          /* in the job's arena */
    int32_t n_given;                  /* by log-probability: tokens of the first text, which are not scored */
    struct gen *gen;                  /* NULL: over */
    bool done;
    float *state;                     /* [dim], in the arena: scaled to length 1 if asked for */
    double logprob;                   /* sum over the scored tokens */
    int32_t n_cached;
};

struct embed_fields {
    const char *model, *encoding_format, *pooling, *score_by, *request_id, *user;
    const json_t *input, *messages, *text_1, *text_2, *query, *documents;
    int64_t dimensions, truncate, priority, top_n;
    double timeout;
    bool add_special_tokens, normalize, return_documents;
};

struct embed_job {
    const struct api *api;
    enum embed_endpoint endpoint;
    json_t *doc;
    struct arena *arena;
    struct embed_fields f;
    enum engine_pooling pooling;
    bool by_logprob, base64;
    int32_t dim;                      /* of what is answered */
    struct embed_item *items; int32_t n_items, n_done;
    int32_t n_first;                  /* score: items of text_1 (or of the query), which come first */
    int32_t n_pairs;
    int64_t waited_us, timeout_us, created_s;
    char id[160];
    const char *model;
    bool finished;
    int status;
};

/* embed_write.c */
void embed_write_body(const struct embed_job *job, struct buf *out);

#endif
