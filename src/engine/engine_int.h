/* engine/engine_int.h - what the engine's own files share. */
#ifndef QUIRE_ENGINE_ENGINE_INT_H
#define QUIRE_ENGINE_ENGINE_INT_H

#include <pthread.h>
#include <stdatomic.h>
#include "base/mpsc.h"
#include "dev/dev.h"
#include "engine/engine.h"
#include "engine/pace.h"
#include "fwd/fwd.h"
#include "model/model.h"
#include "sample/sample.h"
#include "sched/sched.h"
#include "tok/tok.h"

/* ---- events: a queue of variable records in chunks (stream.c) ---- */

struct evq_chunk {
    struct evq_chunk *next;
    size_t used, cap;            /* bytes of data */
    _Alignas(16) unsigned char data[];
};
struct evq {
    struct evq_chunk *first, *last;
    size_t read;                 /* offset in first */
    bool failed;                 /* an event was lost for want of memory */
};
/* Copies the event and what it points to. */
bool evq_push(struct evq *q, const struct engine_event *ev, int32_t vocab, int32_t hidden);
/* Pointers in *ev stay valid until the next pop. */
bool evq_pop(struct evq *q, struct engine_event *ev);
void evq_free(struct evq *q);

/* ---- messages to the engine thread ---- */

enum msg_type { MSG_SUBMIT, MSG_CANCEL, MSG_CLOSE, MSG_ASK, MSG_STOP };
struct msg {
    struct mpsc_node node;
    enum msg_type type;
    struct engine_stream *stream;
    int32_t choice;
    enum engine_finish finish;
    struct ask *ask;
};

/* ---- requests ---- */

enum choice_state { CHOICE_PENDING, CHOICE_LIVE, CHOICE_ENDED };

struct choice {
    struct engine_stream *stream;
    int32_t index;
    enum choice_state state;
    struct sched_seq *seq;       /* NULL until it has one of its own, and once ended */
    struct sample_seq *sampling;
    struct guide_state *guide;   /* with a guide, once it draws */
    int32_t n_generated;
    bool cancelled;              /* asked for while it still carried the group's prompt */
    enum engine_finish finish;
    double cumulative;
    int64_t last_token_us;
    struct evq held;             /* best_of: events until the ranking */
};

struct beam_state;

/* Reader and engine each hold one reference. */
struct engine_stream {
    struct engine *eng;
    atomic_int refs;
    struct msg submit_msg, close_msg;   /* preallocated: submitting and closing cannot fail for memory */

    /* the request, copied; constant after submission */
    enum engine_kind kind;
    int32_t *tokens; int32_t n_tokens;
    struct sample_params *params;
    int32_t max_new, n, n_total;        /* n returned, n_total generated */
    bool beam, want_logits, want_logprob;
    enum engine_pooling pooling;
    float length_penalty;
    int32_t priority;
    int64_t deadline_us;
    struct guide *guide;                /* or NULL */
    uint64_t salt, seed;
    int32_t rope_len;
    char id[64];

    /* the engine thread's */
    struct choice *choices;             /* [n_total] */
    struct beam_state *beams;
    int32_t n_ended;
    bool finished, touched, expired;
    struct err why;                     /* drawing failed */
    int32_t prompt_done;                /* prompt rows emitted so far */
    double *pooled; float *mean;        /* [hidden] of ENGINE_POOL_MEAN: the sum of states so far, and what becomes of it */
    struct engine_stream *next_touched, *next_expired, *prev, *next;

    /* shared with the reader */
    pthread_mutex_t lock;
    pthread_cond_t cond;
    struct evq events;
    engine_notify *notify;
    void *notify_ctx;
    bool reader_closed;
    struct engine_times times;
};

/* ---- the engine ---- */

struct engine {
    struct engine_opts opts;
    struct engine_info info;
    char names[5][64];                  /* storage of info's strings */
    struct model *model;
    struct model_generation generation;
    struct dev *dev;
    struct fwd *fwd;
    struct tok *tok;
    pthread_mutex_t guide_lock;
    struct guide_vocab *guide_vocab;    /* made at its first use */
    struct sched *sched;
    struct sampler *sampler;

    struct mpsc inbox;
    pthread_t thread;
    bool thread_started;
    atomic_bool draining, stopping;
    atomic_int n_streams;               /* submitted and not finished */
    atomic_int n_waiting;               /* submitted and not yet scheduled */
    atomic_ullong next_id;

    /* the engine thread's */
    struct engine_stream *streams;      /* list of the live */
    struct engine_stream *touched;
    int32_t max_logits;
    struct step_space *space;
    struct pace pace;
    struct trace *trace;
    atomic_bool lost;                   /* the device is gone: everything fails */
    atomic_llong step_began_us;         /* 0: no step is being computed */

    struct engine_metrics metrics;
    struct engine_step steps[ENGINE_STEPS_KEPT];   /* ring; the next goes to metrics.n_steps % ENGINE_STEPS_KEPT */

    pthread_mutex_t metrics_lock;       /* guards the copy that engine_metrics hands out, and batches */
    struct engine_metrics published;
    struct engine_batches batches;      /* written in place once a step: too large to be copied each time */
};

/* stream.c */
void stream_unref(struct engine_stream *st);
/* Engine thread: add an event for a choice (held when best_of ranks later) and mark the stream for notification. */
void stream_emit(struct engine_stream *st, struct choice *c, const struct engine_event *ev);
void stream_touch(struct engine_stream *st);
/* Wake the readers of all touched streams. */
void stream_flush(struct engine *eng);

/* step.c */
struct step_space *step_space_open(struct engine *eng, struct err *e);
void step_space_close(struct step_space **sp);
/* One step; false when there was nothing to compute. */
bool step_run(struct engine *eng);

/* request.c: the life of a request on the engine thread */
void request_admit(struct engine *eng, struct engine_stream *st);
void request_end_choice(struct engine *eng, struct choice *c, enum engine_finish finish);
void request_fail(struct engine *eng, struct engine_stream *st, enum err_code code, const char *message);
void request_cancel(struct engine *eng, struct engine_stream *st, int32_t choice, enum engine_finish finish);
/* A sampled token for this choice: append, decide whether it ends, emit. */
void request_token(struct engine *eng, struct choice *c, const struct sample_result *r, int64_t now_us);
/* Ends the stream when all its choices have ended. */
void request_check_done(struct engine *eng, struct engine_stream *st);

/* beam.c */
bool beam_open(struct engine_stream *st, struct sched_seq *seq);
void beam_close(struct engine *eng, struct engine_stream *st);
int32_t beam_n_candidates(const struct engine_stream *st);
/* The row of this sequence was computed: remember its candidates; when all are ready, advance. */
void beam_ready(struct engine *eng, struct engine_stream *st, struct sched_seq *seq, const struct sample_result *r, int64_t now_us);

/* metrics.c */
void metrics_init(struct engine *eng);
/* A step.  t_ns: begin, batch built, computed, sampled, handed out; NULL of one that failed. */
struct metrics_step { bool prefill, failed; int32_t n_seqs, n_admitted; const int64_t *t_ns; };
void metrics_step(struct engine *eng, const struct metrics_step *s);
void metrics_request_start(struct engine *eng, const struct engine_stream *st);
void metrics_request_done(struct engine *eng, const struct engine_stream *st, enum engine_finish finish, bool error);
/* Make the engine thread's numbers visible to others. */
void metrics_publish(struct engine *eng);

/* turns.c */
void engine_turns_take(struct engine_turns *t);
void engine_turns_give(struct engine_turns *t);

/* ask.c: what others want done or told by the engine thread while they wait. */
void ask_answer(struct engine *eng, struct ask *a);

/* trace.c */
bool trace_open(struct trace **out, const char *path, struct dev *d, struct err *e);
void trace_close(struct trace **t);
void trace_step(struct trace *t, const char *what, int64_t start_ns, int64_t end_ns, int32_t n_tokens, int32_t n_seqs);

#endif
