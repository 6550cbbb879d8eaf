/* dnn.h - oneDNN's matrix product in fixed shapes, so that a row's bits cannot depend on how many rows a call has.
 *
 * A shape multiplies panels of FVI_DNN_TALLEST rows of x or fewer by a block of n rows of W. There are three heights of panel,
 * which share one packed form of W, and oneDNN 2.6 gives a row the same bits in each and in any place; that is checked when a
 * shape is made. Where it does not hold, the shape's only height is 1: slow, but the rule stands.
 *
 * oneDNN chooses its own instructions (all that the CPU has, whatever the context's level) and works on the thread that calls. */
#ifndef FVI_DNN_H
#define FVI_DNN_H

#include "base/base.h"

enum { FVI_DNN_HEIGHTS = 3, FVI_DNN_TALLEST = 128, FVI_DNN_MIDDLE = 32, FVI_DNN_LOWEST = 8 };

typedef struct fvi_dnn fvi_dnn;

/* y (h, n) = x (h, k) W^T, W (n, k), all contiguous; x and W in f32 or bf16, sums and y in f32. (Rows of y that lie further apart
 * would keep oneDNN 2.6 from its fastest kernels.) */
typedef struct fvi_dnn_key {
    int64_t n, k;
    bool bf16;
} fvi_dnn_key;

fv_status fvi_dnn_create(fv_context *ctx, fvi_dnn **out);
void fvi_dnn_destroy(fvi_dnn *dnn);
/* Shapes made from now on have single rows only, as where rows disagree. For comparison and tests. */
void fvi_dnn_rowwise(fvi_dnn *dnn);
/* The number of such a shape, made if there is none; not from inside a parallel loop. */
fv_status fvi_dnn_shape(fvi_dnn *dnn, fvi_dnn_key key, int *out);
/* The shape of half a block: what it gives over the first or second half of the whole's packed form are the bits of the whole,
 * which is checked. *out is -1 where there is none. Not from inside a parallel loop. */
fv_status fvi_dnn_half(fvi_dnn *dnn, int whole, int *out);
size_t fvi_dnn_packed_bytes(const fvi_dnn *dnn, int number);
/* Bytes allocated by us for scratch. */
size_t fvi_dnn_bytes(const fvi_dnn *dnn);

/* The tallest panel of the shape that has at most `rows` rows, or the lowest one if all are taller. */
int64_t fvi_dnn_height(const fvi_dnn *dnn, int number, int64_t rows);

/* Rows of W that are packed at a time: a block is packed strip by strip, the last one may be shorter. */
int64_t fvi_dnn_strip(const fvi_dnn *dnn, int number);

/* From inside a loop, one call at a time per worker; false if oneDNN refused. packed (the whole block's) is 64-byte aligned; w
 * are the rows [first, first + n) of the block, contiguous, first a multiple of the strip. */
bool fvi_dnn_pack(fvi_dnn *dnn, int shape, int worker, int64_t first, int64_t n, const void *w, void *packed);
/* Where row `first` of a block begins in its packed form; only for shapes that have a half, and first a multiple of that. */
const void *fvi_dnn_packed_row(const fvi_dnn *dnn, int shape, const void *packed, int64_t first);
bool fvi_dnn_multiply(fvi_dnn *dnn, int shape, int worker, int64_t height, const void *x, const void *packed, float *y);

#endif
