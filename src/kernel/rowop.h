/* rowop.h - element-wise work on rows that costs an exponential, behind a run-time table.
 *
 * The exponential is within 2 ulp of the true value where that is a normal number, 0 below -104, +inf above 88.73, NaN for NaN.
 * An element's bits depend on that element alone: not on its place in the row, the row's length or the level. */
#ifndef FVI_ROWOP_H
#define FVI_ROWOP_H

#include "base/base.h"

typedef struct fvi_rowop_ops {
    /* out[i] = gate[i] / (1 + exp(-gate[i])) * up[i], within 6 ulp; 0 for gate below -88.73. out may be gate or up. */
    void (*swiglu)(int64_t n, const float *gate, const float *up, float *out);
    /* out[i] = exp(x[i] - shift); out may be x. */
    void (*exp_shift)(int64_t n, const float *x, float shift, float *out);
} fvi_rowop_ops;

void fvi_rowop_init(const fvi_cpu *cpu, fvi_rowop_ops *ops);
void fvi_rowop_c(fvi_rowop_ops *ops);
void fvi_rowop_avx2(fvi_rowop_ops *ops);
void fvi_rowop_avx512(fvi_rowop_ops *ops);

#endif
