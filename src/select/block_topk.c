/* block_topk.c - the yardstick of block selectors: each block of 64 queries visits the blocks of 64 keys whose mean key matches
 * its mean query best, its own and the first among them.
 *
 * No paper's method in particular; it is the estimate that many begin with (MInference's block-sparse heads, Jiang et al., 2024,
 * section 3.2, are this without the two forced blocks and with a fixed count). The count is the larger of `blocks` and `density`
 * times the blocks that the query block can see, the forced ones included. */
#include "select/pool.h"
#include "select/rank.h"
#include "select/select.h"

#include <math.h>

typedef struct room {
    float *row, *mean, *score;
    int32_t *order, *spare;
} room;

static size_t head_bytes(const double *value, const fvi_extent *e) {
    (void)value;
    return (size_t)(e->d_k * fvi_ceil_div(e->n_kv, FVI_BLOCK)) * sizeof(float);
}

static size_t scratch_bytes(const double *value, const fvi_extent *e) {
    (void)value;
    return (size_t)(fvi_pool_room(e->d_k) + e->d_k + 3 * fvi_ceil_div(e->n_kv, FVI_BLOCK)) * sizeof(float);
}

static room cut(const fvi_select *s, int64_t blocks) {
    room r = {.row = s->scratch};
    r.mean = r.row + fvi_pool_room(s->sight->d_k);
    r.score = r.mean + s->sight->d_k;
    r.order = (int32_t *)(r.score + blocks);
    r.spare = r.order + blocks;
    return r;
}

static void prepare(const fvi_select *s) { fvi_pool_keys(s->sight, FVI_BLOCK, s->scratch, s->head_state); }

static void tile(const fvi_select *s, const fvi_query_tile *q, fvi_index *index) {
    const fvi_sight *sight = s->sight;
    int64_t own = q->first / FVI_BLOCK, visible = sight->causal ? fvi_min(own + 1, index->blocks) : index->blocks;
    int64_t count = fvi_max((int64_t)s->value[0], (int64_t)ceil(s->value[1] * (double)visible));
    room r = cut(s, index->blocks);
    if (q->first < 0 || fvi_pool_queries(sight, q->first, q->last, r.row, r.mean) == 0) {
        return;
    }
    fvi_pool_scores(r.mean, s->head_state, sight->d_k, index->blocks, visible, sight->scale, r.score);
    r.score[0] = INFINITY;
    if (own < visible) {
        r.score[own] = INFINITY;
    }
    fvi_rank(r.score, visible, r.order, r.spare);
    for (int64_t i = 0; i < fvi_min(fvi_max(count, 2), visible); i++) {
        fvi_index_add_block(index, r.order[i]);
    }
}

const fvi_selector fvi_select_block_topk = {.query_block = FVI_BLOCK,
                                            .scope = FVI_SCOPE_TILE,
                                            .head_bytes = head_bytes,
                                            .scratch_bytes = scratch_bytes,
                                            .prepare = prepare,
                                            .tile = tile};
