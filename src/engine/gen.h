/* engine/gen.h - a generation as text: engine events plus detokenization, stop strings across token borders,
 * and token texts for logprobs.  Runs on the caller's thread; used by server, batch and cli alike. */
#ifndef QUIRE_ENGINE_GEN_H
#define QUIRE_ENGINE_GEN_H

#include "engine/engine.h"
#include "tok/tok.h"

struct gen;

struct gen_request {
    struct engine_request engine;
    const char *const *stop; int32_t n_stop;     /* stop strings, none empty */
    bool include_stop;                           /* keep the stop string in the text */
    bool skip_special_tokens;                    /* default true */
    bool no_text;                                /* token ids only */
};
void gen_request_default(struct gen_request *r);

struct gen_event {
    enum { GEN_PROMPT, GEN_DELTA, GEN_DONE, GEN_ERROR } type;
    int32_t choice;
    /* PROMPT: one prompt token's logprobs (pos, token, lp). */
    int32_t pos;
    /* DELTA: text that became certain (may be empty while characters or stop strings are held back), with the tokens
     * that came with it.  finish != NONE on the choice's last event. */
    const char *text; size_t text_len;
    int32_t token;                               /* -1 when this delta has none (end of sequence flush) */
    bool token_is_eos;
    float logprob;
    int32_t rank;
    struct engine_logprobs lp;
    const float *logits, *hidden;
    enum engine_finish finish;
    int32_t stop_index;                          /* which stop string matched, -1 */
    int32_t stop_token;                          /* which stop id, -1 */
    double cumulative_logprob;
    struct err error;                            /* ERROR */
};
/* After a stop string matches in a choice, further tokens the engine had begun are dropped and not counted. */

bool gen_open(struct gen **out, struct engine *eng, const struct gen_request *r, engine_notify *notify, void *ctx, struct err *e);
/* Next event; false: none now (wait with gen_wait, or until notify).  Borrowed pointers are valid until the next call. */
bool gen_next(struct gen *g, struct gen_event *ev);
bool gen_wait(struct gen *g, int64_t timeout_us);
void gen_cancel(struct gen *g);
void gen_close(struct gen **g);

/* Tokens of choice counted for usage: up to and including the one that completed a stop string, eos included. */
int32_t gen_n_completion(const struct gen *g, int32_t choice);
void gen_times(const struct gen *g, struct engine_times *out);

/* Sampling defaults: sample_params_default, then what the model's generation_config.json says (temperature, top_p, top_k, min_p,
 * typical_p, repetition_penalty) unless use_generation_config is false. */
void gen_default_params(const struct engine *eng, bool use_generation_config, struct sample_params *out);

/* "stop", "length", "abort"; NULL while running. */
const char *gen_finish_name(enum engine_finish finish);

/* A token's text as logprobs show it: the bytes it stands for, invalid parts as U+FFFD.  Appends to out. */
bool gen_token_text(const struct tok *t, int32_t id, struct buf *out);

#endif
