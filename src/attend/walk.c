/* walk.c - see walk.h.
 *
 * A block of which more than FVI_BLOCK_KEYS keys are visited is folded where it lies, hidden keys and all; the keys of others are
 * put side by side, 64 a leaf. The number is about where both cost the same. It is fixed, and looks at the index alone: which
 * way a key is folded never depends on where a prompt was cut. */
#include "attend/walk.h"

#include "attend/look.h"

static fvi_source source_of(const fv_plan *plan, const fv_run *run, const fvi_item *item) {
    return (fvi_source){run->cache,    run->layer,    &run->k,   &run->v, plan->problem.packed ? 0 : item->sequence,
                        item->k_start, item->kv_head, item->n_kv};
}

static fvi_query_tile tile_of(const fv_plan *plan, const fvi_item *item) {
    int64_t first = item->first;
    fvi_query_tile tile = {.first = first, .last = item->last, .n_kv = item->n_kv, .kv_head = item->kv_head};
    if (item->order != NULL) {
        tile.row = item->order + item->row0;
        tile.rows = item->n_rows;
    } else if (plan->indexed) {
        tile.first -= first >= 0 ? first % plan->q_block : plan->q_block - 1 - (-first - 1) % plan->q_block;
        tile.last = tile.first + plan->q_block - 1;
    }
    return tile;
}

static void *head_state(const fv_plan *plan, void *workspace, const fvi_item *item) {
    int64_t head = item->sequence * plan->problem.h_q + item->head0;
    return (uint8_t *)workspace + plan->at.head + (size_t)head * plan->at.head_bytes;
}

static fvi_select select_of(const fv_plan *plan, void *workspace, const fvi_item *item, const fvi_sight *sight,
                            const fvi_scratch *scratch) {
    fvi_select select = {
        .value = plan->choice.value, .sight = sight, .head_state = head_state(plan, workspace, item), .scratch = scratch->select};
    if (plan->choice.profile != NULL) {
        select.number = fv_profile_get(plan->choice.profile, sight->layer, sight->head, &select.numbers);
    }
    return select;
}

void fvi_walk_place(const fv_plan *plan, void *workspace, fvi_item *item) {
    const fvi_selector *selector = plan->choice.selector;
    item->first = item->offset + item->row0;
    item->last = item->first + item->n_rows - 1;
    item->order = NULL;
    if (selector->order == NULL || item->n_kv == 0) { /* there is no prepass without keys */
        return;
    }
    item->order = selector->order(head_state(plan, workspace, item));
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
    if (tile->last < choice->break_even) {
        fvi_index_add_all(index);
        index->fell_back = true;
        return;
    }
    fvi_looker looker;
    fvi_sight sight = fvi_looker_open(&looker, plan, run, item, scratch);
    fvi_select select = select_of(plan, workspace, item, &sight, scratch);
    choice->selector->tile(&select, tile, index);
}

void fvi_walk_select(const fv_plan *plan, const fv_run *run, void *workspace, const fvi_item *item, const fvi_scratch *scratch,
                     fvi_index *index) {
    fvi_query_tile tile = tile_of(plan, item);
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
    fvi_select select = select_of(plan, workspace, item, &sight, scratch);
    plan->choice.selector->prepare(&select);
    scratch->stats->select_seconds += fvi_seconds() - began;
}

static bool as_block(const fvi_index *index, int64_t b) { return __builtin_popcountll(index->key[b]) > FVI_BLOCK_KEYS; }

bool fvi_walk_has_blocks(const fvi_index *index, int64_t from, int64_t to) {
    bool has = index->blocks == 0;
    for (int64_t b = from / FVI_BLOCK; b < fvi_min(fvi_ceil_div(to, FVI_BLOCK), index->blocks) && !has; b++) {
        has = as_block(index, b);
    }
    return has;
}

/* Leaves that may be open at once: one where they are packed or gathered, since scratch has room for one. */
static int64_t batch_of(const fv_plan *plan, const fvi_source *source) { return fvi_source_in_place(source) ? plan->batch : 1; }

/* The span of blocks to be folded that begins at or after `from`, before `to`. */
static fvi_span next_span(const fvi_index *index, int64_t from, int64_t to) {
    while (from < to && !as_block(index, from)) {
        from++;
    }
    int64_t end = from;
    while (end < to && index->key[end] == UINT64_MAX && !fvi_index_apart(index, end)) {
        end++;
    }
    return (fvi_span){from, fvi_min(to, fvi_max(end, from + 1))};
}

static void fold_span(const fv_plan *plan, const fv_run *run, const fvi_item *item, const fvi_source *source,
                      const fvi_index *index, fvi_span span, const fvi_scratch *scratch, fvi_fold *fold) {
    for (int64_t leaf = span.from, n; leaf < span.to; leaf += n) {
        n = fvi_min(batch_of(plan, source), span.to - leaf);
        fvi_tile_blocks(plan, run, item, source, index, leaf, (int)n, scratch, fold);
    }
}

void fvi_walk_piece(const fv_plan *plan, const fv_run *run, const fvi_item *item, const fvi_index *index, int64_t from,
                    int64_t to, const fvi_scratch *scratch, fvi_fold *fold) {
    fvi_source source = source_of(plan, run, item);
    int64_t first = from / FVI_BLOCK, end = fvi_ceil_div(to, FVI_BLOCK);
    for (int k = 0; index->blocks == 0 && k < index->n; k++) {
        fvi_span span = {fvi_max(index->span[k].from, first), fvi_min(index->span[k].to, end)};
        fold_span(plan, run, item, &source, index, span, scratch, fold);
    }
    while (index->blocks > 0 && first < end) {
        fvi_span span = next_span(index, first, end);
        fold_span(plan, run, item, &source, index, span, scratch, fold);
        first = span.to;
    }
}

/* ---- columns ------------------------------------------------------------------------------------------------------- */

/* Takes keys of block *b on, those in *word first, until there are 64 or no more. */
static void fill_columns(const fvi_index *index, int64_t n_kv, int64_t *b, uint64_t *word, fvi_columns *columns) {
    columns->n = columns->segments = 0;
    while (*b < index->blocks && columns->n < FVI_LEAF) {
        uint64_t taken = 0;
        int at = columns->n;
        for (; *word != 0 && columns->n < FVI_LEAF; *word &= *word - 1) {
            int64_t key = *b * FVI_BLOCK + __builtin_ctzll(*word);
            if (key < n_kv) {
                columns->key[columns->n++] = (int32_t)key;
                taken |= *word & -*word;
            }
        }
        if (taken != 0) {
            columns->segment[columns->segments].block = *b;
            columns->segment[columns->segments].word = taken;
            if (fvi_index_apart(index, *b)) {
                fvi_compress_plan(taken, columns->segment[columns->segments].move);
            }
            columns->segment[columns->segments++].at = at;
        }
        if (*word == 0) {
            ++*b;
            *word = *b < index->blocks && !as_block(index, *b) ? index->key[*b] : 0;
        }
    }
}

void fvi_walk_columns(const fv_plan *plan, const fv_run *run, const fvi_item *item, const fvi_index *index,
                      const fvi_scratch *scratch) {
    if (index->blocks == 0) {
        return;
    }
    fvi_source source = source_of(plan, run, item);
    fvi_columns columns = {.index = index, .key = scratch->column};
    fvi_fold piece = scratch->piece, total = scratch->total;
    int64_t b = 0, rows = item->n_rows * plan->share;
    uint64_t word = as_block(index, 0) ? 0 : index->key[0];
    fill_columns(index, item->n_kv, &b, &word, &columns);
    while (columns.n > 0) {
        fvi_fold_clear(plan, &piece, rows);
        for (int leaf = 0; leaf < FVI_PIECE / FVI_LEAF && columns.n > 0; leaf++) {
            fvi_tile_columns(plan, run, item, &source, &columns, scratch, &piece);
            fill_columns(index, item->n_kv, &b, &word, &columns);
        }
        fvi_fold_merge(plan, &total, &piece, rows);
    }
}
