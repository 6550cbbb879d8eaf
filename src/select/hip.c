/* hip.c - tree search: for each block of queries, ranges of keys are halved, the better half of all halves is kept, until ranges
 * are single blocks of keys. O(n log n) products in all.
 *
 * Lee et al., HiP Attention: Sparse Sub-Quadratic Attention with Hierarchical Attention Pruning, ICLR 2025 (arXiv 2406.09827),
 * section 3, Algorithm 1. Built is the form of the official code's version 1.1 (DeepAuto-AI/hip-attention, draft and fused
 * kernels; version 1.2 is another algorithm), with its defaults: the last `window` keys of a row are always seen and stand
 * outside the tree; of the keys before them, m = ceil(k / block_k) equal ranges of blocks of block_k keys are made. A level
 * halves each range (the first half takes the floor), takes for a half the largest product of its representative block's keys
 * with every `stride`-th query of the block, and keeps the m best of 2 m halves. Halves that begin before `sinks` keys are always
 * kept. Where no more than k keys stand before the window, all of them are kept.
 *
 * Where code and paper leave a choice: the representative is the half's middle block (the code's default; center=0: its first).
 * Official block_q is 32 or 64, by file; 64 is taken here, since a tile has 64 rows and rows that agree cost less.
 * Deviations: halves are ranked by their product and not by its sigmoid, which is 1 for many; equal ones by position; range
 * bounds are exact and not rounded. A query block that is not complete has the rows that are there. If its sampled rows are not,
 * its last row stands in. */
#include "select/select.h"

#include <math.h>
#include <string.h>

enum { K, BLOCK_Q, BLOCK_K, WINDOW, SINKS, STRIDE, CENTER };
enum { TILE = 64, PARTS = 4, MOST_ROWS = 64 };

/* What rows of a tile see: parts are its query blocks. */
typedef struct sets { /* in seen_state, the tree's words behind it */
    int64_t first, window, block_q, blocks;
    uint64_t *tree; /* (parts, blocks) */
} sets;

/* One search. Ranges are in blocks of block_k keys. */
typedef struct search {
    const fvi_select *s;
    int64_t block_k, end, ranges; /* keys from `end` on are none's: after the block's last row */
    int32_t *first, *size;        /* (2 ranges) halves of (ranges) */
    float *score;                 /* (2 ranges) */
    int32_t *kept;                /* (ranges) */
    uint32_t *room;               /* (4 ranges) */
    float *products;              /* (rows, 64) */
    fvi_look look;
} search;

static int64_t most_ranges(const double *value, const fvi_extent *e) {
    int64_t k = fvi_min((int64_t)value[K], fvi_max(e->n_kv, 1));
    return fvi_ceil_div(k, (int64_t)value[BLOCK_K]);
}

static int64_t tree_bytes(int64_t n_kv) { return fvi_round_up(PARTS * fvi_ceil_div(n_kv, FVI_BLOCK) * 8, 64); }

static size_t scratch_bytes(const double *value, const fvi_extent *e) {
    int64_t floats = MOST_ROWS * (e->d_k + FVI_BLOCK) + 16;
    int64_t numbers = fvi_round_up(11 * most_ranges(value, e), 16);
    return (size_t)(4 * (fvi_round_up(floats, 16) + numbers)) + fvi_look_bytes(MOST_ROWS, e->d_k, e->d_v);
}

static size_t seen_bytes(const double *value, const fvi_extent *e) {
    (void)value;
    return 64 + (size_t)tree_bytes(e->n_kv);
}

static void *take(uint8_t **at, int64_t bytes) {
    void *here = *at;
    *at += fvi_round_up(bytes, 64);
    return here;
}

/* The block's sampled rows. */
static int64_t sample(const fvi_select *s, int64_t first, int64_t last, float *q) {
    const fvi_sight *sight = s->sight;
    int64_t stride = (int64_t)s->value[STRIDE], n = 0;
    int64_t from = fvi_max(first, sight->offset);
    for (int64_t i = first + fvi_round_up(from - first, stride); i <= last; i += stride) {
        sight->rows(sight, FVI_SIDE_Q, i - sight->offset, 1, q + n++ * sight->d_k);
    }
    if (n == 0) {
        sight->rows(sight, FVI_SIDE_Q, last - sight->offset, 1, q);
        n = 1;
    }
    return n;
}

/* Representatives of some halves: at most one leaf of keys, those of half i end at end[i - from]. */
typedef struct leaf {
    int64_t from, to;
    int n;
    int32_t key[FVI_BLOCK], end[FVI_BLOCK];
} leaf;

/* Those of halves from `from` on, asked from memory. */
static void gather(const search *t, int64_t from, leaf *out) {
    bool center = t->s->value[CENTER] != 0;
    out->from = from;
    out->to = fvi_min(from + FVI_BLOCK / t->block_k, 2 * t->ranges);
    out->n = 0;
    for (int64_t i = from; i < out->to; i++) {
        int64_t at = (t->first[i] + (center ? t->size[i] / 2 : 0)) * t->block_k;
        for (int64_t j = at; t->size[i] > 0 && j < fvi_min(at + t->block_k, t->end); j++) {
            out->key[out->n++] = (int32_t)j;
        }
        out->end[i - from] = out->n;
    }
    t->s->sight->ask_keys(t->s->sight, out->key, out->n);
}

static void score_leaf(search *t, const leaf *x) {
    float best[FVI_BLOCK];
    if (x->n > 0) {
        fvi_look_keys(&t->look, x->key, x->n, 1, t->products);
        t->s->sight->sift->columns(t->products, (int)t->look.rows, best);
    }
    int64_t sinks = fvi_ceil_div((int64_t)t->s->value[SINKS], t->block_k);
    for (int64_t i = x->from, j = 0; i < x->to; i++) {
        float top = -INFINITY;
        for (; j < x->end[i - x->from]; j++) {
            top = best[j] > top ? best[j] : top;
        }
        t->score[i] = t->size[i] > 0 && t->first[i] < sinks ? INFINITY : top;
    }
}

/* Keys of a leaf come from anywhere: they are on their way while the leaf before is scored. */
static void score_halves(search *t) {
    leaf room[2];
    int now = 0;
    gather(t, 0, &room[now]);
    for (; room[now].from < 2 * t->ranges; now = 1 - now) {
        gather(t, room[now].to, &room[1 - now]);
        score_leaf(t, &room[now]);
    }
}

/* Range i becomes halves 2 i and 2 i + 1: from the last, so that they may overwrite. */
static void halve(search *t) {
    for (int64_t i = t->ranges - 1; i >= 0; i--) {
        int32_t first = t->first[i], size = t->size[i];
        t->first[2 * i] = first;
        t->size[2 * i] = size / 2;
        t->first[2 * i + 1] = first + size / 2;
        t->size[2 * i + 1] = size - size / 2;
    }
}

static int32_t longest(const search *t) {
    int32_t most = 0;
    for (int64_t i = 0; i < t->ranges; i++) {
        most = t->size[i] > most ? t->size[i] : most;
    }
    return most;
}

/* Leaves single blocks, or empty ranges, in first and size. */
static void descend(search *t, int64_t blocks) {
    for (int64_t i = 0; i < t->ranges; i++) {
        t->first[i] = (int32_t)(blocks * i / t->ranges);
        t->size[i] = (int32_t)(blocks * (i + 1) / t->ranges) - t->first[i];
    }
    while (longest(t) > 1) {
        halve(t);
        score_halves(t);
        t->s->sight->sift->top(t->score, 2 * t->ranges, t->ranges, t->room, t->kept);
        for (int64_t i = 0; i < t->ranges; i++) { /* kept[i] >= i */
            t->first[i] = t->first[t->kept[i]];
            t->size[i] = t->size[t->kept[i]];
        }
    }
}

static void add_keys(uint64_t *tree, int64_t from, int64_t to) {
    for (int64_t j = from; j < to; j++) {
        tree[j / FVI_BLOCK] |= UINT64_C(1) << (j % FVI_BLOCK);
    }
}

/* The tree's keys for the rows first..last, which are there, of one query block that begins at `block`. */
static void search_block(const fvi_select *s, int64_t block, int64_t last, uint64_t *tree) {
    const fvi_sight *sight = s->sight;
    int64_t before = last + 1 - (int64_t)s->value[WINDOW];
    if (before <= (int64_t)s->value[K]) {
        add_keys(tree, 0, before);
        return;
    }
    search t = {.s = s, .block_k = (int64_t)s->value[BLOCK_K], .end = last + 1};
    t.ranges = fvi_ceil_div((int64_t)s->value[K], t.block_k);
    uint8_t *at = s->scratch;
    float *q = take(&at, MOST_ROWS * sight->d_k * 4);
    t.products = take(&at, MOST_ROWS * FVI_BLOCK * 4);
    int32_t *numbers = take(&at, 11 * t.ranges * 4);
    t.first = numbers;
    t.size = numbers + 2 * t.ranges;
    t.score = (float *)(numbers + 4 * t.ranges);
    t.kept = numbers + 6 * t.ranges;
    t.room = (uint32_t *)(numbers + 7 * t.ranges);
    t.look = fvi_look_open(sight, q, sample(s, block, last, q), at);
    descend(&t, fvi_ceil_div(before, t.block_k));
    for (int64_t i = 0; i < t.ranges; i++) {
        int64_t from = t.first[i] * t.block_k;
        add_keys(tree, from, t.size[i] > 0 ? fvi_min(from + t.block_k, t.end) : from);
    }
}

static uint64_t seen(const void *arg, int64_t position, int64_t block) {
    const sets *x = arg;
    int64_t hidden = position - x->window + 1 - block * FVI_BLOCK;
    uint64_t near = hidden <= 0 ? UINT64_MAX : hidden >= FVI_BLOCK ? 0 : UINT64_MAX << hidden;
    return near | x->tree[(position - x->first) / x->block_q * x->blocks + block];
}

static void tile(const fvi_select *s, const fvi_query_tile *q, fvi_index *index) {
    const fvi_sight *sight = s->sight;
    sets *x = s->seen_state;
    *x = (sets){q->first, (int64_t)s->value[WINDOW], (int64_t)s->value[BLOCK_Q], index->blocks,
                (uint64_t *)((uint8_t *)s->seen_state + 64)};
    int64_t parts = TILE / x->block_q;
    memset(x->tree, 0, (size_t)(parts * x->blocks) * sizeof *x->tree);
    bool there[PARTS] = {0};
    for (int64_t p = 0; p < parts; p++) {
        int64_t first = q->first + p * x->block_q;
        int64_t last = fvi_min(first + x->block_q - 1, sight->offset + sight->n_q - 1);
        there[p] = fvi_max(first, sight->offset) <= last;
        if (there[p]) {
            search_block(s, first, last, x->tree + p * x->blocks);
        }
    }
    index->seen = seen;
    index->seen_arg = x;
    for (int64_t b = 0; b < index->blocks; b++) {
        uint64_t any = 0, all = UINT64_MAX;
        for (int64_t p = 0; p < parts; p++) {
            any |= there[p] ? x->tree[p * x->blocks + b] : 0;
            all &= there[p] ? x->tree[p * x->blocks + b] : UINT64_MAX;
        }
        int64_t begin = b * FVI_BLOCK, hidden = q->first - x->window + 1 - begin;
        if (begin > q->last - x->window || all == UINT64_MAX) {
            fvi_index_add_block(index, b);
        } else if (hidden < FVI_BLOCK) { /* the window's edge runs through it */
            fvi_index_add_apart(index, b, any | (hidden <= 0 ? UINT64_MAX : UINT64_MAX << hidden));
        } else if (any == all) {
            index->key[b] |= any;
        } else {
            fvi_index_add_apart(index, b, any);
        }
    }
}

static const char *refuse(const double *value, const fvi_extent *e) {
    int64_t block_q = (int64_t)value[BLOCK_Q];
    if (block_q != 16 && block_q != 32 && block_q != 64) {
        return "block_q has to be 16, 32 or 64";
    }
    return e->causal ? NULL : "the search is over the keys before a query: it needs a causal problem";
}

const fvi_selector fvi_select_hip = {.query_block = TILE,
                                     .scope = FVI_SCOPE_TILE,
                                     .scratch_bytes = scratch_bytes,
                                     .seen_bytes = seen_bytes,
                                     .tile = tile,
                                     .refuse = refuse};
