/* server/tgi_int.h - what the tgi_*.c files share. */
#ifndef QUIRE_SERVER_TGI_INT_H
#define QUIRE_SERVER_TGI_INT_H

#include "server/api_int.h"
#include "server/tgi.h"

/* "parameters" */
struct tgi_params {
    int64_t best_of, top_k, max_new_tokens, truncate, seed, top_n_tokens;     /* API_UNSET */
    double temperature, repetition_penalty, frequency_penalty, top_p, typical_p;   /* NaN */
    bool do_sample, return_full_text, watermark, details, decoder_input_details;
    const json_t *stop, *grammar;
    const char *adapter_id;
};

struct tgi_choice {
    struct buf text;                  /* generated_text so far */
    struct buf tokens, tops;          /* elements of tokens and top_tokens */
    int32_t n_tokens;
    double logprobs;                  /* their sum */
    bool ended;
    enum engine_finish finish;
    bool by_stop;                     /* a stop string ended it */
};

struct tgi_job {
    struct api_job *job;              /* prompt, parameters and generation */
    struct tgi_params p;
    enum tgi_route route;
    const char *inputs; size_t inputs_len;
    bool stream, sampling, finished;
    int status;
    int error;                        /* what became status, before it was TGI's; 0: none */
    int32_t max_new;
    int32_t n;                        /* best_of */
    struct tgi_choice *choices;       /* [n] */
    struct buf prefill;               /* its elements */
    struct engine_times times;
    int64_t opened_us, submitted_us;
    int64_t n_chars;                  /* of inputs */
};

/* tgi_write.c */
void tgi_write_token(struct buf *out, const struct api *a, int32_t id, const char *text, size_t len, float logprob, bool generated);
void tgi_write_body(const struct tgi_job *t, struct buf *out);
/* "data:{..}" with the newest token of the only choice. */
void tgi_write_event(const struct tgi_job *t, const struct buf *token, const struct buf *top, struct buf *out);
/* The choice with the highest mean log-probability. */
const struct tgi_choice *tgi_best(const struct tgi_job *t);
/* The text of one token as TGI's lists of tokens show it: its bytes, or a special token's spelling. */
void tgi_write_text_of(struct buf *out, const struct api *a, int32_t id);

#endif
