/* test_heads.c - groups of query heads over shared K and V heads (gqa, mqa): the same bits as the expanded heads, a whole prompt
 * at once or token by token over a cache, whose bytes, and the bytes read of it, shrink with the KV heads. Shazeer 2019: of one
 * write head, 1/h of both. */
#include "method_test.h"

/* The same heads with K and V repeated for each query head: multi-head attention. */
static heads expand(const heads *x) {
    heads all = heads_make(1, x->h_q, x->h_q, x->n, x->d);
    size_t bytes = (size_t)(x->n * x->d) * sizeof(float);
    memcpy(all.q, x->q, bytes * (size_t)x->h_q);
    for (int64_t h = 0; h < x->h_q; h++) {
        int64_t shared = h / (x->h_q / x->h_kv);
        memcpy(all.k + h * x->n * x->d, x->k + shared * x->n * x->d, bytes);
        memcpy(all.v + h * x->n * x->d, x->v + shared * x->n * x->d, bytes);
    }
    return all;
}

static bool sees_past(const void *arg, int64_t i, int64_t j) {
    (void)arg;
    return j <= i;
}

/* Row i (heads, 1 row, d) of (heads, n, d). */
static fv_tensor row(const float *x, int64_t h, int64_t n, int64_t d, int64_t i) {
    fv_tensor t = fv_tensor_view(x + i * d, FV_F32, 1, h, n, d);
    t.shape[2] = 1;
    return t;
}

/* Token by token over a cache; returns its bytes, and rows of K and V read. The outputs go to x->out. */
static size_t run_steps(fv_context *ctx, heads *x, uint64_t *rows) {
    fv_cache_desc desc = {.layers = 1, .h_kv = x->h_kv, .d_k = x->d, .d_v = x->d, .k_dtype = FV_F32, .v_dtype = FV_F32};
    fv_cache *cache = NULL;
    CHECK(fv_cache_create(ctx, &desc, &cache) == FV_OK, "%s", fv_message(ctx));
    fv_problem p = fv_problem_default();
    p.h_q = x->h_q;
    p.h_kv = x->h_kv;
    p.n_q = 1;
    p.n_kv = x->n;
    p.d_k = p.d_v = x->d;
    p.causal = true;
    p.phase = FV_DECODE;
    fv_plan *plan = NULL;
    CHECK(fv_plan_create(ctx, &p, &plan) == FV_OK, "%s", fv_message(ctx));
    size_t bytes = fv_plan_workspace(plan);
    void *workspace = aligned_alloc(64, (bytes + 63) / 64 * 64);
    for (int64_t i = 0; i < x->n; i++) {
        fv_tensor k = row(x->k, x->h_kv, x->n, x->d, i), v = row(x->v, x->h_kv, x->n, x->d, i);
        CHECK(fv_cache_append(cache, 0, &k, &v) == FV_OK, "%s", fv_message(ctx));
        fv_run_stats stats = {0};
        fv_run run = {
            .q = row(x->q, x->h_q, x->n, x->d, i), .out = row(x->out, x->h_q, x->n, x->d, i), .cache = cache, .stats = &stats};
        CHECK(fv_plan_run(plan, &run, workspace, bytes) == FV_OK, "%s", fv_message(ctx));
        *rows += stats.k_rows + stats.v_rows;
    }
    bytes = fv_cache_bytes(cache);
    free(workspace);
    fv_plan_destroy(plan);
    fv_cache_destroy(cache);
    return bytes;
}

static void holds(fv_context *ctx, int64_t h_q, int64_t h_kv) {
    heads x = heads_make((uint64_t)(h_q * 10 + h_kv), h_q, h_kv, 150, 48);
    heads all = expand(&x);
    size_t bytes = (size_t)(h_q * x.n * x.d) * sizeof(float);
    heads_run(ctx, "", &x);
    heads_run(ctx, "", &all);
    CHECK(memcmp(x.out, all.out, bytes) == 0, "%d over %d heads: not the bits of repeated K and V", (int)h_q, (int)h_kv);
    double worst = worst_row(&x, sees_past, NULL, 1);
    CHECK(worst < 2e-5, "%d over %d heads: off by %g", (int)h_q, (int)h_kv, worst);
    uint64_t read = 0, read_expanded = 0;
    size_t shared = run_steps(ctx, &x, &read), expanded = run_steps(ctx, &all, &read_expanded);
    CHECK(memcmp(x.out, all.out, bytes) == 0, "%d over %d heads: steps have not the bits of repeated K and V", (int)h_q,
          (int)h_kv);
    worst = worst_row(&x, sees_past, NULL, 1);
    CHECK(worst < 2e-5, "%d over %d heads: steps are off by %g", (int)h_q, (int)h_kv, worst);
    double ratio = (double)shared / (double)expanded, want = (double)h_kv / (double)h_q;
    CHECK(fabs(ratio - want) < 0.02, "%d over %d heads: the cache has %.3f of the bytes, not %.3f", (int)h_q, (int)h_kv, ratio,
          want);
    uint64_t rows = (uint64_t)(x.n * (x.n + 1)); /* of K and V, by one head, over all steps */
    CHECK(read == rows * (uint64_t)h_kv && read_expanded == rows * (uint64_t)h_q,
          "%d over %d heads: %llu rows read, expanded %llu", (int)h_q, (int)h_kv, (unsigned long long)read,
          (unsigned long long)read_expanded);
    if (h_kv == 1) {
        printf("mqa: %d heads over 1: cache %zu bytes for %zu, %llu rows read for %llu\n", (int)h_q, shared, expanded,
               (unsigned long long)read, (unsigned long long)read_expanded);
    }
    heads_free(&x);
    heads_free(&all);
}

int main(void) {
    fv_context *ctx;
    if (fv_context_create(NULL, &ctx) != FV_OK) {
        return 1;
    }
    holds(ctx, 8, 1);
    holds(ctx, 8, 2);
    holds(ctx, 6, 3);
    holds(ctx, 5, 5);
    holds(ctx, 71, 1);
    fv_context_destroy(ctx);
    printf("%d failures\n", failures);
    return failures > 0;
}
