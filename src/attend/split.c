/* split.c - see split.h.
 *
 * The cost of folding a key, in products of one row with one key of a block: in a block, each row of the tile pays for 64 keys,
 * whatever it sees of them; a column costs as if blocks had FVI_BLOCK_KEYS; a key of a list costs the rows that visit it
 * FVI_LIST_KEY each. The counts of rows for 64 keys are kept as planes of bits, so that a row's word is added in a few steps. */
#include "attend/split.h"

#include <string.h>

enum { TALLIES = 4, TOGETHER = TALLIES * FVI_TALLY_WORDS, ROWS = 32 }; /* words and rows that are counted at once */

/* Words of blocks from .. from + n - 1; of a block in which rows do not differ, anything. Where they stand, or in `room`. */
static const uint64_t *row_words(const fvi_index *index, int64_t position, int64_t from, int64_t n, uint64_t room[TOGETHER]) {
    if (index->row != NULL && n % FVI_TALLY_WORDS == 0) {
        return index->row(index->seen_arg, position) + from;
    }
    for (int64_t i = 0; i < fvi_round_up(n, FVI_TALLY_WORDS); i++) {
        room[i] = i < n && fvi_index_apart(index, from + i) ? fvi_index_word(index, position, from + i) : 0;
    }
    return room;
}

/* Keys of block i that at most `most` rows visit. */
static uint64_t few_rows(const fvi_tally *t, int i, int64_t most) {
    uint64_t more = t->over[i], equal = ~more;
    for (int k = FVI_TALLY_PLANES - 1; k >= 0; k--) {
        uint64_t plane = t->plane[k][i];
        if ((most >> k & 1) == 0) {
            more |= equal & plane;
        }
        equal &= most >> k & 1 ? plane : ~plane;
    }
    return ~more;
}

static int64_t shared_cost(uint64_t key, int64_t rows) {
    int keys = fvi_count_bits(key);
    return keys > FVI_BLOCK_KEYS ? FVI_BLOCK * rows : keys * FVI_BLOCK * rows / FVI_BLOCK_KEYS;
}

/* What a tile's rows are: all of its positions, or those of its order. */
static int64_t rows_of(const fvi_query_tile *q) { return q->row != NULL ? q->rows : q->last - q->first + 1; }

static int64_t position_of(const fvi_query_tile *q, int64_t offset, int64_t r) {
    return q->row != NULL ? offset + q->row[r] : q->first + r;
}

/* The first n words of each row, eight a tally. */
static void add_rows(const fvi_word_ops *ops, const uint64_t *row[ROWS], int rows, int64_t n, fvi_tally tally[TALLIES]) {
    for (int64_t i = 0; i < n; i += FVI_TALLY_WORDS) {
        ops->tally(row, rows, &tally[i / FVI_TALLY_WORDS]);
        for (int r = 0; r < rows && i + FVI_TALLY_WORDS < n; r++) {
            row[r] += FVI_TALLY_WORDS;
        }
    }
}

/* Returns how many rows there are, those aside that stand before the first key. */
static int64_t count_rows(const fvi_word_ops *ops, const fvi_query_tile *q, int64_t offset, const fvi_index *index, int64_t from,
                          int64_t n, fvi_tally tally[TALLIES]) {
    uint64_t room[ROWS][TOGETHER];
    const uint64_t *row[ROWS];
    int64_t all = 0;
    int waiting = 0;
    for (int64_t r = 0; r < rows_of(q); r++) {
        int64_t position = position_of(q, offset, r);
        if (position >= 0) {
            row[waiting] = row_words(index, position, from, n, room[waiting]);
            waiting++;
            all++;
        }
        if (waiting == ROWS || r + 1 == rows_of(q)) {
            add_rows(ops, row, waiting, n, tally);
            waiting = 0;
        }
    }
    return all;
}

/* Up to eight blocks from `from` on, of which `there` rows were counted; returns what listing saves. `alike` gets those whose
 * other keys all rows visit. */
static int64_t split_tally(const fvi_word_ops *ops, const fvi_tally *t, int64_t rows, int64_t there, const fvi_index *index,
                           int64_t from, int64_t n, uint64_t *listed, uint64_t *alike) {
    const int64_t most = rows * FVI_BLOCK / (FVI_BLOCK_KEYS * FVI_LIST_KEY);
    uint64_t few[FVI_TALLY_WORDS] = {0};
    int64_t visits[FVI_TALLY_WORDS], saved = 0;
    for (int i = 0; i < n; i++) {
        few[i] = fvi_index_apart(index, from + i) ? index->key[from + i] & few_rows(t, i, most) : 0;
    }
    ops->visits(t, few, visits);
    for (int i = 0; i < n; i++) {
        const uint64_t key = index->key[from + i];
        const int64_t before = shared_cost(key, rows);
        const int64_t after = few[i] == 0 ? before : shared_cost(key & ~few[i], rows) + FVI_LIST_KEY * visits[i];
        listed[from + i] = after < before ? few[i] : 0;
        saved += fvi_max(before - after, 0);
        const uint64_t left = key & ~listed[from + i];
        if (left == 0 || (left & (few_rows(t, i, there - 1) | t->over[i])) == 0) {
            alike[(from + i) / 64] |= UINT64_C(1) << (from + i) % 64;
        }
    }
    return saved;
}

/* Blocks from .. from + n - 1. */
static int64_t split_blocks(const fvi_word_ops *ops, const fvi_query_tile *q, int64_t offset, const fvi_index *index,
                            int64_t from, int64_t n, uint64_t *listed, uint64_t *alike) {
    fvi_tally tally[TALLIES];
    memset(tally, 0, (size_t)fvi_ceil_div(n, FVI_TALLY_WORDS) * sizeof *tally);
    const int64_t there = count_rows(ops, q, offset, index, from, n, tally);
    int64_t saved = 0;
    for (int64_t b = 0; b < n; b += FVI_TALLY_WORDS) {
        const int64_t here = fvi_min(FVI_TALLY_WORDS, n - b);
        saved += split_tally(ops, &tally[b / FVI_TALLY_WORDS], rows_of(q), there, index, from + b, here, listed, alike);
    }
    return saved;
}

static bool any_apart(const fvi_index *index, int64_t from, int64_t n) {
    bool any = false;
    for (int64_t b = from; b < from + n; b++) {
        any = any || (index->key[b] != 0 && fvi_index_apart(index, b));
    }
    return any;
}

bool fvi_split(const fv_plan *plan, const fvi_item *item, const fvi_scratch *scratch, fvi_index *index) {
    if (index->seen == NULL || index->together || plan->places || index->sieve.keep != NULL || index->weigh != NULL) {
        return false;
    }
    const fvi_query_tile q = fvi_walk_tile(plan, item);
    const int64_t words = fvi_ceil_div(index->blocks, 64);
    uint64_t *listed = scratch->listed, *alike = scratch->alike;
    int64_t saved = 0;
    memset(alike, 0, (size_t)words * sizeof *alike);
    for (int64_t b = 0, n; b < index->blocks; b += n) {
        const int64_t left = index->blocks - b;
        n = left < FVI_TALLY_WORDS ? left : fvi_min(TOGETHER, left / FVI_TALLY_WORDS * FVI_TALLY_WORDS);
        if (any_apart(index, b, n)) {
            saved += split_blocks(&plan->words, &q, item->offset, index, b, n, listed, alike);
        } else {
            memset(listed + b, 0, (size_t)n * sizeof *listed);
        }
    }
    if (saved <= rows_of(&q) * FVI_LIST_ROW) {
        return false;
    }
    for (int64_t b = 0; b < index->blocks; b++) {
        index->key[b] &= ~listed[b];
    }
    for (int64_t w = 0; w < words; w++) {
        index->apart[w] &= ~alike[w];
    }
    return true;
}
