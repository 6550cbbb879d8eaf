/* threads.c - a pool of workers. A loop hands out its items by one atomic counter.
 *
 * One token of a small model is some sixty loops of ten microseconds each, and waking a sleeping thread takes as long as such a
 * loop. So workers first watch for the next loop for some tens of microseconds, and only then sleep. A loop is open while its
 * caller still has items: workers join an open loop and leave it, and the caller waits for those that joined, never for one that
 * is still waking up. All of that is one word:  generation | open | workers inside. */
#include "base/threads.h"

#include <pthread.h>
#include <sched.h>
#include <string.h>

enum { INSIDE = 0xffff, OPEN = 0x10000, GENERATION_SHIFT = 17 };

/* Looks at `state` before sleeping, some 30 ns each. A caller waits for one item at most, and may itself be what keeps its worker
 * from the processor, so it is less patient; a worker that shares its processor with the caller lets it through now and then. */
enum { WATCH_BEGIN = 2000, WATCH_YIELD = 64, WATCH_DONE = 400 };

struct fvi_pool {
    pthread_mutex_t mutex;
    pthread_cond_t begin, done;
    pthread_t *thread;
    struct fvi_worker *worker;
    int n_workers; /* without the caller */
    int started;
    bool watch; /* before sleeping: not where there are more threads than processors */
    fv_context *ctx;
    fvi_work work; /* the loop: written before `state` opens it, read by those inside */
    void *arg;
    int64_t n;
    atomic_llong next;
    atomic_ullong state;
    atomic_int sleepers; /* workers that sleep or are about to; they look at `state` once more after they said so, */
    atomic_bool waiting; /* and so does the caller: who changes `state` afterwards sees these and wakes them */
    atomic_bool stop;
};

struct fvi_worker {
    fvi_pool *pool;
    int index;
};

static void relax(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void take_items(fvi_pool *pool, int worker) {
    for (;;) {
        int64_t i = atomic_fetch_add_explicit(&pool->next, 1, memory_order_relaxed);
        if (i >= pool->n || fvi_cancelled(pool->ctx)) {
            return;
        }
        pool->work(pool->arg, i, worker);
    }
}

static bool is_new(uint64_t state, uint64_t seen) { return (state & OPEN) != 0 && state >> GENERATION_SHIFT != seen; }

/* Returns when a loop that this worker has not seen is open, or the pool stops. */
static void await_loop(fvi_pool *pool, uint64_t seen) {
    for (int i = 1; i <= WATCH_BEGIN && pool->watch; i++) {
        if (is_new(atomic_load(&pool->state), seen) || atomic_load_explicit(&pool->stop, memory_order_relaxed)) {
            return;
        }
        if (i % WATCH_YIELD == 0) {
            sched_yield();
        }
        relax();
    }
    pthread_mutex_lock(&pool->mutex);
    atomic_fetch_add(&pool->sleepers, 1);
    while (!is_new(atomic_load(&pool->state), seen) && !atomic_load(&pool->stop)) {
        pthread_cond_wait(&pool->begin, &pool->mutex);
    }
    atomic_fetch_sub(&pool->sleepers, 1);
    pthread_mutex_unlock(&pool->mutex);
}

static void leave_loop(fvi_pool *pool) {
    unsigned long long before = atomic_fetch_sub(&pool->state, 1);
    if ((before & INSIDE) == 1 && atomic_load(&pool->waiting)) {
        pthread_mutex_lock(&pool->mutex);
        pthread_cond_signal(&pool->done);
        pthread_mutex_unlock(&pool->mutex);
    }
}

static void *worker_main(void *p) {
    struct fvi_worker *self = p;
    fvi_pool *pool = self->pool;
    uint64_t seen = 0;
    while (!atomic_load(&pool->stop)) {
        unsigned long long state = atomic_load(&pool->state);
        if (!is_new(state, seen)) {
            await_loop(pool, seen);
        } else if (atomic_compare_exchange_weak(&pool->state, &state, state + 1)) {
            seen = state >> GENERATION_SHIFT;
            take_items(pool, self->index);
            leave_loop(pool);
        }
    }
    return NULL;
}

/* Watching takes processor time that another thread of ours could need where processors are fewer than threads. */
static bool may_watch(int threads) {
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) >= threads;
}

fv_status fvi_pool_create(fv_context *ctx, int threads, fvi_pool **out) {
    *out = NULL;
    fvi_pool *pool = fvi_zalloc(ctx, 1, sizeof *pool);
    if (pool == NULL) {
        return FV_ERR_MEMORY;
    }
    pool->ctx = ctx;
    pool->n_workers = threads - 1;
    pool->watch = may_watch(threads);
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
    atomic_store(&pool->stop, true);
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

static bool workers_inside(fvi_pool *pool) { return (atomic_load(&pool->state) & INSIDE) != 0; }

static void await_workers(fvi_pool *pool) {
    for (int i = 0; i < WATCH_DONE && pool->watch && workers_inside(pool); i++) {
        relax();
    }
    if (!workers_inside(pool)) {
        return;
    }
    pthread_mutex_lock(&pool->mutex);
    atomic_store(&pool->waiting, true);
    while (workers_inside(pool)) {
        pthread_cond_wait(&pool->done, &pool->mutex);
    }
    atomic_store(&pool->waiting, false);
    pthread_mutex_unlock(&pool->mutex);
}

void fvi_parallel(fv_context *ctx, int64_t n, fvi_work work, void *arg) {
    fvi_pool *pool = ctx->pool;
    if (n <= 1 || pool->n_workers == 0) {
        for (int64_t i = 0; i < n && !fvi_cancelled(ctx); i++) {
            work(arg, i, 0);
        }
        return;
    }
    pool->work = work;
    pool->arg = arg;
    pool->n = n;
    atomic_store_explicit(&pool->next, 0, memory_order_relaxed);
    uint64_t generation = (atomic_load(&pool->state) >> GENERATION_SHIFT) + 1;
    atomic_store(&pool->state, generation << GENERATION_SHIFT | OPEN);
    if (atomic_load(&pool->sleepers) > 0) {
        pthread_mutex_lock(&pool->mutex);
        pthread_cond_broadcast(&pool->begin);
        pthread_mutex_unlock(&pool->mutex);
    }
    take_items(pool, 0);
    atomic_fetch_and(&pool->state, ~(unsigned long long)OPEN);
    await_workers(pool);
}
