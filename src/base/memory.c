/* memory.c - every byte of ours goes through the context's allocator. */
#include "base/base.h"

#include <string.h>

void *fvi_alloc(fv_context *ctx, size_t n, size_t size) {
    size_t bytes;
    if (!fvi_mul(n, size, &bytes) || bytes == 0) {
        return NULL;
    }
    return ctx->allocator.alloc(ctx->allocator.user, bytes);
}

void *fvi_zalloc(fv_context *ctx, size_t n, size_t size) {
    void *p = fvi_alloc(ctx, n, size);
    if (p != NULL) {
        memset(p, 0, n * size);
    }
    return p;
}

void fvi_release(fv_context *ctx, void *ptr, size_t n, size_t size) {
    if (ptr != NULL) {
        ctx->allocator.free(ctx->allocator.user, ptr, n * size);
    }
}

bool fvi_grow(fv_context *ctx, void **array, int64_t *capacity, int64_t need, size_t size) {
    if (need <= *capacity) {
        return true;
    }
    int64_t wanted = fvi_max(need, fvi_max(16, *capacity * 2));
    void *p = fvi_alloc(ctx, (size_t)wanted, size);
    if (p == NULL) {
        return false;
    }
    if (*capacity > 0) {
        memcpy(p, *array, (size_t)*capacity * size);
        fvi_release(ctx, *array, (size_t)*capacity, size);
    }
    *array = p;
    *capacity = wanted;
    return true;
}

/* A zero byte within would give fvi_strfree another size than was asked for. */
char *fvi_strdup(fv_context *ctx, const char *s, size_t size) {
    size = strnlen(s, size);
    char *p = size < SIZE_MAX ? fvi_alloc(ctx, size + 1, 1) : NULL;
    if (p != NULL) {
        memcpy(p, s, size);
        p[size] = '\0';
    }
    return p;
}

void fvi_strfree(fv_context *ctx, char *s) {
    if (s != NULL) {
        fvi_release(ctx, s, strlen(s) + 1, 1);
    }
}
