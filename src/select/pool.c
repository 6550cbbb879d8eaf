/* pool.c - see pool.h. */
#include "select/pool.h"

#include <math.h>
#include <string.h>

enum { CHUNK = 64 };

static void add_rows(const float *row, int64_t n, int64_t d, float *sum) {
    for (int64_t i = 0; i < n; i++) {
        for (int64_t c = 0; c < d; c++) {
            sum[c] += row[i * d + c];
        }
    }
}

/* mean (d_k) of rows from .. to - 1 of a side. */
static void mean_rows(const fvi_sight *sight, fvi_side side, int64_t from, int64_t to, float *room, float *mean) {
    const int64_t d = sight->d_k;
    memset(mean, 0, (size_t)d * sizeof(float));
    for (int64_t at = from, n; at < to; at += n) {
        n = fvi_min(CHUNK, to - at);
        sight->rows(sight, side, at, n, room);
        add_rows(room, n, d, mean);
    }
    for (int64_t c = 0; c < d; c++) {
        mean[c] /= (float)(to - from);
    }
}

void fvi_pool_keys(const fvi_sight *sight, int64_t block, float *room, float *kt) {
    const int64_t d = sight->d_k, blocks = fvi_ceil_div(sight->n_kv, block);
    for (int64_t b = 0; b < blocks; b++) {
        float *mean = room + CHUNK * d;
        mean_rows(sight, FVI_SIDE_K, b * block, fvi_min((b + 1) * block, sight->n_kv), room, mean);
        for (int64_t c = 0; c < d; c++) {
            kt[c * blocks + b] = mean[c];
        }
    }
}

int64_t fvi_pool_queries(const fvi_sight *sight, int64_t first, int64_t last, float *room, float *mean) {
    int64_t from = fvi_max(0, first - sight->offset), to = fvi_min(sight->n_q, last - sight->offset + 1);
    if (to > from) {
        mean_rows(sight, FVI_SIDE_Q, from, to, room, mean);
    }
    return fvi_max(0, to - from);
}

void fvi_pool_scores(const float *q, const float *kt, int64_t d, int64_t blocks, int64_t n, float scale, float *out) {
    memset(out, 0, (size_t)n * sizeof(float));
    for (int64_t c = 0; c < d; c++) {
        for (int64_t b = 0; b < n; b++) {
            out[b] += q[c] * kt[c * blocks + b];
        }
    }
    for (int64_t b = 0; b < n; b++) {
        out[b] *= scale;
    }
}

void fvi_pool_softmax(float *x, int64_t n) {
    float top = -INFINITY, sum = 0;
    for (int64_t i = 0; i < n; i++) {
        top = x[i] > top ? x[i] : top;
    }
    for (int64_t i = 0; i < n; i++) {
        x[i] = expf(x[i] - top);
        sum += x[i];
    }
    for (int64_t i = 0; i < n; i++) {
        x[i] /= sum;
    }
}
