/* sift.h - rows of 64 scores and the keys that they are of: the largest, what lies above a threshold, and weights of keys;
 * and the largest of any number of scores.
 *
 * s (rows, 64) is 64-byte aligned; bit j of seen[r] is key j of row r; seen and results are not aligned. A NaN is never above
 * anything and never the largest. All levels give the same bits. */
#ifndef FVI_KERNEL_SIFT_H
#define FVI_KERNEL_SIFT_H

#include "base/base.h"

typedef struct fvi_sift_ops {
    /* most[r] = the largest of the row's scores that are seen, -inf if there are none. */
    void (*largest)(const float *s, int rows, const uint64_t *seen, float *most);
    /* most[j] = the largest of column j (64), -inf if there is none. */
    void (*columns)(const float *s, int rows, float *most);
    /* Clears bits of scores that are not above theta[r]. */
    void (*above)(const float *s, int rows, const float *theta, uint64_t *seen);
    /* Of keys in `in` (64 of `block` and `weight`): a row sees those of its `own` block as they are, and of the others those
     * whose weight is not -inf, which is added to their scores; bits of what it does not see are cleared, and those scores are
     * anything. */
    void (*weigh)(float *s, int rows, const int32_t *own, const int32_t *block, const float *weight, uint64_t in, uint64_t *seen);
    /* out (k, 0 <= k <= n) = the numbers of the k largest of x (n), ascending; of equal ones the lower number is taken first. A
     * NaN counts as more than infinity if its sign bit is clear, else as less than -infinity. room (2 n). */
    void (*top)(const float *x, int64_t n, int64_t k, uint32_t *room, int32_t *out);
} fvi_sift_ops;

/* Portable C first, then overwritten level by level up to what `cpu` allows. */
void fvi_sift_init(const fvi_cpu *cpu, fvi_sift_ops *ops);

void fvi_sift_c(fvi_sift_ops *ops);
void fvi_sift_avx512(fvi_sift_ops *ops);

#endif
