/* lists.h - rows that fold keys of their own: those that few rows of a tile visit (split.h), 64 a leaf, ascending, multiplied in
 * place by the kernels of generated tokens. */
#ifndef FVI_LISTS_H
#define FVI_LISTS_H

#include "attend/tile.h"

/* Folds what scratch->listed has for each row of the item, of the index that it was taken from, into scratch->total. */
void fvi_lists_run(const fv_plan *plan, const fv_run *run, const fvi_source *source, const fvi_item *item, const fvi_index *index,
                   const fvi_scratch *scratch);

#endif
