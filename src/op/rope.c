/* rope.c - rotary positions (Su et al. 2021): pairs of elements turned by an angle that grows with the position. */
#include "op/op.h"

#include <math.h>

void fvi_rope_table(int64_t first, int64_t n, int64_t d, double base, double factor, float *cos_sin) {
    for (int64_t j = 0; j < d / 2; j++) {
        double frequency = pow(base, -2.0 * (double)j / (double)d) * factor;
        for (int64_t i = 0; i < n; i++) {
            double angle = (double)(first + i) * frequency;
            cos_sin[i * d + 2 * j] = (float)cos(angle);
            cos_sin[i * d + 2 * j + 1] = (float)sin(angle);
        }
    }
}

static void turn_interleaved(int64_t d, const float *restrict cos_sin, float *restrict x) {
    for (int64_t j = 0; j < d; j += 2) {
        float c = cos_sin[j], s = cos_sin[j + 1], a = x[j], b = x[j + 1];
        x[j] = a * c - b * s;
        x[j + 1] = a * s + b * c;
    }
}

static void turn_halves(int64_t d, const float *restrict cos_sin, float *restrict x) {
    float *restrict upper = x + d / 2;
    for (int64_t j = 0; j < d / 2; j++) {
        float c = cos_sin[2 * j], s = cos_sin[2 * j + 1], a = x[j], b = upper[j];
        x[j] = a * c - b * s;
        upper[j] = a * s + b * c;
    }
}

void fvi_rope(int64_t m, int64_t h, int64_t d_head, int64_t d, bool interleaved, const float *cos_sin, float *x) {
    for (int64_t i = 0; i < m; i++, cos_sin += d) {
        for (int64_t head = 0; head < h; head++, x += d_head) {
            if (interleaved) {
                turn_interleaved(d, cos_sin, x);
            } else {
                turn_halves(d, cos_sin, x);
            }
        }
    }
}
