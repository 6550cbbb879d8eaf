/* session_rows.c - logits of prompt rows, for the feeds that asked for them. */
#include "model/session.h"

#include <string.h>

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

fv_status fvi_session_want(fv_session *s, const fv_feed *feed, int64_t from, int64_t to) {
    if (!fvi_grow(s->ctx, (void **)&s->want, &s->want_capacity, s->n_wants + 1, sizeof *s->want)) {
        return fvi_fail(s->ctx, FV_ERR_MEMORY, "no memory to keep what a feed asks for");
    }
    s->want[s->n_wants++] = (fvi_want){from, to, *feed};
    return feed->on_logits != NULL ? make_room_for_rows(s) : FV_OK;
}

/* Hands out the logits of hidden rows at first, first + step, ..., gathered in scratch.normed. */
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

/* Of the hidden rows x, whose first stands at `first`, those at from .. to - 1 that the feed asks for. */
static fv_status wanted_rows(fv_session *s, const fv_feed *feed, const float *x, int64_t first, int64_t from, int64_t to) {
    const int64_t d = s->model->facts.d_model, step = fvi_max(1, feed->logits_every), least = fvi_max(0, feed->logits_from);
    int64_t next = from <= least ? least : least + fvi_ceil_div(from - least, step) * step;
    fv_status status = FV_OK;
    while (next < to && status == FV_OK) {
        int64_t count = fvi_min(s->rows_capacity, fvi_ceil_div(to - next, step));
        for (int64_t i = 0; i < count; i++) {
            memcpy(s->scratch.normed + i * d, x + (next + i * step - first) * d, (size_t)d * sizeof(float));
        }
        status = hand_out(s, feed, next, step, count);
        next += count * step;
    }
    return status;
}

fv_status fvi_session_hand_out(fv_session *s, const float *x, int64_t first, int64_t n) {
    fv_status status = FV_OK;
    for (int64_t i = 0; i < s->n_wants && status == FV_OK; i++) {
        const fvi_want *w = &s->want[i];
        const int64_t from = fvi_max(first, w->from), to = fvi_min(first + n, w->to);
        if (w->feed.on_logits != NULL && from < to) {
            status = wanted_rows(s, &w->feed, x, first, from, to);
        }
    }
    return status;
}
