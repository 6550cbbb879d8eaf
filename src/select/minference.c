/* minference.c - each head has one of three patterns: vertical-slash, block-sparse, A-shape.
 *
 * Jiang et al.: MInference 1.0: Accelerating Pre-filling for Long-Context LLMs via Dynamic Sparse Attention, NeurIPS 2024.
 * Vertical-slash (algorithm 2): the exact attention of the last 64 rows, summed along columns and along diagonals; the best
 * `vertical` columns and the best `slash` diagonals. Block-sparse (algorithm 3): the best `blocks` blocks of 64 keys by mean
 * query and mean key. A-shape: the first `init` keys and a window of `local`. Which pattern a head has, and its numbers, come
 * from a profile (kind and two numbers a head: minference_search.h finds them), else from the parameters for all heads alike.
 * Where the official code (microsoft/MInference, minference_forward.py) adds to the paper, this is the code's form:
 *   - the first 30 columns and the last 100 diagonals come before all others; at least 30 columns and 50 diagonals are taken;
 *   - a block of 64 queries visits all keys of each of its diagonals: 64 for each, together and not aligned;
 *   - block-sparse has no scale and forces no block; the last block's mean key is divided by 64 whatever it has.
 * Deviations: where diagonals are near, the code's kernel extends their union in steps of 64 keys and visits more than they have;
 * here a key is visited if it is on a diagonal of the query block. Of equal diagonals the nearer comes first. */
#include "select/calibrate.h"
#include "select/pool.h"
#include "select/rank.h"
#include "select/stripe.h"

#include <math.h>
#include <string.h>

enum { ROWS = 64, FIRST_COLUMNS = 30, LAST_DIAGONALS = 100, LEAST_COLUMNS = 30, LEAST_DIAGONALS = 50 };
enum { VERTICAL_SLASH, BLOCK_SPARSE, A_SHAPE };

typedef struct pattern {
    int kind;
    int64_t first, second; /* vertical and slash; blocks; init and local */
} pattern;

/* What prepare leaves. A query block's keys on diagonals are the same bits for each block, moved by whole words: bit 64 blocks +
 * j - f of `strip` says whether key j is on a diagonal of the block that begins at position f. */
typedef struct state {
    uint64_t *column; /* (blocks) */
    uint64_t *strip;  /* (blocks + 1) */
    float *keys;      /* (d_k, blocks) means */
    size_t bytes;
} state;

typedef struct room {
    float *q, *column, *diagonal; /* (64, d_k), (n_kv) twice */
    float *pool, *mean, *score;
    int64_t *position;
    int32_t *order, *spare; /* (n_kv) */
    void *stripe;
    size_t bytes;
} room;

/* A number of a profile is anything finite. */
static int64_t whole(double x, double least) { return (int64_t)fmin(fmax(x, least), 1 << 30); }

static pattern pattern_of(const fvi_select *s) {
    static const int first[] = {1, 3, 4}, second[] = {2, 3, 5}; /* among the parameters, by kind */
    const double *found = s->number != NULL && s->numbers >= 3 ? s->number : NULL;
    int kind = (int)fmin(fmax(found != NULL ? found[0] : s->value[0], VERTICAL_SLASH), A_SHAPE);
    double a = found != NULL ? found[1] : s->value[first[kind]], b = found != NULL ? found[2] : s->value[second[kind]];
    return (pattern){kind, whole(a, kind == BLOCK_SPARSE), whole(b, kind == A_SHAPE)};
}

static void *take(void *base, size_t *at, int64_t bytes) {
    void *place = base == NULL ? NULL : (uint8_t *)base + *at;
    *at += (size_t)fvi_round_up(bytes, 64);
    return place;
}

static state cut_state(void *base, int64_t n_kv, int64_t d_k) {
    const int64_t blocks = fvi_ceil_div(n_kv, FVI_BLOCK);
    state s = {0};
    s.column = take(base, &s.bytes, blocks * (int64_t)sizeof(uint64_t));
    s.strip = take(base, &s.bytes, (blocks + 1) * (int64_t)sizeof(uint64_t));
    s.keys = take(base, &s.bytes, d_k * blocks * (int64_t)sizeof(float));
    return s;
}

static room cut(void *base, int64_t n_kv, int64_t d_k, int64_t d_v) {
    const int64_t f = sizeof(float), blocks = fvi_ceil_div(n_kv, FVI_BLOCK);
    room r = {0};
    r.stripe = take(base, &r.bytes, (int64_t)fvi_stripe_bytes(ROWS, d_k, d_v));
    r.q = take(base, &r.bytes, ROWS * d_k * f);
    r.position = take(base, &r.bytes, ROWS * (int64_t)sizeof(int64_t));
    r.column = take(base, &r.bytes, n_kv * f);
    r.diagonal = take(base, &r.bytes, n_kv * f);
    r.pool = take(base, &r.bytes, fvi_pool_room(d_k) * f);
    r.mean = take(base, &r.bytes, d_k * f);
    r.score = take(base, &r.bytes, blocks * f);
    r.order = take(base, &r.bytes, n_kv * f);
    r.spare = take(base, &r.bytes, n_kv * f);
    return r;
}

static size_t head_bytes(const double *value, const fvi_extent *e) {
    (void)value;
    return cut_state(NULL, e->n_kv, e->d_k).bytes;
}

static size_t scratch_bytes(const double *value, const fvi_extent *e) {
    (void)value;
    return cut(NULL, e->n_kv, e->d_k, e->d_v).bytes;
}

static const char *refuse(const double *value, const fvi_extent *e) {
    (void)value;
    return e->causal ? NULL : "minference is for causal attention: its diagonals begin at a row's own key";
}

static void take_columns(float *weight, int64_t n, int64_t count, room *r, uint64_t *column) {
    for (int64_t j = 0; j < fvi_min(FIRST_COLUMNS, n); j++) {
        weight[j] = INFINITY;
    }
    fvi_rank(weight, n, r->order, r->spare);
    for (int64_t i = 0; i < fvi_min(n, fvi_max(count, LEAST_COLUMNS)); i++) {
        column[r->order[i] / 64] |= UINT64_C(1) << (r->order[i] % 64);
    }
}

static void set64(uint64_t *bits, int64_t at) {
    bits[at / 64] |= UINT64_MAX << (at % 64);
    if (at % 64 != 0) {
        bits[at / 64 + 1] |= UINT64_MAX >> (64 - at % 64);
    }
}

/* weight (n) by n - 1 - distance. */
static void take_diagonals(float *weight, int64_t n, int64_t count, room *r, uint64_t *strip) {
    for (int64_t low = 0, high = n - 1; low < high; low++, high--) {
        float swap = weight[low];
        weight[low] = weight[high];
        weight[high] = swap;
    }
    for (int64_t distance = 0; distance < fvi_min(LAST_DIAGONALS, n); distance++) {
        weight[distance] = INFINITY;
    }
    fvi_rank(weight, n, r->order, r->spare);
    for (int64_t i = 0; i < fvi_min(n, fvi_max(count, LEAST_DIAGONALS)); i++) {
        set64(strip, fvi_round_up(n, FVI_BLOCK) - r->order[i]);
    }
}

static void prepare(const fvi_select *s) {
    const fvi_sight *sight = s->sight;
    const int64_t n = sight->n_kv, blocks = fvi_ceil_div(n, FVI_BLOCK);
    pattern p = pattern_of(s);
    state kept = cut_state(s->head_state, n, sight->d_k);
    room r = cut(s->scratch, n, sight->d_k, sight->d_v);
    if (p.kind == VERTICAL_SLASH) {
        memset(kept.column, 0, (size_t)blocks * sizeof(uint64_t));
        memset(kept.strip, 0, (size_t)(blocks + 1) * sizeof(uint64_t));
        int64_t rows = fvi_stripe_last(sight, ROWS, r.q, r.position);
        fvi_stripe stripe = fvi_stripe_open(sight, r.q, r.position, rows, r.stripe);
        fvi_stripe_lines(&stripe, r.column, r.diagonal);
        take_columns(r.column, n, p.first, &r, kept.column);
        take_diagonals(r.diagonal, n, p.second, &r, kept.strip);
    } else if (p.kind == BLOCK_SPARSE) {
        fvi_pool_keys(sight, FVI_BLOCK, r.pool, kept.keys);
        for (int64_t c = 0; c < sight->d_k; c++) {
            kept.keys[(c + 1) * blocks - 1] *= (float)(n - (blocks - 1) * FVI_BLOCK) / FVI_BLOCK;
        }
    }
}

static void tile_lines(const state *kept, const fvi_query_tile *q, fvi_index *index) {
    int64_t shift = index->blocks - q->first / FVI_BLOCK;
    for (int64_t b = fvi_max(0, -shift); b <= fvi_min(index->blocks - 1, q->first / FVI_BLOCK); b++) {
        index->key[b] = kept->column[b] | kept->strip[b + shift];
    }
}

static void tile_blocks(const fvi_select *s, const state *kept, const fvi_query_tile *q, int64_t count, fvi_index *index) {
    const fvi_sight *sight = s->sight;
    room r = cut(s->scratch, sight->n_kv, sight->d_k, sight->d_v);
    int64_t visible = fvi_min(q->first / FVI_BLOCK + 1, index->blocks);
    if (fvi_pool_queries(sight, q->first, q->last, r.pool, r.mean) == 0) {
        return;
    }
    fvi_pool_scores(r.mean, kept->keys, sight->d_k, index->blocks, visible, 1, r.score);
    fvi_rank(r.score, visible, r.order, r.spare);
    for (int64_t i = 0; i < fvi_min(count, visible); i++) {
        fvi_index_add_block(index, r.order[i]);
    }
}

static void tile(const fvi_select *s, const fvi_query_tile *q, fvi_index *index) {
    pattern p = pattern_of(s);
    state kept = cut_state(s->head_state, s->sight->n_kv, s->sight->d_k);
    if (q->first < 0) {
        fvi_index_add_all(index);
    } else if (p.kind == VERTICAL_SLASH) {
        tile_lines(&kept, q, index);
    } else if (p.kind == BLOCK_SPARSE) {
        tile_blocks(s, &kept, q, p.first, index);
    } else {
        index->rule = (fvi_rule){.sinks = p.first, .window = p.second};
        fvi_index_add(index, 0, p.first);
        fvi_index_add(index, q->first - p.second + 1, q->last + 1);
    }
}

const fvi_selector fvi_select_minference = {.calibration = &fvi_calibrate_minference,
                                            .query_block = FVI_BLOCK,
                                            .scope = FVI_SCOPE_PROMPT,
                                            .head_bytes = head_bytes,
                                            .scratch_bytes = scratch_bytes,
                                            .prepare = prepare,
                                            .tile = tile,
                                            .refuse = refuse};
