/* matvec.h - products of one row of activations with weights, the weights used in place.
 *
 *   y[r] = sum_i W[r][i] x[i],   W (rows, n_in) in F32, F16, BF16, Q8_0, Q4_0 or Q4_1 as it lies in the file, x (n_in) f32
 *
 * Weights are widened in registers and x stays f32, so the only error is that of an f32 sum: a row's result is within
 * (n_in / 16 + 8) * 2^-24 * sum_i |W[r][i] x[i]| of the exact one. Quantising x to int8 as well would halve the arithmetic,
 * but a row of weights is read from memory once per token, and that read is what the time goes to.
 *
 * A row's bits depend on that row, on x and on the level: never on which other rows the call has.
 * W needs no more than 2-byte alignment (F32: 4), rows of W are fv_dtype_bytes(dtype, n_in) apart, nothing outside the rows is
 * read. n_in is a multiple of 32 for the quantised types, else anything from 0. */
#ifndef FVI_MATVEC_H
#define FVI_MATVEC_H

#include "base/base.h"

/* w: first row; y (rows) is overwritten and may not overlap x. */
typedef void (*fvi_matvec_rows)(const void *w, int64_t rows, int64_t n_in, const float *x, float *y);

typedef struct fvi_matvec_ops {
    fvi_matvec_rows rows[FV_DTYPE_COUNT]; /* NULL for what is no weight type (I32, U8) */
} fvi_matvec_ops;

/* Fills the table with the best that `cpu` allows: portable C first, then level by level. */
void fvi_matvec_init(const fvi_cpu *cpu, fvi_matvec_ops *ops);

/* One level each; the caller answers for the CPU. */
void fvi_matvec_c(fvi_matvec_ops *ops);
void fvi_matvec_avx2(fvi_matvec_ops *ops);
void fvi_matvec_avx512(fvi_matvec_ops *ops);

#endif
