/* dense_rows.h - dense attention for some rows of a run, beside what its method does: for corrections and audits. */
#ifndef FVI_DENSE_ROWS_H
#define FVI_DENSE_ROWS_H

#include "attend/job.h"

/* Dense attention of the sequence's query rows row[0..n), ascending, all heads, to out (h_q, n, d_v) in f32. n is at most
 * plan->dense_rows. Adds what it visits to *stats. */
void fvi_dense_rows(const fv_plan *plan, const fv_run *run, void *workspace, int64_t sequence, const int32_t *row, int64_t n,
                    float *out, fv_run_stats *stats);
/* The same for all rows of one head, to the run's own output. */
void fvi_dense_head(const fv_plan *plan, const fv_run *run, void *workspace, int64_t sequence, int64_t head, fv_run_stats *stats);
/* Room for row numbers, and for rows of dense output, in the workspace. */
int32_t *fvi_dense_row_room(const fv_plan *plan, void *workspace);
float *fvi_dense_out_room(const fv_plan *plan, void *workspace);

#endif
