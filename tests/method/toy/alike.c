/* alike.c - each block of 64 queries visits its own block of keys, and the earlier ones whose mean key times its own's is at
 * least `least`.
 *
 * A toy. Here stand a method's paper, the equations that are followed, and where this departs from them or the official code. */
#include "select/select.h"

static size_t head_bytes(const double *value, const fvi_extent *e) {
    (void)value;
    return (size_t)(fvi_ceil_div(e->n_kv, FVI_BLOCK) * e->d_k) * sizeof(float);
}

static size_t scratch_bytes(const double *value, const fvi_extent *e) {
    (void)value;
    return (size_t)(FVI_BLOCK * e->d_k) * sizeof(float);
}

static void prepare(const fvi_select *s) { fvi_sight_means(s->sight, FVI_SIDE_K, FVI_BLOCK, s->scratch, s->head_state); }

static void tile(const fvi_select *s, const fvi_query_tile *q, fvi_index *index) {
    const int64_t d = s->sight->d_k, own = fvi_min(fvi_max(q->first, 0) / FVI_BLOCK, index->blocks - 1);
    const float *mean = s->head_state; /* (blocks, d) */
    for (int64_t b = 0; b < own; b++) {
        float product = 0;
        for (int64_t c = 0; c < d; c++) {
            product += mean[b * d + c] * mean[own * d + c];
        }
        if ((double)product >= s->value[0]) {
            fvi_index_add_block(index, b);
        }
    }
    fvi_index_add_block(index, own);
}

const fvi_selector fvi_select_alike = {.query_block = FVI_BLOCK,
                                       .scope = FVI_SCOPE_TILE,
                                       .head_bytes = head_bytes,
                                       .scratch_bytes = scratch_bytes,
                                       .prepare = prepare,
                                       .tile = tile};
