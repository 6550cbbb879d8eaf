/* top_theta.c - a score takes part if it is above a threshold that was found offline for its layer, head and row length.
 *
 * Berestizshevsky, Sheikh Ahmad, Cavigelli, Bruscaglioni, Sestito, Marchisio (Huawei): Top-Theta Attention: Sparsifying
 * Transformers by Compensated Thresholding, 2025; code kostyanoob/top-theta-attention. The threshold is applied before the
 * softmax (section 3.2, "pre-softmax"), strictly: s > theta. Rows of k keys or fewer are dense. Two compensations (section 3.3):
 *   sdc  of the softmax's denominator, by `scale` times 1: the exponentials of what is missing (exact); 2: as many entries at the
 *        threshold as are missing (exp-threshold); 3: what was missing on average offline (offline-calibrated);
 *   vmc  of the mean of V: the mean of V up to the row, times what the weights lack to 1.
 * Both together are one more entry of a row: its weight is what the denominator is given, its value that mean, or zeros.
 *
 * A profile's numbers of a head are triples, ascending: row length, theta, missing (theta_calibrate.h); a row takes those of
 * the nearest length, the shorter of two. Without a profile `theta` and `missing` hold for all.
 *
 * Where paper and code differ: the code's exp-threshold counts keys after the query as missing; here only those that a row sees.
 * Deviations. A row that keeps nothing is zeros with a log-sum-exp of -inf (the code's softmax of equal numbers weighs all keys,
 * future ones too), but with a compensation it is what that gives; vmc alone then takes the mean of V whole, as one entry at the
 * threshold. The code's --capk (at most k survivors, the last ones) and its post-softmax placement, whose threshold needs the
 * row's whole sum first, are not built. The mean of V is that of all keys up to the row, whatever a window hides. */
#include "select/calibrate.h"

#include <math.h>
#include <string.h>

enum { THETA, K, SDC, SCALE, VMC, MISSING, ROWS = 64, ASKED = 16 };
enum { SDC_NONE, SDC_EXACT, SDC_THRESHOLD, SDC_OFFLINE };

static const float log2_e = 1.44269504f;

/* Of a tile; a row is its position's distance from `first`. Scores are logarithms to the base 2. */
typedef struct state {
    const fvi_rowop_ops *rowop;
    const fvi_sift_ops *sift;
    const fvi_tile_ops *plain;
    int64_t first, d_v;
    int sdc;
    bool vmc;
    float scale;
    bool dense[ROWS];
    float theta[ROWS], missing[ROWS];
    float top[ROWS];          /* offline: the largest score of all */
    int64_t out[ROWS];        /* exp-threshold: how many were left out */
    float m[ROWS], sum[ROWS]; /* exact: of those left out */
    _Alignas(64) float copy[ASKED * FVI_LEAF];
} state;

/* Of the prepass: 64 rows of values. */
static size_t scratch_bytes(const double *value, const fvi_extent *e) {
    return value[VMC] == 0 ? 0 : (size_t)(FVI_BLOCK * e->d_v) * sizeof(float);
}

/* The state, and behind it, with vmc, the means of V of its rows, and room for 65 rows. */
static size_t seen_bytes(const double *value, const fvi_extent *e) {
    return sizeof(state) + (value[VMC] == 0 ? 0 : (size_t)((2 * ROWS + 1) * e->d_v) * sizeof(float));
}

static size_t head_bytes(const double *value, const fvi_extent *e) {
    return value[VMC] == 0 ? 0 : (size_t)((fvi_ceil_div(e->n_kv, FVI_BLOCK) + 1) * e->d_v) * sizeof(float);
}

static float *means_of(state *at) { return (float *)(at + 1); }

/* Sums of all values before each block. */
static void prepare(const fvi_select *s) {
    int64_t d = s->sight->d_v, n_kv = s->sight->n_kv, blocks = fvi_ceil_div(n_kv, FVI_BLOCK);
    float *sum = s->head_state, *row = s->scratch;
    double running[256] = {0};
    for (int64_t b = 0; b <= blocks && s->value[VMC] != 0; b++) {
        for (int64_t c = 0; c < d; c++) {
            sum[b * d + c] = (float)running[c];
        }
        int64_t n = fvi_min(FVI_BLOCK, n_kv - b * FVI_BLOCK);
        if (n > 0) {
            s->sight->rows(s->sight, FVI_SIDE_V, b * FVI_BLOCK, n, row);
        }
        for (int64_t i = 0; i < n; i++) {
            for (int64_t c = 0; c < d; c++) {
                running[c] += row[i * d + c];
            }
        }
    }
}

/* The mean of V up to each row of the tile. Not causal: of all. */
static void mean_values(const fvi_select *s, const fvi_query_tile *q, state *at) {
    int64_t d = s->sight->d_v, n_kv = s->sight->n_kv, blocks = fvi_ceil_div(n_kv, FVI_BLOCK);
    int64_t block = s->sight->causal ? fvi_min(q->first / FVI_BLOCK, blocks) : blocks;
    const float *before = (const float *)s->head_state + block * d;
    float *mean = means_of(at), *row = mean + ROWS * d, *running = row + ROWS * d;
    memcpy(running, before, (size_t)d * sizeof(float));
    int64_t n = s->sight->causal ? fvi_min(ROWS, n_kv - q->first) : 0;
    if (n > 0) {
        s->sight->rows(s->sight, FVI_SIDE_V, q->first, n, row);
    }
    for (int64_t i = 0; i < ROWS; i++) {
        int64_t keys = s->sight->causal ? fvi_min(q->first + i + 1, n_kv) : n_kv;
        for (int64_t c = 0; c < d; c++) {
            running[c] += i < n ? row[i * d + c] : 0;
            mean[i * d + c] = running[c] / (float)keys;
        }
    }
}

/* The triple of the length nearest to `length`. */
static const double *nearest(const double *number, int64_t triples, int64_t length) {
    int64_t low = 0;
    for (int64_t high = triples; high - low > 1;) {
        int64_t middle = low + (high - low) / 2;
        if (number[3 * middle] <= (double)length) {
            low = middle;
        } else {
            high = middle;
        }
    }
    double below = fabs((double)length - number[3 * low]);
    bool next = low + 1 < triples && fabs(number[3 * low + 3] - (double)length) < below;
    return number + 3 * (low + next);
}

static int row_of(const state *at, int64_t position) { return (int)(position - at->first); }

/* Adds what is left out of rows to their sums: by the tile's own softmax, over a copy in which what is kept is hidden. */
static void add_left_out(state *at, const fvi_scores *x, const uint64_t *left) {
    float m[ASKED], sum[ASKED], alpha[ASKED];
    memcpy(at->copy, x->s, (size_t)x->n * FVI_LEAF * sizeof(float));
    at->rowop->hide(x->n, left, at->copy);
    for (int r = 0; r < x->n; r++) {
        m[r] = at->m[row_of(at, x->position[r])];
        sum[r] = at->sum[row_of(at, x->position[r])];
    }
    at->plain->soften(at->copy, x->n, m, sum, alpha);
    for (int r = 0; r < x->n; r++) {
        at->m[row_of(at, x->position[r])] = m[r];
        at->sum[row_of(at, x->position[r])] = sum[r];
    }
}

static void keep_some(state *at, const fvi_scores *x) {
    uint64_t left[ASKED];
    float theta[ASKED], top[ASKED];
    for (int r = 0; r < x->n; r++) {
        left[r] = x->seen[r];
        theta[r] = at->theta[row_of(at, x->position[r])];
    }
    at->sift->largest(x->s, x->n, x->seen, top);
    at->sift->above(x->s, x->n, theta, x->seen);
    for (int r = 0; r < x->n; r++) {
        int row = row_of(at, x->position[r]);
        x->seen[r] = at->dense[row] ? left[r] : x->seen[r];
        left[r] &= ~x->seen[r];
        at->out[row] += __builtin_popcountll(left[r]);
        at->top[row] = fmaxf(at->top[row], top[r]);
    }
    if (at->sdc == SDC_EXACT) {
        add_left_out(at, x, left);
    }
}

static void keep(void *arg, const fvi_scores *x) {
    for (int from = 0; from < x->n; from += ASKED) {
        fvi_scores some = {(int)fvi_min(ASKED, x->n - from), x->position + from, x->m + from, x->s + from * FVI_LEAF,
                           x->seen + from};
        keep_some(arg, &some);
    }
}

static fvi_more more(void *arg, int64_t position, float m) {
    state *at = arg;
    int row = row_of(at, position);
    const float *mean = means_of(at) + row * at->d_v;
    float weight = -INFINITY;
    if (at->dense[row]) {
        return (fvi_more){-INFINITY, NULL};
    }
    if (at->sdc == SDC_EXACT) {
        weight = at->m[row] + log2f(at->sum[row] * at->scale);
    } else if (at->sdc == SDC_THRESHOLD) {
        weight = at->theta[row] + log2f((float)at->out[row] * at->scale);
    } else if (at->sdc == SDC_OFFLINE) {
        weight = at->top[row] + log2f(at->missing[row] * at->scale);
    }
    if (at->vmc && m == -INFINITY && weight == -INFINITY) {
        weight = at->theta[row];
    }
    return (fvi_more){weight, at->vmc ? mean : NULL};
}

static void tile(const fvi_select *s, const fvi_query_tile *q, fvi_index *index) {
    state *at = s->seen_state;
    int64_t n_kv = s->sight->n_kv, k = (int64_t)s->value[K];
    fvi_index_add_all(index);
    if ((s->sight->causal ? q->last + 1 : n_kv) <= k) {
        return;
    }
    at->rowop = s->sight->rowop;
    at->sift = s->sight->sift;
    at->plain = s->sight->plain;
    at->first = q->first;
    at->d_v = s->sight->d_v;
    at->sdc = (int)s->value[SDC];
    at->vmc = s->value[VMC] != 0;
    at->scale = (float)s->value[SCALE];
    for (int64_t i = 0; i < ROWS; i++) {
        int64_t length = s->sight->causal ? fvi_min(q->first + i + 1, n_kv) : n_kv;
        const double own[3] = {0, s->value[THETA], s->value[MISSING]};
        const double *number = s->numbers >= 3 ? nearest(s->number, s->numbers / 3, length) : own;
        at->dense[i] = length <= k;
        at->theta[i] = (float)number[1] * log2_e;
        at->missing[i] = (float)number[2];
        at->top[i] = at->m[i] = -INFINITY;
        at->out[i] = 0;
        at->sum[i] = 0;
    }
    if (at->vmc) {
        mean_values(s, q, at);
    }
    index->sieve = (fvi_sieve){.keep = keep, .more = at->sdc != SDC_NONE || at->vmc ? more : NULL, .arg = at};
}

const fvi_selector fvi_select_top_theta = {.calibration = &fvi_calibrate_theta,
                                           .query_block = ROWS,
                                           .scope = FVI_SCOPE_TILE,
                                           .head_bytes = head_bytes,
                                           .scratch_bytes = scratch_bytes,
                                           .seen_bytes = seen_bytes,
                                           .prepare = prepare,
                                           .tile = tile};
