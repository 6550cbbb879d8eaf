/* hyper_test.h - what each pair counts in HyperAttention, from its paper and its code, pair by pair. */
#ifndef FOVEA_HYPER_TEST_H
#define FOVEA_HYPER_TEST_H

#include "method_test.h"

typedef struct hashed {
    int64_t row;
    int code;
} hashed;

static inline int by_code(const void *a, const void *b) {
    const hashed *x = a, *y = b;
    return x->code != y->code ? x->code - y->code : (x->row > y->row) - (x->row < y->row);
}

/* Rows first .. first + n - 1 in the order of the places that a Gray code gives to their signs. */
static inline hashed *sorted(const fv_hyper *h, const float *x, int64_t first, int64_t n) {
    hashed *list = malloc((size_t)n * sizeof *list);
    for (int64_t i = 0; i < n; i++) {
        int bits = 0, code = 0;
        for (int64_t r = 0; r < h->projections; r++) {
            double s = 0;
            for (int64_t c = 0; c < h->d_k; c++) {
                s += (double)x[(first + i) * h->d_k + c] * (double)h->projection[c * h->projections + r];
            }
            bits |= (s > 0) << r;
        }
        for (int r = (int)h->projections - 1; r >= 0; r--) { /* a set bit turns what follows round */
            code |= (bits >> r & 1) ^ (r + 1 < h->projections ? bits >> (r + 1) & 1 : 0) ? 1 << r : 0;
        }
        list[i] = (hashed){first + i, code};
    }
    qsort(list, (size_t)n, sizeof *list, by_code);
    return list;
}

/* weight (n_q, n_kv) += what each pair counts; of the rows, those from `least` on are there. */
static inline void count(const fv_hyper *h, const float *q, const float *k, int64_t head, int64_t least, int64_t q0, int64_t nq,
                         int64_t k0, int64_t nk, bool causal, int64_t length, double *weight) {
    if (causal && length > h->least) {
        int64_t half = length / 2 + length % 2, rest = length - half;
        count(h, q, k, head, least, q0, half, k0, half, true, half, weight);
        count(h, q, k, head, least, q0 + half, rest, k0 + half, rest, true, rest, weight);
        count(h, q, k, head, least, q0 + half, rest, k0, half, false, half, weight);
        return;
    }
    if (causal || length < h->least) {
        for (int64_t i = q0; i < q0 + nq; i++) {
            for (int64_t j = k0; j < k0 + nk && (!causal || j <= i); j++) {
                weight[i * h->n_kv + j] += 1;
            }
        }
        return;
    }
    nq = q0 >= least ? nq : nq > least - q0 ? nq - (least - q0) : 0;
    q0 = q0 >= least ? q0 : least;
    hashed *rows = sorted(h, q, q0, nq), *keys = sorted(h, k, k0, nk);
    int64_t blocks = (nk + h->block - 1) / h->block, padded = (nq + h->block - 1) / h->block * h->block;
    int64_t row_block = (padded + blocks - 1) / blocks;
    for (int64_t r = 0; r < nq; r++) {
        for (int64_t c = 0; c < nk; c++) {
            weight[rows[r].row * h->n_kv + keys[c].row] += r / row_block == c / h->block;
        }
        for (int64_t s = 0; s < h->samples && nq > row_block && nk > h->block; s++) {
            int64_t place = h->draw(h->user, head, k0, nk, s);
            if (place / h->block != r / row_block) {
                weight[rows[r].row * h->n_kv + keys[place].row] += (double)nk / (double)h->samples;
            }
        }
    }
    free(rows);
    free(keys);
}

static inline double weighted_row(const fv_hyper *h, const float *q, const float *k, const float *v, const double *weight,
                                  double *out) {
    double top = -INFINITY, sum = 0, *s = malloc((size_t)h->n_kv * sizeof *s);
    for (int64_t j = 0; j < h->n_kv; j++) {
        s[j] = 0;
        for (int64_t c = 0; c < h->d_k; c++) {
            s[j] += (double)q[c] * (double)k[j * h->d_k + c] / sqrt((double)h->d_k);
        }
        top = weight[j] > 0 ? fmax(top, s[j]) : top;
    }
    memset(out, 0, (size_t)h->d_v * sizeof *out);
    for (int64_t j = 0; j < h->n_kv; j++) {
        double w = weight[j] > 0 ? weight[j] * exp(s[j] - top) : 0;
        sum += w;
        for (int64_t c = 0; c < h->d_v; c++) {
            out[c] += w * (double)v[j * h->d_v + c];
        }
    }
    for (int64_t c = 0; c < h->d_v; c++) {
        out[c] /= sum;
    }
    free(s);
    return top + log(sum);
}

#endif
