/* xattention.c - blocks of 128 by 128, scored by sums along antidiagonals.
 *
 * Xu et al.: XAttention: Block Sparse Attention with Antidiagonal Scoring, ICML 2025, algorithm 1. `stride` keys side by side are
 * a group; a group of queries, last row first, meets a group of keys as one vector of stride * d: the sum of the scores on an
 * antidiagonal of their stride x stride square. Scores of groups, divided by stride, go through a softmax over the groups up to
 * the query's own; weights are summed over blocks. Where paper and official code (mit-han-lab/x-attention, `inverse`, without
 * Triton) differ, this is the code's form:
 *   - the first block and the query block's own are always visited, and their mass counts first; then the heaviest blocks until
 *     the mass reaches `threshold` of the total, the one that crosses it included;
 *   - the mask is one of groups: the group on the diagonal is seen whole, later keys of it too;
 *   - rows that are not there are zeros.
 * The code's first chunk of rows differs from its later ones: there its diagonal overwrites the forced first block, and the mass
 * that is held lags a block behind. Which rows that are depends on a chunk size, so it is left out.
 * Deviations: a threshold of 1 visits every block (sums in another order decide otherwise); in the code's non-causal form no
 * block is forced, and neither is one here. The head's keys are packed once, in groups: one float a number of K, kept for each
 * query head. */
#include "select/rank.h"
#include "select/select.h"

#include <math.h>
#include <string.h>

enum { BLOCK = 128, GROUPS = 64 }; /* keys of a block, groups of a leaf */

static const double log2e = 1.4426950408889634;

/* A thread's room. A leaf's weights are relative to the leaf's own maximum until all leaves are known. */
typedef struct room {
    float *row;     /* (64 stride, d): rows of K, or the tile's groups of queries */
    void *packed;   /* rows of K as bf16, or queries */
    float *s;       /* (rows, 64) */
    float *alpha;   /* (rows, at least 16) */
    float *m, *sum; /* (leaves, rows) */
    float *part;    /* (leaves, rows, stride / 2): weights summed over the leaf's blocks */
    float *mass;    /* (blocks) */
    int32_t *order, *spare;
    size_t bytes;
} room;

/* Sizes of a head: groups of queries in a tile, leaves of groups of keys, blocks of keys, width of a group. */
typedef struct sizes {
    int64_t stride, rows, leaves, blocks, width;
} sizes;

static sizes sizes_of(const double *value, int64_t n_kv, int64_t d) {
    int64_t stride = (int64_t)value[0];
    return (sizes){stride, BLOCK / stride, fvi_ceil_div(n_kv, GROUPS * stride), fvi_ceil_div(n_kv, BLOCK), stride * d};
}

static void *take(uint8_t *base, size_t *at, int64_t bytes) {
    void *place = base == NULL ? NULL : base + *at;
    *at += (size_t)fvi_round_up(bytes, 64);
    return place;
}

static room cut(uint8_t *base, const sizes *z) {
    const int64_t f = sizeof(float);
    room r = {0};
    r.row = take(base, &r.bytes, GROUPS * z->width * f);
    r.packed = take(base, &r.bytes, GROUPS * fvi_tile_half_width(z->width) * f);
    r.s = take(base, &r.bytes, z->rows * GROUPS * f);
    r.alpha = take(base, &r.bytes, z->rows * f);
    r.m = take(base, &r.bytes, z->leaves * z->rows * f);
    r.sum = take(base, &r.bytes, z->leaves * z->rows * f);
    r.part = take(base, &r.bytes, z->leaves * z->rows * z->stride / 2 * f);
    r.mass = take(base, &r.bytes, z->blocks * f);
    r.order = take(base, &r.bytes, z->blocks * f);
    r.spare = take(base, &r.bytes, z->blocks * f);
    return r;
}

static size_t head_bytes(const double *value, const fvi_extent *e) {
    sizes z = sizes_of(value, e->n_kv, e->d_k);
    return (size_t)(z.leaves * fvi_tile_k_bytes(z.width));
}

static size_t scratch_bytes(const double *value, const fvi_extent *e) {
    sizes z = sizes_of(value, e->n_kv, e->d_k);
    return cut(NULL, &z).bytes;
}

static const char *refuse(const double *value, const fvi_extent *e) {
    (void)e;
    int64_t stride = (int64_t)value[0];
    return (double)stride != value[0] || BLOCK % stride != 0 ? "xattention: stride is 2, 4, 8, 16, 32, 64 or 128" : NULL;
}

static void prepare(const fvi_select *s) {
    const fvi_sight *sight = s->sight;
    sizes z = sizes_of(s->value, sight->n_kv, sight->d_k);
    room r = cut(s->scratch, &z);
    uint8_t *kt = s->head_state;
    for (int64_t leaf = 0; leaf < z.leaves; leaf++, kt += fvi_tile_k_bytes(z.width)) {
        int64_t from = leaf * GROUPS * z.stride, n = fvi_min(GROUPS * z.stride, sight->n_kv - from);
        int64_t groups = fvi_ceil_div(n, z.stride);
        sight->rows(sight, FVI_SIDE_K, from, n, r.row);
        memset(r.row + n * sight->d_k, 0, (size_t)((groups * z.stride - n) * sight->d_k) * sizeof(float));
        fvi_sight_pack_rows(sight, r.row, groups, z.width, r.packed, kt);
    }
}

/* Packs the tile's groups of queries, last row first; returns the span of groups of which a row is there. */
static fvi_span load_queries(const fvi_sight *sight, const fvi_query_tile *q, const sizes *z, room *r) {
    const int64_t d = sight->d_k;
    int64_t from = fvi_max(q->first, sight->offset), to = fvi_min(q->last + 1, sight->offset + sight->n_q);
    if (to <= from) {
        return (fvi_span){0, 0};
    }
    memset(r->row, 0, (size_t)(z->rows * z->width) * sizeof(float));
    for (int64_t i = from; i < to; i++) {
        int64_t place = (i - q->first) / z->stride * z->stride + z->stride - 1 - (i - q->first) % z->stride;
        sight->rows(sight, FVI_SIDE_Q, i - sight->offset, 1, r->row + place * d);
    }
    sight->ops->pack_q(r->row, (int)z->rows, (int)z->width, r->packed);
    return (fvi_span){(from - q->first) / z->stride, fvi_ceil_div(to - q->first, z->stride)};
}

/* Weights of the tile's groups for those of a leaf, summed over blocks. */
static void fold_leaf(const fvi_select *s, const fvi_query_tile *q, const sizes *z, int64_t leaf, room *r) {
    const fvi_sight *sight = s->sight;
    const uint8_t *kt = (const uint8_t *)s->head_state + leaf * fvi_tile_k_bytes(z->width);
    int64_t total = fvi_ceil_div(sight->n_kv, z->stride), parts = z->stride / 2, run = GROUPS / parts;
    float *m = r->m + leaf * z->rows, *sum = r->sum + leaf * z->rows, *part = r->part + leaf * z->rows * parts;
    float scale = (float)((double)sight->scale * log2e / (double)z->stride);
    sight->ops->qk(r->packed, (int)z->rows, (int)z->width, kt, scale, r->s);
    for (int64_t i = 0; i < z->rows; i++) {
        int64_t end = sight->causal ? fvi_min(total, q->first / z->stride + i + 1) : total;
        for (int64_t j = fvi_max(0, end - leaf * GROUPS); j < GROUPS; j++) {
            r->s[i * GROUPS + j] = -INFINITY;
        }
        m[i] = -INFINITY;
        sum[i] = 0;
    }
    sight->plain->soften(r->s, (int)z->rows, m, sum, r->alpha);
    for (int64_t p = 0; p < z->rows * parts; p++) {
        float weight = 0;
        for (int64_t j = 0; j < run; j++) {
            weight += r->s[p * run + j];
        }
        part[p] = weight;
    }
}

/* mass (blocks): the leaves' sums under one maximum, normalised, over the tile's groups. */
static void sum_blocks(const sizes *z, fvi_span groups, int64_t leaves, room *r) {
    const int64_t parts = z->stride / 2;
    memset(r->mass, 0, (size_t)z->blocks * sizeof(float));
    for (int64_t i = groups.from; i < groups.to; i++) {
        float top = -INFINITY, total = 0;
        for (int64_t leaf = 0; leaf < leaves; leaf++) {
            top = fmaxf(top, r->m[leaf * z->rows + i]);
        }
        for (int64_t leaf = 0; leaf < leaves; leaf++) {
            total += r->sum[leaf * z->rows + i] * exp2f(r->m[leaf * z->rows + i] - top);
        }
        for (int64_t leaf = 0; leaf < leaves; leaf++) {
            float by = exp2f(r->m[leaf * z->rows + i] - top) / total;
            for (int64_t p = 0; p < fvi_min(parts, z->blocks - leaf * parts); p++) {
                r->mass[leaf * parts + p] += by * r->part[(leaf * z->rows + i) * parts + p];
            }
        }
    }
}

static void add(fvi_index *index, int64_t block) { fvi_index_add(index, block * BLOCK, (block + 1) * BLOCK); }

/* Visits the block out of order; returns its mass. */
static double force(float *mass, int64_t block, fvi_index *index) {
    double held = (double)mass[block];
    mass[block] = -1;
    add(index, block);
    return held;
}

/* The heaviest of the first `blocks` until the mass is reached; with `own` >= 0, that block and the first come before all. */
static void choose(float *mass, int64_t blocks, int64_t own, double threshold, room *r, fvi_index *index) {
    double total = 0, held = 0;
    for (int64_t b = 0; b < blocks; b++) {
        total += (double)mass[b];
    }
    if (own >= 0) {
        held += force(mass, 0, index) + (own > 0 && own < blocks ? force(mass, own, index) : 0);
    }
    fvi_rank(mass, blocks, r->order, r->spare);
    int64_t count = fvi_rank_cover(mass, r->order, blocks, held, threshold * total);
    for (int64_t i = 0; i < count; i++) {
        add(index, r->order[i]);
    }
}

static void tile(const fvi_select *s, const fvi_query_tile *q, fvi_index *index) {
    const fvi_sight *sight = s->sight;
    sizes z = sizes_of(s->value, sight->n_kv, sight->d_k);
    room r = cut(s->scratch, &z);
    fvi_span groups = q->first < 0 ? (fvi_span){0, 0} : load_queries(sight, q, &z, &r);
    if (groups.to == 0 || s->value[1] >= 1) {
        fvi_index_add_all(index);
        return;
    }
    int64_t blocks = sight->causal ? fvi_min(z.blocks, q->first / BLOCK + 1) : z.blocks;
    int64_t leaves = fvi_min(z.leaves, fvi_ceil_div(blocks * BLOCK, GROUPS * z.stride));
    for (int64_t leaf = 0; leaf < leaves; leaf++) {
        fold_leaf(s, q, &z, leaf, &r);
    }
    sum_blocks(&z, groups, leaves, &r);
    choose(r.mass, blocks, sight->causal ? q->first / BLOCK : -1, s->value[1], &r, index);
}

const fvi_selector fvi_select_xattention = {.query_block = BLOCK,
                                            .scope = FVI_SCOPE_TILE,
                                            .head_bytes = head_bytes,
                                            .scratch_bytes = scratch_bytes,
                                            .prepare = prepare,
                                            .tile = tile,
                                            .refuse = refuse};
