/* alloc_fail.h - an allocator that refuses the n-th request and knows what was not given back.
 *
 *   alloc_fail a;
 *   for (int64_t n = 1; ; n++) {
 *       fv_context *ctx = alloc_fail_begin(&a, 1);   // a context of one thread; its own requests are not counted
 *       alloc_fail_arm(&a, n);                       // the n-th request from here on fails, once
 *       fv_status status = fv_model_open(ctx, path, NULL, &model);
 *       ... destroy what was made ...
 *       assert_int_equal(alloc_fail_end(&a, ctx), 0);    // bytes still out, with the context destroyed
 *       if (!a.failed) { assert_int_equal(status, FV_OK); break; }
 *       assert_int_equal(status, FV_ERR_MEMORY);
 *   }
 *
 * Sizes given back are compared with what was asked for (a.mismatched counts), and a guard behind each block is checked
 * (a.overrun). Thread-safe.
 */
#ifndef FOVEA_TEST_ALLOC_FAIL_H
#define FOVEA_TEST_ALLOC_FAIL_H

#include "fovea/attention.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

typedef struct alloc_fail {
    fv_allocator allocator;
    atomic_llong requests;    /* since armed */
    atomic_llong fail_at;     /* 0: never */
    atomic_llong blocks;      /* out now */
    atomic_llong bytes, peak; /* out now, and the most there were */
    atomic_int mismatched, overrun;
    atomic_bool failed;
} alloc_fail;

/* A 64-byte head with the size stands before each block, 16 guard bytes behind it. */
enum { ALLOC_FAIL_HEAD = 64, ALLOC_FAIL_GUARD = 16, ALLOC_FAIL_BYTE = 0xa5 };

static inline void *alloc_fail_alloc(void *user, size_t size) {
    alloc_fail *a = user;
    long long n = atomic_fetch_add(&a->requests, 1) + 1;
    if (n == atomic_load(&a->fail_at)) {
        atomic_store(&a->failed, true);
        return NULL;
    }
    if (size > SIZE_MAX - 256) {
        return NULL;
    }
    char *p = aligned_alloc(64, (ALLOC_FAIL_HEAD + size + ALLOC_FAIL_GUARD + 63) / 64 * 64);
    if (p == NULL) {
        return NULL;
    }
    memcpy(p, &size, sizeof size);
    memset(p + ALLOC_FAIL_HEAD, ALLOC_FAIL_BYTE, size + ALLOC_FAIL_GUARD);
    long long now = atomic_fetch_add(&a->bytes, (long long)size) + (long long)size, peak = atomic_load(&a->peak);
    while (now > peak && !atomic_compare_exchange_weak(&a->peak, &peak, now)) {
    }
    atomic_fetch_add(&a->blocks, 1);
    return p + ALLOC_FAIL_HEAD;
}

static inline void alloc_fail_free(void *user, void *ptr, size_t size) {
    alloc_fail *a = user;
    if (ptr == NULL) {
        return;
    }
    unsigned char *p = (unsigned char *)ptr - ALLOC_FAIL_HEAD;
    size_t asked;
    memcpy(&asked, p, sizeof asked);
    if (asked != size) {
        atomic_fetch_add(&a->mismatched, 1);
    }
    for (int i = 0; i < ALLOC_FAIL_GUARD; i++) {
        if (p[ALLOC_FAIL_HEAD + asked + (size_t)i] != ALLOC_FAIL_BYTE) {
            atomic_fetch_add(&a->overrun, 1);
            break;
        }
    }
    atomic_fetch_sub(&a->bytes, (long long)asked);
    atomic_fetch_sub(&a->blocks, 1);
    free(p);
}

/* NULL only if the machine has no memory. */
static inline fv_context *alloc_fail_begin(alloc_fail *a, int threads) {
    memset(a, 0, sizeof *a);
    a->allocator = (fv_allocator){alloc_fail_alloc, alloc_fail_free, a};
    fv_context *ctx = NULL;
    fv_context_create(&(fv_context_options){.threads = threads, .level = FV_LEVEL_BEST, .allocator = &a->allocator}, &ctx);
    return ctx;
}

static inline void alloc_fail_arm(alloc_fail *a, long long n) {
    atomic_store(&a->requests, 0);
    atomic_store(&a->failed, false);
    atomic_store(&a->fail_at, n);
}

/* Destroys the context and gives the blocks that leaked, plus wrong sizes and overruns: 0 is right. */
static inline int alloc_fail_end(alloc_fail *a, fv_context *ctx) {
    atomic_store(&a->fail_at, 0);
    fv_context_destroy(ctx);
    return (int)atomic_load(&a->blocks) + atomic_load(&a->mismatched) + atomic_load(&a->overrun);
}

#endif
