/* convert/convert_int.h - what the files of convert share.
 *
 *   plan.c     which linear becomes what; where every tensor of the output lies
 *   output.c   shards under temporary names, config.json, index, the other files
 *   layer.c    one layer: inputs gathered, scales moved, codes chosen, values given back to the model
 *   state.c    what a stopped run needs to go on
 *   text.c     texts to sequences of tokens
 *   convert.c  the walk */
#ifndef QUIRE_CONVERT_CONVERT_INT_H
#define QUIRE_CONVERT_CONVERT_INT_H

#include "convert/convert.h"
#include "dev/dev.h"
#include "fwd/walk.h"
#include "model/model.h"
#include "tensor/tensor.h"

enum { CONVERT_NAME = 256, CONVERT_HEAD = -1 };

/* One linear of the walk: the one to three matrices of a slot, stacked. */
struct unit {
    enum arch_linear slot;
    int layer, index;          /* layer CONVERT_HEAD: the head */
    int n_mats;
    struct model_matrix mats[3];
    int64_t first_row[3];
    int64_t rows, cols;
    enum convert_format format;
    int64_t group;             /* inputs that share a scale, dividing cols; 0: whole rows */
    const char *why;           /* of CONVERT_NONE, or a remark */
    size_t linear;             /* its first matrix in the report */

    /* While its layer is worked on: */
    struct quant_grid grid;
    float *w;                  /* [rows][cols]; what they have become, once rounded */
    bool changed;
    struct quant_codes codes;
    float *h;                  /* second moments of the inputs [cols][cols], or NULL */
    float *input_max;          /* [cols] largest magnitudes, or NULL */
    int64_t n_inputs;
};

/* A tensor of the output. */
struct out_tensor {
    char name[CONVERT_NAME + 24];
    enum dtype dtype;
    int n_dims;
    int64_t dims[TENSOR_MAX_DIMS];
    size_t bytes, offset;      /* in the data of its shard */
    int shard;
    const struct tensor *raw;  /* a copy of this stored one, unless what the model gives for it has changed; or: */
    int64_t unit;              /* what a linear is stored in, -1: raw */
    int mat;
    enum { OUT_CODES, OUT_SCALE, OUT_ZERO, OUT_SHAPE } what;
    int layer;                 /* the layer that may change it (CONVERT_HEAD: when the walk ends, as far as the head goes); -2: none */
    bool transposed;           /* a linear that was left alone, stored [cols, rows] */
};

struct shard { char name[64], part[80]; size_t header_bytes, data_bytes; char *header; int fd; };

struct output {
    struct out_tensor *tensors;
    size_t n_tensors, cap_tensors;
    struct shard *shards;
    int n_shards;
    const char *dst;
};

struct sequences {
    int32_t *ids;
    int32_t *start;            /* [n + 1] */
    int32_t n, longest;
    float *x;                  /* [all tokens][hidden]: between layers */
};

struct convert {
    const struct convert_opts *o;
    struct model *m;
    const struct arch *arch;
    struct dev *d;
    struct fwd_walk *walk;
    struct quant_team team;
    struct unit *units;        /* all, in the order of the walk; the head last */
    size_t n_units, cap_units;
    struct output out;
    struct sequences calibration, heldout;
    float *heldout_plain;      /* the held-out rows through the model as it is */
    uint64_t key;              /* of options, source and plan */
    int64_t done, total;       /* steps */
    struct convert_report *r;
    int layer;                 /* being worked on: whose inputs are gathered */
    bool failed;               /* while gathering, and why */
    struct err why;
    int lock;                  /* the folder, held against other runs; -1: not yet */
    struct changed *changed;   /* vectors and biases of this layer with other values */
    size_t n_changed, cap_changed;
};

struct changed { char name[CONVERT_NAME]; float *values; int64_t n; };

/* plan.c */
bool convert_plan(struct convert *c, struct err *e);
size_t convert_layer_units(const struct convert *c, int layer, size_t *first);   /* how many; *first: index */
bool convert_needs_inputs(const struct convert *c);
/* convert.c */
void convert_step(struct convert *c, int64_t n);

/* output.c */
bool convert_output_lay(struct convert *c, struct err *e);              /* offsets, shards, headers; writes nothing */
bool convert_output_open(struct convert *c, bool resume, struct err *e);
bool convert_output_write(struct convert *c, int layer, struct err *e); /* tensors of one layer; -2: those that no layer changes */
bool convert_output_sync(struct convert *c, struct err *e);
bool convert_output_finish(struct convert *c, struct err *e);           /* final names, index, other files, config.json last */
void convert_output_close(struct convert *c);
bool convert_write_config(struct convert *c, struct err *e);            /* config.c */
bool convert_copy_files(struct convert *c, struct err *e);

/* layer.c */
bool convert_layer_open(struct convert *c, int layer, struct err *e);   /* reads weights, makes room */
struct fwd_capture convert_layer_capture(struct convert *c);
bool convert_layer_captured(const struct convert *c, struct err *e);    /* whether gathering went well */
bool convert_layer_quantize(struct convert *c, int layer, struct err *e);
struct fwd_quant convert_layer_formats(const struct convert *c, int layer);
void convert_layer_close(struct convert *c, int layer);
/* Values of a stored vector that may be changed, found or read; NULL: not there or no memory. */
struct changed *convert_change(struct convert *c, const char *name, struct err *e);
const struct tensor *convert_stored(const struct convert *c, const char *name);
/* As a tensor of this type would hold it. */
float convert_round(enum dtype t, float x);
void convert_from_f32(enum dtype t, const float *x, size_t n, void *out);
/* scales.c */
bool convert_move_scales(struct convert *c, int layer, struct err *e);
struct unit *convert_unit(struct convert *c, int layer, enum arch_linear slot, int index);   /* NULL: none */

/* state.c */
bool convert_state_save(struct convert *c, int next_layer, struct err *e);
/* *next_layer 0 and true when there is none.  ERR_INVALID when it belongs to other options. */
bool convert_state_load(struct convert *c, int *next_layer, struct err *e);
bool convert_state_exists(const char *dst);
void convert_state_remove(const char *dst);

/* text.c */
bool convert_texts(struct convert *c, struct err *e);

#endif
