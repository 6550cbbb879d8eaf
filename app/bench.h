/* bench.h - cases of `fovea bench`: what is measured, and against which ceiling. */
#ifndef FOVEA_APP_BENCH_H
#define FOVEA_APP_BENCH_H

#include "cli.h"

#include <cJSON.h>

typedef enum bench_kind { BENCH_PREFILL, BENCH_DECODE, BENCH_PROMPT, BENCH_GENERATE } bench_kind;

typedef struct bench_case {
    bench_kind kind;
    fv_dtype dtype; /* of Q, K and V */
    int64_t h_q, h_kv, d, n;
} bench_case;

typedef struct bench_result {
    double value, ceiling; /* in `unit` */
    const char *unit, *ceiling_name;
} bench_result;

typedef struct bench_machine {
    fv_context *ctx;
    fv_ceilings ceilings;
    int runs;
    const char *name;         /* of the case that runs, for the progress */
    double from, upto;        /* its part of the whole, 0..1 */
    const cli_common *common; /* names the model */
} bench_machine;

/* All cases of a group ("attention", "decode", "model" or NULL for all), in the order they are run; returns their number. */
enum { BENCH_CASES_MAX = 64 };
int bench_cases(const char *group, bench_case out[BENCH_CASES_MAX]);
/* "prefill/f32/h32x8/d128/n4096/causal/avx512" */
void bench_name(const bench_case *c, fv_level level, char out[96]);
/* A rough time, in any unit: it only cuts the progress into shares. */
double bench_cost(const bench_case *c);

/* 0 or the exit code after printing the reason. The value is the median of `runs` runs after one to warm up. */
int bench_attention(const bench_machine *m, const bench_case *c, bench_result *out);
int bench_model(const bench_machine *m, const bench_case *c, fv_model *model, bench_result *out);

/* Says that `run` of the runs are done; FV_ERR_CANCELLED after Ctrl-C. */
fv_status bench_progress(const bench_machine *m, int run);
/* Of n seconds, which get sorted. */
double bench_median(double *seconds, int n);
double bench_now(void);
enum { BENCH_RUNS_MAX = 1000 };

#endif
