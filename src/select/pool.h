/* pool.h - means of blocks of keys and of queries, and how they match. */
#ifndef FVI_POOL_H
#define FVI_POOL_H

#include "select/sight.h"

/* Floats of room that fvi_pool_keys and fvi_pool_queries take. */
static inline int64_t fvi_pool_room(int64_t d) { return 65 * d; }
/* kt (d_k, blocks), blocks = ceil(n_kv / block): means of the head's keys over consecutive blocks; the last block's is over the
 * keys that it has. */
void fvi_pool_keys(const fvi_sight *sight, int64_t block, float *room, float *kt);
/* mean (d_k) of the query rows that stand at positions first .. last; returns how many there are. */
int64_t fvi_pool_queries(const fvi_sight *sight, int64_t first, int64_t last, float *room, float *mean);
/* out (n) = scale * q . column b of kt (d, blocks), b < n: one chain over d each, so that bits do not depend on n. */
void fvi_pool_scores(const float *q, const float *kt, int64_t d, int64_t blocks, int64_t n, float scale, float *out);
/* x = softmax of x (n). */
void fvi_pool_softmax(float *x, int64_t n);

#endif
