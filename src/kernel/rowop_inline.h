/* rowop_inline.h - the bodies of rowop.h in plain C without branches. Each level's file compiles them for its instructions; since
 * contraction is off everywhere, all levels give the same bits. */
#ifndef FVI_ROWOP_INLINE_H
#define FVI_ROWOP_INLINE_H

#include "kernel/rowop.h"

#if defined(__AVX512F__)
#include <immintrin.h>
#endif
#include <math.h>
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

enum { ROWOP_LANES = 16 };

/* The sum of 16 lanes, folded by halves. */
static inline float rowop_fold(float *lane) {
    for (int half = ROWOP_LANES / 2; half > 0; half /= 2) {
        for (int l = 0; l < half; l++) {
            lane[l] += lane[l + half];
        }
    }
    return lane[0];
}

static inline float rowop_squares(int64_t d, const float *x) {
    float lane[ROWOP_LANES] = {0};
    int64_t i = 0;
    for (; i + ROWOP_LANES <= d; i += ROWOP_LANES) {
        for (int l = 0; l < ROWOP_LANES; l++) {
            lane[l] += x[i + l] * x[i + l];
        }
    }
    for (int l = 0; i + l < d; l++) {
        lane[l] += x[i + l] * x[i + l];
    }
    return rowop_fold(lane);
}

static inline void rowop_add(int64_t n, float *x, const float *y) {
    for (int64_t i = 0; i < n; i++) {
        x[i] += y[i];
    }
}

static inline void rowop_scale(int64_t n, const float *x, float by, float *out) {
    for (int64_t i = 0; i < n; i++) {
        out[i] = x[i] * by + 0.0f;
    }
}

static inline void rowop_mix(int64_t n, float *restrict x, float a, const float *restrict y, float b) {
    for (int64_t i = 0; i < n; i++) {
        x[i] = x[i] * a + y[i] * b;
    }
}

static inline void rowop_hide(int64_t rows, const uint64_t *seen, float *s) {
    for (int64_t r = 0; r < rows; r++, s += 64) {
#if defined(__AVX512F__)
        for (int i = 0; i < 4 && seen[r] != UINT64_MAX; i++) {
            _mm512_mask_storeu_ps(s + 16 * i, (__mmask16) ~(seen[r] >> (16 * i)), _mm512_set1_ps(-INFINITY));
        }
#else
        for (int j = 0; j < 64 && seen[r] != UINT64_MAX; j++) {
            s[j] = seen[r] >> j & 1 ? s[j] : -INFINITY;
        }
#endif
    }
}

static inline void rowop_norm(int64_t d, const float *x, const float *weight, float eps, float *y) {
    float scale = 1.0f / sqrtf(rowop_squares(d, x) / (float)d + eps);
    for (int64_t i = 0; i < d; i++) {
        y[i] = x[i] * scale * weight[i];
    }
}

static inline void rowop_turn_pairs(int64_t d, const float *restrict cos_sin, float *restrict x) {
    for (int64_t j = 0; j < d; j += 2) {
        float c = cos_sin[j], s = cos_sin[j + 1], a = x[j], b = x[j + 1];
        x[j] = a * c - b * s;
        x[j + 1] = a * s + b * c;
    }
}

static inline void rowop_turn_halves(int64_t d, const float *restrict cos_sin, float *restrict x) {
    float *restrict upper = x + d / 2;
    for (int64_t j = 0; j < d / 2; j++) {
        float c = cos_sin[2 * j], s = cos_sin[2 * j + 1], a = x[j], b = upper[j];
        x[j] = a * c - b * s;
        upper[j] = a * s + b * c;
    }
}

#endif
