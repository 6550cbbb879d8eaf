/* s2.c - S2-Attention: local blocks, and a shard of the other blocks that differs from head to head.
 *
 * Lin, Zhang, Ge, Ren, Patra, Chaudhary, Peng, Song: S2-Attention: Hardware-Aware Context Sharding Among Attention Heads, 2024;
 * linxihui/dkernel, utils.py get_sparse_attn_mask, whose form is here: block b of keys is seen if it is one of the `local` last,
 * the own included, or if (b + head x step + offset) mod stride = 0, head the KV head (all query heads of a group see one shard),
 * step = max(1, stride / query heads). The paper is said to take the head off instead of adding it (not checked against the
 * text): the same shards, handed to heads in another order. The last `dense_heads` KV heads see all.
 *
 * Bidirectional, as in the code: with x the blocks beyond the local ones on either side, every stride-th, x mod stride = 0; heads
 * are alike there.
 *
 * `dense_every` = m makes layers m - 1, 2m - 1, ... dense (the paper mixes in dense layers; as Phi-3-small, trained with this
 * pattern, is said to place them); 0, the default: none. */
#include "select/pattern.h"

typedef struct head {
    int64_t block, local, stride, shift;
    bool dense, causal;
} head;

static size_t head_bytes(const double *value, const fvi_extent *extent) {
    (void)value;
    (void)extent;
    return sizeof(head);
}

static void prepare(const fvi_select *s) {
    const fvi_sight *sight = s->sight;
    int64_t stride = (int64_t)s->value[2], dense_heads = (int64_t)s->value[4], every = (int64_t)s->value[5];
    *(head *)s->head_state = (head){
        .block = (int64_t)s->value[0],
        .local = (int64_t)s->value[1],
        .stride = stride,
        .shift = sight->kv_head * fvi_max(1, stride / sight->h_q) + (int64_t)s->value[3],
        .dense = sight->kv_head >= sight->h_kv - dense_heads || (every > 0 && (sight->layer + 1) % every == 0),
        .causal = sight->causal,
    };
}

static bool sees_block(const head *h, int64_t own, int64_t b) {
    if (h->causal) {
        return own - b < h->local || (b + h->shift) % h->stride == 0;
    }
    int64_t beyond = (own > b ? own - b : b - own) - h->local + 1;
    return beyond <= 0 || beyond % h->stride == 0;
}

static uint64_t seen(const void *arg, int64_t position, int64_t block) {
    const head *h = arg;
    int64_t own = fvi_pattern_floor(position, h->block) / h->block, first = block * FVI_BLOCK;
    uint64_t bits = 0;
    for (int64_t b = first / h->block; b * h->block < first + FVI_BLOCK; b++) {
        bits |= sees_block(h, own, b) ? fvi_pattern_bits(block, b * h->block, (b + 1) * h->block) : 0;
    }
    return bits;
}

/* Rows of a tile that lie in one block of the pattern see the same blocks; else local blocks differ (and, bidirectional, all). */
static void tile(const fvi_select *s, const fvi_query_tile *q, fvi_index *index) {
    const head *h = s->head_state;
    int64_t end = fvi_pattern_end(s, q, index), first = fvi_pattern_floor(q->first, h->block);
    index->seen = seen;
    index->seen_arg = h;
    if (h->dense) {
        fvi_index_add_all(index);
    } else {
        int64_t near = h->causal ? fvi_max(first / h->block - h->local, 0) * h->block / FVI_BLOCK : 0;
        fvi_pattern_alike(q, 0, fvi_min(near, end), index);
        fvi_pattern_within(s, q, h->block, near, end, index);
    }
}

static const char *refuse(const double *value, const fvi_extent *extent) {
    return (int64_t)value[4] > extent->h_kv ? "s2-attention: there are fewer KV heads than dense_heads" : NULL;
}

const fvi_selector fvi_select_s2 = {
    .query_block = 64, .scope = FVI_SCOPE_TILE, .head_bytes = head_bytes, .prepare = prepare, .tile = tile, .refuse = refuse};
