/* method_test.h - what a method's test needs: random heads, a masked reference in double that shares nothing with src/, checks.
 *
 * A method's test says which keys a query sees by a function of its own, from the paper, and compares the engine with it. */
#ifndef FOVEA_METHOD_TEST_H
#define FOVEA_METHOD_TEST_H

#include "fovea/experimental.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int failures;

#define CHECK(condition, ...)                                                                                                    \
    do {                                                                                                                         \
        if (!(condition)) {                                                                                                      \
            failures++;                                                                                                          \
            printf("%s:%d: ", __FILE__, __LINE__);                                                                               \
            printf(__VA_ARGS__);                                                                                                 \
            printf("\n");                                                                                                        \
        }                                                                                                                        \
    } while (0)

/* Heads of random queries, keys and values, and room for an output. */
typedef struct heads {
    int64_t h_q, h_kv, n, d;
    float *q, *k, *v, *out, *lse;
} heads;

static inline float *numbers(uint64_t *seed, int64_t n, float spread) {
    float *x = aligned_alloc(64, ((size_t)n * sizeof(float) + 63) / 64 * 64);
    for (int64_t i = 0; i < n; i++) {
        *seed = *seed * 6364136223846793005u + 1442695040888963407u;
        x[i] = spread * ((float)(*seed >> 40) / (float)(1 << 23) - 1.0f);
    }
    return x;
}

static inline heads heads_make(uint64_t seed, int64_t h_q, int64_t h_kv, int64_t n, int64_t d) {
    heads x = {h_q, h_kv, n, d, NULL, NULL, NULL, NULL, NULL};
    x.q = numbers(&seed, h_q * n * d, 3);
    x.k = numbers(&seed, h_kv * n * d, 3);
    x.v = numbers(&seed, h_kv * n * d, 1);
    x.out = numbers(&seed, h_q * n * d, 1);
    x.lse = numbers(&seed, h_q * n, 1);
    return x;
}

static inline void heads_free(heads *x) {
    free(x->q);
    free(x->k);
    free(x->v);
    free(x->out);
    free(x->lse);
}

/* Attention of all queries over all keys by the recipe. */
static inline fv_run_stats heads_run_if(fv_context *ctx, const char *recipe, heads *x, bool causal) {
    fv_recipe *r = NULL;
    fv_status status = fv_recipe_parse(ctx, recipe, &r);
    CHECK(status == FV_OK, "%s: %s", recipe, fv_message(ctx));
    fv_problem p = fv_problem_default();
    p.h_q = x->h_q;
    p.h_kv = x->h_kv;
    p.n_q = p.n_kv = x->n;
    p.d_k = p.d_v = x->d;
    p.causal = causal;
    p.recipe = r;
    fv_plan *plan = NULL;
    status = fv_plan_create(ctx, &p, &plan);
    CHECK(status == FV_OK, "%s: %s", recipe, fv_message(ctx));
    size_t bytes = fv_plan_workspace(plan);
    void *workspace = aligned_alloc(64, (bytes + 63) / 64 * 64);
    fv_run_stats stats = {0};
    fv_run run = {.q = fv_tensor_view(x->q, FV_F32, 1, x->h_q, x->n, x->d),
                  .k = fv_tensor_view(x->k, FV_F32, 1, x->h_kv, x->n, x->d),
                  .v = fv_tensor_view(x->v, FV_F32, 1, x->h_kv, x->n, x->d),
                  .out = fv_tensor_view(x->out, FV_F32, 1, x->h_q, x->n, x->d),
                  .lse = x->lse,
                  .stats = &stats};
    status = fv_plan_run(plan, &run, workspace, bytes);
    CHECK(status == FV_OK, "%s: %s", recipe, fv_message(ctx));
    free(workspace);
    fv_plan_destroy(plan);
    fv_recipe_destroy(r);
    return stats;
}

static inline fv_run_stats heads_run(fv_context *ctx, const char *recipe, heads *x) { return heads_run_if(ctx, recipe, x, true); }

/* Whether query i sees key j; `arg` are the test's own parameters. */
typedef bool (*sees)(const void *arg, int64_t i, int64_t j);

/* One row in double; returns the log-sum-exp. */
static inline double reference_row(const heads *x, int64_t head, int64_t i, sees visible, const void *arg, double *out) {
    int64_t kv = head / (x->h_q / x->h_kv);
    double top = -INFINITY, sum = 0;
    double *score = malloc((size_t)x->n * sizeof *score);
    for (int64_t j = 0; j < x->n; j++) {
        score[j] = -INFINITY;
        if (visible(arg, i, j)) {
            score[j] = 0;
            for (int64_t c = 0; c < x->d; c++) {
                score[j] += (double)x->q[(head * x->n + i) * x->d + c] * x->k[(kv * x->n + j) * x->d + c] / sqrt((double)x->d);
            }
            top = fmax(top, score[j]);
        }
    }
    memset(out, 0, (size_t)x->d * sizeof *out);
    for (int64_t j = 0; j < x->n; j++) {
        double w = score[j] == -INFINITY ? 0 : exp(score[j] - top);
        sum += w;
        for (int64_t c = 0; c < x->d; c++) {
            out[c] += w * x->v[(kv * x->n + j) * x->d + c];
        }
    }
    for (int64_t c = 0; c < x->d; c++) {
        out[c] /= sum;
    }
    free(score);
    return top + log(sum);
}

/* Largest difference of the engine's rows from the reference's, over rows 0, step, 2 step ... and the last. */
static inline double worst_row(const heads *x, sees visible, const void *arg, int64_t step) {
    double worst = 0;
    double *out = malloc((size_t)x->d * sizeof *out);
    for (int64_t head = 0; head < x->h_q; head++) {
        for (int64_t i = 0; i < x->n; i = i + step < x->n || i == x->n - 1 ? i + step : x->n - 1) {
            double lse = reference_row(x, head, i, visible, arg, out);
            worst = fmax(worst, fabs(lse - x->lse[head * x->n + i]));
            for (int64_t c = 0; c < x->d; c++) {
                worst = fmax(worst, fabs(out[c] - x->out[(head * x->n + i) * x->d + c]));
            }
        }
    }
    free(out);
    return worst;
}

static inline uint64_t pairs_seen(const heads *x, sees visible, const void *arg) {
    uint64_t pairs = 0;
    for (int64_t i = 0; i < x->n; i++) {
        for (int64_t j = 0; j < x->n; j++) {
            pairs += visible(arg, i, j);
        }
    }
    return pairs * (uint64_t)x->h_q;
}

#endif
