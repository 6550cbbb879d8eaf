/* check.c - whether a run's operands are what its plan was made for. */
#include "attend/job.h"

static fv_status check_tensor(fv_context *ctx, const char *name, const fv_tensor *t, int64_t b, int64_t h, int64_t d) {
    if (t->rank != 4 || t->shape[0] != b || t->shape[1] != h || t->shape[3] != d || t->shape[2] < 0) {
        return fvi_fail(ctx, FV_ERR_ARGUMENT,
                        "%s has shape (%lld, %lld, %lld, %lld) and rank %d; the plan wants (%lld, %lld, n, %lld)", name,
                        (long long)t->shape[0], (long long)t->shape[1], (long long)t->shape[2], (long long)t->shape[3], t->rank,
                        (long long)b, (long long)h, (long long)d);
    }
    if (t->dtype != FV_F32 && t->dtype != FV_F16 && t->dtype != FV_BF16) {
        return fvi_fail(ctx, FV_ERR_ARGUMENT, "%s is %s; it must be f32, f16 or bf16", name, fv_dtype_name(t->dtype));
    }
    if (t->data == NULL && t->shape[0] * t->shape[2] > 0) {
        return fvi_fail(ctx, FV_ERR_ARGUMENT, "%s has no data", name);
    }
    return FV_OK;
}

/* What a method keeps from step to step; methods without steps do not look at them. */
static fv_status check_state(const fv_plan *plan, const fv_run *run) {
    if (!plan->choice.selector->steps) {
        return FV_OK;
    }
    if (run->step < 0) {
        return fvi_fail(plan->ctx, FV_ERR_ARGUMENT, "step is %lld; it counts from 0", (long long)run->step);
    }
    if (run->state == NULL || (uintptr_t)run->state % 64 != 0 || run->state_bytes < plan->at.state_bytes) {
        return fvi_fail(plan->ctx, FV_ERR_ARGUMENT,
                        "the method keeps its choice from step to step: state has %zu bytes at %p; it needs %zu, 64-byte aligned",
                        run->state_bytes, run->state, plan->at.state_bytes);
    }
    return FV_OK;
}

static fv_status check_extras(fv_context *ctx, const fv_problem *p, const fv_run *run) {
    const struct {
        bool asked, given;
        const char *name;
    } extra[] = {{p->has_alibi, run->alibi_slopes != NULL, "alibi_slopes"},
                 {p->has_sink_logits, run->sink_logits != NULL, "sink_logits"},
                 {p->has_key_mask, run->key_mask != NULL, "key_mask"},
                 {p->has_bias, run->bias.data != NULL, "bias"},
                 {p->packed, run->q_start != NULL && run->k_start != NULL, "q_start and k_start"}};
    for (size_t i = 0; i < sizeof extra / sizeof *extra; i++) {
        if (extra[i].asked != extra[i].given) {
            return fvi_fail(ctx, FV_ERR_ARGUMENT, "the plan was made %s %s, the run comes %s",
                            extra[i].asked ? "with" : "without", extra[i].name, extra[i].given ? "with it" : "without");
        }
    }
    if (p->packed && run->kv_length != NULL) {
        return fvi_fail(ctx, FV_ERR_ARGUMENT, "kv_length does not go with packed sequences: k_start has the lengths");
    }
    return FV_OK;
}

static fv_status check_bias(fv_context *ctx, const fv_problem *p, const fv_run *run, int64_t n_kv) {
    const fv_tensor *b = &run->bias;
    if (p->has_bias && (b->rank != 4 || b->dtype != FV_F32 || b->shape[0] != p->b || b->shape[1] != p->h_q ||
                        b->shape[2] != run->q.shape[2] || b->shape[3] != n_kv)) {
        return fvi_fail(ctx, FV_ERR_ARGUMENT,
                        "bias must be f32 of shape (%lld, %lld, %lld, %lld); repeat a dimension by a stride of 0",
                        (long long)p->b, (long long)p->h_q, (long long)run->q.shape[2], (long long)n_kv);
    }
    return FV_OK;
}

static fv_status check_cache(fv_context *ctx, const fv_problem *p, const fv_run *run) {
    const fv_cache_desc *c = &run->cache->desc;
    if (c->h_kv != p->h_kv || c->d_k != p->d_k || c->d_v != p->d_v || p->b != 1 || p->packed) {
        return fvi_fail(
            ctx, FV_ERR_ARGUMENT,
            "the cache has %lld KV heads of widths %lld and %lld, the plan %lld of %lld and %lld and b = %lld (1 is needed)",
            (long long)c->h_kv, (long long)c->d_k, (long long)c->d_v, (long long)p->h_kv, (long long)p->d_k, (long long)p->d_v,
            (long long)p->b);
    }
    if (run->layer < 0 || run->layer >= c->layers) {
        return fvi_fail(ctx, FV_ERR_ARGUMENT, "layer is %d; the cache has layers 0 to %d", run->layer, c->layers - 1);
    }
    if (p->has_key_mask || run->kv_length != NULL) {
        return fvi_fail(ctx, FV_ERR_UNSUPPORTED, "key_mask and kv_length go with tensors, not with a cache");
    }
    return FV_OK;
}

static fv_status check_starts(fv_context *ctx, const char *name, const int32_t *start, int64_t b, int64_t rows, int64_t most) {
    for (int64_t s = 0; s < b; s++) {
        if (start[0] != 0 || start[s + 1] < start[s] || start[s + 1] > rows || start[s + 1] - start[s] > most) {
            return fvi_fail(
                ctx, FV_ERR_ARGUMENT,
                "%s[%lld..%lld] is %d..%d; starts begin at 0, ascend, end within %lld rows and cut sequences of at most %lld",
                name, (long long)s, (long long)s + 1, start[s], start[s + 1], (long long)rows, (long long)most);
        }
    }
    return FV_OK;
}

static fv_status check_lengths(fv_context *ctx, const fv_problem *p, const fv_run *run, int64_t n_kv) {
    if (p->packed) {
        fv_status status = check_starts(ctx, "q_start", run->q_start, p->b, run->q.shape[2], p->n_q);
        return status != FV_OK ? status : check_starts(ctx, "k_start", run->k_start, p->b, n_kv, p->n_kv);
    }
    if (run->q.shape[2] > p->n_q || n_kv > p->n_kv) {
        return fvi_fail(ctx, FV_ERR_RANGE, "the run has %lld queries and %lld keys; the plan was made for at most %lld and %lld",
                        (long long)run->q.shape[2], (long long)n_kv, (long long)p->n_q, (long long)p->n_kv);
    }
    for (int64_t s = 0; run->kv_length != NULL && s < p->b; s++) {
        if (run->kv_length[s] < 0 || run->kv_length[s] > n_kv) {
            return fvi_fail(ctx, FV_ERR_ARGUMENT, "kv_length[%lld] is %d; it must be from 0 to %lld", (long long)s,
                            run->kv_length[s], (long long)n_kv);
        }
    }
    return FV_OK;
}

fv_status fvi_check_run(const fv_plan *plan, const fv_run *run, const void *workspace, size_t bytes) {
    fv_context *ctx = plan->ctx;
    const fv_problem *p = &plan->problem;
    if (bytes < plan->at.bytes || workspace == NULL || (uintptr_t)workspace % 64 != 0) {
        return fvi_fail(ctx, FV_ERR_ARGUMENT, "the workspace has %zu bytes at %p; the plan needs %zu bytes, 64-byte aligned",
                        bytes, workspace, plan->at.bytes);
    }
    int64_t b = p->packed ? 1 : p->b;
    fv_status status = check_tensor(ctx, "q", &run->q, b, p->h_q, p->d_k);
    if (status == FV_OK) {
        status = check_tensor(ctx, "out", &run->out, b, p->h_q, p->d_v);
    }
    if (status == FV_OK && (run->out.dtype != p->out_dtype || run->out.shape[2] != run->q.shape[2])) {
        return fvi_fail(ctx, FV_ERR_ARGUMENT, "out is %s with %lld rows; it must be %s with q's %lld",
                        fv_dtype_name(run->out.dtype), (long long)run->out.shape[2], fv_dtype_name(p->out_dtype),
                        (long long)run->q.shape[2]);
    }
    if (status == FV_OK && run->cache != NULL) {
        status = check_cache(ctx, p, run);
    }
    if (status == FV_OK && run->cache == NULL) {
        status = check_tensor(ctx, "k", &run->k, b, p->h_kv, p->d_k);
    }
    if (status == FV_OK && run->cache == NULL) {
        status = check_tensor(ctx, "v", &run->v, b, p->h_kv, p->d_v);
    }
    if (status == FV_OK && run->cache == NULL && run->v.shape[2] != run->k.shape[2]) {
        return fvi_fail(ctx, FV_ERR_ARGUMENT, "k has %lld rows and v %lld; they must be equal", (long long)run->k.shape[2],
                        (long long)run->v.shape[2]);
    }
    if (status == FV_OK) {
        status = check_extras(ctx, p, run);
    }
    if (status == FV_OK) {
        status = check_state(plan, run);
    }
    if (status == FV_OK) {
        status = check_lengths(ctx, p, run, fvi_keys_of(run));
    }
    return status == FV_OK ? check_bias(ctx, p, run, fvi_keys_of(run)) : status;
}
