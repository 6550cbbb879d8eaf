/* tile.c - one piece of one item: leaf by leaf, opened once for all its rows, in three stages around a score tile in L1. */
#include "attend/tile.h"

#include "attend/products.h"
#include "attend/turn.h"

#include <assert.h>
#include <math.h>
#include <string.h>

void fvi_scratch_cut(const fv_plan *plan, const fv_run *run, void *workspace, int worker, fvi_scratch *out) {
    const fvi_layout *at = &plan->at;
    uint8_t *base = (uint8_t *)workspace + (size_t)worker * at->thread_bytes;
    *out = (fvi_scratch){
        .q = base + at->q,
        .q_row = (float *)(base + at->q_row),
        .s = (float *)(base + at->s),
        .kt = base + at->kt,
        .vt = base + at->vt,
        .vt_row = base + at->vt_row,
        .alpha = (float *)(base + at->alpha),
        .gather = base + at->gather,
        .seen = (uint64_t *)(base + at->seen),
        .words = (uint64_t *)(base + at->key),
        .apart = (uint64_t *)(base + at->apart),
        .column = (int32_t *)(base + at->column),
        .plain = (float *)(base + at->plain),
        .place = (int64_t *)(base + at->place),
        .leaf = (float *)(base + at->leaf),
        .s_low = (float *)(base + at->s_low),
        .turned = base + at->turned,
        .kt_low = base + at->kt_low,
        .unrotate = plan->places && run->cache != NULL && run->cache->desc.rotate_k,
        .listed = (uint64_t *)(base + at->listed),
        .alike = (uint64_t *)(base + at->alike),
        .list = (fvi_list *)(base + at->list),
        .list_key = (int32_t *)(base + at->list_key),
        .list_q = base + at->list_q,
        .room = base + at->room,
        .select = base + at->scratch,
        .seen_state = base + at->seen_state,
        .piece = {(float *)(base + at->m), (float *)(base + at->sum), (float *)(base + at->out)},
        .total = {(float *)(base + at->total_m), (float *)(base + at->total_sum), (float *)(base + at->total)},
        .stats = (fv_run_stats *)((uint8_t *)workspace + at->stats + (size_t)worker * FVI_STATS_BYTES),
    };
    fvi_products_pick(plan, run, out);
}

void fvi_tile_load_queries(const fv_plan *plan, const fv_run *run, const fvi_item *item, fvi_scratch *scratch) {
    for (int64_t r = 0; r < item->n_rows * plan->share; r++) {
        int64_t head = fvi_row_head(item, plan->share, r), i = item->q_start + fvi_item_query(item, plan->share, r);
        int64_t batch = plan->problem.packed ? 0 : item->sequence;
        const uint8_t *row = fvi_tensor_at(&run->q, batch, head, i);
        fvi_ask_row(&run->q, row);
        fvi_load_row(run->q.dtype, row, run->q.stride[3], plan->problem.d_k, scratch->q_row);
        if (plan->places) {
            fvi_turn_remember(plan, scratch, r, fvi_row_position(item, plan->share, r));
        } else if (run->cache != NULL && run->cache->desc.rotate_k) {
            plan->quant.rotate(scratch->q_row, (int)plan->problem.d_k);
        }
        fvi_products_pack_query(plan, scratch, r);
    }
}

static uint64_t first_bits(int64_t n) { return n >= 64 ? UINT64_MAX : (UINT64_C(1) << n) - 1; }

/* Bits of the leaf's keys whose positions are from .. to - 1. */
static uint64_t span_bits(const fvi_leaf *leaf, int64_t from, int64_t to) {
    if (leaf->position == NULL) {
        from = fvi_max(from - leaf->first, 0);
        to = fvi_min(to - leaf->first, leaf->n);
        return from < to ? first_bits(to) & ~first_bits(from) : 0;
    }
    int first = 0, end = leaf->n; /* most leaves are within the span, or wholly outside */
    while (first < end && leaf->position[first] < from) {
        first++;
    }
    while (end > first && leaf->position[end - 1] >= to) {
        end--;
    }
    return first_bits(end) & ~first_bits(first);
}

/* Bits of the leaf's keys that the rule shows to a query at `position`. */
static uint64_t rule_bits(const fvi_rule *rule, int64_t position, const fvi_leaf *leaf) {
    fvi_span span[2];
    int n = fvi_rule_spans(rule, position, INT64_MAX / 2, span);
    uint64_t bits = 0;
    for (int k = 0; k < n; k++) {
        bits |= span_bits(leaf, span[k].from, span[k].to);
    }
    return bits;
}

uint64_t fvi_tile_key_mask(const fv_plan *plan, const fv_run *run, const fvi_item *item, int64_t leaf_key, const fvi_leaf *leaf) {
    uint64_t bits = first_bits(leaf->n);
    if (plan->problem.has_key_mask && !leaf->entries) {
        int64_t base = plan->problem.packed ? item->k_start : item->sequence * run->k.shape[2];
        for (int j = 0; j < leaf->n; j++) {
            int64_t key = leaf->key != NULL ? leaf->key[j] : leaf_key + j;
            bits &= ~((uint64_t)(run->key_mask[base + key] == 0) << j);
        }
    }
    return bits;
}

/* True if masks by position hide none of a leaf's keys from any row. */
static bool all_seen(const fv_plan *plan, const fvi_item *item, const fvi_rule *inside, const fvi_leaf *leaf) {
    int64_t from = fvi_key_position(leaf, 0), to = fvi_key_position(leaf, leaf->n - 1) + 1;
    return fvi_rule_sees_all(&plan->rule, item->first, item->last, from, to) &&
           fvi_rule_sees_all(inside, item->first, item->last, from, to);
}

/* What a leaf is to the rows of an item. */
typedef struct leaf_view {
    fvi_leaf leaf;
    int64_t key;       /* number of its first key, if it is a block; of its first entry */
    bool whole;        /* all rows see all 64 keys */
    bool even;         /* all rows see the keys of key_bits and no others */
    uint64_t key_bits; /* keys that exist, are visited by some row and are not masked */
    const fvi_index *index;
    const fvi_columns *columns; /* NULL: a block */
    bool apart;                 /* what rows visit differs */
    bool weighed;               /* pairs have weights of their own: known once it is looked at */
} leaf_view;

/* What the index lets the row at `position` visit. */
static uint64_t visit_bits(const leaf_view *view, int64_t position) {
    const fvi_index *index = view->index;
    if (view->leaf.entries) {
        return index->entries->seen(index->entries->arg, position, view->key / FVI_LEAF);
    }
    if (index->weigh != NULL) { /* tells it once scores are there */
        return UINT64_MAX;
    }
    if (view->columns == NULL) {
        return index->seen(index->seen_arg, position, view->key / FVI_LEAF);
    }
    uint64_t bits = UINT64_MAX;
    for (int i = 0; i < view->columns->segments; i++) {
        int64_t block = view->columns->segment[i].block;
        uint64_t word = view->columns->segment[i].word;
        if (fvi_index_apart(index, block)) {
            const uint64_t *move = view->columns->segment[i].move;
            uint64_t hidden = fvi_compress(~index->seen(index->seen_arg, position, block), word, move);
            bits &= ~(hidden << view->columns->segment[i].at);
        }
    }
    return bits;
}

/* Bits of the leaf's keys that both rules show; most have no window, and a causal end or none. */
static uint64_t both_rules(const fvi_rule *a, const fvi_rule *b, int64_t position, const fvi_leaf *leaf) {
    if (a->window > 0 || b->window > 0) {
        return rule_bits(a, position, leaf) & rule_bits(b, position, leaf);
    }
    return span_bits(leaf, 0, a->causal || b->causal ? position + 1 : INT64_MAX / 2);
}

/* How many of the leaf's keys do not come after `position`, where that counts. */
static int64_t keys_before(const fv_problem *p, int64_t position, const fvi_leaf *leaf) {
    if (leaf->position == NULL) {
        return p->causal ? fvi_max(0, fvi_min(position + 1 - leaf->first, leaf->n)) : leaf->n;
    }
    fvi_rule triangle = {.causal = p->causal};
    return fvi_count_bits(rule_bits(&triangle, position, leaf));
}

static uint64_t row_bits(const fv_plan *plan, const leaf_view *view, int64_t position) {
    uint64_t bits = view->key_bits & both_rules(&plan->rule, &view->index->rule, position, &view->leaf);
    return bits != 0 && view->apart ? bits & visit_bits(view, position) : bits;
}

/* Sets `seen` for rows first .. first + n - 1 and counts. */
static void look(const fv_plan *plan, const fvi_item *item, const leaf_view *view, int64_t first, int64_t n, uint64_t *seen,
                 fv_run_stats *stats) {
    uint64_t bits = view->key_bits, visited = (uint64_t)view->leaf.n;
    for (int64_t r = 0, same = 0; r < n; r++, same--) {
        if (!view->even && same == 0) { /* rows of one position stand side by side */
            int64_t position = fvi_row_position(item, plan->share, first + r);
            same = plan->share - (first + r) % plan->share;
            bits = row_bits(plan, view, position);
            visited = (uint64_t)keys_before(&plan->problem, position, &view->leaf);
        }
        seen[r] = bits;
        stats->visited_pairs += visited;
    }
}

static bool none_seen(const uint64_t *seen, int64_t n) {
    uint64_t any = 0;
    for (int64_t r = 0; r < n; r++) {
        any |= seen[r];
    }
    return any == 0;
}

static bool each_sees_all(const uint64_t *seen, int64_t n) {
    uint64_t all = UINT64_MAX;
    for (int64_t r = 0; r < n; r++) {
        all &= seen[r];
    }
    return all == UINT64_MAX;
}

/* Leaves out what the index's sieve does not keep. */
static void sift(const fv_plan *plan, const fvi_sieve *sieve, const fvi_score_tile *t, const fvi_scratch *scratch,
                 const fvi_fold *fold) {
    enum { ROWS = 16 };
    int64_t position[ROWS];
    float m[ROWS];
    for (int64_t from = 0; from < t->n; from += ROWS) {
        int n = (int)fvi_min(ROWS, t->n - from);
        for (int r = 0; r < n; r++) {
            int64_t row = t->first + from + r;
            position[r] = fvi_row_position(t->item, plan->share, row);
            m[r] = fmaxf(fold->m[row], scratch->total.m[row]);
        }
        sieve->keep(sieve->arg, &(fvi_scores){n, position, m, t->s + from * FVI_LEAF, t->seen + from});
    }
}

/* Adds what pairs weigh; of keys, takes out what a row does not visit. */
static void weigh(const fv_plan *plan, const leaf_view *view, const fvi_score_tile *t) {
    enum { ROWS = 16 };
    const fvi_index *index = view->index;
    int64_t position[ROWS];
    int32_t block[FVI_LEAF];
    const int32_t *key = view->leaf.key;
    if (view->leaf.entries) {
        const float *weight = index->entries->log_weight + view->key;
        for (int64_t r = 0; r < t->n; r++) {
            for (int j = 0; j < view->leaf.n; j++) {
                t->s[r * FVI_LEAF + j] += weight[j];
            }
        }
        return;
    }
    for (int j = 0; key == NULL && j < view->leaf.n; j++) {
        block[j] = (int32_t)(view->key + j);
    }
    for (int64_t from = 0; from < t->n; from += ROWS) {
        int n = (int)fvi_min(ROWS, t->n - from);
        for (int r = 0; r < n; r++) {
            position[r] = fvi_row_position(t->item, plan->share, t->first + from + r);
        }
        index->weigh(index->seen_arg,
                     &(fvi_pairs){n, view->leaf.n, position, key == NULL ? block : key, t->s + from * FVI_LEAF, t->seen + from});
    }
}

static void count_pairs(const leaf_view *view, const uint64_t *seen, int64_t n, fv_run_stats *stats) {
    uint64_t pairs = 0, count = 0;
    for (int64_t r = 0; r < n; r++) {
        count = r > 0 && seen[r] == seen[r - 1] ? count : (uint64_t)fvi_count_bits(seen[r]); /* of one position: neighbours */
        pairs += count;
    }
    *(view->leaf.entries ? &stats->entry_pairs : &stats->exact_pairs) += pairs;
}

/* `changed`: some rows may have lost keys since they were looked at. */
static void count_rows(const leaf_view *view, const fvi_score_tile *t, bool changed, fv_run_stats *stats) {
    if (view->even && !changed && !view->leaf.entries) {
        stats->exact_pairs += (uint64_t)(t->n * fvi_count_bits(view->key_bits));
    } else {
        count_pairs(view, t->seen, t->n, stats);
    }
}

/* Scores of rows first .. first + n - 1 with a leaf, hidden ones -inf. */
static void score_rows(const fv_plan *plan, leaf_view *view, const fvi_score_tile *t, const fvi_scratch *scratch,
                       const fvi_fold *fold) {
    const fvi_sieve *sieve = &view->index->sieve;
    if (view->index->places.query != NULL) {
        fvi_turn_scores(plan, t->run, t->item, &view->index->places, view->key / FVI_LEAF, &view->leaf, scratch, t->first, t->n,
                        t->s);
    } else {
        fvi_products_scores(plan, &view->leaf, scratch, t->first, t->n, t->s);
    }
    fvi_score_parts(t);
    if (view->weighed) {
        weigh(plan, view, t);
    }
    if (sieve->keep != NULL && !view->leaf.entries) {
        sift(plan, sieve, t, scratch, fold);
    }
    if (!view->whole || plan->problem.has_bias || sieve->keep != NULL) {
        fvi_score_hide(t);
    }
    count_rows(view, t, plan->problem.has_bias || sieve->keep != NULL, scratch->stats);
}

/* Values that not every row of a tile sees have to be finite to be multiplied with a weight of 0. */
static bool finite_values(const fv_plan *plan, fvi_leaf *leaf, const fvi_scratch *scratch) {
    if (!leaf->v_looked) {
        leaf->v_finite = fvi_products_finite(plan, leaf, scratch);
        leaf->v_looked = true;
    }
    return leaf->v_finite;
}

static void take_values(const fv_plan *plan, leaf_view *view, const fvi_score_tile *t, const float *alpha,
                        const fvi_scratch *scratch, fvi_fold *fold) {
    float *out = fold->out + t->first * plan->d_pad;
    if ((view->whole && each_sees_all(t->seen, t->n)) || finite_values(plan, &view->leaf, scratch)) {
        fvi_products_values(plan, &view->leaf, scratch, t->s, t->n, alpha, out);
    } else {
        fvi_products_values_apart(plan, &view->leaf, scratch, t->s, t->n, alpha, t->seen, out);
    }
}

static void open_values(const fv_plan *plan, const fvi_scratch *scratch, fvi_leaf *leaf) {
    if (!leaf->v_open) {
        scratch->stats->v_rows += (uint64_t)leaf->n;
        fvi_products_open_values(plan, leaf, scratch);
        leaf->v_open = true;
    }
}

/* The stages of several leaves side by side: each stage ends in a chain of latencies, which the next leaf's start hides. Weights
 * follow one leaf behind the scores: a stage of their own would leave memory idle. */
static void fold_rows(const fv_plan *plan, const fv_run *run, const fvi_item *item, leaf_view *view, int leaves, int64_t first,
                      int64_t n, const fvi_scratch *scratch, fvi_fold *fold) {
    fvi_score_tile tile[FVI_BATCH];
    for (int b = 0; b <= leaves; b++) {
        if (b < leaves) {
            float *s = scratch->s + b * plan->sub_rows * FVI_LEAF;
            uint64_t *seen = scratch->seen + b * plan->sub_rows;
            tile[b] = (fvi_score_tile){plan, run, item, &view[b].leaf, view[b].key, first, n, s, seen};
            look(plan, item, &view[b], first, n, seen, scratch->stats);
            if (leaves == 1 && none_seen(seen, n)) {
                return;
            }
            score_rows(plan, &view[b], &tile[b], scratch, fold);
            if ((view[b].index->sieve.keep != NULL || view[b].weighed) && none_seen(seen, n)) {
                return;
            }
        }
        if (b > 0) {
            float *alpha = scratch->alpha + (b - 1) * plan->sub_rows;
            scratch->ops->soften(tile[b - 1].s, (int)n, fold->m + first, fold->sum + first, alpha);
        }
    }
    for (int b = 0; b < leaves; b++) {
        open_values(plan, scratch, &view[b].leaf);
        take_values(plan, &view[b], &tile[b], scratch->alpha + b * plan->sub_rows, scratch, fold);
    }
}

static void open_leaf(const fv_plan *plan, int slot, const fvi_scratch *scratch, fvi_leaf *leaf) {
    bool read = leaf->key != NULL || fvi_quantised(leaf->v_dtype); /* gathered, or about to be widened */
    scratch->stats->k_rows += (uint64_t)leaf->n;
    fvi_products_open_keys(plan, leaf, slot, scratch);
    if (read) {
        open_values(plan, scratch, leaf);
    }
}

/* What an open leaf is to the item's rows, of which the index lets some visit the keys `visited`. The view's leaf, index and
 * columns are set, and whether rows differ. */
static void look_at(const fv_plan *plan, const fv_run *run, const fvi_item *item, uint64_t visited, leaf_view *view) {
    const fvi_leaf *l = &view->leaf;
    view->key_bits = visited & fvi_tile_key_mask(plan, run, item, view->key, l);
    view->weighed = l->entries ? view->index->entries->log_weight != NULL : view->apart && view->index->weigh != NULL;
    view->even = !view->apart && all_seen(plan, item, &view->index->rule, l);
    view->whole = view->even && view->key_bits == UINT64_MAX;
}

/* Whether scores of an item's rows need nothing between their product and their weight. */
static bool plain_scores(const fv_problem *p) { return p->soft_cap == 0 && !p->has_alibi && !p->has_bias; }

/* Whether the kernels can take leaves, and rows, at once. */
static bool takes_at_once(const fv_plan *plan, leaf_view *view, int leaves, const fvi_scratch *scratch) {
    bool can = scratch->key == NULL && scratch->ops->fold != NULL && plain_scores(&plan->problem) &&
               view->index->sieve.keep == NULL && view->index->places.query == NULL;
    for (int b = 0; b < leaves; b++) {
        can = can && !view[b].weighed;
    }
    for (int b = 0; can && b < leaves; b++) {
        open_values(plan, scratch, &view[b].leaf);
        can = view[b].whole || finite_values(plan, &view[b].leaf, scratch);
    }
    return can;
}

/* Looks at the rows of each leaf, which it counts; seen[b]: NULL where all see all keys. */
static void look_at_once(const fv_plan *plan, const fvi_item *item, const leaf_view *view, int leaves, int64_t rows,
                         const fvi_scratch *scratch, const uint64_t *seen[FVI_FOLD_LEAVES], fv_run_stats *sum) {
    for (int b = 0; b < leaves; b++) {
        uint64_t *bits = scratch->seen + b * rows;
        seen[b] = view[b].whole ? NULL : bits;
        if (view[b].whole) {
            sum->visited_pairs += (uint64_t)(rows * FVI_LEAF);
            sum->exact_pairs += (uint64_t)(rows * FVI_LEAF);
            continue;
        }
        look(plan, item, &view[b], 0, rows, bits, sum);
        count_pairs(&view[b], bits, rows, sum);
    }
}

/* Folds the first rows of an item, where the kernels take them at once; returns how many. */
static int64_t fold_at_once(const fv_plan *plan, const fvi_item *item, leaf_view *view, int leaves, int64_t rows,
                            const fvi_scratch *scratch, fvi_fold *fold) {
    if (!takes_at_once(plan, view, leaves, scratch)) {
        return 0;
    }
    rows -= rows % scratch->ops->row_block;
    fv_run_stats sum = {0};
    const uint64_t *seen[FVI_FOLD_LEAVES];
    look_at_once(plan, item, view, leaves, rows, scratch, seen, &sum);
    if (!fvi_products_fold(plan, scratch, leaves, rows, seen, fold)) {
        return 0;
    }
    scratch->stats->visited_pairs += sum.visited_pairs;
    scratch->stats->exact_pairs += sum.exact_pairs;
    scratch->stats->entry_pairs += sum.entry_pairs;
    return rows;
}

/* Generated tokens take leaves side by side, prompts at once or one after the other. */
static void fold_views(const fv_plan *plan, const fv_run *run, const fvi_item *item, leaf_view *view, int leaves,
                       const fvi_scratch *scratch, fvi_fold *fold) {
    int64_t rows = item->n_rows * plan->share;
    int64_t done = fold_at_once(plan, item, view, leaves, rows, scratch, fold);
    int step = scratch->key != NULL ? leaves : 1;
    for (int64_t r = done; r < rows; r += plan->sub_rows) {
        for (int b = 0; b < leaves; b += step) {
            fold_rows(plan, run, item, view + b, step, r, fvi_min(plan->sub_rows, rows - r), scratch, fold);
        }
    }
}

/* What is read next: V of the first leaf after K of the last one, and after V of the last one the K that follows. */
static void chain_reads(leaf_view *view, int leaves) {
    fvi_leaf *first = &view[0].leaf, *last = &view[leaves - 1].leaf;
    if (first->k_dtype == first->v_dtype && first->k_row_bytes == first->v_row_bytes) {
        last->v_next = last->k_next;
        last->k_next = first->v;
    }
}

void fvi_tile_blocks(const fv_plan *plan, const fv_run *run, const fvi_item *item, const fvi_source *source,
                     const fvi_index *index, int64_t from, int leaves, const fvi_scratch *scratch, fvi_fold *fold) {
    leaf_view view[FVI_BATCH];
    int open = 0;
    for (int64_t leaf = from; leaf < from + leaves; leaf++) {
        int64_t key = leaf * FVI_LEAF;
        if (fvi_score_hides_leaf(plan, run, item, key, (int)fvi_min(FVI_LEAF, source->n_kv - key))) {
            continue;
        }
        view[open] = (leaf_view){.key = key, .index = index};
        fvi_source_leaf(source, leaf, scratch->gather, &view[open].leaf);
        open_leaf(plan, open, scratch, &view[open].leaf);
        look_at(plan, run, item, UINT64_MAX, &view[open++]);
    }
    if (open > 0) {
        chain_reads(view, open);
        fold_views(plan, run, item, view, open, scratch, fold);
    }
}

void fvi_tile_open_block(const fv_plan *plan, const fvi_source *source, int64_t block, const fvi_scratch *scratch,
                         fvi_leaf *leaf) {
    fvi_source_leaf(source, block, scratch->gather, leaf);
    open_leaf(plan, 0, scratch, leaf);
}

void fvi_tile_open_columns(const fv_plan *plan, const fvi_source *source, const fvi_columns *columns, const fvi_scratch *scratch,
                           fvi_leaf *leaf) {
    fvi_source_columns(source, columns->key, columns->n, plan->problem.d_k, plan->problem.d_v, scratch->room, leaf);
    open_leaf(plan, 0, scratch, leaf);
}

void fvi_tile_open_entries(const fv_plan *plan, const fvi_entries *entries, int64_t number, const fvi_scratch *scratch,
                           fvi_leaf *leaf) {
    assert(scratch->key == NULL); /* of prompts only */
    const int64_t first = number * FVI_LEAF, d_k = plan->problem.d_k, d_v = plan->problem.d_v;
    fvi_source_entries(entries->k + first * d_k, entries->v + first * d_v, entries->position + first,
                       (int)fvi_min(FVI_LEAF, entries->n - first), scratch->ops->half, d_k, d_v, scratch->room, leaf);
    open_leaf(plan, 0, scratch, leaf);
}

void fvi_tile_block(const fv_plan *plan, const fv_run *run, const fvi_item *item, fvi_leaf *leaf, const fvi_index *index,
                    int64_t block, const fvi_scratch *scratch, fvi_fold *fold) {
    leaf_view view = {.leaf = *leaf, .key = block * FVI_LEAF, .index = index, .apart = fvi_index_apart(index, block)};
    look_at(plan, run, item, index->key[block], &view);
    fold_views(plan, run, item, &view, 1, scratch, fold);
    *leaf = view.leaf;
}

void fvi_tile_columns(const fv_plan *plan, const fv_run *run, const fvi_item *item, fvi_leaf *leaf, const fvi_index *index,
                      const fvi_columns *columns, const fvi_scratch *scratch, fvi_fold *fold) {
    leaf_view view = {.leaf = *leaf, .index = index, .columns = columns};
    for (int i = 0; i < columns->segments; i++) {
        view.apart = view.apart || fvi_index_apart(index, columns->segment[i].block);
    }
    look_at(plan, run, item, UINT64_MAX, &view);
    fold_views(plan, run, item, &view, 1, scratch, fold);
    *leaf = view.leaf;
}

/* Entries that are there. */
static uint64_t entry_bits(const fvi_entries *entries, const fvi_leaf *leaf, int64_t first) {
    uint64_t bits = 0;
    for (int j = 0; j < leaf->n; j++) {
        bits |= (uint64_t)(entries->log_weight == NULL || entries->log_weight[first + j] != -INFINITY) << j;
    }
    return bits;
}

void fvi_tile_entries(const fv_plan *plan, const fv_run *run, const fvi_item *item, fvi_leaf *leaf, const fvi_index *index,
                      int64_t number, const fvi_scratch *scratch, fvi_fold *fold) {
    leaf_view view = {.leaf = *leaf, .key = number * FVI_LEAF, .index = index, .apart = true};
    look_at(plan, run, item, entry_bits(index->entries, leaf, view.key), &view);
    fold_views(plan, run, item, &view, 1, scratch, fold);
    *leaf = view.leaf;
}
