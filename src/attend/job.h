/* job.h - one run in progress: its items, and who lists and runs them. */
#ifndef FVI_JOB_H
#define FVI_JOB_H

#include "attend/tile.h"

typedef struct fvi_job {
    const fv_plan *plan;
    const fv_run *run;
    uint8_t *workspace;
    fvi_item *item;
    int64_t items, pieces; /* pieces: of all items together */
    int64_t q_block;       /* positions of an item */
} fvi_job;

fv_status fvi_check_run(const fv_plan *plan, const fv_run *run, const void *workspace, size_t bytes);

static inline int64_t fvi_keys_of(const fv_run *run) {
    return run->cache != NULL ? fv_cache_length(run->cache, run->layer) : run->k.shape[2];
}
/* The item without its rows: lengths and places of a sequence. */
fvi_item fvi_sequence_item(const fv_plan *plan, const fv_run *run, int64_t s);
static inline int64_t fvi_pieces_of(const fvi_item *item) { return fvi_ceil_div(item->n_kv, FVI_PIECE); }

/* Positions of an item that keep all threads busy; bits do not depend on it. */
int64_t fvi_fit_block(const fv_plan *plan, const fv_run *run);
/* Lists the items of a run whose operands were checked, and does the selector's prepass. */
fvi_job fvi_job_begin(const fv_plan *plan, const fv_run *run, void *workspace, int64_t q_block);
/* The same of a run of which the caller lists the items. */
fvi_job fvi_job_empty(const fv_plan *plan, const fv_run *run, void *workspace);
void fvi_job_add(fvi_job *job, fvi_item *item);
/* Item number i, its rows known. */
fvi_item fvi_job_item(const fvi_job *job, int64_t i);
/* Runs whole items. */
void fvi_job_run(fvi_job *job);
/* What all threads counted. */
fv_run_stats fvi_job_stats(const fvi_job *job);

#endif
