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

void fvi_rope(const fvi_rowop_ops *ops, int64_t m, int64_t h, int64_t d_head, int64_t d, bool interleaved, const float *cos_sin,
              float *x) {
    for (int64_t i = 0; i < m; i++, cos_sin += d) {
        for (int64_t head = 0; head < h; head++, x += d_head) {
            if (interleaved) {
                ops->turn_pairs(d, cos_sin, x);
            } else {
                ops->turn_halves(d, cos_sin, x);
            }
        }
    }
}
