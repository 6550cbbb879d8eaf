/* swiglu.c - the gated feed-forward's middle (Shazeer 2020). */
#include "op/op.h"

void fvi_swiglu(const fvi_rowop_ops *ops, int64_t m, int64_t d, const float *gate, const float *up, float *out) {
    ops->swiglu(m * d, gate, up, out);
}
