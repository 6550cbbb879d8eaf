/* run.c - hands a run's items, or pieces of items, to the threads; then what is done to the result. */
#include "attend/audit.h"
#include "attend/correct.h"
#include "attend/job.h"
#include "attend/strands.h"
#include "base/threads.h"

#include <string.h>

static void run_item(void *arg, int64_t i, int worker) {
    const fvi_job *j = arg;
    const fv_plan *plan = j->plan;
    const fvi_item placed = fvi_job_item(j, i), *item = &placed;
    int64_t rows = item->n_rows * plan->share;
    fvi_scratch scratch;
    fvi_scratch_cut(plan, j->run, j->workspace, worker, &scratch);
    fvi_fold_clear(plan, &scratch.total, rows);
    fvi_tile_load_queries(plan, j->run, item, &scratch);
    if (plan->indexed && item->n_kv > 0) {
        fvi_strands_run(plan, j->run, j->workspace, item, &scratch);
    } else if (!plan->indexed) {
        fvi_index index;
        fvi_walk_select(plan, j->run, j->workspace, item, &scratch, &index);
        for (int64_t from = 0; from < item->n_kv; from += FVI_PIECE) {
            int64_t to = fvi_min(from + FVI_PIECE, item->n_kv);
            if (from == 0) { /* to merge it with nothing would change nothing but the sign of a zero */
                fvi_walk_piece(plan, j->run, item, &index, from, to, &scratch, &scratch.total);
                continue;
            }
            fvi_fold_clear(plan, &scratch.piece, rows);
            fvi_walk_piece(plan, j->run, item, &index, from, to, &scratch, &scratch.piece);
            fvi_fold_merge(plan, &scratch.total, &scratch.piece, rows);
        }
    }
    fvi_tile_finish(plan, j->run, item, &scratch.total);
}

static fvi_fold partial_at(const fvi_job *j, int64_t piece) {
    const fv_plan *plan = j->plan;
    float *base = (float *)(j->workspace + plan->at.partial + (size_t)piece * plan->at.partial_bytes);
    int64_t rows = plan->partial_rows;
    return (fvi_fold){.out = base, .m = base + rows * plan->d_pad, .sum = base + rows * (plan->d_pad + 1)};
}

/* The item that piece number `piece` of the run belongs to: the last one that begins at or before it, empty ones aside. */
static fvi_item item_of(const fvi_job *j, int64_t piece) {
    int64_t low = 0, high = j->items;
    while (high - low > 1) {
        int64_t middle = low + (high - low) / 2;
        if (j->item[middle].piece0 <= piece) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return fvi_job_item(j, low);
}

static void run_piece(void *arg, int64_t i, int worker) {
    const fvi_job *j = arg;
    const fv_plan *plan = j->plan;
    const fvi_item placed = item_of(j, i), *item = &placed;
    int64_t from = (i - item->piece0) * FVI_PIECE;
    fvi_fold fold = partial_at(j, i);
    fvi_scratch scratch;
    fvi_scratch_cut(plan, j->run, j->workspace, worker, &scratch);
    fvi_fold_clear(plan, &fold, item->n_rows * plan->share);
    fvi_tile_load_queries(plan, j->run, item, &scratch);
    fvi_index index;
    fvi_walk_select(plan, j->run, j->workspace, item, &scratch, &index);
    fvi_walk_piece(plan, j->run, item, &index, from, fvi_min(from + FVI_PIECE, item->n_kv), &scratch, &fold);
}

static void finish_item(void *arg, int64_t i, int worker) {
    const fvi_job *j = arg;
    const fv_plan *plan = j->plan;
    const fvi_item placed = fvi_job_item(j, i), *item = &placed;
    int64_t rows = item->n_rows * plan->share;
    fvi_scratch scratch;
    fvi_scratch_cut(plan, j->run, j->workspace, worker, &scratch);
    fvi_fold_clear(plan, &scratch.total, rows);
    for (int64_t piece = 0; piece < fvi_pieces_of(item); piece++) {
        fvi_fold part = partial_at(j, item->piece0 + piece);
        fvi_fold_merge(plan, &scratch.total, &part, rows);
    }
    fvi_tile_finish(plan, j->run, item, &scratch.total);
}

/* Generated tokens are cut whenever there is room, so that a batch of uneven lengths leaves no thread idle; a prompt only where
 * its items are few. */
static bool cut_into_pieces(const fvi_job *j) {
    const fv_plan *plan = j->plan;
    if (plan->indexed) { /* an index is made once for all pieces */
        return false;
    }
    bool few = plan->problem.phase == FV_DECODE || j->items < 4 * plan->threads;
    return few && j->pieces > j->items && j->pieces <= plan->partials && j->q_block * plan->share <= plan->partial_rows;
}

static uint64_t eligible_pairs(const fvi_job *j) {
    uint64_t pairs = 0;
    for (int64_t i = 0; i < j->items; i++) {
        const fvi_item *item = &j->item[i];
        for (int64_t r = 0; r < item->n_rows; r++) {
            fvi_span span[2];
            int n = fvi_rule_spans(&j->plan->rule, item->offset + item->row0 + r, item->n_kv, span);
            for (int k = 0; k < n; k++) {
                pairs += (uint64_t)((span[k].to - span[k].from) * j->plan->share);
            }
        }
    }
    return pairs;
}

void fvi_job_run(fvi_job *j) { fvi_parallel(j->plan->ctx, j->items, run_item, j); }

fv_status fv_plan_run(fv_plan *plan, const fv_run *run, void *workspace, size_t workspace_bytes) {
    fv_status status = fvi_check_run(plan, run, workspace, workspace_bytes);
    if (status != FV_OK) {
        return status;
    }
    fvi_job j = fvi_job_begin(plan, run, workspace, fvi_fit_block(plan, run));
    if (cut_into_pieces(&j)) {
        fvi_parallel(plan->ctx, j.pieces, run_piece, &j);
        fvi_parallel(plan->ctx, j.items, finish_item, &j);
    } else {
        fvi_job_run(&j);
    }
    fv_run_stats stats = fvi_job_stats(&j);
    if (plan->choice.delta > 0) {
        fvi_correct(plan, run, workspace, &stats);
    }
    if (plan->problem.max_error > 0) {
        fvi_audit(plan, run, workspace, &stats);
    }
    if (fvi_cancelled(plan->ctx)) {
        return fvi_fail(plan->ctx, FV_ERR_CANCELLED, "cancelled");
    }
    if (run->stats != NULL) {
        stats.eligible_pairs = eligible_pairs(&j);
        *run->stats = stats;
    }
    return FV_OK;
}
