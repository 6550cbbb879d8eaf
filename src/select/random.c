/* random.c - keys at random: the yardstick that any selection has to beat, and the load that the executor is measured with.
 *
 * No paper. Blocks of 64 keys are drawn for each head and query tile, or single columns for each head, by a hash of their
 * numbers; each tile's own block and the first one are always there, so that no row is empty. */
#include "select/select.h"

enum { DENSITY, COLUMNS, SEED };

/* Uniform in [0, 1): splitmix64 of the four numbers. */
static double draw(uint64_t seed, uint64_t head, uint64_t tile, uint64_t what) {
    uint64_t x =
        seed * 0x9e3779b97f4a7c15u ^ head * 0xbf58476d1ce4e5b9u ^ tile * 0x94d049bb133111ebu ^ what * 0xd6e8feb86659fd93u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return (double)((x ^ x >> 31) >> 11) * 0x1p-53;
}

static size_t head_bytes(const double *value, const fvi_extent *extent) {
    (void)value;
    return (size_t)fvi_ceil_div(extent->n_kv, FVI_BLOCK) * sizeof(uint64_t);
}

/* Columns are the same for all tiles of a head. */
static void prepare(const fvi_select *s) {
    uint64_t *column = s->head_state;
    for (int64_t b = 0; s->value[COLUMNS] != 0 && b < fvi_ceil_div(s->sight->n_kv, FVI_BLOCK); b++) {
        column[b] = 0;
        for (int j = 0; j < FVI_BLOCK; j++) {
            double x = draw((uint64_t)s->value[SEED], (uint64_t)s->sight->head, UINT64_MAX, (uint64_t)(b * FVI_BLOCK + j));
            column[b] |= (uint64_t)(x < s->value[DENSITY]) << j;
        }
    }
}

static void tile(const fvi_select *s, const fvi_query_tile *q, fvi_index *index) {
    const int64_t end = s->sight->causal ? fvi_min(index->blocks, q->last / FVI_BLOCK + 1) : index->blocks;
    for (int64_t b = 0; b < end; b++) {
        uint64_t tile = (uint64_t)(q->first / FVI_BLOCK);
        if (s->value[COLUMNS] != 0) {
            index->key[b] |= ((const uint64_t *)s->head_state)[b];
        } else if (draw((uint64_t)s->value[SEED], (uint64_t)s->sight->head, tile, (uint64_t)b) < s->value[DENSITY]) {
            fvi_index_add_block(index, b);
        }
    }
    fvi_index_add(index, 0, FVI_BLOCK);
    fvi_index_add(index, q->first, q->last + 1);
}

const fvi_selector fvi_select_random = {
    .query_block = 64, .scope = FVI_SCOPE_TILE, .head_bytes = head_bytes, .prepare = prepare, .tile = tile};
