/* attend.h - the operands of `fovea attend`: from .npy files to a problem and a run. */
#ifndef FOVEA_APP_ATTEND_H
#define FOVEA_APP_ATTEND_H

#include "cli.h"
#include "npy.h"

typedef struct attend_arguments {
    cli_common common;
    const char *q, *k, *v, *out, *lse, *index, *sink_logits, *bias, *key_mask, *alibi_slopes;
    cli_ints kv_lengths;
    const char *shape;
    int64_t offset, window, sinks, steps;
    double scale, soft_cap;
    fv_dtype dtype;
    bool causal, alibi, stats;
} attend_arguments;

enum { ATTEND_NO_OFFSET = INT32_MIN, ATTEND_RECIPE = 512 };

/* Zero-initialise; release whatever was read with attend_release. */
typedef struct attend_arrays {
    npy q, k, v, sink_logits, bias, key_mask, slopes;
    npy out, lse; /* data by attend_results */
    uint8_t *mask;
    float *alibi;
    int32_t *lengths;
} attend_arrays;

/* The recipe with what --shape and --steps add to it. 0 or the exit code. */
int attend_recipe(const attend_arguments *a, char out[ATTEND_RECIPE]);
/* Reads all files that the arguments name; fills in the problem and the run but for the recipe and the results. Returns 0 or
 * the exit code after printing the reason. */
int attend_read(const attend_arguments *a, attend_arrays *s, fv_problem *problem, fv_run *run);
/* Room for the results, once the problem is known to be legal. */
int attend_results(const attend_arguments *a, attend_arrays *s, const fv_problem *problem, fv_run *run);
int attend_write(const attend_arguments *a, const attend_arrays *s);
/* Which keys the run's method visits, tile by tile, as JSON. */
int attend_write_index(const char *path, fv_context *ctx, const fv_recipe *recipe, fv_plan *plan, const fv_run *run);
void attend_release(attend_arrays *s);

#endif
