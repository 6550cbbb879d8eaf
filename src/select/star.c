/* star.c - Star Attention in one process: the context in blocks that see the anchor and themselves, then the query, which sees
 * all.
 *
 * Acharya, Jia, Ginsburg: Star Attention: Efficient LLM Inference over Long Sequences, 2024. Phase 1: the context is
 * cut into blocks; each but the first is encoded with the anchor, the first tokens of the first block, before it. The anchor
 * keeps its own positions (NVIDIA/Star-Attention, model.py, passes them), so at the first layer its keys are those that the first
 * block has, and since it sees nothing but itself in both, at every layer: phase 1 is the mask j <= i and (j < anchor or j in i's
 * block). Phase 2: the last `query` positions see everything, which is the LSE merge of all hosts' parts.
 *
 * block = 0 is the context's length / 4, rounded down as the code does for its 4 hosts; anchor = 0 a whole block. The lengths are
 * those of all that is there when a prompt ends: a prompt that follows on others continues their context.
 *
 * Waits for distribution: hosts of their own, the anchor's work repeated on each, and the merge over the wire. Here the anchor's
 * keys are made once. All heads are alike. Bidirectional: the whole own block. */
#include "select/pattern.h"

typedef struct layout {
    int64_t block, anchor, query; /* query: the first position of phase 2 */
} layout;

enum { DEFAULT_BLOCKS = 4 };

static size_t head_bytes(const double *value, const fvi_extent *extent) {
    (void)value;
    (void)extent;
    return sizeof(layout);
}

static void prepare(const fvi_select *s) {
    layout *l = s->head_state;
    int64_t block = (int64_t)s->value[0], anchor = (int64_t)s->value[1];
    l->query = fvi_max(s->sight->n_kv - (int64_t)s->value[2], 0);
    l->block = fvi_max(block > 0 ? block : l->query / DEFAULT_BLOCKS, 1);
    l->anchor = anchor > 0 ? fvi_min(anchor, l->block) : l->block;
}

static uint64_t seen(const void *arg, int64_t position, int64_t block) {
    const layout *l = arg;
    int64_t own = fvi_pattern_floor(position, l->block);
    return position >= l->query ? UINT64_MAX
                                : fvi_pattern_bits(block, 0, l->anchor) | fvi_pattern_bits(block, own, own + l->block);
}

static void tile(const fvi_select *s, const fvi_query_tile *q, fvi_index *index) {
    const layout *l = s->head_state;
    int64_t end = fvi_pattern_end(s, q, index), near = fvi_max(fvi_pattern_floor(q->first, l->block), 0) / FVI_BLOCK;
    index->seen = seen;
    index->seen_arg = l;
    if (q->first >= l->query) {
        fvi_index_add_all(index);
    } else if (q->last >= l->query) {
        fvi_pattern_rows(s, q, 0, end, index);
    } else {
        fvi_pattern_alike(q, 0, fvi_min(near, fvi_ceil_div(l->anchor, FVI_BLOCK)), index);
        fvi_pattern_within(s, q, l->block, near, (q->last + l->block - 1) / FVI_BLOCK + 1, index);
    }
}

const fvi_selector fvi_select_star = {
    .query_block = 64, .scope = FVI_SCOPE_PROMPT, .head_bytes = head_bytes, .prepare = prepare, .tile = tile};
