/* rowop.h - element-wise work on rows that costs an exponential, behind a run-time table.
 *
 * fvi's exponential: within 2 ulp of the true value for -87.3 <= x <= 88.7, 0 below -103, +inf above 88.73, NaN for NaN. Each
 * element's bits depend on that element alone: not on its place in the row, and not on the row's length. */
#ifndef FVI_ROWOP_H
#define FVI_ROWOP_H

#include "base/base.h"

typedef struct fvi_rowop_ops {
    /* out[i] = gate[i] / (1 + exp(-gate[i])) * up[i]; out may be gate or up. */
    void (*swiglu)(int64_t n, const float *gate, const float *up, float *out);
    /* out[i] = exp(x[i] - shift); out may be x. */
    void (*exp_shift)(int64_t n, const float *x, float shift, float *out);
} fvi_rowop_ops;

void fvi_rowop_init(const fvi_cpu *cpu, fvi_rowop_ops *ops);
void fvi_rowop_c(fvi_rowop_ops *ops);
void fvi_rowop_avx2(fvi_rowop_ops *ops);
void fvi_rowop_avx512(fvi_rowop_ops *ops);

#endif
