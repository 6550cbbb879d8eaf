/* index_test.h - what an index selector's test needs beside method_test.h: the set it selects, as a matrix, and what must hold of
 * every selector: the run weighs exactly that set, and how a prompt is cut changes neither the set nor a bit. */
#ifndef FOVEA_INDEX_TEST_H
#define FOVEA_INDEX_TEST_H

#include "method_test.h"

/* (h_q, n, n) bytes: whether row i of a head visits key j, causal mask included. */
typedef struct selection {
    int64_t h, n;
    unsigned char *at;
    int64_t fell_back; /* tiles */
} selection;

typedef struct prepared {
    fv_recipe *recipe;
    fv_plan *plan;
    void *workspace;
    size_t bytes;
} prepared;

/* Plans p->recipe; `what` is for messages. */
static inline void plan_prepared_for(fv_context *ctx, prepared *p, const char *what, const heads *x, int64_t n_q, bool causal) {
    fv_problem problem = fv_problem_default();
    problem.h_q = x->h_q;
    problem.h_kv = x->h_kv;
    problem.n_q = n_q;
    problem.n_kv = x->n;
    problem.d_k = problem.d_v = x->d;
    problem.causal = causal;
    problem.recipe = p->recipe;
    fv_status status = fv_plan_create(ctx, &problem, &p->plan);
    CHECK(status == FV_OK, "%s: %s", what, fv_message(ctx));
    p->bytes = fv_plan_workspace(p->plan);
    p->workspace = aligned_alloc(64, (p->bytes + 63) / 64 * 64);
    memset(p->workspace, 0xff, p->bytes);
}

static inline void plan_prepared(fv_context *ctx, prepared *p, const char *what, const heads *x) {
    plan_prepared_for(ctx, p, what, x, x->n, true);
}

static inline prepared prepare(fv_context *ctx, const char *recipe, const heads *x, int64_t n_q, bool causal) {
    prepared p = {0};
    fv_status status = fv_recipe_parse(ctx, recipe, &p.recipe);
    CHECK(status == FV_OK, "%s: %s", recipe, fv_message(ctx));
    plan_prepared_for(ctx, &p, recipe, x, n_q, causal);
    return p;
}

static inline void prepared_free(prepared *p) {
    free(p->workspace);
    fv_plan_destroy(p->plan);
    fv_recipe_destroy(p->recipe);
}

/* Rows from .. from + n_q - 1 of x against keys 0 .. n_kv - 1. */
static inline fv_run part_run(const heads *x, int64_t from, int64_t n_q, int64_t n_kv) {
    fv_run run = {.q = fv_tensor_view(x->q, FV_F32, 1, x->h_q, x->n, x->d),
                  .k = fv_tensor_view(x->k, FV_F32, 1, x->h_kv, x->n, x->d),
                  .v = fv_tensor_view(x->v, FV_F32, 1, x->h_kv, x->n, x->d),
                  .out = fv_tensor_view(x->out, FV_F32, 1, x->h_q, x->n, x->d)};
    run.q.data = (float *)run.q.data + from * x->d;
    run.out.data = (float *)run.out.data + from * x->d;
    run.q.shape[2] = run.out.shape[2] = n_q;
    run.k.shape[2] = run.v.shape[2] = n_kv;
    return run;
}

static inline int take_tile(void *user, const fv_index_tile *t) {
    selection *s = user;
    s->fell_back += t->fell_back;
    for (int64_t r = 0; r < t->n; r++) {
        const int64_t i = t->row != NULL ? t->row[r] : t->first + r;
        for (int64_t j = 0; j < t->n_kv; j++) {
            s->at[(t->head * s->n + t->offset + i) * s->n + j] = fv_index_sees(t, i, j);
        }
    }
    return 0;
}

static inline selection select_part(fv_context *ctx, const char *recipe, const heads *x, int64_t from, int64_t n_q, int64_t n_kv,
                                    bool causal) {
    selection s = {x->h_q, x->n, calloc((size_t)(x->h_q * x->n), (size_t)x->n), 0};
    prepared p = prepare(ctx, recipe, x, n_q, causal);
    fv_run run = part_run(x, from, n_q, n_kv);
    fv_status status = fv_plan_index(p.plan, &run, p.workspace, p.bytes, take_tile, &s);
    CHECK(status == FV_OK, "%s: %s", recipe, fv_message(ctx));
    prepared_free(&p);
    return s;
}

/* What `recipe` selects of a whole prompt. Free with free(selection.at). */
static inline selection select_all(fv_context *ctx, const char *recipe, const heads *x, bool causal) {
    return select_part(ctx, recipe, x, 0, x->n, x->n, causal);
}

static inline int64_t selected_pairs(const selection *s) {
    int64_t pairs = 0;
    for (int64_t i = 0; i < s->h * s->n * s->n; i++) {
        pairs += s->at[i];
    }
    return pairs;
}

/* The pairs in which two selections differ; the first is printed. */
static inline int64_t selections_differ(const selection *a, const selection *b) {
    int64_t differ = 0;
    for (int64_t i = 0; i < a->h * a->n * a->n; i++) {
        if (a->at[i] != b->at[i] && differ++ == 0) {
            printf("  first at head %lld, row %lld, key %lld: %d and %d\n", (long long)(i / a->n / a->n),
                   (long long)(i / a->n % a->n), (long long)(i % a->n), a->at[i], b->at[i]);
        }
    }
    return differ;
}

typedef struct seen_by {
    const selection *s;
    int64_t head;
} seen_by;

static inline bool selection_sees(const void *arg, int64_t i, int64_t j) {
    const seen_by *v = arg;
    return v->s->at[(v->head * v->s->n + i) * v->s->n + j];
}

/* The run must weigh the selected pairs and no others: pairs, outputs and log-sum-exp against the reference, every `step`-th row.
 * Leaves x->out and x->lse. */
static inline fv_run_stats run_holds_if(fv_context *ctx, const char *recipe, heads *x, const selection *s, int64_t step,
                                        bool causal) {
    prepared p = prepare(ctx, recipe, x, x->n, causal);
    fv_run run = part_run(x, 0, x->n, x->n);
    fv_run_stats stats = {0};
    run.lse = x->lse;
    run.stats = &stats;
    fv_status status = fv_plan_run(p.plan, &run, p.workspace, p.bytes);
    CHECK(status == FV_OK, "%s: %s", recipe, fv_message(ctx));
    prepared_free(&p);
    CHECK((int64_t)stats.exact_pairs == selected_pairs(s), "%s: weighed %llu pairs, selected %lld", recipe,
          (unsigned long long)stats.exact_pairs, (long long)selected_pairs(s));
    double worst = 0, *out = malloc((size_t)x->d * sizeof *out);
    for (int64_t head = 0; head < x->h_q; head++) {
        for (int64_t i = 0; i < x->n; i += step) {
            seen_by arg = {s, head};
            double lse = reference_row(x, head, i, selection_sees, &arg, out);
            if (isinf(lse) || isnan(lse)) { /* nothing visible */
                CHECK(x->lse[head * x->n + i] == -INFINITY, "%s: an empty row has a log-sum-exp", recipe);
                continue;
            }
            worst = fmax(worst, fabs(lse - x->lse[head * x->n + i]));
            for (int64_t c = 0; c < x->d; c++) {
                worst = fmax(worst, fabs(out[c] - x->out[(head * x->n + i) * x->d + c]));
            }
        }
    }
    free(out);
    CHECK(worst < 2e-5, "%s: off by %g", recipe, worst);
    return stats;
}

static inline fv_run_stats run_holds(fv_context *ctx, const char *recipe, heads *x, const selection *s, int64_t step) {
    return run_holds_if(ctx, recipe, x, s, step, true);
}

/* A prompt in chunks of `chunk` rows (the last may be shorter) selects and gives what the whole does, bit for bit. For selectors
 * of the scope of a tile; chunks are multiples of the selector's block unless its index does not look at queries. */
static inline void chunks_hold(fv_context *ctx, const char *recipe, const heads *x, const selection *whole, int64_t chunk) {
    heads copy = *x;
    size_t bytes = (size_t)(x->h_q * x->n * x->d) * sizeof(float);
    copy.out = aligned_alloc(64, (bytes + 63) / 64 * 64);
    for (int64_t from = 0; from < x->n; from += chunk) {
        int64_t n_q = from + chunk < x->n ? chunk : x->n - from;
        selection part = select_part(ctx, recipe, x, from, n_q, from + n_q, true);
        prepared p = prepare(ctx, recipe, x, n_q, true);
        fv_run run = part_run(&copy, from, n_q, from + n_q);
        fv_status status = fv_plan_run(p.plan, &run, p.workspace, p.bytes);
        CHECK(status == FV_OK, "%s: %s", recipe, fv_message(ctx));
        prepared_free(&p);
        for (int64_t head = 0; head < x->h_q; head++) {
            const int64_t at = (head * x->n + from) * x->n;
            CHECK(memcmp(part.at + at, whole->at + at, (size_t)(n_q * x->n)) == 0,
                  "%s: rows %lld.. of head %lld select otherwise in chunks of %lld", recipe, (long long)from, (long long)head,
                  (long long)chunk);
        }
        free(part.at);
    }
    CHECK(memcmp(copy.out, x->out, bytes) == 0, "%s: other bits in chunks of %lld", recipe, (long long)chunk);
    free(copy.out);
}

/* Index-only methods at full budget: dense, bit for bit. */
static inline void dense_holds_if(fv_context *ctx, const char *recipe, heads *x, bool causal) {
    heads_run_if(ctx, "", x, causal);
    size_t bytes = (size_t)(x->h_q * x->n * x->d) * sizeof(float);
    float *dense = malloc(bytes);
    memcpy(dense, x->out, bytes);
    heads_run_if(ctx, recipe, x, causal);
    CHECK(memcmp(dense, x->out, bytes) == 0, "%s differs from dense", recipe);
    free(dense);
}

static inline void dense_holds(fv_context *ctx, const char *recipe, heads *x) { dense_holds_if(ctx, recipe, x, true); }

/* Mass that rows miss: the mean over rows of 1 - exp(lse - lse of dense). */
static inline double missing_mass(fv_context *ctx, const char *recipe, heads *x) {
    size_t bytes = (size_t)(x->h_q * x->n) * sizeof(float);
    float *dense = malloc(bytes);
    heads_run(ctx, "", x);
    memcpy(dense, x->lse, bytes);
    heads_run(ctx, recipe, x);
    double missing = 0;
    for (int64_t i = 0; i < x->h_q * x->n; i++) {
        missing += 1 - exp((double)x->lse[i] - dense[i]);
    }
    free(dense);
    return missing / (double)(x->h_q * x->n);
}

#endif
