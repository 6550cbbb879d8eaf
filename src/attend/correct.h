/* correct.h - Delta Attention: a correction over any selection of keys.
 *
 * Willette, Lee, Hwang: Delta Attention: Fast and Accurate Sparse Attention Inference by Delta Correction, 2025. Every gamma-th
 * row is computed densely too; what the selection lost there, dense - sparse, is added to that row and to the gamma - 1 after it
 * (equation 6). The last rows, n % gamma + 128 of them, are dense, as in the official code. Deviations: rows before the first
 * multiple of gamma of a prompt that goes on take its first row as theirs; log-sum-exps stay those of the selection, but
 * for rows that are dense. */
#ifndef FVI_CORRECT_H
#define FVI_CORRECT_H

#include "attend/job.h"

/* Dense rows that a correction of n_q rows needs at most. */
int64_t fvi_correct_rows(int64_t gamma, int64_t n_q);
void fvi_correct(const fv_plan *plan, const fv_run *run, void *workspace, fv_run_stats *stats);

#endif
