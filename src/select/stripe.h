/* stripe.h - a few query rows' exact attention over all keys they see: weights, leaf by leaf, in two passes over the keys. The
 * first finds each row's log-sum-exp. Of masks only causality counts. */
#ifndef FVI_STRIPE_H
#define FVI_STRIPE_H

#include "select/sight.h"

enum { FVI_STRIPE_ROWS = 64 }; /* rows whose weights are there at a time */

typedef struct fvi_stripe {
    fvi_look look;
    const int64_t *position; /* (rows) ascending */
    int64_t rows, leaf;
    float *lse; /* (rows) to the base 2 */
    float *s;   /* (FVI_STRIPE_ROWS, 64), 64-byte aligned: what fvi_stripe_weights leaves */
    float *m, *sum, *alpha;
} fvi_stripe;

/* Bytes of memory, a multiple of 64. */
size_t fvi_stripe_bytes(int64_t rows, int64_t d_k, int64_t d_v);
/* Queries q (rows, d_k) at the positions; does the first pass. `memory` is 64-byte aligned; positions and memory serve until the
 * stripe is over. */
fvi_stripe fvi_stripe_open(const fvi_sight *sight, const float *q, const int64_t *position, int64_t rows, void *memory);
/* Takes leaf `leaf` of the keys; returns the first row that sees one of its keys, or `rows`. */
int64_t fvi_stripe_leaf(fvi_stripe *stripe, int64_t leaf);
/* s = weights of rows first .. first + n - 1 (n <= FVI_STRIPE_ROWS) for the leaf's keys; 0 where there is none or it is hidden.
 */
void fvi_stripe_weights(fvi_stripe *stripe, int64_t first, int64_t n);
/* Mean weights of all rows along columns and diagonals: column (n_kv) by key, diagonal (n_kv) by n_kv - 1 - distance of a row
 * from its key, so that the rows' own keys come last. For causal attention. */
void fvi_stripe_lines(fvi_stripe *stripe, float *column, float *diagonal);
/* The columns alone. */
void fvi_stripe_columns(fvi_stripe *stripe, float *column);
/* The last min(n, n_q) rows' queries and positions, which serve a stripe; returns how many. q (n, d_k), position (n). */
int64_t fvi_stripe_last(const fvi_sight *sight, int64_t n, float *q, int64_t *position);

#endif
