/* rank.h - orders of scores, and how many of the best hold a given mass. Of equal scores the lower number comes first. */
#ifndef FVI_RANK_H
#define FVI_RANK_H

#include "base/base.h"

/* order (n) = 0 .. n-1 by descending x; room (n). Linear in n. NaN comes before infinity. */
void fvi_rank(const float *x, int64_t n, int32_t *order, int32_t *room);
/* The fewest numbers from the front of `order` that with `held` have at least `mass`; n if all have less. Sums are in double. */
int64_t fvi_rank_cover(const float *x, const int32_t *order, int64_t n, double held, double mass);

#endif
