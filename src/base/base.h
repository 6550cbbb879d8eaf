/* base.h - what every room stands on: the context, memory, messages, checked sizes. */
#ifndef FVI_BASE_H
#define FVI_BASE_H

#include "fovea/attention.h"

#include <stdatomic.h>

typedef struct fvi_pool fvi_pool;

/* Instruction sets that kernels are chosen by. */
typedef struct fvi_cpu {
    bool avx2, avx512, avx512_bf16, avx512_vnni, avx512_vbmi2, amx_bf16;
} fvi_cpu;

struct fv_context {
    fv_allocator allocator;
    fvi_pool *pool;
    int threads;
    fv_level level;
    fvi_cpu cpu;      /* what may be used: the machine's, cut down to `level` */
    size_t workspace; /* not owned: bytes last asked for, for statistics */
    atomic_bool cancel;
    char message[512];
};

/* ---- messages ---- */

/* Leaves a sentence in the context and returns `status`: `return fvi_fail(ctx, FV_ERR_ARGUMENT, "d_k is %d, ...")`. */
fv_status fvi_fail(fv_context *ctx, fv_status status, const char *format, ...) __attribute__((format(printf, 3, 4)));
static inline bool fvi_cancelled(fv_context *ctx) { return atomic_load_explicit(&ctx->cancel, memory_order_relaxed); }

/* ---- memory: 64-byte aligned, sizes given back on release, counted sizes checked for overflow ---- */

/* n * size bytes; NULL on overflow or refusal, or if n * size is 0 (ask for at least one). Contents are unspecified. */
void *fvi_alloc(fv_context *ctx, size_t n, size_t size);
void *fvi_zalloc(fv_context *ctx, size_t n, size_t size);
/* `ptr` may be NULL; n and size as they were asked for. */
void fvi_release(fv_context *ctx, void *ptr, size_t n, size_t size);
/* Grows an array to at least `need` elements by doubling; on failure returns false and leaves it as it was. */
bool fvi_grow(fv_context *ctx, void **array, int64_t *capacity, int64_t need, size_t size);
/* A terminated copy of s[0..size), or of what stands before a zero byte in it; release with fvi_strfree. */
char *fvi_strdup(fv_context *ctx, const char *s, size_t size);
void fvi_strfree(fv_context *ctx, char *s);

/* ---- arithmetic ---- */

static inline int64_t fvi_min(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t fvi_max(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t fvi_ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
static inline int64_t fvi_round_up(int64_t a, int64_t to) { return fvi_ceil_div(a, to) * to; }
/* Bits that are set: without the instruction, which common code may not use, the builtin is a call. */
static inline int fvi_count_bits(uint64_t x) {
    x -= x >> 1 & 0x5555555555555555u;
    x = (x & 0x3333333333333333u) + (x >> 2 & 0x3333333333333333u);
    x = (x + (x >> 4)) & 0x0f0f0f0f0f0f0f0fu;
    return (int)(x * 0x0101010101010101u >> 56);
}
/* false on overflow */
static inline bool fvi_mul(size_t a, size_t b, size_t *out) { return !__builtin_mul_overflow(a, b, out); }
static inline bool fvi_add(size_t a, size_t b, size_t *out) { return !__builtin_add_overflow(a, b, out); }

fvi_cpu fvi_cpu_detect(void);
double fvi_seconds(void); /* monotonic */

/* ---- half types: bit patterns in uint16_t ---- */

float fvi_f16_to_f32(uint16_t h);
uint16_t fvi_f32_to_f16(float f); /* to nearest even; overflow gives infinity */
static inline float fvi_bf16_to_f32(uint16_t h) {
    union {
        uint32_t u;
        float f;
    } x = {.u = (uint32_t)h << 16};
    return x.f;
}
uint16_t fvi_f32_to_bf16(float f); /* to nearest even; NaN stays NaN */

#endif
