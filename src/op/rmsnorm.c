/* rmsnorm.c - root mean square normalisation (Zhang & Sennrich 2019). */
#include "op/op.h"

#include <math.h>

enum { LANES = 16 };

static float sum_of_squares(int64_t d, const float *x) {
    float lane[LANES] = {0};
    int64_t i = 0;
    for (; i + LANES <= d; i += LANES) {
        for (int l = 0; l < LANES; l++) {
            lane[l] += x[i + l] * x[i + l];
        }
    }
    for (int l = 0; i + l < d; l++) {
        lane[l] += x[i + l] * x[i + l];
    }
    for (int half = LANES / 2; half > 0; half /= 2) {
        for (int l = 0; l < half; l++) {
            lane[l] += lane[l + half];
        }
    }
    return lane[0];
}

void fvi_rmsnorm(int64_t m, int64_t d, const float *x, const float *weight, float eps, float *y) {
    for (int64_t r = 0; r < m; r++, x += d, y += d) {
        float scale = 1.0f / sqrtf(sum_of_squares(d, x) / (float)d + eps);
        for (int64_t i = 0; i < d; i++) {
            y[i] = x[i] * scale * weight[i];
        }
    }
}
