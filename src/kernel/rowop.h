/* rowop.h - what is done to rows between products, behind a run-time table. All levels give the same bits.
 *
 * The exponential is within 2 ulp of the true value where that is a normal number, 0 below -104, +inf above 88.73, NaN for NaN.
 * Its bits depend on the element alone: not on its place in the row, nor on the row's length. */
#ifndef FVI_ROWOP_H
#define FVI_ROWOP_H

#include "base/base.h"

typedef struct fvi_rowop_ops {
    /* out[i] = gate[i] / (1 + exp(-gate[i])) * up[i], within 6 ulp; 0 for gate below -88.73. out may be gate or up. */
    void (*swiglu)(int64_t n, const float *gate, const float *up, float *out);
    /* out[i] = exp(x[i] - shift); out may be x. */
    void (*exp_shift)(int64_t n, const float *x, float shift, float *out);
    /* x (n) += y (n). */
    void (*add)(int64_t n, float *x, const float *y);
    /* x[i] = x[i] * a + y[i] * b: two products and a sum, each rounded. */
    void (*mix)(int64_t n, float *x, float a, const float *y, float b);
    /* out[i] = x[i] * by + 0: a zero's sign goes. out may be x. */
    void (*scale)(int64_t n, const float *x, float by, float *out);
    /* s (rows, 64): scores whose bit of seen (rows) is 0 become -inf. */
    void (*hide)(int64_t rows, const uint64_t *seen, float *s);
    /* out (d) = x (d) / sqrt(mean of squares + eps) * weight (d). The sum is of 16 lanes in f32, folded by halves; out may be x.
     */
    void (*norm)(int64_t d, const float *x, const float *weight, float eps, float *out);
    /* Turns the pairs (x[2j], x[2j+1]), or (x[j], x[j + d/2]), of x (d) by the angles of cos_sin (d / 2, 2), in place; d even. */
    void (*turn_pairs)(int64_t d, const float *cos_sin, float *x);
    void (*turn_halves)(int64_t d, const float *cos_sin, float *x);
} fvi_rowop_ops;

void fvi_rowop_init(const fvi_cpu *cpu, fvi_rowop_ops *ops);
void fvi_rowop_c(fvi_rowop_ops *ops);
void fvi_rowop_avx2(fvi_rowop_ops *ops);
void fvi_rowop_avx512(fvi_rowop_ops *ops);

#endif
