/* power.c - PowerAttention: sinks, a window, and blocks at distances that are powers of two.
 *
 * Chen, Xu, An, Wang, Zhang, Chen, Liang, Wei, Liang, Xiao, Wang: PowerAttention: Exponentially Scaling of Receptive Fields for
 * Effective Sparse Attention, 2025, section 3.3 and Algorithm 1, which works on blocks: with x the query's block less the key's,
 * the pair is seen if x < window, x & (x - 1) = 0 or the key's block is one of the first `sinks`. Defaults: blocks of 256, 5 in
 * the window, 1 of sinks, which is about 10 of 128 at 32K, as the paper counts. A key n blocks away is reached within as many
 * layers as n has bits. The official code is not public where we could look;
 * section 3.3 was read, Algorithm 1 only as others repeat it.
 *
 * All heads are alike. Bidirectional, which the paper does not have: distances to both sides. */
#include "select/pattern.h"

static uint64_t seen(const void *arg, int64_t position, int64_t block) {
    const double *value = arg;
    int64_t size = (int64_t)value[0], window = (int64_t)value[1], sinks = (int64_t)value[2];
    int64_t own = fvi_pattern_floor(position, size) / size, first = block * FVI_BLOCK;
    uint64_t bits = 0;
    for (int64_t b = first / size; b * size < first + FVI_BLOCK; b++) {
        int64_t x = own > b ? own - b : b - own;
        bool sees_it = x < window || (x & (x - 1)) == 0 || b < sinks;
        bits |= sees_it ? fvi_pattern_bits(block, b * size, (b + 1) * size) : 0;
    }
    return bits;
}

static void tile(const fvi_select *s, const fvi_query_tile *q, fvi_index *index) {
    int64_t size = (int64_t)s->value[0], end = fvi_pattern_end(s, q, index);
    index->seen = seen;
    index->seen_arg = s->value;
    fvi_pattern_within(s, q, size, 0, end, index);
}

const fvi_selector fvi_select_power = {.query_block = 64, .scope = FVI_SCOPE_TILE, .tile = tile};
