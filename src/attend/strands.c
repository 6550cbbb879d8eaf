/* strands.c - see strands.h.
 *
 * A block of which more than FVI_BLOCK_KEYS keys are visited is folded where it lies, hidden keys and all; the keys of others are
 * put side by side, 64 a leaf, after all blocks. The number is about where both cost the same. It is fixed, and looks at one
 * tile's index alone: which way a key is folded depends neither on where a prompt was cut nor on the tiles beside. */
#include "attend/strands.h"

#include "attend/lists.h"
#include "attend/products.h"
#include "attend/split.h"

#include <string.h>

/* One tile on its way over the keys. */
typedef struct strand {
    fvi_item item;
    fvi_scratch scratch; /* the thread's, but with this tile's queries and states */
    fvi_index index;
    fvi_fold *fold; /* where the present piece goes */
    bool empty;     /* nothing is folded yet: a piece goes into the total as it is, whose bits merging would leave alone */
    int64_t block;  /* the next columns are those of `word` of this block */
    uint64_t word;
    int64_t leaves;             /* of columns, folded so far */
    const fvi_columns *columns; /* `own`, or those of the strand before where they are the same */
    fvi_columns own;
} strand;

/* Counting is seldom needed: without two keys side by side there are 32 at most. Where positions are the method's there are only
 * blocks. */
static bool as_block(const fvi_index *index, int64_t b) {
    const uint64_t word = index->key[b];
    return word == UINT64_MAX || (index->places.query != NULL && word != 0) ||
           ((word & word >> 1) != 0 && fvi_count_bits(word) > FVI_BLOCK_KEYS);
}

/* Rows first .. first + n - 1 of the item. */
static void open_strand(const fv_plan *plan, const fv_run *run, void *workspace, const fvi_item *item, const fvi_scratch *scratch,
                        int number, int64_t first, int64_t n, strand *s) {
    const int64_t words = fvi_ceil_div(plan->problem.n_kv, FVI_BLOCK), row = first * plan->share;
    *s = (strand){.item = *item, .scratch = *scratch, .empty = true};
    s->item.row0 += first;
    s->item.n_rows = n;
    fvi_walk_place(plan, run, workspace, &s->item);
    s->scratch.q = fvi_products_query(plan, scratch, row);
    s->scratch.plain += plan->places ? row * plan->problem.d_k : 0;
    s->scratch.place += plan->places ? row : 0;
    s->scratch.words += number * words;
    s->scratch.apart += number * fvi_ceil_div(words, 64);
    s->scratch.seen_state = (uint8_t *)scratch->seen_state + (size_t)number * plan->at.seen_bytes;
    s->scratch.piece = fvi_fold_from(plan, &scratch->piece, row);
    s->scratch.total = fvi_fold_from(plan, &scratch->total, row);
    s->own.key = scratch->column + number * FVI_LEAF;
    s->scratch.list_q = fvi_products_list_query(plan, scratch, row);
    s->scratch.listed += number * words;
    s->scratch.list += number * plan->tile;
    s->scratch.list_key += number * plan->tile * FVI_LIST_ROOM;
    fvi_walk_select(plan, run, workspace, &s->item, &s->scratch, &s->index);
    s->empty = !fvi_split(plan, &s->item, &s->scratch, &s->index);
}

/* Cuts the item at multiples of the tile; returns how many strands there are. */
static int open_strands(const fv_plan *plan, const fv_run *run, void *workspace, const fvi_item *item, const fvi_scratch *scratch,
                        strand *s) {
    const int64_t start = (item->order == NULL ? item->offset : 0) + item->row0, tile = plan->tile;
    int strands = 0;
    for (int64_t first = 0, n; first < item->n_rows; first += n) {
        int64_t into = (start + first) % tile;
        n = fvi_min(tile - (into < 0 ? into + tile : into), item->n_rows - first);
        open_strand(plan, run, workspace, item, scratch, strands, first, n, &s[strands]);
        strands++;
    }
    return strands;
}

/* ---- lists ---- */

/* Of all tiles together: what one brings into the second cache the others find there. */
static void fold_lists(const fv_plan *plan, const fv_run *run, const fvi_source *source, strand *s, int strands) {
    fvi_lists lists[FVI_STRANDS];
    int n = 0;
    for (int t = 0; t < strands; t++) {
        if (!s[t].empty) {
            lists[n] = (fvi_lists){
                .plan = plan, .run = run, .source = source, .item = &s[t].item, .index = &s[t].index, .scratch = &s[t].scratch};
            fvi_lists_begin(&lists[n++]);
        }
    }
    const int64_t blocks = s[0].index.blocks;
    for (int64_t b = 0; b < blocks; b += FVI_LIST_BLOCKS) {
        for (int t = 0; t < n; t++) {
            fvi_lists_take(&lists[t], b, fvi_min(b + FVI_LIST_BLOCKS, blocks));
        }
    }
    for (int t = 0; t < n; t++) {
        fvi_lists_end(&lists[t]);
    }
}

/* ---- pieces ---- */

static void begin_piece(const fv_plan *plan, strand *s) {
    s->fold = s->empty ? &s->scratch.total : &s->scratch.piece;
    if (!s->empty) {
        fvi_fold_clear(plan, s->fold, s->item.n_rows * plan->share);
    }
}

static void end_piece(const fv_plan *plan, strand *s) {
    if (s->fold == &s->scratch.piece) {
        fvi_fold_merge(plan, &s->scratch.total, s->fold, s->item.n_rows * plan->share);
    }
    s->empty = s->empty && s->fold == NULL;
    s->fold = NULL;
}

/* ---- blocks ---- */

static void fold_block(const fv_plan *plan, const fv_run *run, const fvi_source *source, strand *s, int strands, int64_t b) {
    fvi_leaf leaf;
    bool open = false;
    for (int t = 0; t < strands; t++) {
        if (!as_block(&s[t].index, b)) {
            continue;
        }
        if (!open) {
            fvi_tile_open_block(plan, source, b, &s[t].scratch, &leaf);
            open = true;
        }
        if (s[t].fold == NULL) {
            begin_piece(plan, &s[t]);
        }
        fvi_tile_block(plan, run, &s[t].item, &leaf, &s[t].index, b, &s[t].scratch, s[t].fold);
    }
}

static void fold_blocks(const fv_plan *plan, const fv_run *run, const fvi_source *source, strand *s, int strands) {
    const int64_t blocks = s[0].index.blocks;
    for (int64_t b = 0; b < blocks; b++) {
        fold_block(plan, run, source, s, strands, b);
        for (int t = 0; ((b + 1) % (FVI_PIECE / FVI_LEAF) == 0 || b + 1 == blocks) && t < strands; t++) {
            end_piece(plan, &s[t]);
        }
    }
}

/* ---- columns ---- */

/* Takes keys of block s->block on, those in s->word first, until there are 64 or no more. */
static void fill_columns(strand *s) {
    const fvi_index *index = &s->index;
    fvi_columns *c = &s->own;
    s->columns = c;
    c->n = c->segments = 0;
    while (s->block < index->blocks && c->n < FVI_LEAF) {
        uint64_t taken = 0;
        int at = c->n;
        for (; s->word != 0 && c->n < FVI_LEAF; s->word &= s->word - 1) {
            int64_t key = s->block * FVI_BLOCK + __builtin_ctzll(s->word);
            if (key < s->item.n_kv) {
                c->key[c->n++] = (int32_t)key;
                taken |= s->word & -s->word;
            }
        }
        if (taken != 0) {
            c->segment[c->segments].block = s->block;
            c->segment[c->segments].word = taken;
            if (fvi_index_apart(index, s->block) && index->weigh == NULL) {
                fvi_compress_plan(taken, c->segment[c->segments].move);
            }
            c->segment[c->segments++].at = at;
        }
        if (s->word == 0) {
            s->block++;
            s->word = s->block < index->blocks && !as_block(index, s->block) ? index->key[s->block] : 0;
        }
    }
}

static bool same_keys(const fvi_columns *a, const fvi_columns *b) {
    return a == b || (a->n == b->n && memcmp(a->key, b->key, (size_t)a->n * sizeof *a->key) == 0);
}

/* Whether two tiles visit the same keys of blocks from .. to - 1, and ask the same of them. */
static bool alike(const fvi_index *a, const fvi_index *b, int64_t from, int64_t to) {
    bool same = memcmp(a->key + from, b->key + from, (size_t)(to - from) * sizeof *a->key) == 0;
    for (int64_t block = from; same && block < to; block++) {
        same = fvi_index_apart(a, block) == fvi_index_apart(b, block);
    }
    return same;
}

/* The same where `other` just went on from the block and word that s stands at: neighbours mostly have the same columns, and then
 * looking at the words is enough. */
static void fill_beside(strand *s, const strand *other, int64_t block, uint64_t word) {
    const int64_t through = fvi_min(other->block + 1, s->index.blocks);
    if (s->block != block || s->word != word || !alike(&s->index, &other->index, block, through)) {
        fill_columns(s);
        return;
    }
    s->columns = other->columns;
    s->block = other->block;
    s->word = other->word;
}

static void fold_columns(const fv_plan *plan, const fv_run *run, fvi_leaf *leaf, strand *s) {
    if (s->leaves % (FVI_PIECE / FVI_LEAF) == 0) {
        begin_piece(plan, s);
    }
    fvi_tile_columns(plan, run, &s->item, leaf, &s->index, s->columns, &s->scratch, s->fold);
    s->leaves++;
}

static void fold_all_columns(const fv_plan *plan, const fv_run *run, const fvi_source *source, strand *s, int strands) {
    int left = strands;
    for (int t = 0; t < strands; t++) {
        s[t].word = as_block(&s[t].index, 0) ? 0 : s[t].index.key[0];
    }
    while (left > 0) {
        fvi_leaf leaf;
        const fvi_columns *open = NULL;
        const int64_t block = s[0].block;
        const uint64_t word = s[0].word;
        left = 0;
        for (int t = 0; t < strands; t++) {
            if (t == 0) {
                fill_columns(&s[t]);
            } else {
                fill_beside(&s[t], &s[0], block, word);
            }
            if (s[t].columns->n == 0) {
                continue;
            }
            if (open == NULL || !same_keys(open, s[t].columns)) {
                open = s[t].columns;
                fvi_tile_open_columns(plan, source, open, &s[t].scratch, &leaf);
            }
            fold_columns(plan, run, &leaf, &s[t]);
            left++;
            if (s[t].leaves % (FVI_PIECE / FVI_LEAF) == 0) {
                end_piece(plan, &s[t]);
            }
        }
    }
    for (int t = 0; t < strands; t++) {
        end_piece(plan, &s[t]);
    }
}

/* ---- entries that are no keys ---- */

static bool visits_entries(const fvi_index *index, int64_t leaf) {
    return index->entries != NULL && index->entry_leaves.from <= leaf && leaf < index->entry_leaves.to;
}

/* All tiles' entries are those of the head. */
static void fold_entries(const fv_plan *plan, const fv_run *run, strand *s, int strands) {
    int64_t from = INT64_MAX, to = 0;
    for (int t = 0; t < strands; t++) {
        from = s[t].index.entries == NULL ? from : fvi_min(from, s[t].index.entry_leaves.from);
        to = s[t].index.entries == NULL ? to : fvi_max(to, s[t].index.entry_leaves.to);
    }
    for (int64_t number = from; number < to; number++) {
        fvi_leaf leaf;
        bool open = false;
        for (int t = 0; t < strands; t++) {
            if (!visits_entries(&s[t].index, number)) {
                continue;
            }
            if (!open) {
                fvi_tile_open_entries(plan, s[t].index.entries, number, &s[t].scratch, &leaf);
                open = true;
            }
            if (s[t].fold == NULL) {
                begin_piece(plan, &s[t]);
            }
            fvi_tile_entries(plan, run, &s[t].item, &leaf, &s[t].index, number, &s[t].scratch, s[t].fold);
        }
        for (int t = 0; ((number + 1) % (FVI_PIECE / FVI_LEAF) == 0 || number + 1 == to) && t < strands; t++) {
            end_piece(plan, &s[t]);
        }
    }
}

void fvi_strands_run(const fv_plan *plan, const fv_run *run, void *workspace, const fvi_item *item, const fvi_scratch *scratch) {
    strand s[FVI_STRANDS];
    const fvi_source source = fvi_walk_source(plan, run, item);
    const int strands = open_strands(plan, run, workspace, item, scratch, s);
    if (strands == 0) {
        return;
    }
    fold_lists(plan, run, &source, s, strands);
    fold_blocks(plan, run, &source, s, strands);
    fold_all_columns(plan, run, &source, s, strands);
    fold_entries(plan, run, s, strands);
    for (int t = 0; t < strands; t++) {
        fvi_tile_more(plan, &s[t].item, &s[t].index.sieve, &s[t].scratch.total);
    }
}
