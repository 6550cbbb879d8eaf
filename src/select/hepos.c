/* hepos.c - head-wise positional strides: of a source that another sequence reads, head h sees every r-th position.
 *
 * Huang, Cao, Parulian, Ji, Wang: Efficient Attentions for Long Document Summarization, NAACL 2021: (j - h) mod r = 0.
 * A head is a query head. luyang-huang96/LongDocSum (DivideMultiheadAttention, "stride") has the same positions, j mod r = h mod
 * r, and wants r to divide the number of heads, as here; it pads the source beyond its end, by r more where r divides its length
 * already, and lets the pads be seen, which is not done here.
 *
 * It is cross-attention: rows have no position in what they read. A causal prompt is refused, and so it lives in `fovea attend`
 * until encoder-decoder models are here. */
#include "select/pattern.h"

typedef struct head {
    int64_t residue, stride;
} head;

static size_t head_bytes(const double *value, const fvi_extent *extent) {
    (void)value;
    (void)extent;
    return sizeof(head);
}

static void prepare(const fvi_select *s) {
    int64_t stride = (int64_t)s->value[0];
    *(head *)s->head_state = (head){s->sight->head % stride, stride};
}

static uint64_t seen(const void *arg, int64_t position, int64_t block) {
    const head *h = arg;
    (void)position;
    return fvi_pattern_stride_bits(block, h->residue, h->stride);
}

static void tile(const fvi_select *s, const fvi_query_tile *q, fvi_index *index) {
    index->seen = seen;
    index->seen_arg = s->head_state;
    fvi_pattern_alike(q, 0, index->blocks, index);
}

static const char *refuse(const double *value, const fvi_extent *extent) {
    if (extent->causal) {
        return "hepos: it strides over the source of a cross-attention; a causal prompt reads itself and has no such source";
    }
    return extent->h_q % (int64_t)value[0] != 0
               ? "hepos: stride must divide the number of query heads, so that the heads together "
                 "see each position"
               : NULL;
}

const fvi_selector fvi_select_hepos = {
    .query_block = 64, .scope = FVI_SCOPE_TILE, .head_bytes = head_bytes, .prepare = prepare, .tile = tile, .refuse = refuse};
