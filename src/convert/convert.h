/* convert/convert.h - a full-precision checkpoint in, a quantized one out: `quire quantize`.
 *
 * The model is walked layer by layer (fwd/walk.h), so that memory holds one layer, the embedding and the rows of the calibration
 * text.  For each layer: run the text through it as it is, gathering the inputs of every linear; choose scales and codes
 * (quant/quant.h); write them; run the text through what it has become, which is what the next layer will meet.  A second text,
 * never used for choosing, runs through both and gives the perplexities.
 *
 * Output is a Hugging Face folder of compressed-tensors safetensors.  It is written in place under temporary names with the state of
 * the walk beside it: a run that was stopped goes on from its last whole layer when it is started again with the same
 * options, and ends with the same bytes. */
#ifndef QUIRE_CONVERT_CONVERT_H
#define QUIRE_CONVERT_CONVERT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/err.h"
#include "quant/quant.h"

enum convert_format {
    CONVERT_NONE,          /* as it is */
    CONVERT_INT4,          /* groups of inputs, packed; activations as they are (W4A16) */
    CONVERT_INT8_WEIGHT,   /* the same in 8 bits (W8A16) */
    CONVERT_INT8,          /* a scale for each output; activations are meant to be rounded to 8 bits, each token by itself (W8A8) */
    CONVERT_FP8,           /* E4M3, likewise */
    CONVERT_FORMAT_COUNT
};
const char *convert_format_name(enum convert_format f);
/* FORMAT, or FORMAT-gN of those with groups: *group is N, -1 when not said. */
bool convert_format_parse(const char *name, size_t len, enum convert_format *out, int64_t *group);

/* PATTERN=FORMAT; the first whose pattern fits a linear's name decides.  '*' is any text, '?' any character.  group: of its own, -1: convert_opts'. */
struct convert_rule { const char *pattern; size_t pattern_len; enum convert_format format; int64_t group; };

struct convert_opts {
    const char *src;                 /* as model_open has it; NULL: the built-in model */
    const char *dst;                 /* a folder: not there, empty, or left by a run that was stopped */
    enum convert_format format;      /* of what no rule names.  The head is left alone unless a rule names it */
    const struct convert_rule *rules;
    size_t n_rules;
    bool awq, gptq;                  /* neither: round to nearest.  Both: AWQ's scales, then GPTQ */
    bool act_order, symmetric, search;
    double damp;                     /* GPTQ */
    double smooth;                   /* SmoothQuant's alpha for int8 linears behind a norm; 0: not */
    /* Inputs that share a scale, of INT4 and INT8_WEIGHT; 0: whole rows.  Where they do not divide a linear's inputs it is halved until they
     * do, to no less than 16; else that linear has whole rows: readers of the format want groups that come out even. */
    int64_t group;
    const char *calibration;         /* text; NULL: the one built in */
    size_t calibration_len;
    const char *heldout;             /* text that perplexity is measured on; NULL: the one built in */
    size_t heldout_len;
    int32_t sequence;                /* tokens of a sequence; cut to the model's context */
    int32_t max_tokens, max_heldout_tokens;
    bool perplexity;
    int64_t max_shard_bytes;
    int n_threads;
    const char *isa;
    /* done of total steps.  May be NULL. */
    void (*progress)(void *ctx, int64_t done, int64_t total);
    void *progress_ctx;
};
void convert_opts_default(struct convert_opts *o);

struct convert_linear {
    char name[256];
    int layer;                       /* -1: the head */
    enum convert_format format;
    const char *why;                 /* why it is left as it is, or a remark; NULL: none */
    int64_t rows, cols;
    int64_t group;                   /* 0: whole rows */
    /* Squared error of the outputs over calibration, relative to the outputs; without calibration of the weights. */
    double error;
};
struct convert_report {
    struct convert_linear *linears;  /* in the order of the walk; fused slots have one each matrix */
    size_t n_linears, cap_linears;
    double *layer_error;             /* [n_layers]: of the rows behind each layer on the held-out text, relative; NULL without perplexity */
    int n_layers;
    bool errors_of_outputs, has_perplexity;
    double perplexity_before, perplexity_after;
    /* Mean Kullback-Leibler divergence, in nats a token, from the model's own distributions to those it has become: 0 when nothing has changed,
     * and free of the luck by which errors may bring a text's perplexity down. */
    double divergence;
    int64_t calibration_tokens, heldout_tokens;
    int64_t bytes_before, bytes_after;   /* of all tensors */
    int resumed_at;                  /* layers that an earlier run had done */
    int n_shards;
};
void convert_report_free(struct convert_report *r);

/* ERR_INVALID for options and folders, ERR_UNSUPPORTED for models that are quantized already. */
bool convert_run(const struct convert_opts *o, struct convert_report *r, struct err *e);

#endif
