/* calibrated_test.h - what a method finds offline in heads given here, and what a recipe loses of one head's attention: the
 * engine's output beside dense attention in double, over the rows that calibration looks at. */
#ifndef FOVEA_CALIBRATED_TEST_H
#define FOVEA_CALIBRATED_TEST_H

#include "index_test.h"

/* The profile of `prompts` prompts of equal shape, free with fv_profile_destroy. */
static inline fv_profile *calibrate(fv_context *ctx, const char *recipe, const heads *prompt, int64_t prompts) {
    const heads *x = prompt;
    const fv_calibration_options options = {
        .layers = 1, .h_q = x->h_q, .h_kv = x->h_kv, .d_k = x->d, .d_v = x->d, .tokens = x->n, .prompts = prompts};
    fv_recipe *r = NULL;
    fv_calibration *c = NULL;
    fv_profile *profile = NULL;
    fv_status status = fv_recipe_parse(ctx, recipe, &r);
    status = status == FV_OK ? fv_calibration_create(ctx, r, &options, &c) : status;
    for (int64_t i = 0; i < prompts && status == FV_OK; i++) {
        fv_run run = part_run(&prompt[i], 0, x->n, x->n);
        status = fv_calibration_add(c, &run);
    }
    status = status == FV_OK ? fv_calibration_find(c, &profile) : status;
    CHECK(status == FV_OK, "%s: %s", recipe, fv_message(ctx));
    fv_calibration_destroy(c);
    fv_recipe_destroy(r);
    return profile;
}

/* Why a calibration is refused; "" if it is not. */
static inline const char *calibration_refused(fv_context *ctx, const char *recipe, int64_t tokens) {
    const fv_calibration_options options = {
        .layers = 1, .h_q = 1, .h_kv = 1, .d_k = 32, .d_v = 32, .tokens = tokens, .prompts = 1};
    fv_recipe *r = NULL;
    fv_calibration *c = NULL;
    fv_status status = fv_recipe_parse(ctx, recipe, &r);
    status = status == FV_OK ? fv_calibration_create(ctx, r, &options, &c) : status;
    fv_calibration_destroy(c);
    fv_recipe_destroy(r);
    return status == FV_OK ? "" : fv_message(ctx);
}

/* Query head `head` of x alone; shares memory with x but for out and lse. */
static inline heads one_head(const heads *x, int64_t head) {
    const int64_t size = x->n * x->d, kv = head / (x->h_q / x->h_kv);
    heads one = {1, 1, x->n, x->d, x->q + head * size, x->k + kv * size, x->v + kv * size, NULL, NULL};
    one.out = malloc((size_t)size * sizeof(float));
    one.lse = malloc((size_t)x->n * sizeof(float));
    return one;
}

static inline void one_head_free(heads *x) {
    free(x->out);
    free(x->lse);
}

static inline bool sees_past(const void *arg, int64_t i, int64_t j) {
    (void)arg;
    return j <= i;
}

/* Rows n - 1, n - 1 - step, ..: at most 256. */
static inline int64_t looked_at_step(int64_t n) { return (n + 255) / 256; }

/* Dense attention of a head in double, free with free. */
static inline double *dense_outputs(const heads *x) {
    double *out = calloc((size_t)(x->n * x->d), sizeof *out);
    for (int64_t i = x->n - 1; i >= 0; i -= looked_at_step(x->n)) {
        reference_row(x, 0, i, sees_past, NULL, out + i * x->d);
    }
    return out;
}

typedef struct lost {
    double error, size; /* sums of |output - dense|, |dense| */
    int64_t rows;
} lost;

static inline lost loses(fv_context *ctx, const char *recipe, heads *one, const double *dense) {
    lost l = {0, 0, 0};
    heads_run(ctx, recipe, one);
    for (int64_t i = one->n - 1; i >= 0; i -= looked_at_step(one->n), l.rows++) {
        for (int64_t c = 0; c < one->d; c++) {
            l.error += fabs(one->out[i * one->d + c] - dense[i * one->d + c]);
            l.size += fabs(dense[i * one->d + c]);
        }
    }
    return l;
}

#endif
