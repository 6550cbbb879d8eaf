/* pattern.h - patterns that are fixed before a query is seen: a tile's index from what one row sees.
 *
 * A pattern says by index->seen which keys of a block the row at a position sees. Where the rows of a tile agree (far columns,
 * whole blocks) one row is asked; near the diagonal each is. What lies behind a row in a causal problem is hidden anyway, so a
 * pattern may show it. */
#ifndef FVI_PATTERN_H
#define FVI_PATTERN_H

#include "select/select.h"

/* The multiple of `block` at or before x, which may be negative: a row may stand before the first key. */
static inline int64_t fvi_pattern_floor(int64_t x, int64_t block) {
    int64_t over = x % block;
    return x - (over < 0 ? over + block : over);
}
/* Bits of block `b` that keys from..to-1 have. */
uint64_t fvi_pattern_bits(int64_t b, int64_t from, int64_t to);
/* Bits of block `b` that keys congruent to `residue` modulo `stride` have. */
uint64_t fvi_pattern_stride_bits(int64_t b, int64_t residue, int64_t stride);

/* Adds blocks from..to-1, those that exist, asking each row; index->seen is set. Tiles of at most 64 rows. Costs a call per row
 * and block. */
void fvi_pattern_rows(const fvi_select *s, const fvi_query_tile *q, int64_t from, int64_t to, fvi_index *index);
/* Adds blocks from..to-1, of which all rows of the tile see the same keys. */
void fvi_pattern_alike(const fvi_query_tile *q, int64_t from, int64_t to, fvi_index *index);
/* fvi_pattern_alike where all rows lie in the same one of blocks of `size` positions that make a pattern, else
 * fvi_pattern_rows. */
void fvi_pattern_within(const fvi_select *s, const fvi_query_tile *q, int64_t size, int64_t from, int64_t to, fvi_index *index);
/* One past the last block that a row of the tile can see. */
int64_t fvi_pattern_end(const fvi_select *s, const fvi_query_tile *q, const fvi_index *index);

#endif
