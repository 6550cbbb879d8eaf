/* tile.h - the tile executor: streaming softmax of one item's rows over an index of key blocks. */
#ifndef FVI_TILE_H
#define FVI_TILE_H

#include "attend/compress.h"
#include "attend/score.h"

/* Running state of an item's rows over some keys: (max, sum, unnormalised out). */
typedef struct fvi_fold {
    float *m, *sum; /* (rows); m to the base 2 */
    float *out;     /* (rows, d_pad) */
} fvi_fold;

/* One thread's scratch, cut from the workspace. */
typedef struct fvi_scratch {
    float *q_row, *s, *alpha;
    void *q, *kt, *vt, *vt_row, *gather;
    const fvi_tile_ops *ops; /* of the form that K and V of the run take */
    const fvi_decode_k *key; /* generated tokens: products with K and V in place; NULL: leaves are packed */
    const fvi_decode_v *value;
    uint64_t *seen;
    fvi_fold piece, total;
    uint64_t *words, *apart; /* bitmaps of the indexes of an item's tiles */
    int32_t *column;         /* (FVI_STRANDS, 64) */
    float *plain;            /* (rows, d_k) the item's queries as they come, where positions are the method's */
    int64_t *place;          /* (rows) where they are packed for */
    float *leaf, *s_low;     /* (64, d_k) a leaf's keys; a second tile of scores */
    void *turned, *kt_low;   /* (64) rows of them that were turned; a second packed leaf */
    bool unrotate;           /* a cache's rows are taken back from its own basis */
    uint64_t *listed;        /* keys of the index that rows' own lists have: see split.h */
    uint64_t *alike;         /* (blocks / 64): room for the split */
    fvi_list *list;          /* (rows) */
    int32_t *list_key;       /* (rows, FVI_LIST_ROOM) */
    void *list_q;            /* queries, packed for products in place */
    const fvi_decode_k *list_k;
    const fvi_decode_v *list_v;
    fvi_decode_qk_apart *list_qk; /* of K that lies apart, and of V; NULL: rows are put side by side */
    fvi_decode_pv_apart *list_pv;
    fvi_decode_pv_two *list_two;
    void *room, *select; /* columns side by side; the selector's own scratch */
    void *seen_state;    /* what index->seen reads */
    fv_run_stats *stats;
} fvi_scratch;

/* Up to 64 columns of an index that are folded as one leaf. */
typedef struct fvi_columns {
    int32_t *key; /* (64) ascending */
    int n, segments;
    struct {
        int64_t block;
        uint64_t word; /* keys of the block that are taken, from key[at] on */
        int at;
        uint64_t move[FVI_COMPRESS_STEPS]; /* to put the word's bits side by side; only where rows differ in the block */
    } segment[FVI_LEAF];
} fvi_columns;

void fvi_scratch_cut(const fv_plan *plan, const fv_run *run, void *workspace, int worker, fvi_scratch *out);

/* Empties a fold of `rows` rows: m = -inf, sum = 0, out = 0. */
void fvi_fold_clear(const fv_plan *plan, fvi_fold *fold, int64_t rows);
/* The states of rows row, row + 1 ... */
static inline fvi_fold fvi_fold_from(const fv_plan *plan, const fvi_fold *fold, int64_t row) {
    return (fvi_fold){fold->m + row, fold->sum + row, fold->out + row * plan->d_pad};
}
/* total = total followed by piece: both rescaled to the larger maximum. An empty side leaves the other's bits alone. */
void fvi_fold_merge(const fv_plan *plan, fvi_fold *total, const fvi_fold *piece, int64_t rows);

/* Queries of an item, packed: scratch->q. */
void fvi_tile_load_queries(const fv_plan *plan, const fv_run *run, const fvi_item *item, fvi_scratch *scratch);
/* Folds blocks from .. from + leaves - 1, all of whose keys a rule selector's index visits, into `fold`. */
void fvi_tile_blocks(const fv_plan *plan, const fv_run *run, const fvi_item *item, const fvi_source *source,
                     const fvi_index *index, int64_t from, int leaves, const fvi_scratch *scratch, fvi_fold *fold);
/* Opens a block, or a leaf of columns or of entries, once for all the items that visit it: until the next one is opened. */
void fvi_tile_open_block(const fv_plan *plan, const fvi_source *source, int64_t block, const fvi_scratch *scratch,
                         fvi_leaf *leaf);
void fvi_tile_open_entries(const fv_plan *plan, const fvi_entries *entries, int64_t number, const fvi_scratch *scratch,
                           fvi_leaf *leaf);
void fvi_tile_open_columns(const fv_plan *plan, const fvi_source *source, const fvi_columns *columns, const fvi_scratch *scratch,
                           fvi_leaf *leaf);
/* Folds an open block, an open leaf of columns, or leaf `number` of the index's entries, into `fold`. */
void fvi_tile_block(const fv_plan *plan, const fv_run *run, const fvi_item *item, fvi_leaf *leaf, const fvi_index *index,
                    int64_t block, const fvi_scratch *scratch, fvi_fold *fold);
void fvi_tile_columns(const fv_plan *plan, const fv_run *run, const fvi_item *item, fvi_leaf *leaf, const fvi_index *index,
                      const fvi_columns *columns, const fvi_scratch *scratch, fvi_fold *fold);
void fvi_tile_entries(const fv_plan *plan, const fv_run *run, const fvi_item *item, fvi_leaf *leaf, const fvi_index *index,
                      int64_t number, const fvi_scratch *scratch, fvi_fold *fold);
/* Bits of a leaf's keys that the key mask leaves; leaf_key: number of the first, of a leaf without numbers. */
uint64_t fvi_tile_key_mask(const fv_plan *plan, const fv_run *run, const fvi_item *item, int64_t leaf_key, const fvi_leaf *leaf);
/* What the item's rows take part with besides. */
void fvi_tile_more(const fv_plan *plan, const fvi_item *item, const fvi_sieve *sieve, fvi_fold *fold);
/* Normalises, adds the sink logit, writes out and lse. */
void fvi_tile_finish(const fv_plan *plan, const fv_run *run, const fvi_item *item, fvi_fold *fold);

#endif
