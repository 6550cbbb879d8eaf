/* gali.c - GALI on arrays (src/select/gali.c has the method): rotates Q and K as a model would, then plans and runs. */
#include "select/gali.h"
#include "attend/plan.h"
#include "fovea/experimental.h"
#include "op/op.h"

#include <math.h>
#include <string.h>

fv_status fv_gali_positions(fv_context *ctx, int64_t trained, int64_t local, int64_t n, double *position) {
    if (trained < 1 || local < 0 || local >= trained || n < 0) {
        return fvi_fail(ctx, FV_ERR_ARGUMENT, "GALI: %lld keys, %lld positions trained, %lld of them local: local has to be less",
                        (long long)n, (long long)trained, (long long)local);
    }
    const fvi_gali_spread s = fvi_gali_spread_of(trained, local, n);
    for (int64_t j = 0; j < n; j++) {
        double part = j < s.early ? (double)(j % s.steps) / (double)s.steps : 0;
        position[j] = (double)fvi_gali_floor(&s, j) + part;
    }
    return FV_OK;
}

static fv_status check(fv_context *ctx, const fv_gali *g) {
    if (g->h_q < 1 || g->h_kv < 1 || g->h_q % g->h_kv != 0 || g->n < 0 || g->n > 1 << 24) {
        return fvi_fail(ctx, FV_ERR_ARGUMENT,
                        "GALI: %lld query heads over %lld KV heads, %lld rows: heads have to divide, rows be up to "
                        "2^24",
                        (long long)g->h_q, (long long)g->h_kv, (long long)g->n);
    }
    if (g->d_k < 2 || g->d_k > 256 || g->d_k % 2 != 0 || g->d_v < 1 || g->d_v > 256) {
        return fvi_fail(ctx, FV_ERR_ARGUMENT, "GALI: d_k = %lld has to be even, 2 to 256, d_v = %lld from 1 to 256",
                        (long long)g->d_k, (long long)g->d_v);
    }
    if (g->trained < 1 || g->trained > 1 << 20 || g->local < 0 || g->local >= g->trained || g->chunk < 1) {
        return fvi_fail(ctx, FV_ERR_ARGUMENT,
                        "GALI: %lld positions trained, %lld local, chunks of %lld: local has to be less than "
                        "trained, trained up to 2^20, a chunk 1 at least",
                        (long long)g->trained, (long long)g->local, (long long)g->chunk);
    }
    if (!(g->rope_base > 0) || !(g->noise >= 0) || !(g->scale >= 0) || g->seed > UINT64_C(1) << 53) {
        return fvi_fail(ctx, FV_ERR_ARGUMENT,
                        "GALI: rope_base = %g has to be positive, noise = %g and scale = %g not negative, the seed up to 2^53",
                        g->rope_base, g->noise, (double)g->scale);
    }
    return FV_OK;
}

/* What a call allocates. */
typedef struct arrays {
    float *q, *k, *angles; /* (h_q, n, d), (h_kv, n, d), (n, d) */
    double *frequency;     /* (d / 2) */
    void *workspace;
    size_t q_n, k_n, angles_n, workspace_bytes;
    fv_plan *plan;
} arrays;

/* x (h, n, d) to `out`, row i of each head turned by position i. */
static void rotate(const fv_gali *g, const fvi_rowop_ops *ops, const arrays *a, int64_t h, const float *x, float *out) {
    const int64_t size = g->n * g->d_k;
    memcpy(out, x, (size_t)(h * size) * sizeof(float));
    for (int64_t i = 0; i < h; i++) {
        fvi_rope(ops, g->n, 1, g->d_k, g->d_k, g->interleaved, a->angles, out + i * size);
    }
}

static fv_status allocate(fv_context *ctx, const fv_gali *g, arrays *a) {
    a->q_n = (size_t)(g->h_q * g->n * g->d_k);
    a->k_n = (size_t)(g->h_kv * g->n * g->d_k);
    a->angles_n = (size_t)(g->n * g->d_k);
    a->q = fvi_alloc(ctx, a->q_n, sizeof(float));
    a->k = fvi_alloc(ctx, a->k_n, sizeof(float));
    a->angles = fvi_alloc(ctx, a->angles_n, sizeof(float));
    a->frequency = fvi_alloc(ctx, (size_t)(g->d_k / 2), sizeof(double));
    bool all = a->q != NULL && a->k != NULL && a->angles != NULL && a->frequency != NULL;
    return all ? FV_OK : fvi_fail(ctx, FV_ERR_MEMORY, "GALI: no memory for %lld positions", (long long)g->n);
}

static fv_status make_plan(fv_context *ctx, const fv_gali *g, arrays *a) {
    for (int64_t j = 0; j < g->d_k / 2; j++) {
        a->frequency[j] = pow(g->rope_base, -2.0 * (double)j / (double)g->d_k);
    }
    fv_recipe recipe = {.ctx = ctx};
    recipe.choice[FV_PREFILL] =
        (fvi_choice){.selector = &fvi_select_gali,
                     .value = {(double)g->trained, (double)g->local, (double)g->chunk, g->noise, (double)g->seed}};
    fv_problem p = fv_problem_default();
    p.h_q = g->h_q;
    p.h_kv = g->h_kv;
    p.n_q = p.n_kv = g->n;
    p.d_k = g->d_k;
    p.d_v = g->d_v;
    p.scale = g->scale;
    p.causal = true;
    p.rope = (fv_rope){.width = g->d_k, .interleaved = g->interleaved, .frequency = a->frequency};
    p.recipe = &recipe; /* a plan copies what it takes of it */
    fv_status status = fv_plan_create(ctx, &p, &a->plan);
    if (status == FV_OK) {
        a->workspace_bytes = fv_plan_workspace(a->plan);
        a->workspace = fvi_alloc(ctx, a->workspace_bytes, 1);
        status = a->workspace != NULL ? FV_OK : fvi_fail(ctx, FV_ERR_MEMORY, "GALI: no memory for a workspace");
    }
    return status;
}

fv_status fv_gali_attention(fv_context *ctx, const fv_gali *g, const float *q, const float *k, const float *v, float *out,
                            float *lse) {
    arrays a = {0};
    fv_status status = check(ctx, g);
    if (status != FV_OK || g->n == 0) {
        return status;
    }
    status = allocate(ctx, g, &a);
    if (status == FV_OK) {
        status = make_plan(ctx, g, &a);
    }
    if (status == FV_OK) {
        fvi_rope_table(0, g->n, g->d_k, g->rope_base, 1, a.angles);
        rotate(g, &a.plan->rowop, &a, g->h_q, q, a.q);
        rotate(g, &a.plan->rowop, &a, g->h_kv, k, a.k);
        const fv_run run = {.q = fv_tensor_view(a.q, FV_F32, 1, g->h_q, g->n, g->d_k),
                            .k = fv_tensor_view(a.k, FV_F32, 1, g->h_kv, g->n, g->d_k),
                            .v = fv_tensor_view((void *)(uintptr_t)v, FV_F32, 1, g->h_kv, g->n, g->d_v),
                            .out = fv_tensor_view(out, FV_F32, 1, g->h_q, g->n, g->d_v),
                            .lse = lse};
        status = fv_plan_run(a.plan, &run, a.workspace, a.workspace_bytes);
    }
    fv_plan_destroy(a.plan);
    fvi_release(ctx, a.workspace, a.workspace_bytes, 1);
    fvi_release(ctx, a.frequency, (size_t)(g->d_k / 2), sizeof(double));
    fvi_release(ctx, a.angles, a.angles_n, sizeof(float));
    fvi_release(ctx, a.k, a.k_n, sizeof(float));
    fvi_release(ctx, a.q, a.q_n, sizeof(float));
    return status;
}
