/* top.h - the largest of some scores. Of equal scores the one with the lower number comes first. */
#ifndef FVI_TOP_H
#define FVI_TOP_H

#include "base/base.h"

/* out (k, 0 <= k <= n) = the numbers of the k largest of x (n), ascending; room (2 n). NaN counts as more than infinity. */
void fvi_top(const float *x, int64_t n, int64_t k, uint32_t *room, int32_t *out);

#endif
