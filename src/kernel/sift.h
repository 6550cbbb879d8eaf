/* sift.h - rows of 64 scores and the keys that they are of: the largest, and what lies above a threshold.
 *
 * s (rows, 64) is 64-byte aligned; bit j of seen[r] is key j of row r; seen and results are not aligned. A NaN is never above
 * anything and never the largest. All levels give the same bits. */
#ifndef FVI_KERNEL_SIFT_H
#define FVI_KERNEL_SIFT_H

#include "base/base.h"

typedef struct fvi_sift_ops {
    /* most[r] = the largest of the row's scores that are seen, -inf if there are none. */
    void (*largest)(const float *s, int rows, const uint64_t *seen, float *most);
    /* Clears bits of scores that are not above theta[r]. */
    void (*above)(const float *s, int rows, const float *theta, uint64_t *seen);
} fvi_sift_ops;

/* Portable C first, then overwritten level by level up to what `cpu` allows. */
void fvi_sift_init(const fvi_cpu *cpu, fvi_sift_ops *ops);

void fvi_sift_c(fvi_sift_ops *ops);
void fvi_sift_avx512(fvi_sift_ops *ops);

#endif
