/* spargeattn.c - blocks whose mean is worth asking for, and a second look at their scores.
 *
 * Zhang, Xiang, Huang, Wei, Xi, Zhu, Chen: SpargeAttn: Accurate and Training-free Sparse Attention Accelerating Any Model
 * Inference, ICML 2025. Stage 1 (its section 3.3): queries in blocks of 128 and keys, less the mean of all keys, in blocks of 64
 * are pooled to their means. A block's self-similarity is the mean of its rows' pairwise cosines. Softmax of the pooled scores
 * over those key blocks that are similar in themselves; a block of queries takes the largest until their mass passes `cdf`. Key
 * blocks that are not similar are always on, and so is every key for a block of queries that is not. Stage 2 (section 3.4): of a
 * visited block, a row's product with V is skipped where its largest score lies `pv` (logarithm to the base 2) or more below the
 * largest so far; the sum skips too.
 *
 * Where paper and official code (thu-ml/SpargeAttn) differ, the code's form is built: the block that crosses `cdf` is left out,
 * at least one is taken; the diagonal is not forced; keys are centred before they are pooled and compared, queries are not;
 * `topk` (if not 0) takes the largest int(topk * blocks of the whole prompt), future ones counted. Defaults are those of its
 * function spas_sage2_attn_meansim_cuda (the top-k form goes with sim=-0.1). Heads of a profile (spargeattn_calibrate.c) have
 * the first block on, as the code runs what it tuned.
 *
 * Deviations. Stage 2 is decided row by row; the code decides for the rows of a warp together: here a row may skip more, but
 * never a weight above 2^-pv of its largest. Blocks' similarities are f32 (f16 there), from the sum of unit rows: the mean of
 * cosines is its squared length over the squared number of rows. Equal pooled scores: the earlier block first. Q and K are not
 * quantised. Where a block of queries takes nothing that its first row sees, the first of its own blocks is added: no row is left
 * without keys. A row that stands at position i belongs to block i / 128, whatever part of a prompt a run has. */
#include "select/calibrate.h"

#include <math.h>
#include <string.h>

enum { SIM, CDF, TOPK, SINK, PV, Q_BLOCK = 128 };

/* A profile's numbers are a head's sim, cdf and pv, and come before the parameters. */
static bool tuned(const fvi_select *s) { return s->numbers >= 3; }
static float sim_of(const fvi_select *s) { return (float)(tuned(s) ? s->number[0] : s->value[SIM]); }
static float cdf_of(const fvi_select *s) { return (float)(tuned(s) ? s->number[1] : s->value[CDF]); }
static float pv_of(const fvi_select *s) { return (float)(tuned(s) ? s->number[2] : s->value[PV]); }

/* Of a query head, from prepare on. */
typedef struct state {
    float *mean;    /* (blocks, d): pooled keys, centred */
    uint8_t *alike; /* (blocks) */
} state;

/* Of a thread. */
typedef struct scratch {
    float *row;     /* (64, d) */
    float *pooled;  /* (d) */
    float *unit;    /* (d) */
    float *score;   /* (blocks) */
    int32_t *order; /* (blocks) */
    float pv;       /* of the second stage */
    const fvi_sift_ops *sift;
} scratch;

static int64_t blocks_of(int64_t n_kv) { return fvi_ceil_div(n_kv, FVI_BLOCK); }

static size_t head_bytes(const double *value, const fvi_extent *e) {
    (void)value;
    return (size_t)(blocks_of(e->n_kv) * (e->d_k * (int64_t)sizeof(float) + 1));
}

static state state_of(const fvi_select *s) {
    float *mean = s->head_state;
    return (state){mean, (uint8_t *)(mean + blocks_of(s->sight->n_kv) * s->sight->d_k)};
}

static size_t scratch_bytes(const double *value, const fvi_extent *e) {
    (void)value;
    return sizeof(scratch) + (size_t)((FVI_BLOCK + 2) * e->d_k + 2 * blocks_of(e->n_kv)) * sizeof(float);
}

static scratch *scratch_of(const fvi_select *s) {
    scratch *at = s->scratch;
    int64_t d = s->sight->d_k;
    at->row = (float *)(at + 1);
    at->pooled = at->row + FVI_BLOCK * d;
    at->unit = at->pooled + d;
    at->score = at->unit + d;
    at->order = (int32_t *)(at->score + blocks_of(s->sight->n_kv));
    return at;
}

/* Adds n rows (less `centre`, unless it is NULL; then they are left changed) to `sum`, and over their lengths to `unit`. */
static void add_rows(float *row, int64_t n, int64_t d, const float *centre, float *sum, float *unit) {
    for (int64_t i = 0; i < n; i++, row += d) {
        float lane[16] = {0};
        for (int64_t c = 0; c < d; c++) {
            row[c] -= centre != NULL ? centre[c] : 0;
            sum[c] += row[c];
        }
        for (int64_t c = 0; c < d; c++) {
            lane[c % 16] += row[c] * row[c];
        }
        for (int half = 8; half > 0; half /= 2) {
            for (int l = 0; l < half; l++) {
                lane[l] += lane[l + half];
            }
        }
        float length = sqrtf(lane[0]);
        for (int64_t c = 0; c < d; c++) {
            unit[c] += row[c] / length;
        }
    }
}

/* `sum` becomes a mean; whether the mean of pairwise cosines is above `least`. A row of zeros has no cosine: NaN, not alike. */
static bool pool(int64_t n, int64_t d, float least, float *sum, const float *unit) {
    float cosines = 0;
    for (int64_t c = 0; c < d; c++) {
        sum[c] /= (float)n;
        cosines += unit[c] * unit[c];
    }
    return cosines / (float)(n * n) > least;
}

/* The mean of all keys, block by block: the sum of 64 rows and then of blocks keeps an error small. */
static void centre_of(const fvi_select *s, float *row, float *sum, float *centre) {
    int64_t d = s->sight->d_k, n_kv = s->sight->n_kv;
    memset(centre, 0, (size_t)d * sizeof(float));
    for (int64_t from = 0; from < n_kv; from += FVI_BLOCK) {
        int64_t n = fvi_min(FVI_BLOCK, n_kv - from);
        s->sight->rows(s->sight, FVI_SIDE_K, from, n, row);
        memset(sum, 0, (size_t)d * sizeof(float));
        for (int64_t i = 0; i < n; i++) {
            for (int64_t c = 0; c < d; c++) {
                sum[c] += row[i * d + c];
            }
        }
        for (int64_t c = 0; c < d; c++) {
            centre[c] += sum[c];
        }
    }
    for (int64_t c = 0; c < d; c++) {
        centre[c] /= (float)n_kv;
    }
}

static void prepare(const fvi_select *s) {
    state head = state_of(s);
    scratch *at = scratch_of(s);
    int64_t d = s->sight->d_k, n_kv = s->sight->n_kv;
    float *centre = at->pooled;
    centre_of(s, at->row, at->unit, centre);
    for (int64_t b = 0; b < blocks_of(n_kv); b++) {
        int64_t n = fvi_min(FVI_BLOCK, n_kv - b * FVI_BLOCK);
        float *mean = head.mean + b * d;
        memset(mean, 0, (size_t)d * sizeof(float));
        memset(at->unit, 0, (size_t)d * sizeof(float));
        s->sight->rows(s->sight, FVI_SIDE_K, b * FVI_BLOCK, n, at->row);
        add_rows(at->row, n, d, centre, mean, at->unit);
        head.alike[b] = pool(n, d, sim_of(s), mean, at->unit);
    }
}

/* The mean of the tile's queries, in `pooled`; whether they are alike. Those that a run does not have are not in it. */
static bool pool_queries(const fvi_select *s, const fvi_query_tile *q, scratch *at) {
    const fvi_sight *sight = s->sight;
    int64_t d = sight->d_k, from = fvi_max(0, q->first - sight->offset);
    int64_t to = fvi_min(sight->n_q, q->last + 1 - sight->offset);
    memset(at->pooled, 0, (size_t)d * sizeof(float));
    memset(at->unit, 0, (size_t)d * sizeof(float));
    for (int64_t i = from, n; i < to; i += n) {
        n = fvi_min(FVI_BLOCK, to - i);
        sight->rows(sight, FVI_SIDE_Q, i, n, at->row);
        add_rows(at->row, n, d, NULL, at->pooled, at->unit);
    }
    return pool(to - from, d, sim_of(s), at->pooled, at->unit);
}

/* Softmax of the pooled scores of the first `reach` blocks, 0 where keys are not alike; false if none are. */
static bool pooled_weights(const fvi_select *s, const state *head, scratch *at, int64_t reach) {
    int64_t d = s->sight->d_k;
    float top = -INFINITY, sum = 0;
    for (int64_t b = 0; b < reach; b++) {
        float lane[16] = {0};
        for (int64_t c = 0; c < d && head->alike[b]; c++) {
            lane[c % 16] += at->pooled[c] * head->mean[b * d + c];
        }
        for (int half = 8; half > 0; half /= 2) {
            for (int l = 0; l < half; l++) {
                lane[l] += lane[l + half];
            }
        }
        at->score[b] = head->alike[b] ? lane[0] * s->sight->scale : -INFINITY;
        top = fmaxf(top, at->score[b]);
    }
    for (int64_t b = 0; b < reach && top > -INFINITY; b++) {
        at->score[b] = expf(at->score[b] - top);
        sum += at->score[b];
    }
    for (int64_t b = 0; b < reach && top > -INFINITY; b++) {
        at->score[b] /= sum;
    }
    return top > -INFINITY;
}

/* Whether block a comes after block b: of less weight, or later where weights are equal. */
static bool after(const float *score, int32_t a, int32_t b) { return score[a] < score[b] || (score[a] == score[b] && a > b); }

static void sink_down(const float *score, int32_t *heap, int64_t n, int64_t at) {
    for (int64_t child; (child = 2 * at + 1) < n; at = child) {
        child += child + 1 < n && after(score, heap[child], heap[child + 1]);
        if (!after(score, heap[at], heap[child])) {
            return;
        }
        int32_t swap = heap[at];
        heap[at] = heap[child];
        heap[child] = swap;
    }
}

/* Adds the blocks of largest weight: `most` of them, or until their mass passes `cdf`. A heap: few of many are taken. */
static void take_largest(scratch *at, int64_t reach, int64_t most, float cdf, fvi_index *index) {
    float mass = 0;
    int64_t n = reach;
    for (int64_t b = 0; b < reach; b++) {
        at->order[b] = (int32_t)b;
    }
    for (int64_t b = reach / 2; b-- > 0;) {
        sink_down(at->score, at->order, n, b);
    }
    for (int64_t taken = 0; n > 0 && taken < most; taken++) {
        int32_t b = at->order[0];
        mass += at->score[b];
        if (mass > cdf && taken > 0) {
            return;
        }
        fvi_index_add_block(index, b);
        at->order[0] = at->order[--n];
        sink_down(at->score, at->order, n, 0);
    }
}

static void keep(void *arg, const fvi_scores *scores) {
    const scratch *at = arg;
    float most[FVI_BLOCK];
    at->sift->largest(scores->s, scores->n, scores->seen, most);
    for (int r = 0; r < scores->n; r++) {
        scores->seen[r] = most[r] - scores->m[r] <= -at->pv ? 0 : scores->seen[r];
    }
}

/* The first rows of a block of queries see none of the blocks behind them: if nothing else was taken, their own is. */
static void see_something(fvi_index *index, int64_t own) {
    uint64_t any = 0;
    for (int64_t b = 0; b <= own; b++) {
        any |= index->key[b];
    }
    if (any == 0) {
        fvi_index_add_block(index, own);
    }
}

static void tile(const fvi_select *s, const fvi_query_tile *q, fvi_index *index) {
    state head = state_of(s);
    scratch *at = scratch_of(s);
    int64_t reach = s->sight->causal ? fvi_min(index->blocks, q->last / FVI_BLOCK + 1) : index->blocks;
    float topk = (float)s->value[TOPK], cdf = cdf_of(s);
    if (!pool_queries(s, q, at) || (topk == 0 && cdf >= 1)) {
        fvi_index_add_all(index);
    } else if (pooled_weights(s, &head, at, reach)) {
        int64_t most = topk > 0 ? fvi_max(1, (int64_t)(topk * (float)index->blocks)) : reach;
        take_largest(at, reach, most, topk > 0 ? INFINITY : cdf, index);
    }
    for (int64_t b = 0; b < reach; b++) {
        if (!head.alike[b] || (b == 0 && (tuned(s) || s->value[SINK] != 0))) {
            fvi_index_add_block(index, b);
        }
    }
    if (s->sight->causal && q->first >= 0 && q->first / FVI_BLOCK < index->blocks) {
        see_something(index, q->first / FVI_BLOCK);
    }
    if (pv_of(s) > 0) {
        at->pv = pv_of(s);
        at->sift = s->sight->sift;
        index->sieve = (fvi_sieve){.keep = keep, .arg = at};
    }
}

const fvi_selector fvi_select_spargeattn = {.calibration = &fvi_calibrate_spargeattn,
                                            .query_block = Q_BLOCK,
                                            .scope = FVI_SCOPE_PROMPT,
                                            .head_bytes = head_bytes,
                                            .scratch_bytes = scratch_bytes,
                                            .prepare = prepare,
                                            .tile = tile};
