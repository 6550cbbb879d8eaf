/* strands.h - the walk over the bitmaps of an index selector, for several tiles of a query head side by side: what one of them
 * opens, its neighbours that visit the same keys find open. */
#ifndef FVI_STRANDS_H
#define FVI_STRANDS_H

#include "attend/walk.h"

/* Selects, folds and finishes the item: up to FVI_STRANDS tiles, the queries of which stand in `scratch`. */
void fvi_strands_run(const fv_plan *plan, const fv_run *run, void *workspace, const fvi_item *item, const fvi_scratch *scratch);

#endif
