/* rowop_inline.h - the bodies of rowop.h in plain C without branches. Each level's file compiles them for its instructions; since
 * contraction is off everywhere, all levels give the same bits. */
#ifndef FVI_ROWOP_INLINE_H
#define FVI_ROWOP_INLINE_H

#include "kernel/rowop.h"

#include <string.h>

static inline float rowop_power_of_two(uint32_t n) {
    uint32_t bits = (n + 127) << 23;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* exp(x) = 2^n exp(r) with |r| <= ln(2) / 2, where the series up to r^7 is off by less than 2^-27. n comes from the low digits of
 * a sum with 1.5 * 2^23; 2^n is applied in two halves, so that results near both ends of the range stay right. */
static inline float rowop_exp(float x) {
    const float magic = 0x1.8p23f;
    x = x < -104.0f ? -104.0f : x;
    x = x > 89.0f ? 89.0f : x;
    float sum = x * 0x1.715476p0f + magic;
    uint32_t digits;
    memcpy(&digits, &sum, sizeof digits);
    uint32_t n = digits - 0x4b400000u;
    float whole = sum - magic;
    float r = x - whole * 0x1.62ep-1f; /* exact: the constant has 13 digits */
    r -= whole * 0x1.0bfbe8p-15f;
    float p = 1.0f / 5040;
    p = p * r + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = 1.0f + (r + r * r * p);
    uint32_t half = (uint32_t)((int32_t)n >> 1);
    return p * rowop_power_of_two(half) * rowop_power_of_two(n - half);
}

static inline void rowop_swiglu(int64_t n, const float *gate, const float *up, float *out) {
    for (int64_t i = 0; i < n; i++) {
        out[i] = gate[i] / (1.0f + rowop_exp(-gate[i])) * up[i];
    }
}

static inline void rowop_exp_shift(int64_t n, const float *x, float shift, float *out) {
    for (int64_t i = 0; i < n; i++) {
        out[i] = rowop_exp(x[i] - shift);
    }
}

#endif
