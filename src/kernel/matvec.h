/* matvec.h - products of one row of activations with weights, the weights used in place.
 *
 *   y[r] = sum_i W[r][i] x[i],   W (rows, n_in) as it lies in the file, x (n_in) f32
 *
 * F32, F16 and BF16 (`rows`): weights are widened in registers and x stays f32, so the only error is that of an f32 sum: a row's
 * result is within (n_in / 16 + 8) * 2^-24 * sum_i |W[r][i] x[i]| of the exact one.
 *
 * Q8_0, Q4_0 and Q4_1 (`dots`): x is first rounded to blocks of 32 int8 with an f32 scale, the largest |x| of the block / 127
 * (one call of `quantise` serves all matrices over the same x). A block's product is a sum of integers, exact, times the two
 * scales. Rounding moves x[i] by at most half a scale, so to the bound above, in which |W[r][i]| is |scale q| + |least| for Q4_1,
 * comes sum over blocks of (largest |x| of the block) / 253 * sum of the block's |W[r][i]|. A block with an infinity or NaN in x
 * makes every y NaN; x below 2^-100 counts as 0. Widening the weights to f32 instead costs four times the arithmetic, more than
 * reading them from memory takes.
 *
 * A row's bits depend on that row, on x and on the level: never on which other rows the call has. For the quantised types all
 * levels give the same bits.
 * W needs no more than 2-byte alignment (F32: 4), rows of W are fv_dtype_bytes(dtype, n_in) apart, nothing outside the rows is
 * read. n_in is a multiple of 32 for the quantised types, else anything from 0. */
#ifndef FVI_MATVEC_H
#define FVI_MATVEC_H

#include "base/base.h"

/* Two blocks of x, in the form that is nearest to a product's operands: 16 lanes of four elements, 8 to each block. Where n_in is
 * an odd number of blocks the last pair's second half is zeros. */
typedef struct fvi_matvec_x {
    _Alignas(64) int8_t q[64];
    int32_t start[16]; /* -128 * the sum of the lane's q: what reading signed weights as unsigned ones has to be set off by */
    float scale[16];
    float mass[16]; /* scale * the sum of the lane's q */
} fvi_matvec_x;

static inline int64_t fvi_matvec_pairs(int64_t n_in) { return fvi_ceil_div(n_in, 64); }

/* w: first row; y (rows) is overwritten and may not overlap x. */
typedef void (*fvi_matvec_rows)(const void *w, int64_t rows, int64_t n_in, const float *x, float *y);
typedef void (*fvi_matvec_dots)(const void *w, int64_t rows, int64_t n_in, const fvi_matvec_x *x, float *y);

typedef struct fvi_matvec_ops {
    fvi_matvec_rows rows[FV_DTYPE_COUNT]; /* F32, F16, BF16; NULL for others */
    fvi_matvec_dots dots[FV_DTYPE_COUNT]; /* Q8_0, Q4_0, Q4_1; NULL for others */
    /* out (fvi_matvec_pairs(n_in)), 64-byte aligned; n_in a multiple of 32 */
    void (*quantise)(int64_t n_in, const float *x, fvi_matvec_x *out);
} fvi_matvec_ops;

/* Fills the table with the best that `cpu` allows: portable C first, then level by level. */
void fvi_matvec_init(const fvi_cpu *cpu, fvi_matvec_ops *ops);

/* One level each, over the ones before; the caller answers for the CPU. */
void fvi_matvec_c(fvi_matvec_ops *ops);
void fvi_matvec_avx2(fvi_matvec_ops *ops);
void fvi_matvec_avx512(fvi_matvec_ops *ops);     /* all but dots, which stay those of avx2 */
void fvi_matvec_avx512vnni(fvi_matvec_ops *ops); /* dots */

#endif
