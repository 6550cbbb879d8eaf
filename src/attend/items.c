/* items.c - cuts a run into items: see job.h. */
#include "attend/job.h"
#include "attend/walk.h"
#include "base/threads.h"

#include <string.h>

/* The item without its rows: lengths and places of a sequence. */
fvi_item fvi_sequence_item(const fv_plan *plan, const fv_run *run, int64_t s) {
    fvi_item item = {.sequence = s, .n_q = run->q.shape[2], .n_kv = fvi_keys_of(run)};
    if (plan->problem.packed) {
        item.q_start = run->q_start[s];
        item.k_start = run->k_start[s];
        item.n_q = run->q_start[s + 1] - run->q_start[s];
        item.n_kv = run->k_start[s + 1] - run->k_start[s];
    } else if (run->kv_length != NULL) {
        item.n_kv = run->kv_length[s];
    }
    item.offset = plan->problem.offset_set ? plan->problem.offset : item.n_kv - item.n_q;
    return item;
}

static int64_t count_items(const fv_plan *plan, const fv_run *run, int64_t q_block) {
    int64_t items = 0;
    for (int64_t s = 0; s < plan->problem.b; s++) {
        items += plan->problem.h_q / plan->share * fvi_ceil_div(fvi_sequence_item(plan, run, s).n_q, q_block);
    }
    return items;
}

int64_t fvi_fit_block(const fv_plan *plan, const fv_run *run) {
    int64_t q_block = plan->q_block, least = plan->indexed ? plan->tile : fvi_ceil_div(FVI_PARTIAL_ROWS, plan->share);
    while (q_block > 1 && q_block >= 2 * least && count_items(plan, run, q_block) < 4 * plan->threads) {
        q_block /= 2;
    }
    return q_block;
}

void fvi_job_add(fvi_job *j, fvi_item *item) {
    item->piece0 = j->pieces;
    j->pieces += fvi_pieces_of(item);
    j->item[j->items++] = *item;
}

/* Late rows of a causal prompt see most keys: they go first, so that threads end together. */
static void list_items(fvi_job *j) {
    int64_t q_block = j->q_block;
    for (int64_t s = 0; s < j->plan->problem.b; s++) {
        fvi_item item = fvi_sequence_item(j->plan, j->run, s);
        for (int64_t block = fvi_ceil_div(item.n_q, q_block) - 1; block >= 0; block--) {
            item.row0 = block * q_block;
            item.n_rows = fvi_min(q_block, item.n_q - item.row0);
            for (item.kv_head = 0; item.kv_head < j->plan->problem.h_kv; item.kv_head++) {
                item.head0 = item.kv_head * j->plan->share;
                fvi_job_add(j, &item);
            }
        }
    }
}

/* Head by head, since a head's tiles share columns, and cut at absolute multiples of the selector's block: of positions, or of
 * the places in its order. */
static void list_indexed(fvi_job *j) {
    const fv_plan *plan = j->plan;
    const int64_t q_block = j->q_block;
    for (int64_t s = 0; s < plan->problem.b; s++) {
        fvi_item item = fvi_sequence_item(plan, j->run, s);
        int64_t start = plan->choice.selector->order == NULL ? item.offset : 0;
        for (item.head0 = 0; item.head0 < plan->problem.h_q; item.head0++) {
            item.kv_head = item.head0 / plan->group;
            for (int64_t end = item.n_q; end > 0; end = item.row0) {
                int64_t last = start + end - 1;
                int64_t into = last >= 0 ? last % q_block : q_block - 1 - (-last - 1) % q_block;
                item.row0 = fvi_max(0, end - 1 - into);
                item.n_rows = end - item.row0;
                fvi_job_add(j, &item);
            }
        }
    }
}

static void prepare_head(void *arg, int64_t i, int worker) {
    const fvi_job *j = arg;
    fvi_item item = fvi_sequence_item(j->plan, j->run, i / j->plan->problem.h_q);
    item.head0 = i % j->plan->problem.h_q;
    item.kv_head = item.head0 / j->plan->group;
    fvi_scratch scratch;
    fvi_scratch_cut(j->plan, j->run, j->workspace, worker, &scratch);
    if (item.n_q > 0 && item.n_kv > 0) {
        fvi_walk_prepare(j->plan, j->run, j->workspace, &item, &scratch);
    }
}

fvi_item fvi_job_item(const fvi_job *j, int64_t i) {
    fvi_item item = j->item[i];
    fvi_walk_place(j->plan, j->run, j->workspace, &item);
    return item;
}

fvi_job fvi_job_empty(const fv_plan *plan, const fv_run *run, void *workspace) {
    fvi_job j = {.plan = plan, .run = run, .workspace = workspace, .item = (fvi_item *)((uint8_t *)workspace + plan->at.items)};
    memset(j.workspace + plan->at.stats, 0, (size_t)plan->threads * FVI_STATS_BYTES);
    return j;
}

/* Lists the items of a run whose operands were checked, and does the selector's prepass. */
fvi_job fvi_job_begin(const fv_plan *plan, const fv_run *run, void *workspace, int64_t q_block) {
    fvi_job j = fvi_job_empty(plan, run, workspace);
    j.q_block = q_block;
    if (plan->indexed) {
        list_indexed(&j);
    } else {
        list_items(&j);
    }
    if (plan->choice.selector->prepare != NULL) {
        fvi_parallel(plan->ctx, plan->problem.b * plan->problem.h_q, prepare_head, &j);
    }
    return j;
}

fv_run_stats fvi_job_stats(const fvi_job *j) {
    fv_run_stats sum = {0};
    for (int w = 0; w < j->plan->threads; w++) {
        const fv_run_stats *s = (const fv_run_stats *)(j->workspace + j->plan->at.stats + (size_t)w * FVI_STATS_BYTES);
        sum.visited_pairs += s->visited_pairs;
        sum.exact_pairs += s->exact_pairs;
        sum.entry_pairs += s->entry_pairs;
        sum.k_rows += s->k_rows;
        sum.v_rows += s->v_rows;
        sum.tiles += s->tiles;
        sum.fallback_tiles += s->fallback_tiles;
        sum.select_seconds += s->select_seconds;
    }
    return sum;
}
