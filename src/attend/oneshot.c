/* oneshot.c - attention in one call. */
#include "base/base.h"

fv_status fv_attention(fv_context *ctx, const fv_tensor *q, const fv_tensor *k, const fv_tensor *v, bool causal,
                       const fv_tensor *out, float *lse) {
    fv_problem p = fv_problem_default();
    p.b = q->shape[0];
    p.h_q = q->shape[1];
    p.h_kv = k->shape[1];
    p.n_q = q->shape[2];
    p.n_kv = k->shape[2];
    p.d_k = q->shape[3];
    p.d_v = v->shape[3];
    p.out_dtype = out->dtype;
    p.causal = causal;
    fv_plan *plan;
    fv_status status = fv_plan_create(ctx, &p, &plan);
    if (status != FV_OK) {
        return status;
    }
    size_t bytes = fv_plan_workspace(plan);
    void *workspace = fvi_alloc(ctx, bytes, 1);
    if (workspace == NULL) {
        status = fvi_fail(ctx, FV_ERR_MEMORY, "no memory for a workspace of %zu bytes", bytes);
    } else {
        fv_run run = {.q = *q, .k = *k, .v = *v, .out = *out, .lse = lse};
        status = fv_plan_run(plan, &run, workspace, bytes);
        fvi_release(ctx, workspace, bytes, 1);
    }
    fv_plan_destroy(plan);
    return status;
}
