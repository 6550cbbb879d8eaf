/* session_run.c - feed, finish, step.
 *
 * A prompt is cut into chunks of rows that go through all layers together; since a row's arithmetic depends only on its own
 * query and the entries it sees, the cut is a matter of speed alone. What a call changes becomes part of the session when the
 * call succeeds: new logits are made beside the old ones, and a failed call cuts the cache back. */
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
    const double at = fvi_seconds();
    fv_status status = s->model->arch->head(s->model, s->scratch.normed, n, FV_PREFILL, s->scratch.normed, s->rows);
    fvi_lap(at, &s->times.head);
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
    const double began = fvi_seconds();
    const int64_t position = session->tokens.n;
    const fv_run_stats stats = session->stats;
    if (feed->on_logits != NULL) {
        status = make_room_for_rows(session);
    }
    if (status == FV_OK) {
        status = feed_chunks(session, tokens, n, feed);
    }
    fvi_lap(began, &session->times.total);
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
    if (session->has_logits) {
        return fvi_fail(session->ctx, FV_ERR_STATE, "the prompt is finished already: feed more, or step");
    }
    if (!session->has_hidden) {
        return fvi_fail(session->ctx, FV_ERR_STATE, "there is nothing to finish: feed the prompt's tokens first");
    }
    const double began = fvi_seconds();
    fv_status status = make_logits(session, session->hidden, FV_PREFILL);
    fvi_lap(began, &session->times.total);
    return status;
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
    const int64_t position = session->tokens.n;
    const fv_run_stats stats = session->stats;
    status = session->model->arch->forward(session, &token, 1, FV_DECODE);
    if (status == FV_OK) {
        status = fvi_session_remember(session, &token, 1);
    }
    if (status == FV_OK) {
        status = make_logits(session, session->scratch.x, FV_DECODE);
    }
    fvi_lap(began, &session->times.total);
    if (status != FV_OK) {
        take_back(session, position, stats);
        return status;
    }
    session->has_hidden = false;
    return FV_OK;
}
