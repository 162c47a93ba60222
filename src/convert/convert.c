/* The walk. */
#include "convert/convert.h"
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/file.h"
#include "base/mem.h"
#include "convert/convert_int.h"

enum { NO_LAYER = -2 };

void convert_opts_default(struct convert_opts *o)
{
    *o = (struct convert_opts){
        .format = CONVERT_INT4, .symmetric = true, .search = true, .damp = 0.01, .group = 128, .sequence = 512, .max_tokens = 65536, .max_heldout_tokens = 16384,
        .perplexity = true, .max_shard_bytes = (int64_t)4 << 30,
    };
}

void convert_report_free(struct convert_report *r)
{
    mem_free(r->linears);
    mem_free(r->layer_error);
    *r = (struct convert_report){ 0 };
}

void convert_step(struct convert *c, int64_t n)
{
    c->done += n;
    if (c->o->progress)
        c->o->progress(c->o->progress_ctx, c->done < c->total ? c->done : c->total, c->total);
}

/* ---- opening ---- */

static void run_team(void *ctx, int64_t n, void (*fn)(void *arg, int64_t i, int member), void *arg)
{
    dev_for(ctx, n, fn, arg);
}

static bool open_device(struct convert *c, struct err *e)
{
    struct dev_opts o = { .name = "cpu", .n_threads = c->o->n_threads, .isa = c->o->isa };
    if (!dev_open(&c->d, &o, e))
        return false;
    c->team = (struct quant_team){ .n_members = dev_caps(c->d)->n_threads, .run = run_team, .ctx = c->d };
    return kern_isa_parse(dev_caps(c->d)->isa, &c->team.isa) || err_set(e, ERR_INTERNAL, "instruction set %s is unknown", dev_caps(c->d)->isa);
}

/* What a run leaves that was stopped before its first state: nothing to go on from, and nothing to keep. */
static bool is_leftover(const char *name)
{
    static const char part[] = ".safetensors.part";
    size_t n = strlen(name), k = sizeof part - 1;
    return strcmp(name, ".quantize-state.new") == 0 || (n > k && strcmp(name + n - k, part) == 0);
}

static bool is_empty(const char *dir)
{
    DIR *d = opendir(dir);
    bool empty = d != NULL;
    for (struct dirent *ent; d && (ent = readdir(d));)
        empty &= strcmp(ent->d_name, ".") == 0 || strcmp(ent->d_name, "..") == 0 || is_leftover(ent->d_name);
    if (d)
        closedir(d);
    return empty;
}

/* The folder is there, and empty or ours. */
static bool open_folder(const struct convert_opts *o, struct err *e)
{
    char a[PATH_MAX], b[PATH_MAX];
    if (!o->dst || !o->dst[0])
        return err_set(e, ERR_INVALID, "name the folder to write to");
    if (o->src && realpath(o->src, a) && realpath(o->dst, b) && strcmp(a, b) == 0)
        return err_set(e, ERR_INVALID, "%s: is the model itself: name another folder to write to", o->dst);
    if (file_exists(o->dst)) {
        if (!file_is_dir(o->dst))
            return err_set(e, ERR_INVALID, "%s: is not a folder", o->dst);
        if (!is_empty(o->dst) && !convert_state_exists(o->dst))
            return err_set(e, ERR_INVALID, "%s: is not empty: name a new folder, or that of a run that was stopped", o->dst);
        return true;
    }
    return mkdir(o->dst, 0777) == 0 || err_set(e, ERR_IO, "%s: cannot make the folder: %s", o->dst, strerror(errno));
}

/* Two runs into one folder would write each other's files. */
static bool lock_folder(struct convert *c, struct err *e)
{
    c->lock = open(c->o->dst, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (c->lock < 0)
        return err_set(e, ERR_IO, "%s: cannot open the folder: %s", c->o->dst, strerror(errno));
    return flock(c->lock, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK ||
        err_set(e, ERR_OVERLOADED, "%s: another run is writing to it", c->o->dst);
}

static bool has_walk(const struct convert *c)
{
    return c->calibration.n || c->heldout.n;
}

static float *rows_at(const struct convert *c, const struct sequences *s, float *x, int32_t i)
{
    return x + (size_t)s->start[i] * (size_t)c->arch->hidden;
}

static int32_t length(const struct sequences *s, int32_t i)
{
    return s->start[i + 1] - s->start[i];
}

static bool open_rows(struct convert *c, struct sequences *s, struct err *e)
{
    if (!s->n)
        return true;
    s->x = mem_try_alloc((size_t)s->start[s->n], (size_t)c->arch->hidden * sizeof *s->x);
    return s->x || err_set(e, ERR_NOMEM, "no memory for the rows of %d tokens: calibrate on fewer", s->start[s->n]);
}

static bool embed(struct convert *c, struct sequences *s, struct err *e)
{
    for (int32_t i = 0; i < s->n; i++)
        if (!fwd_walk_embed(c->walk, s->ids + s->start[i], length(s, i), rows_at(c, s, s->x, i), e))
            return false;
    return true;
}

static bool open_walk(struct convert *c, struct err *e)
{
    int32_t longest = c->calibration.longest > c->heldout.longest ? c->calibration.longest : c->heldout.longest;
    return fwd_walk_open(&c->walk, c->d, c->m, longest, e);
}

/* ---- one layer ---- */

/* One text through the loaded layer; capture: of copies, so that the rows stay as they were. */
static bool run_text(struct convert *c, const struct sequences *s, float *x, const struct fwd_capture *capture, struct err *e)
{
    float *copy = capture ? mem_try_alloc((size_t)s->longest, (size_t)c->arch->hidden * sizeof *copy) : NULL;
    bool ok = copy || !capture || err_set(e, ERR_NOMEM, "no memory for a sequence of %d tokens", s->longest);
    for (int32_t i = 0; ok && i < s->n; i++) {
        float *at = rows_at(c, s, x, i);
        if (capture) {
            memcpy(copy, at, (size_t)length(s, i) * (size_t)c->arch->hidden * sizeof *copy);
            at = copy;
        }
        ok = fwd_walk_layer(c->walk, at, length(s, i), capture, e) && (!capture || convert_layer_captured(c, e));
        convert_step(c, 1);
    }
    mem_free(copy);
    return ok;
}

static double row_error(const struct convert *c)
{
    double lost = 0, of = 0;
    size_t n = (size_t)c->heldout.start[c->heldout.n] * (size_t)c->arch->hidden;
    for (size_t i = 0; i < n; i++) {
        double d = (double)c->heldout.x[i] - (double)c->heldout_plain[i];
        lost += d * d;
        of += (double)c->heldout_plain[i] * (double)c->heldout_plain[i];
    }
    return of > 0 ? lost / of : 0.0;
}

static bool walk_layer(struct convert *c, int layer, struct err *e)
{
    struct fwd_capture capture = convert_layer_capture(c);
    bool walks = has_walk(c);
    if (!convert_layer_open(c, layer, e))
        return false;
    if (walks && (!fwd_walk_load(c->walk, layer, NULL, e) || !run_text(c, &c->calibration, c->calibration.x, &capture, e) ||
                  !run_text(c, &c->heldout, c->heldout_plain, NULL, e)))
        return false;
    if (!convert_layer_quantize(c, layer, e) || !convert_output_write(c, layer, e))
        return false;
    struct fwd_quant formats = convert_layer_formats(c, layer);
    if (walks && (!fwd_walk_load(c->walk, layer, &formats, e) || !run_text(c, &c->calibration, c->calibration.x, NULL, e) ||
                  !run_text(c, &c->heldout, c->heldout.x, NULL, e)))
        return false;
    if (c->heldout.n)
        c->r->layer_error[layer] = row_error(c);
    convert_layer_close(c, layer);
    return convert_output_sync(c, e) && convert_state_save(c, layer + 1, e);
}

/* ---- the head ---- */

/* log of the sum of exponentials. */
static double log_sum(const float *logits, int32_t vocab)
{
    float most = logits[0];
    double sum = 0;
    for (int32_t i = 1; i < vocab; i++)
        most = logits[i] > most ? logits[i] : most;
    for (int32_t i = 0; i < vocab; i++)
        sum += exp((double)logits[i] - (double)most);
    return log(sum) + (double)most;
}

struct scores { double before, after, divergence; int64_t n; };

/* Of one token's logits as they were, p, and as they are, q: -log of the one that came, and how much of p q has lost. */
static void score(struct scores *s, const float *p, const float *q, int32_t vocab, int32_t target)
{
    double p_sum = log_sum(p, vocab), q_sum = log_sum(q, vocab), sum = 0;
    for (int32_t i = 0; i < vocab; i++) {
        double lp = (double)p[i] - p_sum;
        sum += exp(lp) * (lp - ((double)q[i] - q_sum));
    }
    s->before += p_sum - (double)p[target];
    s->after += q_sum - (double)q[target];
    s->divergence += sum > 0 ? sum : 0.0;
    s->n++;
}

/* The held-out rows through the head as it was, in `plain`, and as it is. */
static bool compare(struct convert *c, struct fwd_walk *plain, struct err *e)
{
    const struct sequences *s = &c->heldout;
    int32_t vocab = c->arch->vocab_size;
    struct scores sum = { 0 };
    float *kept = mem_try_alloc((size_t)s->longest, (size_t)vocab * sizeof *kept);
    bool ok = kept || err_set(e, ERR_NOMEM, "no memory for the logits of %d tokens", s->longest);
    for (int32_t i = 0; ok && i < s->n; i++) {
        const float *logits;
        int32_t n = length(s, i);
        ok = fwd_walk_head(plain, rows_at(c, s, c->heldout_plain, i), n, NULL, &logits, e);
        if (ok)
            memcpy(kept, logits, (size_t)n * (size_t)vocab * sizeof *kept);
        ok = ok && fwd_walk_head(c->walk, rows_at(c, s, c->heldout.x, i), n, NULL, &logits, e);
        for (int32_t t = 0; ok && t + 1 < n; t++)
            score(&sum, kept + (size_t)t * (size_t)vocab, logits + (size_t)t * (size_t)vocab, vocab, s->ids[s->start[i] + t + 1]);
    }
    mem_free(kept);
    if (ok && sum.n) {
        c->r->perplexity_before = exp(sum.before / (double)sum.n);
        c->r->perplexity_after = exp(sum.after / (double)sum.n);
        c->r->divergence = sum.divergence / (double)sum.n;
    }
    return ok;
}

static bool capture_head(struct convert *c, struct err *e)
{
    struct fwd_capture capture = convert_layer_capture(c);
    for (int32_t i = 0; i < c->calibration.n; i++) {
        const float *logits;
        if (!fwd_walk_head(c->walk, rows_at(c, &c->calibration, c->calibration.x, i), length(&c->calibration, i), &capture, &logits, e) ||
            !convert_layer_captured(c, e))
            return false;
    }
    return true;
}

/* Two heads are in memory while one that was rounded is compared with what it was. */
static bool walk_head(struct convert *c, struct err *e)
{
    const struct unit *u = convert_unit(c, CONVERT_HEAD, ARCH_LIN_HEAD, 0);
    bool rounds = u && u->format != CONVERT_NONE;
    if (rounds && (!convert_layer_open(c, CONVERT_HEAD, e) || (c->calibration.n && !capture_head(c, e)) || !convert_layer_quantize(c, CONVERT_HEAD, e)))
        return false;
    if (!convert_output_write(c, CONVERT_HEAD, e))
        return false;
    struct fwd_walk *plain = c->walk, *own = NULL;
    bool ok = true;
    if (rounds && c->heldout.n) {
        own = plain;
        c->walk = NULL;
        ok = open_walk(c, e);
    }
    ok = ok && (!c->heldout.n || compare(c, plain, e));
    fwd_walk_close(&own);
    convert_layer_close(c, CONVERT_HEAD);
    return ok;
}

/* ---- the whole ---- */

static bool prepare(struct convert *c, struct err *e)
{
    const struct convert_opts *o = c->o;
    struct model_opts mo = { .load_format = MODEL_LOAD_AUTO };
    if (!model_open(&c->m, o->src, &mo, e))
        return false;
    c->arch = model_arch(c->m);
    if (!convert_plan(c, e) || !open_folder(o, e) || !lock_folder(c, e) || !open_device(c, e) || !convert_texts(c, e) || !convert_output_lay(c, e) ||
        !open_rows(c, &c->calibration, e) || !open_rows(c, &c->heldout, e))
        return false;
    c->r->n_layers = c->arch->n_layers;
    c->r->calibration_tokens = c->calibration.n ? c->calibration.start[c->calibration.n] : 0;
    c->r->heldout_tokens = c->heldout.n ? c->heldout.start[c->heldout.n] : 0;
    c->r->has_perplexity = c->heldout.n > 0;
    c->r->errors_of_outputs = c->calibration.n > 0 && (o->awq || o->gptq);
    if (!c->heldout.n)
        return true;
    c->heldout_plain = mem_try_alloc((size_t)c->heldout.start[c->heldout.n], (size_t)c->arch->hidden * sizeof *c->heldout_plain);
    c->r->layer_error = mem_try_zalloc((size_t)c->arch->n_layers, sizeof *c->r->layer_error);
    return (c->heldout_plain && c->r->layer_error) || err_set(e, ERR_NOMEM, "no memory for the held-out text");
}

static bool begin(struct convert *c, int *layer, struct err *e)
{
    if (!convert_state_load(c, layer, e))
        return false;
    bool resume = *layer > 0;
    c->r->resumed_at = *layer;
    c->total = c->arch->n_layers * 2 * ((int64_t)c->calibration.n + c->heldout.n) + (int64_t)c->n_units;
    if (!convert_output_open(c, resume, e) || (has_walk(c) && !open_walk(c, e)))
        return false;
    if (resume) {
        c->done = c->total * *layer / c->arch->n_layers;
        return true;
    }
    if (!convert_output_write(c, NO_LAYER, e) || !embed(c, &c->calibration, e) || !embed(c, &c->heldout, e))
        return false;
    if (c->heldout.n)
        memcpy(c->heldout_plain, c->heldout.x, (size_t)c->heldout.start[c->heldout.n] * (size_t)c->arch->hidden * sizeof(float));
    return convert_output_sync(c, e) && convert_state_save(c, 0, e);
}

static bool run(struct convert *c, struct err *e)
{
    int layer;
    if (!prepare(c, e) || !begin(c, &layer, e))
        return false;
    for (; layer < c->arch->n_layers; layer++)
        if (!walk_layer(c, layer, e))
            return false;
    if (!walk_head(c, e) || !convert_output_finish(c, e))
        return false;
    convert_step(c, c->total - c->done);
    return true;
}

static void close_sequences(struct sequences *s)
{
    mem_free(s->ids);
    mem_free(s->start);
    mem_free(s->x);
}

static void close_all(struct convert *c)
{
    if (c->m)
        convert_layer_close(c, c->layer);
    convert_output_close(c);
    fwd_walk_close(&c->walk);
    close_sequences(&c->calibration);
    close_sequences(&c->heldout);
    mem_free(c->heldout_plain);
    mem_free(c->changed);
    mem_free(c->units);
    if (c->d)
        dev_close(&c->d);
    model_close(&c->m);
    if (c->lock >= 0)
        close(c->lock);
}

bool convert_run(const struct convert_opts *o, struct convert_report *r, struct err *e)
{
    struct convert c = { .o = o, .r = r, .lock = -1 };
    *r = (struct convert_report){ 0 };
    if (o->group < 0 || o->sequence < 2 || o->max_tokens < 2 || o->max_heldout_tokens < 2 || o->max_shard_bytes < 1 || !(o->damp >= 0))
        return err_set(e, ERR_INVALID, "a size is too small: group 0, 2 tokens and 1 byte are the least");
    bool ok = run(&c, e);
    close_all(&c);
    if (!ok)
        convert_report_free(r);
    return ok;
}
