/* threads.c - a pool of workers that sleep on a condition between loops. A loop hands out its items by one atomic counter. */
#include "base/threads.h"

#include <pthread.h>
#include <string.h>

struct fvi_pool {
    pthread_mutex_t mutex;
    pthread_cond_t begin, done;
    pthread_t *thread;
    struct fvi_worker *worker;
    int n_workers; /* without the caller */
    int started;
    uint64_t generation; /* of the loop; guarded by mutex */
    int busy;            /* workers still in the loop; guarded by mutex */
    bool stop;
    fv_context *ctx;
    fvi_work work;
    void *arg;
    int64_t n;
    atomic_llong next;
};

struct fvi_worker {
    fvi_pool *pool;
    int index;
};

static void take_items(fvi_pool *pool, int worker) {
    for (;;) {
        int64_t i = atomic_fetch_add_explicit(&pool->next, 1, memory_order_relaxed);
        if (i >= pool->n || fvi_cancelled(pool->ctx)) {
            return;
        }
        pool->work(pool->arg, i, worker);
    }
}

static void *worker_main(void *p) {
    struct fvi_worker *self = p;
    fvi_pool *pool = self->pool;
    uint64_t seen = 0;
    pthread_mutex_lock(&pool->mutex);
    for (;;) {
        while (pool->generation == seen && !pool->stop) {
            pthread_cond_wait(&pool->begin, &pool->mutex);
        }
        if (pool->stop) {
            break;
        }
        seen = pool->generation;
        pthread_mutex_unlock(&pool->mutex);
        take_items(pool, self->index);
        pthread_mutex_lock(&pool->mutex);
        if (--pool->busy == 0) {
            pthread_cond_signal(&pool->done);
        }
    }
    pthread_mutex_unlock(&pool->mutex);
    return NULL;
}

fv_status fvi_pool_create(fv_context *ctx, int threads, fvi_pool **out) {
    *out = NULL;
    fvi_pool *pool = fvi_zalloc(ctx, 1, sizeof *pool);
    if (pool == NULL) {
        return FV_ERR_MEMORY;
    }
    pool->ctx = ctx;
    pool->n_workers = threads - 1;
    pthread_mutex_init(&pool->mutex, NULL);
    pthread_cond_init(&pool->begin, NULL);
    pthread_cond_init(&pool->done, NULL);
    if (pool->n_workers > 0) {
        pool->thread = fvi_zalloc(ctx, (size_t)pool->n_workers, sizeof *pool->thread);
        pool->worker = fvi_zalloc(ctx, (size_t)pool->n_workers, sizeof *pool->worker);
        if (pool->thread == NULL || pool->worker == NULL) {
            fvi_pool_destroy(ctx, pool);
            return FV_ERR_MEMORY;
        }
    }
    for (int i = 0; i < pool->n_workers; i++) {
        pool->worker[i] = (struct fvi_worker){pool, i + 1};
        if (pthread_create(&pool->thread[i], NULL, worker_main, &pool->worker[i]) != 0) {
            fvi_pool_destroy(ctx, pool);
            return FV_ERR_MEMORY;
        }
        pool->started++;
    }
    *out = pool;
    return FV_OK;
}

void fvi_pool_destroy(fv_context *ctx, fvi_pool *pool) {
    if (pool == NULL) {
        return;
    }
    pthread_mutex_lock(&pool->mutex);
    pool->stop = true;
    pthread_cond_broadcast(&pool->begin);
    pthread_mutex_unlock(&pool->mutex);
    for (int i = 0; i < pool->started; i++) {
        pthread_join(pool->thread[i], NULL);
    }
    pthread_cond_destroy(&pool->done);
    pthread_cond_destroy(&pool->begin);
    pthread_mutex_destroy(&pool->mutex);
    fvi_release(ctx, pool->thread, (size_t)fvi_max(pool->n_workers, 0), sizeof *pool->thread);
    fvi_release(ctx, pool->worker, (size_t)fvi_max(pool->n_workers, 0), sizeof *pool->worker);
    fvi_release(ctx, pool, 1, sizeof *pool);
}

void fvi_parallel(fv_context *ctx, int64_t n, fvi_work work, void *arg) {
    fvi_pool *pool = ctx->pool;
    if (n <= 1 || pool->n_workers == 0) {
        for (int64_t i = 0; i < n && !fvi_cancelled(ctx); i++) {
            work(arg, i, 0);
        }
        return;
    }
    pthread_mutex_lock(&pool->mutex);
    pool->work = work;
    pool->arg = arg;
    pool->n = n;
    atomic_store_explicit(&pool->next, 0, memory_order_relaxed);
    pool->busy = pool->n_workers;
    pool->generation++;
    pthread_cond_broadcast(&pool->begin);
    pthread_mutex_unlock(&pool->mutex);
    take_items(pool, 0);
    pthread_mutex_lock(&pool->mutex);
    while (pool->busy > 0) {
        pthread_cond_wait(&pool->done, &pool->mutex);
    }
    pthread_mutex_unlock(&pool->mutex);
}
