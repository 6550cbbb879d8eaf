/* rmsnorm.c - root mean square normalisation (Zhang & Sennrich 2019), and the residual sum before it. */
#include "op/op.h"

void fvi_rmsnorm(const fvi_rowop_ops *ops, int64_t m, int64_t d, const float *x, const float *weight, float eps, float *y) {
    for (int64_t r = 0; r < m; r++) {
        ops->norm(d, x + r * d, weight, eps, y + r * d);
    }
}

void fvi_add_rmsnorm(const fvi_rowop_ops *ops, int64_t m, int64_t d, float *x, const float *add, const float *weight, float eps,
                     float *y) {
    for (int64_t r = 0; r < m; r++) {
        ops->add(d, x + r * d, add + r * d);
        ops->norm(d, x + r * d, weight, eps, y + r * d);
    }
}
