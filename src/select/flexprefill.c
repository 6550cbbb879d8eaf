/* flexprefill.c - each head takes its pattern and as many blocks as its own prompt asks for.
 *
 * Lai et al.: FlexPrefill: A Context-Aware Sparse Attention Mechanism for Efficient Long-Sequence Inference, ICLR 2025.
 * Algorithm 2 (which pattern): the last 128 rows' true attention, summed over blocks, against the softmax of their mean query
 * with the blocks' mean keys; if the square root of the Jensen-Shannon divergence is below tau, the head is query-aware.
 * Algorithm 3 (vertical-slash): columns and diagonals that cover gamma of the last rows' attention. Algorithm 4 (query-aware):
 * blocks by the softmax of mean queries and mean keys. Where the official code (ByteDance-Seed/FlexPrefill) differs from the
 * paper, this is the code's form:
 *   - columns and diagonals are of blocks of 128: as many as the keys that cover gamma fill, (count / 128) + 1, the heaviest
 * first, at least `min` keys' worth; the first column of blocks and the own diagonal come first;
 *   - a query-aware head ranks all blocks of all rows at once and takes them until gamma times the number of query blocks is
 *     covered, the one that crosses left out; to these come `min` keys' worth of columns and diagonals;
 *   - a weight of 0 makes the divergence no number: vertical-slash;
 *   - diagonals are cut into blocks from the first, so that where 128 does not divide n the own one is shorter;
 *   - up to max(256, min) keys everything is visited.
 * Deviations: with keys of an earlier prompt in the cache, which the code does not allow, query blocks are those at absolute
 * multiples of 128, and the keys' number decides what is short. */
#include "select/pool.h"
#include "select/rank.h"
#include "select/select.h"
#include "select/stripe.h"

#include <math.h>
#include <string.h>

enum { BLOCK = 128 };

typedef struct sizes {
    int64_t blocks, rows; /* of keys; of queries, which begin with number `first` */
    int64_t first, words;
} sizes;

/* What prepare leaves: bits by block of keys, by distance in blocks, and by pair of blocks. */
typedef struct state {
    uint64_t *column, *diagonal; /* (words) */
    uint64_t *map;               /* (rows, words) */
    size_t bytes;
} state;

typedef struct room {
    float *q, *pool, *mean, *keys; /* (128, d), for pooling, (d), (d, blocks) */
    int64_t *position;
    float *column, *diagonal;             /* (n_kv) weights of the last rows */
    float *column_block, *diagonal_block; /* (blocks) */
    float *estimate;                      /* (rows x blocks) */
    int32_t *order, *spare;               /* (the larger of n_kv and rows x blocks) */
    void *stripe;
    size_t bytes;
} room;

static sizes sizes_of(int64_t n_q, int64_t n_kv, int64_t offset) {
    sizes z = {.blocks = fvi_ceil_div(n_kv, BLOCK), .first = fvi_max(0, offset) / BLOCK};
    z.rows = fvi_ceil_div(fvi_max(0, offset) + n_q, BLOCK) - z.first;
    z.words = fvi_ceil_div(z.blocks, 64);
    return z;
}

/* For maxima: any offset. */
static sizes sizes_at_most(const fvi_extent *e) {
    sizes z = sizes_of(e->n_q, e->n_kv, 0);
    z.rows++;
    return z;
}

static void *take(void *base, size_t *at, int64_t bytes) {
    void *place = base == NULL ? NULL : (uint8_t *)base + *at;
    *at += (size_t)fvi_round_up(bytes, 64);
    return place;
}

static state cut_state(void *base, const sizes *z) {
    const int64_t bytes = z->words * (int64_t)sizeof(uint64_t);
    state s = {0};
    s.column = take(base, &s.bytes, bytes);
    s.diagonal = take(base, &s.bytes, bytes);
    s.map = take(base, &s.bytes, z->rows * bytes);
    return s;
}

static room cut(void *base, const sizes *z, int64_t n_kv, int64_t d_k, int64_t d_v) {
    const int64_t f = sizeof(float);
    room r = {0};
    r.stripe = take(base, &r.bytes, (int64_t)fvi_stripe_bytes(BLOCK, d_k, d_v));
    r.q = take(base, &r.bytes, BLOCK * d_k * f);
    r.position = take(base, &r.bytes, BLOCK * (int64_t)sizeof(int64_t));
    r.pool = take(base, &r.bytes, fvi_pool_room(d_k) * f);
    r.mean = take(base, &r.bytes, d_k * f);
    r.keys = take(base, &r.bytes, d_k * z->blocks * f);
    r.column = take(base, &r.bytes, n_kv * f);
    r.diagonal = take(base, &r.bytes, n_kv * f);
    r.column_block = take(base, &r.bytes, z->blocks * f);
    r.diagonal_block = take(base, &r.bytes, z->blocks * f);
    r.estimate = take(base, &r.bytes, z->rows * z->blocks * f);
    r.order = take(base, &r.bytes, fvi_max(n_kv, z->rows * z->blocks) * f);
    r.spare = take(base, &r.bytes, fvi_max(n_kv, z->rows * z->blocks) * f);
    return r;
}

static size_t head_bytes(const double *value, const fvi_extent *e) {
    (void)value;
    sizes z = sizes_at_most(e);
    return cut_state(NULL, &z).bytes;
}

static size_t scratch_bytes(const double *value, const fvi_extent *e) {
    (void)value;
    sizes z = sizes_at_most(e);
    return cut(NULL, &z, e->n_kv, e->d_k, e->d_v).bytes;
}

static const char *refuse(const double *value, const fvi_extent *e) {
    (void)value;
    return e->causal ? NULL : "flexprefill is for causal attention: its diagonals begin at a row's own key";
}

static bool is_short(const double *value, int64_t n_kv) {
    return n_kv <= fvi_max(2 * BLOCK, fvi_round_up((int64_t)value[2], BLOCK));
}

/* out (blocks) = sums of 128 side by side. */
static void pool_sums(const float *x, int64_t n, float *out) {
    for (int64_t b = 0; b * BLOCK < n; b++) {
        out[b] = 0;
        for (int64_t i = b * BLOCK; i < fvi_min(n, (b + 1) * BLOCK); i++) {
            out[b] += x[i];
        }
    }
}

/* sqrt of the Jensen-Shannon divergence; not a number where a weight is 0. */
static double divergence(const float *p, const float *q, int64_t n) {
    double sum = 0;
    for (int64_t b = 0; b < n; b++) {
        double x = (double)p[b], y = (double)q[b], middle = (x + y) / 2;
        sum += x * log(x / middle) / 2 + y * log(y / middle) / 2;
    }
    return sqrt(sum);
}

/* A gamma of 1 is all, however sums round. */
static double gamma_of(const fvi_select *s) { return s->value[0] >= 1 ? INFINITY : s->value[0]; }

/* How many numbers from the front of `order` stay within `mass` together. */
static int64_t within(const float *x, const int32_t *order, int64_t n, double mass) {
    double sum = 0;
    int64_t count = 0;
    while (count < n && (sum += (double)x[order[count]]) <= mass) {
        count++;
    }
    return count;
}

/* Blocks that the keys of largest weight fill which cover gamma. */
static int64_t blocks_for(const float *weight, int64_t n, double gamma, room *r) {
    fvi_rank(weight, n, r->order, r->spare);
    return (within(weight, r->order, n, gamma) + 1) / BLOCK + 1;
}

static void set(uint64_t *bits, int64_t b) { bits[b / 64] |= UINT64_C(1) << (b % 64); }
static bool has(const uint64_t *bits, int64_t b) { return bits[b / 64] >> (b % 64) & 1; }

/* The best blocks of columns and of diagonals. */
static void take_lines(const sizes *z, int64_t columns, int64_t diagonals, room *r, state *kept) {
    r->column_block[0] = INFINITY;
    r->diagonal_block[z->blocks - 1] = INFINITY;
    fvi_rank(r->column_block, z->blocks, r->order, r->spare);
    for (int64_t i = 0; i < fvi_min(columns, z->blocks); i++) {
        set(kept->column, r->order[i]);
    }
    fvi_rank(r->diagonal_block, z->blocks, r->order, r->spare);
    for (int64_t i = 0; i < fvi_min(diagonals, z->blocks); i++) {
        set(kept->diagonal, z->blocks - 1 - r->order[i]);
    }
}

/* Rows of blocks side by side in `estimate`, each as long as it sees: where row a begins. */
static int64_t row_start(const sizes *z, int64_t a) { return a * z->first + a * (a + 1) / 2; }

/* The row that place `at` belongs to. */
static int64_t row_of(const sizes *z, int64_t rows, int64_t at) {
    int64_t low = 0;
    for (int64_t high = rows; high - low > 1;) {
        int64_t middle = (low + high) / 2;
        *(row_start(z, middle) <= at ? &low : &high) = middle;
    }
    return low;
}

static void take_map(const fvi_select *s, const sizes *z, room *r, state *kept) {
    const fvi_sight *sight = s->sight;
    int64_t rows = 0;
    for (; rows < z->rows && z->first + rows < z->blocks; rows++) {
        int64_t first = (z->first + rows) * BLOCK, visible = z->first + rows + 1;
        float *row = r->estimate + row_start(z, rows);
        fvi_pool_queries(sight, first, first + BLOCK - 1, r->pool, r->mean);
        fvi_pool_scores(r->mean, r->keys, sight->d_k, z->blocks, visible, sight->scale, row);
        fvi_pool_softmax(row, visible);
    }
    int64_t n = row_start(z, rows);
    fvi_rank(r->estimate, n, r->order, r->spare);
    int64_t count = within(r->estimate, r->order, n, gamma_of(s) * (double)rows);
    for (int64_t i = 0; i < count; i++) {
        int64_t a = row_of(z, rows, r->order[i]);
        set(kept->map + a * z->words, r->order[i] - row_start(z, a));
    }
}

/* column, diagonal and their sums over blocks. */
static void weigh_last(const fvi_sight *sight, room *r) {
    int64_t rows = fvi_stripe_last(sight, BLOCK, r->q, r->position);
    fvi_stripe stripe = fvi_stripe_open(sight, r->q, r->position, rows, r->stripe);
    fvi_stripe_lines(&stripe, r->column, r->diagonal);
    pool_sums(r->column, sight->n_kv, r->column_block);
    pool_sums(r->diagonal, sight->n_kv, r->diagonal_block);
}

/* Whether mean queries and keys tell where the last rows look. */
static bool query_aware(const fvi_select *s, const sizes *z, room *r) {
    const fvi_sight *sight = s->sight;
    int64_t last = sight->offset + sight->n_q - 1;
    fvi_pool_queries(sight, last - BLOCK + 1, last, r->pool, r->mean);
    fvi_pool_keys(sight, BLOCK, r->pool, r->keys);
    fvi_pool_scores(r->mean, r->keys, sight->d_k, z->blocks, z->blocks, sight->scale, r->estimate);
    fvi_pool_softmax(r->estimate, z->blocks);
    return divergence(r->estimate, r->column_block, z->blocks) < s->value[1];
}

static void prepare(const fvi_select *s) {
    const fvi_sight *sight = s->sight;
    sizes z = sizes_of(sight->n_q, sight->n_kv, sight->offset);
    if (is_short(s->value, sight->n_kv)) {
        return;
    }
    state kept = cut_state(s->head_state, &z);
    room r = cut(s->scratch, &z, sight->n_kv, sight->d_k, sight->d_v);
    memset(s->head_state, 0, kept.bytes);
    weigh_last(sight, &r);
    int64_t least = fvi_ceil_div((int64_t)s->value[2], BLOCK), columns = least, diagonals = least;
    bool map = query_aware(s, &z, &r);
    if (!map) {
        columns = fvi_max(least, blocks_for(r.column, sight->n_kv, gamma_of(s), &r));
        diagonals = fvi_max(least, blocks_for(r.diagonal, sight->n_kv, gamma_of(s), &r));
    }
    take_lines(&z, columns, diagonals, &r, &kept);
    if (map) {
        take_map(s, &z, &r, &kept);
    }
}

static void tile(const fvi_select *s, const fvi_query_tile *q, fvi_index *index) {
    const fvi_sight *sight = s->sight;
    sizes z = sizes_of(sight->n_q, sight->n_kv, sight->offset);
    int64_t a = q->first / BLOCK;
    if (is_short(s->value, sight->n_kv) || q->first < 0) {
        fvi_index_add_all(index);
        index->fell_back = is_short(s->value, sight->n_kv);
        return;
    }
    state kept = cut_state(s->head_state, &z);
    for (int64_t b = 0; b <= fvi_min(a, z.blocks - 1); b++) {
        bool mapped = a >= z.first && a - z.first < z.rows && has(kept.map + (a - z.first) * z.words, b);
        if (has(kept.column, b) || (a - b < z.blocks && has(kept.diagonal, a - b)) || mapped) {
            fvi_index_add(index, b * BLOCK, (b + 1) * BLOCK);
        }
    }
}

const fvi_selector fvi_select_flexprefill = {.query_block = BLOCK,
                                             .scope = FVI_SCOPE_PROMPT,
                                             .head_bytes = head_bytes,
                                             .scratch_bytes = scratch_bytes,
                                             .prepare = prepare,
                                             .tile = tile,
                                             .refuse = refuse};
