/* oracle.c - what block selection could do at best: the attention mass of each block of 64 by 64, from exact scores.
 *
 * For studies: it costs more than dense attention. Each query block visits the fewest key blocks that together hold the share
 * `mass` of its rows' attention or, where `density` is not 0, that share of the blocks it can see, the heaviest first. */
#include "select/rank.h"
#include "select/select.h"
#include "select/stripe.h"

#include <math.h>

typedef struct room {
    float *q, *mass;
    int64_t *position;
    int32_t *order, *spare;
    void *stripe;
} room;

static size_t scratch_bytes(const double *value, const fvi_extent *e) {
    (void)value;
    int64_t blocks = fvi_ceil_div(e->n_kv, FVI_BLOCK);
    return fvi_stripe_bytes(FVI_BLOCK, e->d_k, e->d_v) + FVI_BLOCK * sizeof(int64_t) +
           (size_t)(FVI_BLOCK * e->d_k + 3 * blocks) * sizeof(float);
}

static room cut(const fvi_select *s, int64_t blocks) {
    room r = {.stripe = s->scratch};
    r.position = (int64_t *)((uint8_t *)s->scratch + fvi_stripe_bytes(FVI_BLOCK, s->sight->d_k, s->sight->d_v));
    r.q = (float *)(r.position + FVI_BLOCK);
    r.mass = r.q + FVI_BLOCK * s->sight->d_k;
    r.order = (int32_t *)(r.mass + blocks);
    r.spare = r.order + blocks;
    return r;
}

static float sum64(const float *s, int64_t rows) {
    float sum = 0;
    for (int64_t i = 0; i < rows * FVI_BLOCK; i++) {
        sum += s[i];
    }
    return sum;
}

/* mass (visible) of the tile's rows; returns how many rows there are. */
static int64_t weigh(const fvi_sight *sight, const fvi_query_tile *q, int64_t visible, room *r) {
    int64_t from = fvi_max(0, q->first - sight->offset), to = fvi_min(sight->n_q, q->last - sight->offset + 1);
    int64_t rows = fvi_max(0, to - from);
    if (rows == 0) {
        return 0;
    }
    sight->rows(sight, FVI_SIDE_Q, from, rows, r->q);
    for (int64_t i = 0; i < rows; i++) {
        r->position[i] = sight->offset + from + i;
    }
    fvi_stripe stripe = fvi_stripe_open(sight, r->q, r->position, rows, r->stripe);
    for (int64_t b = 0; b < visible; b++) {
        fvi_stripe_leaf(&stripe, b);
        fvi_stripe_weights(&stripe, 0, rows);
        r->mass[b] = sum64(stripe.s, rows);
    }
    return rows;
}

static void tile(const fvi_select *s, const fvi_query_tile *q, fvi_index *index) {
    int64_t visible = s->sight->causal ? fvi_min(q->last / FVI_BLOCK + 1, index->blocks) : index->blocks;
    room r = cut(s, index->blocks);
    int64_t rows = q->first < 0 ? 0 : weigh(s->sight, q, visible, &r);
    if (rows == 0) {
        return;
    }
    if (s->value[0] >= 1) {
        fvi_index_add_all(index);
        return;
    }
    fvi_rank(r.mass, visible, r.order, r.spare);
    int64_t count = (int64_t)ceil(s->value[1] * (double)visible);
    if (s->value[1] == 0) {
        count = fvi_rank_cover(r.mass, r.order, visible, 0, s->value[0] * (double)rows);
    }
    for (int64_t i = 0; i < fvi_min(count, visible); i++) {
        fvi_index_add_block(index, r.order[i]);
    }
}

const fvi_selector fvi_select_oracle = {
    .query_block = FVI_BLOCK, .scope = FVI_SCOPE_TILE, .scratch_bytes = scratch_bytes, .tile = tile};
