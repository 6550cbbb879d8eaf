/* audit.h - no silent loss: some rows of each head are checked against dense attention, and a head that lost too much is run
 * densely.
 *
 * The rows are the last 64 and 64 before them, one in each equal part of the rest, drawn by a hash of head and part. A
 * head's error is the mean over its rows of |out - dense| / |dense| (Euclidean). */
#ifndef FVI_AUDIT_H
#define FVI_AUDIT_H

#include "attend/job.h"

enum { FVI_AUDIT_LAST = 64, FVI_AUDIT_SAMPLED = 64 };

void fvi_audit(const fv_plan *plan, const fv_run *run, void *workspace, fv_run_stats *stats);

#endif
