/* plan.h - a plan, and the scratch that a run cuts its workspace into.
 *
 * Work items are (sequence, query heads that share an index, block of query positions): all heads of a group, or, where a
 * selector gives each query head an index of its own, one. The rows of an item are its positions times its heads,
 * position-major, so that rows that see a key are neighbours. Keys are folded in leaves of 64 and pieces of
 * 4096, cut from the sequence's first key. A run gives whole items to threads, or, where items are fewer than threads can
 * use, single pieces of items, whose partial results are folded left to right afterwards: the same arithmetic either way.
 * The phase, never the number of queries, says how leaves are multiplied: packed for many rows (kernel/tile.h), or read in
 * place for the few rows of generated tokens (kernel/decode.h).
 */
#ifndef FVI_PLAN_H
#define FVI_PLAN_H

#include "attend/recipe.h"
#include "kernel/decode.h"
#include "kernel/lowbit.h"
#include "kernel/quant.h"
#include "kernel/rowop.h"
#include "kernel/sift.h"
#include "kernel/tile.h"
#include "kernel/wordop.h"

#define FVI_LOG2E 1.4426950408889634
#define FVI_LN2   0.6931471805599453

enum {
    FVI_PIECE = 4096,              /* keys */
    FVI_ITEM_ROWS = 256,           /* rows of an item, at most, if the group allows */
    FVI_FOLD_ROWS = 1024,          /* the same where leaves are folded at once: packing K and V weighs more there */
    FVI_PARTIALS_BYTES = 64 << 20, /* for partial results, at most; items are not cut where that is too little */
    FVI_STRANDS = 4,               /* tiles of an item, at most, where each has an index of its own */
    FVI_BLOCK_KEYS = 40,           /* a block of which more keys than this are visited is folded where it lies: see strands.c */
    FVI_LIST_KEY = 3,              /* a key of a row's own list costs as much as so many keys of a block: see split.c */
    FVI_LIST_ROW = 192,            /* what lists have to save, in keys of a block for each row of a tile */
    FVI_LIST_BLOCKS = 32,          /* blocks of which keys are put into lists before leaves are folded */
    FVI_LIST_ROOM = (FVI_LIST_BLOCKS + 1) * FVI_LEAF + 16, /* keys that wait, of a row, and a few that are overwritten */
    FVI_STATS_BYTES = 128,                                 /* room for a thread's fv_run_stats */
    FVI_BATCH = 64,                                        /* leaves that generated tokens work on at once */
    FVI_PARTIAL_ROWS = 64, /* items of more rows, and more than one position, are not cut into pieces */
};

/* A row's own list of keys, as far as it waits to be folded. */
typedef struct fvi_list {
    int32_t n, leaves; /* keys that wait; leaves that were folded */
} fvi_list;

/* Byte offsets into the workspace; of one thread's scratch, and of the partial results behind all of them. */
typedef struct fvi_layout {
    size_t q, q_row, s, kt, vt, vt_row, gather, out, total, m, sum, alpha, total_m, total_sum, seen;
    size_t key, apart, column, room, scratch;     /* of an index: its bitmaps, columns put side by side, the selector's scratch */
    size_t listed, alike, list, list_key, list_q; /* of rows' own lists */
    size_t plain, place, turned, leaf, kt_low, s_low; /* where positions are the method's: see turn.h */
    size_t seen_state, seen_bytes;                    /* what tells its rows apart: start; of one of FVI_STRANDS */
    size_t thread_bytes;
    size_t partial, partial_bytes;      /* start; one partial result: rows x (d_pad + m + sum) */
    size_t items;                       /* start of the item table */
    size_t dense, dense_row, dense_out; /* workspace of the dense plan; rows that it computes, and what comes out */
    size_t head, head_bytes;            /* what selectors keep: start; of one query head of one sequence */
    size_t state_bytes;                 /* of all of them, where they last from step to step: not in the workspace */
    size_t stats;                       /* start of per-thread statistics */
    size_t bytes;
} fvi_layout;

/* Angles by which rows are turned on: those of 0 .. 255 positions, and of 256 times as many; a sum of two is any. */
typedef struct fvi_turns {
    int64_t width;
    bool interleaved;
    double *frequency; /* (width / 2), owned */
    float *near, *far; /* (256, width / 2, 2) and (n_far, width / 2, 2): cosines and sines, owned */
    int64_t n_far;
} fvi_turns;

struct fv_plan {
    fv_context *ctx;
    fv_problem problem;
    fvi_choice choice;
    fvi_rule rule;       /* the problem's own */
    float scale;         /* of products: the problem's, to scores that are logarithms to the base 2 */
    fvi_tile_ops ops[2]; /* by form: f32, and pairs of bf16 where has_half */
    bool has_half;
    fvi_decode_ops decode; /* used where problem.phase is FV_DECODE */
    fvi_quant_ops quant;
    fvi_rowop_ops rowop;
    fvi_sift_ops sift;
    fvi_word_ops words;
    fvi_lowbit_ops lowbit;
    int64_t group;
    int64_t share; /* query heads of an item: the group, or 1 */
    bool indexed;  /* an index selector */
    bool places;   /* positions are the method's: there is a table of turns */
    fvi_turns turns;
    bool single;          /* an item for each query head all the same */
    int64_t tile;         /* positions of its tile; tiles and items are cut at absolute multiples */
    int64_t q_block;      /* positions of an item at most */
    int64_t rows;         /* rows of an item at most */
    int64_t sub_rows;     /* rows of a score tile */
    int64_t batch;        /* score tiles that scratch has room for */
    int64_t d_pad;        /* d_v padded */
    int64_t partial_rows; /* rows of a partial result */
    int64_t partials;     /* how many partial results fit */
    int64_t max_items;    /* of a run */
    fv_plan *dense;       /* for rows that are computed densely beside the method; NULL if there are none */
    int64_t dense_rows;   /* of them, most at once */
    int threads;
    fvi_layout at;
};

static inline bool fvi_bf16_or_less(fv_dtype dtype) { return dtype == FV_BF16 || dtype == FV_Q8_0 || dtype == FV_Q4_0; }
/* Whether K and V are read where they lie: for generated tokens, unless the method turns them. */
static inline bool fvi_plan_in_place(const fv_plan *plan) {
    return plan->problem.phase == FV_DECODE && !plan->choice.selector->places;
}
/* A prompt's bf16 and quantised keys and values take the form of pairs where there is one; all else is widened to f32. */
static inline bool fvi_plan_pairs(const fv_plan *plan, fv_dtype k, fv_dtype v) {
    return plan->has_half && !fvi_plan_in_place(plan) && fvi_bf16_or_less(k) && fvi_bf16_or_less(v);
}

/* One sequence's part of a run. */
typedef struct fvi_item {
    int64_t sequence, kv_head;
    int64_t head0;        /* first of its query heads */
    int64_t row0, n_rows; /* query positions of the item: row0 .. row0 + n_rows - 1 of the sequence, or of its order */
    const int32_t *order; /* of the sequence's queries, by its selector or who listed the item; NULL: as they come */
    bool compact;         /* outputs go to the places in the order, not to where the queries stand */
    int64_t first, last;  /* least and largest position of a row */
    int64_t n_q, n_kv;    /* of the sequence */
    int64_t q_start, k_start;
    int64_t offset;
    int64_t piece0; /* number of its first piece in the run */
} fvi_item;

/* The row of the sequence's queries that row `row` of the item is of. */
static inline int64_t fvi_item_query(const fvi_item *item, int64_t share, int64_t row) {
    int64_t i = item->row0 + row / share;
    return item->order == NULL ? i : item->order[i];
}

#endif
