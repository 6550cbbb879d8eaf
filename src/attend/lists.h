/* lists.h - rows that fold keys of their own: those that few rows of a tile visit (split.h), 64 a leaf, ascending, multiplied in
 * place by the kernels of generated tokens. */
#ifndef FVI_LISTS_H
#define FVI_LISTS_H

#include "attend/tile.h"

/* A tile's: what scratch->listed has for each row of the item, of the index that it was taken from. */
typedef struct fvi_lists {
    const fv_plan *plan;
    const fv_run *run;
    const fvi_source *source;
    const fvi_item *item;
    const fvi_index *index;
    const fvi_scratch *scratch;
    fvi_row_place k, v;    /* set by fvi_lists_begin */
    bool k_apart, v_apart; /* there are kernels that read them there */
} fvi_lists;

void fvi_lists_begin(fvi_lists *l);
/* The keys of blocks from .. to - 1, FVI_LIST_BLOCKS at most; blocks come in ascending order. */
void fvi_lists_take(const fvi_lists *l, int64_t from, int64_t to);
/* Folds what waits; all of it is in scratch->total then. */
void fvi_lists_end(const fvi_lists *l);

#endif
