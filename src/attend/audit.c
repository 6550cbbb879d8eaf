/* audit.c - see audit.h. */
#include "attend/audit.h"

#include "attend/dense_rows.h"

#include <math.h>

/* Ascending; the same for all heads of a sequence, since dense rows are computed for all at once. */
static int64_t list_rows(const fvi_item *item, int32_t *row) {
    const int64_t last = fvi_max(0, item->n_q - FVI_AUDIT_LAST), parts = fvi_min(FVI_AUDIT_SAMPLED, last);
    int64_t n = 0;
    for (int64_t i = 0; i < parts; i++) {
        const int64_t from = i * last / parts, to = (i + 1) * last / parts;
        const uint64_t hash = ((uint64_t)i + 1) * 0x9e3779b97f4a7c15u;
        row[n++] = (int32_t)(from + (int64_t)((hash ^ hash >> 29) % (uint64_t)(to - from)));
    }
    for (int64_t i = last; i < item->n_q; i++) {
        row[n++] = (int32_t)i;
    }
    return n;
}

/* |out - dense| / |dense| of one row; 0 where both are zero. */
static double row_error(const fv_plan *plan, const fv_run *run, const fvi_item *item, int64_t head, int64_t i,
                        const float *dense) {
    const int64_t d = plan->problem.d_v, batch = plan->problem.packed ? 0 : item->sequence;
    float out[256]; /* d_v is at most 256 */
    fvi_load_row(plan->problem.out_dtype, fvi_tensor_at(&run->out, batch, head, item->q_start + i), run->out.stride[3], d, out);
    double difference = 0, size = 0;
    for (int64_t c = 0; c < d; c++) {
        difference += ((double)out[c] - dense[c]) * ((double)out[c] - dense[c]);
        size += (double)dense[c] * dense[c];
    }
    return difference == 0 ? 0 : size == 0 ? INFINITY : sqrt(difference / size);
}

static void audit_sequence(const fv_plan *plan, const fv_run *run, void *workspace, int64_t s, fv_run_stats *stats) {
    int32_t *row = fvi_dense_row_room(plan, workspace);
    float *dense = fvi_dense_out_room(plan, workspace);
    const fvi_item item = fvi_sequence_item(plan, run, s);
    const int64_t n = list_rows(&item, row), d = plan->problem.d_v;
    if (n == 0) {
        return;
    }
    fvi_dense_rows(plan, run, workspace, s, row, n, dense, stats);
    for (int64_t head = 0; head < plan->problem.h_q; head++) {
        double error = 0;
        for (int64_t k = 0; k < n; k++) {
            error += row_error(plan, run, &item, head, row[k], dense + (head * n + k) * d) / (double)n;
        }
        stats->worst_error = fmax(stats->worst_error, error);
        if (!(error <= (double)plan->problem.max_error)) {
            stats->dense_heads++;
            fvi_dense_head(plan, run, workspace, s, head, stats);
        }
    }
    stats->audited_heads += (uint64_t)plan->problem.h_q;
}

void fvi_audit(const fv_plan *plan, const fv_run *run, void *workspace, fv_run_stats *stats) {
    for (int64_t s = 0; s < plan->problem.b; s++) {
        audit_sequence(plan, run, workspace, s, stats);
    }
}
