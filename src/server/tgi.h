/* server/tgi.h - Text Generation Inference's API without its transport: its JSON in, its JSON or SSE events out (INTERFACES 2).
 *
 * A tgi_job is api_job's sibling: the same threads, the same pulling, and beneath it the same request to the same engine.  Its
 * parameters are TGI's, with TGI's checks and words; what TGI does not have (limits of the operator, deadlines, guides) is the OpenAI API's. */
#ifndef QUIRE_SERVER_TGI_H
#define QUIRE_SERVER_TGI_H

#include "server/api.h"

struct tgi_job;

/* Which route a body came by. */
enum tgi_route {
    TGI_GENERATE,          /* POST /generate: one body */
    TGI_GENERATE_STREAM,   /* POST /generate_stream: events */
    TGI_COMPAT             /* POST /: by the body's "stream"; one body is an array of one; return_full_text is true unless said */
};

/* On false e says why; tgi_error_write turns it into TGI's words. */
bool tgi_job_open(struct tgi_job **out, const struct api *a, enum tgi_route route, const char *body, size_t len, const struct api_job_opts *o,
                  struct api_error *e);
void tgi_job_close(struct tgi_job **job);
bool tgi_job_streams(const struct tgi_job *job);
enum api_pull tgi_job_pull(struct tgi_job *job, struct buf *out);
int tgi_job_status(const struct tgi_job *job);
void tgi_job_stats(const struct tgi_job *job, struct api_job_stats *out);
/* Calls add for each of TGI's x-... headers: of a whole body after DONE; of events, which tell no times, before the first. */
void tgi_job_headers(const struct tgi_job *job, void (*add)(void *ctx, const char *name, const char *value), void *ctx);

/* {"error","error_type"}; *status becomes TGI's: validation 422, overloaded 429, generation 424, template 422. */
bool tgi_error_write(const struct api_error *e, int *status, struct buf *out);

/* POST /tokenize with "inputs": [{"id","text","start","stop"}], offsets in characters. */
bool tgi_tokenize(const struct api *a, const char *body, size_t len, struct buf *out, struct api_error *e);
/* POST /chat_tokenize: {"tokenize_response","templated_text"}. */
bool tgi_chat_tokenize(const struct api *a, const char *body, size_t len, struct buf *out, struct api_error *e);
/* Limits as TGI has them. */
int32_t tgi_max_input_tokens(const struct api *a);
int32_t tgi_max_total_tokens(const struct api *a);
/* GET /info.  max_concurrent 0: no bound. */
bool tgi_info(const struct api *a, int max_concurrent, struct buf *out);

#endif
