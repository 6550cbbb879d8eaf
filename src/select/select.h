/* select.h - which keys a query visits: rules, the index, and selectors that produce it.
 *
 * A selector is pulled: the executor asks for one query tile at a time. There are two kinds.
 *   A *rule* selector says in closed form what positions see (window, sinks): it gives spans of 64-key blocks, ascending and
 *   disjoint, and the rule for what is hidden inside them. One answer serves all heads.
 *   An *index* selector looks at queries and keys, or has a pattern that no rule states. It gives, for each query head and tile
 *   of `query_block` positions, a bitmap over keys: bit j of word b is key 64 b + j. That is the normal form: ascending,
 *   disjoint, and a full word is a block. Where rows of a tile differ beyond the problem's own masks, the block is marked
 *   `apart` and a function tells what each row sees.
 *
 * To add a selector: one file here that defines an fvi_selector, and one row in src/method.
 */
#ifndef FVI_SELECT_H
#define FVI_SELECT_H

#include "base/base.h"
#include "select/sight.h"

enum { FVI_INDEX_SPANS = 64, FVI_PARAMETERS = 16, FVI_BLOCK = 64 };
#define FVI_NOWHERE INT64_MIN

/* Half-open. */
typedef struct fvi_span {
    int64_t from, to;
} fvi_span;

/* Which positions a query sees. All zero: every key. */
typedef struct fvi_rule {
    bool causal;    /* keys up to the query's own position */
    int64_t window; /* 0: off; else keys less than `window` away */
    int64_t sinks;  /* positions 0 .. sinks-1 are never hidden by the window */
} fvi_rule;

/* A query tile: positions of its first and last row, and the keys there are. An index selector's tiles are always whole, though
 * a run may bring a part of their rows; but where the selector gives the order of queries they are the rows named, and `first`
 * and `last` are the least and the largest of their positions. */
typedef struct fvi_query_tile {
    int64_t first, last, n_kv;
    int64_t kv_head;
    const int32_t *row; /* (rows) of the run's queries, each at position offset + row; NULL: those of positions first .. last */
    int64_t rows;
} fvi_query_tile;

/* The keys of block `block` that the row at `position` sees, among those of the index's word. It is asked for all positions of
 * the tile from 0 on, and for one that the run does not bring has to answer the same in any run, as 0 does. */
typedef uint64_t fvi_index_seen(const void *arg, int64_t position, int64_t block);
/* (blocks): the same for all blocks in which rows differ; of others anything. */
typedef const uint64_t *fvi_index_row(const void *arg, int64_t position);

/* An entry besides the keys, that a row takes part with: of a weight 2^log_weight and a value (d_v), NULL for zeros. */
typedef struct fvi_more {
    float log_weight; /* -inf: none */
    const float *value;
} fvi_more;

/* Entries of a head's index that are no keys, such as means of keys: rows of their own, which prepare left in head_state. They
 * are folded after the keys, in leaves of 64. A row sees what `seen` shows it and the problem's masks by position leave: masks by
 * key and biases, which know keys alone, do not reach them. Of prompts only. */
typedef struct fvi_entries {
    int64_t n;
    const float *k, *v;      /* (n, d_k), (n, d_v), in the basis of the sight's rows */
    const int32_t *position; /* (n) not descending: of the last key that an entry knows of */
    const float *log_weight; /* (n) to the base 2, -inf: it is not there; NULL: each weighs as a key does */
    uint64_t (*seen)(const void *arg, int64_t position, int64_t leaf); /* of entries 64 leaf .. */
    const void *arg;
} fvi_entries;

/* A few rows with a leaf of keys. */
typedef struct fvi_pairs {
    int n, keys;             /* 16 and 64 at most */
    const int64_t *position; /* (n) of the rows */
    const int32_t *key;      /* (keys) ascending */
    float *s;                /* (n, 64) scores, logarithms to the base 2 */
    uint64_t *seen;          /* (n) */
} fvi_pairs;

/* Scores of a few rows (64 at most) with a leaf. */
typedef struct fvi_scores {
    int n;
    const int64_t *position; /* (n) of the rows */
    const float *m;          /* (n) the largest score of a row that was folded yet, -inf at first */
    const float *s;          /* (n, 64), 64-byte aligned; anything where `seen` has no bit */
    uint64_t *seen;          /* (n) */
} fvi_scores;

/* What the executor asks an index while it folds it: which scores are left out after all. Scores and maxima are logarithms to
 * the base 2. A row is asked for one leaf after the other, in the order they are folded, by one thread; what `arg` keeps for a
 * row may be changed, and the answer must depend on nothing else but that row. What is left out weighs nothing, in the sum
 * too, and V of a leaf that no row keeps a key of is not read. */
typedef struct fvi_sieve {
    /* Clears bits of `seen`: of the keys that a row does not keep. */
    void (*keep)(void *arg, const fvi_scores *scores);
    /* NULL: nothing; or what a row whose largest kept score is m (-inf: it kept none) takes part with at its end. */
    fvi_more (*more)(void *arg, int64_t position, float m);
    void *arg;
} fvi_sieve;

/* The query that scores are of. */
typedef struct fvi_place {
    int layer;
    int64_t head, position;
} fvi_place;

/* Positions that a method gives queries and keys in place of their own. Only where rows have rotary positions, whose scores
 * depend on differences: the executor turns rows on from where they stand. What masks compare stays as it is. */
typedef struct fvi_places {
    /* Where the query at `position` stands for the keys of block `block`; FVI_NOWHERE: it sees none of them. *set: 0 if it finds
     * keys where they are, else a number for where it finds them. NULL: there are no such places. */
    int64_t (*query)(const struct fvi_places *places, int64_t position, int64_t block, int64_t *set);
    /* Of the set's n keys, which stand at `position`: a score is s(high) + (s(low) - s(high)) part, 0 <= part < 1. NULL: there is
     * no set but 0. */
    void (*keys)(const struct fvi_places *places, int64_t set, const int64_t *position, int n, int64_t *high, int64_t *low,
                 float *part);
    /* NULL, or adds to n scores (logarithms to the base 2) of the query at `position` with keys at key[] and parts part[]. */
    void (*add)(const struct fvi_places *places, int64_t set, const fvi_place *row, int n, const int64_t *key, const float *part,
                float *s);
    const void *arg;
    int64_t n_kv;
} fvi_places;

typedef struct fvi_index {
    fvi_span span[FVI_INDEX_SPANS]; /* of blocks: a rule selector's answer */
    int n;
    fvi_rule rule; /* holds inside all of the index */

    int64_t blocks;  /* words: ceil(n_kv / 64); 0 where spans are the answer */
    uint64_t *key;   /* (blocks): keys that at least one row of the tile visits */
    uint64_t *apart; /* (ceil(blocks / 64)) bit b: rows differ in block b */
    fvi_index_seen *seen;
    fvi_index_row *row; /* NULL, or where a row's words stand side by side: they say what `seen` says, at less cost */
    const void *seen_arg;
    /* NULL, or what is asked in place of `seen` while leaves that have keys of blocks apart are folded: clears bits of keys that
     * a row does not visit, and adds to scores the logarithms of what pairs weigh. Such a leaf may have keys of other blocks too,
     * to be left alone. */
    void (*weigh)(const void *seen_arg, const fvi_pairs *pairs);
    const fvi_entries *entries; /* NULL: none */
    fvi_span entry_leaves;      /* those that rows of the tile visit */
    fvi_sieve sieve;            /* keep is NULL: none */
    fvi_places places;
    bool together;  /* all keys are folded for the whole tile, even those that few rows visit: a forecast counts so */
    bool fell_back; /* the method gave up on this tile: it is dense, and counted */
} fvi_index;

/* What an index selector works with. `head_state` was filled by prepare and may not be changed by tile, which many threads call
 * at once, each with a `scratch` of its own, which keeps nothing from tile to tile but what the index's seen and sieve read of
 * this one. */
typedef struct fvi_select {
    const double *value;  /* the method's parameters in the order of its registry row */
    const double *number; /* of a profile: what was found for this layer and head; NULL without one */
    int64_t numbers;
    const fvi_sight *sight;
    void *head_state, *scratch; /* 64-byte aligned */
    void *seen_state;           /* what index->seen and the sieve read stands here until the tile is done; prepare has none */
} fvi_select;

/* How much of a prompt must be there before a tile's index can be made. */
typedef enum fvi_scope {
    FVI_SCOPE_TILE,  /* the tile's own queries and the keys up to them: any cut at multiples of query_block will do */
    FVI_SCOPE_PROMPT /* all queries and keys */
} fvi_scope;

typedef struct fvi_calibration fvi_calibration;

typedef struct fvi_selector {
    void (*rule)(const double *value, const fvi_query_tile *q, fvi_index *index); /* a rule selector has this alone */

    int64_t query_block; /* positions of a tile, a multiple of 64: tiles are cut at its absolute multiples */
    fvi_scope scope;
    /* Bytes kept for each query head from prepare to the last tile, and of a thread's scratch; NULL: none. `extent` has maxima.
     */
    size_t (*head_bytes)(const double *value, const fvi_extent *extent);
    size_t (*scratch_bytes)(const double *value, const fvi_extent *extent);
    size_t (*seen_bytes)(const double *value, const fvi_extent *extent); /* of seen_state; NULL: none */
    void (*prepare)(const fvi_select *s);                                /* the prepass of a head; NULL: none */
    /* NULL, or the order in which queries fill the head's tiles: a permutation of rows 0 .. n_q - 1 that prepare left in
     * head_state. Tiles are then query_block rows of it each, and the scope is the prompt. */
    const int32_t *(*order)(const void *head_state);
    /* Fills an index that is empty (no keys, no rule). What the problem's own masks hide may be set; it is taken out. */
    void (*tile)(const fvi_select *s, const fvi_query_tile *q, fvi_index *index);
    /* NULL, or why parameters do not fit this problem: a sentence that outlives the call. */
    const fvi_calibration *calibration; /* what it finds offline: see calibrate.h; NULL: nothing */
    bool places; /* may set index->places: where rows have rotary positions, positions are the method's. Its index is then of
                  * whole blocks, and generated tokens are multiplied as prompts are */
    void (*resolve)(double *value, const fvi_extent *extent); /* NULL, or sets numbers that were left at 0 to the problem's */
    bool steps; /* head_state lasts from step to step of one sequence: prepare is called at each, and sees sight->step */
    const char *(*refuse)(const double *value, const fvi_extent *extent);
} fvi_selector;

extern const fvi_selector fvi_select_dense;
extern const fvi_selector fvi_select_window;  /* size */
extern const fvi_selector fvi_select_sinks;   /* sinks, size */
extern const fvi_selector fvi_select_random;  /* density, columns, seed, shared */
extern const fvi_selector fvi_select_dilated; /* size, dilation */
extern const fvi_selector fvi_select_gna;     /* shape; window, stride, dilation, causal flag: each for three axes, last first */
extern const fvi_selector fvi_select_faster_na; /* shape; window, dilation, causal flag: each for three axes, last first */
extern const fvi_selector fvi_select_sparsed;   /* block, select, skip, steps, generated */
extern const fvi_selector fvi_select_halonet;   /* width, height, block, halo, stride */

extern const fvi_selector fvi_select_sparse_strided; /* stride, form */
extern const fvi_selector fvi_select_sparse_fixed;   /* length, cells, groups, form */

extern const fvi_selector fvi_select_row_topk;   /* k */
extern const fvi_selector fvi_select_sale;       /* threshold, local, dense, error */
extern const fvi_selector fvi_select_spargeattn; /* sim, cdf, topk, sink, pv, l1, pv_l1 */
extern const fvi_selector fvi_select_top_theta;  /* theta, k, sdc, scale, vmc, missing */
extern const fvi_selector fvi_select_hepos;      /* stride */
extern const fvi_selector fvi_select_lsg;        /* block, sparse, factor, reduction, globals, rounds, seed, mass */
extern const fvi_selector fvi_select_masformer;  /* dense, size, form */
extern const fvi_selector fvi_select_moa;        /* alpha, beta */
extern const fvi_selector fvi_select_power;      /* block, window, sinks */
extern const fvi_selector fvi_select_s2;         /* block, local, stride, offset, dense_heads, dense_every */
extern const fvi_selector fvi_select_star;       /* block, anchor, query */

extern const fvi_selector fvi_select_block_topk;       /* blocks, density */
extern const fvi_selector fvi_select_flexprefill;      /* gamma, tau, min */
extern const fvi_selector fvi_select_minference;       /* kind, vertical, slash, blocks, init, local */
extern const fvi_selector fvi_select_oracle;           /* mass, density */
extern const fvi_selector fvi_select_sample_attention; /* alpha, rows, window */
extern const fvi_selector fvi_select_xattention;       /* stride, threshold */

extern const fvi_selector fvi_select_hip;       /* k, block_q, block_k, window, sinks, stride, center */
extern const fvi_selector fvi_select_hyper;     /* block, samples, least, projections, seed, chunk */
extern const fvi_selector fvi_select_dam;       /* none */
extern const fvi_selector fvi_select_dhsa;      /* budget, density, chunk, local, sinks, norm */
extern const fvi_selector fvi_select_gali;      /* trained, local, chunk, noise, seed */
extern const fvi_selector fvi_select_longheads; /* chunk, length */
extern const fvi_selector fvi_select_longheads_step;

/* ---- rules ---- */

/* The positions below n_kv that a query at `position` sees: at most two spans; returns their number. */
int fvi_rule_spans(const fvi_rule *rule, int64_t position, int64_t n_kv, fvi_span out[2]);
/* True if each of the queries first..last sees each of the positions from..to-1. */
bool fvi_rule_sees_all(const fvi_rule *rule, int64_t first, int64_t last, int64_t from, int64_t to);
/* The positions that at least one row of the tile sees: at most two spans, ascending and apart; returns their number. */
int fvi_rule_tile_spans(const fvi_rule *rule, const fvi_query_tile *q, fvi_span out[2]);
/* The blocks that queries at first..last see under the rule, as an index with that rule. */
void fvi_rule_index(const fvi_rule *rule, const fvi_query_tile *q, fvi_index *index);
/* out = the blocks of `index` that `rule` leaves visible too. out may not be index. */
void fvi_index_under_rule(const fvi_index *index, const fvi_rule *rule, const fvi_query_tile *q, fvi_index *out);

/* ---- an index of keys ---- */

/* Empties it. */
void fvi_index_clear(fvi_index *index);
/* Adds keys from..to-1; what is outside 0..n_kv-1 is left out. */
void fvi_index_add(fvi_index *index, int64_t from, int64_t to);
/* Adds all keys of block b, which must exist. */
static inline void fvi_index_add_block(fvi_index *index, int64_t b) { index->key[b] = UINT64_MAX; }
static inline void fvi_index_add_key(fvi_index *index, int64_t key) {
    index->key[key / FVI_BLOCK] |= UINT64_C(1) << (key % FVI_BLOCK);
}
/* Adds `keys` of block b, of which index->seen tells what each row sees. */
static inline void fvi_index_add_apart(fvi_index *index, int64_t b, uint64_t keys) {
    index->key[b] |= keys;
    index->apart[b / 64] |= UINT64_C(1) << (b % 64);
}
static inline bool fvi_index_apart(const fvi_index *index, int64_t b) { return index->apart[b / 64] >> (b % 64) & 1; }
/* What the row at `position` visits of a block in which rows differ. */
static inline uint64_t fvi_index_word(const fvi_index *index, int64_t position, int64_t b) {
    return index->row != NULL ? index->row(index->seen_arg, position)[b] : index->seen(index->seen_arg, position, b);
}
/* Every key: the tile is dense. */
void fvi_index_add_all(fvi_index *index);
/* Takes out the blocks of which no row of the tile sees a key under `rule`. Words of other blocks stay whole, past n_kv too: how
 * a block is folded must not depend on where a prompt was cut. */
void fvi_index_trim(fvi_index *index, const fvi_rule *rule, const fvi_query_tile *q);

#endif
