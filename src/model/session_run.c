/* session_run.c - feed, finish, step.
 *
 * A prompt is cut into chunks of rows that go through all layers together; since a row's arithmetic depends only on its own
 * query and the entries it sees, the cut is a matter of speed alone. A method that looks at more of a prompt than a row says so
 * by its grain: then tokens wait until a grain is whole, or for the prompt's end, so that calls and chunks still do not matter.
 * What a call changes becomes part of the session when the call succeeds: new logits are made beside the old ones, and a failed
 * call cuts the cache back. */
#include "model/session.h"

#include <string.h>

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

/* ---- a prompt ---- */

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

fv_status fvi_session_tick(const fv_session *s, int done, int layers, int64_t n) {
    return s->ticking == NULL ? FV_OK : report(s, s->ticking, n * done / layers, n);
}

/* The next n tokens, in rows of `pass`. */
static fv_status run_rows(fv_session *s, const fvi_pass *pass, int64_t n) {
    fv_status status = s->model->arch->forward(s, pass, s->tokens.id + s->ran, n, FV_PREFILL);
    if (status == FV_OK) {
        status = fvi_session_hand_out(s, pass->x, s->ran, n);
    }
    if (status == FV_OK) {
        const int64_t d = s->model->facts.d_model;
        memcpy(s->hidden, pass->x + (n - 1) * d, (size_t)d * sizeof(float));
        s->ran += n;
        s->has_hidden = true;
    }
    return status;
}

static fv_status run_chunks(fv_session *s, int64_t end, const fv_feed *feed) {
    const int64_t from = s->ran, grain = s->grain;
    fv_status status = report(s, feed, 0, end - from);
    while (s->ran < end && status == FV_OK) {
        int64_t to = (s->ran + fvi_max(s->options.chunk, grain)) / grain * grain;
        status = run_rows(s, &s->scratch, fvi_min(to, end) - s->ran);
        if (status == FV_OK) {
            status = report(s, feed, s->ran - from, end - from);
        }
    }
    return status;
}

/* A method that looks at the whole prompt takes it through the layers in one pass, with rows of its own. */
static fv_status run_whole(fv_session *s, const fv_feed *feed) {
    const int64_t n = s->tokens.n - s->ran;
    fvi_pass pass = {.rows = n, .narrow = fvi_min(s->options.chunk, n)};
    const size_t bytes = s->model->arch->scratch(s->model, NULL, &pass);
    void *block = fvi_alloc(s->ctx, bytes, 1);
    if (block == NULL) {
        return fvi_fail(s->ctx, FV_ERR_MEMORY, "no memory for a prompt of %lld tokens at once (%zu bytes)", (long long)n, bytes);
    }
    s->model->arch->scratch(s->model, block, &pass);
    fv_status status = report(s, feed, 0, n);
    s->ticking = feed;
    if (status == FV_OK) {
        status = run_rows(s, &pass, n);
    }
    s->ticking = NULL;
    fvi_release(s->ctx, block, bytes, 1);
    return status;
}

/* What may run of the fed tokens: whole grains, or, at the prompt's end, all. */
static fv_status run_ready(fv_session *s, bool whole, const fv_feed *feed) {
    if (s->grain == INT64_MAX) {
        return whole && s->tokens.n > s->ran ? run_whole(s, feed) : FV_OK;
    }
    return run_chunks(s, whole ? s->tokens.n : fvi_max(s->ran, s->tokens.n / s->grain * s->grain), feed);
}

/* What a failed call takes back. */
typedef struct before {
    int64_t position, ran, wants;
    fv_run_stats stats;
    bool has_hidden, has_logits;
} before;

static before remember_before(const fv_session *s) {
    return (before){s->tokens.n, s->ran, s->n_wants, s->stats, s->has_hidden, s->has_logits};
}

/* Takes back what a failed call appended; its message and what was known before stay. `hidden` is the row that was there. */
static void take_back(fv_session *s, const before *b, const float *hidden) {
    char message[sizeof s->ctx->message];
    memcpy(message, s->ctx->message, sizeof message);
    fv_cache_truncate(s->cache, b->ran);
    memcpy(s->ctx->message, message, sizeof message);
    s->tokens.n = b->position;
    s->steps = 0;
    s->ran = b->ran;
    s->n_wants = b->wants;
    s->has_hidden = b->has_hidden;
    s->has_logits = b->has_logits;
    s->stats = b->stats;
    if (hidden != NULL) {
        memcpy(s->hidden, hidden, (size_t)s->model->facts.d_model * sizeof(float));
    }
}

fv_status fv_session_feed(fv_session *session, const int32_t *tokens, int64_t n, const fv_feed *options) {
    static const fv_feed none = {0};
    fv_session *s = session;
    const fv_feed *feed = options != NULL ? options : &none;
    fv_status status = check_tokens(s, tokens, n);
    if (status != FV_OK || n == 0) {
        return status;
    }
    const double began = fvi_seconds();
    const before b = remember_before(s);
    memcpy(s->kept, s->hidden, (size_t)s->model->facts.d_model * sizeof(float));
    status = fvi_session_want(s, feed, b.position, b.position + n);
    if (status == FV_OK) {
        status = fvi_session_remember(s, tokens, n);
    }
    if (status == FV_OK) {
        status = run_ready(s, false, feed);
    }
    fvi_lap(began, &s->times.total);
    if (status != FV_OK) {
        take_back(s, &b, s->kept);
        return status;
    }
    s->n_wants = s->ran == s->tokens.n ? 0 : s->n_wants;
    s->has_logits = false;
    return FV_OK;
}

/* Logits of one hidden row, beside the present ones until they are whole. */
static fv_status make_logits(fv_session *s, const float *hidden, fv_phase phase) {
    const double at = fvi_seconds();
    fv_status status = s->model->arch->head(s->model, hidden, 1, phase, s->scratch.normed, s->spare);
    fvi_lap(at, &s->times.head);
    if (status == FV_OK) {
        float *whole = s->spare;
        s->spare = s->logits;
        s->logits = whole;
        s->has_logits = true;
    }
    return status;
}

fv_status fv_session_finish(fv_session *session) {
    fv_session *s = session;
    if (s->has_logits) {
        return fvi_fail(s->ctx, FV_ERR_STATE, "the prompt is finished already: feed more, or step");
    }
    if (!s->has_hidden && s->tokens.n == s->ran) {
        return fvi_fail(s->ctx, FV_ERR_STATE, "there is nothing to finish: feed the prompt's tokens first");
    }
    static const fv_feed none = {0};
    const double began = fvi_seconds();
    const before b = remember_before(s);
    memcpy(s->kept, s->hidden, (size_t)s->model->facts.d_model * sizeof(float));
    fv_status status = run_ready(s, true, s->n_wants > 0 ? &s->want[s->n_wants - 1].feed : &none);
    if (status == FV_OK) {
        status = make_logits(s, s->hidden, FV_PREFILL);
    }
    fvi_lap(began, &s->times.total);
    if (status != FV_OK) {
        take_back(s, &b, s->kept);
        return status;
    }
    s->n_wants = 0;
    return FV_OK;
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
    const double began = fvi_seconds();
    const before b = remember_before(session);
    status = session->model->arch->forward(session, &session->scratch, &token, 1, FV_DECODE);
    if (status == FV_OK) {
        status = fvi_session_remember(session, &token, 1);
    }
    if (status == FV_OK) {
        session->ran++;
        session->steps++;
        status = make_logits(session, session->scratch.x, FV_DECODE);
    }
    fvi_lap(began, &session->times.total);
    if (status != FV_OK) {
        take_back(session, &b, NULL);
        return status;
    }
    session->has_hidden = false;
    return FV_OK;
}
