/* hyper.c - HyperAttention as an index: blocks of keys that hash alike, and weighted samples of the rest.
 *
 * Han et al., HyperAttention: Long-context Attention in Near-Linear Time, ICLR 2024 (arXiv 2310.05869), Algorithms 1 to 4, in the
 * form of its code (insuhan/hyper-attn); what it is and where it differs stands in op/hyper.c, and the pairs and weights here are
 * the same. A causal prompt is halved while halves have `least` rows: each such span's later half sees its earlier one by
 * sorted blocks and by samples of a log-weight log(keys / samples); what is left at the end of halving is exact.
 *
 * One order serves all levels: places in a level's sorted list go up with (hash, position), and so do those in the list of any
 * part of it. So `chunk` rows of an exact span at a time are put into the order of their hashes, and a tile of 64 of them meets
 * few blocks at each level. Its keys are the union of those; each row's own and the weights come when scores are there. Longer
 * chunks mean fewer blocks a tile, but more keys of the exact span that are past a row and hidden.
 *
 * A prompt over a cache: positions 0 .. n_kv - 1 are halved; a level's queries are those that are there. */
#include "select/select.h"

#include "kernel/simhash.h"

#include <math.h>
#include <string.h>

enum { BLOCK, SAMPLES, LEAST, PROJECTIONS, SEED, CHUNK };
enum { ROWS = 64, MOST_LEVELS = 32 };

/* Spans of one length: of their keys (the earlier halves) and rows (the later ones). */
typedef struct level {
    int32_t *key;       /* (n_kv) a span's keys by their hashes, where the span is */
    int32_t *key_block; /* (n_kv) of the sorted keys */
    int32_t *row_block; /* (n_q) of the sorted keys that a row sees */
    float *weight;      /* (n_kv) to the base 2, of a sample; -inf: it is none */
    uint64_t *sampled;  /* (blocks of 64) keys that are samples */
} level;

typedef struct head {
    int64_t n_q, n_kv, offset, block, samples, least, chunk;
    bool causal, exact;
    const fvi_sift_ops *sift;
    int32_t *order;
    level at[MOST_LEVELS];
} head;

/* ---- spans ---- */

/* Positions from..to - 1, of which the keys from..half - 1 are seen by the rows half..to - 1. */
typedef struct span {
    int64_t from, half, to;
} span;

static bool halved(int64_t length, int64_t least) { return length > least && (length + 1) / 2 >= least; }

static int64_t levels_of(int64_t n, int64_t least, bool causal) {
    int64_t levels = 0;
    for (; causal && halved(n, least); n = (n + 1) / 2) {
        levels++;
    }
    return causal ? levels : 1;
}

/* The levels above a row, those that it sees keys of, and its exact span. */
typedef struct path {
    int n;
    struct {
        int64_t depth, from, to; /* keys */
    } step[MOST_LEVELS];
    int64_t from, to; /* positions of the exact span; before the first and past the last one there is no end */
} path;

static path path_of(const head *h, int64_t position) {
    path p = {.to = h->n_kv};
    if (!h->causal) {
        p.step[p.n].from = p.step[p.n].depth = 0;
        p.step[p.n++].to = h->n_kv;
        p.from = INT64_MIN;
        p.to = INT64_MAX;
        return p;
    }
    for (int64_t depth = 0; halved(p.to - p.from, h->least); depth++) {
        int64_t half = p.from + (p.to - p.from + 1) / 2;
        if (position < half) {
            p.to = half;
            continue;
        }
        p.step[p.n].depth = depth;
        p.step[p.n].from = p.from;
        p.step[p.n++].to = half;
        p.from = half;
    }
    p.from = p.from == 0 ? INT64_MIN : p.from;
    p.to = p.to == h->n_kv ? INT64_MAX : p.to;
    return p;
}

/* Keys before this are seen by blocks and samples, if at all. */
static int64_t exact_from(const head *h, const path *p) { return h->causal ? fvi_max(p->from, 0) : h->n_kv; }

/* ---- memory ---- */

static size_t aligned(int64_t bytes) { return (size_t)fvi_round_up(bytes, 64); }

static size_t level_bytes(int64_t n_q, int64_t n_kv) {
    return 3 * aligned(4 * n_kv) + aligned(4 * n_q) + aligned(8 * fvi_ceil_div(n_kv, FVI_BLOCK));
}

static level level_at(int64_t n_q, int64_t n_kv, uint8_t *at) {
    const size_t keys = aligned(4 * n_kv);
    return (level){.key = (int32_t *)at,
                   .key_block = (int32_t *)(at + keys),
                   .weight = (float *)(at + 2 * keys),
                   .row_block = (int32_t *)(at + 3 * keys),
                   .sampled = (uint64_t *)(at + 3 * keys + aligned(4 * n_q))};
}

static size_t head_bytes(const double *value, const fvi_extent *extent) {
    const int64_t levels = levels_of(extent->n_kv, (int64_t)value[LEAST], extent->causal);
    return aligned(sizeof(head)) + aligned(4 * extent->n_q) + (size_t)levels * level_bytes(extent->n_q, extent->n_kv);
}

/* Of scratch: the hashes, the projections, and rows to hash. */
static size_t scratch_bytes(const double *value, const fvi_extent *extent) {
    const int64_t projections = (int64_t)value[PROJECTIONS];
    return aligned(2 * extent->n_q) + aligned(2 * extent->n_kv) + aligned(4 * extent->d_k * projections) +
           aligned(4 * ROWS * extent->d_k);
}

/* ---- the prepass ---- */

typedef struct hashes {
    uint16_t *q, *k;
    int64_t bits;
} hashes;

static void hash_side(const fvi_select *s, fvi_side side, int64_t n, const float *projection, float *rows, uint16_t *hash) {
    const int64_t d = s->sight->d_k;
    for (int64_t from = 0, some; from < n; from += some) {
        some = fvi_min(ROWS, n - from);
        s->sight->rows(s->sight, side, from, some, rows);
        fvi_simhash_rows(projection, (int64_t)s->value[PROJECTIONS], d, rows, some, hash + from);
    }
}

static hashes hash_all(const fvi_select *s) {
    const fvi_sight *sight = s->sight;
    uint8_t *at = s->scratch;
    hashes x = {.q = (uint16_t *)at, .bits = (int64_t)s->value[PROJECTIONS]};
    x.k = (uint16_t *)(at + aligned(2 * sight->n_q));
    float *projection = (float *)(at + aligned(2 * sight->n_q) + aligned(2 * sight->n_kv));
    float *rows = (float *)((uint8_t *)projection + aligned(4 * sight->d_k * x.bits));
    fvi_simhash_project((uint64_t)s->value[SEED], sight->d_k * x.bits, projection);
    hash_side(s, FVI_SIDE_Q, sight->n_q, projection, rows, x.q);
    hash_side(s, FVI_SIDE_K, sight->n_kv, projection, rows, x.k);
    return x;
}

/* Samples of the sorted keys of a span: one drawn twice weighs double. */
static void sample(const fvi_select *s, const head *h, const level *at, int64_t from, int64_t keys) {
    for (int64_t i = 0; i < h->samples; i++) {
        const int32_t key = at->key[from + fvi_simhash_draw((uint64_t)s->value[SEED], s->sight->head, from, keys, i)];
        at->weight[key]++;
        at->sampled[key / FVI_BLOCK] |= UINT64_C(1) << (key % FVI_BLOCK);
    }
    const float each = (float)keys / (float)h->samples;
    for (int64_t j = from; j < from + keys; j++) {
        at->weight[j] = log2f(at->weight[j] * each);
    }
}

/* Rows first .. first + rows - 1 of the queries over keys from .. from + keys - 1. */
static void sort_level(const fvi_select *s, head *h, const hashes *x, const level *at, int64_t first, int64_t rows, int64_t from,
                       int64_t keys) {
    const int64_t blocks = fvi_ceil_div(keys, h->block), row_block = fvi_ceil_div(fvi_round_up(rows, h->block), blocks);
    fvi_simhash_sort(x->k, x->bits, from, keys, at->key + from);
    for (int64_t i = 0; i < keys; i++) {
        at->key_block[at->key[from + i]] = (int32_t)(i / h->block);
        at->weight[from + i] = 0;
    }
    int32_t *sorted = h->order + first; /* the order itself is made afterwards */
    fvi_simhash_sort(x->q, x->bits, first, rows, sorted);
    for (int64_t i = 0; i < rows; i++) {
        at->row_block[sorted[i]] = (int32_t)(i / row_block);
    }
    if (h->samples > 0 && rows > row_block && keys > h->block) {
        sample(s, h, at, from, keys);
    } else {
        for (int64_t j = from; j < from + keys; j++) {
            at->weight[j] = -INFINITY;
        }
    }
}

/* Rows of the run at positions from..to - 1; the first is returned. */
static int64_t rows_at(const head *h, int64_t from, int64_t to, int64_t *rows) {
    const int64_t first = fvi_max(0, fvi_min(from - h->offset, h->n_q));
    const int64_t end = to == h->n_kv ? h->n_q : fvi_max(0, fvi_min(to - h->offset, h->n_q));
    *rows = fvi_max(0, end - first);
    return first;
}

static void halve(const fvi_select *s, head *h, const hashes *x, int64_t depth, int64_t from, int64_t to) {
    int64_t rows;
    rows_at(h, from, to, &rows);
    if (rows == 0 || !halved(to - from, h->least)) {
        return;
    }
    const int64_t half = from + (to - from + 1) / 2, first = rows_at(h, half, to, &rows);
    if (rows > 0) {
        sort_level(s, h, x, &h->at[depth], first, rows, from, half - from);
    }
    halve(s, h, x, depth + 1, from, half);
    halve(s, h, x, depth + 1, half, to);
}

/* Rows of exact spans behind others, and all where nothing is exact, by their hashes, a chunk at a time. */
static void make_order(head *h, const hashes *x) {
    for (int64_t i = 0; i < h->n_q; i++) {
        h->order[i] = (int32_t)i;
    }
    for (int64_t first = 0, rows; first < h->n_q && !h->exact; first += rows) {
        const path p = path_of(h, h->offset + first);
        const int64_t end = p.to == INT64_MAX ? h->n_q : fvi_min(p.to - h->offset, h->n_q);
        rows = h->causal ? fvi_min(h->chunk, end - first) : h->n_q;
        if (p.n > 0) {
            fvi_simhash_sort(x->q, x->bits, first, rows, h->order + first);
        }
    }
}

static void prepare(const fvi_select *s) {
    const fvi_sight *sight = s->sight;
    head *h = s->head_state;
    uint8_t *at = (uint8_t *)h + aligned(sizeof *h);
    *h = (head){.n_q = sight->n_q,
                .n_kv = sight->n_kv,
                .offset = sight->offset,
                .block = (int64_t)s->value[BLOCK],
                .samples = (int64_t)s->value[SAMPLES],
                .least = (int64_t)s->value[LEAST],
                .chunk = (int64_t)s->value[CHUNK],
                .causal = sight->causal,
                .exact = !sight->causal && sight->n_q < (int64_t)s->value[LEAST],
                .sift = sight->sift,
                .order = (int32_t *)at};
    at += aligned(4 * sight->n_q);
    const int64_t levels = levels_of(h->n_kv, h->least, h->causal);
    for (int64_t i = 0; i < levels; i++, at += level_bytes(h->n_q, h->n_kv)) {
        h->at[i] = level_at(h->n_q, h->n_kv, at);
        memset(h->at[i].sampled, 0, (size_t)fvi_ceil_div(h->n_kv, FVI_BLOCK) * sizeof(uint64_t));
    }
    const hashes x = hash_all(s);
    if (h->causal) {
        halve(s, h, &x, 0, 0, h->n_kv);
    } else if (!h->exact) {
        sort_level(s, h, &x, &h->at[0], 0, h->n_q, 0, h->n_kv);
    }
    make_order(h, &x);
}

static const int32_t *order(const void *head_state) { return ((const head *)head_state)->order; }

/* ---- what a row sees ---- */

static bool visits(const head *h, const path *p, int64_t row, int64_t key) {
    for (int i = 0; i < p->n; i++) {
        const level *at = &h->at[p->step[i].depth];
        if (key >= p->step[i].from && key < p->step[i].to) {
            return at->key_block[key] == at->row_block[row] || at->weight[key] != -INFINITY;
        }
    }
    return true; /* its exact span; the causal rule hides what is past it */
}

static uint64_t seen(const void *arg, int64_t position, int64_t block) {
    const head *h = arg;
    const path p = path_of(h, position);
    uint64_t bits = 0;
    for (int j = 0; j < FVI_BLOCK && block * FVI_BLOCK + j < h->n_kv; j++) {
        bits |= (uint64_t)visits(h, &p, position - h->offset, block * FVI_BLOCK + j) << j;
    }
    return bits;
}

/* Keys of a leaf that a level has, at places from..to - 1. */
typedef struct part {
    const level *at;
    uint64_t places;
} part;

static uint64_t places(int from, int to) { return from < to ? UINT64_MAX >> (64 - (to - from)) << from : 0; }

/* The leaf's keys by level, and what these know of them. */
static int part_keys(const head *h, const path *p, const fvi_pairs *pairs, int32_t block[FVI_BLOCK], float weight[FVI_BLOCK],
                     part out[MOST_LEVELS]) {
    int j = 0, parts = 0;
    for (int i = 0; i < p->n && j < pairs->keys; i++) {
        const level *at = &h->at[p->step[i].depth];
        const int from = j;
        for (; j < pairs->keys && pairs->key[j] < p->step[i].to; j++) {
            block[j] = at->key_block[pairs->key[j]];
            weight[j] = at->weight[pairs->key[j]];
        }
        if (j > from) {
            out[parts++] = (part){at, places(from, j)};
        }
    }
    return parts;
}

static void weigh(const void *arg, const fvi_pairs *pairs) {
    const head *h = arg;
    int32_t block[FVI_BLOCK] = {0}, own[16];
    float weight[FVI_BLOCK] = {0};
    part list[MOST_LEVELS];
    for (int r = 0, n; r < pairs->n; r += n) {
        const path p = path_of(h, pairs->position[r]);
        for (n = 1; r + n < pairs->n && pairs->position[r + n] >= p.from && pairs->position[r + n] < p.to;) {
            n++;
        }
        const int parts = part_keys(h, &p, pairs, block, weight, list);
        for (int i = 0; i < parts; i++) {
            for (int k = 0; k < n; k++) {
                own[k] = list[i].at->row_block[pairs->position[r + k] - h->offset];
            }
            h->sift->weigh(pairs->s + (int64_t)r * FVI_BLOCK, n, own, block, weight, list[i].places, pairs->seen + r);
        }
    }
}

/* ---- a tile's keys ---- */

static void add_step(const head *h, const path *p, int step, const int32_t *row, int64_t rows, fvi_index *index) {
    const level *at = &h->at[p->step[step].depth];
    const int64_t from = p->step[step].from, to = p->step[step].to;
    for (int64_t r = 0; r < rows; r++) {
        const int64_t own = at->row_block[row[r]];
        if (r > 0 && own == at->row_block[row[r - 1]]) {
            continue;
        }
        for (int64_t i = from + own * h->block; i < fvi_min(from + (own + 1) * h->block, to); i++) {
            fvi_index_add_key(index, at->key[i]);
        }
    }
    /* a word that two spans share has bits of both: those of the span's own keys are taken */
    for (int64_t b = from / FVI_BLOCK; b * FVI_BLOCK < to; b++) {
        const int first = (int)fvi_max(from - b * FVI_BLOCK, 0), end = (int)fvi_min(to - b * FVI_BLOCK, FVI_BLOCK);
        index->key[b] |= at->sampled[b] & places(first, end);
    }
}

static void tile(const fvi_select *s, const fvi_query_tile *q, fvi_index *index) {
    const head *h = s->head_state;
    if (h->exact) {
        fvi_index_add_all(index);
        return;
    }
    index->seen = seen;
    index->seen_arg = h;
    index->weigh = weigh;
    int64_t alike_from = 0; /* blocks before this have keys that not all rows see, or as they are */
    for (int64_t r = 0, n; r < q->rows; r += n) {
        const path p = path_of(h, h->offset + q->row[r]);
        for (n = 1; r + n < q->rows && h->offset + q->row[r + n] >= p.from && h->offset + q->row[r + n] < p.to;) {
            n++;
        }
        for (int step = 0; step < p.n; step++) {
            add_step(h, &p, step, q->row + r, n, index);
        }
        const int64_t from = exact_from(h, &p);
        fvi_index_add(index, from, fvi_round_up(fvi_min(q->last + 1, h->n_kv), FVI_BLOCK));
        alike_from = r == 0 && n == q->rows ? fvi_ceil_div(from, FVI_BLOCK) : index->blocks;
    }
    for (int64_t b = 0; b < fvi_min(alike_from, index->blocks); b++) {
        if (index->key[b] != 0) {
            fvi_index_add_apart(index, b, 0);
        }
    }
}

const fvi_selector fvi_select_hyper = {.query_block = 64,
                                       .scope = FVI_SCOPE_PROMPT,
                                       .head_bytes = head_bytes,
                                       .scratch_bytes = scratch_bytes,
                                       .prepare = prepare,
                                       .order = order,
                                       .tile = tile};
