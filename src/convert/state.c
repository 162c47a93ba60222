/* What a stopped run needs to go on: <dst>/.quantize-state, written anew behind each layer.
 *
 *   "QUIREQS1", key, next layer, counts; errors so far; rows of the calibration and of the held-out text between layers */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "base/mem.h"
#include "convert/convert_int.h"

#define STATE_NAME ".quantize-state"
static const char magic[8] = "QUIREQS1";

struct head { char magic[8]; uint64_t key; int64_t next_layer, n_linears, n_layers, calibration, heldout; };

static size_t rows_of(const struct convert *c, const struct sequences *s)
{
    return s->n ? (size_t)s->start[s->n] * (size_t)c->arch->hidden : 0;
}

static char *state_path(const char *dst, bool temporary)
{
    return file_join(dst, temporary ? STATE_NAME ".new" : STATE_NAME);
}

bool convert_state_exists(const char *dst)
{
    char *path = state_path(dst, false);
    bool found = path && file_exists(path);
    mem_free(path);
    return found;
}

void convert_state_remove(const char *dst)
{
    char *path = state_path(dst, false);
    if (path)
        unlink(path);
    mem_free(path);
}

/* The arrays of a state, in order: for reading and for writing. */
struct piece { void *data; size_t bytes; };

static int pieces(struct convert *c, double *errors, struct piece out[5])
{
    int n = 0;
    out[n++] = (struct piece){ errors, c->r->n_linears * sizeof *errors };
    out[n++] = (struct piece){ c->r->layer_error, c->r->layer_error ? (size_t)c->arch->n_layers * sizeof(double) : 0 };
    out[n++] = (struct piece){ c->calibration.x, rows_of(c, &c->calibration) * sizeof(float) };
    out[n++] = (struct piece){ c->heldout.x, rows_of(c, &c->heldout) * sizeof(float) };
    out[n++] = (struct piece){ c->heldout_plain, rows_of(c, &c->heldout) * sizeof(float) };
    return n;
}

static struct head head_of(const struct convert *c, int next_layer)
{
    struct head h = { .key = c->key, .next_layer = next_layer, .n_linears = (int64_t)c->r->n_linears, .n_layers = c->arch->n_layers,
                      .calibration = (int64_t)rows_of(c, &c->calibration), .heldout = (int64_t)rows_of(c, &c->heldout) };
    memcpy(h.magic, magic, sizeof magic);
    return h;
}

static bool write_all(struct convert *c, int next_layer, double *errors, FILE *f)
{
    struct piece p[5];
    struct head h = head_of(c, next_layer);
    bool ok = fwrite(&h, sizeof h, 1, f) == 1;
    int n = pieces(c, errors, p);
    for (int i = 0; ok && i < n; i++)
        ok = !p[i].bytes || fwrite(p[i].data, p[i].bytes, 1, f) == 1;
    return ok && fflush(f) == 0 && fsync(fileno(f)) == 0;
}

bool convert_state_save(struct convert *c, int next_layer, struct err *e)
{
    char *temporary = state_path(c->o->dst, true), *path = state_path(c->o->dst, false);
    double *errors = mem_try_zalloc(c->r->n_linears + 1, sizeof *errors);
    FILE *f = temporary && path && errors ? fopen(temporary, "wb") : NULL;
    bool ok = f != NULL;
    for (size_t i = 0; errors && i < c->r->n_linears; i++)
        errors[i] = c->r->linears[i].error;
    if (f) {
        ok = write_all(c, next_layer, errors, f);
        ok = fclose(f) == 0 && ok;
        ok = ok && rename(temporary, path) == 0;
    }
    if (!ok)
        err_set(e, ERR_IO, "%s: cannot write the state of the run: %s", c->o->dst, strerror(errno));
    mem_free(errors);
    mem_free(temporary);
    mem_free(path);
    return ok;
}

static bool read_all(struct convert *c, FILE *f, int *next_layer, struct err *e)
{
    struct head h, expected = head_of(c, 0);
    struct piece p[5];
    if (fread(&h, sizeof h, 1, f) != 1 || memcmp(h.magic, magic, sizeof magic) != 0)
        return err_set(e, ERR_FORMAT, "%s/" STATE_NAME ": is not the state of a stopped run: remove the folder and begin again", c->o->dst);
    bool same = h.key == expected.key && h.n_linears == expected.n_linears && h.n_layers == expected.n_layers && h.calibration == expected.calibration &&
        h.heldout == expected.heldout && h.next_layer >= 0 && h.next_layer <= h.n_layers;
    if (!same)
        return err_set(e, ERR_INVALID, "%s: holds a stopped run of another model, version or other options: give the same ones, or another folder",
                       c->o->dst);
    double *errors = mem_try_zalloc(c->r->n_linears + 1, sizeof *errors);
    bool ok = errors || err_set(e, ERR_NOMEM, "no memory for the state of the run");
    int n = ok ? pieces(c, errors, p) : 0;
    for (int i = 0; ok && i < n; i++)
        ok = !p[i].bytes || fread(p[i].data, p[i].bytes, 1, f) == 1
            || err_set(e, ERR_FORMAT, "%s/" STATE_NAME ": is cut short: remove the folder and begin again", c->o->dst);
    for (size_t i = 0; ok && i < c->r->n_linears; i++)
        c->r->linears[i].error = errors[i];
    mem_free(errors);
    *next_layer = (int)h.next_layer;
    return ok;
}

bool convert_state_load(struct convert *c, int *next_layer, struct err *e)
{
    *next_layer = 0;
    if (!convert_state_exists(c->o->dst))
        return true;
    char *path = state_path(c->o->dst, false);
    FILE *f = path ? fopen(path, "rb") : NULL;
    bool ok = f ? read_all(c, f, next_layer, e) : err_set(e, ERR_IO, "%s/" STATE_NAME ": cannot be read", c->o->dst);
    if (f)
        fclose(f);
    mem_free(path);
    return ok;
}
