/* dense_rows.c - see dense_rows.h. A plan that needs it has a second one of its own, dense and with an item for each head. */
#include "attend/dense_rows.h"

int32_t *fvi_dense_row_room(const fv_plan *plan, void *workspace) {
    return (int32_t *)((uint8_t *)workspace + plan->at.dense_row);
}

float *fvi_dense_out_room(const fv_plan *plan, void *workspace) { return (float *)((uint8_t *)workspace + plan->at.dense_out); }

static void add_stats(fv_run_stats *stats, const fvi_job *j) {
    const fv_run_stats more = fvi_job_stats(j);
    stats->visited_pairs += more.visited_pairs;
    stats->exact_pairs += more.exact_pairs;
    stats->k_rows += more.k_rows;
    stats->v_rows += more.v_rows;
}

/* Items of n rows of one head, late ones first. */
static void list_head(fvi_job *j, fvi_item item, int64_t head, int64_t n) {
    const fv_plan *dense = j->plan;
    item.head0 = head;
    item.kv_head = head / dense->group;
    for (int64_t block = fvi_ceil_div(n, dense->q_block) - 1; block >= 0; block--) {
        item.row0 = block * dense->q_block;
        item.n_rows = fvi_min(dense->q_block, n - item.row0);
        fvi_job_add(j, &item);
    }
}

void fvi_dense_rows(const fv_plan *plan, const fv_run *run, void *workspace, int64_t sequence, const int32_t *row, int64_t n,
                    float *out, fv_run_stats *stats) {
    const fv_problem *p = &plan->problem;
    fv_run dense = *run;
    dense.out = fv_tensor_view(out, FV_F32, 1, p->h_q, n, p->d_v);
    dense.lse = NULL;
    fvi_job j = fvi_job_empty(plan->dense, &dense, (uint8_t *)workspace + plan->at.dense);
    fvi_item item = fvi_sequence_item(plan->dense, run, sequence);
    item.order = row;
    item.compact = true;
    for (int64_t head = 0; head < p->h_q; head++) {
        list_head(&j, item, head, n);
    }
    fvi_job_run(&j);
    add_stats(stats, &j);
}

void fvi_dense_head(const fv_plan *plan, const fv_run *run, void *workspace, int64_t sequence, int64_t head,
                    fv_run_stats *stats) {
    fvi_job j = fvi_job_empty(plan->dense, run, (uint8_t *)workspace + plan->at.dense);
    fvi_item item = fvi_sequence_item(plan->dense, run, sequence);
    list_head(&j, item, head, item.n_q);
    fvi_job_run(&j);
    add_stats(stats, &j);
}
