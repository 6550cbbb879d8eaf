/* dilated.c - a sliding window with gaps: a query sees `size` keys, each `dilation` before the next, its own the last.
 *
 * Beltagy, Peters, Cohan: Longformer: The Long-Document Transformer, 2020, section 3.1 (its dilated window, causal). Deviation:
 * the paper gives heads dilations of their own; here all heads of a call have one. */
#include "select/select.h"

typedef struct comb {
    int64_t reach, dilation; /* from a query back to its first key */
    uint64_t teeth;          /* every which bit */
} comb;

static size_t seen_bytes(const double *value, const fvi_extent *extent) {
    (void)value, (void)extent;
    return sizeof(comb);
}

static uint64_t seen(const void *arg, int64_t position, int64_t block) {
    const comb *c = arg;
    const int64_t own = position - block * FVI_BLOCK, from = fvi_max(0, own - c->reach);
    if (own < 0 || from >= FVI_BLOCK || own % c->dilation >= FVI_BLOCK) {
        return 0;
    }
    const uint64_t upto = own < FVI_BLOCK - 1 ? (UINT64_C(2) << own) - 1 : UINT64_MAX;
    return c->teeth << own % c->dilation & upto & UINT64_MAX << from;
}

static void tile(const fvi_select *s, const fvi_query_tile *q, fvi_index *index) {
    comb *c = s->seen_state;
    c->dilation = (int64_t)s->value[1];
    c->reach = ((int64_t)s->value[0] - 1) * c->dilation;
    c->teeth = 0;
    for (int64_t bit = 0; bit < FVI_BLOCK; bit += c->dilation) {
        c->teeth |= UINT64_C(1) << bit;
    }
    index->seen = seen;
    index->seen_arg = c;
    int64_t last = fvi_min(q->last / FVI_BLOCK, index->blocks - 1);
    for (int64_t b = fvi_max(0, q->first - c->reach) / FVI_BLOCK; b <= last; b++) {
        uint64_t any = 0;
        for (int64_t i = q->first; i <= q->last && any != UINT64_MAX; i++) {
            any |= seen(c, i, b);
        }
        fvi_index_add_apart(index, b, any);
    }
}

const fvi_selector fvi_select_dilated = {.query_block = 64, .scope = FVI_SCOPE_TILE, .seen_bytes = seen_bytes, .tile = tile};
