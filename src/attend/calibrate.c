/* calibrate.c - shows the heads of whole prompts to a method that finds something offline. */
#include "select/calibrate.h"

#include "attend/job.h"
#include "attend/look.h"
#include "base/threads.h"

struct fv_calibration {
    fv_context *ctx;
    const fv_recipe *recipe;
    fv_calibration_options options;
    fvi_calibrate_facts facts;
    const fvi_calibration *kind;
    fv_plan *plan; /* dense: it says how heads are read */
    void *workspace;
    size_t workspace_bytes, head_bytes, scratch_bytes;
    uint8_t *memory;  /* (layers, h_q) of head_bytes */
    uint8_t *scratch; /* (threads) of scratch_bytes */
};

static fv_status check(fv_context *ctx, const fvi_choice *choice, const char *name, const fvi_calibrate_facts *facts,
                       const fv_calibration_options *o) {
    if (choice->selector->calibration == NULL) {
        return fvi_fail(ctx, FV_ERR_UNSUPPORTED, "%s finds nothing offline: it needs no profile", name);
    }
    if (o->layers < 1 || o->tokens < 1 || o->prompts < 1 || !(o->budget >= 0 && o->budget <= 1)) {
        return fvi_fail(
            ctx, FV_ERR_ARGUMENT,
            "a calibration of %d layers, %lld prompts of %lld tokens, budget %g: the first three must be at least 1, and "
            "the budget a share from 0 to 1",
            o->layers, (long long)o->prompts, (long long)o->tokens, o->budget);
    }
    const fvi_calibration *kind = choice->selector->calibration;
    const char *reason = kind->refuse == NULL ? NULL : kind->refuse(facts);
    return reason == NULL ? FV_OK : fvi_fail(ctx, FV_ERR_UNSUPPORTED, "%s: %s", name, reason);
}

static fv_status make_plan(fv_calibration *c) {
    const fv_calibration_options *o = &c->options;
    fv_problem p = fv_problem_default();
    p.h_q = o->h_q;
    p.h_kv = o->h_kv;
    p.d_k = o->d_k;
    p.d_v = o->d_v;
    p.n_q = p.n_kv = o->tokens;
    p.causal = true;
    fv_status status = fv_plan_create(c->ctx, &p, &c->plan);
    if (status == FV_OK) {
        c->workspace_bytes = fv_plan_workspace(c->plan);
        c->workspace = fvi_alloc(c->ctx, c->workspace_bytes, 1);
    }
    return status;
}

static fv_status allocate(fv_calibration *c) {
    const size_t heads = (size_t)c->options.layers * (size_t)c->options.h_q;
    c->head_bytes = (c->kind->memory_bytes(&c->facts) + 63) & ~(size_t)63;
    c->scratch_bytes = c->kind->scratch_bytes == NULL ? 64 : (c->kind->scratch_bytes(&c->facts) + 63) & ~(size_t)63;
    c->memory = fvi_zalloc(c->ctx, heads, c->head_bytes);
    c->scratch = fvi_alloc(c->ctx, (size_t)fv_threads(c->ctx), c->scratch_bytes);
    if (c->memory == NULL || c->scratch == NULL || c->workspace == NULL) {
        return fvi_fail(c->ctx, FV_ERR_MEMORY, "no memory for a calibration (%zu heads of %zu bytes)", heads, c->head_bytes);
    }
    return FV_OK;
}

fv_status fv_calibration_create(fv_context *ctx, const fv_recipe *recipe, const fv_calibration_options *options,
                                fv_calibration **out) {
    *out = NULL;
    const fvi_choice *choice = &recipe->choice[FV_PREFILL];
    const fv_calibration_options *o = options;
    const fvi_extent extent = {o->tokens, o->tokens, o->h_q, o->h_kv, o->d_k, o->d_v, true, false, 0};
    const fvi_calibrate_facts facts = {choice->value, extent, o->prompts, o->budget};
    fv_status status = check(ctx, choice, recipe->method[FV_PREFILL], &facts, o);
    if (status != FV_OK) {
        return status;
    }
    fv_calibration *c = *out = fvi_zalloc(ctx, 1, sizeof *c);
    if (c == NULL) {
        return fvi_fail(ctx, FV_ERR_MEMORY, "no memory for a calibration");
    }
    *c = (fv_calibration){.ctx = ctx, .recipe = recipe, .options = *o, .facts = facts, .kind = choice->selector->calibration};
    status = make_plan(c);
    if (status == FV_OK) {
        status = allocate(c);
    }
    if (status != FV_OK) {
        fv_calibration_destroy(c);
        *out = NULL;
    }
    return status;
}

void fv_calibration_destroy(fv_calibration *c) {
    if (c == NULL) {
        return;
    }
    fv_plan_destroy(c->plan);
    fvi_release(c->ctx, c->workspace, c->workspace_bytes, 1);
    fvi_release(c->ctx, c->memory, (size_t)c->options.layers * (size_t)c->options.h_q, c->head_bytes);
    fvi_release(c->ctx, c->scratch, (size_t)fv_threads(c->ctx), c->scratch_bytes);
    fvi_release(c->ctx, c, 1, sizeof *c);
}

typedef struct looking {
    fv_calibration *c;
    const fv_run *run;
} looking;

static void look_at_head(void *arg, int64_t head, int worker) {
    const looking *l = arg;
    fv_calibration *c = l->c;
    fvi_item item = fvi_sequence_item(c->plan, l->run, 0);
    item.head0 = head;
    item.kv_head = head / c->plan->group;
    fvi_scratch scratch;
    fvi_scratch_cut(c->plan, l->run, c->workspace, worker, &scratch);
    fvi_looker looker;
    const fvi_sight sight = fvi_looker_open(&looker, c->plan, l->run, &item, &scratch);
    const fvi_select select = {.value = c->facts.value, .sight = &sight};
    void *memory = c->memory + (size_t)(l->run->layer * c->options.h_q + head) * c->head_bytes;
    c->kind->add(&c->facts, &select, memory, c->scratch + (size_t)worker * c->scratch_bytes);
}

fv_status fv_calibration_add(fv_calibration *c, const fv_run *run) {
    fv_status status = fvi_check_run(c->plan, run, c->workspace, c->workspace_bytes);
    if (status != FV_OK) {
        return status;
    }
    if (run->q.shape[2] != fvi_keys_of(run) || run->layer < 0 || run->layer >= c->options.layers) {
        return fvi_fail(c->ctx, FV_ERR_ARGUMENT,
                        "%lld queries over %lld keys in layer %d: a calibration takes whole prompts of its %d "
                        "layers",
                        (long long)run->q.shape[2], (long long)fvi_keys_of(run), run->layer, c->options.layers);
    }
    looking l = {c, run};
    fvi_parallel(c->ctx, c->options.h_q, look_at_head, &l);
    return fvi_cancelled(c->ctx) ? fvi_fail(c->ctx, FV_ERR_CANCELLED, "cancelled") : FV_OK;
}

fv_status fv_calibration_find(fv_calibration *c, fv_profile **out) {
    const int64_t most = c->kind->most(&c->facts);
    double *number = fvi_alloc(c->ctx, (size_t)most, sizeof *number);
    fv_status status = number == NULL ? fvi_fail(c->ctx, FV_ERR_MEMORY, "no memory for %lld numbers", (long long)most) : FV_OK;
    if (status == FV_OK) {
        status = fv_profile_create(c->ctx, c->recipe->method[FV_PREFILL], c->options.layers, c->options.h_q, out);
    }
    for (int layer = 0; status == FV_OK && layer < c->options.layers; layer++) {
        for (int64_t head = 0; status == FV_OK && head < c->options.h_q; head++) {
            void *memory = c->memory + (size_t)(layer * c->options.h_q + head) * c->head_bytes;
            int64_t n = c->kind->find(&c->facts, memory, c->scratch, number);
            status = n > 0 ? fv_profile_set(*out, layer, head, number, n) : FV_OK;
        }
    }
    fvi_release(c->ctx, number, (size_t)most, sizeof *number);
    if (status != FV_OK) {
        fv_profile_destroy(*out);
        *out = NULL;
    }
    return status;
}
