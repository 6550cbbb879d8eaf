/* walk.h - an item's index, and the walk over a rule selector's. That over bitmaps is in strands.h. */
#ifndef FVI_WALK_H
#define FVI_WALK_H

#include "attend/tile.h"

/* Sets what the item's rows are, once the head's prepass is done: the selector's order of queries, and their positions. */
void fvi_walk_place(const fv_plan *plan, const fv_run *run, void *workspace, fvi_item *item);
/* The item's tile of queries: whole, whatever the run brings of it. */
fvi_query_tile fvi_walk_tile(const fv_plan *plan, const fvi_item *item);
/* The item's index: asks the selector, and takes out what the problem's own masks hide. */
void fvi_walk_select(const fv_plan *plan, const fv_run *run, void *workspace, const fvi_item *item, const fvi_scratch *scratch,
                     fvi_index *index);
/* The prepass of one query head of one sequence; `item` names both. */
void fvi_walk_prepare(const fv_plan *plan, const fv_run *run, void *workspace, const fvi_item *item, const fvi_scratch *scratch);
/* Where the item's keys and values are. */
fvi_source fvi_walk_source(const fv_plan *plan, const fv_run *run, const fvi_item *item);
/* Folds what a rule selector's index has of the keys [from, to) of the item's sequence (a piece: from is a multiple of 4096) into
 * `fold`. */
void fvi_walk_piece(const fv_plan *plan, const fv_run *run, const fvi_item *item, const fvi_index *index, int64_t from,
                    int64_t to, const fvi_scratch *scratch, fvi_fold *fold);

#endif
