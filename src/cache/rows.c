/* rows.c - conversions without branches, so that the compiler makes vectors of them.
 *
 * All pairs of different types go through f32, which holds both half types exactly: one rounding, to nearest even.
 */
#include "cache/rows.h"

#include <string.h>

typedef union bits {
    uint32_t u;
    float f;
} bits;

static inline float wide_f16(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, magnitude = h & 0x7fffu;
    bits small = {.u = magnitude << 13};
    small.f *= 0x1p112f; /* subnormal halves are normal floats, scaled by the difference of the exponents' biases */
    bits x = {.u = sign | (magnitude >= 0x7c00u ? 0x7f800000u | (magnitude & 0x3ffu) << 13 : small.u)};
    return x.f;
}

static inline float wide_bf16(uint16_t h) {
    bits x = {.u = (uint32_t)h << 16};
    return x.f;
}

/* Signed compares of magnitudes: they are below 2^31, and SSE2 has no unsigned ones. */
static inline uint16_t narrow_f16(float f) {
    bits x = {.f = f};
    uint32_t sign = x.u >> 16 & 0x8000u, u = x.u & 0x7fffffffu;
    int32_t a = (int32_t)u;
    bits tiny = {.u = u};
    tiny.f += 0.5f; /* the adder rounds at the last place of a subnormal half */
    uint32_t r = (u + 0xfffu + (u >> 13 & 1u) - 0x38000000u) >> 13;
    r = a < 0x38800000 ? tiny.u - 0x3f000000u : r;
    r = a >= 0x477ff000 ? 0x7c00u : r;
    r = a > 0x7f800000 ? 0x7e00u | (u >> 13 & 0x3ffu) : r;
    return (uint16_t)(sign | r);
}

static inline uint16_t narrow_bf16(float f) {
    bits x = {.f = f};
    uint32_t r = (x.u + 0x7fffu + (x.u >> 16 & 1u)) >> 16;
    r = (int32_t)(x.u & 0x7fffffffu) > 0x7f800000 ? x.u >> 16 | 0x40u : r;
    return (uint16_t)r;
}

static void copy_4(void *to, const void *from, int64_t n) { memcpy(to, from, (size_t)n * 4); }
static void copy_2(void *to, const void *from, int64_t n) { memcpy(to, from, (size_t)n * 2); }

static void f16_from_f32(void *restrict to, const void *restrict from, int64_t n) {
    uint16_t *restrict y = to;
    const float *restrict x = from;
    for (int64_t i = 0; i < n; i++) {
        y[i] = narrow_f16(x[i]);
    }
}

static void bf16_from_f32(void *restrict to, const void *restrict from, int64_t n) {
    uint16_t *restrict y = to;
    const float *restrict x = from;
    for (int64_t i = 0; i < n; i++) {
        y[i] = narrow_bf16(x[i]);
    }
}

static void f32_from_f16(void *restrict to, const void *restrict from, int64_t n) {
    float *restrict y = to;
    const uint16_t *restrict x = from;
    for (int64_t i = 0; i < n; i++) {
        y[i] = wide_f16(x[i]);
    }
}

static void f32_from_bf16(void *restrict to, const void *restrict from, int64_t n) {
    float *restrict y = to;
    const uint16_t *restrict x = from;
    for (int64_t i = 0; i < n; i++) {
        y[i] = wide_bf16(x[i]);
    }
}

static void bf16_from_f16(void *restrict to, const void *restrict from, int64_t n) {
    uint16_t *restrict y = to;
    const uint16_t *restrict x = from;
    for (int64_t i = 0; i < n; i++) {
        y[i] = narrow_bf16(wide_f16(x[i]));
    }
}

static void f16_from_bf16(void *restrict to, const void *restrict from, int64_t n) {
    uint16_t *restrict y = to;
    const uint16_t *restrict x = from;
    for (int64_t i = 0; i < n; i++) {
        y[i] = narrow_f16(wide_bf16(x[i]));
    }
}

fvi_row_move fvi_row_move_find(const fvi_cpu *cpu, fv_dtype to, fv_dtype from) {
    static const fvi_row_move move[3][3] = {
        [FV_F32] = {[FV_F32] = copy_4, [FV_F16] = f32_from_f16, [FV_BF16] = f32_from_bf16},
        [FV_F16] = {[FV_F32] = f16_from_f32, [FV_F16] = copy_2, [FV_BF16] = f16_from_bf16},
        [FV_BF16] = {[FV_F32] = bf16_from_f32, [FV_F16] = bf16_from_f16, [FV_BF16] = copy_2},
    };
#if defined(__x86_64__)
    if (cpu->avx2 && to == FV_F16 && from == FV_F32) {
        return fvi_row_f16_from_f32_avx2;
    }
#endif
    (void)cpu;
    return (unsigned)to < 3 && (unsigned)from < 3 ? move[to][from] : NULL;
}
