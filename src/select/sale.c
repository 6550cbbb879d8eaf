/* sale.c - blocks in which some pair's four-bit score counts against what the row surely attends to.
 *
 * Ji, Li, et al.: SALE: Low-bit Estimation for Efficient Sparse Attention in Long-context LLM Prefilling, 2025; code
 * BirdChristopher/SALE. Queries in blocks of 64, keys in blocks of 32. The first key block and the last ones (`local` keys or
 * more, the block's own among them, so that the rest are whole segments of 128) are visited, and their exact scores give a row's
 * reference: the logarithm of their sum of exponentials. All other pairs are estimated: queries and keys less their means are
 * rounded to integers of four bits, token by token, and the mean query's product with the centred key is added back. A block is
 * visited if the estimate of any of its pairs is above log(threshold) + the row's reference: its Relative Attention Score is
 * above the threshold. That of a profile's head is its first number; below 1e-5 the head is dense, as are prompts of up to
 * `dense` keys.
 *
 * Where paper and code differ, the code's form is built. Deviations: scales are those of a token (the code's quant_mode 2; its
 * example takes 3, of 16 queries and 32 keys); reference scores are those of the tile's products, f32 or pairs of bf16; a row of
 * zeros is zeros. Integers are held in bytes.
 *
 * What the estimates cost (kernel/lowbit.h) depends on which numbers of a head stand first: those whose products are large. They
 * are sorted by that; an integer sum has no order. */
#include "select/calibrate.h"

#include <math.h>
#include <string.h>

enum { THRESHOLD, LOCAL, DENSE, ROWS = 64, PART = FVI_LOWBIT_PART, SEGMENT = 4, SAMPLE = 8 };

/* Of a query head, from prepare on. */
typedef struct state {
    fvi_lowbit_units *units;
    float *q_mean, *k_mean; /* (d) */
    int32_t *order;         /* (d): numbers, the first first */
    float *scale, *added;   /* (64 leaves): of keys */
    uint8_t *kt;            /* (leaves, lowbit bytes) */
} state;

/* Of a tile. */
typedef struct scratch {
    float *row;   /* (64, d) */
    float *s;     /* (64, 64) */
    int8_t *four; /* (64, row bytes), as lowbit.h has them */
    void *look;
    int32_t zero[ROWS], late[ROWS], start[ROWS];
    float per_scale[ROWS], limit[ROWS], m[ROWS], sum[ROWS], alpha[ROWS], dot[ROWS];
} scratch;

static int64_t floats(int64_t d) { return fvi_round_up(d, 16); }

static size_t head_bytes(const double *value, const fvi_extent *e) {
    (void)value;
    int64_t leaves = fvi_ceil_div(e->n_kv, FVI_LEAF);
    return 64 + (size_t)(3 * floats(e->d_k) + 2 * FVI_LEAF * leaves) * sizeof(float) +
           (size_t)(leaves * fvi_lowbit_bytes(e->d_k));
}

static state state_of(const fvi_select *s) {
    int64_t leaves = fvi_ceil_div(s->sight->n_kv, FVI_LEAF), d = floats(s->sight->d_k);
    float *mean = (float *)s->head_state + 16, *scale = mean + 3 * d;
    return (state){.units = s->head_state,
                   .q_mean = mean,
                   .k_mean = mean + d,
                   .order = (int32_t *)(mean + 2 * d),
                   .scale = scale,
                   .added = scale + FVI_LEAF * leaves,
                   .kt = (uint8_t *)(scale + 2 * FVI_LEAF * leaves)};
}

static size_t scratch_bytes(const double *value, const fvi_extent *e) {
    (void)value;
    return sizeof(scratch) + 64 + fvi_look_bytes(ROWS, e->d_k, e->d_v) + (size_t)(ROWS * (FVI_LEAF + e->d_k)) * sizeof(float) +
           (size_t)(ROWS * fvi_lowbit_row_bytes(e->d_k));
}

static scratch *scratch_of(const fvi_select *s) {
    scratch *at = s->scratch;
    at->s = (float *)((uint8_t *)at + ((sizeof(scratch) + 63) & ~(size_t)63));
    at->look = at->s + ROWS * FVI_LEAF;
    at->row = (float *)((uint8_t *)at->look + fvi_look_bytes(ROWS, s->sight->d_k, s->sight->d_v));
    at->four = (int8_t *)(at->row + ROWS * s->sight->d_k);
    return at;
}

static double threshold_of(const fvi_select *s) { return s->numbers > 0 ? s->number[0] : s->value[THRESHOLD]; }

/* The mean of all rows of a side. Sums of 64 rows and then of blocks keep an error small. */
static void mean_of(const fvi_select *s, fvi_side side, int64_t n, float *row, float *mean) {
    int64_t d = s->sight->d_k;
    float sum[256];
    memset(mean, 0, (size_t)d * sizeof(float));
    for (int64_t from = 0; from < n; from += FVI_LEAF) {
        int64_t rows = fvi_min(FVI_LEAF, n - from);
        s->sight->rows(s->sight, side, from, rows, row);
        memset(sum, 0, sizeof sum);
        for (int64_t i = 0; i < rows; i++) {
            s->sight->rowop->add(d, sum, row + i * d);
        }
        s->sight->rowop->add(d, mean, sum);
    }
    for (int64_t c = 0; c < d; c++) {
        mean[c] /= (float)n;
    }
}

/* out[i] = x[i] . y for rows x (n, d): four sums side by side, each in the order of its numbers. */
static void dots(const float *x, int64_t n, int64_t d, const float *y, float *out) {
    for (int64_t i = 0; i < n; i += 4) { /* of rows that are not there the last one stands in */
        const float *a = x + i * d, *b = x + fvi_min(i + 1, n - 1) * d, *e = x + fvi_min(i + 2, n - 1) * d,
                    *f = x + fvi_min(i + 3, n - 1) * d;
        float sum[4] = {0};
        for (int64_t c = 0; c < d; c++) {
            sum[0] += a[c] * y[c];
            sum[1] += b[c] * y[c];
            sum[2] += e[c] * y[c];
            sum[3] += f[c] * y[c];
        }
        memcpy(out + i, sum, (size_t)fvi_min(4, n - i) * sizeof(float));
    }
}

/* x (d) = those of row - mean, in order. */
static void centre(const float *row, const float *mean, const int32_t *order, int64_t d, float *x) {
    for (int64_t c = 0; c < d; c++) {
        x[c] = row[order[c]] - mean[order[c]];
    }
}

/* Squares of a side's centred numbers, over some of its rows: which ones changes what is fast, and nothing else. */
static void squares(const fvi_select *s, fvi_side side, int64_t n, const float *mean, float *row, float *sum) {
    const int64_t d = s->sight->d_k;
    memset(sum, 0, (size_t)d * sizeof(float));
    for (int64_t from = 0; from < n; from += SAMPLE * FVI_LEAF) {
        const int64_t rows = fvi_min(FVI_LEAF, n - from);
        s->sight->rows(s->sight, side, from, rows, row);
        for (int64_t i = 0; i < rows; i++) {
            for (int64_t c = 0; c < d; c++) {
                const float x = row[i * d + c] - mean[c];
                sum[c] += x * x;
            }
        }
    }
}

/* Numbers by their squares' product, the largest first, ties by number. */
static void sort_numbers(const fvi_select *s, const state *head, float *row) {
    const int64_t d = s->sight->d_k;
    float q[256], k[256];
    squares(s, FVI_SIDE_Q, s->sight->n_q, head->q_mean, row, q);
    squares(s, FVI_SIDE_K, s->sight->n_kv, head->k_mean, row, k);
    for (int64_t c = 0; c < d; c++) {
        int64_t at = c;
        for (; at > 0 && q[c] * k[c] > q[head->order[at - 1]] * k[head->order[at - 1]]; at--) {
            head->order[at] = head->order[at - 1];
        }
        head->order[at] = (int32_t)c;
    }
}

static void prepare_keys(const fvi_select *s, const state *head, int64_t leaf, float *row) {
    const fvi_sight *sight = s->sight;
    const int64_t d = sight->d_k, n = fvi_min(FVI_LEAF, sight->n_kv - leaf * FVI_LEAF);
    float x[256];
    sight->rows(sight, FVI_SIDE_K, leaf * FVI_LEAF, n, row);
    for (int j = 0; j < FVI_LEAF; j++) {
        float *key = row + j * d;
        for (int64_t c = 0; c < d; c++) {
            key[c] = j < n ? key[c] - head->k_mean[c] : 0;
        }
        for (int64_t c = 0; c < d; c++) {
            x[c] = key[head->order[c]];
        }
        head->scale[leaf * FVI_LEAF + j] = fvi_lowbit_key(sight->lowbit, x, d, j, head->kt + leaf * fvi_lowbit_bytes(d));
    }
    dots(row, FVI_LEAF, d, head->q_mean, head->added + leaf * FVI_LEAF);
}

static void prepare(const fvi_select *s) {
    const fvi_sight *sight = s->sight;
    const state head = state_of(s);
    float *row = scratch_of(s)->row;
    const int64_t leaves = fvi_ceil_div(sight->n_kv, FVI_LEAF);
    if (threshold_of(s) < 1e-5 || sight->n_kv <= (int64_t)s->value[DENSE]) {
        return;
    }
    mean_of(s, FVI_SIDE_Q, sight->n_q, row, head.q_mean);
    mean_of(s, FVI_SIDE_K, sight->n_kv, row, head.k_mean);
    sort_numbers(s, &head, row);
    for (int64_t leaf = 0; leaf < leaves; leaf++) {
        prepare_keys(s, &head, leaf, row);
    }
    *head.units = fvi_lowbit_units_of(sight->n_kv, head.scale, head.added);
    for (int64_t leaf = 0; leaf < leaves; leaf++) {
        fvi_lowbit_key_edges(head.units, head.scale + leaf * FVI_LEAF, head.added + leaf * FVI_LEAF,
                             head.kt + leaf * fvi_lowbit_bytes(sight->d_k));
    }
}

/* Bits of keys from .. to - 1 in a leaf. */
static uint64_t span_bits(int64_t leaf, int64_t from, int64_t to) {
    from = fvi_max(from - leaf * FVI_LEAF, 0);
    to = fvi_min(to - leaf * FVI_LEAF, FVI_LEAF);
    return from < to ? UINT64_MAX >> (64 - (to - from)) << from : 0;
}

/* Logarithms to the base 2 of the sums of exponentials over the first block and keys local .. of each row: m + log2(sum). */
static void references(const fvi_select *s, scratch *at, int64_t first, int64_t rows, int64_t local) {
    const fvi_sight *sight = s->sight;
    fvi_look look = fvi_look_open(sight, at->row, rows, at->look);
    uint64_t seen[ROWS];
    for (int64_t r = 0; r < rows; r++) {
        at->m[r] = -INFINITY;
        at->sum[r] = 0;
    }
    int64_t last = fvi_min(first + rows, sight->n_kv) - 1;
    for (int64_t leaf = 0; leaf <= last / FVI_LEAF; leaf = leaf == 0 ? fvi_max(1, local / FVI_LEAF) : leaf + 1) {
        fvi_look_scores(&look, leaf, sight->scale * 1.44269504f, at->s);
        for (int64_t r = 0; r < rows; r++) {
            int64_t end = fvi_min(first + r + 1, sight->n_kv);
            seen[r] = span_bits(leaf, 0, fvi_min(PART, end)) | span_bits(leaf, local, end);
        }
        sight->rowop->hide(rows, seen, at->s);
        sight->plain->soften(at->s, (int)rows, at->m, at->sum, at->alpha);
    }
}

/* Rows as integers, and the estimates that they have to pass: in units of q . (k - mean of k) over the row's scale. */
static void pack_rows(const fvi_select *s, const state *head, scratch *at, int64_t rows) {
    int64_t d = s->sight->d_k, width = fvi_lowbit_width(d);
    float log2_scale = s->sight->scale * 1.44269504f, threshold = (float)threshold_of(s), x[256];
    dots(at->row, rows, d, head->k_mean, at->dot);
    for (int64_t r = 0; r < rows; r++) {
        float limit = (at->m[r] + log2f(at->sum[r] * threshold)) / log2_scale - at->dot[r];
        centre(at->row + r * d, head->q_mean, head->order, d, x);
        float scale = fvi_lowbit_row(s->sight->lowbit, x, d, r, at->four, &at->zero[r], &at->late[r]);
        scale = scale > 0 ? scale : 1;
        at->per_scale[r] = 1 / scale;
        at->limit[r] = limit / scale;
        at->start[r] =
            fvi_lowbit_row_edge(head->units, width, r, at->per_scale[r], at->limit[r], at->zero[r] - at->late[r], at->four);
    }
    for (int64_t r = rows; r < fvi_round_up(rows, FVI_LOWBIT_ROWS); r++) { /* lowbit.h's rows that are not there */
        at->start[r] = fvi_lowbit_no_row(width, r, at->four);
        at->zero[r] = at->late[r] = 0;
        at->per_scale[r] = 0;
        at->limit[r] = INFINITY;
    }
}

static void tile(const fvi_select *s, const fvi_query_tile *q, fvi_index *index) {
    const fvi_sight *sight = s->sight;
    state head = state_of(s);
    scratch *at = scratch_of(s);
    int64_t d = sight->d_k, blocks = fvi_ceil_div(fvi_min(q->last + 1, sight->n_kv), PART);
    int64_t local = fvi_ceil_div((int64_t)s->value[LOCAL], PART) + (blocks - 1) % SEGMENT;
    if (threshold_of(s) < 1e-5 || sight->n_kv <= (int64_t)s->value[DENSE] || local >= blocks || sight->scale <= 0) {
        fvi_index_add_all(index);
        return;
    }
    int64_t from = fvi_max(0, q->first - sight->offset), rows = fvi_min(sight->n_q, q->last + 1 - sight->offset) - from;
    int64_t rest = blocks - local; /* the first local block */
    sight->rows(sight, FVI_SIDE_Q, from, rows, at->row);
    references(s, at, sight->offset + from, rows, rest * PART);
    pack_rows(s, &head, at, rows);
    fvi_lowbit_rows packed = {(int)rows, (int)fvi_lowbit_width(d), at->four, at->zero, at->late, at->start, at->per_scale,
                              at->limit};
    fvi_lowbit_hint hint = {0};
    for (int64_t leaf = 0; 2 * leaf < rest; leaf++) {
        unsigned halves = (2 * leaf + 1 < rest ? 3 : 1) - (leaf == 0); /* the first block is visited anyway */
        unsigned found = sight->lowbit->above(&packed, head.kt + leaf * fvi_lowbit_bytes(d), head.scale + leaf * FVI_LEAF,
                                              head.added + leaf * FVI_LEAF, halves, &hint);
        for (int64_t b = 2 * leaf; b < 2 * leaf + 2; b++) {
            if (found >> (b - 2 * leaf) & 1) {
                fvi_index_add(index, b * PART, (b + 1) * PART);
            }
        }
    }
    fvi_index_add(index, 0, PART);
    fvi_index_add(index, rest * PART, blocks * PART);
}

static const char *refuse(const double *value, const fvi_extent *extent) {
    (void)value;
    return extent->causal ? NULL : "sale is for causal attention: its reference are the keys just before a query";
}

const fvi_selector fvi_select_sale = {.calibration = &fvi_calibrate_sale,
                                      .query_block = ROWS,
                                      .scope = FVI_SCOPE_PROMPT,
                                      .head_bytes = head_bytes,
                                      .scratch_bytes = scratch_bytes,
                                      .prepare = prepare,
                                      .tile = tile,
                                      .refuse = refuse};
