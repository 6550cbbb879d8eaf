/* swiglu.c - the gated feed-forward's middle (Shazeer 2020), and the residual sum. */
#include "op/op.h"

void fvi_swiglu(const fvi_rowop_ops *ops, int64_t m, int64_t d, const float *gate, const float *up, float *out) {
    ops->swiglu(m * d, gate, up, out);
}

void fvi_add_to(int64_t n, float *x, const float *y) {
    for (int64_t i = 0; i < n; i++) {
        x[i] += y[i];
    }
}
