/* op.h - array ops around attention. Forward now; an op's backward goes beside it in the same file.
 *
 * All but the table of angles take m contiguous rows of f32 and handle each row by itself: a row's bits depend neither on m nor
 * on the level, so callers may cut rows over threads as they like. Outputs may be their input (in place), but not overlap it
 * otherwise. */
#ifndef FVI_OP_H
#define FVI_OP_H

#include "kernel/rowop.h"

/* y (m, d) = x (m, d) / sqrt(mean of squares + eps) * weight (d). */
void fvi_rmsnorm(const fvi_rowop_ops *ops, int64_t m, int64_t d, const float *x, const float *weight, float eps, float *y);
/* x (m, d) += add (m, d), then the same; y may be add. */
void fvi_add_rmsnorm(const fvi_rowop_ops *ops, int64_t m, int64_t d, float *x, const float *add, const float *weight, float eps,
                     float *y);

/* Angles of rotary positions, for one chunk and all layers and heads. cos_sin (n, d / 2, 2): row i holds the cosine and the sine
 * of (first + i) * base^(-2 j / d) * factor, j = 0 .. d/2-1, computed in double (positions up to 2^20 keep f32's accuracy).
 * d is the rotated width, even; factor 1 but for linear scaling. */
void fvi_rope_table(int64_t first, int64_t n, int64_t d, double base, double factor, float *cos_sin);

/* Rotates x (m, h, d_head) in place, row i by row i of the table; only the first d of d_head are rotated. Interleaved pairs are
 * (x[2j], x[2j+1]), half-split ones (x[j], x[j + d/2]). */
void fvi_rope(const fvi_rowop_ops *ops, int64_t m, int64_t h, int64_t d_head, int64_t d, bool interleaved, const float *cos_sin,
              float *x);

/* out (m, d) = silu(gate) * up; see kernel/rowop.h for the error. */
void fvi_swiglu(const fvi_rowop_ops *ops, int64_t m, int64_t d, const float *gate, const float *up, float *out);

#endif
