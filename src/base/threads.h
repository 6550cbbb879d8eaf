/* threads.h - one pool of pthreads, a parallel loop, nothing else. */
#ifndef FVI_THREADS_H
#define FVI_THREADS_H

#include "base/base.h"

/* Does item `item` of a loop on worker `worker` (0 .. threads-1, the caller is 0). */
typedef void (*fvi_work)(void *arg, int64_t item, int worker);

/* Starts threads - 1 workers. */
fv_status fvi_pool_create(fv_context *ctx, int threads, fvi_pool **out);
void fvi_pool_destroy(fv_context *ctx, fvi_pool *pool);

/* Runs work(arg, i, worker) for i = 0 .. n-1, handed out one by one in ascending order, and returns when all are done. Items
 * must not depend on which worker runs them. Not to be called from inside a worker. Stops handing out when the context is
 * cancelled. */
void fvi_parallel(fv_context *ctx, int64_t n, fvi_work work, void *arg);

#endif
