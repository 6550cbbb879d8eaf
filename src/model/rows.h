/* rows.h - row ops of a pass, cut over the context's threads. A row's bits do not depend on the cut. */
#ifndef FVI_MODEL_ROWS_H
#define FVI_MODEL_ROWS_H

#include "op/op.h"

/* out (m, d) = rmsnorm(x); where `add` is given, x (m, d) += add first. */
void fvi_rows_norm(fv_context *ctx, const fvi_rowop_ops *ops, int64_t m, int64_t d, float *x, const float *add,
                   const float *weight, float eps, float *out);
/* x (m, d) += y. */
void fvi_rows_add(fv_context *ctx, const fvi_rowop_ops *ops, int64_t m, int64_t d, float *x, const float *y);
/* gate (m, d) = silu(gate) * up. */
void fvi_rows_swiglu(fv_context *ctx, const fvi_rowop_ops *ops, int64_t m, int64_t d, float *gate, const float *up);

/* Rotary positions of q (m, h_q, d_k) and k (m, h_kv, d_k), in place. */
typedef struct fvi_rows_rope_args {
    int64_t h_q, h_kv, d_k, rotated;
    bool interleaved;
    const float *cos_sin; /* (m, rotated / 2, 2) */
    float *q, *k;
} fvi_rows_rope_args;
void fvi_rows_rope(fv_context *ctx, const fvi_rowop_ops *ops, int64_t m, const fvi_rows_rope_args *args);

#endif
