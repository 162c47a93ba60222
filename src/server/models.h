/* server/models.h - the models of one server: which are loaded, who uses them, whose turn it is.
 *
 *   UNLOADED -- a request --> QUEUED -- a place is free --> LOADING --> LOADED
 *   LOADING -- error --> FAILED -- a request, a while later --> QUEUED
 *   LOADED -- unused, and another is queued --> UNLOADED
 *
 * At most max_loaded are loaded.  One thread loads and unloads, in the order of the first requests.  When every place is taken the least
 * recently used model that nobody uses is unloaded; when all are in use, the least recently used one takes no new requests (they are
 * queued for its next turn), finishes what it has, and is unloaded: nothing that runs is cut, and nobody waits for ever.
 *
 * A request for a model that is not loaded is parked (http_park): it holds no thread while the model loads.
 *
 * With one engine that is open already (server_models_open_one) all this comes down to handing it out. */
#ifndef QUIRE_SERVER_MODELS_H
#define QUIRE_SERVER_MODELS_H

#include "engine/engine.h"
#include "server/api.h"
#include "server/http.h"
#include "server/tgi_stats.h"

struct server_models;
struct server_model;

struct server_model_opts {
    const char *name;             /* what requests call it; copied */
    struct engine_opts engine;    /* what it points to must outlive the models */
};

struct server_models_opts {
    const struct server_model_opts *models;
    int n_models;                 /* the first is what requests that name none get */
    int max_loaded;               /* 0: all */
    int64_t idle_us;              /* a model that nobody has used for so long is unloaded; 0: never */
    int32_t max_parked;           /* requests waiting for models past which new ones get 429; 0: no bound */
    struct api_opts api;          /* of all; engine and served names are set here */
};

bool server_models_open(struct server_models **out, const struct server_models_opts *o, struct err *e);
/* One engine, borrowed, with o's served names. */
bool server_models_open_one(struct server_models **out, const struct api_opts *o, struct err *e);
/* New requests are refused, parked ones run again to be refused, engines take no new work. */
void server_models_drain(struct server_models *ms);
/* Drains and waits for a load in progress; afterwards nothing is parked. */
void server_models_stop(struct server_models *ms);
/* After every request has left. */
void server_models_close(struct server_models **ms);

/* engine_alive of every engine that is loaded. */
bool server_models_alive(struct server_models *ms, int64_t stall_us, struct err *why);

bool server_models_is_one(const struct server_models *ms);

enum server_enter { SERVER_ENTERED, SERVER_PARKED, SERVER_REFUSED };
/* For the request in x, whose body is JSON: the model it names.  ENTERED: *m stays loaded until server_model_leave.  PARKED: return from the
 * handler; it will run again.  REFUSED: e says why, and *m is NULL where the
 * name is nobody's. */
enum server_enter server_models_enter(struct server_models *ms, struct http_exchange *x, struct server_model **m, struct api_error *e);
/* For threads that have no exchange: the model that requests with this name ("": without one) get, NULL: the name is nobody's.  One engine gets
 * all, and its api judges the name. */
struct server_model *server_models_named(struct server_models *ms, const char *name);
/* Waits until m is loaded, then as ENTERED.  go_on is asked a few times a second.  False: e says why; ERR_CANCELLED's status when go_on was false. */
bool server_model_wait(struct server_model *m, bool (*go_on)(void *ctx), void *ctx, struct api_error *e);
/* Others wait for its place: who keeps it loaded for long should leave, and wait again. */
bool server_model_is_wanted(struct server_model *m);
void server_model_leave(struct server_model *m);
/* The model of that name if it is loaded now ("": the first that is), which nothing will load: NULL otherwise.  Leave it, too. */
struct server_model *server_models_peek(struct server_models *ms, const char *name);
/* About when one refused for want of room should try again: when the requests that wait will have begun, by the mean time of those that
 * ended; 1 to 60. */
int server_model_retry_after_s(const struct server_model *m);
const struct api *server_model_api(const struct server_model *m);
struct engine *server_model_engine(const struct server_model *m);
/* Its requests over all its lives. */
struct tgi_stats *server_model_tgi(struct server_model *m);

/* POST /reset_prefix_cache: of all that are loaded; false when any has pages in use. */
bool server_models_reset_prefix_cache(struct server_models *ms);

/* What is known of one model at one time. */
struct server_model_view {
    const char *name, *root, *state;   /* state: unloaded, queued, loading, loaded, failed */
    const struct api *api;             /* NULL unless loaded */
    const struct engine_info *info;    /* NULL unless loaded */
    int32_t max_model_len;             /* 0: not known yet */
    int64_t created_s;
    struct engine_metrics metrics;     /* counters over all its lives */
    const struct engine_batches *batches;   /* likewise; valid during the visit, as is tgi */
    const struct tgi_counts *tgi;
    uint64_t n_loads, n_failures;
    int32_t n_parked;
    double load_s;                     /* all loads together */
};
/* Calls visit for each model in order, with the models locked: be quick. */
void server_models_visit(struct server_models *ms, void (*visit)(void *ctx, const struct server_model_view *v), void *ctx);

#endif
