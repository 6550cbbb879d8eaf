/* profiled_test.h - selections and runs of a recipe that takes numbers for each head from a profile, and is given them here, or
 * has found them. */
#ifndef FOVEA_PROFILED_TEST_H
#define FOVEA_PROFILED_TEST_H

#include "index_test.h"

/* Head h has the n[h] numbers at[h]. */
typedef struct profiled {
    const char *method;
    const double *const *at;
    const int64_t *n;
} profiled;

/* `recipe` names a file, "method@file:...", that is not read. */
static inline prepared prepare_profiled(fv_context *ctx, const char *recipe, const profiled *numbers, const heads *x) {
    prepared p = {0};
    fv_profile *profile = NULL;
    fv_status status = fv_recipe_parse(ctx, recipe, &p.recipe);
    CHECK(status == FV_OK, "%s: %s", recipe, fv_message(ctx));
    status = fv_profile_create(ctx, numbers->method, 1, x->h_q, &profile);
    for (int64_t h = 0; h < x->h_q && status == FV_OK; h++) {
        status = numbers->n[h] > 0 ? fv_profile_set(profile, 0, h, numbers->at[h], numbers->n[h]) : FV_OK;
    }
    status = status == FV_OK ? fv_recipe_attach(p.recipe, FV_PREFILL, profile) : status;
    CHECK(status == FV_OK, "%s: %s", recipe, fv_message(ctx));
    plan_prepared(ctx, &p, recipe, x);
    return p;
}

/* What is selected, free with free(selection.at); x->out and x->lse are those of a run. */
static inline selection select_profiled(fv_context *ctx, const char *recipe, const profiled *numbers, heads *x) {
    selection s = {x->h_q, x->n, calloc((size_t)(x->h_q * x->n), (size_t)x->n), 0};
    prepared p = prepare_profiled(ctx, recipe, numbers, x);
    fv_run run = part_run(x, 0, x->n, x->n);
    fv_status status = fv_plan_index(p.plan, &run, p.workspace, p.bytes, take_tile, &s);
    CHECK(status == FV_OK, "%s: %s", recipe, fv_message(ctx));
    fv_run_stats stats = {0};
    run.lse = x->lse;
    run.stats = &stats;
    status = fv_plan_run(p.plan, &run, p.workspace, p.bytes);
    CHECK(status == FV_OK, "%s: %s", recipe, fv_message(ctx));
    CHECK((int64_t)stats.exact_pairs == selected_pairs(&s), "%s: weighed %llu pairs, selected %lld", recipe,
          (unsigned long long)stats.exact_pairs, (long long)selected_pairs(&s));
    prepared_free(&p);
    return s;
}

/* Attaches the profile that the recipe's own calibration finds on `prompts` runs of the options' shape. */
static inline fv_status attach_found(fv_context *ctx, fv_recipe *recipe, const fv_calibration_options *o, const fv_run *prompt) {
    fv_calibration *calibration = NULL;
    fv_profile *profile = NULL;
    fv_status status = fv_calibration_create(ctx, recipe, o, &calibration);
    for (int64_t i = 0; i < o->prompts && status == FV_OK; i++) {
        status = fv_calibration_add(calibration, &prompt[i]);
    }
    status = status == FV_OK ? fv_calibration_find(calibration, &profile) : status;
    status = status == FV_OK ? fv_recipe_attach(recipe, FV_PREFILL, profile) : status;
    fv_calibration_destroy(calibration);
    return status;
}

#endif
