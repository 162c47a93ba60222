/* The options of commands that sample: run, chat. */
#include <math.h>
#include <string.h>
#include "base/mem.h"
#include "cli/cli.h"
#include "engine/gen.h"

void cli_sample_flags_default(struct cli_sample_flags *f)
{
    *f = (struct cli_sample_flags){
        .temperature = NAN, .top_p = NAN, .min_p = NAN, .typical_p = NAN, .repetition_penalty = NAN, .frequency_penalty = NAN,
        .presence_penalty = NAN, .top_k = INT32_MIN, .max_tokens = 0, .n = 1, .logprobs = -1, .seed = INT64_MIN,
        .length_penalty = 1, .generation_config = true, .skip_special_tokens = true,
    };
}

void cli_sample_table(struct cli_sample_flags *f, struct cli_opt table[CLI_SAMPLE_OPTS])
{
    const struct cli_opt all[] = {
        {"max-tokens", 'n', CLI_INT, &f->max_tokens, "N", "new tokens at most; 0: as many as the context holds", 0, 1 << 30},
        {"min-tokens", 0, CLI_INT, &f->min_tokens, "N", "no end of sequence before so many tokens", 0, 1 << 30},
        {"temperature", 0, CLI_F64, &f->temperature, "X", "0 is greedy; default from the model, else 1", 0, 1e6},
        {"top-k", 0, CLI_INT, &f->top_k, "N", "the N most likely tokens only; 0 or -1: all", -1, INT32_MAX},
        {"top-p", 0, CLI_F64, &f->top_p, "X", "the smallest set of tokens with this probability", 0, 1},
        {"min-p", 0, CLI_F64, &f->min_p, "X", "tokens at least X times as likely as the most likely one", 0, 1},
        {"typical-p", 0, CLI_F64, &f->typical_p, "X", "locally typical sampling with this mass", 0, 1},
        {"repetition-penalty", 0, CLI_F64, &f->repetition_penalty, "X", "over 1 discourages tokens of prompt and output", 0, 1e6},
        {"frequency-penalty", 0, CLI_F64, &f->frequency_penalty, "X", "OpenAI's, -2 to 2", -2, 2},
        {"presence-penalty", 0, CLI_F64, &f->presence_penalty, "X", "OpenAI's, -2 to 2", -2, 2},
        {"sample-seed", 0, CLI_I64, &f->seed, "N", "makes sampling reproducible", 0, 0},
        {"best-of", 0, CLI_INT, &f->best_of, "N", "generate N, return the most likely ones", 0, 65536},
        {"choices", 0, CLI_INT, &f->n, "N", "answers to generate", 1, 65536},
        {"beam-width", 0, CLI_INT, &f->beam_width, "N", "beam search instead of sampling; 0: off", 0, 65536},
        {"length-penalty", 0, CLI_F64, &f->length_penalty, "X", "of beam search: score / length^X", -100, 100},
        {"logprobs", 0, CLI_INT, &f->logprobs, "N", "report log-probabilities and the N most likely tokens; -1: none", -1, 1 << 20},
        {"stop", 0, CLI_LIST, &f->stop, "TEXT", "end before this text", 0, 0},
        {"stop-token-ids", 0, CLI_STR, &f->stop_token_ids, "1,2", "end at these tokens", 0, 0},
        {"include-stop", 0, CLI_FLAG, &f->include_stop, NULL, "keep the stop text in the output", 0, 0},
        {"ignore-eos", 0, CLI_FLAG, &f->ignore_eos, NULL, "do not stop at the model's end of sequence", 0, 0},
        {"skip-special-tokens", 0, CLI_FLAG, &f->skip_special_tokens, NULL, "leave special tokens out of the text", 0, 0},
        {"generation-config", 0, CLI_FLAG, &f->generation_config, NULL, "take sampling defaults from generation_config.json", 0, 0},
        {0},
    };
    _Static_assert(sizeof all / sizeof all[0] <= CLI_SAMPLE_OPTS, "table is too small");
    memcpy(table, all, sizeof all);
}

static void override(float *field, double given)
{
    if (!isnan(given))
        *field = (float)given;
}

bool cli_sample_request(struct cli_sample_flags *f, const struct engine *eng, struct sample_params *p, struct gen_request *r, struct err *e)
{
    gen_default_params(eng, f->generation_config, p);
    override(&p->temperature, f->temperature);
    override(&p->top_p, f->top_p);
    override(&p->min_p, f->min_p);
    override(&p->typical_p, f->typical_p);
    override(&p->repetition_penalty, f->repetition_penalty);
    override(&p->frequency_penalty, f->frequency_penalty);
    override(&p->presence_penalty, f->presence_penalty);
    if (f->top_k != INT32_MIN)
        p->top_k = f->top_k;
    if (f->seed != INT64_MIN) {
        p->has_seed = true;
        p->seed = (uint64_t)f->seed;
    }
    p->min_tokens = f->min_tokens;
    p->ignore_eos = f->ignore_eos;
    p->n_logprobs = f->logprobs;
    if (f->stop_token_ids && !cli_parse_ids(f->stop_token_ids, &f->stop_ids, &p->n_stop_ids, e))
        return false;
    p->stop_ids = f->stop_ids;
    r->engine.params = p;
    r->engine.max_tokens = f->max_tokens;
    r->engine.n = f->n;
    r->engine.best_of = f->beam_width ? f->beam_width : f->best_of;
    r->engine.beam_search = f->beam_width > 0;
    r->engine.length_penalty = (float)f->length_penalty;
    r->stop = f->stop.items;
    r->n_stop = f->stop.n;
    r->include_stop = f->include_stop;
    r->skip_special_tokens = f->skip_special_tokens;
    return true;
}

void cli_sample_flags_free(struct cli_sample_flags *f)
{
    mem_free(f->stop_ids);
    mem_free(f->stop.items);
    f->stop_ids = NULL;
    f->stop.items = NULL;
}
