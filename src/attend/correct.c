/* correct.c - see correct.h. */
#include "attend/correct.h"

#include "attend/dense_rows.h"
#include "base/threads.h"

enum { TAIL = 128 };

int64_t fvi_correct_rows(int64_t gamma, int64_t n_q) { return fvi_min(n_q, n_q / gamma + 2 + gamma + TAIL); }

typedef struct correction {
    const fv_plan *plan;
    const fv_run *run;
    fvi_item item;
    const int32_t *row; /* (n) dense rows, ascending: anchors, then the tail */
    int64_t n, tail;    /* the tail begins at this row */
    const float *dense; /* (h_q, n, d_v) */
} correction;

static uint8_t *row_at(const correction *c, int64_t head, int64_t i) {
    int64_t batch = c->plan->problem.packed ? 0 : c->item.sequence;
    return fvi_tensor_at(&c->run->out, batch, head, c->item.q_start + i);
}

/* Rows from .. to - 1 take the difference of row `from`. */
static void shift_rows(const correction *c, int64_t head, int64_t from, int64_t to, const float *dense) {
    const fv_problem *p = &c->plan->problem;
    const int64_t stride = c->run->out.stride[3];
    float delta[256], row[256]; /* d_v is at most 256 */
    fvi_load_row(p->out_dtype, row_at(c, head, from), stride, p->d_v, delta);
    for (int64_t x = 0; x < p->d_v; x++) {
        delta[x] = dense[x] - delta[x];
    }
    fvi_store_row(p->out_dtype, dense, p->d_v, row_at(c, head, from), stride);
    for (int64_t i = from + 1; i < to; i++) {
        fvi_load_row(p->out_dtype, row_at(c, head, i), stride, p->d_v, row);
        for (int64_t x = 0; x < p->d_v; x++) {
            row[x] += delta[x];
        }
        fvi_store_row(p->out_dtype, row, p->d_v, row_at(c, head, i), stride);
    }
}

static void correct_head(void *arg, int64_t head, int worker) {
    const correction *c = arg;
    (void)worker;
    for (int64_t k = 0; k < c->n; k++) {
        int64_t next = k + 1 < c->n ? c->row[k + 1] : c->item.n_q;
        next = c->row[k] < c->tail ? fvi_min(next, c->tail) : c->row[k] + 1;
        shift_rows(c, head, c->row[k], next, c->dense + (head * c->n + k) * c->plan->problem.d_v);
    }
}

/* The first row, rows at positions that are multiples of gamma, and the tail. */
static int64_t list_rows(const fvi_item *item, int64_t gamma, int64_t tail, int32_t *row) {
    int64_t n = 0;
    for (int64_t i = 0; i < item->n_q; i++) {
        if (i == 0 || i >= tail || (item->offset + i) % gamma == 0) {
            row[n++] = (int32_t)i;
        }
    }
    return n;
}

void fvi_correct(const fv_plan *plan, const fv_run *run, void *workspace, fv_run_stats *stats) {
    const int64_t gamma = plan->choice.delta;
    for (int64_t s = 0; s < plan->problem.b; s++) {
        int32_t *row = fvi_dense_row_room(plan, workspace);
        float *dense = fvi_dense_out_room(plan, workspace);
        fvi_item item = fvi_sequence_item(plan, run, s);
        if (item.n_q == 0) {
            continue;
        }
        int64_t tail = fvi_max(0, item.n_q - ((item.offset + item.n_q) % gamma + TAIL));
        int64_t n = list_rows(&item, gamma, tail, row);
        fvi_dense_rows(plan, run, workspace, s, row, n, dense, stats);
        correction c = {plan, run, item, row, n, tail, dense};
        fvi_parallel(plan->ctx, plan->problem.h_q, correct_head, &c);
    }
}
