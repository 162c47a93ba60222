/* bench/load_int.h - between load.c (sends) and load_report.c (counts), for this folder only. */
#ifndef QUIRE_BENCH_LOAD_INT_H
#define QUIRE_BENCH_LOAD_INT_H

#include "bench/load.h"

/* Results of o->num_prompts ended calls, sent_len[i] prompt tokens sent (-1: text of unknown length). */
json_t *bench_load_result(const struct bench_load_opts *o, const struct bench_call *calls, const int32_t *sent_len, double duration_s);

#endif
