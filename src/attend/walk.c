/* walk.c - see walk.h. */
#include "attend/walk.h"

#include "attend/look.h"
#include "attend/products.h"
#include "attend/straight.h"

fvi_source fvi_walk_source(const fv_plan *plan, const fv_run *run, const fvi_item *item) {
    return (fvi_source){run->cache,    run->layer,    &run->k,   &run->v, plan->problem.packed ? 0 : item->sequence,
                        item->k_start, item->kv_head, item->n_kv};
}

fvi_query_tile fvi_walk_tile(const fv_plan *plan, const fvi_item *item) {
    int64_t first = item->first;
    fvi_query_tile tile = {.first = first, .last = item->last, .n_kv = item->n_kv, .kv_head = item->kv_head};
    if (item->order != NULL) {
        tile.row = item->order + item->row0;
        tile.rows = item->n_rows;
    } else if (plan->indexed) {
        tile.first -= first >= 0 ? first % plan->tile : plan->tile - 1 - (-first - 1) % plan->tile;
        tile.last = tile.first + plan->tile - 1;
    }
    return tile;
}

static void *head_state(const fv_plan *plan, const fv_run *run, void *workspace, const fvi_item *item) {
    int64_t head = item->sequence * plan->problem.h_q + item->head0;
    uint8_t *first = plan->choice.selector->steps ? run->state : (uint8_t *)workspace + plan->at.head;
    return first + (size_t)head * plan->at.head_bytes;
}

static fvi_select select_of(const fv_plan *plan, const fv_run *run, void *workspace, const fvi_item *item, const fvi_sight *sight,
                            const fvi_scratch *scratch) {
    fvi_select select = {.value = plan->choice.value,
                         .sight = sight,
                         .head_state = head_state(plan, run, workspace, item),
                         .scratch = scratch->select,
                         .seen_state = scratch->seen_state};
    if (plan->choice.profile != NULL) {
        select.number = fv_profile_get(plan->choice.profile, sight->layer, sight->head, &select.numbers);
    }
    return select;
}

void fvi_walk_place(const fv_plan *plan, const fv_run *run, void *workspace, fvi_item *item) {
    const fvi_selector *selector = plan->choice.selector;
    if (selector->order != NULL && item->n_kv > 0) { /* there is no prepass without keys */
        item->order = selector->order(head_state(plan, run, workspace, item));
    }
    item->first = item->offset + item->row0;
    item->last = item->first + item->n_rows - 1;
    if (item->order == NULL) {
        return;
    }
    item->first = INT64_MAX;
    item->last = INT64_MIN;
    for (int64_t r = 0; r < item->n_rows; r++) {
        int64_t position = item->offset + item->order[item->row0 + r];
        item->first = fvi_min(item->first, position);
        item->last = fvi_max(item->last, position);
    }
}

static void call_tile(const fv_plan *plan, const fv_run *run, void *workspace, const fvi_item *item, const fvi_scratch *scratch,
                      const fvi_query_tile *tile, fvi_index *index) {
    const fvi_choice *choice = &plan->choice;
    if (choice->break_even > 0 && tile->last < choice->break_even && !plan->places) { /* rows may stand before key 0 */
        fvi_index_add_all(index);
        index->fell_back = true;
        return;
    }
    fvi_looker looker;
    fvi_sight sight = fvi_looker_open(&looker, plan, run, item, scratch);
    fvi_select select = select_of(plan, run, workspace, item, &sight, scratch);
    choice->selector->tile(&select, tile, index);
}

void fvi_walk_select(const fv_plan *plan, const fv_run *run, void *workspace, const fvi_item *item, const fvi_scratch *scratch,
                     fvi_index *index) {
    fvi_query_tile tile = fvi_walk_tile(plan, item);
    if (!plan->indexed) {
        fvi_index chosen;
        plan->choice.selector->rule(plan->choice.value, &tile, &chosen);
        fvi_index_under_rule(&chosen, &plan->rule, &tile, index);
        return;
    }
    double began = fvi_seconds();
    index->blocks = fvi_ceil_div(item->n_kv, FVI_BLOCK);
    index->key = scratch->words;
    index->apart = scratch->apart;
    fvi_index_clear(index);
    call_tile(plan, run, workspace, item, scratch, &tile, index);
    fvi_index_trim(index, &plan->rule, &tile);
    scratch->stats->tiles++;
    scratch->stats->fallback_tiles += index->fell_back;
    scratch->stats->select_seconds += fvi_seconds() - began;
}

void fvi_walk_prepare(const fv_plan *plan, const fv_run *run, void *workspace, const fvi_item *item, const fvi_scratch *scratch) {
    double began = fvi_seconds();
    fvi_looker looker;
    fvi_sight sight = fvi_looker_open(&looker, plan, run, item, scratch);
    fvi_select select = select_of(plan, run, workspace, item, &sight, scratch);
    plan->choice.selector->prepare(&select);
    scratch->stats->select_seconds += fvi_seconds() - began;
}

void fvi_walk_piece(const fv_plan *plan, const fv_run *run, const fvi_item *item, const fvi_index *index, int64_t from,
                    int64_t to, const fvi_scratch *scratch, fvi_fold *fold) {
    fvi_source source = fvi_walk_source(plan, run, item);
    int64_t most = fvi_products_batch(plan, scratch, fvi_source_in_place(&source));
    for (int k = 0; k < index->n; k++) {
        int64_t leaf = fvi_max(index->span[k].from, from / FVI_LEAF),
                end = fvi_min(index->span[k].to, fvi_ceil_div(to, FVI_LEAF));
        for (int64_t n; leaf < end; leaf += n) {
            n = fvi_min(most, end - leaf);
            int done = fvi_straight_blocks(plan, item, &source, index, leaf, (int)n, scratch, fold);
            if (done < n) {
                fvi_tile_blocks(plan, run, item, &source, index, leaf + done, (int)n - done, scratch, fold);
            }
        }
    }
}
