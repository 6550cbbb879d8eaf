/* pattern_test.h - what the test of a fixed pattern needs beside index_test.h: its set by a function of the test's own for each
 * head and layer, at all sizes, causal and not. */
#ifndef FOVEA_PATTERN_TEST_H
#define FOVEA_PATTERN_TEST_H

#include "index_test.h"

/* One head of a problem. */
typedef struct where {
    int64_t h_q, h_kv, head, layer, n;
    bool causal;
} where;

/* Whether row i of that head sees key j; j <= i is checked by the caller where it must hold. */
typedef bool (*pattern_sees)(const void *arg, const where *w, int64_t i, int64_t j);

static inline selection select_layer(fv_context *ctx, const char *recipe, const heads *x, bool causal, int layer) {
    selection s = {x->h_q, x->n, calloc((size_t)(x->h_q * x->n), (size_t)x->n), 0};
    prepared p = prepare(ctx, recipe, x, x->n, causal);
    fv_run run = part_run(x, 0, x->n, x->n);
    run.layer = layer;
    fv_status status = fv_plan_index(p.plan, &run, p.workspace, p.bytes, take_tile, &s);
    CHECK(status == FV_OK, "%s: %s", recipe, fv_message(ctx));
    prepared_free(&p);
    return s;
}

/* The selection is the pattern's, in every pair. */
static inline void pattern_equals(const char *recipe, const selection *s, where w, pattern_sees visible, const void *arg) {
    int64_t differ = 0, n = s->n;
    for (w.head = 0; w.head < s->h; w.head++) {
        for (int64_t p = 0; p < n * n; p++) {
            int64_t i = p / n, j = p % n;
            bool sees_it = (!w.causal || j <= i) && visible(arg, &w, i, j);
            if (s->at[w.head * n * n + p] != sees_it && differ++ == 0) {
                printf("  head %lld, row %lld, key %lld: selected %d\n", (long long)w.head, (long long)i, (long long)j,
                       s->at[w.head * n * n + p]);
            }
        }
    }
    CHECK(differ == 0, "%s: h %lld/%lld, n %lld, layer %lld, causal %d: %lld pairs differ", recipe, (long long)w.h_q,
          (long long)w.h_kv, (long long)n, (long long)w.layer, w.causal, (long long)differ);
}

/* The pattern at all sizes: its set on layers 0..layers-1, causal and not, what the run weighs, and chunks where the selector
 * needs no more than a tile. */
static inline void pattern_holds(fv_context *ctx, const char *recipe, int layers, bool chunks, pattern_sees visible,
                                 const void *arg) {
    static const struct {
        int64_t h_q, h_kv, n, d;
    } size[] = {{4, 2, 1, 32}, {4, 4, 63, 32}, {4, 2, 65, 64}, {8, 2, 200, 32}, {4, 4, 201, 64}, {4, 2, 700, 32}};
    for (size_t k = 0; k < sizeof size / sizeof *size; k++) {
        heads x = heads_make(k + 11, size[k].h_q, size[k].h_kv, size[k].n, size[k].d);
        for (int layer = 0; layer < layers; layer++) {
            for (int causal = 0; causal < 2; causal++) {
                where w = {x.h_q, x.h_kv, 0, layer, x.n, causal == 1};
                selection s = select_layer(ctx, recipe, &x, causal == 1, layer);
                pattern_equals(recipe, &s, w, visible, arg);
                if (causal == 1 && layer == 0) {
                    run_holds(ctx, recipe, &x, &s, x.n > 300 ? 37 : 1);
                }
                if (causal == 1 && layer == 0 && chunks) {
                    chunks_hold(ctx, recipe, &x, &s, 64);
                    chunks_hold(ctx, recipe, &x, &s, 53);
                }
                free(s.at);
            }
        }
        heads_free(&x);
    }
}

/* As missing_mass, on a layer. */
static inline double missing_on_layer(fv_context *ctx, const char *recipe, heads *x, int layer) {
    int64_t rows = x->h_q * x->n;
    float *dense = malloc((size_t)rows * sizeof *dense);
    heads_run(ctx, "", x);
    memcpy(dense, x->lse, (size_t)rows * sizeof *dense);
    prepared p = prepare(ctx, recipe, x, x->n, true);
    fv_run run = part_run(x, 0, x->n, x->n);
    run.layer = layer;
    run.lse = x->lse;
    fv_status status = fv_plan_run(p.plan, &run, p.workspace, p.bytes);
    CHECK(status == FV_OK, "%s: %s", recipe, fv_message(ctx));
    prepared_free(&p);
    double missing = 0;
    for (int64_t i = 0; i < rows; i++) {
        missing += 1 - exp((double)x->lse[i] - dense[i]);
    }
    free(dense);
    return missing / (double)rows;
}

/* Of nested sets, the n-th recipe's holding the one before: missing mass falls, from first to last truly. */
static inline void nested_hold(fv_context *ctx, const char *const *recipe, int n, int layer) {
    heads x = heads_make(5, 4, 2, 600, 32);
    double before = 1, first = 1, last = 1;
    for (int k = 0; k < n; k++) {
        last = missing_on_layer(ctx, recipe[k], &x, layer);
        first = k == 0 ? last : first;
        CHECK(last <= before + 1e-6, "%s misses %g, a set within it %g", recipe[k], last, before);
        before = last;
    }
    CHECK(last < first, "missing %g of the least set and %g of the largest", first, last);
    heads_free(&x);
}

#endif
