/* session.c - what a session is: its options, plans, cache and scratch, and its tokens so far. session_run.c makes it move. */
#include "model/session.h"

#include <stdio.h>
#include <string.h>

fv_session_options fv_session_options_default(void) {
    return (fv_session_options){.recipe = "", .kv_dtype = FV_AUTO, .chunk = 512};
}

/* ---- creation ---- */

static fv_status resolve(fv_model *model, const fv_session_options *given, fv_session_options *o) {
    fv_context *ctx = model->ctx;
    const int64_t trained = model->facts.context;
    *o = given != NULL ? *given : fv_session_options_default();
    o->recipe = o->recipe != NULL ? o->recipe : "";
    o->context = o->context != 0 ? o->context : trained;
    o->chunk = o->chunk != 0 ? o->chunk : 512;
    if (o->kv_dtype == FV_AUTO) {
        o->kv_dtype = ctx->cpu.avx512_bf16 ? FV_BF16 : FV_F16;
    }
    if (o->kv_dtype < FV_F32 || o->kv_dtype > FV_Q4_0) {
        return fvi_fail(ctx, FV_ERR_ARGUMENT, "kv_dtype is %s; a cache holds f32, f16, bf16, q8_0 or q4_0",
                        fv_dtype_name(o->kv_dtype));
    }
    if (o->chunk < 1 || o->chunk > 1024) {
        return fvi_fail(ctx, FV_ERR_ARGUMENT, "chunk is %lld; it goes from 1 to 1024", (long long)o->chunk);
    }
    if (o->context < 1 || o->context > (int64_t)1 << 30) {
        return fvi_fail(ctx, FV_ERR_ARGUMENT, "context is %lld; it goes from 1 to 2^30", (long long)o->context);
    }
    if (o->context > trained && !o->beyond_trained) {
        return fvi_fail(ctx, FV_ERR_RANGE, "context is %lld tokens, the model was trained to %lld", (long long)o->context,
                        (long long)trained);
    }
    return FV_OK;
}

/* Rows that attention takes at once: a chunk, of whole grains, or the whole prompt. */
static int64_t rows_at_once(const fv_session *s) {
    const int64_t context = s->options.context;
    return s->grain == INT64_MAX ? context : fvi_min(fvi_max(s->options.chunk, s->grain), context);
}

static fv_status make_plans(fv_session *s) {
    const fv_model_facts *f = &s->model->facts;
    fv_status status = FV_OK;
    for (int phase = FV_PREFILL; phase <= FV_DECODE && status == FV_OK; phase++) {
        fv_problem p = fv_problem_default();
        p.b = 1;
        p.h_q = f->h_q;
        p.h_kv = f->h_kv;
        p.n_q = phase == FV_PREFILL ? rows_at_once(s) : 1;
        p.n_kv = s->options.context;
        p.d_k = f->d_k;
        p.d_v = f->d_v;
        p.causal = true;
        p.rope = s->model->rope;
        p.recipe = s->recipe;
        p.phase = (fv_phase)phase;
        p.max_error = phase == FV_PREFILL ? s->options.max_error : 0;
        status = fv_plan_create(s->ctx, &p, &s->plan[phase]);
    }
    return status;
}

/* Lays the block out from `base`, or only measures it (NULL). */
static size_t lay_out(fv_session *s, char *base) {
    const fv_model_facts *f = &s->model->facts;
    const int64_t chunk = fvi_min(s->options.chunk, s->options.context);
    const int64_t rows = s->grain == INT64_MAX ? chunk : rows_at_once(s);
    s->scratch = (fvi_pass){.rows = rows, .narrow = rows};
    size_t used = (size_t)fvi_round_up((int64_t)s->model->arch->scratch(s->model, base, &s->scratch), 64);
    const struct {
        void **to;
        size_t bytes;
    } part[] = {{&s->workspace, s->workspace_bytes},
                {(void **)&s->hidden, (size_t)f->d_model * sizeof(float)},
                {(void **)&s->kept, (size_t)f->d_model * sizeof(float)},
                {(void **)&s->logits, (size_t)f->n_vocab * sizeof(float)},
                {(void **)&s->spare, (size_t)f->n_vocab * sizeof(float)}};
    for (size_t i = 0; i < sizeof part / sizeof *part; i++) {
        *part[i].to = base != NULL ? base + used : NULL;
        used += (size_t)fvi_round_up((int64_t)part[i].bytes, 64);
    }
    return used;
}

static fv_status allocate_block(fv_session *s) {
    for (int phase = FV_PREFILL; phase <= FV_DECODE; phase++) {
        size_t bytes = fv_plan_workspace(s->plan[phase]);
        s->workspace_bytes = bytes > s->workspace_bytes ? bytes : s->workspace_bytes;
    }
    s->state_bytes = (fv_plan_state(s->plan[FV_DECODE]) + 63) & ~(size_t)63;
    if (s->state_bytes > 0) {
        s->state = fvi_alloc(s->ctx, (size_t)s->model->facts.layers, s->state_bytes);
        if (s->state == NULL) {
            return fvi_fail(s->ctx, FV_ERR_MEMORY, "no memory for what a method keeps from token to token");
        }
    }
    s->block_bytes = lay_out(s, NULL);
    s->block = fvi_alloc(s->ctx, s->block_bytes, 1);
    if (s->block == NULL) {
        return fvi_fail(s->ctx, FV_ERR_MEMORY, "no memory for a session's scratch of %zu bytes", s->block_bytes);
    }
    lay_out(s, s->block);
    return FV_OK;
}

static fv_cache_desc describe_cache(const fv_session *s) {
    const fv_model_facts *f = &s->model->facts;
    fv_cache_desc desc = {.layers = f->layers,
                          .h_kv = f->h_kv,
                          .d_k = f->d_k,
                          .d_v = f->d_v,
                          .k_dtype = s->options.kv_dtype,
                          .v_dtype = s->options.kv_dtype};
    fv_recipe_kv(s->recipe, &desc);
    return desc;
}

/* Whether the whole context's cache can ever fit. */
static fv_status check_memory(const fv_session *s) {
    const fv_cache_desc d = describe_cache(s);
    size_t bytes = fv_cache_page_bytes(&d, s->options.context);
    bytes = bytes < SIZE_MAX / 2 ? bytes : SIZE_MAX / 2;
    char what[64];
    snprintf(what, sizeof what, "a cache for a context of %lld tokens", (long long)s->options.context);
    return fvi_model_fits(s->model, bytes, what);
}

static fv_status check_profile(fv_session *s, fv_phase phase) {
    const fv_profile *p = fv_recipe_profile(s->recipe, phase);
    const fv_model_facts *f = &s->model->facts;
    const char *path = fv_recipe_profile_path(s->recipe, phase), *name = path != NULL ? path : "the profile";
    if (p == NULL) {
        return FV_OK;
    }
    if (fv_profile_layers(p) != f->layers || fv_profile_heads(p) != f->h_q) {
        return fvi_fail(s->ctx, FV_ERR_ARGUMENT, "%s is for %d layers of %lld heads; the model has %d of %lld", name,
                        fv_profile_layers(p), (long long)fv_profile_heads(p), f->layers, (long long)f->h_q);
    }
    if (fv_profile_model(p) != 0 && fv_profile_model(p) != fv_model_fingerprint(s->model)) {
        return fvi_fail(s->ctx, FV_ERR_ARGUMENT, "%s was made on another model: calibrate on this one", name);
    }
    return FV_OK;
}

static fv_status check_recipe(fv_session *s) {
    const char *reason = fv_recipe_arrays_only(s->recipe);
    if (reason != NULL) {
        return fvi_fail(s->ctx, FV_ERR_UNSUPPORTED, "recipe '%s': %s", s->recipe_text, reason);
    }
    fv_status status = check_profile(s, FV_PREFILL);
    return status == FV_OK ? check_profile(s, FV_DECODE) : status;
}

/* All but the cache. */
static fv_status build(fv_session *s, const fv_session_options *options) {
    fv_status status = resolve(s->model, options, &s->options);
    if (status != FV_OK) {
        return status;
    }
    s->recipe_text = fvi_strdup(s->ctx, s->options.recipe, strlen(s->options.recipe));
    s->options.recipe = s->recipe_text;
    if (s->recipe_text == NULL) {
        return fvi_fail(s->ctx, FV_ERR_MEMORY, "no memory for a session's recipe");
    }
    status = fv_recipe_load(s->ctx, s->recipe_text, &s->recipe);
    if (status == FV_OK && s->options.profile != NULL) {
        status = fv_recipe_lend(s->recipe, FV_PREFILL, s->options.profile);
    }
    if (status == FV_OK) {
        s->grain = s->options.max_error > 0 || s->options.calibration != NULL ? INT64_MAX : fv_recipe_grain(s->recipe);
        status = check_recipe(s);
    }
    if (status == FV_OK) {
        status = make_plans(s);
    }
    return status == FV_OK ? allocate_block(s) : status;
}

static fv_session *new_session(fv_model *model) {
    fv_session *s = fvi_zalloc(model->ctx, 1, sizeof *s);
    if (s == NULL) {
        fvi_fail(model->ctx, FV_ERR_MEMORY, "no memory for a session");
        return NULL;
    }
    s->model = model;
    s->ctx = model->ctx;
    return s;
}

fv_status fv_session_create(fv_model *model, const fv_session_options *options, fv_session **out) {
    *out = NULL;
    fv_session *s = new_session(model);
    if (s == NULL) {
        return FV_ERR_MEMORY;
    }
    fv_status status = build(s, options);
    if (status == FV_OK) {
        status = check_memory(s);
    }
    if (status == FV_OK) {
        const fv_cache_desc desc = describe_cache(s);
        status = fv_cache_create(s->ctx, &desc, &s->cache);
    }
    if (status != FV_OK) {
        fv_session_destroy(s);
        return status;
    }
    *out = s;
    return FV_OK;
}

void fv_session_destroy(fv_session *s) {
    if (s == NULL) {
        return;
    }
    fv_cache_destroy(s->cache);
    fv_plan_destroy(s->plan[FV_PREFILL]);
    fv_plan_destroy(s->plan[FV_DECODE]);
    fv_recipe_destroy(s->recipe);
    fvi_strfree(s->ctx, s->recipe_text);
    fvi_release(s->ctx, s->block, s->block_bytes, 1);
    fvi_release(s->ctx, s->state, (size_t)s->model->facts.layers, s->state_bytes);
    fvi_release(s->ctx, s->rows, (size_t)(s->rows_capacity * s->model->facts.n_vocab), sizeof(float));
    fv_tokens_release(s->ctx, &s->tokens);
    fvi_release(s->ctx, s->want, (size_t)s->want_capacity, sizeof *s->want);
    fvi_release(s->ctx, s, 1, sizeof *s);
}

static void copy_state(fv_session *to, const fv_session *from) {
    const fv_model_facts *f = &from->model->facts;
    to->ran = from->ran;
    to->has_hidden = from->has_hidden;
    to->has_logits = from->has_logits;
    to->stats = from->stats;
    if (from->has_hidden) {
        memcpy(to->hidden, from->hidden, (size_t)f->d_model * sizeof(float));
    }
    if (from->has_logits) {
        memcpy(to->logits, from->logits, (size_t)f->n_vocab * sizeof(float));
    }
}

fv_status fv_session_fork(fv_session *session, fv_session **out) {
    *out = NULL;
    fv_session *s = new_session(session->model);
    if (s == NULL) {
        return FV_ERR_MEMORY;
    }
    fv_status status = build(s, &session->options);
    if (status == FV_OK) {
        status = fv_cache_fork(session->cache, &s->cache);
    }
    if (status == FV_OK) {
        status = fvi_session_remember(s, session->tokens.id, session->tokens.n);
    }
    if (status != FV_OK) {
        fv_session_destroy(s);
        return status;
    }
    copy_state(s, session);
    *out = s;
    return FV_OK;
}

/* ---- tokens ---- */

fv_status fvi_session_remember(fv_session *s, const int32_t *tokens, int64_t n) {
    if (!fvi_grow(s->ctx, (void **)&s->tokens.id, &s->tokens.capacity, s->tokens.n + n, sizeof *tokens)) {
        return fvi_fail(s->ctx, FV_ERR_MEMORY, "no memory for %lld tokens", (long long)(s->tokens.n + n));
    }
    if (n > 0) {
        memcpy(s->tokens.id + s->tokens.n, tokens, (size_t)n * sizeof *tokens);
    }
    s->tokens.n += n;
    return FV_OK;
}

fv_status fvi_session_cut(fv_session *s, int64_t position) {
    fv_status status = fv_cache_truncate(s->cache, fvi_min(position, s->ran));
    if (status == FV_OK) {
        s->tokens.n = position;
        s->steps = 0;
        s->ran = fvi_min(position, s->ran);
        s->n_wants = 0;
        s->has_hidden = s->has_logits = false;
    }
    return status;
}

/* ---- what it is ---- */

const float *fv_session_logits(const fv_session *session) { return session->has_logits ? session->logits : NULL; }
int64_t fv_session_position(const fv_session *session) { return session->tokens.n; }
const int32_t *fv_session_tokens(const fv_session *session) { return session->tokens.id; }
size_t fv_session_kv_bytes(const fv_session *session) { return fv_cache_bytes(session->cache); }
const char *fv_session_recipe(const fv_session *session) { return fv_recipe_text(session->recipe); }
fv_run_stats fv_session_stats(const fv_session *session) { return session->stats; }
fv_session_times fv_session_seconds(const fv_session *session) { return session->times; }

fv_status fv_session_rollback(fv_session *session, int64_t position) {
    if (position < 0 || position > session->tokens.n) {
        return fvi_fail(session->ctx, FV_ERR_RANGE, "rollback to %lld; the session has %lld tokens", (long long)position,
                        (long long)session->tokens.n);
    }
    return fvi_session_cut(session, position);
}
