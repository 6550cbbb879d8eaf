/* linear.h - a model's weight matrices, and the two ways to multiply with them.
 *
 * Prompt tokens, whatever their number, take fvi_linear_prompt: oneDNN on unpacked weights, in panels of rows. Generated
 * tokens take fvi_linear_step: weights in place, as the file has them (kernel/matvec.h). The two are not compared.
 *
 * A row of a product is the same bits for any number of rows, any place among them and any number of threads. */
#ifndef FVI_LINEAR_H
#define FVI_LINEAR_H

#include "base/base.h"

enum { FVI_LINEAR_MANY = 8 };

/* y = W x for W (n_out, n_in), row-major, rows fv_dtype_bytes(dtype, n_in) apart. The first five fields are the caller's,
 * who keeps `data` mapped and `name` alive; zero the rest. */
typedef struct fvi_linear {
    const char *name; /* for messages */
    const void *data;
    fv_dtype dtype; /* F32, F16, BF16, Q8_0, Q4_0 or Q4_1 */
    int64_t n_in, n_out;
    int64_t block;         /* rows of W that are multiplied at once; 0: not prepared */
    int shape, last_shape; /* of the blocks, and of the last one */
    int half_shape;        /* of half of the only block, whose bits are the same; -1: none */
    void *packed;          /* unpacked for oneDNN, owned by the gemm; NULL: beyond the budget, unpacked by blocks in each call */
} fvi_linear;

/* What a model's products share: the table of in-place kernels, oneDNN's engine and primitives, the unpacked weights. Belongs
 * to one context; one call at a time. */
typedef struct fvi_gemm fvi_gemm;

/* extra_bytes: most bytes of weights to keep unpacked, 0: 256 MiB. */
fv_status fvi_gemm_create(fv_context *ctx, size_t extra_bytes, fvi_gemm **out);
/* NULL is taken. Releases the unpacked form of every matrix prepared with it. */
void fvi_gemm_destroy(fvi_gemm *gemm);
/* Bytes allocated beyond the file: unpacked weights and scratch. */
size_t fvi_gemm_bytes(const fvi_gemm *gemm);

/* Matrices prepared from now on are multiplied row by row: slow, and what happens by itself where oneDNN's rows depend on each
 * other. For comparison and tests. */
void fvi_gemm_rowwise(fvi_gemm *gemm);

/* Once per matrix, before any product; the order of the calls decides who gets the budget. */
fv_status fvi_linear_prepare(fvi_gemm *gemm, fvi_linear *w);
/* y (m, n_out) = x (m, n_in) W^T, f32, contiguous, not overlapping. Where the CPU has bf16 products and W is BF16 or quantised,
 * x and the unpacked weights are rounded to bf16; else both are f32. Sums are f32 always. */
fv_status fvi_linear_prompt(fvi_gemm *gemm, const fvi_linear *w, const float *x, int64_t m, float *y);
/* y[i] = x w[i]^T for n <= FVI_LINEAR_MANY matrices over the same x: the bits of n calls, but x is converted once. */
fv_status fvi_linear_prompt_many(fvi_gemm *gemm, const fvi_linear *const *w, float *const *y, int n, const float *x, int64_t m);

/* y (n_out) = W x (n_in), W prepared. For quantised W x is rounded to int8 (kernel/matvec.h says what that costs). A raised
 * cancel flag leaves y unspecified. */
void fvi_linear_step(fvi_gemm *gemm, const fvi_linear *w, const float *x, float *y);
/* y[i] = w[i] x for n <= FVI_LINEAR_MANY matrices over the same x (query, key and value; gate and up) in one parallel loop: the
 * same bits as n calls of fvi_linear_step, with one wake-up of the threads. */
void fvi_linear_step_many(fvi_gemm *gemm, const fvi_linear *const *w, float *const *y, int n, const float *x);

/* out (n, n_in): rows `id` of W as f32 (embedding lookup). FV_ERR_RANGE if an id is outside [0, n_out),
 * FV_ERR_UNSUPPORTED if W is of no weight type. */
fv_status fvi_linear_rows(fvi_gemm *gemm, const fvi_linear *w, const int32_t *id, int64_t n, float *out);

#endif
