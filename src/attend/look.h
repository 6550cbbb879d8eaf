/* look.h - what a selector sees of a run: fvi_sight over the operands. */
#ifndef FVI_ATTEND_LOOK_H
#define FVI_ATTEND_LOOK_H

#include "attend/tile.h"

/* Behind a sight; lives as long as it does. */
typedef struct fvi_looker {
    const fv_plan *plan;
    const fv_run *run;
    const fvi_item *item;
    fvi_source source;
} fvi_looker;

/* The sight of the item's first query head. */
fvi_sight fvi_looker_open(fvi_looker *looker, const fv_plan *plan, const fv_run *run, const fvi_item *item,
                          const fvi_scratch *scratch);

#endif
