/* split.h - which keys of a tile are folded row by row: those that few of its rows visit, so that a product of the whole tile
 * with them would mostly be hidden. */
#ifndef FVI_SPLIT_H
#define FVI_SPLIT_H

#include "attend/walk.h"

/* Moves the keys that few rows of the item's tile visit from index->key to scratch->listed (blocks): what a row's own list has is
 * its word there. Blocks of whose other keys all rows visit are no longer apart. False, and nothing changed, where that does not
 * pay. Looks at this tile's index alone, and at all positions of the tile, whichever of them the run brings. An index with a
 * sieve is left as it is: the sieve asks for all scores of a leaf; so is one that weighs pairs, and one
 * whose keys are folded together. */
bool fvi_split(const fv_plan *plan, const fvi_item *item, const fvi_scratch *scratch, fvi_index *index);

#endif
