/* score.h - score parts: what happens to a tile of scaled dot products before they are weighed.
 *
 * A part is a function of (score tile, positions). To add one: a function here, and a line in fvi_score_parts. Scores are
 * logarithms to the base 2 from here to the end of the fold, so that weights are powers of 2: what a problem states as natural
 * logarithms is multiplied by FVI_LOG2E.
 */
#ifndef FVI_SCORE_H
#define FVI_SCORE_H

#include "attend/plan.h"
#include "attend/source.h"

/* A tile of scores: rows first .. first + n - 1 of an item against a leaf. */
typedef struct fvi_score_tile {
    const fv_plan *plan;
    const fv_run *run;
    const fvi_item *item;
    const fvi_leaf *leaf;
    int64_t leaf_key; /* number of the leaf's first key in the sequence, where its keys stand side by side */
    int64_t first, n;
    float *s;       /* (n, 64) */
    uint64_t *seen; /* (n): bit j: the row sees key j; a part may clear bits */
} fvi_score_tile;

static inline int64_t fvi_row_position(const fvi_item *item, int64_t share, int64_t row) {
    return item->offset + fvi_item_query(item, share, row);
}
static inline int64_t fvi_row_head(const fvi_item *item, int64_t share, int64_t row) { return item->head0 + row % share; }
static inline int64_t fvi_key_position(const fvi_leaf *leaf, int j) {
    return leaf->position != NULL ? leaf->position[j] : leaf->first + j;
}

/* Applies the parts that the problem asks for, in the header's order: soft cap, ALiBi, bias. */
void fvi_score_parts(const fvi_score_tile *tile);
/* Sets hidden scores to -inf: those whose bit in `seen` is clear. */
void fvi_score_hide(const fvi_score_tile *tile);
/* True if the bias hides the n keys from leaf_key on from all rows of the item: the leaf is as if it were not there. Ends at the
 * first row that sees one. */
bool fvi_score_hides_leaf(const fv_plan *plan, const fv_run *run, const fvi_item *item, int64_t leaf_key, int n);

#endif
