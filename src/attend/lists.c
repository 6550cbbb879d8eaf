/* lists.c - see lists.h.
 *
 * A tile's rows go over the keys together, so that what one has brought into the caches others find there, and rows that have a
 * full leaf are folded side by side: the products of one hide the latencies of another. A row's leaves are cut from its own list,
 * and its pieces are 64 of them: its bits depend on nothing but its list. */
#include "attend/lists.h"

#include "attend/products.h"
#include "attend/split.h"

#include <string.h>

enum { SIDE_BY_SIDE = 32 }; /* rows, at most the rows of a score tile */

/* ---- listing ---- */

/* Keys of block b that masks by position leave to a row. */
static uint64_t rule_word(const fvi_rule *rule, int64_t position, int64_t n_kv, int64_t b) {
    fvi_span span[2];
    uint64_t word = 0;
    int n = fvi_rule_spans(rule, position, n_kv, span);
    for (int k = 0; k < n; k++) {
        int64_t from = fvi_max(span[k].from - b * FVI_BLOCK, 0), to = fvi_min(span[k].to - b * FVI_BLOCK, FVI_BLOCK);
        word |= from < to ? UINT64_MAX >> (64 - (to - from)) << from : 0;
    }
    return word;
}

/* Of blocks of which masks by position hide a part from some row, or of which a row's words have to be asked for. */
static void row_words(const fvi_lists *l, int64_t position, int64_t from, int64_t to, bool whole,
                      uint64_t word[FVI_LIST_BLOCKS]) {
    for (int64_t b = from; b < to; b++) {
        const uint64_t listed = l->scratch->listed[b];
        word[b - from] = listed == 0 ? 0 : listed & fvi_index_word(l->index, position, b);
        if (word[b - from] != 0 && !whole) {
            word[b - from] &= rule_word(&l->plan->rule, position, l->item->n_kv, b);
            word[b - from] &= rule_word(&l->index->rule, position, l->item->n_kv, b);
        }
    }
}

static void list_row(const fvi_lists *l, int64_t r, int64_t from, int64_t to, bool whole) {
    const int64_t position = l->item->offset + fvi_item_query(l->item, 1, r);
    const uint64_t *row;
    uint64_t word[FVI_LIST_BLOCKS];
    if (whole && l->index->row != NULL) {
        row = l->index->row(l->index->seen_arg, position) + from;
    } else {
        row_words(l, position, from, to, whole, word);
        row = word;
    }
    fvi_list *list = &l->scratch->list[r];
    int32_t *key = l->scratch->list_key + r * FVI_LIST_ROOM + list->n;
    list->n += l->plan->words.numbers(row, l->scratch->listed + from, (int)(to - from), (int32_t)(from * FVI_BLOCK), key);
}

/* ---- folding ---- */

/* A leaf of one row's list. */
typedef struct list_leaf {
    int64_t row;
    const int32_t *key;
    int n;
    uint64_t seen;
} list_leaf;

/* Scores of n rows, one below the other. Where all rows of K lie is found out first: products that follow each other hide more of
 * what they wait for. */
static void multiply_keys(const fvi_lists *l, const list_leaf *leaf, int n, float *s) {
    const fvi_scratch *scratch = l->scratch;
    const int d = (int)l->plan->problem.d_k;
    const uint8_t *q = fvi_products_list_query(l->plan, scratch, 0);
    const int64_t q_bytes = scratch->list_k->q_bytes(d);
    const void *at[SIDE_BY_SIDE][FVI_LEAF];
    for (int i = 0; l->k_apart && i < n; i++) {
        fvi_source_point(&l->plan->words, &l->k, leaf[i].key, leaf[i].n, at[i]);
    }
    for (int i = 0; i < n; i++) {
        if (l->k_apart) {
            scratch->list_qk(q + leaf[i].row * q_bytes, d, at[i], leaf[i].n, l->plan->scale, s + i * FVI_LEAF);
        } else {
            fvi_rows rows = fvi_source_rows(l->source, false, leaf[i].key, leaf[i].n, scratch->room);
            scratch->list_k->qk(q + leaf[i].row * q_bytes, 1, d, &rows, l->plan->scale, s + i * FVI_LEAF);
        }
    }
}

static void multiply_values(const fvi_lists *l, const list_leaf *leaf, float *p, float alpha, float *out) {
    const fvi_scratch *scratch = l->scratch;
    const int d = (int)l->plan->problem.d_v, d_pad = (int)l->plan->d_pad;
    const void *at[FVI_LEAF];
    if (l->v_apart) {
        fvi_source_point(&l->plan->words, &l->v, leaf->key, leaf->n, at);
        scratch->list_pv(p, alpha, at, leaf->n, d, d_pad, out);
    } else {
        fvi_rows rows = fvi_source_rows(l->source, true, leaf->key, leaf->n, scratch->room);
        scratch->list_v->pv(p, 1, &alpha, &rows, d, d_pad, out);
    }
}

static uint64_t keys_of(const list_leaf *leaf) { return leaf->n == FVI_LEAF ? UINT64_MAX : (UINT64_C(1) << leaf->n) - 1; }

/* What masks and biases make of a row's scores. */
static void add_parts(const fvi_lists *l, list_leaf *leaf, float *s) {
    fvi_leaf view = {.n = leaf->n, .position = leaf->key, .key = leaf->key};
    fvi_score_tile tile = {l->plan, l->run, l->item, &view, 0, leaf->row, 1, s, &leaf->seen};
    leaf->seen &= fvi_tile_key_mask(l->plan, l->run, l->item, 0, &view);
    fvi_score_parts(&tile);
}

/* Scores of n rows, one below the other: of keys that are not seen, and past the last one, -inf. */
static void score(const fvi_lists *l, list_leaf *leaf, int n, float *s) {
    const fv_problem *p = &l->plan->problem;
    const bool parts = p->soft_cap > 0 || p->has_alibi || p->has_bias || p->has_key_mask;
    int64_t keys = 0, seen = 0;
    multiply_keys(l, leaf, n, s);
    for (int i = 0; i < n; i++) {
        leaf[i].seen = keys_of(&leaf[i]);
        if (parts) {
            add_parts(l, &leaf[i], s + i * FVI_LEAF);
        }
        if (leaf[i].seen != UINT64_MAX) {
            l->plan->rowop.hide(1, &leaf[i].seen, s + i * FVI_LEAF);
        }
        keys += leaf[i].n;
        seen += parts ? fvi_count_bits(leaf[i].seen) : leaf[i].n;
    }
    l->scratch->stats->k_rows += (uint64_t)keys;
    l->scratch->stats->visited_pairs += (uint64_t)keys;
    l->scratch->stats->exact_pairs += (uint64_t)seen;
}

/* Takes keys out that a mask or a bias hides, and their weights: values there may be no numbers. */
static void drop_hidden(list_leaf *leaf, float *p, int32_t key[FVI_LEAF]) {
    int n = 0;
    for (int j = 0; j < leaf->n; j++) {
        if (leaf->seen >> j & 1) {
            key[n] = leaf->key[j];
            p[n++] = p[j];
        }
    }
    memset(p + n, 0, (size_t)(leaf->n - n) * sizeof *p);
    leaf->key = key;
    leaf->n = n;
}

static void take_values(const fvi_lists *l, list_leaf *leaf, float *p, float alpha) {
    int32_t key[FVI_LEAF];
    if (leaf->seen != keys_of(leaf)) {
        drop_hidden(leaf, p, key);
    }
    if (leaf->n > 0) {
        multiply_values(l, leaf, p, alpha, l->scratch->piece.out + leaf->row * l->plan->d_pad);
        l->scratch->stats->v_rows += (uint64_t)leaf->n;
    }
}

/* Two whole leaves, of which nothing is hidden, at once; false, and nothing done, where that can't be. */
static bool take_two(const fvi_lists *l, const list_leaf leaf[2], float *p, const float alpha[2]) {
    const fvi_scratch *scratch = l->scratch;
    const void *at[2][FVI_LEAF];
    fvi_apart_leaf row[2];
    if (scratch->list_two == NULL || !l->v_apart) {
        return false;
    }
    for (int i = 0; i < 2; i++) {
        if (leaf[i].n < FVI_LEAF || leaf[i].seen != UINT64_MAX) {
            return false;
        }
        fvi_source_point(&l->plan->words, &l->v, leaf[i].key, FVI_LEAF, at[i]);
        row[i] = (fvi_apart_leaf){p + i * FVI_LEAF, alpha[i], at[i], scratch->piece.out + leaf[i].row * l->plan->d_pad};
    }
    scratch->list_two(row, (int)l->plan->problem.d_v, (int)l->plan->d_pad);
    scratch->stats->v_rows += 2 * FVI_LEAF;
    return true;
}

/* The row's piece goes into its total. */
static void end_piece(const fvi_lists *l, int64_t r) {
    const fvi_scratch *scratch = l->scratch;
    fvi_fold piece = fvi_fold_from(l->plan, &scratch->piece, r), total = fvi_fold_from(l->plan, &scratch->total, r);
    fvi_fold_merge(l->plan, &total, &piece, 1);
    fvi_fold_clear(l->plan, &piece, 1);
}

/* Leaves of n rows, a leaf each. */
static void fold_leaves(const fvi_lists *l, list_leaf *leaf, int n) {
    const fvi_scratch *scratch = l->scratch;
    float m[SIDE_BY_SIDE], sum[SIDE_BY_SIDE], alpha[SIDE_BY_SIDE];
    score(l, leaf, n, scratch->s);
    for (int i = 0; i < n; i++) {
        m[i] = scratch->piece.m[leaf[i].row];
        sum[i] = scratch->piece.sum[leaf[i].row];
    }
    l->plan->ops[0].soften(scratch->s, n, m, sum, alpha);
    for (int i = 0, taken = 0; i < n; i++, taken--) {
        const int64_t row = leaf[i].row;
        float *p = scratch->s + i * FVI_LEAF;
        scratch->piece.m[row] = m[i];
        scratch->piece.sum[row] = sum[i];
        if (taken <= 0 && i + 1 < n && take_two(l, &leaf[i], p, alpha + i)) {
            taken = 2;
        }
        if (taken <= 0) {
            take_values(l, &leaf[i], p, alpha[i]);
        }
        if (++scratch->list[row].leaves % (FVI_PIECE / FVI_LEAF) == 0) {
            end_piece(l, row);
        }
    }
}

/* Folds a leaf of each row that has at least `least` keys from its `taken`-th on; false if there was none. */
static bool fold_round(const fvi_lists *l, int32_t taken, int32_t least) {
    list_leaf leaf[SIDE_BY_SIDE];
    const int most = (int)fvi_min(SIDE_BY_SIDE, l->plan->sub_rows);
    int n = 0;
    bool any = false;
    for (int64_t r = 0; r < l->item->n_rows; r++) {
        const int32_t left = l->scratch->list[r].n - taken;
        if (left < least) {
            continue;
        }
        leaf[n++] = (list_leaf){r, l->scratch->list_key + r * FVI_LIST_ROOM + taken, (int)fvi_min(left, FVI_LEAF), 0};
        any = true;
        if (n == most) {
            fold_leaves(l, leaf, n);
            n = 0;
        }
    }
    if (n > 0) {
        fold_leaves(l, leaf, n);
    }
    return any;
}

/* What is left of each list goes to its front. */
static void keep_rest(const fvi_lists *l) {
    for (int64_t r = 0; r < l->item->n_rows; r++) {
        int32_t *key = l->scratch->list_key + r * FVI_LIST_ROOM, n = l->scratch->list[r].n, taken = n / FVI_LEAF * FVI_LEAF;
        if (taken > 0) {
            memcpy(key, key + taken, FVI_LEAF * sizeof *key); /* that is more than are left, and a few moves */
            l->scratch->list[r].n = n - taken;
        }
    }
}

/* Lists the keys of up to FVI_LIST_BLOCKS blocks, and folds all leaves that are full. */
static void take_blocks(const fvi_lists *l, int64_t from, int64_t to) {
    const fvi_item *item = l->item;
    const int64_t first = from * FVI_BLOCK, end = to * FVI_BLOCK;
    uint64_t any = 0;
    for (int64_t b = from; b < to; b++) {
        any |= l->scratch->listed[b];
    }
    if (any == 0) {
        return;
    }
    bool whole = end <= item->n_kv && fvi_rule_sees_all(&l->plan->rule, item->first, item->last, first, end) &&
                 fvi_rule_sees_all(&l->index->rule, item->first, item->last, first, end);
    for (int64_t r = 0; r < item->n_rows; r++) {
        list_row(l, r, from, to, whole);
    }
    for (int32_t taken = 0; fold_round(l, taken, FVI_LEAF); taken += FVI_LEAF) {
    }
    keep_rest(l);
}

void fvi_lists_begin(fvi_lists *l) {
    fvi_fold piece = l->scratch->piece;
    l->k_apart = fvi_source_place(l->source, false, &l->k) && l->scratch->list_qk != NULL;
    l->v_apart = fvi_source_place(l->source, true, &l->v) && l->scratch->list_pv != NULL;
    memset(l->scratch->list, 0, (size_t)l->item->n_rows * sizeof *l->scratch->list);
    fvi_fold_clear(l->plan, &piece, l->item->n_rows);
}

void fvi_lists_take(const fvi_lists *l, int64_t from, int64_t to) {
    /* blocks that stand before all rows by themselves: in others masks are asked about row by row */
    const int64_t before = fvi_max(from, fvi_min(l->item->first / FVI_BLOCK, to));
    if (from < before) {
        take_blocks(l, from, before);
    }
    if (before < to) {
        take_blocks(l, before, to);
    }
}

void fvi_lists_end(const fvi_lists *l) {
    fold_round(l, 0, 1);
    for (int64_t r = 0; r < l->item->n_rows; r++) {
        if (l->scratch->list[r].leaves % (FVI_PIECE / FVI_LEAF) != 0) {
            end_piece(l, r);
        }
    }
}
