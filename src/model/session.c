/* session.c - one sequence over a model.
 *
 * A prompt is cut into chunks of rows that go through all layers together; since a row's arithmetic depends only on its own
 * query and the entries it sees, the cut is a matter of speed alone. What a call changes becomes part of the session when the
 * call succeeds: new logits are made beside the old ones, and a failed call cuts the cache back. */
#include "model/session.h"

#include <stdio.h>
#include <string.h>

fv_session_options fv_session_options_default(void) {
    return (fv_session_options){.recipe = "", .kv_dtype = FV_F16, .chunk = 512};
}

/* ---- creation ---- */

static fv_status resolve(fv_model *model, const fv_session_options *given, fv_session_options *o) {
    fv_context *ctx = model->ctx;
    const int64_t trained = model->facts.context;
    *o = given != NULL ? *given : fv_session_options_default();
    o->recipe = o->recipe != NULL ? o->recipe : "";
    o->context = o->context != 0 ? o->context : trained;
    o->chunk = o->chunk != 0 ? o->chunk : 512;
    if (o->kv_dtype != FV_F32 && o->kv_dtype != FV_F16 && o->kv_dtype != FV_BF16) {
        return fvi_fail(ctx, FV_ERR_ARGUMENT, "kv_dtype is %s; a cache holds f32, f16 or bf16", fv_dtype_name(o->kv_dtype));
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

static fv_status make_plans(fv_session *s) {
    const fv_model_facts *f = &s->model->facts;
    fv_status status = FV_OK;
    for (int phase = FV_PREFILL; phase <= FV_DECODE && status == FV_OK; phase++) {
        fv_problem p = fv_problem_default();
        p.b = 1;
        p.h_q = f->h_q;
        p.h_kv = f->h_kv;
        p.n_q = phase == FV_PREFILL ? fvi_min(s->options.chunk, s->options.context) : 1;
        p.n_kv = s->options.context;
        p.d_k = f->d_k;
        p.d_v = f->d_v;
        p.causal = true;
        p.recipe = s->recipe;
        p.phase = (fv_phase)phase;
        status = fv_plan_create(s->ctx, &p, &s->plan[phase]);
    }
    return status;
}

/* Lays the block out from `base`, or only measures it (NULL). */
static size_t lay_out(fv_session *s, char *base) {
    const fv_model_facts *f = &s->model->facts;
    const int64_t rows = fvi_min(s->options.chunk, s->options.context);
    size_t used = (size_t)fvi_round_up((int64_t)s->model->arch->scratch(s->model, rows, base, &s->scratch), 64);
    const struct {
        void **to;
        size_t bytes;
    } part[] = {{&s->workspace, s->workspace_bytes},
                {(void **)&s->hidden, (size_t)f->d_model * sizeof(float)},
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
    fv_cache_desc desc = {f->layers, f->h_kv, f->d_k, f->d_v, s->options.kv_dtype, s->options.kv_dtype};
    fv_recipe_kv(s->recipe, &desc.k_dtype, &desc.v_dtype);
    return desc;
}

/* Whether the whole context's cache can ever fit. */
static fv_status check_memory(const fv_session *s) {
    const fv_cache_desc d = describe_cache(s);
    size_t entry = (size_t)(fvi_round_up((int64_t)fv_dtype_bytes(d.k_dtype, d.d_k), 64) +
                            fvi_round_up((int64_t)fv_dtype_bytes(d.v_dtype, d.d_v), 64));
    size_t bytes = SIZE_MAX;
    if (!fvi_mul(entry, (size_t)(d.layers * d.h_kv), &bytes) || !fvi_mul(bytes, (size_t)s->options.context, &bytes)) {
        bytes = SIZE_MAX / 2;
    }
    char what[64];
    snprintf(what, sizeof what, "a cache for a context of %lld tokens", (long long)s->options.context);
    return fvi_model_fits(s->model, bytes, what);
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
    status = fv_recipe_parse(s->ctx, s->recipe_text, &s->recipe);
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
    fvi_release(s->ctx, s->rows, (size_t)(s->rows_capacity * s->model->facts.n_vocab), sizeof(float));
    fv_tokens_release(s->ctx, &s->tokens);
    fvi_release(s->ctx, s, 1, sizeof *s);
}

static void copy_state(fv_session *to, const fv_session *from) {
    const fv_model_facts *f = &from->model->facts;
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

static fv_status check_tokens(const fv_session *s, const int32_t *tokens, int64_t n) {
    const int64_t room = s->options.context - s->tokens.n;
    if (n < 0 || (n > 0 && tokens == NULL)) {
        return fvi_fail(s->ctx, FV_ERR_ARGUMENT, "%lld tokens cannot be taken", (long long)n);
    }
    if (n > room) {
        return fvi_fail(
            s->ctx, FV_ERR_RANGE,
            "%lld tokens after the %lld there are go beyond the session's context of %lld (the model was trained to %lld)",
            (long long)n, (long long)s->tokens.n, (long long)s->options.context, (long long)s->model->facts.context);
    }
    for (int64_t i = 0; i < n; i++) {
        if (tokens[i] < 0 || tokens[i] >= s->model->facts.n_vocab) {
            return fvi_fail(s->ctx, FV_ERR_ARGUMENT, "token %lld of the call is %d; ids go from 0 to %lld", (long long)i,
                            (int)tokens[i], (long long)s->model->facts.n_vocab - 1);
        }
    }
    return FV_OK;
}

fv_status fvi_session_cut(fv_session *s, int64_t position) {
    fv_status status = fv_cache_truncate(s->cache, position);
    if (status == FV_OK) {
        s->tokens.n = position;
        s->has_hidden = s->has_logits = false;
    }
    return status;
}

/* ---- a prompt ---- */

static fv_status make_room_for_rows(fv_session *s) {
    if (s->rows != NULL) {
        return FV_OK;
    }
    /* Up to 32 MiB: the fewer calls of the head, the fewer times its weights are unpacked. */
    const int64_t n_vocab = s->model->facts.n_vocab, chunk = fvi_min(s->options.chunk, s->options.context);
    int64_t rows = fvi_max(1, fvi_min(chunk, ((int64_t)32 << 20) / (n_vocab * (int64_t)sizeof(float))));
    s->rows = fvi_alloc(s->ctx, (size_t)(rows * n_vocab), sizeof(float));
    if (s->rows == NULL) {
        return fvi_fail(s->ctx, FV_ERR_MEMORY, "no memory for the logits of %lld rows", (long long)rows);
    }
    s->rows_capacity = rows;
    return FV_OK;
}

/* Hands out the logits of hidden rows at `position`[0..n), gathered in scratch.normed. */
static fv_status hand_out(fv_session *s, const fv_feed *feed, int64_t first, int64_t step, int64_t n) {
    fv_status status = s->model->arch->head(s->model, s->scratch.normed, n, FV_PREFILL, s->scratch.normed, s->rows);
    for (int64_t i = 0; i < n && status == FV_OK; i++) {
        if (feed->on_logits(feed->user, first + i * step, s->rows + i * s->model->facts.n_vocab) != 0) {
            status = fvi_fail(s->ctx, FV_ERR_CANCELLED, "stopped by on_logits at position %lld", (long long)(first + i * step));
        }
    }
    return status;
}

/* Of the chunk of n rows in scratch.x whose first stands at `first`. */
static fv_status wanted_logits(fv_session *s, const fv_feed *feed, int64_t first, int64_t n) {
    const int64_t d = s->model->facts.d_model, step = fvi_max(1, feed->logits_every), from = fvi_max(0, feed->logits_from);
    int64_t next = first <= from ? from : from + fvi_ceil_div(first - from, step) * step;
    fv_status status = FV_OK;
    while (next < first + n && status == FV_OK) {
        int64_t count = fvi_min(s->rows_capacity, fvi_ceil_div(first + n - next, step));
        for (int64_t i = 0; i < count; i++) {
            memcpy(s->scratch.normed + i * d, s->scratch.x + (next + i * step - first) * d, (size_t)d * sizeof(float));
        }
        status = hand_out(s, feed, next, step, count);
        next += count * step;
    }
    return status;
}

static fv_status report(const fv_session *s, const fv_feed *feed, int64_t done, int64_t total) {
    if (feed->progress != NULL && feed->progress(feed->user, done, total) != 0) {
        return fvi_fail(s->ctx, FV_ERR_CANCELLED, "stopped by progress after %lld of %lld tokens", (long long)done,
                        (long long)total);
    }
    if (fvi_cancelled(s->ctx)) {
        return fvi_fail(s->ctx, FV_ERR_CANCELLED, "cancelled after %lld of %lld tokens", (long long)done, (long long)total);
    }
    return FV_OK;
}

static fv_status feed_chunks(fv_session *s, const int32_t *tokens, int64_t n, const fv_feed *feed) {
    fv_status status = report(s, feed, 0, n);
    for (int64_t done = 0; done < n && status == FV_OK;) {
        const int64_t count = fvi_min(s->options.chunk, n - done);
        status = s->model->arch->forward(s, tokens + done, count, FV_PREFILL);
        if (status == FV_OK && feed->on_logits != NULL) {
            status = wanted_logits(s, feed, s->tokens.n, count);
        }
        if (status == FV_OK) {
            status = fvi_session_remember(s, tokens + done, count);
        }
        done += count;
        if (status == FV_OK) {
            status = report(s, feed, done, n);
        }
    }
    return status;
}

/* Takes back what a failed call appended; its message and what was known before stay. */
static void take_back(fv_session *s, int64_t position, fv_run_stats stats) {
    const bool has_hidden = s->has_hidden, has_logits = s->has_logits;
    char message[sizeof s->ctx->message];
    memcpy(message, s->ctx->message, sizeof message);
    fvi_session_cut(s, position);
    memcpy(s->ctx->message, message, sizeof message);
    s->has_hidden = has_hidden;
    s->has_logits = has_logits;
    s->stats = stats;
}

fv_status fv_session_feed(fv_session *session, const int32_t *tokens, int64_t n, const fv_feed *options) {
    static const fv_feed none = {0};
    const fv_feed *feed = options != NULL ? options : &none;
    fv_status status = check_tokens(session, tokens, n);
    if (status != FV_OK || n == 0) {
        return status;
    }
    const int64_t position = session->tokens.n;
    const fv_run_stats stats = session->stats;
    if (feed->on_logits != NULL) {
        status = make_room_for_rows(session);
    }
    if (status == FV_OK) {
        status = feed_chunks(session, tokens, n, feed);
    }
    if (status != FV_OK) {
        take_back(session, position, stats);
        return status;
    }
    const int64_t d = session->model->facts.d_model, last = (n - 1) % session->options.chunk;
    memcpy(session->hidden, session->scratch.x + last * d, (size_t)d * sizeof(float));
    session->has_hidden = true;
    session->has_logits = false;
    return FV_OK;
}

/* Logits of one hidden row, beside the present ones until they are whole. */
static fv_status make_logits(fv_session *s, const float *hidden, fv_phase phase) {
    fv_status status = s->model->arch->head(s->model, hidden, 1, phase, s->scratch.normed, s->spare);
    if (status == FV_OK) {
        float *whole = s->spare;
        s->spare = s->logits;
        s->logits = whole;
        s->has_logits = true;
    }
    return status;
}

fv_status fv_session_finish(fv_session *session) {
    if (session->has_logits) {
        return fvi_fail(session->ctx, FV_ERR_STATE, "the prompt is finished already: feed more, or step");
    }
    if (!session->has_hidden) {
        return fvi_fail(session->ctx, FV_ERR_STATE, "there is nothing to finish: feed the prompt's tokens first");
    }
    return make_logits(session, session->hidden, FV_PREFILL);
}

/* ---- generation ---- */

fv_status fv_session_step(fv_session *session, int32_t token) {
    if (!session->has_logits) {
        return fvi_fail(session->ctx, FV_ERR_STATE, "a step comes after the prompt's end: feed it, then finish");
    }
    fv_status status = check_tokens(session, &token, 1);
    if (status != FV_OK) {
        return status;
    }
    const int64_t position = session->tokens.n;
    const fv_run_stats stats = session->stats;
    status = session->model->arch->forward(session, &token, 1, FV_DECODE);
    if (status == FV_OK) {
        status = fvi_session_remember(session, &token, 1);
    }
    if (status == FV_OK) {
        status = make_logits(session, session->scratch.x, FV_DECODE);
    }
    if (status != FV_OK) {
        take_back(session, position, stats);
        return status;
    }
    session->has_hidden = false;
    return FV_OK;
}

/* ---- what it is ---- */

const float *fv_session_logits(const fv_session *session) { return session->has_logits ? session->logits : NULL; }
int64_t fv_session_position(const fv_session *session) { return session->tokens.n; }
const int32_t *fv_session_tokens(const fv_session *session) { return session->tokens.id; }
size_t fv_session_kv_bytes(const fv_session *session) { return fv_cache_bytes(session->cache); }
const char *fv_session_recipe(const fv_session *session) { return fv_recipe_text(session->recipe); }
fv_run_stats fv_session_stats(const fv_session *session) { return session->stats; }

fv_status fv_session_rollback(fv_session *session, int64_t position) {
    if (position < 0 || position > session->tokens.n) {
        return fvi_fail(session->ctx, FV_ERR_RANGE, "rollback to %lld; the session has %lld tokens", (long long)position,
                        (long long)session->tokens.n);
    }
    return fvi_session_cut(session, position);
}
