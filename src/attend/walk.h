/* walk.h - an item's index, and the walk over it: blocks piece by piece, then columns. */
#ifndef FVI_WALK_H
#define FVI_WALK_H

#include "attend/tile.h"

enum { FVI_BLOCK_KEYS = 40 }; /* a block of which more keys than this are visited is folded where it lies: see walk.c */

/* Sets what the item's rows are, once the head's prepass is done: the selector's order of queries, and their positions. */
void fvi_walk_place(const fv_plan *plan, void *workspace, fvi_item *item);
/* The item's index: asks the selector, and takes out what the problem's own masks hide. */
void fvi_walk_select(const fv_plan *plan, const fv_run *run, void *workspace, const fvi_item *item, const fvi_scratch *scratch,
                     fvi_index *index);
/* The prepass of one query head of one sequence; `item` names both. */
void fvi_walk_prepare(const fv_plan *plan, const fv_run *run, void *workspace, const fvi_item *item, const fvi_scratch *scratch);
/* Folds the blocks of keys [from, to) of the item's sequence (a piece: from is a multiple of 4096) into `fold`. */
void fvi_walk_piece(const fv_plan *plan, const fv_run *run, const fvi_item *item, const fvi_index *index, int64_t from,
                    int64_t to, const fvi_scratch *scratch, fvi_fold *fold);
/* Whether the piece has blocks that are visited. */
bool fvi_walk_has_blocks(const fvi_index *index, int64_t from, int64_t to);
/* Folds the columns of all blocks of which few keys are visited into scratch->total, 4096 at a time. */
void fvi_walk_columns(const fv_plan *plan, const fv_run *run, const fvi_item *item, const fvi_index *index,
                      const fvi_scratch *scratch);

#endif
