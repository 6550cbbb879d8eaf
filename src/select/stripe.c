/* stripe.c - see stripe.h. Scores are made anew in the second pass, by the same products to the same bits: rows x keys of them
 * would not fit. */
#include "select/stripe.h"

#include <math.h>
#include <string.h>

static const double log2e = 1.4426950408889634;

static int64_t state_floats(int64_t rows) {
    return 2 * fvi_round_up(rows, 16) + 3 * FVI_STRIPE_ROWS + FVI_STRIPE_ROWS * FVI_LEAF;
}

size_t fvi_stripe_bytes(int64_t rows, int64_t d_k, int64_t d_v) {
    return fvi_look_bytes(rows, d_k, d_v) + (size_t)state_floats(rows) * sizeof(float);
}

static int64_t first_row(const fvi_stripe *stripe, int64_t leaf) {
    int64_t r = 0;
    while (stripe->look.sight->causal && r < stripe->rows && stripe->position[r] < leaf * FVI_LEAF) {
        r++;
    }
    return r;
}

int64_t fvi_stripe_leaf(fvi_stripe *stripe, int64_t leaf) {
    stripe->leaf = leaf;
    fvi_look_leaf(&stripe->look, leaf);
    return first_row(stripe, leaf);
}

static void scores(fvi_stripe *stripe, int64_t first, int64_t n) {
    const fvi_sight *sight = stripe->look.sight;
    fvi_look_rows(&stripe->look, first, n, (float)((double)sight->scale * log2e), stripe->s);
    for (int64_t r = 0; r < n; r++) {
        int64_t end = sight->causal ? fvi_min(sight->n_kv, stripe->position[first + r] + 1) : sight->n_kv;
        for (int64_t j = fvi_max(0, end - stripe->leaf * FVI_LEAF); j < FVI_LEAF; j++) {
            stripe->s[r * FVI_LEAF + j] = -INFINITY;
        }
    }
}

void fvi_stripe_weights(fvi_stripe *stripe, int64_t first, int64_t n) {
    scores(stripe, first, n);
    for (int64_t r = 0; r < n; r++) {
        stripe->m[r] = stripe->lse[first + r];
        stripe->sum[r] = 0;
    }
    stripe->look.sight->plain->soften(stripe->s, (int)n, stripe->m, stripe->sum, stripe->alpha);
}

/* lse and sum (rows): maxima and sums of weights, then the log-sum-exp. */
static void first_pass(fvi_stripe *stripe, float *sum) {
    const fvi_sight *sight = stripe->look.sight;
    for (int64_t r = 0; r < stripe->rows; r++) {
        stripe->lse[r] = -INFINITY;
        sum[r] = 0;
    }
    for (int64_t leaf = 0; leaf * FVI_LEAF < sight->n_kv; leaf++) {
        for (int64_t first = fvi_stripe_leaf(stripe, leaf), n; first < stripe->rows; first += n) {
            n = fvi_min(FVI_STRIPE_ROWS, stripe->rows - first);
            scores(stripe, first, n);
            sight->plain->soften(stripe->s, (int)n, stripe->lse + first, sum + first, stripe->alpha);
        }
    }
    for (int64_t r = 0; r < stripe->rows; r++) {
        stripe->lse[r] += log2f(sum[r]);
    }
}

fvi_stripe fvi_stripe_open(const fvi_sight *sight, const float *q, const int64_t *position, int64_t rows, void *memory) {
    fvi_stripe stripe = {.position = position, .rows = rows, .look = fvi_look_open(sight, q, rows, memory)};
    float *at = (float *)((uint8_t *)memory + fvi_look_bytes(rows, sight->d_k, sight->d_v));
    stripe.s = at;
    stripe.m = stripe.s + FVI_STRIPE_ROWS * FVI_LEAF;
    stripe.sum = stripe.m + FVI_STRIPE_ROWS;
    stripe.alpha = stripe.sum + FVI_STRIPE_ROWS;
    stripe.lse = stripe.alpha + FVI_STRIPE_ROWS;
    first_pass(&stripe, stripe.lse + fvi_round_up(rows, 16));
    return stripe;
}

int64_t fvi_stripe_last(const fvi_sight *sight, int64_t n, float *q, int64_t *position) {
    n = fvi_min(n, sight->n_q);
    sight->rows(sight, FVI_SIDE_Q, sight->n_q - n, n, q);
    for (int64_t r = 0; r < n; r++) {
        position[r] = sight->offset + sight->n_q - n + r;
    }
    return n;
}

static void add(float *to, const float *from, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        to[i] += from[i];
    }
}

/* Sums along columns and, where there is one, along diagonals. */
static void sum_lines(fvi_stripe *stripe, float *column, float *diagonal) {
    const int64_t n_kv = stripe->look.sight->n_kv;
    for (int64_t leaf = 0, key = 0; key < n_kv; leaf++, key += FVI_LEAF) {
        for (int64_t first = fvi_stripe_leaf(stripe, leaf), n; first < stripe->rows; first += n) {
            n = fvi_min(FVI_STRIPE_ROWS, stripe->rows - first);
            fvi_stripe_weights(stripe, first, n);
            for (int64_t r = 0; r < n; r++) {
                int64_t position = stripe->position[first + r], shift = n_kv - 1 - position;
                int64_t keys = fvi_min(FVI_LEAF, fvi_min(n_kv, position + 1) - key), skipped = fvi_max(0, -shift - key);
                const float *s = stripe->s + r * FVI_LEAF;
                add(column + key, s, keys);
                if (diagonal != NULL) {
                    add(diagonal + key + shift + skipped, s + skipped, keys - skipped);
                }
            }
        }
    }
}

static void divide(float *x, int64_t n, int64_t by) {
    for (int64_t i = 0; i < n; i++) {
        x[i] /= (float)by;
    }
}

void fvi_stripe_lines(fvi_stripe *stripe, float *column, float *diagonal) {
    const int64_t n_kv = stripe->look.sight->n_kv;
    memset(column, 0, (size_t)n_kv * sizeof(float));
    memset(diagonal, 0, (size_t)n_kv * sizeof(float));
    sum_lines(stripe, column, diagonal);
    divide(column, n_kv, stripe->rows);
    divide(diagonal, n_kv, stripe->rows);
}

void fvi_stripe_columns(fvi_stripe *stripe, float *column) {
    const int64_t n_kv = stripe->look.sight->n_kv;
    memset(column, 0, (size_t)n_kv * sizeof(float));
    sum_lines(stripe, column, NULL);
    divide(column, n_kv, stripe->rows);
}
