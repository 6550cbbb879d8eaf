/* sample_attention.c - a window, and the columns that a sample of the rows asks for.
 *
 * Zhu et al.: SampleAttention: Near-Lossless Acceleration of Long Context LLM Inference with Adaptive Structured Sparse
 * Attention, MLSys 2025, algorithm 1. Stage 1: the exact attention of a share `rows` of the queries, at even distances, summed
 * along columns. Stage 2: the fewest columns that hold `alpha` of that mass (the threshold on the cumulative residual attention).
 * Every row visits these and the last `window` * n keys. No official code is known. Choices where the paper says nothing: of each
 * 1 / `rows` queries the last is taken, so that the prompt's last row is; masses in the window count with the columns, as the
 * algorithm is written. Deviations: at least 64 rows are sampled, or all, since a short prompt over a long cache would be judged
 * by one or two; the rows of a tile of 64 share the window of the tile's first row (up to 63 keys more for the others). */
#include "select/rank.h"
#include "select/select.h"
#include "select/stripe.h"

#include <math.h>
#include <string.h>

typedef struct room {
    float *q, *column;
    int64_t *position;
    int32_t *order, *spare;
    void *stripe;
    size_t bytes;
} room;

enum { LEAST_ROWS = 64 };

/* From one sampled row to the next, of n_q. */
static int64_t step_of(const double *value, int64_t n_q) {
    int64_t step = (int64_t)fmax(1, round(1 / value[1]));
    return fvi_max(1, fvi_min(step, n_q / LEAST_ROWS));
}

static void *take(void *base, size_t *at, int64_t bytes) {
    void *place = base == NULL ? NULL : (uint8_t *)base + *at;
    *at += (size_t)fvi_round_up(bytes, 64);
    return place;
}

static room cut(void *base, int64_t rows, int64_t n_kv, int64_t d_k, int64_t d_v) {
    const int64_t f = sizeof(float);
    room r = {0};
    r.stripe = take(base, &r.bytes, (int64_t)fvi_stripe_bytes(rows, d_k, d_v));
    r.q = take(base, &r.bytes, rows * d_k * f);
    r.position = take(base, &r.bytes, rows * (int64_t)sizeof(int64_t));
    r.column = take(base, &r.bytes, n_kv * f);
    r.order = take(base, &r.bytes, n_kv * f);
    r.spare = take(base, &r.bytes, n_kv * f);
    return r;
}

static size_t head_bytes(const double *value, const fvi_extent *e) {
    (void)value;
    return (size_t)fvi_ceil_div(e->n_kv, FVI_BLOCK) * sizeof(uint64_t);
}

static size_t scratch_bytes(const double *value, const fvi_extent *e) {
    /* a shorter prompt may take up to twice LEAST_ROWS where a longer one takes fewer */
    int64_t rows = fvi_max(fvi_ceil_div(e->n_q, step_of(value, e->n_q)), fvi_min(e->n_q, 2 * LEAST_ROWS));
    return cut(NULL, rows, e->n_kv, e->d_k, e->d_v).bytes;
}

static const char *refuse(const double *value, const fvi_extent *e) {
    (void)value;
    return e->causal ? NULL : "sample-attention is for causal attention: its window ends at a row's own key";
}

static void prepare(const fvi_select *s) {
    const fvi_sight *sight = s->sight;
    const int64_t step = step_of(s->value, sight->n_q), rows = fvi_ceil_div(sight->n_q, step), n = sight->n_kv;
    room r = cut(s->scratch, rows, n, sight->d_k, sight->d_v);
    for (int64_t i = 0; i < rows; i++) {
        int64_t row = sight->n_q - 1 - (rows - 1 - i) * step;
        sight->rows(sight, FVI_SIDE_Q, row, 1, r.q + i * sight->d_k);
        r.position[i] = sight->offset + row;
    }
    fvi_stripe stripe = fvi_stripe_open(sight, r.q, r.position, rows, r.stripe);
    fvi_stripe_columns(&stripe, r.column);
    fvi_rank(r.column, n, r.order, r.spare);
    int64_t count = s->value[0] >= 1 ? n : fvi_rank_cover(r.column, r.order, n, 0, s->value[0]);
    uint64_t *kept = s->head_state;
    memset(kept, 0, (size_t)fvi_ceil_div(n, FVI_BLOCK) * sizeof(uint64_t));
    for (int64_t i = 0; i < count; i++) {
        kept[r.order[i] / 64] |= UINT64_C(1) << (r.order[i] % 64);
    }
}

static void tile(const fvi_select *s, const fvi_query_tile *q, fvi_index *index) {
    int64_t window = (int64_t)ceil(s->value[2] * (double)s->sight->n_kv);
    memcpy(index->key, s->head_state, (size_t)index->blocks * sizeof(uint64_t));
    fvi_index_add(index, q->first - fvi_max(1, window) + 1, q->last + 1);
}

const fvi_selector fvi_select_sample_attention = {.query_block = FVI_BLOCK,
                                                  .scope = FVI_SCOPE_PROMPT,
                                                  .head_bytes = head_bytes,
                                                  .scratch_bytes = scratch_bytes,
                                                  .prepare = prepare,
                                                  .tile = tile,
                                                  .refuse = refuse};
