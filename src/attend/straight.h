/* straight.h - the common case of generated tokens: whole leaves, all seen by all rows, whose scores need nothing but weighing.
 */
#ifndef FVI_STRAIGHT_H
#define FVI_STRAIGHT_H

#include "attend/tile.h"

/* Folds leaves from .. from + n - 1 of a rule selector's index into `fold`, as fvi_tile_blocks would, if they are of this kind.
 * Returns how many it folded: the first ones, or none. n is at most FVI_BATCH. */
int fvi_straight_blocks(const fv_plan *plan, const fvi_item *item, const fvi_source *source, const fvi_index *index, int64_t from,
                        int n, const fvi_scratch *scratch, fvi_fold *fold);

#endif
