/* pattern.c - see pattern.h. */
#include "select/pattern.h"

uint64_t fvi_pattern_bits(int64_t b, int64_t from, int64_t to) {
    from = fvi_max(from - b * FVI_BLOCK, 0);
    to = fvi_min(to - b * FVI_BLOCK, FVI_BLOCK);
    return from < to ? UINT64_MAX >> (FVI_BLOCK - (to - from)) << from : 0;
}

uint64_t fvi_pattern_stride_bits(int64_t b, int64_t residue, int64_t stride) {
    uint64_t bits = 0;
    int64_t first = residue - b * FVI_BLOCK;
    for (int64_t j = first - fvi_pattern_floor(first, stride); j < FVI_BLOCK; j += stride) {
        bits |= UINT64_C(1) << j;
    }
    return bits;
}

int64_t fvi_pattern_end(const fvi_select *s, const fvi_query_tile *q, const fvi_index *index) {
    return s->sight->causal ? fvi_min(index->blocks, q->last / FVI_BLOCK + 1) : index->blocks;
}

void fvi_pattern_rows(const fvi_select *s, const fvi_query_tile *q, int64_t from, int64_t to, fvi_index *index) {
    uint64_t word[FVI_BLOCK];
    to = fvi_min(to, fvi_pattern_end(s, q, index));
    for (int64_t b = fvi_max(from, 0); b < to; b++) {
        uint64_t any = 0, differ = 0;
        for (int64_t i = q->first; i <= q->last; i++) {
            word[i - q->first] = index->seen(index->seen_arg, i, b);
            any |= word[i - q->first];
        }
        for (int64_t i = q->first; i <= q->last; i++) {
            uint64_t visible = s->sight->causal ? fvi_pattern_bits(b, 0, i + 1) : UINT64_MAX;
            differ |= any & ~word[i - q->first] & visible;
        }
        if (differ != 0) {
            fvi_index_add_apart(index, b, any);
        } else {
            index->key[b] |= any;
        }
    }
}

void fvi_pattern_alike(const fvi_query_tile *q, int64_t from, int64_t to, fvi_index *index) {
    to = fvi_min(to, index->blocks);
    for (int64_t b = fvi_max(from, 0); b < to; b++) {
        index->key[b] |= index->seen(index->seen_arg, q->last, b);
    }
}

void fvi_pattern_within(const fvi_select *s, const fvi_query_tile *q, int64_t size, int64_t from, int64_t to, fvi_index *index) {
    if (fvi_pattern_floor(q->first, size) == fvi_pattern_floor(q->last, size)) {
        fvi_pattern_alike(q, from, fvi_min(to, fvi_pattern_end(s, q, index)), index);
    } else {
        fvi_pattern_rows(s, q, from, to, index);
    }
}
