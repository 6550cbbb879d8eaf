/* structured_test.h - heads that look like a model's: a sink, neighbours that resemble each other, and a few keys far apart that
 * some queries look for. */
#ifndef FOVEA_STRUCTURED_TEST_H
#define FOVEA_STRUCTURED_TEST_H

#include "index_test.h"

/* Rows drift: each is .95 of the one before and a bit of its own. */
static inline void drift(float *x, int64_t n, int64_t d) {
    for (int64_t i = d; i < n * d; i++) {
        x[i] = 0.95f * x[i - d] + 0.3f * x[i];
    }
}

static inline heads heads_structured(uint64_t seed, int64_t h_q, int64_t h_kv, int64_t n, int64_t d) {
    heads x = heads_make(seed, h_q, h_kv, n, d);
    for (int64_t g = 0; g < h_kv; g++) {
        float *k = x.k + g * n * d;
        drift(k, n, d);
        for (int64_t c = 0; c < d; c++) {
            k[c] = c == 0 ? 6.0f : 0.0f;
        }
    }
    for (int64_t h = 0; h < h_q; h++) {
        float *q = x.q + h * n * d;
        const float *k = x.k + h / (h_q / h_kv) * n * d;
        drift(q, n, d);
        for (int64_t i = 0; i < n; i++) {
            q[i * d] = 3;
            if (i % 29 == 5) { /* a needle a third of the way up */
                memcpy(q + i * d, k + (i / 3) * d, (size_t)d * sizeof *q);
            }
        }
    }
    return x;
}

#endif
