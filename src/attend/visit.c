/* visit.c - the index of a run, and nothing else of it. */
#include "attend/job.h"
#include "attend/walk.h"
#include "fovea/experimental.h"

typedef struct index_view {
    const fv_plan *plan;
    const fvi_index *index;
} index_view;

bool fv_index_sees(const fv_index_tile *tile, int64_t row, int64_t key) {
    const index_view *view = tile->inside;
    const fvi_index *index = view->index;
    int64_t position = tile->offset + row, block = key / FVI_BLOCK;
    uint64_t seen = index->key[block];
    if (fvi_index_apart(index, block)) {
        seen &= index->seen(index->seen_arg, position, block);
    }
    return seen >> (key % FVI_BLOCK) & 1 && fvi_rule_sees_all(&view->plan->rule, position, position, key, key + 1) &&
           fvi_rule_sees_all(&index->rule, position, position, key, key + 1);
}

static int64_t entries_of(const fvi_index *index) {
    if (index->entries == NULL) {
        return 0;
    }
    return fvi_max(0, fvi_min(index->entry_leaves.to * FVI_LEAF, index->entries->n) - index->entry_leaves.from * FVI_LEAF);
}

static fv_status visit_items(const fvi_job *j, fv_on_index on_index, void *user) {
    const fv_plan *plan = j->plan;
    fvi_scratch scratch;
    fvi_index index;
    fvi_scratch_cut(plan, j->run, j->workspace, 0, &scratch);
    for (int64_t i = 0; i < j->items; i++) {
        const fvi_item placed = fvi_job_item(j, i), *item = &placed;
        if (item->n_kv == 0) {
            continue;
        }
        fvi_walk_select(plan, j->run, j->workspace, item, &scratch, &index);
        index_view view = {plan, &index};
        fv_index_tile tile = {.sequence = item->sequence,
                              .head = item->head0,
                              .first = item->row0,
                              .n = item->n_rows,
                              .row = item->order == NULL ? NULL : item->order + item->row0,
                              .offset = item->offset,
                              .n_kv = item->n_kv,
                              .key = index.key,
                              .entries = entries_of(&index),
                              .fell_back = index.fell_back,
                              .inside = &view};
        if (on_index(user, &tile) != 0) {
            return fvi_fail(plan->ctx, FV_ERR_CANCELLED, "stopped by on_index at row %lld of head %lld", (long long)item->row0,
                            (long long)item->head0);
        }
    }
    return FV_OK;
}

fv_status fv_plan_index(fv_plan *plan, const fv_run *run, void *workspace, size_t workspace_bytes, fv_on_index on_index,
                        void *user) {
    if (!plan->indexed) {
        return fvi_fail(plan->ctx, FV_ERR_UNSUPPORTED, "the plan's method is a rule: it makes no index");
    }
    fv_status status = fvi_check_run(plan, run, workspace, workspace_bytes);
    if (status != FV_OK) {
        return status;
    }
    fvi_job j = fvi_job_begin(plan, run, workspace, plan->tile);
    return visit_items(&j, on_index, user);
}
