/* dilated.c - a sliding window with gaps: a query sees `size` keys, each `dilation` before the next, its own the last.
 *
 * Beltagy, Peters, Cohan: Longformer: The Long-Document Transformer, 2020, section 3.1 (its dilated window, causal). Deviation:
 * the paper gives heads dilations of their own; here all heads of a call have one. */
#include "select/select.h"

static uint64_t seen(const void *arg, int64_t position, int64_t block) {
    const double *value = arg;
    int64_t size = (int64_t)value[0], dilation = (int64_t)value[1], first = block * FVI_BLOCK;
    uint64_t bits = 0;
    for (int64_t j = position - fvi_max(0, position - first - FVI_BLOCK + 1 + dilation - 1) / dilation * dilation; j >= first;
         j -= dilation) {
        bits |= (uint64_t)((position - j) / dilation < size) << (j - first);
    }
    return bits;
}

static void tile(const fvi_select *s, const fvi_query_tile *q, fvi_index *index) {
    int64_t reach = ((int64_t)s->value[0] - 1) * (int64_t)s->value[1];
    index->seen = seen;
    index->seen_arg = s->value;
    int64_t last = fvi_min(q->last / FVI_BLOCK, index->blocks - 1);
    for (int64_t b = fvi_max(0, q->first - reach) / FVI_BLOCK; b <= last; b++) {
        uint64_t any = 0;
        for (int64_t i = q->first; i <= q->last; i++) {
            any |= i >= b * FVI_BLOCK ? seen(s->value, i, b) : 0;
        }
        fvi_index_add_apart(index, b, any);
    }
}

const fvi_selector fvi_select_dilated = {.query_block = 64, .scope = FVI_SCOPE_TILE, .tile = tile};
